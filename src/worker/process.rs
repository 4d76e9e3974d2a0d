//! What the launcher and the workers do alike: signals, settings, sleep, transactions.

use std::ffi::{CStr, c_int};
use std::panic::AssertUnwindSafe;

use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::fields::Call;
use crate::{memory, settings, stat, store};

/// How long an attempt waits for a lock.
const LOCK_WAIT_MAX_MS: i32 = 100;

unsafe extern "C-unwind" {
    /// PostgreSQL's own handler of SIGTERM: cancels whatever runs, also in the middle of a
    /// statement.
    fn die(signal: c_int);
    /// PostgreSQL's own handler of SIGHUP.
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// Listens to SIGTERM and SIGHUP as a backend does.
pub fn listen_to_signals() {
    // SAFETY: the handlers are PostgreSQL's own.
    unsafe {
        for (signal, handler) in [
            (pg_sys::SIGTERM, die as unsafe extern "C-unwind" fn(c_int)),
            (pg_sys::SIGHUP, SignalHandlerForConfigReload),
        ] {
            #[cfg(not(feature = "pg18"))]
            pg_sys::pqsignal(signal as c_int, Some(handler));
            #[cfg(feature = "pg18")]
            pg_sys::pqsignal_be(signal as c_int, Some(handler));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Ends the process if it was told to, without a word; reads the configuration if it changed, and
/// says so.
pub fn attend() -> bool {
    // SAFETY: variables that the signal handlers set, and the functions to call then. A process
    // that ends with 0 would never be started again; the postmaster starts none while it shuts
    // down.
    unsafe {
        if pg_sys::ProcDiePending != 0 {
            pg_sys::proc_exit(1);
        }
        pgrx::check_for_interrupts!();
        let changed = pg_sys::ConfigReloadPending != 0;
        if changed {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        changed
    }
}

/// Runs work in a transaction, whose commit is flushed and waits for no standby: while one is away,
/// expiry goes on, and nobody waits for a lock of ours. (What is told waits before that, `feed`.)
/// An error in it ends the process, which the launcher then starts again: nothing that an error may
/// have left behind is used any more.
pub fn transaction<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the sequence of PostgreSQL's own workers.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        settings::commit_locally();
        let call = Call::begin();
        let result = work();
        drop(call);
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// Why an attempt failed.
pub enum Failure {
    /// Somebody has locked what it needs, for longer than it waits.
    Locked,
    /// Another error; this is its text.
    Error(String),
}

/// The text of a failure.
pub fn text_of(failure: Failure) -> String {
    match failure {
        Failure::Locked => "canceling statement due to lock timeout".into(),
        Failure::Error(text) => text,
    }
}

/// Writes an error of the worker into the log, with what comes next, and counts it.
pub fn complain(could_not: &str, error: &str, next: &str) {
    let text = format!("pg_stock could not {could_not}: {error}");
    stat::worker_failed(&text, store::now());
    ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, text, next);
}

/// As [`transaction`], but an error of PostgreSQL's undoes the work, and ends here.
pub fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    let undo = |error: CaughtError| match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            // SAFETY: the error has unwound to here, outside of everything that the transaction
            // began.
            unsafe {
                pg_sys::error_context_stack = std::ptr::null_mut();
                pg_sys::AbortCurrentTransaction();
            }
            Err(match report.sql_error_code() {
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => Failure::Locked,
                _ => Failure::Error(report.message().to_owned()),
            })
        }
        CaughtError::RustPanic { .. } => error.rethrow(),
    };
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(transaction(work)))).catch_others(undo).execute()
}

/// As [`attempt`], but waits for no lock longer than a moment.
pub fn attempt_impatiently<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    attempt(|| {
        settings::limit_lock_waits(LOCK_WAIT_MAX_MS);
        work()
    })
}

/// Gives the transaction a snapshot for statements, and shows in pg_stat_activity what is done
/// meanwhile.
pub fn active<T>(activity: &CStr, work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Shows that nothing is done, and reports what was: autovacuum must hear of the rows that were
/// deleted.
pub fn idle() {
    // SAFETY: outside a transaction.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    memory::give_back();
}

/// Sets a setting for the life of this process.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: constant strings; settings that a superuser may set at any time.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}
