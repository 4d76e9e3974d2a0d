//! Who changes one level alone waits in line for it: buyers, most of all.
//!
//! Whoever waits for a row that others change waits for one version of it: each commit wakes all
//! who wait, and each of them follows the row to its next version and waits again. With many buyers
//! that costs more than what they came for. So a transaction that begins with a level takes a lock
//! of PostgreSQL's for it first, which wakes one waiter only, and then finds the row free. It is a
//! kindness, not a protection: the row's own lock decides. Only a transaction that holds nothing
//! yet stands in line, so that nobody waits in line while others wait for what it holds.
//!
//! Without it one level sells 0.57 of what it sells with it at 128 connections (2,073 beside 3,548
//! a second); at 8 and 32 there is no difference (two libraries in turns, by hand).
//!
//! pg_locks shows the lock as an advisory lock with objsubid [`LOCK_KIND`], which the functions for
//! advisory locks never use.

use std::hash::{DefaultHasher, Hash, Hasher};

use pg_stock_core::LevelId;
use pgrx::pg_sys;

/// Tells these locks from the advisory locks of users, whose kinds are 1 and 2.
const LOCK_KIND: u16 = 0x5354;
const LOCK_MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// A place in the line of a level, held until the transaction ends if it is kept, or its
/// subtransaction is rolled back.
pub struct Place {
    tag: Option<pg_sys::LOCKTAG>,
    /// Whether others were in the line before.
    pub has_waited: bool,
}

impl Place {
    /// No place, where there is no line.
    pub fn none() -> Self {
        Place { tag: None, has_waited: false }
    }

    /// Waits for its turn, if the transaction holds nothing yet.
    pub fn take(at: &LevelId) -> Self {
        // SAFETY: asks for the state of the transaction.
        if unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId {
            return Place::none();
        }
        let tag = tag(at);
        // SAFETY: as pg_try_advisory_xact_lock and pg_advisory_xact_lock do.
        let has_waited = unsafe {
            let at_once = pg_sys::LockAcquire(&tag, LOCK_MODE, false, true);
            at_once == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL && {
                pg_sys::LockAcquire(&tag, LOCK_MODE, false, false);
                true
            }
        };
        Place { tag: Some(tag), has_waited }
    }

    /// Keeps it until the transaction ends.
    pub fn keep(mut self) {
        self.tag = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take_if(|_| !std::thread::panicking()) {
            // SAFETY: the lock was taken by `take`; after an error, PostgreSQL releases it.
            unsafe { pg_sys::LockRelease(&tag, LOCK_MODE, false) };
        }
    }
}

/// Two levels may share a line, which costs them time and nothing else.
fn tag(at: &LevelId) -> pg_sys::LOCKTAG {
    let mut hasher = DefaultHasher::new();
    at.hash(&mut hasher);
    let hash = hasher.finish();
    pg_sys::LOCKTAG {
        // SAFETY: a variable of this backend.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: (hash >> 32) as u32,
        locktag_field3: hash as u32,
        locktag_field4: LOCK_KIND,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}
