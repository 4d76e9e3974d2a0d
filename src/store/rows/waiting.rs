//! stock.waiting: the queues of what is promised and not there yet.

use pg_stock_core::decide::WaitChange;

use super::{Column, Shape, Source, bigint, boolean, integer, name, place};
use crate::store::datum::{Value, flag, int, line, text};

pub static WAITING: Shape =
    Shape { name: c"waiting", columns: COLUMNS, check: Some("(quantity > 0)"), constant: &[] };
const COLUMNS: &[Column] = &[
    Column { source: Source::Sequence, ..bigint("position") },
    bigint("quantity"),
    integer("line"),
    integer("promise"),
    boolean("sold"),
    name("key"),
    name("sku"),
    name("location"),
];
/// How many columns a row has.
pub const WIDTH: usize = COLUMNS.len();

const fn at(name: &str) -> usize {
    place(COLUMNS, name)
}

/// The row of a place that is taken, but for its position.
pub fn row(wait: &WaitChange) -> [Value; WIDTH] {
    let mut row = [None; WIDTH];
    row[const { at("quantity") }] = int(wait.after);
    row[const { at("line") }] = line(wait.line);
    row[const { at("promise") }] = line(wait.promise);
    row[const { at("sold") }] = flag(wait.sold);
    row[const { at("key") }] = text(&wait.key);
    row[const { at("sku") }] = text(&wait.at.sku);
    row[const { at("location") }] = text(&wait.at.location);
    row
}

/// A row with its position.
pub fn with_position(mut row: [Value; WIDTH], position: Value) -> [Value; WIDTH] {
    row[const { at("position") }] = position;
    row
}
