//! Where the contestants meet: one throwaway cluster, and for each run a fresh copy of the same
//! database or a fresh Redis, so that nobody inherits what another has left.

use std::time::Duration;

use pg_stock_tests::{Cluster, Database, Redis, invariants};
use tokio::runtime::Runtime;

use super::Failure;
use super::contestant::Contestant;
use super::driver::{self, Until};
use super::session::Place;
use super::work::Work;
use crate::connection;

/// Settings of the cluster: no checkpoint begins by itself while something is measured.
const SETTINGS: [&str; 5] = [
    "shared_buffers=1GB",
    "max_wal_size=4GB",
    "checkpoint_timeout=30min",
    "synchronous_commit=on",
    "fsync=on",
];
/// Levels of the database.
pub const LEVELS: u64 = 10_000;
/// Units of the SKU that sells out.
const LIMITED: u64 = 100;
/// Units of the others.
const PLENTY: u64 = 100_000_000;
/// How long a run goes on before its answers are counted.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// The cluster, and what was found to be broken in its databases.
pub struct Arena {
    /// The server.
    pub cluster: Cluster,
    /// Runs the clients of all contestants.
    pub runtime: Runtime,
    breaches: Vec<String>,
}

/// What one run gave.
#[derive(Clone, Copy)]
pub struct Run {
    /// Orders a second.
    pub rate: f64,
    /// The median latency of a call, in milliseconds.
    pub p50: f64,
    /// The 99th percentile of it.
    pub p99: f64,
}

/// Somewhere to run: a fresh database or a fresh Redis.
pub enum Ground<'a> {
    /// A database.
    Database(Database<'a>),
    /// A Redis.
    Redis(Redis),
}

impl Arena {
    /// Starts the cluster, and fills the database that the others are copied from.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn open() -> Arena {
        let cluster = Cluster::start(&SETTINGS);
        let mut client = cluster.connect("stock_template");
        for sql in [
            include_str!("../../sql/setup.sql"),
            include_str!("../../sql/peers.sql"),
            "VACUUM ANALYZE",
        ] {
            client.batch_execute(sql).expect("levels and peers");
        }
        Arena { cluster, runtime: Runtime::new().expect("a runtime"), breaches: Vec::new() }
    }

    /// Fresh ground for a contestant.
    ///
    /// # Errors
    /// If Redis does not take its levels.
    pub fn ground(&self, contestant: Contestant) -> Result<Ground<'_>, Failure> {
        if let Some(fsync) = contestant.redis() {
            let append = format!("--appendfsync {fsync}");
            // As PostgreSQL makes no checkpoint, Redis does not rewrite its log during a run.
            let redis =
                Redis::start(&["--appendonly yes", &append, "--auto-aof-rewrite-percentage 0"]);
            self.runtime.block_on(fill(&redis))?;
            return Ok(Ground::Redis(redis));
        }
        let database = self.cluster.database();
        database.connect().batch_execute("CHECKPOINT")?;
        Ok(Ground::Database(database))
    }

    /// Measures one contestant at one work on fresh ground.
    ///
    /// # Errors
    /// If a call fails or is answered wrongly.
    pub fn measure(
        &mut self,
        contestant: Contestant,
        work: Work,
        connections: usize,
        seconds: u64,
    ) -> Result<Run, Failure> {
        let ground = self.ground(contestant)?;
        let counted = Duration::from_secs(seconds);
        let batches = contestant.batch() > 1;
        let until =
            if batches { Until::Sent(counted) } else { Until::Passed(WARM_UP, WARM_UP + counted) };
        let count = self.runtime.block_on(async {
            let place = ground.place()?;
            let listener = listener(&place, contestant).await?;
            let buyers =
                driver::open(&place, contestant, work, LEVELS, "order", connections).await?;
            let (_, count) = driver::closed_loop(buyers, until).await?;
            drop(listener);
            Ok::<_, Failure>(count)
        })?;
        if work == Work::Soldout && contestant != Contestant::Select && count.reserved != LIMITED {
            return Err(format!("{} units of {LIMITED} were sold", count.reserved).into());
        }
        let broken = ground.leave()?;
        self.broken(&format!("{} {}", contestant.name(), work.name()), broken);
        let took = if batches { count.took } else { counted };
        let rate = count.orders as f64 / took.as_secs_f64();
        Ok(Run { rate, p50: count.calls.latency_ms(0.5), p99: count.calls.latency_ms(0.99) })
    }

    /// Keeps what was found to be broken.
    pub fn broken(&mut self, place: &str, broken: Vec<String>) {
        self.breaches.extend(broken.into_iter().map(|breach| format!("{place}: {breach}")));
    }

    /// All that was found to be broken.
    pub fn breaches(&self) -> &[String] {
        &self.breaches
    }
}

impl Ground<'_> {
    /// How to get there.
    ///
    /// # Errors
    /// If the address is none.
    pub fn place(&self) -> Result<Place, Failure> {
        Ok(match self {
            Ground::Database(database) => Place::Database(connection::config(*database, "buyer")),
            Ground::Redis(redis) => Place::Redis(redis::Client::open(redis.url())?),
        })
    }

    /// Checks the invariants where pg_stock was, and throws all away; what is broken.
    ///
    /// # Errors
    /// If the database cannot be dropped.
    pub fn leave(self) -> Result<Vec<String>, Failure> {
        let Ground::Database(database) = self else { return Ok(Vec::new()) };
        let mut client = database.connect();
        client.batch_execute("SET work_mem = '256MB'")?;
        let broken = invariants::check(&mut client).into_iter().filter(|(_, count)| *count > 0);
        let broken =
            broken.map(|(promise, count)| format!("{promise}: {count} breaches")).collect();
        drop(client);
        let drop = format!("DROP DATABASE {} WITH (FORCE)", database.name());
        database.cluster.connect("postgres").batch_execute(&drop)?;
        Ok(broken)
    }
}

/// Somebody must hear what a contestant that notifies has to say.
async fn listener(
    place: &Place,
    contestant: Contestant,
) -> Result<Option<tokio_postgres::Client>, Failure> {
    match (place, contestant) {
        (Place::Database(config), Contestant::FunctionNotify) => {
            let client = connection::connect(config).await?;
            client.batch_execute("LISTEN hand_changed").await?;
            Ok(Some(client))
        }
        _ => Ok(None),
    }
}

/// Gives a Redis its levels.
async fn fill(redis: &Redis) -> Result<(), Failure> {
    let mut connection =
        redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
    let mut pipe = redis::pipe();
    for number in 0..=LEVELS {
        let on_hand = if number == 0 { LIMITED } else { PLENTY };
        let fields = [("on_hand", on_hand), ("reserved", 0), ("version", 1)];
        pipe.hset_multiple(format!("level:sku-{number}"), &fields).ignore();
    }
    Ok(pipe.query_async(&mut connection).await?)
}
