//! What the worker counts. The README lists it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

/// Entries that replaced an older one, or none.
pub const ENTRIES_WRITTEN: &str = "pg_stock_cache_entries_written_total";
/// Notifications received.
pub const MESSAGES: &str = "pg_stock_cache_messages_total";
/// Gaps in the notifications.
pub const GAPS: &str = "pg_stock_cache_gaps_total";
/// Calls of `stock.changes_since` and `stock.snapshot`.
pub const PULLS: &str = "pg_stock_cache_pulls_total";
/// Rebuilds begun.
pub const REBUILDS: &str = "pg_stock_cache_rebuilds_total";
/// Checks judged.
pub const CHECKS: &str = "pg_stock_cache_checks_total";
/// Entries compared by checks.
pub const CHECKED: &str = "pg_stock_cache_checked_entries_total";
/// Entries that checks found wrong.
pub const WRONG: &str = "pg_stock_cache_wrong_entries_total";
/// Sessions that ended with an error, and connections that could not be made.
pub const RECONNECTS: &str = "pg_stock_cache_reconnects_total";
/// Writes that Redis refused because it is full.
pub const REDIS_FULL: &str = "pg_stock_cache_redis_full_total";
/// How long ago the cache was last known to be in step.
pub const IN_STEP_AGE: &str = "pg_stock_cache_in_step_age_seconds";
/// The age of the oldest change in the last page, when it was read.
pub const LAG: &str = "pg_stock_cache_lag_seconds";

/// How often the age is brought up to date.
const AGE_STEP: Duration = Duration::from_secs(1);

/// When the cache was last known to be in step; before it ever was, when the worker started.
static IN_STEP: Mutex<Option<Instant>> = Mutex::new(None);

/// Serves the metrics over HTTP, and keeps the age of `in_step` up to date.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(address: SocketAddr) -> Result<(), BuildError> {
    PrometheusBuilder::new().with_http_listener(address).install()?;
    describe();
    in_step(Instant::now());
    tokio::spawn(async {
        loop {
            if let Some(at) = IN_STEP.lock().ok().and_then(|at| *at) {
                gauge!(IN_STEP_AGE).set(at.elapsed().as_secs_f64());
            }
            tokio::time::sleep(AGE_STEP).await;
        }
    });
    Ok(())
}

/// The cache was in step at this moment.
pub fn in_step(at: Instant) {
    if let Ok(mut last) = IN_STEP.lock() {
        *last = Some(at);
    }
}

/// Each counter is there from the start, as 0: an alert on its rise must not miss the first one.
fn describe() {
    let counters = [
        (ENTRIES_WRITTEN, "entries that replaced an older one, or none"),
        (MESSAGES, "notifications received"),
        (GAPS, "notifications that were not the next, so that the database was asked"),
        (PULLS, "pages read from stock.changes_since and stock.snapshot"),
        (REBUILDS, "rebuilds begun"),
        (CHECKS, "checks of a sample against the database"),
        (CHECKED, "entries compared by checks"),
        (WRONG, "entries that a check found wrong"),
        (RECONNECTS, "times that everything was begun anew after an error"),
        (REDIS_FULL, "writes that Redis refused for want of memory"),
    ];
    for (name, text) in counters {
        describe_counter!(name, text);
        counter!(name).increment(0);
    }
    describe_gauge!(
        IN_STEP_AGE,
        Unit::Seconds,
        "how long ago the cache was last known to be in step"
    );
    describe_gauge!(
        LAG,
        Unit::Seconds,
        "age of the oldest change in the last page that had one, when it was read"
    );
}
