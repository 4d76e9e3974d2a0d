//! What expiry costs, in three parts, each on a private throwaway cluster: how late holds expire in
//! the background, what a sweep costs the buyers beside it, and what dead holds that an old
//! snapshot keeps alive cost both.

mod buyers;
mod lateness;
mod old_snapshot;
mod sweep;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, Database, invariants};
use postgres::{Client, SimpleQueryMessage};

/// How large the parts are.
#[derive(Args)]
pub struct Expiry {
    /// Overdue holds to sweep, in each round twice: alone, and beside buyers
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=100_000_000))]
    holds: i64,
    /// Numbers of dead holds that an old snapshot keeps alive; growth is told against the first
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100_000, 1_000_000],
          value_parser = clap::value_parser!(i64).range(0..=100_000_000))]
    dead: Vec<i64>,
    /// Rounds of the sweep
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that buyers buy without a sweep
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections of the buyers
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Holds in each transaction of the sweep
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    batch: i32,
    /// Only this part
    #[arg(long)]
    only: Option<Part>,
}

/// A part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// How late holds expire in the background
    Lateness,
    /// What a sweep costs the buyers beside it
    Sweep,
    /// What an old snapshot costs refusals and sweeps
    OldSnapshot,
}

/// Settings of the clusters, as for the comparison of the single call.
const SETTINGS: [&str; 3] = ["shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=30min"];
/// Where the goods lie.
const MAIN: &str = "main";
/// Levels of a database.
const LEVELS: i64 = 10_000;
/// Units on each of them.
const ON_HAND: i64 = 100_000_000;

/// Measures each part and prints its table; fails if an invariant is broken.
pub fn run(expiry: &Expiry) -> ExitCode {
    let breaches: usize = Part::value_variants()
        .iter()
        .filter(|part| expiry.only.is_none_or(|only| only == **part))
        .map(|part| match part {
            Part::Lateness => lateness::run(),
            Part::Sweep => sweep::run(expiry),
            Part::OldSnapshot => old_snapshot::run(expiry),
        })
        .sum();
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes levels, from number 1 on.
fn receive(client: &mut Client, levels: i64) {
    let sql = "SELECT count(*) FROM generate_series(1, $1::bigint) i,
               LATERAL stock.receive_stock('delivery ' || i, 'sku-' || i, $2, $3)";
    client.execute(sql, &[&levels, &MAIN, &ON_HAND]).expect("the goods are received");
}

/// Writes overdue holds in bulk, in turn on some levels from number `first` on.
fn load_overdue(client: &mut Client, prefix: &str, first: i64, levels: i64, count: i64) {
    let sql = include_str!("../../sql/overdue.sql");
    client.execute(sql, &[&prefix, &first, &levels, &count]).expect("overdue holds");
}

/// Leaves nothing to be done later that could disturb what is measured next.
fn settle(client: &mut Client) {
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        client.batch_execute(statement).expect(statement);
    }
}

/// Closes all overdue holds; how many, and how long it took.
fn expire_all(client: &mut Client, batch: i32) -> (i64, Duration) {
    let begin = Instant::now();
    let answer = client.simple_query(&format!("CALL stock.expire_all({batch})")).expect("a sweep");
    let took = begin.elapsed();
    let holds = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("holds_expired")?.parse().ok(),
        _ => None,
    });
    (holds.expect("the sweep says how many"), took)
}

/// Counts the breaches of the invariants, and names what is broken.
fn breaches(client: &mut Client) -> usize {
    client.batch_execute("SET work_mem = '256MB'").expect("room for large sums");
    let broken = invariants::check(client);
    for (promise, count) in broken.iter().filter(|(_, count)| *count > 0) {
        println!("BROKEN: {promise}: {count} breaches");
    }
    broken.iter().map(|(_, count)| count).sum()
}

/// Checks the invariants of a database, and throws it away: room for the next one.
fn finish(database: Database<'_>) -> usize {
    let breaches = breaches(&mut database.connect());
    let drop = format!("DROP DATABASE {} WITH (FORCE)", database.name());
    database.cluster.connect("postgres").batch_execute(&drop).expect("the database is dropped");
    breaches
}

/// A server on which nothing happens in the background.
fn quiet_cluster() -> Cluster {
    Cluster::start(&SETTINGS)
}

/// A table in Markdown.
fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

/// Milliseconds.
fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}
