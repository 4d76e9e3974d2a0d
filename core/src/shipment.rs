//! What is on the way, computed from the ledger entries of the key that sent it.

use std::collections::HashMap;

use crate::facts::{Entry, LevelId, LotMove, Micros, Operation, Units};
use crate::name::Name;
use crate::units;

/// Goods that one key has sent on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    /// Its legs, in the order of the request that dispatched them; those on which nothing is on the
    /// way any more, too.
    pub legs: Vec<Leg>,
    /// Which of them go to a level, in their order.
    bound: HashMap<LevelId, Vec<usize>>,
}

/// Goods on their way from one location to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Where they come from.
    pub from: LevelId,
    /// Where they go.
    pub to: LevelId,
    /// The level that they left at first: its lots are what they are.
    pub origin: LevelId,
    /// Units that are still on the way.
    pub quantity: i64,
    /// Of which lots, where the level that they left has lots.
    pub lots: Units,
    /// Since when.
    pub dispatched_at: Micros,
}

impl Shipment {
    /// The shipment of the key whose entries are given, oldest first; `None` where it sent nothing.
    pub fn of(entries: &[Entry]) -> Option<Shipment> {
        let mut sent: Vec<&Entry> =
            entries.iter().filter(|entry| entry.operation == Operation::Dispatch).collect();
        if sent.is_empty() {
            return None;
        }
        sent.sort_by_key(|entry| entry.line);
        let legs = joined(sent.chunks(2).filter_map(Leg::dispatched));
        let mut shipment = Shipment { legs, bound: HashMap::new() };
        shipment.sort_by_destination();
        for entry in entries {
            shipment.take(entry);
        }
        Some(shipment)
    }

    fn take(&mut self, entry: &Entry) {
        match (entry.operation, &entry.at) {
            (Operation::Arrive | Operation::Lose, Some(to)) => {
                let lots: Units = entry
                    .lots_by(|moved| -moved.in_transit)
                    .map(|(lot, units)| (lot.clone(), units))
                    .collect();
                self.unload(to, entry.quantity, &lots);
            }
            // One turn has two entries for each leg; the first of all tells of it.
            (Operation::Recall, _) if entry.line == 1 => self.turn(),
            _ => {}
        }
    }

    /// What is on the way to a level, of one lot or in all.
    pub fn bound_for(&self, to: &LevelId, lot: Option<&Name>) -> i64 {
        let bound = |leg: &Leg| lot.map_or(leg.quantity, |lot| units::of(&leg.lots, lot));
        self.places(to).iter().map(|place| bound(&self.legs[*place])).sum()
    }

    /// The legs to a level, the first one first.
    pub fn legs_to(&self, to: &LevelId) -> impl Iterator<Item = &Leg> {
        self.places(to).iter().map(|place| &self.legs[*place])
    }

    /// Takes units off the road to a level: these of lots, and the rest where there are no lots;
    /// those of its first leg first. Says which legs had how many before.
    pub fn unload(&mut self, to: &LevelId, units: i64, lots: &Units) -> Vec<(usize, i64)> {
        let (mut left, mut touched) = (units - units::total(lots), Vec::new());
        let mut named = lots.clone();
        for place in self.places(to).to_vec() {
            let leg = &mut self.legs[place];
            let before = leg.quantity;
            if leg.lots.is_empty() {
                let taken = left.min(leg.quantity);
                leg.quantity -= taken;
                left -= taken;
            }
            for (lot, wanted) in &mut named {
                let taken = units::of(&leg.lots, lot).min(*wanted);
                units::add(&mut leg.lots, lot, -taken);
                leg.quantity -= taken;
                *wanted -= taken;
            }
            if leg.quantity < before {
                touched.push((place, before));
            }
        }
        touched
    }

    /// What is still on the way goes back to where it came from.
    fn turn(&mut self) {
        for leg in self.legs.iter_mut().filter(|leg| leg.quantity > 0) {
            std::mem::swap(&mut leg.from, &mut leg.to);
        }
        self.sort_by_destination();
    }

    fn places(&self, to: &LevelId) -> &[usize] {
        self.bound.get(to).map(Vec::as_slice).unwrap_or_default()
    }

    fn sort_by_destination(&mut self) {
        self.bound.clear();
        for (place, leg) in self.legs.iter().enumerate() {
            self.bound.entry(leg.to.clone()).or_default().push(place);
        }
    }
}

impl Leg {
    /// The leg that two entries of a dispatch tell of: what left, and where it goes.
    fn dispatched(pair: &[&Entry]) -> Option<Leg> {
        let [from, to] = pair else { return None };
        Some(Leg {
            from: from.at.clone()?,
            origin: from.at.clone()?,
            to: to.at.clone()?,
            quantity: to.quantity,
            lots: to
                .lots_by(|moved| moved.in_transit)
                .map(|(lot, units)| (lot.clone(), units))
                .collect(),
            dispatched_at: to.recorded_at,
        })
    }
}

/// One leg for each way.
fn joined(legs: impl Iterator<Item = Leg>) -> Vec<Leg> {
    let mut joined: Vec<Leg> = Vec::new();
    let mut places: HashMap<(LevelId, LevelId), usize> = HashMap::new();
    for leg in legs {
        match places.get(&(leg.from.clone(), leg.to.clone())) {
            Some(&place) => {
                joined[place].quantity += leg.quantity;
                for (lot, count) in &leg.lots {
                    units::add(&mut joined[place].lots, lot, *count);
                }
            }
            None => {
                places.insert((leg.from.clone(), leg.to.clone()), joined.len());
                joined.push(leg);
            }
        }
    }
    joined
}

/// What of lots goes on the road to a level, or leaves it.
pub fn on_the_road(lots: &Units, sign: i64) -> Vec<LotMove> {
    let moved = |(lot, units): &(Name, i64)| LotMove {
        lot: lot.clone(),
        in_transit: sign * units,
        ..LotMove::default()
    };
    lots.iter().map(moved).collect()
}
