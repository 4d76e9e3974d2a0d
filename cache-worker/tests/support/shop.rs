//! A shop: a database that sells, a Redis, and the comparison of both.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pg_stock_cache::entry::{Entry, Level};
use pg_stock_cache::layout::Layout;
use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::{RedisServer, Worker, eventually};

/// Settings of a server with the worker that sends notifications.
pub const SETTINGS: &[&str] = &[
    "shared_preload_libraries=pg_stock",
    "fsync=off",
    "max_worker_processes=40",
    "statement_timeout=120s",
];

/// The levels of one side.
pub type Levels = BTreeMap<(String, String), Level>;

/// A database and a Redis.
pub struct Shop<'c> {
    pub database: Database<'c>,
    pub redis: RedisServer,
}

/// One server for all tests that do not stop it.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start_cluster(&[]))
}

/// A server of one's own.
pub fn start_cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(&[SETTINGS, settings].concat());
    cluster.connect("postgres").batch_execute("CREATE ROLE cache LOGIN").expect("a role");
    cluster
}

impl Shop<'static> {
    /// A new database on the shared server, and a new Redis.
    pub fn open() -> Shop<'static> {
        Shop::at(cluster(), &[])
    }
}

impl<'c> Shop<'c> {
    /// A new database on this server, and a new Redis with these settings.
    pub fn at(cluster: &'c Cluster, redis: &[&str]) -> Shop<'c> {
        let database = cluster.database();
        let shop = Shop { database, redis: RedisServer::start(redis) };
        shop.prepare();
        shop
    }

    /// Lets the worker's role read.
    pub fn prepare(&self) {
        let mut client = self.connect();
        client.batch_execute("SELECT stock.grant_access('cache', 'read')").expect("access");
    }

    /// How the worker connects to the database.
    pub fn database_url(&self) -> String {
        let cluster = self.database.cluster;
        format!(
            "host={} port={} user=cache dbname={}",
            cluster.socket(),
            cluster.port(),
            self.database.name()
        )
    }

    /// Starts a worker with these options.
    pub fn worker(&self, options: &[&str]) -> Worker {
        Worker::start(&self.database_url(), &self.redis.url(), options)
    }

    /// Starts a worker, and waits until it is in step.
    pub fn worker_in_step(&self, options: &[&str]) -> Worker {
        let now = self.now();
        let worker = self.worker(options);
        self.in_step_since(now);
        worker
    }

    /// A connection of the shop.
    pub fn connect(&self) -> Client {
        self.database.connect()
    }

    /// Receives units of as many SKUs, `s0`, `s1` and so on, at `main`.
    pub fn stock(&self, skus: usize) {
        let sql = format!(
            "SELECT count(*) FROM generate_series(0, {}) i,
                LATERAL stock.receive_stock('stock ' || i || random(), 's' || i, 'main', 1000000)",
            skus - 1
        );
        self.connect().batch_execute(&sql).expect("goods");
    }

    /// Sells one unit of a SKU.
    pub fn sell(&self, sku: &str) {
        sell(&mut self.connect(), sku);
    }

    /// Makes as many changes, one of each of the SKUs in turn.
    pub fn change(&self, times: usize, skus: usize) {
        let sql = format!(
            "SELECT count(*) FROM stock.reserve_many((SELECT jsonb_agg(jsonb_build_object('key',
             random()::text || i, 'lines',
                jsonb_build_array(jsonb_build_object('sku', 's' || i % {skus}, 'location', 'main',
                'quantity', 1))))
               FROM generate_series(1, {times}) i))"
        );
        self.connect().batch_execute(&sql).expect("changes");
    }

    /// What the database has.
    pub fn in_database(&self) -> Levels {
        in_database(&mut self.connect())
    }

    /// What the cache has.
    pub fn in_cache(&self) -> Levels {
        in_cache(&mut self.redis.connect()).expect("entries")
    }

    /// Waits until the cache equals the database and says that it is in step; how long it took.
    pub fn in_step(&self) -> Duration {
        self.in_step_since(self.now())
    }

    fn in_step_since(&self, now: i64) -> Duration {
        let database = self.in_database();
        let took = eventually("the cache is in step", || {
            self.was_in_step(now) && self.in_cache() == database
        });
        assert_eq!(self.in_database(), database, "nobody sells meanwhile");
        took
    }

    /// Waits until the worker says that it was in step at this moment or later; how long it took.
    pub fn told_in_step(&self) -> Duration {
        let now = self.now();
        eventually("the worker says that it is in step", || self.was_in_step(now))
    }

    /// Whether the worker says so, of a moment not long ago.
    pub fn is_in_step(&self) -> bool {
        self.was_in_step(self.now() - 1_000)
    }

    /// Whether the worker says so, of a moment since then.
    fn was_in_step(&self, since: i64) -> bool {
        let at: Option<i64> = self.redis.run(&["GET", &layout().in_step()]);
        at.is_some_and(|at| at >= since)
    }

    /// Redis's time, in milliseconds.
    fn now(&self) -> i64 {
        let (seconds, micros): (i64, i64) = self.redis.run(&["TIME"]);
        seconds * 1_000 + micros / 1_000
    }

    /// The epoch of the cache.
    pub fn epoch(&self) -> i64 {
        self.redis.run(&["HGET", &layout().state(), "epoch"])
    }

    /// The durable cursor.
    pub fn cursor(&self) -> Option<String> {
        self.redis.run(&["HGET", &layout().state(), "cursor"])
    }
}

/// What a database has.
pub fn in_database(client: &mut Client) -> Levels {
    let sql = "SELECT sku, location, on_hand, reserved, safety_stock, waiting, in_transit,
                      backorder_limit, unsellable, frozen, on_sale_from, on_sale_until, version,
                      CASE WHEN frozen THEN 0
                           ELSE greatest(0, on_hand - reserved - unsellable - safety_stock
                                              - waiting + backorder_limit) END
                 FROM stock.level";
    let rows = client.query(sql, &[]).expect("levels");
    let level = |row: &postgres::Row| {
        let (on_hand, reserved, safety_stock) = (row.get(2), row.get(3), row.get(4));
        let moment = |column| {
            let at: Option<SystemTime> = row.get(column);
            at.map(|at| Timestamp::try_from(at).expect("a moment"))
        };
        Level {
            sku: row.get(0),
            location: row.get(1),
            available: row.get(13),
            on_hand,
            reserved,
            safety_stock,
            waiting: row.get(5),
            in_transit: row.get(6),
            backorder_limit: row.get(7),
            unsellable: row.get(8),
            frozen: row.get(9),
            on_sale_from: moment(10),
            on_sale_until: moment(11),
            version: row.get(12),
        }
    };
    rows.iter()
        .map(level)
        .map(|level| ((level.sku.clone(), level.location.clone()), level))
        .collect()
}

/// What a cache has.
pub fn in_cache(connection: &mut redis::Connection) -> redis::RedisResult<Levels> {
    in_cache_below(&layout(), connection)
}

/// What a cache has under other keys than the usual ones.
pub fn in_cache_below(
    layout: &Layout,
    connection: &mut redis::Connection,
) -> redis::RedisResult<Levels> {
    let keys: Vec<String> = redis::cmd("KEYS").arg(layout.levels()).query(connection)?;
    let mut levels = Levels::new();
    for keys in keys.chunks(1_000) {
        let texts: Vec<Option<String>> = redis::cmd("MGET").arg(keys).query(connection)?;
        for (key, text) in keys.iter().zip(texts) {
            let entry = serde_json::from_str(&text.unwrap_or_default());
            if let Ok(Entry::Found { level, .. }) = entry {
                levels.insert(layout.parse(key).expect("a key of ours"), level);
            }
        }
    }
    Ok(levels)
}

/// Sells one unit of a SKU.
pub fn sell(client: &mut Client, sku: &str) {
    let sql = "SELECT outcome FROM stock.sell_stock('sale ' || random()::text || \
               clock_timestamp(), $1, 'main', 1)";
    client.query(sql, &[&sku]).expect("a sale");
}

/// The usual keys.
pub fn layout() -> Layout {
    "stock".parse().expect("a prefix")
}
