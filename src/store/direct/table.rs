//! An open table: where in it is a row?
//!
//! What is open is closed when it goes out of scope; after an error of PostgreSQL's, the resource owner of the
//! transaction or subtransaction that fails closes it.

use std::ffi::CStr;
use std::ptr::addr_of_mut;

use pgrx::pg_sys::{self, ItemPointerData};

use super::columns;
use super::index::{Condition, Index, Scan};
use super::shape::{self, Deed, Findings, Shape};
use super::version::Version;
use crate::citus;

/// How many versions of a row are followed at most, before the index is asked.
const MOST_STEPS: usize = 2_000;

/// A snapshot of the moment, active as long as it lives.
pub struct Snapshot(pg_sys::Snapshot);

impl Snapshot {
    /// What a statement of its own would see.
    pub fn take() -> Self {
        // SAFETY: as each statement does; taken off in `drop`, or by the abort of the transaction.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            Snapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// The snapshot itself.
    pub fn raw(&self) -> pg_sys::Snapshot {
        self.0
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: snapshots are dropped in the opposite order of their being taken.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// An open table.
pub struct Table {
    relation: pg_sys::Relation,
    schema: pg_sys::Oid,
    mode: pg_sys::LOCKMODE,
    findings: Findings,
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it is open. Its lock is kept until the transaction ends, as everywhere.
            unsafe { pg_sys::relation_close(self.relation, NO_LOCK) };
        }
    }
}

/// For closing: locks are kept until the transaction ends.
pub const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// A row that was found by its key.
pub struct Found<'t> {
    /// The version that the snapshot sees.
    pub version: Version<'t>,
    /// How many entries the index had for it; more than one or two are left of versions that an old snapshot keeps.
    pub entries: usize,
}

impl Table {
    /// Opens a table in order to do something with it; `None` where a statement would heed more than we do.
    ///
    /// Whoever waited for the lock may have waited for somebody who gave the name to another table: the name is looked up
    /// again once the lock is there.
    pub fn open(shape: &'static Shape, deed: Deed) -> Option<Self> {
        let table = loop {
            let (schema, id) = look_up(shape.name)?;
            // SAFETY: opens a relation, which is closed when the table is dropped; null where it is gone.
            let relation = unsafe { pg_sys::try_relation_open(id, deed.lock()) };
            if relation.is_null() {
                continue;
            }
            if look_up(shape.name) == Some((schema, id)) {
                break Table {
                    relation,
                    schema,
                    mode: deed.lock(),
                    findings: unsafe { shape::findings(relation, shape) },
                };
            }
            // SAFETY: it is open; nothing was done with it, so that its lock need not be kept.
            unsafe { pg_sys::relation_close(relation, deed.lock()) };
        };
        // SAFETY: an open relation.
        let is_allowed = table.findings.allow(deed) && unsafe { shape::is_allowed(table.relation, deed) };
        is_allowed.then_some(table)
    }

    /// The sequence that the default of a column takes its number from.
    pub fn sequence(&self) -> pg_sys::Oid {
        self.findings.sequence
    }

    /// The schema that it and its indexes are in.
    pub fn schema(&self) -> pg_sys::Oid {
        self.schema
    }

    /// The mode in which it is locked, and its indexes are.
    pub fn mode(&self) -> pg_sys::LOCKMODE {
        self.mode
    }

    /// The relation itself.
    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        // SAFETY: an open relation.
        unsafe { (*(*self.relation).rd_att).natts as usize }
    }

    /// The first row by an index that meets the conditions and that the snapshot sees, if there is one. `None` where the
    /// index cannot tell, for it is not as it was made.
    pub fn find(&self, index: &Index, asked: &[Condition<'_>], snapshot: &Snapshot) -> Option<Option<Found<'_>>> {
        let mut scan = Scan::begin(self, index, asked, snapshot)?;
        let version = Version::empty(self);
        let found = scan.next(&version);
        Some(found.then(|| Found { version, entries: scan.entries }))
    }

    /// All rows by an index that meet the conditions and that the snapshot sees. `None` as of `find`.
    pub fn find_all<T>(
        &self,
        index: &Index,
        asked: &[Condition<'_>],
        snapshot: &Snapshot,
        mut take: impl FnMut(&Version<'_>) -> T,
    ) -> Option<Vec<T>> {
        let mut scan = Scan::begin(self, index, asked, snapshot)?;
        let version = Version::empty(self);
        let mut rows = Vec::new();
        while scan.next(&version) {
            rows.push(take(&version));
        }
        Some(rows)
    }

    /// The version at this position, if it is the one that the snapshot sees.
    pub fn at(
        &self,
        mut position: ItemPointerData,
        snapshot: &Snapshot,
        is_it: impl Fn(&Version<'_>) -> bool,
    ) -> Option<Version<'_>> {
        let version = Version::empty(self);
        // SAFETY: the position was found in this table by this transaction, which keeps it from being cut short.
        let found = unsafe {
            let found = pg_sys::table_tuple_fetch_row_version(self.relation, &mut position, snapshot.0, version.slot());
            if found {
                version.read();
            }
            found
        };
        (found && is_it(&version)).then_some(version)
    }

    /// Follows a row from a version of it to the one that the snapshot sees. `None` where the position leads to
    /// something else by now, or too far.
    pub fn follow(
        &self,
        mut position: ItemPointerData,
        snapshot: &Snapshot,
        is_it: impl Fn(&Version<'_>) -> bool,
    ) -> Option<Version<'_>> {
        // SAFETY: each position is checked to lie in the table before it is read; a version is looked at while its slot
        // pins the page.
        unsafe {
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            if block(&position) >= pages {
                return None;
            }
            self.prune(block(&position));
            let version = Version::empty(self);
            for _ in 0..MOST_STEPS {
                let any = addr_of_mut!(pg_sys::SnapshotAnyData);
                if block(&position) >= pages
                    || !pg_sys::table_tuple_fetch_row_version(self.relation, &mut position, any, version.slot())
                {
                    return None;
                }
                version.read();
                if !is_it(&version) {
                    return None;
                }
                if pg_sys::table_tuple_satisfies_snapshot(self.relation, version.slot(), snapshot.0) {
                    return Some(version);
                }
                let next = version.next();
                if (block(&next), next.ip_posid) == (block(&position), position.ip_posid) {
                    return None;
                }
                position = next;
            }
        }
        None
    }

    /// Makes room on a page if it has versions that nobody needs, as a scan by the index does on its way.
    ///
    /// # Safety
    /// The page must be one of this table's, and not be pinned by us.
    unsafe fn prune(&self, page: pg_sys::BlockNumber) {
        unsafe {
            let buffer = pg_sys::ReadBuffer(self.relation, page);
            pg_sys::heap_page_prune_opt(self.relation, buffer);
            pg_sys::ReleaseBuffer(buffer);
        }
    }
}

/// The page of a position.
fn block(position: &ItemPointerData) -> pg_sys::BlockNumber {
    u32::from(position.ip_blkid.bi_hi) << 16 | u32::from(position.ip_blkid.bi_lo)
}

/// The first of the tables of stock that Citus keeps on other nodes, or takes for its own in another way.
pub fn distributed() -> Option<&'static CStr> {
    let tables = [columns::LEVEL.name, columns::HOLD.name, columns::LEDGER.name, c"buyer_quantity"];
    tables.into_iter().find(|name| look_up(name).is_some_and(|(_, table)| citus::has(table)))
}

/// The oids of the schema stock and of what has this name in it.
fn look_up(name: &CStr) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    let is_there = |oid: &pg_sys::Oid| *oid != pg_sys::InvalidOid;
    // SAFETY: looks names up.
    let schema = Some(unsafe { pg_sys::get_namespace_oid(c"stock".as_ptr(), true) }).filter(is_there)?;
    let relation = Some(unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) }).filter(is_there)?;
    Some((schema, relation))
}
