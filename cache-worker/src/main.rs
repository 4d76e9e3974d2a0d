//! `pg-stock-cache`: keeps Redis or Valkey in step with the stock levels of PostgreSQL.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use pg_stock_cache::options::Options;
use pg_stock_cache::{metrics, worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // Colours are for terminals, not for log files.
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    match run(options).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_wrong) => ExitCode::from(1),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run(options: Options) -> Result<usize, Box<dyn std::error::Error>> {
    let stop = CancellationToken::new();
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let asked = stop.clone();
    tokio::spawn(async move {
        let [terminate, interrupt] = &mut signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        asked.cancel();
    });
    if let Some(address) = options.metrics_address {
        metrics::serve(address).map_err(|error| format!("--metrics-address {address}: {error}"))?;
    }
    Ok(worker::run(options, stop).await?)
}
