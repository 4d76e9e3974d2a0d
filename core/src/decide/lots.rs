//! Lots: which are taken, in which order, and what that does to the counters of their level.
//!
//! Where a level has lots, each entry that moves its units says which lots they lie in
//! (`Entry::lots`), and whatever is promised is bound to lots as it is promised: earliest date
//! first, those without a date last. A lot past its time is worth nothing to a buyer from that
//! moment on (`Level::spoiled`); that is booked into `unsellable` later, by an entry of its own.

use std::collections::BTreeMap;

use super::work::{Work, blank, own_key};
use super::{Decision, LotChange};
use crate::facts::{
    Entry, Facts, Hold, Level, LevelId, Lot, LotMove, Micros, NEVER, Operation, Units,
};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, NamedLot, Request};
use crate::standing::LineStanding;
use crate::units;

/// Which lots units may be taken from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choice<'a> {
    /// This one alone; `None`: each.
    pub lot: Option<&'a Name>,
    /// Those that last so long, beside what their level demands.
    pub min_life: Micros,
    /// Those that may not be promised, too: for whoever counts, moves or takes them away.
    pub is_any: bool,
}

impl<'a> Choice<'a> {
    /// What a line of an order asks for.
    pub fn of(lot: Option<&'a Name>, min_life: Option<Micros>) -> Self {
        Choice { lot, min_life: min_life.unwrap_or(0), is_any: false }
    }

    /// A lot as it is; without one those that may be promised.
    pub fn to_move(lot: Option<&'a Name>) -> Self {
        Choice { lot, min_life: 0, is_any: lot.is_some() }
    }

    /// Whether it asks for more than what may be promised.
    pub fn is_narrow(&self) -> bool {
        self.lot.is_some() || self.min_life > 0
    }

    fn admits(&self, lot: &Lot, level: &Level, now: Micros) -> bool {
        self.lot.is_none_or(|name| *name == lot.name)
            && (self.is_any || lot.may_be_promised(now, level.min_life.max(self.min_life)))
    }
}

/// What is promised of lots, or no longer.
pub(super) fn promises(taken: &Units, sign: i64) -> Vec<LotMove> {
    let moved = |(lot, units): &(Name, i64)| LotMove {
        lot: lot.clone(),
        reserved: sign * units,
        ..LotMove::default()
    };
    taken.iter().map(moved).collect()
}

/// What comes into lots or leaves them; where it leaves holds, their promises end.
pub(super) fn goods(taken: &Units, sign: i64, of_holds: bool) -> Vec<LotMove> {
    let moved = |(lot, units): &(Name, i64)| LotMove {
        lot: lot.clone(),
        on_hand: sign * units,
        reserved: if of_holds { sign * units } else { 0 },
        in_transit: 0,
    };
    taken.iter().map(moved).collect()
}

impl Work {
    /// Sorts the lots, and counts what of them nothing is promised of any more, overdue holds' units
    /// included.
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

    /// Whether each unit of a level lies in a lot.
    pub fn has_lots(&self, at: &LevelId) -> bool {
        self.level(at).is_some_and(Level::has_lots)
    }

    fn lots(&self, at: &LevelId) -> &[Lot] {
        self.facts.lots.get(at).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn lot(&self, at: &LevelId, name: &Name) -> Option<&Lot> {
        self.lots(at).iter().find(|lot| lot.name == *name)
    }

    fn admitted<'w>(
        &'w self,
        at: &LevelId,
        choice: &'w Choice<'w>,
    ) -> impl Iterator<Item = &'w Lot> {
        let (level, now) = (self.facts.levels.get(at), self.facts.now);
        let is_admitted =
            move |lot: &&Lot| level.is_some_and(|level| choice.admits(lot, level, now));
        self.facts.lots.get(at).into_iter().flatten().filter(is_admitted)
    }

    /// Units promised to nobody in the lots of a choice.
    pub fn pickable(&self, at: &LevelId, choice: &Choice) -> i64 {
        self.admitted(at, choice).map(|lot| lot.free().max(0)).sum()
    }

    /// So many free units of the lots of a choice, in their order; none where there are no lots.
    pub fn pick(&self, at: &LevelId, count: i64, choice: &Choice) -> Units {
        self.pick_after(at, count, choice, &[])
    }

    /// The same once some holds have given way.
    pub fn pick_after(&self, at: &LevelId, count: i64, choice: &Choice, gone: &[Hold]) -> Units {
        if !self.has_lots(at) {
            return Units::new();
        }
        let given = |lot: &Lot| {
            let of = |hold: &Hold| units::of(&hold.lots, &lot.name);
            gone.iter().map(of).sum::<i64>()
        };
        let (mut left, mut picked) = (count, Units::new());
        for lot in self.admitted(at, choice) {
            let part = left.min(lot.free() + given(lot));
            if part > 0 {
                picked.push((lot.name.clone(), part));
                left -= part;
            }
            if left == 0 {
                break;
            }
        }
        picked
    }

    /// The lots that a line's units there are bound to, in their order. What its entries do not
    /// tell of was promised before the level had lots.
    pub fn bound(&self, line: &LineStanding) -> Units {
        self.in_lots(&line.at, &line.held_lots, line.held - line.waiting)
    }

    /// The lots that a line's units left which were confirmed and have not come back.
    pub fn sold(&self, line: &LineStanding) -> Units {
        self.in_lots(&line.at, &line.sold_lots, line.returnable() - line.owed())
    }

    fn in_lots(&self, at: &LevelId, known: &Units, count: i64) -> Units {
        if !self.has_lots(at) {
            return Units::new();
        }
        let mut all = known.clone();
        units::add(&mut all, &Name::default(), count - units::total(known));
        let place = |lot: &Name| self.lots(at).iter().position(|known| known.name == *lot);
        all.sort_by_key(|(lot, _)| place(lot));
        all
    }

    /// What a buyer gets of an overdue hold: not what it has of lots that may not be promised.
    pub fn worth(&self, at: &LevelId, hold: &Hold) -> i64 {
        hold.quantity - self.worthless(at, &hold.lots)
    }

    fn worthless(&self, at: &LevelId, taken: &Units) -> i64 {
        let sellable = self.held_in(at, taken, &Choice::default());
        units::total(taken) - sellable
    }

    /// How many of some units lie in the lots of a choice.
    pub fn held_in(&self, at: &LevelId, taken: &Units, choice: &Choice) -> i64 {
        let is_admitted =
            |(name, _): &&(Name, i64)| self.admitted(at, choice).any(|lot| lot.name == *name);
        taken.iter().filter(is_admitted).map(|(_, units)| units).sum()
    }

    /// The same of the units of a hold: as many of them as lie in lots that may be promised.
    pub fn worth_of(&self, at: &LevelId, taken: i64, lots: &Units) -> i64 {
        taken - self.worthless(at, lots)
    }

    /// What of lots a line of a reservation holds changes.
    pub fn bind(&mut self, (key, line): (&Name, i32), moves: &[LotMove]) {
        for moved in moves.iter().filter(|moved| moved.reserved != 0) {
            let place = (key.clone(), line, moved.lot.clone());
            *self.effects.held_lots.entry(place).or_default() += moved.reserved;
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
        self.make_lot(at, &NamedLot { name: Name::default(), best_before: None });
        let first = LotMove { on_hand, reserved, ..LotMove::default() };
        self.change_lot(at, &Name::default(), |lot| {
            (lot.on_hand, lot.reserved) = (on_hand, reserved);
        });
        vec![first]
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
    pub fn freeze_lot(&mut self, at: &LevelId, name: &Name, frozen: bool, entry: &mut Entry) {
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

    /// Where goods of lots, as they are at another level, come to: each in the lot of its name. A
    /// level that has none yet begins to have lots where one of these has a name.
    ///
    /// # Errors
    /// As of [`post`](Work::post).
    pub fn land(
        &mut self,
        request: &Request,
        line: &Line,
        arriving: &[(Lot, i64)],
    ) -> Result<Vec<LotMove>, Fault> {
        let at = &line.at;
        let is_named = arriving.iter().any(|(lot, _)| !lot.name.is_empty());
        if !self.has_lots(at) && !is_named {
            return Ok(Vec::new());
        }
        self.track(request, line.number, at)?;
        let named: i64 = arriving.iter().map(|(_, units)| units).sum();
        // What comes from where there are no lots.
        let mut moves = match line.quantity - named {
            0 => Vec::new(),
            rest => self.unnamed_goods(at, rest),
        };
        for (lot, units) in arriving {
            let named = NamedLot { name: lot.name.clone(), best_before: lot.best_before };
            self.make_lot(at, &named);
            // What was called back there is called back here.
            if lot.frozen && self.lot(at, &lot.name).is_some_and(|known| !known.frozen) {
                self.post(Entry {
                    operation_key: self.next_own_key(at),
                    lot: Some(lot.name.clone()),
                    ..self.entry(request, Operation::FreezeLot, line.number, at, 0)
                })?;
            }
            match moves.iter_mut().find(|moved| moved.lot == lot.name) {
                Some(moved) => moved.on_hand += units,
                None => moves.extend(goods(&vec![(lot.name.clone(), *units)], 1, false)),
            }
        }
        Ok(moves)
    }

    /// Goods that came without a lot.
    pub fn unnamed_goods(&mut self, at: &LevelId, count: i64) -> Vec<LotMove> {
        self.make_lot(at, &NamedLot { name: Name::default(), best_before: None });
        goods(&vec![(Name::default(), count)], 1, false)
    }

    /// Lets a level have lots, where it has none.
    ///
    /// # Errors
    /// As of [`post`](Work::post).
    pub fn track(&mut self, request: &Request, line: i32, at: &LevelId) -> Result<(), Fault> {
        if self.has_lots(at) {
            return Ok(());
        }
        self.post(Entry {
            operation_key: self.next_own_key(at),
            ..self.entry(request, Operation::TrackLots, line, at, 0)
        })
    }

    /// An operation key of ours for the entry that raises a level to its next version; one key may
    /// do the same to several levels. No name has a tab in it.
    fn next_own_key(&self, at: &LevelId) -> Name {
        let own = own_key(self.level(at).map_or(1, |level| level.version + 1));
        Name::from([own.as_bytes(), at.sku.as_bytes(), at.location.as_bytes()].join(&b'\t'))
    }

    /// What keeps lots of another level from coming here.
    pub fn check_dates(&self, at: &LevelId, arriving: &[(Lot, i64)]) -> Result<(), Outcome> {
        let is_twin =
            |lot: &Lot, other: &Lot| other.name == lot.name && other.best_before != lot.best_before;
        let is_other = |lot: &Lot| {
            self.lot(at, &lot.name).is_some_and(|known| is_twin(lot, known))
                || arriving.iter().any(|(other, _)| is_twin(lot, other))
        };
        match arriving.iter().any(|(lot, _)| is_other(lot)) {
            true => Err(Outcome::LotConflict),
            false => Ok(()),
        }
    }

    /// Some units with their lots as they are at a level.
    pub fn as_lots(&self, at: &LevelId, taken: &Units) -> Vec<(Lot, i64)> {
        let lot = |(name, units): &(Name, i64)| Some((self.lot(at, name)?.clone(), *units));
        taken.iter().filter_map(lot).collect()
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
