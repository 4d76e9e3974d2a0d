//! What notifications cost those who buy, and how soon they come.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Table, presets};
use fallible_iterator::FallibleIterator;
use pg_stock_tests::{Cluster, Database, invariants};
use postgres::Client;

use crate::median::{median, sorted};
use crate::pgbench;
use crate::tally::Tally;

/// How long and how often.
#[derive(Args)]
pub struct Feed {
    /// Connections that buy
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 8)]
    seconds: usize,
    /// Runs of each way; they take turns
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// The ways to notify: the value of `pg_stock.notify`, and what the table calls it.
const WAYS: [(&str, &str); 3] = [
    ("off", "off"),
    ("worker", "worker, one listener"),
    ("transaction", "in each transaction, one listener"),
];
/// From one probe to the next.
const PACE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);
const BUY: &str = include_str!("../sql/pg_stock.sql");
/// The database.
const DATABASE: &str = "stock_feed";

/// Measures; prints both tables.
pub fn run(feed: &Feed) -> ExitCode {
    let settings = [
        "shared_preload_libraries=pg_stock",
        "shared_buffers=1GB",
        "max_wal_size=4GB",
        "checkpoint_timeout=30min",
    ];
    let cluster = Cluster::start(&settings);
    let database = cluster.create(DATABASE);
    let mut client = database.connect();
    client.batch_execute(include_str!("../sql/setup.sql")).expect("levels");
    client.batch_execute("VACUUM ANALYZE").expect("statistics");
    throughput(database, feed);
    latency(database, feed);
    let breaches: usize = invariants::check(&mut client).iter().map(|(_, count)| count).sum();
    println!("Breaches of the invariants afterwards: {breaches}");
    if breaches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn throughput(database: Database<'_>, feed: &Feed) {
    let mut rates = vec![Vec::new(); WAYS.len()];
    for round in 1..=feed.rounds {
        for ((way, name), rates) in WAYS.iter().zip(&mut rates) {
            notify(database, way);
            let ear = (*way != "off").then(|| Ear::open(database));
            let rate = pgbench::rate(database, BUY, feed.connections, feed.seconds);
            println!(
                "round {round}: {name:36} {rate:8.0}/s{}",
                ear.map(Ear::close).unwrap_or_default()
            );
            rates.push(rate);
        }
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["notifications", "median/s", "lowest", "highest", "over off"]);
    let off = median(&rates[0]);
    for ((_, name), rates) in WAYS.iter().zip(&rates) {
        let (middle, sorted) = (median(rates), sorted(rates));
        let numbers =
            [middle, sorted[0], sorted[sorted.len() - 1]].map(|rate| format!("{rate:.0}"));
        let [middle_text, lowest, highest] = numbers;
        table.add_row([
            (*name).to_owned(),
            middle_text,
            lowest,
            highest,
            format!("{:.2}", middle / off),
        ]);
    }
    println!("\n{table}\n");
}

/// Sets the way, and lets the worker catch up with what the other ways have left.
fn notify(database: Database<'_>, way: &str) {
    let mut client = database.connect();
    let set = |client: &mut Client, way: &str| {
        client
            .batch_execute(&format!("ALTER SYSTEM SET pg_stock.notify = {way}"))
            .expect("a setting");
        client.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    };
    set(&mut client, "worker");
    let begin = Instant::now();
    let behind = "SELECT coalesce(max(changes_behind), 1) FROM stock.feed_lag";
    while client.query_one(behind, &[]).expect(behind).get::<_, i64>(0) > 0 {
        assert!(begin.elapsed() < LIMIT, "the worker does not catch up");
        std::thread::sleep(Duration::from_millis(50));
    }
    set(&mut client, way);
    client.batch_execute("CHECKPOINT").expect("a checkpoint");
}

/// How soon after its commit a change is heard: one probe after the other, alone and while others
/// buy.
fn latency(database: Database<'_>, feed: &Feed) {
    notify(database, "worker");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["from commit to notification", "changes", "p50 ms", "p99 ms", "most ms"]);
    let alone = probe(database, || std::thread::sleep(Duration::from_secs(feed.seconds as u64)));
    let beside = probe(database, || {
        pgbench::rate(database, BUY, feed.connections, feed.seconds);
    });
    for (name, tally) in [
        ("alone".to_owned(), alone),
        (format!("while {} connections buy", feed.connections), beside),
    ] {
        let late = |quantile| format!("{:.1}", tally.latency_ms(quantile));
        table.add_row([name, tally.total().to_string(), late(0.5), late(0.99), late(1.0)]);
    }
    println!("{table}\n");
}

fn probe(database: Database<'_>, during: impl FnOnce()) -> Tally {
    let mut client = database.connect();
    let sku = format!("probe {:?}", Instant::now());
    let receive = client
        .prepare("SELECT version FROM stock.receive_stock($1, $2, 'main', 1)")
        .expect("a call");
    let ear = Ear::open(database);
    let closed = Arc::new(AtomicBool::new(false));
    let (own_sku, own_closed) = (sku.clone(), Arc::clone(&closed));
    let prober = std::thread::spawn(move || {
        let mut committed = Vec::new();
        while !own_closed.load(Ordering::Relaxed) {
            let key = format!("{own_sku} {}", committed.len());
            let version: i64 =
                client.query_one(&receive, &[&key, &own_sku]).expect("an answer").get(0);
            committed.push((version, Instant::now()));
            std::thread::sleep(PACE);
        }
        committed
    });
    during();
    closed.store(true, Ordering::Relaxed);
    let committed = prober.join().expect("no panic");
    std::thread::sleep(Duration::from_millis(500));
    let heard = ear.heard.lock().expect("nobody panicked").get(&sku).cloned().unwrap_or_default();
    ear.close();
    let mut tally = Tally::new();
    for (version, committed) in committed {
        // A message speaks of all versions up to its own.
        let first = heard.iter().find(|(told, _)| *told >= version);
        let (_, at) =
            first.unwrap_or_else(|| panic!("version {version} of the probe was never told"));
        tally.count("heard", at.saturating_duration_since(committed));
    }
    tally
}

type Heard = HashMap<String, Vec<(i64, Instant)>>;

/// Listens, and notes when it heard of which versions of the probes.
struct Ear {
    heard: Arc<Mutex<Heard>>,
    closed: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, usize)>,
}

impl Ear {
    fn open(database: Database<'_>) -> Ear {
        let mut client = database.connect();
        client.batch_execute("LISTEN stock_changed").expect("listening");
        let (heard, closed) =
            (Arc::new(Mutex::new(Heard::new())), Arc::new(AtomicBool::new(false)));
        let (own_heard, own_closed) = (Arc::clone(&heard), Arc::clone(&closed));
        let thread = std::thread::spawn(move || listen(&mut client, &own_heard, &own_closed));
        Ear { heard, closed, thread }
    }

    /// Stops listening; says what was heard.
    fn close(self) -> String {
        self.closed.store(true, Ordering::Relaxed);
        let (messages, levels) = self.thread.join().expect("no panic");
        format!(", heard {levels} changed levels in {messages} messages")
    }
}

fn listen(client: &mut Client, heard: &Mutex<Heard>, closed: &AtomicBool) -> (usize, usize) {
    let (mut messages, mut levels) = (0, 0);
    while !closed.load(Ordering::Relaxed) {
        let mut notifications = client.notifications();
        let mut some = notifications.timeout_iter(Duration::from_millis(100));
        while let Some(notification) = some.next().expect("a connection") {
            let now = Instant::now();
            let message: serde_json::Value =
                serde_json::from_str(notification.payload()).expect("JSON");
            let told = message["levels"].as_array().expect("levels");
            (messages, levels) = (messages + 1, levels + told.len());
            for level in told {
                let sku = level["sku"].as_str().expect("a SKU");
                if sku.starts_with("probe") {
                    let version = level["version"].as_i64().expect("a version");
                    heard
                        .lock()
                        .expect("nobody panicked")
                        .entry(sku.to_owned())
                        .or_default()
                        .push((version, now));
                }
            }
            if closed.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    (messages, levels)
}
