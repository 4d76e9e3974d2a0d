//! Values on their way between Rust and PostgreSQL.
//!
//! Text travels as bytes: its encoding is the database's, which Rust's `str` could not hold.

use pg_stock_core::{Micros, Name};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::{FromDatum, IntoDatum};

/// A text argument; the empty name is passed as it is.
pub fn text(value: &Name) -> DatumWithOid<'_> {
    // SAFETY: text and bytea share one representation, a varlena of bytes.
    unsafe { DatumWithOid::new(value.as_bytes(), pg_sys::TEXTOID) }
}

/// A text argument that may be NULL.
pub fn opt_text(value: Option<&[u8]>) -> DatumWithOid<'_> {
    // SAFETY: as in `text`.
    unsafe { DatumWithOid::new(value, pg_sys::TEXTOID) }
}

/// A bigint argument.
pub fn int<'a>(value: i64) -> DatumWithOid<'a> {
    opt_int(Some(value))
}

/// A bigint argument that may be NULL.
pub fn opt_int<'a>(value: Option<i64>) -> DatumWithOid<'a> {
    // SAFETY: an i64 is a bigint.
    unsafe { DatumWithOid::new(value, pg_sys::INT8OID) }
}

/// A boolean argument.
pub fn flag<'a>(value: bool) -> DatumWithOid<'a> {
    // SAFETY: a bool is a boolean.
    unsafe { DatumWithOid::new(value, pg_sys::BOOLOID) }
}

/// An xid8 argument.
pub fn xid<'a>(value: u64) -> DatumWithOid<'a> {
    // SAFETY: an xid8 is 8 bytes, passed by value.
    unsafe { DatumWithOid::new(pg_sys::Datum::from(value), pg_sys::XID8OID) }
}

/// An xid8[] argument.
pub fn xids<'b>(values: impl Iterator<Item = u64>) -> DatumWithOid<'b> {
    let datums = values.map(|value| Some(pg_sys::Datum::from(value)));
    array(datums, Element { oid: pg_sys::XID8OID, array: pg_sys::XID8ARRAYOID, length: 8, by_value: true, align: b'd' })
}

/// A timestamptz argument.
pub fn time<'a>(value: Micros) -> DatumWithOid<'a> {
    // SAFETY: a timestamptz is an i64 of microseconds since 2000, which is what Micros counts.
    unsafe { DatumWithOid::new(value, pg_sys::TIMESTAMPTZOID) }
}

/// A text[] argument.
pub fn texts<'a, 'b>(values: impl Iterator<Item = Option<&'a Name>>) -> DatumWithOid<'b> {
    let datums = values.map(|value| value.and_then(|value| value.as_bytes().into_datum()));
    array(
        datums,
        Element { oid: pg_sys::TEXTOID, array: pg_sys::TEXTARRAYOID, length: -1, by_value: false, align: b'i' },
    )
}

/// A text[] argument of words of ours.
pub fn words<'a, 'b>(values: impl Iterator<Item = &'a str>) -> DatumWithOid<'b> {
    let datums = values.map(|value| value.as_bytes().into_datum());
    array(
        datums,
        Element { oid: pg_sys::TEXTOID, array: pg_sys::TEXTARRAYOID, length: -1, by_value: false, align: b'i' },
    )
}

/// A bigint[] argument.
pub fn ints<'b>(values: impl Iterator<Item = Option<i64>>) -> DatumWithOid<'b> {
    let datums = values.map(|value| value.map(pg_sys::Datum::from));
    array(datums, Element { oid: pg_sys::INT8OID, array: pg_sys::INT8ARRAYOID, length: 8, by_value: true, align: b'd' })
}

/// A timestamptz[] argument.
pub fn times<'b>(values: impl Iterator<Item = Option<Micros>>) -> DatumWithOid<'b> {
    let datums = values.map(|value| value.map(pg_sys::Datum::from));
    array(
        datums,
        Element {
            oid: pg_sys::TIMESTAMPTZOID,
            array: pg_sys::TIMESTAMPTZARRAYOID,
            length: 8,
            by_value: true,
            align: b'd',
        },
    )
}

/// An integer[] argument.
pub fn lines<'b>(values: impl Iterator<Item = i32>) -> DatumWithOid<'b> {
    let datums = values.map(|value| Some(pg_sys::Datum::from(value)));
    array(datums, Element { oid: pg_sys::INT4OID, array: pg_sys::INT4ARRAYOID, length: 4, by_value: true, align: b'i' })
}

/// A boolean[] argument.
pub fn flags<'b>(values: impl Iterator<Item = Option<bool>>) -> DatumWithOid<'b> {
    let datums = values.map(|value| value.map(pg_sys::Datum::from));
    array(datums, Element { oid: pg_sys::BOOLOID, array: pg_sys::BOOLARRAYOID, length: 1, by_value: true, align: b'c' })
}

/// How PostgreSQL lays the elements of an array out.
struct Element {
    oid: pg_sys::Oid,
    array: pg_sys::Oid,
    length: i32,
    by_value: bool,
    align: u8,
}

fn array<'b>(values: impl Iterator<Item = Option<pg_sys::Datum>>, element: Element) -> DatumWithOid<'b> {
    let (mut datums, mut nulls): (Vec<pg_sys::Datum>, Vec<bool>) =
        values.map(|value| (value.unwrap_or(pg_sys::Datum::null()), value.is_none())).unzip();
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
        DatumWithOid::new(pg_sys::Datum::from(array), element.array)
    }
}

/// One row of a result.
pub struct Row<'a> {
    /// The columns.
    pub values: &'a [pg_sys::Datum],
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
