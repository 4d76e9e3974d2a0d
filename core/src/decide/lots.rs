//! Lots as a decision reads them: which are taken, in which order, and what a hold of them is
//! worth.
//!
//! Where a level has lots, each entry that moves its units says which lots they lie in
//! (`Entry::lots`), and whatever is promised is bound to lots as it is promised: earliest date
//! first, those without a date last.

use super::choice::Choice;
use super::work::Work;
use crate::facts::{Entry, Hold, Level, LevelId, Lot, Units};
use crate::fault::Fault;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::standing::LineStanding;
use crate::units;

impl Work {
    /// Whether each unit of a level lies in a lot.
    pub fn has_lots(&self, at: &LevelId) -> bool {
        self.level(at).is_some_and(Level::has_lots)
    }

    pub fn lots(&self, at: &LevelId) -> &[Lot] {
        self.facts.lots.get(at).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn lot(&self, at: &LevelId, name: &Name) -> Option<&Lot> {
        self.lots(at).iter().find(|lot| lot.name == *name)
    }

    /// A lot that is named must be there.
    pub fn check_lot(&self, at: &LevelId, named: Option<&Name>) -> Result<(), Outcome> {
        match named {
            Some(name) if self.lot(at, name).is_none() => Err(Outcome::UnknownLot),
            _ => Ok(()),
        }
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
        // What came back to another lot than it came from is missing from the last ones.
        units::first(&all, count)
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

    /// Posts an entry that changes what a line of its key's reservation holds of lots.
    ///
    /// # Errors
    /// As of [`post`](Work::post).
    pub fn post_bound(&mut self, line: i32, entry: Entry) -> Result<(), Fault> {
        for moved in entry.lots.iter().filter(|moved| moved.reserved != 0) {
            let place = (entry.key.clone(), line, moved.lot.clone());
            *self.effects.held_lots.entry(place).or_default() += moved.reserved;
        }
        self.post(entry)
    }
}
