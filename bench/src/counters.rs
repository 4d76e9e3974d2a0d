//! What it costs to count calls: the same reserves with `pg_stock.track_calls` on and off.

use std::process::ExitCode;

use clap::Args;
use pg_stock_tests::Cluster;

use crate::sides;
use crate::turns::Turns;

/// How often.
#[derive(Args)]
pub struct Counters {
    #[command(flatten)]
    turns: Turns,
    /// Levels, where there are many
    #[arg(long, default_value_t = 10_000)]
    levels: i64,
}

/// Measures, and prints the table.
pub fn run(asked: &Counters) -> ExitCode {
    let cluster = Cluster::start(&[
        "shared_preload_libraries=pg_stock",
        "pg_stock.databases=''",
        "shared_buffers=1GB",
        "max_wal_size=4GB",
    ]);
    let (with, without) = (cluster.database(), cluster.database());
    [with, without].into_iter().for_each(|database| sides::prepare(database, asked.levels));
    let off = format!("ALTER DATABASE {} SET pg_stock.track_calls = off", without.name());
    cluster.connect("postgres").batch_execute(&off).expect(&off);
    let kinds = sides::kinds(asked.levels);
    sides::compare((with, without), &asked.turns, &kinds, ["counted", "not counted"]);
    ExitCode::SUCCESS
}
