//! Whatever ends, is lost, or comes back older than it was: the cache is in step again, and never
//! went back meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pg_stock_cache::entry::Entry;

use super::support::shop::{layout, sell, start_cluster};
use super::support::{RedisServer, Shop, eventually, report};

/// Watches that no entry is ever followed by an older one.
struct Monitor {
    over: Arc<AtomicBool>,
    watching: JoinHandle<usize>,
}

impl Monitor {
    fn watch(redis: &RedisServer, skus: usize) -> Monitor {
        let over = Arc::new(AtomicBool::new(false));
        let (client, stop) = (redis.client(), over.clone());
        let keys: Vec<String> =
            (0..skus).map(|nth| layout().level(&format!("s{nth}"), "main")).collect();
        let watching = std::thread::spawn(move || {
            let (mut newest, mut readings) = (HashMap::new(), 0);
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut connection) = client.get_connection() else { continue };
                while !stop.load(Ordering::Relaxed) {
                    let read =
                        redis::cmd("MGET").arg(&keys).query::<Vec<Option<String>>>(&mut connection);
                    let Ok(texts) = read else { break };
                    readings += 1;
                    for (key, text) in keys.iter().zip(texts) {
                        let entry = text.and_then(|text| serde_json::from_str(&text).ok());
                        let Some(Entry::Found { level, epoch }) = entry else { continue };
                        let last = newest.entry(key.clone()).or_insert((epoch, level.version));
                        assert!(
                            (epoch, level.version) >= *last,
                            "{key}: {:?} after {last:?}",
                            (epoch, level.version)
                        );
                        *last = (epoch, level.version);
                    }
                }
            }
            readings
        });
        Monitor { over, watching }
    }

    /// Ends the watch.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let readings = self.watching.join().expect("no entry went back");
        assert!(readings > 10, "it has seen something: {readings}");
    }
}

/// Sells in the background, as well as the database lets it, until it is told to stop.
struct Sales {
    over: Arc<AtomicBool>,
    selling: JoinHandle<usize>,
}

impl Sales {
    fn begin(shop: &Shop<'_>) -> Sales {
        let over = Arc::new(AtomicBool::new(false));
        let (config, stop) = (shop.database.cluster.config(shop.database.name()), over.clone());
        let selling = std::thread::spawn(move || {
            let mut sold = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut client) = config.connect(postgres::NoTls) else { continue };
                let sql = "SELECT 1 FROM stock.sell_stock('sale ' || random()::text || \
                           clock_timestamp(), $1, 'main', 1)";
                while !stop.load(Ordering::Relaxed)
                    && client.query(sql, &[&format!("s{}", sold % 10)]).is_ok()
                {
                    sold += 1;
                }
            }
            sold
        });
        Sales { over, selling }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        assert!(self.selling.join().expect("no panic") > 10, "something was sold");
    }
}

/// Waits a little, so that the disaster meets work in progress.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn the_worker_is_killed() {
    let shop = Shop::open();
    shop.stock(10);
    let (monitor, sales) = (Monitor::watch(&shop.redis, 10), Sales::begin(&shop));
    for _ in 0..5 {
        let worker = shop.worker(&[]);
        shop.told_in_step();
        a_moment();
        worker.kill();
    }
    let epoch = shop.epoch();
    let _worker = shop.worker(&[]);
    report("kill -9 of the worker, while selling", shop.told_in_step());
    sales.end();
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "it was caught up, not rebuilt");
    monitor.end();
}

#[test]
fn the_worker_is_killed_while_it_rebuilds() {
    let shop = Shop::open();
    shop.stock(20_000);
    let worker = shop.worker(&[]);
    eventually("it rebuilds", || !shop.in_cache().is_empty());
    worker.kill();
    assert!(!shop.is_in_step());
    let _worker = shop.worker(&[]);
    report("kill -9 of the worker in the middle of a rebuild", shop.in_step());
}

#[test]
fn redis_is_killed_and_keeps_a_log_of_its_own() {
    let shop =
        Shop::at(super::support::shop::cluster(), &["--appendonly yes", "--appendfsync always"]);
    shop.stock(10);
    let _worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    let (monitor, sales) = (Monitor::watch(&shop.redis, 10), Sales::begin(&shop));
    a_moment();
    shop.redis.kill();
    a_moment();
    shop.redis.resume();
    report("kill -9 of Redis with a log of its own", shop.told_in_step());
    sales.end();
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "it was caught up, not rebuilt");
    monitor.end();
}

#[test]
fn redis_is_killed_and_has_forgotten_everything() {
    let shop = Shop::open();
    shop.stock(1_000);
    let _worker = shop.worker_in_step(&[]);
    let sales = Sales::begin(&shop);
    a_moment();
    shop.redis.kill();
    a_moment();
    sales.end();
    shop.redis.resume();
    report("kill -9 of Redis without persistence", shop.in_step());
}

#[test]
fn redis_comes_back_as_it_was_some_time_ago() {
    let shop = Shop::at(super::support::shop::cluster(), &["--dbfilename old.rdb"]);
    shop.stock(100);
    let _worker = shop.worker_in_step(&[]);
    let () = shop.redis.run(&["SAVE"]);
    let epoch = shop.epoch();
    shop.change(1_000, 100);
    shop.in_step();
    shop.redis.kill();
    shop.redis.resume();
    report("Redis came back as it was 1,000 changes ago", shop.in_step());
    assert_eq!(
        shop.epoch(),
        epoch,
        "entries and cursor are of the same age: it was caught up, not rebuilt"
    );
}

#[test]
fn redis_is_emptied_under_a_living_connection() {
    let shop = Shop::open();
    shop.stock(1_000);
    let _worker = shop.worker_in_step(&[]);
    let (monitor, sales) = (Monitor::watch(&shop.redis, 10), Sales::begin(&shop));
    a_moment();
    let () = shop.redis.run(&["FLUSHALL"]);
    report("FLUSHALL, while selling", shop.told_in_step());
    sales.end();
    shop.in_step();
    monitor.end();
    // And where nobody sells, the heartbeat notices.
    let () = shop.redis.run(&["FLUSHALL"]);
    report("FLUSHALL, while nobody sold", shop.in_step());
}

#[test]
fn the_database_is_killed() {
    let cluster = start_cluster(&[]);
    let shop = Shop::at(&cluster, &[]);
    shop.stock(10);
    let _worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    let (monitor, sales) = (Monitor::watch(&shop.redis, 10), Sales::begin(&shop));
    a_moment();
    cluster.kill();
    eventually("the age shows that something is wrong", || !shop.is_in_step());
    cluster.resume();
    report("kill -9 of PostgreSQL", shop.told_in_step());
    sales.end();
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "it was caught up, not rebuilt");
    monitor.end();
}

#[test]
fn the_database_begins_another_life() {
    let shop = Shop::open();
    shop.stock(100);
    shop.change(1_000, 100);
    let worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    // The same name, other goods, lower versions: as after a restore.
    let mut admin = shop.connect();
    admin
        .batch_execute("DROP EXTENSION pg_stock CASCADE; DROP SCHEMA IF EXISTS stock CASCADE")
        .expect("to drop");
    admin.batch_execute("CREATE EXTENSION pg_stock").expect("to create");
    shop.prepare();
    shop.stock(40);
    report("the database was replaced by another", shop.in_step());
    assert!(shop.epoch() > epoch, "it was rebuilt:\n{}", worker.log());
    assert_eq!(shop.in_cache().len(), 40);
}

#[test]
fn the_database_declares_all_cursors_void() {
    let shop = Shop::open();
    shop.stock(100);
    let _worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    let mut client = shop.connect();
    for _ in 0..3 {
        client.batch_execute("SELECT stock.begin_generation()").expect("a generation");
        sell(&mut client, "s1");
    }
    let begin = Instant::now();
    eventually("it is rebuilt", || shop.epoch() > epoch);
    shop.in_step();
    report("all cursors became void", begin.elapsed());
}

/// Watches until a rebuild has begun and ended: as long as it goes on there is no `in_step`.
fn watch_a_rebuild(shop: &Shop<'_>) {
    let (mut connection, mut watched) = (shop.redis.connect(), 0);
    let mut together = redis::pipe();
    together.atomic().cmd("HMGET").arg(layout().state()).arg(&["epoch", "cursor"]);
    together.cmd("GET").arg(layout().in_step());
    eventually("a rebuild begins and ends", || {
        type Seen = ((Option<i64>, Option<String>), Option<i64>);
        let ((epoch, cursor), in_step): Seen =
            together.query(&mut connection).expect("the position");
        if epoch.is_some() && cursor.is_none() {
            assert_eq!(in_step, None, "it is being rebuilt");
            watched += 1;
        }
        watched > 0 && cursor.is_some()
    });
}

#[test]
fn the_position_in_redis_is_deleted_by_hand() {
    let shop = Shop::open();
    shop.stock(20_000);
    let _worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    let _: i64 = shop.redis.run(&["DEL", &layout().state()]);
    let begin = Instant::now();
    watch_a_rebuild(&shop);
    shop.in_step();
    report("the position in Redis was deleted", begin.elapsed());
    assert!(shop.epoch() > epoch, "a higher epoch");
}

#[test]
fn it_is_stopped_for_longer_than_entries_live() {
    let shop = Shop::open();
    shop.stock(50);
    let short = &["--entry-ttl", "4s", "--check-every", "1h"];
    let mut worker = shop.worker_in_step(short);
    worker.ask_to_stop();
    assert!(worker.end().success(), "{}", worker.log());
    eventually("the entries vanish", || shop.in_cache().is_empty());
    assert!(shop.cursor().is_some() && !shop.is_in_step());
    let _worker = shop.worker(short);
    report("a stop for longer than entries live", shop.in_step());
    assert_eq!(shop.in_cache().len(), 50);
}
