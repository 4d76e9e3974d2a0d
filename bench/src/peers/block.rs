//! What most shops send: BEGIN, the order's own row, the reserve, COMMIT.

use tokio_postgres::{Client, Statement};

use super::Failure;
use super::work::{Order, Outcome};

/// A session that orders in this way.
pub struct Block {
    client: Client,
    place: Statement,
    reserve: Statement,
}

impl Block {
    /// Prepares its statements.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn prepare(client: Client) -> Result<Block, Failure> {
        let place = "INSERT INTO hand.orders (key, sku) VALUES ($1, $2)";
        let reserve = "SELECT outcome, replayed FROM stock.try_reserve_stock($1, $2, 'main', 1)";
        Ok(Block {
            place: client.prepare(place).await?,
            reserve: client.prepare(reserve).await?,
            client,
        })
    }

    /// Orders one unit of a SKU.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn order(&self, order: &Order) -> Result<Outcome, Failure> {
        let (client, sku) = (&self.client, &order.skus[0]);
        client.batch_execute("BEGIN").await?;
        client.execute(&self.place, &[&order.key, sku]).await?;
        let row = client.query_one(&self.reserve, &[&order.key, sku]).await?;
        let outcome = Outcome::read(row.get(0), row.get(1))?;
        let end = if outcome == Outcome::Reserved { "COMMIT" } else { "ROLLBACK" };
        client.batch_execute(end).await?;
        Ok(outcome)
    }
}
