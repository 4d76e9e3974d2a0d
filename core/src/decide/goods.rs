//! Goods movements and settings: receive, adjust, set, transfer, limits, freeze.

use super::replay;
use super::work::Work;
use crate::answer::Answer;
use crate::facts::{Entry, Hold, LevelId};
use crate::fault::Fault;
use crate::limits;
use crate::outcome::Outcome;
use crate::request::{Action, Limits, Line, Request};

/// Decides an operation on one level, or on two for a transfer.
pub(super) fn decide(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let lines = asked(&request.action);
    if let Some(answers) = earlier(work, request, &lines) {
        return Ok(answers);
    }
    check_window(work, &request.action)?;
    let covering = match judge(work, request) {
        Ok(covering) => covering,
        Err((refused, outcome)) => {
            let refused: Vec<_> =
                lines.iter().map(|line| (line.at == refused).then_some(outcome)).collect();
            return Ok(work.refuse(request, &lines, &refused));
        }
    };
    work.expire(covering)?;
    for entry in entries(work, request, &lines) {
        work.post(entry)?;
    }
    let outcome = success(&request.action);
    Ok(lines
        .iter()
        .map(|line| work.answer(request, line.number, Some(&line.at), line.quantity, outcome))
        .collect())
}

/// A sale must end after it opens, with the bound that stays, too.
fn check_window(work: &Work, action: &Action) -> Result<(), Fault> {
    let Action::SetLimits { at, limits: set } = action else { return Ok(()) };
    let Some(level) = work.level(at) else { return Ok(()) };
    limits::sound_window(level.sale.with(set.on_sale_from, set.on_sale_until)).map(drop)
}

/// What an entry set of its level.
fn limits_of(entry: &Entry) -> Limits {
    Limits {
        safety_stock: entry.safety_stock,
        buyer_limit: entry.buyer_limit,
        backorder_limit: entry.backorder_limit,
        on_sale_from: entry.on_sale_from,
        on_sale_until: entry.on_sale_until,
    }
}

/// The levels a request concerns, as lines to answer; the quantity is what makes one request differ
/// from another.
fn asked(action: &Action) -> Vec<Line> {
    let line = |number, at: &LevelId, quantity| Line {
        number,
        at: at.clone(),
        quantity,
        expected_version: None,
    };
    match action {
        Action::Receive { at, quantity } => vec![line(1, at, *quantity)],
        Action::Adjust { at, delta, .. } => vec![line(1, at, *delta)],
        Action::Set { at, on_hand, .. } => vec![line(1, at, *on_hand)],
        Action::Transfer { from, to, quantity } => {
            vec![line(1, from, *quantity), line(2, to, *quantity)]
        }
        Action::SetLimits { at, .. } | Action::Freeze { at } | Action::Unfreeze { at } => {
            vec![line(1, at, 0)]
        }
        _ => Vec::new(),
    }
}

fn success(action: &Action) -> Outcome {
    match action {
        Action::Receive { .. } => Outcome::Received,
        Action::Adjust { .. } => Outcome::Adjusted,
        Action::Set { .. } => Outcome::Set,
        Action::Transfer { .. } => Outcome::Transferred,
        Action::SetLimits { .. } => Outcome::LimitsSet,
        Action::Freeze { .. } => Outcome::Frozen,
        _ => Outcome::Unfrozen,
    }
}

/// The answer, where the key was used before.
fn earlier(work: &Work, request: &Request, lines: &[Line]) -> Option<Vec<Answer>> {
    let entries = replay::claimed(
        work.history(&request.key),
        request.action.operation(),
        &request.operation_key,
    );
    let first = entries.first()?;
    let same = replay::same_lines(&entries, lines)
        && match &request.action {
            Action::SetLimits { limits, .. } => limits_of(first) == *limits,
            Action::Transfer { from, .. } => entries
                .iter()
                .all(|entry| (entry.on_hand_delta < 0) == (entry.at.as_ref() == Some(from))),
            _ => true,
        };
    Some(if same {
        replay::answers(work, request, &entries, Some(lines), |_| success(&request.action))
    } else {
        work.refuse_all(request, lines, Outcome::KeyConflict)
    })
}

/// The overdue holds to close first, or the level and the reason why not.
fn judge(work: &Work, request: &Request) -> Result<Vec<Hold>, (LevelId, Outcome)> {
    match &request.action {
        Action::Receive { .. } => Ok(Vec::new()),
        Action::Adjust { at, delta, expected_version } => {
            judge_stock(work, at, *expected_version, |on_hand| on_hand + delta)
                .map_err(refused_at(at))
        }
        // Who has counted an article that is new here makes its level, with nothing in it, too.
        Action::Set { at, expected_version: None, .. } if work.level(at).is_none() => {
            Ok(Vec::new())
        }
        Action::Set { at, on_hand, expected_version } => {
            judge_stock(work, at, *expected_version, |_| *on_hand).map_err(refused_at(at))
        }
        Action::Transfer { from, quantity, .. } => {
            if work.level(from).is_some_and(|level| level.frozen) {
                return Err(refused_at(from)(Outcome::LevelFrozen));
            }
            judge_stock(work, from, None, |on_hand| on_hand - quantity).map_err(refused_at(from))
        }
        Action::SetLimits { at, .. } | Action::Freeze { at } | Action::Unfreeze { at } => {
            match work.level(at) {
                None => Err(refused_at(at)(Outcome::UnknownLevel)),
                Some(_) => Ok(Vec::new()),
            }
        }
        _ => Ok(Vec::new()),
    }
}

fn refused_at(at: &LevelId) -> impl Fn(Outcome) -> (LevelId, Outcome) {
    |outcome| (at.clone(), outcome)
}

/// A stock may be corrected down to what is reserved; overdue holds give way.
pub(super) fn judge_stock(
    work: &Work,
    at: &LevelId,
    expected_version: Option<i64>,
    becomes: impl Fn(i64) -> i64,
) -> Result<Vec<Hold>, Outcome> {
    let level = work.level(at).ok_or(Outcome::UnknownLevel)?;
    if expected_version.is_some_and(|expected| expected != level.version) {
        return Err(Outcome::VersionConflict);
    }
    let on_hand = becomes(level.on_hand);
    if on_hand < 0 {
        return Err(Outcome::BelowReserved);
    }
    work.cover_there(at, level.reserved - on_hand).ok_or(Outcome::BelowReserved)
}

/// The ledger entries of a request that is granted.
fn entries(work: &Work, request: &Request, lines: &[Line]) -> Vec<Entry> {
    lines
        .iter()
        .map(|line| {
            let entry = work.entry(
                request,
                request.action.operation(),
                line.number,
                &line.at,
                line.quantity,
            );
            let on_hand = work.level(&line.at).map_or(0, |level| level.on_hand);
            fill(entry, &request.action, line, on_hand)
        })
        .collect()
}

fn fill(entry: Entry, action: &Action, line: &Line, on_hand: i64) -> Entry {
    match action {
        Action::Receive { quantity, .. } => Entry { on_hand_delta: *quantity, ..entry },
        Action::Adjust { delta, .. } => Entry { on_hand_delta: *delta, ..entry },
        Action::Set { on_hand: counted, .. } => Entry { on_hand_delta: counted - on_hand, ..entry },
        Action::Transfer { quantity, .. } => {
            Entry { on_hand_delta: if line.number == 1 { -quantity } else { *quantity }, ..entry }
        }
        Action::SetLimits { limits, .. } => Entry {
            safety_stock: limits.safety_stock,
            buyer_limit: limits.buyer_limit,
            backorder_limit: limits.backorder_limit,
            on_sale_from: limits.on_sale_from,
            on_sale_until: limits.on_sale_until,
            ..entry
        },
        Action::Freeze { .. } => Entry { frozen: Some(true), ..entry },
        Action::Unfreeze { .. } => Entry { frozen: Some(false), ..entry },
        _ => entry,
    }
}
