//! The lives of a database: a cursor of one means nothing in another, and whoever comes with it is
//! told so.

use pg_stock_tests::Cluster;

use super::support::feed::{Follower, answer, receive, refused, shop};
use super::support::{cluster, database, eventually, finish, stocked, value};

/// A cursor of another life of the database, or one that is ahead of it, means nothing: the
/// follower begins anew.
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

/// While a dump is being restored, and before anything has happened, no generation begins: what a
/// follower was told then is worth nothing afterwards, and he is told so.
#[test]
fn a_cursor_from_before_the_first_change_or_from_a_restore_is_good_for_nothing_later() {
    let database = database();
    let mut client = database.connect();
    let follower = Follower::begin(&mut client);
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.feed"), "0");
    // As a restore does: first rows, the sequence last.
    client
        .batch_execute(
            "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO stock.level (sku, \
             location, on_hand, reserved, version, updated_at) VALUES ('a', 'm', 0, 0, 0, now()); \
             COMMIT",
        )
        .unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    assert_eq!(
        value(&mut client, "SELECT string_agg(outcome, ' ') FROM stock.snapshot()"),
        "complete"
    );
    client.batch_execute("DELETE FROM stock.level").unwrap();
    receive(&mut client, "r", "a");
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "resynchronise");
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
    assert_eq!(
        refused(&mut client, &format!("SELECT * FROM stock.changes_since('{}')", follower.cursor)),
        "25001"
    );
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    finish(database);
}

/// Rows that were restored carry the numbers of transactions of another cluster. They are no news
/// when the counter of this one reaches them.
#[test]
fn restored_rows_do_not_come_back_as_news() {
    let (old, new) = (Cluster::start(&["fsync=off"]), Cluster::start(&["fsync=off"]));
    let burn = "DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN CREATE TEMP TABLE t (); RAISE EXCEPTION \
                'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$";
    let database = old.database();
    let mut source = database.connect();
    source.batch_execute(burn).unwrap();
    source
        .batch_execute(
            "SELECT stock.receive_stock('r' || i, 's' || i, 'm', 1) FROM generate_series(1, 20) i",
        )
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{}/dump", folder.path().display());
    std::fs::write(&file, old.run("pg_dump", &["-d", database.name()])).unwrap();
    let mut admin = new.connect("postgres");
    admin.batch_execute("CREATE DATABASE restored").unwrap();
    new.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &file]);
    let mut target = new.connect("restored");
    let above = "SELECT bool_and(xact > pg_current_xact_id()) FROM stock.ledger";
    assert_eq!(
        value(&mut target, above),
        "t",
        "the restored rows must lie ahead, or nothing is tested"
    );
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
    assert_eq!(
        value(&mut target, "SELECT changes FROM stock.emit_changes()"),
        "22",
        "the first emission tells of all"
    );
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
    for (sql, code) in [
        (format!("SELECT stock.changes_since('{cursor}')"), "55000"),
        ("SELECT stock.snapshot()".into(), "55000"),
        ("SELECT stock.emit_changes()".into(), "25006"),
        ("SELECT stock.begin_generation()".into(), "25006"),
    ] {
        assert_eq!(refused(&mut reader, &sql), code, "{sql}");
    }
    assert_eq!(value(&mut reader, "SELECT count(*) FROM stock.feed_lag"), "1");
    drop(primary);
    reader.batch_execute("SELECT pg_promote()").unwrap();
    eventually("it takes writes", || {
        !reader.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0)
    });
    assert_eq!(answer(&mut reader, "changes_since", cursor), "resynchronise");
    let mut follower = Follower::begin(&mut reader);
    receive(&mut reader, "after", "a");
    assert_eq!(follower.catch_up(&mut reader), 1);
}
