//! The demo: a flash sale by a crowd over many real connections, while ordinary orders go on.
//!
//! Buyers submit twice, pay, fail to pay, pay twice and pay late, as people do. At the end the
//! invariants are checked in SQL: nothing was sold twice, or the program fails. A cache in Redis
//! follows the sale, and is compared at the end.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use pg_stock_cache::read::Reading;
use pg_stock_tests::{Cluster, Database, invariants};
use postgres::Client;
use rand::RngExt;

use crate::cache::Follower;
use crate::connection::{self, connect};
use crate::naive_sale;
use crate::strawberries;
use crate::tally::Tally;

/// The SKU of the sale.
const HOT: &str = "sku-1";
/// Where it lies.
const MAIN: &str = "location-1";
/// What each connection pauses before a late payment: longer than the short holds live.
const LATE: Duration = Duration::from_millis(120);
/// How long a hold lives whose buyer walks away; an ordinary shop gives thirty minutes.
const ABANDONED: &str = "1 second";
/// How long the worker may take to give the last of them back.
const PATIENCE: Duration = Duration::from_secs(10);

/// How large the sale is.
#[derive(Args, Clone)]
pub struct Sale {
    /// Units of the SKU on sale
    #[arg(long, default_value_t = 100)]
    units: i64,
    /// Buyers who want one
    #[arg(long, default_value_t = 5_000)]
    buyers: usize,
    /// Connections they come over
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Other SKUs, each at three locations
    #[arg(long, default_value_t = 199)]
    skus: usize,
    /// Show the query behind each promise
    #[arg(long)]
    show_sql: bool,
}

type Tallies = BTreeMap<&'static str, Tally>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the sale and shows the result; fails if an invariant is broken.
pub fn run(sale: &Sale) -> ExitCode {
    println!("Starting a private throwaway PostgreSQL ...");
    let cluster = Cluster::start(&["shared_buffers=256MB", "shared_preload_libraries=pg_stock"]);
    let database = cluster.database();
    let mut client = database.connect();
    load(&mut client, sale);
    if let Err(failure) = beside(database, sale) {
        eprintln!("The naive sale broke off: {failure}");
        return ExitCode::FAILURE;
    }
    let cache = Follower::start(database);
    println!(
        "{} buyers want one of {} units of {HOT} over {} connections, while ordinary orders go on.",
        sale.buyers, sale.units, sale.connections
    );
    let begin = Instant::now();
    let tallies = match crowd(database, sale, &cache.url()) {
        Ok(tallies) => tallies,
        Err(failure) => {
            eprintln!("The sale broke off: {failure}");
            return ExitCode::FAILURE;
        }
    };
    report(&tallies, begin.elapsed());
    given_back(&mut client);
    if let Err(failure) = strawberries::play(database) {
        eprintln!("The pre-sale broke off: {failure}");
        return ExitCode::FAILURE;
    }
    let in_step = followed(&mut client, &cache);
    prove(&mut client, sale, in_step)
}

/// First the same crowd at a table as shops write it at first.
fn beside(database: Database<'_>, sale: &Sale) -> Result<(), tokio_postgres::Error> {
    let (units, connections) = (sale.units, sale.connections);
    println!(
        "First without pg_stock: read what is on hand, write one less, over {connections} \
         connections."
    );
    let sold = naive_sale::run(database, units, sale.buyers, connections)?;
    let verdict = match sold - units {
        more if more > 0 => format!("{more} buyers were sold what was not there"),
        _ => "by luck it came out even".to_owned(),
    };
    println!("{units} units, {sold} sold: {verdict}.\n\nNow with pg_stock:");
    Ok(())
}

/// Puts goods on the shelves.
fn load(client: &mut Client, sale: &Sale) {
    let receive = "SELECT count(*) FROM generate_series(1, $1::bigint) s, generate_series(1, 3) l,
                   LATERAL stock.receive_stock('delivery ' || s || ' ' || l, 'sku-' || s,
                   'location-' || l,
                                               CASE WHEN s = 1 THEN $2::bigint ELSE 10000 END)
                    WHERE s > 1 OR l = 1";
    let skus = sale.skus as i64 + 1;
    client.execute(receive, &[&skus, &sale.units]).expect("the goods are received");
}

/// Lets the crowd in, and shows how the stock of the hot SKU melts.
fn crowd(database: Database<'_>, sale: &Sale, cache: &str) -> Result<Tallies, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let bar = ProgressBar::new(sale.buyers as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} buyers  {msg}")
            .expect("a sound template"),
    );
    let next = Arc::new(AtomicUsize::new(0));
    let config = connection::config(database, "flash sale");
    let tallies = runtime.block_on(async {
        let lines: Vec<_> = (0..sale.connections)
            .map(|_| {
                tokio::spawn(serve(config.clone(), sale.clone(), Arc::clone(&next), bar.clone()))
            })
            .collect();
        let watch = tokio::spawn(watch(config.clone(), cache.to_owned(), bar.clone()));
        let mut tallies = Tallies::new();
        for line in lines {
            for (kind, tally) in line.await?? {
                tallies.entry(kind).or_insert_with(Tally::new).add(&tally);
            }
        }
        watch.abort();
        Ok::<_, Failure>(tallies)
    })?;
    bar.finish_with_message("done");
    Ok(tallies)
}

/// Shows now and then what is left.
async fn watch(
    config: tokio_postgres::Config,
    cache: String,
    bar: ProgressBar,
) -> Result<(), Failure> {
    let client = connect(&config).await?;
    let mut cache = Follower::reader(&cache).await?;
    loop {
        let sql = "SELECT on_hand, reserved, available FROM stock.levels WHERE sku = $1 AND \
                   location = $2";
        let row = client.query_one(sql, &[&HOT, &MAIN]).await?;
        let [on_hand, reserved, available]: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        let shown = match cache.read(HOT, MAIN).await? {
            Reading::Found { level, .. } => format!("the cache shows {}", level.available),
            Reading::Absent { .. } | Reading::Missed { .. } => "the cache is being filled".into(),
        };
        bar.set_message(format!(
            "on hand {on_hand}, reserved {reserved}, available {available}; {shown}"
        ));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One connection: serves buyers until there are no more.
async fn serve(
    config: tokio_postgres::Config,
    sale: Sale,
    next: Arc<AtomicUsize>,
    bar: ProgressBar,
) -> Result<Tallies, Failure> {
    let mut desk = Desk { client: connect(&config).await?, tallies: Tallies::new() };
    loop {
        let buyer = next.fetch_add(1, Ordering::Relaxed);
        if buyer >= sale.buyers {
            return Ok(desk.tallies);
        }
        desk.buyer(buyer).await?;
        if buyer.is_multiple_of(4) {
            desk.ordinary_order(buyer, sale.skus).await?;
        }
        bar.inc(1);
    }
}

struct Desk {
    client: tokio_postgres::Client,
    tallies: Tallies,
}

impl Desk {
    /// Makes a call, counts its outcome, and gives it.
    async fn call(
        &mut self,
        kind: &'static str,
        call: &str,
    ) -> Result<String, tokio_postgres::Error> {
        let begin = Instant::now();
        let sql = format!("SELECT outcome, replayed FROM stock.{call}");
        let rows = self.client.query(&sql, &[]).await?;
        let took = begin.elapsed();
        let (outcome, replayed): (String, bool) = (rows[0].get(0), rows[0].get(1));
        let told = if replayed { "replayed".to_owned() } else { outcome.clone() };
        self.tallies.entry(kind).or_insert_with(Tally::new).count(&told, took);
        Ok(outcome)
    }

    /// One buyer of the hot SKU. One in five submits twice; those who hold a unit pay, or not,
    /// or twice, or late, or walk away.
    async fn buyer(&mut self, buyer: usize) -> Result<(), tokio_postgres::Error> {
        let way: u8 = rand::rng().random_range(0..10);
        let ttl = match way {
            9 => "100 milliseconds",
            8 => ABANDONED,
            _ => "30 minutes",
        };
        let key = format!("order {buyer}");
        let submit =
            format!("try_reserve_stock('{key}', '{HOT}', '{MAIN}', 1, '{ttl}', 'buyer {buyer}')");
        let mut outcome = self.call("flash sale: reserve", &submit).await?;
        if buyer.is_multiple_of(5) {
            outcome = self.call("flash sale: reserve", &submit).await?;
        }
        if outcome != "reserved" {
            return Ok(());
        }
        let pay = format!("try_confirm_stock('{key}')");
        match way {
            0 | 1 => {
                let give_up = format!("try_release_stock('{key}', reason => 'payment failed')");
                self.call("payment fails: release", &give_up).await?;
            }
            2 | 3 => {
                self.call("payment: confirm", &pay).await?;
                self.call("payment comes twice: confirm", &pay).await?;
            }
            8 => {}
            9 => {
                tokio::time::sleep(LATE).await;
                self.call("payment comes late: confirm", &pay).await?;
            }
            _ => {
                self.call("payment: confirm", &pay).await?;
            }
        }
        Ok(())
    }

    /// An order of a few lines of other SKUs, paid or cancelled.
    async fn ordinary_order(
        &mut self,
        number: usize,
        skus: usize,
    ) -> Result<(), tokio_postgres::Error> {
        let lines: Vec<String> = (0..rand::rng().random_range(2..6))
            .map(|_| {
                let (sku, location, quantity) = {
                    let mut dice = rand::rng();
                    let sku = dice.random_range(2..=skus + 1);
                    (sku, dice.random_range(1..=3), dice.random_range(1..4))
                };
                format!(r#"{{"sku":"sku-{sku}","location":"location-{location}","quantity":{quantity}}}"#)
            })
            .collect();
        let key = format!("basket {number}");
        self.call(
            "other orders: reserve",
            &format!("try_reserve_stock('{key}', '[{}]')", lines.join(",")),
        )
        .await?;
        if number.is_multiple_of(3) {
            self.call("other orders: release", &format!("try_release_stock('{key}')")).await?;
        } else {
            self.call("other orders: confirm", &format!("try_confirm_stock('{key}')")).await?;
        }
        Ok(())
    }
}

/// What was asked and answered.
fn report(tallies: &Tallies, took: Duration) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["what", "asked", "answers", "p50 ms", "p99 ms"]);
    for (kind, tally) in tallies {
        let answers: Vec<String> =
            tally.outcomes().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        table.add_row([
            (*kind).to_owned(),
            tally.total().to_string(),
            answers.join("\n"),
            format!("{:.1}", tally.latency_ms(0.5)),
            format!("{:.1}", tally.latency_ms(0.99)),
        ]);
    }
    println!("\n{table}");
    let calls: u64 = tallies.values().map(Tally::total).sum();
    println!("{calls} calls in {:.1} s\n", took.as_secs_f64());
}

/// Waits until the holds of those who walked away have come back by themselves, and shows how.
fn given_back(client: &mut Client) {
    let begin = Instant::now();
    let open = "SELECT count(*) FROM stock.holds WHERE expires_at < clock_timestamp() + interval \
                '1 minute'";
    while client.query_one(open, &[]).expect("the holds").get::<_, i64>(0) > 0
        && begin.elapsed() < PATIENCE
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    let lapsed = "SELECT count(*) FILTER (WHERE application_name = 'pg_stock worker'),
                         count(*) FILTER (WHERE application_name <> 'pg_stock worker'),
                         coalesce(extract(epoch
                         FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY recorded_at - expires_at)
                           FILTER (WHERE application_name = 'pg_stock worker')), 0)::float8 * 1000,
                         coalesce(extract(epoch FROM max(recorded_at - expires_at)
                           FILTER (WHERE application_name = 'pg_stock worker')), 0)::float8 * 1000,
                         (SELECT count(*) FROM stock.overdue)
                    FROM stock.ledger_rows WHERE operation = 'expire'";
    let row = client.query_one(lapsed, &[]).expect("the ledger");
    let [by_worker, by_buyers, overdue]: [i64; 3] = [row.get(0), row.get(1), row.get(4)];
    let [median, most]: [f64; 2] = [row.get(2), row.get(3)];
    println!(
        "{} holds lapsed because nobody paid in time, and came back by themselves:\n  \
         {by_worker} given back by the background worker, {median:.0} ms after their deadline (at \
         most {most:.0}: it passes \
         over a level that a buyer has locked, and comes again)\n  \
         {by_buyers} taken at once by a buyer who needed them\n  \
         {overdue} still overdue\n",
        by_worker + by_buyers
    );
}

/// Compares the cache with the database, and shows it; false if they differ.
fn followed(client: &mut Client, cache: &Follower) -> bool {
    let compared = cache.compare(client);
    let row = client.query_one("SELECT sequence FROM stock.feed_lag", &[]).expect("the feed");
    println!(
        "The cache in Redis followed by {} notifications: {} levels are the same as in the \
         database, {} are not (after {:.0} ms).\n",
        row.get::<_, i64>(0),
        compared.same,
        compared.different,
        compared.after.as_secs_f64() * 1_000.0
    );
    compared.different == 0
}

/// Checks that nothing was oversold, in SQL, and shows the queries' results.
fn prove(client: &mut Client, sale: &Sale, in_step: bool) -> ExitCode {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["promise, checked in SQL", "breaches"]);
    let mut broken = 0;
    for (promise, breaches) in invariants::check(client) {
        broken += breaches;
        table.add_row([promise.to_owned(), breaches.to_string()]);
    }
    let sql = "SELECT coalesce(sum(quantity) FILTER (WHERE operation = 'confirm'), 0)::bigint,
                      (SELECT on_hand FROM stock.level WHERE sku = $1 AND location = $2),
                      (SELECT reserved FROM stock.level WHERE sku = $1 AND location = $2)
                 FROM stock.ledger WHERE sku = $1 AND location = $2";
    let row = client.query_one(sql, &[&HOT, &MAIN]).expect("the hot level");
    let [sold, on_hand, reserved]: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    if sold + on_hand != sale.units || reserved > on_hand {
        broken += 1;
    }
    println!("{table}");
    if sale.show_sql {
        invariants::INVARIANTS
            .iter()
            .for_each(|each| println!("\n-- {}\n{};", each.promise, each.breaches));
    }
    println!(
        "{HOT}: {} units = {sold} sold + {on_hand} on hand, of which {reserved} reserved",
        sale.units
    );
    if broken == 0 {
        println!("Nothing was oversold.");
        if in_step { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    } else {
        println!("BROKEN: {broken} breaches.");
        ExitCode::FAILURE
    }
}
