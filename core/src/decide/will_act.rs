//! A look ahead for whoever has read the entries of keys, but not yet the levels they are about.

use super::parts::{Part, all_parts, parts};
use super::work::Work;
use crate::facts::{Facts, Micros};
use crate::request::{Action, Line, Request};
use crate::standing::{Claim, LineStanding, Standing};

/// Whether a request on a reservation changes something, as far as the entries of its key (in
/// `facts`, with the time) tell: it is no repeat, what it names is open, and nothing of that has
/// lapsed. Then nothing that its levels say can refuse it. Where it is false the request changes
/// nothing, is bad input, takes again what has lapsed, or names a lot. Other requests have no such
/// answer: false.
pub fn will_act(facts: Facts, requests: &[Request]) -> bool {
    let work = Work::new(facts);
    requests.iter().all(|request| request.action.acts_on_reservation())
        && requests.iter().any(|request| acts(&work, request))
}

fn acts(work: &Work, request: &Request) -> bool {
    let standing = work.standing(&request.key);
    let named = |lines: &Option<Vec<Line>>, open: &dyn Fn(&LineStanding) -> i64| {
        named_parts(work, request, lines.as_deref(), &standing, open)
    };
    let open = |line: &LineStanding| line.live() + line.lapsed();
    match &request.action {
        Action::Confirm { lines } => named(lines, &open).is_some_and(|parts| are_live(&parts)),
        Action::Release { .. } if standing.claim == Claim::Free => true,
        Action::Release { lines } => named(lines, &LineStanding::live).is_some(),
        Action::Return { lines } => {
            let is_plain = |line: &Line| line.lot.is_none();
            lines.iter().flatten().all(is_plain)
                && named(lines, &LineStanding::returnable).is_some()
        }
        Action::Extend { ttl } => {
            let parts = all_parts(work, request, &standing, &open).ok();
            let until = work.facts.now.saturating_add(*ttl);
            parts.is_some_and(|parts| are_live(&parts) && moves_one(&parts, until))
        }
        Action::Reopen => standing.claim == Claim::Cancelled,
        _ => false,
    }
}

fn named_parts(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    standing: &Standing,
    open: &dyn Fn(&LineStanding) -> i64,
) -> Option<Vec<Part>> {
    // What an earlier use answered does not matter: there is no part then.
    let outcome = |_: &_| crate::outcome::Outcome::KeyConflict;
    parts(work, request, lines, standing, open, &outcome).ok()?.ok()
}

fn are_live(parts: &[Part]) -> bool {
    parts.iter().all(|part| part.standing.live() > 0)
}

fn moves_one(parts: &[Part], until: Micros) -> bool {
    parts.iter().any(|part| part.standing.deadline < until)
}
