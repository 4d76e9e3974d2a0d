//! The scheduled comparison of a sample of the cache with the database.
//!
//! The sample is read from the database first. A moment later the cache must have it, or something newer.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use tokio_postgres::Config;

use crate::entry::{Entry, Level};
use crate::error::Error;
use crate::feed::Feed;
use crate::store::{Store, Stored};

/// The SKU and location of a level.
pub type Named = (String, String);

/// Levels whose changes are counted between two checks.
const COUNTED_MAX: usize = 100_000;
/// A sample has at least so many levels, where there are as many.
const SAMPLE_MIN: usize = 100;
/// Levels in one query.
const BATCH: usize = 1_000;

/// How often each level changed since the last check.
#[derive(Debug, Default)]
pub struct Changes(HashMap<Named, u32>);

impl Changes {
    /// Counts a change. Where too many levels are counted, new ones are not.
    pub fn count(&mut self, level: &Level) {
        let named = (level.sku.clone(), level.location.clone());
        if self.0.len() < COUNTED_MAX || self.0.contains_key(&named) {
            *self.0.entry(named).or_default() += 1;
        }
    }

    /// The levels that changed most, the most changed first; forgets the counts.
    fn take_most(&mut self) -> Vec<Named> {
        let mut counted: Vec<_> = self.0.drain().collect();
        counted.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted.into_iter().map(|(named, _)| named).collect()
    }
}

/// What the database said of the sampled levels.
pub struct Sample {
    /// The epoch in which it was taken.
    pub epoch: i64,
    levels: Vec<(Named, Option<Level>)>,
}

/// How a sample is taken.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Of all levels in the cache, this share, from 0 to 1.
    pub share: f64,
    /// How long after the database the cache is read.
    pub grace: Duration,
    /// How long one call may take.
    pub time_limit: Duration,
}

/// Chooses levels, half of them the most changed ones, reads them from the database, and waits for the grace period.
///
/// # Errors
/// If either side cannot be asked.
pub async fn sample(
    database: Config,
    mut store: Store,
    mut most_changed: Vec<Named>,
    sampling: Sampling,
) -> Result<Sample, Error> {
    let epoch = store.epoch();
    let (mut random, total) = random(&mut store, sampling.share).await?;
    let wanted = (total as f64 * sampling.share).ceil().max(SAMPLE_MIN.min(total) as f64) as usize;
    most_changed.truncate(wanted.div_ceil(2));
    random.shuffle(&mut rand::rng());
    let mut seen = HashSet::new();
    let chosen: Vec<Named> =
        most_changed.into_iter().chain(random).filter(|named| seen.insert(named.clone())).take(wanted).collect();
    let feed = Feed::connect(&database, sampling.time_limit).await?;
    let mut levels = Vec::with_capacity(chosen.len());
    for named in chosen.chunks(BATCH) {
        let found = feed.levels(named, sampling.time_limit).await?;
        levels.extend(named.iter().cloned().zip(found));
    }
    tokio::time::sleep(sampling.grace).await;
    Ok(Sample { epoch, levels })
}

/// Forgets the counts; the most changed levels, the most changed first.
pub fn most_changed(changes: &mut Changes) -> Vec<Named> {
    changes.take_most()
}

/// Entries of the cache by chance, at least the share that is asked for if it has as many; and how many it has in all.
async fn random(store: &mut Store, share: f64) -> Result<(Vec<Named>, usize), Error> {
    let few = SAMPLE_MIN as f64 / (store.keys().await?.max(1) as f64);
    let share = share.max(few).min(1.0);
    let (mut chosen, mut total, mut from) = (Vec::new(), 0, 0);
    loop {
        let (next, keys) = store.scan(from).await?;
        for named in keys.iter().filter_map(|key| store.parse(key)) {
            total += 1;
            if rand::rng().random_bool(share) {
                chosen.push(named);
            }
        }
        from = next;
        if from == 0 {
            return Ok((chosen, total));
        }
    }
}

/// What came out of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Levels that were compared: those that the cache had.
    pub checked: usize,
    /// Those that were wrong.
    pub wrong: Vec<Named>,
    /// Those that were right.
    pub right: Vec<Named>,
}

impl Verdict {
    /// Whether more than this share of the levels was wrong.
    pub fn is_worse_than(&self, share: f64) -> bool {
        self.wrong.len() as f64 > self.checked as f64 * share
    }
}

impl Sample {
    /// The names of the sampled levels.
    pub fn named(&self) -> Vec<Named> {
        self.levels.iter().map(|(named, _)| named.clone()).collect()
    }

    /// Compares it with what the cache has by now, in the same order. What the cache does not have is not wrong.
    pub fn judge(self, stored: Vec<Option<Stored>>) -> Verdict {
        let mut verdict = Verdict::default();
        for ((named, known), stored) in self.levels.into_iter().zip(stored) {
            let Some(stored) = stored else { continue };
            verdict.checked += 1;
            if is_wrong(&named, known.as_ref(), stored.as_ref()) {
                verdict.wrong.push(named);
            } else if known.is_some() {
                verdict.right.push(named);
            }
        }
        verdict
    }
}

/// Whether the cache cannot have this entry, where the database had that level some time before.
fn is_wrong(named: &Named, known: Option<&Level>, stored: Option<&Entry>) -> bool {
    match (known, stored) {
        (_, None) => true,
        (Some(known), Some(Entry::Found { level, .. })) => {
            let newer = level.version > known.version && (&level.sku, &level.location) == (&named.0, &named.1);
            !newer && level != known
        }
        // A level that is new since then is found by the next check.
        (None, Some(Entry::Found { level, .. })) => level.version > 0,
        (known, Some(Entry::Absent { .. })) => known.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, Entry, Level, Sample, Verdict};

    fn level(sku: &str, version: i64, on_hand: i64) -> Level {
        let (sku, location) = (sku.to_owned(), "m".to_owned());
        Level { sku, location, available: on_hand, on_hand, reserved: 0, safety_stock: 0, frozen: false, version }
    }

    fn found(level: Level) -> Option<Option<Entry>> {
        Some(Some(Entry::Found { level, epoch: 1 }))
    }

    fn wrong(known: Option<Level>, stored: Option<Option<Entry>>) -> usize {
        let sample = Sample { epoch: 1, levels: vec![(("a".into(), "m".into()), known)] };
        sample.judge(vec![stored]).wrong.len()
    }

    #[test]
    fn older_other_and_invented_values_are_wrong() {
        assert_eq!(wrong(Some(level("a", 7, 1)), found(level("a", 6, 1))), 1, "older");
        assert_eq!(wrong(Some(level("a", 7, 1)), found(level("a", 7, 2))), 1, "other values");
        assert_eq!(wrong(Some(level("a", 7, 1)), found(level("b", 8, 1))), 1, "another level's");
        assert_eq!(wrong(Some(level("a", 7, 1)), Some(None)), 1, "unreadable");
        assert_eq!(wrong(None, found(level("a", 1, 1))), 1, "invented");
        let absent = Entry::Absent { absent: true, sku: "a".into(), location: "m".into(), epoch: 1 };
        assert_eq!(wrong(Some(level("a", 7, 1)), Some(Some(absent.clone()))), 1, "denied");
        assert_eq!(wrong(None, Some(Some(absent))), 0);
        assert_eq!(wrong(Some(level("a", 7, 1)), found(level("a", 7, 1))), 0);
        assert_eq!(wrong(Some(level("a", 7, 1)), found(level("a", 8, 0))), 0, "newer");
        assert_eq!(wrong(Some(level("a", 7, 1)), None), 0, "missing");
    }

    #[test]
    fn exactly_the_threshold_is_not_worse_than_it() {
        let verdict = |wrong: usize| Verdict { checked: 100, wrong: vec![Default::default(); wrong], right: vec![] };
        assert!(!verdict(0).is_worse_than(0.01));
        assert!(!verdict(1).is_worse_than(0.01));
        assert!(verdict(2).is_worse_than(0.01));
    }

    #[test]
    fn the_most_changed_come_first() {
        let mut changes = Changes::default();
        for (sku, times) in [("a", 1), ("b", 3), ("c", 2)] {
            (0..times).for_each(|_| changes.count(&level(sku, 1, 1)));
        }
        let skus: Vec<_> = changes.take_most().into_iter().map(|(sku, _)| sku).collect();
        assert_eq!(skus, ["b", "c", "a"]);
        assert!(changes.take_most().is_empty());
    }
}
