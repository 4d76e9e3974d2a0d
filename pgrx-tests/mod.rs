//! Tests inside the database, one file per room of src/. Each test runs in a transaction that is
//! rolled back, so that what commits, races or restarts is tested from outside (tests/).

use pgrx::prelude::*;

mod goods;
mod maintenance;
mod plans;
mod reads;
mod reservations;
mod settings;

/// The one text that a query gives.
fn value(sql: &str) -> String {
    Spi::get_one::<String>(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap_or_default()
}

/// `outcome state available version`, row by row, of a call.
fn answers(call: &str) -> String {
    value(&format!(
        "SELECT string_agg(concat_ws(' ', outcome, state, available, version), ', '
         ORDER BY request, line)
           FROM stock.{call}"
    ))
}

/// Levels with these units at the location m.
fn stocked(levels: &[(&str, i64)]) {
    for (sku, units) in levels {
        assert_eq!(
            answers(&format!("receive_stock('stock of {sku}', '{sku}', 'm', {units})")),
            format!("received none {units} 1")
        );
    }
}
