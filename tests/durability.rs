//! What was acknowledged survives: every process killed under load, with a level that is unlocked
//! before its commit is flushed; and, as the control that this proves something, with commits that
//! nobody waits for.
//!
//! SIGKILL loses what the server has not written, not what the operating system has not: this tests
//! the order of things, and not the disk.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pg_stock_tests::{Cluster, Database, invariants};
use postgres::{Client, NoTls};

use super::support::{eventually, sqlstate, stocked, value};

const ROUNDS: usize = 10;
/// How many attempts a control has to lose something; an attempt that loses nothing does not count.
const ATTEMPTS: usize = 20;
/// How many standbys are waited for.
const SYNCHRONOUS: &str = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
/// How many deals there must have been before a crash proves anything.
const DEALS_MIN: usize = 32;
/// How long each round sells.
const TIME: Duration = Duration::from_millis(400);

/// Sells one unit after the other of one level over many connections, some of which are lost, until
/// `end` has ended the sale; gives the keys that were acknowledged, also by a replay after a
/// connection was lost.
fn sell(
    database: Database<'_>,
    name: &str,
    connections: usize,
    settings: &str,
    end: impl FnOnce(),
) -> BTreeSet<String> {
    let (acknowledged, closed) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _close = Close(&closed);
        for number in 0..connections {
            let (acknowledged, closed) = (&acknowledged, &closed);
            scope.spawn(move || {
                buy(database, &format!("{name} {number}"), settings, acknowledged, closed)
            });
        }
        scope.spawn(|| lose_connections(database, &closed));
        std::thread::sleep(TIME);
        end();
    });
    acknowledged.into_inner().expect("nobody panicked")
}

/// Sends the buyers home when it goes, also where something has failed.
struct Close<'a>(&'a AtomicBool);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One buyer, who takes one unit after the other, and asks again under the same key where no answer
/// came.
fn buy(
    database: Database<'_>,
    name: &str,
    settings: &str,
    acknowledged: &Mutex<BTreeSet<String>>,
    closed: &AtomicBool,
) {
    let mut config = database.cluster.config(database.name());
    config.options(settings).application_name("buyer");
    let (mut session, mut number) = (None, 0);
    while !closed.load(Ordering::Relaxed) {
        let Some(client) = &mut session else {
            session = config.connect(NoTls).ok();
            std::thread::sleep(Duration::from_millis(if session.is_some() { 0 } else { 5 }));
            continue;
        };
        let key = format!("{name} {number}");
        let call = "SELECT outcome FROM stock.try_reserve_stock($1, 'hot', 'm', 1)";
        match client.query_one(call, &[&key]) {
            Ok(row) => {
                assert_eq!(row.get::<_, &str>(0), "reserved", "{key}");
                acknowledged.lock().expect("nobody panicked").insert(key);
                number += 1;
            }
            Err(_) => session = None,
        }
    }
}

/// Ends one connection after the other, as a bad network does.
fn lose_connections(database: Database<'_>, closed: &AtomicBool) {
    let Ok(mut client) = database.cluster.config(database.name()).connect(NoTls) else { return };
    let lose = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = \
                'buyer' ORDER BY random() LIMIT 1";
    while !closed.load(Ordering::Relaxed) && client.simple_query(lose).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many of these keys hold nothing.
fn lost(client: &mut Client, acknowledged: &BTreeSet<String>) -> usize {
    let rows =
        client.query("SELECT key FROM stock.ledger WHERE operation = 'reserve'", &[]).unwrap();
    let kept: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    acknowledged.difference(&kept).count()
}

fn hot(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    stocked(&mut database.connect(), "hot", "m", 1_000_000_000);
    database
}

/// A server with a standby that it waits for, and a session that sees whether it does.
fn with_synchronous_standby() -> (Cluster, Cluster, Client) {
    let primary = Cluster::start(&["fsync=off"]);
    let standby = primary.standby();
    let mut admin = primary.connect("postgres");
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    eventually("the standby is synchronous", || value(&mut admin, SYNCHRONOUS) == "1");
    (primary, standby, admin)
}

fn crash_rounds(connections: usize) {
    // The WAL writer keeps away, so that what is lost is whatever no commit has flushed.
    let cluster = Cluster::start(&[
        "synchronous_commit=on",
        "wal_writer_delay=10s",
        "wal_writer_flush_after=1GB",
    ]);
    let database = hot(&cluster);
    let crash = |name: &str, settings: &str| {
        let acknowledged = sell(database, name, connections, settings, || cluster.kill());
        cluster.resume();
        (acknowledged.len(), lost(&mut database.connect(), &acknowledged))
    };
    let (mut kept, mut control) = ((0, 0), (0, 0));
    for round in 0..ROUNDS {
        let (sold, gone) = (0..ATTEMPTS)
            .map(|attempt| {
                crash(&format!("control {round} {attempt}"), "-c synchronous_commit=off")
            })
            .find(|(_, gone)| *gone > 0)
            .expect("synchronous_commit = off loses something, else the round proves nothing");
        control = (control.0 + sold, control.1 + gone);
        let (sold, gone) = crash(&format!("early {round}"), "");
        assert_eq!(gone, 0, "round {round}, of {sold} acknowledged");
        kept = (kept.0 + sold, kept.1 + gone);
    }
    println!(
        "{connections} connections, {ROUNDS} crashes each: lost {} of {}; control: lost {} of {}",
        kept.1, kept.0, control.1, control.0
    );
    invariants::assert_hold(&mut database.connect());
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_to_16_connections() {
    crash_rounds(16);
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_to_64_connections() {
    crash_rounds(64);
}

/// Sells what is not there, sends it, takes it in and gives it back, until the server is gone;
/// gives the keys that were acknowledged.
fn trade(database: Database<'_>, name: &str, end: impl FnOnce()) -> BTreeSet<String> {
    let acknowledged = Mutex::new(BTreeSet::new());
    let trader = |number: usize| {
        let config = database.cluster.config(database.name());
        let Ok(mut client) = config.connect(NoTls) else { return };
        for round in 0.. {
            let key = format!("{name} {number} {round}");
            let first = match number % 4 {
                0 => format!(
                    r#"try_dispatch_stock('{key}', '[{{"sku":"hot","from":"m","to":"n","quantity":3}}]')"#
                ),
                1 => format!("try_sell_stock('{key}', 'hot', 'n', 2)"),
                _ => format!("try_reserve_stock('{key}', 'hot', 'n', 1, buyer => 'b{number}')"),
            };
            let then = match (number % 4, round % 3) {
                (0, 0) => format!("try_recall_stock('{key}')"),
                (0, 1) => format!("try_arrive_stock('{key}')"),
                (0, _) => format!("try_lose_stock('{key}')"),
                (1, _) => format!("try_return_stock('{key}')"),
                (_, 0) => format!("try_confirm_stock('{key}')"),
                (_, 1) => format!("try_release_stock('{key}')"),
                _ => continue,
            };
            if client.simple_query(&format!("SELECT * FROM stock.{first}")).is_err() {
                return;
            }
            acknowledged.lock().expect("nobody panicked").insert(key);
            if client.simple_query(&format!("SELECT * FROM stock.{then}")).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let trader = &trader;
        (0..16).for_each(|number| drop(scope.spawn(move || trader(number))));
        std::thread::sleep(TIME);
        // On a loaded machine it takes them longer to begin.
        let begin = std::time::Instant::now();
        while acknowledged.lock().expect("nobody panicked").len() <= DEALS_MIN
            && begin.elapsed() < Duration::from_secs(30)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        end();
    });
    acknowledged.into_inner().expect("nobody panicked")
}

#[test]
fn a_crash_leaves_queues_lots_and_shipments_whole() {
    let cluster = Cluster::start(&["synchronous_commit=on"]);
    let database = hot(&cluster);
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT stock.receive_stock('opening', 'hot', 'n', 5, NULL, 'first', '2060-01-01');
             SELECT stock.receive_stock('dated', 'hot', 'm', 1000, NULL, 'dated', '2061-01-01');
             SELECT stock.set_limits('pre-sale', 'hot', 'n', backorder_limit => 1000000)",
        )
        .unwrap();
    for round in 0..5 {
        let acknowledged = trade(database, &format!("round {round}"), || cluster.kill());
        cluster.resume();
        let mut client = database.connect();
        let known =
            "SELECT DISTINCT key FROM stock.ledger WHERE operation IN ('reserve', 'dispatch')";
        let kept: BTreeSet<String> =
            client.query(known, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {}", acknowledged.len());
        assert!(acknowledged.len() > DEALS_MIN, "round {round}: hardly anything happened");
        invariants::assert_hold(&mut client);
    }
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT stock.sell_stock('the last who waits', 'hot', 'n', 100000);
             SELECT stock.receive_stock('last', 'hot', 'n', 200000)",
        )
        .unwrap();
    invariants::assert_hold(&mut client);
    let last = "SELECT count(*) > 0 FROM stock.supplied WHERE key = 'the last who waits'";
    assert_eq!(value(&mut client, last), "t", "who waited was paid");
}

/// The standby that takes over has everything that was acknowledged.
#[test]
fn a_promotion_loses_nothing_that_was_acknowledged() {
    for (round, settings) in
        ["", "-c pg_stock.early_lock_release=statement"].iter().cycle().take(4).enumerate()
    {
        let (primary, standby, _) = with_synchronous_standby();
        let database = hot(&primary);
        let acknowledged =
            sell(database, &format!("round {round}"), 16, settings, || primary.kill());
        assert!(!acknowledged.is_empty());
        // What is on the standby's disk need not be replayed yet, the new database itself not:
        // promotion replays it.
        let mut successor = standby.connect("postgres");
        successor.batch_execute("SELECT pg_promote()").unwrap();
        eventually("it takes writes", || {
            value(&mut successor, "SELECT pg_is_in_recovery()") == "f"
        });
        let mut successor = standby.connect(database.name());
        assert_eq!(lost(&mut successor, &acknowledged), 0, "of {}", acknowledged.len());
        invariants::assert_hold(&mut successor);
    }
}

/// While the standby is cut off nobody is told "committed"; when it is back, everybody is. Early
/// lock release is asked for, so that all are at it at once.
#[test]
fn nobody_is_told_committed_while_the_standby_is_cut_off() {
    let (primary, standby, mut admin) = with_synchronous_standby();
    let database = hot(&primary);
    standby.stop(true);
    eventually("the standby is gone", || value(&mut admin, SYNCHRONOUS) == "0");
    let (told, connections) = (Mutex::new(0), 8);
    let mut config = database.cluster.config(database.name());
    config.options("-c pg_stock.early_lock_release=statement");
    let mut rival = database.connect();
    rival.batch_execute("BEGIN; SELECT FROM stock.level FOR NO KEY UPDATE").unwrap();
    std::thread::scope(|scope| {
        for number in 0..connections {
            let (told, config) = (&told, &config);
            scope.spawn(move || {
                let call = format!("SELECT stock.reserve_stock('cut off {number}', 'hot', 'm', 1)");
                config.connect(NoTls).unwrap().simple_query(&call).unwrap();
                *told.lock().unwrap() += 1;
            });
        }
        let in_line = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        eventually("all want the level", || value(&mut admin, in_line) == connections.to_string());
        rival.batch_execute("ROLLBACK").unwrap();
        // All of them have changed the one level, and wait: not for each other, but for the
        // standby.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        eventually("all wait for the standby", || {
            value(&mut admin, waiting) == connections.to_string()
        });
        assert_eq!(*told.lock().unwrap(), 0);
        standby.resume();
    });
    assert_eq!(*told.lock().unwrap(), connections);
    invariants::assert_hold(&mut database.connect());
}

/// After a reload each process reads the settings in its own time. Whether a commit waits for a
/// standby is what the checkpointer has noted; so it is for an answer, too.
#[test]
fn right_after_a_reload_an_answer_waits_as_a_commit_does() {
    let cluster = Cluster::start(&["fsync=off", "statement_timeout=120s"]);
    let database = cluster.database();
    let [mut admin, mut session] = std::array::from_fn(|_| database.connect());
    stocked(&mut session, "a", "m", 10);
    let told = "SELECT outcome FROM stock.try_receive_stock('stock of a m', 'a', 'm', 10)";
    let checkpointer =
        value(&mut admin, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    let checkpointer: i32 = checkpointer.parse().expect("a process");
    let name = |admin: &mut Client, names: &str| {
        admin
            .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
            .unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
        eventually("the session knows", || value(admin, "SHOW synchronous_standby_names") == names);
    };
    let paused = Paused::begin(checkpointer);
    name(&mut admin, "nobody");
    eventually("the session knows", || {
        value(&mut session, "SHOW synchronous_standby_names") == "nobody"
    });
    // The session asks for a standby, and the server does not know of it yet.
    assert_eq!(value(&mut session, told), "received");
    drop(paused);
    let mut waits = database.connect();
    waits.batch_execute("SET statement_timeout = '1s'").unwrap();
    eventually("the server knows", || waits.simple_query(told).is_err());
    let paused = Paused::begin(checkpointer);
    name(&mut admin, "");
    eventually("the session knows", || {
        value(&mut waits, "SHOW synchronous_standby_names").is_empty()
    });
    // The server still waits for one that the session knows nothing of any more.
    assert_eq!(sqlstate(&waits.simple_query(told).unwrap_err()), "57014");
    drop(paused);
    eventually("nobody is waited for", || waits.simple_query(told).is_ok());
    assert_eq!(value(&mut waits, told), "received");
}

/// A session whose transactions may last so long only is not kept by a standby that is away: what
/// was not told yet need not be. (A commit is not ended by it, of PostgreSQL's own either.)
#[test]
fn a_transaction_timeout_ends_the_wait_for_a_standby() {
    let cluster = Cluster::start(&["fsync=off", "statement_timeout=120s"]);
    let database = cluster.database();
    let [mut admin, mut client] = std::array::from_fn(|_| database.connect());
    stocked(&mut client, "a", "m", 10);
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    eventually("the session knows", || {
        value(&mut client, "SHOW synchronous_standby_names") == "nobody"
    });
    let repeat = "SELECT outcome FROM stock.try_receive_stock('stock of a m', 'a', 'm', 10)";
    client.batch_execute("SET transaction_timeout = '1s'").unwrap();
    let mut ended = None;
    eventually("the server knows of the standby", || {
        client.batch_execute("BEGIN").unwrap();
        ended = client.simple_query(repeat).err();
        ended.is_some() || client.batch_execute("COMMIT").is_err()
    });
    let ended = ended.expect("it waits for nobody");
    // The driver may tell that the connection is gone, and not why; the server tells both.
    assert!(ended.is_closed() || sqlstate(&ended) == "25P04", "{ended:?}");
    let said = cluster.log();
    let mut lines = said.lines();
    let reason = "FATAL:  terminating connection due to transaction timeout";
    assert!(lines.any(|line| line.ends_with(reason)), "{said}");
    assert!(lines.next().is_some_and(|line| line.ends_with(&format!("STATEMENT:  {repeat}"))));
}

/// A process of a server that stands still as long as this lives.
struct Paused(i32);

impl Paused {
    fn begin(pid: i32) -> Paused {
        // SAFETY: a process of the test's own server.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        Paused(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

/// An answer waits for the standby to have it on disk, also where commits of the session wait for
/// it to be applied: no record asks the standby to tell how far it has applied what somebody else
/// has written.
#[test]
fn an_answer_under_remote_apply_does_not_wait_for_what_is_never_told() {
    let (primary, standby, _admin) = with_synchronous_standby();
    let database = primary.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute("SELECT stock.reserve_stock('k', 'a', 'm', 1)").unwrap();
    // The first one begins the generation, and so writes.
    client.batch_execute("SELECT * FROM stock.snapshot()").unwrap();
    standby.connect("postgres").batch_execute("SELECT pg_wal_replay_pause()").unwrap();
    client.batch_execute("SELECT stock.receive_stock('r', 'a', 'm', 1)").unwrap();
    client
        .batch_execute("SET synchronous_commit = remote_apply; SET statement_timeout = '20s'")
        .unwrap();
    for text in ["try_reserve_stock('k', 'a', 'm', 1)", "reservation('k')", "snapshot()"] {
        client
            .batch_execute(&format!("SELECT * FROM stock.{text}"))
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
    standby.connect("postgres").batch_execute("SELECT pg_wal_replay_resume()").unwrap();
    client.batch_execute("SET synchronous_commit = on").unwrap();
    invariants::assert_hold(&mut client);
}
