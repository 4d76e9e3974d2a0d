//! Sleep that anything may end.

use std::ffi::{c_int, c_long};

use pgrx::pg_sys;

/// Sleeps until the time is over, or something happens. Wakes also where the clock is stepped: it
/// counts time, not moments.
pub fn sleep(milliseconds: i64) {
    sleep_for(pg_sys::PG_WAIT_EXTENSION, milliseconds);
}

/// The same; `pg_stat_activity` shows this wait event meanwhile.
pub fn sleep_for(event: u32, milliseconds: i64) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch of this process.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as c_int,
            milliseconds.clamp(0, i64::from(i32::MAX)) as c_long,
            event,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}
