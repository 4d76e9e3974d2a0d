//! C7: a sale opens at a moment of the database's clock, the same for all, and ends at one.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use super::support::{
    WAYS, at_once, backend, call, database, eventually, finish, outcome, raised, stocked, value,
    wait_for_lock,
};

fn window(key: &str, from: &str, until: &str) -> String {
    format!("try_set_limits('{key}', 'a', 'm', on_sale_from => {from}, on_sale_until => {until})")
}

#[test]
fn outside_the_window_nothing_is_sold_and_the_answer_says_when_it_opens() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        stocked(&mut client, "a", "m", 10);
        stocked(&mut client, "b", "m", 10);
        for hold in ["paid", "given up"] {
            let text = format!("try_reserve_stock('{hold}', 'a', 'm', 2)");
            assert_eq!(outcome(&mut client, &text), "reserved");
        }
        assert_eq!(
            outcome(&mut client, &window("w", "'2099-01-01 09:00+00'", "NULL")),
            "limits_set"
        );
        for refused in [
            "try_reserve_stock('k', 'a', 'm', 1)",
            "try_sell_stock('k', 'a', 'm', 1)",
            "try_reserve_stock('k', 'a', 'm', 100)",
            r#"reserve_many('[{"key":"k","lines":[{"sku":"a","location":"m","quantity":1}]}]')"#,
        ] {
            let told = format!(
                "SELECT concat_ws(' ', outcome, available, opens_at = '2099-01-01 09:00+00')
                   FROM stock.{refused}"
            );
            assert_eq!(value(&mut client, &told), "not_on_sale 0 t", "{way}: {refused}");
        }
        let two = r#"try_reserve_stock('k', '[{"sku":"b","location":"m","quantity":1},
                                             {"sku":"a","location":"m","quantity":1}]')"#;
        let outcomes = call(&mut client, two).unwrap().into_iter().map(|row| row.outcome);
        assert_eq!(outcomes.collect::<Vec<_>>(), ["not_applied", "not_on_sale"], "{way}");
        let error = call(&mut client, "reserve_stock('k', 'a', 'm', 1)").unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "ST014");
        let detail = error.detail().unwrap();
        assert!(detail.contains("on sale from 2099-01-01T09:00:00Z"), "{detail}");
        let shown = "SELECT concat_ws(' ', stock.available('a', 'm'), available, on_hand, reserved,
                                      on_sale_from = '2099-01-01 09:00+00', on_sale_until)
                       FROM stock.levels WHERE sku = 'a'";
        assert_eq!(value(&mut client, shown), "0 0 10 4 t", "{way}");
        // What was promised stays so, and goods come and go.
        assert_eq!(outcome(&mut client, "try_extend_reservation('paid', '2 hours')"), "extended");
        assert_eq!(outcome(&mut client, "try_confirm_stock('paid')"), "confirmed");
        assert_eq!(outcome(&mut client, "try_return_stock('paid')"), "returned");
        assert_eq!(outcome(&mut client, "try_release_stock('given up')"), "released");
        let moved = call(&mut client, "try_transfer_stock('t', 'a', 'm', 'shop', 1)").unwrap();
        assert_eq!(moved[0].outcome, "transferred");
        // The refusals left no trace: the key is new when the sale is on.
        assert_eq!(outcome(&mut client, &window("now", "now()", "NULL")), "limits_set");
        assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
        assert_eq!(outcome(&mut client, &window("over", "NULL", "now()")), "limits_set");
        let ended = "SELECT concat_ws(' ', outcome, available, coalesce(opens_at::text, 'never'))
                       FROM stock.try_sell_stock('late', 'a', 'm', 1)";
        assert_eq!(value(&mut client, ended), "not_on_sale 0 never", "{way}");
        let error = call(&mut client, "sell_stock('late', 'a', 'm', 1)").unwrap_err();
        let detail = error.as_db_error().unwrap().detail().unwrap();
        assert!(detail.contains("the sale has ended"), "{detail}");
        finish(database);
    }
}

#[test]
fn a_lapsed_hold_is_confirmed_late_but_not_extended_outside_the_window() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        stocked(&mut client, "a", "m", 10);
        for key in ["k1", "k2"] {
            let text = format!("try_reserve_stock('{key}', 'a', 'm', 2, '1 ms')");
            assert_eq!(outcome(&mut client, &text), "reserved");
        }
        client.batch_execute("SELECT pg_sleep(0.01)").unwrap();
        assert_eq!(outcome(&mut client, &window("over", "NULL", "now()")), "limits_set");
        assert_eq!(outcome(&mut client, "try_extend_reservation('k1', '1 hour')"), "not_on_sale");
        assert_eq!(outcome(&mut client, "try_confirm_stock('k2')"), "confirmed_late");
        finish(database);
    }
}

#[test]
fn a_sale_opens_at_a_full_second_under_64_impatient_connections() {
    const BUYERS: usize = 64;
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", BUYERS as i64 + 36);
    assert_eq!(outcome(&mut client, &window("some day", "'2099-01-01'", "NULL")), "limits_set");
    let refused = AtomicUsize::new(0);
    at_once(database, BUYERS + 1, |number, client| {
        if number == BUYERS {
            eventually("all are at the door", || refused.load(SeqCst) >= BUYERS);
            let second = "date_trunc('second', clock_timestamp()) + interval '2 s'";
            assert_eq!(outcome(client, &window("opening", second, "NULL")), "limits_set");
            return;
        }
        // A session in another time zone is not earlier or later than others.
        client.batch_execute(&format!("SET TIME ZONE {}", number as i64 % 24 - 12)).unwrap();
        let text = format!("try_sell_stock('k{number}', 'a', 'm', 1)");
        let mut is_at_the_door = false;
        eventually("the sale opens", || match outcome(client, &text).as_str() {
            "sold" => true,
            "not_on_sale" => {
                if !std::mem::replace(&mut is_at_the_door, true) {
                    refused.fetch_add(1, SeqCst);
                }
                false
            }
            other => panic!("{other}"),
        });
        assert!(is_at_the_door);
    });
    let early = "SELECT count(*) FROM stock.ledger g JOIN stock.level l ON l.sku = g.sku
                  WHERE g.operation = 'reserve' AND g.recorded_at < l.on_sale_from";
    assert_eq!(value(&mut client, early), "0");
    let first = "SELECT extract(milliseconds FROM min(g.recorded_at) - min(l.on_sale_from))
                   FROM stock.ledger g JOIN stock.level l ON l.sku = g.sku
                  WHERE g.operation = 'reserve'";
    println!("the first of {BUYERS} buyers came in after {} ms", value(&mut client, first));
    assert_eq!(value(&mut client, "SELECT available FROM stock.levels"), "36");
    finish(database);
}

#[test]
fn a_sale_that_ends_while_buyers_wait_is_over_for_them() {
    for way in WAYS {
        let database = database();
        let (mut shop, mut buyer, mut watcher) =
            (database.connect(), database.connect(), database.connect());
        buyer.batch_execute(way).unwrap();
        stocked(&mut shop, "a", "m", 10);
        assert_eq!(outcome(&mut buyer, "try_reserve_stock('first', 'a', 'm', 1)"), "reserved");
        shop.batch_execute("BEGIN").unwrap();
        assert_eq!(outcome(&mut shop, &window("over", "NULL", "now()")), "limits_set");
        let pid = backend(&mut buyer);
        std::thread::scope(|scope| {
            let told = scope.spawn(|| outcome(&mut buyer, "try_reserve_stock('k', 'a', 'm', 1)"));
            wait_for_lock(&mut watcher, pid);
            shop.batch_execute("COMMIT").unwrap();
            assert_eq!(told.join().unwrap(), "not_on_sale", "{way}");
        });
        finish(database);
    }
}

/// Whoever waits for the level while the sale ends comes too late, whether the one who held it sold
/// something or not, and whatever he asks for.
#[test]
fn a_wait_beyond_the_end_of_the_sale_is_in_vain() {
    let kinds = [
        ("plain", "try_reserve_stock('k1', 'plain', 'm', 1)"),
        ("sell", "try_sell_stock('k2', 'sell', 'm', 1)"),
        ("limited", "try_reserve_stock('k3', 'limited', 'm', 1, NULL, 'anna')"),
        (
            "many",
            r#"reserve_many('[{"key":"k4","lines":[{"sku":"many","location":"m","quantity":1}]}]')"#,
        ),
    ];
    for (way, end) in WAYS.iter().flat_map(|way| [(way, "COMMIT"), (way, "ROLLBACK")]) {
        let database = database();
        let mut shop = database.connect();
        let until = "clock_timestamp() + interval '4 s'";
        for (sku, _) in kinds {
            stocked(&mut shop, sku, "m", 10);
            let limit = if sku == "limited" { "5" } else { "NULL" };
            let set = format!("set_limits('w {sku}', '{sku}', 'm', NULL, {limit}, NULL, {until})");
            assert_eq!(outcome(&mut shop, &set), "limits_set");
        }
        shop.batch_execute("BEGIN").unwrap();
        for (sku, _) in kinds {
            let text = "try_reserve_stock('shop', 'shop', 'm', 1)".replace("shop", sku);
            let text = text.replace(", 1)", ", 1, NULL, 'berta')");
            assert_eq!(outcome(&mut shop, &text), "reserved", "{way}: {sku}");
        }
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (kinds.iter())
                .map(|(_, text)| {
                    let (mut buyer, mut watcher) = (database.connect(), database.connect());
                    buyer.batch_execute(way).unwrap();
                    let pid = backend(&mut buyer);
                    let told = scope.spawn(move || {
                        let row = call(&mut buyer, text).unwrap().remove(0);
                        (row.outcome, row.available)
                    });
                    wait_for_lock(&mut watcher, pid);
                    told
                })
                .collect();
            let over = "SELECT bool_and(on_sale_until < clock_timestamp()) FROM stock.level
                         WHERE on_sale_until IS NOT NULL";
            eventually("the end of the sale", || value(&mut shop, over) == "t");
            shop.batch_execute(end).unwrap();
            for (told, (sku, _)) in waiting.into_iter().zip(kinds) {
                let told = told.join().unwrap();
                assert_eq!(told, ("not_on_sale".into(), Some(0)), "{way}, {end}: {sku}");
            }
        });
        finish(database);
    }
}

#[test]
fn a_window_is_set_lifted_and_replayed_and_nonsense_is_named() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let (monday, friday) = ("'2026-11-30 09:00+00'", "'2026-12-04 18:00+00'");
    let both = window("w1", monday, friday);
    assert_eq!(outcome(&mut client, &both), "limits_set");
    let again = call(&mut client, &both).unwrap();
    assert_eq!((again[0].outcome.as_str(), again[0].replayed), ("limits_set", true));
    assert_eq!(outcome(&mut client, &window("w1", monday, "NULL")), "key_conflict");
    for nonsense in [
        window("w2", friday, monday),
        window("w2", monday, monday),
        // The bound that stays counts, too.
        window("w2", "'2027-01-01'", "NULL"),
        window("w2", "NULL", "'2026-01-01'"),
        window("w2", "'infinity'", "NULL"),
        window("w2", "NULL", "'-infinity'"),
        window("w2", "'20000-01-01'", "'infinity'"),
        window("w2", "'1969-12-31 23:00+00'", "NULL"),
        window("w2", "'0044-03-15 BC'", "NULL"),
        window("w2", friday, monday).replace("'a'", "'unknown'"),
        "try_set_limits('w2', 'a', 'm')".into(),
    ] {
        assert_eq!(raised(&mut client, &nonsense), "22023", "{nonsense}");
    }
    assert_eq!(outcome(&mut client, &window("w3", "NULL", "'infinity'")), "limits_set");
    let shown = "SELECT concat_ws(' ', on_sale_from = '2026-11-30 09:00+00',
                                  coalesce(on_sale_until::text, 'none')) FROM stock.levels";
    assert_eq!(value(&mut client, shown), "t none");
    assert_eq!(outcome(&mut client, &window("w4", "'-infinity'", "NULL")), "limits_set");
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    let for_ever = window("w5", "NULL", "'9999-12-31 23:59:59+00'");
    assert_eq!(outcome(&mut client, &for_ever), "limits_set");
    let kept = "SELECT string_agg(concat_ws(' ', on_sale_from, on_sale_until), ', '
                                  ORDER BY position)
                  FROM stock.ledger_rows WHERE operation = 'set_limits'";
    client.batch_execute("SET TIME ZONE 'UTC'").unwrap();
    assert_eq!(
        value(&mut client, kept),
        "2026-11-30 09:00:00+00 2026-12-04 18:00:00+00, infinity, -infinity, \
         9999-12-31 23:59:59+00"
    );
    finish(database);
}

#[test]
fn the_feed_tells_the_window_beside_the_counters() {
    let database = database();
    let mut client = database.connect();
    client.batch_execute("SET TIME ZONE 'UTC'; SET pg_stock.notify = transaction").unwrap();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute("LISTEN stock_changed").unwrap();
    let bounds = ("'2099-01-01 09:00+00'", "'2099-01-02 00:00+00'");
    assert_eq!(outcome(&mut client, &window("w", bounds.0, bounds.1)), "limits_set");
    let mut heard = Vec::new();
    eventually("a message", || {
        use fallible_iterator::FallibleIterator;
        let mut notifications = client.notifications();
        heard.extend(notifications.iter().map(|told| Ok(told.payload().to_owned())).iterator());
        !heard.is_empty()
    });
    let message: serde_json::Value = serde_json::from_str(heard[0].as_ref().unwrap()).unwrap();
    let level = &message["levels"][0];
    assert_eq!(level["available"], 10, "one version has one value, whatever the time: {level}");
    assert_eq!(level["on_sale_from"], "2099-01-01T09:00:00Z");
    assert_eq!(level["on_sale_until"], "2099-01-02T00:00:00Z");
    let row = "SELECT concat_ws(' ', available, on_sale_from, on_sale_until)
                 FROM stock.snapshot() WHERE outcome = 'level'";
    assert_eq!(value(&mut client, row), "10 2099-01-01 09:00:00+00 2099-01-02 00:00:00+00");
    assert_eq!(outcome(&mut client, &window("lift", "'-infinity'", "'infinity'")), "limits_set");
    let levels = "SELECT row_to_json(s)->>'on_sale_from' IS NULL FROM stock.snapshot() s
                   WHERE outcome = 'level'";
    assert_eq!(value(&mut client, levels), "t");
    finish(database);
}
