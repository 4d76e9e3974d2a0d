//! Inserts rows, with their entries in the indexes.

use std::ptr::null_mut;

use pgrx::pg_sys::{self, ItemPointerData};

use super::table::Table;
use crate::store::datum::Value;

/// A row that is to be written.
pub struct NewRow {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Drop for NewRow {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the slot was made for this row.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

impl NewRow {
    /// A row of these values, one for each column.
    pub fn of(table: &Table, values: &[Value]) -> Self {
        assert_eq!(values.len(), table.width());
        // SAFETY: the slot is made for the columns of the table, of which there are as many values.
        unsafe {
            let relation = table.relation();
            let slot = pg_sys::MakeSingleTupleTableSlot(
                (*relation).rd_att,
                &raw const pg_sys::TTSOpsVirtual,
            );
            for (place, value) in values.iter().enumerate() {
                *(*slot).tts_values.add(place) = value.unwrap_or(pg_sys::Datum::null());
                *(*slot).tts_isnull.add(place) = value.is_none();
            }
            (*slot).tts_tableOid = (*relation).rd_id;
            NewRow { slot: pg_sys::ExecStoreVirtualTuple(slot) }
        }
    }

    /// The row itself.
    pub fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

    /// Where it lies, once it is written.
    pub fn tid(&self) -> ItemPointerData {
        // SAFETY: a slot.
        unsafe { (*self.slot).tts_tid }
    }
}

/// Bytes behind what PostgreSQL fills in.
const SLACK_BYTES: usize = 256;

/// In which indexes a row gets entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// In all.
    All,
    /// In those that sum pages up (BRIN).
    Summarizing,
}

/// The open indexes of a table.
pub struct Indexes {
    result: *mut pg_sys::ResultRelInfo,
    state: *mut pg_sys::EState,
}

impl Drop for Indexes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: they were opened.
            unsafe {
                pg_sys::ExecCloseIndices(self.result);
                pg_sys::FreeExecutorState(self.state);
            }
        }
    }
}

impl Indexes {
    /// Opens them.
    pub fn open(table: &Table) -> Self {
        Indexes::open_for(table, false)
    }

    /// Opens them to find out whether the keys of a row are taken.
    fn open_to_claim(table: &Table) -> Self {
        Indexes::open_for(table, true)
    }

    fn open_for(table: &Table, speculative: bool) -> Self {
        // SAFETY: as logical replication does before it applies a change.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            // A later minor release may have made it longer than the one that this was built with.
            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>() + SLACK_BYTES).cast();
            pg_sys::InitResultRelInfo(result, table.relation(), 1, null_mut(), 0);
            pg_sys::ExecOpenIndices(result, speculative);
            Indexes { result, state }
        }
    }

    /// Gives the row its entries.
    ///
    /// # Safety
    /// The row must have been written to the table.
    pub unsafe fn insert(&self, row: &NewRow, which: Which) {
        unsafe { self.insert_or_tell(row, null_mut(), which) };
    }

    /// Gives the row its entries; false where a unique one is taken.
    ///
    /// # Safety
    /// As of `insert`; the indexes must have been opened to claim.
    unsafe fn claim(&self, row: &NewRow) -> bool {
        let mut is_taken = false;
        unsafe { self.insert_or_tell(row, &mut is_taken, Which::All) };
        !is_taken
    }

    unsafe fn insert_or_tell(&self, row: &NewRow, conflict: *mut bool, which: Which) {
        let (gently, only_summarizing) = (!conflict.is_null(), which == Which::Summarizing);
        let (result, slot, state) = (self.result, row.slot, self.state);
        unsafe {
            #[cfg(feature = "pg15")]
            {
                assert!(!only_summarizing, "PostgreSQL 15 knows no such change");
                pg_sys::ExecInsertIndexTuples(
                    result,
                    slot,
                    state,
                    false,
                    gently,
                    conflict,
                    null_mut(),
                );
            }
            #[cfg(not(feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(
                result,
                slot,
                state,
                false,
                gently,
                conflict,
                null_mut(),
                only_summarizing,
            );
        }
    }

    /// False where a unique index has an entry that equals one of the row's; waits for whoever is
    /// about to make one.
    fn is_free(&self, row: &NewRow) -> bool {
        let mut taken = ItemPointerData::default();
        // SAFETY: the indexes were opened for that.
        unsafe {
            #[cfg(not(feature = "pg18"))]
            return pg_sys::ExecCheckIndexConstraints(
                self.result,
                row.slot,
                self.state,
                &mut taken,
                null_mut(),
            );
            #[cfg(feature = "pg18")]
            return pg_sys::ExecCheckIndexConstraints(
                self.result,
                row.slot,
                self.state,
                &mut taken,
                &mut ItemPointerData { ip_posid: 0, ..ItemPointerData::default() },
                null_mut(),
            );
        }
    }
}

/// Inserts rows.
pub fn insert<const N: usize>(table: &Table, rows: impl Iterator<Item = [Value; N]>) {
    let indexes = Indexes::open(table);
    for values in rows {
        let row = NewRow::of(table, &values);
        // SAFETY: the row is one of this table's.
        unsafe {
            pg_sys::table_tuple_insert(
                table.relation(),
                row.slot,
                pg_sys::GetCurrentCommandId(true),
                0,
                null_mut(),
            );
            indexes.insert(&row, Which::All);
        }
    }
    next_command();
}

/// Inserts rows until a unique index has the key of one; says how many were inserted. That is ON
/// CONFLICT DO NOTHING, by what the executor does (ExecInsert), but for looking first: these keys
/// were looked for before.
pub fn insert_until_taken<const N: usize>(
    table: &Table,
    rows: impl Iterator<Item = [Value; N]>,
) -> usize {
    let indexes = Indexes::open_to_claim(table);
    let inserted = rows.take_while(|values| insert_unless_taken(table, &indexes, values)).count();
    next_command();
    inserted
}

fn insert_unless_taken(table: &Table, indexes: &Indexes, values: &[Value]) -> bool {
    let row = NewRow::of(table, values);
    loop {
        pgrx::check_for_interrupts!();
        // SAFETY: the row is one of this table's; the token is released, whether or not the row
        // stays.
        let is_claimed = unsafe {
            let (relation, xact) = (table.relation(), pg_sys::GetCurrentTransactionId());
            let token = pg_sys::SpeculativeInsertionLockAcquire(xact);
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_tuple_insert_speculative(
                relation,
                row.slot,
                command,
                0,
                null_mut(),
                token,
            );
            let is_claimed = indexes.claim(&row);
            pg_sys::table_tuple_complete_speculative(relation, row.slot, token, is_claimed);
            pg_sys::SpeculativeInsertionLockRelease(xact);
            is_claimed
        };
        if is_claimed {
            return true;
        }
        // Waits for whoever is inserting the same key.
        if !indexes.is_free(&row) {
            return false;
        }
    }
}

/// Lets what comes next see what was written.
pub fn next_command() {
    // SAFETY: as after each statement.
    unsafe { pg_sys::CommandCounterIncrement() };
}
