//! The same reserves in two databases of one server, in turns: one is as it is, the other lacks
//! something, and their rates stand side by side.

use comfy_table::{Table, presets};
use pg_stock_tests::Database;

use crate::median::{median, sorted};
use crate::pgbench;
use crate::turns::{Kind, Turns};

/// Fills a database with levels, one of which many want, and one of which nothing is left.
pub fn prepare(database: Database<'_>, levels: i64) {
    let sql = format!(
        "SELECT count(*) FROM generate_series(1, {levels}) n,
           stock.receive_stock('r ' || n, 'sku ' || n, 'm', 1000000000);
         SELECT stock.receive_stock('hot', 'hot', 'm', 1000000000);
         SELECT stock.set_stock('none', 'none', 'm', 0, NULL); VACUUM ANALYZE"
    );
    let mut client = database.connect();
    sql.split(';').for_each(|sql| client.batch_execute(sql).expect(sql));
}

/// Reserves of one unit, on many levels, on one, and where all is sold out.
pub fn kinds(levels: i64) -> [Kind; 3] {
    let one = format!("\\set n random(1, {levels})");
    [
        Kind::of("many levels", &one, "'sku ' || :n", 0),
        Kind::of("one level", "", "'hot'", 0),
        Kind::of("one level, sold out", "", "'none'", 0),
    ]
}

/// Measures both, and prints the table; `head` names the two.
pub fn compare(
    sides: (Database<'_>, Database<'_>),
    turns: &Turns,
    kinds: &[Kind],
    head: [&str; 2],
) {
    compare_each(sides, turns, [kinds, kinds], head);
}

/// The same, of kinds that are run in other words in each.
pub fn compare_each(
    (with, without): (Database<'_>, Database<'_>),
    turns: &Turns,
    [kinds, others]: [&[Kind]; 2],
    head: [&str; 2],
) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["connections", "a reserve", head[0], head[1], "ratio"]);
    for connections in &turns.connections {
        for (kind, other) in kinds.iter().zip(others) {
            let rate =
                |at, kind: &Kind| pgbench::rate(at, &kind.script, *connections, turns.seconds);
            let turn = |round: usize| {
                // Who goes first changes.
                if round.is_multiple_of(2) {
                    (rate(with, kind), rate(without, other))
                } else {
                    let without = rate(without, other);
                    (rate(with, kind), without)
                }
            };
            let rates: Vec<(f64, f64)> = (0..turns.rounds).map(turn).collect();
            table.add_row(row(*connections, kind.name, &rates));
        }
    }
    println!("Reserves of one unit; medians of {} runs\n{table}", turns.rounds);
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
