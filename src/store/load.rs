//! Reads what a decision needs, in the order that `store` says.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pg_stock_core::standing::Standing;
use pg_stock_core::{Action, Entry, Facts, Hold, Level, LevelId, Micros, Name, Operation, Request};
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use super::crowd;
use super::datum::{self, Argument, Row};
use super::direct::{FEW, Tables};
use super::sql;
use super::statement::query;
use crate::error::Error;
use crate::{early, settings};

/// The ledger entries of keys, oldest first.
pub type History = HashMap<Name, Vec<Entry>>;

/// The levels that requests concern: those they name, and those their reservations have lines on; and the entries that
/// told so.
pub fn levels_of(tables: Option<&Tables>, requests: &[Request]) -> Result<(BTreeSet<LevelId>, History), Error> {
    let named = requests.iter().flat_map(|request| request.action.named_levels());
    let mut levels: BTreeSet<LevelId> = named.map(|(at, _)| at.clone()).collect();
    let acting = requests.iter().filter(|request| request.action.acts_on_reservation());
    let history = histories(tables, acting.map(|request| &request.key))?;
    levels.extend(history.values().flatten().filter_map(|entry| entry.at.clone()));
    Ok((levels, history))
}

/// Locks levels in their one order, and says which there were to be locked: nobody else changes these or their holds
/// until the transaction ends. A level that is created afterwards is not among them.
pub fn lock(tables: Option<&Tables>, levels: &BTreeSet<LevelId>) -> SpiResult<BTreeSet<LevelId>> {
    if tables.and_then(|tables| tables.lock(levels)).is_some() {
        return Ok(levels.clone());
    }
    let locked = |row: Row<'_>| LevelId { sku: row.name(0), location: row.name(1) };
    let (rows, has_waited) = early::watch(|| match levels.first().filter(|_| levels.len() == 1) {
        Some(at) => query(&sql::LOCK_LEVEL, &[datum::text(&at.sku), datum::text(&at.location)], locked),
        None => query(&sql::LOCK_LEVELS, &[skus(levels), locations(levels)], locked),
    });
    levels.iter().take(FEW).for_each(|at| crowd::note(at, has_waited));
    Ok(rows?.into_iter().collect())
}

/// True where a reservation that the requests act on has lines at levels that were not read: it was made between the
/// reads.
pub fn outgrown(facts: &Facts, requests: &[Request], levels: &BTreeSet<LevelId>) -> bool {
    let acting = requests.iter().filter(|request| request.action.acts_on_reservation());
    let entries = acting.filter_map(|request| facts.history.get(&request.key)).flatten();
    entries.filter_map(|entry| entry.at.as_ref()).any(|at| !levels.contains(at))
}

/// True where the facts were read by several statements that matter to a refusal, and so may never have been true
/// together: overdue holds and buyers' counts are read after their levels.
pub fn pieced_together(facts: &Facts) -> bool {
    facts.levels.values().any(|level| level.overdue > 0) || !facts.bought.is_empty()
}

/// True where levels still have the versions that were read first: then nothing on them changed in between, and what
/// was read meanwhile belongs together. True also where nothing need be compared.
pub fn unchanged(tables: Option<&Tables>, seen: Option<&BTreeMap<LevelId, Level>>) -> SpiResult<bool> {
    let Some(seen) = seen else { return Ok(true) };
    let again = read_levels(tables, &seen.keys().cloned().collect(), now())?;
    let same = |at, level: &Level| seen.get(at).is_some_and(|before| before.version == level.version);
    Ok(again.len() == seen.len() && again.iter().all(|(at, level)| same(at, level)))
}

/// The facts for a single one-line reserve in the plain case, by one cheap look: the level is known and without a limit
/// per buyer, the key is new, and no overdue hold need give way: there are units enough without, or too few with. `None`
/// in every other case.
pub fn glance(tables: Option<&Tables>, requests: &[Request]) -> SpiResult<Option<Facts>> {
    let [Request { key, action: Action::Reserve { lines, .. }, .. }] = requests else { return Ok(None) };
    let [line] = lines.as_slice() else { return Ok(None) };
    let now = now();
    let by_the_short_way = tables.and_then(|tables| tables.glance(&line.at, key)).filter(|level| level.next_due > now);
    let level = match by_the_short_way {
        Some(level) => Some(level),
        None => {
            let args = [datum::text(&line.at.sku), datum::text(&line.at.location), datum::time(now), datum::text(key)];
            let unknown = query(&sql::GLANCE, &args, |row| (row.opt_flag(10) == Some(false)).then(|| level(row).1))?;
            unknown.into_iter().flatten().next()
        }
    };
    let settled = |level: &Level| level.free() >= line.quantity || level.free() + level.overdue < line.quantity;
    Ok(level.filter(|level| level.buyer_limit.is_none() && settled(level)).map(|level| Facts {
        now,
        retake_lapsed: settings::retake_lapsed(),
        max_hold: settings::max_hold(),
        levels: [(line.at.clone(), level)].into(),
        history: [(key.clone(), Vec::new())].into(),
        ..Facts::default()
    }))
}

/// Everything that deciding the requests needs.
pub fn facts(tables: Option<&Tables>, requests: &[Request], levels: &BTreeSet<LevelId>) -> Result<Facts, Error> {
    let facts = facts_of_levels(tables, levels)?;
    let history = histories(tables, requests.iter().map(|request| &request.key))?;
    facts_about(requests, Facts { history, ..facts })
}

/// As [`facts`], where nothing is known of the keys.
pub fn facts_of_new_keys(
    tables: Option<&Tables>,
    requests: &[Request],
    levels: &BTreeSet<LevelId>,
) -> Result<Facts, Error> {
    let facts = facts_of_levels(tables, levels)?;
    facts_about(requests, Facts { history: unknown(requests.iter().map(|request| &request.key)), ..facts })
}

/// True where nothing was known of the keys, and the requests do not act on what is.
pub fn are_keys_new(facts: &Facts, requests: &[Request]) -> bool {
    facts.history.values().all(Vec::is_empty) && !requests.iter().any(|request| request.action.acts_on_reservation())
}

fn facts_of_levels(tables: Option<&Tables>, levels: &BTreeSet<LevelId>) -> Result<Facts, Error> {
    let now = now();
    let levels = read_levels(tables, levels, now)?.into_iter().collect();
    Ok(Facts {
        now,
        retake_lapsed: settings::retake_lapsed(),
        max_hold: settings::max_hold(),
        levels,
        ..Facts::default()
    })
}

fn facts_about(requests: &[Request], mut facts: Facts) -> Result<Facts, Error> {
    facts.overdue = read_overdue(requests, &facts)?;
    facts.bought = read_bought(requests, &facts)?;
    Ok(facts)
}

/// The ledger entries of one key, oldest first.
pub fn history_of(tables: Option<&Tables>, key: &Name) -> Result<Vec<Entry>, Error> {
    if let Some(entries) = tables.and_then(|tables| tables.history(key, entry)) {
        return entries.into_iter().collect();
    }
    query(&sql::KEY_HISTORY, &[datum::text(key)], entry)?.into_iter().collect()
}

/// The ledger entries of keys, oldest first; none for a key that nothing is known of.
pub fn histories<'a>(tables: Option<&Tables>, keys: impl Iterator<Item = &'a Name>) -> Result<History, Error> {
    let mut history = unknown(keys);
    let entries = match history.keys().collect::<Vec<_>>().as_slice() {
        [] => Vec::new(),
        [key] => history_of(tables, key)?,
        keys => query(&sql::HISTORY, &[datum::texts(keys.iter().copied().map(Some))], entry)?
            .into_iter()
            .collect::<Result<_, _>>()?,
    };
    for entry in entries {
        history.entry(entry.key.clone()).or_default().push(entry);
    }
    Ok(history)
}

/// Keys of which nothing is known.
fn unknown<'a>(keys: impl Iterator<Item = &'a Name>) -> History {
    keys.map(|key| (key.clone(), Vec::new())).collect()
}

/// The database's clock, the only one that decides (ARCHITECTURE, C7).
pub fn now() -> Micros {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }.saturating_add(settings::clock_offset())
}

/// Reads levels; what is overdue on them by `now` is counted only where something may be.
pub fn read_levels(
    tables: Option<&Tables>,
    levels: &BTreeSet<LevelId>,
    now: Micros,
) -> SpiResult<Vec<(LevelId, Level)>> {
    if let Some(found) = tables.and_then(|tables| tables.levels(levels, now)) {
        return Ok(found);
    }
    match levels.len() {
        0 => Ok(Vec::new()),
        1 => {
            let args = levels.iter().flat_map(|at| [datum::text(&at.sku), datum::text(&at.location)]);
            query(&sql::LEVEL, &args.chain([datum::time(now)]).collect::<Vec<_>>(), level)
        }
        _ => query(&sql::LEVELS, &[skus(levels), locations(levels), datum::time(now)], level),
    }
}

/// Overdue holds of the levels that have some: enough for what may be asked of each.
fn read_overdue(requests: &[Request], facts: &Facts) -> SpiResult<HashMap<LevelId, VecDeque<Hold>>> {
    let due: Vec<(&LevelId, &Level)> = facts.levels.iter().filter(|(_, level)| level.overdue > 0).collect();
    if due.is_empty() {
        return Ok(HashMap::new());
    }
    let need = needed(requests, facts);
    let holds = query(
        &sql::OVERDUE,
        &[
            datum::texts(due.iter().map(|(at, _)| Some(&at.sku))),
            datum::texts(due.iter().map(|(at, _)| Some(&at.location))),
            datum::ints(due.iter().map(|(at, _)| Some(need.get(at).copied().unwrap_or(1)))),
            datum::times(due.iter().map(|(_, level)| Some(level.next_due))),
            datum::time(facts.now),
        ],
        hold,
    )?;
    let mut overdue: HashMap<LevelId, VecDeque<Hold>> = HashMap::new();
    for hold in holds {
        overdue.entry(hold.at.clone()).or_default().push_back(hold);
    }
    Ok(overdue)
}

/// The most units that may have to come from overdue holds: what is asked, what the level is short of anyway, and
/// as much again as the asking reservation has there itself, for its own holds do not count.
fn needed(requests: &[Request], facts: &Facts) -> HashMap<LevelId, i64> {
    let mut need: HashMap<LevelId, i64> = HashMap::new();
    for request in requests {
        for (at, quantity) in request.action.named_levels() {
            let most = need.entry(at.clone()).or_default();
            *most = most.saturating_add(quantity);
        }
        if request.action.acts_on_reservation()
            && let Some(entries) = facts.history.get(&request.key)
        {
            for line in Standing::at(entries, facts.now).lines {
                let most = need.entry(line.at).or_default();
                *most = most.saturating_add(line.quantity.saturating_mul(2));
            }
        }
    }
    for (at, most) in &mut need {
        let short = facts.levels.get(at).map_or(0, |level| (-level.free()).max(0));
        *most = most.saturating_add(short);
    }
    need
}

/// What the buyers hold and have bought of the levels that limit it.
fn read_bought(requests: &[Request], facts: &Facts) -> SpiResult<HashMap<(LevelId, Name), i64>> {
    let limited: BTreeSet<(&LevelId, Name)> = requests
        .iter()
        .flat_map(|request| buyers(request, facts))
        .filter(|(at, _)| facts.levels.get(at).is_some_and(|level| level.buyer_limit.is_some()))
        .collect();
    if limited.is_empty() {
        return Ok(HashMap::new());
    }
    let next_due = |at| facts.levels.get(at).map(|level| level.next_due);
    let rows = query(
        &sql::BOUGHT,
        &[
            datum::texts(limited.iter().map(|(at, _)| Some(&at.sku))),
            datum::texts(limited.iter().map(|(at, _)| Some(&at.location))),
            datum::texts(limited.iter().map(|(_, buyer)| Some(buyer))),
            datum::times(limited.iter().map(|(at, _)| next_due(*at))),
            datum::time(facts.now),
        ],
        |row| ((LevelId { sku: row.name(0), location: row.name(1) }, row.name(2)), row.int(3)),
    )?;
    Ok(rows.into_iter().collect())
}

/// The buyers whose counts a request depends on.
fn buyers<'a>(request: &'a Request, facts: &'a Facts) -> Vec<(&'a LevelId, Name)> {
    match &request.action {
        Action::Reserve { lines, buyer: Some(buyer), .. } => {
            lines.iter().map(|line| (&line.at, buyer.clone())).collect()
        }
        Action::Extend { .. } => {
            let entries = facts.history.get(&request.key).map(Vec::as_slice).unwrap_or_default();
            entries.iter().filter_map(|entry| Some((entry.at.as_ref()?, entry.buyer.clone()?))).collect()
        }
        _ => Vec::new(),
    }
}

fn skus(levels: &BTreeSet<LevelId>) -> Argument {
    datum::texts(levels.iter().map(|at| Some(&at.sku)))
}

fn locations(levels: &BTreeSet<LevelId>) -> Argument {
    datum::texts(levels.iter().map(|at| Some(&at.location)))
}

fn level(row: Row<'_>) -> (LevelId, Level) {
    let level = Level {
        on_hand: row.int(2),
        reserved: row.int(3),
        safety_stock: row.int(4),
        buyer_limit: row.opt_int(5),
        frozen: row.opt_flag(6).unwrap_or(false),
        version: row.int(7),
        next_due: row.int(8),
        overdue: row.int(9),
    };
    (LevelId { sku: row.name(0), location: row.name(1) }, level)
}

fn entry(row: Row<'_>) -> Result<Entry, Error> {
    let word = row.name(1);
    let unknown = || Error::Corrupted(format!("the ledger has an operation \"{word}\" that is not known"));
    Ok(Entry {
        key: row.name(0),
        operation: Operation::from_word(word.as_bytes()).ok_or_else(unknown)?,
        operation_key: row.name(2),
        line: row.line(3),
        at: row.opt_name(4).zip(row.opt_name(5)).map(|(sku, location)| LevelId { sku, location }),
        quantity: row.int(6),
        on_hand_delta: row.int(7),
        reserved_delta: row.int(8),
        on_hand_after: row.int(9),
        reserved_after: row.int(10),
        version: row.int(11),
        available: row.opt_int(12),
        buyer: row.opt_name(13),
        expires_at: row.opt_int(14),
        reason: row.name(15),
        context: Name::default(),
        safety_stock: row.opt_int(16),
        buyer_limit: row.opt_int(17),
        frozen: row.opt_flag(18),
        recorded_at: row.int(19),
    })
}

/// A hold, in the order in which every statement that reads holds gives its columns.
pub fn hold(row: Row<'_>) -> Hold {
    Hold {
        key: row.name(0),
        line: row.line(1),
        at: LevelId { sku: row.name(2), location: row.name(3) },
        quantity: row.int(4),
        buyer: row.opt_name(5),
        expires_at: row.int(6),
        reserved_at: row.int(7),
    }
}
