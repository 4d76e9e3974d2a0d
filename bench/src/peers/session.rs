//! A session with a contestant: sends orders, and says what became of each.

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio_postgres::{Client, Row, Statement};

use super::Failure;
use super::block::Block;
use super::contestant::Contestant;
use super::transaction::Transaction;
use super::work::{Order, Outcome, Work};
use crate::connection::connect;

/// What the raising form answers where there is not enough.
const INSUFFICIENT_STOCK: &str = "ST001";
/// How long a reservation holds, in seconds.
const TTL_SECONDS: u32 = 1_800;

/// Where the contestants are.
#[derive(Clone)]
pub enum Place {
    /// A database.
    Database(tokio_postgres::Config),
    /// A Redis.
    Redis(redis::Client),
}

/// A session with one of them.
pub enum Session {
    /// One row changed, or none: a bare UPDATE. Or it is only read.
    Bare(Client, Statement, bool),
    /// One call for one order of one line.
    Call(Client, Statement),
    /// One call for one order of several lines.
    Lines(Client, Statement),
    /// One call for several orders.
    Batch(Client, Statement),
    /// Several statements for one order.
    Transaction(Transaction),
    /// Several statements for one order, of which one is a call.
    Block(Block),
    /// A script for one order.
    Script(MultiplexedConnection, redis::Script),
}

impl Session {
    /// Opens one.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn open(
        place: &Place,
        contestant: Contestant,
        work: Work,
    ) -> Result<Session, Failure> {
        let config = match place {
            Place::Redis(client) => {
                // Who waits in a crowd waits for long: that is measured, not an error.
                let patient = AsyncConnectionConfig::new()
                    .set_response_timeout(None)
                    .set_connection_timeout(None);
                let connection =
                    client.get_multiplexed_async_connection_with_config(&patient).await?;
                return Ok(Session::Script(
                    connection,
                    redis::Script::new(include_str!("../../lua/reserve.lua")),
                ));
            }
            Place::Database(config) => config,
        };
        let client = connect(config).await?;
        client.batch_execute(contestant.setting()).await?;
        if contestant.is_block() {
            return Ok(Session::Block(Block::prepare(client).await?));
        }
        let Some(sql) = contestant.statement(work) else {
            return Ok(Session::Transaction(Transaction::prepare(client).await?));
        };
        let statement = client.prepare(sql).await?;
        Ok(match contestant {
            Contestant::Update => Session::Bare(client, statement, false),
            Contestant::Select => Session::Bare(client, statement, true),
            _ if contestant.batch() > 1 => Session::Batch(client, statement),
            _ if work == Work::Lines5 => Session::Lines(client, statement),
            _ => Session::Call(client, statement),
        })
    }

    /// Sends orders, as many as the contestant takes in one call; what became of each.
    ///
    /// # Errors
    /// If the answer is an error, or cannot be.
    pub async fn send(&mut self, orders: &[Order]) -> Result<Vec<Outcome>, Failure> {
        let first = &orders[0];
        let one = match self {
            Session::Batch(client, statement) => return batch(client, statement, orders).await,
            Session::Bare(client, statement, read) => bare(client, statement, *read, first).await?,
            Session::Call(client, statement) => same(
                client.query(statement, &[&first.key, &first.skus[0]]).await,
                first.skus.len(),
            )?,
            Session::Lines(client, statement) => {
                let lines = lines(first).to_string();
                let answer = client.query(statement, &[&first.key, &lines]).await;
                // The hand-written function answers once for the whole order.
                let count = answer.as_ref().map_or(0, Vec::len);
                same(answer, count)?
            }
            Session::Transaction(transaction) => transaction.reserve(first).await?,
            Session::Block(block) => block.order(first).await?,
            Session::Script(connection, script) => run_script(connection, script, first).await?,
        };
        Ok(vec![one])
    }
}

async fn bare(
    client: &Client,
    statement: &Statement,
    read: bool,
    order: &Order,
) -> Result<Outcome, Failure> {
    if read {
        client.query_one(statement, &[&order.skus[0]]).await?;
        return Ok(Outcome::Refused);
    }
    let changed = client.execute(statement, &[&order.skus[0]]).await?;
    Ok(if changed == 1 { Outcome::Reserved } else { Outcome::Refused })
}

/// The outcome that all lines of an order share.
fn same(answer: Result<Vec<Row>, tokio_postgres::Error>, lines: usize) -> Result<Outcome, Failure> {
    let rows = match answer {
        Ok(rows) => rows,
        Err(error) if error.code().is_some_and(|code| code.code() == INSUFFICIENT_STOCK) => {
            return Ok(Outcome::Refused);
        }
        Err(error) => return Err(error.into()),
    };
    let outcomes = rows
        .iter()
        .map(|row| Outcome::read(row.get(0), row.get(1)))
        .collect::<Result<Vec<_>, _>>()?;
    match outcomes.first() {
        Some(first)
            if outcomes.len() == lines && outcomes.iter().all(|outcome| outcome == first) =>
        {
            Ok(*first)
        }
        _ => Err(format!("{lines} lines were answered with {outcomes:?}").into()),
    }
}

async fn batch(
    client: &Client,
    statement: &Statement,
    orders: &[Order],
) -> Result<Vec<Outcome>, Failure> {
    let requests: Vec<_> =
        orders.iter().map(|order| json!({"key": order.key, "lines": lines(order)})).collect();
    let rows = client.query(statement, &[&json!(requests).to_string()]).await?;
    let places = rows.iter().map(|row| row.get::<_, i32>(0));
    if !places.eq(1..=orders.len() as i32) {
        return Err(format!(
            "{} answers to {} orders, or in another order",
            rows.len(),
            orders.len()
        )
        .into());
    }
    rows.iter().map(|row| Outcome::read(row.get(1), row.get(2))).collect()
}

fn lines(order: &Order) -> serde_json::Value {
    let lines = order.skus.iter().map(|sku| json!({"sku": sku, "location": "main", "quantity": 1}));
    lines.collect::<Vec<_>>().into()
}

async fn run_script(
    connection: &mut MultiplexedConnection,
    script: &redis::Script,
    order: &Order,
) -> Result<Outcome, Failure> {
    let (key, sku) = (&order.key, &order.skus[0]);
    let (outcome, _, replayed): (String, String, i64) = script
        .key(format!("claim:{key}"))
        .key(format!("level:{sku}"))
        .key("holds")
        .key("ledger")
        .arg(key)
        .arg(sku)
        .arg("main")
        .arg(1)
        .arg(TTL_SECONDS)
        .invoke_async(connection)
        .await?;
    Outcome::read(&outcome, replayed == 1)
}
