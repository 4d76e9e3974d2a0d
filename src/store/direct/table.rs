//! An open table: is it as it was made, and where in it is a row?
//!
//! What is open is closed when it goes out of scope; after an error of PostgreSQL's, the resource owner of the
//! transaction or subtransaction that fails closes it.

use std::ffi::CStr;
use std::ptr::{addr_of_mut, null_mut};

use pgrx::pg_sys::{self, ItemPointerData};

use super::index::{Condition, Index, Scan};
use super::version::Version;

/// What a table is like if nobody but sql/tables.sql had a hand in it.
pub struct Shape {
    /// Its name in the schema stock.
    pub name: &'static CStr,
    /// The types of its columns, and whether they are NOT NULL.
    pub columns: &'static [(pg_sys::Oid, bool)],
    /// How many of them have a default.
    pub defaults: u16,
    /// Its one check.
    pub check: Option<&'static CStr>,
    /// Whether it has triggers that act on what is written here.
    pub has_triggers: fn(&pg_sys::TriggerDesc) -> bool,
}

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
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it is open. Its lock is kept until the transaction ends, as everywhere.
            unsafe { pg_sys::table_close(self.relation, NO_LOCK) };
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
    /// Opens a table in order to read it; `None` where it is not as it was made.
    pub fn read(schema: pg_sys::Oid, shape: &Shape) -> Option<Self> {
        Self::open(schema, shape, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
    }

    /// Opens a table in order to change it; `None` where it is not as it was made.
    pub fn write(schema: pg_sys::Oid, shape: &Shape) -> Option<Self> {
        Self::open(schema, shape, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE)
    }

    fn open(schema: pg_sys::Oid, shape: &Shape, mode: pg_sys::LOCKMODE) -> Option<Self> {
        // SAFETY: looks a name up and opens the table, which is closed when it is dropped.
        let table = unsafe {
            let relation = match pg_sys::get_relname_relid(shape.name.as_ptr(), schema) {
                pg_sys::InvalidOid => null_mut(),
                table => pg_sys::try_table_open(table, mode),
            };
            if relation.is_null() {
                return None;
            }
            Table { relation, schema, mode }
        };
        table.is_plain(shape).then_some(table)
    }

    /// True where a row that is written needs nothing but its values: no trigger, rule, policy, child, computed column,
    /// or check that is not known.
    fn is_plain(&self, shape: &Shape) -> bool {
        // SAFETY: an open relation; its descriptions are there or null.
        unsafe {
            let (relation, class) = (&*self.relation, &*(*self.relation).rd_rel);
            class.relkind as u8 == pg_sys::RELKIND_RELATION
                && class.relam == pg_sys::HEAP_TABLE_AM_OID
                && !(class.relhassubclass || class.relispartition || class.relrowsecurity)
                && relation.rd_rules.is_null()
                && !relation.trigdesc.as_ref().is_some_and(shape.has_triggers)
                && self.has_columns(shape)
                && self.has_constraints(shape)
        }
    }

    unsafe fn has_columns(&self, shape: &Shape) -> bool {
        self.width() == shape.columns.len()
            && shape.columns.iter().enumerate().all(|(place, expected)| {
                let column = unsafe { &*column(self.relation, place) };
                (column.atttypid, column.attnotnull) == *expected
                    && !column.attisdropped
                    && column.attgenerated == 0
                    && column.attidentity == 0
            })
    }

    unsafe fn has_constraints(&self, shape: &Shape) -> bool {
        let Some(constraints) = (unsafe { (*(*self.relation).rd_att).constr.as_ref() }) else { return false };
        let checks = match usize::from(constraints.num_check) {
            0 => &[],
            count => unsafe { std::slice::from_raw_parts(constraints.check, count) },
        };
        constraints.num_defval == shape.defaults
            && checks.len() == usize::from(shape.check.is_some())
            && checks.iter().all(|check| shape.check == Some(unsafe { CStr::from_ptr(check.ccname) }))
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

/// # Safety
/// The relation must be open, and have that column.
unsafe fn column(relation: pg_sys::Relation, place: usize) -> *const pg_sys::FormData_pg_attribute {
    unsafe {
        let columns = (*relation).rd_att;
        #[cfg(not(feature = "pg18"))]
        return (*columns).attrs.as_ptr().add(place);
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(columns, place as i32);
    }
}
