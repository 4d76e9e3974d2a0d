//! How what went wrong becomes a PostgreSQL error. The one place that knows SQLSTATEs of the engine.

use std::ffi::CStr;
use std::fmt;

use pg_stock_core::Fault;
use pg_stock_core::answer::Report;
use pg_stock_core::fault::FaultKind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::fields;

/// Why a call cannot be answered.
#[derive(Debug)]
pub enum Error {
    /// The caller's mistake.
    Fault(Fault),
    /// The tables contradict each other: somebody changed them behind the extension's back.
    Corrupted(String),
    /// Others kept changing what the call needs.
    Contended,
    /// The change feed is not to be had on a standby.
    Standby,
    /// Nothing is changed on a standby.
    ReadOnly,
    /// The change feed is not to be had in a transaction that has written.
    Written,
    /// The change feed is not to be had with a snapshot older than the cursor.
    OldSnapshot,
    /// The wait for synchronous standbys was cut short.
    NotReplicated,
    /// Citus has one of our tables.
    Distributed(&'static CStr),
    /// PostgreSQL's programming interface refused a statement of ours.
    Spi(SpiError),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::Fault(fault)
    }
}

impl From<SpiError> for Error {
    fn from(error: SpiError) -> Self {
        Error::Spi(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Fault(fault) => f.write_str(&fault.message),
            Error::Corrupted(what) => f.write_str(what),
            Error::Contended => f.write_str("could not settle the request because of concurrent changes"),
            Error::Standby => f.write_str("the change feed cannot be read on a standby"),
            Error::ReadOnly => f.write_str("stock cannot be changed on a standby"),
            Error::Written => f.write_str("the change feed cannot be read in a transaction that has written"),
            Error::OldSnapshot => f.write_str("the cursor is newer than the snapshot of this transaction"),
            Error::NotReplicated => {
                f.write_str("canceling statement because the wait for synchronous replication was cut short")
            }
            Error::Distributed(table) => write!(f, "stock.{} is distributed by Citus", table.to_string_lossy()),
            Error::Spi(error) => write!(f, "pg_stock could not run a statement: {error}"),
        }
    }
}

impl Error {
    /// The SQLSTATE with which it is raised.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::Fault(fault) => match fault.kind {
                FaultKind::Invalid => "22023",
                FaultKind::Overflow => "22003",
            },
            Error::Corrupted(_) => "XX001",
            Error::Contended => "40001",
            Error::Standby => "55000",
            Error::ReadOnly => "25006",
            Error::Written | Error::OldSnapshot => "25001",
            Error::NotReplicated => "57014",
            Error::Distributed(_) => "0A000",
            Error::Spi(_) => "XX000",
        }
    }

    fn report(self) -> ErrorReport {
        let message = self.to_string();
        match self {
            Error::Fault(fault) => {
                let code = match fault.kind {
                    FaultKind::Invalid => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    FaultKind::Overflow => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                };
                let report = ErrorReport::new(code, message, "pg_stock");
                let report = match fault.detail {
                    Some(detail) => report.set_detail(detail),
                    None => report,
                };
                match fault.hint {
                    Some(hint) => report.set_hint(hint),
                    None => report,
                }
            }
            Error::Corrupted(_) => ErrorReport::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, message, "pg_stock")
                .set_hint("Run SELECT * FROM stock.verify() and restore what was changed by hand."),
            Error::Contended => {
                ErrorReport::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message, "pg_stock")
                    .set_hint("Run the transaction again.")
            }
            Error::Standby => {
                ErrorReport::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, "pg_stock")
                    .set_detail("A standby does not know which transactions are still running.")
                    .set_hint("Connect to the primary.")
            }
            Error::ReadOnly => {
                ErrorReport::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, message, "pg_stock")
                    .set_detail("What a standby shows may be out of date, so that a refusal from it could be wrong, too.")
                    .set_hint("Connect to the primary.")
            }
            Error::NotReplicated => ErrorReport::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message, "pg_stock")
                .set_detail("What it would report may not be on the standbys yet.")
                .set_hint("Call again; or set synchronous_commit to local, not to wait for standbys."),
            Error::Distributed(_) => {
                ErrorReport::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, "pg_stock")
                    .set_detail("What makes overselling impossible are locks and keys on one node; on a table that is distributed, replicated or in the metadata of Citus they do not hold.")
                    .set_hint("Restore a dump (pg_dump) into a database where the tables of the schema stock are plain. Tables of yours may be distributed beside them.")
            }
            Error::Written | Error::OldSnapshot => {
                ErrorReport::new(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION, message, "pg_stock")
                    .set_hint("Call it in a transaction of its own.")
            }
            Error::Spi(_) => ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "pg_stock"),
        }
    }
}

/// Raises a refusal with an SQLSTATE of its own, which pgrx does not list; the transaction is aborted.
pub fn raise_refusal(refusal: Report) -> ! {
    fields::raise_as(refusal.sqlstate);
    ErrorReport::new(PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION, refusal.message, "pg_stock")
        .set_detail(refusal.detail)
        .set_hint(refusal.hint)
        .report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Returns the value, or raises the error; the transaction is aborted and the backend goes on.
pub fn or_raise<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            error.report().report(PgLogLevel::ERROR);
            unreachable!("an ERROR does not return")
        }
    }
}

/// Turns Rust's backtraces off, which pgrx would put into the DETAIL of errors where the server's environment asks
/// for them: a user is not to see them.
pub fn keep_backtraces_to_ourselves() {
    // SAFETY: a backend has one thread, and the variable is read by this library's own copy of std only.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}
