//! All SQL text of the engine.
//!
//! Every name is qualified. A level is named by SKU and location, a hold by these or by its key and
//! line, a ledger row by its key or its transaction: each is found by an index.
//!
//! | room | whose statements |
//! |---|---|
//! | `requests` | those of a request |
//! | `expiry` | those of the sweep |
//! | `feed` | those of the change feed |
//! | `statement` | how they are prepared and run |
//! | `words` | what stands in braces in their texts |

mod expiry;
mod feed;
mod requests;
mod statement;
mod words;

use pgrx::pg_sys::{BOOLOID, INT4OID, INT8OID, Oid, TEXTOID, TIMESTAMPTZOID, XID8OID};

pub use expiry::*;
pub use feed::*;
pub use requests::*;

pub use statement::Statement;

use statement::Given;

const TEXT: Oid = TEXTOID;
const INT: Oid = INT8OID;
const LINE: Oid = INT4OID;
const FLAG: Oid = BOOLOID;
const TIME: Oid = TIMESTAMPTZOID;
const XID: Oid = XID8OID;

/// What names a level.
const SKU: Given = ("sku", TEXT);
const LOCATION: Given = ("location", TEXT);
/// What names a lot of it.
const LOT_NAME: Given = ("lot", TEXT);

/// All of them, for the tests of their plans.
#[cfg(any(test, feature = "pg_test"))]
pub static ALL: &[&Statement] = &[
    &GLANCE,
    &LEVELS,
    &LOCK_LEVELS,
    &HISTORY,
    &ARCHIVED_HISTORY,
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
    &WAITING_OF,
    &QUEUES,
    &TAKE_LAST_PLACES,
    &TAKE_OWN_PLACES,
    &CHANGE_PLACES,
    &LEAVE_PLACES,
    &END_LEGS,
    &CHANGE_LEGS,
    &BEGIN_LEGS,
    &LOTS,
    &NAMED_LOTS,
    &HISTORY_LOTS,
    &HOLD_LOTS,
    &CLAIM_LOTS,
    &MAKE_LOTS,
    &CHANGE_LOTS,
    &TRACK_HOLDS,
    &BIND_NEW_LOTS,
    &BIND_LOTS,
    &FREE_LOTS,
    &SHRINK_LOTS,
    &INSTALLED_VERSION,
    &RESTORING,
    &RAISE_SEQUENCE,
    &SUBSCRIBED,
    &DUE_HOLDS,
    &RETRY_LEVELS,
    &UNPAID_LEVELS,
    &SPOILED_LEVELS,
    &RAISE_PLACES,
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
    &IS_ARCHIVED,
    &LAST_POSITION,
    &RECENT_XACT,
    &BEGIN_GENERATION,
    &CHANGES_OF,
    &CHANGES_BETWEEN,
    &LEVEL_ROWS,
    &FIRST_LEVEL_ROWS,
    &LEVEL_ROWS_AFTER,
    &ALARMING_LEVEL_ROWS,
    &ALERTS,
    &BEGIN_ALERTS,
    &END_ALERTS,
    &LOT_ALERTS,
    &BEGIN_LOT_ALERTS,
    &END_LOT_ALERTS,
    &NOTIFY,
    &ADVANCE,
    &FAIL,
];
