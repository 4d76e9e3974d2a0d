//! All SQL text of the engine.
//!
//! Every name is qualified, every statement names SKU and location in its WHERE where it touches a level or a hold,
//! so that the tables can be distributed by SKU. Statements for one line and for many differ: an array statement
//! costs about three times a scalar one when there is one line, and a fraction of it when there are a thousand.
//!
//! | room | whose statements |
//! |---|---|
//! | `requests` | those of a request |
//! | `expiry` | those of the sweep |
//! | `feed` | those of the change feed |

mod expiry;
mod feed;
mod requests;

use pgrx::pg_sys::{
    BOOLARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8OID, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID,
    XID8ARRAYOID, XID8OID,
};

pub use expiry::*;
pub use feed::*;
pub use requests::*;

const T: Oid = TEXTOID;
const I: Oid = INT8OID;
const Z: Oid = TIMESTAMPTZOID;
const TS: Oid = TEXTARRAYOID;
const IS: Oid = INT8ARRAYOID;
const LS: Oid = INT4ARRAYOID;
const ZS: Oid = TIMESTAMPTZARRAYOID;
const BS: Oid = BOOLARRAYOID;
const X: Oid = XID8OID;
const XS: Oid = XID8ARRAYOID;

/// All of them, for the tests of their plans.
#[cfg(any(test, feature = "pg_test"))]
pub static ALL: &[&super::statement::Statement] = &[
    &GLANCE,
    &LEVEL,
    &LEVELS,
    &LOCK_LEVEL,
    &LOCK_LEVELS,
    &KEY_HISTORY,
    &HISTORY,
    &OVERDUE,
    &BOUGHT,
    &GUARDED_UPDATE,
    &UNDO_GUARDED_UPDATE,
    &CLAIM_ONE,
    &CLAIM,
    &OPEN_HOLD,
    &OPEN_HOLDS,
    &CLOSE_HOLD,
    &CLOSE_HOLDS,
    &CHANGE_HOLDS,
    &CREATE_LEVELS,
    &CHANGE_LEVEL,
    &CHANGE_LEVELS,
    &RAISE_BOUNDS,
    &ADD_BOUGHT_ONE,
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
