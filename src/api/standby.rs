//! Waiting for a standby to show a write.

use std::time::Duration;

use pg_stock_core::Fault;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::{durable, standby};

/// `wait_for(write_position, timeout)`: whether this server shows it.
#[pg_extern(sql = false)]
fn wait_for(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    let _call = Call::begin();
    let asked = asked(&Arguments::of(fcinfo)).map_err(Error::from);
    or_raise(asked.and_then(|(position, timeout)| standby::wait_for(position, timeout)))
}

/// `write_position()`: up to where this server has written.
#[pg_extern(sql = false)]
fn write_position(_fcinfo: pg_sys::FunctionCallInfo) -> i64 {
    let _call = Call::begin();
    or_raise(standby::refuse_changes());
    durable::written() as i64
}

fn asked(arguments: &Arguments) -> Result<(u64, Duration), Fault> {
    Ok((arguments.int(0, "write_position")? as u64, arguments.timeout(1)?))
}
