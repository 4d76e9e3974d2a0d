//! NOTIFY: the worker tells what was committed, soon and completely; or each transaction for
//! itself; or nobody.

use std::sync::OnceLock;
use std::time::Duration;

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::feed::{Follower, Listener, levels};
use super::support::{database, eventually, finish, outcome, sqlstate, stocked, value};

/// A server with the library preloaded.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start(&[
            "shared_preload_libraries=pg_stock",
            "fsync=off",
            "max_worker_processes=40",
            "pg_stock.emit_interval=1ms",
        ])
    })
}

/// A database with a worker that has told of one level; somebody who works and somebody who
/// listens.
fn told() -> (Database<'static>, Client, Listener) {
    let database = cluster().database();
    let mut client = database.connect();
    let mut listener = Listener::begin(database.connect());
    stocked(&mut client, "a", "m", 10);
    hears_of(&mut listener, &mut client);
    (database, client, listener)
}

/// Waits until the listener knows what is committed.
fn hears_of(listener: &mut Listener, client: &mut Client) {
    let committed = levels(client);
    eventually("the listener knows all levels", || {
        listener.hear(Duration::from_millis(5));
        listener.levels == committed
    });
}

#[test]
fn the_worker_tells_of_each_change_and_a_listener_may_keep_its_cursor() {
    let (database, mut client, mut listener) = told();
    for number in 0..20 {
        outcome(&mut client, &format!("reserve_stock('o{number}', 'a', 'm', 1)")).clear();
        if number % 5 == 0 {
            outcome(&mut client, &format!("release_stock('o{number}')"));
        }
        if number == 10 {
            hears_of(&mut listener, &mut client);
        }
        if number % 5 == 4 {
            client
                .batch_execute("SELECT stock.receive_stock('r' || random(), 'a', 'm', 5)")
                .unwrap();
        }
    }
    hears_of(&mut listener, &mut client);
    let sequences: Vec<i64> =
        listener.messages.iter().map(|message| message["sequence"].as_i64().unwrap()).collect();
    assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>());
    let last = listener.messages.last().unwrap();
    assert_eq!(
        last["generation"],
        value(&mut client, "SELECT generation FROM stock.feed").as_str()
    );
    let cursor = last["cursor"].as_str().expect("there is room for it").to_owned();
    let mut follower = Follower { cursor, levels: listener.levels.clone() };
    assert_eq!(follower.catch_up(&mut client), 0);
    stocked(&mut client, "b", "m", 1);
    assert_eq!(follower.catch_up(&mut client), 1);
    finish(database);
}

/// No callback of ours runs when a prepared transaction commits: the worker looks by itself.
#[test]
fn a_prepared_transaction_is_told_of() {
    let (database, mut client, mut listener) = told();
    client
        .batch_execute(
            "BEGIN; SELECT stock.reserve_stock('o', 'a', 'm', 1); PREPARE TRANSACTION 'told'",
        )
        .unwrap();
    stocked(&mut client, "b", "m", 1);
    hears_of(&mut listener, &mut client);
    client.batch_execute("COMMIT PREPARED 'told'").unwrap();
    hears_of(&mut listener, &mut client);
    finish(database);
}

/// Each lot is warned of once when its date is near, and told of once when it is past; that ends
/// when nothing of it is left.
#[test]
fn the_dates_of_lots_are_warned_of_once() {
    let (database, mut client, mut listener) = told();
    client
        .batch_execute(
            "SELECT stock.receive_stock('d1', 'berry', 'm', 3, NULL, 'far', now() + '30 days');
             SELECT stock.receive_stock('d2', 'berry', 'm', 3, NULL, 'near', now() + '1 day');
             SELECT stock.receive_stock('d3', 'berry', 'm', 3, NULL, 'soon', now() + '1 second');
             SELECT stock.reserve_stock('o', 'berry', 'm', 1);
             SELECT stock.expire_lots(); SELECT stock.expire_lots()",
        )
        .unwrap();
    hears_of(&mut listener, &mut client);
    assert_eq!(listener.alarms(), ["lot_near_expiry berry", "lot_near_expiry berry"]);
    let alarm = &listener.alerts[0]["alerts"][0];
    assert_eq!((&alarm["lot"], &alarm["reserved"]), (&"soon".into(), &1.into()), "{alarm}");
    let shown = "SELECT string_agg(lot, ' ' ORDER BY best_before) FROM stock.expiring_lots";
    assert_eq!(value(&mut client, shown), "soon near");
    client.batch_execute("SELECT pg_sleep(1.1); SELECT stock.expire_lots()").unwrap();
    client.batch_execute("SELECT stock.expire_lots()").unwrap();
    hears_of(&mut listener, &mut client);
    assert_eq!(listener.alarms().last().map(String::as_str), Some("lot_expired berry"));
    let kept = "SELECT string_agg(alert || ' ' || lot, ', ' ORDER BY alert, lot) FROM stock.alert
                 WHERE lot <> ''";
    assert_eq!(
        value(&mut client, kept),
        "lot_expired soon, lot_near_expiry near, lot_near_expiry soon"
    );
    client
        .batch_execute(
            "SELECT stock.confirm_stock('o');
             SELECT stock.adjust_stock('bin', 'berry', 'm', -2, 'old', NULL, 'soon');
             SELECT stock.set_limits('l', 'berry', 'm', near_expiry => '60 days');
             SELECT stock.expire_lots()",
        )
        .unwrap();
    assert_eq!(value(&mut client, kept), "lot_near_expiry far, lot_near_expiry near");
    finish(database);
}

/// What expires is told like everything else, and never by the transaction that expires it.
#[test]
fn expiry_is_told_in_a_transaction_of_its_own() {
    let (database, mut client, mut listener) = told();
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 10, '100 ms')");
    eventually("it expired", || value(&mut client, "SELECT count(*) FROM stock.hold") == "0");
    hears_of(&mut listener, &mut client);
    let shared =
        "SELECT count(*) FROM stock.ledger g, stock.feed f WHERE g.xact::text = f.xmin::text";
    assert_eq!(value(&mut client, shared), "0");
    assert_eq!(listener.alarms(), ["sold_out a", "available_again a"]);
    finish(database);
}

#[test]
fn alerts_tell_of_both_thresholds_both_ways_and_once() {
    let (database, mut client, mut listener) = told();
    let steps = [
        ("set_limits('l1', 'a', 'm', 4)", vec![]),
        ("reserve_stock('o1', 'a', 'm', 5)", vec![]),
        ("reserve_stock('o2', 'a', 'm', 1)", vec!["sold_out a"]),
        ("adjust_stock('x1', 'a', 'm', -1, 'broken')", vec!["below_safety_stock a"]),
        ("adjust_stock('x2', 'a', 'm', -1, 'broken')", vec![]),
        ("receive_stock('x3', 'a', 'm', 2)", vec!["safety_stock_restored a"]),
        ("release_stock('o1')", vec!["available_again a"]),
        ("set_limits('l2', 'a', 'm', 1000)", vec!["sold_out a", "below_safety_stock a"]),
        ("set_limits('l3', 'a', 'm', 0)", vec!["available_again a", "safety_stock_restored a"]),
    ];
    for (call, alarms) in steps {
        outcome(&mut client, call);
        listener.alerts.clear();
        hears_of(&mut listener, &mut client);
        eventually("the alerts", || {
            listener.hear(Duration::from_millis(5));
            listener.alarms().len() >= alarms.len()
        });
        assert_eq!(listener.alarms(), alarms, "{call}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.alert"), "0");
    finish(database);
}

/// However much one transaction changes, no message is too long and none is missing (the listener
/// checks the length).
#[test]
fn an_order_of_thousands_of_lines_is_told_in_parts() {
    let (database, mut client, mut listener) = told();
    let fill = "SELECT count(*) FROM generate_series(1, 3000) i,
                LATERAL stock.receive_stock('r' || i, repeat('é', 90) || i, 'm', 10)";
    value(&mut client, fill);
    hears_of(&mut listener, &mut client);
    listener.messages.clear();
    let order = "SELECT count(*) FROM stock.reserve_stock('big',
                 (SELECT jsonb_agg(jsonb_build_object('sku', repeat('é', 90) || i,
                   'location', 'm', 'quantity', 10)) FROM generate_series(1, 3000) i))";
    assert_eq!(value(&mut client, order), "3000");
    hears_of(&mut listener, &mut client);
    let parts = listener.messages.len() as u64;
    assert!(parts > 100, "{parts}");
    for (place, message) in listener.messages.iter().enumerate() {
        assert_eq!(
            (message["part"].as_u64(), message["parts"].as_u64()),
            (Some(place as u64 + 1), Some(parts))
        );
        assert_eq!(message.get("cursor").is_some(), place as u64 + 1 == parts);
    }
    assert_eq!(listener.alarms().len(), 3000);
    finish(database);
}

/// While nothing happens, the worker writes nothing.
#[test]
fn an_idle_feed_writes_nothing() {
    let (database, mut client, _listener) = told();
    let row = "SELECT ctid || ' ' || xmin || ' ' || (SELECT changes_behind FROM stock.feed_lag) \
               FROM stock.feed";
    let before = value(&mut client, row);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(value(&mut client, row), before);
    finish(database);
}

/// An emission that fails stops neither expiry nor the sale; it is shown, and in the end nothing is
/// lost.
#[test]
fn an_emission_that_fails_is_shown_and_tried_again() {
    let (database, mut client, mut listener) = told();
    client
        .batch_execute(
            "ALTER TABLE stock.feed ADD CONSTRAINT broken CHECK (sequence < 2) NOT VALID",
        )
        .unwrap();
    outcome(&mut client, "reserve_stock('o1', 'a', 'm', 1, '300 ms')");
    outcome(&mut client, "reserve_stock('o2', 'a', 'm', 1)");
    let shown = "SELECT coalesce(error, '') FROM stock.feed_lag WHERE failed_at IS NOT NULL";
    eventually("the error is shown", || {
        client
            .query(shown, &[])
            .unwrap()
            .first()
            .is_some_and(|row| row.get::<_, String>(0).contains("broken"))
    });
    eventually("expiry goes on", || value(&mut client, "SELECT count(*) FROM stock.hold") == "1");
    eventually("the pauses grow", || cluster().log().contains("It is tried again in 4 s"));
    assert_eq!(
        value(
            &mut client,
            "SELECT changes_behind > 0 AND oldest_unsent_for > '0' FROM stock.feed_lag"
        ),
        "t"
    );
    client.batch_execute("ALTER TABLE stock.feed DROP CONSTRAINT broken").unwrap();
    hears_of(&mut listener, &mut client);
    let healed = "SELECT changes_behind = 0 AND error IS NULL AND oldest_unsent_at IS NULL FROM \
                  stock.feed_lag";
    assert_eq!(value(&mut client, healed), "t");
    finish(database);
}

/// A transaction that reads or sends the feed and then stays open stops neither expiry nor, in the
/// end, the feed.
#[test]
fn an_open_transaction_does_not_stop_the_worker() {
    let (database, mut client, mut listener) = told();
    let mut open = database.connect();
    client.batch_execute("SET statement_timeout = '20s'").unwrap();
    loop {
        outcome(
            &mut client,
            &format!("receive_stock('r{:?}', 'a', 'm', 1)", std::time::Instant::now()),
        );
        open.batch_execute("BEGIN").unwrap();
        if value(&mut open, "SELECT messages > 0 FROM stock.emit_changes()") == "t" {
            break;
        }
        open.batch_execute("ROLLBACK").unwrap();
    }
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 1, '100 ms')");
    eventually("it expired", || value(&mut client, "SELECT count(*) FROM stock.hold") == "0");
    open.batch_execute("ROLLBACK").unwrap();
    hears_of(&mut listener, &mut client);
    assert_eq!(value(&mut client, "SELECT error IS NULL FROM stock.feed_lag"), "t");
    finish(database);
}

/// What is sold out when a generation begins is announced, whatever was announced before.
#[test]
fn a_new_generation_announces_what_is_sold_out() {
    let database = database();
    let mut client = database.connect();
    value(
        &mut client,
        "SELECT count(*) FROM generate_series(1, 1100) i, LATERAL stock.receive_stock('r' || i, \
         's' || i % 100, 'm', 1)",
    );
    outcome(&mut client, "sell_stock('o', 's7', 'm', 11)");
    stocked(&mut client, "back", "m", 1);
    client
        .batch_execute("INSERT INTO stock.alert VALUES ('back', 'm', 'sold_out', now())")
        .unwrap();
    client.batch_execute("SELECT stock.begin_generation()").unwrap();
    let mut listener = Listener::begin(database.connect());
    stocked(&mut client, "other", "m", 1);
    client.batch_execute("SELECT stock.emit_changes()").unwrap();
    listener.hear(Duration::from_millis(50));
    assert_eq!(listener.levels.len(), 1);
    let mut alarms = listener.alarms();
    alarms.sort();
    assert_eq!(alarms, ["available_again back", "sold_out s7"]);
    finish(database);
}

#[test]
fn off_means_off_and_nothing_is_lost_when_it_is_on_again() {
    let (database, mut client, mut listener) = told();
    let mut admin = cluster().connect("postgres");
    let restart = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_stock \
         worker' AND datname = '{}'",
        database.name()
    );
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {} SET pg_stock.notify = off; {restart}",
            database.name()
        ))
        .unwrap();
    stocked(&mut client, "b", "m", 1);
    std::thread::sleep(Duration::from_millis(2_500));
    listener.hear(Duration::from_millis(5));
    assert_eq!(listener.levels.len(), 1);
    assert_eq!(value(&mut client, "SELECT changes_behind FROM stock.feed_lag"), "1");
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {} RESET pg_stock.notify; {restart}",
            database.name()
        ))
        .unwrap();
    hears_of(&mut listener, &mut client);
    finish(database);
}

/// Each transaction for itself, without preload: told with the commit, or not at all.
#[test]
fn a_transaction_tells_of_itself() {
    let database = database();
    let mut client = database.connect();
    let mut listener = Listener::begin(database.connect());
    client.batch_execute("SET pg_stock.notify = transaction").unwrap();
    stocked(&mut client, "a", "m", 3);
    hears_of(&mut listener, &mut client);
    assert!(
        listener.messages[0].get("sequence").is_none()
            && listener.messages[0].get("cursor").is_none()
    );
    outcome(&mut client, "reserve_stock('o1', 'a', 'm', 3)");
    hears_of(&mut listener, &mut client);
    client
        .batch_execute(
            "BEGIN; SELECT stock.receive_stock('r1', 'b', 'm', 1);
             SAVEPOINT s; SELECT stock.receive_stock('r2', 'c', 'm', 1); ROLLBACK TO s; COMMIT;
             BEGIN; SELECT stock.receive_stock('r3', 'd', 'm', 1); ROLLBACK;
             SELECT stock.release_stock('o1')",
        )
        .unwrap();
    hears_of(&mut listener, &mut client);
    assert_eq!(listener.levels.len(), 2);
    assert_eq!(listener.alarms(), ["sold_out a", "available_again a"]);
    client.batch_execute("BEGIN; SELECT stock.receive_stock('r4', 'e', 'm', 1)").unwrap();
    let refused = client.batch_execute("PREPARE TRANSACTION 'x'").unwrap_err();
    assert_eq!(sqlstate(&refused), "0A000");
    client.batch_execute("ROLLBACK").unwrap();
    // Nothing is sent twice: the feed knows nothing of it, and whoever pulls sees it all the same.
    let mut follower = Follower::begin(&mut client);
    stocked(&mut client, "f", "m", 1);
    assert_eq!(follower.catch_up(&mut client), 1);
    finish(database);
}

/// The channels can be renamed, so that the programs of two shops in one database server are told
/// apart.
#[test]
fn channels_have_a_prefix() {
    let database = database();
    let (mut client, mut ears) = (database.connect(), database.connect());
    for (prefix, channel) in [
        ("shop", "shop_changed".to_owned()),
        (&"x".repeat(200), format!("{}_changed", "x".repeat(48))),
    ] {
        ears.batch_execute(&format!("LISTEN {channel}")).unwrap();
        client.batch_execute(&format!("SET pg_stock.channel_prefix = '{prefix}'")).unwrap();
        stocked(&mut client, &channel[..8], "m", 1);
        client.batch_execute("SELECT stock.emit_changes()").unwrap();
        eventually("it is heard", || {
            ears.simple_query("SELECT 1").unwrap();
            use fallible_iterator::FallibleIterator;
            ears.notifications().iter().any(|heard| Ok(heard.channel() == channel)).unwrap()
        });
    }
    finish(database);
}

/// Names travel as text, whatever the encoding of the database; what is no text is left out, and
/// then there is no cursor to keep.
#[test]
fn names_in_every_encoding() {
    let mut admin = super::support::cluster().connect("postgres");
    // The SKU, and what is heard of it; a byte that WIN1252 does not define can be stored, and has
    // no equivalent.
    let skus = [
        ("LATIN1", "chr(228)", Some("ä")),
        ("SQL_ASCII", r"convert_from('\xe4'::bytea, 'SQL_ASCII')", None),
        ("WIN1252", "chr(129)", None),
    ];
    for (encoding, sku, heard) in skus {
        let name = format!("feed_{}", encoding.to_lowercase());
        admin
            .batch_execute(&format!(
                "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'"
            ))
            .unwrap();
        let mut client = super::support::cluster().connect(&name);
        client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
        let mut listener = Listener::begin(super::support::cluster().connect(&name));
        stocked(&mut client, "plain", "m", 1);
        value(
            &mut client,
            &format!("SELECT count(*) FROM stock.receive_stock('r', {sku}, 'm', 1)"),
        );
        client.batch_execute("SELECT stock.emit_changes()").unwrap();
        listener.hear(Duration::from_millis(50));
        let skus: Vec<&str> = listener.levels.keys().map(|(sku, _)| sku.as_str()).collect();
        let expected: Vec<&str> = ["plain"].into_iter().chain(heard).collect();
        assert_eq!(skus, expected, "{encoding}");
        assert_eq!(
            listener.messages.last().unwrap().get("cursor").is_some(),
            heard.is_some(),
            "{encoding}"
        );
        // A sale that tells of itself is none the worse.
        client.batch_execute("SET pg_stock.notify = transaction").unwrap();
        value(
            &mut client,
            &format!("SELECT count(*) FROM stock.reserve_stock('o', {sku}, 'm', 1)"),
        );
    }
}
