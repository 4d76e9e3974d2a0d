//! The network is cut, in both directions and without a word, between the worker and either side.

use super::support::proxy::Proxy;
use super::support::shop::sell;
use super::support::{Shop, Worker, eventually, report};

/// Cuts, sells, sees that the cache does not claim to be in step, mends, and waits.
fn cut(shop: &Shop<'_>, proxy: &Proxy, worker: &Worker, what: &str) {
    let epoch = shop.epoch();
    proxy.cut();
    let mut client = shop.connect();
    (0..10).for_each(|nth| sell(&mut client, &format!("s{nth}")));
    eventually("the age shows that something is wrong", || !shop.is_in_step());
    eventually("it is told", || worker.log().contains("beginning anew"));
    (0..10).for_each(|nth| sell(&mut client, &format!("s{nth}")));
    proxy.mend();
    report(&format!("the network to {what} was whole again"), shop.in_step());
    assert_eq!(shop.epoch(), epoch, "it was caught up, not rebuilt");
}

#[test]
fn between_the_worker_and_the_database() {
    let shop = Shop::open();
    shop.stock(20);
    let proxy = Proxy::to(format!("{}/.s.PGSQL.5432", shop.database.cluster.socket()));
    let database = format!("host=127.0.0.1 port={} user=cache dbname={}", proxy.port(), shop.database.name());
    let worker = Worker::start(&database, &shop.redis.url(), &[]);
    shop.in_step();
    cut(&shop, &proxy, &worker, "PostgreSQL");
}

#[test]
fn between_the_worker_and_redis() {
    let shop = Shop::open();
    shop.stock(20);
    let proxy = Proxy::to(shop.redis.socket());
    let worker = Worker::start(&shop.database_url(), &format!("redis://127.0.0.1:{}", proxy.port()), &[]);
    shop.in_step();
    cut(&shop, &proxy, &worker, "Redis");
}
