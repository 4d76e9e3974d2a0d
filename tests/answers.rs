//! What a caller is told is true today, and what he sends is taken for what he sees.

use super::support::{call, database, finish, outcome, raised, stocked, value};

#[test]
fn whole_numbers_pass_and_names_are_what_is_seen_of_them() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let lines = |sku: &str, quantity: &str| format!(r#"[{{"sku":"{sku}","location":"m","quantity":{quantity}}}]"#);
    for (key, quantity) in [("one", "2"), ("two", "2.0"), ("three", "2.000")] {
        assert_eq!(
            outcome(&mut client, &format!("try_reserve_stock('{key}', '{}')", lines("a", quantity))),
            "reserved"
        );
    }
    for quantity in ["1.5", "2.01", "\"2\"", "true"] {
        assert_eq!(raised(&mut client, &format!("try_reserve_stock('four', '{}')", lines("a", quantity))), "22023");
    }
    for sku in ["' a'", "'a '", "E'\\uFEFFa'", "E'a\\u00A0'", "E'a\\tb'", "E'a\\n'", "E'\\u0085a'", "' '"] {
        assert_eq!(raised(&mut client, &format!("receive_stock('goods', {sku}, 'm', 1)")), "22023", "{sku}");
        assert_eq!(raised(&mut client, &format!("receive_stock('goods', 'b', {sku}, 1)")), "22023", "{sku}");
        assert_eq!(raised(&mut client, &format!("try_reserve_stock({sku}, 'a', 'm', 1)")), "22023", "{sku}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.level"), "1", "no phantom was made");
    assert_eq!(outcome(&mut client, "receive_stock('goods', 'Größe 42 ✓', 'Regal 7', 1)"), "received");
    finish(database);
}

#[test]
fn keys_that_pg_stock_makes_itself_are_its_own() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    outcome(&mut client, "reserve_stock('order', 'a', 'm', 1)");
    let calls = [
        "try_reserve_stock('pg_stock:k', 'a', 'm', 1)",
        "try_receive_stock('pg_stock:k', 'a', 'm', 1)",
        "try_confirm_stock('order', NULL, 'pg_stock:settle')",
        r#"reserve_many('[{"key":"pg_stock:k","lines":[{"sku":"a","location":"m","quantity":1}]}]')"#,
    ];
    for text in calls {
        assert_eq!(raised(&mut client, text), "22023", "{text}");
    }
    // An operation key that was the project's own once is the caller's; a settlement does not meet it.
    assert_eq!(outcome(&mut client, "try_release_stock('order', NULL, 'settle')"), "released");
    let settle = r#"settle('[{"key":"order","status":"cancelled"}]')"#;
    assert_eq!(value(&mut client, &format!("SELECT count(*) FROM stock.{settle} WHERE agrees")), "1");
    assert!(call(&mut client, "try_reserve_stock('again', 'pg_stock:sku', 'm', 1)").is_ok(), "a SKU may be called so");
    finish(database);
}
