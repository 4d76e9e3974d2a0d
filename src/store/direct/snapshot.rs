//! A snapshot of the moment.

use pgrx::pg_sys;

/// A snapshot of the moment, active as long as it lives.
pub struct Snapshot(pg_sys::Snapshot);

impl Snapshot {
    /// What a statement of its own would see.
    pub fn take() -> Self {
        // SAFETY: as each statement does; taken off in `drop`, or by the abort of the transaction.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            Snapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// The snapshot itself.
    pub fn raw(&self) -> pg_sys::Snapshot {
        self.0
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: snapshots are dropped in the opposite order of their being taken.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
