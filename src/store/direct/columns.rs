//! The columns of the tables in the order of sql/tables.sql, and how rows are made of facts.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use pg_stock_core::{Entry, Hold, Level, Micros, Name};
use pgrx::{IntoDatum, pg_sys};

use super::index::Index;
use super::shape::{Column, Default, Shape};
use super::version::Version;
use crate::settings;

/// A value of a row; `None` is NULL.
pub type Value = Option<pg_sys::Datum>;

const fn column(name: &'static str, of: pg_sys::Oid) -> Column {
    Column { name, of, collation: pg_sys::InvalidOid, is_needed: true, default: Default::Unused }
}

const fn bigint(name: &'static str) -> Column {
    column(name, pg_sys::INT8OID)
}

const fn integer(name: &'static str) -> Column {
    column(name, pg_sys::INT4OID)
}

const fn time(name: &'static str) -> Column {
    column(name, pg_sys::TIMESTAMPTZOID)
}

const fn boolean(name: &'static str) -> Column {
    column(name, pg_sys::BOOLOID)
}

/// A name: text COLLATE "C".
const fn name(name: &'static str) -> Column {
    Column { collation: pg_sys::C_COLLATION_OID, ..column(name, pg_sys::TEXTOID) }
}

/// Any other text.
const fn prose(name: &'static str) -> Column {
    Column { collation: pg_sys::DEFAULT_COLLATION_OID, ..column(name, pg_sys::TEXTOID) }
}

const fn or_null(column: Column) -> Column {
    Column { is_needed: false, ..column }
}

const fn by_default(column: Column, expression: &'static str) -> Column {
    Column { default: Default::Expression(expression), ..column }
}

pub static LEVEL: Shape = Shape {
    name: c"level",
    columns: LEVEL_COLUMNS,
    check: Some("((reserved >= 0) AND (reserved <= on_hand))"),
    constant: LEVEL_KEY.columns,
};
const LEVEL_COLUMNS: &[Column] = &[
    bigint("on_hand"),
    bigint("reserved"),
    bigint("safety_stock"),
    or_null(bigint("buyer_limit")),
    bigint("version"),
    time("next_due"),
    time("updated_at"),
    boolean("frozen"),
    name("sku"),
    name("location"),
];

pub static HOLD: Shape = Shape { name: c"hold", columns: HOLD_COLUMNS, check: None, constant: &[] };
const HOLD_COLUMNS: &[Column] = &[
    bigint("quantity"),
    time("expires_at"),
    time("reserved_at"),
    integer("line"),
    name("key"),
    name("sku"),
    name("location"),
    or_null(name("buyer")),
];

pub static LEDGER: Shape = Shape { name: c"ledger", columns: LEDGER_COLUMNS, check: None, constant: &[] };
const LEDGER_COLUMNS: &[Column] = &[
    by_default(column("xact", pg_sys::XID8OID), "pg_current_xact_id()"),
    Column { default: Default::Sequence, ..bigint("position") },
    time("recorded_at"),
    or_null(time("expires_at")),
    bigint("quantity"),
    bigint("on_hand_delta"),
    bigint("reserved_delta"),
    or_null(bigint("on_hand_after")),
    or_null(bigint("reserved_after")),
    or_null(bigint("available")),
    or_null(bigint("version")),
    or_null(bigint("safety_stock")),
    or_null(bigint("buyer_limit")),
    integer("line"),
    or_null(boolean("frozen")),
    name("key"),
    name("operation"),
    name("operation_key"),
    or_null(name("sku")),
    or_null(name("location")),
    or_null(name("buyer")),
    or_null(prose("reason")),
    by_default(
        prose("actor"),
        "CASE current_setting('role'::text) WHEN 'none'::text THEN (SESSION_USER)::text \
         ELSE current_setting('role'::text) END",
    ),
    by_default(prose("login"), "SESSION_USER"),
    by_default(or_null(column("client_addr", pg_sys::INETOID)), "inet_client_addr()"),
    by_default(or_null(prose("application_name")), "NULLIF(current_setting('application_name'::text), ''::text)"),
    or_null(prose("context")),
];

/// The place of a column, counted from 0.
const fn place(columns: &[Column], name: &str) -> usize {
    let mut place = 0;
    while !is_same(columns[place].name.as_bytes(), name.as_bytes()) {
        place += 1;
    }
    place
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Finds a level.
pub const LEVEL_KEY: Index = Index { name: c"level_pkey", columns: &[9, 10], is_unique: true };
/// Finds a hold by its key and line.
pub const HOLD_KEY: Index = Index { name: c"hold_pkey", columns: &[5, 4], is_unique: true };
/// Finds the holds of a level by their deadlines.
pub const HOLD_DUE: Index = Index { name: c"hold_due", columns: &[6, 7, 2], is_unique: false };
/// Finds the entries of a key.
pub const LEDGER_KEY: Index = Index { name: c"ledger_claim", columns: &[16, 0, 18, 14], is_unique: true };

pub const LEVEL_SKU: usize = place(LEVEL_COLUMNS, "sku");
pub const LEVEL_LOCATION: usize = place(LEVEL_COLUMNS, "location");
pub const HOLD_QUANTITY: usize = place(HOLD_COLUMNS, "quantity");
pub const HOLD_DEADLINE: usize = place(HOLD_COLUMNS, "expires_at");
pub const LEDGER_POSITION: usize = place(LEDGER_COLUMNS, "position");
/// The columns of an entry in the order in which the statements of `store::sql` read them.
pub const ENTRY: [usize; 20] = {
    let names = [
        "key",
        "operation",
        "operation_key",
        "line",
        "sku",
        "location",
        "quantity",
        "on_hand_delta",
        "reserved_delta",
        "on_hand_after",
        "reserved_after",
        "version",
        "available",
        "buyer",
        "expires_at",
        "reason",
        "safety_stock",
        "buyer_limit",
        "frozen",
        "recorded_at",
    ];
    let mut places = [0; 20];
    let mut at = 0;
    while at < names.len() {
        places[at] = place(LEDGER_COLUMNS, names[at]);
        at += 1;
    }
    places
};

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
pub fn hold(hold: &Hold) -> [Value; 8] {
    [
        int(hold.quantity),
        int(hold.expires_at),
        int(hold.reserved_at),
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
    login: Value,
    client_address: Value,
    application_name: Value,
    context: Value,
}

impl Origin {
    /// That of the session.
    pub fn of_session(sequence: pg_sys::Oid) -> Self {
        let application_name = setting(c"application_name").filter(|name| !name.is_empty());
        let login = login();
        Origin {
            sequence,
            actor: actor(login),
            login,
            client_address: client_address(),
            application_name: application_name.and_then(|name| name.to_bytes().into_datum()),
            context: settings::context().and_then(|context| context.as_slice().into_datum()),
        }
    }
}

/// The context of a request.
fn context(text: &Name) -> Value {
    settings::short_context(text.as_bytes().to_vec()).and_then(|context| context.as_slice().into_datum())
}

/// The row of an entry.
pub fn ledger(entry: &Entry, origin: &Origin) -> [Value; 27] {
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
        origin.login,
        origin.client_address,
        origin.application_name,
        if entry.context.is_empty() { origin.context } else { context(&entry.context) },
    ]
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
fn actor(login: Value) -> Value {
    match setting(c"role").filter(|role| *role != c"none") {
        Some(role) => role.to_bytes().into_datum(),
        None => login,
    }
}

/// The role that logged in.
fn login() -> Value {
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
