//! The SKUs that others wait for, or that are refused, most: a sketch of a fixed size
//! (space-saving: Metwally, Agrawal, El Abbadi, 2005). Who comes when it is full takes the place of
//! the least, with its number; so a number may be too high by what is told beside it, and never too
//! low.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use pg_stock_core::Name;

use crate::shared::SharedText;

/// How many SKUs are kept.
const PLACES: usize = 32;
/// The longest name of a SKU.
const SKU_BYTES: usize = 200;
/// How many SKUs, how often, and for how long a process keeps for itself what it notes: all write
/// to the same lines of memory.
const KEPT_SKUS_MAX: usize = 8;
const KEPT_MAX: u64 = 64;
const KEPT_TIME: Duration = Duration::from_millis(100);

/// Why a SKU is noted.
#[derive(Clone, Copy)]
pub enum Cause {
    /// Others were at a level of it.
    Wait,
    /// Its version was not the one expected.
    Version,
    /// It was refused for another reason.
    Refusal,
}

const CAUSES: usize = Cause::Refusal as usize + 1;

/// The sketch.
pub struct Hot {
    /// Somebody writes.
    is_taken: AtomicBool,
    places: [Place; PLACES],
}

struct Place {
    /// Of the SKU; 0: free.
    hash: AtomicU64,
    /// All that was noted, with what its place had before.
    total: AtomicU64,
    /// What its place had before it.
    before: AtomicU64,
    causes: [AtomicU64; CAUSES],
    sku: SharedText<SKU_BYTES>,
}

/// A SKU that is wanted.
pub struct Wanted {
    /// Which.
    pub sku: Vec<u8>,
    /// How often: waits, version conflicts, other refusals.
    pub causes: [u64; CAUSES],
    /// How often besides, at most, before it was in the sketch.
    pub missed: u64,
}

/// What a process has noted and not written yet.
struct Kept {
    skus: Vec<(Name, [u64; CAUSES])>,
    how_often: u64,
    since: Option<Instant>,
}

thread_local! {
    static KEPT: RefCell<Kept> =
        const { RefCell::new(Kept { skus: Vec::new(), how_often: 0, since: None }) };
}

impl Kept {
    fn note(&mut self, sku: &Name, cause: Cause) {
        let known = self.skus.iter().position(|(known, _)| known == sku);
        let place = known.unwrap_or_else(|| {
            self.skus.push((sku.clone(), [0; CAUSES]));
            self.skus.len() - 1
        });
        self.skus[place].1[cause as usize] += 1;
        self.how_often += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn is_full(&self) -> bool {
        self.skus.len() >= KEPT_SKUS_MAX
            || self.how_often >= KEPT_MAX
            || self.since.is_some_and(|since| since.elapsed() >= KEPT_TIME)
    }
}

impl Hot {
    /// Notes a SKU; the process may keep it for itself for a while.
    pub fn note(&self, sku: &Name, cause: Cause) {
        KEPT.with_borrow_mut(|kept| {
            kept.note(sku, cause);
            if kept.is_full() {
                self.write(kept);
            }
        });
    }

    /// Writes what was kept. Nobody waits: while another writes it is kept on, and what is too much
    /// is forgotten.
    fn write(&self, kept: &mut Kept) {
        if self.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_ok() {
            kept.skus.drain(..).for_each(|(sku, causes)| self.add(&sku, causes));
            self.is_taken.store(false, Release);
        } else {
            kept.skus.truncate(KEPT_SKUS_MAX - 1);
        }
        kept.how_often = 0;
        kept.since = None;
    }

    /// Adds to a SKU; nobody else writes.
    fn add(&self, sku: &Name, causes: [u64; CAUSES]) {
        let mut hasher = DefaultHasher::new();
        sku.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        let known = self.places.iter().find(|place| place.hash.load(Relaxed) == hash);
        let place = known.unwrap_or_else(|| {
            let place = self.least();
            place.begin(hash, sku);
            place
        });
        let sum: u64 = causes.iter().sum();
        place.total.fetch_add(sum, Relaxed);
        place.causes.iter().zip(causes).for_each(|(cause, more)| {
            cause.fetch_add(more, Relaxed);
        });
    }

    /// The place whose SKU is wanted least.
    fn least(&self) -> &Place {
        let [first, rest @ ..] = &self.places;
        let total = |place: &Place| place.total.load(Relaxed);
        rest.iter()
            .fold(first, |least, place| if total(place) < total(least) { place } else { least })
    }

    /// The SKUs in it, the most wanted first.
    pub fn wanted(&self) -> Vec<Wanted> {
        KEPT.with_borrow_mut(|kept| self.write(kept));
        self.take();
        let wanted = self.read();
        self.is_taken.store(false, Release);
        wanted
    }

    /// Waits until nobody writes, and keeps others from it: nothing that takes long is done
    /// meanwhile.
    fn take(&self) {
        while self.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            std::thread::yield_now();
        }
    }

    fn read(&self) -> Vec<Wanted> {
        let taken = self.places.iter().filter(|place| place.hash.load(Relaxed) != 0);
        let mut wanted: Vec<(u64, Wanted)> = taken
            .map(|place| {
                let wanted = Wanted {
                    sku: place.sku.get(),
                    causes: std::array::from_fn(|cause| place.causes[cause].load(Relaxed)),
                    missed: place.before.load(Relaxed),
                };
                (place.total.load(Relaxed), wanted)
            })
            .collect();
        wanted.sort_by_key(|(total, _)| std::cmp::Reverse(*total));
        wanted.into_iter().map(|(_, wanted)| wanted).collect()
    }

    /// Forgets all, once nobody writes.
    pub fn clear(&self) {
        self.take();
        self.places.iter().for_each(Place::free);
        self.is_taken.store(false, Release);
    }
}

impl Place {
    /// Gives the place to another SKU.
    fn begin(&self, hash: u64, sku: &Name) {
        self.before.store(self.total.load(Relaxed), Relaxed);
        self.causes.iter().for_each(|cause| cause.store(0, Relaxed));
        self.sku.set(sku.as_bytes());
        self.hash.store(hash, Relaxed);
    }

    fn free(&self) {
        self.hash.store(0, Relaxed);
        self.total.store(0, Relaxed);
        self.before.store(0, Relaxed);
        self.causes.iter().for_each(|cause| cause.store(0, Relaxed));
    }
}
