//! The settings `pg_stock.*`.

use std::ffi::{CStr, CString};

use pg_stock_core::limits::{self, MAX_TTL, SECOND};
use pg_stock_core::{Fault, Micros};
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// Most bytes of `pg_stock.context` that a ledger row keeps.
const MAX_CONTEXT_BYTES: usize = 1_000;

static DEFAULT_TTL: GucSetting<i32> = GucSetting::<i32>::new(30 * 60);
static MIN_TTL: GucSetting<i32> = GucSetting::<i32>::new(0);
static LONGEST_TTL: GucSetting<i32> = GucSetting::<i32>::new((MAX_TTL / SECOND) as i32);
static MAX_HOLD: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETAKE_LAPSED: GucSetting<bool> = GucSetting::<bool>::new(true);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static MAX_BATCH_LINES: GucSetting<i32> = GucSetting::<i32>::new(limits::MAX_BATCH_LINES as i32);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(128);
static EXPIRE_BATCH: GucSetting<i32> = GucSetting::<i32>::new(500);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
#[cfg(debug_assertions)]
static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);
static NOTIFY: GucSetting<Notify> = GucSetting::<Notify>::new(Notify::Worker);
static CHANNEL_PREFIX: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"stock"));
static DIRECT_ACCESS: GucSetting<bool> = GucSetting::<bool>::new(true);
static EARLY_LOCK_RELEASE: GucSetting<EarlyLockRelease> = GucSetting::<EarlyLockRelease>::new(EarlyLockRelease::Auto);
static EMIT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);
static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Makes the settings known to PostgreSQL.
pub fn define() {
    define_for_sessions();
    define_limits();
    define_for_workers();
    define_for_feed();
    define_for_server();
    #[cfg(debug_assertions)]
    define_for_tests();
    // SAFETY: called once from _PG_init with a constant, NUL-terminated prefix.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_stock".as_ptr()) };
}

fn define_for_workers() {
    GucRegistry::define_string_guc(
        c"pg_stock.databases",
        c"The databases in which the background worker expires holds.",
        c"A list of names, separated by commas; * stands for every database that has the extension, an empty list for none.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_stock.expire_batch",
        c"How many holds the background worker closes in one transaction.",
        c"Their levels are locked meanwhile.",
        &EXPIRE_BATCH,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_stock.poll_interval",
        c"How long the background worker sleeps at most.",
        c"It wakes by itself when a hold is due; only what a prepared transaction held must be looked for.",
        &POLL_INTERVAL,
        1,
        3_600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

/// Where the library is preloaded: how much shared memory it asks for.
fn define_for_server() {
    // SAFETY: a variable that does not change while a library is loaded.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        GucRegistry::define_int_guc(
            c"pg_stock.max_databases",
            c"In how many databases the extension may have a background worker.",
            c"Each takes 600 bytes of shared memory, and a worker slot of max_worker_processes once it has a worker.",
            &MAX_DATABASES,
            1,
            10_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
}

fn define_for_feed() {
    GucRegistry::define_enum_guc(
        c"pg_stock.notify",
        c"Who tells by NOTIFY that levels have changed.",
        c"worker: the background worker, where the library is preloaded, some milliseconds after the commit. transaction: each transaction for itself, which makes commits queue. off: nobody but stock.emit_changes().",
        &NOTIFY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_stock.channel_prefix",
        c"How the names of the channels begin: PREFIX_changed, PREFIX_alert.",
        c"At most 48 bytes are used.",
        &CHANNEL_PREFIX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_stock.emit_interval",
        c"How long the background worker waits at least from one emission to the next.",
        c"What changed meanwhile is told together.",
        &EMIT_INTERVAL,
        0,
        60_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
}

/// How far the tests step the clock. A release build has no such setting.
#[cfg(debug_assertions)]
fn define_for_tests() {
    GucRegistry::define_int_guc(
        c"pg_stock.clock_offset",
        c"Seconds that are added to the clock; only for tests, and not in a release build.",
        c"",
        &CLOCK_OFFSET,
        i32::MIN,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
}

/// What a DBA allows.
fn define_limits() {
    GucRegistry::define_int_guc(
        c"pg_stock.min_ttl",
        c"The shortest time to live that a call may ask for.",
        c"A number without a unit is taken for seconds, in an interval too: this finds callers who meant minutes. 0: no limit.",
        &MIN_TTL,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_stock.max_ttl",
        c"The longest time to live that a call may ask for.",
        c"At most 366 days. It finds callers who meant milliseconds.",
        &LONGEST_TTL,
        1,
        (MAX_TTL / SECOND) as i32,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_stock.max_hold",
        c"The longest time from a reserve to its last deadline, however often it is extended.",
        c"An extension gets no further. 0: no limit.",
        &MAX_HOLD,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
}

fn define_for_sessions() {
    GucRegistry::define_int_guc(
        c"pg_stock.default_ttl",
        c"How long a reservation holds its units unless the call says so.",
        c"Thirty minutes unless set. At most 366 days.",
        &DEFAULT_TTL,
        1,
        (MAX_TTL / SECOND) as i32,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"pg_stock.retake_lapsed",
        c"Whether a confirm or an extension that comes after the deadline takes the units again if they are still there.",
        c"If off, it is refused as reservation_expired.",
        &RETAKE_LAPSED,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"pg_stock.early_lock_release",
        c"Whether a level that others wait for is unlocked while the commit is still being flushed.",
        c"auto: where a single statement commits, and no synchronous standby is waited for. statement: where a single statement commits. transaction: also where BEGIN … COMMIT does. The client hears of the commit only when it is durable; others may see the change before. Never under remote_apply.",
        &EARLY_LOCK_RELEASE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_stock.direct_access",
        c"Whether rows are read and written without SQL statements, where that means the same.",
        c"It comes sooner. Off: each change is an SQL statement inside the call, which pg_stat_statements (track = all) and auto_explain (log_nested_statements) see.",
        &DIRECT_ACCESS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_stock.max_batch_lines",
        c"How many lines all orders of one call of reserve_many may have together.",
        c"Their levels are locked, and the memory for them is taken, until the call ends.",
        &MAX_BATCH_LINES,
        1,
        limits::MAX_BATCH_LINES as i32,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_stock.context",
        c"Text that each ledger row keeps, a trace id say.",
        c"Only the first 1,000 bytes are kept.",
        &CONTEXT,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// Lets no wait for a lock take longer until the current subtransaction ends.
pub fn limit_lock_waits(milliseconds: i32) {
    // SAFETY: the name and the value are constant C strings or live until the call returns; a value that is set with
    // GUC_ACTION_SAVE is restored at the end of the subtransaction, however it ends.
    unsafe {
        if pg_sys::LockTimeout > 0 && pg_sys::LockTimeout <= milliseconds {
            return;
        }
        let value = CString::new(milliseconds.to_string()).unwrap_or_default();
        pg_sys::set_config_option(
            c"lock_timeout".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// What is added to the clock: nothing, unless a test says otherwise.
pub fn clock_offset() -> Micros {
    #[cfg(debug_assertions)]
    return Micros::from(CLOCK_OFFSET.get()) * SECOND;
    #[cfg(not(debug_assertions))]
    0
}

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
    NOTIFY.get()
}

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
    EARLY_LOCK_RELEASE.get()
}

/// Whether the short way to the tables may be taken.
pub fn direct_access() -> bool {
    DIRECT_ACCESS.get()
}

/// How the names of the channels begin. PostgreSQL takes names of at most 63 bytes.
pub fn channel_prefix() -> String {
    let prefix = CHANNEL_PREFIX.get().map(|prefix| prefix.to_string_lossy().into_owned()).unwrap_or_default();
    let kept = prefix.char_indices().take_while(|(place, letter)| place + letter.len_utf8() <= 48).count();
    let prefix: String = prefix.chars().take(kept).collect();
    if prefix.is_empty() { "stock".into() } else { prefix }
}

/// How long the background worker waits at least from one emission to the next.
pub fn emit_interval() -> std::time::Duration {
    std::time::Duration::from_millis(EMIT_INTERVAL.get() as u64)
}

/// Lets this transaction flush its commit and wait for no standby, whatever was asked for; gives what was.
pub fn commit_locally() -> i32 {
    // SAFETY: a variable of this backend.
    let asked = unsafe { pg_sys::synchronous_commit };
    set_synchronous_commit(c"local");
    asked
}

/// Lets this transaction wait for its commit to be flushed, whatever the session asks for; a higher demand stands.
pub fn commit_durably() {
    use pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH;
    // SAFETY: a variable of this backend.
    if unsafe { pg_sys::synchronous_commit } < SYNCHRONOUS_COMMIT_REMOTE_FLUSH as i32 {
        set_synchronous_commit(c"on");
    }
}

/// Sets `synchronous_commit` until the transaction ends.
fn set_synchronous_commit(value: &std::ffi::CStr) {
    // SAFETY: constant C strings; what is set with GUC_ACTION_LOCAL is restored when the transaction ends.
    unsafe {
        pg_sys::set_config_option(
            c"synchronous_commit".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

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
    let value = DATABASES.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
    let names: Vec<String> =
        value.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect();
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

/// How many lines one batch may have.
pub fn max_batch_lines() -> usize {
    MAX_BATCH_LINES.get() as usize
}

/// In how many databases there may be a worker.
pub fn max_databases() -> usize {
    MAX_DATABASES.get() as usize
}

/// How many holds the background worker closes in one transaction.
pub fn expire_batch() -> usize {
    EXPIRE_BATCH.get() as usize
}

/// How long the background worker sleeps at most.
pub fn poll_interval() -> Micros {
    Micros::from(POLL_INTERVAL.get()) * SECOND
}

/// How long a reservation holds its units unless the call says so: every session may set that, within what a DBA allows.
pub fn default_ttl() -> Micros {
    let most = max_ttl().min(max_hold().unwrap_or(MAX_TTL));
    (Micros::from(DEFAULT_TTL.get()) * SECOND).max(min_ttl()).min(most)
}

fn min_ttl() -> Micros {
    Micros::from(MIN_TTL.get()) * (SECOND / 1_000)
}

fn max_ttl() -> Micros {
    Micros::from(LONGEST_TTL.get()) * SECOND
}

/// Takes a time to live that a DBA allows.
pub fn check_ttl(path: impl std::fmt::Display + Copy, ttl: Micros) -> Result<Micros, Fault> {
    limits::ttl_between(path, ttl, ("pg_stock.min_ttl", min_ttl()), ("pg_stock.max_ttl", max_ttl()))
}

/// Takes a time to live with which a reserve may begin.
pub fn check_first_ttl(path: impl std::fmt::Display + Copy, ttl: Micros) -> Result<Micros, Fault> {
    let longest = max_hold().filter(|most| *most < max_ttl());
    let most = longest.map_or(("pg_stock.max_ttl", max_ttl()), |most| ("pg_stock.max_hold", most));
    limits::ttl_between(path, ttl, ("pg_stock.min_ttl", min_ttl()), most)
}

/// The longest time from a reserve to its last deadline.
pub fn max_hold() -> Option<Micros> {
    Some(MAX_HOLD.get()).filter(|most| *most > 0).map(|most| Micros::from(most) * SECOND)
}

/// Whether a late confirm or extension may take units again.
pub fn retake_lapsed() -> bool {
    RETAKE_LAPSED.get()
}

/// The text that each ledger row keeps unless its request has one of its own.
pub fn context() -> Option<Vec<u8>> {
    short_context(CONTEXT.get()?.into_bytes())
}

/// As much of a context as a ledger row keeps: cut between characters, so that it never fails a sale.
pub fn short_context(text: Vec<u8>) -> Option<Vec<u8>> {
    let length = text.len().min(MAX_CONTEXT_BYTES);
    // SAFETY: `text` has at least `length` bytes and is in the encoding of the database.
    let kept = unsafe { pg_sys::pg_mbcliplen(text.as_ptr().cast(), text.len() as i32, length as i32) };
    (kept > 0).then(|| text[..kept as usize].to_vec())
}
