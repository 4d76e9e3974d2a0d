//! Units of lots: small lists of names and how many.

use crate::facts::Units;
use crate::name::Name;

/// Adds to the units of a lot, which may become negative; a lot of which there are none is left
/// out.
pub fn add(units: &mut Units, lot: &Name, by: i64) {
    match units.iter_mut().find(|(name, _)| name == lot) {
        Some((_, there)) => *there += by,
        None => units.push((lot.clone(), by)),
    }
    units.retain(|(_, there)| *there != 0);
}

/// Takes so many units away: of this lot, and what it has not of the last ones.
pub fn give_up(units: &mut Units, lot: &Name, by: i64) {
    let mut left = by;
    let own = units.iter().position(|(name, _)| name == lot);
    let order = own.into_iter().chain((0..units.len()).rev());
    for place in order.collect::<Vec<_>>() {
        let taken = left.min(units[place].1);
        units[place].1 -= taken;
        left -= taken;
    }
    units.retain(|(_, there)| *there != 0);
}

/// The first so many units.
pub fn first(units: &[(Name, i64)], count: i64) -> Units {
    take(units.iter(), count)
}

/// The last so many units.
pub fn last(units: &[(Name, i64)], count: i64) -> Units {
    take(units.iter().rev(), count)
}

/// How many there are of a lot.
pub fn of(units: &[(Name, i64)], lot: &Name) -> i64 {
    units.iter().filter(|(name, _)| name == lot).map(|(_, there)| there).sum()
}

/// How many there are in all.
pub fn total(units: &[(Name, i64)]) -> i64 {
    units.iter().map(|(_, there)| there).sum()
}

fn take<'a>(units: impl Iterator<Item = &'a (Name, i64)>, count: i64) -> Units {
    let (mut left, mut taken) = (count, Units::new());
    for (name, there) in units {
        let part = left.min(*there);
        if part > 0 {
            taken.push((name.clone(), part));
            left -= part;
        }
    }
    taken
}
