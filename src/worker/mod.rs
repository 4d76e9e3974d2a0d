//! The background worker, where the library is preloaded: it expires what nobody confirmed, and tells those who listen
//! what has changed, without anyone looking.
//!
//! | room | what it does |
//! |---|---|
//! | `launcher` | one process for the cluster: finds the databases and keeps a worker in each that has the extension |
//! | `sweeper` | one process for each such database: sleeps until the next hold is due, and gives it back |
//! | `emitter` | the same process, between sweeps: tells what has changed |
//! | `here` | whether the worker may be where it is: the database, the extension |
//! | `process` | what both kinds of process do alike: signals, settings, sleep, transactions |

mod emitter;
mod here;
mod launcher;
mod process;
mod sweeper;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;

/// The name under which all of it appears in pg_stat_activity.
const LAUNCHER: &str = "pg_stock launcher";
/// The kind of process that expires holds, in pg_stat_activity.
const WORKER: &str = "pg_stock worker";
/// A launcher that ended is started again after this.
const RESTART: Duration = Duration::from_secs(1);

/// Registers the launcher and the shared memory. Does nothing unless the library is being preloaded, and nothing
/// during pg_upgrade. On a standby the launcher starts with the promotion.
pub fn register() {
    // SAFETY: variables of PostgreSQL that do not change while a library is loaded.
    let wanted = unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade };
    if !wanted {
        return;
    }
    crate::board::request();
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_library("pg_stock")
        .set_function("pg_stock_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
        .load();
}
