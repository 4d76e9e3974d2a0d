//! Buyers in a closed loop: each connection reserves one unit of a random level after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pg_stock_tests::Database;
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, Error, Statement};

use super::{LEVELS, MAIN};
use crate::connection::{self, connect};
use crate::tally::Tally;

/// What the buyers met with.
pub struct Bought {
    /// Reservations a second.
    pub rate: f64,
    /// The median latency, in milliseconds.
    pub p50: f64,
    /// The 99th percentile of the latency, in milliseconds.
    pub p99: f64,
}

/// One connection.
struct Buyer {
    client: Client,
    reserve: Statement,
    /// What its keys begin with.
    name: String,
}

/// Lets buyers buy for as long as something else takes; gives what they met with, and what that
/// gave.
///
/// # Panics
/// If a buyer gets an error, or is refused.
pub fn buy_during<T>(
    database: Database<'_>,
    name: &str,
    connections: usize,
    during: impl FnOnce() -> T,
) -> (Bought, T) {
    let runtime = Runtime::new().expect("a runtime");
    let config = connection::config(database, "buyer");
    let open = |number| Buyer::open(&config, format!("{name} {number}"));
    let buyers: Vec<Buyer> = (0..connections)
        .map(|number| runtime.block_on(open(number)).expect("a buyer connects"))
        .collect();
    let closed = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let buyers: Vec<_> =
        buyers.into_iter().map(|buyer| runtime.spawn(buyer.buy(Arc::clone(&closed)))).collect();
    let given = during();
    closed.store(true, Ordering::Relaxed);
    let seconds = begin.elapsed().as_secs_f64();
    let mut tally = Tally::new();
    for buyer in buyers {
        tally.add(
            &runtime.block_on(buyer).expect("a buyer comes back").expect("a buyer gets answers"),
        );
    }
    assert!(tally.outcomes().all(|(outcome, _)| outcome == "reserved"), "there is enough for all");
    let bought = Bought {
        rate: tally.total() as f64 / seconds,
        p50: tally.latency_ms(0.5),
        p99: tally.latency_ms(0.99),
    };
    (bought, given)
}

impl Buyer {
    /// Connects, and reserves once, so that the session has its plans.
    async fn open(config: &Config, name: String) -> Result<Buyer, Error> {
        let client = connect(config).await?;
        let sql = "SELECT outcome FROM stock.try_reserve_stock($1, $2, $3, 1, '30 minutes')";
        let reserve = client.prepare(sql).await?;
        let buyer = Buyer { client, reserve, name };
        buyer.reserve("first").await?;
        Ok(buyer)
    }

    /// Reserves until the shop is closed.
    async fn buy(self, closed: Arc<AtomicBool>) -> Result<Tally, Error> {
        let mut tally = Tally::new();
        while !closed.load(Ordering::Relaxed) {
            let number = tally.total().to_string();
            let begin = Instant::now();
            let outcome = self.reserve(&number).await?;
            tally.count(&outcome, begin.elapsed());
        }
        Ok(tally)
    }

    /// Reserves one unit of a random level.
    async fn reserve(&self, number: &str) -> Result<String, Error> {
        let key = format!("{} {number}", self.name);
        let sku = format!("sku-{}", rand::rng().random_range(1..=LEVELS));
        Ok(self.client.query_one(&self.reserve, &[&key, &sku, &MAIN]).await?.get(0))
    }
}
