//! Open loop: orders arrive at a fixed rate whether the last ones are answered or not, as customers
//! do. Latency counts from the moment at which an order was to be sent: what waits for a
//! connection, waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Failure;
use super::arena::{Arena, LEVELS};
use super::contestant::Contestant;
use super::driver::{self, Buyer};
use super::work::Work;
use crate::tally::Tally;

/// Who takes part.
pub const CONTESTANTS: [Contestant; 3] =
    [Contestant::PgStock, Contestant::PgStockOff, Contestant::Function];
/// Connections.
pub const CONNECTIONS: usize = 128;
/// What arrives in the first second is not counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// The moments at which orders arrive.
struct Arrivals {
    begin: Instant,
    apart: Duration,
    total: u64,
    taken: AtomicU64,
    arrived: Semaphore,
}

/// Lets orders for the hot SKU arrive at a rate, so many a second, for so long; how long each took.
///
/// # Errors
/// If a call fails or is answered wrongly.
pub fn measure(
    arena: &mut Arena,
    contestant: Contestant,
    rate: f64,
    seconds: u64,
) -> Result<Tally, Failure> {
    let ground = arena.ground(contestant)?;
    let tally = arena.runtime.block_on(async {
        let mut buyers =
            driver::open(&ground.place()?, contestant, Work::Hot, LEVELS, "order", CONNECTIONS)
                .await?;
        for buyer in &mut buyers {
            buyer.call().await?;
        }
        let arrivals = Arc::new(Arrivals {
            begin: Instant::now(),
            apart: Duration::from_secs_f64(1.0 / rate),
            total: ((seconds + WARM_UP.as_secs()) as f64 * rate) as u64,
            taken: AtomicU64::new(0),
            arrived: Semaphore::new(0),
        });
        let pacer = Arc::clone(&arrivals);
        let pacer = std::thread::spawn(move || pacer.pace());
        let tasks: Vec<_> = buyers
            .into_iter()
            .map(|buyer| tokio::spawn(serve(buyer, Arc::clone(&arrivals))))
            .collect();
        let mut tally = Tally::new();
        for task in tasks {
            tally.add(&task.await??);
        }
        pacer.join().map_err(|_| "the pacer failed")?;
        Ok::<_, Failure>(tally)
    })?;
    let broken = ground.leave()?;
    arena.broken(&format!("{} open loop", contestant.name()), broken);
    Ok(tally)
}

impl Arrivals {
    /// When this one is to be sent.
    fn intended(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(self.apart.as_secs_f64() * number as f64)
    }

    /// Lets each one in at its moment. A thread of its own: timers of the runtime are too coarse.
    fn pace(&self) {
        for number in 0..self.total {
            std::thread::sleep(self.intended(number).saturating_duration_since(Instant::now()));
            self.arrived.add_permits(1);
        }
        self.arrived.add_permits(CONNECTIONS);
    }
}

/// Serves what arrives until there is no more.
async fn serve(mut buyer: Buyer, arrivals: Arc<Arrivals>) -> Result<Tally, Failure> {
    let mut tally = Tally::new();
    loop {
        arrivals.arrived.acquire().await?.forget();
        let number = arrivals.taken.fetch_add(1, Ordering::Relaxed);
        if number >= arrivals.total {
            return Ok(tally);
        }
        buyer.call().await?;
        let intended = arrivals.intended(number);
        if intended >= arrivals.begin + WARM_UP {
            tally.count("answered", intended.elapsed());
        }
    }
}
