//! Stores the effects of a decision. Nothing else writes the tables.

use std::collections::BTreeSet;

use pg_stock_core::{Answer, Decision, Effects, Entry, Level, LevelId, Micros};
use pgrx::spi::SpiResult;

use super::access::{Access, is_of_one_key};
use super::clock::now;
use super::lots;
use super::notify;
use super::setback::Setback;
use crate::error::Error;
use crate::{board, early};

/// Stores a one-line reserve or sale under its guard; `None` where the guard failed or the key was
/// taken.
///
/// The level is checked as it is changed (by statements: once it is locked), so that waiting buyers
/// queue for the row once. If another connection turns out to have used the key, or the sale is
/// over by now, the level is put back; nobody has seen it.
pub fn guarded(access: &Access, mut decision: Decision) -> Result<Option<Vec<Answer>>, Error> {
    let (Some(guard), Some(change)) = (&decision.guard, decision.effects.levels.values().next())
    else {
        return Ok(None);
    };
    let (at, decided_at, change) = (guard.at.clone(), guard.now, change.clone());
    let due = decision.effects.opened.first().map_or(change.after.next_due, |hold| hold.expires_at);
    let Some(actual) = access.change_guarded(guard, &change, due)? else { return Ok(None) };
    decision.rebase(&actual);
    let effects = &decision.effects;
    // Whoever waited for the level may have waited beyond the end of its sale.
    let is_over = !actual.sale.is_open(now());
    if is_over || !claim_in_turn(access, &effects.entries)? {
        let put_back = access.change_levels(&[(&at, &actual, &change.off(&actual))], decided_at)?;
        expect(put_back, 1, "a level could not be put back")?;
        return Ok(None);
    }
    change_holds_and_buyers(access, effects)?;
    change_places(access, effects)?;
    tell(effects)?;
    Ok(Some(decision.answers))
}

/// Writes the ledger rows of a guarded decision, the claim of the key first: where that fails
/// nothing else is written. False where the key was taken.
fn claim_in_turn(access: &Access, entries: &[Entry]) -> SpiResult<bool> {
    for entry in entries {
        if access.claim(&[entry])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether effects that cannot be stored because others were first leave nothing behind: they claim
/// one key and create no level.
pub fn is_outrun_at_once_or_never(effects: &Effects) -> bool {
    let entries: Vec<&Entry> = effects.entries.iter().collect();
    effects.levels.values().all(|change| change.before.is_some()) && is_of_one_key(&entries)
}

/// Stores effects that were decided under the locks of their levels.
pub fn locked(access: &Access, effects: &Effects) -> Result<(), Setback> {
    let Some(now) = effects.entries.first().map(|entry| entry.recorded_at) else { return Ok(()) };
    claim(access, effects)?;
    create_levels(access, effects, now)?;
    lots::track(effects)?;
    change_holds_and_buyers(access, effects)?;
    change_places(access, effects)?;
    change_legs(access, effects)?;
    change_lots(access, effects)?;
    change_levels(access, effects, now)?;
    tell(effects)?;
    Ok(())
}

/// Writes the ledger rows, in the order in which all do.
fn claim(access: &Access, effects: &Effects) -> Result<(), Setback> {
    let mut entries: Vec<&Entry> = effects.entries.iter().collect();
    entries.sort_by(|a, b| (&a.key, a.line).cmp(&(&b.key, b.line)));
    let claimed = access.claim(&entries)?;
    if claimed > 0 && is_outrun_at_once_or_never(effects) {
        expect(claimed, entries.len(), "a key has claims, but none on its first line")?;
    }
    if claimed < entries.len() { Err(Setback::Outrun) } else { Ok(()) }
}

/// Creates the levels that did not exist, unless another connection created one of them first.
fn create_levels(access: &Access, effects: &Effects, now: Micros) -> Result<(), Setback> {
    let created = effects.levels.iter().filter(|(_, change)| change.before.is_none());
    let created: Vec<_> = created.map(|(at, change)| (at, &change.after)).collect();
    if created.is_empty() || access.create_levels(&created, now)? == created.len() {
        Ok(())
    } else {
        Err(Setback::Outrun)
    }
}

/// Opens, changes and closes holds, which must be as they were read, and counts what buyers have.
fn change_holds_and_buyers(access: &Access, effects: &Effects) -> Result<(), Error> {
    // A line may give a hold up and be given another.
    if !effects.changed.is_empty() {
        let changed = access.change_holds(&effects.changed)?;
        expect(changed, effects.changed.len(), "holds disagree with the ledger")?;
    }
    if !effects.opened.is_empty() {
        access.open_holds(&effects.opened)?;
    }
    let put_off =
        effects.changed.iter().filter_map(|change| change.after.map(|(_, deadline)| deadline));
    effects.opened.iter().map(|hold| hold.expires_at).chain(put_off).for_each(board::opened);
    if !effects.bought.is_empty() {
        access.add_bought(effects.bought.iter())?;
    }
    Ok(())
}

/// Changes places in queues, which must be as the entries of their lines say.
fn change_places(access: &Access, effects: &Effects) -> Result<(), Error> {
    if effects.waits.is_empty() {
        return Ok(());
    }
    let changed = access.change_places(&effects.waits)?;
    expect(changed, effects.waits.len(), "queues disagree with the ledger")
}

/// Changes lots and what holds have of them, which must be as the entries of their lines say.
fn change_lots(access: &Access, effects: &Effects) -> Result<(), Error> {
    if effects.lots.is_empty() && effects.entries.iter().all(|entry| entry.lots.is_empty()) {
        return Ok(());
    }
    let (moves, written) = lots::claim(access, effects)?;
    expect(written, moves, "the moves of lots could not be written")?;
    expect(lots::change(access, effects)?, effects.lots.len(), "lots disagree with the ledger")?;
    expect(
        lots::bind(access, effects)?,
        effects.held_lots.len(),
        "holds of lots disagree with the ledger",
    )
}

/// Changes goods on the road, which must be as their entries say.
fn change_legs(access: &Access, effects: &Effects) -> Result<(), Error> {
    if effects.shipped.is_empty() {
        return Ok(());
    }
    let changed = access.change_legs(&effects.shipped)?;
    expect(changed, effects.shipped.len(), "shipments disagree with the ledger")
}

/// Changes levels, after their holds have changed: where the earliest of these ended or moved, the
/// next one is found.
fn change_levels(access: &Access, effects: &Effects, now: Micros) -> Result<(), Error> {
    let changed = || {
        effects
            .levels
            .iter()
            .filter_map(|(at, change)| Some((at, change.before.as_ref()?, &change.after)))
    };
    let bounds = changed().filter(|(at, ..)| effects.bounds.contains(*at));
    let first_due =
        access.first_due(&bounds.map(|(at, _, after)| (at, after.next_due)).collect())?;
    let after: Vec<Level> =
        changed().map(|(at, _, after)| due_from(after, first_due.get(at))).collect();
    let levels: Vec<_> =
        changed().zip(&after).map(|((at, before, _), after)| (at, before, after)).collect();
    let done = access.change_levels(&levels, now)?;
    expect(done, levels.len(), "levels that were locked could not be changed")?;
    let is_changed = |at: &&LevelId| effects.levels.contains_key(*at);
    let others: BTreeSet<LevelId> =
        effects.bounds.iter().filter(|at| !is_changed(at)).cloned().collect();
    if others.is_empty() { Ok(()) } else { Ok(access.raise_bounds(&others)?) }
}

fn due_from(level: &Level, first: Option<&Micros>) -> Level {
    Level { next_due: first.copied().unwrap_or(level.next_due), ..level.clone() }
}

/// Lets the worker know that there is something to tell, or tells it.
fn tell(effects: &Effects) -> SpiResult<()> {
    board::changed();
    early::changed();
    notify::announce(effects)
}

fn expect(done: usize, expected: usize, what: &str) -> Result<(), Error> {
    if done == expected {
        Ok(())
    } else {
        Err(Error::Corrupted(format!("{what} ({done} of {expected})")))
    }
}
