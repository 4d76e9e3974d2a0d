//! Readers: one call tells what is known and how old that is; a slow one never brings an old value
//! back.

use std::time::Duration;

use pg_stock_cache::entry::Level;
use pg_stock_cache::read::{Cache, Lease, Reading};
use pg_stock_cache::store::{Move, Store};
use redis::aio::MultiplexedConnection;

use super::scripts::{begun, level, store, version};
use super::support::shop::layout;
use super::support::{RedisServer, wait};

type Reader = Cache<MultiplexedConnection>;

fn reader(redis: &RedisServer) -> Reader {
    Cache::new(
        wait(redis.client().get_multiplexed_async_connection()).expect("a connection"),
        layout(),
    )
}

/// A Redis with a worker's epoch in it.
fn kept() -> (RedisServer, Store, Reader) {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    wait(store.complete("c1")).expect("an end");
    let reader = reader(&redis);
    (redis, store, reader)
}

fn miss(reader: &mut Reader, sku: &str) -> Lease {
    match wait(reader.read(sku, "main")).expect("a reading") {
        Reading::Missed { lease: Some(lease) } => lease,
        other => panic!("{other:?}"),
    }
}

fn fill(reader: &mut Reader, lease: Lease, level: Option<Level>) -> bool {
    wait(reader.fill(lease, level)).expect("an answer")
}

fn write(store: &mut Store, level: Level) {
    wait(store.write(&[level], None)).expect("a write");
}

#[test]
fn a_reading_tells_the_values_and_their_age() {
    let (_redis, mut store, mut reader) = kept();
    write(&mut store, level("a", 3, 8));
    let reading = wait(reader.read("a", "main")).expect("a reading");
    assert_eq!(
        reading,
        Reading::Found { level: level("a", 3, 8), age: None },
        "never in step so far"
    );
    let in_step = Some(wait(store.now()).expect("the time") - 1_500);
    wait(store.write(&[], Some(Move { from: "c1", to: "c2", in_step }))).expect("a write");
    match wait(reader.read("a", "main")).expect("a reading") {
        Reading::Found { age: Some(age), .. } => {
            assert!(age.as_millis().abs_diff(1_500) < 1_000, "{age:?}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_miss_may_be_filled_with_what_the_database_says() {
    let (redis, _store, mut reader) = kept();
    let lease = miss(&mut reader, "a");
    assert!(fill(&mut reader, lease, Some(level("a", 5, 8))));
    assert_eq!(version(&redis, "a"), Some(5));
    assert!(matches!(wait(reader.read("a", "main")), Ok(Reading::Found { .. })));
    let ttl: i64 = redis.run(&["TTL", "stock:level:main:a"]);
    assert!(ttl > 23 * 3_600, "{ttl}");
}

#[test]
fn absence_is_remembered_for_a_short_time() {
    let (redis, mut store, mut reader) = kept();
    let lease = miss(&mut reader, "a");
    assert!(fill(&mut reader, lease, None));
    assert_eq!(wait(reader.read("a", "main")).expect("a reading"), Reading::Absent { age: None });
    let ttl: i64 = redis.run(&["TTL", "stock:level:main:a"]);
    assert!((1..=60).contains(&ttl), "{ttl}");
    write(&mut store, level("a", 1, 1));
    assert_eq!(version(&redis, "a"), Some(1));
}

#[test]
fn a_slow_reader_never_brings_an_old_value_back() {
    let (redis, mut store, mut reader) = kept();
    // It has read version 5 in the database. Then comes version 6, and then the entry is evicted.
    for evicted in [false, true] {
        let _: i64 = redis.run(&["DEL", "stock:level:main:a"]);
        let lease = miss(&mut reader, "a");
        write(&mut store, level("a", 6, 6));
        if evicted {
            let _: i64 = redis.run(&["DEL", "stock:level:main:a"]);
        }
        assert!(!fill(&mut reader, lease, Some(level("a", 5, 5))));
        assert_eq!(version(&redis, "a"), (!evicted).then_some(6));
    }
}

#[test]
fn a_slow_reader_never_denies_a_level_that_has_appeared() {
    let (redis, mut store, mut reader) = kept();
    let lease = miss(&mut reader, "a");
    write(&mut store, level("a", 1, 1));
    assert!(!fill(&mut reader, lease, None));
    assert_eq!(version(&redis, "a"), Some(1));
}

#[test]
fn a_removal_takes_the_lease_too() {
    let (redis, mut store, mut reader) = kept();
    let lease = miss(&mut reader, "a");
    wait(store.invalidate([("a", "main")].into_iter())).expect("a removal");
    assert!(!fill(&mut reader, lease, Some(level("a", 5, 5))));
    assert_eq!(version(&redis, "a"), None);
}

#[test]
fn a_lease_ends_with_its_epoch_with_its_time_and_with_a_flush() {
    let (redis, _store, mut reader) = kept();
    let lease = miss(&mut reader, "a");
    wait(store(&redis, "two").begin()).expect("an epoch");
    assert!(!fill(&mut reader, lease, Some(level("a", 5, 5))), "the epoch is over");
    let mut hasty = reader.clone().with_lease(Duration::from_millis(20));
    let lease = miss(&mut hasty, "b");
    std::thread::sleep(Duration::from_millis(60));
    assert!(!fill(&mut hasty, lease, Some(level("b", 5, 5))), "its time is over");
    let lease = miss(&mut reader, "c");
    let () = redis.run(&["FLUSHALL"]);
    assert!(!fill(&mut reader, lease, Some(level("c", 5, 5))), "it was flushed");
    assert_eq!(redis.run::<i64>(&["DBSIZE"]), 0);
}

#[test]
fn a_lease_lasts_ten_seconds() {
    let (redis, _store, mut reader) = kept();
    miss(&mut reader, "a");
    let left: i64 = redis.run(&["PTTL", &layout().lease("a", "main")]);
    assert!((9_000..=10_000).contains(&left), "{left}");
}

#[test]
fn readers_share_a_lease_and_the_worker_takes_it_from_all_of_them() {
    let (redis, mut store, mut reader) = kept();
    let (first, second) = (miss(&mut reader, "a"), miss(&mut reader, "a"));
    assert_eq!(first, second);
    assert!(fill(&mut reader, first, Some(level("a", 5, 5))));
    assert!(!fill(&mut reader, second.clone(), Some(level("a", 5, 5))), "it is there already");
    write(&mut store, level("a", 6, 6));
    assert!(!fill(&mut reader, second, Some(level("a", 5, 5))));
    assert_eq!(version(&redis, "a"), Some(6));
}

#[test]
fn without_a_worker_nothing_is_filled_in() {
    let redis = RedisServer::start(&[]);
    let reading = wait(reader(&redis).read("a", "main")).expect("a reading");
    assert_eq!(reading, Reading::Missed { lease: None });
}

#[test]
fn a_full_redis_still_answers() {
    let (redis, _store, mut reader) = kept();
    let () = redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(wait(reader.read("a", "main")).expect("a reading"), Reading::Missed { lease: None });
}

#[test]
fn any_client_reads_an_entry_and_its_age_with_one_mget() {
    let (redis, mut store, _reader) = kept();
    write(&mut store, level("apple", 7, 8));
    wait(store.write(&[], Some(Move { from: "c1", to: "c2", in_step: Some(1_700_000_000_000) })))
        .expect("a write");
    let (entry, in_step): (String, i64) =
        redis.run(&["MGET", "stock:level:main:apple", "stock:in_step"]);
    let entry: serde_json::Value = serde_json::from_str(&entry).expect("JSON");
    let expected = serde_json::json!({"sku": "apple", "location": "main", "available": 8, "on_hand": 8, "reserved": 0,
        "safety_stock": 0, "frozen": false, "version": 7, "epoch": store.epoch()});
    assert_eq!((entry, in_step), (expected, 1_700_000_000_000));
}
