//! stock.level: the counters of one SKU at one location.

use pg_stock_core::{Level, LevelId, Micros, SaleWindow};

use super::{Column, Shape, bigint, boolean, interval, name, or_null, place, timestamptz};
use crate::store::datum::{Row, Value, flag, int, opt_int, opt_span, opt_time, text, time};

pub static LEVEL: Shape = Shape {
    name: c"level",
    columns: COLUMNS,
    check: Some(
        "((reserved >= 0) AND (unsellable >= 0) AND ((reserved + unsellable) <= on_hand) AND \
         (waiting >= 0) AND (in_transit >= 0))",
    ),
    constant: &["sku", "location"],
};
const COLUMNS: &[Column] = &[
    bigint("on_hand"),
    bigint("reserved"),
    bigint("safety_stock"),
    or_null(bigint("buyer_limit")),
    bigint("version"),
    timestamptz("next_due"),
    timestamptz("updated_at"),
    bigint("waiting"),
    bigint("in_transit"),
    bigint("backorder_limit"),
    or_null(timestamptz("on_sale_from")),
    or_null(timestamptz("on_sale_until")),
    bigint("unsellable"),
    or_null(timestamptz("next_spoil")),
    or_null(interval("min_life")),
    or_null(interval("near_expiry")),
    boolean("frozen"),
    name("sku"),
    name("location"),
];
/// How many columns a row has; a statement puts what it finds out besides after these.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// Which level a row is of.
pub fn id(row: Row<'_>) -> LevelId {
    LevelId { sku: row.name(const { at("sku") }), location: row.name(const { at("location") }) }
}

/// Whether a row is of this level.
pub fn is_of(row: Row<'_>, level: &LevelId) -> bool {
    row.bytes(const { at("sku") }) == Some(level.sku.as_bytes())
        && row.bytes(const { at("location") }) == Some(level.location.as_bytes())
}

/// The level of a row; what is overdue on it is not known from that.
pub fn level(row: Row<'_>) -> Level {
    Level {
        on_hand: row.int(const { at("on_hand") }),
        reserved: row.int(const { at("reserved") }),
        safety_stock: row.int(const { at("safety_stock") }),
        buyer_limit: row.opt_int(const { at("buyer_limit") }),
        version: row.int(const { at("version") }),
        next_due: row.int(const { at("next_due") }),
        waiting: row.int(const { at("waiting") }),
        backorder_limit: row.int(const { at("backorder_limit") }),
        in_transit: row.int(const { at("in_transit") }),
        frozen: row.flag(const { at("frozen") }),
        sale: SaleWindow {
            from: row.opt_int(const { at("on_sale_from") }),
            until: row.opt_int(const { at("on_sale_until") }),
        },
        overdue: 0,
        unsellable: row.int(const { at("unsellable") }),
        unbooked: 0,
        next_spoil: row.opt_int(const { at("next_spoil") }),
        min_life: row.opt_span(const { at("min_life") }).unwrap_or(0),
        near_expiry: row.opt_span(const { at("near_expiry") }),
    }
}

/// When the level of a row last changed.
pub fn updated_at(row: Row<'_>) -> Micros {
    row.int(const { at("updated_at") })
}

/// The row of a level that changes now.
pub fn row(id: &LevelId, level: &Level, now: Micros) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("on_hand") }] = int(level.on_hand);
    row[const { at("reserved") }] = int(level.reserved);
    row[const { at("safety_stock") }] = int(level.safety_stock);
    row[const { at("buyer_limit") }] = opt_int(level.buyer_limit);
    row[const { at("version") }] = int(level.version);
    row[const { at("next_due") }] = time(level.next_due);
    row[const { at("updated_at") }] = time(now);
    row[const { at("waiting") }] = int(level.waiting);
    row[const { at("backorder_limit") }] = int(level.backorder_limit);
    row[const { at("in_transit") }] = int(level.in_transit);
    row[const { at("frozen") }] = flag(level.frozen);
    row[const { at("on_sale_from") }] = opt_time(level.sale.from);
    row[const { at("on_sale_until") }] = opt_time(level.sale.until);
    row[const { at("unsellable") }] = int(level.unsellable);
    row[const { at("next_spoil") }] = opt_time(level.next_spoil);
    row[const { at("min_life") }] = opt_span(Some(level.min_life).filter(|life| *life > 0));
    row[const { at("near_expiry") }] = opt_span(level.near_expiry);
    row[const { at("sku") }] = text(&id.sku);
    row[const { at("location") }] = text(&id.location);
    row
}
