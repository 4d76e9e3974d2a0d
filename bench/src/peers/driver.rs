//! Drives any contestant in the same way: one task for each connection, which sends its next call
//! when the last one is answered (closed loop).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::Failure;
use super::contestant::Contestant;
use super::session::{Place, Session};
use super::work::{Orders, Outcome, Work};
use crate::tally::Tally;

/// One connection and what it is going to ask.
pub struct Buyer {
    session: Session,
    orders: Orders,
    batch: usize,
}

/// When to stop, and what to count.
#[derive(Clone)]
pub enum Until {
    /// After so long; only what is answered after the first of the two has passed is counted.
    Passed(Duration, Duration),
    /// Nothing new is sent after so long; all that was sent is counted, with the time until the
    /// last answer. For calls that may take longer than what is counted of a run: none of them is
    /// cut off.
    Sent(Duration),
    /// When so many orders were answered; each buyer takes its part from here.
    Answered(Arc<AtomicU64>, u64),
}

/// What was counted.
pub struct Count {
    /// Orders answered in the time counted.
    pub orders: u64,
    /// Of all orders, also before that time, those that were reserved.
    pub reserved: u64,
    /// From the first call to the last answer.
    pub took: Duration,
    /// Calls in the time counted, with how long each took.
    pub calls: Tally,
}

impl Buyer {
    /// Sends the next call; gives its outcomes.
    ///
    /// # Errors
    /// If it fails, or an answer is wrong.
    pub async fn call(&mut self) -> Result<Vec<Outcome>, Failure> {
        let (orders, repeated): (Vec<_>, Vec<_>) =
            (0..self.batch).map(|_| self.orders.next()).unzip();
        let outcomes = self.session.send(&orders).await?;
        for ((order, repeated), outcome) in orders.iter().zip(repeated).zip(&outcomes) {
            if !self.orders.allow(*outcome, repeated) {
                return Err(format!(
                    "the order {}, repeated: {repeated}, was {outcome:?}",
                    order.key
                )
                .into());
            }
        }
        Ok(outcomes)
    }

    async fn buy(mut self, until: Until) -> Result<(Buyer, Count), Failure> {
        let mut count = Count::new();
        let begin = Instant::now();
        while until.goes_on(begin, self.batch as u64) {
            let called = Instant::now();
            let outcomes = self.call().await?;
            count.reserved +=
                outcomes.iter().filter(|outcome| **outcome == Outcome::Reserved).count() as u64;
            if until.counts(begin) {
                count.orders += outcomes.len() as u64;
                count.calls.count("answered", called.elapsed());
            }
        }
        Ok((self, count))
    }
}

impl Count {
    /// Nothing yet.
    pub fn new() -> Count {
        Count { orders: 0, reserved: 0, took: Duration::ZERO, calls: Tally::new() }
    }

    fn add(&mut self, other: &Count) {
        self.orders += other.orders;
        self.reserved += other.reserved;
        self.calls.add(&other.calls);
    }
}

impl Until {
    fn goes_on(&self, begin: Instant, batch: u64) -> bool {
        match self {
            Until::Passed(_, end) | Until::Sent(end) => begin.elapsed() < *end,
            Until::Answered(taken, limit) => taken.fetch_add(batch, Ordering::Relaxed) < *limit,
        }
    }

    fn counts(&self, begin: Instant) -> bool {
        match self {
            Until::Passed(first, end) => (*first..*end).contains(&begin.elapsed()),
            Until::Sent(_) | Until::Answered(..) => true,
        }
    }
}

/// Opens connections, each with orders of its own. Keys begin with the name.
///
/// # Errors
/// If a server refuses.
pub async fn open(
    place: &Place,
    contestant: Contestant,
    work: Work,
    levels: u64,
    name: &str,
    connections: usize,
) -> Result<Vec<Buyer>, Failure> {
    try_join_all((0..connections).map(async |number| {
        let session = Session::open(place, contestant, work).await?;
        let orders = Orders::new(work, levels, format!("{name} {number}"));
        Ok(Buyer { session, orders, batch: contestant.batch() })
    }))
    .await
}

/// Lets all of them buy at once; gives them back, and what was counted.
///
/// # Errors
/// With the first error that one of them met.
pub async fn closed_loop(buyers: Vec<Buyer>, until: Until) -> Result<(Vec<Buyer>, Count), Failure> {
    let begin = Instant::now();
    let tasks: Vec<_> =
        buyers.into_iter().map(|buyer| tokio::spawn(buyer.buy(until.clone()))).collect();
    let (mut buyers, mut total) = (Vec::new(), Count::new());
    for task in tasks {
        let (buyer, count) = task.await??;
        buyers.push(buyer);
        total.add(&count);
    }
    total.took = begin.elapsed();
    Ok((buyers, total))
}
