//! The background worker, where the library is preloaded: it expires what nobody confirmed, and
//! tells those who listen what has changed, without anyone looking.
//!
//! A static launcher without a database reads pg_database and starts a worker by oid; the worker
//! finds out whether the extension is there. One such probe is under way at a time, never-seen
//! databases first, so that it takes one worker slot of the server's. A worker whose database has
//! the extension takes a slot in shared memory (`board.rs`), where its last error stands, too. A
//! backend that has committed a hold stores its deadline there, and wakes the worker if that is
//! earlier than what it sleeps for; the worker stores its time first and reads the deadlines then,
//! so that none is lost between the two. Once a second it tries, without waiting, for the lock on
//! its database that every new connection takes: where somebody drops, renames or copies the
//! database it is not to be had, and the worker leaves. (A hook on utility commands would do the
//! same for more code in everybody's way.) While it sweeps it holds a lock on the extension, so
//! that DROP EXTENSION waits for a batch. An error is undone, noted, and the work tried again after
//! one second, two, four … up to a minute; where the worker itself ends, the launcher starts it
//! again after such pauses. The worker sets for itself what the owner of the database may have set
//! for it (a role, timeouts, a search path). It commits locally: a standby that is away must not
//! stop expiry, nor have it hold a lock. It does nothing while an enabled subscription fills the
//! tables. A page of levels that are all locked keeps the next from nothing.
//!
//! | room | what it does |
//! |---|---|
//! | `launcher` | one process for the cluster: finds the databases and keeps a worker in each that has the extension |
//! | `sweeper` | one process for each such database: sleeps until the next hold is due, and gives it back |
//! | `payer` | the same process, after a sweep: pays those who wait, where a call could not |
//! | `spoiler` | the same process, after a sweep: books the lots that are past their time |
//! | `emitter` | the same process, between sweeps: tells what has changed |
//! | `here` | whether the worker may be where it is: the database, the extension |
//! | `process` | what both kinds of process do alike: signals, settings, sleep, transactions |

mod emitter;
mod here;
mod launcher;
mod payer;
mod process;
mod spoiler;
mod sweeper;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;

use crate::shared::{self, Piece};
use crate::{board, stat};

/// The name under which all of it appears in pg_stat_activity.
const LAUNCHER: &str = "pg_stock launcher";
/// The kind of process that expires holds, in pg_stat_activity.
const WORKER: &str = "pg_stock worker";
/// A launcher that ended is started again after this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Registers the launcher and the shared memory. Does nothing unless the library is being
/// preloaded, and nothing during pg_upgrade. On a standby the launcher starts with the promotion.
pub fn register() {
    // SAFETY: variables of PostgreSQL that do not change while a library is loaded.
    let wanted =
        unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade };
    if !wanted {
        return;
    }
    static PIECES: [&Piece; 2] = [&board::PIECE, &stat::PIECE];
    shared::request(&PIECES);
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_library("pg_stock")
        .set_function("pg_stock_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART_PAUSE))
        .load();
}
