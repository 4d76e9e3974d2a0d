//! Books what lots have of free units past their time as unsellable, and warns of dates.
//!
//! Correctness never needs it: such a lot is promised to nobody from that moment on. With it the
//! counters alone say so, in the feed, too. Levels that somebody has locked are left to the next
//! call, so that nothing can deadlock with it; one that cannot be booked is passed over with a
//! warning, and stops no other.

use std::collections::{BTreeSet, HashSet};

use pg_stock_core::facts::ALWAYS;
use pg_stock_core::feed::message;
use pg_stock_core::{Decision, Facts, LevelId, Name, Operation, spoil as decide_spoil};
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use super::access::{Access, names};
use super::clock::now;
use super::datum::{Row, int, text, time, word};
use super::expire::{is_lasting, is_restoring, is_subscribed};
use super::notify::Channel;
use super::rows::level_id;
use super::run::refuse_where_distributed;
use super::setback::Setback;
use super::subtransaction::{self, Caught};
use super::{load, lots, notify, sql, write};
use crate::error::Error;
use crate::settings::{self, Notify};
use crate::standby;

/// How long another session that tells of dates is waited for.
const LOCK_WAIT_MAX_MS: i32 = 1_000;

/// What one call did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spoiled {
    /// Levels that have less to sell by what was booked.
    pub levels: i64,
    /// Units that were booked as unsellable.
    pub units: i64,
    /// Whether there is more to book.
    pub more: bool,
    /// Levels that could not be booked.
    pub failed: i64,
}

/// Books the lots past their time of up to `most` levels, and tells of dates.
pub fn spoil(most: usize) -> Result<Spoiled, Error> {
    standby::refuse_changes()?;
    refuse_where_distributed()?;
    if is_restoring()? || is_subscribed()? {
        return Ok(Spoiled::default());
    }
    // Before any lock is held: it may have to wait for another session that tells the same.
    tell_of_dates(most)?;
    let due = sql::SPOILED_LEVELS.query(&[time(now())], level_id)?;
    let mut spoiled = Spoiled { more: due.len() > most, ..Spoiled::default() };
    // Those that are locked keep the next from nothing.
    for page in due.chunks(most) {
        let held = sql::LOCK_FREE_LEVELS.query_each(&[], &names(page), level_id)?;
        let held: BTreeSet<LevelId> = held.into_iter().collect();
        spoiled.more |= held.len() < page.len();
        if !held.is_empty() {
            book_each(held, &mut spoiled)?;
            break;
        }
    }
    Ok(spoiled)
}

/// Books at levels that are locked; where that fails, at each by itself.
fn book_each(held: BTreeSet<LevelId>, spoiled: &mut Spoiled) -> Result<(), Error> {
    if let Ok(decision) = subtransaction::attempt(is_lasting, || book(&held)) {
        spoiled.count(&decision);
        return Ok(());
    }
    for at in held {
        match subtransaction::attempt(is_lasting, || book(&BTreeSet::from([at.clone()]))) {
            Ok(decision) => spoiled.count(&decision),
            Err(setback) => {
                spoiled.failed += 1;
                warn(&at, setback)?;
            }
        }
    }
    Ok(())
}

/// Tells of dates; where another session is about to tell the same, it is left to that, and what
/// that does not tell to the next call.
fn tell_of_dates(most: usize) -> Result<(), Error> {
    let timed_out = |sqlstate: &str| sqlstate == "55P03";
    let told = subtransaction::attempt(timed_out, || {
        settings::limit_lock_waits(LOCK_WAIT_MAX_MS);
        warn_of_dates(most).map_err(Setback::from)
    });
    match told {
        Ok(()) | Err(Setback::Caught(_)) => Ok(()),
        Err(Setback::Failed(error)) => Err(error),
        Err(Setback::Outrun | Setback::Settled(_)) => unreachable!("nothing is decided"),
    }
}

/// Tells once of each lot that its date is near, and once that it is past.
fn warn_of_dates(most: usize) -> SpiResult<()> {
    let now = now();
    sql::END_LOT_ALERTS.execute(&[time(now)])?;
    let found = sql::LOT_ALERTS.query(&[time(now), int(most as i64)], notify::lot_state)?;
    let rows: Vec<_> = found
        .iter()
        .map(|(at, lot, _, alert)| [text(&at.sku), text(&at.location), word(alert), text(lot)])
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    // What another session announces at the same moment is its own to tell.
    let told = |row: Row<'_>| (level_id(row), row.name(2), row.name(3));
    let ours: HashSet<_> =
        sql::BEGIN_LOT_ALERTS.query_each(&[time(now)], &rows, told)?.into_iter().collect();
    let is_ours = |at: &LevelId, alert: &str, lot: &Name| {
        ours.contains(&(at.clone(), alert.into(), lot.clone()))
    };
    let states: Vec<_> = found
        .into_iter()
        .filter(|(at, lot, _, alert)| is_ours(at, alert, lot))
        .filter_map(|(.., state, _)| state)
        .collect();
    if settings::notify() != Notify::Off {
        notify::send(Channel::Alert, &message::of_lots(&states))?;
    }
    Ok(())
}

impl Spoiled {
    fn count(&mut self, decision: &Decision) {
        let booked = decision.effects.entries.iter();
        for entry in booked.filter(|entry| entry.operation == Operation::Spoil) {
            self.levels += 1;
            self.units = self.units.saturating_add(entry.quantity);
        }
    }
}

/// Books at levels that are locked.
fn book(levels: &BTreeSet<LevelId>) -> Result<Decision, Setback> {
    let access = Access::by_statements();
    // What else is overdue on them is of no interest.
    let levels = access.levels(levels, ALWAYS)?.into_iter().collect();
    let mut facts = Facts { levels, ..load::moment() };
    lots::fill_in(&access, &mut facts, &[])?;
    let decision = decide_spoil(facts)?;
    write::locked(&Access::reach(), &decision.effects)?;
    Ok(decision)
}

fn warn(at: &LevelId, setback: Setback) -> Result<(), Error> {
    let message = match setback {
        Setback::Caught(Caught { message, .. }) => message,
        Setback::Failed(error @ Error::Corrupted(_)) => error.to_string(),
        Setback::Failed(error) => return Err(error),
        Setback::Outrun => "the ledger says already that it was booked".into(),
        Setback::Settled(_) => unreachable!("nobody is answered"),
    };
    let text = format!(
        "pg_stock could not book the lots past their time of SKU \"{}\" at \"{}\": {message}",
        at.sku, at.location
    );
    let hint = "It is tried again; other levels are booked. See SELECT * FROM stock.verify().";
    ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, text, hint);
    Ok(())
}
