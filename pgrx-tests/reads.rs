//! Room: src/api/reads.rs and the views.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use super::super::{answers, stocked, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn a_reservation_can_be_looked_up_in_every_state() {
        stocked(&[("a", 10)]);
        let state = |key: &str| {
            value(&format!("SELECT string_agg(state, ' ') FROM stock.reservation('{key}')"))
        };
        assert_eq!(state("unheard of"), "");
        answers("reserve_stock('o', 'a', 'm', 1)");
        assert_eq!(state("o"), "held");
        answers("confirm_stock('o')");
        assert_eq!(state("o"), "confirmed");
        answers("reserve_stock('p', 'a', 'm', 1, '1 ms')");
        value("SELECT pg_sleep(0.005)::text");
        assert_eq!(state("p"), "expired");
        answers("release_stock('early')");
        assert_eq!(state("early"), "cancelled");
    }

    #[pg_test]
    fn available_counts_overdue_holds_as_free() {
        stocked(&[("a", 10)]);
        let available = || value("SELECT stock.available('a', 'm')::text");
        answers("reserve_stock('o', 'a', 'm', 4, '1 ms')");
        value("SELECT pg_sleep(0.005)::text");
        assert_eq!(available(), "10");
        assert_eq!(
            value("SELECT coalesce(stock.available('a', 'nowhere')::text, 'unknown')"),
            "unknown"
        );
        assert_eq!(value("SELECT overdue::text FROM stock.levels"), "4");
        assert_eq!(value("SELECT overdue::text FROM stock.holds"), "true");
    }

    #[pg_test]
    fn the_ledger_says_who_what_and_why() {
        stocked(&[("a", 10)]);
        Spi::run("SET LOCAL pg_stock.context = 'trace 7'; SET LOCAL application_name = 'shop'")
            .unwrap();
        answers("adjust_stock('k', 'a', 'm', -2, 'broken')");
        let row =
            "SELECT concat_ws(' ', operation, quantity, on_hand_delta, on_hand_after, version,
                   reason, context,
                          application_name, actor = session_user, xact = pg_current_xact_id())
                     FROM stock.ledger_rows WHERE key = 'k'";
        assert_eq!(value(row), "adjust -2 -2 8 2 broken trace 7 shop t t");
    }
}
