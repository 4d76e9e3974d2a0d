//! What is counted, in shared memory: calls by operation and outcome, the SKUs that are wanted
//! most, and what the background worker does.
//!
//! A call is counted when it is answered, refusals and repeats, too; if what it changed is rolled
//! back afterwards it is counted once more, as that. All starts from nothing when the server does.
//! Without the library in shared_preload_libraries nothing is counted.
//!
//! | room | what it does |
//! |---|---|
//! | `area` | the counters of a database |
//! | `hot` | the SKUs that others wait for, or that are refused, most |
//! | `undone` | what a transaction has counted, in case it is rolled back |

mod area;
mod hot;
mod undone;

use std::time::Duration;

use pg_stock_core::outcome::Outcome;
use pg_stock_core::stat::tallies;
use pg_stock_core::{Answer, Micros, Name, Request};

use self::area::Area;
use self::hot::Cause;
use crate::settings;

pub use self::area::{Counted, PIECE, Worker, WorkerCount, tidy};
pub use self::hot::Wanted;
pub use self::undone::register;

/// Counts requests that were answered, each with the time of the call.
pub fn count(requests: &[Request], answers: &[Answer], took: Duration) {
    let Some(area) = counting() else { return };
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    for tally in tallies(requests, answers) {
        let Some(place) = area.count(&tally, micros) else { continue };
        if tally.has_effect() {
            undone::note(place);
        }
    }
    for answer in answers.iter().filter(|answer| answer.outcome.is_refusal()) {
        let cause = match answer.outcome {
            Outcome::VersionConflict => Cause::Version,
            Outcome::NotApplied => continue,
            _ => Cause::Refusal,
        };
        if let Some(at) = &answer.at {
            area.hot.note(&at.sku, cause);
        }
    }
}

/// Counts that others are at a level of a SKU.
pub fn waited(sku: &Name) {
    if let Some(area) = counting() {
        area.hot.note(sku, Cause::Wait);
    }
}

/// Counts what the worker of this database has done.
pub fn worked(what: WorkerCount, how_often: u64) {
    if let Some(area) = Area::here() {
        area.worker.count(what, how_often);
    }
}

/// Notes an error of the worker of this database.
pub fn worker_failed(error: &str, now: Micros) {
    if let Some(area) = Area::here() {
        area.worker.fail(error, now);
    }
}

fn counting() -> Option<&'static Area> {
    if settings::track_calls() { Area::here() } else { None }
}

/// True where anything is counted: the library was preloaded.
pub fn is_there() -> bool {
    Area::here().is_some()
}

/// The calls that were counted in this database, and since when.
pub fn calls() -> (Vec<Counted>, Micros) {
    Area::here().map_or((Vec::new(), 0), |area| (area.counted(), area.since()))
}

/// The SKUs that are wanted most.
pub fn hot() -> Vec<Wanted> {
    Area::here().map(|area| area.hot.wanted()).unwrap_or_default()
}

/// What the worker has done.
pub fn worker() -> Option<Worker> {
    Area::here().map(|area| area.worker.read())
}

/// Begins anew in this database.
pub fn reset(now: Micros) {
    if let Some(area) = Area::here() {
        area.reset(now);
    }
}
