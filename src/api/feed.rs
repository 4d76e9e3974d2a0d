//! The change feed: catching up, and sending without the worker.

use pg_stock_core::Fault;
use pg_stock_core::feed::Cursor;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::{Arguments, missing};
use super::rows;
use crate::error::{Error, or_raise};
use crate::feed::{self, LevelRow, Page};
use crate::fields::Call;
use crate::store::datum::{self, Value};

/// Most ledger rows or levels of one call.
const CALL_ROWS_MAX: i64 = 100_000;
/// How many columns of a row tell of a level.
const LEVEL_COLUMNS: usize = 15;

/// `changes_since(cursor, max_rows)`: outcome, the level, next_cursor.
#[pg_extern(sql = false)]
fn changes_since(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let page = cursor_of_changes(&Arguments::of(fcinfo)).map_err(Error::from);
    send(
        fcinfo,
        "changed",
        &or_raise(page.and_then(|(cursor, most)| feed::changes_since(cursor, most))),
    );
}

/// `snapshot(cursor, max_rows)`: outcome, the level, next_cursor.
#[pg_extern(sql = false)]
fn snapshot(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let page = cursor_of_levels(&Arguments::of(fcinfo)).map_err(Error::from);
    send(fcinfo, "level", &or_raise(page.and_then(|(cursor, most)| feed::snapshot(cursor, most))));
}

/// `emit_changes(max_rows)`: changes, levels, alerts, messages, more.
#[pg_extern(sql = false)]
fn emit_changes(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let most = most(&Arguments::of(fcinfo), 0).map_err(Error::from);
    let told = or_raise(most.and_then(feed::emit));
    let [changes, levels, alerts, messages] =
        [told.changes, told.levels, told.alerts, told.messages]
            .map(|count| datum::int(count as i64));
    rows::send(fcinfo, [[changes, levels, alerts, messages, datum::flag(told.more)]].into_iter());
}

/// `begin_generation()`: its name.
#[pg_extern(sql = false)]
fn begin_generation() -> String {
    let _call = Call::begin();
    or_raise(feed::begin_generation())
}

fn cursor_of_changes(args: &Arguments) -> Result<(Cursor, usize), Fault> {
    let cursor =
        args.bytes(0).ok_or_else(|| missing("cursor").hint("Call stock.snapshot() to get one."))?;
    Ok((Cursor::of_changes(cursor)?, most(args, 1)?))
}

fn cursor_of_levels(args: &Arguments) -> Result<(Option<Cursor>, usize), Fault> {
    Ok((args.bytes(0).map(Cursor::of_levels).transpose()?, most(args, 1)?))
}

fn most(args: &Arguments, place: usize) -> Result<usize, Fault> {
    match args.int(place, "max_rows")? {
        most @ 1..=CALL_ROWS_MAX => Ok(most as usize),
        most => {
            Err(Fault::invalid("max_rows", format!("max_rows must be from 1 to {CALL_ROWS_MAX}"))
                .detail(format!("It is {most}."))
                .hint("Call again for more."))
        }
    }
}

/// A row for each level, and a closing one.
fn send(fcinfo: pg_sys::FunctionCallInfo, word: &str, page: &Page) {
    let cursor = page.cursor.as_ref().and_then(|cursor| datum::word(&cursor.to_string()));
    let levels = page.levels.iter().map(|state| row(word, columns(state), None));
    rows::send(fcinfo, levels.chain([row(page.outcome.word(), [None; LEVEL_COLUMNS], cursor)]));
}

fn row(outcome: &str, level: [Value; LEVEL_COLUMNS], cursor: Value) -> [Value; LEVEL_COLUMNS + 2] {
    let mut columns = [None; LEVEL_COLUMNS + 2];
    columns[0] = datum::word(outcome);
    columns[1..=LEVEL_COLUMNS].copy_from_slice(&level);
    columns[LEVEL_COLUMNS + 1] = cursor;
    columns
}

fn columns(state: &LevelRow) -> [Value; LEVEL_COLUMNS] {
    let level = &state.level;
    [
        datum::text(&state.at.sku),
        datum::text(&state.at.location),
        datum::int(level.on_hand),
        datum::int(level.reserved),
        datum::int(level.safety_stock),
        datum::int(level.waiting),
        datum::int(level.in_transit),
        datum::int(level.backorder_limit),
        datum::int(level.unsellable),
        datum::int(level.announced()),
        datum::flag(level.frozen),
        datum::opt_int(level.sale.from),
        datum::opt_int(level.sale.until),
        datum::int(level.version),
        datum::int(state.updated_at),
    ]
}
