//! How what went wrong becomes a PostgreSQL error. The one place that knows SQLSTATEs of the engine.

use std::fmt;

use pg_stock_core::Fault;
use pg_stock_core::fault::FaultKind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiError;

/// Why a call cannot be answered.
#[derive(Debug)]
pub enum Error {
    /// The caller's mistake.
    Fault(Fault),
    /// The tables contradict each other: somebody changed them behind the extension's back.
    Corrupted(String),
    /// Others kept changing what the call needs.
    Contended,
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
            Error::Spi(_) => ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "pg_stock"),
        }
    }
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
