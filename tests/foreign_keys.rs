//! A shop whose order lines refer to the levels by a foreign key: each insert of a line locks its
//! level's key until the order commits. That must not get in the way of a reserve, a confirm, a
//! release, or the sweep.

use std::sync::atomic::{AtomicUsize, Ordering};

use postgres::Client;

use super::support::{at_once, call, database, finish, outcome, raised, stocked, value};

const SHOP: &str =
    "CREATE TABLE order_line (number text, sku text COLLATE \"C\", location text COLLATE \"C\",
                                             FOREIGN KEY (sku, location) REFERENCES stock.level)";
const LEVELS: usize = 12;
const LINES: usize = 10;
const SESSIONS: usize = 6;
const ORDERS: usize = 15;

/// Ten of the levels, beginning with another one and going the other way in every second order.
fn skus(number: usize) -> Vec<String> {
    let mut skus: Vec<usize> = (0..LINES).map(|line| (number + line) % LEVELS).collect();
    if number % 2 == 1 {
        skus.reverse();
    }
    skus.iter().map(|sku| format!("s{sku}")).collect()
}

/// What a shop does in one transaction: its own rows first, then the stock.
fn order(client: &mut Client, number: usize, call: &str) {
    let skus = skus(number);
    let rows: Vec<String> = skus.iter().map(|sku| format!("('o{number}', '{sku}', 'm')")).collect();
    let lines: Vec<String> = skus
        .iter()
        .map(|sku| format!(r#"{{"sku":"{sku}","location":"m","quantity":1}}"#))
        .collect();
    let call = call.replace("KEY", &format!("o{number}")).replace("LINES", &lines.join(","));
    let text = format!(
        "BEGIN; INSERT INTO order_line VALUES {}; SELECT stock.{call}; COMMIT",
        rows.join(",")
    );
    client.batch_execute(&text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

#[test]
fn orders_whose_lines_refer_to_levels_never_deadlock() {
    for direct in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(SHOP).unwrap();
        (0..LEVELS).for_each(|sku| stocked(&mut client, &format!("s{sku}"), "m", 10_000));
        for (number, act) in
            ["reserve_stock('KEY', '[LINES]')", "confirm_stock('KEY')", "return_stock('KEY')"]
                .into_iter()
                .chain(["reserve_stock('again KEY', '[LINES]')", "release_stock('again KEY')"])
                .enumerate()
        {
            let done = AtomicUsize::new(0);
            at_once(database, SESSIONS, |session, client| {
                client.batch_execute(&format!("SET pg_stock.direct_access = {direct}")).unwrap();
                for nth in 0..ORDERS {
                    order(client, session * ORDERS + nth, act);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert_eq!(done.into_inner(), SESSIONS * ORDERS, "step {number}");
        }
        finish(database);
    }
}

#[test]
fn a_foreign_key_to_the_levels_leaves_the_short_way_open() {
    let database = database();
    let mut client = database.connect();
    client.batch_execute(SHOP).unwrap();
    stocked(&mut client, "a", "m", 10);
    let mut fresh = database.connect();
    for text in ["reserve_stock('k', 'a', 'm', 1)", "confirm_stock('k')"] {
        fresh.simple_query(&format!("SELECT * FROM stock.{text}")).unwrap();
    }
    assert_eq!(value(&mut fresh, super::direct::PLANNED), "0");
    // One that refers to what changes must be asked.
    client
        .batch_execute(
            "ALTER TABLE stock.level ADD UNIQUE (sku, version);
             CREATE TABLE seen (sku text COLLATE \"C\", version bigint,
                                FOREIGN KEY (sku, version) REFERENCES stock.level (sku, version));
             INSERT INTO seen SELECT sku, version FROM stock.level",
        )
        .unwrap();
    assert_eq!(raised(&mut client, "try_reserve_stock('l', 'a', 'm', 1)"), "23503");
    client.batch_execute("DROP TABLE seen").unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('l', 'a', 'm', 1)"), "reserved");
    finish(database);
}

#[test]
fn an_open_order_keeps_nobody_from_its_levels() {
    for direct in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client
            .batch_execute(&format!(
                "{SHOP}; SET pg_stock.direct_access = {direct}; SET lock_timeout = '1s'"
            ))
            .unwrap();
        stocked(&mut client, "a", "m", 10);
        assert_eq!(
            outcome(&mut client, "try_reserve_stock('overdue', 'a', 'm', 1, '1 microsecond')"),
            "reserved"
        );
        let mut shop = database.connect();
        shop.batch_execute("BEGIN; INSERT INTO order_line VALUES ('o', 'a', 'm')").unwrap();
        let swept = client.query_one("SELECT * FROM stock.expire_reservations()", &[]).unwrap();
        assert_eq!(
            (swept.get::<_, i64>(0), swept.get::<_, i64>("levels_busy")),
            (1, 0),
            "{direct}"
        );
        for text in [
            "try_reserve_stock('k', 'a', 'm', 1)",
            "try_confirm_stock('k')",
            "try_return_stock('k')",
        ] {
            assert_eq!(call(&mut client, text).unwrap().len(), 1, "{direct}");
        }
        shop.batch_execute("COMMIT").unwrap();
        finish(database);
    }
}

#[test]
fn a_reserve_that_is_not_committed_holds_up_no_order() {
    let database = database();
    let (mut buyer, mut shop) = (database.connect(), database.connect());
    buyer.batch_execute(SHOP).unwrap();
    stocked(&mut buyer, "a", "m", 10);
    buyer.batch_execute("BEGIN; SELECT stock.reserve_stock('k', 'a', 'm', 1)").unwrap();
    shop.batch_execute("SET lock_timeout = '5s'; INSERT INTO order_line VALUES ('o', 'a', 'm')")
        .unwrap();
    buyer.batch_execute("COMMIT").unwrap();
    finish(database);
}
