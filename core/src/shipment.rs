//! What is on the way, computed from the ledger entries of the key that sent it.

use std::collections::HashMap;

use crate::facts::{Entry, LevelId, Micros, Operation};

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
    /// Units that are still on the way.
    pub quantity: i64,
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
        let legs = sent.chunks(2).filter_map(Leg::dispatched).collect();
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
                self.unload(to, entry.quantity);
            }
            // One turn has two entries for each leg; the first of all tells of it.
            (Operation::Recall, _) if entry.line == 1 => self.turn(),
            _ => {}
        }
    }

    /// What is on the way to a level.
    pub fn bound_for(&self, to: &LevelId) -> i64 {
        self.places(to).iter().map(|place| self.legs[*place].quantity).sum()
    }

    /// Takes units off the road to a level: those of its first leg first. Says which legs had how
    /// many before.
    pub fn unload(&mut self, to: &LevelId, units: i64) -> Vec<(usize, i64)> {
        let (mut left, mut touched) = (units, Vec::new());
        for place in self.places(to).to_vec() {
            let leg = &mut self.legs[place];
            let taken = left.min(leg.quantity);
            if taken > 0 {
                touched.push((place, leg.quantity));
                leg.quantity -= taken;
                left -= taken;
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
            to: to.at.clone()?,
            quantity: to.quantity,
            dispatched_at: to.recorded_at,
        })
    }
}
