//! stock.hold_lot: of which lots a hold has units.

use pg_stock_core::Name;

use super::{Column, Shape, bigint, integer, name, place};
use crate::store::datum::{Value, int, line, text};

pub static HOLD_LOT: Shape =
    Shape { name: c"hold_lot", columns: COLUMNS, check: Some("(quantity > 0)"), constant: &[] };
const COLUMNS: &[Column] = &[bigint("quantity"), integer("line"), name("key"), name("lot")];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The row of so many units of a lot in a hold.
pub fn row(key: &Name, number: i32, lot: &Name, units: i64) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("quantity") }] = int(units);
    row[const { at("line") }] = line(number);
    row[const { at("key") }] = text(key);
    row[const { at("lot") }] = text(lot);
    row
}
