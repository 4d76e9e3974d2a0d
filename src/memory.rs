//! Gives memory back to the system after work that was larger than usual. What was freed stays with
//! the process otherwise, and a pool keeps its sessions for days.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// From so many rows on work is large.
const LARGE_ROWS_MIN: usize = 5_000;

thread_local! {
    /// This transaction was large.
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
    /// The transaction before was: what it freed at its very end is still here.
    static WAS_LARGE: Cell<bool> = const { Cell::new(false) };
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// The C library's: gives free memory at any place back.
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// Registers the callback, once in each backend.
pub fn register() {
    // SAFETY: the callback has the signature that PostgreSQL asks for, and lives as long as the
    // library.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// Notes that this transaction works on so many rows.
pub fn work_on(rows: usize) {
    give_back();
    if rows >= LARGE_ROWS_MIN {
        IS_LARGE.set(true);
    }
}

/// Gives back what an earlier transaction has left, if it was large.
pub fn give_back() {
    if WAS_LARGE.replace(false) {
        trim();
    }
}

fn trim() {
    // SAFETY: frees nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        malloc_trim(0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE)
        && IS_LARGE.replace(false)
    {
        trim();
        WAS_LARGE.set(true);
    }
}
