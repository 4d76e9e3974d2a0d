//! What it costs to count calls: the same reserves with `pg_stock.track_calls` on and off, in two
//! databases of one server, in turns.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, Database};

use crate::median::{median, sorted};
use crate::pgbench;
use crate::turns::{Kind, Turns};

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
    [with, without].into_iter().for_each(|database| prepare(database, asked.levels));
    let off = format!("ALTER DATABASE {} SET pg_stock.track_calls = off", without.name());
    cluster.connect("postgres").batch_execute(&off).expect(&off);
    let one = format!("\\set n random(1, {})", asked.levels);
    let kinds = [
        Kind::of("many levels", &one, "'sku ' || :n", 0),
        Kind::of("one level", "", "'hot'", 0),
        Kind::of("one level, sold out", "", "'none'", 0),
    ];
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["connections", "a reserve", "counted", "not counted", "ratio"]);
    for connections in &asked.turns.connections {
        for kind in &kinds {
            let rate = |at| pgbench::rate(at, &kind.script, *connections, asked.turns.seconds);
            let turn = |round: usize| {
                // Who goes first changes.
                if round.is_multiple_of(2) {
                    (rate(with), rate(without))
                } else {
                    let without = rate(without);
                    (rate(with), without)
                }
            };
            let rates: Vec<(f64, f64)> = (0..asked.turns.rounds).map(turn).collect();
            table.add_row(row(*connections, kind.name, &rates));
        }
    }
    println!("Reserves of one unit; medians of {} runs\n{table}", asked.turns.rounds);
    ExitCode::SUCCESS
}

/// The medians of both, and of the ratios of neighbours.
fn row(connections: usize, name: &str, rates: &[(f64, f64)]) -> [String; 5] {
    let (with, without): (Vec<f64>, Vec<f64>) = rates.iter().copied().unzip();
    let ratios: Vec<f64> = rates.iter().map(|(with, without)| with / without).collect();
    let all = sorted(&ratios);
    [
        connections.to_string(),
        name.to_owned(),
        format!("{:.0}", median(&with)),
        format!("{:.0}", median(&without)),
        format!("{:.3} ({:.2}-{:.2})", median(&ratios), all[0], all[all.len() - 1]),
    ]
}

fn prepare(database: Database<'_>, levels: i64) {
    let sql = format!(
        "SELECT count(*) FROM generate_series(1, {levels}) n,
           stock.receive_stock('r ' || n, 'sku ' || n, 'm', 1000000000);
         SELECT stock.receive_stock('hot', 'hot', 'm', 1000000000);
         SELECT stock.set_stock('none', 'none', 'm', 0, NULL); VACUUM ANALYZE"
    );
    let mut client = database.connect();
    sql.split(';').for_each(|sql| client.batch_execute(sql).expect(sql));
}
