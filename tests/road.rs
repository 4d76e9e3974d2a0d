//! A6: goods travel between warehouses, each unit is in one place at any moment, and each
//! step counts once.

use std::collections::BTreeMap;

use super::support::{
    WAYS, at_once, call, database, finish, outcome, raised, sqlstate, stocked, value,
};

/// On hand, in transit, and available of a SKU at two locations.
fn counters(client: &mut postgres::Client) -> String {
    value(
        client,
        "SELECT string_agg(concat_ws(' ', location, on_hand, in_transit, available), ', '
                           ORDER BY location)
           FROM stock.levels WHERE sku = 'a'",
    )
}

fn told(client: &mut postgres::Client, text: &str) -> Vec<String> {
    let rows = call(client, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    rows.iter()
        .map(|row| {
            let replayed = if row.replayed { " again" } else { "" };
            format!("{} {} {}{replayed}", row.location, row.quantity, row.outcome)
        })
        .collect()
}

#[test]
fn goods_travel_between_warehouses_and_each_unit_is_in_one_place() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        stocked(&mut client, "a", "north", 10);
        stocked(&mut client, "b", "north", 5);
        let send = r#"try_dispatch_stock('lorry 7', '[
            {"sku":"a","from":"north","to":"south","quantity":4},
            {"sku":"b","from":"north","to":"south","quantity":2},
            {"sku":"a","from":"north","to":"south","quantity":2}]', 'Tuesday')"#;
        let sent = ["north 6 dispatched", "south 6 dispatched", "north 2 dispatched"];
        assert_eq!(told(&mut client, send)[..3], sent, "{way}");
        assert_eq!(counters(&mut client), "north 4 0 4, south 0 6 0", "{way}");
        assert!(told(&mut client, send).iter().all(|row| row.ends_with("dispatched again")));
        let shown =
            "SELECT string_agg(concat_ws(' ', key, sku, from_location, to_location, quantity,
                                                 on_the_way_for < '1 minute'), ', ' ORDER BY sku)
                       FROM stock.shipments";
        assert_eq!(
            value(&mut client, shown),
            "lorry 7 a north south 6 t, lorry 7 b north south 2 t",
            "{way}"
        );
        // What is on the way is nobody's to sell: neither here nor there.
        assert_eq!(
            outcome(&mut client, "try_reserve_stock('o', 'a', 'south', 1)"),
            "insufficient_stock"
        );
        // Half of it arrives, the rest is lost.
        let half = r#"try_arrive_stock('lorry 7', '[{"sku":"a","location":"south","quantity":3}]'"#;
        assert_eq!(raised(&mut client, &format!("{half})")), "22023", "a part needs a key");
        assert_eq!(told(&mut client, &format!("{half}, 'pallet 1')")), ["south 3 arrived"]);
        assert_eq!(told(&mut client, &format!("{half}, 'pallet 1')")), ["south 3 arrived again"]);
        assert_eq!(counters(&mut client), "north 4 0 4, south 3 3 3", "{way}");
        let more = half.replace("\"quantity\":3", "\"quantity\":4");
        assert_eq!(told(&mut client, &format!("{more}, 'pallet 2')")), ["south 4 not_on_the_way"]);
        assert_eq!(told(&mut client, &format!("{more}, 'pallet 1')")), ["south 4 key_conflict"]);
        let lost = r#"try_lose_stock('lorry 7', '[{"sku":"a","location":"south","quantity":3}]',
                                     'fell off', 'an accident')"#;
        assert_eq!(told(&mut client, lost), ["south 3 lost"]);
        assert_eq!(told(&mut client, "try_arrive_stock('lorry 7')"), ["south 2 arrived"]);
        assert_eq!(told(&mut client, "try_arrive_stock('lorry 7')"), ["south 2 arrived again"]);
        assert_eq!(counters(&mut client), "north 4 0 4, south 3 0 3", "{way}");
        assert_eq!(value(&mut client, "SELECT count(*) FROM stock.shipments"), "0");
        let twice = told(&mut client, "try_lose_stock('lorry 7', NULL, 'again')");
        assert!(twice.iter().all(|row| row.ends_with("not_on_the_way")), "{twice:?}");
        assert_eq!(told(&mut client, "try_arrive_stock('lorry 8')"), [" 0 unknown_shipment"]);
        assert_eq!(raised(&mut client, "arrive_stock('lorry 8')"), "ST015");
        assert_eq!(raised(&mut client, "recall_stock('lorry 7')"), "ST016");
        let reasons = "SELECT string_agg(DISTINCT operation || ' ' || reason, ', ')
                         FROM stock.ledger_rows WHERE reason IS NOT NULL";
        assert_eq!(value(&mut client, reasons), "dispatch Tuesday, lose an accident", "{way}");
        finish(database);
    }
}

#[test]
fn what_turns_round_arrives_where_it_came_from() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        stocked(&mut client, "a", "north", 10);
        stocked(&mut client, "a", "south", 10);
        // Both ways at once, under one key.
        let send = r#"try_dispatch_stock('swap', '[
            {"sku":"a","from":"north","to":"south","quantity":4},
            {"sku":"a","from":"south","to":"north","quantity":7}]')"#;
        assert_eq!(told(&mut client, send).len(), 4);
        assert_eq!(counters(&mut client), "north 6 7 6, south 3 4 3", "{way}");
        let one =
            r#"try_arrive_stock('swap', '[{"sku":"a","location":"north","quantity":2}]', 'p')"#;
        assert_eq!(told(&mut client, one), ["north 2 arrived"]);
        assert_eq!(
            told(&mut client, "try_recall_stock('swap', NULL, 'bridge closed')"),
            ["south 4 recalled", "north 4 recalled", "north 5 recalled", "south 5 recalled"]
        );
        assert_eq!(counters(&mut client), "north 8 4 8, south 3 5 3", "{way}");
        let again = told(&mut client, "try_recall_stock('swap')");
        assert!(again.iter().all(|row| row.ends_with(" recalled again")), "{again:?}");
        let shown = "SELECT string_agg(concat_ws(' ', from_location, to_location, quantity), ', '
                                       ORDER BY from_location) FROM stock.shipments";
        assert_eq!(value(&mut client, shown), "north south 5, south north 4", "{way}");
        assert_eq!(told(&mut client, "try_recall_stock('swap', 'bridge open')").len(), 4);
        assert_eq!(value(&mut client, shown), "north south 4, south north 5", "{way}");
        assert_eq!(told(&mut client, "try_arrive_stock('swap')").len(), 2);
        assert_eq!(counters(&mut client), "north 13 0 13, south 7 0 7", "{way}");
        finish(database);
    }
}

#[test]
fn what_is_promised_or_frozen_does_not_leave() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "north", 10);
    let send = |units: i64, other: i64| {
        format!(
            r#"try_dispatch_stock('d', '[{{"sku":"a","from":"north","to":"east","quantity":{units}}},
                                         {{"sku":"a","from":"north","to":"west","quantity":{other}}}]')"#
        )
    };
    assert_eq!(outcome(&mut client, "try_reserve_stock('held', 'a', 'north', 4)"), "reserved");
    // Two ways from one level, of which each alone would do.
    let refused = told(&mut client, &send(4, 3));
    assert_eq!(
        refused,
        [
            "north 4 below_reserved",
            "east 4 not_applied",
            "north 3 below_reserved",
            "west 3 not_applied"
        ]
    );
    assert_eq!(outcome(&mut client, "try_freeze_level('f', 'a', 'north', 'recall')"), "frozen");
    assert_eq!(told(&mut client, &send(1, 1))[0], "north 1 level_frozen");
    assert_eq!(outcome(&mut client, "try_unfreeze_level('u', 'a', 'north', 'over')"), "unfrozen");
    assert_eq!(told(&mut client, &send(4, 2))[3], "west 2 dispatched");
    assert_eq!(told(&mut client, &send(2, 4))[0], "north 2 key_conflict");
    // A hold that has lapsed gives way.
    assert_eq!(outcome(&mut client, "try_receive_stock('r', 'a', 'south', 3)"), "received");
    assert_eq!(outcome(&mut client, "try_reserve_stock('l', 'a', 'south', 3, '1 ms')"), "reserved");
    client.batch_execute("SELECT pg_sleep(0.01)").unwrap();
    let all = r#"try_dispatch_stock('e', '[{"sku":"a","from":"south","to":"east","quantity":3}]')"#;
    assert_eq!(told(&mut client, all)[0], "south 3 dispatched");
    let unknown =
        r#"try_dispatch_stock('u', '[{"sku":"z","from":"south","to":"east","quantity":3}]')"#;
    assert_eq!(told(&mut client, unknown)[0], "south 3 unknown_level");
    finish(database);
}

#[test]
fn bad_lines_of_a_shipment_get_clear_errors() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "north", 10);
    for (lines, told) in [
        ("NULL", "lines must not be null"),
        ("'[]'", "lines must not be empty"),
        (r#"'[{"sku":"a","from":"north","to":"north","quantity":1}]'"#, "lines[0].to is the same"),
        (r#"'[{"sku":"a","from":"north","to":"south","quantity":0}]'"#, "lines[0].quantity"),
        (r#"'[{"sku":"a","location":"south","quantity":1}]'"#, "lines[0].location"),
        (r#"'[{"sku":"a","from":"north","to":" south","quantity":1}]'"#, "lines[0].to"),
    ] {
        for form in ["", "try_"] {
            let error = call(&mut client, &format!("{form}dispatch_stock('d', {lines})"));
            let error = error.expect_err(lines);
            assert_eq!(sqlstate(&error), "22023", "{lines}");
            let report = error.as_db_error().expect("a report");
            assert!(report.message().contains(told), "{lines}: {report:?}");
            assert!(report.hint().is_some(), "{lines}");
        }
    }
    finish(database);
}

#[test]
fn refusals_on_the_road_say_what_there_is() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "north", 10);
    let send = |units: i64| {
        format!(
            r#"dispatch_stock('d', '[{{"sku":"a","from":"north","to":"south","quantity":{units}}}]')"#
        )
    };
    let arrive = |more: &str| {
        format!(r#"arrive_stock('d', '[{{"sku":"a","location":"south","quantity":4{more}}}]')"#)
    };
    let mut detail = |text: &str, state: &str| {
        let error = call(&mut client, text).map(|rows| format!("{rows:?}")).unwrap_err();
        assert_eq!(sqlstate(&error), state, "{text}");
        let report = error.as_db_error().expect("a report");
        assert!(report.hint().is_some(), "{text}");
        format!("{} {}", report.message(), report.detail().unwrap_or_default())
    };
    let told = detail(&send(11), "ST013");
    assert!(told.contains("11 asked, 10 not reserved"), "{told}");
    assert!(detail(&arrive(""), "ST015").contains("unknown_shipment"));
    drop(call(&mut database.connect(), &send(3)).unwrap());
    let told = detail(&arrive(""), "ST016");
    assert!(told.contains("4 asked, 3 on the way"), "{told}");
    let told = detail(&arrive(r#","expected_version":77"#), "22023");
    assert!(told.contains("lines[0].expected_version is not allowed here"), "{told}");
    let told = detail(
        r#"confirm_stock('d', '[{"sku":"a","location":"m","quantity":1,"expected_version":7}]')"#,
        "22023",
    );
    assert!(told.contains("expected_version"), "{told}");
    finish(database);
}

/// However often a lorry is unloaded at once, it is unloaded once; and what is lost does not
/// arrive.
#[test]
fn many_who_unload_one_lorry_unload_it_once() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "north", 100);
    call(
        &mut client,
        r#"dispatch_stock('lorry', '[{"sku":"a","from":"north","to":"south","quantity":60}]')"#,
    )
    .unwrap();
    let line = r#"'[{"sku":"a","location":"south","quantity":10}]'"#;
    let outcomes = at_once(database, 16, |number, client| {
        let text = match number % 4 {
            0 => format!("try_arrive_stock('lorry', {line}, 'one pallet')"),
            1 => format!("try_arrive_stock('lorry', {line}, 'pallet {number}')"),
            2 => format!("try_lose_stock('lorry', {line}, 'crate {number}')"),
            _ => format!("try_recall_stock('lorry', 'turn {}')", number % 8),
        };
        call(client, &text).expect("an answer").iter().map(|row| row.outcome.clone()).collect()
    });
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    outcomes.iter().for_each(|rows: &Vec<String>| *count.entry(rows[0].clone()).or_default() += 1);
    let sums = "SELECT sum(on_hand + in_transit)::bigint
                       + (SELECT coalesce(sum(quantity), 0)::bigint FROM stock.ledger
                           WHERE operation = 'lose')
                  FROM stock.level";
    assert_eq!(value(&mut client, sums), "100", "{count:?}");
    let twice = "SELECT count(*) FROM stock.ledger WHERE operation_key = 'one pallet'";
    assert!(["0", "1"].contains(&value(&mut client, twice).as_str()), "{count:?}");
    finish(database);
}

/// Lorries both ways beside buyers at both ends: nothing deadlocks, nothing is lost.
#[test]
fn lorries_in_opposed_directions_never_deadlock() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        for location in ["north", "south"] {
            stocked(&mut client, "a", location, 1_000);
            stocked(&mut client, "b", location, 1_000);
        }
        at_once(database, 12, |number, client| {
            client.batch_execute(way).unwrap();
            let (from, to) = if number % 2 == 0 { ("north", "south") } else { ("south", "north") };
            for round in 0..12 {
                let key = format!("{number} {round}");
                let lines = ["b", "a"].map(|sku| {
                    format!(r#"{{"sku":"{sku}","from":"{from}","to":"{to}","quantity":2}}"#)
                });
                let lines = lines.join(",");
                call(client, &format!("dispatch_stock('{key}', '[{lines}]')")).unwrap();
                call(client, &format!("reserve_stock('{key}', 'a', '{to}', 1)")).unwrap();
                let end = match round % 3 {
                    0 => format!("recall_stock('{key}')"),
                    1 => format!("lose_stock('{key}')"),
                    _ => format!("arrive_stock('{key}')"),
                };
                call(client, &end).unwrap();
                call(client, &format!("confirm_stock('{key}')")).unwrap();
            }
        });
        let left = "SELECT sum(on_hand + in_transit)::bigint FROM stock.level";
        // 12 x 12 sold, 12 x 4 x 4 lost.
        assert_eq!(value(&mut client, left), (4_000 - 144 - 192).to_string(), "{way}");
        finish(database);
    }
}
