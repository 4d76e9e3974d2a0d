//! The change feed: whoever follows it sees every commit, whatever happens in between.

use std::time::Duration;

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::feed::{Follower, Listener, levels};
use super::support::{cluster, database, eventually, finish, outcome, sqlstate, stocked, value};

fn receive(client: &mut Client, key: &str, sku: &str) {
    assert_eq!(outcome(client, &format!("receive_stock('{key}', '{sku}', 'm', 1)")), "received");
}

/// A database in which something has happened, so that a generation can begin.
fn shop() -> Database<'static> {
    let database = database();
    stocked(&mut database.connect(), "first", "m", 1);
    database
}

fn refused(client: &mut Client, sql: &str) -> String {
    sqlstate(&client.simple_query(sql).expect_err(sql))
}

/// A counter that is handed out before the commit is no cursor: here the later position commits first.
#[test]
fn what_commits_late_is_not_skipped() {
    let database = shop();
    let (mut first, mut second, mut reader) = (database.connect(), database.connect(), database.connect());
    let mut follower = Follower::begin(&mut reader);
    let mut early = first.transaction().unwrap();
    early.batch_execute("SELECT stock.receive_stock('early', 'a', 'm', 1)").unwrap();
    receive(&mut second, "late", "b");
    assert_eq!(follower.catch_up(&mut reader), 1);
    assert_eq!(follower.catch_up(&mut reader), 0);
    early.commit().unwrap();
    assert_eq!(follower.catch_up(&mut reader), 1);
    assert_eq!(follower.levels, levels(&mut reader));
    finish(database);
}

/// Neither a long transaction, here or in another database, nor a forgotten prepared one holds the feed up.
#[test]
fn nobody_else_s_transaction_holds_the_feed_up() {
    let (database, elsewhere) = (shop(), database());
    let (mut client, mut reader, mut forgotten) = (database.connect(), database.connect(), database.connect());
    forgotten
        .batch_execute("BEGIN; SELECT stock.receive_stock('p', 'p', 'm', 1); PREPARE TRANSACTION 'forgotten feed'")
        .unwrap();
    let (mut far, mut near) = (elsewhere.connect(), database.connect());
    far.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    near.batch_execute("BEGIN; SELECT stock.receive_stock('n', 'n', 'm', 1)").unwrap();
    let mut follower = Follower::begin(&mut reader);
    for number in 1..=5 {
        receive(&mut client, &format!("r{number}"), "a");
        assert_eq!(follower.catch_up(&mut reader), 1);
        assert_eq!(follower.levels, levels(&mut reader));
    }
    near.batch_execute("COMMIT").unwrap();
    forgotten.batch_execute("COMMIT PREPARED 'forgotten feed'").unwrap();
    assert_eq!(follower.catch_up(&mut reader), 2);
    assert_eq!(follower.levels, levels(&mut reader));
    finish(database);
}

/// A long transaction widens nothing: the next look reads what is new, and not again what was read.
#[test]
fn a_long_transaction_does_not_make_a_look_dear() {
    let database = shop();
    let (mut client, mut reader, mut long) = (database.connect(), database.connect(), database.connect());
    long.batch_execute("BEGIN; SELECT stock.receive_stock('long', 'l', 'm', 1)").unwrap();
    let mut follower = Follower::begin(&mut reader);
    let many = "SELECT count(*) FROM generate_series(1, 300) i, LATERAL stock.receive_stock('r' || i, 'a', 'm', 1)";
    for _ in 0..3 {
        value(&mut client, &many.replace("'r' ||", &format!("'{}' ||", follower.cursor)));
        follower.catch_up(&mut reader);
    }
    let read = "SELECT coalesce(pg_stat_get_xact_tuples_fetched('stock.ledger_xact'::regclass), 0)
                       + coalesce(pg_stat_get_xact_tuples_returned('stock.ledger_xact'::regclass), 0)";
    receive(&mut client, "one", "a");
    reader.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    reader.batch_execute("BEGIN").unwrap();
    assert_eq!(follower.ask(&mut reader, 1_000), "caught_up");
    let entries: i64 = reader.query_one(read, &[]).unwrap().get(0);
    reader.batch_execute("COMMIT").unwrap();
    assert!((1..10).contains(&entries), "{entries} entries of the index were read for one change");
    long.batch_execute("COMMIT").unwrap();
    follower.catch_up(&mut reader);
    assert_eq!(follower.levels, levels(&mut reader));
    finish(database);
}

/// The number of one's own transaction can look ended in one's own snapshot. So no cursor is given out where something
/// was written, and what is written after one was given out is new to it.
#[test]
fn a_cursor_never_claims_its_own_transaction() {
    let database = shop();
    let (mut client, mut other) = (database.connect(), database.connect());
    let mut follower = Follower::begin(&mut client);
    for sql in [
        "SELECT stock.changes_since('stock1:g:1:')",
        "SELECT stock.snapshot()",
        "SELECT stock.emit_changes()",
        "SELECT stock.begin_generation()",
    ] {
        client.batch_execute("BEGIN; SELECT stock.receive_stock('own', 'o', 'm', 1)").unwrap();
        assert_eq!(refused(&mut client, sql), "25001", "{sql}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        assert_eq!(follower.ask(&mut client, 100), "caught_up");
        receive(&mut client, &format!("own {level}"), level);
        receive(&mut other, &format!("other {level}"), "x");
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(follower.catch_up(&mut client), 2, "{level}");
        assert_eq!(follower.levels, levels(&mut client));
    }
    finish(database);
}

/// The first snapshot of a database begins the generation, and so has a transaction's number itself.
#[test]
fn the_first_snapshot_may_be_part_of_a_transaction_that_goes_on() {
    let database = shop();
    let (mut client, mut other) = (database.connect(), database.connect());
    client.batch_execute("BEGIN").unwrap();
    let mut follower = Follower::begin(&mut client);
    receive(&mut client, "own", "o");
    // A later transaction ends first: the own one now lies before the end of every snapshot.
    receive(&mut other, "other", "x");
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(follower.catch_up(&mut client), 2);
    assert_eq!(follower.levels, levels(&mut client));
    finish(database);
}

/// Pages may be read while everything changes.
#[test]
fn a_snapshot_in_pages_and_the_changes_since_are_all_there_is() {
    let database = database();
    let (mut client, mut other) = (database.connect(), database.connect());
    client
        .batch_execute("SELECT stock.receive_stock('r' || i, 's' || i, 'm', 1) FROM generate_series(1, 50) i")
        .unwrap();
    let mut page: Option<String> = None;
    let mut told = 0;
    let cursor = loop {
        let rows = client.query("SELECT * FROM stock.snapshot($1, 10)", &[&page]).unwrap();
        let (last, some) = rows.split_last().unwrap();
        told += some.len();
        receive(&mut other, &format!("meanwhile {told}"), "s1");
        receive(&mut other, &format!("new {told}"), &format!("a{told}"));
        page = last.get("next_cursor");
        match last.get("outcome") {
            "more_levels" => {}
            "complete" => break page.unwrap(),
            other => panic!("{other}"),
        }
    };
    assert_eq!(told, 50, "levels that were created behind the place are among the changes");
    let mut follower = Follower { cursor, levels: Default::default() };
    follower.catch_up(&mut client);
    assert_eq!(follower.levels.len(), 1 + 5, "what changed meanwhile: {:?}", follower.levels);
    finish(database);
}

#[test]
fn cursors_that_are_none_or_the_other_s_are_refused() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    stocked(&mut client, "b", "m", 1);
    for bad in ["''", "'x'", "'stock1:g:1'", "'stock1:g:1:2'", "'stock1:g:0:'", "repeat('x', 1000000)", "NULL"] {
        assert_eq!(refused(&mut client, &format!("SELECT stock.changes_since({bad})")), "22023", "{bad}");
        if bad != "NULL" {
            assert_eq!(refused(&mut client, &format!("SELECT stock.snapshot({bad})")), "22023", "{bad}");
        }
    }
    for bad in ["0", "-1", "100001", "NULL"] {
        assert_eq!(refused(&mut client, &format!("SELECT stock.snapshot(NULL, {bad})")), "22023", "{bad}");
        assert_eq!(
            refused(&mut client, &format!("SELECT stock.changes_since('stock1:g:1:', {bad})")),
            "22023",
            "{bad}"
        );
        assert_eq!(refused(&mut client, &format!("SELECT stock.emit_changes({bad})")), "22023", "{bad}");
    }
    let page = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot(NULL, 1)");
    assert_eq!(refused(&mut client, &format!("SELECT stock.changes_since('{page}')")), "22023");
    let complete = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot()");
    assert_eq!(refused(&mut client, &format!("SELECT stock.snapshot('{complete}')")), "22023");
    finish(database);
}

fn answer(client: &mut Client, function: &str, cursor: &str) -> String {
    value(client, &format!("SELECT string_agg(outcome, ' ') FROM stock.{function}('{cursor}')"))
}

/// A cursor of another life of the database, or one that is ahead of it, means nothing: the follower begins anew.
#[test]
fn cursors_of_another_life_are_answered_with_resynchronise() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    stocked(&mut client, "b", "m", 1);
    let follower = Follower::begin(&mut client);
    let page = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot(NULL, 1)");
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    assert_eq!(answer(&mut client, "snapshot", &page), "level complete");

    let fields: Vec<&str> = follower.cursor.split(':').collect();
    let ahead = format!("stock1:{}:{}:", fields[1], fields[2].parse::<u64>().unwrap() + 1_000_000);
    assert_eq!(answer(&mut client, "changes_since", &ahead), "resynchronise");

    client.batch_execute("DROP EXTENSION pg_stock CASCADE; CREATE EXTENSION pg_stock").unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "resynchronise");
    stocked(&mut client, "a", "m", 1);
    let follower = Follower::begin(&mut client);
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");

    drop(client);
    let (mut admin, copy) = (cluster().connect("postgres"), format!("{}_copy", database.name()));
    admin.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {}", database.name())).unwrap();
    let mut copied = cluster().connect(&copy);
    assert_eq!(answer(&mut copied, "changes_since", &follower.cursor), "resynchronise");
    Follower::begin(&mut copied);
    assert_eq!(answer(&mut copied, "changes_since", &follower.cursor), "resynchronise");

    let mut client = database.connect();
    client.batch_execute("SELECT stock.begin_generation()").unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "resynchronise");
    assert_eq!(answer(&mut client, "snapshot", &page), "resynchronise");
    finish(database);
}

/// While a dump is being restored, and before anything has happened, no generation begins: what a follower was told then
/// is worth nothing afterwards, and he is told so.
#[test]
fn a_cursor_from_before_the_first_change_or_from_a_restore_is_good_for_nothing_later() {
    let database = database();
    let mut client = database.connect();
    let follower = Follower::begin(&mut client);
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.feed"), "0");
    // As a restore does: first rows, the sequence last.
    client.batch_execute("BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO stock.level (sku, location, on_hand, reserved, version, updated_at) VALUES ('a', 'm', 0, 0, 0, now()); COMMIT").unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    assert_eq!(value(&mut client, "SELECT string_agg(outcome, ' ') FROM stock.snapshot()"), "complete");
    client.batch_execute("DELETE FROM stock.level").unwrap();
    receive(&mut client, "r", "a");
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "resynchronise");
    finish(database);
}

/// What a transaction sees of its own changes may be rolled back: no page of a snapshot is read there.
#[test]
fn no_page_tells_what_is_not_committed() {
    let database = shop();
    let mut client = database.connect();
    let page = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot(NULL, 1)");
    client.batch_execute("BEGIN; SELECT stock.receive_stock('x', 'z', 'm', 1)").unwrap();
    assert_eq!(refused(&mut client, &format!("SELECT * FROM stock.snapshot('{page}')")), "25001");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(answer(&mut client, "snapshot", &page), "complete");
    finish(database);
}

/// A cursor is not ahead of the database because a transaction looks at an old state of it.
#[test]
fn an_old_snapshot_is_no_reason_to_begin_anew() {
    let database = shop();
    let (mut client, mut other) = (database.connect(), database.connect());
    let mut follower = Follower::begin(&mut other);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    receive(&mut other, "later", "z");
    follower.catch_up(&mut other);
    assert_eq!(refused(&mut client, &format!("SELECT * FROM stock.changes_since('{}')", follower.cursor)), "25001");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    finish(database);
}

/// The lag can be looked at in a session that has not called anything of the extension yet.
#[test]
fn the_lag_is_shown_to_a_new_session() {
    let database = shop();
    database
        .connect()
        .batch_execute("SELECT stock.emit_changes(); SELECT stock.receive_stock('r', 'a', 'm', 1)")
        .unwrap();
    assert_eq!(
        value(&mut database.connect(), "SELECT notify || ' ' || changes_behind FROM stock.feed_lag"),
        "worker 1"
    );
    finish(database);
}

/// Rows that were restored carry the numbers of transactions of another cluster. They are no news when the counter of
/// this one reaches them.
#[test]
fn restored_rows_do_not_come_back_as_news() {
    let (old, new) = (Cluster::start(&["fsync=off"]), Cluster::start(&["fsync=off"]));
    let burn = "DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN CREATE TEMP TABLE t (); RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$";
    let database = old.database();
    let mut source = database.connect();
    source.batch_execute(burn).unwrap();
    source
        .batch_execute("SELECT stock.receive_stock('r' || i, 's' || i, 'm', 1) FROM generate_series(1, 20) i")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{}/dump", folder.path().display());
    std::fs::write(&file, old.run("pg_dump", &["-d", database.name()])).unwrap();
    let mut admin = new.connect("postgres");
    admin.batch_execute("CREATE DATABASE restored").unwrap();
    new.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &file]);
    let mut target = new.connect("restored");
    let above = "SELECT bool_and(xact > pg_current_xact_id()) FROM stock.ledger";
    assert_eq!(value(&mut target, above), "t", "the restored rows must lie ahead, or nothing is tested");
    let mut follower = Follower::begin(&mut target);
    assert_eq!(follower.levels.len(), 20);
    follower.levels.clear();
    let past = "SELECT bool_or(xact < pg_snapshot_xmax(pg_current_snapshot())) FROM stock.ledger";
    receive(&mut target, "new", "s1");
    assert_eq!(follower.catch_up(&mut target), 1);
    for _ in 0..2 {
        target.batch_execute(burn).unwrap();
    }
    assert_eq!(value(&mut target, past), "t");
    receive(&mut target, "newer", "s2");
    assert_eq!(follower.catch_up(&mut target), 1, "{:?}", follower.levels);
    assert_eq!(value(&mut target, "SELECT changes FROM stock.emit_changes()"), "22", "the first emission tells of all");
    assert_eq!(value(&mut target, "SELECT changes_behind FROM stock.feed_lag"), "0");
}

/// A standby cannot give cursors; after the promotion another generation begins, at once.
#[test]
fn a_standby_gives_no_cursors_and_a_promotion_begins_a_generation() {
    let primary = Cluster::start(&["fsync=off"]);
    let database = primary.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    let follower = Follower::begin(&mut client);
    let standby = primary.standby();
    let mut reader = standby.connect(database.name());
    let cursor = &follower.cursor;
    for sql in [
        format!("SELECT stock.changes_since('{cursor}')"),
        "SELECT stock.snapshot()".into(),
        "SELECT stock.emit_changes()".into(),
        "SELECT stock.begin_generation()".into(),
    ] {
        assert_eq!(refused(&mut reader, &sql), "55000", "{sql}");
    }
    assert_eq!(value(&mut reader, "SELECT count(*) FROM stock.feed_lag"), "1");
    drop(primary);
    reader.batch_execute("SELECT pg_promote()").unwrap();
    eventually("it takes writes", || !reader.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0));
    assert_eq!(answer(&mut reader, "changes_since", cursor), "resynchronise");
    let mut follower = Follower::begin(&mut reader);
    receive(&mut reader, "after", "a");
    assert_eq!(follower.catch_up(&mut reader), 1);
}

/// A crash may take asynchronous commits back, of anybody, and their numbers are then used again. It never takes back
/// what a cursor claims.
#[test]
fn a_crash_takes_nothing_back_that_a_cursor_claims() {
    let cluster =
        Cluster::start(&["fsync=off", "synchronous_commit=off", "wal_writer_delay=10s", "wal_writer_flush_after=0"]);
    let (database, elsewhere) = (cluster.database(), cluster.database());
    let (mut client, mut far) = (database.connect(), elsewhere.connect());
    stocked(&mut client, "a", "m", 1);
    let mut follower = Follower::begin(&mut client);
    client.batch_execute("CHECKPOINT").unwrap();
    for round in 0..5 {
        far.batch_execute("SELECT pg_current_xact_id()").unwrap();
        stocked(&mut far, &format!("far {round}"), "m", 1);
        if round % 2 == 0 {
            receive(&mut client, &format!("r{round}"), "a");
        }
        follower.catch_up(&mut client);
        let claimed = follower.levels.clone();
        cluster.kill();
        cluster.resume();
        (client, far) = (database.connect(), elsewhere.connect());
        assert_eq!(levels(&mut client), claimed, "what was told is there");
        let next: i64 =
            client.query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint", &[]).unwrap().get(0);
        let cursor: i64 = follower.cursor.split(':').nth(2).unwrap().parse().unwrap();
        assert!(cursor <= next, "the cursor claims transactions up to {cursor}, the next one is {next}");
        receive(&mut client, &format!("after {round}"), "a");
        assert_eq!(follower.catch_up(&mut client), 1);
    }
    finish(database);
}

/// What was told by NOTIFY is durable as well, though everybody commits without waiting.
#[test]
fn a_crash_takes_nothing_back_that_was_told() {
    let cluster = Cluster::start(&[
        "fsync=off",
        "synchronous_commit=off",
        "wal_writer_delay=10s",
        "wal_writer_flush_after=0",
        "shared_preload_libraries=pg_stock",
    ]);
    let database = cluster.database();
    for round in 0..5 {
        let mut client = database.connect();
        let mut listener = Listener::begin(database.connect());
        for number in 0..20 {
            receive(&mut client, &format!("r{round} {number}"), "a");
        }
        eventually("something is told", || {
            listener.hear(Duration::from_millis(5));
            !listener.levels.is_empty()
        });
        cluster.kill();
        cluster.resume();
        let mut client = database.connect();
        let (found, told) = (levels(&mut client), listener.levels.into_values().next().unwrap());
        assert!(found.values().next().unwrap() >= &told, "told {told:?}, found {found:?}");
    }
    finish(database);
}

/// The emitter waits for its commit, whatever the session says, and never asks for less than the session does.
#[test]
fn an_emission_is_committed_durably() {
    let database = database();
    let mut client = database.connect();
    for (asked, made) in
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
    {
        receive(&mut client, asked, "a");
        client.batch_execute(&format!("SET synchronous_commit = {asked}; BEGIN; SELECT stock.emit_changes()")).unwrap();
        assert_eq!(value(&mut client, "SHOW synchronous_commit"), made, "{asked}");
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(value(&mut client, "SHOW synchronous_commit"), asked);
    }
    // Where there is nothing to tell, nothing is written.
    client.batch_execute("SET synchronous_commit = off; BEGIN; SELECT stock.emit_changes()").unwrap();
    assert_eq!(value(&mut client, "SELECT pg_current_xact_id_if_assigned() IS NULL"), "t");
    client.batch_execute("COMMIT").unwrap();
    finish(database);
}
