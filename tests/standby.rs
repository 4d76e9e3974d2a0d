//! Reading elsewhere (MISSION E4): a standby says how old what it shows is, waits for a write, and
//! changes nothing.

use std::thread;
use std::time::{Duration, Instant};

use pg_stock_tests::Cluster;
use postgres::Client;

use super::security::CALLS;
use super::support::{call, eventually, outcome, sqlstate, stocked, value};

/// A primary with a level, a standby that shows it, and a session on each.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    writer: Client,
    reader: Client,
    database: &'static str,
}

impl Pair {
    fn start() -> Pair {
        let primary = Cluster::start(&["fsync=off"]);
        let database = primary.database().name();
        let mut writer = primary.connect(database);
        stocked(&mut writer, "a", "m", 5);
        let standby = primary.standby();
        let mut reader = standby.connect(database);
        // A commit that it has replayed itself tells it how late it is.
        stocked(&mut writer, "b", "m", 5);
        assert!(shows(&mut reader, &position(&mut writer), "30 s"));
        Pair { primary, standby, writer, reader, database }
    }
}

/// How far the primary has written.
fn position(writer: &mut Client) -> String {
    value(writer, "SELECT stock.write_position()")
}

/// Whether a server shows all up to a position within this time.
fn shows(reader: &mut Client, position: &str, timeout: &str) -> bool {
    value(reader, &format!("SELECT stock.wait_for('{position}', '{timeout}')")) == "t"
}

/// The SQLSTATE of a statement that must fail, and what it says.
fn refused(client: &mut Client, sql: &str) -> (String, String) {
    let error = client.simple_query(sql).expect_err(sql);
    let told = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    let detail = told.detail().unwrap_or_default();
    (sqlstate(&error), format!("{}. {detail} {}", told.message(), told.hint().unwrap_or_default()))
}

fn staleness(client: &mut Client) -> Duration {
    let seconds = value(client, "SELECT extract(epoch FROM stock.staleness())");
    Duration::from_secs_f64(seconds.parse().expect("seconds"))
}

/// MISSION E4. Replay stands still, as behind a long query: what the standby shows grows old, and
/// it says so; who waits for a write or a version waits until it comes, or is told that it did not.
#[test]
fn a_standby_says_how_old_it_is_and_waits_for_a_write() {
    let Pair { primary: _primary, standby, mut writer, mut reader, database } = Pair::start();
    let mut keeper = standby.connect("postgres");
    eventually("all is shown", || staleness(&mut reader) < Duration::from_secs(5));

    keeper.batch_execute("SELECT pg_wal_replay_pause()").unwrap();
    eventually("replay stands still", || {
        value(&mut keeper, "SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    let sold = Instant::now();
    let version = call(&mut writer, "sell_stock('o', 'a', 'm', 2)").unwrap()[0].version.unwrap();
    let position = position(&mut writer);
    assert!(!shows(&mut reader, &position, "50 ms"));
    assert!(!shows(&mut reader, &position, "0"));
    assert_eq!(value(&mut reader, "SELECT stock.available('a', 'm')"), "5");
    let wanted = format!("SELECT stock.available('a', 'm', {version}, ");
    let (code, text) = refused(&mut reader, &format!("{wanted}'50 ms')"));
    assert_eq!(code, "55000", "{text}");
    assert!(text.contains(&format!("older here than version {version}")), "{text}");
    assert!(text.contains("This server shows version 1"), "{text}");
    let (code, text) = refused(&mut reader, "SELECT stock.available('new', 'm', 1, '0')");
    assert_eq!(code, "55000", "{text}");
    assert!(text.contains("no such level"), "{text}");
    eventually("the standby has heard of it", || {
        value(&mut keeper, &format!("SELECT pg_last_wal_receive_lsn() >= '{position}'")) == "t"
    });
    let (before, said) = (sold.elapsed(), staleness(&mut reader));
    assert!(said >= before, "{said:?} after {before:?}");

    let session = || standby.connect(database);
    thread::scope(|scope| {
        let write = scope.spawn(|| shows(&mut session(), &position, "30 s"));
        let level = scope.spawn(|| value(&mut session(), &format!("{wanted}'30 s')")));
        eventually("both wait", || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                            WHERE query LIKE 'SELECT stock.%30 s%' AND state = 'active'
                              AND pid <> pg_backend_pid()";
            value(&mut keeper, waiting) == "2"
        });
        keeper.batch_execute("SELECT pg_wal_replay_resume()").unwrap();
        assert!(write.join().expect("no panic"));
        assert_eq!(level.join().expect("no panic"), "3");
    });
    assert!(staleness(&mut reader) < sold.elapsed());
}

/// A primary shows all that it has written at once, and what it has not it waits for in vain.
#[test]
fn a_primary_does_not_wait() {
    let Pair { primary, standby: _standby, mut writer, mut reader, database } = Pair::start();
    let here = position(&mut writer);
    assert_eq!(value(&mut writer, "SELECT stock.staleness()"), "00:00:00");
    assert!(shows(&mut writer, &here, "0"));
    let begin = Instant::now();
    assert!(!shows(&mut writer, "FFFFFFFF/0", "1 h"));
    assert!(begin.elapsed() < Duration::from_secs(600));
    assert_eq!(value(&mut writer, "SELECT stock.available('a', 'm', 1)"), "5");
    assert_eq!(value(&mut writer, "SELECT stock.available('a', 'm', NULL)"), "5");

    let (code, text) = refused(&mut reader, "SELECT stock.write_position()");
    assert_eq!(code, "25006", "{text}");
    let mut other = primary.connect(database);
    for (sql, code, what) in [
        ("SELECT stock.wait_for(NULL)", "22023", "write_position must not be null"),
        ("SELECT stock.wait_for('0/1', NULL)", "22023", "timeout must not be null"),
        ("SELECT stock.wait_for('0/1', '-1 s')", "22023", "at least 0 and at most a day"),
        ("SELECT stock.wait_for('0/1', '2 days')", "22023", "at least 0 and at most a day"),
        ("SELECT stock.available('a', 'm', 1, NULL)", "22023", "at least 0 and at most a day"),
        ("SELECT stock.available('a', 'm', 1, '-1 s')", "22023", "at least 0 and at most a day"),
        ("SELECT stock.wait_for('nowhere')", "22P02", "pg_lsn"),
    ] {
        let (found, text) = refused(&mut other, sql);
        assert_eq!(found, code, "{sql}: {text}");
        assert!(text.contains(what), "{sql}: {text}");
    }
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        other.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        let (code, text) = refused(&mut other, "SELECT stock.wait_for('0/1')");
        assert_eq!(code, "25001", "{text}");
        other.batch_execute("ROLLBACK").unwrap();
    }
    other.batch_execute("SET default_transaction_isolation = 'repeatable read'").unwrap();
    assert!(shows(&mut other, &here, "0"), "a statement of its own needs no other isolation");
}

/// A refusal or a repeat from a standby could be out of date; so nothing that changes stock is
/// answered there.
#[test]
fn a_standby_answers_reads_alone() {
    let Pair { primary: _primary, standby: _standby, mut writer, mut reader, .. } = Pair::start();
    outcome(&mut writer, "reserve_stock('o', 'a', 'm', 1)");
    assert!(shows(&mut reader, &position(&mut writer), "30 s"));
    let calls = [
        "try_reserve_stock('o', 'a', 'm', 1)",
        "try_reserve_stock('p', 'a', 'm', 9)",
        "try_sell_stock('o', 'a', 'm', 1)",
        "try_confirm_stock('unknown')",
        "try_release_stock('o')",
        "try_return_stock('o')",
        "try_extend_reservation('o', '1 hour')",
        "try_receive_stock('stock of a m', 'a', 'm', 5)",
        "try_adjust_stock('g', 'a', 'm', -9, 'why')",
        "try_set_stock('g', 'b', 'm', 1, 7)",
        "try_transfer_stock('g', 'b', 'm', 'n', 1)",
        "try_set_limits('g', 'b', 'm', 1)",
        "try_freeze_level('g', 'b', 'm', 'why')",
        "try_unfreeze_level('g', 'b', 'm', 'why')",
        "try_reopen_key('o', 'why')",
        r#"reserve_many('[{"key":"o","lines":[{"sku":"a","location":"m","quantity":1}]}]')"#,
    ];
    // What pg_cron keeps is its own to refuse.
    let is_changing = |(access, sql): &&(&str, &str)| {
        matches!(*access, "operate" | "administer") && !sql.starts_with("DO ")
    };
    let changing = CALLS.iter().filter(is_changing).map(|(_, sql)| *sql);
    let calls = calls.map(|text| format!("SELECT * FROM stock.{text}"));
    for sql in changing.chain(calls.iter().map(String::as_str)) {
        let (code, text) = refused(&mut reader, sql);
        assert_eq!(code, "25006", "{sql}: {text}");
        assert!(text.contains("primary"), "{sql}: {text}");
    }
    assert_eq!(value(&mut reader, "SELECT held FROM stock.reservation('o')"), "1");
    assert_eq!(value(&mut reader, "SELECT count(*) FROM stock.verify()"), "0");
}
