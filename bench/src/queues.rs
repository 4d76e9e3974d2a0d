//! What it costs that units may be promised without being there: a reserve where nothing may wait,
//! beside one that may, one that waits, and one that waits behind a long queue. In turns, on one
//! server. And deliveries that pay thousands of lines.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, invariants};
use postgres::Client;

use crate::median::{median, sorted};
use crate::turns::{Kind, Turns, measure};

/// How large and how often.
#[derive(Args)]
pub struct Queues {
    /// Lines in the long queue
    #[arg(long, default_value_t = 100_000)]
    lines: i64,
    #[command(flatten)]
    turns: Turns,
    /// Lines that a delivery pays
    #[arg(long, default_value_t = 10_000)]
    paid: i64,
}

/// Orders in a batch when the long queue is made.
const BATCH: i64 = 5_000;
/// Deliveries that are timed.
const DELIVERIES: i64 = 5;

/// Measures, and prints the tables.
pub fn run(asked: &Queues) -> ExitCode {
    let cluster = Cluster::start(&["shared_buffers=1GB", "max_wal_size=4GB"]);
    let database = cluster.database();
    let mut client = database.connect();
    prepare(&mut client, asked.lines);
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["connections", "a reserve", "a second", "of the one it is compared with"]);
    let kinds = [
        Kind::of("nothing may wait", "", "'plain'", 0),
        Kind::of("may wait, all is there (of nothing may wait)", "", "'there'", 0),
        Kind::of("waits behind one (of nothing may wait)", "", "'short'", 0),
        Kind::of("waits behind many (of behind one)", "", "'long'", 2),
    ];
    measure(database, &asked.turns, &kinds, &mut table);
    let rounds = asked.turns.rounds;
    println!("Reserves of one unit of one level; medians of {rounds} runs\n{table}");
    deliveries(&mut client, asked.paid);
    let breaches: usize = invariants::check(&mut client).iter().map(|(_, count)| count).sum();
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(client: &mut Client, lines: i64) {
    client
        .batch_execute(
            "SELECT stock.receive_stock('r ' || sku, sku, 'm', 1000000000000)
               FROM unnest(ARRAY['plain', 'there']) sku;
             SELECT stock.set_stock('s ' || sku, sku, 'm', 0, NULL)
               FROM unnest(ARRAY['short', 'long']) sku;
             SELECT stock.set_limits('l ' || sku, sku, 'm', backorder_limit => 1000000000000)
               FROM unnest(ARRAY['there', 'short', 'long']) sku;
             SELECT stock.reserve_stock('first', 'short', 'm', 1, '10 days')",
        )
        .expect("the levels");
    let batch = "SELECT count(*) FROM stock.reserve_many((
                   SELECT jsonb_agg(jsonb_build_object('key', 'o' || n, 'ttl', '10 days', 'lines',
                            jsonb_build_array(jsonb_build_object('sku', 'long', 'location', 'm',
                                                                 'quantity', 1))))
                     FROM generate_series($1::bigint, least($1 + $2 - 1, $3)) n))";
    for first in (1..=lines).step_by(BATCH as usize) {
        client.query_one(batch, &[&first, &BATCH, &lines]).expect("a batch");
    }
    for settle in ["VACUUM ANALYZE", "CHECKPOINT"] {
        client.batch_execute(settle).expect("it is settled");
    }
}

/// Deliveries that pay the long queue.
fn deliveries(client: &mut Client, paid: i64) {
    let times: Vec<f64> = (0..DELIVERIES)
        .map(|number| {
            let begin = Instant::now();
            let sql = "SELECT outcome FROM stock.receive_stock($1, 'long', 'm', $2)";
            client.query_one(sql, &[&format!("lorry {number}"), &paid]).expect("a delivery");
            begin.elapsed().as_secs_f64() * 1_000.0
        })
        .collect();
    let supplied: i64 = client
        .query_one("SELECT count(*) FROM stock.supplied", &[])
        .expect("what was supplied")
        .get(0);
    let sorted = sorted(&times);
    println!(
        "A delivery that pays {paid} lines: {:.0} ms ({:.0}-{:.0}); {supplied} lines paid",
        median(&times),
        sorted[0],
        sorted[sorted.len() - 1]
    );
}
