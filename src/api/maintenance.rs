//! Expiry.

use pg_stock_core::Fault;
use pg_stock_core::facts::NEVER;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use super::rows;
use crate::error::{Error, or_raise};
use crate::store;

/// Most holds of one call.
const MOST: i64 = 100_000;

/// `expire_reservations(max_rows)`: holds_expired, units_returned, levels_busy, errors, next_due.
#[pg_extern(sql = false)]
fn expire_reservations(fcinfo: pg_sys::FunctionCallInfo) {
    let most = most(&Arguments::of(fcinfo)).map_err(Error::from);
    let swept = or_raise(most.and_then(|most| store::expire(most, None)));
    let next_due = Some(swept.next_due).filter(|due| *due < NEVER);
    let row = [
        rows::int(swept.holds),
        rows::int(swept.units),
        rows::int(swept.busy as i64),
        rows::int(swept.errors),
        rows::opt_int(next_due),
    ];
    rows::send(fcinfo, [row].into_iter());
}

fn most(args: &Arguments) -> Result<usize, Fault> {
    match args.int(0, "max_rows")? {
        most @ 1..=MOST => Ok(most as usize),
        most => Err(Fault::invalid("max_rows", format!("max_rows must be from 1 to {MOST}"))
            .detail(format!("It is {most}."))
            .hint("Call again, or CALL stock.expire_all(), for more.")),
    }
}
