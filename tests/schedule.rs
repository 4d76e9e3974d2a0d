//! Expiry by pg_cron: scheduled where it is installed, and told what else there is where it is not.

use super::support::{database, finish, sqlstate, value};

#[test]
fn without_pg_cron_the_schedule_says_what_else_there_is() {
    let database = database();
    let mut client = database.connect();
    for (call, instead) in
        [("schedule_expiry()", "cron.schedule_in_database("), ("unschedule_expiry()", "cron.unschedule(")]
    {
        let error = client.simple_query(&format!("SELECT stock.{call}")).expect_err(call);
        assert_eq!(sqlstate(&error), "0A000", "{call}: {error:?}");
        let report = error.as_db_error().expect("an error of the server");
        assert_eq!(report.message(), "pg_cron is not installed in this database");
        let hint = report.hint().expect("a hint");
        assert!(hint.contains(instead) && hint.contains(database.name()), "{hint}");
    }
    finish(database);
}

/// The calls that reach pg_cron, seen by a stand-in with its signatures.
#[test]
fn the_schedule_is_made_replaced_and_taken_back() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA cron;
             CREATE TABLE cron.job (jobid bigint GENERATED ALWAYS AS IDENTITY, jobname text, schedule text, command text,
                 username text DEFAULT current_user, UNIQUE (jobname, username));
             CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql AS $$
                 INSERT INTO cron.job (jobname, schedule, command) VALUES ($1, $2, $3)
                     ON CONFLICT (jobname, username) DO UPDATE SET schedule = excluded.schedule RETURNING jobid $$;
             CREATE FUNCTION cron.unschedule(bigint) RETURNS boolean LANGUAGE sql AS $$
                 DELETE FROM cron.job WHERE jobid = $1 RETURNING true $$;
             CREATE FUNCTION cron.unschedule(text) RETURNS boolean LANGUAGE sql AS $$ SELECT NULL::boolean $$;
             SET allow_system_table_mods = on;
             INSERT INTO pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
             SELECT 99999, 'pg_cron', r.oid, 'cron'::regnamespace, false, '1.6' FROM pg_roles r WHERE r.rolname = current_user;
             RESET allow_system_table_mods",
        )
        .unwrap();
    let jobs = "SELECT coalesce(string_agg(concat_ws('|', jobname, schedule, command), ' and '), '') FROM cron.job";
    assert_eq!(value(&mut client, "SELECT stock.unschedule_expiry()"), "f");
    let job = value(&mut client, "SELECT stock.schedule_expiry()");
    assert_eq!(value(&mut client, jobs), "pg_stock expiry|* * * * *|CALL stock.expire_all()");
    assert_eq!(value(&mut client, "SELECT stock.schedule_expiry('10 seconds')"), job);
    assert_eq!(value(&mut client, jobs), "pg_stock expiry|10 seconds|CALL stock.expire_all()");
    client.batch_execute("INSERT INTO cron.job (jobname, username) VALUES ('pg_stock expiry', 'another')").unwrap();
    assert_eq!(value(&mut client, "SELECT stock.unschedule_expiry()"), "t");
    assert_eq!(value(&mut client, "SELECT stock.unschedule_expiry()"), "f", "the job of another role stays");
    assert_eq!(value(&mut client, "SELECT username FROM cron.job"), "another");
    finish(database);
}
