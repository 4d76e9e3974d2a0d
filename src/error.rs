//! How what went wrong becomes a PostgreSQL error. The one place that knows SQLSTATEs of the
//! engine.

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
    /// What a transaction shows is fixed by its snapshot.
    FixedSnapshot,
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
        f.write_str(&self.row().message)
    }
}

/// What there is to say of an error.
struct Row {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Row {
    fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Row { code, message: message.into(), detail: None, hint: None }
    }

    fn of(fault: &Fault) -> Self {
        let code = match fault.kind {
            FaultKind::Invalid => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            FaultKind::Overflow => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        };
        let (detail, hint) = (fault.detail.clone(), fault.hint.clone());
        Row { code, message: fault.message.clone(), detail, hint }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Row { detail: Some(detail.into()), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Row { hint: Some(hint.into()), ..self }
    }
}

impl Error {
    /// The SQLSTATE with which it is raised.
    pub fn sqlstate(&self) -> String {
        fields::sqlstate(self.row().code as i32)
    }

    fn row(&self) -> Row {
        use PgSqlErrorCode::*;
        match self {
            Error::Fault(fault) => Row::of(fault),
            Error::Corrupted(what) => Row::new(ERRCODE_DATA_CORRUPTED, what)
                .hint("Run SELECT * FROM stock.verify() and restore what was changed by hand."),
            Error::Contended => Row::new(
                ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not settle the request because of concurrent changes",
            )
            .hint("Run the transaction again."),
            Error::Standby => Row::new(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the change feed cannot be read on a standby",
            )
            .detail("A standby does not know which transactions are still running.")
            .hint("Connect to the primary."),
            Error::FixedSnapshot => Row::new(
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                "what this transaction shows does not change by waiting",
            )
            .detail("Its isolation level keeps the snapshot that it began with.")
            .hint("Wait before BEGIN, or use READ COMMITTED."),
            Error::ReadOnly => Row::new(
                ERRCODE_READ_ONLY_SQL_TRANSACTION,
                "stock cannot be changed on a standby",
            )
            .detail(
                "What a standby shows may be out of date, so that a refusal from it could be \
                 wrong, too.",
            )
            .hint("Connect to the primary."),
            Error::Written => Row::new(
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                "the change feed cannot be read in a transaction that has written",
            )
            .hint("Call it in a transaction of its own."),
            Error::OldSnapshot => Row::new(
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                "the cursor is newer than the snapshot of this transaction",
            )
            .hint("Call it in a transaction of its own."),
            Error::Distributed(table) => Row::new(
                ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("stock.{} is distributed by Citus", table.to_string_lossy()),
            )
            .detail(
                "What makes overselling impossible are locks and keys on one node; on a table that \
                 is distributed, replicated or in the metadata of Citus they do not hold.",
            )
            .hint(
                "Restore a dump (pg_dump) into a database where the tables of the schema stock are \
                 plain. Tables of yours may be distributed beside them.",
            ),
            Error::Spi(error) => Row::new(
                ERRCODE_INTERNAL_ERROR,
                format!("pg_stock could not run a statement: {error}"),
            ),
        }
    }

    fn report(&self) -> ErrorReport {
        let row = self.row();
        let mut report = ErrorReport::new(row.code, row.message, "pg_stock");
        if let Some(detail) = row.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = row.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

/// Raises a refusal with an SQLSTATE of its own, which pgrx does not list; the transaction is
/// aborted.
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

/// Turns Rust's backtraces off, which pgrx would put into the DETAIL of errors where the server's
/// environment asks for them: a user is not to see them.
pub fn keep_backtraces_to_ourselves() {
    // SAFETY: a backend has one thread, and the variable is read by this library's own copy of std
    // only.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}
