//! Reserve, and sell: a reserve that is confirmed at once.

use super::choice::{Choice, goods, promises};
use super::replay;
use super::work::{Place, Work};
use crate::answer::Answer;
use crate::facts::{Entry, Hold, Micros, Operation};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding};

/// What is asked for all lines.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Without a time to live it is a sale.
    pub ttl: Option<Micros>,
    pub buyer: Option<&'a Name>,
    pub min_life: Option<Micros>,
}

/// Decides a reserve or a sale.
pub(super) fn reserve(
    work: &mut Work,
    request: &Request,
    lines: &[Line],
    terms: Terms,
) -> Result<Vec<Answer>, Fault> {
    let Terms { ttl, buyer, min_life } = terms;
    if let Some(answers) = earlier(work, request, lines, ttl, buyer) {
        return Ok(answers);
    }
    limits::time_left(ttl)?;
    let judge = |line: &Line| work.take_free(line, buyer, &Choice::of(line.lot.as_ref(), min_life));
    let judged: Vec<_> = lines.iter().map(judge).collect();
    if judged.iter().any(Result::is_err) {
        let refused: Vec<_> = judged.iter().map(|judged| judged.as_ref().err().copied()).collect();
        return Ok(work.refuse(request, lines, &refused));
    }
    for (line, covering) in lines.iter().zip(judged.into_iter().flatten()) {
        work.expire(covering)?;
        apply(work, request, line, terms)?;
    }
    let outcome = if ttl.is_some() { Outcome::Reserved } else { Outcome::Sold };
    Ok(lines
        .iter()
        .map(|line| work.answer(request, line.number, Some(&line.at), line.quantity, outcome))
        .collect())
}

/// The answer, where the key was used before.
fn earlier(
    work: &Work,
    request: &Request,
    lines: &[Line],
    ttl: Option<Micros>,
    buyer: Option<&Name>,
) -> Option<Vec<Answer>> {
    let (same_claim, outcome, answering) = match ttl {
        Some(_) => (Claim::Reserved, Outcome::Reserved, Operation::Reserve),
        None => (Claim::Sold, Outcome::Sold, Operation::Confirm),
    };
    let standing = work.standing(&request.key);
    match standing.claim {
        Claim::Free => return None,
        Claim::Cancelled => return Some(work.refuse_all(request, lines, Outcome::AlreadyReleased)),
        Claim::Reserved | Claim::Sold => {}
    }
    let history = work.history(&request.key);
    let first = replay::claimed(history, Operation::Reserve, &work.reserve_key(&request.key));
    let same_buyer = first.iter().all(|entry| entry.buyer.as_ref() == buyer);
    if standing.claim != same_claim || !same_buyer || !replay::same_lines(&first, lines) {
        return Some(work.refuse_all(request, lines, Outcome::KeyConflict));
    }
    // A shop that is told "reserved" sends its buyer to pay: so it must be true today.
    if !standing.lines.iter().any(|line| line.live() > 0 || line.returnable() > 0) {
        let ended = |line: &Line| standing.line(&line.at).map(gone);
        return Some(work.refuse(request, lines, &lines.iter().map(ended).collect::<Vec<_>>()));
    }
    let entries = match answering {
        Operation::Reserve => first,
        _ => replay::claimed(history, answering, &Name::default()),
    };
    Some(replay::answers(work, request, &entries, Some(lines), |_| outcome))
}

/// Where the units of a line are of which nothing is held and nothing sold any more: what was
/// bought and came back is as free as what was released.
fn gone(line: &LineStanding) -> Outcome {
    match line.ended() {
        Outcome::AlreadyConfirmed => Outcome::AlreadyReleased,
        outcome => outcome,
    }
}

fn apply(
    work: &mut Work,
    request: &Request,
    line: &Line,
    Terms { ttl, buyer, min_life }: Terms,
) -> Result<(), Fault> {
    let deadline = ttl.map(|ttl| work.facts.now.saturating_add(ttl));
    let (there, waits) =
        work.level(&line.at).map_or((line.quantity, 0), |level| level.split(line.quantity));
    let lots = work.pick(&line.at, there, &Choice::of(line.lot.as_ref(), min_life));
    let reserve = Entry {
        lots: promises(&lots, 1),
        lot: line.lot.clone(),
        min_life,
        reserved_delta: there,
        waiting_delta: waits,
        buyer: buyer.cloned(),
        expires_at: deadline,
        operation_key: work.reserve_key(&request.key),
        ..work.entry(request, Operation::Reserve, line.number, &line.at, line.quantity)
    };
    work.post_bound(line.number, reserve)?;
    let place = (&request.key, line.number, &line.at);
    work.wait(place, (deadline.is_none(), 0), 0, waits, Place::Last);
    match deadline {
        Some(expires_at) => {
            work.open(Hold {
                key: request.key.clone(),
                line: line.number,
                at: line.at.clone(),
                quantity: line.quantity,
                waiting: waits,
                promise: 0,
                buyer: buyer.cloned(),
                expires_at,
                reserved_at: work.facts.now,
                lots,
            });
            Ok(())
        }
        None => {
            let confirm = Entry {
                lots: goods(&lots, -1, true),
                on_hand_delta: -there,
                reserved_delta: -there,
                buyer: buyer.cloned(),
                ..work.entry(request, Operation::Confirm, line.number, &line.at, line.quantity)
            };
            work.post_bound(line.number, confirm)
        }
    }
}
