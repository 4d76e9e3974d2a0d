//! What callers ask of stock without changing it.

use std::collections::BTreeSet;

use pg_stock_core::standing::Standing;
use pg_stock_core::{LevelId, Name};

use super::access::Access;
use super::clock::now;
use super::{load, sql};
use crate::durable;
use crate::error::Error;

/// The version of this library.
pub const LIBRARY_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of what is installed in this database.
pub fn installed_version() -> Result<Option<Name>, Error> {
    Ok(sql::INSTALLED_VERSION.query(&[], |row| row.name(0))?.pop())
}

/// Units of a level that may still be promised; `None` for an unknown level.
pub fn available(at: LevelId) -> Result<Option<i64>, Error> {
    let access = Access::reach();
    let (now, levels) = (now(), BTreeSet::from([at]));
    let levels = load::counted(&access, &levels, now)?;
    Ok(levels.values().next().map(|level| level.available(now)))
}

/// What has become of the reservation of a key by now. What is told is durable.
pub fn standing(key: &Name) -> Result<Standing, Error> {
    Ok(standings(&[key])?.pop().unwrap_or_else(|| Standing::at(&[], now())))
}

/// What has become of the reservations of keys by now, in the order of the keys; of one that was
/// archived as well. What is told is durable.
pub fn standings(keys: &[&Name]) -> Result<Vec<Standing>, Error> {
    let entries = load::known_histories(&Access::by_statements(), keys)?;
    durable::flush_before_an_answer();
    let of = |key| entries.get(key).map(Vec::as_slice).unwrap_or_default();
    let at = now();
    Ok(keys.iter().map(|key| Standing::at(of(key), at)).collect())
}
