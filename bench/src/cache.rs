//! A Redis that follows the sale, kept in step by the cache worker as a shop runs it.

use std::time::{Duration, Instant};

use clap::Parser;
use pg_stock_cache::entry::Level;
use pg_stock_cache::options::Options;
use pg_stock_cache::read::{Cache, Reading};
use pg_stock_cache::worker;
use pg_stock_tests::{Database, Redis};
use postgres::Client;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long the cache may take to be in step.
const PATIENCE: Duration = Duration::from_secs(30);
/// The role of the worker: it may read, and nothing else.
const ROLE: &str = "cache";

/// The cache, and its worker.
pub struct Follower {
    redis: Redis,
    runtime: Runtime,
    stop: CancellationToken,
}

/// How the cache compares with the database.
pub struct Comparison {
    /// Levels that are the same in both.
    pub same: usize,
    /// Levels that are not.
    pub different: usize,
    /// How long it took until they were the same.
    pub after: Duration,
}

impl Follower {
    /// Starts a Redis and the worker.
    ///
    /// # Panics
    /// If they cannot be started.
    pub fn start(database: Database<'_>) -> Follower {
        let grant =
            format!("CREATE ROLE {ROLE} LOGIN; SELECT stock.grant_access('{ROLE}', 'read')");
        database.connect().batch_execute(&grant).expect("a role for the worker");
        let redis = Redis::start(&[]);
        let connection =
            format!("host={} user={ROLE} dbname={}", database.cluster.socket(), database.name());
        let url = redis.url();
        let options =
            ["pg-stock-cache", "--database", &connection, "--redis", &url, "--heartbeat", "1s"];
        let options = Options::try_parse_from(options).expect("sound options");
        let (runtime, stop) = (Runtime::new().expect("a runtime"), CancellationToken::new());
        runtime.spawn(worker::run(options, stop.clone()));
        Follower { redis, runtime, stop }
    }

    /// A reader of the cache, as a shop's code uses it.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn reader(url: &str) -> redis::RedisResult<Cache<MultiplexedConnection>> {
        let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        Ok(Cache::new(connection, "stock".parse().expect("a sound prefix")))
    }

    /// How to connect to the cache.
    pub fn url(&self) -> String {
        self.redis.url()
    }

    /// Compares all levels with the cache, again until they are the same.
    ///
    /// # Panics
    /// If either side cannot be asked.
    pub fn compare(&self, client: &mut Client) -> Comparison {
        let begin = Instant::now();
        let mut cache = self.runtime.block_on(Follower::reader(&self.url())).expect("the cache");
        loop {
            let sql = "SELECT sku, location, version, on_hand, reserved FROM stock.levels";
            let rows = client.query(sql, &[]).expect("the levels");
            let is_same = |row: &&postgres::Row| {
                let reading =
                    self.runtime.block_on(cache.read(row.get(0), row.get(1))).expect("a reading");
                let counters = (row.get(2), row.get(3), row.get(4));
                matches!(reading, Reading::Found { level, .. } if counters_of(&level) == counters)
            };
            let same = rows.iter().filter(is_same).count();
            if same == rows.len() || begin.elapsed() > PATIENCE {
                return Comparison { same, different: rows.len() - same, after: begin.elapsed() };
            }
        }
    }
}

fn counters_of(level: &Level) -> (i64, i64, i64) {
    (level.version, level.on_hand, level.reserved)
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
