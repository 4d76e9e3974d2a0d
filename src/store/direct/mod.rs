//! The short way to the tables, without SQL.
//!
//! Two thirds of what a one-line reserve costs is the executor being set up and taken down, four times. The short way does
//! what these four statements do by the functions that the executor itself is made of, as logical replication does when
//! it applies changes: the same locks, indexes, visibility and log, and no plan. It is taken only where it means the same;
//! where anything is not as sql/tables.sql made it (a trigger, a rule, a policy, a column or a check more, another
//! isolation level), [`Tables::reach`] or a step of it says no and the statements of `store::sql` do the work.
//!
//! | room | what it does |
//! |---|---|
//! | `table` | an open table, and where in it a row is |
//! | `version` | one version of a row: reads and replaces it |
//! | `insert` | inserts rows |
//! | `trail` | remembers where the row of a level lay last |
//! | `queue` | has buyers of one level wait in line, not all for one row |
//! | `columns` | the columns of the tables, in their order |

mod columns;
mod insert;
mod queue;
mod table;
mod trail;
mod version;

use std::cell::Cell;

use pg_stock_core::decide::{Guard, LevelChange};
use pg_stock_core::{Entry, Hold, Level, LevelId, Micros, Name};
use pgrx::pg_sys::{self, ItemPointerData};

use self::columns::Origin;
use self::queue::Place;
use self::table::{Shape, Snapshot, Table};
use self::version::Version;
use crate::error::Error;
use crate::{early, settings};

/// What became of a change by the short way.
pub enum Step {
    /// The level is so now.
    Done(Level),
    /// It has not the units, or others kept changing it.
    Refused,
    /// The short way does not lead there.
    Elsewhere,
}

/// How often a level is read again because somebody else changed it meanwhile who does not stand in the queue.
const ATTEMPTS: usize = 3;

/// The tables, where the short way leads to them.
pub struct Tables {
    schema: pg_sys::Oid,
    /// What the glance saw.
    seen: Cell<Option<Seen>>,
}

/// The version of a level's row that the glance saw.
#[derive(Clone, Copy)]
struct Seen {
    position: ItemPointerData,
    is_busy: bool,
}

impl Tables {
    /// The tables, if this transaction may take the short way.
    pub fn reach() -> Option<Self> {
        // SAFETY: asks for the state of the transaction.
        let plain = unsafe {
            pg_sys::XactIsoLevel == pg_sys::XACT_READ_COMMITTED as i32
                && !pg_sys::XactReadOnly
                && !pg_sys::RecoveryInProgress()
                && !pg_sys::IsInParallelMode()
        };
        if !plain || !settings::direct_access() || early::is_beside_citus() {
            return None;
        }
        // SAFETY: looks a name up.
        let schema = unsafe { pg_sys::get_namespace_oid(c"stock".as_ptr(), true) };
        (schema != pg_sys::InvalidOid).then(|| Tables { schema, seen: Cell::new(None) })
    }

    /// The level as it is, if the key is not known. `None` too where the short way does not lead there.
    pub fn glance(&self, at: &LevelId, key: &Name) -> Option<Level> {
        let (table, ledger) = (self.read(&columns::LEVEL)?, self.read(&columns::LEDGER)?);
        let snapshot = Snapshot::take();
        let found = find_level(&table, at, &snapshot)?;
        self.seen.set(Some(Seen { position: found.position(), is_busy: found.is_busy() }));
        ledger.find(&columns::LEDGER, &[key], &snapshot)?.is_none().then(|| columns::level(&found))
    }

    /// Changes one level if it still has the units: what `Statement::GuardedUpdate` does.
    pub fn change_level(&self, guard: &Guard, change: &LevelChange, due: Micros) -> Result<Step, Error> {
        let Some(table) = self.write(&columns::LEVEL) else { return Ok(Step::Elsewhere) };
        // Where nobody was at the level a moment ago there is no line, and its row is most likely where it was.
        let mut seen = self.seen.take().filter(|seen| !seen.is_busy);
        let place = if seen.is_some() { Place::none() } else { Place::take(&guard.at) };
        for _ in 0..ATTEMPTS {
            let snapshot = Snapshot::take();
            let again = seen.take().and_then(|seen| table.at(seen.position, &snapshot, |row| is_level(row, &guard.at)));
            let Some(found) = again.or_else(|| find_level(&table, &guard.at, &snapshot)) else { break };
            let before = columns::level(&found);
            if !guard.admits(&before) {
                break;
            }
            let after = change.onto(&before, due);
            if !after.is_sound() {
                return Err(Error::Corrupted(format!("a level would not keep 0 <= reserved <= on_hand: {after:?}")));
            }
            if let Some(position) = found.replace(&columns::level_change(&after, guard.now), &snapshot) {
                trail::continues(&guard.at, position);
                place.keep();
                return Ok(Step::Done(after));
            }
        }
        Ok(Step::Refused)
    }

    /// Writes ledger rows, which claim their keys, until a key is taken: what `Statement::Claim` does. Says how many were
    /// written; `None` where the short way does not lead there.
    pub fn claim(&self, entries: &[&Entry]) -> Option<usize> {
        let table = self.write(&columns::LEDGER)?;
        let origin = Origin::of_session(self.schema);
        let rows = entries.iter().map(|entry| columns::ledger(entry, &origin));
        Some(insert::insert_until_taken(&table, rows))
    }

    /// Opens holds: what `Statement::OpenHolds` does. `None` where the short way does not lead there.
    pub fn open_holds(&self, holds: &[Hold], now: Micros) -> Option<()> {
        let table = self.write(&columns::HOLD)?;
        insert::insert(&table, holds.iter().map(|hold| columns::hold(hold, now)));
        Some(())
    }

    fn read(&self, shape: &Shape) -> Option<Table> {
        Table::read(self.schema, shape)
    }

    fn write(&self, shape: &Shape) -> Option<Table> {
        Table::write(self.schema, shape)
    }
}

/// The version of a level's row that the snapshot sees: by its key, or from where it lay last.
fn find_level<'t>(table: &'t Table, at: &LevelId, snapshot: &Snapshot) -> Option<Version<'t>> {
    if let Some(position) = trail::last_seen(at) {
        if let Some(version) = table.follow(position, snapshot, |row| is_level(row, at)) {
            return Some(version);
        }
        trail::lost(at);
    }
    let found = table.find(&columns::LEVEL, &[&at.sku, &at.location], snapshot)??;
    trail::found(at, found.version.position(), found.entries);
    Some(found.version)
}

fn is_level(row: &Version<'_>, at: &LevelId) -> bool {
    row.is_text(columns::LEVEL_SKU, &at.sku) && row.is_text(columns::LEVEL_LOCATION, &at.location)
}
