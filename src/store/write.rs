//! Stores the effects of a decision. Nothing else writes the tables.

use pg_stock_core::decide::{Guard, HoldChange, LevelChange};
use pg_stock_core::{Answer, Decision, Effects, Entry, Hold, Level, LevelId, Micros, Name, Operation};
use pgrx::spi::SpiResult;

use super::Setback;
use super::datum::{self, int, opt_int, text, time};
use super::direct::{FEW, Step, Tables};
use super::sql::Statement;
use super::statement::{execute, query};
use crate::board;
use crate::error::Error;
use crate::{early, notify, settings};

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
    open_holds(tables, &decision.effects.opened, guard.now)?;
    add_bought(&decision.effects)?;
    tell(&decision.effects)?;
    Ok(Some(decision.answers))
}

/// Stores effects that were decided under the locks of their levels.
pub fn locked(tables: Option<&Tables>, effects: &Effects) -> Result<(), Setback> {
    let Some(now) = effects.entries.first().map(|entry| entry.recorded_at) else { return Ok(()) };
    let mut entries: Vec<&Entry> = effects.entries.iter().collect();
    entries.sort_by(|a, b| (&a.key, a.line).cmp(&(&b.key, b.line)));
    if claim(tables, &entries)? < entries.len() {
        return Err(Setback::Outrun);
    }
    if !create_levels(effects, now)? {
        return Err(Setback::Outrun);
    }
    open_holds(tables, &effects.opened, now)?;
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
    early::arm();
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
    Ok(query(Statement::GuardedUpdate, &args, level)?.pop())
}

/// The deadline that the level's earliest must not lie after.
fn next_due(change: &LevelChange, effects: &Effects) -> Micros {
    effects.opened.first().map_or(change.after.next_due, |hold| hold.expires_at)
}

fn undo(guard: &Guard, change: &LevelChange) -> SpiResult<()> {
    execute(Statement::UndoGuardedUpdate, &undo_args(guard, change)).map(|_| ())
}

/// The level and by how much its counters and version change.
fn undo_args<'a>(guard: &'a Guard, change: &LevelChange) -> [pgrx::datum::DatumWithOid<'a>; 5] {
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

/// An integer argument.
pub fn line<'a>(number: i32) -> pgrx::datum::DatumWithOid<'a> {
    // SAFETY: an i32 is an integer.
    unsafe { pgrx::datum::DatumWithOid::new(number, pgrx::pg_sys::INT4OID) }
}

/// Writes ledger rows; says how many were written, fewer than given where a key was taken.
fn claim(tables: Option<&Tables>, entries: &[&Entry]) -> SpiResult<usize> {
    if let Some(claimed) = tables.and_then(|tables| tables.claim(entries)) {
        return Ok(claimed);
    }
    if let [entry] = entries
        && let Some(at) = &entry.at
        && entry.operation == Operation::Reserve
        && entry.expires_at.is_some()
    {
        return claim_reserve(entry, at);
    }
    let now = entries.first().map_or(0, |entry| entry.recorded_at);
    let each = || entries.iter().copied();
    let level = |entry: &Entry, value: i64| entry.at.as_ref().map(|_| value);
    execute(
        Statement::Claim,
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
            datum::opt_text(settings::context().as_deref()),
        ],
    )
}

/// As `claim`, for the one row of a one-line reserve.
fn claim_reserve(entry: &Entry, at: &LevelId) -> SpiResult<usize> {
    execute(
        Statement::ClaimReserve,
        &[
            time(entry.recorded_at),
            text(&entry.key),
            line(entry.line),
            text(&at.sku),
            text(&at.location),
            int(entry.quantity),
            int(entry.on_hand_after),
            int(entry.reserved_after),
            int(entry.version),
            opt_int(entry.available),
            datum::opt_text(entry.buyer.as_ref().map(Name::as_bytes)),
            time(entry.expires_at.unwrap_or(pg_stock_core::facts::NEVER)),
            datum::opt_text(settings::context().as_deref()),
        ],
    )
}

/// Creates the levels that did not exist; false where another connection created one of them first.
fn create_levels(effects: &Effects, now: Micros) -> SpiResult<bool> {
    let created: Vec<_> = effects.levels.iter().filter(|(_, change)| change.before.is_none()).collect();
    if created.is_empty() {
        return Ok(true);
    }
    Ok(execute(Statement::CreateLevels, &level_args(&created, now))? == created.len())
}

fn change_levels(tables: Option<&Tables>, effects: &Effects, now: Micros) -> Result<(), Error> {
    let mut changed: Vec<_> = effects.levels.iter().filter(|(_, change)| change.before.is_some()).collect();
    if let Some(tables) = tables.filter(|_| changed.len() <= FEW) {
        changed.retain(|(at, change)| !tables.change_locked(at, change, effects.bounds.contains(*at), now));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let mut args = Vec::from(level_args(&changed, now));
    args.push(datum::ints(changed.iter().map(|(_, change)| change.before.as_ref().map(|level| level.version))));
    args.push(datum::flags(changed.iter().map(|(at, _)| Some(effects.bounds.contains(*at)))));
    let done = execute(Statement::ChangeLevels, &args)?;
    expect(done, changed.len(), "levels that were locked could not be changed")
}

/// Finds the earliest deadline again where it moved and nothing else did. Comes after the holds have changed, as
/// `change_levels` does.
fn raise_bounds(effects: &Effects) -> SpiResult<()> {
    let moved = || effects.bounds.iter().filter(|at| !effects.levels.contains_key(at));
    if moved().next().is_none() {
        return Ok(());
    }
    let args = [datum::texts(moved().map(|at| Some(&at.sku))), datum::texts(moved().map(|at| Some(&at.location)))];
    execute(Statement::RaiseBounds, &args).map(|_| ())
}

fn level_args<'b>(levels: &[(&LevelId, &LevelChange)], now: Micros) -> [pgrx::datum::DatumWithOid<'b>; 10] {
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

fn open_hold(hold: &Hold, now: Micros) -> SpiResult<()> {
    let args = [
        text(&hold.key),
        line(hold.line),
        text(&hold.at.sku),
        text(&hold.at.location),
        int(hold.quantity),
        datum::opt_text(hold.buyer.as_ref().map(Name::as_bytes)),
        time(hold.expires_at),
        time(now),
    ];
    execute(Statement::OpenHold, &args).map(|_| ())
}

fn open_holds(tables: Option<&Tables>, holds: &[Hold], now: Micros) -> SpiResult<()> {
    if holds.is_empty() {
        return Ok(());
    }
    holds.iter().for_each(|hold| board::opened(hold.expires_at));
    if tables.and_then(|tables| tables.open_holds(holds, now)).is_some() {
        return Ok(());
    }
    if let [hold] = holds {
        return open_hold(hold, now);
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
        time(now),
    ];
    execute(Statement::OpenHolds, &args).map(|_| ())
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
    if !closed.is_empty() {
        done += execute(Statement::CloseHolds, &[keys(&closed), lines(&closed), before(&closed)])?;
    }
    if !kept.is_empty() {
        kept.iter().filter_map(|change| change.after).for_each(|(_, deadline)| board::opened(deadline));
        let quantities = datum::ints(kept.iter().map(|change| change.after.map(|(quantity, _)| quantity)));
        let deadlines = datum::times(kept.iter().map(|change| change.after.map(|(_, deadline)| deadline)));
        let args = [keys(&kept), lines(&kept), before(&kept), quantities, deadlines];
        done += execute(Statement::ChangeHolds, &args)?;
    }
    expect(done, closed.len() + kept.len(), "holds disagree with the ledger")
}

fn add_bought(effects: &Effects) -> SpiResult<()> {
    if effects.bought.is_empty() {
        return Ok(());
    }
    let args = [
        datum::texts(effects.bought.keys().map(|(at, _)| Some(&at.sku))),
        datum::texts(effects.bought.keys().map(|(at, _)| Some(&at.location))),
        datum::texts(effects.bought.keys().map(|(_, buyer)| Some(buyer))),
        datum::ints(effects.bought.values().map(|quantity| Some(*quantity))),
    ];
    execute(Statement::AddBought, &args).map(|_| ())
}

fn expect(done: usize, expected: usize, what: &str) -> Result<(), Error> {
    if done == expected { Ok(()) } else { Err(Error::Corrupted(format!("{what} ({done} of {expected})"))) }
}
