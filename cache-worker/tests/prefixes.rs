//! Other prefixes: caches that share a Redis leave each other alone, and channels have other names.

use std::time::Duration;

use pg_stock_cache::layout::Layout;
use postgres::fallible_iterator::FallibleIterator;

use super::support::shop::{Levels, in_cache_below, layout, start_cluster};
use super::support::{Shop, Worker, eventually};

/// The keys of the second cache.
fn other() -> Layout {
    "other".parse().expect("a prefix")
}

/// Two databases with the same SKUs; the Redis of the first is for both.
struct Neighbours {
    first: Shop<'static>,
    second: Shop<'static>,
}

impl Neighbours {
    fn open() -> Neighbours {
        Neighbours { first: Shop::open(), second: Shop::open() }
    }

    /// Starts a worker of the second database.
    fn second_worker(&self, options: &[&str]) -> Worker {
        let options = [&["--key-prefix", "other"], options].concat();
        Worker::start(&self.second.database_url(), &self.first.redis.url(), &options)
    }

    /// What the second cache has.
    fn second_cache(&self) -> Levels {
        in_cache_below(&other(), &mut self.first.redis.connect()).expect("entries")
    }

    /// Waits until both caches equal their databases.
    fn in_step(&self) {
        self.first.in_step();
        let database = self.second.in_database();
        eventually("the other cache is in step", || self.second_cache() == database);
    }
}

#[test]
fn two_databases_that_share_a_redis_do_not_disturb_each_other() {
    let both = Neighbours::open();
    both.first.stock(300);
    both.second.stock(200);
    let _workers = [both.first.worker(&[]), both.second_worker(&[])];
    both.in_step();
    both.first.sell("s1");
    (0..3).for_each(|_| both.second.sell("s1"));
    both.in_step();
    // What is left over from an older epoch is removed by a rebuild: not what is of others.
    let epoch = both.first.epoch();
    let epoch_of_other = || -> i64 {
        let epoch: Option<i64> = both.first.redis.run(&["HGET", &other().state(), "epoch"]);
        epoch.unwrap_or_default()
    };
    let last = epoch_of_other();
    let _: i64 = both.first.redis.run(&["DEL", &other().state()]);
    eventually("the other cache is rebuilt", || epoch_of_other() > last);
    both.in_step();
    assert_eq!(both.first.epoch(), epoch, "this one is not");
    assert_eq!((both.first.in_cache().len(), both.second_cache().len()), (300, 200));
}

#[test]
fn a_sample_has_no_entries_of_others_and_is_no_smaller_for_them() {
    let both = Neighbours::open();
    both.first.stock(2_000);
    both.second.stock(150);
    assert!(both.first.worker(&["--once"]).end().success());
    for (percent, checked) in [("10", 100), ("100", 150)] {
        let mut worker = both.second_worker(&["--check-now", "--check-percent", percent]);
        assert!(worker.end().success(), "{}", worker.log());
        let expected = format!("{{\"checked\":{checked},\"rebuilt\":false,\"wrong\":0}}\n");
        assert_eq!(worker.output(), expected);
    }
}

#[test]
fn channels_may_have_another_prefix() {
    let cluster = start_cluster(&["pg_stock.channel_prefix=shop"]);
    let shop = Shop::at(&cluster, &[]);
    shop.stock(20);
    let options = &["--channel-prefix", "shop", "--heartbeat", "1h", "--check-every", "1h"];
    let worker = shop.worker_in_step(options);
    shop.sell("s1");
    let database = shop.in_database();
    eventually("a notification is heard", || shop.in_cache() == database);
    worker.kill();
    let mut listener = shop.connect();
    listener.batch_execute("LISTEN shop_alert").expect("to listen");
    let () = shop.redis.run(&["SET", &layout().level("s2", "main"), "nonsense"]);
    let mut check = shop.worker(&["--channel-prefix", "shop", "--check-now"]);
    assert_eq!(check.end().code(), Some(1), "{}", check.log());
    let mut notifications = listener.notifications();
    let next = notifications.timeout_iter(Duration::from_secs(5)).next().expect("a connection");
    let alert = next.expect("an alert").payload().to_owned();
    assert!(alert.contains("cache_rebuilt"), "{alert}");
}
