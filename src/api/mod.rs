//! The functions that SQL calls. Their SQL signatures stand in sql/functions.sql.
//!
//! Each reads its arguments, has the store run the request, and sends the rows. Most have two
//! forms: one raises a refusal, the other (`try_`) sends it as rows.

mod arguments;
mod feed;
mod goods;
mod import;
mod maintenance;
mod reads;
mod reservations;
mod road;
mod rows;
mod standby;
mod stat;

use pg_stock_core::answer::report;
use pg_stock_core::{Action, Fault, Name, Request};
use pgrx::pg_sys;

use self::arguments::Arguments;
use crate::error::{self, Error, or_raise};
use crate::fields::Call;
use crate::store;

/// What becomes of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It is raised, so that a surrounding transaction cannot ignore it.
    Raising,
    /// It is returned as rows.
    Returning,
}

/// Runs the requests that the arguments make, and sends their answers.
fn answer(
    fcinfo: pg_sys::FunctionCallInfo,
    form: Form,
    read: impl Fn(&Arguments) -> Result<Vec<Request>, Fault>,
) {
    let _call = Call::begin();
    let requests = read(&Arguments::of(fcinfo)).map_err(Error::from);
    let answers = or_raise(requests.and_then(|requests| store::run(&requests)));
    if form == Form::Raising
        && let Some(report) = report(&answers)
    {
        error::raise_refusal(report);
    }
    rows::send_answers(fcinfo, &answers);
}

/// A single request without operation key or reason.
fn request(key: Name, action: Action) -> Request {
    let none = Name::default();
    Request {
        number: 1,
        key,
        operation_key: none.clone(),
        reason: none.clone(),
        context: none,
        action,
    }
}
