//! What came to be seen between two snapshots.

use std::collections::BTreeSet;

use pg_stock_core::LevelId;
use pg_stock_core::feed::snapshot::Reach;
use pg_stock_core::feed::{Snapshot, Window, Xid};
use pgrx::pg_sys;
use pgrx::spi::SpiResult;

use super::generation::Generation;
use super::moment::now;
use crate::error::Error;
use crate::store::datum::{Row, array, int, word, xid};
use crate::store::sql;

/// A ledger row, as far as the feed looks at it.
struct Change {
    /// Who wrote it.
    xact: Xid,
    /// Its position.
    position: i64,
    /// The level; `None` for a cancellation.
    at: Option<LevelId>,
}

/// Changes, each transaction whole.
pub struct Changes {
    /// Ledger rows that were looked at.
    pub rows: usize,
    /// The levels they changed.
    pub levels: BTreeSet<LevelId>,
    /// What is seen with them.
    pub seen: Snapshot,
    /// True where there are more.
    pub more: bool,
}

/// Reads what came to be seen since, in the order of transactions, about `most` ledger rows; `None`
/// where `since` is ahead of this database, an error where it is only ahead of an old snapshot.
///
/// The new snapshot is taken before the rows are read: what is committed in between is left for the
/// next time.
pub fn since(
    generation: &Generation,
    since: Snapshot,
    most: usize,
) -> Result<Option<Changes>, Error> {
    let Some(changes) = between(generation, since, now()?, most)? else {
        // SAFETY: a variable of the transaction.
        let is_old = unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32;
        return if is_old { Err(Error::OldSnapshot) } else { Ok(None) };
    };
    Ok(Some(changes))
}

/// As [`since`], but no further than a snapshot that was taken before; `None` where `since` is
/// ahead of it.
pub fn between(
    generation: &Generation,
    since: Snapshot,
    until: Snapshot,
    most: usize,
) -> Result<Option<Changes>, Error> {
    let Some(window) = Window::between(since, until) else { return Ok(None) };
    let mut rows = rows(&window, most + 1)?;
    let more = rows.len() > most;
    let mut seen = window.end().clone();
    if more {
        let order: Vec<Xid> = rows.iter().map(|row| row.xact).collect();
        match window.reach(&order) {
            Reach::Rows(whole, reached) => {
                rows.truncate(whole);
                seen = reached;
            }
            Reach::Within(xact) => {
                rows = of_transactions(&[xact], usize::MAX)?;
                seen = window.before(xact + 1);
            }
        }
    }
    let counted = rows
        .iter()
        .filter(|row| window.contains(row.xact) && generation.counts(row.position, row.xact));
    let levels = counted.filter_map(|row| row.at.clone()).collect();
    Ok(Some(Changes { rows: rows.len(), levels, seen, more }))
}

/// Whether changes were archived that a snapshot, as text, did not see.
pub fn are_archived(seen: &str) -> SpiResult<bool> {
    Ok(!sql::IS_ARCHIVED.query(&[word(seen)], |_| ())?.is_empty())
}

/// The rows of a window, at most so many. Those of transactions that are still running may be among
/// them.
fn rows(window: &Window, most: usize) -> SpiResult<Vec<Change>> {
    let late = window.late();
    let mut rows = if late.is_empty() { Vec::new() } else { of_transactions(&late, most)? };
    if rows.len() < most {
        let ((first, end), room) = (window.range(), most - rows.len());
        rows.extend(sql::CHANGES_BETWEEN.query(&[xid(first), xid(end), int(room as i64)], change)?);
    }
    Ok(rows)
}

fn of_transactions(xacts: &[Xid], most: usize) -> SpiResult<Vec<Change>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let xacts = array(xacts.iter().copied().map(xid), pg_sys::XID8OID);
    sql::CHANGES_OF.query(&[xacts, int(most)], change)
}

fn change(row: Row<'_>) -> Change {
    let at = row.opt_name(2).zip(row.opt_name(3)).map(|(sku, location)| LevelId { sku, location });
    Change { xact: row.int(0) as Xid, position: row.int(1), at }
}
