//! Prepared statements, kept for the life of the backend.

use std::ffi::{CString, c_char};
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::spi::{Spi, SpiResult};

use super::datum::{Argument, Row};
use super::planner::MARK;

/// A statement of the engine.
pub struct Statement {
    /// Its text.
    pub text: &'static str,
    /// The types of its parameters.
    pub types: &'static [Oid],
    /// Its plan in this process, once it was prepared. It is never freed: a backend needs it again.
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

impl Statement {
    /// One that was not prepared yet.
    pub const fn new(text: &'static str, types: &'static [Oid]) -> Self {
        Statement { text, types, plan: AtomicPtr::new(null_mut()) }
    }

    /// Its plan, which does not depend on the values of parameters. Inside a connection to SPI.
    pub fn plan(&self) -> SpiResult<pg_sys::SPIPlanPtr> {
        let known = self.plan.load(Relaxed);
        if !known.is_null() {
            return Ok(known);
        }
        let text = CString::new(format!("{MARK}{}", self.text)).expect("no statement contains NUL");
        let mut types = self.types.to_vec();
        // SAFETY: the types are those of the parameters; the plan is kept before the connection to SPI ends.
        unsafe {
            let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
            let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), generic);
            if plan.is_null() {
                Spi::check_status(pg_sys::SPI_result)?;
            }
            // It can fail only for no plan, or one that was kept already.
            pg_sys::SPI_keepplan(plan);
            self.plan.store(plan, Relaxed);
            Ok(plan)
        }
    }
}

/// Runs a statement that changes rows; says how many.
pub fn execute(statement: &Statement, args: &[Argument]) -> SpiResult<usize> {
    // SAFETY: SPI set it when it ran the statement.
    run(statement, args, || unsafe { pg_sys::SPI_processed } as usize)
}

/// Runs a statement and takes each of its rows.
pub fn query<T>(statement: &Statement, args: &[Argument], take: impl FnMut(Row<'_>) -> T) -> SpiResult<Vec<T>> {
    run(statement, args, || rows(take))
}

/// Runs a statement in a connection to SPI of its own, and takes what it left there. It sees what the statements before it
/// did; it takes no transaction id unless it writes, for a refusal must not take one.
fn run<T>(statement: &Statement, args: &[Argument], take: impl FnOnce() -> T) -> SpiResult<T> {
    assert_eq!(args.len(), statement.types.len(), "{}", statement.text);
    let mut values: Vec<Datum> = args.iter().map(|value| value.unwrap_or(Datum::null())).collect();
    let nulls: Vec<c_char> = args.iter().map(|value| if value.is_some() { b' ' } else { b'n' } as c_char).collect();
    Spi::connect_mut(|_| {
        let plan = statement.plan()?;
        // SAFETY: there are as many values as the plan has parameters, of their types.
        Spi::check_status(unsafe { pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), false, 0) })?;
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
        let (mut values, mut nulls) = (vec![Datum::null(); width], vec![false; width]);
        (0..table.numvals as usize)
            .map(|place| {
                let tuple = *table.vals.add(place);
                pg_sys::heap_deform_tuple(tuple, table.tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
                take(Row { values: &values, nulls: &nulls })
            })
            .collect()
    }
}
