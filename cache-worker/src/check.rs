//! The scheduled comparison of a sample of the cache with the database.
//!
//! The sample is read from the database first. A moment later the cache must have it, or something
//! newer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

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
const BATCH_ROWS: usize = 1_000;

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

/// Chooses levels, half of them the most changed ones, reads them from the database, and waits for
/// the grace period.
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
    let (random, total) = random(&mut store, sampling.share).await?;
    let wanted = (total as f64 * sampling.share).ceil().max(SAMPLE_MIN.min(total) as f64) as usize;
    most_changed.truncate(wanted.div_ceil(2));
    let mut seen = HashSet::new();
    let chosen: Vec<Named> = most_changed
        .into_iter()
        .chain(random)
        .filter(|named| seen.insert(named.clone()))
        .take(wanted)
        .collect();
    let feed = Feed::connect(&database, sampling.time_limit).await?;
    let mut levels = Vec::with_capacity(chosen.len());
    for named in chosen.chunks(BATCH_ROWS) {
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

/// Entries of the cache in an order by chance, at least the share that is asked for and the least
/// of a sample, where it has as many; and how many it has in all.
async fn random(store: &mut Store, share: f64) -> Result<(Vec<Named>, usize), Error> {
    // Redis may have keys of others, too: it is enough, whatever part of them is ours.
    let enough = ((store.keys().await? as f64 * share).ceil() as usize).max(SAMPLE_MIN);
    let lots = RandomState::new();
    let (mut drawn, mut total, mut from) = (BTreeSet::new(), 0, 0);
    loop {
        let (next, keys) = store.scan(from).await?;
        for named in keys.iter().filter_map(|key| store.parse(key)) {
            total += 1;
            // Where the scan gives a key twice, it has the same lot.
            drawn.insert((lots.hash_one(&named), named));
            if drawn.len() > enough {
                drawn.pop_last();
            }
        }
        from = next;
        if from == 0 {
            return Ok((drawn.into_iter().map(|(_, named)| named).collect(), total));
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
    /// Those of which the cache had something newer than the sample: right, if the database has it
    /// by now.
    newer: Vec<Level>,
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

    /// Compares it with what the cache has by now, in the same order. What the cache does not have
    /// is not wrong.
    pub fn judge(self, stored: Vec<Option<Stored>>) -> Verdict {
        let mut verdict = Verdict::default();
        for ((named, known), stored) in self.levels.into_iter().zip(stored) {
            let Some(stored) = stored else { continue };
            verdict.checked += 1;
            match stored {
                Some(Entry::Found { level, .. })
                    if (&level.sku, &level.location) != (&named.0, &named.1) =>
                {
                    verdict.wrong.push(named);
                }
                Some(Entry::Found { level, .. }) if is_newer(&level, known.as_ref()) => {
                    verdict.newer.push(level)
                }
                Some(Entry::Found { level, .. }) if Some(&level) == known.as_ref() => {
                    verdict.right.push(named)
                }
                Some(Entry::Absent { .. }) if known.is_none() => {}
                _ => verdict.wrong.push(named),
            }
        }
        verdict
    }
}

impl Verdict {
    /// Compares what was newer with what the database has by now.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn ask_again(&mut self, feed: &Feed, limit: Duration) -> Result<(), Error> {
        for newer in std::mem::take(&mut self.newer).chunks(BATCH_ROWS) {
            let named: Vec<Named> =
                newer.iter().map(|level| (level.sku.clone(), level.location.clone())).collect();
            let known = feed.levels(&named, limit).await?;
            self.settle(newer.iter().zip(&known));
        }
        Ok(())
    }

    /// No entry may be newer than what the database has afterwards.
    fn settle<'a>(&mut self, newer: impl Iterator<Item = (&'a Level, &'a Option<Level>)>) {
        for (stored, known) in newer {
            let named = (stored.sku.clone(), stored.location.clone());
            let same = Some(stored) == known.as_ref();
            if same || known.as_ref().is_some_and(|known| known.version > stored.version) {
                self.right.push(named);
            } else {
                self.wrong.push(named);
            }
        }
    }
}

fn is_newer(level: &Level, known: Option<&Level>) -> bool {
    known.is_none_or(|known| level.version > known.version)
}

#[cfg(test)]
mod tests {
    use super::{Changes, Entry, Level, Sample, Verdict};

    fn level(sku: &str, version: i64, on_hand: i64) -> Level {
        let (sku, location) = (sku.to_owned(), "m".to_owned());
        Level {
            sku,
            location,
            available: on_hand,
            on_hand,
            reserved: 0,
            safety_stock: 0,
            in_transit: 0,
            waiting: 0,
            backorder_limit: 0,
            unsellable: 0,
            frozen: false,
            on_sale_from: None,
            on_sale_until: None,
            version,
        }
    }

    fn found(level: Level) -> Option<Option<Entry>> {
        Some(Some(Entry::Found { level, epoch: 1 }))
    }

    /// How many are wrong, where the database had one thing, the cache has another, and the
    /// database has a third by now.
    fn wrong(known: Option<Level>, stored: Option<Option<Entry>>, now: Option<Level>) -> usize {
        let sample = Sample { epoch: 1, levels: vec![(("a".into(), "m".into()), known)] };
        let mut verdict = sample.judge(vec![stored]);
        let newer = std::mem::take(&mut verdict.newer);
        verdict.settle(newer.iter().map(|level| (level, &now)));
        verdict.wrong.len()
    }

    #[test]
    fn older_other_and_invented_values_are_wrong() {
        let wrong_now = |known: Option<Level>, stored| wrong(known.clone(), stored, known);
        assert_eq!(wrong_now(Some(level("a", 7, 1)), found(level("a", 6, 1))), 1, "older");
        assert_eq!(wrong_now(Some(level("a", 7, 1)), found(level("a", 7, 2))), 1, "other values");
        assert_eq!(
            wrong_now(Some(level("a", 7, 1)), found(level("b", 8, 1))),
            1,
            "another level's"
        );
        assert_eq!(
            wrong_now(Some(level("a", 7, 1)), found(level("a", 8, 1))),
            1,
            "newer than the database"
        );
        assert_eq!(wrong_now(Some(level("a", 7, 1)), Some(None)), 1, "unreadable");
        assert_eq!(wrong_now(None, found(level("a", 1, 1))), 1, "invented");
        let absent =
            Entry::Absent { absent: true, sku: "a".into(), location: "m".into(), epoch: 1 };
        assert_eq!(wrong_now(Some(level("a", 7, 1)), Some(Some(absent.clone()))), 1, "denied");
        assert_eq!(wrong_now(None, Some(Some(absent))), 0);
        assert_eq!(wrong_now(Some(level("a", 7, 1)), found(level("a", 7, 1))), 0);
        assert_eq!(wrong_now(Some(level("a", 7, 1)), None), 0, "missing");
    }

    #[test]
    fn what_changed_during_the_check_is_compared_with_the_database_again() {
        let (known, stored) = (Some(level("a", 7, 1)), found(level("a", 8, 0)));
        assert_eq!(
            wrong(known.clone(), stored.clone(), Some(level("a", 8, 0))),
            0,
            "the same by now"
        );
        assert_eq!(wrong(known.clone(), stored.clone(), Some(level("a", 9, 5))), 0, "newer by now");
        assert_eq!(wrong(known.clone(), stored.clone(), Some(level("a", 8, 3))), 1, "other values");
        assert_eq!(wrong(known, stored, None), 1, "gone");
        assert_eq!(wrong(None, found(level("a", 1, 1)), Some(level("a", 1, 1))), 0, "it is new");
    }

    #[test]
    fn exactly_the_threshold_is_not_worse_than_it() {
        let verdict = |wrong: usize| Verdict {
            checked: 100,
            wrong: vec![Default::default(); wrong],
            ..Verdict::default()
        };
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
