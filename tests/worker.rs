//! The background worker: gives holds back on time, for ever, and is in nobody's way.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::{eventually, finish, outcome, sqlstate, stocked, value};

/// A server with the library preloaded; the tests of this file that do not restart it share it.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start(&[]))
}

fn start(settings: &[&str]) -> Cluster {
    let mut all = vec!["shared_preload_libraries=pg_stock", "fsync=off", "max_worker_processes=40"];
    all.extend(settings);
    Cluster::start(&all)
}

/// The process of the worker of a database, if it has one.
fn worker(client: &mut Client, database: &str) -> Option<String> {
    let sql = format!(
        "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'pg_stock worker' \
         AND datname = '{database}'"
    );
    Some(value(client, &sql)).filter(|pid| pid != "0")
}

fn held(client: &mut Client) -> String {
    value(client, "SELECT count(*) FROM stock.hold")
}

/// A database with a worker in it, and a connection to it.
fn served(cluster: &Cluster) -> (Database<'_>, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000_000);
    outcome(&mut client, "try_reserve_stock('first', 'a', 'm', 1, '1 hour')");
    eventually("a worker", || worker(&mut client, database.name()).is_some());
    (database, client)
}

/// Writes many overdue holds at once.
fn overdue(client: &mut Client, name: &str, count: usize) {
    for batch in 0..count.div_ceil(10_000) {
        let sql = format!(
            "SELECT count(*) FROM stock.reserve_many((SELECT jsonb_agg(jsonb_build_object('key',
             '{name} ' || {batch} || ' ' || i,
                'ttl', '1 ms', 'lines', jsonb_build_array(jsonb_build_object('sku', 'a', 'location',
                'm', 'quantity', 1))))
               FROM generate_series(1, {}) i))",
            count.min(10_000)
        );
        value(client, &sql);
    }
}

#[test]
fn a_hold_comes_back_by_itself_and_an_earlier_one_wakes_the_worker() {
    let (database, mut client) = served(cluster());
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '200 ms')");
    eventually("the short hold is back", || held(&mut client) == "1");
    let entry = "SELECT actor || ' ' || application_name || ' ' || (recorded_at >= expires_at)
                   FROM stock.ledger WHERE operation = 'expire'";
    assert_eq!(value(&mut client, entry), "postgres pg_stock worker true");
    // What it did last: it also looks every second whether there is something to tell.
    let seen = "SELECT query IN ('pg_stock: expiring holds', 'pg_stock: sending the change feed') \
                FROM pg_stat_activity WHERE backend_type = 'pg_stock worker' AND datname = \
                current_database()";
    assert_eq!(value(&mut client, seen), "t");
    assert_eq!(value(&mut client, "SELECT sum(holds_expired) FROM stock.maintenance_run"), "1");
    finish(database);
}

/// No callback of ours runs when a prepared transaction commits: the regular look finds its hold.
#[test]
fn a_hold_of_a_prepared_transaction_is_found_by_the_regular_look() {
    let cluster = start(&["pg_stock.poll_interval=1s"]);
    let (database, mut client) = served(&cluster);
    client.batch_execute("BEGIN").unwrap();
    outcome(&mut client, "try_reserve_stock('prepared', 'a', 'm', 1, '1 ms')");
    client.batch_execute("PREPARE TRANSACTION 'p'").unwrap();
    let mut other = database.connect();
    value(&mut other, "SELECT pg_sleep(2.5)");
    other.batch_execute("COMMIT PREPARED 'p'").unwrap();
    // Its deadline lies below what the worker has looked at: no buyer is blocked by it, and the
    // hourly look, which a new worker begins with, gives it back.
    assert_eq!(value(&mut other, "SELECT available FROM stock.levels"), "999999");
    value(
        &mut other,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_stock \
         worker'",
    );
    eventually("the hold is back", || held(&mut other) == "1");
    finish(database);
}

#[test]
fn the_worker_and_the_launcher_come_back_when_they_are_terminated() {
    let (database, mut client) = served(cluster());
    for kind in ["pg_stock worker", "pg_stock launcher"] {
        let terminate = format!(
            "SELECT max(pid) FROM pg_stat_activity, pg_terminate_backend(pid)
              WHERE backend_type = '{kind}' AND coalesce(datname, '{0}') = '{0}'",
            database.name()
        );
        let ended = value(&mut client, &terminate);
        let now = format!(
            "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = '{kind}' AND \
             coalesce(datname, '{0}') = '{0}'",
            database.name()
        );
        eventually(kind, || !["0", &ended].contains(&value(&mut client, &now).as_str()));
    }
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '10 ms')");
    eventually("the short hold is back", || held(&mut client) == "1");
    // The new launcher finds the worker that the old one has started, and starts no other.
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_stock worker' \
                   AND datname = current_database()";
    assert_eq!(value(&mut client, workers), "1");
    finish(database);
}

#[test]
fn drop_extension_and_drop_database_are_prompt() {
    let (database, mut client) = served(cluster());
    overdue(&mut client, "o", 20_000);
    client.batch_execute("SET lock_timeout = '5s'; DROP EXTENSION pg_stock CASCADE").unwrap();
    eventually("the worker lets go", || worker(&mut client, database.name()).is_none());
    client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
    stocked(&mut client, "a", "m", 1_000_000);
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '10 ms')");
    eventually("it is served again", || held(&mut client) == "0");
    overdue(&mut client, "p", 20_000);
    drop(client);
    let mut admin = database.cluster.connect("postgres");
    // Its own limit for others to leave is five seconds; then it fails.
    admin.batch_execute(&format!("DROP DATABASE {}", database.name())).unwrap();
}

#[test]
fn a_database_that_is_served_can_be_a_template_and_be_renamed() {
    let (database, client) = served(cluster());
    drop(client);
    let name = database.name();
    let mut admin = database.cluster.connect("postgres");
    admin.batch_execute(&format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).unwrap();
    admin.batch_execute(&format!("ALTER DATABASE {name}_copy RENAME TO {name}_moved")).unwrap();
    admin.batch_execute(&format!("DROP DATABASE {name}_moved")).unwrap();
    eventually("it is served again", || worker(&mut admin, name).is_some());
    finish(database);
}

#[test]
fn settings_are_read_again_on_reload() {
    let cluster = start(&[]);
    let (one, mut client) = served(&cluster);
    let (two, _other) = served(&cluster);
    let mut admin = cluster.connect("postgres");
    let set = |admin: &mut Client, value: &str| {
        admin.batch_execute(&format!("ALTER SYSTEM SET pg_stock.databases = '{value}'")).unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    // Also a launcher that found the workers when it was started again.
    let launcher = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = \
                    'pg_stock launcher'";
    let first = value(&mut admin, launcher);
    value(&mut admin, &format!("SELECT pg_terminate_backend({first})"));
    eventually("another launcher", || {
        !["0", &first].contains(&value(&mut admin, launcher).as_str())
    });
    set(&mut admin, two.name());
    eventually("only the named one is served", || {
        worker(&mut admin, one.name()).is_none() && worker(&mut admin, two.name()).is_some()
    });
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '1 ms')");
    let state = "SELECT state FROM stock.worker";
    assert_eq!(value(&mut client, state), "not_served");
    set(&mut admin, "");
    eventually("none is served", || worker(&mut admin, two.name()).is_none());
    // A database of which the launcher never heard, in which nobody sends.
    let three = cluster.database();
    let mut new = three.connect();
    assert_eq!(value(&mut new, state), "not_served");
    stocked(&mut new, "a", "m", 1);
    value(&mut new, "SELECT outcome FROM stock.snapshot()");
    stocked(&mut new, "b", "m", 1);
    assert!(value(&mut new, "SELECT error FROM stock.feed_lag").contains("pg_stock.databases"));
    set(&mut admin, &format!("{}, no_such_database", one.name()));
    eventually("the hold is back", || held(&mut client) == "1");
    assert!(cluster.log().contains("pg_stock.databases names \"no_such_database\""));
    finish(one);
}

/// The time that a process has used, in ticks of ten milliseconds.
fn ticks(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("its times");
    stat.split(' ').skip(13).take(2).filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// While everything is read-only, the worker waits, and does not spin; then it gives back what
/// became due meanwhile.
#[test]
fn a_read_only_database_is_left_in_peace() {
    let cluster = start(&["pg_stock.poll_interval=1s"]);
    let (database, mut client) = served(&cluster);
    client.batch_execute("SET default_transaction_read_only = off").unwrap();
    let mut read_only = |on: bool| {
        client
            .batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}"))
            .unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    read_only(true);
    let mut buyer = database.connect();
    buyer.batch_execute("SET default_transaction_read_only = off").unwrap();
    outcome(&mut buyer, "try_reserve_stock('short', 'a', 'm', 1, '1 ms')");
    let process = worker(&mut buyer, database.name()).expect("a worker");
    let before = ticks(&process);
    std::thread::sleep(Duration::from_secs(2));
    assert!(ticks(&process) - before <= 20, "{} ticks of 10 ms in 2 s", ticks(&process) - before);
    assert_eq!(held(&mut buyer), "2");
    read_only(false);
    eventually("the hold is back", || held(&mut buyer) == "1");
    finish(database);
}

/// Preloaded in a cluster where the extension is created nowhere: nothing in the log, no time used.
#[test]
fn preloaded_without_the_extension_it_costs_nothing() {
    let cluster = start(&["log_min_messages=info"]);
    let mut admin = cluster.connect("postgres");
    admin.batch_execute("ALTER DATABASE stock_template IS_TEMPLATE false").unwrap();
    admin.batch_execute("DROP DATABASE stock_template").unwrap();
    let launcher = value(
        &mut admin,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_stock launcher'",
    );
    let before = ticks(&launcher);
    std::thread::sleep(Duration::from_secs(5));
    assert!(ticks(&launcher) - before <= 1, "{} ticks of 10 ms in 5 s", ticks(&launcher) - before);
    let log = cluster.log();
    let strange: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["ERROR", "FATAL", "WARNING", "PANIC"].iter().any(|word| line.contains(word))
        })
        .collect();
    // What is there before the server is ready comes from the tests' own attempts to connect.
    assert!(
        strange.iter().all(|line| line.contains("the database system is starting up")),
        "{strange:?}"
    );
}

#[test]
fn a_fast_shutdown_takes_less_than_two_seconds_in_the_middle_of_a_sweep() {
    let cluster = start(&["pg_stock.expire_batch=100000", "pg_stock.databases=''"]);
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000_000);
    overdue(&mut client, "o", 100_000);
    client.batch_execute("ALTER SYSTEM RESET pg_stock.databases").unwrap();
    client.batch_execute("ALTER SYSTEM SET pg_stock.databases = '*'").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let active = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_stock worker' AND \
                  state = 'active'";
    eventually("the sweep runs", || value(&mut client, active) == "1");
    drop(client);
    let begin = Instant::now();
    cluster.stop(false);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    cluster.resume();
    let mut client = database.connect();
    eventually("all is swept in the end", || held(&mut client) == "0");
    finish(database);
}

/// kill -9 of the worker and of the whole server in the middle of a sweep, twenty times.
#[test]
fn crashes_in_the_middle_of_a_sweep_lose_nothing_and_repeat_nothing() {
    let cluster = start(&["pg_stock.expire_batch=50", "restart_after_crash=on"]);
    let (database, mut client) = served(&cluster);
    for round in 0..20 {
        overdue(&mut client, &format!("round {round}"), 3_000);
        let process = worker(&mut client, database.name());
        if round % 2 == 0 {
            cluster.kill();
            cluster.resume();
        } else if let Some(process) = process {
            // SAFETY: a process of the server that was just listed.
            unsafe { libc::kill(process.parse().expect("a process"), libc::SIGKILL) };
            eventually("the server restarts", || client.simple_query("SELECT 1").is_err());
        }
        eventually("the server answers", || {
            database.cluster.config(database.name()).connect(postgres::NoTls).is_ok()
        });
        client = database.connect();
        pg_stock_tests::invariants::assert_hold(&mut client);
    }
    eventually("all is swept in the end", || held(&mut client) == "1");
    let once = "SELECT count(*) = 60000 AND count(DISTINCT (key, line)) = 60000 FROM stock.ledger \
                WHERE operation = 'expire'";
    assert_eq!(value(&mut client, once), "t");
    finish(database);
}

/// Where all worker slots are taken the log says so, and the database is served when one is free.
#[test]
fn a_want_of_slots_is_reported_and_overcome() {
    let cluster = start(&[
        "max_worker_processes=2",
        "max_logical_replication_workers=0",
        "max_parallel_workers=0",
    ]);
    let (one, client) = served(&cluster);
    let two = cluster.database();
    let mut other = two.connect();
    stocked(&mut other, "a", "m", 10);
    outcome(&mut other, "try_reserve_stock('short', 'a', 'm', 1, '1 ms')");
    eventually("the log says so", || cluster.log().contains("all worker slots are taken"));
    value(&mut other, "SELECT pg_sleep(2)");
    assert_eq!(cluster.log().matches("all worker slots are taken").count(), 1, "once");
    drop(client);
    cluster.connect("postgres").batch_execute(&format!("DROP DATABASE {}", one.name())).unwrap();
    eventually("the other is served", || held(&mut other) == "0");
    finish(two);
}

/// On a standby nothing is written; the worker begins with the promotion.
#[test]
fn a_standby_is_read_only_and_its_worker_begins_with_the_promotion() {
    let primary = start(&["pg_stock.databases=''"]);
    let database = primary.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '1 ms')");
    let standby = primary.standby();
    standby.connect("postgres").batch_execute("SELECT 1").unwrap();
    let mut reader = standby.connect(database.name());
    eventually("the standby has the hold", || {
        value(&mut reader, "SELECT count(*) FROM stock.overdue") == "1"
    });
    assert_eq!(value(&mut reader, "SELECT stock.available('a', 'm')"), "100");
    for text in ["try_reserve_stock('k', 'a', 'm', 1)", "expire_reservations()"] {
        let error = reader.simple_query(&format!("SELECT stock.{text}")).unwrap_err();
        assert_eq!(sqlstate(&error), "25006", "{text}");
    }
    let processes = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_stock%'";
    assert_eq!(value(&mut reader, processes), "0");
    primary.stop(false);
    reader.batch_execute("ALTER SYSTEM SET pg_stock.databases = '*'").unwrap();
    reader.batch_execute("SELECT pg_reload_conf()").unwrap();
    reader.batch_execute("SELECT pg_promote()").unwrap();
    eventually("the hold is back", || value(&mut reader, "SELECT count(*) FROM stock.hold") == "0");
    pg_stock_tests::invariants::assert_hold(&mut reader);
}

/// The clock is stepped by an hour (a setting that only a debug build has), forth and back and
/// behind: the database's clock decides, nothing is given back before its deadline by that clock,
/// and nothing is stuck.
#[test]
fn a_clock_that_is_stepped_gives_nothing_back_early_and_blocks_nothing() {
    let cluster = start(&[]);
    let mut admin = cluster.connect("postgres");
    let mut step = |by: &str| {
        admin.batch_execute(&format!("ALTER SYSTEM SET pg_stock.clock_offset = '{by}'")).unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    let (database, mut client) = served(&cluster);
    outcome(&mut client, "try_reserve_stock('half an hour', 'a', 'm', 1, '30 minutes')");
    outcome(&mut client, "try_reserve_stock('two hours', 'a', 'm', 1, '2 hours')");
    let keys = |client: &mut Client| {
        value(client, "SELECT string_agg(key, ', ' ORDER BY key) FROM stock.hold")
    };
    assert_eq!(keys(&mut client), "first, half an hour, two hours");
    step("3550");
    eventually("what is due by the new time is back", || keys(&mut client) == "first, two hours");
    for (by, name) in [("0", "back"), ("-3600", "behind"), ("0", "forth again")] {
        step(by);

        eventually("this session knows", || value(&mut client, "SHOW pg_stock.clock_offset") == by);
        outcome(&mut client, &format!("try_reserve_stock('short {name}', 'a', 'm', 1, '300 ms')"));
        outcome(&mut client, &format!("try_reserve_stock('long {name}', 'a', 'm', 1, '3 hours')"));
        eventually(name, || !keys(&mut client).contains("short"));
        assert!(keys(&mut client).contains(&format!("long {name}")));
    }
    let early =
        "SELECT count(*) FROM stock.ledger WHERE operation = 'expire' AND recorded_at < expires_at";
    assert_eq!(value(&mut client, early), "0");
    finish(database);
}
