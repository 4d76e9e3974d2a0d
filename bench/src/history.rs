//! What history costs: buyers beside a long ledger, what verify() takes of it, what archiving takes
//! and costs buyers meanwhile, and buyers once that is done.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use crate::sides;
use crate::tally::Tally;
use crate::turns::{Kind, Turns};

/// How large, and how often.
#[derive(Args)]
pub struct History {
    /// Levels of the old shop
    #[arg(long, default_value_t = 1_000_000)]
    levels: i64,
    /// Ledger rows of the old shop
    #[arg(long, default_value_t = 10_000_000)]
    rows: i64,
    /// Levels of the new shop
    #[arg(long, default_value_t = 10_000)]
    few: i64,
    /// Buyers while the old shop is archived
    #[arg(long, default_value_t = 4)]
    buyers: usize,
    #[command(flatten)]
    turns: Turns,
}

/// Units of each level.
const UNITS: i64 = 1_000_000_000;
/// Ledger rows in a transaction while history is made.
const CHUNK: i64 = 5_000;
/// How long buyers are looked at in quiet, before and after.
const QUIET: Duration = Duration::from_secs(20);

/// Measures, and prints the tables.
pub fn run(asked: &History) -> ExitCode {
    let cluster = Cluster::start(&["fsync=on", "shared_buffers=1GB", "max_wal_size=8GB"]);
    let (old, new) = (cluster.database(), cluster.database());
    sides::prepare(new, asked.few);
    let begin = Instant::now();
    make_history(&mut old.connect(), asked);
    println!(
        "{} levels, {} ledger rows; made in {:.0?}",
        asked.levels,
        asked.rows,
        begin.elapsed()
    );
    beside(old, new, asked, "with its history");
    verify(old, "with its history");
    archive(old, asked);
    old.connect().batch_execute("VACUUM (ANALYZE) stock.ledger").expect("vacuumed");
    beside(old, new, asked, "archived");
    verify(old, "archived");
    let problems = old.connect().query("SELECT FROM stock.verify()", &[]).expect("verified").len();
    println!("Disagreements afterwards: {problems}");
    if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Levels, and orders that were reserved and paid, two ledger rows each, 500 days ago and earlier.
fn make_history(client: &mut Client, asked: &History) {
    let (levels, orders) = (asked.levels, (asked.rows - asked.levels) / 2);
    let of_level = format!("(({orders} - n + {levels}) / {levels})");
    let columns = "recorded_at, quantity, on_hand_delta, reserved_delta, on_hand_after,
                   reserved_after, available, version, line, key, operation, sku, location";
    let ledger = |last: i64, rows: &str| {
        format!(
            "DO $$ BEGIN
               FOR part IN 0..{last} LOOP
                 INSERT INTO stock.ledger ({columns}) {rows};
                 COMMIT;
               END LOOP;
             END $$"
        )
    };
    let received = format!(
        "SELECT now() - interval '900 days', {UNITS}, {UNITS}, 0, {UNITS}, 0, {UNITS}, 1, 1,
                'receive ' || n, 'receive', 'sku ' || n, 'm'
           FROM generate_series(part * {CHUNK} + 1, least((part + 1) * {CHUNK}, {levels})) n"
    );
    let ordered = format!(
        "SELECT now() - interval '900 days' + interval '400 days' * o / {orders}, 1, -paid,
                1 - 2 * paid, {UNITS} - o / {levels} - paid, 1 - paid,
                {UNITS} - o / {levels} - 1, 2 * (o / {levels}) + 2 + paid, 1, 'order ' || o,
                CASE paid WHEN 0 THEN 'reserve' ELSE 'confirm' END, 'sku ' || o % {levels} + 1, 'm'
           FROM generate_series(part * {CHUNK} / 2, least((part + 1) * {CHUNK} / 2, {orders}) - 1) o
          CROSS JOIN generate_series(0, 1) paid"
    );
    let levels_sql = format!(
        "INSERT INTO stock.level (on_hand, reserved, version, updated_at, sku, location)
         SELECT {UNITS} - {of_level}, 0, 1 + 2 * {of_level}, now() - interval '500 days',
                'sku ' || n, 'm'
           FROM generate_series(1, {levels}) n"
    );
    for sql in [
        "SET session_replication_role = replica",
        "SET synchronous_commit = off",
        &levels_sql,
        &ledger((levels - 1) / CHUNK, &received),
        &ledger((orders * 2 - 1) / CHUNK, &ordered),
        &format!("SELECT stock.receive_stock('hot', 'hot', 'm', {UNITS})"),
        "VACUUM ANALYZE",
    ] {
        client.batch_execute(sql).expect(sql);
    }
}

/// Buyers in the old shop beside those in the new one.
fn beside(old: Database<'_>, new: Database<'_>, asked: &History, state: &str) {
    let kinds = |levels| {
        let one = format!("\\set n random(1, {levels})");
        [Kind::of("many levels", &one, "'sku ' || :n", 0), Kind::of("one level", "", "'hot'", 0)]
    };
    let both = [kinds(asked.levels), kinds(asked.few)];
    sides::compare_each((old, new), &asked.turns, [&both[0], &both[1]], [state, "new"]);
}

fn verify(old: Database<'_>, state: &str) {
    let mut client = old.connect();
    let begin = Instant::now();
    client.batch_execute("SELECT count(*) FROM stock.verify()").expect("verified");
    let whole = begin.elapsed();
    let memory: String = client
        .query_one(
            "SELECT substring(pg_read_file('/proc/' || pg_backend_pid() || '/status')
                              FROM 'VmHWM:\\s*(\\d+ kB)')",
            &[],
        )
        .expect("how much memory")
        .get(0);
    let begin = Instant::now();
    client
        .batch_execute("SELECT count(*) FROM stock.verify(now() - interval '1 minute')")
        .expect("verified");
    println!(
        "verify(), {state}: {whole:.1?}; what changed in the last minute: {:.1?}; the process had \
         {memory} at most, shared buffers included",
        begin.elapsed()
    );
}

/// Archives while buyers buy, and in quiet before and after.
fn archive(old: Database<'_>, asked: &History) {
    let quiet = buy_during(old, asked, || std::thread::sleep(QUIET));
    let mut took = Duration::ZERO;
    let mut moved = 0;
    let meanwhile = buy_during(old, asked, || {
        let begin = Instant::now();
        let row = old.connect().query_one("CALL stock.archive()", &[]).expect("archived");
        (took, moved) = (begin.elapsed(), row.get::<_, i64>(1));
    });
    let after = buy_during(old, asked, || std::thread::sleep(QUIET));
    println!(
        "archive(): {moved} ledger rows in {took:.1?}, {:.0} a second, beside {} buyers",
        moved as f64 / took.as_secs_f64(),
        asked.buyers
    );
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["buyers", "reserves", "p50 ms", "p95 ms", "p99 ms", "max ms"]);
    for (name, tally) in [("before", quiet), ("while it is archived", meanwhile), ("after", after)]
    {
        let [p50, p95, p99, max] =
            [0.5, 0.95, 0.99, 1.0].map(|quantile| format!("{:.2}", tally.latency_ms(quantile)));
        table.add_row([name.to_owned(), tally.total().to_string(), p50, p95, p99, max]);
    }
    println!("{table}");
}

/// What buyers see while something is done: half of them want one level, half any.
fn buy_during(old: Database<'_>, asked: &History, act: impl FnOnce()) -> Tally {
    let over = AtomicBool::new(false);
    let mut all = Tally::new();
    std::thread::scope(|scope| {
        let buy = |number: usize| {
            let over = &over;
            scope.spawn(move || {
                let mut client = old.connect();
                let reserve = client
                    .prepare("SELECT outcome FROM stock.try_reserve_stock($1, $2, 'm', 1, '1 day')")
                    .expect("prepared");
                let mut tally = Tally::new();
                while !over.load(Ordering::Relaxed) {
                    let key = format!("buyer {}", rand::random::<u64>());
                    let sku = match number % 2 {
                        0 => "hot".to_owned(),
                        _ => format!("sku {}", rand::random_range(1..=asked.levels)),
                    };
                    let begin = Instant::now();
                    let row = client.query_one(&reserve, &[&key, &sku]).expect("reserved");
                    tally.count(row.get(0), begin.elapsed());
                }
                tally
            })
        };
        let buyers: Vec<_> = (0..asked.buyers).map(buy).collect();
        act();
        over.store(true, Ordering::Relaxed);
        buyers.into_iter().for_each(|buyer| all.add(&buyer.join().expect("no panic")));
    });
    all
}
