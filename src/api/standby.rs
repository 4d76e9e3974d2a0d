//! Waiting for a standby to show a write.

use std::time::Duration;

use pg_stock_core::Fault;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::Arguments;
use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::standby;

/// `wait_for(write_position, timeout)`: whether this server shows it.
#[pg_extern(sql = false)]
fn wait_for(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    let _call = Call::begin();
    let asked = asked(&Arguments::of(fcinfo)).map_err(Error::from);
    or_raise(asked.and_then(|(position, timeout)| standby::wait_for(position, timeout)))
}

fn asked(arguments: &Arguments) -> Result<(u64, Duration), Fault> {
    Ok((arguments.int(0, "write_position")? as u64, arguments.timeout(1)?))
}
