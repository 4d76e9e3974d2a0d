//! pg_stock beside its peers: everybody does the same work on one machine, in turns, driven by the
//! same driver.

mod arena;
mod axis;
mod block;
mod contestant;
mod driver;
mod goals;
mod history;
mod machine;
mod open_loop;
mod plot;
mod report;
mod score;
mod session;
mod transaction;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use arena::Arena;
use contestant::Contestant;
use history::Past;
use score::{OpenLoop, Score};
use work::Work;

/// Why a run ended early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, how long and how often.
#[derive(Args)]
pub struct Peers {
    /// Everything, not the short form
    #[arg(long)]
    full: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these contestants
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<Contestant>,
    /// Numbers of connections [default: 1,8,32,128]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=150))]
    connections: Vec<u16>,
    /// Seconds of each run [default: 2; with --full 4]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Runs of each contestant; they take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Orders a second of the open loop [default: half of the peak of pg_stock at the same work]
    #[arg(long)]
    rate: Option<f64>,
    /// Levels of the long past
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    levels: u64,
    /// Ledger rows of the long past
    #[arg(long, default_value_t = 5_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    ledger_rows: u64,
    /// Numbers of sales beside an old snapshot
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20_000, 50_000, 100_000])]
    sales: Vec<u64>,
    /// Folder of RESULTS.md and plots/
    #[arg(long, default_value = "bench")]
    output: PathBuf,
}

/// A part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One unit of a random SKU
    Spread,
    /// One unit of the same SKU
    Hot,
    /// Refusals
    Soldout,
    /// Orders of five lines
    Lines5,
    /// Repeated orders
    Duplicates,
    /// A fixed rate of arrival
    OpenLoop,
    /// Many levels and a long ledger
    History,
    /// One SKU beside an old snapshot
    OldSnapshot,
}

/// A point to be measured once in each round.
type Point = (Work, usize, Contestant);

/// Measures; writes the results; fails if an answer was wrong or an invariant is broken.
pub fn run(peers: &Peers) -> ExitCode {
    let mut arena = Arena::open();
    let (score, failure) = peers.measure(&mut arena);
    let written = peers.write(&arena, &score);
    for failure in failure.iter().chain(written.as_ref().err()) {
        eprintln!("FAILED: {failure}");
    }
    arena.breaches().iter().for_each(|breach| println!("BROKEN: {breach}"));
    println!("Breaches of the invariants: {}", arena.breaches().len());
    let sound = failure.is_none() && written.is_ok() && arena.breaches().is_empty();
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Peers {
    /// Measures all parts; also gives the error that ended it, if one did.
    fn measure(&self, arena: &mut Arena) -> (Score, Option<Failure>) {
        let mut score = Score::default();
        let parts = [Peers::closed_loops, Peers::open_loop, Peers::history, Peers::old_snapshot];
        let failure = parts.iter().find_map(|part| part(self, arena, &mut score).err());
        (score, failure)
    }

    /// Writes RESULTS.md and the plots.
    fn write(&self, arena: &Arena, score: &Score) -> Result<(), Failure> {
        let machine = machine::describe(&arena.cluster);
        let text = report::write(score, &machine, self.rounds, self.seconds(), arena.breaches());
        plot::write(score, &self.output.join("plots"))?;
        report::keep(&self.output.join("RESULTS.md"), &text)?;
        println!(
            "\n{}\n\nWritten: {}",
            report::goals_table(score),
            self.output.join("RESULTS.md").display()
        );
        Ok(())
    }

    /// All work in a closed loop.
    fn closed_loops(&self, arena: &mut Arena, score: &mut Score) -> Result<(), Failure> {
        let points = self.points();
        let bar = progress(points.len() as u64 * u64::from(self.rounds));
        for round in 1..=self.rounds {
            for (work, connections, contestant) in &points {
                let name = format!("{} {connections} {}", work.name(), contestant.name());
                bar.set_message(name.clone());
                let run = arena
                    .measure(*contestant, *work, *connections, self.seconds())
                    .map_err(|failure| format!("{name}: {failure}"))?;
                bar.suspend(|| println!("round {round}: {name:34} {:10.0}/s", run.rate));
                score.add(*work, *connections, *contestant, run);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Each contestant at each work, neighbours in time who are compared.
    fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for work in Work::value_variants().iter().filter(|work| self.wants(part(**work))) {
            for connections in self.connections() {
                let contestants = Contestant::of(*work, self.full || !self.contestants.is_empty());
                let wanted = contestants
                    .iter()
                    .filter(|one| self.contestants.is_empty() || self.contestants.contains(one));
                points.extend(wanted.map(|contestant| (*work, connections, *contestant)));
            }
        }
        points
    }

    /// The open loop, at half the peak rate.
    fn open_loop(&self, arena: &mut Arena, score: &mut Score) -> Result<(), Failure> {
        if !self.wants(Part::OpenLoop) {
            return Ok(());
        }
        let rate =
            match (self.rate, score.rate(Work::Hot, open_loop::CONNECTIONS, Contestant::PgStock)) {
                (Some(rate), _) => rate,
                (None, Some(peak)) => peak / 2.0,
                (None, None) => {
                    arena
                        .measure(
                            Contestant::PgStock,
                            Work::Hot,
                            open_loop::CONNECTIONS,
                            self.seconds(),
                        )?
                        .rate
                        / 2.0
                }
            };
        let mut tallies = open_loop::CONTESTANTS.map(|contestant| (contestant, Vec::new()));
        for round in 1..=self.rounds {
            for (contestant, tallies) in &mut tallies {
                let tally = open_loop::measure(arena, *contestant, rate, self.seconds())?;
                let late = tally.latency_ms(0.99);
                println!(
                    "round {round}: open loop {rate:.0}/s {}: p99 {late:.1} ms",
                    contestant.name()
                );
                tallies.push(tally);
            }
        }
        score.open_loop = Some(OpenLoop { rate, tallies: tallies.into() });
        Ok(())
    }

    fn history(&self, arena: &mut Arena, score: &mut Score) -> Result<(), Failure> {
        if self.wants(Part::History) {
            let past = Past { levels: self.levels, ledger_rows: self.ledger_rows };
            println!(
                "history: {} levels and {} ledger rows are made",
                past.levels, past.ledger_rows
            );
            let rates = history::measure(arena, past, self.rounds, self.seconds())?;
            println!("history: little past {:.0?}/s, much past {:.0?}/s", rates.little, rates.much);
            score.history = Some((past, rates));
        }
        Ok(())
    }

    fn old_snapshot(&self, arena: &mut Arena, score: &mut Score) -> Result<(), Failure> {
        if self.wants(Part::OldSnapshot) {
            score.old_snapshot = self.sales.iter().map(|sales| (*sales, Vec::new())).collect();
            for round in 1..=self.rounds {
                let rates = history::old_snapshot(arena, &self.sales, self.seconds())?;
                println!(
                    "round {round}: old snapshot, after {:?} sales: {rates:.0?}/s",
                    self.sales
                );
                score
                    .old_snapshot
                    .iter_mut()
                    .zip(rates)
                    .for_each(|((_, all), rate)| all.push(rate));
            }
        }
        Ok(())
    }

    /// The short form has only what a sale is made of.
    fn wants(&self, part: Part) -> bool {
        match self.only.is_empty() {
            true => self.full || matches!(part, Part::Spread | Part::Hot | Part::Soldout),
            false => self.only.contains(&part),
        }
    }

    fn connections(&self) -> Vec<usize> {
        match self.connections.as_slice() {
            [] => vec![1, 8, 32, 128],
            connections => connections.iter().map(|number| usize::from(*number)).collect(),
        }
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.full { 4 } else { 2 })
    }
}

/// The part that a kind of work is.
fn part(work: Work) -> Part {
    match work {
        Work::Spread => Part::Spread,
        Work::Hot => Part::Hot,
        Work::Soldout => Part::Soldout,
        Work::Lines5 => Part::Lines5,
        Work::Duplicates => Part::Duplicates,
    }
}

fn progress(runs: u64) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} runs, {eta} left  {msg}";
    ProgressBar::new(runs)
        .with_style(ProgressStyle::with_template(template).expect("a sound template"))
}
