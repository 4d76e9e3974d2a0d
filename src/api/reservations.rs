//! Reserve, sell, confirm, release, return, extend.

use pg_stock_core::parse::{self, Options};
use pg_stock_core::{Action, Fault, Line, Micros, Request};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::{Arguments, min_life_of, missing, ttl_of};
use super::{Form, answer, request};
use crate::settings;

/// `reserve_stock(key, sku, location, quantity, ttl, buyer, expected_version)`
#[pg_extern(sql = false)]
fn reserve_line(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_reserve_line);
}

/// `try_reserve_stock(key, sku, location, quantity, ttl, buyer, expected_version)`
#[pg_extern(sql = false)]
fn try_reserve_line(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_reserve_line);
}

fn read_reserve_line(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let key = args.key(0)?;
    let lines = vec![line(args, 6)?];
    let (ttl, buyer) = (Some(args.ttl(4)?), args.opt_name(5, "buyer")?);
    Ok(vec![request(key, Action::Reserve { lines, ttl, buyer, min_life: None })])
}

/// `reserve_stock(key, lines, options)`
#[pg_extern(sql = false)]
fn reserve_lines(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_reserve_lines);
}

/// `try_reserve_stock(key, lines, options)`
#[pg_extern(sql = false)]
fn try_reserve_lines(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_reserve_lines);
}

fn read_reserve_lines(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let (key, lines, options) = (args.key(0)?, args.lines(1)?, args.options(2)?);
    let ttl = Some(ttl_of(format_args!("options.ttl"), &options)?);
    let min_life = min_life_of(format_args!("options.min_life"), &options)?;
    let action = Action::Reserve { lines, ttl, buyer: options.buyer, min_life };
    Ok(vec![Request { context: options.context, ..request(key, action) }])
}

/// `sell_stock(key, sku, location, quantity, buyer, expected_version)`
#[pg_extern(sql = false)]
fn sell_line(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_sell_line);
}

/// `try_sell_stock(key, sku, location, quantity, buyer, expected_version)`
#[pg_extern(sql = false)]
fn try_sell_line(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_sell_line);
}

fn read_sell_line(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let (key, lines) = (args.key(0)?, vec![line(args, 5)?]);
    let buyer = args.opt_name(4, "buyer")?;
    Ok(vec![request(key, Action::Reserve { lines, ttl: None, buyer, min_life: None })])
}

/// `sell_stock(key, lines, options)`
#[pg_extern(sql = false)]
fn sell_lines(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_sell_lines);
}

/// `try_sell_stock(key, lines, options)`
#[pg_extern(sql = false)]
fn try_sell_lines(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_sell_lines);
}

fn read_sell_lines(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let (key, lines, options) = (args.key(0)?, args.lines(1)?, args.options_of_sale(2)?);
    let min_life = min_life_of(format_args!("options.min_life"), &options)?;
    let action = Action::Reserve { lines, ttl: None, buyer: options.buyer, min_life };
    Ok(vec![Request { context: options.context, ..request(key, action) }])
}

/// `reserve_many(requests)`
#[pg_extern(sql = false)]
fn reserve_many(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, |args| {
        read_many(args, |place, options| {
            ttl_of(format_args!("requests[{place}].ttl"), options).map(Some)
        })
    });
}

/// `sell_many(requests)`
#[pg_extern(sql = false)]
fn sell_many(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, |args| {
        read_many(args, |place, options| match &options.ttl {
            None => Ok(None),
            Some(_) => Err(parse::no_ttl(format_args!("requests[{place}].ttl"))),
        })
    });
}

/// The requests of a batch, each with the time to live that `ttl` says; none for a sale.
fn read_many(
    args: &Arguments,
    ttl: impl Fn(usize, &Options) -> Result<Option<Micros>, Fault>,
) -> Result<Vec<Request>, Fault> {
    let json = args.json(0, "requests")?.ok_or_else(|| missing("requests"))?;
    let batch = parse::requests(&json, settings::max_batch_lines())?;
    let reserve = |(place, asked): (usize, parse::BatchRequest)| {
        let ttl = ttl(place, &asked.options)?;
        let min_life = min_life_of(format_args!("requests[{place}].min_life"), &asked.options)?;
        let (lines, buyer) = (asked.lines, asked.options.buyer);
        let action = Action::Reserve { lines, ttl, buyer, min_life };
        Ok(Request {
            number: place as i32 + 1,
            context: asked.options.context,
            ..request(asked.key, action)
        })
    };
    batch.into_iter().enumerate().map(reserve).collect()
}

/// `confirm_stock(key, lines, operation_key)`
#[pg_extern(sql = false)]
fn confirm(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_confirm);
}

/// `try_confirm_stock(key, lines, operation_key)`
#[pg_extern(sql = false)]
fn try_confirm(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_confirm);
}

/// `release_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn release(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_release);
}

/// `try_release_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn try_release(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_release);
}

/// `return_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn give_back(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_give_back);
}

/// `try_return_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn try_give_back(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_give_back);
}

/// `extend_reservation(key, ttl)`
#[pg_extern(sql = false)]
fn extend(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_extend);
}

/// `try_extend_reservation(key, ttl)`
#[pg_extern(sql = false)]
fn try_extend(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_extend);
}

fn read_extend(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let key = args.key(0)?;
    Ok(vec![request(key, Action::Extend { ttl: args.required_ttl(1)? })])
}

/// `reopen_key(key, reason)`
#[pg_extern(sql = false)]
fn reopen(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_reopen);
}

/// `try_reopen_key(key, reason)`
#[pg_extern(sql = false)]
fn try_reopen(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_reopen);
}

fn read_reopen(args: &Arguments) -> Result<Vec<Request>, Fault> {
    Ok(vec![Request { reason: args.reason(1)?, ..request(args.key(0)?, Action::Reopen) }])
}

fn read_confirm(args: &Arguments) -> Result<Vec<Request>, Fault> {
    Ok(vec![read_close(args, |lines| Action::Confirm { lines })?])
}

fn read_release(args: &Arguments) -> Result<Vec<Request>, Fault> {
    with_reason(args, read_close(args, |lines| Action::Release { lines })?)
}

fn read_give_back(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let (key, lines) = (args.key(0)?, args.opt_lines_of_lots(1)?);
    let operation_key = args.operation_key(2)?;
    let request = Request { operation_key, ..request(key, Action::Return { lines }) };
    with_reason(args, request)
}

/// Confirm and release take the same arguments, the second also a reason.
fn read_close(args: &Arguments, action: fn(Option<Vec<Line>>) -> Action) -> Result<Request, Fault> {
    let (key, action) = (args.key(0)?, action(args.opt_lines(1)?));
    Ok(Request { operation_key: args.operation_key(2)?, ..request(key, action) })
}

fn with_reason(args: &Arguments, request: Request) -> Result<Vec<Request>, Fault> {
    Ok(vec![Request { reason: args.opt_reason(3)?, ..request }])
}

/// The one line that the arguments sku, location and quantity make.
fn line(args: &Arguments, expected_version: usize) -> Result<Line, Fault> {
    let quantity = pg_stock_core::limits::quantity("quantity", args.int(3, "quantity")?)?;
    let line = Line::new(1, args.level(1)?, quantity);
    Ok(Line { expected_version: args.opt_int(expected_version), ..line })
}
