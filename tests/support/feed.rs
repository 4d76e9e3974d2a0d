//! Those who follow the change feed: one who pulls, one who listens. Each ends up with what it
//! believes the levels are.

use std::collections::BTreeMap;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use pg_stock_tests::Database;
use postgres::Client;

use super::{database, outcome, sqlstate, stocked, value};

/// Version, on_hand and reserved of each level.
pub type Levels = BTreeMap<(String, String), (i64, i64, i64)>;

/// What the levels are.
pub fn levels(client: &mut Client) -> Levels {
    let rows = client
        .query("SELECT sku, location, version, on_hand, reserved FROM stock.level", &[])
        .expect("levels");
    rows.iter()
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3), row.get(4))))
        .collect()
}

/// Receives one unit.
pub fn receive(client: &mut Client, key: &str, sku: &str) {
    assert_eq!(outcome(client, &format!("receive_stock('{key}', '{sku}', 'm', 1)")), "received");
}

/// A database in which something has happened, so that a generation can begin.
pub fn shop() -> Database<'static> {
    let database = database();
    stocked(&mut database.connect(), "first", "m", 1);
    database
}

/// The SQLSTATE that a statement must raise.
pub fn refused(client: &mut Client, sql: &str) -> String {
    sqlstate(&client.simple_query(sql).expect_err(sql))
}

/// The outcomes that a call with a cursor gives.
pub fn answer(client: &mut Client, function: &str, cursor: &str) -> String {
    value(client, &format!("SELECT string_agg(outcome, ' ') FROM stock.{function}('{cursor}')"))
}

/// One who asks what has changed.
#[derive(Clone)]
pub struct Follower {
    /// Where it stands.
    pub cursor: String,
    /// What it knows.
    pub levels: Levels,
}

impl Follower {
    /// One that has read all levels, a few at a time.
    pub fn begin(client: &mut Client) -> Follower {
        let (mut levels, mut cursor) = (Levels::new(), None);
        loop {
            let rows =
                client.query("SELECT * FROM stock.snapshot($1, 7)", &[&cursor]).expect("a page");
            let (last, told) = rows.split_last().expect("a closing row");
            told.iter().for_each(|row| learn(&mut levels, row));
            cursor = last.get("next_cursor");
            match last.get("outcome") {
                "more_levels" => {}
                "complete" => return Follower { cursor: cursor.expect("a cursor"), levels },
                other => panic!("{other}"),
            }
        }
    }

    /// Asks once; gives the outcome.
    pub fn ask(&mut self, client: &mut Client, most: i32) -> String {
        let rows = client
            .query("SELECT * FROM stock.changes_since($1, $2)", &[&self.cursor, &most])
            .expect("changes");
        let (last, told) = rows.split_last().expect("a closing row");
        told.iter().for_each(|row| learn(&mut self.levels, row));
        let outcome: String = last.get("outcome");
        if let Some(cursor) = last.get("next_cursor") {
            self.cursor = cursor;
        }
        outcome
    }

    /// Asks until it has caught up; gives how many levels it was told of.
    pub fn catch_up(&mut self, client: &mut Client) -> usize {
        let before = self.levels.clone();
        loop {
            match self.ask(client, 3).as_str() {
                "more_changes" => {}
                "caught_up" => break,
                other => panic!("{other}"),
            }
        }
        self.levels.iter().filter(|(at, state)| before.get(at) != Some(state)).count()
    }
}

fn learn(levels: &mut Levels, row: &postgres::Row) {
    let at = (row.get("sku"), row.get("location"));
    let state = (row.get("version"), row.get("on_hand"), row.get("reserved"));
    let older = levels.insert(at, state).is_some_and(|before| before.0 > state.0);
    assert!(!older, "a level went back");
}

/// One who listens.
pub struct Listener {
    client: Client,
    /// What it knows.
    pub levels: Levels,
    /// The messages on the channel of changes.
    pub messages: Vec<serde_json::Value>,
    /// The messages on the channel of alerts.
    pub alerts: Vec<serde_json::Value>,
}

impl Listener {
    /// One that listens from now on.
    pub fn begin(mut client: Client) -> Listener {
        client.batch_execute("LISTEN stock_changed; LISTEN stock_alert").expect("listening");
        Listener { client, levels: Levels::new(), messages: Vec::new(), alerts: Vec::new() }
    }

    /// Takes what has come, and what comes in the next time.
    pub fn hear(&mut self, time: Duration) {
        self.client.simple_query("SELECT 1").expect("a sign of life");
        let mut notifications = self.client.notifications();
        let mut heard = notifications.timeout_iter(time);
        while let Some(notification) = heard.next().expect("notifications") {
            let payload = notification.payload();
            assert!(payload.len() < 8_000 && payload.is_ascii());
            let message: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            match notification.channel() {
                "stock_changed" => self.messages.push(message),
                "stock_alert" => self.alerts.push(message),
                other => panic!("{other}"),
            }
        }
        for level in
            self.messages.iter().flat_map(|message| message["levels"].as_array().expect("levels"))
        {
            let text = |field: &str| level[field].as_str().expect("text").to_owned();
            let number = |field: &str| level[field].as_i64().expect("a number");
            let state = (number("version"), number("on_hand"), number("reserved"));
            let known = self.levels.entry((text("sku"), text("location"))).or_insert(state);
            *known = state.max(*known);
        }
    }

    /// The alerts heard so far, as words with their SKUs.
    pub fn alarms(&self) -> Vec<String> {
        let each =
            self.alerts.iter().flat_map(|message| message["alerts"].as_array().expect("alerts"));
        each.map(|alert| {
            format!(
                "{} {}",
                alert["alert"].as_str().expect("a word"),
                alert["sku"].as_str().expect("a SKU")
            )
        })
        .collect()
    }
}
