//! The launcher: finds the databases, and keeps a worker in each that has the extension.
//!
//! Which databases have it can be seen only from inside: a worker is started in each that it may serve, one after the
//! other, and ends at once where the extension is not there. That is repeated every minute, and at once where a backend
//! has committed a hold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{WORKER, process};
use crate::board::{self, End};
use crate::settings::{self, Databases};

/// How often each database without a worker is looked into.
const PROBE: Duration = Duration::from_secs(60);
/// A worker that lived so long has not failed.
const SOUND: Duration = Duration::from_secs(60);
/// Pause after a worker failed; doubled with each failure more, up to a minute.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a worker left because somebody wanted the database for himself.
const MADE_WAY: Duration = Duration::from_secs(5);
/// Pause after a worker could not be started for want of a slot.
const NO_SLOT: Duration = Duration::from_secs(10);

/// A database that may be served.
struct Database {
    oid: u32,
    name: String,
}

/// What the launcher knows of a database.
struct Care {
    worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    failures: u32,
    /// Not before this is a worker started again.
    not_before: Instant,
    /// The want of a slot was reported.
    complained: bool,
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
    let mut cares: HashMap<u32, Care> = HashMap::new();
    loop {
        if process::attend() {
            cares.values_mut().for_each(|care| care.not_before = Instant::now());
        }
        let pause = round(&mut cares);
        process::idle();
        process::sleep(pause.as_millis() as i64 + 1);
    }
}

/// Looks after every database once; says when to do so again.
fn round(cares: &mut HashMap<u32, Care>) -> Duration {
    let served = settings::databases();
    let existing = process::transaction(databases);
    let is_served = |database: &Database| served.contains(&database.name);
    let wanted: Vec<&Database> = existing.iter().filter(|database| is_served(database)).collect();
    board::tidy(
        |oid| existing.iter().any(|database| database.oid == oid),
        |oid| wanted.iter().any(|database| database.oid == oid),
    );
    complain_of_unknown(&served, &existing);
    cares.retain(|oid, care| {
        let keep = wanted.iter().any(|database| database.oid == *oid);
        if let Some(worker) = care.worker.take_if(|_| !keep) {
            worker.terminate();
        }
        keep
    });
    let due = wanted.iter().map(|database| look_after(cares, database)).min();
    due.unwrap_or(PROBE).min(PROBE)
}

/// Starts a worker where there is none and it is time; says after what time to look again.
fn look_after(cares: &mut HashMap<u32, Care>, database: &Database) -> Duration {
    let now = Instant::now();
    let care = cares.entry(database.oid).or_insert_with(|| Care {
        worker: None,
        started: now,
        failures: 0,
        not_before: now,
        complained: false,
    });
    let own = care.worker.as_ref().is_some_and(is_alive);
    // A launcher that was started again finds workers that another has started.
    if own || care.worker.is_none() && board::is_served(database.oid) {
        return PROBE;
    }
    if care.worker.take().is_some() {
        care.not_before = now + care.pause_after_end(database.oid);
    }
    if board::is_wanted(database.oid) && care.failures == 0 {
        care.not_before = now;
    }
    if care.not_before <= now {
        care.start(database);
    }
    if care.worker.is_some() { PROBE } else { care.not_before.saturating_duration_since(now) }
}

fn is_alive(worker: &DynamicBackgroundWorker) -> bool {
    !matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied))
}

impl Care {
    /// How long to wait after a worker has ended.
    fn pause_after_end(&mut self, oid: u32) -> Duration {
        let pause = match board::end(oid) {
            End::NothingHere => Some(PROBE),
            End::InTheWay => Some(MADE_WAY),
            End::Failed => None,
        };
        if let Some(pause) = pause {
            self.failures = 0;
            return pause;
        }
        if self.started.elapsed() >= SOUND {
            self.failures = 0;
        }
        self.failures += 1;
        (PAUSE * 2u32.saturating_pow(self.failures - 1).min(64)).min(LONGEST_PAUSE)
    }

    fn start(&mut self, database: &Database) {
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
        match worker {
            Ok(worker) => {
                self.worker = Some(worker);
                self.complained = false;
            }
            Err(_) => {
                self.not_before = self.started + NO_SLOT;
                if !std::mem::replace(&mut self.complained, true) {
                    warn_of_full_slots(&database.name);
                }
            }
        }
    }
}

fn warn_of_full_slots(database: &str) {
    ereport!(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!("pg_stock has no worker for database \"{database}\": all worker slots are taken"),
        "Raise max_worker_processes, or name fewer databases in pg_stock.databases."
    );
}

/// Databases that are named in the setting and do not exist: said once for each value of the setting.
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
            format!("pg_stock.databases names \"{name}\", which does not exist or allows no connections"),
            "It is served as soon as it exists."
        );
    }
}

/// Every database that allows connections and is not a template.
fn databases() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog, as PostgreSQL's own launchers do it: they have no database, and so no SQL.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let Some(row) = tuple.as_ref() else { break };
            let body = row.t_data.cast::<u8>().add((*row.t_data).t_hoff as usize);
            let form = &*body.cast::<pg_sys::FormData_pg_database>();
            // -2 marks a database that a DROP DATABASE left half removed.
            if form.datallowconn && !form.datistemplate && form.datconnlimit != -2 {
                let name = std::ffi::CStr::from_ptr(form.datname.data.as_ptr());
                found.push(Database { oid: form.oid.to_u32(), name: name.to_string_lossy().into_owned() });
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::PopActiveSnapshot();
    }
    found
}
