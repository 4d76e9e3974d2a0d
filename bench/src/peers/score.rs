//! What was measured: the runs of each contestant at each work and number of connections.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Sales before, and the rates then, of each round, beside an old snapshot.
    pub old_snapshot: Vec<(u64, Vec<f64>)>,
}

/// What the open loop gave.
pub struct OpenLoop {
    /// Orders a second that arrived.
    pub rate: f64,
    /// Each contestant with what each round gave.
    pub tallies: Vec<(Contestant, Vec<Tally>)>,
}

/// What several rounds of the same gave: everything that is shown is summed up so.
#[derive(Clone, Copy)]
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

    /// The median, and in brackets the lowest and the highest, with so many decimals.
    pub fn show(self, decimals: usize) -> String {
        let Summary { median, lowest, highest } = self;
        format!("{median:.decimals$} ({lowest:.decimals$}-{highest:.decimals$})")
    }
}

impl Score {
    /// Adds a run.
    pub fn add(&mut self, work: Work, connections: usize, contestant: Contestant, run: Run) {
        self.runs.entry((work, connections, contestant)).or_default().push(run);
    }

    /// One value of each run, summed up.
    pub fn summary(
        &self,
        work: Work,
        connections: usize,
        contestant: Contestant,
        value: fn(&Run) -> f64,
    ) -> Option<Summary> {
        let runs = self.runs.get(&(work, connections, contestant))?;
        Summary::of(&runs.iter().map(value).collect::<Vec<_>>())
    }

    /// Orders a second, the median.
    pub fn rate(&self, work: Work, connections: usize, contestant: Contestant) -> Option<f64> {
        Some(self.summary(work, connections, contestant, |run| run.rate)?.median)
    }

    /// The numbers of connections that this work was measured with, in order.
    pub fn connections(&self, work: Work) -> Vec<usize> {
        let mut all: Vec<_> = self.points(work).map(|(connections, _)| connections).collect();
        all.dedup();
        all
    }

    /// Who did this work, in order.
    pub fn contestants(&self, work: Work) -> Vec<Contestant> {
        self.points(work)
            .map(|(_, contestant)| contestant)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Orders a second at the number of connections that suits the contestant best.
    pub fn best(&self, work: Work, contestant: Contestant) -> Option<f64> {
        let rates = self
            .connections(work)
            .into_iter()
            .filter_map(|number| self.rate(work, number, contestant));
        rates.max_by(f64::total_cmp)
    }

    /// What was measured of this work, by connections.
    fn points(&self, work: Work) -> impl Iterator<Item = (usize, Contestant)> {
        let points = self.runs.keys().filter(move |(of, ..)| *of == work);
        points.map(|(_, connections, contestant)| (*connections, *contestant))
    }
}

impl OpenLoop {
    /// A quantile of the latency in each round, summed up, in milliseconds.
    pub fn latency_ms(&self, contestant: Contestant, quantile: f64) -> Option<Summary> {
        let (_, rounds) = self.tallies.iter().find(|(of, _)| *of == contestant)?;
        Summary::of(&rounds.iter().map(|tally| tally.latency_ms(quantile)).collect::<Vec<_>>())
    }
}
