//! The goals, and whether they are met.

use super::contestant::Contestant::{
    self, Batch1000, Function, PgStock, PgStockRaise, RedisAlways, Select,
};
use super::score::{Score, Summary};
use super::work::Work::{self, Hot, Soldout, Spread};

/// A goal.
pub struct Goal {
    /// What is compared.
    pub text: String,
    /// What is asked.
    pub asked: String,
    /// What was measured; nothing if it was not.
    pub measured: Option<f64>,
    met: fn(f64, f64) -> bool,
    limit: f64,
}

impl Goal {
    /// In a word.
    pub fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(measured) if (self.met)(measured, self.limit) => "met",
            Some(_) => "**missed**",
        }
    }
}

/// All of them, beside what was measured.
pub fn goals(score: &Score) -> Vec<Goal> {
    let rate =
        |work: Work, connections, contestant: Contestant| score.rate(work, connections, contestant);
    let over = |of: Option<f64>, over: Option<f64>| Some(of? / over?);
    let middle = |rates: &[f64]| Summary::of(rates).map(|rates| rates.median);
    let snapshot = |sales| middle(&score.old_snapshot.iter().find(|(sold, _)| *sold == sales)?.1);
    let past = score.history.as_ref();
    let [little, much] = [past.map(|(_, rates)| &rates.little), past.map(|(_, rates)| &rates.much)]
        .map(|rates| rates.and_then(|rates| middle(rates)));
    let p99 = score
        .open_loop
        .as_ref()
        .and_then(|open_loop| Some(open_loop.latency_ms(PgStock, 0.99)?.median));
    let hot = |connections| rate(Hot, connections, PgStock);
    let at_32 = |work, of, base| over(rate(work, 32, of), rate(work, 32, base));
    vec![
        least("hot over spread, 32 connections", 0.8, over(hot(32), rate(Spread, 32, PgStock))),
        least(
            "hot over the function on one row, 32 connections",
            3.0,
            over(hot(32), rate(Hot, 32, Function)),
        ),
        least("hot over spread, 128 connections", 0.7, over(hot(128), rate(Spread, 128, PgStock))),
        least(
            "hot over the function on one row, 128 connections",
            4.0,
            over(hot(128), rate(Hot, 128, Function)),
        ),
        least(
            "batches of 1,000 on one SKU over Redis with each write flushed, each at its best \
             number of connections",
            2.0,
            over(score.best(Hot, Batch1000), score.best(Hot, RedisAlways)),
        ),
        least(
            "refusals over a plain SELECT of the level, 32 connections",
            0.7,
            at_32(Soldout, PgStock, Select),
        ),
        least("spread over the function, 32 connections", 1.0, at_32(Spread, PgStock, Function)),
        least(
            "spread, raising over returning, 32 connections",
            0.95,
            at_32(Spread, PgStockRaise, PgStock),
        ),
        least(
            "sold out, raising over returning, 32 connections",
            0.9,
            at_32(Soldout, PgStockRaise, PgStock),
        ),
        least("much past over little past", 0.8, over(much, little)),
        least(
            "100,000 sales beside an old snapshot over the start",
            0.5,
            over(snapshot(100_000), snapshot(0)),
        ),
        Goal {
            text: "p99 of the open loop at half the peak rate, 128 connections, in ms".into(),
            asked: "<= 50".into(),
            measured: p99,
            met: |measured, limit| measured <= limit,
            limit: 50.0,
        },
    ]
}

fn least(text: &str, limit: f64, measured: Option<f64>) -> Goal {
    let met = |measured, limit| measured >= limit;
    Goal { text: text.into(), asked: format!(">= {limit}"), measured, met, limit }
}
