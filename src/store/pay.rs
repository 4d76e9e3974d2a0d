//! Pays queues that the call that made units free could not: a delivery for more lines than one
//! call pays.
//!
//! Nobody who comes later overtakes meanwhile: what is waited for counts as gone. One call pays at
//! one level, for which it waits a moment before anything else is locked, so that nothing can
//! deadlock with it; the next call goes on behind it. A queue that cannot be paid is passed over
//! with a warning, and stops no other.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pg_stock_core::facts::ALWAYS;
use pg_stock_core::{Decision, Entry, Facts, LevelId, Operation, pay as decide_payment};
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use super::access::Access;
use super::datum::bytes;
use super::expire::{is_lasting, is_restoring, is_subscribed, wait_for};
use super::rows::level_id;
use super::run::refuse_where_distributed;
use super::setback::Setback;
use super::subtransaction::{self, Caught};
use super::{load, lots, sql, write};
use crate::error::Error;
use crate::standby;

/// What one call did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paid {
    /// Lines paid, some of them in part.
    pub lines: i64,
    /// Units given to them.
    pub units: i64,
    /// Whether there is more to pay, here or elsewhere.
    pub more: bool,
    /// Whether this queue could not be paid.
    pub failed: bool,
}

thread_local! {
    /// The level that this session paid at last: the next one comes after it.
    static LAST: RefCell<Option<LevelId>> = const { RefCell::new(None) };
}

/// Pays up to 10,000 lines at one level.
pub fn pay() -> Result<Paid, Error> {
    standby::refuse_changes()?;
    refuse_where_distributed()?;
    if is_restoring()? || is_subscribed()? {
        return Ok(Paid::default());
    }
    let Some((at, others)) = next_unpaid()? else { return Ok(Paid::default()) };
    LAST.set(Some(at.clone()));
    if wait_for(&BTreeSet::from([at.clone()]))?.is_none() {
        return Ok(Paid { more: true, ..Paid::default() });
    }
    match subtransaction::attempt(is_lasting, || pay_at(&at)) {
        Ok(decision) => Ok(Paid { more: others || !decision.unpaid.is_empty(), ..paid(&decision) }),
        Err(setback) => {
            warn(&at, setback)?;
            Ok(Paid { more: others, failed: true, ..Paid::default() })
        }
    }
}

/// The next level at which units are there for those who wait, and whether there are others.
fn next_unpaid() -> SpiResult<Option<(LevelId, bool)>> {
    let last = LAST.take();
    let after = |last: Option<&LevelId>| {
        let (sku, location) =
            last.map_or((&b""[..], &b""[..]), |at| (at.sku.as_bytes(), at.location.as_bytes()));
        sql::UNPAID_LEVELS.query(&[bytes(sku), bytes(location)], level_id)
    };
    let mut found = after(last.as_ref())?;
    if found.len() < 2 && last.is_some() {
        let known = found.first().cloned();
        found.extend(after(None)?.into_iter().filter(|at| Some(at) != known.as_ref()));
    }
    let others = found.len() > 1;
    Ok(found.into_iter().next().map(|at| (at, others)))
}

/// Pays at a level that is locked.
fn pay_at(at: &LevelId) -> Result<Decision, Setback> {
    let access = Access::by_statements();
    let levels = access.levels(&BTreeSet::from([at.clone()]), ALWAYS)?.into_iter().collect();
    let mut facts = Facts { levels, ..load::moment() };
    lots::fill_in(&access, &mut facts, &[])?;
    let decision = load::with_queues(&access, facts, decide_payment)?;
    write::locked(&Access::reach(), &decision.effects)?;
    Ok(decision)
}

fn paid(decision: &Decision) -> Paid {
    let is_supply = |entry: &&Entry| entry.operation == Operation::Supply;
    let supplied = decision.effects.entries.iter().filter(is_supply);
    let units = |units: i64, entry: &Entry| units.saturating_add(entry.quantity);
    Paid {
        lines: supplied.clone().count() as i64,
        units: supplied.fold(0, units),
        ..Paid::default()
    }
}

fn warn(at: &LevelId, setback: Setback) -> Result<(), Error> {
    let message = match setback {
        Setback::Caught(Caught { message, .. }) => message,
        Setback::Failed(error @ Error::Corrupted(_)) => error.to_string(),
        Setback::Failed(error) => return Err(error),
        Setback::Outrun => "the ledger says already that it was paid".into(),
        Setback::Settled(_) => unreachable!("nobody is answered"),
    };
    let text = format!(
        "pg_stock could not pay those who wait for SKU \"{}\" at \"{}\": {message}",
        at.sku, at.location
    );
    let hint = "It is tried again; other queues are paid. See SELECT * FROM stock.verify().";
    ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, text, hint);
    Ok(())
}
