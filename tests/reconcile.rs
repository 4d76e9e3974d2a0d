//! What the shop says is compared with what the stock says (MISSION A4, C10): each difference has
//! its name, is kept, and raises an alert that ends.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres::Client;

use super::support::{database, finish, outcome, sqlstate, stocked, value};

/// What a comparison says: SKU, location, what, expected, actual, mismatch.
fn compared(client: &mut Client, call: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(' ', sku, nullif(location, ''), what, expected, actual, mismatch)
           FROM stock.{call}"
    );
    let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// What was said on the alert channel since.
fn alerts(client: &mut Client) -> Vec<String> {
    let mut heard = client.notifications();
    let mut waiting = heard.timeout_iter(Duration::from_millis(200));
    let mut said = Vec::new();
    while let Some(message) = waiting.next().unwrap() {
        let message: serde_json::Value = serde_json::from_str(message.payload()).unwrap();
        let alert = &message["alerts"][0];
        let text = |field: &str| alert[field].as_str().unwrap_or_default().to_owned();
        said.push(format!("{} {} {}", text("alert"), text("sku"), text("location")));
    }
    said.sort();
    said
}

/// MISSION A4: 23 orders were paid but never deducted (321 orders, 298 deductions); C10: the
/// nightly drift has a threshold and an alert.
#[test]
fn what_was_paid_and_never_deducted_is_found() {
    let database = database();
    let mut client = database.connect();
    for sku in ["shirt", "mug", "cap"] {
        stocked(&mut client, sku, "m", 1000);
        stocked(&mut client, sku, "n", 1000);
    }
    client
        .batch_execute(
            "CREATE TABLE orders AS
             SELECT 'o' || n AS key, CASE n % 2 WHEN 0 THEN 'shirt' ELSE 'mug' END AS sku,
                    1 + n % 3 AS units FROM generate_series(1, 321) n;
             SELECT count(*) FROM orders o, stock.reserve_stock(o.key, o.sku, 'm', o.units);
             SELECT count(*) FROM orders o, stock.confirm_stock(o.key) WHERE o.key NOT LIKE 'o%7';
             CREATE VIEW sold AS
             SELECT sku, 'm' AS location, sum(units) AS sold FROM orders GROUP BY sku",
        )
        .unwrap();
    // Goods come back, and a cap is sold that the shop knows nothing of.
    outcome(&mut client, "return_stock('o1')");
    outcome(&mut client, "sell_stock('unknown', 'cap', 'n', 4)");
    let lost = value(&mut client, "SELECT sum(units) FROM orders WHERE key LIKE 'o%7'");
    let back = value(&mut client, "SELECT units FROM orders WHERE key = 'o1'");
    let said = compared(&mut client, "reconcile_source('sold')");
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("mug m sold") && said[0].ends_with("sold_less"), "{said:?}");
    let difference = "SELECT sold_expected - sold_actual FROM stock.reconciliation";
    let expected: i64 = lost.parse::<i64>().unwrap() + back.parse::<i64>().unwrap() - 4;
    assert_eq!(value(&mut client, difference), expected.to_string());
    assert_eq!(said[1], "cap n sold 0 4 sold_more");
    assert!(said[2].starts_with("shirt m sold"), "{said:?}");
    let level =
        "SELECT concat_ws(' ', lines, mismatches, above_tolerance) FROM stock.reconciliation";
    assert_eq!(value(&mut client, level), "3 2 2");

    // The shop settles what was lost, and says what came back; then all agrees.
    client
        .batch_execute(
            "SELECT count(*) FROM stock.settle((SELECT jsonb_agg(jsonb_build_object('key', key,
               'status', 'paid')) FROM orders WHERE key LIKE 'o%7'));
             DELETE FROM orders WHERE key = 'o1';
             INSERT INTO orders VALUES ('unknown', 'cap', 4);
             CREATE OR REPLACE VIEW sold AS
             SELECT sku, CASE sku WHEN 'cap' THEN 'n' ELSE 'm' END AS location,
                    sum(units) AS sold FROM orders GROUP BY sku",
        )
        .unwrap();
    let said = compared(&mut client, "reconcile_source('sold')");
    assert!(said.iter().all(|line| !line.ends_with("less") && !line.ends_with("more")), "{said:?}");
    let kept = "SELECT count(*) FROM stock.reconciliation_line l JOIN stock.reconciliation r
                 USING (reconciliation) WHERE r.mismatches > 0 AND l.mismatch IS NOT NULL";
    assert_eq!(value(&mut client, kept), "2", "what differed once is kept");
    finish(database);
}

/// Units there, SKUs as a whole, times; a tolerance, and an alert that begins and ends once.
#[test]
fn a_drift_raises_an_alert_that_ends() {
    let database = database();
    let mut client = database.connect();
    let mut listener = database.connect();
    listener.batch_execute("LISTEN stock_alert").unwrap();
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "a", "n", 5);
    stocked(&mut client, "b", "m", 7);
    outcome(&mut client, "sell_stock('o', 'a', 'm', 3)");
    let drifted = r#"'[{"sku":"a","on_hand":12,"sold":3},{"sku":"b","location":"m","on_hand":9},
                       {"sku":"c","location":"m","on_hand":1}]'"#;
    let said = compared(&mut client, &format!("reconcile({drifted}, tolerance => 1)"));
    assert_eq!(
        said,
        [
            "b m on_hand 9 7 on_hand_less",
            "c m on_hand 1 0 unknown_level",
            "a on_hand 12 12",
            "a sold 3 3"
        ]
    );
    assert_eq!(alerts(&mut listener), ["drift b m"]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.alert WHERE alert = 'drift'"), "1");
    compared(&mut client, &format!("reconcile({drifted}, tolerance => 1)"));
    assert_eq!(alerts(&mut listener), [""; 0], "it was told");
    compared(&mut client, &format!("reconcile({drifted})"));
    assert_eq!(alerts(&mut listener), ["drift c m"]);
    let right = r#"'[{"sku":"b","location":"m","on_hand":7}]'"#;
    compared(&mut client, &format!("reconcile({right})"));
    assert_eq!(alerts(&mut listener), ["drift_ended b m"]);
    client.batch_execute("SET pg_stock.notify = off").unwrap();
    let off = r#"'[{"sku":"b","location":"m","on_hand":70}]'"#;
    compared(&mut client, &format!("reconcile({off})"));
    assert_eq!(alerts(&mut listener), [""; 0]);

    // A time in which nothing was sold; nothing said at all.
    let earlier = "'2020-01-01', '2021-01-01'";
    let one = r#"'[{"sku":"a","sold":3}]'"#;
    assert_eq!(
        compared(&mut client, &format!("reconcile({one}, {earlier})")),
        ["a sold 3 0 sold_less"]
    );
    assert_eq!(compared(&mut client, "reconcile('[]')"), ["a m sold 0 3 sold_more"]);
    assert_eq!(compared(&mut client, "reconcile(NULL)"), ["a m sold 0 3 sold_more"]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    // The drift of what the shop did not name ends once nothing more is sold of it.
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.alert WHERE sku = 'a'"), "1");
    compared(&mut client, "reconcile('[]', now(), 'infinity')");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.alert WHERE sku = 'a'"), "0");
    // A hundred comparisons are kept.
    client.batch_execute("SELECT stock.reconcile('[]') FROM generate_series(1, 120)").unwrap();
    let kept = "SELECT concat_ws(' ', (SELECT count(*) FROM stock.reconciliation),
                       (SELECT count(*) FROM stock.reconciliation_line))";
    assert_eq!(value(&mut client, kept), "100 100");
    finish(database);
}

#[test]
fn what_cannot_be_compared_is_told_so() {
    let database = database();
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE bare (sku text); CREATE TABLE other (n int)").unwrap();
    for (call, code, what) in [
        (r#"reconcile('{}')"#, "22023", "shop must be an array"),
        (r#"reconcile('[1]')"#, "22023", "shop[0] must be an object"),
        (r#"reconcile('[{"sku":"a","sold":1},{"sku":5,"sold":1}]')"#, "22023", "shop[1].sku"),
        (r#"reconcile('[{"sold":1}]')"#, "22023", "shop[0].sku"),
        (r#"reconcile('[{"sku":"","sold":1}]')"#, "22023", "shop[0].sku"),
        (r#"reconcile('[{"sku":"a","location":7,"sold":1}]')"#, "22023", "shop[0].location"),
        (r#"reconcile('[{"sku":"a"}]')"#, "22023", "shop[0] must say sold or on_hand"),
        (r#"reconcile('[{"sku":"a","sold":"1"}]')"#, "22023", "shop[0].sold"),
        (r#"reconcile('[{"sku":"a","on_hand":1.5}]')"#, "22023", "shop[0].on_hand"),
        (r#"reconcile('[{"sku":"a","on_hand":1e30}]')"#, "22023", "shop[0].on_hand"),
        (r#"reconcile('[{"sku":"a","sold":1,"colour":1}]')"#, "22023", "colour"),
        (r#"reconcile('[{"sku":"a","sold":1},{"sku":"a","sold":1}]')"#, "22023", "another"),
        (
            r#"reconcile('[{"sku":"a","sold":1},{"sku":"a","location":null,"sold":1}]')"#,
            "22023",
            "another",
        ),
        ("reconcile('[]', '2021-01-01', '2020-01-01')", "22023", "since must be before until"),
        ("reconcile('[]', NULL)", "22023", "since must be before until"),
        ("reconcile('[]', tolerance => -1)", "22023", "tolerance"),
        ("reconcile_source('bare')", "42703", "bare has no column"),
        ("reconcile_source('other')", "42703", "other has no column"),
        ("reconcile_source(NULL)", "42703", "source must not be null"),
        ("schedule_reconciliation(NULL)", "22023", "source must be named"),
        ("schedule_reconciliation('bare')", "0A000", "pg_cron"),
    ] {
        let error = client.simple_query(&format!("SELECT stock.{call}")).expect_err(call);
        assert_eq!(sqlstate(&error), code, "{call}: {error:?}");
        let report = error.as_db_error().expect("from the server");
        assert!(report.message().contains(what), "{call}: {report:?}");
        assert!(report.hint().is_some(), "{call}: {report:?}");
    }
    finish(database);
}
