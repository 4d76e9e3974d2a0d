//! The scripts in Redis: older never replaces newer, absence never replaces a value, an epoch that
//! is over writes nothing.

use std::time::Duration;

use pg_stock_cache::entry::{Entry, Level};
use pg_stock_cache::error::Error;
use pg_stock_cache::store::{Move, Store, Written};

use super::support::shop::layout;
use super::support::{RedisServer, eventually, wait};

pub const LIMIT: Duration = Duration::from_secs(5);

/// A level with these units.
pub fn level(sku: &str, version: i64, on_hand: i64) -> Level {
    let (sku, location) = (sku.to_owned(), "main".to_owned());
    Level {
        sku,
        location,
        available: on_hand,
        on_hand,
        reserved: 0,
        safety_stock: 0,
        in_transit: 0,
        waiting: 0,
        backorder_limit: 0,
        unsellable: 0,
        frozen: false,
        on_sale_from: None,
        on_sale_until: None,
        version,
    }
}

/// A worker's connection.
pub fn store(redis: &RedisServer, token: &str) -> Store {
    wait(Store::connect(&redis.client(), &layout(), Duration::from_secs(3_600), token, LIMIT))
        .expect("a store")
}

/// A worker's connection, in an epoch of its own.
pub fn begun(redis: &RedisServer, token: &str) -> Store {
    let mut store = store(redis, token);
    wait(store.begin()).expect("an epoch");
    store
}

fn write(store: &mut Store, levels: &[Level]) -> Written {
    wait(store.write(levels, None)).expect("a write")
}

/// The version in the cache.
pub fn version(redis: &RedisServer, sku: &str) -> Option<i64> {
    let text: Option<String> = redis.run(&["GET", &layout().level(sku, "main")]);
    match serde_json::from_str(&text?).expect("an entry") {
        Entry::Found { level, .. } => Some(level.version),
        Entry::Absent { .. } => Some(0),
    }
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    for (given, kept) in [(5, 5), (4, 5), (6, 6), (1, 6), (6, 6), (1 << 52, 1 << 52), (7, 1 << 52)]
    {
        write(&mut store, &[level("a", given, given)]);
        assert_eq!(version(&redis, "a"), Some(kept), "after {given}");
    }
}

#[test]
fn within_one_batch_the_newest_stays() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    write(&mut store, &[level("a", 2, 2), level("a", 3, 3), level("a", 1, 1)]);
    assert_eq!(version(&redis, "a"), Some(3));
}

#[test]
fn large_numbers_are_kept_to_the_unit() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    let units = 999_999_999_999_999;
    write(&mut store, &[level("a", 1, units)]);
    let read = wait(store.read(&[("a".into(), "main".into())])).expect("entries");
    let Some(Some(Entry::Found { level, epoch })) = &read[0] else { panic!("{read:?}") };
    assert_eq!((level.on_hand, *epoch), (units, store.epoch()));
}

#[test]
fn what_is_no_entry_is_replaced() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    let key = layout().level("a", "main");
    for other in [
        r#"{"absent":true,"sku":"a","location":"main","epoch":1}"#,
        "nonsense",
        "[]",
        "7",
        "{}",
        "",
    ] {
        let () = redis.run(&["SET", &key, other]);
        write(&mut store, &[level("a", 1, 1)]);
        assert_eq!(version(&redis, "a"), Some(1), "{other}");
    }
    let () = redis.run(&["DEL", &key]);
    let _: i64 = redis.run(&["LPUSH", &key, "a list"]);
    write(&mut store, &[level("a", 1, 1)]);
    assert_eq!(version(&redis, "a"), Some(1));
}

#[test]
fn a_new_epoch_replaces_any_version_and_removes_what_it_did_not_write() {
    let redis = RedisServer::start(&[]);
    let mut old = begun(&redis, "one");
    write(&mut old, &[level("a", 9, 9), level("gone", 3, 3)]);
    let _: i64 = redis.run(&["LPUSH", &layout().level("odd", "main"), "a list"]);
    wait(old.complete("cursor")).expect("an end");
    let mut new = begun(&redis, "two");
    assert!(new.epoch() > old.epoch());
    write(&mut new, &[level("a", 2, 2)]);
    assert_eq!(version(&redis, "a"), Some(2));
    wait(new.complete("other")).expect("an end");
    assert_eq!(version(&redis, "gone"), None);
    let keys: Vec<String> = redis.run(&["KEYS", "stock:level:*"]);
    assert_eq!(keys, ["stock:level:main:a"]);
}

#[test]
fn an_epoch_that_is_over_writes_nothing() {
    let redis = RedisServer::start(&[]);
    let mut old = begun(&redis, "one");
    wait(old.complete("cursor")).expect("an end");
    let mut new = begun(&redis, "two");
    write(&mut new, &[level("a", 2, 2)]);
    assert!(matches!(wait(old.write(&[level("a", 9, 9)], None)), Err(Error::Fenced)));
    assert!(matches!(wait(old.complete("cursor")), Err(Error::Fenced)));
    assert_eq!(version(&redis, "a"), Some(2));
    let () = redis.run(&["FLUSHALL"]);
    assert!(matches!(wait(new.write(&[level("a", 3, 3)], None)), Err(Error::Fenced)));
    assert_eq!(version(&redis, "a"), None);
}

#[test]
fn an_epoch_rises_even_if_the_last_one_was_forgotten() {
    let redis = RedisServer::start(&[]);
    let old = begun(&redis, "one");
    let () = redis.run(&["FLUSHALL"]);
    std::thread::sleep(Duration::from_millis(2));
    assert!(begun(&redis, "one").epoch() > old.epoch());
}

#[test]
fn one_worker_rebuilds_at_a_time() {
    let redis = RedisServer::start(&[]);
    let mut first = begun(&redis, "one");
    assert!(matches!(wait(store(&redis, "two").begin()), Err(Error::Busy)));
    wait(first.begin()).expect("the same worker may begin anew");
    wait(first.complete("cursor")).expect("an end");
    wait(store(&redis, "two").begin()).expect("its turn");
}

#[test]
fn a_claim_to_rebuild_lasts_three_seconds_and_is_renewed_while_it_is_held() {
    let redis = RedisServer::start(&[]);
    let store = begun(&redis, "one");
    let left = || redis.run::<i64>(&["PTTL", &layout().rebuild()]);
    assert!((2_000..=3_000).contains(&left()), "{}", left());
    let claim = wait(async { store.claim() });
    let _: bool = redis.run(&["PEXPIRE", &layout().rebuild(), "60000"]);
    eventually("it is renewed", || left() <= 3_000);
    assert!(left() > 2_000, "for three seconds: {}", left());
    drop(claim);
    eventually("it ends", || left() < 0);
    wait(self::store(&redis, "two").begin()).expect("its turn");
}

#[test]
fn a_rebuild_takes_in_step_away() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    wait(store.complete("c1")).expect("an end");
    wait(store.write(&[], Some(Move { from: "c1", to: "c2", in_step: Some(7) }))).expect("a write");
    assert_eq!(redis.run::<i64>(&["EXISTS", &layout().in_step()]), 1);
    wait(store.begin()).expect("an epoch");
    write(&mut store, &[level("a", 1, 1)]);
    assert_eq!(redis.run::<i64>(&["EXISTS", &layout().in_step()]), 0);
    wait(store.complete("c3")).expect("an end");
    assert_eq!(redis.run::<i64>(&["EXISTS", &layout().in_step()]), 0, "not before it is caught up");
}

#[test]
fn the_cursor_moves_only_from_where_it_is_said_to_be() {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    assert_eq!(wait(store.load()).expect("a position"), None);
    wait(store.complete("c1")).expect("an end");
    let mut go = |from: &str, to: &str| {
        wait(store.write(&[level("a", 1, 1)], Some(Move { from, to, in_step: Some(7) })))
            .expect("a write")
    };
    assert_eq!(go("c1", "c2"), Written::Done);
    assert_eq!(go("c1", "c3"), Written::Moved(Some("c2".into())));
    assert_eq!(go("c1", "c2"), Written::Done, "it is there already");
    assert_eq!(wait(store.load()).expect("a position"), Some("c2".into()));
    assert_eq!(redis.run::<i64>(&["GET", "stock:in_step"]), 7);
    assert_eq!(version(&redis, "a"), Some(1));
}
