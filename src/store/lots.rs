//! What is done with the tables of lots, verb by verb: directly where `access` can, else by
//! statements. Only levels that have lots need them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pg_stock_core::decide::{Effects, Queues};
use pg_stock_core::{Action, Entry, Facts, Hold, Level, LevelId, Lot, LotMove, Name, Request};
use pgrx::spi::SpiResult;

use super::access::{Access, names};
use super::datum::{Row, Value, int, line, text, word};
use super::rows::{hold_lot, ledger, lot};
use super::sql;

/// Fills the lots of levels in that have some, as far as requests and the entries of their keys
/// need them.
pub fn fill_in(access: &Access, facts: &mut Facts, requests: &[Request]) -> SpiResult<()> {
    let levels = with_lots(&facts.levels);
    if levels.is_empty() {
        return Ok(());
    }
    read_moves(&mut facts.history)?;
    facts.lots = present(access, &levels)?;
    let named = named(facts, requests);
    add_named(&mut facts.lots, named)
}

/// The lots that requests and the entries of their keys are about, level by level, present or not.
fn named(facts: &Facts, requests: &[Request]) -> BTreeSet<(LevelId, Name)> {
    let owned = |(at, lot): (&LevelId, &Name)| (at.clone(), lot.clone());
    let of_requests = requests.iter().flat_map(|request| request.action.named_lots()).map(owned);
    let entries = facts.history.values().flatten();
    let of_entries = entries.filter_map(|entry| Some((entry.at.as_ref()?, &entry.lots)));
    let of_entries =
        of_entries.flat_map(|(at, lots)| lots.iter().map(move |moved| owned((at, &moved.lot))));
    let mut named: BTreeSet<(LevelId, Name)> = of_requests.chain(of_entries).collect();
    for (from, to) in requests.iter().flat_map(|request| request.action.ways()) {
        let there = facts.lots.get(from).into_iter().flatten();
        named.extend(there.map(|lot| (to.clone(), lot.name.clone())));
        let asked = named.range((from.clone(), Name::default())..);
        let asked: Vec<_> = asked.take_while(|(at, _)| at == from).cloned().collect();
        named.extend(asked.into_iter().map(|(_, lot)| (to.clone(), lot)));
    }
    // Goods may come without a lot, or back that were sold before there were lots.
    let is_reserve = |request: &Request| matches!(request.action, Action::Reserve { .. });
    if !requests.iter().all(is_reserve) {
        named.extend(facts.lots.keys().map(|at| (at.clone(), Name::default())));
    }
    named
}

fn with_lots<'f>(levels: impl IntoIterator<Item = (&'f LevelId, &'f Level)>) -> BTreeSet<LevelId> {
    let with_lots = levels.into_iter().filter(|(_, level)| level.has_lots());
    with_lots.map(|(at, _)| at.clone()).collect()
}

/// The lots of levels of which something is left.
fn present(access: &Access, levels: &BTreeSet<LevelId>) -> SpiResult<HashMap<LevelId, Vec<Lot>>> {
    let mut lots: HashMap<LevelId, Vec<Lot>> =
        levels.iter().map(|at| (at.clone(), Vec::new())).collect();
    let found = match access.lots(levels) {
        Some(found) => found,
        None => sql::LOTS.query_each(&[], &names(levels), lot::lot)?,
    };
    for (at, lot) in found {
        lots.entry(at).or_default().push(lot);
    }
    Ok(lots)
}

/// Adds lots of which nothing may be left.
fn add_named(
    lots: &mut HashMap<LevelId, Vec<Lot>>,
    mut named: BTreeSet<(LevelId, Name)>,
) -> SpiResult<()> {
    named.retain(|(at, _)| lots.contains_key(at));
    for (at, known) in lots.iter() {
        for lot in known {
            named.remove(&(at.clone(), lot.name.clone()));
        }
    }
    let missing: Vec<_> =
        named.iter().map(|(at, lot)| [text(&at.sku), text(&at.location), text(lot)]).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (at, lot) in sql::NAMED_LOTS.query_each(&[], &missing, lot::lot)? {
        lots.entry(at).or_default().push(lot);
    }
    Ok(())
}

/// Fills in what entries did to lots.
fn read_moves(history: &mut HashMap<Name, Vec<Entry>>) -> SpiResult<()> {
    let known = history.iter().filter(|(_, entries)| !entries.is_empty());
    let keys: Vec<_> = known.map(|(key, _)| [text(key)]).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let moved = |row: Row<'_>| {
        let claim: ledger::Claim = (row.name(0), row.name(1), row.name(2), row.line(3));
        let moved = LotMove {
            lot: row.name(4),
            on_hand: row.int(5),
            reserved: row.int(6),
            in_transit: row.int(7),
        };
        (claim, moved)
    };
    let mut moves: HashMap<ledger::Claim, Vec<LotMove>> = HashMap::new();
    for (claim, moved) in sql::HISTORY_LOTS.query_each(&[], &keys, moved)? {
        moves.entry(claim).or_default().push(moved);
    }
    if !moves.is_empty() {
        for entry in history.values_mut().flatten() {
            entry.lots = moves.remove(&ledger::claim_of(entry)).unwrap_or_default();
        }
    }
    Ok(())
}

/// Fills in of which lots holds have units, where one of their levels has lots.
pub fn fill_in_bound<'f>(
    holds: &mut [&mut Hold],
    levels: impl IntoIterator<Item = (&'f LevelId, &'f Level)>,
) -> SpiResult<()> {
    if holds.is_empty() || with_lots(levels).is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = holds.iter().map(|hold| [text(&hold.key), line(hold.line)]).collect();
    let bound = |row: Row<'_>| ((row.name(0), row.line(1)), (row.name(2), row.int(3)));
    let mut lots: HashMap<(Name, i32), Vec<(Name, i64)>> = HashMap::new();
    for (hold, units) in sql::HOLD_LOTS.query_each(&[], &rows, bound)? {
        lots.entry(hold).or_default().push(units);
    }
    for hold in holds {
        hold.lots = lots.remove(&(hold.key.clone(), hold.line)).unwrap_or_default();
    }
    Ok(())
}

/// The same for the holds of queues that have lapsed.
pub fn fill_in_queues(queues: &mut Queues, levels: &BTreeMap<LevelId, Level>) -> SpiResult<()> {
    let places = queues.values_mut().flatten();
    let mut lapsed: Vec<&mut Hold> = places.filter_map(|place| place.lapsed.as_mut()).collect();
    fill_in_bound(&mut lapsed, levels)
}

/// Writes down what entries that were just written did to lots; says how many moves there are, and
/// how many were written.
pub fn claim(access: &Access, effects: &Effects) -> SpiResult<(usize, usize)> {
    if let Some(written) = access.claim_lots(&effects.entries) {
        return Ok((written, written));
    }
    let row = |entry: &Entry, moved: &LotMove| {
        [
            text(&entry.key),
            word(entry.operation.word()),
            text(&entry.operation_key),
            line(entry.line),
            text(&moved.lot),
            int(moved.on_hand),
            int(moved.reserved),
            int(moved.in_transit),
        ]
    };
    let entries = effects.entries.iter();
    let rows: Vec<_> =
        entries.flat_map(|entry| entry.lots.iter().map(|moved| row(entry, moved))).collect();
    Ok((rows.len(), sql::CLAIM_LOTS.execute_if_any(&rows)?))
}

/// Binds what is held of levels that begin to have lots to the lot without a name.
pub fn track(effects: &Effects) -> SpiResult<()> {
    sql::TRACK_HOLDS.execute_if_any(&names(&effects.tracked)).map(drop)
}

/// Makes and changes lots; says how many were as they must be.
pub fn change(access: &Access, effects: &Effects) -> SpiResult<usize> {
    let (made, mut changed): (Vec<_>, Vec<_>) =
        effects.lots.iter().partition(|(_, change)| change.before.is_none());
    let count = changed.len();
    changed.retain(|((at, _), change)| access.change_lot(at, change).is_none());
    let directly = count - changed.len();
    let made: Vec<_> = made.into_iter().map(|((at, _), change)| lot::row(at, change)).collect();
    let changed: Vec<Vec<Value>> = changed
        .into_iter()
        .filter_map(|((at, _), change)| Some((at, change.before.as_ref()?, change)))
        .map(|(at, before, change)| {
            let mut row = lot::row(at, change).to_vec();
            row.extend([int(before.on_hand), int(before.reserved)]);
            row
        })
        .collect();
    Ok(directly
        + sql::MAKE_LOTS.execute_if_any(&made)?
        + sql::CHANGE_LOTS.execute_if_any(&changed)?)
}

/// Changes what holds have of lots; says how many were as they must be.
pub fn bind(access: &Access, effects: &Effects) -> SpiResult<usize> {
    type Changed<'e> = (&'e (Name, i32, Name), &'e i64);
    let opened: HashSet<(&Name, i32)> =
        effects.opened.iter().map(|hold| (&hold.key, hold.line)).collect();
    let (new, known): (Vec<Changed>, Vec<Changed>) = effects
        .held_lots
        .iter()
        .partition(|(place, units)| **units > 0 && opened.contains(&(&place.0, place.1)));
    let rows = |changed: &[Changed], sign: i64| -> Vec<_> {
        let changed = changed.iter().filter(|(_, units)| **units * sign > 0);
        let row =
            |((key, number, lot), units): &Changed| hold_lot::row(key, *number, lot, *units * sign);
        changed.map(row).collect()
    };
    let new = rows(&new, 1);
    let bound = match access.bind_lots(&new) {
        Some(()) => new.len(),
        None => sql::BIND_NEW_LOTS.execute_if_any(&new)?,
    };
    let (more, fewer) = (rows(&known, 1), rows(&known, -1));
    // What is taken whole goes first: what is left of another may be as much.
    let freed = sql::FREE_LOTS.execute_if_any(&fewer)?;
    let shrunk = if freed < fewer.len() { sql::SHRINK_LOTS.execute_if_any(&fewer)? } else { 0 };
    Ok(bound + freed + shrunk + sql::BIND_LOTS.execute_if_any(&more)?)
}
