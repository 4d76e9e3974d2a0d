//! One version of a row: reads it, and puts another in its place.

use std::ptr::null_mut;

use pg_stock_core::Name;
use pgrx::pg_sys::{self, ItemPointerData};

use super::columns::Value;
use super::insert::{self, Indexes, NewRow};
use super::table::{Snapshot, Table};

/// A version of a row, whose page is pinned as long as it lives.
pub struct Version<'t> {
    table: &'t Table,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Drop for Version<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the slot was made for this version.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

impl<'t> Version<'t> {
    /// Room for a version.
    pub fn empty(table: &'t Table) -> Self {
        // SAFETY: an open table.
        Version { table, slot: unsafe { pg_sys::table_slot_create(table.relation(), null_mut()) } }
    }

    /// Where PostgreSQL puts it.
    pub fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

    /// Takes the version apart that PostgreSQL has put here.
    ///
    /// # Safety
    /// The slot must not be empty.
    pub unsafe fn read(&self) {
        unsafe { pg_sys::slot_getallattrs(self.slot) };
    }

    /// Where it lies.
    pub fn position(&self) -> ItemPointerData {
        // SAFETY: the slot holds a row.
        unsafe { (*self.slot).tts_tid }
    }

    /// Where the version after it lies; itself, if there is none.
    pub fn next(&self) -> ItemPointerData {
        self.header().t_ctid
    }

    /// Whether somebody has replaced or locked it, or is about to; maybe in vain.
    pub fn is_busy(&self) -> bool {
        u32::from(self.header().t_infomask) & pg_sys::HEAP_XMAX_INVALID == 0
    }

    fn header(&self) -> &pg_sys::HeapTupleHeaderData {
        let mut copied = false;
        // SAFETY: the slot holds a row of the heap, and pins its page.
        unsafe { &*(*pg_sys::ExecFetchSlotHeapTuple(self.slot, false, &mut copied)).t_data }
    }

    /// A column, counted from 0.
    fn value(&self, column: usize) -> Value {
        assert!(column < self.table.width());
        // SAFETY: the row was taken apart, and has this column.
        unsafe { (!*(*self.slot).tts_isnull.add(column)).then(|| *(*self.slot).tts_values.add(column)) }
    }

    /// Some of its columns, in the order asked for.
    pub fn columns<const N: usize>(&self, places: [usize; N]) -> [Value; N] {
        places.map(|column| self.value(column))
    }

    /// A bigint or timestamptz that may be NULL.
    pub fn opt_int(&self, column: usize) -> Option<i64> {
        self.value(column).map(|value| value.value() as i64)
    }

    /// A bigint or timestamptz.
    pub fn int(&self, column: usize) -> i64 {
        self.opt_int(column).unwrap_or(0)
    }

    /// A boolean.
    pub fn flag(&self, column: usize) -> bool {
        self.value(column).is_some_and(|value| value.value() & 1 != 0)
    }

    /// Whether a text is this one.
    pub fn is_text(&self, column: usize, name: &Name) -> bool {
        // SAFETY: text and bytea share one representation, a varlena of bytes; the column is text.
        let bytes =
            self.value(column).and_then(|value| unsafe { <&[u8] as pgrx::FromDatum>::from_datum(value, false) });
        bytes == Some(name.as_bytes())
    }

    /// Locks the row against changes by others, for whom it waits, and becomes its newest version; false where it is
    /// gone. That is FOR NO KEY UPDATE, by what the executor does (ExecLockRows).
    pub fn lock(&self, snapshot: &Snapshot) -> bool {
        let flags = pg_sys::TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS | pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
        // SAFETY: the slot holds a row of this table's; so it does afterwards, if the row was locked.
        unsafe {
            let result = pg_sys::table_tuple_lock(
                self.table.relation(),
                &mut self.position(),
                snapshot.raw(),
                self.slot,
                pg_sys::GetCurrentCommandId(true),
                pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
                pg_sys::LockWaitPolicy::LockWaitBlock,
                flags as u8,
                &mut pg_sys::TM_FailureData::default(),
            );
            let is_locked = result == pg_sys::TM_Result::TM_Ok;
            if is_locked {
                self.read();
            }
            is_locked
        }
    }

    /// Deletes the row; false where somebody else has changed it.
    pub fn delete(&self, snapshot: &Snapshot) -> bool {
        // SAFETY: the slot holds a row of this table's.
        let result = unsafe {
            let relation = self.table.relation();
            pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_DELETE);
            pg_sys::table_tuple_delete(
                relation,
                &mut self.position(),
                pg_sys::GetCurrentCommandId(true),
                snapshot.raw(),
                null_mut(),
                true,
                &mut pg_sys::TM_FailureData::default(),
                false,
            )
        };
        insert::next_command();
        result == pg_sys::TM_Result::TM_Ok
    }

    /// Puts a version in its place that differs in some columns, and says where that lies. `None` where somebody else has
    /// replaced it first, for whom it waits.
    pub fn replace(&self, changes: &[(usize, Value)], snapshot: &Snapshot) -> Option<ItemPointerData> {
        let mut values: Vec<Value> = (0..self.table.width()).map(|column| self.value(column)).collect();
        for (column, value) in changes {
            values[*column] = *value;
        }
        let row = NewRow::of(self.table, &values);
        let mut failure = pg_sys::TM_FailureData::default();
        let mut mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        let mut indexes = Default::default();
        // SAFETY: the row is one of this table's, and what it shares with this version is pinned.
        unsafe {
            let relation = self.table.relation();
            pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
            let result = pg_sys::table_tuple_update(
                relation,
                &mut self.position(),
                row.slot(),
                pg_sys::GetCurrentCommandId(true),
                snapshot.raw(),
                null_mut(),
                true,
                &mut failure,
                &mut mode,
                &mut indexes,
            );
            if result != pg_sys::TM_Result::TM_Ok {
                return None;
            }
            if let Some(only_summarizing) = entries(indexes) {
                Indexes::open(self.table, false).insert(&row, None, only_summarizing);
            }
        }
        insert::next_command();
        Some(row.position())
    }
}

/// Whether the new version needs entries in indexes; and if so, only in those that sum pages up.
#[cfg(feature = "pg15")]
fn entries(indexes: bool) -> Option<bool> {
    indexes.then_some(false)
}

#[cfg(not(feature = "pg15"))]
fn entries(indexes: pg_sys::TU_UpdateIndexes::Type) -> Option<bool> {
    match indexes {
        pg_sys::TU_UpdateIndexes::TU_None => None,
        kind => Some(kind == pg_sys::TU_UpdateIndexes::TU_Summarizing),
    }
}
