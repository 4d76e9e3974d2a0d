//! Direct access: the way to the tables without SQL.
//!
//! Two thirds of what a one-line reserve costs is the executor being set up and taken down, four
//! times; of a confirm it was more. It does what these statements do by the functions
//! that the executor itself is made of (index scans, `table_tuple_lock`, `table_tuple_update`,
//! `table_tuple_delete`, speculative insertion, `ExecInsertIndexTuples`), as logical replication
//! does when it applies changes: the same locks (a level is locked FOR NO KEY UPDATE, which is what
//! the UPDATE takes), visibility, indexes and log, and no plan. The guard is asked of the row that
//! is replaced; who finds the row replaced meanwhile looks again.
//!
//! It is taken only where it means the same, and for few levels and holds; where anything is not as
//! sql/tables.sql made it (a trigger, a rule, a policy, a child, a column or a check more), in
//! another isolation level than READ COMMITTED, in a recovery or on a table of Citus's,
//! [`Tables::reach`] or a verb says no (`None`) and a statement of `store::sql` does the work. Both
//! pass the same tests (`make test-settings`). Nothing but `access` asks this room for rows:
//! without it and the calls there, all works by statements.
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
//! | `origin` | what the defaults of a row say |

mod index;
mod origin;
mod queue;
mod shape;
mod snapshot;
mod table;
mod trail;
mod tuple;
mod write;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::sync::OnceLock;

use pg_stock_core::decide::{Guard, HoldChange, LevelChange, LotChange};
use pg_stock_core::facts::NEVER;
use pg_stock_core::{Level, LevelId, Lot, Micros, Name};
use pgrx::pg_sys::{self, ItemPointerData};
use pgrx::prelude::*;

use self::index::{Condition, HOLD_DUE, HOLD_KEY, LEDGER_KEY, LEVEL_KEY, LOT_KEY, LOT_PRESENT};
use self::origin::Origin;
use self::queue::Place;
use self::shape::Deed;
use self::snapshot::Snapshot;
use self::table::{Table, look_up};
use self::tuple::Tuple;
use super::crowd;
use super::datum::{Row, Value};
use super::rows::hold::{self, HOLD};
use super::rows::hold_lot::{self, HOLD_LOT};
use super::rows::ledger::{self, LEDGER};
use super::rows::ledger_lot::{self, LEDGER_LOT};
use super::rows::level::{self, LEVEL};
use super::rows::lot::{self, LOT};
use super::rows::waiting::{self, WAITING};
use crate::{citus, settings};

pub use self::shape::register;

/// How often a level is read again because somebody else changed it meanwhile who does not stand in
/// the queue.
const ATTEMPTS_MAX: usize = 3;

/// The majors of PostgreSQL with which direct access was tested: what it calls may mean something
/// else in another.
const TESTED_MAJORS: [u32; 4] = [15, 16, 17, 18];

/// Whether direct access was tested with this server; where it was not, each process says so once.
fn is_tested() -> bool {
    static IS_TESTED: OnceLock<bool> = OnceLock::new();
    *IS_TESTED.get_or_init(|| {
        let major = pg_sys::PG_VERSION_NUM / 10_000;
        let is_tested = TESTED_MAJORS.contains(&major);
        if !is_tested {
            let text = format!(
                "pg_stock was not tested with PostgreSQL {major}, and uses SQL statements for \
                 everything"
            );
            ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_WARNING, text);
        }
        is_tested
    })
}

/// The tables, where direct access leads to them.
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
    /// The tables, if this transaction may reach them directly.
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

    /// The level as it is, if the key is not known.
    pub fn glance(&self, at: &LevelId, key: &Name) -> Option<Level> {
        let (table, ledger) = (Table::open(&LEVEL, Deed::Read)?, Table::open(&LEDGER, Deed::Read)?);
        let snapshot = Snapshot::take();
        let found = find_level(&table, at, &snapshot)?;
        self.seen.set(Some(Seen {
            tid: found.tid(),
            is_busy: found.is_busy(),
            is_fresh: found.is_fresh(),
        }));
        let known = ledger.find(&LEDGER_KEY, &[Condition::Text(key)], &snapshot)?;
        known.is_none().then(|| level::level(found.row()))
    }

    /// Levels as they are, if nothing is overdue on them by `now`.
    pub fn levels(&self, levels: &BTreeSet<LevelId>, now: Micros) -> Option<Vec<(LevelId, Level)>> {
        let table = Table::open(&LEVEL, Deed::Read)?;
        let snapshot = Snapshot::take();
        let level =
            |at: &LevelId| find_level(&table, at, &snapshot).map(|found| level::level(found.row()));
        levels
            .iter()
            .map(|at| Some((at.clone(), level(at).filter(|level| level.next_due > now)?)))
            .collect()
    }

    /// The ledger entries of a key, oldest first.
    pub fn history<T>(&self, key: &Name, entry: impl Fn(Row<'_>) -> T) -> Option<Vec<T>> {
        let table = Table::open(&LEDGER, Deed::Read)?;
        let placed = |row: Row<'_>| (ledger::position(row), entry(row));
        let mut entries =
            table.find_all(&LEDGER_KEY, &[Condition::Text(key)], &Snapshot::take(), placed)?;
        entries.sort_by_key(|(position, _)| *position);
        Some(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Locks levels in their order, and says how they are. Where direct access leads not to one of
    /// them, some may be locked.
    pub fn lock(&self, levels: &BTreeSet<LevelId>) -> Option<Vec<(LevelId, Level)>> {
        let table = Table::open(&LEVEL, Deed::Update)?;
        let is_only_one = levels.len() == 1;
        levels.iter().map(|at| Some((at.clone(), lock_level(&table, at, is_only_one)?))).collect()
    }

    /// Changes one level if the guard admits it: `Some(None)` where it has not the units, or others
    /// kept changing it.
    pub fn change_guarded(
        &self,
        guard: &Guard,
        change: &LevelChange,
        due: Micros,
    ) -> Option<Option<Level>> {
        let table = Table::open(&LEVEL, Deed::Update)?;
        // Where nobody was at the level a moment ago there is no line, and its row is most likely
        // where it was.
        let seen = self.seen.take();
        let mut is_wanted = seen.is_some_and(|seen| seen.is_busy || seen.is_fresh);
        let mut seen = seen.filter(|seen| !seen.is_busy);
        let place = if seen.is_some() { Place::none() } else { Place::take(&guard.at) };
        is_wanted |= place.has_waited;
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = Snapshot::take();
            let again = seen
                .take()
                .and_then(|seen| table.at(seen.tid, &snapshot, |row| level::is_of(row, &guard.at)));
            let Some(found) = again.or_else(|| find_level(&table, &guard.at, &snapshot)) else {
                break;
            };
            let before = level::level(found.row());
            if !guard.admits(&before) {
                break;
            }
            // A statement raises what the check of the table says.
            let after = Some(change.onto(&before, due)).filter(Level::is_sound)?;
            is_wanted |= found.is_busy() || found.is_fresh();
            if replace_level(&found, &guard.at, &after, guard.now, &snapshot) {
                crowd::note(&guard.at, is_wanted);
                place.keep();
                return Some(Some(after));
            }
            is_wanted = true;
        }
        Some(None)
    }

    /// Changes a level that is locked and as it must be; `None` also where the statement would
    /// raise an error.
    pub fn change_locked(
        &self,
        at: &LevelId,
        before: &Level,
        after: &Level,
        now: Micros,
    ) -> Option<()> {
        let table = Table::open(&LEVEL, Deed::Update).filter(|_| after.is_sound())?;
        let snapshot = Snapshot::take();
        let found = find_level(&table, at, &snapshot)?;
        let is_as_before = level::level(found.row()).version == before.version;
        (is_as_before && replace_level(&found, at, after, now, &snapshot)).then_some(())
    }

    /// The earliest deadline of the holds of levels, of which none lies before the bound of its
    /// level.
    pub fn first_due(
        &self,
        bounds: &BTreeMap<&LevelId, Micros>,
    ) -> Option<BTreeMap<LevelId, Micros>> {
        let table = Table::open(&HOLD, Deed::Read)?;
        let snapshot = Snapshot::take();
        let first = |(at, bound): (&&LevelId, &Micros)| {
            let asked =
                [Condition::Text(&at.sku), Condition::Text(&at.location), Condition::From(*bound)];
            let found = table.find(&HOLD_DUE, &asked, &snapshot)?;
            Some(((*at).clone(), found.map_or(NEVER, |found| hold::expires_at(found.tuple.row()))))
        };
        bounds.iter().map(first).collect()
    }

    /// Closes a hold that has as many units as it must.
    pub fn close_hold(&self, change: &HoldChange) -> Option<()> {
        let table = Table::open(&HOLD, Deed::Delete)?;
        let snapshot = Snapshot::take();
        let asked = [Condition::Text(&change.key), Condition::Line(change.line)];
        let found = table.find(&HOLD_KEY, &asked, &snapshot)??.tuple;
        let is_as_before = hold::quantity(found.row()) == change.quantity_before;
        (is_as_before && found.delete(&snapshot)).then_some(())
    }

    /// Writes ledger rows, which claim their keys, until a key is taken; gives the positions of
    /// those that were written.
    pub fn claim(&self, rows: impl Iterator<Item = [Value; ledger::WIDTH]>) -> Option<Vec<i64>> {
        let table = Table::open(&LEDGER, Deed::Insert)?;
        let origin = Origin::of_session(table.sequence());
        let mut positions = Vec::new();
        let rows = rows.map(|row| {
            let row = ledger::with_defaults(row, origin.defaults());
            positions.push(ledger::position_of(&row));
            row
        });
        let claimed = write::insert_until_taken(&table, rows);
        positions.truncate(claimed);
        Some(positions)
    }

    /// The lots of levels of which something is left.
    pub fn lots(&self, levels: &BTreeSet<LevelId>) -> Option<Vec<(LevelId, Lot)>> {
        let table = Table::open(&LOT, Deed::Read)?;
        let snapshot = Snapshot::take();
        let mut lots = Vec::new();
        for at in levels {
            let asked =
                [Condition::Text(&at.sku), Condition::Text(&at.location), Condition::Flag(false)];
            lots.extend(table.find_all(&LOT_PRESENT, &asked, &snapshot, lot::lot)?);
        }
        Some(lots)
    }

    /// Changes a lot that has as many units as it must, of a level that is locked.
    pub fn change_lot(&self, at: &LevelId, change: &LotChange) -> Option<()> {
        let (before, after) = (change.before.as_ref()?, &change.after);
        // A statement raises what the check of the table says.
        let is_sound = 0 <= after.reserved && after.reserved <= after.on_hand;
        let table = Table::open(&LOT, Deed::Update).filter(|_| is_sound)?;
        let snapshot = Snapshot::take();
        let asked =
            [Condition::Text(&at.sku), Condition::Text(&at.location), Condition::Text(&after.name)];
        let found = table.find(&LOT_KEY, &asked, &snapshot)??.tuple;
        let (_, known) = lot::lot(found.row());
        let is_as_before = (known.on_hand, known.reserved) == (before.on_hand, before.reserved);
        let replaced = is_as_before && found.replace(&lot::row(at, change), &snapshot).is_some();
        replaced.then_some(())
    }

    /// Binds lots to holds that have nothing of them yet.
    pub fn bind_lots(&self, rows: impl Iterator<Item = [Value; hold_lot::WIDTH]>) -> Option<()> {
        write::insert(&Table::open(&HOLD_LOT, Deed::Insert)?, rows);
        Some(())
    }

    /// Writes down what ledger rows did to lots.
    pub fn claim_lots(&self, rows: impl Iterator<Item = [Value; ledger_lot::WIDTH]>) -> Option<()> {
        write::insert(&Table::open(&LEDGER_LOT, Deed::Insert)?, rows);
        Some(())
    }

    /// Opens holds.
    pub fn open_holds(&self, rows: impl Iterator<Item = [Value; hold::WIDTH]>) -> Option<()> {
        write::insert(&Table::open(&HOLD, Deed::Insert)?, rows);
        Some(())
    }

    /// Takes the last places in queues.
    pub fn take_places(&self, rows: impl Iterator<Item = [Value; waiting::WIDTH]>) -> Option<()> {
        let table = Table::open(&WAITING, Deed::Insert)?;
        let placed = |row| waiting::with_position(row, origin::next(table.sequence()));
        write::insert(&table, rows.map(placed));
        Some(())
    }
}

/// The first of the tables of stock that Citus keeps on other nodes, or takes for its own in
/// another way.
pub fn distributed() -> Option<&'static CStr> {
    let tables = [
        LEVEL.name,
        HOLD.name,
        LEDGER.name,
        WAITING.name,
        c"buyer_quantity",
        c"shipment",
        LOT.name,
        HOLD_LOT.name,
        LEDGER_LOT.name,
    ];
    tables.into_iter().find(|name| look_up(name).is_some_and(|(_, table)| citus::has(table)))
}

/// The version of a level's row that the snapshot sees: by its key, or from where it lay last.
fn find_level<'t>(table: &'t Table, at: &LevelId, snapshot: &Snapshot) -> Option<Tuple<'t>> {
    if let Some(tid) = trail::last_seen(at) {
        if let Some(tuple) = table.follow(tid, snapshot, |row| level::is_of(row, at)) {
            return Some(tuple);
        }
        trail::lost(at);
    }
    let asked = [Condition::Text(&at.sku), Condition::Text(&at.location)];
    let found = table.find(&LEVEL_KEY, &asked, snapshot)??;
    trail::found(at, found.tuple.tid(), found.entries);
    Some(found.tuple)
}

/// Locks a level, and says how it is; `None` where it was not found. Who wants no other one waits
/// in line, if there is one.
fn lock_level(table: &Table, at: &LevelId, may_wait_in_line: bool) -> Option<Level> {
    {
        let snapshot = Snapshot::take();
        let found = find_level(table, at, &snapshot)?;
        let is_busy = found.is_busy();
        crowd::note(at, is_busy || found.is_fresh());
        if !(may_wait_in_line && is_busy) {
            let is_locked = found.lock(&snapshot) && level::is_of(found.row(), at);
            return is_locked.then(|| level::level(found.row()));
        }
    }
    Place::take(at).keep();
    lock_level(table, at, false)
}

/// Puts the row of a level in the place of the one that was found; false where somebody else has
/// done so.
fn replace_level(
    found: &Tuple<'_>,
    at: &LevelId,
    after: &Level,
    now: Micros,
    snapshot: &Snapshot,
) -> bool {
    let tid = found.replace(&level::row(at, after, now), snapshot);
    tid.inspect(|tid| trail::continues(at, *tid));
    tid.is_some()
}
