//! A7: what is not there yet may be promised, up to a limit, and whoever was promised it
//! first gets it first.

use super::support::{
    Answer, WAYS, at_once, call, database, eventually, finish, outcome, raised, sqlstate, stocked,
    value,
};
use pg_stock_tests::Cluster;
use postgres::Client;

/// A level with so many units, of which so many more may be promised.
fn pre_sale(client: &mut Client, units: i64, limit: i64) {
    if units > 0 {
        stocked(client, "a", "m", units);
    } else {
        assert_eq!(outcome(client, "try_set_stock('none yet', 'a', 'm', 0, NULL)"), "set");
    }
    let limits = format!("try_set_limits('pre-sale', 'a', 'm', backorder_limit => {limit})");
    assert_eq!(outcome(client, &limits), "limits_set");
}

/// What a call answers, with the units of its line that wait.
fn told(client: &mut Client, text: &str) -> String {
    let sql = format!(
        "SELECT concat_ws(' ', outcome, state, available, 'backordered', backordered)
           FROM stock.{text}"
    );
    value(client, &sql)
}

/// On hand, reserved, waiting and available of the level.
fn counters(client: &mut Client) -> String {
    let sql = "SELECT concat_ws(' ', on_hand, reserved, waiting, available) FROM stock.levels
                WHERE (sku, location) = ('a', 'm')";
    value(client, sql)
}

/// The queue: key and units of each place, those that are sold with a mark.
fn queue(client: &mut Client) -> String {
    let sql = "SELECT coalesce(string_agg(concat(key, ' ', quantity, CASE WHEN sold THEN '!' END),
                                          ', ' ORDER BY position, sold DESC), 'nobody')
                 FROM stock.waiting_lines";
    value(client, sql)
}

/// Who was paid, oldest first.
fn supplied(client: &mut Client) -> String {
    let sql = "SELECT coalesce(string_agg(concat(key, ' ', quantity, CASE WHEN sold THEN '!' END),
                                          ', ' ORDER BY version), 'nobody')
                 FROM stock.supplied";
    value(client, sql)
}

#[test]
fn pre_sale_is_capped_and_paid_off_first_when_goods_arrive() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 3, 5);
        let mut told = |text: &str| told(&mut client, text);
        assert_eq!(told("reserve_stock('a', 'a', 'm', 2)"), "reserved held 6 backordered 0");
        // What is there is given first, the rest waits.
        assert_eq!(told("reserve_stock('b', 'a', 'm', 4)"), "reserved held 2 backordered 3");
        assert_eq!(told("sell_stock('c', 'a', 'm', 2)"), "sold confirmed 0 backordered 2");
        assert_eq!(
            told("try_reserve_stock('d', 'a', 'm', 1)"),
            "insufficient_stock none 0 backordered 0"
        );
        // A repeat is told what is so today.
        assert_eq!(told("reserve_stock('b', 'a', 'm', 4)"), "reserved held 2 backordered 3");
        assert_eq!(told("confirm_stock('b')"), "confirmed confirmed 0 backordered 3");
        assert_eq!(counters(&mut client), "2 2 5 0", "{way}");
        assert_eq!(queue(&mut client), "b 3!, c 2!", "{way}");
        let reservation = "SELECT concat_ws(' ', state, held, confirmed, backordered)
                             FROM stock.reservation('b')";
        assert_eq!(value(&mut client, reservation), "confirmed 0 4 3", "{way}");
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told("receive_stock('lorry 1', 'a', 'm', 4)"), "received none 4 backordered 0");
        assert_eq!(supplied(&mut client), "b 3!, c 1!", "{way}");
        assert_eq!(counters(&mut client), "2 2 1 4", "{way}");
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told("confirm_stock('b')"), "confirmed confirmed 0 backordered 0");
        assert_eq!(told("reserve_stock('d', 'a', 'm', 1)"), "reserved held 3 backordered 1");
        assert_eq!(told("receive_stock('lorry 2', 'a', 'm', 9)"), "received none 12 backordered 0");
        assert_eq!(supplied(&mut client), "b 3!, c 1!, c 1!, d 1", "{way}");
        assert_eq!(queue(&mut client), "nobody", "{way}");
        assert_eq!(counters(&mut client), "10 3 0 12", "{way}");
        finish(database);
    }
}

#[test]
fn a_refusal_says_what_is_there_and_what_may_wait() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 2, 3);
    let error = call(&mut client, "reserve_stock('k', 'a', 'm', 6)").unwrap_err();
    assert_eq!(sqlstate(&error), "ST001");
    let detail = error.as_db_error().unwrap().detail().unwrap().to_owned();
    assert!(detail.contains("6 asked, 5 available (2 there, 3 may wait), version 2"), "{detail}");
    // Where nothing may wait nothing is said of it.
    stocked(&mut client, "b", "m", 2);
    let error = call(&mut client, "reserve_stock('k', 'b', 'm', 6)").unwrap_err();
    let detail = error.as_db_error().unwrap().detail().unwrap().to_owned();
    assert!(detail.contains("6 asked, 2 available, version 1"), "{detail}");
    assert_eq!(raised(&mut client, "set_limits('l', 'a', 'm', backorder_limit => -1)"), "22023");
    let too_many = "set_limits('l', 'a', 'm', backorder_limit => 1000000000000001)";
    assert_eq!(raised(&mut client, too_many), "22003");
    finish(database);
}

/// Each way in which units come free, and who gets them.
#[test]
fn whatever_makes_units_free_pays_whoever_waits_longest() {
    let freed = [
        ("release_stock('holder', NULL, NULL, 'changed his mind')", 4),
        ("return_stock('bought', '[{\"sku\":\"a\",\"location\":\"m\",\"quantity\":2}]', 'p')", 2),
        ("adjust_stock('found', 'a', 'm', 3, 'found')", 3),
        ("set_stock('counted', 'a', 'm', 10, NULL)", 5),
        ("transfer_stock('moved', 'a', 'n', 'm', 4)", 4),
        ("arrive_stock('lorry')", 2),
        ("set_limits('less', 'a', 'm', 0)", 1),
        ("settle('[{\"key\":\"holder\",\"status\":\"cancelled\"}]')", 4),
    ];
    for way in WAYS {
        for (text, units) in freed {
            let database = database();
            let mut client = database.connect();
            client.batch_execute(way).unwrap();
            pre_sale(&mut client, 8, 100);
            stocked(&mut client, "a", "n", 10);
            client
                .batch_execute(
                    "SELECT stock.set_limits('safe', 'a', 'm', 1);
                     SELECT stock.sell_stock('bought', 'a', 'm', 3);
                     SELECT stock.reserve_stock('holder', 'a', 'm', 4);
                     SELECT stock.dispatch_stock('lorry',
                       '[{\"sku\":\"a\",\"from\":\"n\",\"to\":\"m\",\"quantity\":2}]');
                     SELECT stock.reserve_stock('first', 'a', 'm', 2);
                     SELECT stock.sell_stock('second', 'a', 'm', 2);
                     SELECT stock.reserve_stock('third', 'a', 'm', 9)",
                )
                .unwrap();
            assert_eq!(queue(&mut client), "first 2, second 2!, third 9", "{way} {text}");
            client.batch_execute(&format!("SELECT * FROM stock.{text}")).unwrap();
            let paid = match units {
                1 => "first 1",
                2 => "first 2",
                3 => "first 2, second 1!",
                4 => "first 2, second 2!",
                _ => "first 2, second 2!, third 1",
            };
            assert_eq!(supplied(&mut client), paid, "{way} {text}");
            finish(database);
        }
    }
}

#[test]
fn a_lapsed_hold_gives_way_and_its_place_too() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 2, 4);
        let mut told = |text: &str| told(&mut client, text);
        // Two there, two wait; then two more wait behind them.
        assert_eq!(
            told("reserve_stock('short', 'a', 'm', 4, '20 ms')"),
            "reserved held 2 backordered 2"
        );
        assert_eq!(told("reserve_stock('patient', 'a', 'm', 2)"), "reserved held 0 backordered 2");
        client.batch_execute("SELECT pg_sleep(0.05)").unwrap();
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(
            told("try_reserve_stock('k', 'a', 'm', 5)"),
            "insufficient_stock none 4 backordered 0"
        );
        // The sweep gives the place up, and pays who waited behind.
        client.batch_execute("SELECT stock.expire_reservations(10)").unwrap();
        assert_eq!(supplied(&mut client), "patient 2", "{way}");
        assert_eq!(counters(&mut client), "2 2 0 4", "{way}");
        // Late, all of it has to wait.
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told("confirm_stock('short')"), "confirmed_late confirmed 0 backordered 4");
        assert_eq!(queue(&mut client), "short 4!", "{way}");
        // What has not come is not brought back either.
        let part =
            "return_stock('short', '[{\"sku\":\"a\",\"location\":\"m\",\"quantity\":3}]', 'p')";
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told(part), "returned confirmed 3 backordered 1");
        assert_eq!(counters(&mut client), "2 2 1 3", "{way}");
        finish(database);
    }
}

#[test]
fn nobody_waits_for_units_that_lapsed_holds_keep() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 2, 10);
        let mut told = |text: &str| told(&mut client, text);
        assert_eq!(
            told("reserve_stock('short', 'a', 'm', 2, '1 ms')"),
            "reserved held 10 backordered 0"
        );
        client.batch_execute("SELECT pg_sleep(0.01)").unwrap();
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told("reserve_stock('k', 'a', 'm', 3)"), "reserved held 9 backordered 1");
        assert_eq!(
            told("extend_reservation('short', '1 hour')"),
            "extended_late held 7 backordered 2"
        );
        assert_eq!(queue(&mut client), "k 1, short 2", "{way}");
        finish(database);
    }
}

#[test]
fn a_lowered_limit_promises_nobody_else_and_takes_nothing_back() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 5);
    let mut told = |text: &str| told(&mut client, text);
    assert_eq!(told("reserve_stock('a', 'a', 'm', 4)"), "reserved held 1 backordered 4");
    assert_eq!(
        told("set_limits('over', 'a', 'm', backorder_limit => 2)"),
        "limits_set none 0 backordered 0"
    );
    assert_eq!(
        told("try_reserve_stock('b', 'a', 'm', 1)"),
        "insufficient_stock none 0 backordered 0"
    );
    assert_eq!(told("confirm_stock('a')"), "confirmed confirmed 0 backordered 4");
    assert_eq!(told("receive_stock('r', 'a', 'm', 3)"), "received none 1 backordered 0");
    // A frozen level gives nobody anything until it is released.
    assert_eq!(told("freeze_level('f', 'a', 'm', 'recall')"), "frozen none 0 backordered 0");
    assert_eq!(told("receive_stock('s', 'a', 'm', 3)"), "received none 0 backordered 0");
    assert_eq!(queue(&mut client), "a 1!");
    let mut told = |text: &str| self::told(&mut client, text);
    assert_eq!(told("unfreeze_level('u', 'a', 'm', 'over')"), "unfrozen none 4 backordered 0");
    assert_eq!(queue(&mut client), "nobody");
    finish(database);
}

/// Deliveries beside buyers: whoever was promised first is paid first, and nobody overtakes.
#[test]
fn deliveries_beside_32_buyers_pay_in_the_order_of_the_promises() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        pre_sale(&mut client, 5, 10_000);
        at_once(database, 32, |number, client| {
            client.batch_execute(way).unwrap();
            for round in 0..20 {
                let key = format!("{number} {round}");
                let text = match (number % 8, round % 4) {
                    (0, _) => format!("try_receive_stock('{key}', 'a', 'm', 7)"),
                    (1, 0) => format!("try_sell_stock('{key}', 'a', 'm', 3)"),
                    (2, 3) => format!("try_release_stock('{number} 0')"),
                    _ => format!("try_reserve_stock('{key}', 'a', 'm', 2)"),
                };
                call(client, &text).unwrap();
                if number % 5 == 0 && round % 3 == 0 {
                    call(client, &format!("try_confirm_stock('{key}')")).unwrap();
                }
            }
        });
        // Of two lines that waited, the one that was promised later was not paid before the other.
        let overtaken = "SELECT count(*)
                           FROM (SELECT p.version, max(s.version) AS paid,
                                        max(p.version) OVER (ORDER BY max(s.version)) AS latest
                                   FROM stock.ledger p
                                   JOIN stock.ledger s ON s.key = p.key AND s.operation = 'supply'
                                  WHERE p.operation = 'reserve'
                                  GROUP BY p.version) x
                          WHERE x.version < x.latest";
        assert_eq!(value(&mut client, overtaken), "0", "{way}");
        let promised = value(&mut client, "SELECT count(*) > 20 FROM stock.supplied");
        assert_eq!(promised, "t", "{way}: hardly anybody was paid");
        finish(database);
    }
}

/// A repeat is told what the first call was told, though that call changed its level again.
#[test]
fn a_repeat_is_told_the_version_that_the_first_call_was_told() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 1, 10);
        let mut told = |text: &str| {
            let sql = format!(
                "SELECT string_agg(concat_ws(' ', location, version), ', ')
                                 FROM stock.{text}"
            );
            let told: [String; 2] = std::array::from_fn(|_| value(&mut client, &sql));
            assert_eq!(told[0], told[1], "{way} {text}");
        };
        told("sell_stock('sold', 'a', 'm', 4)");
        told("receive_stock('r', 'a', 'm', 2)");
        told("adjust_stock('found', 'a', 'm', 1, 'found')");
        told("receive_stock('more', 'a', 'm', 9)");
        told(
            r#"dispatch_stock('d', '[{"sku":"a","from":"m","to":"n","quantity":1},
                                     {"sku":"a","from":"m","to":"o","quantity":1}]')"#,
        );
        told("recall_stock('d')");
        finish(database);
    }
}

/// Nothing is promised to a lapsed hold any more: what comes is for the next in the queue.
#[test]
fn a_delivery_passes_lapsed_holds_over() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 0, 10);
        assert_eq!(outcome(&mut client, "reserve_stock('gone', 'a', 'm', 2, '1 ms')"), "reserved");
        assert_eq!(outcome(&mut client, "sell_stock('paid', 'a', 'm', 2)"), "sold");
        client.batch_execute("SELECT pg_sleep(0.01)").unwrap();
        let mut told = |text: &str| self::told(&mut client, text);
        assert_eq!(told("receive_stock('r', 'a', 'm', 1)"), "received none 9 backordered 0");
        assert_eq!(supplied(&mut client), "paid 1!", "{way}");
        assert_eq!(queue(&mut client), "paid 1!", "{way}");
        finish(database);
    }
}

/// Units of one line that were promised at two times stand at two places, and are called off last
/// promised first.
#[test]
fn what_is_promised_anew_stands_behind_all_who_waited_meanwhile() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        pre_sale(&mut client, 0, 20);
        let part = |call: &str, units: i64, key: &str| {
            format!(
                r#"{call}_stock('k', '[{{"sku":"a","location":"m","quantity":{units}}}]', '{key}')"#
            )
        };
        let lapse = "SELECT pg_sleep(0.02); SELECT stock.expire_reservations(10)";
        call(&mut client, "reserve_stock('k', 'a', 'm', 6, '1 second')").unwrap();
        call(&mut client, &part("confirm", 1, "in time")).unwrap();
        call(&mut client, "sell_stock('x', 'a', 'm', 1)").unwrap();
        client.batch_execute(&lapse.replace("0.02", "1.1")).unwrap();
        assert_eq!(outcome(&mut client, &part("confirm", 2, "late")), "confirmed_late", "{way}");
        call(&mut client, "sell_stock('y', 'a', 'm', 1)").unwrap();
        assert_eq!(outcome(&mut client, "extend_reservation('k', '1 hour')"), "extended_late");
        assert_eq!(queue(&mut client), "k 1!, x 1!, k 2!, y 1!, k 3", "{way}");
        assert_eq!(outcome(&mut client, &part("confirm", 1, "again")), "confirmed", "{way}");
        assert_eq!(queue(&mut client), "k 1!, x 1!, k 2!, y 1!, k 1!, k 2", "{way}");
        assert_eq!(outcome(&mut client, &part("return", 2, "back")), "returned", "{way}");
        assert_eq!(queue(&mut client), "k 1!, x 1!, k 1!, y 1!, k 2", "{way}");
        call(&mut client, "receive_stock('r', 'a', 'm', 5)").unwrap();
        assert_eq!(supplied(&mut client), "k 1!, x 1!, k 1!, y 1!, k 1", "{way}");
        let told = "SELECT concat_ws(' ', held, confirmed, returned, backordered)
                      FROM stock.reservation('k')";
        assert_eq!(value(&mut client, told), "2 4 2 1", "{way}");
        finish(database);
    }
}

/// Of one line, what is sold comes before what is only held, however little comes.
#[test]
fn what_is_sold_of_a_line_is_paid_before_what_is_held_of_it() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 50);
    call(&mut client, "reserve_stock('k', 'a', 'm', 5)").unwrap();
    let part = r#"confirm_stock('k', '[{"sku":"a","location":"m","quantity":2}]', 'part')"#;
    call(&mut client, part).unwrap();
    for number in 1..=3 {
        call(&mut client, &format!("receive_stock('r{number}', 'a', 'm', 1)")).unwrap();
    }
    assert_eq!(supplied(&mut client), "k 1!, k 1!, k 1");
    finish(database);
}

/// A queue that cannot be paid is told of, and stops neither another queue nor expiry.
#[test]
fn a_queue_that_cannot_be_paid_stops_no_other() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 10);
    client
        .batch_execute(
            "SELECT stock.set_stock('b', 'b', 'm', 0, NULL);
             SELECT stock.set_limits('lb', 'b', 'm', backorder_limit => 10);
             SELECT stock.sell_stock('ka', 'a', 'm', 1);
             SELECT stock.sell_stock('kb', 'b', 'm', 1);
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN IF OLD.sku = 'a' THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
             CREATE TRIGGER ours BEFORE DELETE ON stock.waiting
                 FOR EACH ROW EXECUTE FUNCTION refuse();
             -- As if a delivery had not paid them.
             SET session_replication_role = replica;
             UPDATE stock.level SET on_hand = 1;
             RESET session_replication_role",
        )
        .unwrap();
    assert_eq!(value(&mut client, "CALL stock.pay_waiting()"), "1");
    assert_eq!(queue(&mut client), "ka 1!");
    assert_eq!(raised(&mut client, "receive_stock('r', 'a', 'm', 1)"), "P0001");
    client.batch_execute("DROP TRIGGER ours ON stock.waiting").unwrap();
    assert_eq!(value(&mut client, "CALL stock.pay_waiting()"), "1");
    assert_eq!(queue(&mut client), "nobody");
}

/// Logical replication and restores by hand take no sequences along: newcomers must not get places
/// before those who waited.
#[test]
fn a_sequence_of_places_that_lags_is_told_of_and_raised() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 10);
    call(&mut client, "sell_stock('first', 'a', 'm', 1)").unwrap();
    call(&mut client, "sell_stock('second', 'a', 'm', 1)").unwrap();
    value(&mut client, "SELECT setval('stock.waiting_position_seq', 1, false)");
    let behind = "SELECT count(*) FROM stock.verify() WHERE problem LIKE '%waiting_position_seq%'";
    assert_eq!(value(&mut client, behind), "1");
    client.batch_execute("SELECT stock.expire_reservations(10)").unwrap();
    assert_eq!(value(&mut client, behind), "0");
    call(&mut client, "sell_stock('third', 'a', 'm', 1)").unwrap();
    assert_eq!(queue(&mut client), "first 1!, second 1!, third 1!");
    finish(database);
}

/// So many orders of one unit each, which all wait.
fn many_wait(client: &mut Client, orders: i64) {
    let batch = format!(
        "SELECT count(*) FROM stock.reserve_many((
            SELECT jsonb_agg(jsonb_build_object('key', 'o' || n, 'ttl', '1 day', 'lines',
                     jsonb_build_array(jsonb_build_object('sku', 'a', 'location', 'm',
                                                          'quantity', 1))))
              FROM generate_series($1::bigint, $1::bigint + 4999) n WHERE n <= {orders}))
          WHERE outcome = 'reserved'"
    );
    for first in (1..=orders).step_by(5_000) {
        client.query_one(&batch, &[&first]).unwrap();
    }
}

#[test]
fn a_delivery_pays_ten_thousand_lines_at_once_and_nobody_overtakes_the_rest() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 100_000);
    many_wait(&mut client, 10_020);
    assert_eq!(counters(&mut client), "0 0 10020 89980");
    let mut told = |text: &str| told(&mut client, text);
    assert_eq!(
        told("receive_stock('lorry', 'a', 'm', 10030)"),
        "received none 100010 backordered 0"
    );
    assert_eq!(counters(&mut client), "10030 10000 20 100010");
    // Thirty units are there, and twenty of them are waited for.
    let mut told = |text: &str| self::told(&mut client, text);
    assert_eq!(told("reserve_stock('late', 'a', 'm', 15)"), "reserved held 99995 backordered 5");
    assert_eq!(value(&mut client, "CALL stock.pay_waiting()"), "20");
    assert_eq!(queue(&mut client), "late 5");
    assert_eq!(value(&mut client, "SELECT lines_paid FROM stock.pay_queues()"), "0");
    finish(database);
}

#[test]
fn the_worker_pays_what_a_delivery_could_not() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let database = cluster.database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 100_000);
    many_wait(&mut client, 10_020);
    call(&mut client, "receive_stock('lorry', 'a', 'm', 10030)").unwrap();
    eventually("all are paid", || queue(&mut client) == "nobody");
    assert_eq!(counters(&mut client), "10030 10020 0 100010");
    pg_stock_tests::invariants::assert_hold(&mut client);
}

/// A level that somebody keeps locked is paid when it is free; meanwhile others are.
#[test]
fn the_worker_comes_back_to_a_level_that_is_locked() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let database = cluster.database();
    let mut client = database.connect();
    pre_sale(&mut client, 0, 100_000);
    client
        .batch_execute(
            "SELECT stock.set_stock('z', 'z', 'm', 0, NULL);
             SELECT stock.set_limits('lz', 'z', 'm', backorder_limit => 10);
             SELECT stock.sell_stock('kz', 'z', 'm', 1)",
        )
        .unwrap();
    many_wait(&mut client, 10_020);
    let mut locker = database.connect();
    client.batch_execute("BEGIN").unwrap();
    call(&mut client, "receive_stock('lorry', 'a', 'm', 10020)").unwrap();
    // As if a delivery had not paid it.
    client
        .batch_execute(
            "SET LOCAL session_replication_role = replica;
             UPDATE stock.level SET on_hand = 1 WHERE sku = 'z'",
        )
        .unwrap();
    client.batch_execute("COMMIT").unwrap();
    locker
        .batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR NO KEY UPDATE")
        .unwrap();
    eventually("the other one is paid", || !queue(&mut client).contains("kz"));
    locker.batch_execute("COMMIT").unwrap();
    eventually("all are paid", || queue(&mut client) == "nobody");
}

#[test]
fn the_feed_tells_what_waits() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 1, 5);
    call(&mut client, "reserve_stock('k', 'a', 'm', 3)").unwrap();
    let told = "SELECT concat_ws(' ', on_hand, reserved, waiting, backorder_limit, available)
                  FROM stock.snapshot() WHERE outcome = 'level'";
    assert_eq!(value(&mut client, told), "1 1 2 5 3");
    // Not sold out while somebody may wait.
    let alerts = "SELECT count(*) FROM stock.emit_changes() e, stock.alert";
    assert_eq!(value(&mut client, alerts), "0");
    finish(database);
}

/// Units of one line that are there, that wait, and all states between, in batches of several
/// lines.
#[test]
fn one_order_of_many_lines_waits_for_some_of_them() {
    let database = database();
    let mut client = database.connect();
    pre_sale(&mut client, 1, 5);
    stocked(&mut client, "b", "m", 10);
    let lines =
        r#"'[{"sku":"a","location":"m","quantity":3},{"sku":"b","location":"m","quantity":4}]'"#;
    let rows: Vec<Answer> = call(&mut client, &format!("reserve_stock('k', {lines})")).unwrap();
    assert_eq!(rows.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["reserved"; 2]);
    let waiting = "SELECT string_agg(backordered::text, ' ' ORDER BY line)
                     FROM stock.reservation('k')";
    assert_eq!(value(&mut client, waiting), "2 0");
    // One unit of the line is taken out of the stock, one of those that wait is sold; one is given
    // back.
    let part =
        |units: i64| format!(r#"'[{{"sku":"a","location":"m","quantity":{units}}}]', 'part'"#);
    call(&mut client, &format!("confirm_stock('k', {})", part(2))).unwrap();
    assert_eq!(queue(&mut client), "k 1!, k 1");
    call(&mut client, &format!("release_stock('k', {})", part(1))).unwrap();
    assert_eq!(queue(&mut client), "k 1!");
    assert_eq!(value(&mut client, waiting), "1 0");
    assert_eq!(counters(&mut client), "0 0 1 4");
    finish(database);
}
