//! Reads the arguments of a call. PostgreSQL has checked their types; their values are checked
//! here.

use std::time::Duration;

use pg_stock_core::limits;
use pg_stock_core::parse::{self, Options};
use pg_stock_core::{Fault, LevelId, Line, Load, Micros, Name};
use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};

use crate::settings;
use crate::store::datum::span;

/// The arguments of one call, counted from 0 as in the SQL signature.
pub struct Arguments(pg_sys::FunctionCallInfo);

impl Arguments {
    /// The arguments of the call at hand.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Arguments(fcinfo)
    }

    fn datum(&self, place: usize) -> Option<pg_sys::Datum> {
        // SAFETY: PostgreSQL made fcinfo; the signature in sql/functions.sql has this argument.
        unsafe { pgrx::fcinfo::pg_getarg_datum(self.0, place) }
    }

    pub fn bytes(&self, place: usize) -> Option<&[u8]> {
        // SAFETY: the argument is text, which shares its representation with bytea.
        self.datum(place).and_then(|datum| unsafe { <&[u8]>::from_datum(datum, false) })
    }

    /// A bigint that may be NULL.
    pub fn opt_int(&self, place: usize) -> Option<i64> {
        self.datum(place).map(|datum| datum.value() as i64)
    }

    /// A bigint.
    pub fn int(&self, place: usize, name: &str) -> Result<i64, Fault> {
        self.opt_int(place).ok_or_else(|| missing(name))
    }

    /// An idempotency key.
    pub fn key(&self, place: usize) -> Result<Name, Fault> {
        limits::key("key", self.bytes(place).ok_or_else(|| missing("key"))?)
    }

    /// An operation key; NULL means none.
    pub fn operation_key(&self, place: usize) -> Result<Name, Fault> {
        let key = self.bytes(place).map(|bytes| limits::key("operation_key", bytes)).transpose()?;
        Ok(key.unwrap_or_default())
    }

    /// A SKU or location.
    pub fn name(&self, place: usize, name: &str) -> Result<Name, Fault> {
        limits::name(name, self.bytes(place).ok_or_else(|| missing(name))?)
    }

    /// A buyer that may be NULL.
    pub fn opt_name(&self, place: usize, name: &str) -> Result<Option<Name>, Fault> {
        self.bytes(place).map(|bytes| limits::name(name, bytes)).transpose()
    }

    /// A reason that may be NULL.
    pub fn opt_reason(&self, place: usize) -> Result<Name, Fault> {
        limits::reason("reason", self.bytes(place).unwrap_or_default())
    }

    /// A reason that must be given.
    pub fn reason(&self, place: usize) -> Result<Name, Fault> {
        let reason = limits::reason("reason", self.bytes(place).ok_or_else(|| missing("reason"))?)?;
        if reason.is_empty() {
            return Err(Fault::invalid("reason", "reason must not be empty")
                .hint("Say why, for the ledger."));
        }
        Ok(reason)
    }

    /// The SKU and location at two neighbouring places.
    pub fn level(&self, place: usize) -> Result<LevelId, Fault> {
        Ok(LevelId { sku: self.name(place, "sku")?, location: self.name(place + 1, "location")? })
    }

    /// A time to live; NULL means the setting `pg_stock.default_ttl`.
    pub fn ttl(&self, place: usize) -> Result<Micros, Fault> {
        match self.datum(place) {
            None => Ok(settings::default_ttl()),
            Some(datum) => settings::check_first_ttl("ttl", limits::ttl("ttl", span(datum))?),
        }
    }

    /// A time to live that must be given.
    pub fn required_ttl(&self, place: usize) -> Result<Micros, Fault> {
        settings::check_ttl(
            "ttl",
            limits::ttl("ttl", span(self.datum(place).ok_or_else(|| missing("ttl"))?))?,
        )
    }

    /// Lines that must be given.
    pub fn lines(&self, place: usize) -> Result<Vec<Line>, Fault> {
        parse::lines(&self.json(place, "lines")?.ok_or_else(|| missing("lines"))?)
    }

    /// Lines of what was reserved or sent before, that may be NULL.
    pub fn opt_lines(&self, place: usize) -> Result<Option<Vec<Line>>, Fault> {
        self.json(place, "lines")?.map(|json| parse::parts(&json)).transpose()
    }

    /// The same, where a line may name a lot.
    pub fn opt_lines_of_lots(&self, place: usize) -> Result<Option<Vec<Line>>, Fault> {
        self.json(place, "lines")?.map(|json| parse::parts_of_lots(&json)).transpose()
    }

    /// A lot that must be given.
    pub fn lot(&self, place: usize) -> Result<Name, Fault> {
        self.opt_lot(place)?.ok_or_else(|| missing("lot"))
    }

    /// A lot that may be NULL.
    pub fn opt_lot(&self, place: usize) -> Result<Option<Name>, Fault> {
        self.bytes(place).map(|bytes| limits::lot("lot", bytes)).transpose()
    }

    /// A span of time that may be NULL.
    pub fn opt_span(&self, place: usize, name: &str) -> Result<Option<Micros>, Fault> {
        self.datum(place).map(|datum| limits::span(name, span(datum))).transpose()
    }

    /// How long a call may wait.
    pub fn timeout(&self, place: usize) -> Result<Duration, Fault> {
        let timeout = self.datum(place).ok_or_else(|| missing("timeout"))?;
        limits::timeout("timeout", span(timeout)).map(Duration::from_micros)
    }

    /// The lines of a dispatch, which must be given.
    pub fn loads(&self, place: usize) -> Result<Vec<Load>, Fault> {
        parse::loads(&self.json(place, "lines")?.ok_or_else(|| missing("lines"))?)
    }

    /// Options; NULL means none.
    pub fn options(&self, place: usize) -> Result<Options, Fault> {
        self.json(place, "options")?.map_or(Ok(Options::default()), |json| parse::options(&json))
    }

    /// Options of a sale; NULL means none.
    pub fn options_of_sale(&self, place: usize) -> Result<Options, Fault> {
        self.json(place, "options")?
            .map_or(Ok(Options::default()), |json| parse::options_of_sale(&json))
    }

    /// A jsonb argument as JSON text, in the encoding of the database. All encodings of a server
    /// contain ASCII, so that its structure can be read byte by byte. One that is too large is
    /// refused before it is copied.
    pub fn json(&self, place: usize, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Some(datum) = self.datum(place) else { return Ok(None) };
        // SAFETY: the argument is a varlena.
        limits::json_size(name, unsafe { pg_sys::toast_raw_datum_size(datum) })?;
        // SAFETY: the argument is jsonb; its root follows the varlena header, and the size counts
        // both.
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let root = jsonb.cast::<u8>().add(pg_sys::VARHDRSZ).cast();
            let size = pgrx::varsize(jsonb) as i32;
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), root, size);
            Ok(Some(std::ffi::CStr::from_ptr(text).to_bytes().to_vec()))
        }
    }
}

/// The fault of an argument that must not be NULL.
pub fn missing(name: &str) -> Fault {
    Fault::invalid(name, format!("{name} must not be null"))
        .hint(format!("Give a value for {name}."))
}

/// The time to live that options name.
pub fn ttl_of(path: std::fmt::Arguments<'_>, options: &Options) -> Result<Micros, Fault> {
    let Some(text) = &options.ttl else { return Ok(settings::default_ttl()) };
    let span = span_of(path, text, "Give more than 0 and at most 366 days, '30 minutes' say.")?;
    settings::check_first_ttl(path, limits::ttl(path, span)?)
}

/// How long options ask lots to last.
pub fn min_life_of(
    path: std::fmt::Arguments<'_>,
    options: &Options,
) -> Result<Option<Micros>, Fault> {
    let Some(text) = &options.min_life else { return Ok(None) };
    let span = span_of(path, text, "Give an interval, '3 days' say.")?;
    limits::span(path, span).map(Some)
}

/// A text of JSON, read as PostgreSQL reads an interval.
fn span_of(path: std::fmt::Arguments<'_>, text: &Name, hint: &str) -> Result<i128, Fault> {
    let read = std::ffi::CString::new(text.as_bytes()).ok().and_then(|text| interval_in(&text));
    read.ok_or_else(|| {
        Fault::invalid(path, format!("{path} is not an interval"))
            .detail(format!("It is \"{text}\"."))
            .hint(hint)
    })
}

/// Reads an interval; `None` where PostgreSQL cannot.
fn interval_in(text: &std::ffi::CStr) -> Option<i128> {
    let read = || {
        let typmod = (-1i32).into_datum();
        // SAFETY: the signature of interval_in: a C string, an element type, a type modifier.
        let datum: Option<pg_sys::Datum> = unsafe {
            pgrx::direct_function_call_as_datum(
                pg_sys::interval_in,
                &[Some(pg_sys::Datum::from(text.as_ptr())), Some(pg_sys::Datum::from(0)), typmod],
            )
        };
        datum.map(span)
    };
    PgTryBuilder::new(read)
        .catch_when(PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT, |_| None)
        .catch_when(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, |_| None)
        .catch_when(PgSqlErrorCode::ERRCODE_INTERVAL_FIELD_OVERFLOW, |_| None)
        .execute()
}
