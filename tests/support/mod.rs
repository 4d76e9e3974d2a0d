//! The server that the tests share, and short ways to say what they do.

pub mod feed;

use std::sync::{Barrier, OnceLock};

use pg_stock_tests::{Cluster, Database};
use postgres::{Client, Error, Row, SimpleQueryMessage};

/// Both ways to the tables.
pub const WAYS: [&str; 2] = ["SET pg_stock.direct_access = on", "SET pg_stock.direct_access = off"];

/// One server for all tests; each test has a database of its own. No statement hangs for ever.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start(&["fsync=off", "deadlock_timeout=200ms", "statement_timeout=120s"])
    })
}

/// A new database with the extension.
pub fn database() -> Database<'static> {
    cluster().database()
}

/// The tables that the rules are about: what is kept of levels, reservations and goods.
pub const TABLES: [&str; 9] = [
    "level",
    "hold",
    "ledger",
    "buyer_quantity",
    "waiting",
    "shipment",
    "lot",
    "hold_lot",
    "ledger_lot",
];

/// One answer, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub line: i32,
    pub sku: String,
    pub location: String,
    pub quantity: i64,
    pub outcome: String,
    pub state: String,
    pub available: Option<i64>,
    pub version: Option<i64>,
    pub replayed: bool,
}

impl From<&Row> for Answer {
    fn from(row: &Row) -> Self {
        Answer {
            line: row.get("line"),
            sku: row.get("sku"),
            location: row.get("location"),
            quantity: row.get("quantity"),
            outcome: row.get("outcome"),
            state: row.get("state"),
            available: row.get("available"),
            version: row.get("version"),
            replayed: row.get("replayed"),
        }
    }
}

/// Calls `SELECT * FROM stock.<call>`.
pub fn call(client: &mut Client, call: &str) -> Result<Vec<Answer>, Error> {
    let rows = client.query(&format!("SELECT * FROM stock.{call}"), &[])?;
    Ok(rows.iter().map(Answer::from).collect())
}

/// Calls a function that must answer one row, and gives its outcome.
pub fn outcome(client: &mut Client, text: &str) -> String {
    let rows = call(client, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(rows.len(), 1, "{text}: {rows:?}");
    rows[0].outcome.clone()
}

/// The SQLSTATE of an error; the text of the error if it has none.
pub fn sqlstate(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// The SQLSTATE that a call must raise.
pub fn raised(client: &mut Client, text: &str) -> String {
    match call(client, text) {
        Ok(rows) => panic!("{text} must raise, but answered {rows:?}"),
        Err(error) => sqlstate(&error),
    }
}

/// Creates a level with this many units.
pub fn stocked(client: &mut Client, sku: &str, location: &str, units: i64) {
    let text =
        format!("try_receive_stock('stock of {sku} {location}', '{sku}', '{location}', {units})");
    assert_eq!(outcome(client, &text), "received");
}

/// The first column of the first row of a query, as text.
pub fn value(client: &mut Client, sql: &str) -> String {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let first = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
        _ => None,
    });
    first.unwrap_or_else(|| panic!("{sql}: no row"))
}

/// Runs one action on each of many connections, all at once.
pub fn at_once<T: Send>(
    database: Database<'_>,
    many: usize,
    act: impl Fn(usize, &mut Client) -> T + Sync,
) -> Vec<T> {
    let barrier = Barrier::new(many);
    std::thread::scope(|scope| {
        let run = |number| {
            let (act, barrier) = (&act, &barrier);
            scope.spawn(move || {
                let mut client = database.connect();
                // Prepares plans and catalogs, so that the connections really meet.
                client
                    .query(
                        "SELECT * FROM stock.try_reserve_stock('warm', 'no such', 'level', 1)",
                        &[],
                    )
                    .expect("warm");
                barrier.wait();
                act(number, &mut client)
            })
        };
        let threads: Vec<_> = (0..many).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Waits until something is so, for half a minute at most.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < std::time::Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Waits until a backend waits for a lock.
pub fn wait_for_lock(client: &mut postgres::Client, pid: i32) {
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
    );
    for _ in 0..2_000 {
        if value(client, &waits) == "1" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("backend {pid} never waited for a lock");
}

/// The process of a connection's backend.
pub fn backend(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).expect("its process").get(0)
}

/// After each test: every invariant holds, and no deadlock was ever seen.
pub fn finish(database: Database<'_>) {
    let mut client = database.connect();
    pg_stock_tests::invariants::assert_hold(&mut client);
    let deadlocks = value(
        &mut client,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    );
    assert_eq!(deadlocks, "0", "deadlocks");
}
