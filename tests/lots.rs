//! A8: goods with a date. What expires first is promised first, what is past its time to nobody,
//! and each unit lies in one lot.

use pg_stock_tests::Cluster;

use super::support::{
    Answer, WAYS, at_once, call, database, eventually, finish, raised, stocked, value,
};

/// What all lines of a call are answered.
fn outcome(client: &mut postgres::Client, text: &str) -> String {
    let rows = call(client, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let mut outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    outcomes.dedup();
    outcomes.join(", ")
}

fn answer(client: &mut postgres::Client, text: &str) -> Answer {
    call(client, text).unwrap_or_else(|error| panic!("{text}: {error:?}")).remove(0)
}

/// Strawberries of three dates: 2 that last a day, 3 that last five, 4 that last ten.
fn strawberries(client: &mut postgres::Client) {
    for (lot, quantity, days) in [("Monday", 2, 1), ("Friday", 3, 5), ("later", 4, 10)] {
        let call = format!(
            "receive_stock('{lot}', 'berry', 'shop', {quantity}, NULL, '{lot}',
                           date_trunc('day', now()) + '{days} days'::interval + '12 hours')"
        );
        assert_eq!(outcome(client, &call), "received");
    }
}

/// What there is of each lot, and what of it is promised: in the order of their dates.
fn lots(client: &mut postgres::Client) -> String {
    value(
        client,
        "SELECT string_agg(concat_ws(' ', nullif(lot, ''), on_hand, reserved, sellable), ', '
                           ORDER BY best_before NULLS LAST, lot)
           FROM stock.lots WHERE sku = 'berry' AND location = 'shop'",
    )
}

fn picks(client: &mut postgres::Client, key: &str) -> String {
    let text = format!(
        "SELECT string_agg(concat_ws(' ', line, sku, location, lot, quantity), ', ')
           FROM stock.picks('{key}')"
    );
    value(client, &text)
}

fn available(client: &mut postgres::Client) -> String {
    let known = value(client, "SELECT stock.available('berry', 'shop')");
    let shown = "SELECT available FROM stock.levels WHERE sku = 'berry' AND location = 'shop'";
    assert_eq!(value(client, shown), known, "the view and the function");
    known
}

#[test]
fn what_expires_first_is_promised_first_and_follows_its_lots() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        strawberries(&mut client);
        assert_eq!(lots(&mut client), "Monday 2 0 2, Friday 3 0 3, later 4 0 4", "{way}");
        // One line from two lots; a picker is told which.
        assert_eq!(outcome(&mut client, "try_reserve_stock('o1', 'berry', 'shop', 4)"), "reserved");
        assert_eq!(picks(&mut client, "o1"), "1 berry shop Monday 2, 1 berry shop Friday 2");
        assert_eq!(lots(&mut client), "Monday 2 2 0, Friday 3 2 1, later 4 0 4", "{way}");
        let held = "SELECT string_agg(concat_ws(' ', lot, key, quantity), ', ' ORDER BY lot)
                      FROM stock.lot_holds";
        assert_eq!(value(&mut client, held), "Friday o1 2, Monday o1 2");
        // A repeat binds nothing anew.
        let again = answer(&mut client, "try_reserve_stock('o1', 'berry', 'shop', 4)");
        assert!(again.replayed, "{again:?}");
        // A part is confirmed: of what expires first; a part is given back: of what expires last.
        let part = |operation: &str, units, key| {
            format!(
                r#"try_{operation}_stock('o1', '[{{"sku":"berry","location":"shop",
                                                   "quantity":{units}}}]', '{key}')"#
            )
        };
        assert_eq!(outcome(&mut client, &part("confirm", 1, "a")), "confirmed");
        assert_eq!(outcome(&mut client, &part("release", 1, "b")), "released");
        assert_eq!(lots(&mut client), "Monday 1 1 0, Friday 3 1 2, later 4 0 4", "{way}");
        assert_eq!(picks(&mut client, "o1"), "1 berry shop Monday 2, 1 berry shop Friday 1");
        assert_eq!(outcome(&mut client, "try_confirm_stock('o1', NULL, 'c')"), "confirmed");
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 2 0 2, later 4 0 4", "{way}");
        // What comes back goes where it came from, the last ones first, unless it is named.
        assert_eq!(outcome(&mut client, &part("return", 1, "d")), "returned");
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 3 0 3, later 4 0 4", "{way}");
        let named = r#"try_return_stock('o1', '[{"sku":"berry","location":"shop","quantity":1,
                                                "lot":"later"}]', 'e')"#;
        assert_eq!(outcome(&mut client, named), "returned");
        let unknown = named.replace("later", "never").replace("'e'", "'f'");
        assert_eq!(outcome(&mut client, &unknown), "unknown_lot");
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 3 0 3, later 5 0 5", "{way}");
        assert_eq!(outcome(&mut client, "try_return_stock('o1', NULL, 'g')"), "returned");
        assert_eq!(lots(&mut client), "Monday 1 0 1, Friday 3 0 3, later 5 0 5", "{way}");
        assert_eq!(picks(&mut client, "o1"), "");
        // A sale takes them, too.
        assert_eq!(outcome(&mut client, "try_sell_stock('o2', 'berry', 'shop', 2)"), "sold");
        assert_eq!(picks(&mut client, "o2"), "1 berry shop Monday 1, 1 berry shop Friday 1");
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 2 0 2, later 5 0 5", "{way}");
        finish(database);
    }
}

#[test]
fn who_needs_them_to_last_or_names_a_lot_gets_no_other() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        strawberries(&mut client);
        let reserve = |key: &str, units, lot: &str, life: &str| {
            format!(
                r#"try_reserve_stock('{key}', '[{{"sku":"berry","location":"shop",
                   "quantity":{units}{lot}}}]', '{{{life}}}')"#
            )
        };
        let (of_friday, three_days) = (r#","lot":"Friday""#, r#""min_life":"3 days""#);
        assert_eq!(outcome(&mut client, &reserve("a", 2, of_friday, "")), "reserved", "{way}");
        assert_eq!(picks(&mut client, "a"), "1 berry shop Friday 2");
        let too_many = reserve("b", 2, of_friday, "");
        assert_eq!(outcome(&mut client, &too_many), "insufficient_stock");
        assert_eq!(outcome(&mut client, &reserve("b", 2, r#","lot":"x""#, "")), "unknown_lot");
        assert_eq!(outcome(&mut client, &reserve("c", 2, "", three_days)), "reserved");
        assert_eq!(picks(&mut client, "c"), "1 berry shop Friday 1, 1 berry shop later 1");
        assert_eq!(outcome(&mut client, &reserve("d", 4, "", three_days)), "insufficient_stock");
        // The same demand for all is the level's.
        let limits = |key: &str, life: &str| {
            format!("try_set_limits('{key}', 'berry', 'shop', min_life => '{life}')")
        };
        assert_eq!(available(&mut client), "5");
        assert_eq!(outcome(&mut client, &limits("l1", "3 days")), "limits_set");
        assert_eq!(available(&mut client), "3", "{way}");
        assert_eq!(lots(&mut client), "Monday 2 0 0, Friday 3 3 0, later 4 1 3", "{way}");
        assert_eq!(outcome(&mut client, &limits("l2", "0")), "limits_set");
        assert_eq!(available(&mut client), "5", "{way}");
        // The same key with another lot is another request.
        let other = reserve("a", 2, r#","lot":"later""#, "");
        assert_eq!(outcome(&mut client, &other), "key_conflict");
        assert_eq!(outcome(&mut client, &reserve("a", 2, "", "")), "key_conflict");
        finish(database);
    }
}

#[test]
fn a_lot_past_its_time_is_promised_to_nobody_from_that_moment_on() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        let receive = "receive_stock('soon', 'berry', 'shop', 5, NULL, 'soon',
                                     clock_timestamp() + '2 seconds')";
        assert_eq!(outcome(&mut client, receive), "received");
        stocked(&mut client, "berry", "shop", 1);
        assert_eq!(
            outcome(&mut client, "try_reserve_stock('held', 'berry', 'shop', 2)"),
            "reserved"
        );
        let lapsing = "try_reserve_stock('lapsing', 'berry', 'shop', 1, '500 ms')";
        assert_eq!(outcome(&mut client, lapsing), "reserved");
        assert_eq!(available(&mut client), "3");
        client.batch_execute("SELECT pg_sleep(2.1)").unwrap();
        // Nothing is booked yet, and yet it is so; what overdue holds have of it is no use either.
        assert_eq!(available(&mut client), "1", "{way}");
        let two = "try_reserve_stock('two', 'berry', 'shop', 2)";
        let refused = answer(&mut client, two);
        assert_eq!((refused.outcome.as_str(), refused.available), ("insufficient_stock", Some(1)));
        assert_eq!(outcome(&mut client, "try_sell_stock('one', 'berry', 'shop', 1)"), "sold");
        assert_eq!(picks(&mut client, "one"), "1 berry shop 1");
        // Who was promised it in time keeps it.
        assert_eq!(outcome(&mut client, "try_confirm_stock('held')"), "confirmed");
        // The books say so later.
        let counters = "SELECT concat_ws(' ', on_hand, reserved, unsellable) FROM stock.levels";
        assert_eq!(value(&mut client, counters), "3 1 0", "{way}");
        let booked = "SELECT concat_ws(' ', levels, units, more) FROM stock.expire_lots()";
        assert_eq!(value(&mut client, booked), "1 2 f", "{way}");
        assert_eq!(value(&mut client, booked), "0 0 f", "{way}");
        assert_eq!(value(&mut client, counters), "3 1 2", "{way}");
        client.batch_execute("SELECT stock.expire_reservations()").unwrap();
        assert_eq!(value(&mut client, counters), "3 0 3", "{way}");
        // It leaves by its name.
        let throw = "try_adjust_stock('bin', 'berry', 'shop', -3, 'old'";
        assert_eq!(outcome(&mut client, &format!("{throw})")), "lot_required");
        assert_eq!(outcome(&mut client, &format!("{throw}, NULL, 'soon')")), "adjusted");
        assert_eq!(value(&mut client, counters), "0 0 0", "{way}");
        finish(database);
    }
}

#[test]
fn a_lot_that_is_called_back_is_sold_no_more_and_its_buyers_are_known() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        strawberries(&mut client);
        client
            .batch_execute(
                "SELECT stock.sell_stock('sold', 'berry', 'shop', 1, 'ann');
                 SELECT stock.reserve_stock('held', 'berry', 'shop', 2, NULL, 'bob')",
            )
            .unwrap();
        let freeze = "try_freeze_lot('recall', 'berry', 'shop', 'Monday', 'glass found')";
        assert_eq!(outcome(&mut client, freeze), "lot_frozen", "{way}");
        assert!(answer(&mut client, freeze).replayed);
        let unknown = "try_freeze_lot('recall 2', 'berry', 'shop', 'Tuesday', 'glass found')";
        assert_eq!(outcome(&mut client, unknown), "unknown_lot");
        assert_eq!(available(&mut client), "6", "{way}");
        let who = "SELECT string_agg(DISTINCT concat_ws(' ', key, buyer), ', ')
                     FROM stock.lot_moves
                    WHERE lot = 'Monday' AND buyer IS NOT NULL";
        assert_eq!(value(&mut client, who), "held bob, sold ann", "{way}");
        // What comes back of it stays out of sale.
        client
            .batch_execute("SELECT stock.release_stock('held'); SELECT stock.return_stock('sold')")
            .unwrap();
        assert_eq!(lots(&mut client), "Monday 2 0 0, Friday 3 0 3, later 4 0 4", "{way}");
        assert_eq!(available(&mut client), "7", "{way}");
        // It can be taken away, and is called back where it goes, too.
        let away = "try_transfer_stock('away', 'berry', 'shop', 'quarantine', 2, NULL, 'Monday')";
        assert_eq!(outcome(&mut client, away), "transferred");
        assert_eq!(value(&mut client, "SELECT stock.available('berry', 'quarantine')"), "0");
        let unfreeze = |place: &str| {
            format!("try_unfreeze_lot('fine {place}', 'berry', '{place}', 'Monday', 'a hoax')")
        };
        assert_eq!(outcome(&mut client, &unfreeze("quarantine")), "lot_unfrozen");
        assert_eq!(value(&mut client, "SELECT stock.available('berry', 'quarantine')"), "2");
        assert_eq!(outcome(&mut client, &unfreeze("shop")), "lot_unfrozen");
        finish(database);
    }
}

#[test]
fn goods_take_their_lots_along() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        strawberries(&mut client);
        stocked(&mut client, "berry", "market", 3);
        let there = "SELECT string_agg(concat_ws(' ', nullif(lot, ''), on_hand,
                                                 best_before IS NOT NULL), ', '
                                       ORDER BY best_before NULLS LAST, lot)
                       FROM stock.lots WHERE location = 'market' AND on_hand > 0";
        let transfer = "try_transfer_stock('t', 'berry', 'shop', 'market', 3)";
        assert_eq!(outcome(&mut client, transfer), "transferred", "{way}");
        assert_eq!(value(&mut client, there), "Monday 2 t, Friday 1 t, 3 f", "{way}");
        // A lorry with two lots, one of them named; a part arrives, the rest turns round.
        let send = r#"try_dispatch_stock('lorry', '[
            {"sku":"berry","from":"shop","to":"market","quantity":3},
            {"sku":"berry","from":"shop","to":"market","quantity":1,"lot":"later"}]')"#;
        assert_eq!(outcome(&mut client, send), "dispatched");
        assert!(answer(&mut client, send).replayed);
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 0 0 0, later 2 0 2", "{way}");
        let one = r#"try_arrive_stock('lorry', '[{"sku":"berry","location":"market",
                                                  "quantity":1,"lot":"later"}]', 'p1')"#;
        assert_eq!(outcome(&mut client, one), "arrived");
        assert_eq!(value(&mut client, there), "Monday 2 t, Friday 1 t, later 1 t, 3 f", "{way}");
        let lost = r#"try_lose_stock('lorry', '[{"sku":"berry","location":"market",
                                                 "quantity":1}]', 'p2')"#;
        assert_eq!(outcome(&mut client, lost), "lost");
        assert_eq!(outcome(&mut client, "try_recall_stock('lorry')"), "recalled");
        assert_eq!(outcome(&mut client, "try_arrive_stock('lorry', NULL, 'p3')"), "arrived");
        assert_eq!(lots(&mut client), "Monday 0 0 0, Friday 1 0 1, later 3 0 3", "{way}");
        // A lot of the same name with another date is in the way.
        let other = "receive_stock('x', 'berry', 'fair', 1, NULL, 'later', now() + '1 hour')";
        assert_eq!(outcome(&mut client, other), "received");
        let conflict = "try_transfer_stock('u', 'berry', 'shop', 'fair', 1, NULL, 'later')";
        let answers = call(&mut client, conflict).unwrap();
        assert_eq!(answers[1].outcome, "lot_conflict", "{answers:?}");
        let send = r#"try_dispatch_stock('v', '[{"sku":"berry","from":"shop","to":"fair",
                                                 "quantity":1,"lot":"later"}]')"#;
        assert_eq!(call(&mut client, send).unwrap()[1].outcome, "lot_conflict");
        finish(database);
    }
}

/// A lorry brings goods of two places under one key: each unit comes into the lot that it was in,
/// as it was there.
#[test]
fn goods_of_several_places_come_together() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        client
            .batch_execute(
                "SELECT stock.receive_stock('a', 'berry', 'A', 9);
                 SELECT stock.receive_stock('b', 'berry', 'B', 9, NULL, 'L', '2099-01-01');
                 SELECT stock.receive_stock('c', 'berry', 'C', 9, NULL, 'L', '2099-01-01');
                 SELECT stock.receive_stock('d', 'berry', 'D', 9, NULL, 'L', '2099-01-09');
                 SELECT stock.freeze_lot('glass', 'berry', 'C', 'L', 'glass found')",
            )
            .unwrap();
        let dispatch = |key: &str, from: &[(&str, i64)]| {
            let load = |(from, units): &(&str, i64)| {
                let lot = if *from == "C" { r#","lot":"L""# } else { "" };
                format!(r#"{{"sku":"berry","from":"{from}","to":"shop","quantity":{units}{lot}}}"#)
            };
            let loads: Vec<String> = from.iter().map(load).collect();
            format!("try_dispatch_stock('{key}', '[{}]')", loads.join(","))
        };
        // One date for one name, also on one lorry.
        let two = call(&mut client, &dispatch("two dates", &[("B", 1), ("D", 1)])).unwrap();
        assert!(two.iter().any(|row| row.outcome == "lot_conflict"), "{two:?}");
        // What has no lot where it comes from has none here; the rest keeps its own.
        assert_eq!(outcome(&mut client, &dispatch("s1", &[("A", 2), ("B", 2)])), "dispatched");
        let part = r#"try_arrive_stock('s1', '[{"sku":"berry","location":"shop","quantity":3}]',
                                       'p1')"#;
        assert_eq!(outcome(&mut client, part), "arrived");
        assert_eq!(outcome(&mut client, "try_arrive_stock('s1', NULL, 'p2')"), "arrived");
        assert_eq!(lots(&mut client), "L 2 0 2, 2 0 2", "{way}");
        assert_eq!(outcome(&mut client, "try_sell_stock('o1', 'berry', 'shop', 4)"), "sold");
        // What was called back at one of the places is called back here.
        assert_eq!(outcome(&mut client, &dispatch("s2", &[("B", 2), ("C", 2)])), "dispatched");
        assert_eq!(outcome(&mut client, "try_arrive_stock('s2')"), "arrived");
        assert_eq!(lots(&mut client), "L 4 0 0, 0 0 0", "{way}");
        // What turned round comes home as it left, whatever happened where it went.
        assert_eq!(outcome(&mut client, &dispatch("s3", &[("D", 3)])), "not_applied, lot_conflict");
        let other = dispatch("s3", &[("D", 3)]).replace("shop", "fair");
        assert_eq!(outcome(&mut client, &other), "dispatched");
        let fair = "try_receive_stock('e', 'berry', 'fair', 1, NULL, 'L', '2099-02-02')";
        assert_eq!(outcome(&mut client, fair), "received");
        assert_eq!(outcome(&mut client, "try_arrive_stock('s3')"), "lot_conflict");
        assert_eq!(outcome(&mut client, "try_recall_stock('s3')"), "recalled");
        assert_eq!(outcome(&mut client, "try_arrive_stock('s3', NULL, 'home')"), "arrived");
        assert_eq!(value(&mut client, "SELECT stock.available('berry', 'D')"), "9", "{way}");
        finish(database);
    }
}

/// Who asks for goods that last never waits, also where there are no lots yet; a late payment gets
/// what lasts, not what lies there; and what lapsed with a lot is not sold of it after its time.
#[test]
fn a_demand_for_life_is_kept() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        client
            .batch_execute(
                "SELECT stock.set_stock('i', 'berry', 'shop', 2, NULL);
                 SELECT stock.set_limits('l', 'berry', 'shop', backorder_limit => 10)",
            )
            .unwrap();
        let reserve = |key: &str, units: i64, ttl: &str| {
            format!(
                r#"try_reserve_stock('{key}', '[{{"sku":"berry","location":"shop",
                   "quantity":{units}}}]', '{{"min_life":"10 days","ttl":"{ttl}"}}')"#
            )
        };
        assert_eq!(outcome(&mut client, &reserve("o1", 3, "1 hour")), "insufficient_stock");
        assert_eq!(outcome(&mut client, &reserve("o2", 2, "1 us")), "reserved");
        client.batch_execute("SELECT pg_sleep(0.01); SELECT stock.expire_reservations()").unwrap();
        let receive = "try_receive_stock('r', 'berry', 'shop', 5, NULL, 'soon',
                                         clock_timestamp() + '1 second'::interval)";
        assert_eq!(outcome(&mut client, receive), "received");
        assert_eq!(outcome(&mut client, "try_confirm_stock('o2')"), "confirmed_late");
        assert_eq!(lots(&mut client), "soon 5 0 5, 0 0 0", "{way}: of those without a date");
        // Swept or not: what is past its time is not sold late.
        let lapsing = "try_reserve_stock('o3', 'berry', 'shop', 4, '1 us')";
        assert_eq!(outcome(&mut client, lapsing), "reserved");
        client
            .batch_execute(
                "SELECT pg_sleep(1.1);
                 SELECT stock.set_limits('l2', 'berry', 'shop', backorder_limit => 0);
                 SELECT stock.receive_stock('new', 'berry', 'shop', 3, NULL, 'new', '2099-01-01')",
            )
            .unwrap();
        assert_eq!(outcome(&mut client, "try_confirm_stock('o3')"), "reservation_expired");
        client
            .batch_execute(
                "SELECT stock.receive_stock('more', 'berry', 'shop', 3, NULL, 'new', '2099-01-01')",
            )
            .unwrap();
        assert_eq!(outcome(&mut client, "try_confirm_stock('o3')"), "confirmed_late");
        assert_eq!(picks(&mut client, "o3"), "1 berry shop new 4", "{way}");
        finish(database);
    }
}

#[test]
fn who_waits_is_paid_from_lots_and_a_level_may_begin_to_have_them() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(way).unwrap();
        stocked(&mut client, "berry", "shop", 3);
        client
            .batch_execute(
                "SELECT stock.set_limits('pre-sale', 'berry', 'shop', backorder_limit => 100);
                 SELECT stock.reserve_stock('before', 'berry', 'shop', 2);
                 SELECT stock.reserve_stock('half', 'berry', 'shop', 2);
                 SELECT stock.sell_stock('sold', 'berry', 'shop', 2)",
            )
            .unwrap();
        let receive = "try_receive_stock('first', 'berry', 'shop', 4, NULL, 'first',
                                         now() + '9 days')";
        assert_eq!(outcome(&mut client, receive), "received", "{way}");
        assert_eq!(lots(&mut client), "first 2 1 1, 3 3 0", "{way}");
        assert_eq!(picks(&mut client, "half"), "1 berry shop first 1, 1 berry shop 1");
        assert_eq!(picks(&mut client, "sold"), "1 berry shop first 2");
        assert_eq!(picks(&mut client, "before"), "1 berry shop 2");
        assert_eq!(outcome(&mut client, "try_confirm_stock('before')"), "confirmed");
        assert_eq!(outcome(&mut client, "try_release_stock('half')"), "released");
        assert_eq!(outcome(&mut client, "try_return_stock('before')"), "returned");
        assert_eq!(lots(&mut client), "first 2 0 2, 3 0 3", "{way}");
        let set = "try_set_stock('count', 'berry', 'shop', 7, NULL, 'counted', 'first')";
        assert_eq!(outcome(&mut client, set), "set");
        assert_eq!(lots(&mut client), "first 7 0 7, 3 0 3", "{way}");
        let broken = "try_adjust_stock('broken', 'berry', 'shop', -1, 'broken', lot => '')";
        assert_eq!(outcome(&mut client, broken), "adjusted");
        assert_eq!(lots(&mut client), "first 7 0 7, 2 0 2", "{way}");
        assert_eq!(outcome(&mut client, "try_track_lots('t', 'berry', 'shop')"), "lots_tracked");
        assert_eq!(outcome(&mut client, "try_track_lots('t2', 'x', 'shop')"), "unknown_level");
        finish(database);
    }
}

#[test]
fn what_makes_no_sense_of_a_lot_is_told_so() {
    let database = database();
    let mut client = database.connect();
    strawberries(&mut client);
    let faults = [
        "receive_stock('f', 'berry', 'shop', 1, NULL, 'old', now() - '1 second'::interval)",
        "receive_stock('f', 'berry', 'shop', 1, NULL, 'old', 'infinity')",
        "receive_stock('f', 'berry', 'shop', 1, NULL, 'old', '-infinity')",
        "receive_stock('f', 'berry', 'shop', 1, NULL, NULL, now() + '1 day'::interval)",
        "receive_stock('f', 'berry', 'shop', 1, NULL, ' blank')",
        "set_limits('f', 'berry', 'shop', min_life => '-1 day')",
        "set_limits('f', 'berry', 'shop', near_expiry => '1000 years')",
        "freeze_lot('f', 'berry', 'shop', NULL, 'why')",
        "freeze_lot('f', 'berry', 'shop', 'Monday', '')",
        r#"reserve_stock('f', '[{"sku":"berry","location":"shop","quantity":1}]',
                         '{"min_life":"soon"}')"#,
        r#"reserve_stock('f', '[{"sku":"berry","location":"shop","quantity":1}]',
                         '{"min_life":"-1 day"}')"#,
        r#"reserve_stock('f', '[{"sku":"berry","location":"shop","quantity":1,"lot":"Monday"},
                                {"sku":"berry","location":"shop","quantity":1,"lot":"Friday"}]')"#,
        r#"confirm_stock('f', '[{"sku":"berry","location":"shop","quantity":1,"lot":"Monday"}]')"#,
        "expire_lots(0)",
    ];
    for fault in faults {
        assert_eq!(raised(&mut client, fault), "22023", "{fault}");
    }
    let refusals = [
        ("receive_stock('f', 'berry', 'shop', 1, NULL, 'Monday', now() + '2 days')", "ST017"),
        ("receive_stock('f', 'berry', 'shop', 1, NULL, 'Monday')", "ST017"),
        ("adjust_stock('f', 'berry', 'shop', -1, 'why')", "ST018"),
        ("set_stock('f', 'berry', 'shop', 1, NULL)", "ST018"),
        ("adjust_stock('f', 'berry', 'shop', -1, 'why', NULL, 'none')", "ST019"),
        ("transfer_stock('f', 'berry', 'shop', 'x', 1, NULL, 'none')", "ST019"),
        ("unfreeze_lot('f', 'berry', 'shop', 'none', 'why')", "ST019"),
        ("freeze_lot('f', 'berry', 'shop', '', 'why')", "ST019"),
        ("adjust_stock('f', 'berry', 'shop', -3, 'why', NULL, 'Monday')", "ST013"),
    ];
    for (refusal, code) in refusals {
        assert_eq!(raised(&mut client, refusal), code, "{refusal}");
        let tried = format!("try_{refusal}");
        assert!(call(&mut client, &tried).is_ok(), "{tried}");
    }
    // A repeat is answered as before, even when its date is past by then.
    let receive = "try_receive_stock('r', 'berry', 'shop', 1, NULL, 'r', '2999-01-01')";
    assert_eq!(outcome(&mut client, receive), "received");
    assert!(answer(&mut client, receive).replayed);
    let other = receive.replace("2999", "2998");
    assert_eq!(outcome(&mut client, &other), "key_conflict");
    finish(database);
}

/// Many buyers, some of whom name the lot, for its last units: each unit goes to one of them.
#[test]
fn the_last_units_of_a_lot_are_sold_once() {
    for way in WAYS {
        let database = database();
        strawberries(&mut database.connect());
        let answers = at_once(database, 32, |number, client| {
            client.batch_execute(way).unwrap();
            let text = match number % 2 {
                0 => format!("try_reserve_stock('o{number}', 'berry', 'shop', 1)"),
                _ => format!(
                    r#"try_sell_stock('o{number}', '[{{"sku":"berry","location":"shop",
                                                     "quantity":1,"lot":"later"}}]')"#
                ),
            };
            answer(client, &text).outcome
        });
        let won = answers.iter().filter(|outcome| *outcome != "insufficient_stock").count();
        assert_eq!(won, 9, "{way}: {answers:?}");
        let mut client = database.connect();
        assert_eq!(available(&mut client), "0", "{way}");
        finish(database);
    }
}

/// A lot is called back while it is sold: nothing of it is promised after that, and before it
/// nothing is sold twice.
#[test]
fn a_recall_during_a_sale_stops_it_at_once() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        client
            .batch_execute(
                "SELECT stock.receive_stock('a', 'berry', 'shop', 400, NULL, 'a', '2060-01-01');
                 SELECT stock.receive_stock('b', 'berry', 'shop', 400, NULL, 'b', '2061-01-01')",
            )
            .unwrap();
        at_once(database, 16, |number, client| {
            client.batch_execute(way).unwrap();
            for round in 0..30 {
                if (number, round) == (0, 10) {
                    let recall = "try_freeze_lot('recall', 'berry', 'shop', 'a', 'glass')";
                    assert_eq!(outcome(client, recall), "lot_frozen");
                }
                let key = format!("{number} {round}");
                let text = match round % 3 {
                    0 => format!("try_sell_stock('{key}', 'berry', 'shop', 1)"),
                    _ => format!("try_reserve_stock('{key}', 'berry', 'shop', 1)"),
                };
                call(client, &text).unwrap();
                match round % 5 {
                    0 => drop(call(client, &format!("try_confirm_stock('{key}')")).unwrap()),
                    1 => drop(call(client, &format!("try_release_stock('{key}')")).unwrap()),
                    _ => {}
                }
            }
        });
        let after =
            "SELECT count(*) FROM stock.lot_moves m JOIN stock.ledger_rows g USING (key, position)
                      WHERE m.lot = 'a' AND m.operation = 'reserve'
                        AND g.version > (SELECT version FROM stock.ledger_rows
                                          WHERE operation = 'freeze_lot')";
        assert_eq!(value(&mut client, after), "0", "{way}");
        let early =
            "SELECT count(*) FROM stock.lot_moves m JOIN stock.ledger_rows g USING (key, position)
                      WHERE m.lot = 'b' AND m.operation = 'reserve'
                        AND g.version < (SELECT version FROM stock.ledger_rows
                                          WHERE operation = 'freeze_lot')";
        assert_eq!(value(&mut client, early), "0", "{way}: b is sold once a is gone");
        finish(database);
    }
}

/// Lots that go past their time while 16 buyers reserve, confirm and release, beside sweeps,
/// deliveries and bookings: nothing is promised of a lot that is past its time, and nobody
/// deadlocks.
#[test]
fn lots_go_past_their_time_beside_buyers() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        for lot in 0..8 {
            let text = format!(
                "receive_stock('lot {lot}', 'berry', 'shop', 200, NULL, 'lot {lot}',
                               clock_timestamp() + '{}00 ms'::interval)",
                3 + lot
            );
            call(&mut client, &text).unwrap();
        }
        at_once(database, 16, |number, client| {
            client.batch_execute(way).unwrap();
            for round in 0..40 {
                let key = format!("{number} {round}");
                let text = match (number % 8, round % 4) {
                    (0, _) => "expire_lots()".to_owned(),
                    (1, 0) => "expire_reservations()".to_owned(),
                    (2, _) => format!("try_receive_stock('{key}', 'berry', 'shop', 3)"),
                    (3, 1) => format!("try_transfer_stock('{key}', 'berry', 'shop', 'market', 1)"),
                    _ => format!("try_reserve_stock('{key}', 'berry', 'shop', 1, '30 ms')"),
                };
                client.simple_query(&format!("SELECT * FROM stock.{text}")).unwrap();
                match round % 4 {
                    2 => drop(call(client, &format!("try_confirm_stock('{key}')")).unwrap()),
                    3 => drop(call(client, &format!("try_release_stock('{key}')")).unwrap()),
                    _ => {}
                }
            }
        });
        let stale = "SELECT count(*) FROM stock.lot_moves m
                       JOIN stock.lots o USING (sku, location, lot)
                      WHERE m.operation = 'reserve' AND m.recorded_at >= o.best_before";
        assert_eq!(value(&mut client, stale), "0", "{way}");
        finish(database);
    }
}

/// The first lot comes to a level while it is sold.
#[test]
fn a_level_begins_to_have_lots_during_a_sale() {
    for way in WAYS {
        let database = database();
        let mut client = database.connect();
        stocked(&mut client, "berry", "shop", 300);
        at_once(database, 16, |number, client| {
            client.batch_execute(way).unwrap();
            for round in 0..20 {
                if (number, round) == (0, 5) {
                    let first = "try_receive_stock('first', 'berry', 'shop', 5, NULL, 'x')";
                    assert_eq!(outcome(client, first), "received");
                }
                let key = format!("{number} {round}");
                let text = format!("try_reserve_stock('{key}', 'berry', 'shop', 1)");
                call(client, &text).unwrap();
                if round % 3 == 0 {
                    call(client, &format!("try_confirm_stock('{key}')")).unwrap();
                }
            }
        });
        assert_eq!(available(&mut client), "0", "{way}: 320 wanted the 305");
        finish(database);
    }
}

#[test]
fn the_worker_books_what_is_past_its_time() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let database = cluster.database();
    let mut client = database.connect();
    let receive = "receive_stock('soon', 'berry', 'shop', 5, NULL, 'soon',
                                 clock_timestamp() + '300 ms')";
    assert_eq!(outcome(&mut client, receive), "received");
    client.batch_execute("SELECT pg_sleep(0.4)").unwrap();
    // It looks each minute, and whenever it begins.
    let worker = "SELECT pg_terminate_backend(pid) FROM stock.worker WHERE pid IS NOT NULL";
    client.simple_query(worker).unwrap();
    let unsellable = "SELECT unsellable FROM stock.levels";
    eventually("it is booked", || value(&mut client, unsellable) == "5");
    let told = "SELECT lot FROM stock.alert WHERE alert = 'lot_expired'";
    assert_eq!(value(&mut client, told), "soon");
    pg_stock_tests::invariants::assert_hold(&mut client);
}
