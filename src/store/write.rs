//! Stores the effects of a decision. Nothing else writes the tables.

use pg_stock_core::decide::{Guard, HoldChange, LevelChange};
use pg_stock_core::{Answer, Decision, Effects, Entry, Hold, Level, LevelId, Micros, Name};
use pgrx::spi::SpiResult;

use super::Setback;
use super::crowd;
use super::datum::{self, Argument, int, line, opt_int, text, time};
use super::direct::{FEW, Step, Tables};
use super::notify;
use super::sql;
use super::statement::{execute, query};
use crate::board;
use crate::error::Error;
use crate::{early, settings};

/// Stores a one-line reserve or sale by one guarded UPDATE; `None` where the guard failed or the key was taken.
///
/// The statement that changes the level checks it: waiting buyers queue for the row once, and need no lock in order
/// to look. If another connection turns out to have used the key, the level is put back; nobody has seen it.
pub fn guarded(tables: Option<&Tables>, mut decision: Decision) -> Result<Option<Vec<Answer>>, Error> {
    let (Some(guard), Some(change)) = (decision.guard.clone(), decision.effects.levels.values().next().cloned()) else {
        return Ok(None);
    };
    let due = next_due(&change, &decision.effects);
    let step = tables.map_or(Step::Elsewhere, |tables| tables.change_guarded(&guard, &change, due));
    let actual = match step {
        Step::Done(level) => Some(level),
        Step::Refused => None,
        Step::Elsewhere => update_level(&guard, &change, due)?,
    };
    let Some(actual) = actual else { return Ok(None) };
    decision.rebase(&actual);
    if !claim_guarded(tables, &decision.effects)? {
        undo(&guard, &change)?;
        return Ok(None);
    }
    open_holds(tables, &decision.effects.opened)?;
    add_bought(&decision.effects)?;
    tell(&decision.effects)?;
    Ok(Some(decision.answers))
}

/// Whether effects that cannot be stored because others were first leave nothing behind: they claim one key and create
/// no level. The claims of a key have lines from 1 on, so that the first one finds what is taken.
pub fn is_outrun_at_once_or_never(effects: &Effects) -> bool {
    effects.levels.values().all(|change| change.before.is_some()) && is_of_one_key(&effects.entries)
}

fn is_of_one_key<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> bool {
    let mut keys = entries.into_iter().map(|entry| (&entry.key, entry.operation));
    keys.next().is_some_and(|first| keys.all(|key| key == first))
}

/// Stores effects that were decided under the locks of their levels.
pub fn locked(tables: Option<&Tables>, effects: &Effects) -> Result<(), Setback> {
    let Some(now) = effects.entries.first().map(|entry| entry.recorded_at) else { return Ok(()) };
    let mut entries: Vec<&Entry> = effects.entries.iter().collect();
    entries.sort_by(|a, b| (&a.key, a.line).cmp(&(&b.key, b.line)));
    let claimed = claim(tables, &entries)?;
    if claimed > 0 && is_outrun_at_once_or_never(effects) {
        expect(claimed, entries.len(), "a key has claims, but none on its first line")?;
    } else if claimed < entries.len() {
        return Err(Setback::Outrun);
    }
    if !create_levels(effects, now)? {
        return Err(Setback::Outrun);
    }
    open_holds(tables, &effects.opened)?;
    change_holds(tables, &effects.changed)?;
    change_levels(tables, effects, now)?;
    raise_bounds(effects)?;
    add_bought(effects)?;
    tell(effects)?;
    Ok(())
}

/// Lets the worker know that there is something to tell, or tells it.
fn tell(effects: &Effects) -> SpiResult<()> {
    board::changed();
    early::changed();
    notify::announce(effects)
}

fn update_level(guard: &Guard, change: &LevelChange, due: Micros) -> SpiResult<Option<Level>> {
    let mut args = Vec::from(undo_args(guard, change));
    args.extend([time(due), time(guard.now), int(guard.quantity), opt_int(guard.expected_version)]);
    args.extend([time(guard.next_due), int(guard.version)]);
    let level = |row: datum::Row<'_>| Level {
        on_hand: row.int(0),
        reserved: row.int(1),
        safety_stock: row.int(2),
        version: row.int(3),
        ..change.after.clone()
    };
    let (rows, has_waited) = early::watch(|| query(&sql::GUARDED_UPDATE, &args, level));
    crowd::note(&guard.at, has_waited);
    Ok(rows?.pop())
}

/// The deadline that the level's earliest must not lie after.
fn next_due(change: &LevelChange, effects: &Effects) -> Micros {
    effects.opened.first().map_or(change.after.next_due, |hold| hold.expires_at)
}

fn undo(guard: &Guard, change: &LevelChange) -> SpiResult<()> {
    execute(&sql::UNDO_GUARDED_UPDATE, &undo_args(guard, change)).map(|_| ())
}

/// The level and by how much its counters and version change.
fn undo_args(guard: &Guard, change: &LevelChange) -> [Argument; 5] {
    let by = change.delta();
    [text(&guard.at.sku), text(&guard.at.location), int(by.on_hand), int(by.reserved), int(by.version)]
}

/// Writes the ledger rows of a guarded decision, the claim of the key first: where that fails nothing else is written.
/// False where the key was taken.
fn claim_guarded(tables: Option<&Tables>, effects: &Effects) -> SpiResult<bool> {
    for entry in &effects.entries {
        if claim(tables, &[entry])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes ledger rows; says how many were written, fewer than given where a key was taken. Of one key none is written
/// where the first is taken.
fn claim(tables: Option<&Tables>, entries: &[&Entry]) -> SpiResult<usize> {
    if let Some(claimed) = tables.and_then(|tables| tables.claim(entries)) {
        return Ok(claimed);
    }
    match entries {
        [first, rest @ ..] if is_of_one_key(entries.iter().copied()) => match (claim_one(first)?, rest) {
            (0, _) => Ok(0),
            (_, []) => Ok(1),
            (_, rest) => Ok(1 + claim_many(rest)?),
        },
        entries => claim_many(entries),
    }
}

fn claim_many(entries: &[&Entry]) -> SpiResult<usize> {
    let now = entries.first().map_or(0, |entry| entry.recorded_at);
    let of_session = settings::context();
    let contexts: Vec<Option<Name>> =
        entries.iter().map(|entry| context(entry, of_session.as_deref()).map(Name::from)).collect();
    let each = || entries.iter().copied();
    let level = |entry: &Entry, value: i64| entry.at.as_ref().map(|_| value);
    execute(
        &sql::CLAIM,
        &[
            datum::texts(each().map(|entry| Some(&entry.key))),
            datum::words(each().map(|entry| entry.operation.word())),
            datum::texts(each().map(|entry| Some(&entry.operation_key))),
            datum::lines(each().map(|entry| entry.line)),
            datum::texts(each().map(|entry| entry.at.as_ref().map(|at| &at.sku))),
            datum::texts(each().map(|entry| entry.at.as_ref().map(|at| &at.location))),
            datum::ints(each().map(|entry| Some(entry.quantity))),
            datum::ints(each().map(|entry| Some(entry.on_hand_delta))),
            datum::ints(each().map(|entry| Some(entry.reserved_delta))),
            datum::ints(each().map(|entry| level(entry, entry.on_hand_after))),
            datum::ints(each().map(|entry| level(entry, entry.reserved_after))),
            datum::ints(each().map(|entry| level(entry, entry.version))),
            datum::ints(each().map(|entry| entry.available)),
            datum::texts(each().map(|entry| entry.buyer.as_ref())),
            datum::times(each().map(|entry| entry.expires_at)),
            datum::texts(each().map(|entry| Some(&entry.reason).filter(|reason| !reason.is_empty()))),
            datum::ints(each().map(|entry| entry.safety_stock)),
            datum::ints(each().map(|entry| entry.buyer_limit)),
            datum::flags(each().map(|entry| entry.frozen)),
            time(now),
            datum::texts(contexts.iter().map(Option::as_ref)),
        ],
    )
}

/// What a row says of its request besides: its own context, or that of the session.
fn context(entry: &Entry, of_session: Option<&[u8]>) -> Option<Vec<u8>> {
    match entry.context.is_empty() {
        true => of_session.map(<[u8]>::to_vec),
        false => settings::short_context(entry.context.as_bytes().to_vec()),
    }
}

/// As `claim`, for one row.
fn claim_one(entry: &Entry) -> SpiResult<usize> {
    let (sku, location) = (entry.at.as_ref().map(|at| &at.sku), entry.at.as_ref().map(|at| &at.location));
    let name = |name: Option<&Name>| datum::opt_text(name.map(Name::as_bytes));
    let level = |value: i64| opt_int(entry.at.as_ref().map(|_| value));
    let args = [
        text(&entry.key),
        datum::opt_text(Some(entry.operation.word().as_bytes())),
        text(&entry.operation_key),
        line(entry.line),
        name(sku),
        name(location),
        int(entry.quantity),
        int(entry.on_hand_delta),
        int(entry.reserved_delta),
        level(entry.on_hand_after),
        level(entry.reserved_after),
        level(entry.version),
        opt_int(entry.available),
        name(entry.buyer.as_ref()),
        datum::opt_time(entry.expires_at),
        name(Some(&entry.reason).filter(|reason| !reason.is_empty())),
        opt_int(entry.safety_stock),
        opt_int(entry.buyer_limit),
        datum::opt_flag(entry.frozen),
        time(entry.recorded_at),
        datum::opt_text(context(entry, settings::context().as_deref()).as_deref()),
    ];
    execute(&sql::CLAIM_ONE, &args)
}

/// Creates the levels that did not exist; false where another connection created one of them first.
fn create_levels(effects: &Effects, now: Micros) -> SpiResult<bool> {
    let created: Vec<_> = effects.levels.iter().filter(|(_, change)| change.before.is_none()).collect();
    if created.is_empty() {
        return Ok(true);
    }
    Ok(execute(&sql::CREATE_LEVELS, &level_args(&created, now))? == created.len())
}

fn change_levels(tables: Option<&Tables>, effects: &Effects, now: Micros) -> Result<(), Error> {
    let mut changed: Vec<_> = effects.levels.iter().filter(|(_, change)| change.before.is_some()).collect();
    if let Some(tables) = tables.filter(|_| changed.len() <= FEW) {
        changed.retain(|(at, change)| !tables.change_locked(at, change, effects.bounds.contains(*at), now));
    }
    if changed.is_empty() {
        return Ok(());
    }
    if let [(at, change)] = changed.as_slice() {
        let done = change_level(at, change, effects.bounds.contains(*at), now)?;
        return expect(done, 1, "a level that was locked could not be changed");
    }
    let mut args = Vec::from(level_args(&changed, now));
    args.push(datum::ints(changed.iter().map(|(_, change)| change.before.as_ref().map(|level| level.version))));
    args.push(datum::flags(changed.iter().map(|(at, _)| Some(effects.bounds.contains(*at)))));
    let done = execute(&sql::CHANGE_LEVELS, &args)?;
    expect(done, changed.len(), "levels that were locked could not be changed")
}

/// As `change_levels`, for one level by its statement.
fn change_level(at: &LevelId, change: &LevelChange, is_bound_moved: bool, now: Micros) -> SpiResult<usize> {
    let after = &change.after;
    let args = [
        text(&at.sku),
        text(&at.location),
        int(after.on_hand),
        int(after.reserved),
        int(after.safety_stock),
        opt_int(after.buyer_limit),
        datum::flag(after.frozen),
        int(after.version),
        time(after.next_due),
        time(now),
        opt_int(change.before.as_ref().map(|level| level.version)),
        datum::flag(is_bound_moved),
    ];
    execute(&sql::CHANGE_LEVEL, &args)
}

/// Finds the earliest deadline again where it moved and nothing else did. Comes after the holds have changed, as
/// `change_levels` does.
fn raise_bounds(effects: &Effects) -> SpiResult<()> {
    let moved = || effects.bounds.iter().filter(|at| !effects.levels.contains_key(at));
    if moved().next().is_none() {
        return Ok(());
    }
    let args = [datum::texts(moved().map(|at| Some(&at.sku))), datum::texts(moved().map(|at| Some(&at.location)))];
    execute(&sql::RAISE_BOUNDS, &args).map(|_| ())
}

fn level_args(levels: &[(&LevelId, &LevelChange)], now: Micros) -> [Argument; 10] {
    let each = || levels.iter().map(|(_, change)| &change.after);
    [
        datum::texts(levels.iter().map(|(at, _)| Some(&at.sku))),
        datum::texts(levels.iter().map(|(at, _)| Some(&at.location))),
        datum::ints(each().map(|level| Some(level.on_hand))),
        datum::ints(each().map(|level| Some(level.reserved))),
        datum::ints(each().map(|level| Some(level.safety_stock))),
        datum::ints(each().map(|level| level.buyer_limit)),
        datum::flags(each().map(|level| Some(level.frozen))),
        datum::ints(each().map(|level| Some(level.version))),
        datum::times(each().map(|level| Some(level.next_due))),
        time(now),
    ]
}

fn open_hold(hold: &Hold) -> SpiResult<()> {
    let args = [
        text(&hold.key),
        line(hold.line),
        text(&hold.at.sku),
        text(&hold.at.location),
        int(hold.quantity),
        datum::opt_text(hold.buyer.as_ref().map(Name::as_bytes)),
        time(hold.expires_at),
        time(hold.reserved_at),
    ];
    execute(&sql::OPEN_HOLD, &args).map(|_| ())
}

fn open_holds(tables: Option<&Tables>, holds: &[Hold]) -> SpiResult<()> {
    if holds.is_empty() {
        return Ok(());
    }
    holds.iter().for_each(|hold| board::opened(hold.expires_at));
    if tables.and_then(|tables| tables.open_holds(holds)).is_some() {
        return Ok(());
    }
    if let [hold] = holds {
        return open_hold(hold);
    }
    let each = || holds.iter();
    let args = [
        datum::texts(each().map(|hold| Some(&hold.key))),
        datum::lines(each().map(|hold| hold.line)),
        datum::texts(each().map(|hold| Some(&hold.at.sku))),
        datum::texts(each().map(|hold| Some(&hold.at.location))),
        datum::ints(each().map(|hold| Some(hold.quantity))),
        datum::texts(each().map(|hold| hold.buyer.as_ref())),
        datum::times(each().map(|hold| Some(hold.expires_at))),
        datum::times(each().map(|hold| Some(hold.reserved_at))),
    ];
    execute(&sql::OPEN_HOLDS, &args).map(|_| ())
}

/// Closes and changes holds. Their levels are locked, so that each must be as it was read.
fn change_holds(tables: Option<&Tables>, changes: &[HoldChange]) -> Result<(), Error> {
    let (kept, mut closed): (Vec<&HoldChange>, Vec<&HoldChange>) =
        changes.iter().partition(|change| change.after.is_some());
    if let Some(tables) = tables.filter(|_| closed.len() <= FEW) {
        closed.retain(|change| !tables.close_hold(change));
    }
    let keys = |changes: &[&HoldChange]| datum::texts(changes.iter().map(|change| Some(&change.key)));
    let lines = |changes: &[&HoldChange]| datum::lines(changes.iter().map(|change| change.line));
    let before = |changes: &[&HoldChange]| datum::ints(changes.iter().map(|change| Some(change.quantity_before)));
    let mut done = 0;
    if let [hold] = closed.as_slice() {
        done += execute(&sql::CLOSE_HOLD, &[text(&hold.key), line(hold.line), int(hold.quantity_before)])?;
    } else if !closed.is_empty() {
        done += execute(&sql::CLOSE_HOLDS, &[keys(&closed), lines(&closed), before(&closed)])?;
    }
    if !kept.is_empty() {
        kept.iter().filter_map(|change| change.after).for_each(|(_, deadline)| board::opened(deadline));
        let quantities = datum::ints(kept.iter().map(|change| change.after.map(|(quantity, _)| quantity)));
        let deadlines = datum::times(kept.iter().map(|change| change.after.map(|(_, deadline)| deadline)));
        let args = [keys(&kept), lines(&kept), before(&kept), quantities, deadlines];
        done += execute(&sql::CHANGE_HOLDS, &args)?;
    }
    expect(done, closed.len() + kept.len(), "holds disagree with the ledger")
}

fn add_bought(effects: &Effects) -> SpiResult<()> {
    let mut each = effects.bought.iter();
    match (each.next(), each.next()) {
        (None, _) => return Ok(()),
        (Some(((at, buyer), quantity)), None) => {
            let args = [text(&at.sku), text(&at.location), text(buyer), int(*quantity)];
            return execute(&sql::ADD_BOUGHT_ONE, &args).map(|_| ());
        }
        _ => {}
    }
    let args = [
        datum::texts(effects.bought.keys().map(|(at, _)| Some(&at.sku))),
        datum::texts(effects.bought.keys().map(|(at, _)| Some(&at.location))),
        datum::texts(effects.bought.keys().map(|(_, buyer)| Some(buyer))),
        datum::ints(effects.bought.values().map(|quantity| Some(*quantity))),
    ];
    execute(&sql::ADD_BOUGHT, &args).map(|_| ())
}

fn expect(done: usize, expected: usize, what: &str) -> Result<(), Error> {
    if done == expected { Ok(()) } else { Err(Error::Corrupted(format!("{what} ({done} of {expected})"))) }
}
