//! Which lots units may be taken from, and how a ledger entry says what it does to lots.

use crate::facts::{Level, Lot, LotMove, Micros, Units};
use crate::name::Name;

/// Which lots units may be taken from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choice<'a> {
    /// This one alone; `None`: each.
    pub lot: Option<&'a Name>,
    /// Those that last so long, beside what their level demands.
    pub min_life: Micros,
    /// Those that may not be promised, too: for whoever counts, moves or takes them away.
    pub is_any: bool,
}

impl<'a> Choice<'a> {
    /// What a line of an order asks for.
    pub fn of(lot: Option<&'a Name>, min_life: Option<Micros>) -> Self {
        Choice { lot, min_life: min_life.unwrap_or(0), is_any: false }
    }

    /// A lot as it is; without one those that may be promised.
    pub fn to_move(lot: Option<&'a Name>) -> Self {
        Choice { lot, min_life: 0, is_any: lot.is_some() }
    }

    /// Whether it asks for more than what may be promised.
    pub fn is_narrow(&self) -> bool {
        self.lot.is_some() || self.min_life > 0
    }

    pub fn admits(&self, lot: &Lot, level: &Level, now: Micros) -> bool {
        self.lot.is_none_or(|name| *name == lot.name)
            && (self.is_any || lot.may_be_promised(now, level.min_life.max(self.min_life)))
    }
}

/// What is promised of lots, or no longer.
pub(super) fn promises(taken: &Units, sign: i64) -> Vec<LotMove> {
    let moved = |(lot, units): &(Name, i64)| LotMove {
        lot: lot.clone(),
        reserved: sign * units,
        ..LotMove::default()
    };
    taken.iter().map(moved).collect()
}

/// What comes into lots or leaves them; where it leaves holds, their promises end.
pub(super) fn goods(taken: &Units, sign: i64, of_holds: bool) -> Vec<LotMove> {
    let moved = |(lot, units): &(Name, i64)| LotMove {
        lot: lot.clone(),
        on_hand: sign * units,
        reserved: if of_holds { sign * units } else { 0 },
        in_transit: 0,
    };
    taken.iter().map(moved).collect()
}
