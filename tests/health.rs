//! stock.health() says what is wrong (MISSION B3): each of its checks is made to fail, and to pass
//! again.

use std::sync::{Arc, Mutex};

use pg_stock_tests::Cluster;
use postgres::{Client, NoTls};

use super::support::{eventually, finish, outcome, raised, sqlstate, stocked, value};

/// The checks that are not passed.
fn failing(client: &mut Client) -> Vec<String> {
    failing_of(client, "stock.health()")
}

fn failing_of(client: &mut Client, call: &str) -> Vec<String> {
    let sql = format!("SELECT name, hint FROM {call} WHERE NOT ok ORDER BY name");
    let rows = client.query(&sql, &[]).unwrap();
    rows.iter()
        .map(|row| {
            let hint: Option<String> = row.get(1);
            assert!(hint.is_some_and(|hint| hint.len() > 10), "{call}");
            row.get(0)
        })
        .collect()
}

/// All is well, with a worker and a first verification.
fn sound() -> (Cluster, &'static str) {
    let settings = ["shared_preload_libraries=pg_stock", "fsync=off", "autovacuum=off"];
    let cluster = Cluster::start(&settings);
    let name = cluster.database().name();
    let mut client = cluster.connect(name);
    stocked(&mut client, "a", "m", 5);
    assert_eq!(value(&mut client, "SELECT stock.run_verification()"), "0");
    eventually("all is well", || failing(&mut client).is_empty());
    (cluster, name)
}

/// MISSION B3: what DBAs and shops must know of is in one call, with the next step.
#[test]
fn each_check_fails_where_it_should() {
    let (cluster, name) = sound();
    let mut client = cluster.connect(name);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.health()"), "12");

    client
        .batch_execute("UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'pg_stock'")
        .unwrap();
    assert_eq!(failing(&mut client), ["version"]);
    client
        .batch_execute(
            "UPDATE pg_extension SET extversion = stock.library_version()
              WHERE extname = 'pg_stock'",
        )
        .unwrap();

    // Doubtful: reserved long ago, and still held.
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 1, '300 days')");
    client.batch_execute("UPDATE stock.hold SET reserved_at = now() - interval '2 days'").unwrap();
    assert_eq!(failing(&mut client), ["doubtful_reservations"]);
    assert!(failing_of(&mut client, "stock.health('3 days')").is_empty());
    outcome(&mut client, "release_stock('o')");

    // A hold that the worker cannot give back.
    outcome(&mut client, "reserve_stock('p', 'a', 'm', 1, '1 day')");
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RAISE ''not today''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON stock.hold FOR EACH ROW
                    EXECUTE FUNCTION refuse();
             UPDATE stock.hold SET expires_at = now() - interval '10 minutes';
             UPDATE stock.level SET next_due = '-infinity'",
        )
        .unwrap();
    assert_eq!(failing(&mut client), ["overdue_holds"]);
    client.batch_execute("DROP TRIGGER refuse ON stock.hold").unwrap();
    value(&mut client, "SELECT count(*) FROM stock.release_stock('p')");
    eventually("it is given back", || failing(&mut client).is_empty());
}

/// The server around it: dead rows, old transactions; and the books.
#[test]
fn what_the_server_lets_lie_is_told_of() {
    let (cluster, name) = sound();
    let mut client = cluster.connect(name);
    // Dead rows that nobody cleans away.
    client
        .batch_execute(
            "INSERT INTO stock.alert SELECT 'sku ' || n, 'm', 'sold_out', now()
               FROM generate_series(1, 60000) n;
             DELETE FROM stock.alert WHERE sku LIKE 'sku %'",
        )
        .unwrap();
    eventually("it is known", || failing(&mut client) == ["autovacuum"]);
    client.batch_execute("VACUUM stock.alert").unwrap();
    eventually("it is known", || failing(&mut client).is_empty());

    // Old transactions.
    let mut old = cluster.connect(name);
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    assert!(failing(&mut client).is_empty());
    eventually("it is old", || {
        failing_of(&mut client, "stock.health('1 day', '50 ms')") == ["old_snapshots"]
    });
    old.batch_execute("ROLLBACK; BEGIN; CREATE TABLE mine (); PREPARE TRANSACTION 'left'").unwrap();
    eventually("it is old", || {
        failing_of(&mut client, "stock.health('1 day', '50 ms')") == ["prepared_transactions"]
    });
    old.batch_execute("ROLLBACK PREPARED 'left'").unwrap();

    // The books.
    client.batch_execute("UPDATE stock.level SET on_hand = on_hand + 1").unwrap();
    assert!(failing(&mut client).is_empty(), "it is as of the last run");
    assert_ne!(value(&mut client, "SELECT stock.run_verification()"), "0");
    assert_eq!(failing(&mut client), ["verification"]);
    client.batch_execute("UPDATE stock.level SET on_hand = on_hand - 1").unwrap();
    value(&mut client, "SELECT stock.run_verification()");
    assert!(failing(&mut client).is_empty());
    let changed = "UPDATE stock.level SET on_hand = on_hand + 1, updated_at = now()";
    client.batch_execute(changed).unwrap();
    assert_ne!(value(&mut client, "SELECT stock.run_verification(true)"), "0");
    assert_eq!(failing(&mut client), ["verification"]);
    client.batch_execute("UPDATE stock.level SET on_hand = on_hand - 1").unwrap();
    value(&mut client, "SELECT stock.run_verification()");
    assert!(failing(&mut client).is_empty(), "the last look at all found nothing");
    client
        .batch_execute("UPDATE stock.verification SET finished_at = now() - interval '9 days'")
        .unwrap();
    assert_eq!(failing(&mut client), ["verification"]);
    client.batch_execute("DELETE FROM stock.verification").unwrap();
    assert_eq!(failing(&mut client), ["verification"]);
}

/// A listener that never ends its transaction lets the queue of NOTIFY fill.
#[test]
fn a_queue_that_fills_is_told_of() {
    let (cluster, name) = sound();
    let mut client = cluster.connect(name);
    let mut listener = cluster.connect(name);
    listener.batch_execute("LISTEN anything").unwrap();
    listener.batch_execute("BEGIN; SELECT 1").unwrap();
    client
        .batch_execute(
            "SELECT count(pg_notify('anything', n || repeat('x', 7900)))
               FROM generate_series(1, 25000) n",
        )
        .unwrap();
    assert_eq!(failing(&mut client), ["notify_queue"]);
    drop(listener);
    eventually("it is empty", || failing(&mut client).is_empty());
}

/// Without a worker what it would have done is missing, and is told so.
#[test]
fn what_does_not_happen_by_itself_is_told_of() {
    let settings = ["shared_preload_libraries=pg_stock", "fsync=off", "pg_stock.databases=''"];
    let cluster = Cluster::start(&settings);
    let name = cluster.database().name();
    let mut client = cluster.connect(name);
    assert_eq!(failing(&mut client), ["worker"], "nothing has happened yet");
    stocked(&mut client, "a", "m", 5);
    value(&mut client, "SELECT stock.run_verification()");
    value(&mut client, "SELECT count(*) FROM stock.emit_changes()");
    stocked(&mut client, "b", "m", 5);
    assert_eq!(failing(&mut client), ["notifications", "worker"]);
    // What is old is told of by itself.
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE stock.ledger SET recorded_at = now() - interval '1 hour';
             RESET session_replication_role",
        )
        .unwrap();
    assert_eq!(failing(&mut client), ["feed_behind", "notifications", "worker"]);
    value(&mut client, "SELECT count(*) FROM stock.emit_changes()");
    assert_eq!(failing(&mut client), ["worker"]);
}

/// CREATE EXTENSION without preload says what will be missing; so does health, and it is no error.
#[test]
fn an_install_without_preload_is_told_of() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.database();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = notices.clone();
    cluster.connect("postgres").batch_execute("CREATE DATABASE fresh").unwrap();
    let mut config = cluster.config("fresh");
    config.notice_callback(move |notice| {
        let told = [Some(notice.message()), notice.detail(), notice.hint()];
        heard.lock().unwrap().push(told.into_iter().flatten().collect::<Vec<_>>().join(" "));
    });
    config.connect(NoTls).unwrap().batch_execute("CREATE EXTENSION pg_stock").unwrap();
    let told = notices.lock().unwrap().join("\n");
    for part in ["shared_preload_libraries", "expires, notifies or counts", "stock.expire_all()"] {
        assert!(told.contains(part), "{told}");
    }
    let mut client = database.connect();
    assert_eq!(failing(&mut client), ["preload", "worker"]);
    assert_eq!(raised(&mut client, "health(NULL)"), "22023");
    assert_eq!(raised(&mut client, "health('-1 s')"), "22023");
    let error =
        client.simple_query("SELECT stock.schedule_verification()").expect_err("no pg_cron");
    assert_eq!(sqlstate(&error), "0A000");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("run_verification"), "{error:?}");
    finish(database);
}
