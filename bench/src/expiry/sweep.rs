//! How fast a sweep is, and what it costs the buyers beside it.

use std::time::Duration;

use pg_stock_tests::Cluster;
use postgres::Client;

use super::buyers::{Bought, buy_during};
use super::{
    Expiry, LEVELS, expire_all, finish, load_overdue, quiet_cluster, receive, settle, table,
};
use crate::median::{median, sorted};

/// What one round gave.
struct Round {
    /// Buyers without a sweep.
    without: Bought,
    /// Holds a second of a sweep alone.
    alone: f64,
    /// Buyers beside a sweep.
    with: Bought,
    /// Holds a second of the sweep beside them.
    beside: f64,
}

/// Measures the rounds and prints the tables; counts the breaches of the invariants.
pub fn run(expiry: &Expiry) -> usize {
    let Expiry { holds, connections, batch, .. } = expiry;
    println!(
        "Sweep: {holds} overdue holds on {LEVELS} levels, {batch} in each transaction, beside \
         {connections} connections"
    );
    let cluster = quiet_cluster();
    let (mut rounds, mut breaches) = (Vec::new(), 0);
    for number in 1..=expiry.rounds {
        let (round, broken) = round(&cluster, expiry);
        println!(
            "round {number}: p99 {:.2} ms without, {:.2} ms beside a sweep; {:.0} holds/s alone, \
             {:.0} beside buyers",
            round.without.p99, round.with.p99, round.alone, round.beside
        );
        rounds.push(round);
        breaches += broken;
    }
    show_buyers(&rounds);
    show_sweeps(&rounds);
    breaches
}

/// One round on a database of its own; also counts the breaches of the invariants.
fn round(cluster: &Cluster, expiry: &Expiry) -> (Round, usize) {
    let database = cluster.database();
    let mut client = database.connect();
    receive(&mut client, LEVELS);
    settle(&mut client);
    let rest = || std::thread::sleep(Duration::from_secs(expiry.seconds));
    let (without, ()) = buy_during(database, "without", expiry.connections, rest);
    let mut overdue = |prefix| {
        load_overdue(&mut client, prefix, 1, LEVELS, expiry.holds);
        settle(&mut client);
        database.connect()
    };
    let alone = sweep(&mut overdue("alone "), expiry);
    let mut sweeper = overdue("beside ");
    let (with, beside) =
        buy_during(database, "with", expiry.connections, || sweep(&mut sweeper, expiry));
    (Round { without, alone, with, beside }, finish(database))
}

/// Sweeps all that is overdue; gives holds a second.
fn sweep(client: &mut Client, expiry: &Expiry) -> f64 {
    let (holds, took) = expire_all(client, expiry.batch);
    if holds != expiry.holds {
        println!("The sweep closed {holds} of {} holds: the others were in use.", expiry.holds);
    }
    holds as f64 / took.as_secs_f64()
}

/// Prints what the buyers met with.
fn show_buyers(rounds: &[Round]) {
    let middle = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let without = [
        middle(|round| round.without.rate),
        middle(|round| round.without.p50),
        middle(|r| r.without.p99),
    ];
    let with = [
        middle(|round| round.with.rate),
        middle(|round| round.with.p50),
        middle(|round| round.with.p99),
    ];
    let mut table = table(["buyers", "reservations/s", "p50 ms", "p99 ms"]);
    for (name, [rate, p50, p99]) in [("without a sweep", without), ("beside a sweep", with)] {
        table.add_row([
            name.to_owned(),
            format!("{rate:.0}"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
        ]);
    }
    let ratios = (0..3).map(|column| format!("{:.2}", with[column] / without[column]));
    table.add_row(std::iter::once("beside over without".to_owned()).chain(ratios));
    println!("\n{table}");
}

/// Prints how fast the sweeps were.
fn show_sweeps(rounds: &[Round]) {
    let mut table = table(["sweep", "median holds/s", "lowest", "highest"]);
    let alone: Vec<f64> = rounds.iter().map(|round| round.alone).collect();
    let beside: Vec<f64> = rounds.iter().map(|round| round.beside).collect();
    for (name, rates) in [("alone", alone), ("beside buyers", beside)] {
        let sorted = sorted(&rates);
        let rates =
            [median(&rates), sorted[0], sorted[sorted.len() - 1]].map(|rate| format!("{rate:.0}"));
        table.add_row(std::iter::once(name.to_owned()).chain(rates));
    }
    println!("\n{table}\n");
}
