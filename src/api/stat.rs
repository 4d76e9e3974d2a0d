//! What was counted.

use pg_stock_core::Name;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::rows::send;
use crate::error::or_raise;
use crate::fields::Call;
use crate::standby;
use crate::stat::{self, Counted, Wanted, Worker};
use crate::store;
use crate::store::datum::{self, Value};
use crate::store::notify::storable;

/// `stat_calls()`: operation, outcome, calls, replays, lines, units, rolled_back, total_time,
/// buckets, stats_reset.
#[pg_extern(sql = false)]
fn stat_calls(fcinfo: pg_sys::FunctionCallInfo) {
    tell_where_nothing_is_counted();
    let (calls, since) = stat::calls();
    send(fcinfo, calls.iter().map(|counted| columns(counted, since)));
}

fn columns(counted: &Counted, since: i64) -> [Value; 10] {
    let buckets = counted.buckets.iter().map(|count| datum::int(*count as i64));
    [
        datum::word(counted.operation.word()),
        datum::word(counted.outcome.word()),
        datum::int(counted.calls as i64),
        datum::int(counted.repeats as i64),
        datum::int(counted.lines as i64),
        datum::int(counted.units as i64),
        datum::int(counted.rolled_back as i64),
        datum::int(counted.micros as i64),
        datum::array(buckets, pg_sys::INT8OID),
        datum::time(since),
    ]
}

/// `stat_hot_skus()`: sku, waits, version_conflicts, refusals, missed.
#[pg_extern(sql = false)]
fn stat_hot_skus(fcinfo: pg_sys::FunctionCallInfo) {
    tell_where_nothing_is_counted();
    let row = |wanted: &Wanted| {
        let [waits, conflicts, refusals] = wanted.causes.map(|count| datum::int(count as i64));
        let sku = datum::text(&Name::from(wanted.sku.as_slice()));
        [sku, waits, conflicts, refusals, datum::int(wanted.missed as i64)]
    };
    send(fcinfo, stat::hot().iter().map(row));
}

/// `stat_worker_counts()`: batches, holds_expired, units_returned, lines_paid, lot_levels,
/// emissions, messages, failures, last_failed_at, last_error.
#[pg_extern(sql = false)]
fn stat_worker_counts(fcinfo: pg_sys::FunctionCallInfo) {
    tell_where_nothing_is_counted();
    let row = |worker: Worker| {
        let [batches, holds, units, paid, lots, emissions, messages] =
            worker.counts.map(|count| datum::int(count as i64));
        let (at, text) = worker.error.unzip();
        let text = text.and_then(|text| datum::bytes(storable(&text).as_bytes()));
        let failures = datum::int(worker.failures as i64);
        [
            batches,
            holds,
            units,
            paid,
            lots,
            emissions,
            messages,
            failures,
            datum::opt_time(at),
            text,
        ]
    };
    send(fcinfo, stat::worker().map(row).into_iter());
}

/// `stat_reset()`
#[pg_extern(sql = false)]
fn stat_reset(_fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    or_raise(standby::refuse_changes());
    tell_where_nothing_is_counted();
    stat::reset(store::now());
}

fn tell_where_nothing_is_counted() {
    if !stat::is_there() {
        ereport!(
            PgLogLevel::NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            "nothing is counted here: pg_stock is not in shared_preload_libraries, or there are \
             more databases than pg_stock.max_databases"
        );
    }
}
