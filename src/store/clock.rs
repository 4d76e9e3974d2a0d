//! The database's clock, the only one that decides.

use pg_stock_core::Micros;
use pgrx::pg_sys;

use crate::settings;

/// This moment.
pub fn now() -> Micros {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }.saturating_add(settings::clock_offset())
}
