//! Expiry by pg_cron: scheduled where it is installed, and told what else there is where it is not.

use std::time::{Duration, Instant};

use pg_stock_tests::Cluster;

use super::support::{database, finish, outcome, sqlstate, stocked, value};

#[test]
fn without_pg_cron_the_schedule_says_what_else_there_is() {
    let database = database();
    let mut client = database.connect();
    for (call, instead) in [
        ("schedule_expiry()", "cron.schedule_in_database("),
        ("unschedule_expiry()", "cron.unschedule("),
    ] {
        let error = client.simple_query(&format!("SELECT stock.{call}")).expect_err(call);
        assert_eq!(sqlstate(&error), "0A000", "{call}: {error:?}");
        let report = error.as_db_error().expect("an error of the server");
        assert_eq!(report.message(), "pg_cron is not installed in this database");
        let hint = report.hint().expect("a hint");
        assert!(hint.contains(instead) && hint.contains(database.name()), "{hint}");
    }
    finish(database);
}

/// The real pg_cron, and no worker: the hold comes back within the minute.
#[test]
fn pg_cron_runs_expiry_by_the_minute() {
    let cluster = Cluster::start(&[
        "shared_preload_libraries='pg_stock, pg_cron'",
        "fsync=off",
        "cron.database_name=postgres",
        "cron.use_background_workers=on",
        "pg_stock.databases=''",
    ]);
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    stocked(&mut client, "a", "m", 100);
    outcome(&mut client, "try_reserve_stock('short', 'a', 'm', 1, '1 ms')");
    let job = value(&mut client, "SELECT stock.schedule_expiry('*/5 * * * *')");
    assert_eq!(
        value(&mut client, "SELECT stock.schedule_expiry()"),
        job,
        "the schedule is replaced"
    );
    let jobs =
        "SELECT string_agg(concat_ws('|', jobname, schedule, command), ' and ') FROM cron.job";
    assert_eq!(value(&mut client, jobs), "pg_stock expiry|* * * * *|CALL stock.expire_all()");
    client
        .simple_query("SELECT stock.schedule_expiry('now and then')")
        .expect_err("pg_cron refuses it");
    let begin = Instant::now();
    while value(&mut client, "SELECT count(*) FROM stock.hold") != "0" {
        assert!(
            begin.elapsed() < Duration::from_secs(130),
            "pg_cron did nothing: {}",
            cluster.log()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(value(&mut client, "SELECT stock.unschedule_expiry()"), "t");
    assert_eq!(value(&mut client, "SELECT stock.unschedule_expiry()"), "f");
    pg_stock_tests::invariants::assert_hold(&mut client);
}
