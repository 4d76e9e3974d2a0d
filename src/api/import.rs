//! Loading a shop's stock. The procedure that goes through the rows stands in sql/import.sql.

use std::collections::HashSet;

use pg_stock_core::import::{Mode, OpenOrder, Row, Verdict};
use pg_stock_core::standing::Claim;
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
    let asked = or_raise(asked(&Arguments::of(fcinfo)));
    let verdicts = or_raise(store::import(asked));
    rows::send(fcinfo, verdicts.iter().enumerate().map(columns));
}

/// What each row asks for, or what is known of it without that.
type Asked = Vec<Result<Vec<Request>, Verdict>>;

fn asked(args: &Arguments) -> Result<Asked, Error> {
    let batch = args.name(0, "batch")?;
    let mode = Mode::from_word(args.bytes(1).unwrap_or_default()).ok_or_else(|| {
        Fault::invalid("mode", "mode must be set, receive or hold").hint(
            "set: that many units are there; receive: that many more came; hold: orders hold them.",
        )
    })?;
    let json = args.json(2, "rows")?.ok_or_else(|| missing("rows"))?;
    if mode == Mode::Hold {
        return holds(&batch, parse::open_orders(&json)?);
    }
    let requests = |(place, row): (usize, Result<Row, Fault>)| {
        let requests = row.and_then(|row| row.requests(&batch, mode, number_of(place)));
        requests.map_err(|fault| Verdict::of_fault(&fault))
    };
    Ok(parse::rows(&json)?.into_iter().enumerate().map(requests).collect())
}

/// The reserves that orders ask for. One whose deadline is past may have been held in time, by an
/// earlier call.
fn holds(batch: &Name, orders: Vec<Result<OpenOrder, Fault>>) -> Result<Asked, Error> {
    let now = store::now();
    let late: Vec<&Name> = orders
        .iter()
        .flatten()
        .filter(|order| order.expires_at <= now)
        .map(|order| &order.key)
        .collect();
    let known: HashSet<Name> = store::standings(&late)?
        .iter()
        .zip(&late)
        .filter(|(standing, _)| matches!(standing.claim, Claim::Reserved | Claim::Sold))
        .map(|(_, key)| (*key).clone())
        .collect();
    let request = |place, order: OpenOrder| {
        let ttl = order.expires_at.saturating_sub(now);
        if ttl > 0 {
            settings::check_first_ttl("expires_at", ttl)?;
        }
        order.request(batch, number_of(place), now).map(|request| vec![request])
    };
    let asked = |(place, order): (usize, Result<OpenOrder, Fault>)| match order {
        Ok(order) if known.contains(&order.key) => Err(Verdict::Repeated),
        order => {
            order.and_then(|order| request(place, order)).map_err(|fault| Verdict::of_fault(&fault))
        }
    };
    Ok(orders.into_iter().enumerate().map(asked).collect())
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
