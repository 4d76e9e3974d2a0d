//! Each judgement, by standings and answers made by hand.

use pg_stock_core::facts::{LevelId, NEVER};
use pg_stock_core::settle::{Mismatch, Order, Status, Verdict, judge, requests, verdicts};
use pg_stock_core::standing::{Claim, LineStanding, Standing};
use pg_stock_core::{Answer, Outcome, State};

/// A line of which so many units were reserved, confirmed, released, expired and returned; the rest
/// is held.
fn line(quantity: i64, confirmed: i64, released: i64, expired: i64, returned: i64) -> LineStanding {
    LineStanding {
        line: 1,
        at: LevelId { sku: "s".into(), location: "l".into() },
        buyer: None,
        quantity,
        held: quantity - confirmed - released - expired,
        confirmed,
        waiting: 0,
        owed: Vec::new(),
        promise: 0,
        released,
        expired,
        returned,
        lot: None,
        min_life: None,
        held_lots: Vec::new(),
        sold_lots: Vec::new(),
        reserved_at: 0,
        deadline: NEVER,
        overdue: false,
    }
}

fn answer(request: i32, outcome: Outcome, replayed: bool) -> Answer {
    Answer {
        request,
        line: 1,
        key: "k".into(),
        at: None,
        quantity: 1,
        outcome,
        state: State::None,
        available: None,
        version: None,
        expires_at: None,
        replayed,
        opens_at: None,
        backordered: 0,
        there: None,
    }
}

/// The mismatch of a reservation with these lines, and whether it agrees.
fn judged(
    status: Status,
    lines: Vec<LineStanding>,
    answers: &[Answer],
) -> (Option<Mismatch>, bool) {
    let verdict = judge(status, &Standing { claim: Claim::Reserved, lines }, answers);
    (verdict.mismatch, verdict.agrees)
}

#[test]
fn a_paid_order_that_this_call_confirmed_agrees_from_now_on() {
    let all = || vec![line(3, 3, 0, 0, 0), line(1, 1, 0, 0, 0)];
    let in_time = [answer(1, Outcome::Confirmed, false)];
    assert_eq!(judged(Status::Paid, all(), &in_time), (Some(Mismatch::PaidNotConfirmed), true));
    let late = [answer(1, Outcome::Confirmed, false), answer(1, Outcome::ConfirmedLate, false)];
    assert_eq!(judged(Status::Paid, all(), &late), (Some(Mismatch::PaidButExpired), true));
    for outcome in [Outcome::Confirmed, Outcome::ConfirmedLate] {
        assert_eq!(
            judged(Status::Paid, all(), &[answer(1, outcome, true)]),
            (None, true),
            "a repeat"
        );
    }
    assert_eq!(
        judged(Status::Paid, all(), &[answer(1, Outcome::AlreadyConfirmed, false)]),
        (None, true)
    );
}

#[test]
fn a_paid_order_that_cannot_be_put_right_says_why() {
    let cases = [
        (vec![line(3, 3, 0, 0, 1)], Mismatch::PaidButReturned),
        (vec![line(3, 3, 0, 0, 0), line(2, 0, 0, 2, 0)], Mismatch::PaidButExpired),
        (vec![line(3, 0, 3, 0, 0), line(2, 0, 0, 2, 0)], Mismatch::PaidButExpired),
        (vec![LineStanding { overdue: true, ..line(3, 0, 0, 0, 0) }], Mismatch::PaidButExpired),
        (vec![line(3, 0, 3, 0, 0)], Mismatch::PaidButReleased),
        (vec![line(3, 2, 1, 0, 0)], Mismatch::PaidInPart),
        (vec![line(3, 0, 3, 0, 0), line(1, 1, 0, 0, 0)], Mismatch::PaidInPart),
        (vec![line(3, 2, 0, 0, 0)], Mismatch::PaidInPart),
        (vec![line(3, 2, 1, 0, 2)], Mismatch::PaidInPart),
    ];
    for (lines, mismatch) in cases {
        let answers = [answer(1, Outcome::Confirmed, false)];
        assert_eq!(
            judged(Status::Paid, lines.clone(), &answers),
            (Some(mismatch), false),
            "{lines:?}"
        );
    }
    let unknown = [answer(1, Outcome::UnknownReservation, false)];
    let meanwhile = vec![line(3, 0, 0, 0, 0)];
    assert_eq!(judged(Status::Paid, meanwhile, &unknown), (Some(Mismatch::PaidButUnknown), false));
}

#[test]
fn a_paid_order_without_a_reservation_never_agrees() {
    for (claim, outcome, mismatch) in [
        (Claim::Free, Outcome::UnknownReservation, Mismatch::PaidButUnknown),
        (Claim::Cancelled, Outcome::AlreadyReleased, Mismatch::PaidButReleased),
    ] {
        let verdict =
            judge(Status::Paid, &Standing { claim, lines: vec![] }, &[answer(1, outcome, false)]);
        assert_eq!(verdict, Verdict { outcome, mismatch: Some(mismatch), agrees: false });
    }
}

#[test]
fn a_cancelled_order_agrees_unless_units_are_gone() {
    let released = [answer(1, Outcome::Released, false)];
    let held = vec![line(3, 0, 3, 0, 0)];
    assert_eq!(
        judged(Status::Cancelled, held.clone(), &released),
        (Some(Mismatch::CancelledButHeld), true)
    );
    assert_eq!(
        judged(Status::Cancelled, held, &[answer(1, Outcome::Released, true)]),
        (None, true)
    );
    let gone = vec![line(3, 1, 2, 0, 0)];
    assert_eq!(
        judged(Status::Cancelled, gone, &released),
        (Some(Mismatch::CancelledButConfirmed), false)
    );
    let back = vec![line(3, 3, 0, 0, 3)];
    assert_eq!(
        judged(Status::Cancelled, back, &[answer(1, Outcome::AlreadyConfirmed, false)]),
        (None, true)
    );
    let lapsed = vec![line(3, 0, 0, 3, 0)];
    assert_eq!(
        judged(Status::Cancelled, lapsed, &[answer(1, Outcome::ReservationExpired, false)]),
        (None, true)
    );
}

#[test]
fn one_outcome_is_told_the_first_refusal_by_precedence() {
    let told = |outcomes: &[Outcome]| {
        let answers: Vec<Answer> =
            outcomes.iter().map(|outcome| answer(1, *outcome, false)).collect();
        judge(Status::Paid, &Standing { claim: Claim::Reserved, lines: vec![] }, &answers)
            .outcome
            .word()
    };
    assert_eq!(told(&[Outcome::Confirmed, Outcome::ConfirmedLate]), "confirmed");
    let refused = [Outcome::NotApplied, Outcome::LevelFrozen, Outcome::ReservationExpired];
    assert_eq!(told(&refused), "reservation_expired");
    assert_eq!(told(&[Outcome::NotApplied]), "not_applied");
}

#[test]
fn each_order_is_judged_by_its_own_answers() {
    let order = |key: &str, status| Order { key: key.into(), status };
    let orders =
        [order("a", Status::Paid), order("b", Status::Cancelled), order("c", Status::Paid)];
    let requests = requests(&orders);
    assert_eq!(requests.iter().map(|request| request.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(requests.iter().all(|request| request.operation_key == "pg_stock:settle".into()));
    let standing = |line| Standing { claim: Claim::Reserved, lines: vec![line] };
    let standings = [
        standing(line(1, 1, 0, 0, 0)),
        standing(line(1, 0, 1, 0, 0)),
        standing(line(1, 1, 0, 0, 0)),
    ];
    let answers = [
        answer(1, Outcome::Confirmed, true),
        answer(2, Outcome::Released, false),
        answer(3, Outcome::Confirmed, false),
        answer(3, Outcome::ConfirmedLate, false),
    ];
    let mismatches: Vec<_> = verdicts(&orders, &standings.map(Some), &answers)
        .iter()
        .map(|verdict| verdict.mismatch)
        .collect();
    assert_eq!(
        mismatches,
        [None, Some(Mismatch::CancelledButHeld), Some(Mismatch::PaidButExpired)]
    );
}
