//! The recipes of README.md, as they stand there: checkout, and the payment that must not be lost.

use super::documents::{blocks, read};
use super::support::{call, database, finish, outcome, sqlstate, stocked, value};
use postgres::Client;

/// The SQL block of README.md that contains a text.
fn recipe(text: &str) -> String {
    let blocks = blocks(&read("README.md"), "sql");
    blocks
        .into_iter()
        .find(|block| block.contains(text))
        .unwrap_or_else(|| panic!("no block with {text}"))
}

fn shop(client: &mut Client) {
    client
        .batch_execute(
            "CREATE TABLE orders (id text PRIMARY KEY, sku text, quantity bigint,
             status text DEFAULT 'new');
             CREATE TABLE payments (id text PRIMARY KEY, order_id text)",
        )
        .unwrap();
}

#[test]
fn checkout_writes_order_and_hold_or_neither() {
    for text in ["'order-7', 'apple', 2", "'order-8', 'apple', 1"] {
        let database = database();
        let mut client = database.connect();
        shop(&mut client);
        stocked(&mut client, "apple", "main", 2);
        client.batch_execute(&recipe(text)).unwrap();
        let both = "SELECT count(*) FROM orders o JOIN stock.holds h ON h.key = o.id";
        assert_eq!(value(&mut client, both), "1");
        client
            .batch_execute(
                "DELETE FROM orders; SELECT stock.sell_stock('rest', 'apple', 'main', available) \
                 FROM stock.levels WHERE available > 0",
            )
            .unwrap();
        let again = recipe(text).replace("order-", "late-");
        let error = client.batch_execute(&again).expect_err("it is sold out");
        assert_eq!(sqlstate(&error), "ST001", "{error:?}");
        client.batch_execute("ROLLBACK").unwrap();
        assert_eq!(
            value(&mut client, "SELECT count(*) FROM orders"),
            "0",
            "the order went with it"
        );
        finish(database);
    }
}

#[test]
fn a_payment_is_kept_whatever_became_of_the_goods() {
    let database = database();
    let mut client = database.connect();
    shop(&mut client);
    client.batch_execute(&recipe("payment_arrived")).unwrap();
    stocked(&mut client, "apple", "main", 3);
    stocked(&mut client, "pear", "main", 9);
    let reserve = |client: &mut Client, key: &str, ttl: &str| {
        client.batch_execute(&format!("INSERT INTO orders VALUES ('{key}', 'apple', 1)")).unwrap();
        outcome(client, &format!("reserve_stock('{key}', 'apple', 'main', 1, '{ttl}')"));
        value(client, "SELECT pg_sleep(0.01)");
    };
    let mut payments = 0;
    let mut pays = |client: &mut Client, payment: &str, key: &str, told: &str, status: &str| {
        payments += 1;
        for (turn, told) in [("first", told), ("second", "known")] {
            let said = value(client, &format!("SELECT payment_arrived('{payment}', '{key}')"));
            assert_eq!(said, told, "{key}, {turn}");
            assert_eq!(
                value(client, &format!("SELECT status FROM orders WHERE id = '{key}'")),
                status,
                "{key}, {turn}"
            );
        }
        assert_eq!(value(client, "SELECT count(*) FROM payments"), payments.to_string(), "{key}");
    };
    reserve(&mut client, "in time", "1 hour");
    pays(&mut client, "p1", "in time", "confirmed", "paid");
    reserve(&mut client, "late", "1 ms");
    pays(&mut client, "p2", "late", "confirmed_late", "paid");
    reserve(&mut client, "gone", "1 ms");
    outcome(&mut client, "sell_stock('quick', 'apple', 'main', 1)");
    pays(&mut client, "p3", "gone", "reservation_expired", "paid, but reservation_expired");
    client.batch_execute("SELECT stock.receive_stock('more', 'apple', 'main', 2)").unwrap();
    reserve(&mut client, "given back", "1 hour");
    outcome(&mut client, "release_stock('given back')");
    pays(&mut client, "p4", "given back", "already_released", "paid, but already_released");
    client.batch_execute("INSERT INTO orders VALUES ('unheard of', 'apple', 1)").unwrap();
    pays(&mut client, "p5", "unheard of", "unknown_reservation", "paid, but unknown_reservation");
    reserve(&mut client, "in parts", "1 hour");
    outcome(&mut client, "confirm_stock('in parts', operation_key => 'by hand')");
    pays(&mut client, "p6", "in parts", "already_confirmed", "paid");
    // Of two lines one was given back.
    client.batch_execute("INSERT INTO orders VALUES ('both', 'apple', 1)").unwrap();
    let line = |sku: &str| format!(r#"{{"sku":"{sku}","location":"main","quantity":1}}"#);
    call(&mut client, &format!("reserve_stock('both', '[{},{}]')", line("pear"), line("apple")))
        .unwrap();
    call(&mut client, &format!("confirm_stock('both', '[{}]', 'pear')", line("pear"))).unwrap();
    call(&mut client, "release_stock('both')").unwrap();
    pays(
        &mut client,
        "p7",
        "both",
        "already_confirmed, already_released",
        "paid, but already_confirmed, already_released",
    );
    finish(database);
}
