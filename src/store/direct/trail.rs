//! Where the row of a level lay last, as far as this backend knows.
//!
//! An index leads to the oldest version of a row that somebody may still see, and from there to the
//! newest one by one. While an old snapshot is held open (a backup, say), a hot level leaves tens
//! of thousands of versions behind. Whoever starts from the version that it saw last has a short
//! way. So a session that the index has led through four pages or more for one level follows the
//! row from there, and prunes that page on the way, as an index scan would. What is remembered is a
//! hint: SKU, location and visibility of the row that is found are checked, and where it leads
//! nowhere it is forgotten, and the index asked.
//!
//! Without it 458 reservations a second after 100,000 sales beside an old snapshot, 0.14 of the
//! rate at its start; with it 3,748, which is 0.82 (`make bench ARGS='--only old-snapshot'`, two
//! libraries in turns).

use std::cell::RefCell;
use std::collections::HashMap;

use pg_stock_core::LevelId;
use pgrx::pg_sys::ItemPointerData;

/// From how many entries of the index on a past is long: each leads to a page of versions.
const ENTRIES_MIN: usize = 4;
/// How many levels are remembered; then all are forgotten. A backend sells few hot levels.
const LEVELS_MAX: usize = 4_096;

thread_local! {
    static LAST: RefCell<HashMap<LevelId, ItemPointerData>> = RefCell::new(HashMap::new());
}

/// Where the row of a level with a long past lay last.
pub fn last_seen(at: &LevelId) -> Option<ItemPointerData> {
    LAST.with_borrow(|last| last.get(at).copied())
}

/// Notes where the index led, and by how many entries: a level with few has no need to be
/// remembered.
pub fn found(at: &LevelId, tid: ItemPointerData, entries: usize) {
    if entries < ENTRIES_MIN {
        return;
    }
    LAST.with_borrow_mut(|last| {
        if last.len() >= LEVELS_MAX {
            last.clear();
        }
        last.insert(at.clone(), tid);
    });
}

/// Notes where the row lies now, if it is remembered.
pub fn continues(at: &LevelId, tid: ItemPointerData) {
    LAST.with_borrow_mut(|last| last.get_mut(at).map(|known| *known = tid));
}

/// Forgets where it lay.
pub fn lost(at: &LevelId) {
    LAST.with_borrow_mut(|last| last.remove(at));
}
