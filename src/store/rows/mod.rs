//! The tables, each said once: its columns, how a row is made of a fact, and a fact of a row.
//!
//! A row is the values of all columns of a table, in their order, on both ways to the tables:
//! direct access writes and reads it as it is, and a statement names the columns in that order. So
//! a column is known by its name alone; a name that is none does not compile.

pub mod hold;
pub mod hold_lot;
pub mod ledger;
pub mod ledger_lot;
pub mod level;
pub mod lot;
pub mod waiting;

use std::ffi::CStr;

use pg_stock_core::LevelId;
use pgrx::pg_sys;

use super::datum::Row;

/// The level that the first columns of a row name, where a statement selects its name first.
pub fn level_id(row: Row<'_>) -> LevelId {
    LevelId { sku: row.name(0), location: row.name(1) }
}

/// What a table is like if nobody but sql/tables.sql had a hand in it.
pub struct Shape {
    /// Its name in the schema stock.
    pub name: &'static CStr,
    /// Its columns in their order.
    pub columns: &'static [Column],
    /// What its one check says.
    pub check: Option<&'static str>,
    /// Columns that no change of ours touches: foreign keys that refer to them alone need no look.
    pub constant: &'static [&'static str],
}

/// A column of a table.
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: pg_sys::Oid,
    /// Its collation.
    pub collation: pg_sys::Oid,
    /// Whether it is NOT NULL.
    pub is_needed: bool,
    /// How it comes to its value.
    pub source: Source,
}

/// How a column comes to its value.
#[derive(Clone, Copy)]
pub enum Source {
    /// A fact: whoever writes a row gives it.
    Fact,
    /// The table's default, which is this expression, blanks aside.
    Default(&'static str),
    /// The table's default, which is the next number of a sequence.
    Sequence,
}

impl Shape {
    /// The columns that whoever writes a row gives: all but those with a default.
    pub fn facts(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        self.columns.iter().enumerate().filter(|(_, column)| matches!(column.source, Source::Fact))
    }
}

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

const fn column(name: &'static str, of: pg_sys::Oid) -> Column {
    Column { name, of, collation: pg_sys::InvalidOid, is_needed: true, source: Source::Fact }
}

const fn bigint(name: &'static str) -> Column {
    column(name, pg_sys::INT8OID)
}

const fn integer(name: &'static str) -> Column {
    column(name, pg_sys::INT4OID)
}

const fn timestamptz(name: &'static str) -> Column {
    column(name, pg_sys::TIMESTAMPTZOID)
}

const fn interval(name: &'static str) -> Column {
    column(name, pg_sys::INTERVALOID)
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
    Column { source: Source::Default(expression), ..column }
}
