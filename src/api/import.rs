//! Loading a shop's stock. The procedure that goes through the rows stands in sql/import.sql.

use pg_stock_core::import::{Mode, OpenOrder, Row, Verdict};
use pg_stock_core::{Fault, Name, Request, parse};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::{Arguments, missing};
use super::rows;
use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::settings;
use crate::store;
use crate::store::datum::{self, Value};

/// `import_rows(batch, mode, rows)`: place, applied, repeated, path, outcome, message.
#[pg_extern(sql = false)]
fn import_rows(fcinfo: pg_sys::FunctionCallInfo) {
    let _call = Call::begin();
    let asked = or_raise(asked(&Arguments::of(fcinfo)).map_err(Error::from));
    let verdicts = or_raise(store::import(asked));
    rows::send(fcinfo, verdicts.iter().enumerate().map(columns));
}

fn asked(args: &Arguments) -> Result<Vec<Result<Vec<Request>, Fault>>, Fault> {
    let batch = args.name(0, "batch")?;
    let mode = Mode::from_word(args.bytes(1).unwrap_or_default()).ok_or_else(|| {
        Fault::invalid("mode", "mode must be set, receive or hold").hint(
            "set: that many units are there; receive: that many more came; hold: orders hold them.",
        )
    })?;
    let json = args.json(2, "rows")?.ok_or_else(|| missing("rows"))?;
    if mode == Mode::Hold {
        let now = store::now();
        let request = |(place, order): (usize, Result<OpenOrder, Fault>)| {
            let order = order?;
            settings::check_first_ttl("expires_at", order.expires_at.saturating_sub(now).max(1))?;
            order.request(&batch, number_of(place), now).map(|request| vec![request])
        };
        return Ok(parse::open_orders(&json)?.into_iter().enumerate().map(request).collect());
    }
    let requests =
        |(place, row): (usize, Result<Row, Fault>)| row?.requests(&batch, mode, number_of(place));
    Ok(parse::rows(&json)?.into_iter().enumerate().map(requests).collect())
}

/// The number of the first request of a row, which may have two.
fn number_of(place: usize) -> i32 {
    i32::try_from(2 * place + 1).unwrap_or(i32::MAX)
}

fn columns((place, verdict): (usize, &Verdict)) -> [Value; 6] {
    let text = |text: &str| datum::text(&Name::from(text));
    let place = datum::int(place as i64 + 1);
    let flags = [verdict == &Verdict::Applied, verdict == &Verdict::Repeated].map(datum::flag);
    let why = match verdict {
        Verdict::Refused { path, outcome, message } => [text(path), text(outcome), text(message)],
        _ => [None, None, None],
    };
    let ([applied, repeated], [path, outcome, message]) = (flags, why);
    [place, applied, repeated, path, outcome, message]
}
