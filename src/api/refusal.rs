//! What the raising forms need: was the last call refused, and how is that to be reported?
//!
//! Rust can raise only the SQLSTATEs that pgrx lists, so a raising form is a thin PL/pgSQL function around the `try_`
//! form that raises what is found here. Each `try_` call overwrites what the one before it left.

use std::cell::RefCell;

use pg_stock_core::Answer;
use pg_stock_core::answer::{Report, report};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::rows;

thread_local! {
    /// The answers of the last call, if it was refused.
    static REFUSED: RefCell<Vec<Answer>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the answers of a call for the raising form around it, if they are a refusal.
pub fn remember(answers: Vec<Answer>) {
    let refused = answers.first().is_some_and(|answer| answer.outcome.is_refusal());
    REFUSED.replace(if refused { answers } else { Vec::new() });
}

/// True if the last call was refused.
#[pg_extern(sql = false)]
fn refused() -> bool {
    REFUSED.with_borrow(|answers| !answers.is_empty())
}

/// How the last refusal is to be raised: sqlstate, message, detail, hint.
#[pg_extern(sql = false)]
fn refusal(fcinfo: pg_sys::FunctionCallInfo) {
    let report: Option<Report> = REFUSED.with_borrow(|answers| report(answers));
    let columns = |report: Report| {
        [
            rows::text(report.sqlstate.as_bytes()),
            rows::text(report.message.as_bytes()),
            rows::text(report.detail.as_bytes()),
            rows::text(report.hint.as_bytes()),
        ]
    };
    rows::send(fcinfo, report.into_iter().map(columns));
}
