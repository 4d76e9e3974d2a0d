//! What leaves the levels of a dispatch, and whether they have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::choice::Choice;
use super::goods;
use super::work::Work;
use crate::facts::{Hold, LevelId, Lot, Units};
use crate::outcome::Outcome;
use crate::request::{Line, Load};
use crate::units;

/// What leaves each level.
pub(super) struct Departures {
    /// Of each level: the first line that goods leave it by, and the overdue holds that give way to
    /// all of them, or why it has not enough.
    levels: BTreeMap<LevelId, (i32, Result<Vec<Hold>, Outcome>)>,
    /// The lots that leave, by line.
    picks: HashMap<i32, Vec<(Lot, i64)>>,
    /// Where lots would go that do not fit those that are there, or each other.
    unfit: BTreeSet<LevelId>,
}

pub(super) fn departures(work: &Work, loads: &[Load]) -> Departures {
    let mut by_level: BTreeMap<&LevelId, Vec<&Load>> = BTreeMap::new();
    for load in loads {
        by_level.entry(&load.from).or_default().push(load);
    }
    let mut departures =
        Departures { levels: BTreeMap::new(), picks: HashMap::new(), unfit: BTreeSet::new() };
    for (at, loads) in by_level {
        let covering = judge(work, at, &loads).map(|(covering, picks)| {
            departures.picks.extend(picks);
            covering
        });
        departures.levels.insert(at.clone(), (line_of(loads[0]), covering));
    }
    // All that goes somewhere under one key comes together.
    let mut bound: BTreeMap<&LevelId, Vec<(Lot, i64)>> = BTreeMap::new();
    for load in loads {
        bound.entry(&load.to).or_default().extend_from_slice(departures.picks(line_of(load)));
    }
    let is_unfit = |(to, picks): &(&LevelId, Vec<(Lot, i64)>)| work.check_dates(to, picks).is_err();
    departures.unfit = bound.into_iter().filter(is_unfit).map(|(to, _)| to.clone()).collect();
    departures
}

/// The line by which a load leaves.
fn line_of(load: &Load) -> i32 {
    2 * load.number - 1
}

impl Departures {
    /// The lots that leave by a line.
    pub fn picks(&self, line: i32) -> &[(Lot, i64)] {
        self.picks.get(&line).map(Vec::as_slice).unwrap_or_default()
    }

    /// Why goods cannot go to a level, if they cannot.
    pub fn arrival(&self, to: &LevelId) -> Result<(), Outcome> {
        if self.unfit.contains(to) { Err(Outcome::LotConflict) } else { Ok(()) }
    }

    /// The overdue holds that give way before goods leave by a line, if they can.
    pub fn covering(&self, line: &Line) -> Result<Vec<Hold>, Outcome> {
        match self.levels.get(&line.at) {
            Some((first, covering)) if *first == line.number => covering.clone(),
            Some((_, covering)) => covering.clone().map(|_| Vec::new()),
            None => Ok(Vec::new()),
        }
    }
}

type Picks = Vec<(i32, Vec<(Lot, i64)>)>;

fn judge(work: &Work, at: &LevelId, loads: &[&Load]) -> Result<(Vec<Hold>, Picks), Outcome> {
    let units = loads.iter().fold(0i64, |units, load| units.saturating_add(load.quantity));
    let covering = goods::judge_stock(work, at, None, |on_hand| on_hand.saturating_sub(units))?;
    loads.iter().try_for_each(|load| work.check_lot(at, load.lot.as_ref()))?;
    if !work.has_lots(at) {
        return Ok((covering, Vec::new()));
    }
    // Which overdue holds are in the way of which load is not asked: the earliest give way, twice
    // as many each time, until there is enough.
    let all: Vec<Hold> = work.facts.overdue.get(at).into_iter().flatten().cloned().collect();
    let counts = std::iter::successors(Some(1), |count| Some(count * 2));
    let counts = counts.take_while(|count| *count < all.len()).chain([all.len()]);
    for count in std::iter::once(0).chain(counts) {
        if let Some(picks) = picks(work, at, loads, &all[..count]) {
            return Ok((all[..count].to_vec(), picks));
        }
    }
    // What is there and may not be sold leaves by its name alone.
    let is_named = loads.iter().all(|load| load.lot.is_some());
    Err(if is_named { Outcome::BelowReserved } else { Outcome::LotRequired })
}

/// The lots that each load takes, those that name theirs first, once some holds have given way;
/// `None` where there is not enough.
fn picks(work: &Work, at: &LevelId, loads: &[&Load], gone: &[Hold]) -> Option<Picks> {
    let mut taken = Units::new();
    let mut picks = Picks::new();
    let (named, others): (Vec<&Load>, Vec<&Load>) =
        loads.iter().partition(|load| load.lot.is_some());
    for load in named.into_iter().chain(others) {
        let choice = Choice::to_move(load.lot.as_ref());
        let free = work.pick_after(at, i64::MAX, &choice, gone);
        let left: Units = free
            .into_iter()
            .map(|(lot, units)| (lot.clone(), units - units::of(&taken, &lot)))
            .collect();
        let picked = units::first(&left, load.quantity);
        if units::total(&picked) < load.quantity {
            return None;
        }
        picked.iter().for_each(|(lot, units)| units::add(&mut taken, lot, *units));
        picks.push((line_of(load), work.as_lots(at, &picked)));
    }
    Some(picks)
}
