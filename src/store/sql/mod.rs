//! All SQL text of the engine.
//!
//! Every name is qualified, every statement names SKU and location in its WHERE where it touches a level or a hold,
//! so that the tables can be distributed by SKU. `statement` says what the words in braces are.
//!
//! | room | whose statements |
//! |---|---|
//! | `requests` | those of a request |
//! | `expiry` | those of the sweep |
//! | `feed` | those of the change feed |

mod expiry;
mod feed;
mod requests;

use pgrx::pg_sys::{BOOLOID, INT4OID, INT8OID, Oid, TEXTOID, TIMESTAMPTZOID, XID8OID};

pub use expiry::*;
pub use feed::*;
pub use requests::*;

use super::planner::MARK;
use super::rows::Shape;
use super::rows::hold::HOLD;
use super::rows::ledger::LEDGER;
use super::rows::level::LEVEL;
use super::statement::Given;

const TEXT: Oid = TEXTOID;
const INT: Oid = INT8OID;
const LINE: Oid = INT4OID;
const FLAG: Oid = BOOLOID;
const TIME: Oid = TIMESTAMPTZOID;
const XID: Oid = XID8OID;

/// What names a level.
const SKU: Given = ("sku", TEXT);
const LOCATION: Given = ("location", TEXT);

/// What is overdue on a level by the time $1; it is only looked for where something may be.
const OVERDUE_UNITS: &str = "CASE WHEN level.next_due <= $1 THEN
        (SELECT pg_catalog.sum(h.quantity)::bigint FROM stock.hold h
          WHERE h.sku = level.sku AND h.location = level.location AND h.expires_at BETWEEN level.next_due AND $1)
      END AS overdue";

/// The text of a statement, with its words but those of what it is given: `{level}`, `{hold}` and `{ledger}` are the
/// columns of these tables in their order.
pub fn spell_out(text: &str) -> String {
    let columns = |name: &str, table: &Shape| {
        let columns = table.columns.iter().map(|column| format!("{name}.{}", column.name));
        columns.collect::<Vec<_>>().join(", ")
    };
    let changes = LEVEL.columns.iter().filter(|column| !LEVEL.constant.contains(&column.name));
    let changes: Vec<String> = changes.map(|column| format!("{0} = given.{0}", column.name)).collect();
    let words = [
        ("{level}", columns("level", &LEVEL)),
        ("{hold}", columns("hold", &HOLD)),
        ("{ledger}", columns("ledger", &LEDGER)),
        ("{changes of level}", changes.join(", ")),
        ("{overdue}", OVERDUE_UNITS.to_owned()),
    ];
    words.iter().fold(format!("{MARK}{text}"), |text, (word, meaning)| text.replace(word, meaning))
}

/// All of them, for the tests of their plans.
#[cfg(any(test, feature = "pg_test"))]
pub static ALL: &[&super::statement::Statement] = &[
    &GLANCE,
    &LEVELS,
    &LOCK_LEVELS,
    &HISTORY,
    &OVERDUE,
    &BOUGHT,
    &CLAIM,
    &OPEN_HOLDS,
    &CLOSE_HOLDS,
    &CHANGE_HOLDS,
    &CREATE_LEVELS,
    &CHANGE_LEVELS,
    &FIRST_DUE,
    &RAISE_BOUNDS,
    &ADD_BOUGHT,
    &RESTORING,
    &RAISE_SEQUENCE,
    &SUBSCRIBED,
    &DUE_HOLDS,
    &RETRY_LEVELS,
    &LOCK_FREE_LEVELS,
    &OVERDUE_HOLDS,
    &ORPHANS,
    &SET_ASIDE,
    &FORGET_ERRORS,
    &NEXT_DUE,
    &LOG_RUN,
    &SUM_UP_RUNS,
    &FORGET_RUNS,
    &CURRENT_SNAPSHOT,
    &GENERATION,
    &LOCK_GENERATION,
    &LAST_POSITION,
    &RECENT_XACT,
    &BEGIN_GENERATION,
    &CHANGES_OF,
    &CHANGES_BETWEEN,
    &STATES,
    &FIRST_STATES,
    &STATES_AFTER,
    &ALARMING_STATES,
    &ALERTS,
    &BEGIN_ALERTS,
    &END_ALERTS,
    &NOTIFY,
    &ADVANCE,
    &FAIL,
];
