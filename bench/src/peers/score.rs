//! What was measured: the runs of each contestant at each work and number of connections.

use std::collections::BTreeMap;

use super::arena::Run;
use super::contestant::Contestant;
use super::history;
use super::work::Work;
use crate::median::{median, sorted};
use crate::tally::Tally;

/// Everything that was measured.
#[derive(Default)]
pub struct Score {
    runs: BTreeMap<(Work, usize, Contestant), Vec<Run>>,
    /// The open loop, if it was measured.
    pub open_loop: Option<OpenLoop>,
    /// The past, if it was measured, with its description.
    pub history: Option<(history::Past, history::Rates)>,
    /// Sales before, and the rate then, beside an old snapshot.
    pub old_snapshot: Vec<(u64, f64)>,
}

/// What the open loop gave.
pub struct OpenLoop {
    /// Orders a second that arrived.
    pub rate: f64,
    /// Each contestant with what each round gave.
    pub tallies: Vec<(Contestant, Vec<Tally>)>,
}

/// What several rounds of the same gave.
pub struct Summary {
    /// The one in the middle.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Summary {
    /// Of some values; none of none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let sorted = sorted(values);
        Some(Summary { lowest: *sorted.first()?, highest: *sorted.last()?, median: median(values) })
    }
}

impl Score {
    /// Adds a run.
    pub fn add(&mut self, work: Work, connections: usize, contestant: Contestant, run: Run) {
        self.runs.entry((work, connections, contestant)).or_default().push(run);
    }

    /// Each contestant at this work with its connections and runs; by connections.
    pub fn of(&self, work: Work) -> impl Iterator<Item = (usize, Contestant, &[Run])> {
        let runs = self.runs.iter().filter(move |((of, ..), _)| *of == work);
        runs.map(|((_, connections, contestant), runs)| (*connections, *contestant, runs.as_slice()))
    }

    /// Whether it was measured with more than one number of connections.
    pub fn several_connections(&self, work: Work) -> bool {
        let mut connections = self.of(work).map(|(connections, ..)| connections);
        let first = connections.next();
        connections.any(|other| Some(other) != first)
    }

    /// Orders a second.
    pub fn rate(&self, work: Work, connections: usize, contestant: Contestant) -> Option<f64> {
        let runs = self.runs.get(&(work, connections, contestant))?;
        Some(median(&runs.iter().map(|run| run.rate).collect::<Vec<_>>()))
    }

    /// Orders a second at the number of connections that suits the contestant best.
    pub fn best(&self, work: Work, contestant: Contestant) -> Option<f64> {
        let connections = self.of(work).filter(|(_, of, _)| *of == contestant).map(|(connections, ..)| connections);
        connections.filter_map(|connections| self.rate(work, connections, contestant)).max_by(f64::total_cmp)
    }
}

impl OpenLoop {
    /// The median over the rounds of a quantile of the latency, in milliseconds.
    pub fn latency_ms(&self, contestant: Contestant, quantile: f64) -> Option<f64> {
        let (_, rounds) = self.tallies.iter().find(|(of, _)| *of == contestant)?;
        Some(median(&rounds.iter().map(|tally| tally.latency_ms(quantile)).collect::<Vec<_>>()))
    }
}
