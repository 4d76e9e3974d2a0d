//! Which levels others wanted a moment ago, as far as this backend knows.
//!
//! A crowd that lets go of a level early leaves it free most of the time: it flushes together, is
//! answered together, and comes back together. The first who comes back finds nobody there yet; did
//! he hold the level while he flushes, all the others would wait for his flush. So who was in a
//! crowd a moment ago takes it to be there still.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use pg_stock_core::LevelId;

use crate::{early, stat};

/// How long a crowd is taken to be there. A buyer in one of 100 comes back sooner.
const CROWD_TIME: Duration = Duration::from_millis(100);
/// How many levels are remembered; then all are forgotten. A backend sells few hot levels.
const LEVELS_MAX: usize = 256;

thread_local! {
    static SEEN: RefCell<HashMap<LevelId, Instant>> = RefCell::new(HashMap::new());
}

/// Notes whether others want a level which this transaction takes: there is a sign of them, or they
/// were there a moment ago.
pub fn note(at: &LevelId, is_seen: bool) {
    if is_seen {
        remember(at);
        stat::waited(&at.sku);
    }
    if is_seen || was_at(at) {
        early::wanted();
    }
}

fn remember(at: &LevelId) {
    SEEN.with_borrow_mut(|seen| {
        if seen.len() >= LEVELS_MAX {
            seen.clear();
        }
        seen.insert(at.clone(), Instant::now());
    });
}

fn was_at(at: &LevelId) -> bool {
    SEEN.with_borrow(|seen| seen.get(at).is_some_and(|when| when.elapsed() < CROWD_TIME))
}
