//! Reserves of several kinds in turns on one server, and their rates side by side.

use clap::Args;
use comfy_table::Table;
use pg_stock_tests::Database;

use crate::median::{median, sorted};
use crate::pgbench;

/// How many at once, and how often.
#[derive(Args)]
pub struct Turns {
    /// Connections
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    pub connections: Vec<usize>,
    /// Rounds of all kinds; they take turns
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 1)]
    pub seconds: usize,
}

/// A kind of reserve: what is shown of it, what pgbench runs, and the place of the kind that it is
/// compared with.
pub struct Kind {
    /// What is shown.
    pub name: &'static str,
    /// The script, whose keys are `'k' || :k`.
    pub script: String,
    /// The place of the other kind.
    pub beside: usize,
}

impl Kind {
    /// A reserve of one unit of a SKU, which is an expression of pgbench's.
    pub fn of(name: &'static str, set: &str, sku: &str, beside: usize) -> Self {
        let script = format!(
            "\\set k random(1, 9000000000000000000)\n{set}\nSELECT outcome FROM \
             stock.try_reserve_stock('k' || :k, {sku}, 'm', 1, '10 days');"
        );
        Kind { name, script, beside }
    }

    /// The same for one of many buyers.
    pub fn for_buyers(self) -> Self {
        let buyer = "'10 days', 'buyer ' || (:k::bigint % 100000))";
        let script = self.script.replace("'10 days')", buyer);
        Kind { script, ..self }
    }
}

/// The rates of each kind, in rounds, for each number of connections.
pub fn measure(database: Database<'_>, turns: &Turns, kinds: &[Kind], table: &mut Table) {
    for connections in &turns.connections {
        let mut rates: Vec<Vec<f64>> = kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..turns.rounds {
            for (kind, rates) in kinds.iter().zip(&mut rates) {
                rates.push(pgbench::rate(database, &kind.script, *connections, turns.seconds));
            }
        }
        for (kind, own) in kinds.iter().zip(&rates) {
            let (rate, sorted) = (median(own), sorted(own));
            table.add_row([
                connections.to_string(),
                kind.name.to_owned(),
                format!("{rate:.0} ({:.0}-{:.0})", sorted[0], sorted[sorted.len() - 1]),
                format!("{:.2}", rate / median(&rates[kind.beside])),
            ]);
        }
    }
}
