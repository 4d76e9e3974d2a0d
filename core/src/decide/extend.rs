//! Extend: puts the end of holds off, and holds again what has lapsed.

use super::choice::{Choice, promises};
use super::parts::{Part, accept, all_parts, refuse_parts, unknown};
use super::work::{Place, Work};
use crate::answer::Answer;
use crate::facts::{Entry, Hold, Micros, NEVER, Operation};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding, own_key};

/// Moves the deadline of everything still held to `ttl` from now, never earlier than it was; units
/// whose hold has lapsed are held again if they are there. The greatest deadline counts however
/// often it is asked for, so that a repeat needs no key to be known by: it moves nothing.
pub(super) fn extend(
    work: &mut Work,
    request: &Request,
    ttl: Micros,
) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    let parts = match standing.claim {
        Claim::Free => return Ok(unknown(work, request, None, Outcome::UnknownReservation)),
        Claim::Cancelled => return Ok(unknown(work, request, None, Outcome::AlreadyReleased)),
        Claim::Reserved | Claim::Sold => {
            all_parts(work, request, &standing, &|line| line.live() + line.lapsed())
        }
    };
    let parts = match parts {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    let judged: Vec<_> = parts.iter().map(|part| judge_extend(work, request, part, ttl)).collect();
    if judged.iter().any(Result::is_err) {
        let refused: Vec<_> = judged.iter().map(|judged| judged.as_ref().err().copied()).collect();
        return Ok(refuse_parts(work, request, &parts, &refused));
    }
    let mark = work.mark();
    for (part, covering) in parts.iter().zip(judged.into_iter().flatten()) {
        work.expire(covering)?;
        let until = deadline(work, part, ttl);
        if until > part.standing.deadline {
            let standing = work.let_go_of_spoiled(request, &part.standing)?;
            apply_extend(work, request, part, &standing, until)?;
        }
    }
    let replayed = work.mark() == mark;
    let answers = accept(work, request, &parts, |part| match part.standing.live() {
        0 => Outcome::ExtendedLate,
        _ => Outcome::Extended,
    });
    Ok(answers.into_iter().map(|answer| Answer { replayed, ..answer }).collect())
}

/// The deadline that an extension gives a line.
fn deadline(work: &Work, part: &Part, ttl: Micros) -> Micros {
    let most =
        work.facts.max_hold.map_or(NEVER, |most| part.standing.reserved_at.saturating_add(most));
    work.facts.now.saturating_add(ttl).min(most).max(part.standing.deadline)
}

/// What is in force stays so; what has lapsed must be free, as for a new reserve of the same buyer.
fn judge_extend(
    work: &Work,
    request: &Request,
    part: &Part,
    ttl: Micros,
) -> Result<Vec<Hold>, Outcome> {
    let standing = &part.standing;
    if standing.live() > 0 {
        return Ok(Vec::new());
    }
    // Where the clock was set back, a deadline that has passed may lie ahead.
    if !work.facts.retake_lapsed
        || deadline(work, part, ttl) <= work.facts.now.max(standing.deadline)
    {
        return Err(Outcome::ReservationExpired);
    }
    let line = Line::new(part.claim, part.at().clone(), part.quantity);
    let choice = Choice::of(standing.lot.as_ref(), standing.min_life);
    let own = work.own(standing);
    work.take_again(&line, standing.buyer.as_ref(), &request.key, own, &choice)
}

fn apply_extend(
    work: &mut Work,
    request: &Request,
    part: &Part,
    standing: &LineStanding,
    deadline: Micros,
) -> Result<(), Fault> {
    // Swept units are promised anew: what is there of them first.
    let (there, waits) =
        work.level(part.at()).map_or((0, 0), |level| level.split(standing.expired));
    let lots = match standing.expired {
        0 => Vec::new(),
        _ => work.pick(part.at(), there, &Choice::of(standing.lot.as_ref(), standing.min_life)),
    };
    let entry = Entry {
        lots: promises(&lots, 1),
        operation_key: own_key(deadline),
        reserved_delta: there,
        waiting_delta: waits,
        buyer: standing.buyer.clone(),
        expires_at: Some(deadline),
        ..work.entry(request, Operation::Extend, part.claim, part.at(), part.quantity)
    };
    work.post_bound(standing.line, entry)?;
    if standing.held > 0 {
        work.put_off(&request.key, standing, deadline);
    } else {
        let line = (&request.key, standing.line, &standing.at);
        let promise = standing.promise + 1;
        work.wait(line, (false, promise), 0, waits, Place::Last);
        work.open(Hold {
            key: request.key.clone(),
            line: standing.line,
            at: standing.at.clone(),
            quantity: part.quantity,
            waiting: waits,
            promise,
            buyer: standing.buyer.clone(),
            expires_at: deadline,
            reserved_at: standing.reserved_at,
            lots,
        });
    }
    Ok(())
}
