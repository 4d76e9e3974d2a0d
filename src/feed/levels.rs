//! Levels, as the feed tells of them.

use std::collections::BTreeSet;

use pg_stock_core::{Level, LevelId, Micros};
use pgrx::spi::SpiResult;

use crate::store::datum::{Row, int, text};
use crate::store::rows::level;
use crate::store::{names, sql};

/// A level, as it is told.
pub struct LevelRow {
    /// Which.
    pub at: LevelId,
    /// Its counters.
    pub level: Level,
    /// When it last changed.
    pub updated_at: Micros,
}

/// Levels as they are now.
pub fn of(levels: &BTreeSet<LevelId>) -> SpiResult<Vec<LevelRow>> {
    if levels.is_empty() {
        return Ok(Vec::new());
    }
    sql::LEVEL_ROWS.query_each(&[], &names(levels), level_row)
}

/// Levels in a state that somebody should know of, and those that were announced to be in one.
pub fn alarming() -> SpiResult<Vec<LevelRow>> {
    sql::ALARMING_LEVEL_ROWS.query(&[], level_row)
}

fn level_row(row: Row<'_>) -> LevelRow {
    LevelRow { at: level::id(row), level: level::level(row), updated_at: level::updated_at(row) }
}

/// Levels from one on, at most so many, in their order.
pub fn after(after: Option<&LevelId>, most: usize) -> SpiResult<Vec<LevelRow>> {
    match after {
        None => sql::FIRST_LEVEL_ROWS.query(&[int(most as i64)], level_row),
        Some(at) => sql::LEVEL_ROWS_AFTER
            .query(&[text(&at.sku), text(&at.location), int(most as i64)], level_row),
    }
}
