//! Holds as they are opened, shrunk, put off and closed; and the overdue ones that give way.

use std::collections::HashSet;

use super::HoldChange;
use super::choice::{Choice, promises};
use super::work::{Place, Work, blank};
use crate::facts::{Entry, Hold, LevelId, Micros, Operation, Units};
use crate::fault::Fault;
use crate::name::Name;
use crate::request::Request;
use crate::standing::{LineStanding, own_key};
use crate::units;

/// Units taken out of a hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// How many.
    pub units: i64,
    /// How many of them waited.
    pub waited: i64,
    /// Of which lots those were that did not.
    pub lots: Units,
}

impl Taken {
    /// A hold without them.
    pub fn leave(&self, hold: &mut Hold) {
        hold.quantity -= self.units;
        hold.waiting -= self.waited;
        for (lot, count) in &self.lots {
            units::give_up(&mut hold.lots, lot, *count);
        }
    }
}

impl Work {
    /// The overdue holds, earliest deadline first, that cover a shortage of what may be promised;
    /// `None` where they cannot, empty where there is none. Holds of the key `but` are left alone.
    ///
    /// Nobody waits for units that are there but for overdue holds: these give way for the units of
    /// `(wanted, unpromised)` that are not there, too, as far as it helps.
    pub fn cover(
        &self,
        at: &LevelId,
        shortage: i64,
        (wanted, unpromised): (i64, i64),
        but: Option<&Name>,
    ) -> Option<Vec<Hold>> {
        let gives = |hold: &&Hold| Some(&hold.key) != but && self.worth(at, hold) > 0;
        let holds = || self.facts.overdue.get(at).into_iter().flatten().filter(gives);
        let missing = wanted - unpromised;
        if wanted > 0 && missing > shortage {
            let all = covering(holds(), missing, |hold| self.worth(at, hold));
            let all = all.unwrap_or_else(|| holds().cloned().collect());
            let covered: i64 = all.iter().map(|hold| self.worth(at, hold)).sum();
            if covered >= shortage && unpromised + covered > 0 {
                return Some(all);
            }
        }
        covering(holds(), shortage, |hold| self.worth(at, hold))
    }

    /// The overdue holds that cover what is short for a line that asks for certain lots: it never
    /// waits. Holds of the key `but` are left alone.
    pub fn cover_narrow(
        &self,
        at: &LevelId,
        wanted: i64,
        choice: &Choice,
        unpromised: i64,
        but: Option<&Name>,
    ) -> Option<Vec<Hold>> {
        if self.has_lots(at) {
            return self.cover_in_lots(at, wanted, choice, unpromised, but);
        }
        self.cover(at, wanted - unpromised, (0, 0), but)
    }

    /// The overdue holds that cover what some lots are short of, and what the level is.
    fn cover_in_lots(
        &self,
        at: &LevelId,
        wanted: i64,
        choice: &Choice,
        unpromised: i64,
        but: Option<&Name>,
    ) -> Option<Vec<Hold>> {
        let is_others = |hold: &&Hold| Some(&hold.key) != but;
        let holds = || self.facts.overdue.get(at).into_iter().flatten().filter(is_others);
        let in_lots = |hold: &Hold| self.held_in(at, &hold.lots, choice);
        let has_some = |hold: &&Hold| in_lots(hold) > 0;
        let missing = wanted - self.pickable(at, choice);
        let mut taken = covering(holds().filter(has_some), missing, in_lots)?;
        let covered: i64 = taken.iter().map(|hold| self.worth(at, hold)).sum();
        let known: HashSet<(Name, i32)> =
            taken.iter().map(|hold| (hold.key.clone(), hold.line)).collect();
        let others = holds().filter(|hold| !known.contains(&(hold.key.clone(), hold.line)));
        let worth = |hold: &Hold| self.worth(at, hold);
        let has_worth = |hold: &&Hold| worth(hold) > 0;
        taken.extend(covering(others.filter(has_worth), wanted - unpromised - covered, worth)?);
        Some(taken)
    }

    /// The overdue holds that cover what lots are short of for goods that leave them: whether they
    /// may be promised does not matter.
    pub fn cover_goods(&self, at: &LevelId, wanted: i64, choice: &Choice) -> Option<Vec<Hold>> {
        self.cover_in_lots(at, wanted, choice, wanted, None)
    }

    /// The same for a shortage of what is there: units that wait cover nothing of it.
    pub fn cover_there(&self, at: &LevelId, shortage: i64) -> Option<Vec<Hold>> {
        let holds = self.facts.overdue.get(at).into_iter().flatten();
        let has_some = |hold: &&Hold| hold.quantity > hold.waiting;
        covering(holds.filter(has_some), shortage, |hold| hold.quantity - hold.waiting)
    }

    /// Closes overdue holds.
    pub fn expire(&mut self, holds: Vec<Hold>) -> Result<(), Fault> {
        for hold in holds {
            let entry = Entry {
                lots: promises(&hold.lots, -1),
                operation_key: own_key(hold.expires_at),
                reserved_delta: hold.waiting - hold.quantity,
                waiting_delta: -hold.waiting,
                buyer: hold.buyer.clone(),
                expires_at: Some(hold.expires_at),
                ..blank(
                    hold.key.clone(),
                    Operation::Expire,
                    hold.line,
                    Some(hold.at.clone()),
                    hold.quantity,
                    self.facts.now,
                )
            };
            self.post_bound(hold.line, entry)?;
            let line = (&hold.key, hold.line, &hold.at);
            let held = (false, hold.promise);
            self.wait(line, held, hold.waiting, -hold.waiting, Place::Last);
            let taken =
                Taken { units: hold.quantity, waited: hold.waiting, lots: hold.lots.clone() };
            self.shrink(line, hold.quantity, &taken, hold.expires_at);
        }
        Ok(())
    }

    /// How much of an overdue hold of one's own is as good as free to oneself: not what it has of
    /// lots that nothing is promised of any more. Where a line asked for certain lots, all or
    /// nothing.
    pub fn own(&self, line: &LineStanding) -> i64 {
        if !line.overdue {
            return 0;
        }
        let worth = self.worth_of(&line.at, line.held, &self.bound(line));
        let is_narrow = Choice::of(line.lot.as_ref(), line.min_life).is_narrow();
        if is_narrow && worth < line.held { 0 } else { worth }
    }

    /// A lapsed hold that has units of lots that nothing is promised of any more is given up, as if
    /// it were swept, before its line is promised anew.
    pub fn let_go_of_spoiled(
        &mut self,
        request: &Request,
        line: &LineStanding,
    ) -> Result<LineStanding, Fault> {
        if !line.overdue || self.own(line) == line.held {
            return Ok(line.clone());
        }
        self.expire(vec![Hold {
            key: request.key.clone(),
            line: line.line,
            at: line.at.clone(),
            quantity: line.held,
            waiting: line.waiting,
            promise: line.promise,
            buyer: line.buyer.clone(),
            expires_at: line.deadline,
            reserved_at: line.reserved_at,
            lots: self.bound(line),
        }])?;
        Ok(LineStanding {
            held: 0,
            waiting: 0,
            expired: line.expired + line.held,
            held_lots: Units::new(),
            overdue: false,
            ..line.clone()
        })
    }

    /// Opens a hold.
    pub fn open(&mut self, hold: Hold) {
        if let Some(level) = self.facts.levels.get_mut(&hold.at) {
            level.next_due = level.next_due.min(hold.expires_at);
        }
        self.effects.opened.push(hold);
    }

    /// Takes units out of a hold, some of which may have waited, and closes it with the last one.
    pub fn shrink(
        &mut self,
        (key, line, at): (&Name, i32, &LevelId),
        held: i64,
        taken: &Taken,
        deadline: Micros,
    ) {
        let rest = held - taken.units;
        if deadline <= self.facts.now {
            self.shrink_overdue((key, line, at), taken);
            self.shrink_lapsed((key, line, at), taken);
        }
        if rest <= 0 {
            self.leave(at, deadline);
        }
        self.effects.changed.push(HoldChange {
            key: key.clone(),
            line,
            quantity_before: held,
            after: (rest > 0).then_some((rest, deadline)),
        });
    }

    fn shrink_overdue(&mut self, (key, line, at): (&Name, i32, &LevelId), taken: &Taken) {
        let worth = self.worth_of(at, taken.units, &taken.lots);
        if let Some(level) = self.facts.levels.get_mut(at) {
            level.overdue -= worth;
        }
        // The holds that give way are mostly the earliest: these are found, and leave, at the front
        // of the queue.
        let Some(holds) = self.facts.overdue.get_mut(at) else { return };
        let Some(place) = holds.iter().position(|hold| hold.key == *key && hold.line == line)
        else {
            return;
        };
        taken.leave(&mut holds[place]);
        if holds[place].quantity <= 0 {
            holds.remove(place);
        }
    }

    /// Puts the deadline of a hold off; one that was overdue is in force again.
    pub fn put_off(&mut self, key: &Name, line: &LineStanding, deadline: Micros) {
        if line.overdue {
            let taken = Taken { units: line.held, waited: line.waiting, lots: self.bound(line) };
            self.shrink_overdue((key, line.line, &line.at), &taken);
            self.revive_lapsed((key, line.line, &line.at));
            // Its level is written, so that a transaction with an older snapshot sees that
            // something changed there.
            self.effects.bounds.insert(line.at.clone());
            if let Some(buyer) = &line.buyer {
                *self.facts.bought.entry((line.at.clone(), buyer.clone())).or_default() +=
                    line.held;
            }
        }
        self.leave(&line.at, line.deadline);
        self.effects.changed.push(HoldChange {
            key: key.clone(),
            line: line.line,
            quantity_before: line.held,
            after: Some((line.held, deadline)),
        });
    }

    /// Notes that a hold with this deadline ends or moves: where it was the earliest, the next one
    /// must be found.
    pub fn leave(&mut self, at: &LevelId, deadline: Micros) {
        if self.facts.levels.get(at).is_some_and(|level| deadline <= level.next_due) {
            self.effects.bounds.insert(at.clone());
        }
    }
}

/// The first holds that are worth so much together; `None` where all are not.
fn covering<'a>(
    holds: impl Iterator<Item = &'a Hold>,
    shortage: i64,
    worth: impl Fn(&Hold) -> i64,
) -> Option<Vec<Hold>> {
    let (mut missing, mut taken) = (shortage, Vec::new());
    for hold in holds {
        if missing <= 0 {
            break;
        }
        missing -= worth(hold);
        taken.push(hold.clone());
    }
    (missing <= 0).then_some(taken)
}
