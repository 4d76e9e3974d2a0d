//! The settings `pg_stock.*`: each with its range, its default and what reads it.

mod kinds;
mod postgres;

use std::ffi::{CStr, CString};

use pg_stock_core::limits::{self, SECOND, TTL_MAX};
use pg_stock_core::{Fault, Micros};
use pgrx::prelude::*;
use pgrx::{GucFlags, GucSetting, PostgresGucEnum};

use self::kinds::{By, Number, Setting, Switch, Text};
pub use self::postgres::{commit_durably, commit_locally, limit_lock_waits};

/// Makes the settings known to PostgreSQL.
pub fn define() {
    let numbers = [
        &DEFAULT_TTL,
        &MIN_TTL,
        &MAX_TTL,
        &MAX_HOLD,
        &MAX_BATCH_LINES,
        &NEAR_EXPIRY,
        &MIN_ARCHIVE_AGE,
        &EXPIRE_BATCH,
        &POLL_INTERVAL,
        &EMIT_INTERVAL,
    ];
    numbers.into_iter().for_each(Number::define);
    [&RETAKE_LAPSED, &DIRECT_ACCESS, &TRACK_CALLS].into_iter().for_each(Setting::define_switch);
    [&CONTEXT, &CHANNEL_PREFIX, &DATABASES].into_iter().for_each(Setting::define_text);
    NOTIFY.define_choice();
    EARLY_LOCK_RELEASE.define_choice();
    #[cfg(debug_assertions)]
    CLOCK_OFFSET.define();
    // SAFETY: a variable that does not change while a library is loaded; called once from _PG_init
    // with a constant, NUL-terminated prefix.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            MAX_DATABASES.define();
        }
        pg_sys::MarkGUCPrefixReserved(c"pg_stock".as_ptr());
    }
}

static DEFAULT_TTL: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 1..=(TTL_MAX / SECOND) as i32,
    setting: Setting {
        name: c"pg_stock.default_ttl",
        meaning: c"How long a reservation holds its units unless the call says so.",
        more: c"Thirty minutes unless set. At most 366 days.",
        by: By::Everybody,
        value: GucSetting::<i32>::new(30 * 60),
    },
};

/// How long a reservation holds its units unless the call says so: every session may set that,
/// within what a DBA allows.
pub fn default_ttl() -> Micros {
    let most = max_ttl().min(max_hold().unwrap_or(TTL_MAX));
    (Micros::from(DEFAULT_TTL.get()) * SECOND).max(min_ttl()).min(most)
}

static NEAR_EXPIRY: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 0..=i32::MAX,
    setting: Setting {
        name: c"pg_stock.near_expiry",
        meaning: c"How long before its date a lot is warned of, unless its level says so.",
        more: c"Three days unless set. It counts for lots that change from then on.",
        by: By::File,
        value: GucSetting::<i32>::new(3 * 24 * 3600),
    },
};

/// How long before its date a lot is warned of, unless its level says so.
pub fn near_expiry() -> Micros {
    Micros::from(NEAR_EXPIRY.get()) * SECOND
}

static MIN_TTL: Number = Number {
    unit: GucFlags::UNIT_MS,
    range: 0..=i32::MAX,
    setting: Setting {
        name: c"pg_stock.min_ttl",
        meaning: c"The shortest time to live that a call may ask for.",
        more: c"A number without a unit is taken for seconds, in an interval too: this finds \
                callers who meant minutes. A second unless set; 0: no limit.",
        by: By::Superuser,
        value: GucSetting::<i32>::new(1_000),
    },
};

fn min_ttl() -> Micros {
    Micros::from(MIN_TTL.get()) * (SECOND / 1_000)
}

static MAX_TTL: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 1..=(TTL_MAX / SECOND) as i32,
    setting: Setting {
        name: c"pg_stock.max_ttl",
        meaning: c"The longest time to live that a call may ask for.",
        more: c"It finds callers who meant milliseconds. 31 days unless set, and 366 at most.",
        by: By::Superuser,
        value: GucSetting::<i32>::new(31 * 24 * 3600),
    },
};

fn max_ttl() -> Micros {
    Micros::from(MAX_TTL.get()) * SECOND
}

/// Read by stock.check_archive.
static MIN_ARCHIVE_AGE: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 0..=i32::MAX,
    setting: Setting {
        name: c"pg_stock.min_archive_age",
        meaning: c"How old what stock.archive moves must be at least.",
        more: c"What is archived is not known as a key any more. 31 days unless set; 0: any age.",
        by: By::Superuser,
        value: GucSetting::<i32>::new(31 * 24 * 3600),
    },
};

static MAX_HOLD: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 0..=i32::MAX,
    setting: Setting {
        name: c"pg_stock.max_hold",
        meaning: c"The longest time from a reserve to its last deadline, however often it is \
                   extended.",
        more: c"An extension gets no further. 0: no limit.",
        by: By::Superuser,
        value: GucSetting::<i32>::new(0),
    },
};

/// The longest time from a reserve to its last deadline.
pub fn max_hold() -> Option<Micros> {
    Some(MAX_HOLD.get()).filter(|most| *most > 0).map(|most| Micros::from(most) * SECOND)
}

/// Takes a time to live that a DBA allows.
pub fn check_ttl(path: impl std::fmt::Display + Copy, ttl: Micros) -> Result<Micros, Fault> {
    limits::ttl_between(path, ttl, ("pg_stock.min_ttl", min_ttl()), ("pg_stock.max_ttl", max_ttl()))
}

/// Takes a time to live with which a reserve may begin.
pub fn check_first_ttl(path: impl std::fmt::Display + Copy, ttl: Micros) -> Result<Micros, Fault> {
    limits::ttl_between(path, ttl, ("pg_stock.min_ttl", min_ttl()), longest_first_ttl())
}

/// Takes what is left until a deadline that was set elsewhere: how short that is says nothing.
pub fn check_time_left(path: impl std::fmt::Display + Copy, ttl: Micros) -> Result<Micros, Fault> {
    limits::ttl_between(path, ttl, ("", Micros::MIN), longest_first_ttl())
}

fn longest_first_ttl() -> (&'static str, Micros) {
    let longest = max_hold().filter(|most| *most < max_ttl());
    longest.map_or(("pg_stock.max_ttl", max_ttl()), |most| ("pg_stock.max_hold", most))
}

static RETAKE_LAPSED: Switch = Setting {
    name: c"pg_stock.retake_lapsed",
    meaning: c"Whether a confirm or an extension that comes after the deadline takes the units \
               again if they are still there.",
    more: c"If off, it is refused as reservation_expired.",
    by: By::Everybody,
    value: GucSetting::<bool>::new(true),
};

/// Whether a late confirm or extension may take units again.
pub fn retake_lapsed() -> bool {
    RETAKE_LAPSED.value.get()
}

static MAX_BATCH_LINES: Number = Number {
    unit: GucFlags::empty(),
    range: 1..=limits::BATCH_LINES_MAX as i32,
    setting: Setting {
        name: c"pg_stock.max_batch_lines",
        meaning: c"How many lines all orders of one call of reserve_many may have together.",
        more: c"Their levels are locked, and the memory for them is taken, until the call ends.",
        by: By::Superuser,
        value: GucSetting::<i32>::new(limits::BATCH_LINES_MAX as i32),
    },
};

/// How many lines one batch may have.
pub fn max_batch_lines() -> usize {
    MAX_BATCH_LINES.get() as usize
}

static CONTEXT: Text = Setting {
    name: c"pg_stock.context",
    meaning: c"Text that each ledger row keeps, a trace id say.",
    more: c"Only the first 1,000 bytes are kept.",
    by: By::Everybody,
    value: GucSetting::<Option<CString>>::new(None),
};

/// The text that each ledger row keeps unless its request has one of its own.
pub fn context() -> Option<Vec<u8>> {
    short_context(CONTEXT.value.get()?.into_bytes())
}

/// Most bytes of `pg_stock.context` that a ledger row keeps.
const CONTEXT_BYTES_MAX: usize = 1_000;

/// As much of a context as a ledger row keeps: cut between characters, so that it never fails a
/// sale.
pub fn short_context(text: Vec<u8>) -> Option<Vec<u8>> {
    let length = text.len().min(CONTEXT_BYTES_MAX);
    // SAFETY: `text` has at least `length` bytes and is in the encoding of the database.
    let kept =
        unsafe { pg_sys::pg_mbcliplen(text.as_ptr().cast(), text.len() as i32, length as i32) };
    (kept > 0).then(|| text[..kept as usize].to_vec())
}

static DIRECT_ACCESS: Switch = Setting {
    name: c"pg_stock.direct_access",
    meaning: c"Whether rows are read and written without SQL statements, where that means the \
               same.",
    more: c"It comes sooner. Off: each change is an SQL statement inside the call, which \
            pg_stat_statements (track = all) and auto_explain (log_nested_statements) see.",
    by: By::Everybody,
    value: GucSetting::<bool>::new(true),
};

/// Whether rows may be read and written without SQL.
pub fn direct_access() -> bool {
    DIRECT_ACCESS.value.get()
}

static TRACK_CALLS: Switch = Setting {
    name: c"pg_stock.track_calls",
    meaning: c"Whether calls are counted, for stock.stat.",
    more: c"Only where the library is in shared_preload_libraries.",
    by: By::Superuser,
    value: GucSetting::<bool>::new(true),
};

/// Whether calls are counted.
pub fn track_calls() -> bool {
    TRACK_CALLS.value.get()
}

static EARLY_LOCK_RELEASE: Setting<EarlyLockRelease> = Setting {
    name: c"pg_stock.early_lock_release",
    meaning: c"Whether a level that others wait for is unlocked while the commit is still being \
               flushed.",
    more: c"auto: where a single statement commits, and no synchronous standby is waited for. \
            statement: where a single statement commits. transaction: also where BEGIN … COMMIT \
            does. The client hears of the commit only when it is durable; others may see the \
            change before. Never under remote_apply.",
    by: By::Superuser,
    value: GucSetting::<EarlyLockRelease>::new(EarlyLockRelease::Auto),
};

/// Whether levels are unlocked before the commit is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum EarlyLockRelease {
    /// Outside transaction blocks, where no synchronous standby is waited for.
    #[name = c"auto"]
    Auto,
    /// Never.
    #[name = c"off"]
    Off,
    /// Outside transaction blocks.
    #[name = c"statement"]
    Statement,
    /// Always.
    #[name = c"transaction"]
    Transaction,
}

/// Whether levels are unlocked before the commit is flushed.
pub fn early_lock_release() -> EarlyLockRelease {
    EARLY_LOCK_RELEASE.value.get()
}

static NOTIFY: Setting<Notify> = Setting {
    name: c"pg_stock.notify",
    meaning: c"Who tells by NOTIFY that levels have changed.",
    more:
        c"worker: the background worker, where the library is preloaded, some milliseconds after \
          the commit. transaction: each transaction for itself, which makes commits queue. off: \
          nobody but stock.emit_changes().",
    by: By::Superuser,
    value: GucSetting::<Notify>::new(Notify::Worker),
};

/// Who tells by NOTIFY that levels have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Notify {
    /// The background worker.
    #[name = c"worker"]
    Worker,
    /// Each transaction for itself.
    #[name = c"transaction"]
    Transaction,
    /// Nobody, unless stock.emit_changes() is called.
    #[name = c"off"]
    Off,
}

/// Who tells by NOTIFY that levels have changed.
pub fn notify() -> Notify {
    NOTIFY.value.get()
}

static CHANNEL_PREFIX: Text = Setting {
    name: c"pg_stock.channel_prefix",
    meaning: c"How the names of the channels begin: PREFIX_changed, PREFIX_alert.",
    more: c"At most 48 bytes are used.",
    by: By::Superuser,
    value: GucSetting::<Option<CString>>::new(Some(c"stock")),
};

/// How the names of the channels begin. PostgreSQL takes names of at most 63 bytes.
pub fn channel_prefix() -> String {
    let prefix = CHANNEL_PREFIX.text();
    let kept =
        prefix.char_indices().take_while(|(place, letter)| place + letter.len_utf8() <= 48).count();
    let prefix: String = prefix.chars().take(kept).collect();
    if prefix.is_empty() { "stock".into() } else { prefix }
}

static EMIT_INTERVAL: Number = Number {
    unit: GucFlags::UNIT_MS,
    range: 0..=60_000,
    setting: Setting {
        name: c"pg_stock.emit_interval",
        meaning: c"How long the background worker waits at least from one emission to the next.",
        more: c"What changed meanwhile is told together.",
        by: By::File,
        value: GucSetting::<i32>::new(10),
    },
};

/// How long the background worker waits at least from one emission to the next.
pub fn emit_interval() -> std::time::Duration {
    std::time::Duration::from_millis(EMIT_INTERVAL.get() as u64)
}

static DATABASES: Text = Setting {
    name: c"pg_stock.databases",
    meaning: c"The databases in which the background worker expires holds.",
    more: c"A list of names, separated by commas; * stands for every database that has the \
            extension, an empty list for none.",
    by: By::File,
    value: GucSetting::<Option<CString>>::new(Some(c"*")),
};

/// The databases that the background worker serves.
pub enum Databases {
    /// Every one that has the extension.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

impl Databases {
    /// True if the database with this name is served.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Databases::All => true,
            Databases::Named(names) => names.iter().any(|served| served == name),
        }
    }

    /// Their names, where they are named.
    pub fn names(&self) -> &[String] {
        match self {
            Databases::All => &[],
            Databases::Named(names) => names,
        }
    }
}

/// The databases that the background worker serves.
pub fn databases() -> Databases {
    let value = DATABASES.text();
    let names: Vec<String> = value
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if names.iter().any(|name| name == "*") { Databases::All } else { Databases::Named(names) }
}

/// True if the background worker serves this database, where it has the extension.
pub fn is_database_served() -> bool {
    // SAFETY: inside a transaction; the name is a copy, or null where the database is gone.
    let name = unsafe { pg_sys::get_database_name(pg_sys::MyDatabaseId) };
    if name.is_null() {
        return false;
    }
    // SAFETY: a C string.
    databases().contains(&unsafe { CStr::from_ptr(name) }.to_string_lossy())
}

/// Defined only where the library is preloaded: it sizes shared memory.
static MAX_DATABASES: Number = Number {
    unit: GucFlags::empty(),
    range: 1..=10_000,
    setting: Setting {
        name: c"pg_stock.max_databases",
        meaning: c"In how many databases the extension may have a background worker.",
        more: c"Each takes 600 bytes of shared memory, and a worker slot of max_worker_processes \
                once it has a worker.",
        by: By::Start,
        value: GucSetting::<i32>::new(128),
    },
};

/// In how many databases there may be a worker.
pub fn max_databases() -> usize {
    MAX_DATABASES.get() as usize
}

static EXPIRE_BATCH: Number = Number {
    unit: GucFlags::empty(),
    range: 1..=100_000,
    setting: Setting {
        name: c"pg_stock.expire_batch",
        meaning: c"How many holds the background worker closes in one transaction.",
        more: c"Their levels are locked meanwhile.",
        by: By::File,
        value: GucSetting::<i32>::new(500),
    },
};

/// How many holds the background worker closes in one transaction.
pub fn expire_batch() -> usize {
    EXPIRE_BATCH.get() as usize
}

static POLL_INTERVAL: Number = Number {
    unit: GucFlags::UNIT_S,
    range: 1..=3_600,
    setting: Setting {
        name: c"pg_stock.poll_interval",
        meaning: c"How long the background worker sleeps at most.",
        more: c"It wakes by itself when a hold is due; only what a prepared transaction held must \
                be looked for.",
        by: By::File,
        value: GucSetting::<i32>::new(60),
    },
};

/// How long the background worker sleeps at most.
pub fn poll_interval() -> Micros {
    Micros::from(POLL_INTERVAL.get()) * SECOND
}

/// How far the tests step the clock. A release build has no such setting.
#[cfg(debug_assertions)]
static CLOCK_OFFSET: Number = Number {
    unit: GucFlags::UNIT_S,
    range: i32::MIN..=i32::MAX,
    setting: Setting {
        name: c"pg_stock.clock_offset",
        meaning: c"Seconds that are added to the clock; only for tests, and not in a release \
                   build.",
        more: c"",
        by: By::Superuser,
        value: GucSetting::<i32>::new(0),
    },
};

/// What is added to the clock: nothing, unless a test says otherwise.
pub fn clock_offset() -> Micros {
    #[cfg(debug_assertions)]
    return Micros::from(CLOCK_OFFSET.get()) * SECOND;
    #[cfg(not(debug_assertions))]
    0
}
