//! What an entry does to the lots of its level, and to what of it may be sold.
//!
//! A lot past its time is worth nothing to a buyer from that moment on (`Level::unbooked`); that is
//! booked into `unsellable` later, by an entry of its own.

use std::collections::BTreeMap;

use super::work::{Work, blank};
use super::{Decision, LotChange};
use crate::facts::{Entry, Facts, Level, LevelId, Lot, LotMove, NEVER, Operation};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::request::NamedLot;

impl Work {
    /// Sorts the lots, and counts what of them nothing is promised of any more, the units of
    /// overdue holds included.
    pub fn take_in_lots(&mut self) {
        let known: Vec<LevelId> = self.facts.lots.keys().cloned().collect();
        for at in known {
            if let Some(lots) = self.facts.lots.get_mut(&at) {
                lots.sort_by(|a, b| a.rank().cmp(&b.rank()));
            }
            self.settle_lots(&at);
            self.count_overdue(&at);
        }
    }

    /// What of overdue holds is free to others. (Of a level with lots all of them are known.)
    fn count_overdue(&mut self, at: &LevelId) {
        let holds = self.facts.overdue.get(at).into_iter().flatten();
        let overdue = holds.map(|hold| self.worth(at, hold)).sum();
        if let Some(level) = self.facts.levels.get_mut(at) {
            level.overdue = overdue;
        }
    }

    /// Carries out what an entry does to lots, and counts what that makes unsellable.
    pub fn post_lots(&mut self, at: &LevelId, entry: &mut Entry) {
        if entry.operation == Operation::TrackLots && !self.has_lots(at) {
            entry.lots = self.begin_lots(at);
        } else if self.has_lots(at) {
            for moved in entry.lots.clone() {
                self.move_lot(at, &moved, entry);
            }
            match (entry.operation, entry.lot.clone()) {
                (Operation::FreezeLot, Some(lot)) => self.freeze_lot(at, &lot, true, entry),
                (Operation::UnfreezeLot, Some(lot)) => self.freeze_lot(at, &lot, false, entry),
                (Operation::Spoil, _) => self.book(at, entry),
                (Operation::SetLimits, _)
                    if entry.min_life.is_some() || entry.near_expiry.is_some() =>
                {
                    self.book(at, entry);
                }
                _ => {}
            }
        }
        self.settle_lots(at);
        let what_may_be_sold =
            [Operation::FreezeLot, Operation::UnfreezeLot, Operation::SetLimits, Operation::Spoil];
        let is_new = self.effects.tracked.contains(at);
        if self.has_lots(at) && !is_new && what_may_be_sold.contains(&entry.operation) {
            self.count_overdue(at);
        }
    }

    /// All that lies on a level becomes its first lot, which has no name.
    fn begin_lots(&mut self, at: &LevelId) -> Vec<LotMove> {
        let Some(level) = self.facts.levels.get_mut(at) else { return Vec::new() };
        level.next_spoil = Some(NEVER);
        let (on_hand, reserved) = (level.on_hand, level.reserved);
        self.effects.tracked.insert(at.clone());
        self.facts.lots.entry(at.clone()).or_default();
        let overdue = self.facts.overdue.get_mut(at).into_iter().flatten();
        let places = self.facts.queues.get_mut(at).into_iter().flatten();
        for hold in overdue.chain(places.filter_map(|place| place.lapsed.as_mut())) {
            hold.lots = vec![(Name::default(), hold.quantity - hold.waiting)];
            hold.lots.retain(|(_, units)| *units > 0);
        }
        if on_hand == 0 {
            return Vec::new();
        }
        self.make_unnamed_lot(at);
        let first = LotMove { on_hand, reserved, ..LotMove::default() };
        self.change_lot(at, &Name::default(), |lot| {
            (lot.on_hand, lot.reserved) = (on_hand, reserved);
        });
        vec![first]
    }

    /// Makes the lot of what comes without one, unless it is there.
    pub fn make_unnamed_lot(&mut self, at: &LevelId) {
        self.make_lot(at, &NamedLot { name: Name::default(), best_before: None });
    }

    /// Makes a lot of which there is nothing yet, unless it is there.
    pub fn make_lot(&mut self, at: &LevelId, named: &NamedLot) {
        if self.lot(at, &named.name).is_some() {
            return;
        }
        let lot = Lot {
            name: named.name.clone(),
            best_before: named.best_before,
            on_hand: 0,
            reserved: 0,
            frozen: false,
            spoiled: false,
            received_at: self.facts.now,
        };
        let place = (at.clone(), lot.name.clone());
        self.effects.lots.insert(place, LotChange::to(None, lot.clone()));
        let lots = self.facts.lots.entry(at.clone()).or_default();
        let place = lots.partition_point(|other| other.rank() < lot.rank());
        lots.insert(place, lot);
    }

    fn change_lot(&mut self, at: &LevelId, name: &Name, change: impl FnOnce(&mut Lot)) {
        let lots = self.facts.lots.get_mut(at).into_iter().flatten();
        let Some(lot) = lots.into_iter().find(|lot| lot.name == *name) else { return };
        let before = lot.clone();
        change(lot);
        let after = lot.clone();
        let place = (at.clone(), name.clone());
        let known =
            self.effects.lots.entry(place).or_insert(LotChange::to(Some(before), after.clone()));
        known.after = after;
    }

    fn move_lot(&mut self, at: &LevelId, moved: &LotMove, entry: &mut Entry) {
        if moved.on_hand == 0 && moved.reserved == 0 {
            return;
        }
        self.change_lot(at, &moved.lot, |lot| {
            lot.on_hand += moved.on_hand;
            lot.reserved += moved.reserved;
            if lot.is_booked() {
                entry.unsellable_delta += moved.on_hand - moved.reserved;
            }
        });
    }

    /// Freezes a lot, or lets it go.
    fn freeze_lot(&mut self, at: &LevelId, name: &Name, frozen: bool, entry: &mut Entry) {
        self.change_lot(at, name, |lot| {
            let before = lot.is_booked();
            lot.frozen = frozen;
            entry.unsellable_delta += lot.free() * (i64::from(lot.is_booked()) - i64::from(before));
        });
    }

    /// Books what is past its time. What was booked stays so, unless the level demands less life
    /// now.
    fn book(&mut self, at: &LevelId, entry: &mut Entry) {
        let (Some(level), now) = (self.level(at), self.facts.now) else { return };
        let (min_life, is_kept) = (level.min_life, entry.operation == Operation::Spoil);
        let is_due = |lot: &&Lot| !is_kept || lot.due(min_life).is_some_and(|due| due <= now);
        let names: Vec<Name> =
            self.lots(at).iter().filter(is_due).map(|lot| lot.name.clone()).collect();
        for name in names {
            self.change_lot(at, &name, |lot| {
                let before = lot.is_booked();
                lot.spoiled = lot.spoils_at(min_life) <= now || is_kept && lot.spoiled;
                let by = i64::from(lot.is_booked()) - i64::from(before);
                entry.unsellable_delta += lot.free() * by;
            });
        }
    }

    /// Counts what is past its time and not booked, and finds when there is more.
    fn settle_lots(&mut self, at: &LevelId) {
        let (Some(level), now) = (self.facts.levels.get_mut(at), self.facts.now) else { return };
        if !level.has_lots() {
            return;
        }
        let lots = self.facts.lots.get(at).map(Vec::as_slice).unwrap_or_default();
        let due = |lot: &&Lot| lot.due(level.min_life).is_some_and(|due| due <= now);
        level.unbooked = lots.iter().filter(due).map(Lot::free).sum();
        let min_life = level.min_life;
        level.next_spoil =
            Some(lots.iter().filter_map(|lot| lot.due(min_life)).min().unwrap_or(NEVER));
    }
}

/// Levels with what of them is past its time, and what of overdue holds is worth something.
pub fn counted(facts: Facts) -> BTreeMap<LevelId, Level> {
    Work::new(facts).facts.levels
}

/// Books the free units of lots that are past their time as unsellable, level by level: what
/// `expire_lots` does.
///
/// # Errors
/// None today.
pub fn spoil(facts: Facts) -> Result<Decision, Fault> {
    let levels: Vec<LevelId> = facts.levels.keys().cloned().collect();
    let mut work = Work::new(facts);
    for at in levels {
        let Some(level) = work.level(&at) else { continue };
        let now = work.facts.now;
        if level.next_spoil.is_none_or(|next| next > now) {
            continue;
        }
        let units = level.unbooked;
        let past = work
            .lots(&at)
            .iter()
            .filter(|lot| lot.due(level.min_life).is_some_and(|due| due <= now));
        // They move nothing: they tell which lots it is about.
        let lots = past.map(|lot| LotMove { lot: lot.name.clone(), ..LotMove::default() });
        let entry = Entry {
            operation_key: work.next_own_key(&at),
            lots: lots.collect(),
            ..blank(limits::SPOIL_KEY.into(), Operation::Spoil, 1, Some(at.clone()), units, now)
        };
        work.post(entry)?;
    }
    Ok(work.into_decision(Vec::new(), None))
}
