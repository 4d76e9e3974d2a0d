//! What this transaction has counted as changed, in case it is rolled back: as a whole, or to a
//! savepoint.

use std::cell::RefCell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::area::Area;

/// So often at the place of a counter, at a depth of subtransactions.
struct Noted {
    depth: i32,
    place: usize,
    how_often: u64,
}

thread_local! {
    static NOTED: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) };
}

/// Registers the callbacks, once in each backend.
pub fn register() {
    // SAFETY: the callbacks have the signatures that PostgreSQL asks for, and live as long as the
    // library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

/// Notes that a request was counted there.
pub fn note(place: usize) {
    let depth = depth();
    NOTED.with_borrow_mut(|noted| add(noted, Noted { depth, place, how_often: 1 }));
}

/// Adds to what is noted, whose depths rise: those of one depth stand together, one for each place.
fn add(noted: &mut Vec<Noted>, more: Noted) {
    let own = noted.iter_mut().rev().take_while(|known| known.depth == more.depth);
    match own.into_iter().find(|known| known.place == more.place) {
        Some(known) => known.how_often += more.how_often,
        None => noted.push(more),
    }
}

fn depth() -> i32 {
    // SAFETY: asks for the state of the transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Counts what was noted from a depth on as undone.
fn undo_from(depth: i32) {
    let undone = NOTED.with_borrow_mut(|noted| noted.split_off(first_from(noted, depth)));
    if undone.is_empty() {
        return;
    }
    if let Some(area) = Area::here() {
        undone.into_iter().for_each(|known| area.undo(known.place, known.how_often));
    }
}

/// Where those begin that were noted from a depth on.
fn first_from(noted: &[Noted], depth: i32) -> usize {
    noted.len() - noted.iter().rev().take_while(|known| known.depth >= depth).count()
}

/// What was noted at a depth is its parent's now.
fn hand_up(depth: i32) {
    NOTED.with_borrow_mut(|noted| {
        for own in noted.split_off(first_from(noted, depth)) {
            add(noted, Noted { depth: depth - 1, ..own });
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_ABORT => undo_from(0),
        // Whether one that is prepared is rolled back nobody here will know.
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => NOTED.with_borrow_mut(Vec::clear),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    match event {
        SUBXACT_EVENT_ABORT_SUB => undo_from(depth()),
        SUBXACT_EVENT_COMMIT_SUB => hand_up(depth()),
        _ => {}
    }
}
