//! Reservations are settled by what the shop says of its orders: in bulk, once, and each mismatch
//! has its name.

use postgres::Client;

use super::support::{at_once, call, database, finish, outcome, sqlstate, stocked, value};
use pg_stock_core::settle::Mismatch;

/// What is said of one order: key, outcome, mismatch, agrees.
type Verdict = (String, String, Option<String>, bool);

/// Settles orders of a key and a status each.
fn settle(client: &mut Client, orders: &[(&str, &str)]) -> Vec<Verdict> {
    let order = |(key, status): &(&str, &str)| format!(r#"{{"key":"{key}","status":"{status}"}}"#);
    let json = orders.iter().map(order).collect::<Vec<_>>().join(",");
    let sql =
        format!("SELECT key, status, outcome, mismatch, agrees FROM stock.settle('[{json}]')");
    let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let statuses: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    assert_eq!(statuses, orders.iter().map(|(_, status)| *status).collect::<Vec<_>>());
    rows.iter().map(|row| (row.get(0), row.get(2), row.get(3), row.get(4))).collect()
}

/// A case: what happened to the key, what the shop says of it, and the outcome, mismatch and
/// agreement expected.
type Case =
    (&'static str, &'static [&'static str], &'static str, &'static str, Option<&'static str>, bool);

/// Every way in which an order and its reservation can stand to each other. KEY stands for the key.
const CASES: &[Case] = &[
    (
        "held",
        &["reserve_stock('KEY', 'a', 'm', 2)"],
        "paid",
        "confirmed",
        Some("paid_not_confirmed"),
        true,
    ),
    (
        "lapsed",
        &["reserve_stock('KEY', 'a', 'm', 2, '1 ms')"],
        "paid",
        "confirmed_late",
        Some("paid_but_expired"),
        true,
    ),
    (
        "lapsed and sold",
        &["reserve_stock('KEY', 'rare', 'm', 3, '1 ms')", "sell_stock('other', 'rare', 'm', 3)"],
        "paid",
        "reservation_expired",
        Some("paid_but_expired"),
        false,
    ),
    (
        "released",
        &["reserve_stock('KEY', 'a', 'm', 2)", "release_stock('KEY')"],
        "paid",
        "already_released",
        Some("paid_but_released"),
        false,
    ),
    (
        "cancelled at once",
        &["release_stock('KEY')"],
        "paid",
        "already_released",
        Some("paid_but_released"),
        false,
    ),
    (
        "released in part",
        &[
            "reserve_stock('KEY', 'a', 'm', 2)",
            r#"release_stock('KEY', '[{"sku":"a","location":"m","quantity":1}]', 'part')"#,
        ],
        "paid",
        "confirmed",
        Some("paid_in_part"),
        false,
    ),
    (
        "returned",
        &["reserve_stock('KEY', 'a', 'm', 2)", "confirm_stock('KEY')", "return_stock('KEY')"],
        "paid",
        "already_confirmed",
        Some("paid_but_returned"),
        false,
    ),
    ("never heard of", &[], "paid", "unknown_reservation", Some("paid_but_unknown"), false),
    (
        "confirmed",
        &["reserve_stock('KEY', 'a', 'm', 2)", "confirm_stock('KEY')"],
        "paid",
        "already_confirmed",
        None,
        true,
    ),
    ("sold", &["sell_stock('KEY', 'a', 'm', 2)"], "paid", "already_confirmed", None, true),
    (
        "x held",
        &["reserve_stock('KEY', 'a', 'm', 2)"],
        "cancelled",
        "released",
        Some("cancelled_but_held"),
        true,
    ),
    (
        "x confirmed",
        &["reserve_stock('KEY', 'a', 'm', 2)", "confirm_stock('KEY')"],
        "cancelled",
        "already_confirmed",
        Some("cancelled_but_confirmed"),
        false,
    ),
    (
        "x returned",
        &["sell_stock('KEY', 'a', 'm', 2)", "return_stock('KEY')"],
        "cancelled",
        "already_confirmed",
        None,
        true,
    ),
    (
        "x lapsed",
        &["reserve_stock('KEY', 'a', 'm', 2, '1 ms')"],
        "cancelled",
        "reservation_expired",
        None,
        true,
    ),
    (
        "x released",
        &["reserve_stock('KEY', 'a', 'm', 2)", "release_stock('KEY')"],
        "cancelled",
        "already_released",
        None,
        true,
    ),
    ("x never heard of", &[], "cancelled", "cancelled", None, true),
];

/// All at once, and then again: what was put right is no mismatch any more, what was not still is.
#[test]
fn each_mismatch_has_its_name_and_is_told_until_it_is_put_right() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "rare", "m", 3);
    for (key, happened, ..) in CASES {
        for text in *happened {
            call(&mut client, &text.replace("KEY", key))
                .unwrap_or_else(|error| panic!("{key}: {text}: {error:?}"));
            value(&mut client, "SELECT pg_sleep(0.002)");
        }
    }
    let orders: Vec<(&str, &str)> =
        CASES.iter().map(|(key, _, status, ..)| (*key, *status)).collect();
    let expected: Vec<Verdict> = (CASES.iter())
        .map(|(key, _, _, outcome, mismatch, agrees)| {
            ((*key).into(), (*outcome).into(), mismatch.map(Into::into), *agrees)
        })
        .collect();
    assert_eq!(settle(&mut client, &orders), expected);
    // What is damaged has a test of its own (damage.rs): the other promises would not hold
    // afterwards.
    for mismatch in Mismatch::ALL.into_iter().filter(|mismatch| *mismatch != Mismatch::Damaged) {
        let named = |verdict: &Verdict| verdict.2.as_deref() == Some(mismatch.word());
        assert!(expected.iter().any(named), "{mismatch:?} is not tested");
    }
    let remaining = |(key, outcome, mismatch, agrees): Verdict| {
        (key, outcome, mismatch.filter(|_| !agrees), agrees)
    };
    let again: Vec<Verdict> = expected.into_iter().map(remaining).collect();
    assert_eq!(settle(&mut client, &orders), again);
    assert_eq!(settle(&mut client, &orders), again);
    let done =
        "SELECT string_agg(key || ' ' || operation || ' ' || operation_key, ', ' ORDER BY key)
                  FROM stock.ledger WHERE reason = 'settle'";
    let expected = "held confirm pg_stock:settle, lapsed confirm pg_stock:settle, released in part \
                    confirm pg_stock:settle, x held release pg_stock:settle, x never heard of \
                    cancel ";
    assert_eq!(value(&mut client, done), expected);
    assert_eq!(
        outcome(&mut client, "try_reserve_stock('x never heard of', 'a', 'm', 1)"),
        "already_released"
    );
    finish(database);
}

/// An order of two lines, of which one has lapsed and is sold to somebody else: all or nothing, and
/// the other line is kept.
#[test]
fn an_order_is_settled_wholly_or_not_at_all() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "b", "m", 1);
    let lines =
        r#"[{"sku":"a","location":"m","quantity":2},{"sku":"b","location":"m","quantity":1}]"#;
    call(&mut client, &format!(r#"reserve_stock('o', '{lines}', '{{"ttl":"1 ms"}}')"#)).unwrap();
    value(&mut client, "SELECT pg_sleep(0.002)");
    outcome(&mut client, "sell_stock('other', 'b', 'm', 1)");
    let expected = (
        "o".to_owned(),
        "reservation_expired".to_owned(),
        Some("paid_but_expired".to_owned()),
        false,
    );
    assert_eq!(settle(&mut client, &[("o", "paid")]), [expected]);
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.levels WHERE sku = 'a'"), "10");
    finish(database);
}

#[test]
fn malformed_orders_are_told_where_they_are_wrong() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    outcome(&mut client, "reserve_stock('a', 'a', 'm', 1)");
    let too_many = "(SELECT jsonb_agg(jsonb_build_object('key', n::text, 'status', 'paid')) FROM \
                    generate_series(1, 10001) n)";
    for (orders, path) in [
        ("'[]'", "orders"),
        ("'{}'", "orders"),
        ("'null'", "orders"),
        ("'7'", "orders"),
        (too_many, "orders"),
        (r#"'["a"]'"#, "orders[0]"),
        (r#"'[{"key":"a"}]'"#, "orders[0]"),
        (r#"'[{"status":"paid"}]'"#, "orders[0]"),
        (r#"'[{"key":"a","status":"paid","lines":[]}]'"#, "orders[0].lines"),
        (r#"'[{"key":"a","status":"paid"},{"key":"","status":"paid"}]'"#, "orders[1].key"),
        (r#"'[{"key":7,"status":"paid"}]'"#, "orders[0].key"),
        (r#"'[{"key":"a","status":"shipped"}]'"#, "orders[0].status"),
        (r#"'[{"key":"a","status":null}]'"#, "orders[0].status"),
        (
            r#"'[{"key":"a","status":"paid"},{"key":"b","status":"paid"},{"key":"c","status":"paid"},
                 {"key":"b","status":"cancelled"}]'"#,
            "orders[3].key",
        ),
    ] {
        let error = client
            .simple_query(&format!("SELECT * FROM stock.settle({orders})"))
            .expect_err(orders);
        assert_eq!(sqlstate(&error), "22023", "{orders}: {error:?}");
        let report = error.as_db_error().expect("an error of the server");
        assert!(
            report.message().starts_with(path) && report.hint().is_some(),
            "{orders}: {report:?}"
        );
    }
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.ledger WHERE reason = 'settle'"),
        "0"
    );
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.settle(NULL)"),
        "0",
        "jsonb_agg of no orders"
    );
    finish(database);
}

/// As a shop does it: old holds are joined with its own table, and all that is said there is
/// carried out.
#[test]
fn five_hundred_orders_are_settled_against_the_order_table_in_one_call() {
    const SETTLE: &str = "SELECT * FROM stock.settle((
        SELECT jsonb_agg(jsonb_build_object('key', o.id, 'status', o.status))
          FROM orders o JOIN stock.doubtful_reservations('0') d ON d.key = o.id
         WHERE o.status IN ('paid', 'cancelled')))";
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    stocked(&mut client, "b", "m", 2_000);
    client
        .batch_execute(
            "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL);
             INSERT INTO orders SELECT 'order-' || n, CASE WHEN n > 500 THEN 'new' WHEN n % 3 = 0
             THEN 'cancelled' ELSE 'paid' END
               FROM generate_series(1, 510) n;
             SELECT FROM stock.reserve_many((
                 SELECT jsonb_agg(jsonb_build_object('key', id, 'lines', jsonb_build_array(
                            jsonb_build_object('sku', 'b', 'location', 'm', 'quantity', 2),
                            jsonb_build_object('sku', 'a', 'location', 'm', 'quantity', 1))))
                            FROM orders))",
        )
        .unwrap();
    let summed = format!(
        "SELECT string_agg(concat_ws(' ', status, outcome, mismatch, agrees, n), ', '
         ORDER BY status)
           FROM (SELECT status, outcome, mismatch, agrees, count(*) AS n FROM ({SETTLE}) s
           GROUP BY 1, 2, 3, 4) x"
    );
    let expected =
        "cancelled released cancelled_but_held t 166, paid confirmed paid_not_confirmed t 334";
    assert_eq!(value(&mut client, &summed), expected);
    let stock = "SELECT string_agg(concat_ws(' ', sku, on_hand, reserved), ', ' ORDER BY sku) FROM \
                 stock.levels";
    assert_eq!(value(&mut client, stock), "a 666 10, b 1332 20");
    assert_eq!(client.query(SETTLE, &[]).unwrap().len(), 0, "nothing is left in doubt");
    finish(database);
}

/// Two jobs settle the same orders of many lines, one from the front, one from the back: each order
/// is put right once.
#[test]
fn opposed_settlements_never_deadlock() {
    const ROUNDS: usize = 20;
    const ORDERS: usize = 12;
    let database = database();
    let mut client = database.connect();
    let skus = ["a", "b", "c"];
    skus.iter().for_each(|sku| stocked(&mut client, sku, "m", 10_000));
    let request = |n: usize| {
        let line = |place: usize| {
            format!(r#"{{"sku":"{}","location":"m","quantity":1}}"#, skus[(place + n) % 3])
        };
        format!(r#"{{"key":"o{n}","lines":[{},{},{}]}}"#, line(0), line(1), line(2))
    };
    let batch = (0..ROUNDS * ORDERS).map(request).collect::<Vec<_>>().join(",");
    call(&mut client, &format!("reserve_many('[{batch}]')")).unwrap();
    let put_right = at_once(database, 2, |number, client| {
        let mut put_right = 0;
        for round in 0..ROUNDS {
            // Orders that were never reserved are cancelled in between: they take a key and no
            // level.
            let known = (0..ORDERS)
                .map(|n| (format!("o{}", round * ORDERS + n), ["paid", "cancelled"][n % 2]));
            let unknown = (0..ORDERS).map(|n| (format!("no{}", round * ORDERS + n), "cancelled"));
            let mut orders: Vec<(String, &str)> = known.chain(unknown).collect();
            if number == 1 {
                orders.reverse();
            }
            let orders: Vec<(&str, &str)> =
                orders.iter().map(|(key, status)| (key.as_str(), *status)).collect();
            let verdicts = settle(client, &orders);
            assert!(verdicts.iter().all(|verdict| verdict.3), "{verdicts:?}");
            put_right += verdicts.iter().filter(|verdict| verdict.2.is_some()).count();
        }
        put_right
    });
    assert_eq!(put_right.iter().sum::<usize>(), ROUNDS * ORDERS, "{put_right:?}");
    let sold = (10_000 - ROUNDS * ORDERS / 2).to_string();
    assert_eq!(value(&mut client, "SELECT DISTINCT on_hand FROM stock.levels"), sold);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold"), "0");
    finish(database);
}

#[test]
fn old_reservations_are_listed_oldest_first() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "b", "m", 100);
    let lines =
        r#"[{"sku":"a","location":"m","quantity":2},{"sku":"b","location":"m","quantity":3}]"#;
    call(&mut client, &format!(r#"reserve_stock('old', '{lines}', '{{"buyer":"anna"}}')"#))
        .unwrap();
    outcome(&mut client, "reserve_stock('overdue', 'a', 'm', 1, '1 ms')");
    outcome(&mut client, "reserve_stock('young', 'a', 'm', 1)");
    outcome(&mut client, "sell_stock('sold', 'a', 'm', 1)");
    client
        .batch_execute(
            "UPDATE stock.hold SET reserved_at = reserved_at - '1 hour'::interval WHERE key = 'old';
             UPDATE stock.hold SET reserved_at = reserved_at - '1 day'::interval
             WHERE key = 'overdue';
             SELECT pg_sleep(0.002)",
        )
        .unwrap();
    let listed = |client: &mut Client, older_than: &str| {
        let sql = format!(
            "SELECT coalesce(string_agg(concat_ws(' ', key, lines, units, buyer, overdue), ', '),
             '')
               FROM stock.doubtful_reservations({older_than})"
        );
        value(client, &sql)
    };
    assert_eq!(listed(&mut client, ""), "overdue 1 1 t, old 2 5 anna f");
    assert_eq!(listed(&mut client, "'0'"), "overdue 1 1 t, old 2 5 anna f, young 1 1 f");
    assert_eq!(listed(&mut client, "'2 hours'"), "overdue 1 1 t");
    assert_eq!(listed(&mut client, "'1 year'"), "");
    let times = "SELECT bool_and((d.reserved_at, d.expires_at) = (SELECT min(h.reserved_at),
                 min(h.expires_at)
                                                                  FROM stock.hold h
                                                                  WHERE h.key = d.key))
                   FROM stock.doubtful_reservations('0') d";
    assert_eq!(value(&mut client, times), "t");
    for older_than in ["NULL", "'-1 second'"] {
        let sql = format!("SELECT * FROM stock.doubtful_reservations({older_than})");
        let error = client.simple_query(&sql).expect_err(&sql);
        assert_eq!(sqlstate(&error), "22023", "{sql}: {error:?}");
        assert!(
            error.as_db_error().is_some_and(|report| report.hint().is_some()),
            "{sql}: {error:?}"
        );
    }
    finish(database);
}
