//! stock.hold: one open line of a reservation.

use pg_stock_core::{Hold, LevelId};

use super::{Column, Shape, bigint, integer, name, or_null, place, timestamptz};
use crate::store::datum::{Row, Value, int, line, opt_text, text, time};

pub static HOLD: Shape = Shape { name: c"hold", columns: COLUMNS, check: None, constant: &[] };
const COLUMNS: &[Column] = &[
    bigint("quantity"),
    timestamptz("expires_at"),
    timestamptz("reserved_at"),
    integer("line"),
    name("key"),
    name("sku"),
    name("location"),
    or_null(name("buyer")),
];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The hold of a row; what of it is not there yet, and its lots, are not known from that.
pub fn hold(row: Row<'_>) -> Hold {
    Hold {
        key: row.name(const { at("key") }),
        line: row.line(const { at("line") }),
        at: LevelId {
            sku: row.name(const { at("sku") }),
            location: row.name(const { at("location") }),
        },
        quantity: quantity(row),
        waiting: 0,
        promise: 0,
        buyer: row.opt_name(const { at("buyer") }),
        expires_at: expires_at(row),
        reserved_at: row.int(const { at("reserved_at") }),
        lots: Vec::new(),
    }
}

/// Units in the hold of a row.
pub fn quantity(row: Row<'_>) -> i64 {
    row.int(const { at("quantity") })
}

/// The deadline of the hold of a row.
pub fn expires_at(row: Row<'_>) -> i64 {
    row.int(const { at("expires_at") })
}

/// The row of a hold.
pub fn row(hold: &Hold) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("key") }] = text(&hold.key);
    row[const { at("line") }] = line(hold.line);
    row[const { at("sku") }] = text(&hold.at.sku);
    row[const { at("location") }] = text(&hold.at.location);
    row[const { at("quantity") }] = int(hold.quantity);
    row[const { at("buyer") }] = opt_text(hold.buyer.as_ref());
    row[const { at("expires_at") }] = time(hold.expires_at);
    row[const { at("reserved_at") }] = time(hold.reserved_at);
    row
}
