//! Connections for many buyers at once.

use pg_stock_tests::Database;
use tokio_postgres::{Client, Config, Error, NoTls};

/// How to connect to a database, under the name of an application.
pub fn config(database: Database<'_>, application: &str) -> Config {
    let mut config = Config::new();
    config
        .host_path(database.cluster.socket())
        .user("postgres")
        .dbname(database.name())
        .application_name(application);
    config
}

/// Connects.
pub async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
