//! Goods on the road: dispatch, arrive, lose, recall.

use pg_stock_core::{Action, Fault, Name, Request};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::{Form, answer, request};

/// `dispatch_stock(key, lines, reason)`
#[pg_extern(sql = false)]
fn dispatch(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_dispatch);
}

/// `try_dispatch_stock(key, lines, reason)`
#[pg_extern(sql = false)]
fn try_dispatch(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_dispatch);
}

fn read_dispatch(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let (key, loads) = (args.key(0)?, args.loads(1)?);
    Ok(vec![Request { reason: args.opt_reason(2)?, ..request(key, Action::Dispatch { loads }) }])
}

/// `arrive_stock(key, lines, operation_key)`
#[pg_extern(sql = false)]
fn arrive(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_arrive);
}

/// `try_arrive_stock(key, lines, operation_key)`
#[pg_extern(sql = false)]
fn try_arrive(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_arrive);
}

fn read_arrive(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let lines = args.opt_lines_of_lots(1)?;
    part_of(args, Action::Arrive { lines }, 2, Name::default())
}

/// `lose_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn lose(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_lose);
}

/// `try_lose_stock(key, lines, operation_key, reason)`
#[pg_extern(sql = false)]
fn try_lose(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_lose);
}

fn read_lose(args: &Arguments) -> Result<Vec<Request>, Fault> {
    let lines = args.opt_lines_of_lots(1)?;
    part_of(args, Action::Lose { lines }, 2, args.opt_reason(3)?)
}

/// `recall_stock(key, operation_key, reason)`
#[pg_extern(sql = false)]
fn recall(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Raising, read_recall);
}

/// `try_recall_stock(key, operation_key, reason)`
#[pg_extern(sql = false)]
fn try_recall(fcinfo: pg_sys::FunctionCallInfo) {
    answer(fcinfo, Form::Returning, read_recall);
}

fn read_recall(args: &Arguments) -> Result<Vec<Request>, Fault> {
    part_of(args, Action::Recall, 1, args.opt_reason(2)?)
}

/// What is done with a part of a shipment, which an operation key tells from others.
fn part_of(
    args: &Arguments,
    action: Action,
    operation_key: usize,
    reason: Name,
) -> Result<Vec<Request>, Fault> {
    let operation_key = args.operation_key(operation_key)?;
    Ok(vec![Request { operation_key, reason, ..request(args.key(0)?, action) }])
}
