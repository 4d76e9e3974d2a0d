//! What ends a hold or follows its end: confirm, release, return; and what undoes a release of an
//! unknown key.

use super::choice::{Choice, goods, promises};
use super::holds::Taken;
use super::parts::{Part, accept, parts, refuse_parts, refuse_standing};
use super::work::{Place, Work};
use crate::answer::Answer;
use crate::facts::{Entry, Hold, LotMove, Operation};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding, own_key};
use crate::units;

/// Takes held units out of the stock; units whose hold has lapsed are taken again if they are
/// there.
pub(super) fn confirm(
    work: &mut Work,
    request: &Request,
    lines: Option<&[Line]>,
) -> Result<Vec<Answer>, Fault> {
    let outcome = |entry: &Entry| match entry.expires_at {
        Some(_) => Outcome::ConfirmedLate,
        None => Outcome::Confirmed,
    };
    let standing = work.standing(&request.key);
    let open = |line: &LineStanding| line.live() + line.lapsed();
    let parts = match parts(work, request, lines, &standing, &open, &outcome)? {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    let judged: Vec<_> = parts.iter().map(|part| judge_confirm(work, request, part)).collect();
    if judged.iter().any(Result::is_err) {
        let refused: Vec<_> = judged.iter().map(|judged| judged.as_ref().err().copied()).collect();
        return Ok(refuse_parts(work, request, &parts, &refused));
    }
    for (part, covering) in parts.iter().zip(judged.into_iter().flatten()) {
        work.expire(covering)?;
        let standing = work.let_go_of_spoiled(request, &part.standing)?;
        apply_confirm(work, request, part, &standing)?;
    }
    Ok(accept(work, request, &parts, |part| match part.standing.live() {
        0 => Outcome::ConfirmedLate,
        _ => Outcome::Confirmed,
    }))
}

/// In time, the units are there by right; late, they must be there and promised to nobody else.
/// That the order is paid comes before the safety stock and the limit per buyer: these are for who
/// would buy.
fn judge_confirm(work: &Work, request: &Request, part: &Part) -> Result<Vec<Hold>, Outcome> {
    if part.standing.live() > 0 {
        return Ok(Vec::new());
    }
    if !work.facts.retake_lapsed {
        return Err(Outcome::ReservationExpired);
    }
    let own = work.own(&part.standing);
    let level = work.level(part.at()).ok_or(Outcome::ReservationExpired)?;
    let choice = Choice::of(part.standing.lot.as_ref(), part.standing.min_life);
    if choice.is_narrow() && own == 0 {
        let unpromised = level.unpromised() + level.safety_stock;
        let covering = work
            .cover_narrow(part.at(), part.quantity, &choice, unpromised, Some(&request.key))
            .ok_or(Outcome::ReservationExpired)?;
        return if level.frozen { Err(Outcome::LevelFrozen) } else { Ok(covering) };
    }
    let shortage = part.quantity - own - (level.free() + level.safety_stock);
    let wanted = (part.quantity - own, level.unpromised() + level.safety_stock);
    let covering = work
        .cover(part.at(), shortage, wanted, Some(&request.key))
        .ok_or(Outcome::ReservationExpired)?;
    if level.frozen { Err(Outcome::LevelFrozen) } else { Ok(covering) }
}

fn apply_confirm(
    work: &mut Work,
    request: &Request,
    part: &Part,
    standing: &LineStanding,
) -> Result<(), Fault> {
    let late = standing.live() == 0;
    let held = standing.held > 0;
    let (there, waits) = match held {
        // What is there of a hold leaves first.
        true => part.split(standing.held - standing.waiting),
        false => work.level(part.at()).map_or((part.quantity, 0), |level| {
            part.split(level.unpromised() + level.safety_stock)
        }),
    };
    let lots = match held {
        true => units::first(&work.bound(standing), there),
        false => {
            let choice = Choice::of(standing.lot.as_ref(), standing.min_life);
            work.pick(part.at(), there, &choice)
        }
    };
    let confirm = Entry {
        lots: goods(&lots, -1, held),
        on_hand_delta: -there,
        reserved_delta: if held { -there } else { 0 },
        waiting_delta: if held { 0 } else { waits },
        buyer: standing.buyer.clone(),
        expires_at: late.then_some(standing.deadline),
        ..work.entry(request, Operation::Confirm, part.claim, part.at(), part.quantity)
    };
    // What is not held binds nothing: its lots are left at once.
    work.post_bound(standing.line, confirm)?;
    let line = part.line(request);
    if held {
        let promise = standing.promise;
        let owed = standing.owed_by(promise);
        work.wait(line, (true, promise), owed, waits, Place::Inherited);
        work.wait(line, (false, promise), standing.waiting, -waits, Place::Last);
        let taken = Taken { units: part.quantity, waited: waits, lots };
        work.shrink(line, standing.held, &taken, standing.deadline);
    } else {
        work.wait(line, (true, standing.promise + 1), 0, waits, Place::Last);
    }
    Ok(())
}

/// Gives held units back; a key that nothing is known of is cancelled instead.
pub(super) fn release(
    work: &mut Work,
    request: &Request,
    lines: Option<&[Line]>,
) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    if matches!(standing.claim, Claim::Free | Claim::Cancelled) {
        return cancel(work, request, lines, standing.claim == Claim::Cancelled);
    }
    let parts = match parts(work, request, lines, &standing, &LineStanding::live, &|_| {
        Outcome::Released
    })? {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    for part in &parts {
        let waited = part.quantity.min(part.standing.waiting);
        let lots = units::last(&work.bound(&part.standing), part.quantity - waited);
        let release = Entry {
            lots: promises(&lots, -1),
            reserved_delta: waited - part.quantity,
            waiting_delta: -waited,
            buyer: part.standing.buyer.clone(),
            ..work.entry(request, Operation::Release, part.claim, part.at(), part.quantity)
        };
        work.post_bound(part.standing.line, release)?;
        let line = part.line(request);
        let held = (false, part.standing.promise);
        work.wait(line, held, part.standing.waiting, -waited, Place::Last);
        let taken = Taken { units: part.quantity, waited, lots };
        work.shrink(line, part.standing.held, &taken, part.standing.deadline);
    }
    Ok(accept(work, request, &parts, |_| Outcome::Released))
}

/// Remembers a release that overtook its reserve (ARCHITECTURE, B1). It claims the key itself,
/// whatever its operation key.
fn cancel(
    work: &mut Work,
    request: &Request,
    lines: Option<&[Line]>,
    replayed: bool,
) -> Result<Vec<Answer>, Fault> {
    if !replayed {
        work.post(work.entry_of_key(request, Operation::Cancel, work.reserve_key(&request.key)))?;
    }
    let row = |number, at, quantity| Answer {
        replayed,
        ..work.answer(request, number, at, quantity, Outcome::Cancelled)
    };
    Ok(match lines {
        Some(lines) => {
            lines.iter().map(|line| row(line.number, Some(&line.at), line.quantity)).collect()
        }
        None => vec![row(1, None, 0)],
    })
}

/// Makes a key usable again that was released before it was reserved, by a mistyped number say.
pub(super) fn reopen(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let times = work.times_reopened(&request.key);
    let answer = |work: &Work, outcome, replayed| {
        vec![Answer { replayed, ..work.answer(request, 1, None, 0, outcome) }]
    };
    let standing = work.standing(&request.key);
    match standing.claim {
        Claim::Free if times > 0 => return Ok(answer(work, Outcome::Reopened, true)),
        Claim::Free => return Ok(answer(work, Outcome::UnknownReservation, false)),
        Claim::Reserved | Claim::Sold => {
            return Ok(refuse_standing(work, request, &standing, |_| Outcome::KeyConflict));
        }
        Claim::Cancelled => {}
    }
    work.post(work.entry_of_key(request, Operation::Reopen, own_key(times + 1)))?;
    Ok(answer(work, Outcome::Reopened, false))
}

/// Takes confirmed goods back into the stock.
pub(super) fn give_back(
    work: &mut Work,
    request: &Request,
    lines: Option<&[Line]>,
) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    let parts = match parts(work, request, lines, &standing, &LineStanding::returnable, &|_| {
        Outcome::Returned
    })? {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    let refused: Vec<_> =
        parts.iter().map(|part| work.check_lot(part.at(), part.lot.as_ref()).err()).collect();
    if refused.iter().any(Option::is_some) {
        return Ok(refuse_parts(work, request, &parts, &refused));
    }
    for part in &parts {
        // What has not come yet comes back by not coming.
        let waited = part.quantity.min(part.standing.owed());
        let entry = Entry {
            lots: lots_back(work, part, part.quantity - waited),
            lot: part.lot.clone(),
            on_hand_delta: part.quantity - waited,
            waiting_delta: -waited,
            buyer: part.standing.buyer.clone(),
            ..work.entry(request, Operation::Return, part.claim, part.at(), part.quantity)
        };
        work.post(entry)?;
        for (promise, units) in part.standing.called_off(waited) {
            let owed = part.standing.owed_by(promise);
            work.wait(part.line(request), (true, promise), owed, -units, Place::Last);
        }
    }
    Ok(accept(work, request, &parts, |_| Outcome::Returned))
}

/// The lots that goods come back to: the one that is named, or those that they came from, the last
/// ones first.
fn lots_back(work: &mut Work, part: &Part, count: i64) -> Vec<LotMove> {
    if !work.has_lots(part.at()) || count == 0 {
        return Vec::new();
    }
    let back = match &part.lot {
        Some(lot) => vec![(lot.clone(), count)],
        None => units::last(&work.sold(&part.standing), count),
    };
    if back.iter().any(|(lot, _)| lot.is_empty()) {
        work.make_unnamed_lot(part.at());
    }
    goods(&back, 1, false)
}
