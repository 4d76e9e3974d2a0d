//! One version of a row: reads it, and puts another in its place.

use std::ptr::{addr_of_mut, null_mut};

use pgrx::pg_sys::{self, ItemPointerData};

use super::snapshot::Snapshot;
use super::table::Table;
use super::write::{self, Indexes, NewRow, Which};
use crate::store::datum::{Row, Value};

/// How many versions of a row are followed at most, before the index is asked.
const STEPS_MAX: usize = 2_000;

/// A version of a row, whose page is pinned as long as it lives.
pub struct Tuple<'t> {
    table: &'t Table,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Drop for Tuple<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the slot was made for this version.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

impl<'t> Tuple<'t> {
    /// Room for a version.
    pub fn empty(table: &'t Table) -> Self {
        // SAFETY: an open table.
        Tuple { table, slot: unsafe { pg_sys::table_slot_create(table.relation(), null_mut()) } }
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
    pub fn tid(&self) -> ItemPointerData {
        // SAFETY: the slot holds a row.
        unsafe { (*self.slot).tts_tid }
    }

    /// Where the version after it lies; itself, if there is none.
    pub fn next(&self) -> ItemPointerData {
        // SAFETY: a version of a table has these fields.
        unsafe { (&raw const (*self.header()).t_ctid).read_volatile() }
    }

    /// Whether somebody else replaces it, keeps others from replacing it, or has replaced it by
    /// now. A foreign key that refers to it (FOR KEY SHARE) keeps nobody from anything.
    pub fn is_busy(&self) -> bool {
        // Mostly nobody is there, which is seen without a lock on the page.
        self.bits() & pg_sys::HEAP_XMAX_INVALID == 0 && {
            let (marks, whose) = self.marks();
            is_marked_by_others(marks, whose)
        }
    }

    /// Whether the commit that made it was not on disk when it was read: PostgreSQL does not mark a
    /// version as committed before. So its transaction let go early, or waits for no flush.
    pub fn is_fresh(&self) -> bool {
        // SAFETY: a version of a table has these fields; asks for the state of the transaction.
        self.bits() & pg_sys::HEAP_XMIN_COMMITTED == 0
            && unsafe {
                let creator = (&raw const (*self.header()).t_choice.t_heap.t_xmin).read_volatile();
                !pg_sys::TransactionIdIsCurrentTransactionId(creator)
            }
    }

    /// The marks of a version that belong together, and who set them: while others may write there,
    /// read under a lock.
    fn marks(&self) -> (u32, pg_sys::TransactionId) {
        // SAFETY: the slot holds a row of the heap, and pins its page, which is locked for the
        // moment.
        unsafe {
            let page = (*self.slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer;
            pg_sys::LockBuffer(page, pg_sys::BUFFER_LOCK_SHARE as i32);
            let marks =
                (self.bits(), (&raw const (*self.header()).t_choice.t_heap.t_xmax).read_volatile());
            pg_sys::LockBuffer(page, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            marks
        }
    }

    /// The marks of a version, as they are at this moment.
    fn bits(&self) -> u32 {
        // SAFETY: a version of a table has these fields.
        u32::from(unsafe { (&raw const (*self.header()).t_infomask).read_volatile() })
    }

    /// Its header, on a page that others may write to at any moment: no reference to it must be
    /// made.
    fn header(&self) -> *const pg_sys::HeapTupleHeaderData {
        let mut copied = false;
        // SAFETY: the slot holds a row of the heap, and pins its page.
        unsafe { (*pg_sys::ExecFetchSlotHeapTuple(self.slot, false, &mut copied)).t_data }
    }

    /// Its values.
    pub fn row(&self) -> Row<'_> {
        let width = self.table.width();
        // SAFETY: the row was taken apart, and has so many columns.
        unsafe {
            Row {
                values: std::slice::from_raw_parts((*self.slot).tts_values, width),
                nulls: std::slice::from_raw_parts((*self.slot).tts_isnull, width),
            }
        }
    }

    /// Locks the row against changes by others, for whom it waits, and becomes its newest version;
    /// false where it is gone. That is FOR NO KEY UPDATE, by what the executor does (ExecLockRows).
    pub fn lock(&self, snapshot: &Snapshot) -> bool {
        let flags = pg_sys::TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS
            | pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
        // SAFETY: the slot holds a row of this table's; so it does afterwards, if the row was
        // locked.
        unsafe {
            let result = pg_sys::table_tuple_lock(
                self.table.relation(),
                &mut self.tid(),
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
                &mut self.tid(),
                pg_sys::GetCurrentCommandId(true),
                snapshot.raw(),
                null_mut(),
                true,
                &mut pg_sys::TM_FailureData::default(),
                false,
            )
        };
        write::next_command();
        result == pg_sys::TM_Result::TM_Ok
    }

    /// Puts another version in its place, and says where that lies. `None` where somebody else has
    /// replaced it first, for whom it waits.
    pub fn replace(&self, values: &[Value], snapshot: &Snapshot) -> Option<ItemPointerData> {
        let row = NewRow::of(self.table, values);
        let mut failure = pg_sys::TM_FailureData::default();
        let mut mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        let mut indexes = Default::default();
        // SAFETY: the row is one of this table's.
        unsafe {
            let relation = self.table.relation();
            pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
            let result = pg_sys::table_tuple_update(
                relation,
                &mut self.tid(),
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
            if let Some(which) = entries(indexes) {
                Indexes::open(self.table).insert(&row, which);
            }
        }
        write::next_command();
        Some(row.tid())
    }
}

impl Table {
    /// The tuple at this tid, if it is the one that the snapshot sees.
    pub fn at(
        &self,
        mut tid: ItemPointerData,
        snapshot: &Snapshot,
        is_it: impl Fn(Row<'_>) -> bool,
    ) -> Option<Tuple<'_>> {
        let tuple = Tuple::empty(self);
        // SAFETY: the tid was found in this table by this transaction, which keeps it from being
        // cut short.
        let found = unsafe {
            let found = pg_sys::table_tuple_fetch_row_version(
                self.relation(),
                &mut tid,
                snapshot.raw(),
                tuple.slot(),
            );
            if found {
                tuple.read();
            }
            found
        };
        (found && is_it(tuple.row())).then_some(tuple)
    }

    /// Follows a row from a version of it to the one that the snapshot sees. `None` where the tid
    /// leads to something else by now, or too far.
    pub fn follow(
        &self,
        mut tid: ItemPointerData,
        snapshot: &Snapshot,
        is_it: impl Fn(Row<'_>) -> bool,
    ) -> Option<Tuple<'_>> {
        // SAFETY: each tid is checked to lie in the table before it is read; a version is looked at
        // while its slot pins the page.
        unsafe {
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(
                self.relation(),
                pg_sys::ForkNumber::MAIN_FORKNUM,
            );
            if block(&tid) >= pages {
                return None;
            }
            self.prune(block(&tid));
            let tuple = Tuple::empty(self);
            for _ in 0..STEPS_MAX {
                let any = addr_of_mut!(pg_sys::SnapshotAnyData);
                if block(&tid) >= pages
                    || !pg_sys::table_tuple_fetch_row_version(
                        self.relation(),
                        &mut tid,
                        any,
                        tuple.slot(),
                    )
                {
                    return None;
                }
                tuple.read();
                if !is_it(tuple.row()) {
                    return None;
                }
                if pg_sys::table_tuple_satisfies_snapshot(
                    self.relation(),
                    tuple.slot(),
                    snapshot.raw(),
                ) {
                    return Some(tuple);
                }
                let next = tuple.next();
                if (block(&next), next.ip_posid) == (block(&tid), tid.ip_posid) {
                    return None;
                }
                tid = next;
            }
        }
        None
    }

    /// Makes room on a page if it has versions that nobody needs, as a scan by the index does on
    /// its way.
    ///
    /// # Safety
    /// The page must be one of this table's, and not be pinned by us.
    unsafe fn prune(&self, page: pg_sys::BlockNumber) {
        unsafe {
            let buffer = pg_sys::ReadBuffer(self.relation(), page);
            pg_sys::heap_page_prune_opt(self.relation(), buffer);
            pg_sys::ReleaseBuffer(buffer);
        }
    }
}

/// Whether others replace, have replaced or lock a version with such marks; a mere FOR KEY SHARE
/// does not count.
fn is_marked_by_others(marks: u32, whose: pg_sys::TransactionId) -> bool {
    let has = |bits: u32| marks & bits != 0;
    let is_locked_only = has(pg_sys::HEAP_XMAX_LOCK_ONLY);
    // Of several who mark it, too, the strongest lock stands here.
    let is_key_share =
        is_locked_only && marks & pg_sys::HEAP_LOCK_MASK == pg_sys::HEAP_XMAX_KEYSHR_LOCK;
    if has(pg_sys::HEAP_XMAX_INVALID) || is_key_share {
        return false;
    }
    if !has(pg_sys::HEAP_XMAX_IS_MULTI) {
        return is_at_work(whose, !is_locked_only);
    }
    let mut members = null_mut();
    // SAFETY: a multixact that marks a version which a snapshot of ours sees; the array has as many
    // members, if any.
    unsafe {
        let count = pg_sys::GetMultiXactIdMembers(whose, &mut members, false, is_locked_only);
        let members =
            if count > 0 { std::slice::from_raw_parts(members, count as usize) } else { &[] };
        members
            .iter()
            .filter(|member| member.status != pg_sys::MultiXactStatus::MultiXactStatusForKeyShare)
            .any(|member| {
                is_at_work(
                    member.xid,
                    member.status >= pg_sys::MultiXactStatus::MultiXactStatusNoKeyUpdate,
                )
            })
    }
}

/// Whether another transaction is under way, or, of one that replaces a version, has committed.
fn is_at_work(transaction: pg_sys::TransactionId, replaces: bool) -> bool {
    // SAFETY: asks for the state of transactions.
    unsafe {
        !pg_sys::TransactionIdIsCurrentTransactionId(transaction)
            && (pg_sys::TransactionIdIsInProgress(transaction)
                || (replaces && pg_sys::TransactionIdDidCommit(transaction)))
    }
}

/// The indexes in which the new version needs entries, if it needs any.
#[cfg(feature = "pg15")]
fn entries(indexes: bool) -> Option<Which> {
    indexes.then_some(Which::All)
}

#[cfg(not(feature = "pg15"))]
fn entries(indexes: pg_sys::TU_UpdateIndexes::Type) -> Option<Which> {
    match indexes {
        pg_sys::TU_UpdateIndexes::TU_None => None,
        pg_sys::TU_UpdateIndexes::TU_Summarizing => Some(Which::Summarizing),
        _ => Some(Which::All),
    }
}

/// The page of a tid.
fn block(tid: &ItemPointerData) -> pg_sys::BlockNumber {
    u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo)
}
