//! Reading the cache, and filling in what it missed.
//!
//! ```no_run
//! # async fn show(redis: redis::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use pg_stock_cache::read::{Cache, Reading};
//!
//! let mut cache = Cache::new(redis.get_multiplexed_async_connection().await?, "stock".parse()?);
//! match cache.read("apple", "main").await? {
//!     Reading::Found { level, age } => println!("{} available, {age:?} ago", level.available),
//!     Reading::Absent { .. } => println!("no such level"),
//!     Reading::Missed { lease } => {
//!         let level = None; // Ask the database now, the primary, then:
//!         if let Some(lease) = lease {
//!             cache.fill(lease, level).await?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, RedisResult};

use crate::entry::{Entry, Level};
use crate::layout::Layout;
use crate::scripts;

/// A reader of the cache.
#[derive(Clone, Debug)]
pub struct Cache<C> {
    connection: C,
    layout: Layout,
    entry_ttl: Duration,
    absence_ttl: Duration,
    lease_ttl: Duration,
}

/// What the cache knows of a level.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The level.
    Found {
        /// Its counters.
        level: Level,
        /// How long ago the cache was last known to be in step, by Redis's own clock; `None`: it is
        /// not, now.
        age: Option<Duration>,
    },
    /// There is no such level.
    Absent {
        /// How long ago the cache was last known to be in step.
        age: Option<Duration>,
    },
    /// It is not in the cache: ask the database.
    Missed {
        /// Allows to fill in what the database says. `None` where no worker keeps the cache, or
        /// Redis is full.
        lease: Option<Lease>,
    },
}

/// The right to fill in one entry. Whatever the worker learns of the level meanwhile takes it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    sku: String,
    location: String,
    token: String,
}

impl<C: ConnectionLike> Cache<C> {
    /// Reads through this connection: to the primary, as a miss writes a lease.
    pub fn new(connection: C, layout: Layout) -> Self {
        let (entry_ttl, absence_ttl) = (Duration::from_hours(24), Duration::from_secs(60));
        Cache { connection, layout, entry_ttl, absence_ttl, lease_ttl: Duration::from_secs(10) }
    }

    /// How long what is filled in lives: a level (24 hours unless said otherwise), and an absence
    /// (60 seconds).
    #[must_use]
    pub fn with_ttl(self, entry: Duration, absence: Duration) -> Self {
        Cache { entry_ttl: entry, absence_ttl: absence, ..self }
    }

    /// How long the database may be asked after a miss: 10 seconds unless said otherwise.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Cache { lease_ttl: lease, ..self }
    }

    /// Reads what the cache knows of a level, in one call to Redis.
    ///
    /// # Errors
    /// If Redis cannot be asked. Ask the database then.
    pub async fn read(&mut self, sku: &str, location: &str) -> RedisResult<Reading> {
        let mut call = scripts::READ.prepare_invoke();
        call.key(self.layout.level(sku, location)).key(self.layout.lease(sku, location));
        call.key(self.layout.in_step()).key(self.layout.state());
        call.arg(format!("{:032x}", rand::random::<u128>())).arg(milliseconds(self.lease_ttl));
        let (text, in_step, now, token): (Option<String>, Option<i64>, i64, Option<String>) =
            call.invoke_async(&mut self.connection).await?;
        let age = in_step.map(|at| Duration::from_millis(u64::try_from(now - at).unwrap_or(0)));
        let lease =
            token.map(|token| Lease { sku: sku.to_owned(), location: location.to_owned(), token });
        Ok(match text.as_deref().map(serde_json::from_str::<Entry>) {
            Some(Ok(Entry::Found { level, .. })) => Reading::Found { level, age },
            Some(Ok(Entry::Absent { .. })) => Reading::Absent { age },
            // What cannot be read is put right by the worker's check.
            Some(Err(_)) | None => Reading::Missed { lease },
        })
    }

    /// Fills in what the primary database said after the miss that gave this lease: the level, or
    /// that there is none. Says whether it was written: if it was not, the cache knows better by
    /// now.
    ///
    /// # Errors
    /// If Redis cannot be asked. What the database said is right all the same.
    pub async fn fill(&mut self, lease: Lease, level: Option<Level>) -> RedisResult<bool> {
        let Lease { sku, location, token } = lease;
        let epoch =
            token.split_once(':').and_then(|(epoch, _)| epoch.parse().ok()).unwrap_or_default();
        let version = level.as_ref().map_or_else(String::new, |level| level.version.to_string());
        let ttl = if level.is_some() { self.entry_ttl } else { self.absence_ttl };
        let mut call = scripts::FILL.prepare_invoke();
        call.key(self.layout.level(&sku, &location))
            .key(self.layout.lease(&sku, &location))
            .key(self.layout.state());
        let entry = match level {
            Some(level) => Entry::Found { level: Level { sku, location, ..level }, epoch },
            None => Entry::Absent { absent: true, sku, location, epoch },
        };
        let text = entry
            .text()
            .map_err(|error| RedisError::from((ErrorKind::Client, "JSON", error.to_string())))?;
        call.arg(token).arg(epoch).arg(milliseconds(ttl)).arg(version).arg(text);
        call.invoke_async(&mut self.connection).await
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
