//! Overdue holds come back: by stock.expire_reservations and stock.expire_all, whatever is in their
//! way.

use postgres::Client;

use super::support::{
    at_once, backend, call, database, finish, outcome, sqlstate, stocked, value, wait_for_lock,
};

/// What a sweep says of itself: holds, units, busy levels, errors.
fn sweep(client: &mut Client, most: i64) -> (i64, i64, i64, i64) {
    let row = client
        .query_one(
            "SELECT holds_expired, units_returned, levels_busy, errors FROM \
             stock.expire_reservations($1)",
            &[&(most as i32)],
        )
        .unwrap_or_else(|error| panic!("a sweep: {error:?}"));
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

/// Reserves one unit for each number, for a time to live that has passed when this returns.
fn lapsed(client: &mut Client, name: &str, sku: &str, count: i64) {
    let request = |n| {
        format!(
            r#"{{"key":"{name}{n}","lines":[{{"sku":"{sku}","location":"m","quantity":1}}],"ttl":"1 ms"}}"#
        )
    };
    let batch = (0..count).map(request).collect::<Vec<_>>().join(",");
    let rows = call(client, &format!("reserve_many('[{batch}]')")).unwrap();
    assert!(rows.iter().all(|row| row.outcome == "reserved"), "{:?}", rows[0]);
    value(client, "SELECT pg_sleep(0.005)");
}

#[test]
fn a_sweep_gives_overdue_holds_back_and_says_when_the_next_is_due() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "b", "m", 100);
    lapsed(&mut client, "a", "a", 5);
    lapsed(&mut client, "b", "b", 5);
    outcome(&mut client, "reserve_stock('later', 'a', 'm', 7, '1 hour')");
    assert_eq!(sweep(&mut client, 1000), (10, 10, 0, 0));
    assert_eq!(sweep(&mut client, 1000), (0, 0, 0, 0));
    let next = "SELECT next_due = (SELECT min(expires_at) FROM stock.hold) FROM \
                stock.expire_reservations()";
    assert_eq!(value(&mut client, next), "t");
    let entry = "SELECT DISTINCT (operation, quantity, reserved_delta, expires_at <= recorded_at,
         actor = session_user, available)::text
                   FROM stock.ledger WHERE key LIKE 'b%' AND operation = 'expire'";
    assert_eq!(
        value(&mut client, entry),
        "(expire,1,-1,t,t,)",
        "nobody was answered: no availability"
    );
    assert_eq!(value(&mut client, "SELECT available FROM stock.levels WHERE sku = 'a'"), "93");
    assert_eq!(outcome(&mut client, "try_release_stock('a1')"), "reservation_expired");
    finish(database);
}

#[test]
fn a_sweep_takes_as_many_as_it_is_told_and_the_procedure_takes_all() {
    let database = database();
    let mut client = database.connect();
    for sku in ["a", "b", "c"] {
        stocked(&mut client, sku, "m", 1_000);
        lapsed(&mut client, sku, sku, 100);
    }
    assert_eq!(sweep(&mut client, 7).0, 7);
    assert_eq!(sweep(&mut client, 250).0, 250);
    let due = "SELECT next_due <= clock_timestamp() FROM stock.expire_reservations(1)";
    assert_eq!(value(&mut client, due), "t", "there is more to do now");
    let rows = client.simple_query("CALL stock.expire_all(5)").unwrap();
    assert!(format!("{rows:?}").contains("42"), "{rows:?}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold"), "0");
    let transactions = "SELECT count(DISTINCT xact) FROM stock.ledger WHERE operation = 'expire'";
    assert_eq!(value(&mut client, transactions), "12", "three calls, and 42 in batches of 5");
    for (most, state) in [("0", "22023"), ("-1", "22023"), ("100001", "22023"), ("NULL", "22023")] {
        let error =
            client.simple_query(&format!("SELECT stock.expire_reservations({most})")).unwrap_err();
        assert_eq!(sqlstate(&error), state, "{most}");
    }
    let error = client.batch_execute("BEGIN; CALL stock.expire_all()").unwrap_err();
    assert_eq!(sqlstate(&error), "2D000");
    client.batch_execute("ROLLBACK").unwrap();
    finish(database);
}

/// All deadlines equal, more of them than one sweep takes, in front of the only hold of another
/// level.
#[test]
fn equal_deadlines_hide_nothing() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    stocked(&mut client, "b", "m", 1_000);
    lapsed(&mut client, "a", "a", 200);
    lapsed(&mut client, "b", "b", 1);
    let mut locker = database.connect();
    locker.batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR UPDATE").unwrap();
    assert_eq!(sweep(&mut client, 50), (1, 1, 1, 0), "the other level is reached at once");
    assert_eq!(sweep(&mut client, 50), (0, 0, 1, 0));
    locker.batch_execute("ROLLBACK").unwrap();
    let swept: Vec<i64> = (0..5).map(|_| sweep(&mut client, 50).0).collect();
    assert_eq!(swept, [50, 50, 50, 50, 0]);
    finish(database);
}

#[test]
fn a_locked_level_is_passed_over_and_then_waited_for() {
    let database = database();
    let [mut client, mut locker, mut watcher] = std::array::from_fn(|_| database.connect());
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "b", "m", 10);
    lapsed(&mut client, "a", "a", 2);
    lapsed(&mut client, "b", "b", 2);
    locker.batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR UPDATE").unwrap();
    assert_eq!(sweep(&mut client, 10), (2, 2, 1, 0), "the others are not held up");
    assert_eq!(sweep(&mut client, 10), (0, 0, 1, 0));
    assert_eq!(sweep(&mut client, 10), (0, 0, 1, 0));
    let process = backend(&mut client);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sweep(&mut client, 10));
        wait_for_lock(&mut watcher, process);
        locker.batch_execute("COMMIT").unwrap();
        assert_eq!(waiting.join().unwrap(), (2, 2, 0, 0), "the fourth look waits");
    });
    assert_eq!(value(&mut client, "SHOW lock_timeout"), "0", "the setting is as it was");
    finish(database);
}

#[test]
fn a_level_that_stays_locked_is_not_waited_for_for_ever() {
    let database = database();
    let [mut client, mut locker] = std::array::from_fn(|_| database.connect());
    stocked(&mut client, "a", "m", 10);
    lapsed(&mut client, "a", "a", 2);
    locker.batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR UPDATE").unwrap();
    client.batch_execute("CALL stock.expire_all()").unwrap();
    for _ in 0..6 {
        assert_eq!(sweep(&mut client, 10), (0, 0, 1, 0));
    }
    locker.batch_execute("ROLLBACK").unwrap();
    assert_eq!(sweep(&mut client, 10), (2, 2, 0, 0));
    finish(database);
}

#[test]
fn a_bad_hold_is_set_aside_and_stops_no_other() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "b", "m", 100);
    stocked(&mut client, "gone", "m", 100);
    lapsed(&mut client, "a", "a", 20);
    lapsed(&mut client, "b", "b", 20);
    lapsed(&mut client, "gone", "gone", 1);
    // Three kinds of damage: a hold larger than what is reserved, a claim that is taken, a level
    // that is gone.
    client
        .batch_execute(
            "UPDATE stock.hold SET quantity = 50 WHERE key = 'a7';
             INSERT INTO stock.ledger (recorded_at, quantity, on_hand_delta, reserved_delta, line,
             key, operation, operation_key)
             SELECT now(), 1, 0, 0, 1, key, 'expire',
                    'pg_stock:' || (1000000 * extract(epoch
                    FROM expires_at - '2000-01-01 00:00+00'))::bigint
               FROM stock.hold WHERE key = 'b5';
             DELETE FROM stock.level WHERE sku = 'gone'",
        )
        .unwrap();
    let swept = sweep(&mut client, 1000);
    assert_eq!((swept.0, swept.1, swept.3), (38, 38, 2), "all but the bad ones: {swept:?}");
    for _ in 0..3 {
        sweep(&mut client, 1000);
    }
    let shown = "SELECT string_agg(key || ' ' || sqlstate, ', ' ORDER BY key) FROM stock.overdue
                 WHERE attempts = 1
                    AND retry_at > clock_timestamp() + interval '50 s'
                    AND overdue_for > interval '0'";
    assert_eq!(value(&mut client, shown), "a7 23514, b5 23505, gone0 XX001");
    let runs = "SELECT sum(holds_expired) || ' ' || sum(errors) || ' ' || (count(message) > 0)
                  FROM stock.maintenance_run WHERE job = 'expire'";
    assert_eq!(value(&mut client, runs), "38 3 true");
    // Mended, and due to be tried again.
    client
        .batch_execute(
            "UPDATE stock.hold SET quantity = 1 WHERE key = 'a7';
             UPDATE stock.hold_error SET retry_at = now()",
        )
        .unwrap();
    assert_eq!(sweep(&mut client, 1000).0, 1);
    let pause = "SELECT attempts || ' ' || extract(epoch FROM retry_at - last_failed_at)::int
                   FROM stock.hold_error WHERE key = 'b5'";
    assert_eq!(value(&mut client, pause), "2 120", "the pauses grow");
    let later = "SELECT extract(epoch FROM retry_at - last_failed_at)::int FROM stock.hold_error \
                 WHERE key = 'b5'";
    client
        .batch_execute(
            "UPDATE stock.hold_error SET attempts = 30, retry_at = now() WHERE key = 'b5'",
        )
        .unwrap();
    sweep(&mut client, 1000);
    assert_eq!(value(&mut client, later), "21600", "up to six hours");
    assert_eq!(
        value(&mut client, "SELECT string_agg(key, ' ' ORDER BY key) FROM stock.overdue"),
        "b5 gone0"
    );
    // The level is made again, without a bound; the hold is found all the same.
    client
        .batch_execute(
            "INSERT INTO stock.level (sku, location, on_hand, reserved, version, updated_at)
             VALUES ('gone', 'm', 100, 1, 2, now());
             UPDATE stock.hold_error SET retry_at = now() WHERE key = 'gone0'",
        )
        .unwrap();
    assert_eq!(sweep(&mut client, 1000).0, 1);
}

/// A sweep that is rolled back, wholly or to a savepoint, or prepared and rolled back then, has
/// swept nothing.
#[test]
fn what_is_rolled_back_is_swept_again() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    lapsed(&mut client, "a", "a", 5);
    let undo = [
        ("BEGIN", "ROLLBACK".to_owned()),
        ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT".to_owned()),
        ("BEGIN", format!("PREPARE TRANSACTION '{0}'; ROLLBACK PREPARED '{0}'", database.name())),
    ];
    for (begin, end) in undo {
        client.batch_execute(begin).unwrap();
        assert_eq!(sweep(&mut client, 1000).0, 5);
        end.split("; ").for_each(|end| client.batch_execute(end).unwrap());
    }
    assert_eq!(sweep(&mut client, 1000).0, 5);
    finish(database);
}

/// Where the clock was stepped back, what falls due lies before the place where the last sweep
/// stopped.
#[test]
fn a_session_whose_clock_is_stepped_back_looks_at_everything() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    client.batch_execute("SET pg_stock.clock_offset = 3600").unwrap();
    assert_eq!(sweep(&mut client, 1000).0, 0);
    client.batch_execute("SET pg_stock.clock_offset = 0").unwrap();
    lapsed(&mut client, "a", "a", 3);
    assert_eq!(sweep(&mut client, 1000).0, 3);
    finish(database);
}

#[test]
fn sweepers_beside_each_other_and_beside_buyers_never_deadlock() {
    let database = database();
    let mut client = database.connect();
    let skus = ["a", "b", "c"];
    skus.iter().for_each(|sku| stocked(&mut client, sku, "m", 200));
    at_once(database, 12, |number, client| {
        for turn in 0..60 {
            let key = format!("o{number} {turn}");
            let (one, two) = (skus[turn % 3], skus[(turn + number) % 3]);
            let lines = format!(
                r#"[{{"sku":"{one}","location":"m","quantity":1}},{{"sku":"{two}","location":"m","quantity":2}}]"#
            );
            match number % 4 {
                0 => drop(sweep(client, 20)),
                1 => drop(client.query("SELECT * FROM stock.expire_reservations(3)", &[]).unwrap()),
                _ => {
                    let ttl = r#"{"ttl":"3 ms"}"#;
                    call(client, &format!("try_reserve_stock('{key}', '{lines}', '{ttl}')"))
                        .unwrap();
                    let end = match turn % 5 {
                        0 => format!("try_confirm_stock('{key}')"),
                        1 => format!("try_release_stock('{key}')"),
                        2 => format!("try_extend_reservation('{key}', '1 ms')"),
                        3 => format!("try_reserve_stock('again {key}', '{one}', 'm', 30, '1 ms')"),
                        _ => continue,
                    };
                    call(client, &end).unwrap();
                }
            }
        }
    });
    value(&mut client, "SELECT pg_sleep(0.01)");
    client.batch_execute("CALL stock.expire_all()").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold"), "0");
    finish(database);
}

/// The log is bounded: runs are summed up by the hour, errors kept, and all of it forgotten after
/// thirty days.
#[test]
fn the_log_of_runs_is_summed_up_and_forgotten() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    client
        .batch_execute(
            "INSERT INTO stock.maintenance_run (job, started_at, finished_at, holds_expired,
             units_returned, errors)
             SELECT 'expire', t, t, 2, 3, CASE WHEN i = 7 THEN 1 ELSE 0 END
               FROM generate_series(1, 600) i, LATERAL (SELECT date_trunc('hour',
               now()) - '10 hours'::interval + i * '10 s'::interval AS t) t;
             INSERT INTO stock.maintenance_run (job, hourly, started_at, finished_at)
             VALUES ('expire', true, now() - '31 days'::interval, now() - '31 days'::interval)",
        )
        .unwrap();
    for _ in 0..2 {
        database.connect().query("SELECT stock.expire_reservations()", &[]).unwrap();
    }
    let sums = "SELECT string_agg(concat_ws(' ', hourly, runs, holds_expired, units_returned,
                errors), ', '
                                  ORDER BY started_at) FROM stock.maintenance_run
                                  WHERE started_at < now() - '1 hour'::interval";
    assert_eq!(value(&mut client, sums), "t 358 716 1074 0, f 1 2 3 1, t 241 482 723 0");
}

/// While a dump is being restored, holds may be there before their ledger entries are. The sequence
/// is set last.
#[test]
fn a_restore_is_not_disturbed() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "INSERT INTO stock.level (sku, location, on_hand, reserved, version, next_due,
             updated_at)
             VALUES ('a', 'm', 5, 1, 2, '2020-01-01', now());
             INSERT INTO stock.hold (key, line, sku, location, quantity, expires_at, reserved_at)
             VALUES ('o', 1, 'a', 'm', 1, '2020-01-01', '2020-01-01')",
        )
        .unwrap();
    assert_eq!(sweep(&mut client, 10), (0, 0, 0, 0));
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold_error"), "0");
    client
        .batch_execute(
            "INSERT INTO stock.ledger (position, recorded_at, expires_at, quantity, on_hand_delta,
             reserved_delta,
                                       on_hand_after, reserved_after, version, line, key, operation,
                                       sku, location)
             VALUES (1, '2020-01-01', NULL, 5, 5, 0, 5, 0, 1, 1, 'r', 'receive', 'a', 'm'),
                    (2, '2020-01-01', '2020-01-01', 1, 0, 1, 5, 1, 2, 1, 'o', 'reserve', 'a', 'm');
             SELECT setval('stock.ledger_position_seq', 2)",
        )
        .unwrap();
    assert_eq!(sweep(&mut client, 10), (1, 1, 0, 0));
    finish(database);
}

/// A hold whose transaction took longer to commit than it was to live lies where a sweep has looked
/// already: it blocks nobody, and comes back once everything is looked at again, after an hour.
#[test]
fn once_an_hour_a_session_looks_at_everything() {
    let database = database();
    let [mut client, mut slow] = std::array::from_fn(|_| database.connect());
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "b", "m", 10);
    slow.batch_execute("BEGIN; SELECT stock.reserve_stock('slow', 'a', 'm', 10, '1 ms')").unwrap();
    lapsed(&mut client, "quick", "b", 1);
    assert_eq!(sweep(&mut client, 1000).0, 1);
    slow.batch_execute("COMMIT").unwrap();
    assert_eq!(sweep(&mut client, 1000).0, 0);
    assert_eq!(value(&mut client, "SELECT stock.available('a', 'm')"), "10", "it blocks nobody");
    client.batch_execute("SET pg_stock.clock_offset = 3700").unwrap();
    assert_eq!(sweep(&mut client, 1000).0, 1);
    client.batch_execute("SET pg_stock.clock_offset = 0").unwrap();
    finish(database);
}

#[test]
fn a_run_that_finds_nothing_leaves_a_row_only_where_it_looked_at_everything() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let runs = "SELECT count(*) FROM stock.maintenance_run";
    for _ in 0..3 {
        sweep(&mut client, 1000);
    }
    assert_eq!(value(&mut client, runs), "1", "a session's first");
    let next_due = "SELECT next_due IS NULL FROM stock.expire_reservations()";
    assert_eq!(value(&mut client, next_due), "t", "nothing is held");
    client.batch_execute("SET pg_stock.clock_offset = 3700").unwrap();
    sweep(&mut client, 1000);
    sweep(&mut client, 1000);
    assert_eq!(value(&mut client, runs), "2", "and one an hour");
    client.batch_execute("SET pg_stock.clock_offset = 0").unwrap();
    finish(database);
}

/// Unless it is told otherwise, a sweep takes a thousand.
#[test]
fn a_sweep_takes_a_thousand() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 2_000);
    lapsed(&mut client, "a", "a", 1_200);
    assert_eq!(value(&mut client, "SELECT holds_expired FROM stock.expire_reservations()"), "1000");
    finish(database);
}
