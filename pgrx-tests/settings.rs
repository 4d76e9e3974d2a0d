//! Room: src/settings.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use super::super::{answers, stocked, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn the_default_time_to_live_is_thirty_minutes_and_can_be_set() {
        stocked(&[("a", 10)]);
        let ttl = |key: &str| {
            answers(&format!("reserve_stock('{key}', 'a', 'm', 1)"));
            value(&format!(
                "SELECT (expires_at - reserved_at)::text FROM stock.holds WHERE key = '{key}'"
            ))
        };
        assert_eq!(ttl("o"), "00:30:00");
        Spi::run("SET LOCAL pg_stock.default_ttl = '2h'").unwrap();
        assert_eq!(ttl("p"), "02:00:00");
    }

    #[pg_test]
    fn late_confirms_can_be_refused() {
        stocked(&[("a", 10)]);
        Spi::run("SET LOCAL pg_stock.retake_lapsed = off").unwrap();
        answers("reserve_stock('o', 'a', 'm', 1, '1 ms')");
        value("SELECT pg_sleep(0.005)::text");
        assert_eq!(answers("try_confirm_stock('o')"), "reservation_expired expired 10 2");
        Spi::run("SET LOCAL pg_stock.retake_lapsed = on").unwrap();
        assert_eq!(answers("try_confirm_stock('o')"), "confirmed_late confirmed 9 3");
    }
}
