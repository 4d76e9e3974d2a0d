//! Receive, adjust, set, transfer, limits, freeze.

use pg_stock_core::limits;
use pg_stock_core::{Action, Fault, LevelId, Name, Request};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::{answer, request};
use crate::error::Error;

/// `try_receive_stock(key, sku, location, quantity, reason)`
#[pg_extern(sql = false)]
fn try_receive(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| {
        let quantity = limits::quantity("quantity", args.int(3, "quantity")?)?;
        Ok((Action::Receive { at: args.level(1)?, quantity }, args.opt_reason(4)?))
    });
}

/// `try_adjust_stock(key, sku, location, delta, reason, expected_version)`
#[pg_extern(sql = false)]
fn try_adjust(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| {
        let delta = limits::delta("delta", args.int(3, "delta")?)?;
        let expected_version = args.opt_int(5);
        Ok((Action::Adjust { at: args.level(1)?, delta, expected_version }, args.reason(4)?))
    });
}

/// `try_set_stock(key, sku, location, on_hand, expected_version, reason)`
#[pg_extern(sql = false)]
fn try_set(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| {
        let on_hand = limits::stock("on_hand", args.int(3, "on_hand")?)?;
        let expected_version = args.opt_int(4);
        Ok((Action::Set { at: args.level(1)?, on_hand, expected_version }, args.opt_reason(5)?))
    });
}

/// `try_transfer_stock(key, sku, from_location, to_location, quantity, reason)`
#[pg_extern(sql = false)]
fn try_transfer(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| {
        let sku = args.name(1, "sku")?;
        let from = LevelId { sku: sku.clone(), location: args.name(2, "from_location")? };
        let to = LevelId { sku, location: args.name(3, "to_location")? };
        if from == to {
            return Err(
                Fault::invalid("to_location", "to_location is the same as from_location").hint("Name two locations.")
            );
        }
        let quantity = limits::quantity("quantity", args.int(4, "quantity")?)?;
        Ok((Action::Transfer { from, to, quantity }, args.opt_reason(5)?))
    });
}

/// `try_set_limits(key, sku, location, safety_stock, buyer_limit)`
#[pg_extern(sql = false)]
fn try_set_limits(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| {
        let limit = |place, name| args.opt_int(place).map(|value| limits::stock(name, value)).transpose();
        let (safety_stock, buyer_limit) = (limit(3, "safety_stock")?, limit(4, "buyer_limit")?);
        if safety_stock.is_none() && buyer_limit.is_none() {
            return Err(Fault::invalid("safety_stock", "neither safety_stock nor buyer_limit was given")
                .hint("Give the one to change; a buyer_limit of 0 lifts the limit."));
        }
        Ok((Action::SetLimits { at: args.level(1)?, safety_stock, buyer_limit }, Name::default()))
    });
}

/// `try_freeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn try_freeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| Ok((Action::Freeze { at: args.level(1)? }, args.reason(3)?)));
}

/// `try_unfreeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn try_unfreeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, |args| Ok((Action::Unfreeze { at: args.level(1)? }, args.reason(3)?)));
}

/// Runs the action that the arguments after the key make, for the reason they give.
fn run(fcinfo: pg_sys::FunctionCallInfo, read: impl Fn(&Arguments) -> Result<(Action, Name), Fault>) {
    let args = Arguments::of(fcinfo);
    let requests = args.key(0).and_then(|key| {
        let (action, reason) = read(&args)?;
        Ok(vec![Request { reason, ..request(key, action) }])
    });
    answer(fcinfo, requests.map_err(Error::from));
}
