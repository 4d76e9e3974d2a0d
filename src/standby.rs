//! What this server shows of the log: on a standby, what it has replayed.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::error::Error;
use crate::{durable, latch};

/// How long a look at what is replayed is put off.
const PAUSE_MS: i64 = 5;

/// True on a standby, which a promotion ends.
pub fn is_standby() -> bool {
    // SAFETY: asks for the state of the server.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Refuses to change anything on a standby. It would refuse to write; but a refusal of ours writes
/// nothing, and would be judged from what may be out of date.
pub fn refuse_changes() -> Result<(), Error> {
    if is_standby() { Err(Error::ReadOnly) } else { Ok(()) }
}

/// Waits until this server shows all up to a position of the log; false where a standby does not in
/// time. What is not in a primary's log comes to it by nobody.
pub fn wait_for(position: u64, timeout: Duration) -> Result<bool, Error> {
    // SAFETY: asks for the state of the transaction.
    let is_fixed = unsafe {
        pg_sys::XactIsoLevel != pg_sys::XACT_READ_COMMITTED as i32 && pg_sys::IsTransactionBlock()
    };
    if is_fixed {
        return Err(Error::FixedSnapshot);
    }
    let begin = Instant::now();
    loop {
        if shown() >= position {
            return Ok(true);
        }
        if !is_standby() || begin.elapsed() >= timeout {
            return Ok(false);
        }
        latch::sleep(PAUSE_MS);
        pgrx::check_for_interrupts!();
    }
}

/// The position up to which this server shows the log.
fn shown() -> u64 {
    if is_standby() {
        // SAFETY: reads a position in shared memory.
        unsafe { pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()) }
    } else {
        durable::written()
    }
}
