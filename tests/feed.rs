//! The change feed: whoever follows it sees every commit, whatever happens in between.

use std::time::Duration;

use pg_stock_tests::Cluster;

use super::support::feed::{Follower, Listener, answer, levels, receive, refused, shop};
use super::support::{database, eventually, finish, sqlstate, stocked, value};

/// A counter that is handed out before the commit is no cursor: here the later position commits
/// first.
#[test]
fn what_commits_late_is_not_skipped() {
    let database = shop();
    let (mut first, mut second, mut reader) =
        (database.connect(), database.connect(), database.connect());
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

/// Neither a long transaction, here or in another database, nor a forgotten prepared one holds the
/// feed up.
#[test]
fn nobody_else_s_transaction_holds_the_feed_up() {
    let (database, elsewhere) = (shop(), database());
    let (mut client, mut reader, mut forgotten) =
        (database.connect(), database.connect(), database.connect());
    forgotten
        .batch_execute(
            "BEGIN; SELECT stock.receive_stock('p', 'p', 'm', 1); PREPARE TRANSACTION 'forgotten \
             feed'",
        )
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
    let (mut client, mut reader, mut long) =
        (database.connect(), database.connect(), database.connect());
    long.batch_execute("BEGIN; SELECT stock.receive_stock('long', 'l', 'm', 1)").unwrap();
    let mut follower = Follower::begin(&mut reader);
    let many = "SELECT count(*) FROM generate_series(1, 300) i, LATERAL stock.receive_stock('r' || \
                i, 'a', 'm', 1)";
    for _ in 0..3 {
        value(&mut client, &many.replace("'r' ||", &format!("'{}' ||", follower.cursor)));
        follower.catch_up(&mut reader);
    }
    let read = "SELECT coalesce(pg_stat_get_xact_tuples_fetched('stock.ledger_xact'::regclass), 0)
                       + coalesce(pg_stat_get_xact_tuples_returned('stock.ledger_xact'::regclass),
                       0)";
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

/// The number of one's own transaction can look ended in one's own snapshot. So no cursor is given
/// out where something was written, and what is written after one was given out is new to it.
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

/// The first snapshot of a database begins the generation, and so has a transaction's number
/// itself.
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
        .batch_execute(
            "SELECT stock.receive_stock('r' || i, 's' || i, 'm', 1) FROM generate_series(1, 50) i",
        )
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
    for bad in [
        "''",
        "'x'",
        "'stock1:g:1'",
        "'stock1:g:1:2'",
        "'stock1:g:0:'",
        "repeat('x', 1000000)",
        "NULL",
    ] {
        assert_eq!(
            refused(&mut client, &format!("SELECT stock.changes_since({bad})")),
            "22023",
            "{bad}"
        );
        if bad != "NULL" {
            assert_eq!(
                refused(&mut client, &format!("SELECT stock.snapshot({bad})")),
                "22023",
                "{bad}"
            );
        }
    }
    for bad in ["0", "-1", "100001", "NULL"] {
        assert_eq!(
            refused(&mut client, &format!("SELECT stock.snapshot(NULL, {bad})")),
            "22023",
            "{bad}"
        );
        assert_eq!(
            refused(&mut client, &format!("SELECT stock.changes_since('stock1:g:1:', {bad})")),
            "22023",
            "{bad}"
        );
        assert_eq!(
            refused(&mut client, &format!("SELECT stock.emit_changes({bad})")),
            "22023",
            "{bad}"
        );
    }
    let page = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot(NULL, 1)");
    assert_eq!(refused(&mut client, &format!("SELECT stock.changes_since('{page}')")), "22023");
    let complete = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot()");
    assert_eq!(refused(&mut client, &format!("SELECT stock.snapshot('{complete}')")), "22023");
    finish(database);
}

/// What a transaction sees of its own changes may be rolled back: no page of a snapshot is read
/// there.
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

/// The lag can be looked at in a session that has not called anything of the extension yet.
#[test]
fn the_lag_is_shown_to_a_new_session() {
    let database = shop();
    database
        .connect()
        .batch_execute("SELECT stock.emit_changes(); SELECT stock.receive_stock('r', 'a', 'm', 1)")
        .unwrap();
    assert_eq!(
        value(
            &mut database.connect(),
            "SELECT notify || ' ' || changes_behind FROM stock.feed_lag"
        ),
        "worker 1"
    );
    // Nobody sends here: said as long as there is something to send.
    let error = "SELECT coalesce(error, 'none') FROM stock.feed_lag";
    let mut client = database.connect();
    assert!(value(&mut client, error).contains("shared_preload_libraries"));
    client.batch_execute("SELECT stock.emit_changes()").unwrap();
    assert_eq!(value(&mut client, error), "none");
    finish(database);
}

/// A crash may take asynchronous commits back, of anybody, and their numbers are then used again.
/// It never takes back what a cursor claims.
#[test]
fn a_crash_takes_nothing_back_that_a_cursor_claims() {
    let cluster = Cluster::start(&[
        "fsync=off",
        "synchronous_commit=off",
        "wal_writer_delay=10s",
        "wal_writer_flush_after=0",
    ]);
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
        let next: i64 = client
            .query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint", &[])
            .unwrap()
            .get(0);
        let cursor: i64 = follower.cursor.split(':').nth(2).unwrap().parse().unwrap();
        assert!(
            cursor <= next,
            "the cursor claims transactions up to {cursor}, the next one is {next}"
        );
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

/// The emitter waits for its commit, whatever the session says, and never asks for less than the
/// session does.
#[test]
fn an_emission_is_committed_durably() {
    let database = database();
    let mut client = database.connect();
    for (asked, made) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        receive(&mut client, asked, "a");
        client
            .batch_execute(&format!(
                "SET synchronous_commit = {asked}; BEGIN; SELECT stock.emit_changes()"
            ))
            .unwrap();
        assert_eq!(value(&mut client, "SHOW synchronous_commit"), made, "{asked}");
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(value(&mut client, "SHOW synchronous_commit"), asked);
    }
    // Where there is nothing to tell, nothing is written.
    client
        .batch_execute("SET synchronous_commit = off; BEGIN; SELECT stock.emit_changes()")
        .unwrap();
    assert_eq!(value(&mut client, "SELECT pg_current_xact_id_if_assigned() IS NULL"), "t");
    client.batch_execute("COMMIT").unwrap();
    finish(database);
}

/// `available` in the feed belongs to the version: units of overdue holds are added when they are
/// given back.
#[test]
fn the_feed_counts_overdue_units_when_they_are_given_back() {
    let database = shop();
    let mut client = database.connect();
    stocked(&mut client, "o", "m", 10);
    client
        .batch_execute(
            "SELECT stock.reserve_stock('lapses', 'o', 'm', 1, '1 ms'); SELECT pg_sleep(0.01)",
        )
        .unwrap();
    let told = "SELECT available FROM stock.snapshot() WHERE sku = 'o'";
    assert_eq!(value(&mut client, told), "9");
    assert_eq!(value(&mut client, "SELECT stock.available('o', 'm')"), "10");
    client.batch_execute("SELECT stock.expire_reservations()").unwrap();
    assert_eq!(value(&mut client, told), "10");
    finish(database);
}

/// A later page of a snapshot may be read beside one's own work, unless that changes levels.
#[test]
fn a_later_page_is_refused_only_where_levels_were_changed() {
    let database = shop();
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE mine (n int)").unwrap();
    for sku in ["p", "q"] {
        stocked(&mut client, sku, "m", 1);
    }
    let page = value(
        &mut client,
        "SELECT next_cursor FROM stock.snapshot(NULL, 1) WHERE outcome = 'more_levels'",
    );
    client.batch_execute("BEGIN; INSERT INTO mine VALUES (1)").unwrap();
    let next = format!("SELECT outcome FROM stock.snapshot('{page}') ORDER BY outcome LIMIT 1");
    assert_eq!(value(&mut client, &next), "complete");
    client.batch_execute("SELECT stock.receive_stock('again', 'p', 'm', 1)").unwrap();
    assert_eq!(sqlstate(&client.batch_execute(&next).unwrap_err()), "25001");
    client.batch_execute("ROLLBACK").unwrap();
    finish(database);
}

/// Where each transaction sends for itself, nothing is behind, and nothing stands in stock.alert.
#[test]
fn nothing_is_behind_where_each_transaction_sends_for_itself() {
    let database = shop();
    let mut client = database.connect();
    client.batch_execute("SELECT stock.emit_changes(); SET pg_stock.notify = transaction").unwrap();
    client.batch_execute("SELECT stock.set_stock('none', 's', 'm', 0, NULL)").unwrap();
    let lag = "SELECT changes_behind || ' ' || coalesce(oldest_unsent_for::text,
               '-') || ' ' || coalesce(error, '-')
                 FROM stock.feed_lag";
    assert_eq!(value(&mut client, lag), "0 - -");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.alert WHERE sku = 's'"), "0");
    client.batch_execute("SET pg_stock.notify = worker").unwrap();
    assert_eq!(
        value(&mut client, "SELECT changes_behind FROM stock.feed_lag"),
        "1",
        "the worker would send it"
    );
    finish(database);
}
