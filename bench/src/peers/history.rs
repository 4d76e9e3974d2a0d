//! What the past costs: single calls beside many levels and a long ledger; and on one SKU while an
//! old snapshot keeps every version of its row.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::Failure;
use super::arena::{Arena, Ground, LEVELS, WARM_UP};
use super::contestant::Contestant::PgStock;
use super::driver::{self, Buyer, Until};
use super::work::Work;

/// Connections of both.
pub const CONNECTIONS: usize = 32;
/// The database with much past.
const DATABASE: &str = "stock_past";

/// How much past there is.
#[derive(Clone, Copy)]
pub struct Past {
    /// Levels.
    pub levels: u64,
    /// Ledger rows of all of them.
    pub ledger_rows: u64,
}

/// Reservations a second of each round.
#[derive(Default)]
pub struct Rates {
    /// With 10,000 levels and a ledger that only says where they came from.
    pub little: Vec<f64>,
    /// With much past.
    pub much: Vec<f64>,
}

/// Measures with little and with much past, in turns.
///
/// # Errors
/// If a call fails or is answered wrongly.
pub fn measure(arena: &mut Arena, past: Past, rounds: u32, seconds: u64) -> Result<Rates, Failure> {
    let until = Until::Passed(WARM_UP, WARM_UP + Duration::from_secs(seconds));
    let mut rates = Rates::default();
    fill(arena, past)?;
    for round in 1..=rounds {
        let little = arena.ground(PgStock)?;
        let buyers = open(arena, &little, Work::Spread, LEVELS, round)?;
        rates.little.push(buy(arena, buyers, until.clone())?.1 as f64 / seconds as f64);
        let broken = little.leave()?;
        arena.broken("little past", broken);
        arena.cluster.connect(DATABASE).batch_execute("CHECKPOINT")?;
        let buyers = open(arena, &much(arena), Work::Spread, past.levels, round)?;
        rates.much.push(buy(arena, buyers, until.clone())?.1 as f64 / seconds as f64);
    }
    let broken = much(arena).leave()?;
    arena.broken("much past", broken);
    Ok(rates)
}

/// Measures the hot SKU after so many sales each, beside a snapshot that was taken before the first
/// of them, once.
///
/// # Errors
/// If a call fails or is answered wrongly.
pub fn old_snapshot(arena: &mut Arena, sales: &[u64], seconds: u64) -> Result<Vec<f64>, Failure> {
    let ground = arena.ground(PgStock)?;
    let Ground::Database(database) = &ground else { unreachable!("pg_stock runs in a database") };
    let mut buyers = open(arena, &ground, Work::Hot, LEVELS, 0)?;
    let mut reader = database.connect();
    reader.batch_execute(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM stock.level LIMIT 1",
    )?;
    let (mut sold, mut rates) = (0, Vec::new());
    for target in sales {
        let first = Until::Answered(Arc::new(AtomicU64::new(sold)), *target);
        let second = Until::Passed(Duration::ZERO, Duration::from_secs(seconds));
        let (back, before) = buy(arena, buyers, first)?;
        let (back, counted) = buy(arena, back, second)?;
        sold += before + counted;
        rates.push(counted as f64 / seconds as f64);
        buyers = back;
    }
    drop((buyers, reader));
    let broken = ground.leave()?;
    arena.broken("old snapshot", broken);
    Ok(rates)
}

/// Makes the database with much past.
fn fill(arena: &Arena, past: Past) -> Result<(), Failure> {
    let database = arena.cluster.create(DATABASE);
    let mut client = database.connect();
    let counts =
        [past.levels, past.ledger_rows].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    client.execute(include_str!("../../sql/history.sql"), &[&counts[0], &counts[1]])?;
    client.batch_execute("VACUUM ANALYZE")?;
    Ok(())
}

/// The database with much past.
fn much(arena: &Arena) -> Ground<'_> {
    Ground::Database(arena.cluster.existing(DATABASE))
}

fn open(
    arena: &Arena,
    ground: &Ground<'_>,
    work: Work,
    levels: u64,
    round: u32,
) -> Result<Vec<Buyer>, Failure> {
    let name = format!("order {round}");
    arena.runtime.block_on(driver::open(
        &ground.place()?,
        PgStock,
        work,
        levels,
        &name,
        CONNECTIONS,
    ))
}

/// Lets buyers buy; gives them back, and how many orders were answered in the time counted.
fn buy(arena: &Arena, buyers: Vec<Buyer>, until: Until) -> Result<(Vec<Buyer>, u64), Failure> {
    let (buyers, count) = arena.runtime.block_on(driver::closed_loop(buyers, until))?;
    Ok((buyers, count.orders))
}
