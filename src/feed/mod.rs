//! The change feed: the ledger is the outbox, snapshots are the cursor.
//!
//! | room | what it does |
//! |---|---|
//! | `generation` | the life of the database that cursors belong to |
//! | `changes` | what came to be seen between two snapshots |
//! | `pull` | answers a listener who catches up |
//! | `emit` | tells by NOTIFY |

mod changes;
mod emit;
mod generation;
mod pull;

pub use emit::{emit, look, note_failure, tell};
pub use generation::begin as begin_generation;
pub use pull::{Page, State, changes_since, snapshot};

use crate::board;
use crate::error::Error;
use pgrx::pg_sys;

/// Refuses where cursors cannot be given out.
///
/// A standby's snapshots leave out running transactions: a cursor from there would skip what they commit.
fn check_place() -> Result<(), Error> {
    // SAFETY: asks for the state of the server.
    if unsafe { pg_sys::RecoveryInProgress() } { Err(Error::Standby) } else { Ok(()) }
}

/// Refuses where, besides, this transaction has written: its own rows are not to be seen before it commits, and then
/// they must be new to everybody.
fn check_moment() -> Result<(), Error> {
    check_place()?;
    if own_xid().is_some() { Err(Error::Written) } else { Ok(()) }
}

/// Refuses where this transaction has changed levels: what it sees of them nobody else may ever see.
fn check_levels() -> Result<(), Error> {
    check_place()?;
    if board::has_changed_levels() { Err(Error::Written) } else { Ok(()) }
}

/// The number of this transaction, if it has one.
fn own_xid() -> Option<u64> {
    // SAFETY: asks for a number of the transaction.
    let xid = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (xid != 0).then_some(xid)
}
