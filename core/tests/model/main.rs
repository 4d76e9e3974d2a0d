//! The rules against a naive model: random operations must be answered alike, and the stored
//! effects must keep the invariants, after every step.

mod database;
mod lots;
mod naive;

use database::Database;
use naive::Naive;
use pg_stock_core::facts::{ALWAYS, LevelId, NEVER};
use pg_stock_core::limits::SECOND;
use pg_stock_core::{Action, Answer, Limits, Line, Load, Name, Outcome, Request};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Run(Request),
    Batch(Vec<Request>),
    Wait(i64),
    RetakeLapsed(bool),
    MaxHold(Option<i64>),
    /// What a sweeper does: closes the overdue holds of a level.
    Sweep(LevelId),
}

fn name(prefix: &'static str, count: u8) -> impl Strategy<Value = Name> {
    (0..count).prop_map(move |number| Name::from(format!("{prefix}{number}").as_str()))
}

fn level() -> impl Strategy<Value = LevelId> {
    (name("s", 2), name("l", 2)).prop_map(|(sku, location)| LevelId { sku, location })
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    vec((level(), 1..5i64, option::weighted(0.1, 0..6i64)), 1..3).prop_map(|lines| {
        let mut kept: Vec<Line> = Vec::new();
        for (at, quantity, expected_version) in lines {
            if kept.iter().all(|line| line.at != at) {
                let line = Line::new(kept.len() as i32 + 1, at, quantity);
                kept.push(Line { expected_version, ..line });
            }
        }
        kept
    })
}

/// Versions are left to single requests: the naive model learns them between steps.
fn without_versions(lines: Vec<Line>) -> Vec<Line> {
    lines.into_iter().map(|line| Line { expected_version: None, ..line }).collect()
}

fn reserve(lines: impl Strategy<Value = Vec<Line>>) -> impl Strategy<Value = Action> {
    (
        lines,
        option::weighted(0.8, (1..4i64).prop_map(|n| n * SECOND)),
        option::weighted(0.5, name("b", 2)),
    )
        .prop_map(|(lines, ttl, buyer)| Action::Reserve { lines, ttl, buyer, min_life: None })
}

fn some_lines() -> impl Strategy<Value = Option<Vec<Line>>> {
    option::weighted(0.4, lines())
}

/// Windows open and end within the seconds that a history takes, or are lifted.
fn limits() -> impl Strategy<Value = Limits> {
    let bound = |lifts| {
        let moment = (0..30i64).prop_map(|n| n * SECOND);
        option::weighted(0.3, prop_oneof![2 => moment, 1 => Just(lifts)])
    };
    let units = || (option::of(0..3i64), option::of(0..6i64), option::of(0..8i64));
    (units(), bound(ALWAYS), bound(NEVER)).prop_map(
        |((safety_stock, buyer_limit, backorder_limit), on_sale_from, on_sale_until)| Limits {
            safety_stock,
            buyer_limit,
            backorder_limit,
            on_sale_from,
            on_sale_until,
            ..Limits::default()
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => reserve(lines()),
        4 => some_lines().prop_map(|lines| Action::Confirm { lines }),
        4 => some_lines().prop_map(|lines| Action::Release { lines }),
        2 => some_lines().prop_map(|lines| Action::Return { lines }),
        2 => (1..4i64).prop_map(|n| Action::Extend { ttl: n * SECOND }),
        1 => Just(Action::Reopen),
        3 => (level(), 1..8i64)
            .prop_map(|(at, quantity)| Action::Receive { at, quantity, lot: None }),
        1 => (level(), prop_oneof![-4..0i64, 1..4i64], option::weighted(0.2, 0..6i64))
            .prop_map(|(at, delta, expected_version)| {
                Action::Adjust { at, delta, expected_version, lot: None }
            }),
        1 => (level(), 0..8i64, option::weighted(0.2, 0..6i64))
            .prop_map(|(at, on_hand, expected_version)| {
                Action::Set { at, on_hand, expected_version, lot: None }
            }),
        1 => (name("s", 2), any::<bool>(), 1..5i64).prop_map(|(sku, there, quantity)| {
            let at = |location: &str| LevelId { sku: sku.clone(), location: location.into() };
            let (from, to) = if there { ("l0", "l1") } else { ("l1", "l0") };
            Action::Transfer { from: at(from), to: at(to), quantity, lot: None }
        }),
        2 => vec((name("s", 2), any::<bool>(), 1..5i64), 1..3)
            .prop_map(|loads| Action::Dispatch { loads: loads_of(loads) }),
        1 => some_lines().prop_map(|lines| Action::Arrive { lines }),
        1 => some_lines().prop_map(|lines| Action::Lose { lines }),
        1 => Just(Action::Recall),
        2 => (level(), limits()).prop_map(|(at, limits)| Action::SetLimits { at, limits }),
        1 => (level(), any::<bool>())
            .prop_map(|(at, freeze)| match freeze {
                true => Action::Freeze { at },
                false => Action::Unfreeze { at },
            }),
    ]
}

/// Loads from one of two locations to the other, each way once for each SKU.
fn loads_of(asked: Vec<(Name, bool, i64)>) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    for (sku, there, quantity) in asked {
        let at = |location: &str| LevelId { sku: sku.clone(), location: location.into() };
        let (from, to) = if there { ("l0", "l1") } else { ("l1", "l0") };
        let (from, to) = (at(from), at(to));
        if loads.iter().all(|load| (&load.from, &load.to) != (&from, &to)) {
            loads.push(Load { number: loads.len() as i32 + 1, from, to, quantity, lot: None });
        }
    }
    loads
}

fn request() -> impl Strategy<Value = Request> {
    (name("k", 4), action(), 0..3u8).prop_map(|(key, action, part)| {
        let operation_key = match part {
            part if part > 0 && action.follows_its_key() => Name::from(format!("p{part}").as_str()),
            _ => Name::default(),
        };
        Request {
            number: 1,
            key,
            operation_key,
            reason: Name::default(),
            context: Name::default(),
            action,
        }
    })
}

/// What may be asked at once: reserves, or confirms and releases under different keys.
fn batch() -> impl Strategy<Value = Vec<Request>> {
    let reserves = vec(
        (name("k", 4), reserve(lines().prop_map(without_versions)), Just(Name::default())),
        1..5,
    );
    prop_oneof![reserves, settlement()].prop_map(|requests| {
        (requests.into_iter().zip(1..))
            .map(|((key, action, operation_key), number)| Request {
                number,
                key,
                operation_key,
                reason: Name::default(),
                context: Name::default(),
                action,
            })
            .collect()
    })
}

/// Confirms and releases of some of the keys, each once, in any order.
fn settlement() -> impl Strategy<Value = Vec<(Name, Action, Name)>> {
    let keys: Vec<Name> = ["k0", "k1", "k2", "k3"].map(Name::from).into();
    let lines = || option::weighted(0.2, lines().prop_map(without_versions));
    let action = prop_oneof![
        2 => lines().prop_map(|lines| Action::Confirm { lines }),
        1 => lines().prop_map(|lines| Action::Release { lines }),
    ];
    (Just(keys).prop_shuffle(), vec((action, prop_oneof!["", "p1", "pg_stock:settle"]), 1..5))
        .prop_map(|(keys, asked)| {
            let named = |(key, (action, part)): (Name, (Action, String))| {
                (key, action, part.as_str().into())
            };
            keys.into_iter().zip(asked).map(named).collect()
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => request().prop_map(Step::Run),
        2 => batch().prop_map(Step::Batch),
        4 => (0..4i64).prop_map(|n| Step::Wait(n * SECOND)),
        1 => any::<bool>().prop_map(Step::RetakeLapsed),
        1 => option::of((1..8i64).prop_map(|n| n * SECOND)).prop_map(Step::MaxHold),
        2 => level().prop_map(Step::Sweep),
    ]
}

/// In some histories there is little to have at first, and more may be promised.
fn history() -> impl Strategy<Value = Vec<Step>> {
    let goods = (0..4i64, 0..9i64).prop_map(|(on_hand, backorder_limit)| {
        let mut first = Vec::new();
        for (sku, location) in [("s0", "l0"), ("s0", "l1"), ("s1", "l0"), ("s1", "l1")] {
            let at = LevelId { sku: sku.into(), location: location.into() };
            let limits = Limits { backorder_limit: Some(backorder_limit), ..Limits::default() };
            let set = Action::Set { at: at.clone(), on_hand, expected_version: None, lot: None };
            for action in [set, Action::SetLimits { at, limits }] {
                let key = format!("goods {sku} {location}");
                first.push(Step::Run(request_of(key.as_str().into(), action)));
            }
        }
        first
    });
    (option::weighted(0.6, goods), vec(step(), 1..80))
        .prop_map(|(first, steps)| first.into_iter().flatten().chain(steps).collect())
}

fn request_of(key: Name, action: Action) -> Request {
    Request {
        number: 1,
        key,
        operation_key: Name::default(),
        reason: Name::default(),
        context: Name::default(),
        action,
    }
}

/// How many random histories one run tries; each has about forty requests.
const HISTORIES: u32 = 10_000;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: HISTORIES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_rules_answer_as_the_naive_model_does(steps in history()) {
        let (mut database, mut naive) = (Database::default(), Naive::default());
        for step in &steps {
            match step {
                Step::Wait(micros) => {
                    database.now += micros;
                    naive.now += micros;
                }
                Step::RetakeLapsed(on) => {
                    database.retake_lapsed = *on;
                    naive.retake_lapsed = *on;
                }
                Step::MaxHold(most) => (database.max_hold, naive.max_hold) = (*most, *most),
                Step::Sweep(at) => database.sweep(at),
                Step::Run(request) => {
                    let got = database.try_run(std::slice::from_ref(request));
                    let expected = naive.run_all(std::slice::from_ref(request));
                    prop_assert_eq!(naive.seen(got), expected, "{:?}", request);
                }
                Step::Batch(requests) => {
                    let got = database.try_run(requests);
                    prop_assert_eq!(naive.seen(got), naive.run_all(requests), "{:?}", requests);
                }
            }
            database.check();
            naive.compare(&database);
        }
    }
}

/// What a batch decides in one go is what its requests decide one after the other, row for row.
#[test]
fn a_batch_equals_its_requests_in_turn() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: HISTORIES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let history = (history(), batch());
    runner
        .run(&history, |(steps, batch)| {
            let mut database = Database::default();
            for step in steps {
                match step {
                    Step::Wait(micros) => database.now += micros,
                    Step::Run(request) => drop(database.try_run(&[request])),
                    Step::Sweep(at) => database.sweep(&at),
                    _ => {}
                }
            }
            let mut in_turn = database.clone();
            let together = database.try_run(&batch);
            let one_by_one: Result<Vec<_>, _> = batch
                .iter()
                .map(|request| in_turn.try_run(std::slice::from_ref(request)))
                .collect();
            match (together, one_by_one) {
                (Ok(together), Ok(one_by_one)) => {
                    prop_assert_eq!(together, one_by_one.concat());
                    prop_assert_eq!(database.renumbered(), in_turn.renumbered());
                }
                (Err(fault), Err(same)) => prop_assert_eq!(fault.message, same.message),
                (together, one_by_one) => {
                    prop_assert!(false, "{:?} and {:?}", together, one_by_one)
                }
            }
            Ok(())
        })
        .unwrap();
}

/// A confirm of one line, then of the other without an operation key, at the same time of the
/// clock: "all that is open" is not what the first one asked for, whatever followed it.
#[test]
fn what_came_later_at_the_same_time_is_told_from_what_came_earlier() {
    let at = |location: &str| LevelId { sku: "s0".into(), location: location.into() };
    let line = |number, location| Line::new(number, at(location), 1);
    let request = |key: &str, operation_key: &str, action| Request {
        number: 1,
        key: key.into(),
        operation_key: operation_key.into(),
        reason: Name::default(),
        context: Name::default(),
        action,
    };
    let mut database = Database::default();
    for location in ["l0", "l1"] {
        database.run(&[request(
            location,
            "",
            Action::Receive { at: at(location), quantity: 1, lot: None },
        )]);
    }
    let reserve = Action::Reserve {
        lines: vec![line(1, "l1"), line(2, "l0")],
        ttl: Some(SECOND),
        buyer: None,
        min_life: None,
    };
    database.run(&[request("k0", "", reserve)]);
    database.run(&[request("k0", "p1", Action::Confirm { lines: Some(vec![line(1, "l0")]) })]);
    database.run(&[request("k0", "", Action::Confirm { lines: None })]);
    let outcomes =
        |answers: Vec<Answer>| answers.iter().map(|answer| answer.outcome).collect::<Vec<_>>();
    let all = |operation_key| request("k0", operation_key, Action::Confirm { lines: None });
    assert_eq!(outcomes(database.run(&[all("p1")])), [Outcome::KeyConflict, Outcome::KeyConflict]);
    assert_eq!(
        outcomes(database.run(&[all("")])),
        [Outcome::Confirmed],
        "the rest is what this one asked for"
    );
}

/// A late confirm takes the units of an overdue hold whose own confirm comes later in the same
/// batch.
#[test]
fn the_first_of_two_late_confirms_gets_the_units() {
    let at = LevelId { sku: "s0".into(), location: "l0".into() };
    let request = |number, key: &str, action| Request {
        number,
        key: key.into(),
        operation_key: Name::default(),
        reason: Name::default(),
        context: Name::default(),
        action,
    };
    let lines = vec![Line::new(1, at.clone(), 3)];
    let mut database = Database::default();
    database.run(&[request(1, "goods", Action::Receive { at, quantity: 3, lot: None })]);
    for key in ["k0", "k1"] {
        let lines = lines.clone();
        let reserve = Action::Reserve { lines, ttl: Some(SECOND), buyer: None, min_life: None };
        assert_eq!(database.run(&[request(1, key, reserve)])[0].outcome, Outcome::Reserved);
        database.now += SECOND;
    }
    let confirm = |number, key| request(number, key, Action::Confirm { lines: None });
    let batch = [confirm(1, "k0"), confirm(2, "k1")];
    let mut in_turn = database.clone();
    let together = database.run(&batch);
    let outcomes: Vec<Outcome> = together.iter().map(|answer| answer.outcome).collect();
    assert_eq!(outcomes, [Outcome::ConfirmedLate, Outcome::ReservationExpired]);
    let one_by_one: Vec<_> =
        batch.iter().flat_map(|request| in_turn.run(std::slice::from_ref(request))).collect();
    assert_eq!((together, &database), (one_by_one, &in_turn));
    database.check();
}
