//! Which units of which lines of a reservation a request concerns; or why it cannot have them.

use super::replay;
use super::work::Work;
use crate::answer::Answer;
use crate::facts::{Entry, LevelId, Operation};
use crate::fault::Fault;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding, Standing};

/// The units of one line of a reservation that a request concerns.
pub(super) struct Part {
    /// The line of the claim: from 1 on, so that two requests under one key collide.
    pub claim: i32,
    pub quantity: i64,
    /// The lot that the request names.
    pub lot: Option<Name>,
    pub standing: LineStanding,
}

impl Part {
    pub fn at(&self) -> &LevelId {
        &self.standing.at
    }

    /// The line by its key, number and level.
    pub fn line<'a>(&'a self, request: &'a Request) -> (&'a Name, i32, &'a LevelId) {
        (&request.key, self.standing.line, &self.standing.at)
    }

    /// How many of its units are there, of so many, and how many are not.
    pub fn split(&self, there: i64) -> (i64, i64) {
        let there = there.clamp(0, self.quantity);
        (there, self.quantity - there)
    }
}

/// What the request takes of which line; or the answers, where the key was used before or the
/// request must be refused. `open` counts what the operation may still take of a line.
pub(super) fn parts(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    standing: &Standing,
    open: &dyn Fn(&LineStanding) -> i64,
    outcome: &dyn Fn(&Entry) -> Outcome,
) -> Result<Result<Vec<Part>, Vec<Answer>>, Fault> {
    if let Some(answers) = earlier(work, request, lines, standing, open, outcome) {
        check_repeat(request, standing, &answers)?;
        return Ok(Err(answers));
    }
    let parts = match (standing.claim, lines) {
        (Claim::Free, _) => Err(unknown(work, request, lines, Outcome::UnknownReservation)),
        (Claim::Cancelled, _) => Err(unknown(work, request, lines, Outcome::AlreadyReleased)),
        (Claim::Reserved | Claim::Sold, None) => all_parts(work, request, standing, open),
        (Claim::Reserved | Claim::Sold, Some(lines)) => {
            named_parts(work, request, standing, lines, open)
        }
    };
    if let Ok(parts) = &parts {
        let named = parts.iter().map(|part| part.quantity);
        check_operation_key(request, named, standing.lines.iter().map(open))?;
    }
    Ok(parts)
}

/// What can be returned grows again with a further confirm. From then on a return without a key may
/// be a repeat of the first one or the next.
fn check_repeat(request: &Request, standing: &Standing, answers: &[Answer]) -> Result<(), Fault> {
    let left: i64 = standing.lines.iter().map(LineStanding::returnable).sum();
    let is_return =
        request.action.operation() == Operation::Return && request.operation_key.is_empty();
    if !is_return || left == 0 || !answers.iter().any(|answer| answer.replayed) {
        return Ok(());
    }
    Err(Fault::invalid(
        "operation_key",
        "operation_key must be given where more was confirmed since the last return",
    )
    .detail(format!("A return without one was answered before, and {left} units can be returned."))
    .hint(
        "Give each return a key of its own, 'parcel 1' say: then a repeat is told from another one \
         like it.",
    ))
}

/// Two equal parts of one reservation, or of one shipment, can only be told from a repeat by keys
/// of their own. `named` and `open` are the units of each line.
pub(super) fn check_operation_key(
    request: &Request,
    named: impl Iterator<Item = i64>,
    open: impl Iterator<Item = i64>,
) -> Result<(), Fault> {
    // Of ten thousand lines the sum may exceed 64 bits.
    let (named, open): (i128, i128) = (named.map(i128::from).sum(), open.map(i128::from).sum());
    if named == open || !request.operation_key.is_empty() {
        return Ok(());
    }
    let word = request.action.operation().word();
    Err(Fault::invalid(
        "operation_key",
        "operation_key must be given where the lines name less than all that is open",
    )
    .detail(format!("The lines name {named} of the {open} units that can be taken by this {word}."))
    .hint(
        "Give each part a key of its own, 'parcel 1' say: then a repeat is told from another part \
         like it.",
    ))
}

/// The answer, where this operation key was used before.
fn earlier(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    standing: &Standing,
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
    Some(match lines {
        Some(lines) => work.refuse_all(request, lines, Outcome::KeyConflict),
        None => refuse_standing(work, request, standing, |_| Outcome::KeyConflict),
    })
}

/// True where an earlier request, whose entries are given, left nothing that its operation could
/// have taken: then "all that is open" names the lines that it took. What came later is told by the
/// versions of the levels that it changed; on others by the time, and by the place in the history
/// where two requests have the same.
fn took_all(
    history: &[Entry],
    entries: &[&Entry],
    last: &Entry,
    open: &dyn Fn(&LineStanding) -> i64,
) -> bool {
    let version = |entry: &Entry| {
        entries.iter().find(|taken| taken.at == entry.at).map(|taken| taken.version)
    };
    let end = history.iter().position(|entry| entry == last);
    let is_earlier = |(place, entry): &(usize, &Entry)| match version(entry) {
        Some(version) if entry.changes_level() => entry.version <= version,
        _ => (entry.recorded_at, Some(*place)) <= (last.recorded_at, end),
    };
    let earlier: Vec<&Entry> =
        history.iter().enumerate().filter(is_earlier).map(|(_, entry)| entry).collect();
    Standing::at(earlier, last.recorded_at).lines.iter().all(|line| open(line) == 0)
}

pub(super) fn all_parts(
    work: &Work,
    request: &Request,
    standing: &Standing,
    open: &dyn Fn(&LineStanding) -> i64,
) -> Result<Vec<Part>, Vec<Answer>> {
    let parts: Vec<Part> = (standing.lines.iter())
        .filter(|line| open(line) > 0)
        .zip(1..)
        .map(|(line, claim)| Part {
            claim,
            quantity: open(line),
            lot: None,
            standing: line.clone(),
        })
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
                _ => Ok(Part {
                    claim: line.number,
                    quantity: line.quantity,
                    lot: line.lot.clone(),
                    standing: found.clone(),
                }),
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

/// Why an operation cannot take so many units of a line. That a reservation has expired is told
/// first.
fn too_many(request: &Request, line: &LineStanding) -> Outcome {
    match request.action.operation() {
        Operation::Confirm if line.live() == 0 => Outcome::ReservationExpired,
        _ => Outcome::MoreThanHeld,
    }
}

pub(super) fn unknown(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    outcome: Outcome,
) -> Vec<Answer> {
    match lines {
        Some(lines) => work.refuse_all(request, lines, outcome),
        None => vec![work.answer(request, 1, None, 0, outcome)],
    }
}

pub(super) fn refuse_standing(
    work: &Work,
    request: &Request,
    standing: &Standing,
    outcome: impl Fn(&LineStanding) -> Outcome,
) -> Vec<Answer> {
    (standing.lines.iter())
        .map(|line| work.answer(request, line.line, Some(&line.at), line.quantity, outcome(line)))
        .collect()
}

pub(super) fn refuse_parts(
    work: &Work,
    request: &Request,
    parts: &[Part],
    refused: &[Option<Outcome>],
) -> Vec<Answer> {
    (parts.iter().zip(refused))
        .map(|(part, outcome)| {
            let outcome = outcome.unwrap_or(Outcome::NotApplied);
            work.answer(request, part.claim, Some(part.at()), part.quantity, outcome)
        })
        .collect()
}

pub(super) fn accept(
    work: &Work,
    request: &Request,
    parts: &[Part],
    outcome: impl Fn(&Part) -> Outcome,
) -> Vec<Answer> {
    (parts.iter())
        .map(|part| work.answer(request, part.claim, Some(part.at()), part.quantity, outcome(part)))
        .collect()
}
