//! The columns of the tables in the order of sql/tables.sql, and how rows are made of facts.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use pg_stock_core::{Entry, Hold, Level, Micros, Name};
use pgrx::{IntoDatum, pg_sys};

use super::index::Index;
use super::table::Shape;
use super::version::Version;
use crate::settings;

/// A value of a row; `None` is NULL.
pub type Value = Option<pg_sys::Datum>;

const BIGINT: (pg_sys::Oid, bool) = (pg_sys::INT8OID, true);
const INTEGER: (pg_sys::Oid, bool) = (pg_sys::INT4OID, true);
const TIME: (pg_sys::Oid, bool) = (pg_sys::TIMESTAMPTZOID, true);
const TEXT: (pg_sys::Oid, bool) = (pg_sys::TEXTOID, true);
const BOOLEAN: (pg_sys::Oid, bool) = (pg_sys::BOOLOID, true);

const fn or_null(column: (pg_sys::Oid, bool)) -> (pg_sys::Oid, bool) {
    (column.0, false)
}

pub const LEVEL: Shape = Shape {
    name: c"level",
    columns: &[BIGINT, BIGINT, BIGINT, or_null(BIGINT), BIGINT, TIME, TIME, BOOLEAN, TEXT, TEXT],
    defaults: 3,
    check: Some(c"level_counters"),
    has_triggers: has_update_triggers,
};
pub const HOLD: Shape = Shape {
    name: c"hold",
    columns: &[BIGINT, TIME, TIME, INTEGER, TEXT, TEXT, TEXT, or_null(TEXT)],
    defaults: 0,
    check: None,
    has_triggers: has_insert_triggers,
};
pub const LEDGER: Shape = Shape {
    name: c"ledger",
    columns: &[
        (pg_sys::XID8OID, true),
        BIGINT,
        TIME,
        or_null(TIME),
        BIGINT,
        BIGINT,
        BIGINT,
        or_null(BIGINT),
        or_null(BIGINT),
        or_null(BIGINT),
        or_null(BIGINT),
        or_null(BIGINT),
        or_null(BIGINT),
        INTEGER,
        or_null(BOOLEAN),
        TEXT,
        TEXT,
        TEXT,
        or_null(TEXT),
        or_null(TEXT),
        or_null(TEXT),
        or_null(TEXT),
        TEXT,
        or_null((pg_sys::INETOID, true)),
        or_null(TEXT),
        or_null(TEXT),
    ],
    defaults: 6,
    check: None,
    has_triggers: has_insert_triggers,
};

/// A hold that is closed: what acts on an insert does not matter then.
pub const CLOSED_HOLD: Shape = Shape { has_triggers: has_delete_triggers, ..HOLD };

/// Finds a level.
pub const LEVEL_KEY: Index = Index { name: c"level_pkey", columns: &[9, 10], is_unique: true };
/// Finds a hold by its key and line.
pub const HOLD_KEY: Index = Index { name: c"hold_pkey", columns: &[5, 4], is_unique: true };
/// Finds the holds of a level by their deadlines.
pub const HOLD_DUE: Index = Index { name: c"hold_due", columns: &[6, 7, 2], is_unique: false };
/// Finds the entries of a key.
pub const LEDGER_KEY: Index = Index { name: c"ledger_claim", columns: &[16, 0, 18, 14], is_unique: true };

pub const LEVEL_SKU: usize = 8;
pub const LEVEL_LOCATION: usize = 9;
pub const HOLD_QUANTITY: usize = 0;
pub const HOLD_DEADLINE: usize = 1;
pub const LEDGER_POSITION: usize = 1;
/// The columns of an entry in the order in which the statements of `store::sql` read them.
pub const ENTRY: [usize; 20] = [15, 16, 17, 13, 18, 19, 4, 5, 6, 7, 8, 10, 9, 20, 3, 21, 11, 12, 14, 2];

/// A level; what is overdue on it is not known from its row.
pub fn level(found: &Version<'_>) -> Level {
    Level {
        on_hand: found.int(0),
        reserved: found.int(1),
        safety_stock: found.int(2),
        buyer_limit: found.opt_int(3),
        version: found.int(4),
        next_due: found.int(5),
        frozen: found.flag(7),
        overdue: 0,
    }
}

/// What changes in the row of a level.
pub fn level_change(after: &Level, now: Micros) -> [(usize, Value); 8] {
    [
        (0, int(after.on_hand)),
        (1, int(after.reserved)),
        (2, int(after.safety_stock)),
        (3, after.buyer_limit.and_then(int)),
        (4, int(after.version)),
        (5, int(after.next_due)),
        (6, int(now)),
        (7, Some(pg_sys::Datum::from(after.frozen))),
    ]
}

/// The row of a hold.
pub fn hold(hold: &Hold, now: Micros) -> [Value; 8] {
    [
        int(hold.quantity),
        int(hold.expires_at),
        int(now),
        int(i64::from(hold.line)),
        text(&hold.key),
        text(&hold.at.sku),
        text(&hold.at.location),
        hold.buyer.as_ref().and_then(text),
    ]
}

/// What every ledger row of a call says of where it comes from: the defaults of these columns.
pub struct Origin {
    sequence: pg_sys::Oid,
    actor: Value,
    client_address: Value,
    application_name: Value,
    context: Value,
}

impl Origin {
    /// That of the session.
    pub fn of_session(schema: pg_sys::Oid) -> Self {
        let application_name = setting(c"application_name").filter(|name| !name.is_empty());
        Origin {
            // SAFETY: looks a name up.
            sequence: unsafe { pg_sys::get_relname_relid(c"ledger_position_seq".as_ptr(), schema) },
            actor: actor(),
            client_address: client_address(),
            application_name: application_name.and_then(|name| name.to_bytes().into_datum()),
            context: settings::context().and_then(|context| context.as_slice().into_datum()),
        }
    }
}

/// The row of an entry.
pub fn ledger(entry: &Entry, origin: &Origin) -> [Value; 26] {
    let (sku, location) = entry.at.as_ref().map(|at| (text(&at.sku), text(&at.location))).unwrap_or_default();
    let of_level = |value: i64| entry.at.as_ref().and_then(|_| int(value));
    // First the transaction, then the position, as sql/tables.sql says.
    let xact = xact();
    [
        xact,
        position(origin.sequence),
        int(entry.recorded_at),
        entry.expires_at.and_then(int),
        int(entry.quantity),
        int(entry.on_hand_delta),
        int(entry.reserved_delta),
        of_level(entry.on_hand_after),
        of_level(entry.reserved_after),
        entry.available.and_then(int),
        of_level(entry.version),
        entry.safety_stock.and_then(int),
        entry.buyer_limit.and_then(int),
        int(i64::from(entry.line)),
        entry.frozen.map(pg_sys::Datum::from),
        text(&entry.key),
        entry.operation.word().as_bytes().into_datum(),
        text(&entry.operation_key),
        sku,
        location,
        entry.buyer.as_ref().and_then(text),
        Some(&entry.reason).filter(|reason| !reason.is_empty()).and_then(text),
        origin.actor,
        origin.client_address,
        origin.application_name,
        origin.context,
    ]
}

fn has_insert_triggers(triggers: &pg_sys::TriggerDesc) -> bool {
    triggers.trig_insert_before_row
        || triggers.trig_insert_after_row
        || triggers.trig_insert_before_statement
        || triggers.trig_insert_after_statement
}

fn has_delete_triggers(triggers: &pg_sys::TriggerDesc) -> bool {
    triggers.trig_delete_before_row
        || triggers.trig_delete_after_row
        || triggers.trig_delete_before_statement
        || triggers.trig_delete_after_statement
}

fn has_update_triggers(triggers: &pg_sys::TriggerDesc) -> bool {
    triggers.trig_update_before_row
        || triggers.trig_update_after_row
        || triggers.trig_update_before_statement
        || triggers.trig_update_after_statement
}

fn int(value: i64) -> Value {
    Some(pg_sys::Datum::from(value))
}

/// Text and bytea share one representation, a varlena of bytes.
fn text(name: &Name) -> Value {
    name.as_bytes().into_datum()
}

/// pg_current_xact_id()
fn xact() -> Value {
    // SAFETY: gives the transaction its number.
    Some(pg_sys::Datum::from(unsafe { pg_sys::GetTopFullTransactionId() }.value))
}

/// nextval('stock.ledger_position_seq')
fn position(sequence: pg_sys::Oid) -> Value {
    // SAFETY: calls a function with an argument of its type.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::nextval_oid, &[sequence.into_datum()]) }
}

/// The role of SET ROLE, else the one that logged in.
fn actor() -> Value {
    if let Some(role) = setting(c"role").filter(|role| *role != c"none") {
        return role.to_bytes().into_datum();
    }
    // SAFETY: a C string of the role that logged in.
    unsafe { c_text(pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), false)) }
}

/// inet_client_addr()
fn client_address() -> Value {
    // SAFETY: a function without arguments, which may give NULL.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::inet_client_addr, &[]) }
}

/// As current_setting() gives it.
fn setting(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a copy of the value, in the memory of the call, where it is used up.
    unsafe {
        let value = pg_sys::GetConfigOptionByName(name.as_ptr(), null_mut(), true);
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// # Safety
/// A C string.
unsafe fn c_text(text: *const c_char) -> Value {
    unsafe { CStr::from_ptr(text) }.to_bytes().into_datum()
}
