//! Room: src/api/maintenance.rs. Expiry and settling inside the caller's transaction.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use super::super::{answers, stocked, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn expiry_counts_holds_units_and_says_when_the_next_is_due() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 2, '1 ms')");
        answers("reserve_stock('p', 'a', 'm', 3, '1 ms')");
        answers("reserve_stock('q', 'a', 'm', 1, '1 hour')");
        value("SELECT pg_sleep(0.005)::text");
        let swept = "SELECT concat_ws(' ', holds_expired, units_returned, levels_busy, errors,
                     next_due > now())
                       FROM stock.expire_reservations()";
        assert_eq!(value(swept), "2 5 0 0 t");
        assert_eq!(value(swept), "0 0 0 0 t");
        assert_eq!(value("SELECT reserved::text FROM stock.levels"), "1");
        assert_eq!(answers("confirm_stock('o')"), "confirmed_late confirmed 7 7");
        assert_eq!(answers("try_release_stock('p')"), "reservation_expired expired 7 7");
        assert_eq!(value("SELECT count(*)::text FROM stock.verify()"), "0");
    }

    #[pg_test]
    fn orders_are_settled_and_mismatches_named() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 2)");
        answers("reserve_stock('p', 'a', 'm', 3)");
        let settled = "SELECT string_agg(concat_ws(' ', key, outcome, mismatch, agrees), ', '
                       ORDER BY key)
                         FROM stock.settle('[{\"key\":\"o\",\"status\":\"paid\"},{\"key\":\"p\",\"status\":\"cancelled\"},
                                             {\"key\":\"x\",\"status\":\"paid\"}]')";
        let first = "o confirmed paid_not_confirmed t, p released cancelled_but_held t, x \
                     unknown_reservation paid_but_unknown f";
        assert_eq!(value(settled), first);
        assert_eq!(
            value(settled),
            "o confirmed t, p released t, x unknown_reservation paid_but_unknown f"
        );
        assert_eq!(value("SELECT count(*)::text FROM stock.doubtful_reservations('0')"), "0");
    }
}
