//! What each index costs that docs/operating.md offers for look-ups.

use std::process::ExitCode;

use clap::Args;
use pg_stock_tests::Cluster;

use crate::sides;
use crate::turns::Turns;

/// The indexes of docs/operating.md: a name, and how each is made.
const INDEXES: [(&str, &str); 3] = [
    ("by level", "CREATE INDEX ledger_by_level ON stock.ledger (sku, location, recorded_at)"),
    (
        "by buyer",
        "CREATE INDEX ledger_by_buyer ON stock.ledger (buyer, recorded_at) WHERE buyer IS NOT NULL",
    ),
    ("holds by buyer", "CREATE INDEX hold_by_buyer ON stock.hold (buyer) WHERE buyer IS NOT NULL"),
];

/// How often.
#[derive(Args)]
pub struct Indexes {
    #[command(flatten)]
    turns: Turns,
    /// Levels, where there are many
    #[arg(long, default_value_t = 10_000)]
    levels: i64,
}

/// Measures, and prints the tables.
pub fn run(asked: &Indexes) -> ExitCode {
    let settings = ["fsync=on", "shared_buffers=1GB", "max_wal_size=4GB"];
    for (name, index) in INDEXES {
        let cluster = Cluster::start(&settings);
        let (with, without) = (cluster.database(), cluster.database());
        [with, without].into_iter().for_each(|database| sides::prepare(database, asked.levels));
        with.connect().batch_execute(index).expect(index);
        println!("{name}: {index}");
        let kinds = sides::kinds(asked.levels).map(|kind| kind.for_buyers());
        sides::compare((with, without), &asked.turns, &kinds[..2], ["with", "without"]);
    }
    ExitCode::SUCCESS
}
