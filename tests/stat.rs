//! What is counted (MISSION C9): each call once, whatever became of it.

use pg_stock_core::stat::{BUCKETS, bucket};
use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::{at_once, call, eventually, outcome, raised, stocked, value};

/// A server that counts, and whose workers do not sweep by themselves.
fn counting() -> Cluster {
    Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off", "pg_stock.databases=''"])
}

/// What was counted of an operation and outcome: calls, replays, lines, units, rolled back.
fn counted(client: &mut Client, operation: &str, outcome: &str) -> String {
    let sql = format!(
        "SELECT coalesce(max(concat_ws(' ', calls, replays, lines, units, rolled_back)), '')
           FROM stock.stat WHERE operation = '{operation}' AND outcome = '{outcome}'"
    );
    value(client, &sql)
}

/// Begins anew, so that what a helper does besides is not counted.
fn reset(database: Database<'_>) -> Client {
    let mut client = database.connect();
    client.batch_execute("SELECT stock.stat_reset()").unwrap();
    client
}

/// MISSION C9: N calls raise the counters by exactly N, from many connections at once.
#[test]
fn each_call_is_counted_once() {
    let cluster = counting();
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 600);
    // The helper warms each connection up with one refusal.
    let mut client = reset(database);
    at_once(database, 8, |number, client| {
        for n in 0..100 {
            call(client, &format!("try_reserve_stock('k {number} {n}', 'a', 'm', 1)")).unwrap();
        }
    });
    assert_eq!(counted(&mut client, "reserve", "reserved"), "600 0 600 600 0");
    assert_eq!(counted(&mut client, "reserve", "insufficient_stock"), "200 0 200 200 0");
    assert_eq!(counted(&mut client, "reserve", "unknown_level"), "8 0 8 8 0");
    let sums = "SELECT bool_and(b.calls = c.calls AND c.total_ms > 0 AND l.p50_ms > 0
                                AND l.p50_ms <= l.p95_ms AND l.p95_ms <= l.p99_ms)
                  FROM stock.stat c
                  JOIN stock.stat_latency l USING (operation, outcome)
                  JOIN stock.stat_bucket b USING (operation, outcome)
                 WHERE b.le = 'Infinity'";
    assert_eq!(value(&mut client, sums), "t");
    let within = "SELECT bool_and(mean_ms BETWEEN 0.001 AND 10000) FROM stock.stat";
    assert_eq!(value(&mut client, within), "t");
    client.batch_execute("SELECT stock.stat_reset()").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.stat"), "0");
    client.batch_execute("SET pg_stock.track_calls = off").unwrap();
    outcome(&mut client, "try_reserve_stock('uncounted', 'a', 'm', 1)");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.stat"), "0");
}

/// What the views say of the buckets is what they are.
#[test]
fn the_bounds_of_the_histogram_are_those_that_calls_are_counted_by() {
    let cluster = counting();
    let mut client = cluster.database().connect();
    for place in 1..BUCKETS {
        let sql = format!("SELECT (1000000 * stock.stat_bound({place}))::bigint");
        let bound: u64 = value(&mut client, &sql).parse().unwrap();
        assert_eq!((bucket(bound), bucket(bound + 1)), (place - 1, place), "{bound}");
    }
    let last = format!("SELECT stock.stat_bound({BUCKETS})");
    assert_eq!(value(&mut client, &last), "Infinity");
    outcome(&mut client, "try_reserve_stock('k', 'none', 'm', 1)");
    let count = "SELECT count(*) FROM stock.stat_bucket";
    assert_eq!(value(&mut client, count), BUCKETS.to_string());
    // Half of what is in one bucket lies in its middle, and what is beyond the last at its bound.
    let half = "SELECT stock.stat_quantile('{0,4,0}', 0.5)";
    assert_eq!(value(&mut client, half), "0.024");
    let beyond = "SELECT stock.stat_quantile(array_fill(0, ARRAY[20])::bigint[] || 5::bigint, 0.5)";
    assert_eq!(value(&mut client, beyond), "8388.608");
}

/// A repeat, a refusal in either form, each request of a batch, what a settlement and an import do;
/// and what is rolled back is counted as that.
#[test]
fn whatever_becomes_of_a_call_is_counted() {
    let cluster = counting();
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "b", "m", 100);
    let mut client = reset(database);
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 3)");
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 3)");
    assert_eq!(counted(&mut client, "reserve", "reserved"), "2 1 2 6 0");
    assert_eq!(raised(&mut client, "reserve_stock('p', 'a', 'm', 1000)"), "ST001");
    outcome(&mut client, "try_reserve_stock('p', 'a', 'm', 1000)");
    assert_eq!(counted(&mut client, "reserve", "insufficient_stock"), "2 0 2 2000 0");
    // Of several lines the first refusal by precedence; the sound ones are not applied.
    let lines = r#"[{"sku":"a","location":"m","quantity":1,"expected_version":99},
                    {"sku":"b","location":"m","quantity":1000},
                    {"sku":"b","location":"x","quantity":1}]"#;
    call(&mut client, &format!("try_reserve_stock('p', '{lines}')")).unwrap();
    assert_eq!(counted(&mut client, "reserve", "unknown_level"), "1 0 3 1002 0");
    let requests = r#"[{"key":"q","lines":[{"sku":"a","location":"m","quantity":1},
                                            {"sku":"b","location":"m","quantity":1}]},
                       {"key":"r","lines":[{"sku":"b","location":"m","quantity":5}]}]"#;
    call(&mut client, &format!("reserve_many('{requests}')")).unwrap();
    assert_eq!(counted(&mut client, "reserve", "reserved"), "4 1 5 13 0");
    let orders = r#"[{"key":"q","status":"paid"},{"key":"r","status":"cancelled"}]"#;
    value(&mut client, &format!("SELECT count(*) FROM stock.settle('{orders}')"));
    assert_eq!(counted(&mut client, "confirm", "confirmed"), "1 0 2 2 0");
    assert_eq!(counted(&mut client, "release", "released"), "1 0 1 5 0");
    client
        .batch_execute("CREATE TABLE goods AS SELECT 'c' AS sku, 'm' AS location, 7 AS on_hand")
        .unwrap();
    client.batch_execute("CALL stock.import('load', 'goods')").unwrap();
    assert_eq!(counted(&mut client, "set", "set"), "1 0 1 7 0");

    client
        .batch_execute(
            "BEGIN; SELECT * FROM stock.sell_stock('s1', 'a', 'm', 1); SAVEPOINT one;
             SELECT * FROM stock.sell_stock('s2', 'a', 'm', 1);
             SELECT * FROM stock.sell_stock('s1', 'a', 'm', 1);
             SELECT * FROM stock.try_sell_stock('s0', 'a', 'm', 1000);
             ROLLBACK TO one; SELECT * FROM stock.sell_stock('s3', 'a', 'm', 1);
             SAVEPOINT two; SELECT * FROM stock.sell_stock('s4', 'a', 'm', 1); RELEASE two; COMMIT",
        )
        .unwrap();
    assert_eq!(counted(&mut client, "reserve", "sold"), "5 1 5 5 1");
    client
        .batch_execute(
            "BEGIN; SELECT * FROM stock.sell_stock('s5', 'a', 'm', 1); SAVEPOINT two;
             SELECT * FROM stock.sell_stock('s6', 'a', 'm', 1); RELEASE two; ROLLBACK",
        )
        .unwrap();
    assert_eq!(counted(&mut client, "reserve", "sold"), "7 1 7 7 3");
    assert_eq!(counted(&mut client, "reserve", "insufficient_stock"), "3 0 3 3000 0");
}

/// The SKU that is refused most stands first, however many others there are.
#[test]
fn the_skus_that_are_wanted_most_are_known() {
    let cluster = counting();
    let database = cluster.database();
    let mut client = reset(database);
    stocked(&mut client, "hot", "m", 5);
    for n in 0..300 {
        outcome(&mut client, &format!("try_reserve_stock('k', 'rare {}', 'm', 1)", n % 100));
        if n % 3 == 0 {
            outcome(&mut client, "try_reserve_stock('k', 'hot', 'm', 100)");
            outcome(&mut client, "try_reserve_stock('k', 'hot', 'm', 1, NULL, NULL, 77)");
        }
    }
    let first =
        "SELECT concat_ws(' ', sku, refusals + missed >= 100, version_conflicts + missed >= 100)
                   FROM stock.stat_hot LIMIT 1";
    assert_eq!(value(&mut client, first), "hot t t");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.stat_hot"), "32");

    // Others at the same level are waits.
    stocked(&mut client, "busy", "m", 1000);
    at_once(database, 8, |number, client| {
        for n in 0..50 {
            outcome(client, &format!("reserve_stock('b {number} {n}', 'busy', 'm', 1)"));
        }
    });
    let waits = "SELECT coalesce(sum(waits), 0) > 0 FROM stock.stat_hot WHERE sku = 'busy'";
    assert_eq!(value(&mut client, waits), "t");
}

/// The worker's work and its last error are counted, too; a database that is dropped leaves room.
#[test]
fn the_worker_is_counted() {
    let settings = ["shared_preload_libraries=pg_stock", "fsync=off", "pg_stock.max_databases=4"];
    let cluster = Cluster::start(&settings);
    let database = cluster.database();
    let mut client = reset(database);
    stocked(&mut client, "a", "m", 5);
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 3, '50 ms')");
    let swept = "SELECT concat_ws(' ', batches, holds_expired, units_returned, emissions > 0,
                                  messages > 0, failures) FROM stock.stat_worker";
    eventually("the worker gave it back", || value(&mut client, swept) == "1 1 3 t t 0");
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RAISE ''not today''; END';
             CREATE TRIGGER refuse BEFORE INSERT ON stock.maintenance_run
                    EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    outcome(&mut client, "reserve_stock('p', 'a', 'm', 3, '50 ms')");
    let failed = "SELECT failures > 0 AND last_error LIKE '%not today%' AND last_failed_at <= now()
                    FROM stock.stat_worker";
    eventually("it failed", || value(&mut client, failed) == "t");

    // Four rooms, and more databases than that one after the other.
    for n in 0..6 {
        let mut admin = cluster.connect("postgres");
        admin.batch_execute(&format!("CREATE DATABASE d{n} TEMPLATE stock_template")).unwrap();
        let mut other = cluster.connect(&format!("d{n}"));
        eventually("there is room", || {
            outcome(&mut other, "try_reserve_stock('k', 'none', 'm', 1)");
            value(&mut other, "SELECT count(*) FROM stock.stat") == "1"
        });
        drop(other);
        admin.batch_execute(&format!("DROP DATABASE d{n} WITH (FORCE)")).unwrap();
    }
}

/// Where the library is not preloaded the views are empty, and say why.
#[test]
fn without_preload_nothing_is_counted_and_that_is_said() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.database();
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = notices.clone();
    let mut config = cluster.config(database.name());
    config.notice_callback(move |notice| heard.lock().unwrap().push(notice.message().to_owned()));
    let mut client = config.connect(postgres::NoTls).unwrap();
    stocked(&mut client, "a", "m", 5);
    for view in ["stat", "stat_latency", "stat_bucket", "stat_hot", "stat_worker"] {
        notices.lock().unwrap().clear();
        assert_eq!(
            value(&mut client, &format!("SELECT count(*) FROM stock.{view}")),
            "0",
            "{view}"
        );
        let told = notices.lock().unwrap().clone();
        assert!(
            told.iter().any(|told| told.contains("shared_preload_libraries")),
            "{view}: {told:?}"
        );
    }
    client.batch_execute("SELECT stock.stat_reset()").unwrap();
}
