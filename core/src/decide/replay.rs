//! Identity: is this the request that the key was used for before?
//!
//! A request is its operation and its set of (SKU, location, quantity, lot, buyer). Time to
//! live, life, expected version, reason and the order of the lines do not count.

use super::work::Work;
use crate::answer::Answer;
use crate::facts::{Entry, LevelId, Operation};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, Request};

/// The entries that hold the claim (key, operation, operation key), line by line.
pub(super) fn claimed<'a>(
    history: &'a [Entry],
    operation: Operation,
    operation_key: &Name,
) -> Vec<&'a Entry> {
    let is_of_it =
        |entry: &&Entry| entry.operation == operation && entry.operation_key == *operation_key;
    let mut entries: Vec<&Entry> = history.iter().filter(is_of_it).collect();
    entries.sort_by_key(|entry| entry.line);
    entries
}

/// True where the entries record exactly these lines for this buyer.
pub(super) fn same_lines(entries: &[&Entry], lines: &[Line]) -> bool {
    let mut recorded: Vec<(Option<&LevelId>, i64, Option<&Name>)> = entries
        .iter()
        .map(|entry| (entry.at.as_ref(), entry.quantity, entry.lot.as_ref()))
        .collect();
    let mut asked: Vec<(Option<&LevelId>, i64, Option<&Name>)> =
        lines.iter().map(|line| (Some(&line.at), line.quantity, line.lot.as_ref())).collect();
    recorded.sort_unstable();
    asked.sort_unstable();
    recorded == asked
}

/// The first outcome again: quantity, availability and version as they were then; the lines
/// numbered as now.
pub(super) fn answers(
    work: &Work,
    request: &Request,
    entries: &[&Entry],
    lines: Option<&[Line]>,
    outcome: impl Fn(&Entry) -> Outcome,
) -> Vec<Answer> {
    let number = |entry: &Entry| {
        let same = |line: &&Line| Some(&line.at) == entry.at.as_ref();
        lines.and_then(|lines| lines.iter().find(same)).map_or(entry.line, |line| line.number)
    };
    let mut answers: Vec<Answer> = entries
        .iter()
        .map(|entry| Answer {
            available: entry.available,
            version: entry.at.as_ref().map(|_| entry.answered_version.unwrap_or(entry.version)),
            replayed: true,
            ..work.answer(request, number(entry), entry.at.as_ref(), entry.quantity, outcome(entry))
        })
        .collect();
    answers.sort_by_key(|answer| answer.line);
    answers
}
