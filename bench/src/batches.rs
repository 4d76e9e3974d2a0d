//! What batches cost where PostgreSQL knows nothing of the tables: on a database that was never
//! analysed, and on one that was restored; beside one that was analysed, and beside single calls.
//! In turns, on one server.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, Database, invariants};
use postgres::Client;

use crate::median::{median, sorted};

/// How large and how often.
#[derive(Args)]
pub struct Batches {
    /// Orders in a batch
    #[arg(long, default_value_t = 1_000)]
    orders: usize,
    /// Batches in a row, by one session
    #[arg(long, default_value_t = 50)]
    batches: usize,
    /// Rounds of all ways; they take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What PostgreSQL knows of the tables.
const WAYS: [&str; 3] = ["never analysed", "restored from a dump", "analysed"];
const LEVELS: usize = 10_000;
/// Batches at the start, the first left out, and at the end, whose medians are compared.
const FEW: usize = 4;

/// What one round of one way gave, in milliseconds.
struct Measured {
    early: f64,
    late: f64,
    /// For one order, in a batch and by a call of its own.
    in_batch: f64,
    alone: f64,
}

/// Measures, and prints the table.
pub fn run(asked: &Batches) -> ExitCode {
    let cluster = Cluster::start(&[
        "shared_buffers=1GB",
        "max_wal_size=4GB",
        "checkpoint_timeout=30min",
        "autovacuum=off",
    ]);
    let mut measured: [Vec<Measured>; WAYS.len()] = Default::default();
    let mut breaches = 0;
    for round in 0..asked.rounds {
        for (way, all) in measured.iter_mut().enumerate() {
            let database = prepare(&cluster, way);
            all.push(measure(&mut database.connect(), asked));
            println!(
                "round {}, {}: {:.1} ms -> {:.1} ms",
                round + 1,
                WAYS[way],
                all[round].early,
                all[round].late
            );
            breaches += invariants::check(&mut database.connect())
                .iter()
                .map(|(_, count)| count)
                .sum::<usize>();
        }
    }
    show(&measured, asked);
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A database with levels, of which PostgreSQL knows as much as the way says.
fn prepare(cluster: &Cluster, way: usize) -> Database<'_> {
    let database = cluster.database();
    let mut client = database.connect();
    let receive = format!(
        "SELECT count(*) FROM generate_series(1, {LEVELS}) n, LATERAL stock.receive_stock('r' || \
         n, 'sku-' || n, 'm', 1000000)"
    );
    client.batch_execute(&receive).expect("levels");
    match way {
        0 => database,
        1 => restored(cluster, database),
        _ => {
            client.batch_execute("VACUUM ANALYZE").expect("statistics");
            database
        }
    }
}

/// Another database, filled from a dump of this one.
fn restored<'a>(cluster: &'a Cluster, from: Database<'_>) -> Database<'a> {
    let name: &'static str = format!("{}_restored", from.name()).leak();
    let file = format!("{}/dump", cluster.socket());
    cluster.run("pg_dump", &["-F", "custom", "-f", &file, "-d", from.name()]);
    cluster
        .connect("postgres")
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .expect("a database");
    cluster.run("pg_restore", &["-d", name, &file]);
    cluster.existing(name)
}

fn measure(client: &mut Client, asked: &Batches) -> Measured {
    let orders = i64::try_from(asked.orders).expect("a number of orders");
    let batch = client
        .prepare(
            "SELECT count(*) FROM stock.reserve_many((SELECT jsonb_agg(jsonb_build_object('key',
             $1 || ' ' || n, 'lines',
                jsonb_build_array(jsonb_build_object('sku', 'sku-' || 1 + (n * 7919 + $2) % 10000,
                'location', 'm', 'quantity', 1))))
               FROM generate_series(1, $3::bigint) n))",
        )
        .expect("a batch");
    let times: Vec<f64> = (0..asked.batches)
        .map(|number| {
            let (key, shift) = (format!("b{number}"), number as i64);
            timed(|| {
                client
                    .query_one(&batch, &[&key, &shift, &orders])
                    .expect("a batch")
                    .get::<_, i64>(0)
            })
        })
        .collect();
    let single = client
        .prepare("SELECT outcome FROM stock.try_reserve_stock($1, $2, 'm', 1)")
        .expect("a call");
    let alone: Vec<f64> = (0..asked.orders)
        .map(|n| {
            let (key, sku) = (format!("s{n}"), format!("sku-{}", 1 + n * 7919 % LEVELS));
            timed(|| {
                client.query_one(&single, &[&key, &sku]).expect("a call").get::<_, String>(0).len()
                    as i64
            })
        })
        .collect();
    Measured {
        early: median(&times[1..=FEW]),
        late: median(&times[times.len() - FEW..]),
        in_batch: median(&times[1..]) / asked.orders as f64,
        alone: median(&alone),
    }
}

/// How long something takes, in milliseconds.
fn timed(work: impl FnOnce() -> i64) -> f64 {
    let begin = Instant::now();
    assert!(work() > 0, "it answers");
    begin.elapsed().as_secs_f64() * 1_000.0
}

fn show(measured: &[Vec<Measured>; WAYS.len()], asked: &Batches) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "statistics",
        "calls 2 to 5",
        "last 4 calls",
        "last/first",
        "single call",
        "single/order in a batch",
    ]);
    for (way, all) in WAYS.iter().zip(measured) {
        let of = |what: fn(&Measured) -> f64| all.iter().map(what).collect::<Vec<f64>>();
        let spread = |values: &[f64]| {
            let sorted = sorted(values);
            format!("{:.1} ({:.1}-{:.1})", median(values), sorted[0], sorted[sorted.len() - 1])
        };
        table.add_row([
            (*way).to_owned(),
            format!("{} ms", spread(&of(|one| one.early))),
            format!("{} ms", spread(&of(|one| one.late))),
            format!("{:.2}", median(&of(|one| one.late / one.early))),
            format!("{:.3} ms", median(&of(|one| one.alone))),
            format!("{:.1}", median(&of(|one| one.alone / one.in_batch))),
        ]);
    }
    println!(
        "{} batches of {} orders, one session, medians of {} rounds",
        asked.batches, asked.orders, asked.rounds
    );
    println!("{table}");
}
