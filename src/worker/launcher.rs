//! The launcher: finds the databases, and keeps a worker in each that has the extension.
//!
//! Which databases have it can be seen only from inside: a process is started there, which stays as
//! a worker where the extension is, and ends at once where it is not. There is one such probe at a
//! time, so that it takes one worker slot of the server's and leaves the others alone: databases
//! that were never looked into come first, the others again after ever longer pauses. A database in
//! which a backend has committed a change needs no probe, and gets its worker at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{WORKER, process};
use crate::board::{self, End};
use crate::latch;
use crate::settings::{self, Databases};
use crate::{stat, store};

/// How often the databases are listed.
const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// Pause before a database without the extension is looked into again; doubled each time, up to an
/// hour.
const PROBE_PAUSE_MIN: Duration = Duration::from_secs(60);
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// A worker that lived so long has not failed.
const SOUND_LIFE_MIN: Duration = Duration::from_secs(60);
/// Pause after a worker failed; doubled with each failure more, up to a minute.
const FAILURE_PAUSE_MIN: Duration = Duration::from_secs(1);
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause after a worker left because somebody wanted the database for himself.
const MADE_WAY_PAUSE: Duration = Duration::from_secs(5);
/// Pause after a worker could not be started for want of a worker slot.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(10);

/// A database that may be served.
struct Database {
    oid: u32,
    name: String,
    /// One can connect to it, and it is no template.
    is_open: bool,
}

/// What the launcher knows of a database.
struct Care {
    worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    failures: u32,
    /// Not before this is a worker started again.
    not_before: Instant,
    /// The extension is there.
    is_home: bool,
    /// How often it was looked for in vain.
    misses: u32,
}

/// All that the launcher knows.
#[derive(Default)]
struct Launcher {
    cares: HashMap<u32, Care>,
    /// The want of worker slots was reported.
    lacks_slots: bool,
    /// The want of room on the board was reported.
    lacks_room: bool,
}

/// The process of the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_stock_launcher_main(_argument: pg_sys::Datum) {
    process::listen_to_signals();
    // SAFETY: a process that the postmaster has just started; no database: shared catalogs only.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        board::begin_launching(pg_sys::MyProcPid);
    }
    let mut launcher = Launcher::default();
    loop {
        if process::attend() {
            launcher.cares.values_mut().for_each(|care| care.not_before = Instant::now());
        }
        let pause = launcher.round();
        process::idle();
        latch::sleep(pause.as_millis() as i64 + 1);
    }
}

impl Launcher {
    /// Looks after every database once; says when to do so again.
    fn round(&mut self) -> Duration {
        let served = settings::databases();
        let all = process::transaction(databases);
        stat::tidy(|oid| all.iter().any(|database| database.oid == oid));
        let existing: Vec<Database> = all.into_iter().filter(|database| database.is_open).collect();
        let wanted: Vec<&Database> =
            existing.iter().filter(|database| served.contains(&database.name)).collect();
        board::tidy(
            |oid| existing.iter().any(|database| database.oid == oid),
            |oid| wanted.iter().any(|database| database.oid == oid),
        );
        complain_of_unknown(&served, &existing);
        self.cares.retain(|oid, care| {
            let keep = wanted.iter().any(|database| database.oid == *oid);
            if let Some(worker) = care.worker.take_if(|_| !keep) {
                worker.terminate();
            }
            keep
        });
        wanted.iter().for_each(|database| self.look_at(database));
        self.start_workers(&wanted);
        // While a probe is under way the next one waits for its end, which wakes the launcher.
        let is_probing = self.is_probing();
        let waits = |care: &&Care| care.worker.is_none() && (care.is_home || !is_probing);
        let due = self.cares.iter().filter(|(oid, care)| waits(care) && !board::is_served(**oid));
        let due = due.map(|(_, care)| care.not_before).min();
        due.map_or(LIST_INTERVAL, |due| due.saturating_duration_since(Instant::now()))
            .min(LIST_INTERVAL)
    }

    fn is_probing(&self) -> bool {
        self.cares.values().any(|care| care.worker.is_some() && !care.is_home)
    }

    /// Finds out what has become of the worker of a database.
    fn look_at(&mut self, database: &Database) {
        let oid = database.oid;
        let care = self.cares.entry(oid).or_insert_with(Care::new);
        if care.worker.as_ref().is_some_and(is_alive) {
            care.is_home |= board::is_served(oid);
        } else if care.worker.take().is_some() {
            let end = board::end(oid);
            care.not_before = Instant::now() + care.pause_after_end(end);
            if end == End::NoRoom && !std::mem::replace(&mut self.lacks_room, true) {
                warn_of_full_board(&database.name);
            }
        }
        // What a backend has committed there proves that the extension is.
        if board::is_wanted(oid) && care.worker.is_none() {
            care.is_home = true;
            if care.failures == 0 {
                care.not_before = Instant::now();
            }
        }
    }

    /// Starts workers where it is time: in all databases that have the extension, and a probe in
    /// one more.
    fn start_workers(&mut self, wanted: &[&Database]) {
        let now = Instant::now();
        let mut is_probing = self.is_probing();
        let mut due: Vec<(&Database, &mut Care)> = Vec::new();
        for (oid, care) in &mut self.cares {
            // A launcher that was started again finds workers that another has started.
            if care.worker.is_none() && care.not_before <= now && !board::is_served(*oid) {
                due.extend(
                    wanted
                        .iter()
                        .find(|database| database.oid == *oid)
                        .map(|database| (*database, care)),
                );
            }
        }
        due.sort_by_key(|(database, care)| {
            (!care.is_home, care.misses, care.not_before, database.oid)
        });
        for (database, care) in due {
            if !care.is_home && std::mem::replace(&mut is_probing, true) {
                continue;
            }
            if care.start(database) {
                self.lacks_slots = false;
            } else {
                note_full_slots(database, !std::mem::replace(&mut self.lacks_slots, true));
                break;
            }
        }
    }
}

fn is_alive(worker: &DynamicBackgroundWorker) -> bool {
    !matches!(
        worker.pid(),
        Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
    )
}

impl Care {
    fn new() -> Self {
        let now = Instant::now();
        Care { worker: None, started: now, failures: 0, not_before: now, is_home: false, misses: 0 }
    }

    /// How long to wait after a worker has ended.
    fn pause_after_end(&mut self, end: End) -> Duration {
        match end {
            End::NothingHere | End::NoRoom => {
                (self.is_home, self.failures) = (false, 0);
                self.misses += 1;
                (PROBE_PAUSE_MIN * 2u32.saturating_pow(self.misses - 1).min(64))
                    .min(PROBE_PAUSE_MAX)
            }
            End::InTheWay => {
                self.failures = 0;
                MADE_WAY_PAUSE
            }
            End::Failed => {
                if self.started.elapsed() >= SOUND_LIFE_MIN {
                    self.failures = 0;
                }
                self.failures += 1;
                (FAILURE_PAUSE_MIN * 2u32.saturating_pow(self.failures - 1).min(64))
                    .min(FAILURE_PAUSE_MAX)
            }
        }
    }

    /// Starts a worker, or a probe; false where no worker slot is free.
    fn start(&mut self, database: &Database) -> bool {
        // SAFETY: set for the life of the process.
        let own = unsafe { pg_sys::MyProcPid };
        let worker = BackgroundWorkerBuilder::new(&format!("{WORKER} for {}", database.name))
            .set_type(WORKER)
            .set_library("pg_stock")
            .set_function("pg_stock_sweeper_main")
            .enable_spi_access()
            .set_argument(Some(pg_sys::Datum::from(database.oid)))
            .set_notify_pid(own)
            .load_dynamic();
        self.started = Instant::now();
        self.worker = worker.ok();
        if self.worker.is_none() {
            self.not_before = self.started + NO_SLOT_PAUSE;
        }
        self.worker.is_some()
    }
}

/// No worker slot is free: said in the status of the database, and once in the log until one was.
fn note_full_slots(database: &Database, is_new: bool) {
    board::note_trouble(database.oid, "all worker slots of the server are taken", store::now());
    if is_new {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "pg_stock has no worker for database \"{}\": all worker slots are taken",
                database.name
            ),
            "Raise max_worker_processes, or name fewer databases in pg_stock.databases."
        );
    }
}

fn warn_of_full_board(database: &str) {
    ereport!(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "pg_stock has no worker for database \"{database}\": pg_stock.max_databases are served \
             already"
        ),
        "Raise pg_stock.max_databases and restart the server, or name fewer databases in \
         pg_stock.databases."
    );
}

/// Databases that are named in the setting and do not exist: said once for each value of the
/// setting.
fn complain_of_unknown(served: &Databases, existing: &[Database]) {
    use std::cell::RefCell;
    thread_local! { static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) }; }
    let known = |name: &&String| existing.iter().any(|database| database.name == **name);
    let unknown: Vec<String> = served.names().iter().filter(|name| !known(name)).cloned().collect();
    let before = SAID.replace(unknown.clone());
    for name in unknown.iter().filter(|name| !before.contains(name)) {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!(
                "pg_stock.databases names \"{name}\", which does not exist or allows no connections"
            ),
            "It is served as soon as it exists."
        );
    }
}

/// Every database that allows connections and is not a template.
fn databases() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog, as PostgreSQL's own launchers do it: they have no
    // database, and so no SQL.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let Some(row) = tuple.as_ref() else { break };
            let body = row.t_data.cast::<u8>().add((*row.t_data).t_hoff as usize);
            let form = &*body.cast::<pg_sys::FormData_pg_database>();
            // -2 marks a database that a DROP DATABASE left half removed.
            let name = std::ffi::CStr::from_ptr(form.datname.data.as_ptr());
            found.push(Database {
                oid: form.oid.to_u32(),
                name: name.to_string_lossy().into_owned(),
                is_open: form.datallowconn && !form.datistemplate && form.datconnlimit != -2,
            });
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::PopActiveSnapshot();
    }
    found
}
