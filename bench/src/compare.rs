//! The single call beside its peers, on one cluster, in turns, driven by pgbench.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, Database};

use crate::median::{median, sorted};
use crate::pgbench;

/// How long and how often.
#[derive(Args)]
pub struct Comparison {
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 10)]
    seconds: usize,
    /// Runs of each contestant; they take turns
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// A contestant: its name, its pgbench script, and how many reservations one transaction makes.
struct Contestant {
    name: &'static str,
    script: &'static str,
    each: f64,
    /// Most connections: batches that overlap wait for each other's levels.
    most: usize,
}

const CONTESTANTS: &[Contestant] = &[
    Contestant {
        name: "a: try_reserve_stock",
        script: include_str!("../sql/pg_stock.sql"),
        each: 1.0,
        most: usize::MAX,
    },
    Contestant {
        name: "b: hand-written function",
        script: include_str!("../sql/function.sql"),
        each: 1.0,
        most: usize::MAX,
    },
    Contestant {
        name: "c: application's transaction",
        script: include_str!("../sql/transaction.sql"),
        each: 1.0,
        most: usize::MAX,
    },
    Contestant {
        name: "d: reserve_many of 1,000, 4 connections",
        script: include_str!("../sql/batch.sql"),
        each: 1_000.0,
        most: 4,
    },
];

/// Measures the contestants in turns; prints medians, spreads and ratios.
pub fn run(comparison: &Comparison) -> ExitCode {
    let cluster = Cluster::start(&["shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=30min"]);
    let database = cluster.database();
    database.connect().batch_execute(include_str!("../sql/setup.sql")).expect("levels and peers");
    database.connect().batch_execute("VACUUM ANALYZE").expect("statistics");
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); CONTESTANTS.len()];
    for round in 1..=comparison.rounds {
        for (contestant, rates) in CONTESTANTS.iter().zip(&mut rates) {
            database.connect().batch_execute("CHECKPOINT").expect("a checkpoint");
            let rate = measure(database, contestant, comparison);
            println!("round {round}: {:40} {rate:10.0}/s", contestant.name);
            rates.push(rate);
        }
    }
    show(&rates);
    let breaches: usize =
        pg_stock_tests::invariants::check(&mut database.connect()).iter().map(|(_, count)| count).sum();
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reservations a second of one run.
fn measure(database: Database<'_>, contestant: &Contestant, comparison: &Comparison) -> f64 {
    let connections = comparison.connections.min(contestant.most);
    pgbench::rate(database, contestant.script, connections, comparison.seconds) * contestant.each
}

fn show(rates: &[Vec<f64>]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["contestant", "median/s", "lowest", "highest", "a over it"]);
    let first = median(&rates[0]);
    for (contestant, rates) in CONTESTANTS.iter().zip(rates) {
        let sorted = sorted(rates);
        table.add_row([
            contestant.name.to_owned(),
            format!("{:.0}", median(rates)),
            format!("{:.0}", sorted[0]),
            format!("{:.0}", sorted[sorted.len() - 1]),
            format!("{:.2}", first / median(rates)),
        ]);
    }
    println!("\n{table}");
}
