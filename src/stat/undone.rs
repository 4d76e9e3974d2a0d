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
    NOTED.with_borrow_mut(|noted| {
        let is_alike = |known: &&mut Noted| (known.depth, known.place) == (depth, place);
        match noted.iter_mut().rev().find(is_alike) {
            Some(known) => known.how_often += 1,
            None => noted.push(Noted { depth, place, how_often: 1 }),
        }
    });
}

fn depth() -> i32 {
    // SAFETY: asks for the state of the transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Counts what was noted from a depth on as undone.
fn undo_from(depth: i32) {
    let undone: Vec<Noted> = NOTED.with_borrow_mut(|noted| {
        let (undone, kept) =
            std::mem::take(noted).into_iter().partition(|known: &Noted| known.depth >= depth);
        *noted = kept;
        undone
    });
    if undone.is_empty() {
        return;
    }
    if let Some(area) = Area::here() {
        undone.into_iter().for_each(|known| area.undo(known.place, known.how_often));
    }
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
        // What it did is its parent's now.
        SUBXACT_EVENT_COMMIT_SUB => NOTED.with_borrow_mut(|noted| {
            let own = depth();
            noted
                .iter_mut()
                .filter(|known| known.depth >= own)
                .for_each(|known| known.depth = own - 1);
        }),
        _ => {}
    }
}
