//! How late holds expire in the background.

use std::time::{Duration, Instant};

use pg_stock_tests::Cluster;
use postgres::Client;

use super::{MAIN, SETTINGS, breaches, receive, table};
use crate::tally::Tally;

/// Holds to expire.
const HOLDS: u32 = 1_000;
/// The levels that they are on.
const LEVELS: u32 = 100;
/// From one reservation to the next: all are made in three seconds.
const PACE: Duration = Duration::from_millis(3);
/// How long to wait for the last of them.
const LIMIT: Duration = Duration::from_secs(60);
/// The database.
const DATABASE: &str = "stock_lateness";

/// Reserves, waits and prints the table; counts the breaches of the invariants.
pub fn run() -> usize {
    println!(
        "Lateness: {HOLDS} holds of one second on {LEVELS} levels, expired by the background worker"
    );
    let settings: Vec<_> =
        SETTINGS.into_iter().chain(["shared_preload_libraries=pg_stock"]).collect();
    let cluster = Cluster::start(&settings);
    let mut client = cluster.create(DATABASE).connect();
    receive(&mut client, LEVELS.into());
    reserve(&mut client);
    wait(&mut client);
    show(&lateness(&mut client));
    breaches(&mut client)
}

/// Reserves at an even pace.
fn reserve(client: &mut Client) {
    let sql = "SELECT outcome FROM stock.try_reserve_stock($1, $2, $3, 1, '1 second')";
    let reserve = client.prepare(sql).expect("a call");
    let begin = Instant::now();
    for number in 0..HOLDS {
        std::thread::sleep((PACE * number).saturating_sub(begin.elapsed()));
        let (key, sku) = (format!("order {number}"), format!("sku-{}", number % LEVELS + 1));
        let row = client.query_one(&reserve, &[&key, &sku, &MAIN]).expect("an answer");
        assert_eq!(row.get::<_, &str>(0), "reserved", "{key}");
    }
}

/// Waits until all holds are closed, up to the limit.
fn wait(client: &mut Client) {
    let begin = Instant::now();
    let open = "SELECT count(*) FROM stock.hold";
    while begin.elapsed() < LIMIT && client.query_one(open, &[]).expect(open).get::<_, i64>(0) > 0 {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How long after its deadline each hold was closed.
fn lateness(client: &mut Client) -> Tally {
    let sql = "SELECT extract(epoch FROM recorded_at - expires_at)::float8 FROM stock.ledger WHERE \
               operation = 'expire'";
    let mut tally = Tally::new();
    for row in client.query(sql, &[]).expect(sql) {
        tally.count("expired", Duration::from_secs_f64(row.get(0)));
    }
    tally
}

/// Prints the table.
fn show(tally: &Tally) {
    if tally.total() == 0 {
        println!(
            "No hold expired within {} s: the background worker does not run.\n",
            LIMIT.as_secs()
        );
        return;
    }
    let mut table = table(["holds", "expired", "p50 ms late", "p99 ms late", "most ms late"]);
    let late = |quantile| format!("{:.0}", tally.latency_ms(quantile));
    table.add_row([HOLDS.to_string(), tally.total().to_string(), late(0.5), late(0.99), late(1.0)]);
    println!("\n{table}\n");
}
