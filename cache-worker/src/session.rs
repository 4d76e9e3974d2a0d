//! One session: connect to both sides, get in step, follow; until an error ends it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::check::{self, Changes, Sample, Sampling, Verdict};
use crate::entry::Level;
use crate::error::Error;
use crate::feed::{End, Feed};
use crate::message::{Message, Order, Step};
use crate::metrics;
use crate::options::Options;
use crate::store::{Move, Store, Written};

/// How often the cursor in Redis may turn out to be another one before the session gives up.
const ATTEMPTS: usize = 5;
/// Notifications that are worked on at once.
const MESSAGES_AT_ONCE: usize = 500;

/// What outlives a session.
pub struct Schedule {
    changes: Changes,
    next_check: tokio::time::Instant,
}

impl Schedule {
    /// The first check comes after the usual time.
    pub fn new(options: &Options) -> Schedule {
        let next_check = tokio::time::Instant::now() + options.check_every;
        Schedule { changes: Changes::default(), next_check }
    }
}

/// Why following ended without an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked for it.
    Stopped,
    /// The check that was asked for is done: this many were wrong.
    Checked(usize),
}

/// Connections to both sides.
pub struct Session<'o> {
    options: &'o Options,
    store: Store,
    feed: Feed,
    /// Where the entries are; `None` where they must be rebuilt.
    cursor: Option<String>,
    order: Order,
    check: Option<JoinHandle<Result<Sample, Error>>>,
}

/// What became of a pull.
enum Pulled {
    InStep,
    Elsewhere(Option<String>),
}

impl<'o> Session<'o> {
    /// Connects, listens, and gets in step.
    ///
    /// # Errors
    /// Whatever goes wrong on either side.
    pub async fn start(
        options: &'o Options,
        redis: &redis::Client,
        token: &str,
        schedule: &mut Schedule,
    ) -> Result<Session<'o>, Error> {
        let limit = options.time_limit;
        let mut store =
            Store::connect(redis, &options.key_prefix, options.entry_ttl, token, limit).await?;
        let mut cursor = store.load().await?;
        if cursor.is_some() && store.is_outlived().await? {
            // Whatever did not change meanwhile would stay away.
            warn!("nobody has kept the cache for half the time that entries live: it is rebuilt");
            cursor = None;
        }
        let feed = Feed::connect(&options.database, limit).await?;
        // First of all: whatever is announced from here on is either heard or among the changes
        // that are pulled.
        feed.listen(&options.channel_prefix, limit).await?;
        let begun = Instant::now();
        let mut session =
            Session { options, store, feed, cursor, order: Order::default(), check: None };
        session.get_in_step(options.catch_up_limit, schedule).await?;
        info!(epoch = session.store.epoch(), took = ?begun.elapsed(), "in step");
        Ok(session)
    }

    /// Follows the changes until somebody asks to stop, or the check that was asked for is done.
    ///
    /// # Errors
    /// Whatever goes wrong on either side.
    pub async fn follow(
        &mut self,
        stop: &CancellationToken,
        schedule: &mut Schedule,
    ) -> Result<Ended, Error> {
        let mut heartbeat = heartbeat(self.options.heartbeat);
        if self.options.check_now {
            // In each session anew: whatever ended the last one has ended its check, too.
            schedule.next_check = tokio::time::Instant::now();
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                message = self.feed.notification() => self.hear(message?, schedule).await?,
                _ = heartbeat.tick() => self.get_in_step(self.options.time_limit, schedule).await?,
                () = tokio::time::sleep_until(schedule.next_check), if self.check.is_none() => {
                    self.sample(schedule)
                }
                sample = sampled(&mut self.check) => {
                    self.check = None;
                    let wrong = self.judge(sample, schedule).await?;
                    if let (true, Some(wrong)) = (self.options.check_now, wrong) {
                        return Ok(Ended::Checked(wrong));
                    }
                }
            }
        }
    }

    /// Works on a notification, and on all that wait behind it.
    async fn hear(&mut self, first: String, schedule: &mut Schedule) -> Result<(), Error> {
        if !self.options.only_wake {
            return self.apply(first, schedule).await;
        }
        let heard = 1 + std::iter::from_fn(|| self.feed.waiting()).count();
        ::metrics::counter!(metrics::MESSAGES).increment(heard as u64);
        self.get_in_step(self.options.time_limit, schedule).await
    }

    /// Applies what notifications say, as long as none was missed.
    async fn apply(&mut self, first: String, schedule: &mut Schedule) -> Result<(), Error> {
        let mut levels: HashMap<(String, String), Level> = HashMap::new();
        let (mut cursor, mut gap, mut heard) = (None, false, 0);
        let mut next = Some(first);
        while let Some(text) = next {
            heard += 1;
            match serde_json::from_str::<Message>(&text) {
                Ok(message) => match self.order.step(&message) {
                    Step::Gap => gap = true,
                    step => {
                        cursor = message.cursor.filter(|_| step == Step::InOrder).or(cursor);
                        message
                            .levels
                            .into_iter()
                            .for_each(|level| fold(&mut levels, level, &mut schedule.changes));
                    }
                },
                Err(error) => {
                    warn!("a message was not understood: {error}");
                    gap = true;
                }
            }
            // After a gap the base is set by what comes after the answer of the database.
            next = if gap || heard >= MESSAGES_AT_ONCE { None } else { self.feed.waiting() };
        }
        ::metrics::counter!(metrics::MESSAGES).increment(heard as u64);
        let levels: Vec<Level> = levels.into_values().collect();
        let from = self.cursor.as_deref().unwrap_or_default();
        let to = cursor.as_deref().map(|to| Move { from, to, in_step: None });
        match self.store.write(&levels, to).await? {
            Written::Done => self.cursor = cursor.or(self.cursor.take()),
            Written::Moved(elsewhere) => (self.cursor, gap) = (elsewhere, true),
        }
        if gap {
            ::metrics::counter!(metrics::GAPS).increment(1);
            self.get_in_step(self.options.time_limit, schedule).await?;
        }
        Ok(())
    }

    /// Brings the cache up to what the database has at this moment, and says so in Redis.
    async fn get_in_step(&mut self, limit: Duration, schedule: &mut Schedule) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let rebuilt = match self.cursor.clone() {
                Some(_) => false,
                None => self.rebuild().await.map(|()| true)?,
            };
            match self
                .pull(if rebuilt { self.options.catch_up_limit } else { limit }, schedule)
                .await?
            {
                Pulled::Elsewhere(cursor) => self.cursor = cursor,
                Pulled::InStep => {
                    if rebuilt {
                        // What was announced up to here may be of an earlier life of the database.
                        while self.feed.waiting().is_some() {}
                        self.order.forget();
                    }
                    return Ok(());
                }
            }
        }
        Err(Error::Unsettled)
    }

    /// Applies what changed since the cursor.
    async fn pull(&mut self, limit: Duration, schedule: &mut Schedule) -> Result<Pulled, Error> {
        let (began, in_step) = (Instant::now(), self.store.now().await?);
        let mut at = self.cursor.clone().unwrap_or_default();
        loop {
            let page = self.feed.changes_since(&at, limit).await?;
            ::metrics::counter!(metrics::PULLS).increment(1);
            if let Some(oldest) = page.oldest {
                ::metrics::gauge!(metrics::LAG).set(oldest);
            }
            page.levels.iter().for_each(|level| schedule.changes.count(level));
            let (to, all) = match page.end {
                End::CaughtUp(to) => (to, true),
                End::MoreChanges(to) => (to, false),
                End::Resynchronise => {
                    warn!("the cursor is of another life of the database: the cache is rebuilt");
                    return Ok(Pulled::Elsewhere(None));
                }
                end => return Err(Error::NotUnderstood(format!("changes that end with {end:?}"))),
            };
            let moving = Move { from: &at, to: &to, in_step: all.then_some(in_step) };
            if let Written::Moved(elsewhere) = self.store.write(&page.levels, Some(moving)).await? {
                return Ok(Pulled::Elsewhere(elsewhere));
            }
            self.cursor = Some(to.clone());
            if all {
                metrics::in_step(began);
                return Ok(Pulled::InStep);
            }
            at = to;
        }
    }

    /// Writes all levels in a new epoch, and removes what is left of older ones.
    async fn rebuild(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        self.store.begin().await?;
        let claim = self.store.claim();
        ::metrics::counter!(metrics::REBUILDS).increment(1);
        info!(epoch = self.store.epoch(), "rebuilding the cache");
        let (mut at, mut levels) = (None, 0);
        let to = loop {
            let page = self.feed.snapshot(at.as_deref(), self.options.catch_up_limit).await?;
            ::metrics::counter!(metrics::PULLS).increment(1);
            self.store.write(&page.levels, None).await?;
            levels += page.levels.len();
            match page.end {
                End::MoreLevels(next) => at = Some(next),
                End::Complete(to) => break to,
                End::Resynchronise => at = None,
                end => {
                    return Err(Error::NotUnderstood(format!("a snapshot that ends with {end:?}")));
                }
            }
        };
        self.store.complete(&to).await?;
        drop(claim);
        self.cursor = Some(to);
        info!(levels, took = ?begun.elapsed(), "the cache is rebuilt");
        Ok(())
    }

    /// Begins to take a sample, beside everything else.
    fn sample(&mut self, schedule: &mut Schedule) {
        schedule.next_check = tokio::time::Instant::now() + self.options.check_every;
        let sampling = Sampling {
            share: self.options.check_percent / 100.0,
            grace: self.options.check_grace,
            time_limit: self.options.time_limit,
        };
        let most_changed = check::most_changed(&mut schedule.changes);
        let taking = check::sample(
            self.options.database.clone(),
            self.store.clone(),
            most_changed,
            sampling,
        );
        self.check = Some(tokio::spawn(taking));
    }

    /// Compares a sample with the cache, and puts right what is wrong; how many were, if it could
    /// be judged.
    async fn judge(
        &mut self,
        sample: Result<Sample, Error>,
        schedule: &mut Schedule,
    ) -> Result<Option<usize>, Error> {
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                warn!("the sample for the check could not be read: {error}");
                if self.options.check_now {
                    return Err(error);
                }
                return Ok(None);
            }
        };
        // What was not told yet is no mistake.
        self.get_in_step(self.options.time_limit, schedule).await?;
        if sample.epoch != self.store.epoch() {
            info!("the cache was rebuilt during the check: nothing to judge");
            schedule.next_check = tokio::time::Instant::now();
            return Ok(None);
        }
        let stored = self.store.read(&sample.named()).await?;
        let mut verdict = sample.judge(stored);
        verdict.ask_again(&self.feed, self.options.time_limit).await?;
        ::metrics::counter!(metrics::CHECKS).increment(1);
        ::metrics::counter!(metrics::CHECKED).increment(verdict.checked as u64);
        ::metrics::counter!(metrics::WRONG).increment(verdict.wrong.len() as u64);
        self.put_right(&verdict, schedule).await?;
        Ok(Some(verdict.wrong.len()))
    }

    async fn put_right(&mut self, verdict: &Verdict, schedule: &mut Schedule) -> Result<(), Error> {
        let (checked, wrong) = (verdict.checked, verdict.wrong.len());
        let rebuild = verdict.is_worse_than(self.options.wrong_percent / 100.0);
        if self.options.check_now {
            println!(
                "{}",
                serde_json::json!({"checked": checked, "wrong": wrong, "rebuilt": rebuild})
            );
        }
        if rebuild {
            error!(checked, wrong, "too much of the cache is wrong: it is rebuilt");
            self.cursor = None;
            self.get_in_step(self.options.catch_up_limit, schedule).await?;
            let (prefix, limit) = (&self.options.channel_prefix, self.options.time_limit);
            return self.feed.alert_rebuilt(prefix, checked, wrong, limit).await;
        }
        info!(checked, wrong, "checked a sample of the cache");
        self.store.renew(&verdict.right).await?;
        for named in &verdict.wrong {
            warn!(sku = named.0, location = named.1, "a wrong entry is put right");
            // Read after the removal, it is at least as new as whatever was removed.
            self.store.invalidate([(&*named.0, &*named.1)].into_iter()).await?;
            let level =
                self.feed.levels(std::slice::from_ref(named), self.options.time_limit).await?;
            let levels: Vec<Level> = level.into_iter().flatten().collect();
            self.store.write(&levels, None).await?;
        }
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(check) = &self.check {
            check.abort();
        }
    }
}

/// Keeps the newest state of each level.
fn fold(levels: &mut HashMap<(String, String), Level>, level: Level, changes: &mut Changes) {
    changes.count(&level);
    let level = level.counted();
    let named = (level.sku.clone(), level.location.clone());
    match levels.get(&named) {
        Some(known) if known.version > level.version => {}
        _ => drop(levels.insert(named, level)),
    }
}

fn heartbeat(every: Duration) -> Interval {
    let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// The sample, once it is taken; never, while none is.
async fn sampled(check: &mut Option<JoinHandle<Result<Sample, Error>>>) -> Result<Sample, Error> {
    match check {
        Some(check) => {
            check.await.unwrap_or_else(|error| Err(Error::NotUnderstood(error.to_string())))
        }
        None => std::future::pending().await,
    }
}
