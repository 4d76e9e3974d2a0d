//! Counts what was asked and answered, and how long it took.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use std::time::Duration;

/// Latencies are kept with three significant digits.
const DIGITS: u8 = 3;
/// Longer calls count as a minute.
const LONGEST_MICROS: u64 = 60_000_000;

/// What became of the calls of one kind.
pub struct Tally {
    outcomes: BTreeMap<String, u64>,
    latency: Histogram<u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("sound bounds");
        Tally { outcomes: BTreeMap::new(), latency }
    }

    /// Counts a call.
    pub fn count(&mut self, outcome: &str, took: Duration) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        self.latency.saturating_record(took.as_micros().try_into().unwrap_or(u64::MAX));
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Tally) {
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
        self.latency.add(&other.latency).expect("histograms of one kind");
    }

    /// How many calls there were.
    pub fn total(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Each outcome with its count.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.outcomes.iter().map(|(outcome, count)| (outcome.as_str(), *count))
    }

    /// A quantile of the latency, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}
