//! The short way to the tables, without SQL.
//!
//! Two thirds of what a one-line reserve costs is the executor being set up and taken down, four
//! times; of a confirm it was more. The short way does what these statements do by the functions
//! that the executor itself is made of (index scans, `table_tuple_lock`, `table_tuple_update`,
//! `table_tuple_delete`, speculative insertion, `ExecInsertIndexTuples`), as logical replication
//! does when it applies changes: the same locks (a level is locked FOR NO KEY UPDATE, which is what
//! the UPDATE takes), visibility, indexes and log, and no plan. The guard is then a function of the
//! core (`Guard::admits`), asked of the row that is replaced; who finds the row replaced meanwhile
//! looks again.
//!
//! It is taken only where it means the same, and for few levels and holds; where anything is not as
//! sql/tables.sql made it (a trigger, a rule, a policy, a child, a column or a check more), in
//! another isolation level than READ COMMITTED, in a recovery or on a table of Citus's,
//! [`Tables::reach`] or a step of it says no and the statements of `store::sql` do the work. They
//! pass the same tests (`make test-settings`).
//!
//! | room | what it does |
//! |---|---|
//! | `shape` | is a table as it was made? |
//! | `snapshot` | what a statement would see at this moment |
//! | `table` | an open table |
//! | `write` | inserts rows, with their entries in the indexes |
//! | `tuple` | one version of a row: reads, follows, locks and replaces it |
//! | `index` | the way to a tuple by an index |
//! | `trail` | remembers where the row of a level lay last |
//! | `queue` | has buyers of one level wait in line, not all for one row |
//! | `columns` | the columns of the tables, in their order |

mod columns;
mod index;
mod queue;
mod shape;
mod snapshot;
mod table;
mod trail;
mod tuple;
mod write;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::sync::OnceLock;

use pg_stock_core::decide::{Guard, HoldChange, LevelChange};
use pg_stock_core::facts::NEVER;
use pg_stock_core::{Entry, Hold, Level, LevelId, Micros, Name};
use pgrx::pg_sys::{self, ItemPointerData};
use pgrx::prelude::*;

use self::columns::Origin;
use self::index::Condition;
use self::queue::Place;
use self::shape::Deed;
use self::snapshot::Snapshot;
use self::table::{Table, look_up};
use self::tuple::Tuple;
use super::crowd;
use super::datum::Row;
use crate::{citus, settings};

pub use self::shape::register;

/// What became of a change by the short way.
pub enum Step {
    /// The level is so now.
    Done(Level),
    /// It has not the units, or others kept changing it.
    Refused,
    /// The short way does not lead there.
    Elsewhere,
}

/// How many levels or holds go the short way at most; of more, one statement costs less for each.
pub const FEW: usize = 16;
/// How often a level is read again because somebody else changed it meanwhile who does not stand in the queue.
const ATTEMPTS: usize = 3;

/// The majors of PostgreSQL with which the short way was tested: what it calls may mean something else in another.
const TESTED: [u32; 4] = [15, 16, 17, 18];

/// Whether the short way was tested with this server; where it was not, each process says so once.
fn is_tested() -> bool {
    static IS_TESTED: OnceLock<bool> = OnceLock::new();
    *IS_TESTED.get_or_init(|| {
        let major = pg_sys::PG_VERSION_NUM / 10_000;
        let is_tested = TESTED.contains(&major);
        if !is_tested {
            let text =
                format!("pg_stock was not tested with PostgreSQL {major}, and uses SQL statements for everything");
            ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_WARNING, text);
        }
        is_tested
    })
}

/// The tables, where the short way leads to them.
pub struct Tables {
    /// What the glance saw.
    seen: Cell<Option<Seen>>,
}

/// The version of a level's row that the glance saw.
#[derive(Clone, Copy)]
struct Seen {
    tid: ItemPointerData,
    is_busy: bool,
    is_fresh: bool,
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
        if !plain || !settings::direct_access() || citus::is_silent() || !is_tested() {
            return None;
        }
        Some(Tables { seen: Cell::new(None) })
    }

    /// The level as it is, if the key is not known. `None` too where the short way does not lead there.
    pub fn glance(&self, at: &LevelId, key: &Name) -> Option<Level> {
        let (table, ledger) = (Table::open(&columns::LEVEL, Deed::Read)?, Table::open(&columns::LEDGER, Deed::Read)?);
        let snapshot = Snapshot::take();
        let found = find_level(&table, at, &snapshot)?;
        self.seen.set(Some(Seen { tid: found.tid(), is_busy: found.is_busy(), is_fresh: found.is_fresh() }));
        let known = ledger.find(&columns::LEDGER_KEY, &[Condition::Text(key)], &snapshot)?;
        known.is_none().then(|| columns::level(&found))
    }

    /// Levels as they are, if nothing is overdue on them by `now`: what `&sql::LEVEL` reads.
    pub fn levels(&self, levels: &BTreeSet<LevelId>, now: Micros) -> Option<Vec<(LevelId, Level)>> {
        let table = Table::open(&columns::LEVEL, Deed::Read).filter(|_| levels.len() <= FEW)?;
        let snapshot = Snapshot::take();
        let level = |at: &LevelId| find_level(&table, at, &snapshot).map(|found| columns::level(&found));
        levels.iter().map(|at| Some((at.clone(), level(at).filter(|level| level.next_due > now)?))).collect()
    }

    /// The ledger entries of a key, oldest first: what `&sql::KEY_HISTORY` reads.
    pub fn history<T>(&self, key: &Name, mut take: impl FnMut(Row<'_>) -> T) -> Option<Vec<T>> {
        let ledger = Table::open(&columns::LEDGER, Deed::Read)?;
        let entry = |tuple: &Tuple<'_>| {
            let columns = tuple.columns(columns::ENTRY);
            let values = columns.map(|value| value.unwrap_or(pg_sys::Datum::null()));
            let entry = take(Row { values: &values, nulls: &columns.map(|value| value.is_none()) });
            (tuple.int(const { columns::of_ledger("position") }), entry)
        };
        let mut rows = ledger.find_all(&columns::LEDGER_KEY, &[Condition::Text(key)], &Snapshot::take(), entry)?;
        rows.sort_by_key(|(position, _)| *position);
        Some(rows.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Whether each key can be claimed once only: the index of the claims is as it was made.
    pub fn has_claims(&self) -> bool {
        let none = [Condition::Text(&Name::default())];
        let found = |ledger: Table| ledger.find(&columns::LEDGER_KEY, &none, &Snapshot::take()).map(drop);
        Table::open(&columns::LEDGER, Deed::Read).and_then(found).is_some()
    }

    /// Locks levels in their order: what `&sql::LOCK_LEVELS` does, but FOR NO KEY UPDATE, so that foreign keys may
    /// still refer to them. `None` where the short way does not lead to one of them; some may be locked then.
    pub fn lock(&self, levels: &BTreeSet<LevelId>) -> Option<()> {
        let table = Table::open(&columns::LEVEL, Deed::Update).filter(|_| levels.len() <= FEW)?;
        let is_only_one = levels.len() == 1;
        levels.iter().try_for_each(|at| lock_level(&table, at, is_only_one).then_some(()))
    }

    /// Changes one level if it still has the units: what `&sql::GUARDED_UPDATE` does.
    pub fn change_guarded(&self, guard: &Guard, change: &LevelChange, due: Micros) -> Step {
        let Some(table) = Table::open(&columns::LEVEL, Deed::Update) else { return Step::Elsewhere };
        // Where nobody was at the level a moment ago there is no line, and its row is most likely where it was.
        let seen = self.seen.take();
        let mut is_wanted = seen.is_some_and(|seen| seen.is_busy || seen.is_fresh);
        let mut seen = seen.filter(|seen| !seen.is_busy);
        let place = if seen.is_some() { Place::none() } else { Place::take(&guard.at) };
        is_wanted |= place.has_waited;
        for _ in 0..ATTEMPTS {
            let snapshot = Snapshot::take();
            let again = seen.take().and_then(|seen| table.at(seen.tid, &snapshot, |row| is_level(row, &guard.at)));
            let Some(found) = again.or_else(|| find_level(&table, &guard.at, &snapshot)) else { break };
            let before = columns::level(&found);
            if !guard.admits(&before) {
                break;
            }
            let after = change.onto(&before, due);
            // The statement raises what its check says.
            if !after.is_sound() {
                return Step::Elsewhere;
            }
            is_wanted |= found.is_busy() || found.is_fresh();
            if replace_level(&found, &guard.at, &after, guard.now, &snapshot) {
                crowd::note(&guard.at, is_wanted);
                place.keep();
                return Step::Done(after);
            }
            is_wanted = true;
        }
        Step::Refused
    }

    /// Changes a level that is locked and as it was read; where asked to, finds its earliest deadline again: what
    /// `&sql::CHANGE_LEVELS` does. False where the short way does not lead there, or the statement would raise an error.
    pub fn change_locked(&self, at: &LevelId, change: &LevelChange, bound: bool, now: Micros) -> bool {
        let Some(table) = Table::open(&columns::LEVEL, Deed::Update).filter(|_| change.after.is_sound()) else {
            return false;
        };
        let snapshot = Snapshot::take();
        let Some(found) = find_level(&table, at, &snapshot) else { return false };
        if change.before.as_ref().map(|level| level.version) != Some(columns::level(&found).version) {
            return false;
        }
        let bounded = |next_due| Level { next_due, ..change.after.clone() };
        let after = match bound {
            true => self.first_due(at, change.after.next_due, &snapshot).map(bounded),
            false => Some(change.after.clone()),
        };
        after.is_some_and(|after| replace_level(&found, at, &after, now, &snapshot))
    }

    /// The earliest deadline of a level's holds, of which none lies before the bound.
    fn first_due(&self, at: &LevelId, bound: Micros, snapshot: &Snapshot) -> Option<Micros> {
        let holds = Table::open(&columns::HOLD, Deed::Read)?;
        let asked = [Condition::Text(&at.sku), Condition::Text(&at.location), Condition::From(bound)];
        let first = holds.find(&columns::HOLD_DUE, &asked, snapshot)?;
        Some(first.map_or(NEVER, |found| found.tuple.int(const { columns::of_hold("expires_at") })))
    }

    /// Closes a hold that has as many units as it must: what `&sql::CLOSE_HOLDS` does. False where it has not, or the
    /// short way does not lead there.
    pub fn close_hold(&self, change: &HoldChange) -> bool {
        let Some(table) = Table::open(&columns::HOLD, Deed::Delete) else { return false };
        let snapshot = Snapshot::take();
        let asked = [Condition::Text(&change.key), Condition::Line(change.line)];
        let found = table.find(&columns::HOLD_KEY, &asked, &snapshot).flatten();
        let right =
            found.filter(|found| found.tuple.int(const { columns::of_hold("quantity") }) == change.quantity_before);
        right.is_some_and(|found| found.tuple.delete(&snapshot))
    }

    /// Writes ledger rows, which claim their keys, until a key is taken: what `&sql::CLAIM` does. Says how many were
    /// written; `None` where the short way does not lead there.
    pub fn claim(&self, entries: &[&Entry]) -> Option<usize> {
        let table = Table::open(&columns::LEDGER, Deed::Insert)?;
        let origin = Origin::of_session(table.sequence());
        let rows = entries.iter().map(|entry| columns::ledger(entry, &origin));
        Some(write::insert_until_taken(&table, rows))
    }

    /// Opens holds: what `&sql::OPEN_HOLDS` does. `None` where the short way does not lead there.
    pub fn open_holds(&self, holds: &[Hold]) -> Option<()> {
        let table = Table::open(&columns::HOLD, Deed::Insert)?;
        write::insert(&table, holds.iter().map(columns::hold));
        Some(())
    }
}

/// The first of the tables of stock that Citus keeps on other nodes, or takes for its own in another way.
pub fn distributed() -> Option<&'static CStr> {
    let tables = [columns::LEVEL.name, columns::HOLD.name, columns::LEDGER.name, c"buyer_quantity"];
    tables.into_iter().find(|name| look_up(name).is_some_and(|(_, table)| citus::has(table)))
}

/// The version of a level's row that the snapshot sees: by its key, or from where it lay last.
fn find_level<'t>(table: &'t Table, at: &LevelId, snapshot: &Snapshot) -> Option<Tuple<'t>> {
    if let Some(tid) = trail::last_seen(at) {
        if let Some(tuple) = table.follow(tid, snapshot, |row| is_level(row, at)) {
            return Some(tuple);
        }
        trail::lost(at);
    }
    let asked = [Condition::Text(&at.sku), Condition::Text(&at.location)];
    let found = table.find(&columns::LEVEL_KEY, &asked, snapshot)??;
    trail::found(at, found.tuple.tid(), found.entries);
    Some(found.tuple)
}

/// Locks a level; false where it was not found. Who wants no other one waits in line, if there is one.
fn lock_level(table: &Table, at: &LevelId, may_wait_in_line: bool) -> bool {
    {
        let snapshot = Snapshot::take();
        let Some(level) = find_level(table, at, &snapshot) else { return false };
        let is_busy = level.is_busy();
        crowd::note(at, is_busy || level.is_fresh());
        if !(may_wait_in_line && is_busy) {
            return level.lock(&snapshot) && is_level(&level, at);
        }
    }
    Place::take(at).keep();
    lock_level(table, at, false)
}

/// Puts the row of a level in the place of the one that was found; false where somebody else has done so.
fn replace_level(found: &Tuple<'_>, at: &LevelId, after: &Level, now: Micros, snapshot: &Snapshot) -> bool {
    let tid = found.replace(&columns::level_change(after, now), snapshot);
    tid.inspect(|tid| trail::continues(at, *tid));
    tid.is_some()
}

fn is_level(row: &Tuple<'_>, at: &LevelId) -> bool {
    row.is_text(const { columns::of_level("sku") }, &at.sku)
        && row.is_text(const { columns::of_level("location") }, &at.location)
}
