//! Hot levels: let go early, answer late.
//!
//! PostgreSQL holds row locks while a commit is flushed, so that one level sells about as often as
//! the disk flushes. It need not. A transaction that has changed a level which others want, too,
//! commits in this order instead:
//!
//! 1. PRE_COMMIT: the C variable `synchronous_commit` is remembered and set to off, for this
//!    commit.
//! 2. PostgreSQL writes the commit record, makes the commit visible, and calls us at
//!    XACT_EVENT_COMMIT, where the variable is restored. It then releases the locks: whoever waits
//!    for the level goes on.
//! 3. The resource owners are released; after the locks, we flush the log up to the end of our
//!    commit record and, where synchronous replication is asked for, wait for it: what PostgreSQL
//!    would have done before.
//! 4. Only then does the client hear that it is committed.
//!
//! What can be seen is one thing: another session may see a change some milliseconds before it is
//! on disk. Whoever commits after having seen it flushes it too, for the log is one sequence.
//! Whoever reports it as an earlier effect flushes first (`durable`). The order of these calls was
//! read in the sources of PostgreSQL 15, 16, 17 and 18 (CommitTransaction): the simple, the
//! extended and the pipelined protocol, procedures that commit, COMMIT AND CHAIN, and background
//! workers all pass through it.
//!
//! The variable is assigned, and not set by SetConfigOption: that would run its assign hook, which
//! derives how to wait for a standby from it, and step 3 would not wait.
//!
//! **Who wants a level.** Letting go early costs something (the commit is flushed by a path of its
//! own), and shows changes early: both are for nothing where nobody wants the level. So it is done
//! only where there is a sign of others. (1) The version of the row that is replaced or locked is
//! being replaced or locked by somebody else, or was replaced meanwhile, or the call stood in line;
//! a statement of ours (`pg_stock.direct_access = off`, a trigger on a table), which does not see
//! that, had to wait for a lock. A mere FOR KEY SHARE, by which a foreign key holds on to the row,
//! is told apart, in a multixact, too. (2) That version has no mark yet that its transaction has
//! committed: PostgreSQL sets it only once an early or asynchronous commit is on disk, so somebody
//! has let go of the level within the last flush. (3) The session saw one of these signs at this
//! level in the last tenth of a second (`store/crowd.rs`). (4) At PRE_COMMIT, somebody waits for
//! our transaction's number. The last three are for a crowd that is out of sight: it flushes
//! together, is answered together, comes back together, and the first who comes back finds nobody.
//! Did he hold the level through his flush, all would wait for it. What each is worth, beside
//! letting go always (one level, a flush that takes 1 ms by `commit_delay`, `fsync` to memory, by
//! hand, on two cores that others used, too): (1) alone 0.45 of the rate at 8 connections and 0.54
//! at 32; with (2) 0.57 and 0.69; with (2) and (4) 0.8 and 0.77; with all 0.98 and 1.03. By
//! statements: held through each flush 0.22 and 0.25; with waits 0.76 and 0.85; with (3) and (4),
//! too, 0.93 and 1.13 (the spread of such runs is a tenth). The sweep goes by (4) alone.
//!
//! **Beside a standby.** What is seen early is seen until the standby has it: for days, if it is
//! away, with the shop's own rows, and a failover takes it back. That is nothing that a DBA would
//! expect of a default. So `auto` asks, at PRE_COMMIT, what SyncRepWaitForLSN will ask: whether the
//! session asks for standbys, and whether the checkpointer has noted that there are any (or this
//! process has read in its settings that there will be). The note is a byte in shared memory, a
//! boolean or two bits, by the minor release of the server that runs. The answers that wait for
//! standbys read the same note, and not the settings of the process: right after a reload the two
//! differ.
//!
//! An abort after PRE_COMMIT restores the variable as well. An error in the callback after the
//! locks would be a PANIC, as it is in PostgreSQL's own flush there. A transaction that sends
//! messages of ours never lets go early: they would be heard before it is durable.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::settings::{self, EarlyLockRelease};
use crate::{citus, durable};

/// How far this transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It goes on: has it changed a level, and does it know of others who want one that it takes?
    Open { changed: bool, wanted: bool },
    /// It must not let go early.
    Forbidden,
    /// `synchronous_commit` is off for the commit; this is its value.
    Lowered(i32),
    /// It is committed and visible, the value is restored, and nothing is flushed yet.
    Committed,
}

/// The stage that each transaction begins with.
const IDLE: Stage = Stage::Open { changed: false, wanted: false };

thread_local! {
    static STAGE: Cell<Stage> = const { Cell::new(IDLE) };
}

/// Registers the callbacks, once in each backend.
pub fn hook() {
    // SAFETY: the callbacks have the signatures that PostgreSQL asks for, and live as long as the
    // library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_event), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(at_release), std::ptr::null_mut());
    }
}

/// Notes that this transaction has changed a level. A rollback to a savepoint takes that not back:
/// it does no harm.
pub fn changed() {
    if let Stage::Open { wanted, .. } = STAGE.get() {
        STAGE.set(Stage::Open { changed: true, wanted });
    }
}

/// Notes that others want a level which this transaction takes.
pub fn wanted() {
    if let Stage::Open { changed, .. } = STAGE.get() {
        STAGE.set(Stage::Open { changed, wanted: true });
    }
}

/// Runs a statement that takes levels; says, too, whether it had to wait for a lock.
pub fn watch<T>(statement: impl FnOnce() -> T) -> (T, bool) {
    let before = last_wait();
    (statement(), last_wait() != before)
}

/// When this process began to wait for a lock last: each wait starts the clock for deadlocks.
fn last_wait() -> pg_sys::TimestampTz {
    /// DEADLOCK_TIMEOUT in the enum TimeoutId.
    const DEADLOCK: c_int = 1;
    unsafe extern "C-unwind" {
        fn get_timeout_start_time(timeout: c_int) -> pg_sys::TimestampTz;
    }
    // SAFETY: reads a variable of this process.
    unsafe { get_timeout_start_time(DEADLOCK) }
}

/// Notes that this transaction does what must not be seen before it is durable: it sends messages.
pub fn forbid() {
    if matches!(STAGE.get(), Stage::Open { .. }) {
        STAGE.set(Stage::Forbidden);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_event(
    event: pg_sys::XactEvent::Type,
    _arg: *mut c_void,
) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
    };
    match (event, STAGE.get()) {
        (XACT_EVENT_PRE_COMMIT, Stage::Open { changed: true, wanted })
            if is_allowed() && (wanted || is_waited_for()) =>
        {
            lower();
        }
        (XACT_EVENT_COMMIT, Stage::Lowered(value)) => {
            restore(value);
            STAGE.set(Stage::Committed);
        }
        // An error after PRE_COMMIT ends here: a serialization failure, a full queue of
        // notifications.
        (XACT_EVENT_ABORT, Stage::Lowered(value)) => {
            restore(value);
            STAGE.set(IDLE);
        }
        // A prepared transaction is flushed with its locks, by itself.
        (XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PRE_PREPARE, _) => STAGE.set(IDLE),
        _ => {}
    }
}

/// Called for each resource owner and each phase of its release, so the common case comes first. Of
/// a commit, the locks of all resource owners are released before this phase of the first of them.
/// An error in here would be a PANIC: nothing is done but what PostgreSQL itself does after it has
/// written a commit record.
#[pg_guard]
unsafe extern "C-unwind" fn at_release(
    phase: pg_sys::ResourceReleasePhase::Type,
    is_commit: bool,
    is_top_level: bool,
    _arg: *mut c_void,
) {
    let is_ours = STAGE.get() == Stage::Committed;
    if is_ours
        && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS
        && is_commit
        && is_top_level
    {
        STAGE.set(IDLE);
        // SAFETY: the end of the commit record that this transaction has just written; interrupts
        // are held off.
        unsafe { durable::flush_commit(pg_sys::XactLastCommitEnd) };
    }
}

/// Sets `synchronous_commit` to off, where it asks for a flush and for nothing that the commit
/// record must say.
fn lower() {
    use pg_sys::SyncCommitLevel::{SYNCHRONOUS_COMMIT_OFF, SYNCHRONOUS_COMMIT_REMOTE_APPLY};
    // SAFETY: a variable of this backend, between PRE_COMMIT and the end of the commit.
    unsafe {
        let value = pg_sys::synchronous_commit;
        // Under remote_apply the commit record asks the standby for an answer: it must be written
        // so.
        if value > SYNCHRONOUS_COMMIT_OFF as i32 && value < SYNCHRONOUS_COMMIT_REMOTE_APPLY as i32 {
            pg_sys::synchronous_commit = SYNCHRONOUS_COMMIT_OFF as i32;
            STAGE.set(Stage::Lowered(value));
        }
    }
}

fn restore(value: i32) {
    // SAFETY: a variable of this backend.
    unsafe { pg_sys::synchronous_commit = value };
}

/// True where the setting allows it for this transaction, and Citus, if it is loaded, takes no part
/// in it.
fn is_allowed() -> bool {
    // SAFETY: asks for the state of the transaction.
    let is_statement = || unsafe { !pg_sys::IsTransactionBlock() };
    let allowed = match settings::early_lock_release() {
        EarlyLockRelease::Off => false,
        // What is let go early beside a standby can be seen for as long as the standby is away.
        EarlyLockRelease::Auto => is_statement() && !durable::may_wait_for_standbys(),
        EarlyLockRelease::Statement => is_statement(),
        EarlyLockRelease::Transaction => true,
    };
    allowed && !citus::may_coordinate()
}

/// True where somebody waits for this transaction to end: for a row that it has changed, most
/// likely a level.
fn is_waited_for() -> bool {
    // SAFETY: asks for the number of the transaction, and looks at the lock on it, which it holds
    // if it has one.
    unsafe {
        let number = pg_sys::GetTopTransactionIdIfAny();
        let tag = pg_sys::LOCKTAG {
            locktag_field1: number.into_inner(),
            locktag_field2: 0,
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        number != pg_sys::InvalidTransactionId
            && pg_sys::LockHasWaiters(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false)
    }
}
