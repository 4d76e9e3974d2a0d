//! stock.lot: the units of a level that came under one name and date.

use pg_stock_core::decide::LotChange;
use pg_stock_core::{LevelId, Lot};

use super::{Column, Shape, bigint, boolean, name, or_null, place, timestamptz};
use crate::store::datum::{Row, Value, flag, int, opt_time, text, time};

pub static LOT: Shape = Shape {
    name: c"lot",
    columns: COLUMNS,
    check: Some("((reserved >= 0) AND (reserved <= on_hand))"),
    constant: &["best_before", "received_at", "sku", "location", "lot"],
};
const COLUMNS: &[Column] = &[
    bigint("on_hand"),
    bigint("reserved"),
    or_null(timestamptz("best_before")),
    or_null(timestamptz("spoils_at")),
    or_null(timestamptz("warns_at")),
    timestamptz("received_at"),
    boolean("frozen"),
    boolean("spoiled"),
    boolean("spent"),
    name("sku"),
    name("location"),
    name("lot"),
];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The lot of a row, and its level.
pub fn lot(row: Row<'_>) -> (LevelId, Lot) {
    let level = LevelId {
        sku: row.name(const { at("sku") }),
        location: row.name(const { at("location") }),
    };
    let lot = Lot {
        name: row.name(const { at("lot") }),
        best_before: row.opt_int(const { at("best_before") }),
        on_hand: row.int(const { at("on_hand") }),
        reserved: row.int(const { at("reserved") }),
        frozen: row.flag(const { at("frozen") }),
        spoiled: row.flag(const { at("spoiled") }),
        received_at: row.int(const { at("received_at") }),
    };
    (level, lot)
}

/// The row of a lot as it will be.
pub fn row(level: &LevelId, change: &LotChange) -> [Value; WIDTH] {
    let lot = &change.after;
    let mut row = [None; WIDTH];
    row[const { at("on_hand") }] = int(lot.on_hand);
    row[const { at("reserved") }] = int(lot.reserved);
    row[const { at("best_before") }] = opt_time(lot.best_before);
    row[const { at("spoils_at") }] = opt_time(change.spoils_at);
    row[const { at("warns_at") }] = opt_time(change.warns_at);
    row[const { at("received_at") }] = time(lot.received_at);
    row[const { at("frozen") }] = flag(lot.frozen);
    row[const { at("spoiled") }] = flag(lot.spoiled);
    row[const { at("spent") }] = flag(lot.on_hand == 0);
    row[const { at("sku") }] = text(&level.sku);
    row[const { at("location") }] = text(&level.location);
    row[const { at("lot") }] = text(&lot.name);
    row
}
