//! The functions that SQL calls. Their SQL signatures stand in sql/functions.sql.
//!
//! Each function here is the `try_` form: it reads its arguments, has the store run the request, and sends the rows.

mod arguments;
mod feed;
mod goods;
mod maintenance;
mod reads;
mod refusal;
mod reservations;
mod rows;

use pg_stock_core::{Action, Name, Request};
use pgrx::pg_sys;

use crate::error::{Error, or_raise};
use crate::fields::Call;
use crate::store;

/// Runs the request that the arguments make, and sends its answers.
fn answer(fcinfo: pg_sys::FunctionCallInfo, requests: Result<Vec<Request>, Error>) {
    let _call = Call::begin();
    let answers = or_raise(requests.and_then(|requests| store::run(&requests)));
    rows::send_answers(fcinfo, &answers);
    refusal::remember(answers);
}

/// A single request without operation key or reason.
fn request(key: Name, action: Action) -> Request {
    let none = Name::default();
    Request { number: 1, key, operation_key: none.clone(), reason: none.clone(), context: none, action }
}
