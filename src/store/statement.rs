//! Prepared statements, kept for the life of the backend.

use std::cell::OnceCell;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, PgOid};
use pgrx::spi::{OwnedPreparedStatement, Spi, SpiClient, SpiResult};

use super::datum::Row;
use super::planner::LargeTables;
use super::sql::Statement;

thread_local! {
    /// One slot for each statement. A plan is never freed: a backend needs it again.
    static PLANS: [OnceCell<&'static OwnedPreparedStatement>; Statement::COUNT] =
        const { [const { OnceCell::new() }; Statement::COUNT] };
}

// Each statement is prepared as one that may write, so that it sees what the statements before it did, and run by
// `select`, because `update` would take a transaction id before a refusal is even considered.

/// Runs a statement that changes rows; says how many.
pub fn execute(statement: Statement, args: &[DatumWithOid<'_>]) -> SpiResult<usize> {
    // SAFETY: SPI set it when it ran the statement.
    run(statement, args, || unsafe { pg_sys::SPI_processed } as usize)
}

/// Runs a statement and takes each of its rows.
pub fn query<T>(statement: Statement, args: &[DatumWithOid<'_>], take: impl FnMut(Row<'_>) -> T) -> SpiResult<Vec<T>> {
    run(statement, args, || rows(take))
}

/// Runs a statement in a connection to SPI of its own, and takes what it left there.
fn run<T>(statement: Statement, args: &[DatumWithOid<'_>], take: impl FnOnce() -> T) -> SpiResult<T> {
    let _guard = LargeTables::assume();
    Spi::connect_mut(|client| {
        client.select(plan(client, statement)?, None, args)?;
        Ok(take())
    })
}

/// Takes the rows of the statement that ran last.
fn rows<T>(mut take: impl FnMut(Row<'_>) -> T) -> Vec<T> {
    // SAFETY: SPI_tuptable is the result of the statement that ran last, or null; values and nulls have room for
    // its columns.
    unsafe {
        let Some(table) = pg_sys::SPI_tuptable.as_ref() else { return Vec::new() };
        let width = (*table.tupdesc).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); width], vec![false; width]);
        (0..table.numvals as usize)
            .map(|place| {
                let tuple = *table.vals.add(place);
                pg_sys::heap_deform_tuple(tuple, table.tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
                take(Row { values: &values, nulls: &nulls })
            })
            .collect()
    }
}

fn plan(client: &SpiClient<'_>, statement: Statement) -> SpiResult<&'static OwnedPreparedStatement> {
    let slot = statement as usize;
    if let Some(plan) = PLANS.with(|plans| plans[slot].get().copied()) {
        return Ok(plan);
    }
    let types: Vec<PgOid> = statement.types().iter().map(|oid| PgOid::from(*oid)).collect();
    let plan: &'static OwnedPreparedStatement =
        Box::leak(Box::new(client.prepare_mut(statement.text(), &types)?.keep()));
    PLANS.with(|plans| plans[slot].set(plan).ok());
    Ok(plan)
}
