//! The network is cut, in both directions and without a word, between the worker and either side.

use super::support::metrics::{free_address, metric};
use super::support::proxy::Proxy;
use super::support::shop::sell;
use super::support::{Shop, Worker, eventually, report};

/// Lets a worker get in step; cuts, sells, sees that the cache does not claim to be in step, mends,
/// and waits.
fn cut(shop: &Shop<'_>, proxy: &Proxy, (database, redis): (&str, &str), what: &str) {
    let address = free_address();
    let worker = Worker::start(database, redis, &["--metrics-address", &address]);
    shop.in_step();
    let epoch = shop.epoch();
    assert_eq!(metric(&address, "reconnects_total"), 0);
    proxy.cut();
    let mut client = shop.connect();
    (0..10).for_each(|nth| sell(&mut client, &format!("s{nth}")));
    eventually("the age shows that something is wrong", || !shop.is_in_step());
    eventually("it is told", || worker.log().contains("beginning anew"));
    assert!(metric(&address, "reconnects_total") > 0);
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
    let database =
        format!("host=127.0.0.1 port={} user=cache dbname={}", proxy.port(), shop.database.name());
    cut(&shop, &proxy, (&database, &shop.redis.url()), "PostgreSQL");
}

#[test]
fn between_the_worker_and_redis() {
    let shop = Shop::open();
    shop.stock(20);
    let proxy = Proxy::to(shop.redis.socket());
    let redis = format!("redis://127.0.0.1:{}", proxy.port());
    cut(&shop, &proxy, (&shop.database_url(), &redis), "Redis");
}
