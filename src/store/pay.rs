//! Pays queues that the call that made units free could not: a delivery for more lines than one
//! call pays.
//!
//! Nobody who comes later overtakes meanwhile: what is waited for counts as gone.

use std::collections::BTreeSet;

use pg_stock_core::facts::ALWAYS;
use pg_stock_core::{Facts, LevelId, pay as decide_payment, with_queues};
use pgrx::spi::SpiResult;

use super::access::{Access, names};
use super::clock::now;
use super::datum::{Row, int};
use super::run::{refuse_on_standby, refuse_where_distributed};
use super::setback::Setback;
use super::{sql, write};
use crate::error::Error;

/// How many levels are looked at in one call.
const LEVELS_MAX: usize = 100;

/// What one call did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paid {
    /// Lines paid, some of them in part.
    pub lines: i64,
    /// Units given to them.
    pub units: i64,
    /// Whether there is more to pay; that of levels which somebody has locked included.
    pub more: bool,
}

/// Pays up to 10,000 lines. Levels that somebody has locked are left alone: he may pay them.
pub fn pay() -> Result<Paid, Error> {
    refuse_on_standby()?;
    refuse_where_distributed()?;
    let unpaid = sql::UNPAID_LEVELS.query(&[int(LEVELS_MAX as i64)], level_id)?;
    if unpaid.is_empty() {
        return Ok(Paid::default());
    }
    let locked = lock(&unpaid)?;
    let access = Access::by_statements();
    let facts = Facts {
        now: now(),
        levels: access.levels(&locked, ALWAYS)?.into_iter().collect(),
        ..Facts::default()
    };
    let upkeep = with_queues(
        facts,
        |facts| decide_payment(facts).map_err(Error::from),
        |need| Ok(access.queues(need)?),
    )?;
    match write::locked(&Access::reach(), &upkeep.effects) {
        Ok(()) => {}
        Err(Setback::Failed(error)) => return Err(error),
        Err(_) => return Err(Error::Corrupted("a queue was paid under its level's lock".into())),
    }
    let entries = &upkeep.effects.entries;
    Ok(Paid {
        lines: entries.len() as i64,
        units: entries.iter().fold(0, |units: i64, entry| units.saturating_add(entry.quantity)),
        more: !upkeep.unpaid.is_empty()
            || locked.len() < unpaid.len()
            || unpaid.len() == LEVELS_MAX,
    })
}

fn lock(levels: &[LevelId]) -> SpiResult<BTreeSet<LevelId>> {
    let locked = sql::LOCK_FREE_LEVELS.query_each(&[], &names(levels), level_id)?;
    Ok(locked.into_iter().collect())
}

fn level_id(row: Row<'_>) -> LevelId {
    LevelId { sku: row.name(0), location: row.name(1) }
}
