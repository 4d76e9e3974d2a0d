//! The application's own transaction: what a shop without a function in the database sends, one
//! statement after the other.

use tokio_postgres::{Client, Statement};

use super::Failure;
use super::work::{Order, Outcome};

/// A session that reserves in this way.
pub struct Transaction {
    client: Client,
    lock: Statement,
    earlier: Statement,
    record: Statement,
    update: Statement,
    hold: Statement,
}

impl Transaction {
    /// Prepares its statements.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn prepare(client: Client) -> Result<Transaction, Failure> {
        let lock = "SELECT on_hand, reserved, version FROM hand.level WHERE sku = $1 AND location \
                    = 'main' FOR UPDATE";
        let earlier =
            "SELECT FROM hand.ledger WHERE key = $1 AND operation = 'reserve' AND line = 1";
        let record = "INSERT INTO hand.ledger (key, operation, line, sku, location, quantity,
                      on_hand_after,
                                               reserved_after, version, expires_at)
                      VALUES ($1, 'reserve', $2, $3, 'main', 1, $4, $5, $6,
                      clock_timestamp() + interval '30 minutes')
                      ON CONFLICT DO NOTHING";
        let update = "UPDATE hand.level SET reserved = $2, version = $3 WHERE sku = $1 AND \
                      location = 'main'";
        let hold = "INSERT INTO hand.hold
                    VALUES ($1, $2, $3, 'main', 1, clock_timestamp() + interval '30 minutes')";
        Ok(Transaction {
            lock: client.prepare(lock).await?,
            earlier: client.prepare(earlier).await?,
            record: client.prepare(record).await?,
            update: client.prepare(update).await?,
            hold: client.prepare(hold).await?,
            client,
        })
    }

    /// Reserves one unit of each SKU, or none.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn reserve(&self, order: &Order) -> Result<Outcome, Failure> {
        self.client.batch_execute("BEGIN").await?;
        for (line, sku) in (1..).zip(&order.skus) {
            let outcome = self.reserve_line(&order.key, line, sku).await?;
            if outcome != Outcome::Reserved {
                self.client.batch_execute("ROLLBACK").await?;
                return Ok(outcome);
            }
        }
        self.client.batch_execute("COMMIT").await?;
        Ok(Outcome::Reserved)
    }

    async fn reserve_line(&self, key: &str, line: i32, sku: &str) -> Result<Outcome, Failure> {
        let client = &self.client;
        let level = client.query_one(&self.lock, &[&sku]).await?;
        let (on_hand, reserved, version): (i64, i64, i64) =
            (level.get(0), level.get(1), level.get(2));
        if on_hand - reserved < 1 {
            let earlier = client.query_opt(&self.earlier, &[&key]).await?;
            return Ok(if earlier.is_some() { Outcome::Replayed } else { Outcome::Refused });
        }
        let (reserved, version) = (reserved + 1, version + 1);
        if client.execute(&self.record, &[&key, &line, &sku, &on_hand, &reserved, &version]).await?
            == 0
        {
            return Ok(Outcome::Replayed);
        }
        client.execute(&self.update, &[&sku, &reserved, &version]).await?;
        client.execute(&self.hold, &[&key, &line, &sku]).await?;
        Ok(Outcome::Reserved)
    }
}
