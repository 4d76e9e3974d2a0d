//! stock.ledger: what happened to a level.

use pg_stock_core::{Entry, LevelId, Name, Operation};
use pgrx::pg_sys;

use super::{
    Column, Shape, Source, bigint, boolean, by_default, column, integer, interval, name, or_null,
    place, prose, timestamptz,
};
use crate::error::Error;
use crate::settings;
use crate::store::datum::{
    Row, Value, bytes, int, line, opt_flag, opt_int, opt_span, opt_text, opt_time, text, time, word,
};

pub static LEDGER: Shape = Shape { name: c"ledger", columns: COLUMNS, check: None, constant: &[] };
const COLUMNS: &[Column] = &[
    by_default(column("xact", pg_sys::XID8OID), "pg_current_xact_id()"),
    Column { source: Source::Sequence, ..bigint("position") },
    timestamptz("recorded_at"),
    or_null(timestamptz("expires_at")),
    bigint("quantity"),
    bigint("on_hand_delta"),
    bigint("reserved_delta"),
    or_null(bigint("waiting_delta")),
    or_null(bigint("in_transit_delta")),
    or_null(bigint("on_hand_after")),
    or_null(bigint("reserved_after")),
    or_null(bigint("available")),
    or_null(bigint("version")),
    or_null(bigint("answered_version")),
    or_null(bigint("safety_stock")),
    or_null(bigint("buyer_limit")),
    or_null(bigint("backorder_limit")),
    or_null(timestamptz("on_sale_from")),
    or_null(timestamptz("on_sale_until")),
    or_null(bigint("unsellable_delta")),
    or_null(timestamptz("best_before")),
    or_null(interval("min_life")),
    or_null(interval("near_expiry")),
    integer("line"),
    or_null(boolean("frozen")),
    name("key"),
    name("operation"),
    name("operation_key"),
    or_null(name("sku")),
    or_null(name("location")),
    or_null(name("buyer")),
    or_null(name("lot")),
    or_null(prose("reason")),
    by_default(
        prose("actor"),
        "CASE current_setting('role'::text) WHEN 'none'::text THEN (SESSION_USER)::text ELSE \
         current_setting('role'::text) END",
    ),
    by_default(prose("login"), "SESSION_USER"),
    by_default(or_null(column("client_addr", pg_sys::INETOID)), "inet_client_addr()"),
    by_default(
        or_null(prose("application_name")),
        "NULLIF(current_setting('application_name'::text), ''::text)",
    ),
    or_null(prose("context")),
];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The entry of a row, without its context and what it does to lots.
pub fn entry(row: Row<'_>) -> Result<Entry, Error> {
    let word = row.name(const { at("operation") });
    let unknown =
        || Error::Corrupted(format!("the ledger has an operation \"{word}\" that is not known"));
    let level = row.opt_name(const { at("sku") }).zip(row.opt_name(const { at("location") }));
    Ok(Entry {
        key: row.name(const { at("key") }),
        operation: Operation::from_word(word.as_bytes()).ok_or_else(unknown)?,
        operation_key: row.name(const { at("operation_key") }),
        line: row.line(const { at("line") }),
        at: level.map(|(sku, location)| LevelId { sku, location }),
        quantity: row.int(const { at("quantity") }),
        on_hand_delta: row.int(const { at("on_hand_delta") }),
        reserved_delta: row.int(const { at("reserved_delta") }),
        waiting_delta: row.opt_int(const { at("waiting_delta") }).unwrap_or(0),
        in_transit_delta: row.opt_int(const { at("in_transit_delta") }).unwrap_or(0),
        unsellable_delta: row.opt_int(const { at("unsellable_delta") }).unwrap_or(0),
        lots: Vec::new(),
        on_hand_after: row.int(const { at("on_hand_after") }),
        reserved_after: row.int(const { at("reserved_after") }),
        version: row.int(const { at("version") }),
        answered_version: row.opt_int(const { at("answered_version") }),
        available: row.opt_int(const { at("available") }),
        buyer: row.opt_name(const { at("buyer") }),
        expires_at: row.opt_int(const { at("expires_at") }),
        reason: row.name(const { at("reason") }),
        context: Name::default(),
        safety_stock: row.opt_int(const { at("safety_stock") }),
        buyer_limit: row.opt_int(const { at("buyer_limit") }),
        backorder_limit: row.opt_int(const { at("backorder_limit") }),
        frozen: row.opt_flag(const { at("frozen") }),
        on_sale_from: row.opt_int(const { at("on_sale_from") }),
        on_sale_until: row.opt_int(const { at("on_sale_until") }),
        lot: row.opt_name(const { at("lot") }),
        best_before: row.opt_int(const { at("best_before") }),
        min_life: row.opt_span(const { at("min_life") }),
        near_expiry: row.opt_span(const { at("near_expiry") }),
        recorded_at: row.int(const { at("recorded_at") }),
    })
}

/// The order in which rows were inserted.
pub fn position(row: Row<'_>) -> i64 {
    row.int(const { at("position") })
}

/// The position of a row that is about to be written.
pub fn position_of(row: &[Value; WIDTH]) -> i64 {
    row[const { at("position") }].map_or(0, |position| position.value() as i64)
}

/// What tells rows apart: key, operation, operation key, line.
pub type Claim = (Name, Name, Name, i32);

/// What tells the row of an entry apart.
pub fn claim_of(entry: &Entry) -> Claim {
    let operation = Name::from(entry.operation.word());
    (entry.key.clone(), operation, entry.operation_key.clone(), entry.line)
}

/// The row of an entry, but for what is left to the defaults.
pub fn row(entry: &Entry, context: &Context) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("recorded_at") }] = time(entry.recorded_at);
    row[const { at("key") }] = text(&entry.key);
    row[const { at("operation") }] = word(entry.operation.word());
    row[const { at("operation_key") }] = text(&entry.operation_key);
    row[const { at("line") }] = line(entry.line);
    row[const { at("quantity") }] = int(entry.quantity);
    row[const { at("on_hand_delta") }] = int(entry.on_hand_delta);
    row[const { at("reserved_delta") }] = int(entry.reserved_delta);
    row[const { at("waiting_delta") }] = unless_zero(entry.waiting_delta);
    row[const { at("in_transit_delta") }] = unless_zero(entry.in_transit_delta);
    if let Some(level) = &entry.at {
        row[const { at("sku") }] = text(&level.sku);
        row[const { at("location") }] = text(&level.location);
        row[const { at("on_hand_after") }] = int(entry.on_hand_after);
        row[const { at("reserved_after") }] = int(entry.reserved_after);
        row[const { at("version") }] = int(entry.version);
    }
    row[const { at("answered_version") }] = opt_int(entry.answered_version);
    row[const { at("available") }] = opt_int(entry.available);
    row[const { at("buyer") }] = opt_text(entry.buyer.as_ref());
    row[const { at("expires_at") }] = opt_time(entry.expires_at);
    row[const { at("safety_stock") }] = opt_int(entry.safety_stock);
    row[const { at("buyer_limit") }] = opt_int(entry.buyer_limit);
    row[const { at("backorder_limit") }] = opt_int(entry.backorder_limit);
    row[const { at("frozen") }] = opt_flag(entry.frozen);
    row[const { at("on_sale_from") }] = opt_time(entry.on_sale_from);
    row[const { at("on_sale_until") }] = opt_time(entry.on_sale_until);
    row[const { at("unsellable_delta") }] = unless_zero(entry.unsellable_delta);
    row[const { at("lot") }] = opt_text(entry.lot.as_ref());
    row[const { at("best_before") }] = opt_time(entry.best_before);
    row[const { at("min_life") }] = opt_span(entry.min_life);
    row[const { at("near_expiry") }] = opt_span(entry.near_expiry);
    row[const { at("reason") }] =
        Some(&entry.reason).filter(|reason| !reason.is_empty()).and_then(text);
    row[const { at("context") }] = context.of(entry);
    row
}

/// A change of a counter that most rows leave alone.
fn unless_zero(delta: i64) -> Value {
    opt_int(Some(delta).filter(|delta| *delta != 0))
}

/// What the session says of its requests.
pub struct Context(Value);

impl Context {
    /// That of this session, as it is now.
    pub fn of_session() -> Self {
        Context(settings::context().as_deref().and_then(bytes))
    }

    /// The context of an entry: its own, or that of the session.
    fn of(&self, entry: &Entry) -> Value {
        if entry.context.is_empty() {
            return self.0;
        }
        settings::short_context(entry.context.as_bytes().to_vec()).as_deref().and_then(bytes)
    }
}

/// What the defaults of a row give, where nobody but us evaluates them.
pub struct Defaults {
    pub xact: Value,
    pub position: Value,
    pub actor: Value,
    pub login: Value,
    pub client_addr: Value,
    pub application_name: Value,
}

/// A row with its defaults.
pub fn with_defaults(mut row: [Value; WIDTH], defaults: Defaults) -> [Value; WIDTH] {
    row[const { at("xact") }] = defaults.xact;
    row[const { at("position") }] = defaults.position;
    row[const { at("actor") }] = defaults.actor;
    row[const { at("login") }] = defaults.login;
    row[const { at("client_addr") }] = defaults.client_addr;
    row[const { at("application_name") }] = defaults.application_name;
    row
}
