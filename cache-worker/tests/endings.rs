//! A signal ends it well, a mistake in its options with 2; everything else is waited out.

use std::net::TcpListener;

use super::support::metrics::{free_address, gauge, metric};
use super::support::shop::cluster;
use super::support::{RedisServer, Shop, Worker, eventually};

/// How the worker connects to a database of the shared server.
fn database(name: &str) -> String {
    let cluster = cluster();
    format!("host={} port={} user=cache dbname={name}", cluster.socket(), cluster.port())
}

#[test]
fn both_signals_end_it_with_0_while_it_follows() {
    let shop = Shop::open();
    shop.stock(3);
    for ask in [Worker::ask_to_stop, Worker::interrupt] {
        let mut worker = shop.worker_in_step(&[]);
        ask(&worker);
        assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    }
}

#[test]
fn both_signals_end_it_with_0_while_it_waits() {
    let redis = RedisServer::start(&[]);
    for ask in [Worker::ask_to_stop, Worker::interrupt] {
        let mut worker = Worker::start(&database("no_such"), &redis.url(), &["--pause-max", "1h"]);
        // The pauses grow: by then they are long.
        eventually("it waits", || worker.log().matches("beginning anew").count() >= 5);
        ask(&worker);
        assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    }
}

#[test]
fn a_database_that_does_not_exist_yet_is_waited_for() {
    let (redis, address) = (RedisServer::start(&[]), free_address());
    let worker = Worker::start(&database("late"), &redis.url(), &["--metrics-address", &address]);
    let told = || worker.log().matches(r#"database "late" does not exist"#).count();
    eventually("it is told", || told() >= 5);
    assert!(metric(&address, "reconnects_total") > 0);
    // Never in step so far: its age is counted from the start.
    let age = || gauge(&address, "in_step_age_seconds").expect("an age");
    eventually("the age rises", || age() > 1.0);
    let shop = Shop { database: cluster().create("late"), redis };
    shop.prepare();
    shop.stock(3);
    shop.in_step();
    eventually("the age falls", || age() < 1.0);
}

#[test]
fn a_missing_grant_is_waited_for() {
    let shop = Shop { database: cluster().database(), redis: RedisServer::start(&[]) };
    shop.stock(3);
    let worker = shop.worker(&[]);
    eventually("it is told", || worker.log().matches("permission denied").count() >= 5);
    shop.prepare();
    shop.in_step();
}

#[test]
fn an_address_for_metrics_that_is_taken_ends_it_with_2_and_is_named() {
    let shop = Shop::open();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut worker = shop.worker(&["--metrics-address", &address]);
    assert_eq!(worker.end().code(), Some(2));
    assert!(worker.log().contains(&address), "{}", worker.log());
}
