//! Levels, as the feed tells of them.

use std::collections::BTreeSet;

use pg_stock_core::{Level, LevelId, Micros};
use pgrx::spi::SpiResult;

use crate::store::datum::{Argument, Row, int, text, texts};
use crate::store::sql;
use crate::store::statement::query;

/// A level, as it is told.
pub struct State {
    /// Which.
    pub at: LevelId,
    /// Its counters.
    pub level: Level,
    /// When it last changed.
    pub updated_at: Micros,
}

/// Levels as they are now.
pub fn of(levels: &BTreeSet<LevelId>) -> SpiResult<Vec<State>> {
    if levels.is_empty() {
        return Ok(Vec::new());
    }
    query(&sql::STATES, &[skus(levels), locations(levels)], state)
}

/// Levels in a state that somebody should know of, and those of which it was announced that they are.
pub fn alarming() -> SpiResult<Vec<State>> {
    query(&sql::ALARMING_STATES, &[], state)
}

/// A level as it is now; the columns of `&sql::STATES`.
fn state(row: Row<'_>) -> State {
    State {
        at: LevelId { sku: row.name(0), location: row.name(1) },
        level: Level {
            on_hand: row.int(2),
            reserved: row.int(3),
            safety_stock: row.int(4),
            frozen: row.opt_flag(5).unwrap_or(false),
            version: row.int(6),
            ..Level::new()
        },
        updated_at: row.int(7),
    }
}

/// The SKUs of levels.
pub fn skus(levels: &BTreeSet<LevelId>) -> Argument {
    texts(levels.iter().map(|at| Some(&at.sku)))
}

/// The locations of levels.
pub fn locations(levels: &BTreeSet<LevelId>) -> Argument {
    texts(levels.iter().map(|at| Some(&at.location)))
}

/// Levels from one on, at most so many, in their order.
pub fn after(after: Option<&LevelId>, most: usize) -> SpiResult<Vec<State>> {
    match after {
        None => query(&sql::FIRST_STATES, &[int(most as i64)], state),
        Some(at) => query(&sql::STATES_AFTER, &[text(&at.sku), text(&at.location), int(most as i64)], state),
    }
}
