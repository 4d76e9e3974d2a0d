//! The worker lives in clusters that were not made for it: publications and subscriptions, standbys
//! that are away, settings that were meant for others, many databases, few worker slots.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use pg_stock_tests::{Cluster, Database, pg_config};
use postgres::Client;

use super::support::feed::{Follower, Listener, levels};
use super::support::{backend, eventually, finish, outcome, stocked, value};

fn start(settings: &[&str]) -> Cluster {
    let mut all = vec!["shared_preload_libraries=pg_stock", "fsync=off", "max_worker_processes=20"];
    all.extend(settings);
    Cluster::start(&all)
}

fn set(client: &mut Client, setting: &str, to: &str) {
    client.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{to}'")).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
}

/// A database in which the worker has something to do, and a connection to it.
fn shop(cluster: &Cluster) -> (Database<'_>, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    (database, client)
}

/// Holds a unit for a moment; its coming back shows that the worker works.
fn lapses(client: &mut Client, key: &str) {
    assert_eq!(
        outcome(client, &format!("try_reserve_stock('{key}', 'a', 'm', 1, '10 ms')")),
        "reserved"
    );
    let held = format!("SELECT count(*) FROM stock.hold WHERE key = '{key}'");
    eventually("the hold is back", || value(client, &held) == "0");
}

/// The column of the view that tells how the worker is.
fn status(client: &mut Client, column: &str) -> String {
    value(client, &format!("SELECT coalesce({column}::text, '') FROM stock.worker"))
}

fn workers(client: &mut Client) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_stock worker'";
    client.query_one(count, &[]).unwrap().get(0)
}

/// Debezium's habit: every table is published. What the worker deletes must have a name for the
/// subscriber.
#[test]
fn a_publication_of_all_tables_stops_nothing() {
    let cluster = start(&["wal_level=logical"]);
    let (database, mut client) = shop(&cluster);
    client.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \
                     'pg_stock worker'";
    eventually("a worker", || workers(&mut client) > 0);
    client.batch_execute(terminate).unwrap();
    lapses(&mut client, "published");
    client
        .batch_execute(
            "INSERT INTO stock.maintenance_run (job, started_at, finished_at)
             SELECT 'expire', now() - age, now() - age
               FROM unnest('{2 hours, 40 days}'::interval[]) age;
             INSERT INTO stock.hold_error
             SELECT 'gone', 1, 1, now(), now(), now(), 'XX001', 'a hold that is no longer there'",
        )
        .unwrap();
    let mut session = database.connect();
    assert_eq!(value(&mut session, "SELECT errors FROM stock.expire_reservations()"), "0");
    let tidy = "SELECT (SELECT count(*) FROM stock.maintenance_run
                WHERE started_at < now() - interval '30 days')
                     + (SELECT count(*) FROM stock.hold_error)";
    assert_eq!(value(&mut session, tidy), "0");
    let unnamed = "SELECT string_agg(relname, ', ') FROM pg_class c
                    WHERE relnamespace = 'stock'::regnamespace AND relkind = 'r'
                    AND relreplident = 'd'
                      AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid
                      AND indisprimary)";
    assert_eq!(value(&mut client, unnamed), "", "every table can be published");
    assert_eq!(status(&mut client, "failing_since"), "");
    finish(database);
}

/// What cannot be tidied does not keep holds from coming back.
#[test]
fn a_log_that_cannot_be_tidied_stops_no_sweep() {
    let cluster = start(&["pg_stock.databases=''"]);
    let (database, mut client) = shop(&cluster);
    outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1, '1 microsecond')");
    client
        .batch_execute(
            "INSERT INTO stock.maintenance_run (job, started_at, finished_at) SELECT 'expire', t, t
             FROM (SELECT now() - interval '40 days') x(t);
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'not from here'; END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON stock.maintenance_run
                 FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    assert_eq!(value(&mut client, "SELECT holds_expired FROM stock.expire_reservations()"), "1");
    assert!(cluster.log().contains("could not tidy what it writes down of expiry: not from here"));
    finish(database);
}

/// An error that lasts is shown, with since when, and stops neither the feed nor, in the end,
/// expiry.
#[test]
fn the_last_error_of_the_worker_is_in_a_view() {
    let cluster = start(&[]);
    let (database, mut client) = shop(&cluster);
    lapses(&mut client, "first");
    assert_eq!(status(&mut client, "state"), "working");
    client
        .batch_execute(
            "ALTER TABLE stock.maintenance_run ADD CONSTRAINT broken CHECK (holds_expired = 0) NOT \
             VALID",
        )
        .unwrap();
    let mut listener = Listener::begin(database.connect());
    outcome(&mut client, "try_reserve_stock('second', 'a', 'm', 1, '10 ms')");
    eventually("the error is shown", || status(&mut client, "error").contains("broken"));
    assert_eq!(
        value(
            &mut client,
            "SELECT failing_since <= clock_timestamp() AND failures > 0 FROM stock.worker"
        ),
        "t"
    );
    stocked(&mut client, "told", "m", 1);
    let committed = levels(&mut client);
    eventually("the feed goes on", || {
        listener.hear(Duration::from_millis(5));
        listener.levels == committed
    });
    client.batch_execute("ALTER TABLE stock.maintenance_run DROP CONSTRAINT broken").unwrap();
    // Also where another worker succeeds than the one that failed.
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \
                     'pg_stock worker'";
    client.batch_execute(terminate).unwrap();
    eventually("the hold is back", || value(&mut client, "SELECT count(*) FROM stock.hold") == "0");
    eventually("nothing is wrong any more", || {
        status(&mut client, "failing_since || error").is_empty()
    });
    finish(database);
}

/// Whoever may write everything could set the sequence back to "never called", which a restore
/// looks like: seen.
#[test]
fn a_sequence_that_was_never_called_is_seen() {
    let cluster = start(&["pg_stock.poll_interval=1s"]);
    let (database, mut client) = shop(&cluster);
    lapses(&mut client, "k");
    client.batch_execute("SELECT setval('stock.ledger_position_seq', 1, false)").unwrap();
    eventually("the view says so", || status(&mut client, "state") == "nothing_yet");
    let problem = "SELECT problem FROM stock.verify()";
    assert_eq!(
        value(&mut client, problem),
        "the sequence stock.ledger_position_seq is behind the ledger"
    );
    assert_eq!(outcome(&mut client, "try_reserve_stock('l', 'a', 'm', 1)"), "reserved");
    eventually("it works again", || status(&mut client, "state") == "working");
    client.batch_execute("SELECT setval('stock.ledger_position_seq', 1000)").unwrap();
    finish(database);
}

#[test]
fn without_preload_the_view_says_so() {
    let database = super::support::database();
    let mut client = database.connect();
    assert_eq!(
        value(&mut client, "SELECT preloaded || ' ' || state FROM stock.worker"),
        "false not_preloaded"
    );
    finish(database);
}

/// A synchronous standby that is away, for those who asked for it; everybody else commits locally.
/// Neither expiry nor anybody's NOTIFY waits for it, and a database can be dropped.
#[test]
fn a_standby_that_is_away_stops_neither_expiry_nor_anybody_s_notify() {
    for (server, is_told) in [("local", true), ("on", false)] {
        let cluster = start(&[]);
        let (database, mut client) = shop(&cluster);
        let dropped = cluster.database();
        stocked(&mut dropped.connect(), "a", "m", 1);
        lapses(&mut client, "before");
        let mut listener = Listener::begin(database.connect());
        let mut admin = cluster.connect("postgres");
        admin.batch_execute("SET synchronous_commit = local").unwrap();
        set(&mut admin, "synchronous_commit", server);
        set(&mut admin, "synchronous_standby_names", "nobody");
        client
            .batch_execute("SET synchronous_commit = local; SET statement_timeout = '5s'")
            .unwrap();
        eventually("the names are known", || {
            value(&mut client, "SHOW synchronous_standby_names") == "nobody"
        });
        lapses(&mut client, "meanwhile");
        // The NOTIFY of another database, whose commit takes the same lock.
        let mut other = cluster.connect("postgres");
        other
            .batch_execute(
                "SET synchronous_commit = local; SET statement_timeout = '5s'; NOTIFY anybody",
            )
            .unwrap();
        let committed = levels(&mut client);
        if is_told {
            eventually("it is told", || {
                listener.hear(Duration::from_millis(5));
                listener.levels == committed
            });
        } else {
            let shown = "SELECT coalesce(max(error), '') FROM stock.feed_lag";
            eventually("the cause is shown", || {
                value(&mut client, shown).contains("did not confirm")
            });
            listener.hear(Duration::from_millis(50));
            assert_ne!(listener.levels, committed, "what no standby has is not told");
            other.batch_execute("NOTIFY anybody").unwrap();
        }
        admin.batch_execute("SET statement_timeout = '8s'").unwrap();
        admin.batch_execute(&format!("DROP DATABASE {}", dropped.name())).unwrap();
        set(&mut admin, "synchronous_standby_names", "");
        eventually("all is told in the end", || {
            listener.hear(Duration::from_millis(5));
            listener.levels == committed
        });
        finish(database);
    }
}

/// Logical replication to a new server: its holds are the publisher's to end, until the
/// subscription is.
#[test]
fn a_subscriber_neither_expires_nor_tells() {
    let publisher = start(&["wal_level=logical", "pg_stock.databases=''"]);
    let subscriber = start(&["wal_level=logical", "pg_stock.poll_interval=1s"]);
    let (source, target) = (publisher.database(), subscriber.database());
    let (mut here, mut there) = (source.connect(), target.connect());
    stocked(&mut here, "a", "m", 100);
    here.batch_execute("CREATE PUBLICATION stock FOR TABLES IN SCHEMA stock").unwrap();
    there
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION stock CONNECTION 'host={} port=5432 user=postgres dbname={}' \
             PUBLICATION stock",
            publisher.socket(),
            source.name()
        ))
        .unwrap();
    eventually("the tables are copied", || {
        value(&mut there, "SELECT count(*) FROM stock.level") == "1"
    });
    outcome(&mut here, "try_reserve_stock('k', 'a', 'm', 1, '200 ms')");
    eventually("the hold has arrived", || {
        value(&mut there, "SELECT count(*) FROM stock.hold") == "1"
    });
    there.batch_execute("SELECT pg_reload_conf()").unwrap();
    eventually("the view says so", || status(&mut there, "state") == "subscription");
    eventually("it is overdue", || value(&mut there, "SELECT count(*) FROM stock.overdue") == "1");
    assert_eq!(value(&mut there, "SELECT holds_expired FROM stock.expire_reservations()"), "0");
    assert_eq!(value(&mut there, "SELECT changes FROM stock.emit_changes()"), "0");
    // The publisher expires it, and what it writes is not in anybody's way.
    assert_eq!(value(&mut here, "SELECT holds_expired FROM stock.expire_reservations()"), "1");
    eventually("that arrives, too", || value(&mut there, "SELECT count(*) FROM stock.hold") == "0");
    outcome(&mut here, "try_reserve_stock('last', 'a', 'm', 1, '300 ms')");
    eventually("the last one", || value(&mut there, "SELECT count(*) FROM stock.hold") == "1");
    // The new server takes over.
    there
        .batch_execute(
            "SELECT setval('stock.ledger_position_seq', (SELECT max(position) FROM stock.ledger))",
        )
        .unwrap();
    there.batch_execute("ALTER SUBSCRIPTION stock DISABLE").unwrap();
    there.batch_execute("ALTER SUBSCRIPTION stock SET (slot_name = NONE)").unwrap();
    there.batch_execute("DROP SUBSCRIPTION stock").unwrap();
    outcome(&mut there, "try_reserve_stock('here', 'a', 'm', 1, '1 hour')");
    eventually("the worker takes over", || {
        value(&mut there, "SELECT count(*) FROM stock.hold") == "1"
    });
    assert_eq!(value(&mut there, "SELECT count(*) FROM stock.verify()"), "0");
    finish(source);
}

/// Settings that were meant for somebody else: in postgresql.conf, or by the owner of the database.
#[test]
fn settings_that_were_meant_for_others_do_not_stop_the_worker() {
    let cluster = start(&[]);
    let (database, mut client) = shop(&cluster);
    let mut admin = cluster.connect("postgres");
    client
        .batch_execute(
            "SET statement_timeout = 0; SET lock_timeout = 0;
             SET idle_in_transaction_session_timeout = 0;
             CREATE ROLE nobody_in_particular",
        )
        .unwrap();
    for setting in [
        "role = nobody_in_particular",
        "search_path = nowhere",
        "default_transaction_isolation = serializable",
        "session_replication_role = replica",
        "row_security = off",
        "enable_indexscan = off",
        "transform_null_equals = on",
        "standard_conforming_strings = off",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
    ] {
        admin.batch_execute(&format!("ALTER DATABASE {} SET {setting}", database.name())).unwrap();
    }
    let version: i32 = value(&mut admin, "SHOW server_version_num").parse().unwrap();
    if version >= 170_000 {
        admin
            .batch_execute(&format!(
                "ALTER DATABASE {} SET transaction_timeout = '1ms'",
                database.name()
            ))
            .unwrap();
    }
    eventually("a worker", || workers(&mut admin) > 0);
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \
                     'pg_stock worker'";
    admin.batch_execute(terminate).unwrap();
    lapses(&mut client, "k");
    assert_eq!(
        value(&mut client, "SELECT actor FROM stock.ledger WHERE operation = 'expire'"),
        "postgres"
    );
    assert_eq!(status(&mut client, "failing_since"), "");
    admin.batch_execute(&format!("ALTER DATABASE {} RESET ALL", database.name())).unwrap();
    finish(database);
}

/// A reader's first snapshot in a life of the database, left open in its transaction: messages go
/// out all the same, and its cursor is good.
#[test]
fn a_first_snapshot_that_stays_open_holds_nothing_up() {
    let cluster = start(&["pg_stock.databases=''"]);
    let (database, mut client) = shop(&cluster);
    let mut reader = database.connect();
    reader.batch_execute("BEGIN").unwrap();
    let mut follower = Follower::begin(&mut reader);
    let mut listener = Listener::begin(database.connect());
    stocked(&mut client, "later", "m", 1);
    let mut admin = cluster.connect("postgres");
    set(&mut admin, "pg_stock.databases", "*");
    let committed = levels(&mut client);
    eventually("it is told while the reader stays", || {
        listener.hear(Duration::from_millis(5));
        listener.levels == committed
    });
    reader.batch_execute("COMMIT").unwrap();
    follower.catch_up(&mut reader);
    assert_eq!(follower.levels, committed);
    // A read-only session can begin, too.
    client.batch_execute("SELECT stock.begin_generation()").unwrap();
    reader.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(Follower::begin(&mut reader).levels, committed);
    reader.batch_execute("COMMIT").unwrap();
    finish(database);
}

/// Very many levels of one unit each, received by one transaction: what as many calls of
/// `receive_stock` would write.
fn receive_many(client: &mut Client, many: usize) {
    client
        .batch_execute(&format!(
            "BEGIN;
             INSERT INTO stock.level (on_hand, reserved, version, updated_at, sku, location)
             SELECT 1, 0, 1, now(), 'l' || n, 'm' FROM generate_series(1, {many}) n;
             INSERT INTO stock.ledger (recorded_at, quantity, on_hand_delta, reserved_delta,
             on_hand_after,
                                       reserved_after, available, version, line, key, operation,
                                       sku, location)
             SELECT now(), 1, 1, 0, 1, 0, 1, 1, 1, 'r' || n, 'receive', 'l' || n, 'm'
               FROM generate_series(1, {many}) n;
             COMMIT"
        ))
        .unwrap();
}

/// Twenty thousand levels whose holds are overdue are locked by one transaction: what is free comes
/// back all the same.
#[test]
fn what_is_locked_does_not_delay_what_is_free() {
    let cluster = start(&["pg_stock.databases=''"]);
    let (database, mut client) = shop(&cluster);
    let many = 20_000;
    receive_many(&mut client, many);
    for half in 0..2 {
        let orders = format!(
            "SELECT count(*) FROM stock.reserve_many((SELECT jsonb_agg(jsonb_build_object('key',
             'k' || n, 'ttl', '1 microsecond',
                'lines', jsonb_build_array(jsonb_build_object('sku', 'l' || n, 'location', 'm',
                'quantity', 1))))
               FROM generate_series({}, {}) n))",
            half * many / 2 + 1,
            (half + 1) * many / 2
        );
        client.batch_execute(&orders).unwrap();
    }
    outcome(&mut client, "try_reserve_stock('free', 'a', 'm', 1, '1 microsecond')");
    let mut locker = database.connect();
    locker
        .batch_execute("BEGIN; SELECT FROM stock.level WHERE sku LIKE 'l%' FOR NO KEY UPDATE")
        .unwrap();
    let swept = client
        .query_one("SELECT holds_expired, levels_busy FROM stock.expire_reservations(500)", &[])
        .unwrap();
    assert_eq!((swept.get::<_, i64>(0), swept.get::<_, i64>(1)), (1, many as i64), "in one sweep");
    locker.batch_execute("COMMIT").unwrap();
    client.batch_execute("CALL stock.expire_all(5000)").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold"), "0");
    finish(database);
}

/// With twelve databases and a few slots one probe is under way at a time: the slots are there for
/// others.
#[test]
fn probes_take_one_worker_slot_and_complain_of_nothing() {
    let cluster = start(&[
        "max_worker_processes=6",
        "max_logical_replication_workers=0",
        "max_parallel_workers=0",
    ]);
    let mut admin = cluster.connect("postgres");
    for number in 0..20 {
        admin.batch_execute(&format!("CREATE DATABASE empty_{number} TEMPLATE template0")).unwrap();
    }
    let (database, mut client) = shop(&cluster);
    lapses(&mut client, "k");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let busy = workers(&mut admin);
        assert!(
            busy <= 3,
            "{busy} processes: the worker of the template, that of the shop, and one probe"
        );
    }
    assert!(!cluster.log().contains("worker slots are taken"), "{}", cluster.log());
    finish(database);
}

/// More databases with the extension than there is room for: said once, and the others are served.
#[test]
fn a_want_of_room_is_said_once() {
    let cluster = start(&["pg_stock.max_databases=2"]);
    let shops: Vec<_> = (0..4).map(|_| shop(&cluster)).collect();
    cluster.connect("postgres").batch_execute("SELECT pg_reload_conf()").unwrap();
    eventually("the log says so", || {
        cluster.log().contains("pg_stock.max_databases are served already")
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.log().matches("pg_stock.max_databases are served already").count(), 1);
    assert_eq!(workers(&mut cluster.connect("postgres")), 2);
    for (database, _client) in shops {
        finish(database);
    }
}

/// Many databases without the extension: all that have it get their worker, soon.
#[test]
fn a_database_among_very_many_gets_its_worker() {
    let cluster = start(&["max_worker_processes=8"]);
    let mut admin = cluster.connect("postgres");
    for number in 0..139 {
        admin
            .batch_execute(&format!(
                "CREATE DATABASE empty_{number} TEMPLATE template0 STRATEGY file_copy"
            ))
            .unwrap();
    }
    cluster.stop(false);
    cluster.resume();
    let (database, mut client) = shop(&cluster);
    lapses(&mut client, "k");
    assert!(!cluster.log().contains("WARNING:  pg_stock"), "{}", cluster.log());
    finish(database);
}

/// A transaction that changed very many levels is told of, and its memory given back.
#[test]
fn a_very_large_transaction_is_told_of_and_its_memory_given_back() {
    let cluster = start(&[]);
    let (database, mut client) = shop(&cluster);
    lapses(&mut client, "k");
    let worker = status(&mut client, "pid");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        anonymous.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = resident();
    let many = 100_000;
    receive_many(&mut client, many);
    let told = "SELECT changes_behind FROM stock.feed_lag";
    eventually("it is told", || value(&mut client, told) == "0");
    eventually("the memory is given back", || resident() < before + 16_000);
    assert_eq!(status(&mut client, "pid"), worker, "by the same process");
    finish(database);
}

/// From 18 on the files may lie anywhere: in an image that is mounted as a volume, say.
#[test]
fn an_extension_in_a_folder_of_its_own_works() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let files = [
        (format!("{}/extension", pg_config("--sharedir")), "share/extension"),
        (pg_config("--pkglibdir"), "lib"),
    ];
    for (from, to) in files {
        let to = folder.path().join(to);
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            if file.file_name().to_string_lossy().starts_with("pg_stock") {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().display();
    let cluster = Cluster::start(&[
        &format!("extension_control_path='{path}/share:$system'"),
        &format!("dynamic_library_path='{path}/lib:$libdir'"),
        "shared_preload_libraries=pg_stock",
        "fsync=off",
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    assert_eq!(outcome(&mut client, "reserve_stock('k', 'a', 'm', 1)"), "reserved");
    eventually("the worker", || value(&mut client, "SELECT state FROM stock.worker") == "working");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", backend(&mut client))).unwrap();
    let loaded: BTreeSet<&str> = maps
        .lines()
        .filter(|line| line.ends_with("/pg_stock.so"))
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    let ours = format!("{path}/lib/pg_stock.so");
    assert_eq!(loaded, BTreeSet::from([&ours[..]]));
}
