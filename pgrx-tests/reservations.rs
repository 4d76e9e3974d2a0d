//! Room: src/api/reservations.rs. The life of a line, sentence by sentence of the contract.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use super::super::{answers, stocked, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn a_replay_gives_the_first_answer_and_todays_state() {
        stocked(&[("a", 10)]);
        assert_eq!(answers("reserve_stock('o', 'a', 'm', 3)"), "reserved held 7 2");
        assert_eq!(answers("reserve_stock('p', 'a', 'm', 3)"), "reserved held 4 3");
        assert_eq!(answers("confirm_stock('o')"), "confirmed confirmed 4 4");
        assert_eq!(
            answers("reserve_stock('o', 'a', 'm', 3, '1 day', NULL, 77)"),
            "reserved confirmed 7 2"
        );
        assert_eq!(
            value("SELECT bool_and(replayed)::text FROM stock.reserve_stock('o', 'a', 'm', 3)"),
            "true"
        );
    }

    #[pg_test]
    fn the_order_of_lines_does_not_count_and_answers_follow_the_callers_order() {
        stocked(&[("a", 10), ("b", 10)]);
        let line = |sku: &str| format!(r#"{{"sku":"{sku}","location":"m","quantity":1}}"#);
        let order = |one: &str, two: &str| {
            let call = format!("reserve_stock('o', '[{},{}]')", line(one), line(two));
            value(&format!(
                "SELECT string_agg(line || sku || replayed, ' ' ORDER BY line) FROM stock.{call}"
            ))
        };
        assert_eq!(order("a", "b"), "1afalse 2bfalse");
        assert_eq!(order("b", "a"), "1btrue 2atrue");
    }

    #[pg_test]
    fn one_sku_twice_in_one_order_is_summed_into_its_first_line() {
        stocked(&[("a", 10), ("b", 10)]);
        let lines = r#"[{"sku":"a","location":"m","quantity":1},
            {"sku":"b","location":"m","quantity":1},
                        {"sku":"a","location":"m","quantity":2}]"#;
        let rows = format!(
            "SELECT string_agg(line || sku || quantity, ' ' ORDER BY line) FROM \
             stock.reserve_stock('o', '{lines}')"
        );
        assert_eq!(value(&rows), "1a3 2b1");
    }

    #[pg_test]
    fn a_request_is_all_or_nothing_and_names_every_line_that_failed() {
        stocked(&[("a", 10), ("b", 1)]);
        let lines = r#"[{"sku":"a","location":"m","quantity":1},
            {"sku":"b","location":"m","quantity":2},
                        {"sku":"c","location":"m","quantity":1}]"#;
        assert_eq!(
            answers(&format!("try_reserve_stock('o', '{lines}')")),
            "not_applied none 10 1, insufficient_stock none 1 1, unknown_level none"
        );
        assert_eq!(value("SELECT count(*)::text FROM stock.holds"), "0");
    }

    #[pg_test]
    fn parts_are_confirmed_and_released_by_quantity_with_operation_keys() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 6)");
        let part = |n: i64| format!(r#"[{{"sku":"a","location":"m","quantity":{n}}}]"#);
        assert_eq!(
            answers(&format!("confirm_stock('o', '{}', 'p1')", part(2))),
            "confirmed held 4 3"
        );
        assert_eq!(
            answers(&format!("release_stock('o', '{}', 'p1')", part(1))),
            "released held 5 4"
        );
        assert_eq!(
            answers(&format!("try_confirm_stock('o', '{}', 'p2')", part(4))),
            "more_than_held held 5 4"
        );
        assert_eq!(
            answers(&format!("try_confirm_stock('o', '{}', 'p1')", part(3))),
            "key_conflict held 5 4"
        );
        assert_eq!(
            answers("confirm_stock('o', operation_key => 'rest')"),
            "confirmed confirmed 5 5"
        );
        assert_eq!(
            answers(&format!("return_stock('o', '{}', 'back')", part(5))),
            "returned confirmed 10 6"
        );
        assert_eq!(answers("try_return_stock('o')"), "more_than_held confirmed 10 6");
        let sums = "SELECT concat_ws(' ', quantity, held, confirmed, released, expired, returned) \
                    FROM stock.reservation('o')";
        assert_eq!(value(sums), "6 0 5 1 0 5");
    }

    #[pg_test]
    fn an_extension_never_shortens_and_changes_no_version() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 1, '2 hours')");
        let deadline = || value("SELECT expires_at::text FROM stock.holds");
        let first = deadline();
        assert_eq!(answers("extend_reservation('o', '1 hour')"), "extended held 9 2");
        assert_eq!(deadline(), first);
        assert_eq!(answers("extend_reservation('o', '3 hours')"), "extended held 9 2");
        assert_ne!(deadline(), first);
    }

    #[pg_test]
    fn overdue_holds_give_way_only_as_far_as_they_cover_the_shortage() {
        stocked(&[("a", 10)]);
        for number in 1..=4 {
            answers(&format!("reserve_stock('o{number}', 'a', 'm', 2, '{number} ms')"));
        }
        value("SELECT pg_sleep(0.02)::text");
        assert_eq!(
            answers("try_reserve_stock('big', 'a', 'm', 11)"),
            "insufficient_stock none 10 5"
        );
        assert_eq!(answers("reserve_stock('fits', 'a', 'm', 2)"), "reserved held 8 6");
        assert_eq!(answers("reserve_stock('needs', 'a', 'm', 3)"), "reserved held 5 9");
        let expired = "SELECT string_agg(key, ' ' ORDER BY key) FROM stock.ledger_rows WHERE \
                       operation = 'expire'";
        assert_eq!(value(expired), "o1 o2");
        assert_eq!(answers("confirm_stock('o4')"), "confirmed_late confirmed 3 10");
        assert_eq!(answers("confirm_stock('o1')"), "confirmed_late confirmed 1 12");
        assert_eq!(value("SELECT count(*)::text FROM stock.verify()"), "0");
    }

    #[pg_test]
    fn limits_per_buyer_count_held_and_bought_and_count_back() {
        stocked(&[("a", 100)]);
        answers("reserve_stock('before', 'a', 'm', 1, buyer => 'b')");
        answers("set_limits('l', 'a', 'm', buyer_limit => 5)");
        assert_eq!(answers("try_reserve_stock('o1', 'a', 'm', 1)"), "buyer_required none 99 3");
        assert_eq!(
            answers("try_reserve_stock('o1', 'a', 'm', 5, buyer => 'b')"),
            "buyer_limit_exceeded none 99 3"
        );
        assert_eq!(answers("reserve_stock('o1', 'a', 'm', 4, buyer => 'b')"), "reserved held 95 4");
        assert_eq!(answers("reserve_stock('o2', 'a', 'm', 5, buyer => 'c')"), "reserved held 90 5");
        assert_eq!(answers("release_stock('before')"), "released released 91 6");
        assert_eq!(answers("sell_stock('o3', 'a', 'm', 1, 'b')"), "sold confirmed 90 8");
        assert_eq!(
            answers("try_sell_stock('o4', 'a', 'm', 1, 'b')"),
            "buyer_limit_exceeded none 90 8"
        );
        assert_eq!(answers("return_stock('o3')"), "returned confirmed 91 9");
        assert_eq!(answers("reserve_stock('o5', 'a', 'm', 1, '1 ms', 'b')"), "reserved held 90 10");
        value("SELECT pg_sleep(0.005)::text");
        assert_eq!(
            answers("sell_stock('o6', 'a', 'm', 1, 'b')"),
            "sold confirmed 90 12",
            "a lapsed hold counts back"
        );
    }

    #[pg_test]
    fn a_frozen_level_sells_nothing_but_keeps_its_promises() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 2)");
        answers("reserve_stock('late', 'a', 'm', 2, '1 ms')");
        value("SELECT pg_sleep(0.005)::text");
        answers("freeze_level('f', 'a', 'm', 'recall')");
        assert_eq!(answers("try_sell_stock('p', 'a', 'm', 1)"), "level_frozen none 0 4");
        assert_eq!(answers("try_confirm_stock('late')"), "level_frozen expired 0 4");
        assert_eq!(answers("confirm_stock('o')"), "confirmed confirmed 0 5");
        answers("unfreeze_level('u', 'a', 'm', 'fine')");
        assert_eq!(answers("confirm_stock('late')"), "confirmed_late confirmed 6 7");
    }

    #[pg_test]
    fn a_batch_decides_in_order_each_request_all_or_nothing() {
        stocked(&[("a", 5), ("b", 5)]);
        let batch = r#"[{"key":"k1","lines":[{"sku":"a","location":"m","quantity":3},
            {"sku":"b","location":"m","quantity":1}]},
                        {"key":"k2","lines":[{"sku":"b","location":"m","quantity":1},
                        {"sku":"a","location":"m","quantity":3}]},
                        {"key":"k1","lines":[{"sku":"a","location":"m","quantity":3},
                        {"sku":"b","location":"m","quantity":1}]},
                        {"key":"k3","lines":[{"sku":"a","location":"m","quantity":2}],"ttl":"1 hour","buyer":"x"}]"#;
        assert_eq!(
            answers(&format!("reserve_many('{batch}')")),
            "reserved held 2 2, reserved held 4 2, not_applied none 4 2, insufficient_stock none 2 \
             2, reserved held 2 2, reserved held 4 2, reserved held 0 3"
        );
        assert_eq!(value("SELECT count(*)::text FROM stock.verify()"), "0");
    }

    #[pg_test]
    fn expected_versions_are_demanded_where_given() {
        stocked(&[("a", 10)]);
        assert_eq!(
            answers("reserve_stock('o', 'a', 'm', 1, expected_version => 1)"),
            "reserved held 9 2"
        );
        assert_eq!(
            answers("try_reserve_stock('p', 'a', 'm', 1, expected_version => 1)"),
            "version_conflict none 9 2"
        );
    }
}
