//! The side of Redis: entries, the durable cursor, and what a rebuild does.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, ConnectionInfo};
use tokio::task::AbortHandle;

use crate::entry::{Entry, Level};
use crate::error::Error;
use crate::layout::Layout;
use crate::scripts;

/// Entries in one call. Redis does nothing else while it runs a script, so it is to be short.
const BATCH_ROWS: usize = 200;
/// Keys that Redis looks at in one step of a scan.
const SCAN_STEP: usize = 1_000;
/// How long a rebuild that nobody goes on with keeps others from beginning one.
const CLAIM: Duration = Duration::from_secs(3);
/// How often whoever rebuilds renews that claim.
const CLAIM_STEP: Duration = Duration::from_secs(1);
/// A peer that is gone is noticed within about this time.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A connection to Redis, and the epoch of this worker.
#[derive(Clone)]
pub struct Store {
    connection: MultiplexedConnection,
    layout: Layout,
    entry_ttl: Duration,
    /// Names this worker.
    token: String,
    epoch: i64,
}

/// A move of the durable cursor.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// Where it must be now.
    pub from: &'a str,
    /// Where it goes.
    pub to: &'a str,
    /// When the cache was in step, by Redis's clock in milliseconds, if this is known.
    pub in_step: Option<i64>,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done.
    Done,
    /// The entries are written, but the cursor was not where it had to be: it is here.
    Moved(Option<String>),
}

/// Keeps other workers from beginning a rebuild beside this one.
pub struct Claim(AbortHandle);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sets what every connection to Redis has.
pub fn prepare(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 5).with_retries(5);
    let settings = TcpSettings::default()
        .set_keepalive(keepalive)
        .set_user_timeout(KEEPALIVE * 2)
        .set_nodelay(true);
    info.set_tcp_settings(settings)
}

impl Store {
    /// Connects. It has no epoch before [`Store::load`] or [`Store::begin`].
    ///
    /// # Errors
    /// If Redis cannot be reached in time.
    pub async fn connect(
        client: &Client,
        layout: &Layout,
        entry_ttl: Duration,
        token: &str,
        time_limit: Duration,
    ) -> Result<Store, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(time_limit))
            .set_response_timeout(Some(time_limit));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Store {
            connection,
            layout: layout.clone(),
            entry_ttl,
            token: token.to_owned(),
            epoch: 0,
        })
    }

    /// Reads the durable cursor, and takes on its epoch; `None` where the cache must be rebuilt.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn load(&mut self) -> Result<Option<String>, Error> {
        let mut state: HashMap<String, String> =
            self.connection.hgetall(self.layout.state()).await?;
        let Some(epoch) = state.get("epoch").and_then(|epoch| epoch.parse().ok()) else {
            return Ok(None);
        };
        self.epoch = epoch;
        Ok(state.remove("cursor"))
    }

    /// Whether nobody has kept the cache for so long that entries may have vanished by themselves.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn is_outlived(&mut self) -> Result<bool, Error> {
        let in_step: Option<i64> = self.connection.get(self.layout.in_step()).await?;
        let Some(in_step) = in_step else { return Ok(false) };
        // Checks renew most entries long before half of their time is over.
        Ok(self.now().await?.saturating_sub(in_step) > milliseconds(self.entry_ttl / 2) as i64)
    }

    /// The epoch of this worker.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Redis's time, in milliseconds since 1970.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn now(&mut self) -> Result<i64, Error> {
        let (seconds, micros): (i64, i64) =
            redis::cmd("TIME").query_async(&mut self.connection).await?;
        Ok(seconds * 1_000 + micros / 1_000)
    }

    /// Writes levels, each only over older ones, and then moves the cursor.
    ///
    /// # Errors
    /// [`Error::Full`]: the entries of the batch that failed and of all after it are removed, and
    /// the cursor stays. [`Error::Fenced`]: somebody has begun another epoch.
    pub async fn write(
        &mut self,
        levels: &[Level],
        to: Option<Move<'_>>,
    ) -> Result<Written, Error> {
        let batches: Vec<&[Level]> =
            if levels.is_empty() { vec![&[]] } else { levels.chunks(BATCH_ROWS).collect() };
        let last = batches.len() - 1;
        let mut outcome = Written::Done;
        for (nth, batch) in batches.into_iter().enumerate() {
            let to = if nth == last { to } else { None };
            match self.write_batch(batch, to).await {
                Err(Error::Full) => {
                    let rest = levels.get(nth * BATCH_ROWS..).unwrap_or_default();
                    self.invalidate(rest.iter().map(|level| (&*level.sku, &*level.location)))
                        .await?;
                    return Err(Error::Full);
                }
                answer => outcome = answer?,
            }
        }
        Ok(outcome)
    }

    async fn write_batch(
        &mut self,
        batch: &[Level],
        to: Option<Move<'_>>,
    ) -> Result<Written, Error> {
        let mut call = scripts::WRITE.prepare_invoke();
        call.key(self.layout.state()).key(self.layout.in_step()).arg(self.epoch);
        call.arg(to.map_or("", |to| to.from)).arg(to.map_or("", |to| to.to));
        call.arg(to.and_then(|to| to.in_step).map_or_else(String::new, |at| at.to_string()));
        call.arg(milliseconds(self.entry_ttl));
        for level in batch {
            let (sku, location) = (&level.sku, &level.location);
            call.key(self.layout.level(sku, location)).key(self.layout.lease(sku, location));
            call.arg(level.version)
                .arg(Entry::Found { level: level.clone(), epoch: self.epoch }.text()?);
        }
        let (outcome, cursor, written): (String, String, u64) =
            call.invoke_async(&mut self.connection).await?;
        metrics::counter!(crate::metrics::ENTRIES_WRITTEN).increment(written);
        match outcome.as_str() {
            "done" => Ok(Written::Done),
            "moved" => Ok(Written::Moved(Some(cursor).filter(|cursor| !cursor.is_empty()))),
            _ => Err(Error::Fenced),
        }
    }

    /// Begins a rebuild: a new epoch without a cursor.
    ///
    /// # Errors
    /// [`Error::Busy`] while another worker rebuilds. [`Error::Full`]: all entries are removed, to
    /// make room.
    pub async fn begin(&mut self) -> Result<(), Error> {
        let mut call = scripts::BEGIN.prepare_invoke();
        call.key(self.layout.state()).key(self.layout.in_step()).key(self.layout.rebuild());
        call.arg(&self.token).arg(milliseconds(CLAIM));
        let epoch: Result<Option<i64>, Error> =
            call.invoke_async(&mut self.connection).await.map_err(Error::from);
        if matches!(epoch, Err(Error::Full)) {
            self.remove_all().await?;
        }
        self.epoch = epoch?.ok_or(Error::Busy)?;
        Ok(())
    }

    /// Says that the rebuild goes on, until this is dropped.
    pub fn claim(&self) -> Claim {
        let (mut connection, key) = (self.connection.clone(), self.layout.rebuild());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(CLAIM_STEP).await;
                // Where it fails, the session notices by itself.
                let _: redis::RedisResult<bool> =
                    connection.pexpire(&key, milliseconds(CLAIM) as i64).await;
            }
        });
        Claim(renewing.abort_handle())
    }

    /// Removes the entries of older epochs, and ends the rebuild with its cursor.
    ///
    /// # Errors
    /// [`Error::Fenced`]: somebody has begun another epoch.
    pub async fn complete(&mut self, cursor: &str) -> Result<(), Error> {
        let mut from = 0;
        loop {
            let (next, keys) = self.scan(from).await?;
            for keys in keys.chunks(BATCH_ROWS) {
                let mut call = scripts::SWEEP.prepare_invoke();
                call.key(self.layout.state()).key(keys).arg(self.epoch);
                let removed: i64 = call.invoke_async(&mut self.connection).await?;
                if removed < 0 {
                    return Err(Error::Fenced);
                }
            }
            from = next;
            if from == 0 {
                break;
            }
        }
        let mut call = scripts::COMPLETE.prepare_invoke();
        call.key(self.layout.state())
            .key(self.layout.rebuild())
            .arg(self.epoch)
            .arg(&self.token)
            .arg(cursor);
        let current: bool = call.invoke_async(&mut self.connection).await?;
        if current { Ok(()) } else { Err(Error::Fenced) }
    }

    /// One step of a scan over the keys of all entries: where to go on (0: nowhere), and keys, some
    /// perhaps twice.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn scan(&mut self, from: u64) -> Result<(u64, Vec<String>), Error> {
        let mut call = redis::cmd("SCAN");
        call.arg(from).arg("MATCH").arg(self.layout.levels()).arg("COUNT").arg(SCAN_STEP);
        Ok(call.query_async(&mut self.connection).await?)
    }

    /// How many keys there are in all, those of others included.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn keys(&mut self) -> Result<u64, Error> {
        Ok(redis::cmd("DBSIZE").query_async(&mut self.connection).await?)
    }

    /// The SKU and location of the entry under a key.
    pub fn parse(&self, key: &str) -> Option<(String, String)> {
        self.layout.parse(key)
    }

    /// Removes entries, and the leases for them.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn invalidate<'a>(
        &mut self,
        levels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        let layout = self.layout.clone();
        let keys: Vec<String> =
            levels.flat_map(|(sku, at)| [layout.level(sku, at), layout.lease(sku, at)]).collect();
        for keys in keys.chunks(BATCH_ROWS) {
            let _: u64 = self.connection.del(keys).await?;
        }
        Ok(())
    }

    async fn remove_all(&mut self) -> Result<(), Error> {
        let mut from = 0;
        loop {
            let (next, keys) = self.scan(from).await?;
            if !keys.is_empty() {
                let _: u64 = self.connection.unlink(keys).await?;
            }
            from = next;
            if from == 0 {
                return Ok(());
            }
        }
    }

    /// The entries of levels, in the same order; `None` where there is none.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn read(
        &mut self,
        levels: &[(String, String)],
    ) -> Result<Vec<Option<Stored>>, Error> {
        let mut all = Vec::with_capacity(levels.len());
        for levels in levels.chunks(BATCH_ROWS) {
            let keys: Vec<String> =
                levels.iter().map(|(sku, at)| self.layout.level(sku, at)).collect();
            let texts: Vec<Option<String>> = self.connection.mget(keys).await?;
            all.extend(
                texts.into_iter().map(|text| text.map(|text| serde_json::from_str(&text).ok())),
            );
        }
        Ok(all)
    }

    /// Lets entries that were found right live on for their full time.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub async fn renew(&mut self, levels: &[(String, String)]) -> Result<(), Error> {
        for levels in levels.chunks(BATCH_ROWS) {
            let mut calls = redis::pipe();
            for (sku, at) in levels {
                calls
                    .pexpire(self.layout.level(sku, at), milliseconds(self.entry_ttl) as i64)
                    .ignore();
            }
            let () = calls.query_async(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// An entry that is there; `None` where it is unreadable.
pub type Stored = Option<Entry>;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
