//! When a level is sold out, or has fallen below its safety stock.

use crate::facts::Level;

/// A state of a level that somebody should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// Nothing may be promised any more: all is promised, or the level is frozen.
    SoldOut,
    /// Less than the safety stock is left unpromised: goods were lost, or the safety stock was
    /// raised.
    BelowSafetyStock,
}

impl Alert {
    /// Both.
    pub const ALL: [Alert; 2] = [Alert::SoldOut, Alert::BelowSafetyStock];

    /// True while the level is in this state. Overdue holds count as held until they are given
    /// back, and lots past their time as sellable until that is booked.
    pub fn holds(self, level: &Level) -> bool {
        match self {
            Alert::SoldOut => level.announced() == 0,
            Alert::BelowSafetyStock => level.spare() + level.unbooked < 0,
        }
    }

    /// The word for the moment when the state begins.
    pub fn word(self) -> &'static str {
        match self {
            Alert::SoldOut => "sold_out",
            Alert::BelowSafetyStock => "below_safety_stock",
        }
    }

    /// The word for the moment when it ends.
    pub fn end_word(self) -> &'static str {
        match self {
            Alert::SoldOut => "available_again",
            Alert::BelowSafetyStock => "safety_stock_restored",
        }
    }
}

/// The words of what began and what ended, given what held before.
pub fn crossings(before: impl Fn(Alert) -> bool, after: &Level) -> Vec<(Alert, bool)> {
    let changed = |alert: &Alert| before(*alert) != alert.holds(after);
    Alert::ALL.into_iter().filter(changed).map(|alert| (alert, alert.holds(after))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(on_hand: i64, reserved: i64, safety_stock: i64) -> Level {
        Level { on_hand, reserved, safety_stock, ..Level::new() }
    }

    #[test]
    fn states_begin_and_end() {
        let from = |before: Level, after: Level| crossings(|alert| alert.holds(&before), &after);
        assert_eq!(from(level(5, 0, 0), level(5, 5, 0)), [(Alert::SoldOut, true)]);
        assert_eq!(from(level(5, 5, 0), level(5, 4, 0)), [(Alert::SoldOut, false)]);
        assert_eq!(from(level(5, 1, 2), level(5, 3, 2)), [(Alert::SoldOut, true)]);
        assert_eq!(from(level(5, 3, 2), level(4, 3, 2)), [(Alert::BelowSafetyStock, true)]);
        assert_eq!(
            from(level(5, 0, 0), level(5, 0, 6)),
            [(Alert::SoldOut, true), (Alert::BelowSafetyStock, true)]
        );
        assert_eq!(
            from(level(5, 0, 6), level(9, 0, 6)),
            [(Alert::SoldOut, false), (Alert::BelowSafetyStock, false)]
        );
        assert_eq!(from(level(5, 1, 0), level(5, 2, 0)), []);
        let frozen = |level| Level { frozen: true, ..level };
        assert_eq!(from(level(5, 1, 0), frozen(level(5, 1, 0))), [(Alert::SoldOut, true)]);
        assert_eq!(from(frozen(level(5, 5, 0)), level(5, 5, 0)), []);
    }
}
