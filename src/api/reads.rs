//! Reads that need the rules: what has become of a reservation.

use pg_stock_core::outcome::State;
use pg_stock_core::standing::{Claim, LineStanding};
use pg_stock_core::{LevelId, Name, Operation};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::rows::send;
use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::store;
use crate::store::datum::{Value, bytes, int, line as number, opt_int, opt_text, text, word};

/// `available(sku, location)`: units that may still be promised; NULL for an unknown level, or
/// where a name is NULL.
#[pg_extern(sql = false)]
fn available(fcinfo: pg_sys::FunctionCallInfo) -> Option<i64> {
    let _call = Call::begin();
    let arguments = Arguments::of(fcinfo);
    let (sku, location) = (arguments.bytes(0)?, arguments.bytes(1)?);
    or_raise(store::available(LevelId { sku: Name::from(sku), location: Name::from(location) }))
}

/// `reservation(key)`: line, sku, location, buyer, quantity, held, confirmed, released, expired,
/// returned, state, expires_at, backordered.
#[pg_extern(sql = false)]
fn reservation(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let key = Arguments::of(fcinfo).name(0, "key").map_err(Error::from);
    let standing = or_raise(key.and_then(|key| store::standing(&key)));
    let cancelled = (standing.claim == Claim::Cancelled).then(cancelled);
    send(fcinfo, standing.lines.iter().map(columns).chain(cancelled));
}

/// `check_name(path, name)`
#[pg_extern(sql = false)]
fn check_name(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let arguments = Arguments::of(fcinfo);
    let path = String::from_utf8_lossy(arguments.bytes(0).unwrap_or_default()).into_owned();
    or_raise(arguments.name(1, &path).map(drop).map_err(Error::from));
}

/// `library_version()`
#[pg_extern(sql = false)]
fn library_version() -> &'static str {
    store::LIBRARY_VERSION
}

/// `operations()`
#[pg_extern(sql = false)]
fn operations() -> Vec<&'static str> {
    Operation::ALL.into_iter().map(Operation::word).collect()
}

fn columns(line: &LineStanding) -> [Value; 13] {
    [
        number(line.line),
        text(&line.at.sku),
        text(&line.at.location),
        opt_text(line.buyer.as_ref()),
        int(line.quantity),
        int(line.live()),
        int(line.confirmed),
        int(line.released),
        int(line.lapsed()),
        int(line.returned),
        word(line.state().word()),
        opt_int(line.expires_at()),
        int(line.backordered()),
    ]
}

/// The one line of a key that was released before it was reserved.
fn cancelled() -> [Value; 13] {
    let (nothing, none) = (int(0), bytes(b""));
    [
        number(1),
        none,
        none,
        None,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        word(State::Cancelled.word()),
        None,
        nothing,
    ]
}
