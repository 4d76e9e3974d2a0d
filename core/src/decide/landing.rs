//! Goods that come to a level, with their lots or without.

use std::collections::HashMap;

use super::choice::goods;
use super::work::Work;
use crate::facts::{Entry, LevelId, Lot, LotMove, Micros, Operation, Units};
use crate::fault::Fault;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, NamedLot, Request};
use crate::standing::own_key;

impl Work {
    /// Where goods of lots, as they are at another level, come to: each in the lot of its name. A
    /// level that has none yet begins to have lots where one of these has a name.
    ///
    /// # Errors
    /// As of [`post`](Work::post).
    pub fn land(
        &mut self,
        request: &Request,
        line: &Line,
        arriving: &[(Lot, i64)],
    ) -> Result<Vec<LotMove>, Fault> {
        let at = &line.at;
        let is_named = arriving.iter().any(|(lot, _)| !lot.name.is_empty());
        if !self.has_lots(at) && !is_named {
            return Ok(Vec::new());
        }
        self.track(request, line.number, at)?;
        let named: i64 = arriving.iter().map(|(_, units)| units).sum();
        // What comes from where there are no lots.
        let mut moves = match line.quantity - named {
            0 => Vec::new(),
            rest => self.unnamed_goods(at, rest),
        };
        for (lot, units) in arriving {
            let named = NamedLot { name: lot.name.clone(), best_before: lot.best_before };
            self.make_lot(at, &named);
            // What was called back there is called back here.
            if lot.frozen && self.lot(at, &lot.name).is_some_and(|known| !known.frozen) {
                self.post(Entry {
                    operation_key: self.next_own_key(at),
                    lot: Some(lot.name.clone()),
                    ..self.entry(request, Operation::FreezeLot, line.number, at, 0)
                })?;
            }
            match moves.iter_mut().find(|moved| moved.lot == lot.name) {
                Some(moved) => moved.on_hand += units,
                None => moves.extend(goods(&vec![(lot.name.clone(), *units)], 1, false)),
            }
        }
        Ok(moves)
    }

    /// Goods that came without a lot.
    pub fn unnamed_goods(&mut self, at: &LevelId, count: i64) -> Vec<LotMove> {
        self.make_unnamed_lot(at);
        goods(&vec![(Name::default(), count)], 1, false)
    }

    /// Lets a level have lots, where it has none.
    ///
    /// # Errors
    /// As of [`post`](Work::post).
    pub fn track(&mut self, request: &Request, line: i32, at: &LevelId) -> Result<(), Fault> {
        if self.has_lots(at) {
            return Ok(());
        }
        self.post(Entry {
            operation_key: self.next_own_key(at),
            ..self.entry(request, Operation::TrackLots, line, at, 0)
        })
    }

    /// An operation key of ours for the entry that raises a level to its next version; one key may
    /// do the same to several levels. No name has a tab in it.
    pub fn next_own_key(&self, at: &LevelId) -> Name {
        let own = own_key(self.level(at).map_or(1, |level| level.version + 1));
        Name::from([own.as_bytes(), at.sku.as_bytes(), at.location.as_bytes()].join(&b'\t'))
    }

    /// What keeps lots of another level from coming here.
    pub fn check_dates(&self, at: &LevelId, arriving: &[(Lot, i64)]) -> Result<(), Outcome> {
        let mut dates: HashMap<&Name, Option<Micros>> = HashMap::new();
        for lot in self.lots(at).iter().chain(arriving.iter().map(|(lot, _)| lot)) {
            if *dates.entry(&lot.name).or_insert(lot.best_before) != lot.best_before {
                return Err(Outcome::LotConflict);
            }
        }
        Ok(())
    }

    /// Some units with their lots as they are at a level.
    pub fn as_lots(&self, at: &LevelId, taken: &Units) -> Vec<(Lot, i64)> {
        let lot = |(name, units): &(Name, i64)| Some((self.lot(at, name)?.clone(), *units));
        taken.iter().filter_map(lot).collect()
    }
}
