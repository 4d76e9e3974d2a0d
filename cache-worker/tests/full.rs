//! Redis is full: nothing stale is served, the cursor waits, and when there is room again the cache
//! catches up.

use super::support::metrics::{free_address, metric};
use super::support::shop::sell;
use super::support::{Shop, eventually, report};

#[test]
fn what_cannot_be_written_is_removed_and_comes_back_when_there_is_room() {
    let shop = Shop::open();
    shop.stock(100);
    let address = free_address();
    let worker = shop.worker_in_step(&["--check-every", "1h", "--metrics-address", &address]);
    let cursor = shop.cursor();
    assert_eq!(metric(&address, "redis_full_total"), 0);
    let () = shop.redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut client = shop.connect();
    (0..10).for_each(|nth| sell(&mut client, &format!("s{nth}")));
    eventually("the changed entries are removed", || shop.in_cache().len() == 90);
    let database = shop.in_database();
    assert!(
        shop.in_cache().iter().all(|(named, level)| database[named] == *level),
        "nothing stale is left"
    );
    eventually("it is told", || worker.log().contains("Redis is full"));
    assert!(metric(&address, "redis_full_total") > 0);
    assert_eq!(shop.cursor(), cursor);
    let () = shop.redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    report("there was room in Redis again", shop.in_step());
    assert_eq!(shop.in_cache().len(), 100);
}

#[test]
fn a_cache_that_does_not_fit_is_never_said_to_be_in_step() {
    let shop = Shop::at(
        super::support::shop::cluster(),
        &["--maxmemory 3mb", "--maxmemory-policy noeviction"],
    );
    shop.stock(20_000);
    let worker = shop.worker(&[]);
    eventually("it is told", || worker.log().matches("Redis is full").count() >= 3);
    assert!(!shop.is_in_step());
    let () = shop.redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    report("a Redis that was too small grew", shop.in_step());
}

#[test]
fn entries_that_redis_evicts_are_misses_and_the_position_stays() {
    let shop = Shop::at(
        super::support::shop::cluster(),
        &["--maxmemory 3mb", "--maxmemory-policy volatile-lru"],
    );
    shop.stock(20_000);
    let worker = shop.worker(&[]);
    eventually("it is in step", || shop.is_in_step());
    shop.change(1_000, 20_000);
    let database = shop.in_database();
    eventually("what is there is right", || {
        let cache = shop.in_cache();
        !cache.is_empty() && cache.iter().all(|(named, level)| database[named] == *level)
    });
    assert!(shop.in_cache().len() < 20_000, "Redis was too small for all");
    assert!(!worker.log().contains("full"), "{}", worker.log());
}
