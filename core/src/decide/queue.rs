//! Who waits for what is not there yet, and who gets what has come.
//!
//! A line takes what is there first; the rest waits, in the queue of its level, oldest promise
//! first. Whatever makes units free pays the queue in the same decision, so that nobody who comes
//! later overtakes: `Level::free` counts what is waited for as gone. Paying changes what is free by
//! nothing, so that it changes no other part of a decision. A queue is read only as far as it is
//! paid: a decision that lacks some of it says how many units are left (`Decision::unpaid`), and is
//! made again with that much.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::choice::{Choice, goods, promises};
use super::holds::Taken;
use super::work::{Place, Work, blank};
use super::{Decision, WaitChange};
use crate::facts::{Entry, Facts, LevelId, Operation, Wait};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::standing::own_key;

/// The heads of queues.
pub type Queues = HashMap<LevelId, VecDeque<Wait>>;

/// Decides with as much of the queues as it takes. `read` reads their heads, with so many units
/// each or all that there are, as far as one call may pay.
///
/// # Errors
/// Those of what decides and what reads.
pub fn with_queues<E>(
    mut facts: Facts,
    decide: impl Fn(Facts) -> Result<Decision, E>,
    read: impl Fn(&BTreeMap<LevelId, i64>) -> Result<Queues, E>,
) -> Result<Decision, E> {
    if facts.levels.values().all(|level| level.waiting == 0) {
        return decide(facts);
    }
    let mut need: BTreeMap<LevelId, i64> = BTreeMap::new();
    loop {
        let decision = decide(facts.clone())?;
        for (at, units) in &decision.unpaid {
            // Some of what was read may have been given up in the same call.
            let known = facts.queues.get(at).into_iter().flatten();
            let known: i64 = known.map(|wait| wait.quantity).sum();
            need.insert(at.clone(), known + units);
        }
        let places = |queues: &Queues| queues.values().map(VecDeque::len).sum::<usize>();
        let known = places(&facts.queues);
        if decision.unpaid.is_empty() || known >= limits::LINES_MAX {
            return Ok(decision);
        }
        facts.queues = read(&need)?;
        if places(&facts.queues) == known {
            return Ok(decision);
        }
    }
}

impl Work {
    /// More or fewer units of a line wait; `waiting` of them did.
    pub fn wait(
        &mut self,
        (key, line, at): (&Name, i32, &LevelId),
        (sold, promise): (bool, i32),
        waiting: i64,
        by: i64,
        place: Place,
    ) {
        if by == 0 {
            return;
        }
        let after = waiting + by;
        let all = self.level(at).map_or(0, |level| level.waiting);
        // Where nobody else waits the queue is known without reading it.
        if all == after {
            self.facts.queues.entry(at.clone()).or_default();
        }
        if let Some(queue) = self.facts.queues.get_mut(at) {
            let (key, lapsed) = (key.clone(), None);
            let wait = Wait { key, line, quantity: after, sold, promise, lapsed };
            match waiting {
                0 => take_place(queue, wait, place, all),
                _ => change_place(queue, wait),
            }
        }
        let id = (key.clone(), line, sold, promise);
        match self.waits.get(&id) {
            Some(&known) => self.effects.waits[known].after = after,
            None => {
                self.waits.insert(id, self.effects.waits.len());
                self.effects.waits.push(WaitChange {
                    key: key.clone(),
                    line,
                    at: at.clone(),
                    sold,
                    promise,
                    before: waiting,
                    after,
                    inherits: place == Place::Inherited,
                });
            }
        }
    }

    /// Pays the queues of the levels on which entries, from one on, have made units free.
    pub fn pay(&mut self, mark: usize) -> Result<(), Fault> {
        for place in mark..self.mark() {
            let entry = &self.effects.entries[place];
            let is_waited_for = |at: &&LevelId| self.level(at).is_some_and(|at| at.waiting > 0);
            if let Some(at) = entry.at.as_ref().filter(|_| entry.frees()).filter(is_waited_for) {
                self.pay_level(&at.clone())?;
            }
        }
        Ok(())
    }

    /// Gives what is there to those who wait for it.
    pub fn pay_level(&mut self, at: &LevelId) -> Result<(), Fault> {
        self.unpaid.remove(at);
        loop {
            let payable = self.level(at).map_or(0, |level| level.payable());
            if payable == 0 {
                return Ok(());
            }
            let first = self.facts.queues.get(at).and_then(VecDeque::front).cloned();
            let Some(first) = first.filter(|_| self.paid < limits::LINES_MAX) else {
                self.unpaid.insert(at.clone(), payable);
                return Ok(());
            };
            self.paid += 1;
            match first.lapsed.clone() {
                // Nothing is promised to it any more; the next in the queue comes before it.
                Some(lapsed) => self.expire(vec![lapsed])?,
                None => self.supply(at, &first, payable.min(first.quantity))?,
            }
        }
    }

    /// What has come for a line is held for it; where it is sold it leaves the stock.
    fn supply(&mut self, at: &LevelId, to: &Wait, units: i64) -> Result<(), Fault> {
        // A line may be supplied several times; the version of its level tells these apart.
        let version = self.level(at).map_or(0, |level| level.version + 1);
        let (key, now) = (to.key.clone(), self.facts.now);
        let lots = self.pick(at, units, &Choice::default());
        let entry = Entry {
            lots: if to.sold { goods(&lots, -1, false) } else { promises(&lots, 1) },
            operation_key: own_key(version),
            on_hand_delta: if to.sold { -units } else { 0 },
            reserved_delta: if to.sold { 0 } else { units },
            waiting_delta: -units,
            ..blank(key, Operation::Supply, to.line, Some(at.clone()), units, now)
        };
        self.post_bound(to.line, entry)?;
        let line = (&to.key, to.line, at);
        self.wait(line, (to.sold, to.promise), to.quantity, -units, Place::Last);
        Ok(())
    }

    /// An overdue hold that has a place became smaller.
    pub fn shrink_lapsed(&mut self, line: (&Name, i32, &LevelId), taken: &Taken) {
        self.places_of(line)
            .filter_map(|place| place.lapsed.as_mut())
            .for_each(|hold| taken.leave(hold));
    }

    /// A hold that has a place is in force again.
    pub fn revive_lapsed(&mut self, line: (&Name, i32, &LevelId)) {
        self.places_of(line).for_each(|place| place.lapsed = None);
    }

    fn places_of(
        &mut self,
        (key, line, at): (&Name, i32, &LevelId),
    ) -> impl Iterator<Item = &mut Wait> {
        let places = self.facts.queues.get_mut(at).into_iter().flatten();
        places.filter(move |place| (&place.key, place.line) == (key, line))
    }
}

fn is_of_line(wait: &Wait, other: &Wait) -> bool {
    (&wait.key, wait.line) == (&other.key, other.line)
}

/// A new place. Behind all others it is only known to be where all others were read: with it they
/// are all that waits on the level.
fn take_place(queue: &mut VecDeque<Wait>, wait: Wait, place: Place, all: i64) {
    let held = queue.iter().position(|other| is_of_line(&wait, other) && !other.sold);
    match (place, held) {
        (Place::Inherited, Some(held)) => queue.insert(held, wait),
        (Place::Inherited, None) => {}
        (Place::Last, _) => {
            let known: i64 = queue.iter().map(|other| other.quantity).sum();
            if known + wait.quantity == all {
                queue.push_back(wait);
            }
        }
    }
}

/// A place at which other units wait now. Where it is not found it lies behind what was read.
fn change_place(queue: &mut VecDeque<Wait>, wait: Wait) {
    let is_it = |other: &Wait| {
        is_of_line(&wait, other) && (other.sold, other.promise) == (wait.sold, wait.promise)
    };
    let Some(place) = queue.iter().position(is_it) else { return };
    match wait.quantity {
        0 => drop(queue.remove(place)),
        quantity => queue[place].quantity = quantity,
    }
}
