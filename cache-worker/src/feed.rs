//! The side of PostgreSQL: what changed, page by page, and the notifications.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use postgres_native_tls::MakeTlsConnector;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row};
use tracing::{debug, warn};

use crate::entry::Level;
use crate::error::Error;

/// Levels in one page.
const PAGE_ROWS: i32 = 10_000;
/// Notifications that may wait to be worked on. More are dropped: that is a gap, and a gap is
/// closed by asking.
const WAITING_MAX: usize = 10_000;
/// A peer that is gone is noticed within about this time, also while an answer is awaited.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The columns of `changes_since` and `snapshot`; the age of a change by the clock of the database.
const COLUMNS: &str =
    "SELECT outcome, sku, location, on_hand, reserved, safety_stock, waiting, in_transit,
       backorder_limit, unsellable, frozen, on_sale_from, on_sale_until, version,
       extract(epoch FROM pg_catalog.clock_timestamp() - updated_at)::float8 AS age, next_cursor";
const NAMES: &str =
    "AS f(outcome, sku, location, on_hand, reserved, safety_stock, waiting, in_transit,
       backorder_limit, unsellable, available, frozen, on_sale_from, on_sale_until, version,
       updated_at, next_cursor)";

/// A parameter of a query, and its type: then a query takes one round trip.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection to the database.
pub struct Feed {
    client: Client,
    notifications: mpsc::Receiver<String>,
    connection: AbortHandle,
}

/// A page of levels.
pub struct Page {
    /// The levels.
    pub levels: Vec<Level>,
    /// How long ago the oldest change in it was, in seconds.
    pub oldest: Option<f64>,
    /// What comes next.
    pub end: End,
}

/// How a page ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// That was all. Keep the cursor.
    CaughtUp(String),
    /// There is more: ask again with this cursor.
    MoreChanges(String),
    /// There are more levels: ask again with this cursor.
    MoreLevels(String),
    /// These were all levels. The cursor is for what changed since.
    Complete(String),
    /// The cursor is of another life of the database: begin anew.
    Resynchronise,
}

/// Sets what every connection has: it ends where the peer is gone, and writes to no standby.
pub fn prepare(config: &mut Config, time_limit: Duration) {
    config
        .connect_timeout(time_limit)
        .tcp_user_timeout(KEEPALIVE * 2)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE / 5)
        .keepalives_retries(5)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    if config.get_application_name().is_none() {
        config.application_name("pg-stock-cache");
    }
}

/// The same connection to each of its hosts alone.
fn each_host(config: &Config, time_limit: Duration) -> Vec<Config> {
    let (hosts, addresses, ports) =
        (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let to = |nth: usize| {
        let mut one = without_hosts(config);
        match hosts.get(nth) {
            Some(Host::Tcp(name)) => drop(one.host(name)),
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        addresses.get(nth).map(|address| one.hostaddr(*address));
        ports.get(nth).or(ports.first()).map(|port| one.port(*port));
        prepare(&mut one, time_limit);
        one
    };
    (0..hosts.len().max(addresses.len())).map(to).collect()
}

/// What is said of a connection beside its hosts, and what [`prepare`] sets.
fn without_hosts(config: &Config) -> Config {
    let mut one = Config::new();
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .keepalives(config.get_keepalives());
    config.get_user().map(|user| one.user(user));
    config.get_password().map(|password| one.password(password));
    config.get_dbname().map(|name| one.dbname(name));
    config.get_options().map(|options| one.options(options));
    config.get_application_name().map(|name| one.application_name(name));
    one
}

impl Feed {
    /// Connects to the first of its hosts that can be written to; encrypted, to a server that
    /// proves its name, where `sslmode=require` asks for it.
    ///
    /// # Errors
    /// If no server can be reached in time, or all refuse: the error of the last one.
    pub async fn connect(config: &Config, time_limit: Duration) -> Result<Feed, Error> {
        // Each host has its own time: one that is silent must not use up that of the next.
        let hosts = each_host(config, time_limit);
        let (last, others) = hosts.split_last().unwrap_or((config, &[]));
        for host in others {
            match Feed::connect_to(host, time_limit).await {
                Err(error) => debug!("{error}; trying the next host"),
                connected => return connected,
            }
        }
        Feed::connect_to(last, time_limit).await
    }

    async fn connect_to(config: &Config, time_limit: Duration) -> Result<Feed, Error> {
        let (sender, notifications) = mpsc::channel(WAITING_MAX);
        let what = "connecting to PostgreSQL";
        let (client, connection) = if config.get_ssl_mode() == SslMode::Require {
            let tls = MakeTlsConnector::new(native_tls::TlsConnector::new()?);
            let (client, connection) = limited(what, time_limit, config.connect(tls)).await?;
            (client, tokio::spawn(drive(connection, sender)))
        } else {
            let (client, connection) = limited(what, time_limit, config.connect(NoTls)).await?;
            (client, tokio::spawn(drive(connection, sender)))
        };
        Ok(Feed { client, notifications, connection: connection.abort_handle() })
    }

    /// Listens on the channel of changes.
    ///
    /// # Errors
    /// If the server refuses, as a standby does.
    pub async fn listen(&self, channel_prefix: &str, time_limit: Duration) -> Result<(), Error> {
        let channel = format!("{channel_prefix}_changed").replace('"', "\"\"");
        let listening = format!("LISTEN \"{channel}\"");
        limited("LISTEN", time_limit, self.client.batch_execute(&listening)).await
    }

    /// The next notification.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn notification(&mut self) -> Result<String, Error> {
        self.notifications.recv().await.ok_or(Error::Disconnected)
    }

    /// A notification that is waiting already.
    pub fn waiting(&mut self) -> Option<String> {
        self.notifications.try_recv().ok()
    }

    /// What changed since a cursor.
    ///
    /// # Errors
    /// If the database cannot be asked, or not in time.
    pub async fn changes_since(&self, cursor: &str, time_limit: Duration) -> Result<Page, Error> {
        let sql = format!("{COLUMNS} FROM stock.changes_since($1, $2) {NAMES}");
        match self.page("stock.changes_since", &sql, Some(cursor), time_limit).await {
            // What is no cursor at all leads nowhere either.
            Err(Error::Postgres(error))
                if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) =>
            {
                warn!("the cursor in Redis is none of pg_stock");
                Ok(Page { levels: Vec::new(), oldest: None, end: End::Resynchronise })
            }
            answer => answer,
        }
    }

    /// All levels, from the beginning or going on at a cursor.
    ///
    /// # Errors
    /// If the database cannot be asked, or not in time.
    pub async fn snapshot(
        &self,
        cursor: Option<&str>,
        time_limit: Duration,
    ) -> Result<Page, Error> {
        let sql = format!("{COLUMNS} FROM stock.snapshot($1, $2) {NAMES}");
        self.page("stock.snapshot", &sql, cursor, time_limit).await
    }

    async fn page(
        &self,
        what: &'static str,
        sql: &str,
        cursor: Option<&str>,
        limit: Duration,
    ) -> Result<Page, Error> {
        let params: [Param<'_>; 2] = [(&cursor, Type::TEXT), (&PAGE_ROWS, Type::INT4)];
        let mut rows = limited(what, limit, self.client.query_typed(sql, &params)).await?;
        let last = rows
            .pop()
            .ok_or_else(|| Error::NotUnderstood(format!("{what} answered no closing row")))?;
        let oldest = rows
            .iter()
            .filter_map(|row| row.try_get::<_, Option<f64>>("age").ok().flatten())
            .reduce(f64::max);
        let levels = rows.iter().map(|row| level(row, 1)).collect::<Result<_, _>>()?;
        Ok(Page { levels, oldest, end: end(&last)? })
    }

    /// The levels of these SKUs and locations, as they are now, in the same order; `None` where
    /// there is none.
    ///
    /// # Errors
    /// If the database cannot be asked, or not in time.
    pub async fn levels(
        &self,
        named: &[(String, String)],
        limit: Duration,
    ) -> Result<Vec<Option<Level>>, Error> {
        const SQL: &str =
            "SELECT w.sku, w.location, l.on_hand, l.reserved, l.safety_stock, l.waiting,
                    l.in_transit, l.backorder_limit, l.unsellable, l.frozen, l.on_sale_from,
                    l.on_sale_until, l.version
               FROM unnest($1, $2) WITH ORDINALITY AS w(sku, location, nth)
               LEFT JOIN LATERAL (
                    SELECT v.on_hand, v.reserved, v.safety_stock, v.waiting, v.in_transit,
                           v.backorder_limit, v.unsellable, v.frozen, v.on_sale_from,
                           v.on_sale_until, v.version
                      FROM stock.levels v
                     WHERE v.sku = w.sku AND v.location = w.location) l ON true
              ORDER BY w.nth";
        let (skus, locations): (Vec<&str>, Vec<&str>) =
            named.iter().map(|(sku, at)| (&**sku, &**at)).unzip();
        let params: [Param<'_>; 2] = [(&skus, Type::TEXT_ARRAY), (&locations, Type::TEXT_ARRAY)];
        let rows =
            limited("reading stock.levels", limit, self.client.query_typed(SQL, &params)).await?;
        let known = |row: &Row| row.try_get::<_, Option<i64>>(12).map(|version| version.is_some());
        rows.iter()
            .map(|row| if known(row)? { level(row, 0).map(Some) } else { Ok(None) })
            .collect()
    }

    /// Tells of a rebuild on the channel of alerts.
    ///
    /// # Errors
    /// If the database cannot be asked, or not in time.
    pub async fn alert_rebuilt(
        &self,
        prefix: &str,
        checked: usize,
        wrong: usize,
        limit: Duration,
    ) -> Result<(), Error> {
        let alert = serde_json::json!({"alerts": [{"alert": "cache_rebuilt", "checked": checked, "wrong": wrong}]});
        let (channel, text) = (format!("{prefix}_alert"), alert.to_string());
        let params: [Param<'_>; 2] = [(&channel, Type::TEXT), (&text, Type::TEXT)];
        let telling = self.client.query_typed("SELECT pg_catalog.pg_notify($1, $2)", &params);
        limited("pg_notify", limit, telling).await.map(drop)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Drives a connection, and passes its notifications on.
async fn drive<S, T>(mut connection: Connection<S, T>, sender: mpsc::Sender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(message))) => {
                if sender.try_send(message.payload().to_owned()).is_err() {
                    debug!("a notification was dropped: too many are waiting");
                }
            }
            Some(Ok(AsyncMessage::Notice(notice))) => debug!("PostgreSQL: {notice}"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return warn!("{}", Error::from(error)),
            None => return,
        }
    }
}

async fn limited<T>(
    what: &'static str,
    limit: Duration,
    asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    let answer =
        tokio::time::timeout(limit, asking).await.map_err(|_| Error::TimedOut(what, limit))?;
    Ok(answer?)
}

fn end(row: &Row) -> Result<End, Error> {
    let outcome: &str = row.try_get(0)?;
    let cursor: Option<String> = row.try_get("next_cursor")?;
    match (outcome, cursor) {
        ("caught_up", Some(cursor)) => Ok(End::CaughtUp(cursor)),
        ("more_changes", Some(cursor)) => Ok(End::MoreChanges(cursor)),
        ("more_levels", Some(cursor)) => Ok(End::MoreLevels(cursor)),
        ("complete", Some(cursor)) => Ok(End::Complete(cursor)),
        ("resynchronise", _) => Ok(End::Resynchronise),
        (outcome, _) => Err(Error::NotUnderstood(format!("a page that ends with {outcome}"))),
    }
}

/// The level in a row, in columns that follow each other: SKU, location, counters, frozen, sale
/// window, version.
fn level(row: &Row, first: usize) -> Result<Level, Error> {
    let count = |nth: usize| row.try_get::<_, i64>(first + nth);
    let (on_hand, reserved, safety_stock) = (count(2)?, count(3)?, count(4)?);
    Ok(Level {
        sku: row.try_get(first)?,
        location: row.try_get(first + 1)?,
        available: 0,
        on_hand,
        reserved,
        safety_stock,
        waiting: count(5)?,
        in_transit: count(6)?,
        backorder_limit: count(7)?,
        unsellable: count(8)?,
        frozen: row.try_get(first + 9)?,
        on_sale_from: moment(row, first + 10)?,
        on_sale_until: moment(row, first + 11)?,
        version: row.try_get(first + 12)?,
    }
    .counted())
}

/// A moment that may be NULL; one that is too late to be told is as late as can be told.
fn moment(row: &Row, column: usize) -> Result<Option<Timestamp>, Error> {
    let at: Option<SystemTime> = row.try_get(column)?;
    Ok(at.map(|at| Timestamp::try_from(at).unwrap_or(Timestamp::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_postgres::Config;

    use super::{each_host, prepare};

    const LIMIT: Duration = Duration::from_secs(7);

    fn prepared(text: &str) -> Config {
        let mut config: Config = text.parse().expect("a connection");
        prepare(&mut config, LIMIT);
        config
    }

    /// Two hosts alone, where all that can be said of a connection beside them is said.
    fn alone(both: &str, first: &str, second: &str) {
        const REST: &str = "user=u password=p dbname=d options=-cwork_mem=1MB application_name=n
            sslmode=require sslnegotiation=direct channel_binding=require keepalives=0";
        let with_rest = |hosts: &str| prepared(&format!("{hosts} {REST}"));
        assert_eq!(each_host(&with_rest(both), LIMIT), [with_rest(first), with_rest(second)]);
    }

    #[test]
    fn each_host_is_the_same_connection_to_one_of_them() {
        alone("host=a,/b port=1,2", "host=a port=1", "host=/b port=2");
        alone("host=a,b port=7", "host=a port=7", "host=b port=7");
        alone("host=a,b", "host=a", "host=b");
        alone("hostaddr=10.0.0.1,10.0.0.2", "hostaddr=10.0.0.1", "hostaddr=10.0.0.2");
        let (first, second) = ("host=a hostaddr=10.0.0.1", "host=b hostaddr=10.0.0.2");
        alone("host=a,b hostaddr=10.0.0.1,10.0.0.2", first, second);
    }
}
