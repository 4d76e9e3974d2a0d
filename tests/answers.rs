//! What a caller is told is true today, and what he sends is taken for what he sees.

use postgres::Client;

use super::support::{at_once, call, database, finish, outcome, raised, sqlstate, stocked, value};

#[test]
fn whole_numbers_pass_and_names_are_what_is_seen_of_them() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let lines = |sku: &str, quantity: &str| {
        format!(r#"[{{"sku":"{sku}","location":"m","quantity":{quantity}}}]"#)
    };
    for (key, quantity) in [("one", "2"), ("two", "2.0"), ("three", "2.000")] {
        assert_eq!(
            outcome(
                &mut client,
                &format!("try_reserve_stock('{key}', '{}')", lines("a", quantity))
            ),
            "reserved"
        );
    }
    for quantity in ["1.5", "2.01", "\"2\"", "true"] {
        assert_eq!(
            raised(&mut client, &format!("try_reserve_stock('four', '{}')", lines("a", quantity))),
            "22023"
        );
    }
    for sku in
        ["' a'", "'a '", "E'\\uFEFFa'", "E'a\\u00A0'", "E'a\\tb'", "E'a\\n'", "E'\\u0085a'", "' '"]
    {
        assert_eq!(
            raised(&mut client, &format!("receive_stock('goods', {sku}, 'm', 1)")),
            "22023",
            "{sku}"
        );
        assert_eq!(
            raised(&mut client, &format!("receive_stock('goods', 'b', {sku}, 1)")),
            "22023",
            "{sku}"
        );
        assert_eq!(
            raised(&mut client, &format!("try_reserve_stock({sku}, 'a', 'm', 1)")),
            "22023",
            "{sku}"
        );
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.level"), "1", "no phantom was made");
    assert_eq!(
        outcome(&mut client, "receive_stock('goods', 'Größe 42 ✓', 'Regal 7', 1)"),
        "received"
    );
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
    // An operation key that was the project's own once is the caller's; a settlement does not meet
    // it.
    assert_eq!(outcome(&mut client, "try_release_stock('order', NULL, 'settle')"), "released");
    let settle = r#"settle('[{"key":"order","status":"cancelled"}]')"#;
    assert_eq!(
        value(&mut client, &format!("SELECT count(*) FROM stock.{settle} WHERE agrees")),
        "1"
    );
    assert!(
        call(&mut client, "try_reserve_stock('again', 'pg_stock:sku', 'm', 1)").is_ok(),
        "a SKU may be called so"
    );
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

/// Safety stock and limit per buyer are for who would buy; this order is paid, and its goods are
/// there.
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
            outcome(
                &mut client,
                &format!("try_reserve_stock('new {swept}', 'a', 'm', 1, NULL, 'c')")
            ),
            "insufficient_stock"
        );
        assert_eq!(
            outcome(&mut client, &format!("try_confirm_stock('{order}')")),
            "confirmed_late"
        );
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
        let part =
            |key: &str, units: i64| format!("{operation}_stock('{order}', {}{key})", piece(units));
        let error = call(&mut client, &part("", 1)).expect_err("a part without a key");
        let report = error.as_db_error().expect("from the server");
        assert_eq!(report.code().code(), "22023", "{report:?}");
        assert!(report.detail().unwrap().contains("1 of the 3"), "{report:?}");
        assert!(report.hint().unwrap().contains("key of its own"), "{report:?}");
        let first = call(&mut client, &part(", 'one'", 1)).unwrap();
        let again = call(&mut client, &part(", 'one'", 1)).unwrap();
        let second = call(&mut client, &part(", 'two'", 1)).unwrap();
        assert_eq!(
            (first[0].replayed, again[0].replayed, second[0].replayed),
            (false, true, false),
            "{operation}"
        );
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
        rows.iter()
            .map(|row| format!("{}{}", row.get::<_, i32>(0), row.get::<_, &str>(1)))
            .collect::<Vec<_>>()
    };
    numbers(&format!("reserve_stock('o', {})", lines(&["i", "j", "k"])));
    assert_eq!(numbers(&format!("confirm_stock('o', {}, 'parcel')", lines(&["j"]))), ["2j"]);
    assert_eq!(numbers("extend_reservation('o', '1 hour')"), ["1i", "3k"]);
    assert_eq!(numbers("confirm_stock('o', NULL, 'rest')"), ["1i", "3k"]);
    assert_eq!(numbers("confirm_stock('o', NULL, 'rest')"), ["1i", "3k"], "a repeat");
    assert_eq!(
        numbers(&format!("return_stock('o', {}, 'back')", lines(&["k", "i"]))),
        ["1i", "3k"]
    );
    assert_eq!(
        numbers(&format!("try_release_stock('o', {})", lines(&["x", "k"]))),
        ["3k", "4x"],
        "4 is not of it"
    );
    let error =
        call(&mut client, "confirm_stock('o', NULL, 'more')").expect_err("all is confirmed");
    assert!(
        error.as_db_error().unwrap().detail().unwrap().contains("Line 3: SKU \"k\""),
        "{error:?}"
    );
    finish(database);
}

/// The buyer comes back to the pay page, or the shop opens a cancelled order again: what is told
/// must be so today.
#[test]
fn a_repeat_says_reserved_only_while_something_is() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 2);
    let reserve = |key: &str, ttl: &str| format!("reserve_stock('{key}', 'a', 'm', 1, '{ttl}')");
    for swept in [false, true] {
        let order = format!("lapsed, swept {swept}");
        outcome(&mut client, &reserve(&order, "1 ms"));
        value(&mut client, "SELECT pg_sleep(0.01)");
        if swept {
            value(&mut client, "SELECT stock.expire_reservations(10)");
        }
        assert_eq!(
            outcome(&mut client, &format!("try_{}", reserve(&order, "1 hour"))),
            "reservation_expired"
        );
        assert_eq!(raised(&mut client, &reserve(&order, "1 hour")), "ST006");
    }
    outcome(&mut client, &reserve("cancelled", "1 hour"));
    outcome(&mut client, "release_stock('cancelled')");
    assert_eq!(raised(&mut client, &reserve("cancelled", "1 hour")), "ST005");
    let json = r#"[{"sku":"a","location":"m","quantity":1}]"#;
    let batch = format!(r#"reserve_many('[{{"key":"cancelled","lines":{json}}}]')"#);
    assert_eq!(outcome(&mut client, &batch), "already_released");
    // While something is held or sold the first answer stands.
    for end in ["reserve_stock('kept', 'a', 'm', 1)", "confirm_stock('kept')"] {
        outcome(&mut client, end);
        let again = call(&mut client, &reserve("kept", "1 hour")).unwrap();
        assert_eq!((again[0].outcome.as_str(), again[0].replayed), ("reserved", true), "{end}");
    }
    outcome(&mut client, "return_stock('kept')");
    assert_eq!(raised(&mut client, &reserve("kept", "1 hour")), "ST005");
    outcome(&mut client, "sell_stock('sold', 'a', 'm', 1)");
    outcome(&mut client, "return_stock('sold')");
    assert_eq!(raised(&mut client, "sell_stock('sold', 'a', 'm', 1)"), "ST005");
    finish(database);
}

#[test]
fn an_extension_takes_effect_as_often_as_it_is_asked_for() {
    for way in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        stocked(&mut client, "a", "m", 1);
        outcome(&mut client, "reserve_stock('o', 'a', 'm', 1, '1 minute')");
        let mut until = |ttl: &str| {
            let sql = format!(
                "SELECT outcome, replayed, extract(epoch FROM expires_at)::float8 FROM \
                 stock.extend_reservation('o', '{ttl}')"
            );
            let row = client.query_one(&sql, &[]).unwrap();
            (row.get::<_, String>(0), row.get::<_, bool>(1), row.get::<_, f64>(2))
        };
        let (_, _, first) = until("2 minutes");
        let (outcome_again, replayed, second) = until("30 minutes");
        assert_eq!((outcome_again.as_str(), replayed), ("extended", false));
        assert!(second > first + 1_600.0, "{first} {second}");
        let (_, replayed, third) = until("10 minutes");
        assert_eq!((third, replayed), (second, true), "never earlier than it was");
        let all: Vec<f64> = at_once(database, 8, |number, client| {
            let sql = format!(
                "SELECT extract(epoch FROM expires_at)::float8 FROM stock.extend_reservation('o', \
                 '{} hours')",
                number + 1
            );
            client.query_one(&sql, &[]).unwrap().get(0)
        });
        let greatest = all.into_iter().fold(0.0, f64::max);
        let held = "SELECT extract(epoch FROM expires_at)::float8 FROM stock.holds";
        assert_eq!(client.query_one(held, &[]).unwrap().get::<_, f64>(0), greatest);
        finish(database);
    }
}

#[test]
fn a_lapsed_hold_is_held_again_while_its_units_are_there() {
    for (way, swept) in [("on", false), ("on", true), ("off", false), ("off", true)] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        stocked(&mut client, "a", "m", 2);
        outcome(&mut client, "set_limits('two each', 'a', 'm', 0, 2)");
        let lapse = |client: &mut postgres::Client, text: &str| {
            outcome(client, text);
            value(client, "SELECT pg_sleep(0.01)");
            if swept {
                value(client, "SELECT stock.expire_reservations(10)");
            }
        };
        // Twice, for each lapse is an end of its own.
        lapse(&mut client, "reserve_stock('o', 'a', 'm', 2, '1 ms', 'b')");
        lapse(&mut client, "extend_reservation('o', '1 ms')");
        let extend = "try_extend_reservation('o', '1 hour')";
        client.batch_execute("SET pg_stock.retake_lapsed = off").unwrap();
        assert_eq!(outcome(&mut client, extend), "reservation_expired");
        client.batch_execute("RESET pg_stock.retake_lapsed").unwrap();
        outcome(&mut client, "freeze_level('recall', 'a', 'm', 'glass')");
        assert_eq!(outcome(&mut client, extend), "level_frozen");
        outcome(&mut client, "unfreeze_level('cleared', 'a', 'm', 'looked at')");
        let rows = call(&mut client, extend).unwrap();
        assert_eq!(
            (rows[0].outcome.as_str(), rows[0].state.as_str()),
            ("extended_late", "held"),
            "{way} {swept}"
        );
        assert_eq!(
            outcome(&mut client, "try_reserve_stock('p', 'a', 'm', 1, NULL, 'c')"),
            "insufficient_stock"
        );
        assert_eq!(outcome(&mut client, "try_confirm_stock('o')"), "confirmed");
        outcome(&mut client, "return_stock('o')");
        // Somebody else has them.
        lapse(&mut client, "reserve_stock('late', 'a', 'm', 1, '1 ms', 'd')");
        outcome(&mut client, "reserve_stock('quick', 'a', 'm', 2, NULL, 'e')");
        assert_eq!(
            outcome(&mut client, "try_extend_reservation('late', '1 hour')"),
            "reservation_expired"
        );
        finish(database);
    }
}

#[test]
fn a_dba_bounds_how_long_units_are_held() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let unset = "SELECT set_config(name, boot_val || unit, false) FROM pg_settings
                  WHERE name IN ('pg_stock.min_ttl', 'pg_stock.max_ttl')";
    client.batch_execute(unset).unwrap();
    for ttl in ["30 ms", "3600000", "32 days"] {
        let text = format!("try_reserve_stock('unset', 'a', 'm', 1, '{ttl}')");
        assert_eq!(raised(&mut client, &text), "22023", "{ttl}");
    }
    for (key, ttl) in [("a second", "1 s"), ("a month", "31 days")] {
        let text = format!("reserve_stock('{key}', 'a', 'm', 1, '{ttl}')");
        assert_eq!(outcome(&mut client, &text), "reserved");
        outcome(&mut client, &format!("release_stock('{key}')"));
    }
    client.batch_execute("SET pg_stock.min_ttl = '1 min'; SET pg_stock.max_ttl = '1 d'").unwrap();
    let json = r#"[{"sku":"a","location":"m","quantity":1}]"#;
    let calls = [
        "try_reserve_stock('o', 'a', 'm', 1, '30')".to_owned(),
        "try_reserve_stock('o', 'a', 'm', 1, '1800000')".to_owned(),
        format!(r#"try_reserve_stock('o', '{json}', '{{"ttl":"1"}}')"#),
        format!(r#"reserve_many('[{{"key":"o","lines":{json},"ttl":"2 days"}}]')"#),
        "try_extend_reservation('o', '1')".to_owned(),
    ];
    for text in calls {
        let error = call(&mut client, &text).expect_err(&text);
        let report = error.as_db_error().expect("from the server");
        assert_eq!(report.code().code(), "22023", "{text}: {report:?}");
        assert!(report.hint().unwrap().contains("unit"), "{text}: {report:?}");
        let setting = report.detail().unwrap();
        assert!(
            setting.contains("pg_stock.min_ttl") || setting.contains("pg_stock.max_ttl"),
            "{text}: {report:?}"
        );
    }
    // A repeat asks, too.
    outcome(&mut client, "reserve_stock('sound', 'a', 'm', 1, '1 hour')");
    assert_eq!(raised(&mut client, "reserve_stock('sound', 'a', 'm', 1, '1 s')"), "22023");
    outcome(&mut client, "release_stock('sound')");
    client.batch_execute("SET pg_stock.max_hold = '2 h'").unwrap();
    assert_eq!(raised(&mut client, "reserve_stock('o', 'a', 'm', 1, '3 hours')"), "22023");
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 1, '1 hour')");
    outcome(&mut client, "extend_reservation('o', '10 hours')");
    let held = "SELECT expires_at - reserved_at = '2 hours' FROM stock.holds";
    assert_eq!(value(&mut client, held), "t", "it gets no further");
    // What a session sets is cut to what is allowed, and so is the default.
    let held =
        "SELECT extract(epoch FROM expires_at - reserved_at)::bigint FROM stock.holds WHERE key = ";
    for (number, (setting, seconds)) in [("366 d", 7_200), ("1 s", 60)].into_iter().enumerate() {
        client.batch_execute(&format!("SET pg_stock.default_ttl = '{setting}'")).unwrap();
        outcome(&mut client, &format!("reserve_stock('default {number}', 'a', 'm', 1)"));
        assert_eq!(
            value(&mut client, &format!("{held}'default {number}'")),
            seconds.to_string(),
            "{setting}"
        );
    }
    client.batch_execute("SET ROLE pg_monitor").unwrap();
    for setting in ["min_ttl", "max_ttl", "max_hold"] {
        let error = client
            .batch_execute(&format!("SET pg_stock.{setting} = 1"))
            .expect_err("for superusers");
        assert_eq!(sqlstate(&error), "42501", "{setting}");
    }
    client.batch_execute("RESET ROLE").unwrap();
    finish(database);
}

/// A pooler in transaction mode hands a session's settings on; what a call says of itself stays
/// with it.
#[test]
fn the_context_of_a_call_goes_with_it() {
    for way in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client
            .batch_execute(&format!(
                "SET pg_stock.direct_access = {way}; SET pg_stock.context = 'session'"
            ))
            .unwrap();
        stocked(&mut client, "a", "m", 10);
        stocked(&mut client, "b", "m", 10);
        let one = r#"[{"sku":"a","location":"m","quantity":1}]"#;
        let two =
            r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
        let long = "é".repeat(600);
        let calls = [
            format!(r#"reserve_stock('one', '{one}', '{{"context":"trace 1"}}')"#),
            format!(r#"reserve_stock('two', '{two}', '{{"context":"{long}"}}')"#),
            format!(r#"sell_stock('sold', '{one}', '{{"context":"trace 3"}}')"#),
            format!(r#"reserve_stock('none', '{one}')"#),
            format!(
                r#"reserve_many('[{{"key":"m1","lines":{one},"context":"trace 4"}},{{"key":"m2","lines":{one}}}]')"#
            ),
        ];
        for text in &calls {
            call(&mut client, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
        let told = "SELECT string_agg(DISTINCT key || ' ' || left(context,
                    7) || ' ' || octet_length(context), ', ')
                      FROM stock.ledger WHERE operation <> 'receive'";
        let expected = "m1 trace 4 7, m2 session 7, none session 7, one trace 1 7, sold trace 3 7, \
                        two ééééééé 1000";
        assert_eq!(value(&mut client, told), expected, "{way}");
        finish(database);
    }
}

#[test]
fn a_key_that_was_cancelled_by_mistake_can_be_had_again() {
    for way in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        stocked(&mut client, "a", "m", 5);
        assert_eq!(
            outcome(&mut client, "try_reopen_key('order 71', 'why')"),
            "unknown_reservation"
        );
        for turn in ["first", "second"] {
            assert_eq!(outcome(&mut client, "release_stock('order 71')"), "cancelled", "{turn}");
            let error = call(&mut client, "reserve_stock('order 71', 'a', 'm', 1)")
                .expect_err("it is cancelled");
            let report = error.as_db_error().expect("from the server");
            assert_eq!(report.code().code(), "ST005");
            assert!(report.message().contains("nothing was known of this key"), "{report:?}");
            assert!(report.hint().unwrap().contains("reopen_key"), "{report:?}");
            assert_eq!(raised(&mut client, "try_reopen_key('order 71', NULL)"), "22023");
            let rows = call(&mut client, "reopen_key('order 71', 'mistyped')").unwrap();
            assert_eq!((rows[0].outcome.as_str(), rows[0].replayed), ("reopened", false), "{turn}");
            let again = call(&mut client, "reopen_key('order 71', 'mistyped')").unwrap();
            assert!(again[0].replayed, "{turn}");
        }
        let answers = at_once(database, 8, |_, client| {
            client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
            call(client, "try_reserve_stock('order 71', 'a', 'm', 1)").unwrap()
        });
        assert_eq!(answers.iter().filter(|rows| !rows[0].replayed).count(), 1, "{answers:?}");
        assert_eq!(outcome(&mut client, "try_reopen_key('order 71', 'why')"), "key_conflict");
        assert_eq!(outcome(&mut client, "confirm_stock('order 71')"), "confirmed");
        // A sale, too, and what is settled.
        outcome(&mut client, "release_stock('order 72')");
        outcome(&mut client, "reopen_key('order 72', 'mistyped')");
        assert_eq!(outcome(&mut client, "sell_stock('order 72', 'a', 'm', 1)"), "sold");
        let again = call(&mut client, "sell_stock('order 72', 'a', 'm', 1)").unwrap();
        assert_eq!((again[0].outcome.as_str(), again[0].replayed), ("sold", true));
        let history = "SELECT string_agg(operation, ' ' ORDER BY position) FROM stock.ledger WHERE \
                       key = 'order 71'";
        assert_eq!(value(&mut client, history), "cancel reopen cancel reopen reserve confirm");
        finish(database);
    }
}

/// A batch of sales: in order, each all or nothing, once, and without a ttl.
#[test]
fn many_orders_are_sold_in_one_call() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 3);
    let order = |key: &str, units: i64, more: &str| {
        format!(
            r#"{{"key":"{key}","lines":[{{"sku":"a","location":"m","quantity":{units}}}]{more}}}"#
        )
    };
    let batch = |orders: &[String]| format!("sell_many('[{}]')", orders.join(","));
    let three = batch(&[order("o1", 2, ""), order("o2", 2, ""), order("o3", 1, "")]);
    let outcomes = |client: &mut Client, text: &str| -> Vec<(String, bool)> {
        let rows = call(client, text).unwrap();
        rows.into_iter().map(|row| (row.outcome, row.replayed)).collect()
    };
    let expected = |replayed| {
        [("sold", replayed), ("insufficient_stock", false), ("sold", replayed)]
            .map(|(outcome, replayed)| (outcome.to_owned(), replayed))
    };
    assert_eq!(outcomes(&mut client, &three), expected(false));
    assert_eq!(outcomes(&mut client, &three), expected(true));
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.levels"), "0");
    let held = batch(&[order("o4", 1, r#","ttl":"1 hour""#)]);
    let error = call(&mut client, &held).expect_err("a sale has no ttl");
    assert_eq!(sqlstate(&error), "22023");
    assert!(error.as_db_error().unwrap().message().contains("requests[0].ttl"), "{error:?}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// docs/operating.md: policies do not bind the functions, FORCE or not.
#[test]
fn row_level_security_does_not_bind_the_functions() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    client
        .batch_execute(
            "CREATE ROLE bound_by_policies LOGIN; SELECT stock.grant_access('bound_by_policies',
             'operate');
             ALTER TABLE stock.level ENABLE ROW LEVEL SECURITY;
             ALTER TABLE stock.level FORCE ROW LEVEL SECURITY;
             ALTER TABLE stock.ledger ENABLE ROW LEVEL SECURITY;
             ALTER TABLE stock.ledger FORCE ROW LEVEL SECURITY;
             CREATE POLICY none ON stock.level USING (false) WITH CHECK (false);
             CREATE POLICY none ON stock.ledger USING (false) WITH CHECK (false);
             SET SESSION AUTHORIZATION bound_by_policies",
        )
        .unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'm', 1)"), "reserved");
    assert_eq!(outcome(&mut client, "confirm_stock('o')"), "confirmed");
    assert_eq!(value(&mut client, "SELECT available FROM stock.levels"), "4");
    client
        .batch_execute(
            "RESET SESSION AUTHORIZATION; DROP OWNED BY bound_by_policies; DROP ROLE \
             bound_by_policies",
        )
        .unwrap();
    finish(database);
}

/// A return without a key that meets what was confirmed since: a repeat, or the next parcel? Nobody
/// knows, so nobody guesses.
#[test]
fn a_second_return_is_never_taken_for_a_repeat_of_the_first() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 2);
    let piece = r#"'[{"sku":"a","location":"m","quantity":1}]'"#;
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 2)");
    outcome(&mut client, &format!("confirm_stock('o', {piece}, 'p1')"));
    assert_eq!(outcome(&mut client, &format!("return_stock('o', {piece})")), "returned");
    let again = call(&mut client, &format!("return_stock('o', {piece})")).unwrap();
    assert!(again[0].replayed, "nothing else can be meant");
    outcome(&mut client, &format!("confirm_stock('o', {piece}, 'p2')"));
    assert_eq!(raised(&mut client, &format!("return_stock('o', {piece})")), "22023");
    assert_eq!(raised(&mut client, "return_stock('o')"), "22023");
    assert_eq!(outcome(&mut client, "return_stock('o', NULL, 'second')"), "returned");
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.level"), "2");
    finish(database);
}

/// A late extension of a hold that nobody swept changes no counter; an older snapshot must not miss
/// it all the same.
#[test]
fn an_older_snapshot_does_not_miss_a_late_extension() {
    let database = database();
    let [mut older, mut other] = std::array::from_fn(|_| database.connect());
    stocked(&mut other, "a", "m", 6);
    outcome(&mut other, "set_limits('limit', 'a', 'm', 0, 2)");
    outcome(&mut other, "reserve_stock('k0', 'a', 'm', 2, '1 ms', 'c')");
    outcome(&mut other, "reserve_stock('k1', 'a', 'm', 2, '2 ms', 'b')");
    value(&mut other, "SELECT pg_sleep(0.01)");
    older.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM stock.levels").unwrap();
    assert_eq!(outcome(&mut other, "extend_reservation('k1', '1 hour')"), "extended_late");
    assert_eq!(raised(&mut older, "try_reserve_stock('k2', 'a', 'm', 2, NULL, 'b')"), "40001");
    older.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        outcome(&mut older, "try_reserve_stock('k2', 'a', 'm', 2, NULL, 'b')"),
        "buyer_limit_exceeded"
    );
    finish(database);
}

/// A late extension is judged as a new reserve of that buyer would be; that the units are gone is
/// told first.
#[test]
fn a_late_extension_is_judged_as_a_new_reserve_of_its_buyer() {
    for (way, swept) in [("on", false), ("on", true), ("off", false), ("off", true)] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        stocked(&mut client, "a", "m", 3);
        let late = |client: &mut Client, key: &str| {
            outcome(client, &format!("reserve_stock('{key}', 'a', 'm', 2, '1 ms', 'anna')"));
            value(client, "SELECT pg_sleep(0.005)");
            if swept {
                value(client, "SELECT stock.expire_reservations()");
            }
        };
        let extend = |client: &mut Client, key: &str| {
            outcome(client, &format!("try_extend_reservation('{key}', '1 hour')"))
        };
        late(&mut client, "safety");
        outcome(&mut client, "set_limits('safety', 'a', 'm', 2, NULL)");
        assert_eq!(
            extend(&mut client, "safety"),
            "reservation_expired",
            "the safety stock is nobody's"
        );
        outcome(&mut client, "set_limits('limit', 'a', 'm', 0, 1)");
        assert_eq!(extend(&mut client, "safety"), "buyer_limit_exceeded");
        outcome(&mut client, "freeze_level('recall', 'a', 'm', 'glass')");
        assert_eq!(extend(&mut client, "safety"), "level_frozen");
        assert_eq!(outcome(&mut client, "try_confirm_stock('safety')"), "level_frozen");
        outcome(&mut client, "unfreeze_level('good', 'a', 'm', 'no glass')");
        // Another buyer takes them: who is told "frozen" would wait in vain.
        outcome(&mut client, "set_limits('none', 'a', 'm', NULL, 0)");
        outcome(&mut client, "reserve_stock('other', 'a', 'm', 2, '1 hour', 'bert')");
        outcome(&mut client, "freeze_level('again', 'a', 'm', 'glass')");
        assert_eq!(extend(&mut client, "safety"), "reservation_expired");
        assert_eq!(outcome(&mut client, "try_confirm_stock('safety')"), "reservation_expired");
        outcome(&mut client, "release_stock('other')");
        outcome(&mut client, "unfreeze_level('good again', 'a', 'm', 'no glass')");
        assert_eq!(extend(&mut client, "safety"), "extended_late");
        finish(database);
    }
}

/// When a reservation was made does not change with its extension, whether its hold was swept
/// meanwhile or not.
#[test]
fn an_extended_reservation_is_as_old_as_it_is() {
    for (way, swept) in [("on", false), ("on", true), ("off", false), ("off", true)] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        stocked(&mut client, "a", "m", 3);
        stocked(&mut client, "b", "m", 3);
        let lines =
            r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
        for text in [
            format!("reserve_stock('two', '{lines}', '{{\"ttl\":\"1 ms\"}}')"),
            "reserve_stock('one', 'a', 'm', 1, '1 ms')".into(),
        ] {
            call(&mut client, &text).unwrap();
        }
        value(&mut client, "SELECT pg_sleep(0.005)");
        client.batch_execute("SET pg_stock.clock_offset = 3600").unwrap();
        if swept {
            value(&mut client, "SELECT stock.expire_reservations()");
        }
        for key in ["one", "two"] {
            let rows =
                call(&mut client, &format!("extend_reservation('{key}', '2 hours')")).unwrap();
            assert!(rows.iter().all(|row| row.outcome == "extended_late"), "{rows:?}");
        }
        let doubtful = "SELECT string_agg(key || ' ' || lines, ', ' ORDER BY key)
                          FROM stock.doubtful_reservations('1 hour') WHERE reserved_at < now()";
        client.batch_execute("SET pg_stock.clock_offset = 0").unwrap();
        assert_eq!(
            value(&mut client, &doubtful.replace("'1 hour'", "'0'")),
            "one 1, two 2",
            "{way} {swept}"
        );
        finish(database);
    }
}

#[test]
fn keys_of_different_operations_do_not_disturb_each_other() {
    let database = database();
    let mut client = database.connect();
    for (text, told) in [
        ("receive_stock('key', 'a', 'm', 9)", "received"),
        ("adjust_stock('key', 'a', 'm', -1, 'broken')", "adjusted"),
        ("set_stock('key', 'a', 'm', 8, NULL)", "set"),
        ("transfer_stock('key', 'a', 'm', 'n', 1, 'move')", "transferred"),
        ("set_limits('key', 'a', 'm', 1, NULL)", "limits_set"),
        ("freeze_level('key', 'a', 'm', 'glass')", "frozen"),
        ("unfreeze_level('key', 'a', 'm', 'no glass')", "unfrozen"),
        ("reserve_stock('key', 'a', 'm', 2)", "reserved"),
        ("confirm_stock('key')", "confirmed"),
        ("return_stock('key')", "returned"),
    ] {
        let rows = call(&mut client, text).unwrap();
        assert!(rows.iter().all(|row| row.outcome == told && !row.replayed), "{text}: {rows:?}");
    }
    finish(database);
}

/// A month counts 30 days and a day 24 hours, whatever the time zone's clocks do.
#[test]
fn a_time_to_live_has_the_same_length_everywhere() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 9);
    client.batch_execute("SET TimeZone = 'Europe/Berlin'").unwrap();
    for (ttl, hours) in
        [("1 month", 720), ("12 months", 8_640), ("1 day", 24), ("1 month 1 day 1 hour", 745)]
    {
        outcome(&mut client, &format!("reserve_stock('{ttl}', 'a', 'm', 1, '{ttl}')"));
        let held = format!(
            "SELECT extract(epoch FROM expires_at - reserved_at)::bigint FROM stock.hold WHERE key \
             = '{ttl}'"
        );
        assert_eq!(value(&mut client, &held), (hours * 3_600).to_string(), "{ttl}");
    }
    finish(database);
}
