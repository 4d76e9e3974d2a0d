//! Receive, adjust, set, transfer, limits, freeze, lots.

use pg_stock_core::limits;
use pg_stock_core::{Action, Fault, LevelId, Limits, Name, NamedLot, Request};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::{Form, answer, request};

/// `receive_stock(key, sku, location, quantity, reason, lot, best_before)`
#[pg_extern(sql = false)]
fn receive(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_receive);
}

/// `try_receive_stock(key, sku, location, quantity, reason, lot, best_before)`
#[pg_extern(sql = false)]
fn try_receive(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_receive);
}

fn read_receive(args: &Arguments) -> Result<(Action, Name), Fault> {
    let quantity = limits::quantity("quantity", args.int(3, "quantity")?)?;
    let lot = NamedLot::of(args.opt_lot(5)?, args.opt_int(6))?;
    Ok((Action::Receive { at: args.level(1)?, quantity, lot }, args.opt_reason(4)?))
}

/// `adjust_stock(key, sku, location, delta, reason, expected_version, lot)`
#[pg_extern(sql = false)]
fn adjust(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_adjust);
}

/// `try_adjust_stock(key, sku, location, delta, reason, expected_version, lot)`
#[pg_extern(sql = false)]
fn try_adjust(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_adjust);
}

fn read_adjust(args: &Arguments) -> Result<(Action, Name), Fault> {
    let delta = limits::delta("delta", args.int(3, "delta")?)?;
    let (at, expected_version, lot) = (args.level(1)?, args.opt_int(5), args.opt_lot(6)?);
    Ok((Action::Adjust { at, delta, expected_version, lot }, args.reason(4)?))
}

/// `set_stock(key, sku, location, on_hand, expected_version, reason, lot)`
#[pg_extern(sql = false)]
fn set(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_set);
}

/// `try_set_stock(key, sku, location, on_hand, expected_version, reason, lot)`
#[pg_extern(sql = false)]
fn try_set(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_set);
}

fn read_set(args: &Arguments) -> Result<(Action, Name), Fault> {
    let on_hand = limits::stock("on_hand", args.int(3, "on_hand")?)?;
    let (at, expected_version, lot) = (args.level(1)?, args.opt_int(4), args.opt_lot(6)?);
    Ok((Action::Set { at, on_hand, expected_version, lot }, args.opt_reason(5)?))
}

/// `transfer_stock(key, sku, from_location, to_location, quantity, reason, lot)`
#[pg_extern(sql = false)]
fn transfer(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_transfer);
}

/// `try_transfer_stock(key, sku, from_location, to_location, quantity, reason, lot)`
#[pg_extern(sql = false)]
fn try_transfer(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_transfer);
}

fn read_transfer(args: &Arguments) -> Result<(Action, Name), Fault> {
    let sku = args.name(1, "sku")?;
    let from = LevelId { sku: sku.clone(), location: args.name(2, "from_location")? };
    let to = LevelId { sku, location: args.name(3, "to_location")? };
    if from == to {
        return Err(Fault::invalid("to_location", "to_location is the same as from_location")
            .hint("Name two locations."));
    }
    let quantity = limits::quantity("quantity", args.int(4, "quantity")?)?;
    let lot = args.opt_lot(6)?;
    Ok((Action::Transfer { from, to, quantity, lot }, args.opt_reason(5)?))
}

/// `set_limits(key, sku, location, safety_stock, buyer_limit, on_sale_from, on_sale_until,
/// backorder_limit, min_life, near_expiry)`
#[pg_extern(sql = false)]
fn set_limits(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_set_limits);
}

/// `try_set_limits(key, sku, location, safety_stock, buyer_limit, on_sale_from, on_sale_until,
/// backorder_limit, min_life, near_expiry)`
#[pg_extern(sql = false)]
fn try_set_limits(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_set_limits);
}

fn read_set_limits(args: &Arguments) -> Result<(Action, Name), Fault> {
    let units =
        |place, name| args.opt_int(place).map(|value| limits::stock(name, value)).transpose();
    let (on_sale_from, on_sale_until) = (args.opt_int(5), args.opt_int(6));
    let set = Limits {
        safety_stock: units(3, "safety_stock")?,
        buyer_limit: units(4, "buyer_limit")?,
        on_sale_from,
        on_sale_until,
        backorder_limit: units(7, "backorder_limit")?,
        min_life: args.opt_span(8, "min_life")?,
        near_expiry: args.opt_span(9, "near_expiry")?,
    };
    if set == Limits::default() {
        return Err(Fault::invalid("safety_stock", "no limit was given").hint(
            "Give safety_stock, buyer_limit (0 lifts it), on_sale_from, on_sale_until, \
                 backorder_limit, min_life or near_expiry.",
        ));
    }
    limits::sale_window(on_sale_from, on_sale_until)?;
    Ok((Action::SetLimits { at: args.level(1)?, limits: set }, Name::default()))
}

/// `freeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn freeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_freeze);
}

/// `try_freeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn try_freeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_freeze);
}

fn read_freeze(args: &Arguments) -> Result<(Action, Name), Fault> {
    Ok((Action::Freeze { at: args.level(1)? }, args.reason(3)?))
}

/// `unfreeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn unfreeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_unfreeze);
}

/// `try_unfreeze_level(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn try_unfreeze(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_unfreeze);
}

fn read_unfreeze(args: &Arguments) -> Result<(Action, Name), Fault> {
    Ok((Action::Unfreeze { at: args.level(1)? }, args.reason(3)?))
}

/// `track_lots(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn track_lots(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_track_lots);
}

/// `try_track_lots(key, sku, location, reason)`
#[pg_extern(sql = false)]
fn try_track_lots(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_track_lots);
}

fn read_track_lots(args: &Arguments) -> Result<(Action, Name), Fault> {
    Ok((Action::TrackLots { at: args.level(1)? }, args.opt_reason(3)?))
}

/// `freeze_lot(key, sku, location, lot, reason)`
#[pg_extern(sql = false)]
fn freeze_lot(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_freeze_lot);
}

/// `try_freeze_lot(key, sku, location, lot, reason)`
#[pg_extern(sql = false)]
fn try_freeze_lot(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_freeze_lot);
}

fn read_freeze_lot(args: &Arguments) -> Result<(Action, Name), Fault> {
    Ok((Action::FreezeLot { at: args.level(1)?, lot: args.lot(3)? }, args.reason(4)?))
}

/// `unfreeze_lot(key, sku, location, lot, reason)`
#[pg_extern(sql = false)]
fn unfreeze_lot(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Raising, read_unfreeze_lot);
}

/// `try_unfreeze_lot(key, sku, location, lot, reason)`
#[pg_extern(sql = false)]
fn try_unfreeze_lot(fcinfo: pg_sys::FunctionCallInfo) {
    run(fcinfo, Form::Returning, read_unfreeze_lot);
}

fn read_unfreeze_lot(args: &Arguments) -> Result<(Action, Name), Fault> {
    Ok((Action::UnfreezeLot { at: args.level(1)?, lot: args.lot(3)? }, args.reason(4)?))
}

/// Runs the action that the arguments after the key make, for the reason they give.
fn run(
    fcinfo: pg_sys::FunctionCallInfo,
    form: Form,
    read: fn(&Arguments) -> Result<(Action, Name), Fault>,
) {
    answer(fcinfo, form, |args| {
        let key = args.key(0)?;
        let (action, reason) = read(args)?;
        Ok(vec![Request { reason, ..request(key, action) }])
    });
}
