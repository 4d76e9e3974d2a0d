//! A look ahead for whoever has read the entries of a key, but not yet the levels they are about.

use super::replay;
use crate::facts::{Entry, Micros};
use crate::request::{Action, Request};
use crate::standing::{Claim, LineStanding, Standing};

/// Whether a request on a reservation changes something, as far as the entries of its key tell:
/// there is something open that it takes, and its operation key was not used. Then it is refused
/// only for what its lines or the levels say. Where it is false the request changes nothing, or
/// takes again what has lapsed. Other requests have no such answer: false.
pub fn will_act(request: &Request, entries: &[Entry], now: Micros) -> bool {
    let standing = Standing::at(entries, now);
    let has =
        |open: &dyn Fn(&LineStanding) -> i64| standing.lines.iter().any(|line| open(line) > 0);
    let is_new =
        || replay::claimed(entries, request.action.operation(), &request.operation_key).is_empty();
    match &request.action {
        Action::Confirm { .. } => has(&LineStanding::live) && is_new(),
        Action::Release { .. } => {
            standing.claim == Claim::Free || has(&LineStanding::live) && is_new()
        }
        Action::Return { .. } => has(&LineStanding::returnable) && is_new(),
        Action::Extend { ttl } => {
            has(&|line| if line.deadline < now.saturating_add(*ttl) { line.live() } else { 0 })
        }
        Action::Reopen => standing.claim == Claim::Cancelled,
        _ => false,
    }
}
