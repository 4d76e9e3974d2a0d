//! Several hosts are named: the worker uses the one that can be written to, and follows it.

use std::net::TcpListener;

use pg_stock_tests::Cluster;

use super::support::shop::start_cluster;
use super::support::{Shop, Worker, eventually, report};

/// How the worker connects to a database on either of two servers.
fn either(first: &Cluster, second: &Cluster, database: &str) -> String {
    let (hosts, port) = ([first.socket(), second.socket()].join(","), first.port());
    format!("host={hosts} port={port} user=cache dbname={database}")
}

#[test]
fn it_passes_over_a_standby_and_follows_it_after_its_promotion() {
    let primary = start_cluster(&[]);
    let shop = Shop::at(&primary, &[]);
    shop.stock(20);
    let standby = primary.standby();
    let database = either(&standby, &primary, shop.database.name());
    let worker = Worker::start(&database, &shop.redis.url(), &[]);
    shop.in_step();
    let epoch = shop.epoch();
    // The standby misses sales that the cache knows of: after the failover, lower versions count.
    standby.stop(false);
    (0..20).for_each(|nth| shop.sell(&format!("s{nth}")));
    shop.in_step();
    let lost = shop.in_cache();
    primary.stop(true);
    standby.resume();
    eventually("the age shows that something is wrong", || !shop.is_in_step());
    eventually("it is told", || worker.log().contains("beginning anew"));
    assert_eq!(shop.in_cache(), lost, "entries stay meanwhile");
    standby.connect("postgres").batch_execute("SELECT pg_promote()").expect("a promotion");
    let shop = Shop { database: standby.existing(shop.database.name()), redis: shop.redis };
    report("a failover to a standby", shop.in_step());
    assert!(shop.epoch() > epoch, "it was rebuilt");
    assert!(shop.in_cache().iter().all(|(named, level)| level.version < lost[named].version));
    shop.sell("s1");
    shop.in_step();
}

#[test]
fn it_passes_over_a_host_that_never_answers() {
    let shop = Shop::open();
    shop.stock(3);
    // As a machine that hangs: connections are taken, and nothing comes back.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = listener.local_addr().expect("an address").port();
    let ports = format!("{silent},{}", shop.database.cluster.port());
    let hosts = format!("127.0.0.1,{}", shop.database.cluster.socket());
    let database = format!("host={hosts} port={ports} user=cache dbname={}", shop.database.name());
    let _worker = Worker::start(&database, &shop.redis.url(), &[]);
    report("the first of two hosts was silent", shop.in_step());
}
