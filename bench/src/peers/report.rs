//! RESULTS.md.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use comfy_table::{Cell, Table, presets};

use super::contestant::Contestant;
use super::goals;
use super::score::{Score, Summary};
use super::work::Work;
use super::{history, open_loop};

/// Who stands in the README, selling one SKU.
const SHORT: [Contestant; 4] =
    [Contestant::PgStock, Contestant::Function, Contestant::Transaction, Contestant::RedisAlways];

/// The whole text.
pub fn write(
    score: &Score,
    machine: &[String],
    rounds: u32,
    seconds: u64,
    breaches: &[String],
) -> String {
    let mut text = String::from(
        "Written by `stock-bench peers`; [README.md](README.md) says who takes part. ",
    );
    let _ = writeln!(
        text,
        "Each number is the median of {rounds} rounds,\nwith the lowest and the highest of them \
         beside it (bars and bands in the plots). In each round the contestants take turns;\neach \
         run is one of {seconds} s after half a second of warming up, on a fresh copy of the same \
         database or on a fresh Redis.\n"
    );
    for line in machine {
        let _ = writeln!(text, "- {line}");
    }
    for work in Work::value_variants().iter().filter(|work| !score.connections(**work).is_empty()) {
        text.push_str(&section(score, *work));
    }
    text.push_str(&open_loop_section(score));
    text.push_str(&past_section(score));
    let _ = writeln!(text, "\n## Goals\n\n{}\n", goals_table(score));
    let _ = match breaches.len() {
        0 => writeln!(text, "After each run the invariants of pg_stock held."),
        count => writeln!(text, "**{count} invariants were broken**: {}", breaches.join("; ")),
    };
    text
}

/// Puts the text into its part of a file; what stands beside it, of other commands, stays.
///
/// # Errors
/// If the file cannot be read or written.
pub fn keep(file: &Path, text: &str) -> std::io::Result<()> {
    let [begin, end] = ["<!-- peers: begin -->\n", "<!-- peers: end -->\n"];
    let found = if file.exists() {
        std::fs::read_to_string(file)?
    } else {
        format!("# Results\n\n{begin}{end}")
    };
    let (before, rest) = found.split_once(begin).unwrap_or((&found, ""));
    let (_, after) = rest.split_once(end).unwrap_or(("", ""));
    std::fs::write(file, format!("{before}{begin}{text}{end}{after}"))
}

/// One kind of work: where its plot is, and its tables.
fn section(score: &Score, work: Work) -> String {
    let (name, contestants) = (work.name(), score.contestants(work));
    let mut text = format!("\n## {name}\n\n{}\n\n", work.meaning());
    if score.connections(work).len() > 1 {
        let _ = writeln!(text, "![{name}: throughput by connections](plots/{name}.svg)\n");
    }
    let rate =
        |connections, contestant| score.summary(work, connections, contestant, |run| run.rate);
    let rates = |contestants: &[Contestant]| {
        by_connections(score, work, "a second", contestants, |connections, contestant| {
            rate(connections, contestant).map(|rates| rates.show(0))
        })
    };
    let _ = writeln!(text, "{}\n", rates(&contestants));
    if work == Work::Hot {
        let short: Vec<_> =
            SHORT.into_iter().filter(|contestant| contestants.contains(contestant)).collect();
        let _ = writeln!(
            text,
            "In short:\n\n<!-- hot: begin -->\n{}\n<!-- hot: end -->\n",
            rates(&short)
        );
    }
    let base = if work == Work::Soldout { Contestant::Select } else { Contestant::Function };
    let ratios = by_connections(
        score,
        work,
        &format!("over {}", base.name()),
        &contestants,
        |connections, contestant| {
            Some(format!(
                "{:.2}",
                rate(connections, contestant)?.median / rate(connections, base)?.median
            ))
        },
    );
    let _ = writeln!(text, "{ratios}\n");
    let latencies = by_connections(
        score,
        work,
        "ms of a call: p50, p99",
        &contestants,
        |connections, contestant| {
            let p50 = score.summary(work, connections, contestant, |run| run.p50)?;
            let p99 = score.summary(work, connections, contestant, |run| run.p99)?;
            Some(format!("{:.2}, {:.2}", p50.median, p99.median))
        },
    );
    let _ = writeln!(text, "{latencies}");
    text
}

/// A row for each contestant, a column for each number of connections.
fn by_connections(
    score: &Score,
    work: Work,
    what: &str,
    contestants: &[Contestant],
    cell: impl Fn(usize, Contestant) -> Option<String>,
) -> Table {
    let connections = score.connections(work);
    let heads = connections.iter().map(|number| match number {
        1 => "1 connection".to_owned(),
        number => number.to_string(),
    });
    let mut table = table([what.to_owned()].into_iter().chain(heads));
    for contestant in contestants {
        let cells =
            connections.iter().map(|number| cell(*number, *contestant).unwrap_or("-".into()));
        table.add_row([contestant.name()].into_iter().chain(cells));
    }
    table
}

fn open_loop_section(score: &Score) -> String {
    let Some(open_loop) = &score.open_loop else { return String::new() };
    let mut table = table(["contestant", "answered", "p50 ms", "p99 ms", "p99.9 ms", "most ms"]);
    for (contestant, rounds) in &open_loop.tallies {
        let answered: u64 = rounds.iter().map(crate::tally::Tally::total).sum();
        let late = |quantile| {
            open_loop.latency_ms(*contestant, quantile).map_or("-".into(), |late| late.show(1))
        };
        table.add_row([
            contestant.name(),
            answered.to_string(),
            late(0.5),
            late(0.99),
            late(0.999),
            late(1.0),
        ]);
    }
    format!(
        "\n## open-loop\n\nOrders for one SKU arrive {:.0} times a second, half of the highest \
         rate of pg_stock on it, \
         on {} connections; latency\ncounts from the moment at which an order was to be sent.\n\n\
         ![open loop: latency](plots/open-loop.svg)\n\n{table}\n",
        open_loop.rate,
        open_loop::CONNECTIONS
    )
}

fn past_section(score: &Score) -> String {
    let mut text = String::new();
    if let Some((past, rates)) = &score.history {
        let mut table = table(["levels", "ledger rows at the start", "a second"]);
        let little = (super::arena::LEVELS, super::arena::LEVELS);
        let sizes = [little, (past.levels, past.ledger_rows)];
        for ((levels, rows), rates) in sizes.into_iter().zip([&rates.little, &rates.much]) {
            if let Some(rates) = Summary::of(rates) {
                table.add_row([levels.to_string(), rows.to_string(), rates.show(0)]);
            }
        }
        let _ = writeln!(
            text,
            "\n## history\n\n`pg_stock`, one unit of a random level, {} connections; a checkpoint \
             comes before each run, \
             so that with many levels nearly\nevery change logs a whole page.\n\n{table}",
            history::CONNECTIONS
        );
    }
    let snapshots: Vec<_> = score
        .old_snapshot
        .iter()
        .filter_map(|(sales, rates)| Some((sales, Summary::of(rates)?)))
        .collect();
    if let Some((_, start)) = snapshots.first() {
        let mut table = table(["sales before", "a second", "over the first"]);
        for (sales, rates) in &snapshots {
            table.add_row([
                sales.to_string(),
                rates.show(0),
                format!("{:.2}", rates.median / start.median),
            ]);
        }
        let _ = writeln!(
            text,
            "\n## old-snapshot\n\n`pg_stock` on one SKU, {} connections, while a snapshot that was \
             taken before the \
             first sale is held open.\n\n\
             ![old snapshot: rate by sales](plots/old-snapshot.svg)\n\n{table}",
            history::CONNECTIONS
        );
    }
    text
}

/// The goals, each with what was measured.
pub fn goals_table(score: &Score) -> Table {
    let mut table = table(["goal", "asked", "measured", "verdict"]);
    for goal in goals::goals(score) {
        let measured = goal.measured.map_or("-".into(), |measured| format!("{measured:.2}"));
        let verdict = goal.verdict().to_owned();
        table.add_row([goal.text, goal.asked, measured, verdict]);
    }
    table
}

fn table(header: impl IntoIterator<Item = impl Into<Cell>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.into_iter().map(Into::into).collect::<Vec<Cell>>());
    table
}
