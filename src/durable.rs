//! No earlier effect is told before it is on disk.
//!
//! What another transaction did can be seen before it is on disk: of an asynchronous commit, and of
//! ours, which let go of their locks early (`early`). A crash may then take it back. So the log is
//! flushed before an answer that reports it (`Answer::reports_the_past` in the core says which do),
//! and before anything of the change feed. Who only looks at stock, or is told "sold out", does not
//! wait: that was true at a moment, and may not be at the next.
//!
//! A cursor of the change feed promises besides that no transaction before its end will be numbered
//! again, of anyone, in any database: there the log is flushed also where there is nothing to tell.

use std::ffi::CStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::latch;

/// Bytes of the header of a page of the log, and of the first page of a segment.
const PAGE_HEADER_BYTES: u64 = 24;
const SEGMENT_HEADER_BYTES: u64 = 40;

/// Flushes all that was written to the log so far and, where this session asks for synchronous
/// replication, waits for it. What ends a statement ends the wait, with its error: nothing was told
/// yet.
///
/// It does not stand in the queue of SyncRepWaitForLSN. That is made for commits: no two in it may
/// wait for the same position, a cancel is a warning, `transaction_timeout` is not looked at.
pub fn flush() {
    // SAFETY: a setting.
    flush_within(Duration::MAX, unsafe { pg_sys::synchronous_commit });
}

/// As [`flush`], but waits for standbys as `level` (a value of synchronous_commit) asks, and not
/// longer than that; false where they did not confirm. A worker calls it outside a transaction, so
/// that nobody waits for a lock of ours meanwhile.
pub fn flush_within(patience: Duration, level: i32) -> bool {
    let begin = Instant::now();
    // SAFETY: outside recovery; the position is the end of a record that was inserted, or the start
    // of a page.
    let end = unsafe {
        let end = written();
        pg_sys::XLogFlush(end);
        end
    };
    // SAFETY: outside recovery.
    while unsafe { !has_arrived(end, level) } {
        let waited = begin.elapsed();
        if waited >= patience {
            return false;
        }
        latch::sleep_for(pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP, pause(waited));
        pgrx::check_for_interrupts!();
    }
    true
}

/// When to look again, in milliseconds, after having waited so long: soon, where a standby answers
/// soon; where it is away, not so often that all who wait keep the machine busy.
fn pause(waited: Duration) -> i64 {
    (waited.as_millis() / 8).clamp(1, 100) as i64
}

/// True unless standbys are to be waited for, by this value of synchronous_commit, and they have
/// not confirmed this much of the log.
///
/// # Safety
/// Outside recovery.
unsafe fn has_arrived(end: u64, level: i32) -> bool {
    // Under remote_apply, too, SyncRepWaitForLSN waits for the flush only, where no commit record
    // asks for more.
    let mode = match level as u32 {
        pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_WRITE => pg_sys::SYNC_REP_WAIT_WRITE,
        _ => pg_sys::SYNC_REP_WAIT_FLUSH,
    };
    // SAFETY: a position in shared memory that is read at once.
    unsafe { (*pg_sys::WalSndCtl).lsn[mode as usize] >= end || !waits_for_standbys(level) }
}

/// True where this session may have to wait for synchronous standbys when it commits. Whether there
/// are any may be about to change: its settings say so already, or the server does.
pub fn may_wait_for_standbys() -> bool {
    // SAFETY: a variable of this backend.
    asks_for_standbys(unsafe { pg_sys::synchronous_commit })
        && (are_named() || are_standbys_defined())
}

/// True where this value of synchronous_commit waits for standbys now: what SyncRepWaitForLSN looks
/// at.
fn waits_for_standbys(level: i32) -> bool {
    asks_for_standbys(level) && are_standbys_defined()
}

/// True where this value of synchronous_commit asks for standbys to confirm what is committed, if
/// there are any.
fn asks_for_standbys(level: i32) -> bool {
    let local = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH as i32;
    // SAFETY: a setting.
    unsafe { pg_sys::max_wal_senders > 0 && level > local }
}

/// True where `synchronous_standby_names` has a value as far as this process has read its settings.
fn are_named() -> bool {
    // SAFETY: a setting: a C string, or null.
    unsafe { !pg_sys::SyncRepStandbyNames.is_null() && *pg_sys::SyncRepStandbyNames != 0 }
}

/// True where there are synchronous standbys to wait for. After a reload each process reads the
/// setting in its own time; what counts for all is what the checkpointer has written down.
fn are_standbys_defined() -> bool {
    // SAFETY: the byte after the positions, in shared memory. Its name and its meaning differ
    // between minor releases, its place does not.
    let noted =
        unsafe { (&raw const (*pg_sys::WalSndCtl).lsn).add(1).cast::<u8>().read_volatile() };
    says_defined(noted, knows_bits(), are_named())
}

/// What the checkpointer's note says; of minor releases that know bits, nothing before it was
/// written.
fn says_defined(noted: u8, knows_bits: bool, is_named: bool) -> bool {
    const WRITTEN: u8 = 1;
    const DEFINED: u8 = 2;
    match knows_bits {
        true if noted & WRITTEN == 0 => is_named,
        true => noted & DEFINED != 0,
        false => noted != 0,
    }
}

/// Whether the server that runs is of a minor release in which the note has bits
/// (SYNC_STANDBY_INIT, SYNC_STANDBY_DEFINED); in those before it is a boolean. The headers that we
/// were compiled with may be of another.
fn knows_bits() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        // SAFETY: a setting that always exists; a C string.
        let version = unsafe {
            let version = pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false);
            if version.is_null() { c"" } else { CStr::from_ptr(version) }
        };
        has_bits(version.to_str().ok().and_then(|version| version.parse().ok()).unwrap_or(0))
    })
}

fn has_bits(version: u32) -> bool {
    match version / 10_000 {
        15 => version >= 150_013,
        16 => version >= 160_009,
        17 => version >= 170_005,
        major => major >= 18,
    }
}

/// As [`flush`], where it matters: not on a standby, whose log is another's, and not in a session
/// that has chosen not to wait for any commit.
pub fn flush_before_an_answer() {
    // SAFETY: asks for the state of the server, and for a variable of this backend.
    let matters = unsafe {
        !pg_sys::RecoveryInProgress()
            && pg_sys::synchronous_commit > pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32
    };
    if matters {
        flush();
    }
}

/// Flushes a commit that is written and visible, and waits for synchronous replication as the
/// session asks.
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

/// Up to where this server has written its log, on disk or not. Outside recovery.
pub fn written() -> u64 {
    // SAFETY: reads a position in shared memory.
    unsafe { end_of_log(pg_sys::GetXLogInsertRecPtr(), pg_sys::wal_segment_size as u64) }
}

/// Where the log ends, given where it goes on. After a full page it goes on behind the header of
/// the next one, which is not written yet: flushing up to there would fail.
fn end_of_log(goes_on: u64, segment: u64) -> u64 {
    let page = u64::from(pg_sys::XLOG_BLCKSZ);
    let header = if goes_on % segment < page { SEGMENT_HEADER_BYTES } else { PAGE_HEADER_BYTES };
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

    #[test]
    fn the_note_on_standbys_is_read_as_the_server_means_it() {
        // In minor releases with bits: not written yet, none, some.
        assert!(!super::says_defined(0, true, false));
        assert!(super::says_defined(0, true, true));
        assert!(!super::says_defined(1, true, true));
        assert!(super::says_defined(3, true, false));
        // In those before: false, true.
        assert!(!super::says_defined(0, false, true));
        assert!(super::says_defined(1, false, false));
    }

    #[test]
    fn each_minor_release_has_bits_or_not() {
        assert!([150_013, 150_020, 160_009, 170_005, 180_000].into_iter().all(super::has_bits));
        assert!(![150_012, 160_008, 170_004].into_iter().any(super::has_bits));
    }
}
