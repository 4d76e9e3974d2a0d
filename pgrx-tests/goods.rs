//! Room: src/api/goods.rs. Goods movements and settings of levels.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use super::super::{answers, stocked, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn goods_are_received_once_under_one_key() {
        assert_eq!(answers("receive_stock('r', 'x', 'm', 5)"), "received none 5 1");
        assert_eq!(answers("receive_stock('r', 'x', 'm', 5)"), "received none 5 1");
        assert_eq!(answers("try_receive_stock('r', 'x', 'm', 6)"), "key_conflict none 5 1");
        assert_eq!(value("SELECT on_hand::text FROM stock.levels WHERE sku = 'x'"), "5");
    }

    #[pg_test]
    fn corrections_never_go_below_what_is_reserved() {
        stocked(&[("a", 10)]);
        answers("reserve_stock('o', 'a', 'm', 4)");
        assert_eq!(
            answers("try_adjust_stock('k1', 'a', 'm', -7, 'broken')"),
            "below_reserved none 6 2"
        );
        assert_eq!(answers("adjust_stock('k1', 'a', 'm', -6, 'broken')"), "adjusted none 0 3");
        assert_eq!(answers("try_set_stock('k2', 'a', 'm', 3, NULL)"), "below_reserved none 0 3");
        assert_eq!(answers("try_set_stock('k2', 'a', 'm', 8, 2)"), "version_conflict none 0 3");
        assert_eq!(answers("set_stock('k2', 'a', 'm', 8, 3, 'stocktake')"), "set none 4 4");
        assert_eq!(
            answers("try_transfer_stock('k3', 'a', 'm', 'n', 5)"),
            "below_reserved none 4 4, not_applied none"
        );
        assert_eq!(
            answers("transfer_stock('k3', 'a', 'm', 'n', 4)"),
            "transferred none 0 5, transferred none 4 1"
        );
        assert_eq!(
            answers("transfer_stock('k3', 'a', 'm', 'n', 4)"),
            "transferred none 0 5, transferred none 4 1"
        );
        assert_eq!(
            answers("try_transfer_stock('k3', 'a', 'n', 'm', 4)"),
            "key_conflict none 4 1, key_conflict none 0 5"
        );
        assert_eq!(value("SELECT count(*)::text FROM stock.verify()"), "0");
    }

    #[pg_test]
    fn safety_stock_is_never_promised() {
        stocked(&[("a", 10)]);
        assert_eq!(answers("set_limits('l', 'a', 'm', 4)"), "limits_set none 6 2");
        assert_eq!(answers("try_reserve_stock('o', 'a', 'm', 7)"), "insufficient_stock none 6 2");
        assert_eq!(answers("set_limits('l2', 'a', 'm', 50)"), "limits_set none 0 3");
        assert_eq!(answers("set_limits('l3', 'a', 'm', 0)"), "limits_set none 10 4");
    }

    #[pg_test]
    fn a_buyer_limit_of_zero_lifts_the_limit() {
        stocked(&[("a", 10)]);
        answers("set_limits('l', 'a', 'm', buyer_limit => 1)");
        assert_eq!(
            answers("try_reserve_stock('o', 'a', 'm', 2, buyer => 'b')"),
            "buyer_limit_exceeded none 10 2"
        );
        answers("set_limits('l2', 'a', 'm', buyer_limit => 0)");
        assert_eq!(answers("reserve_stock('o', 'a', 'm', 2)"), "reserved held 8 4");
    }
}
