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

#[test]
fn nothing_is_available_while_a_level_is_frozen() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    outcome(&mut client, "freeze_level('recall', 'a', 'm', 'glass')");
    let said = |client: &mut postgres::Client| {
        let sources = [
            "SELECT stock.available('a', 'm')",
            "SELECT available FROM stock.levels",
            "SELECT available FROM stock.snapshot() WHERE sku = 'a'",
            "SELECT available FROM stock.try_reserve_stock('o', 'a', 'm', 6)",
            "SELECT available FROM stock.ledger ORDER BY position DESC LIMIT 1",
        ];
        sources.map(|source| value(client, source))
    };
    assert_eq!(said(&mut client), ["0"; 5]);
    // Goods may come and be counted meanwhile; the page still offers nothing.
    assert_eq!(outcome(&mut client, "receive_stock('more', 'a', 'm', 1)"), "received");
    assert_eq!(outcome(&mut client, "adjust_stock('less', 'a', 'm', -1, 'broken')"), "adjusted");
    assert_eq!(said(&mut client), ["0"; 5]);
    outcome(&mut client, "unfreeze_level('cleared', 'a', 'm', 'looked at')");
    assert_eq!(said(&mut client), ["5"; 5]);
    finish(database);
}

#[test]
fn an_article_that_has_none_can_be_known() {
    let database = database();
    let mut client = database.connect();
    assert_eq!(outcome(&mut client, "try_set_stock('count', 'new', 'm', 0, 7)"), "unknown_level");
    assert_eq!(outcome(&mut client, "set_stock('count', 'new', 'm', 0, NULL)"), "set");
    assert_eq!(outcome(&mut client, "try_reserve_stock('o', 'new', 'm', 1)"), "insufficient_stock");
    assert_eq!(outcome(&mut client, "set_stock('other', 'newer', 'm', 3, NULL)"), "set");
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'newer', 'm', 3)"), "reserved");
    let first = call(&mut client, "try_set_stock('count', 'new', 'm', 0, NULL)").unwrap();
    assert!(first[0].replayed, "{first:?}");
    finish(database);
}

/// Safety stock and limit per buyer are for who would buy; this order is paid, and its goods are there.
#[test]
fn a_late_confirm_takes_what_is_there_before_safety_stock_and_limit() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 3);
    for swept in [false, true] {
        let order = format!("order {swept}");
        outcome(&mut client, &format!("reserve_stock('{order}', 'a', 'm', 1, '1 ms', 'b')"));
        value(&mut client, "SELECT pg_sleep(0.01)");
        if swept {
            value(&mut client, "SELECT stock.expire_reservations(10)");
        }
        outcome(&mut client, &format!("set_limits('limits {swept}', 'a', 'm', 100, 1)"));
        assert_eq!(
            outcome(&mut client, &format!("try_reserve_stock('new {swept}', 'a', 'm', 1, NULL, 'c')")),
            "insufficient_stock"
        );
        assert_eq!(outcome(&mut client, &format!("try_confirm_stock('{order}')")), "confirmed_late");
        outcome(&mut client, &format!("set_limits('none {swept}', 'a', 'm', 0, 0)"));
    }
    // Not what was promised to another, and nothing that was recalled.
    outcome(&mut client, "reserve_stock('late', 'a', 'm', 1, '1 ms')");
    value(&mut client, "SELECT pg_sleep(0.01)");
    outcome(&mut client, "reserve_stock('other', 'a', 'm', 1)");
    assert_eq!(outcome(&mut client, "try_confirm_stock('late')"), "reservation_expired");
    outcome(&mut client, "release_stock('other')");
    outcome(&mut client, "freeze_level('recall', 'a', 'm', 'glass')");
    assert_eq!(outcome(&mut client, "try_confirm_stock('late')"), "level_frozen");
    finish(database);
}

#[test]
fn equal_parts_of_an_order_have_keys_of_their_own() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let piece = |units: i64| format!(r#"'[{{"sku":"a","location":"m","quantity":{units}}}]'"#);
    for (operation, prepare) in [("confirm", ""), ("release", ""), ("return", "confirm_stock")] {
        let order = format!("order for {operation}");
        outcome(&mut client, &format!("reserve_stock('{order}', 'a', 'm', 3)"));
        if !prepare.is_empty() {
            outcome(&mut client, &format!("{prepare}('{order}')"));
        }
        let part = |key: &str, units: i64| format!("{operation}_stock('{order}', {}{key})", piece(units));
        let error = call(&mut client, &part("", 1)).expect_err("a part without a key");
        let report = error.as_db_error().expect("from the server");
        assert_eq!(report.code().code(), "22023", "{report:?}");
        assert!(report.detail().unwrap().contains("1 of the 3"), "{report:?}");
        assert!(report.hint().unwrap().contains("key of its own"), "{report:?}");
        let first = call(&mut client, &part(", 'one'", 1)).unwrap();
        let again = call(&mut client, &part(", 'one'", 1)).unwrap();
        let second = call(&mut client, &part(", 'two'", 1)).unwrap();
        assert_eq!((first[0].replayed, again[0].replayed, second[0].replayed), (false, true, false), "{operation}");
        // The rest is all that is open, whether named or not.
        assert!(!call(&mut client, &part("", 1)).unwrap()[0].replayed, "{operation}");
    }
    assert_eq!(value(&mut client, "SELECT on_hand || ' ' || reserved FROM stock.level"), "7 0");
    finish(database);
}

#[test]
fn lines_keep_the_numbers_that_the_reservation_gave_them() {
    let database = database();
    let mut client = database.connect();
    ["i", "j", "k"].iter().for_each(|sku| stocked(&mut client, sku, "m", 5));
    let lines = |skus: &[&str]| {
        let line = |sku: &&str| format!(r#"{{"sku":"{sku}","location":"m","quantity":1}}"#);
        format!("'[{}]'", skus.iter().map(line).collect::<Vec<_>>().join(","))
    };
    let mut numbers = |text: &str| {
        let rows = client.query(&format!("SELECT line, sku FROM stock.{text}"), &[]).unwrap();
        rows.iter().map(|row| format!("{}{}", row.get::<_, i32>(0), row.get::<_, &str>(1))).collect::<Vec<_>>()
    };
    numbers(&format!("reserve_stock('o', {})", lines(&["i", "j", "k"])));
    assert_eq!(numbers(&format!("confirm_stock('o', {}, 'parcel')", lines(&["j"]))), ["2j"]);
    assert_eq!(numbers("extend_reservation('o', '1 hour')"), ["1i", "3k"]);
    assert_eq!(numbers("confirm_stock('o', NULL, 'rest')"), ["1i", "3k"]);
    assert_eq!(numbers("confirm_stock('o', NULL, 'rest')"), ["1i", "3k"], "a repeat");
    assert_eq!(numbers(&format!("return_stock('o', {}, 'back')", lines(&["k", "i"]))), ["1i", "3k"]);
    assert_eq!(numbers(&format!("try_release_stock('o', {})", lines(&["x", "k"]))), ["3k", "4x"], "4 is not of it");
    let error = call(&mut client, "confirm_stock('o', NULL, 'more')").expect_err("all is confirmed");
    assert!(error.as_db_error().unwrap().detail().unwrap().contains("Line 3: SKU \"k\""), "{error:?}");
    finish(database);
}
