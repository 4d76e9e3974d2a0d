//! Settings of PostgreSQL's own that we change for a moment.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Lets no wait for a lock take longer until the current subtransaction ends.
pub fn limit_lock_waits(milliseconds: i32) {
    // SAFETY: a variable of this backend.
    let limit = unsafe { pg_sys::LockTimeout };
    if limit <= 0 || limit > milliseconds {
        let value = CString::new(milliseconds.to_string()).unwrap_or_default();
        // What is set so is restored at the end of the subtransaction, however it ends.
        set(c"lock_timeout", &value, pg_sys::GucAction::GUC_ACTION_SAVE);
    }
}

/// Lets this transaction flush its commit and wait for no standby, whatever was asked for; gives
/// what was.
pub fn commit_locally() -> i32 {
    // SAFETY: a variable of this backend.
    let asked = unsafe { pg_sys::synchronous_commit };
    set_synchronous_commit(c"local");
    asked
}

/// Lets this transaction wait for its commit to be flushed, whatever the session asks for; a higher
/// demand stands.
pub fn commit_durably() {
    use pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH;
    // SAFETY: a variable of this backend.
    if unsafe { pg_sys::synchronous_commit } < SYNCHRONOUS_COMMIT_REMOTE_FLUSH as i32 {
        set_synchronous_commit(c"on");
    }
}

/// Sets `synchronous_commit` until the transaction ends.
fn set_synchronous_commit(value: &CStr) {
    set(c"synchronous_commit", value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    let (role, source) = (pg_sys::GucContext::PGC_USERSET, pg_sys::GucSource::PGC_S_SESSION);
    // SAFETY: C strings, which PostgreSQL copies.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            role,
            source,
            action,
            true,
            0,
            false,
        )
    };
}
