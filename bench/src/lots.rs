//! What lots cost: a reserve on a level without, beside one with one lot, with five, and with five
//! beside two thousand of which nothing is left. On one level that all want, and on many. In turns,
//! on one server.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, invariants};
use postgres::Client;

use crate::turns::{Kind, Turns, measure};

/// How often.
#[derive(Args)]
pub struct Lots {
    #[command(flatten)]
    turns: Turns,
    /// Levels of each kind, where there are many
    #[arg(long, default_value_t = 1_000)]
    levels: i64,
}

/// Measures, and prints the table.
pub fn run(asked: &Lots) -> ExitCode {
    let cluster = Cluster::start(&["shared_buffers=1GB", "max_wal_size=4GB"]);
    let database = cluster.database();
    let mut client = database.connect();
    prepare(&mut client, asked.levels);
    let one = format!("\\set n random(1, {})", asked.levels);
    let kinds = [
        Kind::of("one level, no lots", "", "'hot none'", 0),
        Kind::of("one level, one lot", "", "'hot one'", 0),
        Kind::of("one level, five lots", "", "'hot five'", 0),
        Kind::of("one level, five lots and 2,000 spent", "", "'hot old'", 0),
        Kind::of("many levels, no lots", &one, "'none ' || :n", 4),
        Kind::of("many levels, one lot", &one, "'one ' || :n", 4),
        Kind::of("many levels, five lots", &one, "'five ' || :n", 4),
    ];
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["connections", "a reserve", "a second", "of one without lots"]);
    measure(database, &asked.turns, &kinds, &mut table);
    println!("Reserves of one unit; medians of {} runs\n{table}", asked.turns.rounds);
    let breaches: usize = invariants::check(&mut client).iter().map(|(_, count)| count).sum();
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Fills the levels; the lots have dates far ahead.
fn prepare(client: &mut Client, levels: i64) {
    let receive = |skus: &str, lots: i64| {
        format!(
            "SELECT count(*) FROM {skus}, generate_series(1, {lots}) lot,
               stock.receive_stock('r ' || sku || lot, sku, 'm', 1000000000, NULL, 'lot ' || lot,
                                   timestamptz '2060-01-01' + lot * interval '1 day');"
        )
    };
    let many = |name: &str| {
        format!("(SELECT '{name} ' || n AS sku FROM generate_series(1, {levels}) n) s")
    };
    let few = |name: &str| format!("(SELECT '{name}' AS sku) s");
    let without = |skus: &str| {
        format!(
            "SELECT count(*) FROM {skus},
               stock.receive_stock('r ' || sku, sku, 'm', 1000000000);"
        )
    };
    let spent = "SELECT count(*) FROM generate_series(1, 2000) n,
                   stock.receive_stock('o' || n, 'hot old', 'm', 1, NULL, 'old ' || n,
                                       timestamptz '2050-01-01' + n * interval '1 hour');
                 SELECT stock.sell_stock('old', 'hot old', 'm', 2000);";
    let all = [
        without(&few("hot none")),
        receive(&few("hot one"), 1),
        receive(&few("hot five"), 5),
        spent.to_owned(),
        receive(&few("hot old"), 5),
        without(&many("none")),
        receive(&many("one"), 1),
        receive(&many("five"), 5),
    ];
    client.batch_execute(&all.concat()).expect("the levels");
    for settle in ["VACUUM ANALYZE", "CHECKPOINT"] {
        client.batch_execute(settle).expect("it is settled");
    }
}
