//! The columns of the tables in the order of sql/tables.sql, and how rows are made of facts.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use pg_stock_core::{Entry, Hold, Level, Micros, Name};
use pgrx::{IntoDatum, pg_sys};

use super::index::Index;
use super::index::Key::{Column as By, Expression};
use super::shape::{Column, Default, Shape};
use super::table::Value;
use super::tuple::Tuple;
use crate::settings;

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
    constant: &["sku", "location"],
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
pub const LEVEL_KEY: Index = Index { name: c"level_pkey", columns: &[By("sku"), By("location")], is_unique: true };
/// Finds a hold by its key and line.
pub const HOLD_KEY: Index = Index { name: c"hold_pkey", columns: &[By("key"), By("line")], is_unique: true };
/// Finds the holds of a level by their deadlines.
pub const HOLD_DUE: Index =
    Index { name: c"hold_due", columns: &[By("sku"), By("location"), By("expires_at")], is_unique: false };
/// Finds the entries of a key.
pub const LEDGER_KEY: Index = Index {
    name: c"ledger_claim",
    columns: &[By("key"), Expression, By("operation_key"), By("line")],
    is_unique: true,
};

/// The places of columns, counted from 0; a name that is none does not compile.
pub const fn of_level(name: &str) -> usize {
    place(LEVEL_COLUMNS, name)
}

pub const fn of_hold(name: &str) -> usize {
    place(HOLD_COLUMNS, name)
}

pub const fn of_ledger(name: &str) -> usize {
    place(LEDGER_COLUMNS, name)
}

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
pub fn level(found: &Tuple<'_>) -> Level {
    Level {
        on_hand: found.int(const { of_level("on_hand") }),
        reserved: found.int(const { of_level("reserved") }),
        safety_stock: found.int(const { of_level("safety_stock") }),
        buyer_limit: found.opt_int(const { of_level("buyer_limit") }),
        version: found.int(const { of_level("version") }),
        next_due: found.int(const { of_level("next_due") }),
        frozen: found.flag(const { of_level("frozen") }),
        overdue: 0,
    }
}

/// What changes in the row of a level.
pub fn level_change(after: &Level, now: Micros) -> [(usize, Value); 8] {
    [
        (const { of_level("on_hand") }, int(after.on_hand)),
        (const { of_level("reserved") }, int(after.reserved)),
        (const { of_level("safety_stock") }, int(after.safety_stock)),
        (const { of_level("buyer_limit") }, after.buyer_limit.and_then(int)),
        (const { of_level("version") }, int(after.version)),
        (const { of_level("next_due") }, int(after.next_due)),
        (const { of_level("updated_at") }, int(now)),
        (const { of_level("frozen") }, Some(pg_sys::Datum::from(after.frozen))),
    ]
}

/// The row of a hold.
pub fn hold(hold: &Hold) -> [Value; HOLD_COLUMNS.len()] {
    let mut row = [None; HOLD_COLUMNS.len()];
    row[const { of_hold("key") }] = text(&hold.key);
    row[const { of_hold("line") }] = int(i64::from(hold.line));
    row[const { of_hold("sku") }] = text(&hold.at.sku);
    row[const { of_hold("location") }] = text(&hold.at.location);
    row[const { of_hold("quantity") }] = int(hold.quantity);
    row[const { of_hold("buyer") }] = hold.buyer.as_ref().and_then(text);
    row[const { of_hold("expires_at") }] = int(hold.expires_at);
    row[const { of_hold("reserved_at") }] = int(hold.reserved_at);
    row
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
pub fn ledger(entry: &Entry, origin: &Origin) -> [Value; LEDGER_COLUMNS.len()] {
    let mut row = [None; LEDGER_COLUMNS.len()];
    // First the transaction, then the position, as sql/tables.sql says.
    row[const { of_ledger("xact") }] = xact();
    row[const { of_ledger("position") }] = position(origin.sequence);
    row[const { of_ledger("recorded_at") }] = int(entry.recorded_at);
    row[const { of_ledger("key") }] = text(&entry.key);
    row[const { of_ledger("operation") }] = entry.operation.word().as_bytes().into_datum();
    row[const { of_ledger("operation_key") }] = text(&entry.operation_key);
    row[const { of_ledger("line") }] = int(i64::from(entry.line));
    row[const { of_ledger("quantity") }] = int(entry.quantity);
    row[const { of_ledger("on_hand_delta") }] = int(entry.on_hand_delta);
    row[const { of_ledger("reserved_delta") }] = int(entry.reserved_delta);
    if let Some(at) = &entry.at {
        row[const { of_ledger("sku") }] = text(&at.sku);
        row[const { of_ledger("location") }] = text(&at.location);
        row[const { of_ledger("on_hand_after") }] = int(entry.on_hand_after);
        row[const { of_ledger("reserved_after") }] = int(entry.reserved_after);
        row[const { of_ledger("version") }] = int(entry.version);
    }
    row[const { of_ledger("available") }] = entry.available.and_then(int);
    row[const { of_ledger("buyer") }] = entry.buyer.as_ref().and_then(text);
    row[const { of_ledger("expires_at") }] = entry.expires_at.and_then(int);
    row[const { of_ledger("safety_stock") }] = entry.safety_stock.and_then(int);
    row[const { of_ledger("buyer_limit") }] = entry.buyer_limit.and_then(int);
    row[const { of_ledger("frozen") }] = entry.frozen.map(pg_sys::Datum::from);
    row[const { of_ledger("reason") }] = Some(&entry.reason).filter(|reason| !reason.is_empty()).and_then(text);
    row[const { of_ledger("actor") }] = origin.actor;
    row[const { of_ledger("login") }] = origin.login;
    row[const { of_ledger("client_addr") }] = origin.client_address;
    row[const { of_ledger("application_name") }] = origin.application_name;
    row[const { of_ledger("context") }] = match entry.context.is_empty() {
        true => origin.context,
        false => context(&entry.context),
    };
    row
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
