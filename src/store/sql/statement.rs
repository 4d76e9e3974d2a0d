//! Prepared statements, kept for the life of the backend.
//!
//! A statement that works on rows is written once, for the relation `given` of what it is given. It
//! is planned twice: for one row, whose values are parameters, and for many, whose columns are
//! arrays. (One-line reserves by arrays alone come to 0.74 and 0.71 of the rate, by 1 and 16
//! connections, with direct access off; by hand.) What else its text may leave out, column lists
//! most of all, is in `words`.

use std::ffi::{CString, c_char};
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::spi::{Spi, SpiResult};

use super::words::spell_out;
use crate::store::datum::{Row, Value, array, array_of};
use crate::store::rows::Shape;

/// A column of what a statement is given: its name and type.
pub type Given = (&'static str, Oid);

/// A statement of the engine.
pub struct Statement {
    /// Its text, with words in braces: `{given}` is the relation of the rows that it is given,
    /// `{columns}` their columns.
    pub text: &'static str,
    /// The types of its parameters; the columns of rows come after them.
    types: &'static [Oid],
    /// It is given rows of this table, as far as they are facts.
    table: Option<&'static Shape>,
    /// It is given rows with these columns, after those of the table.
    columns: &'static [Given],
    one: Plan,
    many: Plan,
}

/// A plan in this process, once it was made. It is never freed: a backend needs it again.
type Plan = AtomicPtr<pg_sys::_SPI_plan>;

impl Statement {
    /// One that was not prepared yet.
    pub const fn new(text: &'static str, types: &'static [Oid]) -> Self {
        let (one, many) = (AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut()));
        Statement { text, types, table: None, columns: &[], one, many }
    }

    /// It works on rows with these columns.
    pub const fn each(self, columns: &'static [Given]) -> Self {
        Statement { columns, ..self }
    }

    /// It works on rows of a table.
    pub const fn each_of(self, table: &'static Shape) -> Self {
        Statement { table: Some(table), ..self }
    }

    /// Runs it; says how many rows it changed.
    pub fn execute(&self, args: &[Value]) -> SpiResult<usize> {
        self.execute_each(args, NO_ROWS)
    }

    /// Runs it and takes each row of its result.
    pub fn query<T>(&self, args: &[Value], take: impl FnMut(Row<'_>) -> T) -> SpiResult<Vec<T>> {
        self.query_each(args, NO_ROWS, take)
    }

    /// Runs it on rows; says how many it changed.
    pub fn execute_each<R: AsRef<[Value]>>(&self, args: &[Value], rows: &[R]) -> SpiResult<usize> {
        // SAFETY: SPI set it when it ran the statement.
        self.run(args, rows, || unsafe { pg_sys::SPI_processed } as usize)
    }

    /// Runs it on rows, where there are any; says how many it changed.
    pub fn execute_if_any<R: AsRef<[Value]>>(&self, rows: &[R]) -> SpiResult<usize> {
        if rows.is_empty() { Ok(0) } else { self.execute_each(&[], rows) }
    }

    /// Runs it on rows and takes each row of its result.
    pub fn query_each<T, R: AsRef<[Value]>>(
        &self,
        args: &[Value],
        rows: &[R],
        take: impl FnMut(Row<'_>) -> T,
    ) -> SpiResult<Vec<T>> {
        self.run(args, rows, || result(take))
    }

    /// Runs it in a connection to SPI of its own, and takes what it left there. It sees what the
    /// statements before it did; it takes no transaction id unless it writes, for a refusal must
    /// not take one.
    fn run<T, R: AsRef<[Value]>>(
        &self,
        args: &[Value],
        rows: &[R],
        take: impl FnOnce() -> T,
    ) -> SpiResult<T> {
        assert_eq!(args.len(), self.types.len(), "{}", self.text);
        let mut args = args.to_vec();
        match rows {
            [row] => args.extend(self.places().map(|place| row.as_ref()[place])),
            rows => args.extend(
                self.given()
                    .zip(self.places())
                    .map(|((_, of), place)| array(rows.iter().map(|row| row.as_ref()[place]), of)),
            ),
        }
        let mut values: Vec<Datum> =
            args.iter().map(|value| value.unwrap_or(Datum::null())).collect();
        let nulls: Vec<c_char> =
            args.iter().map(|value| if value.is_some() { b' ' } else { b'n' } as c_char).collect();
        Spi::connect_mut(|_| {
            let plan = self.plan(rows.len() == 1)?;
            // SAFETY: there are as many values as the plan has parameters, of their types.
            let status = unsafe {
                pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), false, 0)
            };
            Spi::check_status(status)?;
            Ok(take())
        })
    }

    /// The columns of the rows that it is given.
    fn given(&self) -> impl Iterator<Item = Given> {
        let of_table = self
            .table
            .into_iter()
            .flat_map(Shape::facts)
            .map(|(_, column)| (column.name, column.of));
        of_table.chain(self.columns.iter().copied())
    }

    /// Where they are in a row: a row of a table has all its columns, and those beside come after
    /// them.
    fn places(&self) -> impl Iterator<Item = usize> {
        let width = self.table.map_or(0, |table| table.columns.len());
        let of_table = self.table.into_iter().flat_map(Shape::facts).map(|(place, _)| place);
        of_table.chain(width..width + self.columns.len())
    }

    /// Its plan for one row or for many, which does not depend on their values. Inside a connection
    /// to SPI.
    fn plan(&self, is_for_one: bool) -> SpiResult<pg_sys::SPIPlanPtr> {
        let is_for_one = is_for_one || self.given().next().is_none();
        let place = if is_for_one { &self.one } else { &self.many };
        let known = place.load(Relaxed);
        if !known.is_null() {
            return Ok(known);
        }
        let text = CString::new(self.text_for(is_for_one)).expect("no statement contains NUL");
        let of_rows = self.given().map(|(_, of)| if is_for_one { of } else { array_of(of) });
        let mut types: Vec<Oid> = self.types.iter().copied().chain(of_rows).collect();
        // SAFETY: the types are those of the parameters; the plan is kept before the connection to
        // SPI ends.
        unsafe {
            let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
            let plan = pg_sys::SPI_prepare_cursor(
                text.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                generic,
            );
            if plan.is_null() {
                Spi::check_status(pg_sys::SPI_result)?;
            }
            // It can fail only for no plan, or one that was kept already.
            pg_sys::SPI_keepplan(plan);
            place.store(plan, Relaxed);
            Ok(plan)
        }
    }

    /// Its text, as PostgreSQL gets it.
    fn text_for(&self, is_for_one: bool) -> String {
        let names: Vec<&str> = self.given().map(|(name, _)| name).collect();
        let columns = names.join(", ");
        let parameters = (self.types.len() + 1..).take(names.len());
        let given = if is_for_one {
            let values: Vec<String> = parameters.map(|number| format!("${number}")).collect();
            format!("(SELECT {}) AS given ({columns})", values.join(", "))
        } else {
            let values: Vec<String> =
                parameters.map(|number| format!("pg_catalog.unnest(${number})")).collect();
            format!("ROWS FROM ({}) AS given ({columns})", values.join(", "))
        };
        spell_out(self.text).replace("{given}", &given).replace("{columns}", &columns)
    }

    /// Its plans, for the tests of them.
    #[cfg(any(test, feature = "pg_test"))]
    pub fn plans(&self) -> SpiResult<Vec<pg_sys::SPIPlanPtr>> {
        [true, false].into_iter().map(|is_for_one| self.plan(is_for_one)).collect()
    }
}

/// For a statement that works on none.
const NO_ROWS: &[[Value; 0]] = &[];

/// Takes the rows of the statement that ran last.
fn result<T>(mut take: impl FnMut(Row<'_>) -> T) -> Vec<T> {
    // SAFETY: SPI_tuptable is the result of the statement that ran last, or null; values and nulls
    // have room for its columns.
    unsafe {
        let Some(table) = pg_sys::SPI_tuptable.as_ref() else { return Vec::new() };
        let width = (*table.tupdesc).natts as usize;
        let (mut values, mut nulls) = (vec![Datum::null(); width], vec![false; width]);
        (0..table.numvals as usize)
            .map(|place| {
                let tuple = *table.vals.add(place);
                pg_sys::heap_deform_tuple(
                    tuple,
                    table.tupdesc,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                take(Row { values: &values, nulls: &nulls })
            })
            .collect()
    }
}
