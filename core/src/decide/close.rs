//! What ends a hold or follows its end: confirm, release, return; and extend, which puts the end off.

use super::replay;
use super::work::{Work, own_key};
use crate::answer::Answer;
use crate::facts::{Entry, Hold, LevelId, Micros, NEVER, Operation};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding, Standing};

/// Takes held units out of the stock; units whose hold has lapsed are taken again if they are there.
pub(super) fn confirm(work: &mut Work, request: &Request, lines: Option<&[Line]>) -> Result<Vec<Answer>, Fault> {
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
        apply_confirm(work, request, part)?;
    }
    Ok(accept(work, request, &parts, |part| match part.standing.live() {
        0 => Outcome::ConfirmedLate,
        _ => Outcome::Confirmed,
    }))
}

/// In time, the units are there by right; late, they must be there and promised to nobody else. That the order is paid
/// comes before the safety stock and the limit per buyer: these are for who would buy.
fn judge_confirm(work: &Work, request: &Request, part: &Part) -> Result<Vec<Hold>, Outcome> {
    if part.standing.live() > 0 {
        return Ok(Vec::new());
    }
    if !work.facts.retake_lapsed {
        return Err(Outcome::ReservationExpired);
    }
    let own = if part.standing.overdue { part.standing.held } else { 0 };
    let level = work.level(part.at()).ok_or(Outcome::ReservationExpired)?;
    let shortage = part.quantity - own - (level.on_hand - level.reserved);
    let covering = work.cover(part.at(), shortage, Some(&request.key)).ok_or(Outcome::ReservationExpired)?;
    if level.frozen { Err(Outcome::LevelFrozen) } else { Ok(covering) }
}

fn apply_confirm(work: &mut Work, request: &Request, part: &Part) -> Result<(), Fault> {
    let late = part.standing.live() == 0;
    let held = part.standing.held > 0;
    let confirm = Entry {
        on_hand_delta: -part.quantity,
        reserved_delta: if held { -part.quantity } else { 0 },
        buyer: part.standing.buyer.clone(),
        expires_at: late.then_some(part.standing.deadline),
        ..work.entry(request, Operation::Confirm, part.claim, part.at(), part.quantity)
    };
    work.post(confirm)?;
    if held {
        shrink(work, request, part);
    }
    Ok(())
}

/// Gives held units back; a key that nothing is known of is cancelled instead.
pub(super) fn release(work: &mut Work, request: &Request, lines: Option<&[Line]>) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    if matches!(standing.claim, Claim::Free | Claim::Cancelled) {
        return cancel(work, request, lines, standing.claim == Claim::Cancelled);
    }
    let parts = match parts(work, request, lines, &standing, &LineStanding::live, &|_| Outcome::Released)? {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    for part in &parts {
        let release = Entry {
            reserved_delta: -part.quantity,
            buyer: part.standing.buyer.clone(),
            ..work.entry(request, Operation::Release, part.claim, part.at(), part.quantity)
        };
        work.post(release)?;
        shrink(work, request, part);
    }
    Ok(accept(work, request, &parts, |_| Outcome::Released))
}

/// Remembers a release that overtook its reserve (ARCHITECTURE, B1). It claims the key itself, whatever its operation key.
fn cancel(work: &mut Work, request: &Request, lines: Option<&[Line]>, replayed: bool) -> Result<Vec<Answer>, Fault> {
    if !replayed {
        let nowhere = LevelId { sku: Default::default(), location: Default::default() };
        let entry = work.entry(request, Operation::Cancel, 1, &nowhere, 0);
        work.post(Entry { at: None, operation_key: work.reserve_key(&request.key), ..entry })?;
    }
    let row =
        |number, at, quantity| Answer { replayed, ..work.answer(request, number, at, quantity, Outcome::Cancelled) };
    Ok(match lines {
        Some(lines) => lines.iter().map(|line| row(line.number, Some(&line.at), line.quantity)).collect(),
        None => vec![row(1, None, 0)],
    })
}

/// Makes a key usable again that was released before it was reserved, by a mistyped number say.
pub(super) fn reopen(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let times = work.times_reopened(&request.key);
    let answer =
        |work: &Work, outcome, replayed| vec![Answer { replayed, ..work.answer(request, 1, None, 0, outcome) }];
    let standing = work.standing(&request.key);
    match standing.claim {
        Claim::Free if times > 0 => return Ok(answer(work, Outcome::Reopened, true)),
        Claim::Free => return Ok(answer(work, Outcome::UnknownReservation, false)),
        Claim::Reserved | Claim::Sold => {
            return Ok(refuse_standing(work, request, &standing, |_| Outcome::KeyConflict));
        }
        Claim::Cancelled => {}
    }
    let nowhere = LevelId { sku: Default::default(), location: Default::default() };
    let entry = work.entry(request, Operation::Reopen, 1, &nowhere, 0);
    work.post(Entry { at: None, operation_key: own_key(times + 1), ..entry })?;
    Ok(answer(work, Outcome::Reopened, false))
}

/// Takes confirmed goods back into the stock.
pub(super) fn give_back(work: &mut Work, request: &Request, lines: Option<&[Line]>) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    let parts = match parts(work, request, lines, &standing, &LineStanding::returnable, &|_| Outcome::Returned)? {
        Ok(parts) => parts,
        Err(answers) => return Ok(answers),
    };
    for part in &parts {
        let entry = Entry {
            on_hand_delta: part.quantity,
            buyer: part.standing.buyer.clone(),
            ..work.entry(request, Operation::Return, part.claim, part.at(), part.quantity)
        };
        work.post(entry)?;
    }
    Ok(accept(work, request, &parts, |_| Outcome::Returned))
}

/// Moves the deadline of everything still held to `ttl` from now, never earlier than it was; units whose hold has lapsed
/// are held again if they are there. The greatest deadline counts however often it is asked for, so that a repeat needs no
/// key to be known by: it moves nothing.
pub(super) fn extend(work: &mut Work, request: &Request, ttl: Micros) -> Result<Vec<Answer>, Fault> {
    let standing = work.standing(&request.key);
    let parts = match standing.claim {
        Claim::Free => return Ok(unknown(work, request, None, Outcome::UnknownReservation)),
        Claim::Cancelled => return Ok(unknown(work, request, None, Outcome::AlreadyReleased)),
        Claim::Reserved | Claim::Sold => all_parts(work, request, &standing, &|line| line.live() + line.lapsed()),
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
        apply_extend(work, request, part, deadline(work, part, ttl))?;
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
    let most = work.facts.max_hold.map_or(NEVER, |most| part.standing.reserved_at.saturating_add(most));
    work.facts.now.saturating_add(ttl).min(most).max(part.standing.deadline)
}

/// What is in force stays so; what has lapsed must be free, as for a new reserve of the same buyer.
fn judge_extend(work: &Work, request: &Request, part: &Part, ttl: Micros) -> Result<Vec<Hold>, Outcome> {
    let standing = &part.standing;
    if standing.live() > 0 {
        return Ok(Vec::new());
    }
    // Where the clock was set back, a deadline that has passed may lie ahead.
    if !work.facts.retake_lapsed || deadline(work, part, ttl) <= work.facts.now.max(standing.deadline) {
        return Err(Outcome::ReservationExpired);
    }
    let line = Line { number: part.claim, at: part.at().clone(), quantity: part.quantity, expected_version: None };
    work.take_free(&line, standing.buyer.as_ref(), Some((&request.key, standing.held))).map_err(|outcome| match outcome
    {
        Outcome::InsufficientStock | Outcome::UnknownLevel => Outcome::ReservationExpired,
        outcome => outcome,
    })
}

fn apply_extend(work: &mut Work, request: &Request, part: &Part, deadline: Micros) -> Result<(), Fault> {
    let standing = &part.standing;
    if deadline <= standing.deadline {
        return Ok(());
    }
    work.post(Entry {
        operation_key: own_key(deadline),
        reserved_delta: standing.expired,
        buyer: standing.buyer.clone(),
        expires_at: Some(deadline),
        ..work.entry(request, Operation::Extend, part.claim, part.at(), part.quantity)
    })?;
    if standing.held > 0 {
        work.put_off(&request.key, standing, deadline);
    } else {
        work.open(Hold {
            key: request.key.clone(),
            line: standing.line,
            at: standing.at.clone(),
            quantity: part.quantity,
            buyer: standing.buyer.clone(),
            expires_at: deadline,
        });
    }
    Ok(())
}

/// The units of one line of a reservation that a request concerns.
struct Part {
    /// The line of the claim: from 1 on, so that two requests under one key collide.
    claim: i32,
    quantity: i64,
    standing: LineStanding,
}

impl Part {
    fn at(&self) -> &LevelId {
        &self.standing.at
    }
}

/// What the request takes of which line; or the answers, where the key was used before or the request must be
/// refused. `open` counts what the operation may still take of a line.
fn parts(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    standing: &Standing,
    open: &dyn Fn(&LineStanding) -> i64,
    outcome: &dyn Fn(&Entry) -> Outcome,
) -> Result<Result<Vec<Part>, Vec<Answer>>, Fault> {
    if let Some(answers) = earlier(work, request, lines, open, outcome) {
        check_repeat(request, standing, &answers)?;
        return Ok(Err(answers));
    }
    let parts = match (standing.claim, lines) {
        (Claim::Free, _) => Err(unknown(work, request, lines, Outcome::UnknownReservation)),
        (Claim::Cancelled, _) => Err(unknown(work, request, lines, Outcome::AlreadyReleased)),
        (Claim::Reserved | Claim::Sold, None) => all_parts(work, request, standing, open),
        (Claim::Reserved | Claim::Sold, Some(lines)) => named_parts(work, request, standing, lines, open),
    };
    if let Ok(parts) = &parts {
        check_operation_key(request, parts, standing.lines.iter().map(open).sum())?;
    }
    Ok(parts)
}

/// What can be returned grows again with a further confirm. From then on a return without a key may be a repeat of the
/// first one or the next.
fn check_repeat(request: &Request, standing: &Standing, answers: &[Answer]) -> Result<(), Fault> {
    let left: i64 = standing.lines.iter().map(LineStanding::returnable).sum();
    let is_return = request.action.operation() == Operation::Return && request.operation_key.is_empty();
    if !is_return || left == 0 || !answers.iter().any(|answer| answer.replayed) {
        return Ok(());
    }
    Err(Fault::invalid("operation_key", "operation_key must be given where more was confirmed since the last return")
        .detail(format!("A return without one was answered before, and {left} units can be returned."))
        .hint("Give each return a key of its own, 'parcel 1' say: then a repeat is told from another one like it."))
}

/// Two equal parts of one reservation can only be told from a repeat by keys of their own.
fn check_operation_key(request: &Request, parts: &[Part], open: i64) -> Result<(), Fault> {
    let named: i64 = parts.iter().map(|part| part.quantity).sum();
    if named == open || !request.operation_key.is_empty() {
        return Ok(());
    }
    let word = request.action.operation().word();
    Err(Fault::invalid("operation_key", "operation_key must be given where the lines name less than all that is open")
        .detail(format!("The lines name {named} of the {open} units that can be taken by this {word}."))
        .hint("Give each part a key of its own, 'parcel 1' say: then a repeat is told from another part like it."))
}

/// The answer, where this operation key was used before.
fn earlier(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    open: &dyn Fn(&LineStanding) -> i64,
    outcome: &dyn Fn(&Entry) -> Outcome,
) -> Option<Vec<Answer>> {
    let history = work.history(&request.key);
    let operation = request.action.operation();
    let entries = replay::claimed(history, operation, &request.operation_key);
    let last = entries.last()?;
    let same = match lines {
        Some(lines) => replay::same_lines(&entries, lines),
        None => took_all(history, &entries, last, open),
    };
    if same {
        return Some(replay::answers(work, request, &entries, lines, outcome));
    }
    let standing = work.standing(&request.key);
    Some(match lines {
        Some(lines) => work.refuse_all(request, lines, Outcome::KeyConflict),
        None => refuse_standing(work, request, &standing, |_| Outcome::KeyConflict),
    })
}

/// True where an earlier request, whose entries are given, left nothing that its operation could have taken: then
/// "all that is open" names the lines that it took. What came later is told by the versions of the levels that it
/// changed; on others by the time, and by the place in the history where two requests have the same.
fn took_all(history: &[Entry], entries: &[&Entry], last: &Entry, open: &dyn Fn(&LineStanding) -> i64) -> bool {
    let version = |entry: &Entry| entries.iter().find(|taken| taken.at == entry.at).map(|taken| taken.version);
    let end = history.iter().position(|entry| entry == last);
    let is_earlier = |(place, entry): &(usize, &Entry)| match version(entry) {
        Some(version) if entry.changes_level() => entry.version <= version,
        _ => (entry.recorded_at, Some(*place)) <= (last.recorded_at, end),
    };
    let earlier: Vec<&Entry> = history.iter().enumerate().filter(is_earlier).map(|(_, entry)| entry).collect();
    Standing::at(earlier, last.recorded_at).lines.iter().all(|line| open(line) == 0)
}

fn all_parts(
    work: &Work,
    request: &Request,
    standing: &Standing,
    open: &dyn Fn(&LineStanding) -> i64,
) -> Result<Vec<Part>, Vec<Answer>> {
    let parts: Vec<Part> = (standing.lines.iter())
        .filter(|line| open(line) > 0)
        .zip(1..)
        .map(|(line, claim)| Part { claim, quantity: open(line), standing: line.clone() })
        .collect();
    if parts.is_empty() {
        let outcome = |line: &LineStanding| nothing_left(request, line);
        return Err(refuse_standing(work, request, standing, outcome));
    }
    Ok(parts)
}

fn named_parts(
    work: &Work,
    request: &Request,
    standing: &Standing,
    lines: &[Line],
    open: &dyn Fn(&LineStanding) -> i64,
) -> Result<Vec<Part>, Vec<Answer>> {
    let judged: Vec<Result<Part, Outcome>> = lines
        .iter()
        .map(|line| {
            let found = standing.line(&line.at).ok_or(Outcome::MoreThanHeld)?;
            match open(found) {
                0 => Err(nothing_left(request, found)),
                left if line.quantity > left => Err(too_many(request, found)),
                _ => Ok(Part { claim: line.number, quantity: line.quantity, standing: found.clone() }),
            }
        })
        .collect();
    if judged.iter().any(Result::is_err) {
        let refused: Vec<_> = judged.iter().map(|judged| judged.as_ref().err().copied()).collect();
        return Err(work.refuse(request, lines, &refused));
    }
    Ok(judged.into_iter().flatten().collect())
}

/// Why an operation finds nothing to take of a line.
fn nothing_left(request: &Request, line: &LineStanding) -> Outcome {
    match request.action.operation() {
        Operation::Return if line.live() > 0 || line.confirmed > 0 => Outcome::MoreThanHeld,
        _ => line.ended(),
    }
}

/// Why an operation cannot take so many units of a line. That a reservation has expired is told first.
fn too_many(request: &Request, line: &LineStanding) -> Outcome {
    match request.action.operation() {
        Operation::Confirm if line.live() == 0 => Outcome::ReservationExpired,
        _ => Outcome::MoreThanHeld,
    }
}

fn unknown(work: &Work, request: &Request, lines: Option<&[Line]>, outcome: Outcome) -> Vec<Answer> {
    match lines {
        Some(lines) => work.refuse_all(request, lines, outcome),
        None => vec![work.answer(request, 1, None, 0, outcome)],
    }
}

fn refuse_standing(
    work: &Work,
    request: &Request,
    standing: &Standing,
    outcome: impl Fn(&LineStanding) -> Outcome,
) -> Vec<Answer> {
    (standing.lines.iter())
        .map(|line| work.answer(request, line.line, Some(&line.at), line.quantity, outcome(line)))
        .collect()
}

fn refuse_parts(work: &Work, request: &Request, parts: &[Part], refused: &[Option<Outcome>]) -> Vec<Answer> {
    (parts.iter().zip(refused))
        .map(|(part, outcome)| {
            let outcome = outcome.unwrap_or(Outcome::NotApplied);
            work.answer(request, part.claim, Some(part.at()), part.quantity, outcome)
        })
        .collect()
}

fn accept(work: &Work, request: &Request, parts: &[Part], outcome: impl Fn(&Part) -> Outcome) -> Vec<Answer> {
    (parts.iter()).map(|part| work.answer(request, part.claim, Some(part.at()), part.quantity, outcome(part))).collect()
}

fn shrink(work: &mut Work, request: &Request, part: &Part) {
    let line = &part.standing;
    work.shrink(&request.key, line.line, &line.at, line.held, part.quantity, line.deadline);
}
