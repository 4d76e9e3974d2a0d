//! RESULTS.md.

use std::fmt::Write;

use clap::ValueEnum;
use comfy_table::{Table, presets};

use super::arena::Run;
use super::contestant::Contestant;
use super::goals;
use super::score::{Score, Summary};
use super::work::Work;
use super::{history, open_loop};

/// The whole text. `plots` are the file names of the plots.
pub fn write(score: &Score, machine: &[String], rounds: u32, seconds: u64, breaches: &[String]) -> String {
    let mut text =
        String::from("# Results\n\nWritten by `stock-bench peers`; [README.md](README.md) says who takes part. ");
    let _ = writeln!(
        text,
        "Medians of {rounds} round(s), in which the contestants take\nturns; each run is one of {seconds} s after half a second of \
         warming up, on a fresh copy of the same database or on a fresh Redis.\n"
    );
    for line in machine {
        let _ = writeln!(text, "- {line}");
    }
    for work in Work::value_variants().iter().filter(|work| score.of(**work).next().is_some()) {
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

/// One kind of work: a table, and where a plot is.
fn section(score: &Score, work: Work) -> String {
    let base = if work == Work::Soldout { Contestant::Select } else { Contestant::Function };
    let over = format!("over {}", base.name());
    let mut table = table(["connections", "contestant", "median/s", "lowest", "highest", &over, "p50 ms", "p99 ms"]);
    for (connections, contestant, runs) in score.of(work) {
        let (Some(rate), Some(p50), Some(p99)) =
            (of(runs, |run| run.rate), of(runs, |run| run.p50), of(runs, |run| run.p99))
        else {
            continue;
        };
        let ratio = score.rate(work, connections, base).map(|base| format!("{:.2}", rate.median / base));
        table.add_row([
            connections.to_string(),
            contestant.name(),
            format!("{:.0}", rate.median),
            format!("{:.0}", rate.lowest),
            format!("{:.0}", rate.highest),
            ratio.unwrap_or("-".into()),
            format!("{:.2}", p50.median),
            format!("{:.2}", p99.median),
        ]);
    }
    let name = work.name();
    let plot = if score.several_connections(work) {
        format!("![{name}: throughput by connections](plots/{name}.svg)\n\n")
    } else {
        String::new()
    };
    format!("\n## {name}\n\n{} Latency is that of a call.\n\n{plot}{table}\n", work.meaning())
}

fn of(runs: &[Run], what: fn(&Run) -> f64) -> Option<Summary> {
    Summary::of(&runs.iter().map(what).collect::<Vec<_>>())
}

fn open_loop_section(score: &Score) -> String {
    let Some(open_loop) = &score.open_loop else { return String::new() };
    let mut table = table(["contestant", "answered", "p50 ms", "p99 ms", "p99.9 ms", "most ms"]);
    for (contestant, rounds) in &open_loop.tallies {
        let answered: u64 = rounds.iter().map(crate::tally::Tally::total).sum();
        let late =
            |quantile| open_loop.latency_ms(*contestant, quantile).map_or("-".into(), |late| format!("{late:.1}"));
        table.add_row([contestant.name(), answered.to_string(), late(0.5), late(0.99), late(0.999), late(1.0)]);
    }
    format!(
        "\n## open-loop\n\nOrders for one SKU arrive {:.0} times a second, half of the highest rate of pg_stock on it, \
         on {} connections; latency\ncounts from the moment at which an order was to be sent.\n\n\
         ![open loop: latency](plots/open-loop.svg)\n\n{table}\n",
        open_loop.rate,
        open_loop::CONNECTIONS
    )
}

fn past_section(score: &Score) -> String {
    let mut text = String::new();
    if let Some((past, rates)) = &score.history {
        let mut table = table(["levels", "ledger rows at the start", "median/s", "lowest", "highest"]);
        let little = (super::arena::LEVELS, super::arena::LEVELS);
        let sizes = [little, (past.levels, past.ledger_rows)];
        for ((levels, rows), rates) in sizes.into_iter().zip([&rates.little, &rates.much]) {
            if let Some(Summary { median, lowest, highest }) = Summary::of(rates) {
                let rates = [median, lowest, highest].map(|rate| format!("{rate:.0}"));
                table.add_row([levels.to_string(), rows.to_string()].into_iter().chain(rates));
            }
        }
        let _ = writeln!(
            text,
            "\n## history\n\n`pg_stock`, one unit of a random level, {} connections; a checkpoint comes before each run, \
             so that with many levels nearly\nevery change logs a whole page.\n\n{table}",
            history::CONNECTIONS
        );
    }
    if let Some((_, start)) = score.old_snapshot.first() {
        let mut table = table(["sales before", "rate/s", "over the first"]);
        for (sales, rate) in &score.old_snapshot {
            table.add_row([sales.to_string(), format!("{rate:.0}"), format!("{:.2}", rate / start)]);
        }
        let _ = writeln!(
            text,
            "\n## old-snapshot\n\n`pg_stock` on one SKU, {} connections, while a snapshot that was taken before the \
             first sale is held open.\n\n![old snapshot: rate by sales](plots/old-snapshot.svg)\n\n{table}",
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

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}
