//! `stock-bench flash-sale`: the demo. `stock-bench compare`: the single call against its peers.
//! `stock-bench expiry`: what expiry costs. `stock-bench feed`: what notifications cost, and how soon they come. All run on a private throwaway PostgreSQL.

mod cache;
mod compare;
mod connection;
mod expiry;
mod feed;
mod flash_sale;
mod median;
mod pgbench;
mod tally;

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
    /// Sell 100 units of one SKU to a crowd, while ordinary orders go on, and prove that nothing was oversold.
    FlashSale(flash_sale::Sale),
    /// Measure try_reserve_stock beside a hand-written function and an application's own transaction.
    Compare(compare::Comparison),
    /// Measure how late holds expire, what a sweep costs buyers, and what an old snapshot costs both.
    Expiry(expiry::Expiry),
    /// Measure what notifications cost those who buy, and how soon after a commit they come.
    Feed(feed::Feed),
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::FlashSale(sale) => flash_sale::run(&sale),
        What::Compare(comparison) => compare::run(&comparison),
        What::Expiry(expiry) => expiry::run(&expiry),
        What::Feed(feed) => feed::run(&feed),
    }
}
