//! The same crowd at a table as shops write it at first: read what is there, and write one less.
//!
//! Between the read and the write others read the same number. Nothing in the database minds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pg_stock_tests::Database;
use tokio_postgres::{Client, Config, Error};

use crate::connection::{self, connect};

const TABLES: &str = "CREATE TABLE shelf (sku text PRIMARY KEY, on_hand bigint);
                      CREATE TABLE sold (order_id text, sku text)";
const READ: &str = "SELECT on_hand FROM shelf WHERE sku = 'sku-1'";
const WRITE: &str = "UPDATE shelf SET on_hand = $1 WHERE sku = 'sku-1'";
const REMEMBER: &str = "INSERT INTO sold VALUES ($1, 'sku-1')";

/// Sells units to a crowd over so many connections; says how many were sold.
///
/// # Errors
/// If the database breaks off.
pub fn run(
    database: Database<'_>,
    units: i64,
    buyers: usize,
    connections: usize,
) -> Result<i64, Error> {
    let mut client = database.connect();
    client.batch_execute(TABLES)?;
    client.execute("INSERT INTO shelf VALUES ('sku-1', $1)", &[&units])?;
    let config = connection::config(database, "naive sale");
    let next = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let lines: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(serve(config.clone(), Arc::clone(&next), buyers)))
            .collect();
        for line in lines {
            line.await.expect("no panic")?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(client.query_one("SELECT count(*) FROM sold", &[])?.get(0))
}

async fn serve(config: Config, next: Arc<AtomicUsize>, buyers: usize) -> Result<(), Error> {
    let client = connect(&config).await?;
    loop {
        let buyer = next.fetch_add(1, Ordering::Relaxed);
        if buyer >= buyers {
            return Ok(());
        }
        buy(&client, buyer).await?;
    }
}

async fn buy(client: &Client, buyer: usize) -> Result<(), Error> {
    let there: i64 = client.query_one(READ, &[]).await?.get(0);
    if there > 0 {
        client.execute(WRITE, &[&(there - 1)]).await?;
        client.execute(REMEMBER, &[&format!("order {buyer}")]).await?;
    }
    Ok(())
}
