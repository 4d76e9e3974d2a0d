//! The worker of one database: sleeps until the next hold is due, and gives it back.

use pg_stock_core::Micros;
use pg_stock_core::limits::SECOND;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::emitter::Emitter;
use super::here::{database_is_free, extension_is_here, is_served};
use super::process;
use crate::board::{self, Post};
use crate::error::or_raise;
use crate::{settings, store};

/// Holds that fall due within this are swept together.
const GATHER: Micros = SECOND / 20;
/// Pause before a locked level is tried again.
const BUSY: Micros = SECOND / 4;

/// What the worker finds when it looks around.
enum Finding {
    /// The extension is there, and here is when there is something to do again.
    WorkAgainAt(Micros),
    /// Somebody drops, renames or copies the database: it must be empty of connections.
    InTheWay,
    /// The extension is not created in this database.
    NothingHere,
    /// The database is no longer named in pg_stock.databases.
    NotServed,
}

/// The process of a worker; its argument is the oid of its database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_stock_sweeper_main(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    process::listen_to_signals();
    // SAFETY: a process that the postmaster has just started; no user: the superuser that made the cluster.
    let post = unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(pg_sys::Oid::from(database), pg_sys::InvalidOid, 0);
        pg_sys::before_shmem_exit(Some(at_exit), argument);
        board::begin_work(database, pg_sys::MyProcPid)
    };
    let Some(post) = post else { return };
    settle_in();
    let mut emitter = Emitter::new(post);
    loop {
        match look_around(post) {
            Finding::WorkAgainAt(time) => sleep_until(post, &mut emitter, time),
            Finding::InTheWay => return post.leave_the_way(),
            Finding::NothingHere => return post.leave_nothing_here(),
            Finding::NotServed => return,
        }
    }
}

/// Whatever ends the worker, the launcher learns that its database wants another.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, database: pg_sys::Datum) {
    // SAFETY: set for the life of the process.
    let process = unsafe { pg_sys::MyProcPid };
    if let Some(post) = board::post(database.value() as u32) {
        post.end_work(process);
    }
}

/// Makes the session independent of settings that were meant for others.
fn settle_in() {
    process::set(c"application_name", c"pg_stock worker");
    process::set(c"search_path", c"pg_catalog, pg_temp");
    process::set(c"default_transaction_isolation", c"read committed");
    for timeout in [c"statement_timeout", c"lock_timeout", c"idle_in_transaction_session_timeout"] {
        process::set(timeout, c"0");
    }
}

/// One look: is the worker in the way, is the extension there, is something due? Does then what is due.
fn look_around(post: Post) -> Finding {
    process::attend();
    let finding = process::transaction(|| {
        if !database_is_free() {
            Finding::InTheWay
        } else if !extension_is_here() {
            Finding::NothingHere
        } else if !is_served() {
            Finding::NotServed
        // SAFETY: a variable of the transaction.
        } else if unsafe { pg_sys::XactReadOnly } {
            post.take_earliest();
            store::forget();
            Finding::WorkAgainAt(store::now().saturating_add(settings::poll_interval()))
        } else {
            let told = post.take_earliest();
            process::active(c"pg_stock: expiring holds", || sweep(told))
        }
    });
    process::idle();
    finding
}

fn sweep(told: Micros) -> Finding {
    let swept = or_raise(store::expire(settings::expire_batch(), Some(told)));
    let now = store::now();
    let due = match swept.next_due.min(swept.retry_at) {
        due if due > now => due,
        // More is due: at once, unless only locked levels are left.
        _ if swept.holds + swept.errors > 0 => now,
        _ => now.saturating_add(BUSY),
    };
    Finding::WorkAgainAt(due.min(now.saturating_add(settings::poll_interval())))
}

/// Sleeps until a moment, or until an earlier hold is committed, or until the worker is in somebody's way; and tells
/// meanwhile what has changed.
fn sleep_until(post: Post, emitter: &mut Emitter, time: Micros) {
    let asleep = store::now();
    loop {
        if process::attend() {
            return;
        }
        let Some(pause) = emitter.turn() else { return };
        let now = store::now();
        let due = post.sleep_until(time).saturating_add(if time <= asleep { 0 } else { GATHER });
        // The clock was stepped back: what is due must be found out again.
        if due <= now || now < asleep {
            return;
        }
        let pause = Micros::try_from(pause.as_micros()).unwrap_or(Micros::MAX);
        process::sleep((due - now).min(pause) / 1_000 + 1);
    }
}
