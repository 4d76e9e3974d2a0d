//! A buyer can be forgotten: his name stands nowhere, and all else is as it was.

use postgres::Client;

use super::support::{at_once, call, database, finish, outcome, raised, stocked, value};

/// The tables of stock in which a text stands somewhere.
fn tables_with(client: &mut Client, text: &str) -> Vec<String> {
    let tables = "SELECT relname::text FROM pg_class
                   WHERE relnamespace = 'stock'::regnamespace AND relkind = 'r' ORDER BY 1";
    let tables: Vec<String> =
        client.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let has = |client: &mut Client, table: &str| {
        let sql = format!("SELECT count(*) FROM stock.{table} t WHERE t::text LIKE '%{text}%'");
        value(client, &sql) != "0"
    };
    tables.into_iter().filter(|table| has(client, table)).collect()
}

#[test]
fn a_buyer_who_is_erased_stands_nowhere() {
    let database = database();
    let mut client = database.connect();
    for sku in ["a", "b"] {
        stocked(&mut client, sku, "m", 20);
    }
    outcome(&mut client, "set_limits('l', 'a', 'm', NULL, 5)");
    for (key, buyer) in [("o1", "annika"), ("o2", "annika"), ("o3", "bert"), ("o4", "annika")] {
        outcome(&mut client, &format!("reserve_stock('{key}', 'a', 'm', 1, '1 day', '{buyer}')"));
    }
    outcome(&mut client, "confirm_stock('o2')");
    outcome(&mut client, "release_stock('o4')");
    outcome(&mut client, "sell_stock('o5', 'b', 'm', 2, 'annika')");
    client
        .batch_execute(
            "CREATE TABLE carts AS SELECT 'c' AS key, 'a' AS sku, 'm' AS location, 900 AS quantity,
                    'annika'::text AS buyer, now() + interval '1 hour' AS expires_at",
        )
        .unwrap();
    client.batch_execute("CALL stock.import('carts', 'carts', 'hold')").unwrap();
    assert_eq!(
        tables_with(&mut client, "annika"),
        ["buyer_quantity", "hold", "import_error", "ledger"]
    );

    // What verify() says of him is kept without his name.
    client.batch_execute("UPDATE stock.buyer_quantity SET quantity = quantity + 1").unwrap();
    assert_ne!(value(&mut client, "SELECT stock.run_verification()"), "0");
    client.batch_execute("UPDATE stock.buyer_quantity SET quantity = quantity - 1").unwrap();
    let first = "SELECT first FROM stock.verification";
    assert!(value(&mut client, first).starts_with("the count of a buyer differs"), "named");

    let before = value(&mut client, "SELECT count(*) FROM stock.ledger");
    assert_eq!(value(&mut client, "SELECT stock.erase_buyer('annika', 'p-7')"), "11");
    assert_eq!(tables_with(&mut client, "annika"), [""; 0]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    let entry = "SELECT concat_ws(' ', count(*), min(reason), bool_or(sku IS NOT NULL)) FROM
                   stock.ledger_rows WHERE operation = 'erase'";
    assert_eq!(value(&mut client, entry), "1 a buyer was replaced in 11 rows f");
    let of_key = "SELECT count(*) FROM stock.ledger_rows g, stock.reservation(g.key)
                   WHERE g.operation = 'erase'";
    assert_eq!(value(&mut client, of_key), "0", "its key is none of a reservation");
    let after = "SELECT count(*) - 1 FROM stock.ledger";
    assert_eq!(value(&mut client, after), before);
    assert_eq!(value(&mut client, "SELECT stock.erase_buyer('annika', 'p-7')"), "0");

    // What was held is confirmed; what he has counts for the pseudonym; a repeat is no repeat.
    outcome(&mut client, "confirm_stock('o1')");
    assert_eq!(raised(&mut client, "reserve_stock('o2', 'a', 'm', 1, '1 day', 'annika')"), "ST003");
    let again = call(&mut client, "reserve_stock('o2', 'a', 'm', 1, '1 day', 'p-7')").unwrap();
    assert!(again[0].replayed);
    let limited = "try_reserve_stock('o6', 'a', 'm', 4, '1 day', 'p-7')";
    assert_eq!(outcome(&mut client, limited), "buyer_limit_exceeded");

    // Another is added to the same pseudonym.
    value(&mut client, "SELECT stock.erase_buyer('bert', 'p-7')");
    let count = "SELECT string_agg(buyer || ' ' || quantity, ', ') FROM stock.buyer_quantity
                  WHERE sku = 'a'";
    assert_eq!(value(&mut client, count), "p-7 3");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");

    finish(database);
}

#[test]
fn the_past_is_closed_again_and_who_asks_wrongly_is_told_so() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 20);
    outcome(&mut client, "sell_stock('o', 'a', 'm', 2, 'annika')");
    value(&mut client, "SELECT stock.erase_buyer('annika', 'p-7')");
    let error = client.batch_execute("UPDATE stock.ledger SET buyer = 'x'").expect_err("closed");
    assert_eq!(super::support::sqlstate(&error), "42501");
    for call in ["NULL, 'p'", "'a', NULL", "'a', 'a'", "'a', ''", "'a', ' p'"] {
        let error =
            client.simple_query(&format!("SELECT stock.erase_buyer({call})")).expect_err(call);
        assert_eq!(super::support::sqlstate(&error), "22023", "{call}");
    }
    finish(database);
}

/// He orders while he is erased: whatever of it is seen, the books agree, and what was ordered
/// before the call is erased whole.
#[test]
fn a_buyer_who_orders_meanwhile_is_erased_order_by_order() {
    let database = database();
    let mut client = database.connect();
    for sku in 0..10 {
        stocked(&mut client, &format!("s{sku}"), "m", 1_000);
    }
    let problems = at_once(database, 5, |number, client| {
        let mut problems = 0;
        for round in 0..20 {
            if number == 0 {
                value(client, "SELECT stock.erase_buyer('bob', 'p-8')");
                let found = value(client, "SELECT count(*) FROM stock.verify()");
                problems += found.parse::<i64>().expect("a number");
            } else {
                let sku = (number * 3 + round) % 10;
                let order = format!("'o{number} {round}', 's{sku}', 'm', 1, '1 day', 'bob'");
                outcome(client, &format!("reserve_stock({order})"));
            }
        }
        problems
    });
    assert_eq!(problems.iter().sum::<i64>(), 0);
    value(&mut client, "SELECT stock.erase_buyer('bob', 'p-8')");
    assert_eq!(tables_with(&mut client, "bob"), [""; 0]);
    let held = "SELECT count(*) FROM stock.holds WHERE buyer = 'p-8'";
    assert_eq!(value(&mut client, held), "80");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}
