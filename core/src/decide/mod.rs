//! The rules: what a request changes, or why it changes nothing.
//!
//! **Overdue holds.** `level.next_due` is a lower bound of the deadlines of the level's holds.
//! While it lies in the future nobody looks at holds. Once it has passed, overdue units are counted
//! as free, and closed, earliest first, only as far as they turn a refusal into a yes, or a buyer
//! would wait for what is there but for them. Whatever ends or moves the earliest hold has the
//! bound looked up again, from the old bound on, before the level is written (`Effects::bounds`;
//! the model test checks that it stays exact). So a stretch of dead index entries, which an old
//! snapshot keeps alive, is passed over once, and not by each refusal. A reserve that finds units
//! enough without them is stored under its guard like any other; the guard then demands the version
//! with which the overdue units were counted, for they enter the answer.
//!
//! | room | what it decides |
//! |---|---|
//! | `reserve`, `close`, `extend`, `goods`, `road` | an operation each: reserve and sell; confirm, release, return, reopen; extend; what moves goods and sets limits; goods on the road |
//! | `departure` | whether the levels of a dispatch have what leaves them |
//! | `choice`, `lots` | which lots are taken; what a hold of them is worth |
//! | `shelf`, `landing` | what an entry does to lots, and lots past their time; goods that come to a level |
//! | `holds` | which overdue holds give way; holds as they open, shrink, and end |
//! | `queue` | who waits for what is not there, and who gets what has come |
//! | `work` | whether a line can be had (`take_free`, `take_again`), and what an entry does to its level |
//! | `parts`, `replay` | which units of a reservation a request means; whether it was there before |
//! | `needed` | how much of what is overdue must be read |
//! | `will_act` | whether a request changes something, as far as its key tells |

mod choice;
mod close;
mod departure;
mod extend;
mod goods;
mod holds;
mod landing;
mod lots;
mod needed;
mod parts;
mod queue;
mod replay;
mod reserve;
mod road;
mod shelf;
mod will_act;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Answer;
use crate::facts::{Entry, Facts, Hold, Level, LevelId, Lot, Micros};
use crate::fault::Fault;
use crate::name::Name;
use crate::request::{Action, Request};
pub use needed::overdue_needed;
pub use queue::{Queues, with_queues};
use reserve::Terms;
pub use shelf::{counted, spoil};
pub use will_act::will_act;
use work::Work;

/// What is answered, and what must be stored for the answers to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rows, in the order of the requests and their lines; none where nobody asked.
    pub answers: Vec<Answer>,
    /// What to store; empty for refusals and replays.
    pub effects: Effects,
    /// The condition under which the effects are right without a lock taken first, where one
    /// condition says it all.
    pub guard: Option<Guard>,
    /// Units that are there for those who wait, and could not be given to them: the queue was not
    /// read that far, or has too many lines for one call.
    pub unpaid: BTreeMap<LevelId, i64>,
}

/// What to store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// New ledger rows, in the order in which they happened.
    pub entries: Vec<Entry>,
    /// Levels that change.
    pub levels: BTreeMap<LevelId, LevelChange>,
    /// Holds that are opened.
    pub opened: Vec<Hold>,
    /// Holds that are closed, shrunk or extended.
    pub changed: Vec<HoldChange>,
    /// Levels whose `next_due` must be looked up again: the hold that it speaks of has ended or was
    /// extended.
    pub bounds: BTreeSet<LevelId>,
    /// Change of what each buyer holds and has bought of each level.
    pub bought: BTreeMap<(LevelId, Name), i64>,
    /// Places in queues that change, each once, in the order in which new ones were taken.
    pub waits: Vec<WaitChange>,
    /// Goods on the road that change, each once.
    pub shipped: Vec<LegChange>,
    /// Lots that change.
    pub lots: BTreeMap<(LevelId, Name), LotChange>,
    /// Levels that have lots from now on: what is held of them is held of the lot without a name.
    pub tracked: BTreeSet<LevelId>,
    /// By reservation, line and lot: the change of what is held of it.
    pub held_lots: BTreeMap<(Name, i32, Name), i64>,
}

impl Effects {
    /// True where there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One level that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelChange {
    /// As it was; `None`: the level is created.
    pub before: Option<Level>,
    /// As it will be.
    pub after: Level,
}

/// One lot that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LotChange {
    /// As it was; `None`: the lot is made.
    pub before: Option<Lot>,
    /// As it will be.
    pub after: Lot,
    /// When its free units will have to be booked as unsellable, if ever.
    pub spoils_at: Option<Micros>,
    /// When it is warned of that its date is near, if ever.
    pub warns_at: Option<Micros>,
}

impl LotChange {
    /// A change whose moments follow once all of them are known.
    fn to(before: Option<Lot>, after: Lot) -> Self {
        LotChange { before, after, spoils_at: None, warns_at: None }
    }
}

/// By how much the counters of a level change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Change of `on_hand`.
    pub on_hand: i64,
    /// Change of `reserved`.
    pub reserved: i64,
    /// Change of `waiting`.
    pub waiting: i64,
    /// Change of `version`.
    pub version: i64,
}

impl LevelChange {
    /// By how much the counters change.
    pub fn delta(&self) -> Delta {
        let by = |counter: fn(&Level) -> i64| {
            counter(&self.after) - self.before.as_ref().map_or(0, counter)
        };
        Delta {
            on_hand: by(|level| level.on_hand),
            reserved: by(|level| level.reserved),
            waiting: by(|level| level.waiting),
            version: by(|level| level.version),
        }
    }

    /// The level after the same change of what others have made of it, with a hold that is due
    /// then.
    pub fn onto(&self, actual: &Level, due: Micros) -> Level {
        let by = self.delta();
        Level {
            on_hand: actual.on_hand + by.on_hand,
            reserved: actual.reserved + by.reserved,
            waiting: actual.waiting + by.waiting,
            version: actual.version + by.version,
            next_due: actual.next_due.min(due),
            overdue: self.after.overdue,
            ..actual.clone()
        }
    }

    /// The level without this change, which was made. That a hold may be due as early as it says
    /// stays: others may have one.
    pub fn off(&self, actual: &Level) -> Level {
        let by = self.delta();
        Level {
            on_hand: actual.on_hand - by.on_hand,
            reserved: actual.reserved - by.reserved,
            waiting: actual.waiting - by.waiting,
            version: actual.version - by.version,
            ..actual.clone()
        }
    }
}

/// One open hold that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldChange {
    /// The reservation.
    pub key: Name,
    /// Its line.
    pub line: i32,
    /// The units it must have now.
    pub quantity_before: i64,
    /// Units and deadline afterwards; `None`: the hold is closed.
    pub after: Option<(i64, Micros)>,
}

/// A place in the queue of a level that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitChange {
    /// The reservation.
    pub key: Name,
    /// Its line.
    pub line: i32,
    /// Whose queue it is.
    pub at: LevelId,
    /// Whether the units are sold; else they are held.
    pub sold: bool,
    /// Which promise of the line it is.
    pub promise: i32,
    /// The units that must wait there now; 0: there is no such place.
    pub before: i64,
    /// The units that wait afterwards; 0: the place is given up.
    pub after: i64,
    /// Whether a new place is that of the same line's units that were held so far; else it is the
    /// last one.
    pub inherits: bool,
}

/// Goods on the road that change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegChange {
    /// The shipment.
    pub key: Name,
    /// Where the goods come from.
    pub from: LevelId,
    /// Where they go.
    pub to: LevelId,
    /// The units that must be on the way now; 0: there is no such leg.
    pub before: i64,
    /// The units that are on the way afterwards; 0: none, and the leg is forgotten.
    pub after: i64,
    /// When they left.
    pub dispatched_at: Micros,
}

/// The effects of a one-line reserve or sale hold if the level still has the units: checked on the
/// row as it is changed, so that nobody waits for a lock only in order to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The level.
    pub at: LevelId,
    /// Units it must have to promise.
    pub quantity: i64,
    /// Whether all of them wait; else all must be there.
    pub waits: bool,
    /// The version it must have, if the caller demands one.
    pub expected_version: Option<i64>,
    /// When it was decided.
    pub now: Micros,
    /// The level's `next_due` as it was read. If it lies in the future it must still do so. Else
    /// overdue holds were counted in the answer, and the level must be as it was: others may have
    /// given some of them back.
    pub next_due: Micros,
    /// The level's version as it was read.
    pub version: i64,
}

impl Guard {
    /// Whether the decision holds on the level as it is by now.
    pub fn admits(&self, level: &Level) -> bool {
        let as_due = if self.next_due > self.now {
            level.next_due > self.now
        } else {
            level.next_due == self.next_due && level.version == self.version
        };
        let there = level.unpromised();
        let is_split_alike = if self.waits { there <= 0 } else { there >= self.quantity };
        level.free() >= self.quantity
            && is_split_alike
            && !level.frozen
            && level.sale.is_open(self.now)
            && level.buyer_limit.is_none()
            && !level.has_lots()
            && as_due
            && self.expected_version.is_none_or(|version| version == level.version)
    }
}

/// Decides requests in order, each all or nothing, each on what the ones before it left.
///
/// Several requests at once are either all reserves, or confirms and releases under different keys.
///
/// # Errors
/// A [`Fault`] where a level would exceed 10^15 units. Nothing is decided then.
pub fn decide(facts: Facts, requests: &[Request]) -> Result<Decision, Fault> {
    let mut work = Work::new(facts);
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        answers.extend(decide_one(&mut work, request)?);
    }
    let guard = guard(&work, requests);
    Ok(work.into_decision(answers, guard))
}

/// Closes the overdue holds among the facts, level by level, earliest deadline first: what a sweep
/// does.
///
/// Whoever waits there gets the units.
///
/// # Errors
/// None today: giving units back exceeds no limit.
pub fn expire(mut facts: Facts) -> Result<Decision, Fault> {
    let now = facts.now;
    let mut overdue = std::mem::take(&mut facts.overdue);
    let holds = facts.levels.keys().filter_map(|at| overdue.remove(at)).flatten();
    let holds: Vec<Hold> = holds.filter(|hold| hold.expires_at <= now).collect();
    let mut work = Work::new(facts);
    work.expire(holds)?;
    work.pay(0)?;
    Ok(work.into_decision(Vec::new(), None))
}

/// Gives what is there to those who wait for it, level by level: what is left to do where a call
/// made units free for more lines than it could pay.
///
/// # Errors
/// None today, as of [`expire`].
pub fn pay(facts: Facts) -> Result<Decision, Fault> {
    let levels: Vec<LevelId> = facts.levels.keys().cloned().collect();
    let mut work = Work::new(facts);
    for at in levels {
        work.pay_level(&at)?;
    }
    Ok(work.into_decision(Vec::new(), None))
}

fn decide_one(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let mark = work.mark();
    let mut answers = match &request.action {
        Action::Reserve { lines, ttl, buyer, min_life } => {
            let terms = Terms { ttl: *ttl, buyer: buyer.as_ref(), min_life: *min_life };
            reserve::reserve(work, request, lines, terms)?
        }
        Action::Confirm { lines } => close::confirm(work, request, lines.as_deref())?,
        Action::Release { lines } => close::release(work, request, lines.as_deref())?,
        Action::Return { lines } => close::give_back(work, request, lines.as_deref())?,
        Action::Extend { ttl } => extend::extend(work, request, *ttl)?,
        Action::Reopen => close::reopen(work, request)?,
        Action::Dispatch { loads } => road::dispatch(work, request, loads)?,
        Action::Arrive { lines } | Action::Lose { lines } => {
            road::unload(work, request, lines.as_deref())?
        }
        Action::Recall => road::recall(work, request)?,
        _ => goods::decide(work, request)?,
    };
    work.pay(mark)?;
    work.finish(mark, request, &mut answers);
    Ok(answers)
}

/// The guard of a single one-line reserve or sale that needs nothing but free units.
fn guard(work: &Work, requests: &[Request]) -> Option<Guard> {
    let [Request { action: Action::Reserve { lines, .. }, .. }] = requests else { return None };
    let [line] = lines.as_slice() else { return None };
    let before = work.effects.levels.get(&line.at)?.before.as_ref()?;
    let is_plain =
        before.buyer_limit.is_none() && !before.has_lots() && work.effects.changed.is_empty();
    let (there, waits) = before.split(line.quantity);
    let is_whole = there == 0 || waits == 0;
    (is_plain && is_whole).then(|| Guard {
        at: line.at.clone(),
        quantity: line.quantity,
        waits: waits > 0,
        expected_version: line.expected_version,
        now: work.facts.now,
        next_due: before.next_due,
        version: before.version,
    })
}

impl Decision {
    /// True where a request is refused.
    pub fn is_refused(&self) -> bool {
        self.answers.iter().any(|answer| answer.outcome.is_refusal())
    }

    /// Moves a guarded decision onto the level as it was made of what others left: others may have
    /// changed the level since it was read, without making the decision wrong.
    pub fn rebase(&mut self, actual: &Level) {
        let Some(change) = self.effects.levels.values_mut().next() else { return };
        let moved = |old: i64, from: i64, to: i64| old + (to - from);
        let before = change.after.clone();
        if let Some(level) = &mut change.before {
            level.on_hand = moved(level.on_hand, before.on_hand, actual.on_hand);
            level.reserved = moved(level.reserved, before.reserved, actual.reserved);
            level.waiting = moved(level.waiting, before.waiting, actual.waiting);
            level.backorder_limit = actual.backorder_limit;
            level.version = moved(level.version, before.version, actual.version);
            level.safety_stock = actual.safety_stock;
            level.in_transit = actual.in_transit;
        }
        change.after = actual.clone();
        let now = self.guard.as_ref().map_or(0, |guard| guard.now);
        for entry in &mut self.effects.entries {
            entry.on_hand_after = moved(entry.on_hand_after, before.on_hand, actual.on_hand);
            entry.reserved_after = moved(entry.reserved_after, before.reserved, actual.reserved);
            entry.version = moved(entry.version, before.version, actual.version);
            entry.available = Some(actual.available(now));
        }
        for answer in &mut self.answers {
            answer.available = Some(actual.available(now));
            answer.version = Some(actual.version);
        }
    }
}
