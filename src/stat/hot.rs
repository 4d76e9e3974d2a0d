//! The SKUs that others wait for, or that are refused, most: a sketch of a fixed size
//! (space-saving: Metwally, Agrawal, El Abbadi, 2005). Who comes when it is full takes the place of
//! the least, with its number; so a number may be too high by what is told beside it, and never too
//! low.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use pg_stock_core::Name;

use crate::shared::SharedText;

/// How many SKUs are kept.
const PLACES: usize = 32;
/// The longest name of a SKU.
const SKU_BYTES: usize = 200;
/// How many SKUs a process keeps for itself while others write.
const KEPT_MAX: usize = 8;

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

thread_local! {
    /// What could not be written at once.
    static KEPT: RefCell<Vec<(Name, [u64; CAUSES])>> = const { RefCell::new(Vec::new()) };
}

impl Hot {
    /// Notes a SKU. Nobody waits: what cannot be written at once is kept for the next time, and of
    /// that no more than some SKUs.
    pub fn note(&self, sku: &Name, cause: Cause) {
        KEPT.with_borrow_mut(|kept| {
            let place = kept.iter().position(|(known, _)| known == sku).or_else(|| {
                (kept.len() < KEPT_MAX).then(|| {
                    kept.push((sku.clone(), [0; CAUSES]));
                    kept.len() - 1
                })
            });
            if let Some(place) = place {
                kept[place].1[cause as usize] += 1;
            }
            if self.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_ok() {
                kept.drain(..).for_each(|(sku, causes)| self.add(&sku, causes));
                self.is_taken.store(false, Release);
            }
        });
    }

    /// Adds to a SKU; nobody else writes.
    fn add(&self, sku: &Name, causes: [u64; CAUSES]) {
        let mut hasher = DefaultHasher::new();
        sku.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        let known = self.places.iter().find(|place| place.hash.load(Relaxed) == hash);
        let place = known.unwrap_or_else(|| {
            let least = self.places.iter().min_by_key(|place| place.total.load(Relaxed));
            let place = least.expect("there are places");
            place.begin(hash, sku);
            place
        });
        let sum: u64 = causes.iter().sum();
        place.total.fetch_add(sum, Relaxed);
        place.causes.iter().zip(causes).for_each(|(cause, more)| {
            cause.fetch_add(more, Relaxed);
        });
    }

    /// The SKUs in it, the most wanted first.
    pub fn wanted(&self) -> Vec<Wanted> {
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
        while self.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            std::thread::yield_now();
        }
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
