//! Whether the feed may be looked at now, and what this moment sees.

use pg_stock_core::feed::Snapshot;
use pgrx::pg_sys;

use crate::board;
use crate::error::Error;
use crate::standby::is_standby;
use crate::store::sql;

/// What the moment sees. The transaction that asks is still running.
pub fn now() -> Result<Snapshot, Error> {
    let text = sql::CURRENT_SNAPSHOT.query(&[], |row| row.name(0).to_string())?.pop();
    let snapshot = text.as_deref().and_then(Snapshot::parse);
    let snapshot =
        snapshot.ok_or_else(|| Error::Corrupted("pg_current_snapshot() cannot be read".into()))?;
    Ok(match own_xid() {
        Some(own) => snapshot.with_running(own),
        None => snapshot,
    })
}

/// Refuses where cursors cannot be given out.
///
/// A standby's snapshots leave out running transactions: a cursor from there would skip what they
/// commit.
fn check_place() -> Result<(), Error> {
    if is_standby() { Err(Error::Standby) } else { Ok(()) }
}

/// Refuses where, besides, this transaction has written: its own rows are not to be seen before it
/// commits, and then they must be new to everybody.
pub fn check() -> Result<(), Error> {
    check_place()?;
    if own_xid().is_some() { Err(Error::Written) } else { Ok(()) }
}

/// Refuses where this transaction has changed levels: what it sees of them nobody else may ever
/// see.
pub fn check_levels() -> Result<(), Error> {
    check_place()?;
    if board::has_changed_levels() { Err(Error::Written) } else { Ok(()) }
}

/// The number of this transaction, if it has one.
fn own_xid() -> Option<u64> {
    // SAFETY: asks for a number of the transaction.
    let xid = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (xid != 0).then_some(xid)
}
