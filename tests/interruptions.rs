//! A call that is interrupted leaves nothing behind, and the same backend works afterwards.

use std::time::Duration;

use super::support::{
    call, database, finish, outcome, raised, sqlstate, stocked, value, wait_for_lock,
};
use postgres::NoTls;

/// Calls that wait for the locked level 'a'.
const CALLS: [&str; 8] = [
    "try_reserve_stock('new', 'a', 'm', 1)",
    r#"try_reserve_stock('new', '[{"sku":"b","location":"m","quantity":1},{"sku":"a","location":"m","quantity":1}]')"#,
    r#"reserve_many('[{"key":"new","lines":[{"sku":"b","location":"m","quantity":1},{"sku":"a","location":"m","quantity":1}]}]')"#,
    "try_confirm_stock('held')",
    "try_release_stock('held')",
    "try_receive_stock('new', 'a', 'm', 1)",
    "try_adjust_stock('new', 'a', 'm', 1, 'found')",
    "try_transfer_stock('new', 'b', 'a', 'm', 1)",
];

/// Runs each call against a level that another session has locked, interrupts it, and sees that it
/// left nothing.
fn interrupted(prepare: &str, state: &str, interrupt: Option<&str>) {
    let database = database();
    let (mut client, mut locker, mut killer) =
        (database.connect(), database.connect(), database.connect());
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "b", "m", 10);
    stocked(&mut client, "b", "a", 10);
    assert_eq!(outcome(&mut client, "try_reserve_stock('held', 'a', 'm', 2)"), "reserved");
    for text in CALLS {
        let before = value(&mut killer, "SELECT count(*) FROM stock.ledger");
        locker
            .batch_execute("BEGIN; SELECT FROM stock.level WHERE 'a' IN (sku, location) FOR UPDATE")
            .unwrap();
        client.batch_execute(prepare).unwrap();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let error = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| call(&mut client, text).unwrap_err());
            if let Some(interrupt) = interrupt {
                wait_for_lock(&mut killer, pid);
                assert_eq!(value(&mut killer, &format!("SELECT {interrupt}({pid})")), "t");
            }
            waiting.join().unwrap()
        });
        // A terminated backend may be gone before its last words arrive.
        let gone = state == "57P01" && error.is_closed();
        assert!(gone || sqlstate(&error) == state, "{text}: {error:?}");
        locker.batch_execute("ROLLBACK").unwrap();
        assert_eq!(value(&mut killer, "SELECT count(*) FROM stock.ledger"), before, "{text}");
        if state == "57P01" {
            client = database.connect();
        } else {
            client.batch_execute("RESET lock_timeout; RESET statement_timeout").unwrap();
        }
        assert!(
            !call(&mut client, "try_reserve_stock('held', 'a', 'm', 2)").unwrap().is_empty(),
            "the backend works"
        );
    }
    drop(client);
    finish(database);
}

#[test]
fn lock_timeout_passes_through() {
    interrupted("SET lock_timeout = '30ms'", "55P03", None);
}

#[test]
fn statement_timeout_passes_through() {
    interrupted("SET statement_timeout = '50ms'", "57014", None);
}

#[test]
fn a_cancelled_call_leaves_nothing() {
    interrupted("SELECT 1", "57014", Some("pg_cancel_backend"));
}

#[test]
fn a_terminated_backend_leaves_nothing() {
    interrupted("SELECT 1", "57P01", Some("pg_terminate_backend"));
}

/// A client that goes away in mid-call: its call is undone or complete, never half done.
#[test]
fn a_client_that_vanishes_leaves_all_or_nothing() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000_000);
    stocked(&mut client, "b", "m", 1_000_000);
    for number in 0..20 {
        let mut leaving = database.cluster.config(database.name()).connect(NoTls).unwrap();
        let lines =
            r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
        let token = leaving.cancel_token();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                drop(call(&mut leaving, &format!("try_reserve_stock('o{number}', '{lines}')")));
                drop(leaving);
            });
            std::thread::sleep(Duration::from_micros(300 * number));
            drop(token.cancel_query(NoTls));
        });
    }
    let half = "SELECT count(*) FROM (SELECT FROM stock.holds GROUP BY key HAVING count(*) <> 2) h";
    assert_eq!(value(&mut client, half), "0");
    finish(database);
}

#[test]
fn a_key_whose_call_was_interrupted_may_try_again() {
    let database = database();
    let (mut client, mut locker) = (database.connect(), database.connect());
    stocked(&mut client, "a", "m", 1);
    locker.batch_execute("BEGIN; SELECT FROM stock.level FOR UPDATE").unwrap();
    client.batch_execute("SET lock_timeout = '10ms'").unwrap();
    assert_eq!(raised(&mut client, "reserve_stock('o', 'a', 'm', 1)"), "55P03");
    locker.batch_execute("ROLLBACK").unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'm', 1)"), "reserved");
    finish(database);
}
