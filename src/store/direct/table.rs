//! An open table: is it as it was made, and where in it is a row?
//!
//! What is open is closed when it goes out of scope; after an error of PostgreSQL's, the resource owner of the
//! transaction or subtransaction that fails closes it.

use std::ffi::CStr;
use std::ptr::{addr_of_mut, null_mut};

use pg_stock_core::{Micros, Name};
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, ItemPointerData};

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

/// An index that rows are looked up by.
pub struct Index {
    /// Its name in the schema stock.
    pub name: &'static CStr,
    /// The columns that it begins with, counted from 1; texts are COLLATE "C".
    pub columns: &'static [i16],
    /// Whether it has each of its keys once.
    pub is_unique: bool,
}

/// What is asked of one column of an index.
pub enum Condition<'n> {
    /// This text.
    Text(&'n Name),
    /// This integer.
    Line(i32),
    /// A time that is not before this one.
    From(Micros),
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

const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

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

/// A search by an index, which is open as long as it lives.
struct Scan {
    scan: pg_sys::IndexScanDesc,
    index: pg_sys::Relation,
    /// How many entries of the index were looked at.
    entries: usize,
}

impl Drop for Scan {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: both are open.
            unsafe {
                pg_sys::index_endscan(self.scan);
                pg_sys::index_close(self.index, NO_LOCK);
            }
        }
    }
}

impl Scan {
    /// Begins one; `None` where the index is not as it was made.
    fn begin(table: &Table, index: &Index, asked: &[Condition<'_>], snapshot: &Snapshot) -> Option<Self> {
        let mut keys: Vec<_> = (1..).zip(asked).map(|(column, condition)| condition.scan_key(column)).collect();
        let count = keys.len() as i32;
        // SAFETY: an index cannot go while its table is locked; the keys are of the types of its columns, and copied.
        unsafe {
            let id = pg_sys::get_relname_relid(index.name.as_ptr(), table.schema);
            if id == pg_sys::InvalidOid {
                return None;
            }
            let relation = pg_sys::relation_open(id, table.mode);
            if !index.is(relation, table.relation) {
                pg_sys::relation_close(relation, NO_LOCK);
                return None;
            }
            let scan = begin_scan(table.relation, relation, snapshot.0, count);
            pg_sys::index_rescan(scan, keys.as_mut_ptr(), count, null_mut(), 0);
            Some(Scan { scan, index: relation, entries: 0 })
        }
    }

    /// Puts the next row there; false where there is none.
    fn next(&mut self, version: &Version<'_>) -> bool {
        // SAFETY: the scan is open, and the version is one of its table's.
        unsafe {
            while !pg_sys::index_getnext_tid(self.scan, pg_sys::ScanDirection::ForwardScanDirection).is_null() {
                self.entries += 1;
                if pg_sys::index_fetch_heap(self.scan, version.slot()) {
                    version.read();
                    return true;
                }
            }
        }
        false
    }
}

impl Index {
    /// Whether an open relation is this index as it was made.
    ///
    /// # Safety
    /// Both relations must be open.
    unsafe fn is(&self, index: pg_sys::Relation, table: pg_sys::Relation) -> bool {
        unsafe {
            let Some(about) = (*index).rd_index.as_ref() else { return false };
            let columns = about.indkey.values.as_slice(about.indnatts as usize);
            about.indrelid == (*table).rd_id
                && about.indisvalid
                && about.indisunique == self.is_unique
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && columns.starts_with(self.columns)
                && pg_sys::RelationGetIndexPredicate(index).is_null()
        }
    }
}

impl Condition<'_> {
    /// As a scan of an index wants it.
    fn scan_key(&self, column: i16) -> pg_sys::ScanKeyData {
        let (strategy, collation, procedure, value) = match self {
            Condition::Text(name) => {
                (pg_sys::BTEqualStrategyNumber, pg_sys::C_COLLATION_OID, pg_sys::F_TEXTEQ, name.as_bytes().into_datum())
            }
            Condition::Line(line) => {
                (pg_sys::BTEqualStrategyNumber, pg_sys::InvalidOid, pg_sys::F_INT4EQ, line.into_datum())
            }
            Condition::From(time) => {
                let greater_equal = pg_sys::BTGreaterEqualStrategyNumber;
                (greater_equal, pg_sys::InvalidOid, pg_sys::F_TIMESTAMPTZ_GE, time.into_datum())
            }
        };
        let (of_any, procedure) = (pg_sys::InvalidOid, pg_sys::Oid::from(procedure));
        let value = value.unwrap_or(pg_sys::Datum::null());
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: fills the key in.
        unsafe {
            let strategy = strategy as pg_sys::StrategyNumber;
            pg_sys::ScanKeyEntryInitialize(&mut key, 0, column, strategy, of_any, collation, procedure, value);
        }
        key
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

unsafe fn begin_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(table, index, snapshot, keys, 0);
        #[cfg(feature = "pg18")]
        return pg_sys::index_beginscan(table, index, snapshot, null_mut(), keys, 0);
    }
}
