//! An index: is it as it was made, and which rows does it lead to?

use std::ffi::CStr;
use std::ptr::null_mut;

use pg_stock_core::{Micros, Name};
use pgrx::IntoDatum;
use pgrx::pg_sys;

use super::shape::column_name;
use super::snapshot::Snapshot;
use super::table::{NO_LOCK, Table};
use super::tuple::Tuple;
use crate::store::datum::Row;

/// An index that rows are looked up by.
pub struct Index {
    /// Its name in the schema stock.
    pub name: &'static CStr,
    /// The columns that it begins with, each in ascending order; texts are COLLATE "C".
    pub columns: &'static [Key],
    /// Whether it has each of its keys once.
    pub is_unique: bool,
}

/// Finds a level.
pub const LEVEL_KEY: Index = Index {
    name: c"level_pkey",
    columns: &[Key::Column("sku"), Key::Column("location")],
    is_unique: true,
};
/// Finds a hold by its key and line.
pub const HOLD_KEY: Index = Index {
    name: c"hold_pkey",
    columns: &[Key::Column("key"), Key::Column("line")],
    is_unique: true,
};
/// Finds the holds of a level by their deadlines.
pub const HOLD_DUE: Index = Index {
    name: c"hold_due",
    columns: &[Key::Column("sku"), Key::Column("location"), Key::Column("expires_at")],
    is_unique: false,
};
/// Finds a lot.
pub const LOT_KEY: Index = Index {
    name: c"lot_pkey",
    columns: &[Key::Column("sku"), Key::Column("location"), Key::Column("lot")],
    is_unique: true,
};
/// Finds the lots of a level of which something is left.
pub const LOT_PRESENT: Index = Index {
    name: c"lot_present",
    columns: &[Key::Column("sku"), Key::Column("location"), Key::Column("spent")],
    is_unique: false,
};
/// Finds the entries of a key.
pub const LEDGER_KEY: Index = Index {
    name: c"ledger_claim",
    columns: &[
        Key::Column("key"),
        Key::Expression,
        Key::Column("operation_key"),
        Key::Column("line"),
    ],
    is_unique: true,
};

/// What an index is ordered by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A column, by its name.
    Column(&'static str),
    /// An expression.
    Expression,
}

/// What is asked of one column of an index.
pub enum Condition<'n> {
    /// This text.
    Text(&'n Name),
    /// This integer.
    Line(i32),
    /// This boolean.
    Flag(bool),
    /// A time that is not before this one.
    From(Micros),
}

/// A row that was found by its key.
pub struct Found<'t> {
    /// The version that the snapshot sees.
    pub tuple: Tuple<'t>,
    /// How many entries the index had for it; more than one or two are left of versions that an old
    /// snapshot keeps.
    pub entries: usize,
}

impl Table {
    /// The first row by an index that meets the conditions and that the snapshot sees, if there is
    /// one. `None` where the index cannot tell, for it is not as it was made.
    pub fn find(
        &self,
        index: &Index,
        asked: &[Condition<'_>],
        snapshot: &Snapshot,
    ) -> Option<Option<Found<'_>>> {
        let mut scan = Scan::begin(self, index, asked, snapshot)?;
        let tuple = Tuple::empty(self);
        let found = scan.next(&tuple);
        Some(found.then(|| Found { tuple, entries: scan.entries }))
    }

    /// All rows by an index that meet the conditions and that the snapshot sees. `None` as of
    /// `find`.
    pub fn find_all<T>(
        &self,
        index: &Index,
        asked: &[Condition<'_>],
        snapshot: &Snapshot,
        mut take: impl FnMut(Row<'_>) -> T,
    ) -> Option<Vec<T>> {
        let mut scan = Scan::begin(self, index, asked, snapshot)?;
        let tuple = Tuple::empty(self);
        let mut rows = Vec::new();
        while scan.next(&tuple) {
            rows.push(take(tuple.row()));
        }
        Some(rows)
    }
}

/// A search by an index, which is open as long as it lives.
pub struct Scan {
    scan: pg_sys::IndexScanDesc,
    index: pg_sys::Relation,
    /// How many entries of the index were looked at.
    pub entries: usize,
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
    pub fn begin(
        table: &Table,
        index: &Index,
        asked: &[Condition<'_>],
        snapshot: &Snapshot,
    ) -> Option<Self> {
        let mut keys: Vec<_> =
            (1..).zip(asked).map(|(column, condition)| condition.scan_key(column)).collect();
        let count = keys.len() as i32;
        // SAFETY: the keys are of the types of the index's columns, and copied. While its table is
        // locked an index cannot go, but by the last step of DROP INDEX CONCURRENTLY: then it is
        // null.
        unsafe {
            let id = pg_sys::get_relname_relid(index.name.as_ptr(), table.schema());
            if id == pg_sys::InvalidOid {
                return None;
            }
            let relation = pg_sys::try_relation_open(id, table.mode());
            if relation.is_null() {
                return None;
            }
            if !index.is(relation, table.relation()) {
                pg_sys::relation_close(relation, NO_LOCK);
                return None;
            }
            let scan = begin_scan(table.relation(), relation, snapshot.raw(), count);
            pg_sys::index_rescan(scan, keys.as_mut_ptr(), count, null_mut(), 0);
            Some(Scan { scan, index: relation, entries: 0 })
        }
    }

    /// Puts the next row there; false where there is none.
    pub fn next(&mut self, tuple: &Tuple<'_>) -> bool {
        // SAFETY: the scan is open, and the tuple is one of its table's.
        unsafe {
            while !pg_sys::index_getnext_tid(self.scan, pg_sys::ScanDirection::ForwardScanDirection)
                .is_null()
            {
                self.entries += 1;
                if pg_sys::index_fetch_heap(self.scan, tuple.slot()) {
                    tuple.read();
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
            let columns = about.indkey.values.as_slice(about.indnkeyatts as usize);
            let is = |(number, key): (&i16, &Key)| match key {
                Key::Expression => *number == 0,
                Key::Column(name) => *number > 0 && column_name(table, *number) == name.as_bytes(),
            };
            let is_plain = |place: usize| {
                let collation = *(*index).rd_indcollation.add(place);
                *(*index).rd_indoption.add(place) == 0
                    && (collation == pg_sys::InvalidOid || collation == pg_sys::C_COLLATION_OID)
            };
            about.indrelid == (*table).rd_id
                && about.indisvalid
                && about.indisunique == self.is_unique
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && columns.len() >= self.columns.len()
                && columns.iter().zip(self.columns).all(is)
                && (0..self.columns.len()).all(is_plain)
                && pg_sys::RelationGetIndexPredicate(index).is_null()
        }
    }
}

impl Condition<'_> {
    /// As a scan of an index wants it.
    fn scan_key(&self, column: i16) -> pg_sys::ScanKeyData {
        let (strategy, collation, procedure, value) = match self {
            Condition::Text(name) => (
                pg_sys::BTEqualStrategyNumber,
                pg_sys::C_COLLATION_OID,
                pg_sys::F_TEXTEQ,
                name.as_bytes().into_datum(),
            ),
            Condition::Line(line) => (
                pg_sys::BTEqualStrategyNumber,
                pg_sys::InvalidOid,
                pg_sys::F_INT4EQ,
                line.into_datum(),
            ),
            Condition::Flag(flag) => (
                pg_sys::BTEqualStrategyNumber,
                pg_sys::InvalidOid,
                pg_sys::F_BOOLEQ,
                flag.into_datum(),
            ),
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
            pg_sys::ScanKeyEntryInitialize(
                &mut key, 0, column, strategy, of_any, collation, procedure, value,
            );
        }
        key
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
