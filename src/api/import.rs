//! Loading a shop's stock. The procedure that goes through the rows stands in sql/import.sql.

use pg_stock_core::import::{Mode, Verdict};
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
    let asked = asked(&Arguments::of(fcinfo)).map_err(Error::from);
    let verdicts = or_raise(asked.and_then(store::import));
    rows::send(fcinfo, verdicts.iter().enumerate().map(columns));
}

/// What each row asks for.
type Asked = Vec<Result<Vec<Request>, Fault>>;

fn asked(args: &Arguments) -> Result<Asked, Fault> {
    let batch = args.name(0, "batch")?;
    let mode = Mode::from_word(args.bytes(1).unwrap_or_default()).ok_or_else(|| {
        Fault::invalid("mode", "mode must be set, receive or hold").hint(
            "set: that many units are there; receive: that many more came; hold: orders hold them.",
        )
    })?;
    let json = args.json(2, "rows")?.ok_or_else(|| missing("rows"))?;
    match mode {
        Mode::Set => Ok(each(parse::rows(&json)?, |row, number| row.counted(&batch, number))),
        Mode::Receive => Ok(each(parse::rows(&json)?, |row, number| row.received(&batch, number))),
        Mode::Hold => {
            let now = store::now();
            Ok(each(parse::open_orders(&json)?, |order, number| {
                settings::check_time_left("expires_at", order.expires_at.saturating_sub(now))?;
                Ok(vec![order.request(&batch, number, now)])
            }))
        }
    }
}

/// What sound rows ask for; each has two numbers for its requests.
fn each<R>(
    rows: Vec<Result<R, Fault>>,
    requests: impl Fn(R, i32) -> Result<Vec<Request>, Fault>,
) -> Asked {
    let numbers = (1..).step_by(2);
    rows.into_iter().zip(numbers).map(|(row, number)| requests(row?, number)).collect()
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
