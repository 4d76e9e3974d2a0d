//! The worker of one database: sleeps until the next hold is due, and gives it back.

use pg_stock_core::Micros;
use pg_stock_core::limits::SECOND;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::emitter::Emitter;
use super::here::{database_is_free, extension_is_here};
use super::payer::Payer;
use super::process::{self, text_of};
use super::spoiler::Spoiler;
use crate::board::{self, Pause, Post};
use crate::error::or_raise;
use crate::stat::{self, WorkerCount};
use crate::{latch, settings, store};

/// Holds that fall due within this are swept together.
const GATHER_TIME: Micros = SECOND / 20;
/// Pause before a locked level is tried again.
const BUSY_PAUSE: Micros = SECOND / 4;

/// What the worker finds when it looks around.
enum Finding {
    /// The extension is there, and here is when there is something to do again.
    WorkAgainAt(Micros),
    /// Something keeps the worker from its work; it looks again then.
    LookAgainAt(Micros),
    /// Somebody drops, renames or copies the database: it must be empty of connections.
    InTheWay,
    /// The extension is not created in this database.
    NothingHere,
    /// The database is no longer named in pg_stock.databases.
    NotServed,
}

/// The process of a worker; its argument is the oid of its database. Where the extension is not, it
/// ends at once.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_stock_sweeper_main(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    process::listen_to_signals();
    // SAFETY: a process that the postmaster has just started; no user: the superuser that made the
    // cluster.
    let own = unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(database),
            pg_sys::InvalidOid,
            0,
        );
        pg_sys::before_shmem_exit(Some(at_exit), argument);
        pg_sys::MyProcPid
    };
    settle_in();
    match process::transaction(what_is_missing) {
        Some(Finding::NothingHere) => return board::report_nothing_here(database),
        Some(Finding::InTheWay) => return board::report_in_the_way(database),
        _ => {}
    }
    if let Some(post) = board::begin_work(database, own) {
        say_who_is_behind();
        stay(post);
    }
}

/// Writes into the log that the library and the extension of this database are not of the same
/// release.
fn say_who_is_behind() {
    let version = || or_raise(store::installed_version());
    let found = process::attempt(|| process::active(c"pg_stock: comparing versions", version));
    let (Ok(Some(installed)), ours) = (found, store::LIBRARY_VERSION) else { return };
    if installed.as_bytes() != ours.as_bytes() {
        let text = format!(
            "the library pg_stock is {ours}, the extension in this database is {installed}"
        );
        let next = "See the row version of stock.health().";
        ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_WARNING, text, next);
    }
}

/// Works until it may no longer be here.
fn stay(post: Post) {
    let mut emitter = Emitter::new(post);
    let mut payer = Payer::new(post);
    let mut spoiler = Spoiler::new();
    let mut failures = 0;
    loop {
        match look_around(post, &mut failures) {
            Finding::WorkAgainAt(time) => {
                let time = time.min(payer.turn()).min(spoiler.turn());
                sleep_until(post, &mut emitter, time);
            }
            Finding::LookAgainAt(time) => {
                payer.listen();
                sleep_until(post, &mut emitter, time);
            }
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

/// Makes the session independent of settings that were meant for others: those of the server, and
/// those that the owner of the database has set for it.
fn settle_in() {
    let ours = [
        (c"application_name", c"pg_stock worker"),
        (c"role", c"none"),
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"default_transaction_isolation", c"read committed"),
        (c"session_replication_role", c"origin"),
        (c"row_security", c"on"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"idle_session_timeout", c"0"),
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        (c"transaction_timeout", c"0"),
    ];
    ours.into_iter().for_each(|(name, value)| process::set(name, value));
}

/// One look: may the worker be here, is something due? Does then what is due. An error is noted,
/// undone, and the work tried again after a pause; what is to be told is told all the same.
fn look_around(post: Post, failures: &mut u32) -> Finding {
    process::attend();
    let told = post.take_earliest();
    let finding = match process::attempt(|| what_is_missing().unwrap_or_else(|| work(post, told))) {
        Ok(finding) => {
            *failures = 0;
            post.end_trouble();
            finding
        }
        Err(failure) => {
            *failures += 1;
            let pause = (SECOND << (*failures - 1).min(6)).min(60 * SECOND);
            complain(post, &text_of(failure), pause / SECOND);
            // What it was told of is lost with the error: everything is looked at.
            store::forget();
            Finding::LookAgainAt(store::now().saturating_add(pause))
        }
    };
    process::idle();
    finding
}

/// Notes an error, and writes it into the log.
fn complain(post: Post, error: &str, pause: Micros) {
    post.note_trouble(error, store::now());
    let next = format!("It is tried again in {pause} s; nothing is lost. See stock.worker.");
    process::complain("expire holds", error, &next);
}

/// Why the worker may not be here, if it may not.
fn what_is_missing() -> Option<Finding> {
    if !database_is_free() {
        Some(Finding::InTheWay)
    } else if !extension_is_here() {
        Some(Finding::NothingHere)
    } else if !settings::is_database_served() {
        Some(Finding::NotServed)
    } else {
        None
    }
}

fn work(post: Post, told: Micros) -> Finding {
    // SAFETY: a variable of the transaction.
    let pause = if unsafe { pg_sys::XactReadOnly } {
        Pause::ReadOnly
    } else {
        process::active(c"pg_stock: looking around", what_is_in_the_way)
    };
    post.pause(pause);
    // While nothing has happened the sweep itself sees when that changes.
    if matches!(pause, Pause::None | Pause::NothingYet) {
        return process::active(c"pg_stock: expiring holds", || sweep(told));
    }
    store::forget();
    Finding::LookAgainAt(store::now().saturating_add(settings::poll_interval()))
}

fn what_is_in_the_way() -> Pause {
    if or_raise(store::is_subscribed()) {
        Pause::Subscription
    } else if or_raise(store::is_restoring()) {
        Pause::NothingYet
    } else {
        Pause::None
    }
}

fn sweep(told: Micros) -> Finding {
    let swept = or_raise(store::expire(settings::expire_batch(), Some(told)));
    if swept.holds > 0 {
        stat::worked(WorkerCount::Batches, 1);
        stat::worked(WorkerCount::Holds, swept.holds.unsigned_abs());
        stat::worked(WorkerCount::Units, swept.units.unsigned_abs());
    }
    let now = store::now();
    let due = match swept.next_due.min(swept.retry_at) {
        due if due > now => due,
        // More is due: at once, unless only locked levels are left.
        _ if swept.holds + swept.errors > 0 => now,
        _ => now.saturating_add(BUSY_PAUSE),
    };
    Finding::WorkAgainAt(due.min(now.saturating_add(settings::poll_interval())))
}

/// Sleeps until a moment, or until an earlier hold is committed, or until the worker is in
/// somebody's way; and tells meanwhile what has changed.
fn sleep_until(post: Post, emitter: &mut Emitter, time: Micros) {
    let asleep = store::now();
    loop {
        if process::attend() {
            return;
        }
        let Some(pause) = emitter.turn() else { return };
        let now = store::now();
        let due =
            post.sleep_until(time).saturating_add(if time <= asleep { 0 } else { GATHER_TIME });
        // The clock was stepped back: what is due must be found out again.
        if due <= now || now < asleep || post.is_unpaid() {
            return;
        }
        let pause = Micros::try_from(pause.as_micros()).unwrap_or(Micros::MAX);
        latch::sleep((due - now).min(pause) / 1_000 + 1);
    }
}
