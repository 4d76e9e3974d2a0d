//! Between the sweeps: tells those who listen what has changed. An emission is a transaction of its
//! own, and one that fails stops nothing: it is written down, and tried again with growing pauses.

use std::time::{Duration, Instant};

use pg_stock_core::feed::Snapshot;
use pgrx::pg_sys;

use super::here::{database_is_free, extension_is_here};
use super::process::{self, Failure};
use crate::board::Post;
use crate::error::or_raise;
use crate::settings::{self, Notify};
use crate::stat::{self, WorkerCount};
use crate::{durable, feed};

/// Most ledger rows of one emission, about.
const EMISSION_ROWS_MAX: usize = 5_000;
/// How often the worker looks where nobody has woken it, for changes (a prepared transaction that
/// is committed wakes nobody) and whether it is in somebody's way.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after an emission failed; doubled with each failure more, up to a minute.
const FAILURE_PAUSE_MIN: Duration = Duration::from_secs(1);
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// After an emission the worker rests as long as that took, so that telling takes no more than half
/// of the time, but never longer than this. Three times as long gave buyers nothing that could be
/// measured (bench/RESULTS.md).
const REST_MAX: Duration = Duration::from_secs(1);

/// How long standbys are waited for.
const STANDBY_WAIT_MAX: Duration = Duration::from_secs(1);

/// When to tell again.
pub struct Emitter {
    post: Post,
    /// Nothing is told before this.
    not_before: Instant,
    /// At the latest then the worker looks.
    look_at: Instant,
    failures: u32,
}

/// What came of an emission.
enum Sent {
    /// All, or (true) there is more.
    Sent(bool),
    /// The worker is in somebody's way, or the extension is gone.
    NotHere,
}

impl Emitter {
    /// One that looks at once.
    pub fn new(post: Post) -> Emitter {
        let now = Instant::now();
        Emitter { post, not_before: now, look_at: now, failures: 0 }
    }

    /// Tells what there is to tell, if it is time; says after what time to do so again, unless
    /// woken. `None` where the worker may not stay.
    pub fn turn(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let may_tell = self.not_before <= now && settings::notify() == Notify::Worker;
        if may_tell && self.post.has_changed() || self.look_at <= now {
            self.look_at = now + LOOK_INTERVAL;
            // First the mark is taken, then the rows are read: what is committed in between is
            // looked for once more. While nothing may be told the mark stays, and nobody wakes the
            // worker.
            if may_tell {
                self.post.take_changed();
            }
            match emit(may_tell) {
                Ok(Sent::NotHere) => return None,
                Ok(Sent::Sent(more)) if may_tell => self.succeeded(more, now.elapsed()),
                // Only looked around; or somebody reads or sends the feed in a transaction of his
                // own.
                Ok(Sent::Sent(_)) | Err(Failure::Locked) => {}
                Err(Failure::Error(error)) => self.failed(&error),
            }
            process::idle();
        }
        let is_asked = self.post.has_changed() && settings::notify() == Notify::Worker;
        let next = if is_asked { self.look_at.min(self.not_before) } else { self.look_at };
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn succeeded(&mut self, more: bool, took: Duration) {
        self.failures = 0;
        // Who is behind catches up first.
        let rest = if more { Duration::ZERO } else { took.min(REST_MAX) };
        self.not_before = Instant::now() + settings::emit_interval().max(rest);
        if more {
            self.look_at = self.not_before;
        }
    }

    fn failed(&mut self, error: &str) {
        let pause =
            (FAILURE_PAUSE_MIN * 2u32.saturating_pow(self.failures.min(6))).min(FAILURE_PAUSE_MAX);
        self.failures += 1;
        self.not_before = Instant::now() + pause;
        let next = format!(
            "It is tried again in {} s; nothing is lost. See stock.feed_lag.",
            pause.as_secs()
        );
        process::complain("send the change feed", error, &next);
        let note = || {
            if extension_is_here() {
                process::active(c"pg_stock: noting a failure", || {
                    or_raise(feed::note_failure(error))
                });
            }
        };
        // That it could not be written down either matters less than the error, which is in the
        // log.
        drop(process::attempt_impatiently(note));
    }
}

/// Looks whether the worker may stay, and makes one emission, if it may: in two transactions, and
/// between them, while nothing is locked, waits until what it is to tell is durable.
fn emit(may_tell: bool) -> Result<Sent, Failure> {
    // SAFETY: a variable of this process, as the server has it.
    let level = unsafe { pg_sys::synchronous_commit };
    let news = match process::attempt_impatiently(|| look(may_tell))? {
        Looked::NotHere => return Ok(Sent::NotHere),
        Looked::Around(None) => return Ok(Sent::Sent(false)),
        Looked::Around(Some(news)) => news,
    };
    if !durable::flush_within(STANDBY_WAIT_MAX, level) {
        let seconds = STANDBY_WAIT_MAX.as_secs();
        return Err(Failure::Error(format!(
            "the standbys of synchronous_standby_names did not confirm within {seconds} s what is \
             to be told"
        )));
    }
    process::attempt_impatiently(|| {
        if !database_is_free() || !extension_is_here() {
            return Sent::NotHere;
        }
        let emitted = process::active(c"pg_stock: sending the change feed", || {
            or_raise(feed::tell(&news, EMISSION_ROWS_MAX))
        });
        if emitted.messages > 0 {
            stat::worked(WorkerCount::Emissions, 1);
            stat::worked(WorkerCount::Messages, emitted.messages as u64);
        }
        Sent::Sent(emitted.more)
    })
}

/// What the worker finds when it looks for news.
enum Looked {
    /// It is in somebody's way, or the extension is gone.
    NotHere,
    /// There is something to tell, or nothing.
    Around(Option<Snapshot>),
}

fn look(may_tell: bool) -> Looked {
    if !database_is_free() || !extension_is_here() {
        return Looked::NotHere;
    }
    // SAFETY: a variable of the transaction.
    let is_read_only = unsafe { pg_sys::XactReadOnly };
    if is_read_only || !may_tell {
        return Looked::Around(None);
    }
    Looked::Around(process::active(c"pg_stock: sending the change feed", || or_raise(feed::look())))
}
