//! The counters of a database. Everybody adds to them without a lock; who reads sees each counter
//! as it is, and one a moment later than another.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

use pg_stock_core::Micros;
use pg_stock_core::facts::Operation;
use pg_stock_core::outcome::Outcome;
use pg_stock_core::stat::{BUCKETS, Tally, bucket};
use pgrx::pg_sys;

use super::hot::Hot;
use crate::settings;
use crate::shared::{Piece, SharedText, find_or_take};

/// How many pairs of operation and outcome there is room for; more than there are.
const CELLS: usize = 128;
/// Bytes of an error's text that are kept.
const ERROR_BYTES: usize = 500;

/// The counters of one database.
pub struct Area {
    /// Its oid; 0: nobody's.
    database: AtomicU32,
    /// The last look at all databases did not find it.
    is_missed: AtomicBool,
    /// Since when they count.
    since: AtomicI64,
    cells: [Counter; CELLS],
    /// The SKUs that are wanted most.
    pub hot: Hot,
    /// What the worker does.
    pub worker: WorkerCounters,
}

/// The counters of one operation and outcome. How many calls there were the buckets say; a call of
/// one unit in one line changes no more than its bucket and the time: backends that sell one SKU
/// share these lines of memory.
struct Counter {
    /// Which; 0: none yet.
    pair: AtomicU32,
    repeats: AtomicU64,
    /// Lines beyond one of each call.
    more_lines: AtomicU64,
    /// Units beyond one of each line; modulo 2^64, for there may be fewer.
    more_units: AtomicU64,
    rolled_back: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What was counted of an operation and outcome.
pub struct Counted {
    /// What was asked for.
    pub operation: Operation,
    /// The answer.
    pub outcome: Outcome,
    /// How often.
    pub calls: u64,
    /// How often among them an earlier effect was reported.
    pub repeats: u64,
    /// Lines.
    pub lines: u64,
    /// Units.
    pub units: u64,
    /// How often among them the effect was rolled back.
    pub rolled_back: u64,
    /// Time in all, in microseconds.
    pub micros: u64,
    /// How often by the time that it took.
    pub buckets: [u64; BUCKETS],
}

/// What is counted of the worker.
#[derive(Clone, Copy)]
pub enum WorkerCount {
    /// Sweeps that had something to do.
    Batches,
    /// Holds given back.
    Holds,
    /// Units in them.
    Units,
    /// Lines of those who waited that were paid.
    LinesPaid,
    /// Levels whose lots were booked.
    LotLevels,
    /// Emissions that told something.
    Emissions,
    /// Messages of them.
    Messages,
}

const WORKER_COUNTS: usize = WorkerCount::Messages as usize + 1;

/// What the worker has done.
pub struct WorkerCounters {
    counts: [AtomicU64; WORKER_COUNTS],
    failures: AtomicU64,
    /// When it failed last; 0: it did not.
    failed_at: AtomicI64,
    error: SharedText<ERROR_BYTES>,
}

/// What the worker has done, as it is told.
pub struct Worker {
    /// In the order of [`WorkerCount`].
    pub counts: [u64; WORKER_COUNTS],
    /// How often it failed.
    pub failures: u64,
    /// When last, and what it said.
    pub error: Option<(Micros, String)>,
}

/// The areas of all databases.
static AREAS: AtomicPtr<Area> = AtomicPtr::new(null_mut());
/// Where they are kept.
pub static PIECE: Piece = Piece { name: c"pg_stock counters", size, set_up };

thread_local! {
    /// That of this process's database, once it was found.
    static HERE: Cell<Option<&'static Area>> = const { Cell::new(None) };
}

fn size() -> usize {
    settings::max_databases() * size_of::<Area>()
}

unsafe fn set_up(place: *mut u8) {
    // Nothing was counted: all counters are 0.
    // SAFETY: there is room for so many areas, which hold atomics only.
    unsafe { place.write_bytes(0, size()) };
    AREAS.store(place.cast(), SeqCst);
}

fn areas() -> &'static [Area] {
    let areas = AREAS.load(SeqCst);
    if areas.is_null() {
        return &[];
    }
    // SAFETY: shared memory that stays as long as the process does, and holds atomics only.
    unsafe { std::slice::from_raw_parts(areas, settings::max_databases()) }
}

/// Forgets the counters of databases that are gone.
pub fn tidy(exists: impl Fn(u32) -> bool) {
    for area in areas() {
        let database = area.database.load(SeqCst);
        let is_missing = database != 0 && !exists(database);
        // A database that was made after the look began is found by the next one.
        if area.is_missed.swap(is_missing, SeqCst) && is_missing {
            area.is_missed.store(false, SeqCst);
            area.clear();
            area.database.store(0, SeqCst);
        }
    }
}

impl Area {
    /// That of this database; `None` where the library was not preloaded, or there are more
    /// databases than pg_stock.max_databases.
    pub fn here() -> Option<&'static Area> {
        // SAFETY: set when the process connected.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        let known = HERE.get().filter(|area| area.database.load(Relaxed) == database);
        known.or_else(|| {
            let area = Area::of(database);
            HERE.set(area);
            area
        })
    }

    fn of(database: u32) -> Option<&'static Area> {
        if database == 0 {
            return None;
        }
        let (area, is_new) = find_or_take(areas(), |area| &area.database, database)?;
        if is_new {
            // SAFETY: reads the clock.
            area.since.store(unsafe { pg_sys::GetCurrentTimestamp() }, SeqCst);
        }
        Some(area)
    }

    /// Counts a request that took so long; gives the place of its counter.
    pub fn count(&self, tally: &Tally, micros: u64) -> Option<usize> {
        let place = self.place(pair(tally.operation, tally.outcome))?;
        let counter = &self.cells[place];
        add(&counter.repeats, u64::from(tally.is_repeat));
        add(&counter.more_lines, tally.lines.wrapping_sub(1));
        add(&counter.more_units, tally.units.wrapping_sub(tally.lines));
        add(&counter.micros, micros);
        add(&counter.buckets[bucket(micros)], 1);
        Some(place)
    }

    /// Counts that what was counted there so often was rolled back.
    pub fn undo(&self, place: usize, how_often: u64) {
        self.cells[place].rolled_back.fetch_add(how_often, Relaxed);
    }

    /// The counter of a pair, taken if there is none.
    fn place(&self, pair: u32) -> Option<usize> {
        let first = pair as usize % CELLS;
        (first..CELLS).chain(0..first).find(|place| {
            let known = &self.cells[*place].pair;
            match known.load(Relaxed) {
                0 => known
                    .compare_exchange(0, pair, SeqCst, SeqCst)
                    .map_or_else(|at| at == pair, |_| true),
                found => found == pair,
            }
        })
    }

    /// What was counted.
    pub fn counted(&self) -> Vec<Counted> {
        self.cells.iter().filter_map(Counter::read).collect()
    }

    /// Since when.
    pub fn since(&self) -> Micros {
        self.since.load(SeqCst)
    }

    /// Begins anew. What is counted meanwhile may be lost, or not.
    pub fn reset(&self, now: Micros) {
        self.clear();
        self.since.store(now, SeqCst);
    }

    /// The pairs keep their places: a transaction that is open may count one there as undone.
    fn clear(&self) {
        self.cells.iter().for_each(Counter::clear);
        self.hot.clear();
        self.worker.clear();
    }
}

fn add(counter: &AtomicU64, more: u64) {
    if more != 0 {
        counter.fetch_add(more, Relaxed);
    }
}

/// A number for an operation and outcome; never 0.
fn pair(operation: Operation, outcome: Outcome) -> u32 {
    1 + operation as u32 * Outcome::ALL.len() as u32 + outcome as u32
}

impl Counter {
    fn read(&self) -> Option<Counted> {
        let pair = (self.pair.load(SeqCst) as usize).checked_sub(1)?;
        let buckets = std::array::from_fn(|place| self.buckets[place].load(Relaxed));
        let calls: u64 = buckets.iter().sum();
        let lines = calls.wrapping_add(self.more_lines.load(Relaxed));
        (calls > 0).then(|| Counted {
            operation: Operation::ALL[pair / Outcome::ALL.len()],
            outcome: Outcome::ALL[pair % Outcome::ALL.len()],
            calls,
            repeats: self.repeats.load(Relaxed),
            lines,
            units: lines.wrapping_add(self.more_units.load(Relaxed)),
            rolled_back: self.rolled_back.load(Relaxed),
            micros: self.micros.load(Relaxed),
            buckets,
        })
    }

    fn clear(&self) {
        let Counter { pair: _, repeats, more_lines, more_units, rolled_back, micros, buckets } =
            self;
        [repeats, more_lines, more_units, rolled_back, micros]
            .into_iter()
            .chain(buckets)
            .for_each(|counter| counter.store(0, Relaxed));
    }
}

impl WorkerCounters {
    /// Counts what it has done.
    pub fn count(&self, what: WorkerCount, how_often: u64) {
        self.counts[what as usize].fetch_add(how_often, Relaxed);
    }

    /// Notes an error.
    pub fn fail(&self, error: &str, now: Micros) {
        self.error.set_text(error);
        self.failed_at.store(now, SeqCst);
        self.failures.fetch_add(1, Relaxed);
    }

    /// What it has done.
    pub fn read(&self) -> Worker {
        let failed_at = Some(self.failed_at.load(SeqCst)).filter(|at| *at != 0);
        Worker {
            counts: std::array::from_fn(|place| self.counts[place].load(Relaxed)),
            failures: self.failures.load(Relaxed),
            error: failed_at.map(|at| (at, self.error.text())),
        }
    }

    fn clear(&self) {
        self.counts.iter().chain([&self.failures]).for_each(|counter| counter.store(0, Relaxed));
        self.failed_at.store(0, SeqCst);
        self.error.set_text("");
    }
}
