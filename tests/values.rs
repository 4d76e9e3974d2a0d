//! Values at their limits, and text in every encoding.

use super::support::{call, cluster, database, finish, outcome, raised, stocked, value};

const MOST: i64 = 1_000_000_000_000_000;

#[test]
fn quantities_have_limits() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", MOST);
    for (text, state) in [
        ("try_receive_stock('k', 'a', 'm', 1)".to_owned(), "22003"),
        ("try_adjust_stock('k', 'a', 'm', 1, 'x')".to_owned(), "22003"),
        ("try_adjust_stock('k', 'a', 'm', 0, 'x')".to_owned(), "22023"),
        (format!("try_adjust_stock('k', 'a', 'm', {}, 'x')", i64::MIN), "22003"),
        (format!("try_set_stock('k', 'a', 'm', {}, NULL)", MOST + 1), "22003"),
        ("try_set_stock('k', 'a', 'm', -1, NULL)".to_owned(), "22023"),
        ("try_set_limits('k', 'a', 'm', -1)".to_owned(), "22023"),
        ("try_set_limits('k', 'a', 'm')".to_owned(), "22023"),
        (format!("try_reserve_stock('k', 'a', 'm', {})", MOST + 1), "22003"),
        (format!("try_reserve_stock('k', 'a', 'm', {})", i64::MAX), "22003"),
        ("try_reserve_stock('k', 'a', 'm', 0)".to_owned(), "22023"),
        ("try_reserve_stock('k', 'a', 'm', -1)".to_owned(), "22023"),
        (format!("try_reserve_stock('k', 'a', 'm', {})", i64::MIN), "22023"),
    ] {
        assert_eq!(raised(&mut client, &text), state, "{text}");
    }
    assert_eq!(
        outcome(&mut client, &format!("try_reserve_stock('all', 'a', 'm', {MOST})")),
        "reserved"
    );
    assert_eq!(outcome(&mut client, "try_confirm_stock('all')"), "confirmed");
    finish(database);
}

#[test]
fn times_to_live_have_limits() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    for ttl in ["0", "-1 second", "366 days 1 microsecond", "1000 years", "178000000 years"] {
        assert_eq!(
            raised(&mut client, &format!("try_reserve_stock('k', 'a', 'm', 1, '{ttl}')")),
            "22023",
            "{ttl}"
        );
        let text = format!(
            r#"try_reserve_stock('k', '[{{"sku":"a","location":"m","quantity":1}}]', '{{"ttl":"{ttl}"}}')"#
        );
        assert_eq!(raised(&mut client, &text), "22023", "{ttl}");
    }
    for ttl in ["", "soon", "30 fortnights", "infinity seconds"] {
        let text = format!(
            r#"try_reserve_stock('k', '[{{"sku":"a","location":"m","quantity":1}}]', '{{"ttl":"{ttl}"}}')"#
        );
        assert_eq!(raised(&mut client, &text), "22023", "{ttl}");
    }
    for (number, ttl) in ["1 microsecond", "366 days", "1 year", "1 month"].iter().enumerate() {
        let text = format!("try_reserve_stock('k{number}', 'a', 'm', 1, '{ttl}')");
        assert_eq!(outcome(&mut client, &text), "reserved", "{ttl}");
    }
    finish(database);
}

#[test]
fn text_is_taken_as_given() {
    let database = database();
    let mut client = database.connect();
    let names = [
        "NFC \u{e9}",
        "NFD e\u{301}",
        "עברית",
        "🍎",
        "a'b\"c\\d",
        "spaces  inside",
        "%s %n {}",
        "$1",
    ];
    for name in names {
        let quoted = name.replace('\'', "''");
        stocked(&mut client, &quoted, &quoted, 5);
        let rows = call(
            &mut client,
            &format!(
                "try_reserve_stock('{quoted}', '{quoted}', '{quoted}', 1, buyer => '{quoted}')"
            ),
        );
        let rows = rows.unwrap();
        assert_eq!((rows[0].sku.as_str(), rows[0].location.as_str()), (name, name));
        let json = serde_json::json!([{"sku": name, "location": name, "quantity": 1}])
            .to_string()
            .replace('\'', "''");
        let rows =
            call(&mut client, &format!("try_reserve_stock('{quoted} 2', '{json}')")).unwrap();
        assert_eq!((rows[0].sku.as_str(), rows[0].outcome.as_str()), (name, "reserved"));
        let error =
            call(&mut client, &format!("reserve_stock('{quoted} 3', '{quoted}', '{quoted}', 9)"))
                .unwrap_err();
        assert!(error.as_db_error().unwrap().detail().unwrap().contains(name), "{error:?}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.levels"), names.len().to_string());
    finish(database);
}

#[test]
fn names_have_limits() {
    let database = database();
    let mut client = database.connect();
    let (longest, too_long, huge) = ("k".repeat(200), "k".repeat(201), "k".repeat(1_000_000));
    assert_eq!(
        outcome(&mut client, &format!("receive_stock('r', '{longest}', '{longest}', 5)")),
        "received"
    );
    assert_eq!(
        outcome(
            &mut client,
            &format!(
                "try_reserve_stock('{longest}', '{longest}', '{longest}', 1, buyer => '{longest}')"
            )
        ),
        "reserved"
    );
    for bad in [too_long.as_str(), huge.as_str(), ""] {
        for text in [
            format!("try_reserve_stock('{bad}', 'a', 'm', 1)"),
            format!("try_reserve_stock('k', '{bad}', 'm', 1)"),
            format!("try_reserve_stock('k', 'a', '{bad}', 1)"),
            format!("try_reserve_stock('k', 'a', 'm', 1, buyer => '{bad}')"),
            format!("try_confirm_stock('k', operation_key => '{bad}')"),
            format!("reservation('{bad}')"),
        ] {
            assert_eq!(raised(&mut client, &text), "22023", "{} bytes", bad.len());
        }
    }
    assert_eq!(
        raised(&mut client, &format!("try_receive_stock('k', 'a', 'm', 1, '{huge}')")),
        "22023"
    );
    finish(database);
}

#[test]
fn ten_thousand_lines_are_one_request() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT stock.receive_stock('r' || i, 's' || i, 'm', 5) FROM generate_series(1, 10000) \
             i",
        )
        .unwrap();
    let line = |n: usize| format!(r#"{{"sku":"s{n}","location":"m","quantity":1}}"#);
    let lines = |count: usize| (1..=count).map(line).collect::<Vec<_>>().join(",");
    let rows = call(&mut client, &format!("reserve_stock('big', '[{}]')", lines(10_000))).unwrap();
    assert_eq!(rows.len(), 10_000);
    assert_eq!(call(&mut client, "release_stock('big')").unwrap().len(), 10_000);
    assert_eq!(
        raised(&mut client, &format!("try_reserve_stock('bigger', '[{}]')", lines(10_001))),
        "22023"
    );
    finish(database);
}

/// Databases in other encodings: text is bytes to the extension.
#[test]
fn latin1_and_sql_ascii_databases_work() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("stock_{}", encoding.to_lowercase());
        let mut admin = cluster().connect("postgres");
        admin
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
            ))
            .unwrap();
        let mut client = cluster().connect(&name);
        client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
        // In LATIN1 the é arrives as one byte, which is not UTF-8.
        stocked(&mut client, "café", "señor", 5);
        assert_eq!(
            outcome(&mut client, "try_reserve_stock('clé', 'café', 'señor', 1, buyer => 'zoë')"),
            "reserved"
        );
        let lines = r#"[{"sku":"café","location":"señor","quantity":1}]"#;
        let rows = call(&mut client, &format!("try_reserve_stock('deux', '{lines}')")).unwrap();
        assert_eq!(
            (rows[0].sku.as_str(), rows[0].outcome.as_str()),
            ("café", "reserved"),
            "{encoding}"
        );
        client.batch_execute("SET pg_stock.context = 'tracé'").unwrap();
        assert_eq!(outcome(&mut client, "confirm_stock('clé')"), "confirmed");
        assert_eq!(raised(&mut client, "reserve_stock('trois', 'café', 'señor', 99)"), "ST001");
        assert_eq!(
            raised(&mut client, r#"reserve_stock('trois', '[{"sku":"café","location":"señor"}]')"#),
            "22023"
        );
        pg_stock_tests::invariants::assert_hold(&mut client);
    }
}

#[test]
fn the_context_is_cut_between_characters_and_never_fails_a_sale() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    client.batch_execute(&format!("SET pg_stock.context = '{}'", "🍎".repeat(400))).unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'm', 1)"), "reserved");
    assert_eq!(
        value(&mut client, "SELECT octet_length(context) FROM stock.ledger WHERE key = 'o'"),
        "1000"
    );
    finish(database);
}
