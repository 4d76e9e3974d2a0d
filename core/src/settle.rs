//! Orders against reservations: what the shop says of an order, and whether the stock agrees.
//!
//! Orders are paid and never deducted, because the call that should have confirmed them was lost
//! (ARCHITECTURE, A4); old holds stay behind, and only the order table knows what became of them
//! (ARCHITECTURE, D4). So each order is first carried out as a confirm or a release, and then
//! judged by what its reservation has come to.

use std::collections::HashMap;

use crate::answer::Answer;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Action, Request};
use crate::standing::{Claim, LineStanding, Standing};

/// Operation key of what a settlement does: it claims its own confirm and release, once for each
/// order.
const OPERATION_KEY: &str = "pg_stock:settle";
/// Its reason.
const REASON: &str = "settle";

/// What the shop says of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The goods are sold.
    Paid,
    /// The goods are not wanted any more.
    Cancelled,
}

impl Status {
    /// Its word in the input and in the column `status`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Paid => "paid",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status of a word.
    pub fn from_word(word: &[u8]) -> Option<Status> {
        [Status::Paid, Status::Cancelled]
            .into_iter()
            .find(|status| status.word().as_bytes() == word)
    }
}

/// An order, and what the shop says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The key of its reservation.
    pub key: Name,
    /// What the shop says.
    pub status: Status,
}

impl Order {
    fn request(&self, number: i32) -> Request {
        let action = match self.status {
            Status::Paid => Action::Confirm { lines: None },
            Status::Cancelled => Action::Release { lines: None },
        };
        Request {
            number,
            key: self.key.clone(),
            operation_key: OPERATION_KEY.into(),
            reason: REASON.into(),
            context: Name::default(),
            action,
        }
    }
}

/// How the stock disagreed with an order. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mismatch {
    /// Paid, and still held: confirmed by this call.
    PaidNotConfirmed,
    /// Paid after the hold had lapsed: confirmed by this call, or not there any more.
    PaidButExpired,
    /// Paid, and given back before that.
    PaidButReleased,
    /// Paid, and only a part of it was confirmed.
    PaidInPart,
    /// Paid and confirmed, but some of it came back.
    PaidButReturned,
    /// Paid, and never reserved.
    PaidButUnknown,
    /// Cancelled, and still held: released by this call.
    CancelledButHeld,
    /// Cancelled, but confirmed and not returned.
    CancelledButConfirmed,
    /// The tables contradict each other on this key: nothing was done.
    Damaged,
}

impl Mismatch {
    /// Every mismatch.
    pub const ALL: [Mismatch; 9] = [
        Mismatch::PaidNotConfirmed,
        Mismatch::PaidButExpired,
        Mismatch::PaidButReleased,
        Mismatch::PaidInPart,
        Mismatch::PaidButReturned,
        Mismatch::PaidButUnknown,
        Mismatch::CancelledButHeld,
        Mismatch::CancelledButConfirmed,
        Mismatch::Damaged,
    ];

    /// Its word in the column `mismatch`.
    pub fn word(self) -> &'static str {
        match self {
            Mismatch::PaidNotConfirmed => "paid_not_confirmed",
            Mismatch::PaidButExpired => "paid_but_expired",
            Mismatch::PaidButReleased => "paid_but_released",
            Mismatch::PaidInPart => "paid_in_part",
            Mismatch::PaidButReturned => "paid_but_returned",
            Mismatch::PaidButUnknown => "paid_but_unknown",
            Mismatch::CancelledButHeld => "cancelled_but_held",
            Mismatch::CancelledButConfirmed => "cancelled_but_confirmed",
            Mismatch::Damaged => "damaged",
        }
    }
}

/// What is said of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the confirm or release came to: the first refusal by precedence, else the outcome of
    /// its first line.
    pub outcome: Outcome,
    /// How the stock disagreed when the call began, or still does; `None`: it agreed.
    pub mismatch: Option<Mismatch>,
    /// True where order and stock agree now.
    pub agrees: bool,
}

impl Verdict {
    /// That of an order whose key is damaged.
    pub const DAMAGED: Verdict =
        Verdict { outcome: Outcome::NotApplied, mismatch: Some(Mismatch::Damaged), agrees: false };
}

/// The confirms and releases that carry orders out, numbered from 1.
pub fn requests(orders: &[Order]) -> Vec<Request> {
    orders.iter().zip(1..).map(|(order, number)| order.request(number)).collect()
}

/// Judges orders whose [`requests`] have run: by the standing of each key afterwards, and by the
/// answers of all. A key that is damaged has no standing.
pub fn verdicts(
    orders: &[Order],
    standings: &[Option<Standing>],
    answers: &[Answer],
) -> Vec<Verdict> {
    let of: HashMap<i32, &[Answer]> = (answers.chunk_by(|one, next| one.request == next.request))
        .filter_map(|rows| Some((rows.first()?.request, rows)))
        .collect();
    (orders.iter().zip(standings).zip(1..))
        .map(|((order, standing), number)| match standing {
            Some(standing) => {
                judge(order.status, standing, of.get(&number).copied().unwrap_or_default())
            }
            None => Verdict::DAMAGED,
        })
        .collect()
}

/// Judges one order by what has become of its reservation, and by what its request was answered.
pub fn judge(status: Status, standing: &Standing, answers: &[Answer]) -> Verdict {
    let (mismatch, agrees) = match status {
        Status::Paid => paid(standing, answers),
        Status::Cancelled => cancelled(standing, answers),
    };
    Verdict { outcome: told(answers), mismatch, agrees }
}

/// A paid order agrees once all its units are confirmed and none came back.
fn paid(standing: &Standing, answers: &[Answer]) -> (Option<Mismatch>, bool) {
    let any = |what: fn(&LineStanding) -> bool| standing.lines.iter().any(what);
    match standing.claim {
        Claim::Free => (Some(Mismatch::PaidButUnknown), false),
        Claim::Cancelled => (Some(Mismatch::PaidButReleased), false),
        _ if any(|line| line.confirmed < line.quantity) => {
            (Some(missing(standing, answers)), false)
        }
        _ if any(|line| line.returned > 0) => (Some(Mismatch::PaidButReturned), false),
        _ if done(answers, Outcome::ConfirmedLate) => (Some(Mismatch::PaidButExpired), true),
        _ if done(answers, Outcome::Confirmed) => (Some(Mismatch::PaidNotConfirmed), true),
        _ => (None, true),
    }
}

/// Why units of a paid order are not confirmed.
fn missing(standing: &Standing, answers: &[Answer]) -> Mismatch {
    let any = |what: fn(&LineStanding) -> bool| standing.lines.iter().any(what);
    if answers.iter().any(|answer| answer.outcome == Outcome::UnknownReservation) {
        // It was reserved after the call had looked.
        Mismatch::PaidButUnknown
    } else if any(|line| line.lapsed() > 0) {
        Mismatch::PaidButExpired
    } else if any(|line| line.released > 0) && !any(|line| line.confirmed > 0) {
        Mismatch::PaidButReleased
    } else {
        Mismatch::PaidInPart
    }
}

/// A cancelled order agrees once no unit of it is gone. What lapsed is free, and so is what was
/// never reserved.
fn cancelled(standing: &Standing, answers: &[Answer]) -> (Option<Mismatch>, bool) {
    if standing.lines.iter().any(|line| line.returnable() > 0) {
        (Some(Mismatch::CancelledButConfirmed), false)
    } else {
        (done(answers, Outcome::Released).then_some(Mismatch::CancelledButHeld), true)
    }
}

/// True where this very call had the outcome on some line, not an earlier one that is repeated.
fn done(answers: &[Answer], outcome: Outcome) -> bool {
    answers.iter().any(|answer| answer.outcome == outcome && !answer.replayed)
}

/// One outcome for all lines. `not_applied` comes last by precedence, so that it is told only where
/// it is alone.
fn told(answers: &[Answer]) -> Outcome {
    let outcomes = || answers.iter().map(|answer| answer.outcome);
    let refusal = outcomes().filter(|outcome| outcome.is_refusal()).min();
    refusal.or_else(|| outcomes().next()).unwrap_or(Outcome::NotApplied)
}
