//! Nothing is told before it is on disk.
//!
//! What another transaction did can be seen before it is on disk: of an asynchronous commit, and of ours, which let go of
//! their locks early (`early`). A crash may then take it back. So the log is flushed before an answer that reports it.
//!
//! A cursor of the change feed promises besides that no transaction before its end will be numbered again, of anyone, in
//! any database: there the log is flushed also where there is nothing to tell.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::error::Error;
use crate::latch;

/// Bytes of the header of a page of the log, and of the first page of a segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

/// Flushes all that was written to the log so far and, where this session asks for synchronous replication, waits for it.
pub fn flush() -> Result<(), Error> {
    // SAFETY: outside recovery; the position is the end of a record that was inserted, or the start of a page. Interrupts
    // are held off while a standby is waited for, as PostgreSQL does; it looks for them itself.
    let arrived = unsafe {
        let end = end_of_log(pg_sys::GetXLogInsertRecPtr(), pg_sys::wal_segment_size as u64);
        pg_sys::XLogFlush(end);
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::SyncRepWaitForLSN(end, false);
        pg_sys::InterruptHoldoffCount -= 1;
        has_arrived(end, pg_sys::synchronous_commit)
    };
    pgrx::check_for_interrupts!();
    // A cancel or a timeout ends the wait, and PostgreSQL warns only: after a commit it can do no more. Here nothing was
    // told yet.
    if arrived { Ok(()) } else { Err(Error::NotReplicated) }
}

/// As [`flush`], for a worker: waits for standbys as `level` (a value of synchronous_commit) asks, and not longer than
/// that; false where they did not confirm. Outside a transaction, so that nobody waits for a lock of ours meanwhile.
pub fn flush_within(patience: Duration, level: i32) -> bool {
    let begin = Instant::now();
    // SAFETY: as in `flush`.
    let end = unsafe {
        let end = end_of_log(pg_sys::GetXLogInsertRecPtr(), pg_sys::wal_segment_size as u64);
        pg_sys::XLogFlush(end);
        end
    };
    // SAFETY: outside recovery.
    while unsafe { !has_arrived(end, level) } {
        if begin.elapsed() >= patience {
            return false;
        }
        latch::sleep(5);
        pgrx::check_for_interrupts!();
    }
    true
}

/// True unless standbys are to be waited for, by this value of synchronous_commit, and they have not confirmed this much
/// of the log.
///
/// # Safety
/// Outside recovery.
unsafe fn has_arrived(end: u64, level: i32) -> bool {
    use pg_sys::SyncCommitLevel::{
        SYNCHRONOUS_COMMIT_LOCAL_FLUSH, SYNCHRONOUS_COMMIT_REMOTE_APPLY, SYNCHRONOUS_COMMIT_REMOTE_WRITE,
    };
    // SAFETY: a setting, and a position in shared memory that is read at once.
    unsafe {
        let level = level as u32;
        let names = pg_sys::SyncRepStandbyNames;
        let is_asked = level > SYNCHRONOUS_COMMIT_LOCAL_FLUSH && !names.is_null() && *names != 0;
        let mode = match level {
            SYNCHRONOUS_COMMIT_REMOTE_WRITE => pg_sys::SYNC_REP_WAIT_WRITE,
            SYNCHRONOUS_COMMIT_REMOTE_APPLY => pg_sys::SYNC_REP_WAIT_APPLY,
            _ => pg_sys::SYNC_REP_WAIT_FLUSH,
        } as usize;
        !is_asked || pg_sys::max_wal_senders == 0 || (*pg_sys::WalSndCtl).lsn[mode] >= end
    }
}

/// As [`flush`], where it matters: not on a standby, whose log is another's, and not in a session that has chosen not to
/// wait for any commit.
pub fn flush_before_an_answer() -> Result<(), Error> {
    // SAFETY: asks for the state of the server, and for a variable of this backend.
    let matters = unsafe {
        !pg_sys::RecoveryInProgress()
            && pg_sys::synchronous_commit > pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32
    };
    if matters { flush() } else { Ok(()) }
}

/// Flushes a commit that is written and visible, and waits for synchronous replication as the session asks.
///
/// # Safety
/// At the end of a commit, with interrupts held off; `end` is the end of its record.
pub unsafe fn flush_commit(end: u64) {
    // SAFETY: as the caller says.
    unsafe {
        pg_sys::XLogFlush(end);
        pg_sys::SyncRepWaitForLSN(end, true);
    }
}

/// Where the log ends, given where it goes on. After a full page it goes on behind the header of the next one, which is
/// not written yet: flushing up to there would fail.
fn end_of_log(goes_on: u64, segment: u64) -> u64 {
    let page = u64::from(pg_sys::XLOG_BLCKSZ);
    let header = if goes_on % segment < page { SEGMENT_HEADER } else { PAGE_HEADER };
    if goes_on % page == header { goes_on - header } else { goes_on }
}

#[cfg(any(test, feature = "pg_test"))]
mod tests {
    #[test]
    fn the_log_ends_before_the_header_of_an_empty_page() {
        let segment = 16 << 20;
        let end = |goes_on| super::end_of_log(goes_on, segment);
        assert_eq!(end(3 * 8192 + 24), 3 * 8192);
        assert_eq!(end(3 * 8192 + 25), 3 * 8192 + 25);
        assert_eq!(end(3 * 8192 + 40), 3 * 8192 + 40);
        assert_eq!(end(segment + 40), segment);
        assert_eq!(end(segment + 24), segment + 24);
    }
}
