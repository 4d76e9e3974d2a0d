//! Undo inside a transaction.
//!
//! Each subtransaction that writes has a transaction id, and a transaction with more than 64 of
//! them makes every snapshot of the server dearer (on two cores nothing of that could be measured:
//! 32 connections sold 4,370, 4,846 and 3,864 a second alone, 4,148, 4,522 and 4,285 beside 10,000
//! of them in an open transaction). A request alone claims its key by its first line, before
//! anything else is written: taken or not, nothing is left but its locks, with which it starts
//! again. So there is a subtransaction only for batches, transfers, requests that create a level,
//! and those to which overdue holds of others give way. Where there is one, a decision that changes
//! nothing gives the locks back with it. An error inside it ends it before it travels on, for an
//! EXCEPTION block of the caller's would otherwise roll back the wrong one.

use std::panic::AssertUnwindSafe;

use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::fields;

/// Runs `work` in a subtransaction, which stands if it succeeds and leaves no trace, not even its
/// locks, if not.
///
/// An error of PostgreSQL's ends the subtransaction before it travels on: an EXCEPTION block of the
/// caller's would otherwise roll back ours instead of its own.
pub fn run<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // SAFETY: the sequence of PL/pgSQL's exec_stmt_block: begin, stay in the caller's memory
    // context; at the end release or roll back, and return to the caller's memory context and
    // resource owner.
    unsafe {
        let caller =
            Caller { context: pg_sys::CurrentMemoryContext, owner: pg_sys::CurrentResourceOwner };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(caller.context);
        let result = PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|error| {
                caller.roll_back();
                error.rethrow()
            })
            .catch_rust_panic(|error| {
                caller.roll_back();
                error.rethrow()
            })
            .execute();
        match result {
            Ok(value) => {
                pg_sys::ReleaseCurrentSubTransaction();
                caller.back();
                Ok(value)
            }
            Err(error) => {
                caller.roll_back();
                Err(error)
            }
        }
    }
}

/// An error of PostgreSQL's that ended a subtransaction.
#[derive(Debug)]
pub struct Caught {
    /// Its SQLSTATE.
    pub sqlstate: String,
    /// Its text.
    pub message: String,
}

/// As [`run`], but an error of PostgreSQL's that `expected` accepts by its SQLSTATE ends here.
pub fn attempt<T, E: From<Caught>>(
    expected: fn(&str) -> bool,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let end = move |error: CaughtError| match &error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            let caught = Caught {
                sqlstate: fields::sqlstate(fields::sqlstate_of(report)),
                message: report.message().to_owned(),
            };
            if expected(&caught.sqlstate) { Err(E::from(caught)) } else { error.rethrow() }
        }
        CaughtError::RustPanic { .. } => error.rethrow(),
    };
    PgTryBuilder::new(AssertUnwindSafe(|| run(work))).catch_others(end).execute()
}

/// Where the caller was.
#[derive(Clone, Copy)]
struct Caller {
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

impl Caller {
    /// # Safety
    /// The subtransaction that began there must be the current one.
    unsafe fn roll_back(self) {
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            self.back();
        }
    }

    /// # Safety
    /// The subtransaction that began there must have ended.
    unsafe fn back(self) {
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::CurrentResourceOwner = self.owner;
        }
    }
}
