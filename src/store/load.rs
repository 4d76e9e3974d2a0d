//! Reads what a decision needs, in the order that `run` says.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pg_stock_core::decide::overdue_needed;
use pg_stock_core::{
    Action, Decision, Entry, Facts, Fault, Hold, Level, LevelId, Micros, Name, Request,
};
use pgrx::spi::SpiResult;

use super::access::Access;
use super::clock::now;
use super::lots;
use crate::error::Error;
use crate::{board, settings};

/// The ledger entries of keys, oldest first.
pub type History = HashMap<Name, Vec<Entry>>;

/// The levels that requests concern: those they name, and those their keys have lines on;
/// and the entries that told so.
pub fn levels_of(
    access: &Access,
    requests: &[Request],
) -> Result<(BTreeSet<LevelId>, History), Error> {
    let named = requests.iter().flat_map(|request| request.action.named_levels());
    let mut levels: BTreeSet<LevelId> = named.map(|(at, _)| at.clone()).collect();
    let acting = requests.iter().filter(|request| request.action.follows_its_key());
    let history = histories(access, acting.map(|request| &request.key))?;
    levels.extend(history.values().flatten().filter_map(|entry| entry.at.clone()));
    Ok((levels, history))
}

/// True where a reservation or shipment that the requests act on has lines at levels that were not
/// read: it was made between the reads.
pub fn outgrown(facts: &Facts, requests: &[Request], levels: &BTreeSet<LevelId>) -> bool {
    let acting = requests.iter().filter(|request| request.action.follows_its_key());
    let entries = acting.filter_map(|request| facts.history.get(&request.key)).flatten();
    entries.filter_map(|entry| entry.at.as_ref()).any(|at| !levels.contains(at))
}

/// True where the facts were read by several statements that matter to a refusal, and so may never
/// have been true together: overdue holds, lots and buyers' counts are read after their
/// levels.
pub fn pieced_together(facts: &Facts) -> bool {
    facts.levels.values().any(|level| level.overdue > 0 || level.has_lots())
        || !facts.bought.is_empty()
}

/// True where levels still have the versions that were read first: then nothing on them changed in
/// between, and what was read meanwhile belongs together. True also where nothing need be compared.
pub fn unchanged(access: &Access, seen: Option<&BTreeMap<LevelId, Level>>) -> SpiResult<bool> {
    let Some(seen) = seen else { return Ok(true) };
    let again = access.levels(&seen.keys().cloned().collect(), now())?;
    let same =
        |at, level: &Level| seen.get(at).is_some_and(|before| before.version == level.version);
    Ok(again.len() == seen.len() && again.iter().all(|(at, level)| same(at, level)))
}

/// What a cheap look at a single one-line reserve of a new key on a known level finds.
pub enum Glance {
    /// The facts, in the plain case: the level is without a limit per buyer, and no overdue hold
    /// need give way: there are units enough without, of which none waits for want of what is
    /// overdue, or too few with.
    Plain(Box<Facts>),
    /// The level has lots, and most likely units enough: only under its lock they tell which.
    OfLots,
    /// Every other case.
    Unclear,
}

/// A cheap look at a single one-line reserve.
pub fn glance(access: &Access, requests: &[Request]) -> SpiResult<Glance> {
    let [Request { key, action: Action::Reserve { lines, min_life, .. }, .. }] = requests else {
        return Ok(Glance::Unclear);
    };
    let [line] = lines.as_slice() else { return Ok(Glance::Unclear) };
    let facts = moment();
    let is_narrow = line.lot.is_some() || min_life.is_some();
    let settled = |level: &Level| {
        if level.has_lots() {
            // Its counters alone tell of too little only.
            let is_due = level.next_spoil.is_some_and(|next| next <= facts.now);
            return !is_due && !is_narrow && level.overdue == 0 && level.free() < line.quantity;
        }
        let is_all_there = level.overdue == 0 || level.split(line.quantity).1 == 0;
        let is_enough = level.free() >= line.quantity && is_all_there;
        is_enough || level.free() + level.overdue < line.quantity
    };
    let Some(level) = access.glance(&line.at, key, facts.now)? else {
        return Ok(Glance::Unclear);
    };
    let may_be_sold = !level.frozen && level.sale.is_open(facts.now) && level.buyer_limit.is_none();
    let is_plain = !is_narrow && line.expected_version.is_none();
    if level.has_lots() && level.free() >= line.quantity && may_be_sold && is_plain {
        return Ok(Glance::OfLots);
    }
    if level.buyer_limit.is_some() || !settled(&level) {
        return Ok(Glance::Unclear);
    }
    Ok(Glance::Plain(Box::new(Facts {
        levels: [(line.at.clone(), level)].into(),
        history: [(key.clone(), Vec::new())].into(),
        ..facts
    })))
}

/// Everything that deciding the requests needs.
pub fn facts(
    access: &Access,
    requests: &[Request],
    levels: &BTreeSet<LevelId>,
) -> Result<Facts, Error> {
    let mut facts = moment();
    facts.levels = access.levels(levels, facts.now)?.into_iter().collect();
    facts.history = histories(access, requests.iter().map(|request| &request.key))?;
    lots::fill_in(access, &mut facts, requests)?;
    facts.overdue = overdue(access, requests, &facts)?;
    facts.bought = bought(access, requests, &facts)?;
    Ok(facts)
}

/// Levels as they are, with what of them nothing is promised of any more by now.
pub fn counted(
    access: &Access,
    levels: &BTreeSet<LevelId>,
    now: Micros,
) -> SpiResult<BTreeMap<LevelId, Level>> {
    loop {
        let seen: BTreeMap<LevelId, Level> = access.levels(levels, now)?.into_iter().collect();
        if !seen.values().any(Level::has_lots) {
            return Ok(seen);
        }
        let mut facts = Facts { now, levels: seen.clone(), ..Facts::default() };
        lots::fill_in(access, &mut facts, &[])?;
        facts.overdue = overdue(access, &[], &facts)?;
        if unchanged(access, Some(&seen))? {
            return Ok(pg_stock_core::counted(facts));
        }
        pgrx::check_for_interrupts!();
    }
}

/// The facts of this moment: the time and the settings.
pub fn moment() -> Facts {
    Facts {
        now: now(),
        retake_lapsed: settings::retake_lapsed(),
        max_hold: settings::max_hold(),
        near_expiry: settings::near_expiry(),
        ..Facts::default()
    }
}

/// The ledger entries of keys, oldest first; none for a key that nothing is known of.
pub fn histories<'a>(
    access: &Access,
    keys: impl Iterator<Item = &'a Name>,
) -> Result<History, Error> {
    let mut history = unknown(keys);
    let entries = access.history(&history.keys().collect::<Vec<_>>())?;
    for entry in entries {
        history.entry(entry.key.clone()).or_default().push(entry);
    }
    Ok(history)
}

/// The ledger entries of keys as far as they are told of, whether they were archived or not.
pub fn known_histories(access: &Access, keys: &[&Name]) -> Result<History, Error> {
    let mut history = histories(access, keys.iter().copied())?;
    let unknown: Vec<&Name> =
        history.iter().filter(|(_, entries)| entries.is_empty()).map(|(key, _)| key).collect();
    for entry in access.archived_history(&unknown)? {
        history.entry(entry.key.clone()).or_default().push(entry);
    }
    Ok(history)
}

/// Keys of which nothing is known.
fn unknown<'a>(keys: impl Iterator<Item = &'a Name>) -> History {
    keys.map(|key| (key.clone(), Vec::new())).collect()
}

/// Overdue holds of the levels that have some: enough for what may be asked of each.
fn overdue(
    access: &Access,
    requests: &[Request],
    facts: &Facts,
) -> SpiResult<HashMap<LevelId, VecDeque<Hold>>> {
    let mut overdue: HashMap<LevelId, VecDeque<Hold>> = HashMap::new();
    if facts.levels.values().all(|level| level.overdue <= 0) {
        return Ok(overdue);
    }
    let need = overdue_needed(facts, requests);
    let due = facts.levels.iter().filter(|(_, level)| level.overdue > 0);
    let needed: Vec<_> =
        due.map(|(at, level)| (at, need.get(at).copied().unwrap_or(1), level.next_due)).collect();
    let mut holds = access.overdue(&needed, facts.now)?;
    if facts.levels.values().any(|level| level.overdue > 0 && level.waiting > 0) {
        access.fill_in_waiting(&mut holds)?;
    }
    lots::fill_in_bound(&mut holds.iter_mut().collect::<Vec<_>>(), &facts.levels)?;
    for hold in holds {
        overdue.entry(hold.at.clone()).or_default().push_back(hold);
    }
    Ok(overdue)
}

/// Decides with as much of the queues as it takes; lets the worker know where that was not enough.
pub fn with_queues(
    access: &Access,
    facts: Facts,
    decide: impl Fn(Facts) -> Result<Decision, Fault>,
) -> Result<Decision, Error> {
    let (now, levels) = (facts.now, facts.levels.clone());
    let read = |need: &BTreeMap<LevelId, i64>| {
        let mut queues = access.queues(need, now)?;
        lots::fill_in_queues(&mut queues, &levels)?;
        Ok(queues)
    };
    let decision =
        pg_stock_core::with_queues(facts, |facts| decide(facts).map_err(Error::from), read)?;
    if !decision.unpaid.is_empty() {
        board::left_unpaid();
    }
    Ok(decision)
}

/// What the buyers hold and have bought of the levels that limit it.
fn bought(
    access: &Access,
    requests: &[Request],
    facts: &Facts,
) -> SpiResult<HashMap<(LevelId, Name), i64>> {
    let asked: BTreeSet<(&LevelId, Name)> =
        requests.iter().flat_map(|request| buyers(request, facts)).collect();
    let limited = |(at, buyer): (_, Name)| {
        let level = facts.levels.get(at).filter(|level| level.buyer_limit.is_some())?;
        Some((at, buyer, level.next_due))
    };
    let limited: Vec<_> = asked.into_iter().filter_map(limited).collect();
    if limited.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(access.bought(&limited, facts.now)?.into_iter().collect())
}

/// The buyers whose counts a request depends on.
fn buyers<'a>(request: &'a Request, facts: &'a Facts) -> Vec<(&'a LevelId, Name)> {
    match &request.action {
        Action::Reserve { lines, buyer: Some(buyer), .. } => {
            lines.iter().map(|line| (&line.at, buyer.clone())).collect()
        }
        Action::Extend { .. } => {
            let entries = facts.history.get(&request.key).map(Vec::as_slice).unwrap_or_default();
            entries
                .iter()
                .filter_map(|entry| Some((entry.at.as_ref()?, entry.buyer.clone()?)))
                .collect()
        }
        _ => Vec::new(),
    }
}
