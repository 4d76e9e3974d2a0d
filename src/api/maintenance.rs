//! Expiry, and the settling of reservations by what the shop says of its orders.

use pg_stock_core::facts::NEVER;
use pg_stock_core::settle::{self, Order, Verdict};
use pg_stock_core::standing::Standing;
use pg_stock_core::{Fault, Name, parse};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::rows;
use crate::board::{self, Status};
use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::store;
use crate::store::datum::{self, Value};
use crate::store::notify::{self, Channel, storable};

/// Most holds of one call.
const CALL_HOLDS_MAX: i64 = 100_000;

/// `expire_reservations(max_rows)`: holds_expired, units_returned, levels_busy, errors, next_due.
#[pg_extern(sql = false)]
fn expire_reservations(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let most = most(&Arguments::of(fcinfo)).map_err(Error::from);
    let swept = or_raise(most.and_then(|most| store::expire(most, None)));
    let next_due = Some(swept.next_due).filter(|due| *due < NEVER);
    let row = [
        datum::int(swept.holds),
        datum::int(swept.units),
        datum::int(swept.busy as i64),
        datum::int(swept.errors),
        datum::opt_int(next_due),
    ];
    rows::send(fcinfo, [row].into_iter());
}

/// `pay_queues()`: lines_paid, units_paid, more.
#[pg_extern(sql = false)]
fn pay_queues(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let paid = or_raise(store::pay());
    let row = [datum::int(paid.lines), datum::int(paid.units), datum::flag(paid.more)];
    rows::send(fcinfo, [row].into_iter());
}

/// `expire_lots(max_rows)`: levels, units, more.
#[pg_extern(sql = false)]
fn expire_lots(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let most = most(&Arguments::of(fcinfo)).map_err(Error::from);
    let spoiled = or_raise(most.and_then(store::spoil));
    let row = [datum::int(spoiled.levels), datum::int(spoiled.units), datum::flag(spoiled.more)];
    rows::send(fcinfo, [row].into_iter());
}

/// `worker_status()`: preloaded, pid, state, failing_since, failures, error.
#[pg_extern(sql = false)]
fn worker_status(fcinfo: pg_sys::FunctionCallInfo) {
    let row = match board::status() {
        None => [datum::flag(false), None, datum::word("not_preloaded"), None, None, None],
        Some(Status { process, state, trouble }) => [
            datum::flag(true),
            process.and_then(datum::line),
            datum::word(state),
            datum::opt_int(trouble.as_ref().map(|(since, ..)| *since)),
            datum::opt_int(trouble.as_ref().map(|(_, failures, _)| i64::from(*failures))),
            trouble.and_then(|(.., error)| datum::bytes(storable(&error).as_bytes())),
        ],
    };
    rows::send(fcinfo, [row].into_iter());
}

/// `send_alert(message)`
#[pg_extern(sql = false)]
fn send_alert(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let arguments = Arguments::of(fcinfo);
    let message = arguments.bytes(0).unwrap_or_default();
    or_raise(notify::send_text(Channel::Alert, message).map_err(Error::from));
}

fn most(args: &Arguments) -> Result<usize, Fault> {
    match args.int(0, "max_rows")? {
        most @ 1..=CALL_HOLDS_MAX => Ok(most as usize),
        most => {
            Err(Fault::invalid("max_rows", format!("max_rows must be from 1 to {CALL_HOLDS_MAX}"))
                .detail(format!("It is {most}."))
                .hint("Call again, or CALL stock.expire_all(), for more."))
        }
    }
}

/// `settle(orders)`: key, status, outcome, mismatch, agrees.
#[pg_extern(sql = false)]
fn settle(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let orders = or_raise(orders(&Arguments::of(fcinfo)).map_err(Error::from));
    let verdicts = or_raise(carry_out(&orders));
    rows::send(
        fcinfo,
        orders.iter().zip(&verdicts).map(|(order, verdict)| columns(order, verdict)),
    );
}

/// The orders to settle; NULL is none, for that is what `jsonb_agg` makes of no rows.
fn orders(args: &Arguments) -> Result<Vec<Order>, Fault> {
    args.json(0, "orders")?.map_or(Ok(Vec::new()), |json| parse::orders(&json))
}

/// Confirms and releases all orders in one batch, with one order of locks, and judges each by what
/// came of it. An order whose key is damaged is left out, and says so; the others are settled.
fn carry_out(orders: &[Order]) -> Result<Vec<Verdict>, Error> {
    let (answers, damaged) = store::run_what_is_sound(&settle::requests(orders))?;
    let is_sound = |place: &usize| !damaged.contains(place);
    let keys: Vec<&Name> =
        (0..orders.len()).filter(is_sound).map(|place| &orders[place].key).collect();
    let mut standings = store::standings(&keys)?.into_iter();
    let standing = |place| if is_sound(&place) { standings.next() } else { None };
    let standings: Vec<Option<Standing>> = (0..orders.len()).map(standing).collect();
    Ok(settle::verdicts(orders, &standings, &answers))
}

fn columns(order: &Order, verdict: &Verdict) -> [Value; 5] {
    [
        datum::text(&order.key),
        datum::word(order.status.word()),
        datum::word(verdict.outcome.word()),
        verdict.mismatch.and_then(|mismatch| datum::word(mismatch.word())),
        datum::flag(verdict.agrees),
    ]
}
