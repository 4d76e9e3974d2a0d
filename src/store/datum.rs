//! Values on their way between Rust and PostgreSQL.
//!
//! Text travels as bytes: its encoding is the database's, which Rust's `str` could not hold.

use pg_stock_core::{Micros, Name};
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum};

/// The value of a parameter; `None` is NULL.
pub type Argument = Option<Datum>;

/// A text argument; the empty name is passed as it is.
pub fn text(value: &Name) -> Argument {
    opt_text(Some(value.as_bytes()))
}

/// A text argument that may be NULL. Text and bytea share one representation, a varlena of bytes.
pub fn opt_text(value: Option<&[u8]>) -> Argument {
    value.into_datum()
}

/// A bigint argument.
pub fn int(value: i64) -> Argument {
    opt_int(Some(value))
}

/// A bigint argument that may be NULL.
pub fn opt_int(value: Option<i64>) -> Argument {
    value.map(Datum::from)
}

/// An integer argument.
pub fn line(value: i32) -> Argument {
    value.into_datum()
}

/// A boolean argument.
pub fn flag(value: bool) -> Argument {
    opt_flag(Some(value))
}

/// A boolean argument that may be NULL.
pub fn opt_flag(value: Option<bool>) -> Argument {
    value.map(Datum::from)
}

/// An xid8 argument.
pub fn xid(value: u64) -> Argument {
    Some(Datum::from(value))
}

/// A timestamptz argument: an i64 of microseconds since 2000, which is what Micros counts.
pub fn time(value: Micros) -> Argument {
    int(value)
}

/// A timestamptz argument that may be NULL.
pub fn opt_time(value: Option<Micros>) -> Argument {
    opt_int(value)
}

/// A text[] argument.
pub fn texts<'a>(values: impl Iterator<Item = Option<&'a Name>>) -> Argument {
    array(values.map(|value| opt_text(value.map(Name::as_bytes))), &TEXT)
}

/// A text[] argument of words of ours.
pub fn words<'a>(values: impl Iterator<Item = &'a str>) -> Argument {
    array(values.map(|value| opt_text(Some(value.as_bytes()))), &TEXT)
}

/// A bigint[] argument.
pub fn ints(values: impl Iterator<Item = Option<i64>>) -> Argument {
    array(values.map(opt_int), &Element { oid: pg_sys::INT8OID, ..EIGHT_BYTES })
}

/// A timestamptz[] argument.
pub fn times(values: impl Iterator<Item = Option<Micros>>) -> Argument {
    array(values.map(opt_time), &Element { oid: pg_sys::TIMESTAMPTZOID, ..EIGHT_BYTES })
}

/// An xid8[] argument.
pub fn xids(values: impl Iterator<Item = u64>) -> Argument {
    array(values.map(xid), &Element { oid: pg_sys::XID8OID, ..EIGHT_BYTES })
}

/// An integer[] argument.
pub fn lines(values: impl Iterator<Item = i32>) -> Argument {
    array(values.map(line), &Element { oid: pg_sys::INT4OID, length: 4, by_value: true, align: b'i' })
}

/// A boolean[] argument.
pub fn flags(values: impl Iterator<Item = Option<bool>>) -> Argument {
    array(values.map(opt_flag), &Element { oid: pg_sys::BOOLOID, length: 1, by_value: true, align: b'c' })
}

/// How PostgreSQL lays the elements of an array out.
struct Element {
    oid: pg_sys::Oid,
    length: i32,
    by_value: bool,
    align: u8,
}

const TEXT: Element = Element { oid: pg_sys::TEXTOID, length: -1, by_value: false, align: b'i' };
const EIGHT_BYTES: Element = Element { oid: pg_sys::InvalidOid, length: 8, by_value: true, align: b'd' };

fn array(values: impl Iterator<Item = Argument>, element: &Element) -> Argument {
    let (mut datums, mut nulls): (Vec<Datum>, Vec<bool>) =
        values.map(|value| (value.unwrap_or(Datum::null()), value.is_none())).unzip();
    let mut length = [datums.len() as i32];
    let mut lower = [1];
    // SAFETY: datums and nulls have `length` elements of the type that `element` describes; PostgreSQL copies them.
    unsafe {
        let array = pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            length.as_mut_ptr(),
            lower.as_mut_ptr(),
            element.oid,
            element.length,
            element.by_value,
            element.align as std::ffi::c_char,
        );
        Some(Datum::from(array))
    }
}

/// One row of a result.
pub struct Row<'a> {
    /// The columns.
    pub values: &'a [Datum],
    /// Which of them are NULL.
    pub nulls: &'a [bool],
}

impl Row<'_> {
    /// A bigint, integer or timestamptz column that may be NULL; columns count from 0.
    pub fn opt_int(&self, column: usize) -> Option<i64> {
        (!self.nulls[column]).then(|| self.values[column].value() as i64)
    }

    /// A bigint or timestamptz column; NULL counts as 0.
    pub fn int(&self, column: usize) -> i64 {
        self.opt_int(column).unwrap_or(0)
    }

    /// An integer column; NULL counts as 0.
    pub fn line(&self, column: usize) -> i32 {
        self.int(column) as i32
    }

    /// A boolean column that may be NULL.
    pub fn opt_flag(&self, column: usize) -> Option<bool> {
        (!self.nulls[column]).then(|| self.values[column].value() & 1 != 0)
    }

    /// A text column that may be NULL.
    pub fn opt_name(&self, column: usize) -> Option<Name> {
        // SAFETY: text and bytea share one representation; the column is text, as the statement says.
        unsafe { <&[u8]>::from_datum(self.values[column], self.nulls[column]).map(Name::from) }
    }

    /// A text column; NULL counts as empty.
    pub fn name(&self, column: usize) -> Name {
        self.opt_name(column).unwrap_or_default()
    }
}
