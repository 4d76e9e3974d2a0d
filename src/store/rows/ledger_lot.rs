//! stock.ledger_lot: what a ledger row did to lots.

use pg_stock_core::{LotMove, Name};

use super::{Column, Shape, bigint, name, place};
use crate::store::datum::{Value, int, text};

pub static LEDGER_LOT: Shape =
    Shape { name: c"ledger_lot", columns: COLUMNS, check: None, constant: &[] };
const COLUMNS: &[Column] = &[
    bigint("position"),
    bigint("on_hand_delta"),
    bigint("reserved_delta"),
    bigint("in_transit_delta"),
    name("key"),
    name("lot"),
];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The row of what the ledger row at a position did to a lot.
pub fn row(position: i64, key: &Name, moved: &LotMove) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("position") }] = int(position);
    row[const { at("on_hand_delta") }] = int(moved.on_hand);
    row[const { at("reserved_delta") }] = int(moved.reserved);
    row[const { at("in_transit_delta") }] = int(moved.in_transit);
    row[const { at("key") }] = text(key);
    row[const { at("lot") }] = text(&moved.lot);
    row
}
