//! Many connections at once: nothing is sold twice, one key has one effect, opposed orders never
//! deadlock.

use std::collections::HashMap;

use super::support::{
    Answer, at_once, backend, call, database, finish, outcome, sqlstate, stocked, value,
    wait_for_lock,
};
use postgres::Client;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Runs a call until it is not told to try again, as an application must in the stricter isolation
/// levels.
fn with_retries(client: &mut Client, isolation: &str, text: &str) -> Vec<Answer> {
    client.batch_execute(&format!("SET default_transaction_isolation = '{isolation}'")).unwrap();
    for _ in 0..1_000 {
        match call(client, text) {
            Ok(rows) => return rows,
            Err(error) if sqlstate(&error) == "40001" => {}
            Err(error) => panic!("{text}: {error:?}"),
        }
    }
    panic!("{text}: no end of serialization failures");
}

fn count(outcomes: &[Vec<Answer>]) -> HashMap<String, usize> {
    let mut count = HashMap::new();
    for rows in outcomes {
        let word = if rows[0].replayed { "replay".to_owned() } else { rows[0].outcome.clone() };
        *count.entry(word).or_default() += 1;
    }
    count
}

#[test]
fn of_many_buyers_exactly_as_many_succeed_as_there_are_units() {
    let database = database();
    stocked(&mut database.connect(), "hot", "main", 20);
    let answers = at_once(database, 50, |number, client| {
        call(client, &format!("try_reserve_stock('order {number}', 'hot', 'main', 1)")).unwrap()
    });
    assert_eq!(
        count(&answers),
        HashMap::from([("reserved".into(), 20), ("insufficient_stock".into(), 30)])
    );
    finish(database);
}

#[test]
fn a_sale_is_as_safe_as_a_reservation() {
    let database = database();
    stocked(&mut database.connect(), "hot", "main", 20);
    let answers = at_once(database, 50, |number, client| {
        call(client, &format!("try_sell_stock('order {number}', 'hot', 'main', 1)")).unwrap()
    });
    assert_eq!(
        count(&answers),
        HashMap::from([("sold".into(), 20), ("insufficient_stock".into(), 30)])
    );
    assert_eq!(value(&mut database.connect(), "SELECT on_hand FROM stock.levels"), "0");
    finish(database);
}

#[test]
fn one_key_from_fifty_connections_has_one_effect_and_equal_answers() {
    for isolation in LEVELS {
        let database = database();
        stocked(&mut database.connect(), "hot", "main", 1);
        let answers = at_once(database, 50, |_, client| {
            with_retries(client, isolation, "try_reserve_stock('order', 'hot', 'main', 1)")
        });
        assert_eq!(answers.iter().filter(|rows| !rows[0].replayed).count(), 1, "{isolation}");
        let equal = Answer { replayed: false, ..answers[0][0].clone() };
        for rows in &answers {
            assert_eq!(Answer { replayed: false, ..rows[0].clone() }, equal, "{isolation}");
        }
        finish(database);
    }
}

/// For each operation: two requests that differ, sent under one key at once. One has its effect,
/// the other conflicts.
#[test]
fn one_key_with_different_requests_has_one_effect_and_one_conflict() {
    let pairs = [
        ("try_reserve_stock('k', 'a', 'm', 1)", "try_reserve_stock('k', 'a', 'm', 2)"),
        ("try_reserve_stock('k', 'a', 'm', 1)", "try_reserve_stock('k', 'b', 'm', 1)"),
        ("try_reserve_stock('k', 'a', 'm', 1)", "try_sell_stock('k', 'a', 'm', 1)"),
        (
            "try_reserve_stock('k', 'a', 'm', 1, buyer => 'x')",
            "try_reserve_stock('k', 'a', 'm', 1, buyer => 'y')",
        ),
        (
            r#"try_reserve_stock('k', '[{"sku":"b","location":"m","quantity":1}]')"#,
            r#"try_reserve_stock('k', '[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]')"#,
        ),
        (
            r#"try_confirm_stock('held', '[{"sku":"a","location":"m","quantity":1}]', 'part')"#,
            r#"try_confirm_stock('held', '[{"sku":"b","location":"m","quantity":1}]', 'part')"#,
        ),
        (
            r#"try_release_stock('held', '[{"sku":"a","location":"m","quantity":1}]', 'part')"#,
            r#"try_release_stock('held', '[{"sku":"a","location":"m","quantity":2}]', 'part')"#,
        ),
        ("try_receive_stock('k', 'a', 'm', 1)", "try_receive_stock('k', 'new', 'm', 1)"),
        (
            "try_adjust_stock('k', 'a', 'm', 1, 'found')",
            "try_adjust_stock('k', 'b', 'm', 1, 'found')",
        ),
        ("try_set_stock('k', 'a', 'm', 50, NULL)", "try_set_stock('k', 'a', 'm', 51, NULL)"),
        ("try_transfer_stock('k', 'a', 'm', 'n', 1)", "try_transfer_stock('k', 'b', 'm', 'n', 1)"),
        ("try_set_limits('k', 'a', 'm', 1)", "try_set_limits('k', 'a', 'm', 2)"),
    ];
    for isolation in LEVELS {
        for (one, other) in pairs {
            let database = database();
            let mut client = database.connect();
            stocked(&mut client, "a", "m", 100);
            stocked(&mut client, "b", "m", 100);
            let lines = r#"[{"sku":"a","location":"m","quantity":5},{"sku":"b","location":"m","quantity":5}]"#;
            call(&mut client, &format!("try_reserve_stock('held', '{lines}')")).unwrap();
            let answers = at_once(database, 8, |number, client| {
                with_retries(client, isolation, if number % 2 == 0 { one } else { other })
            });
            let count = count(&answers);
            assert_eq!(
                count.get("key_conflict"),
                Some(&4),
                "{isolation}: {one} / {other}: {count:?}"
            );
            assert_eq!(count.get("replay"), Some(&3), "{isolation}: {one} / {other}: {count:?}");
            finish(database);
        }
    }
}

#[test]
fn equal_operations_under_one_key_have_one_effect() {
    let calls = [
        "try_confirm_stock('held')",
        "try_release_stock('held')",
        "try_return_stock('bought')",
        "try_release_stock('never reserved')",
        "try_receive_stock('k', 'a', 'm', 5)",
        "try_receive_stock('k', 'new', 'm', 5)",
        "try_adjust_stock('k', 'a', 'm', -5, 'broken')",
        "try_set_stock('k', 'a', 'm', 70, NULL)",
        "try_transfer_stock('k', 'a', 'm', 'n', 5)",
        "try_set_limits('k', 'a', 'm', 3)",
        "try_freeze_level('k', 'a', 'm', 'recall')",
    ];
    for isolation in LEVELS {
        for text in calls {
            let database = database();
            let mut client = database.connect();
            stocked(&mut client, "a", "m", 100);
            assert_eq!(outcome(&mut client, "try_reserve_stock('held', 'a', 'm', 5)"), "reserved");
            assert_eq!(outcome(&mut client, "try_sell_stock('bought', 'a', 'm', 5)"), "sold");
            let answers = at_once(database, 8, |_, client| with_retries(client, isolation, text));
            assert_eq!(count(&answers).get("replay"), Some(&7), "{isolation}: {text}: {answers:?}");
            assert!(
                answers.iter().all(|rows| rows[0].outcome == answers[0][0].outcome),
                "{isolation}: {text}"
            );
            finish(database);
        }
    }
}

#[test]
fn confirm_and_release_of_one_reservation_end_it_once() {
    for round in 0..20 {
        let database = database();
        stocked(&mut database.connect(), "a", "m", 10);
        assert_eq!(
            outcome(&mut database.connect(), "try_reserve_stock('order', 'a', 'm', 4)"),
            "reserved"
        );
        let answers = at_once(database, 8, |number, client| {
            let operation = if number % 2 == 0 { "confirm" } else { "release" };
            call(
                client,
                &format!("try_{operation}_stock('order', operation_key => 'part {number}')"),
            )
            .unwrap()
        });
        let count = count(&answers);
        let (confirmed, released) = (count.get("confirmed"), count.get("released"));
        assert_eq!(confirmed.or(released), Some(&1), "round {round}: {count:?}");
        assert!(confirmed.is_none() || released.is_none(), "round {round}: {count:?}");
        let told = count.get("already_confirmed").or(count.get("already_released"));
        assert_eq!(told, Some(&7), "round {round}: {count:?}");
        finish(database);
    }
}

/// The last units are in an overdue hold: its late confirm and new buyers want them at once.
#[test]
fn an_overdue_hold_goes_to_its_payer_or_to_a_buyer_never_to_both() {
    for _ in 0..10 {
        let database = database();
        stocked(&mut database.connect(), "a", "m", 3);
        assert_eq!(
            outcome(&mut database.connect(), "try_reserve_stock('late', 'a', 'm', 3, '1 ms')"),
            "reserved"
        );
        value(&mut database.connect(), "SELECT pg_sleep(0.01)");
        let answers = at_once(database, 8, |number, client| match number {
            0 | 1 => call(client, "try_confirm_stock('late')").unwrap(),
            _ => {
                call(client, &format!("try_reserve_stock('buyer {number}', 'a', 'm', 3)")).unwrap()
            }
        });
        let count = count(&answers);
        let winners =
            count.get("confirmed_late").unwrap_or(&0) + count.get("reserved").unwrap_or(&0);
        assert_eq!(winners, 1, "{count:?}");
        finish(database);
    }
}

#[test]
fn orders_with_opposed_lines_never_deadlock() {
    let database = database();
    let mut client = database.connect();
    let skus = ["a", "b", "c", "d", "e"];
    skus.iter().for_each(|sku| stocked(&mut client, sku, "m", 1_000_000));
    at_once(database, 16, |number, client| {
        for turn in 0..40 {
            let mut order: Vec<&str> = skus.to_vec();
            order.rotate_left((number + turn) % 5);
            if number % 2 == 0 {
                order.reverse();
            }
            let line = |sku: &&str| format!(r#"{{"sku":"{sku}","location":"m","quantity":1}}"#);
            let lines = order.iter().map(line).collect::<Vec<_>>().join(",");
            let key = format!("order {number} {turn}");
            assert_eq!(
                call(client, &format!("try_reserve_stock('{key}', '[{lines}]')")).unwrap().len(),
                5
            );
            let end = ["confirm", "release"][turn % 2];
            assert_eq!(call(client, &format!("try_{end}_stock('{key}')")).unwrap().len(), 5);
        }
    });
    finish(database);
}

/// Batches whose requests share keys and levels, in different orders.
#[test]
fn batches_that_overlap_never_deadlock_and_claim_each_key_once() {
    let database = database();
    let mut client = database.connect();
    ["a", "b", "c"].iter().for_each(|sku| stocked(&mut client, sku, "m", 1_000_000));
    let answers = at_once(database, 8, |number, client| {
        let mut requests: Vec<String> = (0..60)
            .map(|n| {
                let sku = ["a", "b", "c"][n % 3];
                format!(
                    r#"{{"key":"k{n}","lines":[{{"sku":"{sku}","location":"m","quantity":1}}]}}"#
                )
            })
            .collect();
        requests.rotate_left(number * 7);
        call(client, &format!("reserve_many('[{}]')", requests.join(","))).unwrap()
    });
    let fresh = answers.iter().flatten().filter(|row| !row.replayed).count();
    assert_eq!(fresh, 60, "each key has one effect");
    assert!(answers.iter().flatten().all(|row| row.outcome == "reserved"));
    finish(database);
}

#[test]
fn a_key_is_free_again_after_its_transaction_was_rolled_back() {
    let database = database();
    let (mut one, mut other) = (database.connect(), database.connect());
    stocked(&mut one, "a", "m", 5);
    one.batch_execute("BEGIN").unwrap();
    assert_eq!(outcome(&mut one, "try_reserve_stock('order', 'a', 'm', 5)"), "reserved");
    one.batch_execute("ROLLBACK").unwrap();
    let rows = call(&mut other, "try_reserve_stock('order', 'a', 'm', 4)").unwrap();
    assert_eq!((rows[0].outcome.as_str(), rows[0].replayed), ("reserved", false));
    assert_eq!(value(&mut one, "SELECT count(*) FROM stock.ledger WHERE key = 'order'"), "1");
    finish(database);
}

#[test]
fn sold_out_takes_no_transaction_id_and_waits_for_nobody() {
    let database = database();
    let (mut holder, mut buyer) = (database.connect(), database.connect());
    stocked(&mut holder, "a", "m", 2);
    assert_eq!(outcome(&mut holder, "try_reserve_stock('first', 'a', 'm', 2)"), "reserved");
    holder.batch_execute("BEGIN; SELECT * FROM stock.level FOR UPDATE").unwrap();
    buyer.batch_execute("SET lock_timeout = '1ms'; BEGIN").unwrap();
    let lines =
        r#"'[{"sku":"a","location":"m","quantity":1},{"sku":"z","location":"m","quantity":1}]'"#;
    for text in [
        "try_reserve_stock('second', 'a', 'm', 1)".to_owned(),
        "try_sell_stock('second', 'a', 'm', 1)".to_owned(),
        format!("try_reserve_stock('second', {lines})"),
        "try_reserve_stock('first', 'a', 'm', 2)".to_owned(),
        "try_adjust_stock('second', 'a', 'm', -1, 'lost')".to_owned(),
        format!("try_confirm_stock('first', {lines}, 'part')"),
        format!("try_release_stock('first', {lines}, 'part')"),
        "try_confirm_stock('second')".to_owned(),
        "try_return_stock('first')".to_owned(),
        "try_extend_reservation('first', '1 ms')".to_owned(),
        "try_reopen_key('first', 'why not')".to_owned(),
    ] {
        let rows = call(&mut buyer, &text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert!(rows[0].replayed || rows[0].outcome != "reserved", "{rows:?}");
        assert_eq!(
            value(&mut buyer, "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none')"),
            "none",
            "{text}"
        );
        let locks =
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'RowShareLock'
                        OR pid = pg_backend_pid() AND mode = 'RowExclusiveLock'";
        assert_eq!(value(&mut buyer, locks), "0", "{text}");
    }
    holder.batch_execute("ROLLBACK").unwrap();
    drop(buyer);
    finish(database);
}

/// A transfer waits for its source; meanwhile somebody creates its destination and sells from it.
#[test]
fn a_level_created_meanwhile_is_locked_before_it_is_changed() {
    let database = database();
    let [mut holder, mut claimer, mut mover, mut seller, mut watcher] =
        std::array::from_fn(|_| database.connect());
    stocked(&mut seller, "s", "A", 100);
    stocked(&mut seller, "z", "A", 100);
    let process = backend(&mut mover);
    holder.batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 's' FOR UPDATE").unwrap();
    claimer
        .batch_execute("BEGIN; SELECT stock.try_transfer_stock('move', 'z', 'A', 'Q', 1)")
        .unwrap();
    std::thread::scope(|scope| {
        let moving =
            scope.spawn(|| outcomes(&mut mover, "try_transfer_stock('move', 's', 'A', 'B', 1)"));
        wait_for_lock(&mut watcher, process);
        assert_eq!(outcome(&mut seller, "receive_stock('r', 's', 'B', 5)"), "received");
        holder.batch_execute("COMMIT").unwrap();
        // The mover goes on to the claim of its key, which the claimer holds.
        let waits_for_claim =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        while value(&mut watcher, waits_for_claim) == "0" {
            std::thread::yield_now();
        }
        // It holds the new level by now, or will read it again: this sale waits for it, or is seen
        // by it.
        seller.batch_execute("SET lock_timeout = '100ms'").unwrap();
        let sold = call(&mut seller, "try_reserve_stock('o', 's', 'B', 5)");
        claimer.batch_execute("ROLLBACK").unwrap();
        assert_eq!(moving.join().unwrap(), ["transferred", "transferred"]);
        if let Err(error) = sold {
            assert_eq!(sqlstate(&error), "55P03");
        }
    });
    seller.batch_execute("RESET lock_timeout").unwrap();
    assert_eq!(value(&mut seller, "SELECT on_hand FROM stock.levels WHERE location = 'B'"), "6");
    finish(database);
}

fn outcomes(client: &mut Client, text: &str) -> Vec<String> {
    call(client, text).unwrap().into_iter().map(|row| row.outcome).collect()
}

/// The count of a buyer is read after the key: the buyer's own first request may have come in
/// between.
#[test]
fn a_repeat_is_never_refused_because_of_its_own_first_effect() {
    let database = database();
    let [mut first, mut again, mut watcher] = std::array::from_fn(|_| database.connect());
    stocked(&mut first, "l", "A", 100);
    outcome(&mut first, "set_limits('limit', 'l', 'A', NULL, 1)");
    let process = backend(&mut again);
    let text = "try_reserve_stock('k', 'l', 'A', 1, NULL, 'b')";
    // The table lock widens the window between the two reads.
    first.batch_execute("BEGIN; LOCK TABLE stock.buyer_quantity").unwrap();
    assert_eq!(outcome(&mut first, text), "reserved");
    std::thread::scope(|scope| {
        let repeat = scope.spawn(|| call(&mut again, text).unwrap());
        wait_for_lock(&mut watcher, process);
        first.batch_execute("COMMIT").unwrap();
        let rows = repeat.join().unwrap();
        assert_eq!((rows[0].outcome.as_str(), rows[0].replayed), ("reserved", true));
    });
    finish(database);
}

/// As above, where the key was new when it was looked for, and the units are gone when the levels
/// are locked.
#[test]
fn a_repeat_that_waited_for_its_first_effect_is_known() {
    repeat_while_the_first_is_under_way("SELECT 1");
}

/// As above, where a DBA has made an index that lets a key be claimed twice.
#[test]
fn a_repeat_that_waited_is_known_also_without_the_index_of_the_claims() {
    repeat_while_the_first_is_under_way(
        "DROP INDEX stock.ledger_claim;
         CREATE UNIQUE INDEX ledger_claim ON stock.ledger (key, operation, operation_key, line)
         WHERE key = 'no key'",
    );
}

fn repeat_while_the_first_is_under_way(prepare: &str) {
    let database = database();
    let [mut first, mut again, mut watcher] = std::array::from_fn(|_| database.connect());
    first.batch_execute(prepare).unwrap();
    let lines =
        r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
    // What there is of each SKU, and a call that cannot be carried out twice.
    let calls = [
        (1, format!("try_reserve_stock('k', '{lines}')")),
        (
            2,
            format!(
                r#"reserve_many('[{{"key":"l","lines":{lines}}},{{"key":"m","lines":{lines}}}]')"#
            ),
        ),
        (1, "try_adjust_stock('n', 'a', 'm', -1, 'broken')".to_owned()),
        (0, "try_adjust_stock('o', 'a', 'm', 600000000000000, 'found')".to_owned()),
        (0, "try_adjust_stock('p', 'b', 'm', 1, 'found')".to_owned()),
    ];
    for (units, text) in calls {
        let prepare = format!(
            "SELECT stock.receive_stock('seed ' || sku, sku, 'm', 1)
             FROM (VALUES ('a'), ('b')) s(sku);
             SELECT stock.adjust_stock('seed ' || gen_random_uuid(), sku, 'm', {units} - available,
             'to begin with')
               FROM stock.levels WHERE available <> {units}"
        );
        first.batch_execute(&prepare).unwrap();
        let process = backend(&mut again);
        first.batch_execute("BEGIN").unwrap();
        let once = call(&mut first, &text).unwrap();
        assert!(once.iter().all(|row| !row.replayed), "{text}: {once:?}");
        std::thread::scope(|scope| {
            let repeat = scope.spawn(|| call(&mut again, &text).unwrap());
            wait_for_lock(&mut watcher, process);
            first.batch_execute("COMMIT").unwrap();
            let rows = repeat.join().unwrap();
            assert!(rows.iter().all(|row| row.replayed), "{text}: {rows:?}");
            assert!(
                rows.iter().zip(&once).all(|(row, first)| row.outcome == first.outcome),
                "{text}: {rows:?}"
            );
        });
    }
    finish(database);
}

/// Extend and confirm meet the reserve that they act on.
#[test]
fn a_reservation_that_is_made_between_two_reads_is_locked_too() {
    let database = database();
    stocked(&mut database.connect(), "a", "m", 1_000_000);
    at_once(database, 4, |number, client| {
        for order in 0..400 {
            let text = match number {
                0 => format!("try_reserve_stock('o{order}', 'a', 'm', 1)"),
                1 | 2 => format!("try_extend_reservation('o{order}', '1 hour')"),
                _ => format!("try_confirm_stock('o{order}')"),
            };
            let rows = call(client, &text).unwrap();
            assert_ne!(rows[0].outcome, "reservation_expired", "{text}");
        }
    });
    let unlocked = "SELECT count(*) FROM stock.ledger WHERE operation = 'extend' AND version < 1";
    assert_eq!(value(&mut database.connect(), unlocked), "0");
    finish(database);
}

/// After a sale that nobody swept, one buyer may need very many small holds to give way.
#[test]
fn thousands_of_overdue_holds_give_way_to_one_buyer() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5_000);
    let request = |n| {
        format!(
            r#"{{"key":"o{n}","lines":[{{"sku":"a","location":"m","quantity":1}}],"ttl":"1 ms"}}"#
        )
    };
    let batch = (0..5_000).map(request).collect::<Vec<_>>().join(",");
    assert_eq!(call(&mut client, &format!("reserve_many('[{batch}]')")).unwrap().len(), 5_000);
    assert_eq!(outcome(&mut client, "try_reserve_stock('all', 'a', 'm', 5000)"), "reserved");
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.ledger WHERE operation = 'expire'"),
        "5000"
    );
    finish(database);
}

/// A reserve counts overdue units as free in its answer; somebody gives them back between its read
/// and its write.
#[test]
fn an_answer_does_not_count_units_twice_that_were_given_back_meanwhile() {
    let database = database();
    let [mut sweeper, mut buyer, mut watcher] = std::array::from_fn(|_| database.connect());
    stocked(&mut sweeper, "a", "m", 15);
    assert_eq!(
        outcome(&mut sweeper, "try_reserve_stock('lapsed', 'a', 'm', 5, '1 ms')"),
        "reserved"
    );
    let process = backend(&mut buyer);
    sweeper.batch_execute("SELECT pg_sleep(0.005)").unwrap();
    sweeper.batch_execute("BEGIN; SELECT FROM stock.level FOR UPDATE").unwrap();
    std::thread::scope(|scope| {
        let buying =
            scope.spawn(|| call(&mut buyer, "try_reserve_stock('o', 'a', 'm', 1)").unwrap());
        wait_for_lock(&mut watcher, process);
        assert_eq!(
            value(&mut sweeper, "SELECT holds_expired FROM stock.expire_reservations()"),
            "1"
        );
        sweeper.batch_execute("COMMIT").unwrap();
        let rows = buying.join().unwrap();
        assert_eq!((rows[0].outcome.as_str(), rows[0].available), ("reserved", Some(14)));
    });
    finish(database);
}

/// Each subtransaction that writes takes an id, and more than 64 in a transaction make every
/// snapshot of the server dearer.
#[test]
fn calls_of_one_transaction_have_one_transaction_id() {
    for way in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        for sku in ["a", "b"] {
            stocked(&mut client, sku, "m", 1_000);
        }
        let lines =
            r#"[{"sku":"a","location":"m","quantity":2},{"sku":"b","location":"m","quantity":2}]"#;
        let mut script = String::from("BEGIN;");
        for order in 0..20 {
            let calls = [
                format!("reserve_stock('o{order}', '{lines}')"),
                format!("extend_reservation('o{order}', '1 hour')"),
                format!("confirm_stock('o{order}')"),
                format!("return_stock('o{order}')"),
                format!("receive_stock('r{order}', 'a', 'm', 1)"),
                format!("adjust_stock('a{order}', 'b', 'm', -1, 'broken')"),
                format!("sell_stock('s{order}', 'a', 'm', 1)"),
                format!("reserve_stock('l{order}', 'a', 'm', 1)"),
                format!("release_stock('l{order}')"),
                format!("set_limits('f{order}', 'b', 'm', safety_stock => {order})"),
            ];
            for call in calls {
                script += &format!("SELECT * FROM stock.{call};");
            }
        }
        client.batch_execute(&script).unwrap();
        let rows = "FROM stock.ledger WHERE xmin::text <> pg_current_xact_id()::text AND key NOT \
                    LIKE 'stock of %'";
        assert_eq!(value(&mut client, &format!("SELECT count(*) {rows}")), "0", "{way}");
        client.batch_execute("COMMIT").unwrap();
        finish(database);
    }
}

/// One key from two sessions for levels that differ, so that no lock of a level keeps them apart:
/// the second waits for the claim of the first, and then either has its effect or leaves nothing
/// behind.
#[test]
fn a_key_that_is_claimed_for_other_levels_meanwhile_leaves_nothing_behind() {
    let lines = |one: &str, other: &str| {
        format!(
            r#"[{{"sku":"{one}","location":"m","quantity":1}},{{"sku":"{other}","location":"m","quantity":1}}]"#
        )
    };
    let pairs = |end: &str| {
        [
            (
                format!("try_receive_stock('r{end}', 'a', 'm', 1)"),
                format!("try_receive_stock('r{end}', 'b', 'm', 1)"),
            ),
            (
                format!("try_confirm_stock('order{end}', '{}', 'p')", lines("a", "b")),
                format!("try_confirm_stock('order{end}', '{}', 'p')", lines("c", "d")),
            ),
            (
                format!("try_reserve_stock('k{end}', '{}')", lines("a", "b")),
                format!("try_reserve_stock('k{end}', '{}')", lines("c", "d")),
            ),
        ]
    };
    for (way, end) in [("on", "COMMIT"), ("on", "ROLLBACK"), ("off", "COMMIT"), ("off", "ROLLBACK")]
    {
        let database = database();
        let [mut first, mut second, mut watcher] = std::array::from_fn(|_| database.connect());
        ["a", "b", "c", "d"].iter().for_each(|sku| stocked(&mut first, sku, "m", 10));
        let all = lines("a", "b").replace(']', ",") + &lines("c", "d")[1..];
        call(&mut first, &format!("reserve_stock('order{end}', '{all}')")).unwrap();
        let process = backend(&mut second);
        for (one, other) in pairs(end) {
            first.batch_execute(&format!("SET pg_stock.direct_access = {way}; BEGIN")).unwrap();
            second.batch_execute(&format!("SET pg_stock.direct_access = {way}; BEGIN")).unwrap();
            call(&mut first, &one).unwrap();
            let rows = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| call(&mut second, &other).unwrap());
                wait_for_lock(&mut watcher, process);
                first.batch_execute(end).unwrap();
                waiting.join().unwrap()
            });
            let conflicts = rows.iter().all(|row| row.outcome == "key_conflict");
            assert_eq!(conflicts, end == "COMMIT", "{way} {other}: {rows:?}");
            second.batch_execute("COMMIT").unwrap();
            let changed = value(&mut watcher, "SELECT count(*) FROM stock.verify()");
            assert_eq!(changed, "0", "{way} {other}");
        }
        finish(database);
    }
}

/// Several calls in one transaction lock in the order in which they are made: two such transactions
/// can deadlock, as everywhere in PostgreSQL, and both forms say so.
#[test]
fn calls_of_two_transactions_in_opposed_order_can_deadlock() {
    for form in ["", "try_"] {
        let database = database();
        let [mut one, mut two, mut watcher] = std::array::from_fn(|_| database.connect());
        stocked(&mut watcher, "a", "m", 10);
        stocked(&mut watcher, "b", "m", 10);
        let reserve = |client: &mut Client, sku: &str| {
            client.batch_execute(&format!(
                "SELECT stock.{form}reserve_stock('{form}{sku}' || pg_backend_pid(), '{sku}', 'm', \
                 1)"
            ))
        };
        one.batch_execute("BEGIN").unwrap();
        two.batch_execute("BEGIN").unwrap();
        reserve(&mut one, "a").unwrap();
        reserve(&mut two, "b").unwrap();
        let process = backend(&mut one);
        let results = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let result = reserve(&mut one, "b");
                one.batch_execute("ROLLBACK").unwrap();
                result
            });
            wait_for_lock(&mut watcher, process);
            let result = reserve(&mut two, "a");
            two.batch_execute("ROLLBACK").unwrap();
            [waiting.join().unwrap(), result]
        });
        let states: Vec<_> =
            results.iter().filter_map(|result| result.as_ref().err()).map(sqlstate).collect();
        assert_eq!(states, ["40P01"], "{form}");
        pg_stock_tests::invariants::assert_hold(&mut watcher);
    }
}
