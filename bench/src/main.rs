//! `stock-bench flash-sale`: the demo. `stock-bench peers`: pg_stock beside its peers. `stock-bench
//! expiry`: what expiry costs. `stock-bench feed`: what notifications cost, and how soon they come.
//! `stock-bench batches`: what batches cost without statistics. `stock-bench queues`: what it costs
//! to wait for what is not there yet. `stock-bench lots`: what lots cost. `stock-bench
//! import`: what it takes to load a shop. `stock-bench counters`: what it costs to count calls.
//! `stock-bench indexes`: what further indexes cost. `stock-bench history`: what history costs, and
//! archiving it. All run on a private throwaway PostgreSQL.

mod batches;
mod cache;
mod connection;
mod counters;
mod expiry;
mod feed;
mod flash_sale;
mod history;
mod import;
mod indexes;
mod lots;
mod median;
mod naive_sale;
mod peers;
mod pgbench;
mod queues;
mod sides;
mod strawberries;
mod tally;
mod turns;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The flash-sale demo of pg_stock, and its benchmark against its peers")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Sell 100 units of one SKU to a crowd, while ordinary orders go on, and prove that nothing
    /// was oversold.
    FlashSale(flash_sale::Sale),
    /// Measure pg_stock beside everything else a shop could use, on the same work, in turns.
    Peers(Box<peers::Peers>),
    /// Measure how late holds expire, what a sweep costs buyers, and what an old snapshot costs
    /// both.
    Expiry(expiry::Expiry),
    /// Measure what batches cost where PostgreSQL knows nothing of the tables.
    Batches(batches::Batches),
    /// Measure what it costs that units are promised which are not there yet, and what it takes to
    /// pay those who wait.
    Queues(queues::Queues),
    /// Measure what lots cost those who reserve.
    Lots(lots::Lots),
    /// Measure what it takes to load a shop.
    Import(import::Import),
    /// Measure what it costs to count calls.
    Counters(counters::Counters),
    /// Measure what the indexes cost that docs/operating.md offers for look-ups.
    Indexes(indexes::Indexes),
    /// Measure what history costs buyers, what it takes to verify it, and what it takes, and costs
    /// buyers, to archive it.
    History(history::History),
    /// Measure what notifications cost those who buy, and how soon after a commit they come.
    Feed(feed::Feed),
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::FlashSale(sale) => flash_sale::run(&sale),
        What::Peers(peers) => peers::run(&peers),
        What::Expiry(expiry) => expiry::run(&expiry),
        What::Batches(batches) => batches::run(&batches),
        What::Queues(queues) => queues::run(&queues),
        What::Lots(lots) => lots::run(&lots),
        What::Import(import) => import::run(&import),
        What::Counters(counters) => counters::run(&counters),
        What::Indexes(indexes) => indexes::run(&indexes),
        What::History(history) => history::run(&history),
        What::Feed(feed) => feed::run(&feed),
    }
}
