//! Values on their way between Rust and PostgreSQL.
//!
//! Text travels as bytes: its encoding is the database's, which Rust's `str` could not hold.

use pg_stock_core::limits::SECOND;
use pg_stock_core::{Micros, Name};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};

/// A value of a parameter or a column; `None` is NULL.
pub type Value = Option<Datum>;

/// A text; the empty name is passed as it is.
pub fn text(value: &Name) -> Value {
    bytes(value.as_bytes())
}

/// A text that may be NULL.
pub fn opt_text(value: Option<&Name>) -> Value {
    value.and_then(text)
}

/// A text in the encoding of the database. Text and bytea share one representation, a varlena of
/// bytes.
pub fn bytes(value: &[u8]) -> Value {
    value.into_datum()
}

/// A word of ours, which is ASCII.
pub fn word(value: &str) -> Value {
    bytes(value.as_bytes())
}

/// A bigint.
pub fn int(value: i64) -> Value {
    opt_int(Some(value))
}

/// A bigint that may be NULL.
pub fn opt_int(value: Option<i64>) -> Value {
    value.map(Datum::from)
}

/// An integer.
pub fn line(value: i32) -> Value {
    value.into_datum()
}

/// A boolean.
pub fn flag(value: bool) -> Value {
    opt_flag(Some(value))
}

/// A boolean that may be NULL.
pub fn opt_flag(value: Option<bool>) -> Value {
    value.map(Datum::from)
}

/// An xid8.
pub fn xid(value: u64) -> Value {
    Some(Datum::from(value))
}

/// A timestamptz: an i64 of microseconds since 2000, which is what Micros counts.
pub fn time(value: Micros) -> Value {
    int(value)
}

/// A timestamptz that may be NULL.
pub fn opt_time(value: Option<Micros>) -> Value {
    opt_int(value)
}

/// An interval of hours, that may be NULL: a day of an interval may be longer or shorter.
pub fn opt_span(value: Option<Micros>) -> Value {
    value.map(|micros| {
        let interval = pg_sys::Interval { time: micros, day: 0, month: 0 };
        // SAFETY: palloc gives room for an interval, which lives as long as the call.
        unsafe {
            let place = pg_sys::palloc(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
            place.write(interval);
            Datum::from(place)
        }
    })
}

const DAY: Micros = 24 * 3_600 * SECOND;

/// An interval in microseconds; a month has 30 days and a day 24 hours, as where PostgreSQL
/// compares intervals.
pub fn span(interval: Datum) -> i128 {
    // SAFETY: the value is an interval.
    let interval = unsafe { &*interval.cast_mut_ptr::<pg_sys::Interval>() };
    let days = i128::from(interval.day) + 30 * i128::from(interval.month);
    i128::from(interval.time) + days * i128::from(DAY)
}

/// An array of values of this type.
pub fn array(values: impl Iterator<Item = Value>, of: Oid) -> Value {
    let element = element(of);
    let (mut datums, mut nulls): (Vec<Datum>, Vec<bool>) =
        values.map(|value| (value.unwrap_or(Datum::null()), value.is_none())).unzip();
    let mut length = [datums.len() as i32];
    let mut lower = [1];
    // SAFETY: datums and nulls have `length` elements of the type that `element` describes;
    // PostgreSQL copies them.
    unsafe {
        let array = pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            length.as_mut_ptr(),
            lower.as_mut_ptr(),
            of,
            element.length,
            element.by_value,
            element.align as std::ffi::c_char,
        );
        Some(Datum::from(array))
    }
}

/// The type of arrays of this type.
pub fn array_of(of: Oid) -> Oid {
    element(of).array
}

/// How PostgreSQL lays the elements of an array out, and the type of the array.
struct Element {
    array: Oid,
    length: i32,
    by_value: bool,
    align: u8,
}

fn element(of: Oid) -> Element {
    let eight_bytes = |array| Element { array, length: 8, by_value: true, align: b'd' };
    match of {
        pg_sys::TEXTOID => {
            Element { array: pg_sys::TEXTARRAYOID, length: -1, by_value: false, align: b'i' }
        }
        pg_sys::INT4OID => {
            Element { array: pg_sys::INT4ARRAYOID, length: 4, by_value: true, align: b'i' }
        }
        pg_sys::BOOLOID => {
            Element { array: pg_sys::BOOLARRAYOID, length: 1, by_value: true, align: b'c' }
        }
        pg_sys::INT8OID => eight_bytes(pg_sys::INT8ARRAYOID),
        pg_sys::TIMESTAMPTZOID => eight_bytes(pg_sys::TIMESTAMPTZARRAYOID),
        pg_sys::XID8OID => eight_bytes(pg_sys::XID8ARRAYOID),
        pg_sys::INTERVALOID => {
            Element { array: pg_sys::INTERVALARRAYOID, length: 16, by_value: false, align: b'd' }
        }
        other => unreachable!("no statement takes rows with a column of type {other}"),
    }
}

/// The values of one row of a table or a result, columns counted from 0.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The columns.
    pub values: &'a [Datum],
    /// Which of them are NULL.
    pub nulls: &'a [bool],
}

impl Row<'_> {
    /// A bigint, integer or timestamptz column that may be NULL.
    pub fn opt_int(&self, column: usize) -> Option<i64> {
        (!self.nulls[column]).then(|| self.values[column].value() as i64)
    }

    /// A bigint or timestamptz column; NULL counts as 0.
    pub fn int(&self, column: usize) -> i64 {
        self.opt_int(column).unwrap_or(0)
    }

    /// An interval column, in microseconds, that may be NULL.
    pub fn opt_span(&self, column: usize) -> Option<Micros> {
        (!self.nulls[column]).then(|| span(self.values[column]) as Micros)
    }

    /// An integer column; NULL counts as 0.
    pub fn line(&self, column: usize) -> i32 {
        self.int(column) as i32
    }

    /// A boolean column that may be NULL.
    pub fn opt_flag(&self, column: usize) -> Option<bool> {
        (!self.nulls[column]).then(|| self.values[column].value() & 1 != 0)
    }

    /// A boolean column; NULL counts as false.
    pub fn flag(&self, column: usize) -> bool {
        self.opt_flag(column).unwrap_or(false)
    }

    /// A text column that may be NULL.
    pub fn opt_name(&self, column: usize) -> Option<Name> {
        self.bytes(column).map(Name::from)
    }

    /// A text column; NULL counts as empty.
    pub fn name(&self, column: usize) -> Name {
        self.opt_name(column).unwrap_or_default()
    }

    /// The bytes of a text column that may be NULL.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        // SAFETY: text and bytea share one representation; the column is text.
        unsafe { <&[u8]>::from_datum(self.values[column], self.nulls[column]) }
    }
}
