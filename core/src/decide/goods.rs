//! Goods movements and settings: receive, adjust, set, transfer, limits, freeze, lots.

use super::choice::{Choice, goods};
use super::replay;
use super::work::Work;
use crate::answer::Answer;
use crate::facts::{Entry, Hold, Level, LevelId, Lot, LotMove};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Action, Limits, Line, NamedLot, Request};

/// Decides an operation on one level, or on two for a transfer.
pub(super) fn decide(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let lines = asked(&request.action);
    if let Some(answers) = earlier(work, request, &lines) {
        return Ok(answers);
    }
    check_window(work, &request.action)?;
    check_date(work, &request.action)?;
    let covering = match judge(work, request) {
        Ok(covering) => covering,
        Err((refused, outcome)) => {
            let refused: Vec<_> =
                lines.iter().map(|line| (line.at == refused).then_some(outcome)).collect();
            return Ok(work.refuse(request, &lines, &refused));
        }
    };
    work.expire(covering)?;
    post(work, request, &lines)?;
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

/// Goods that come are good for a while.
fn check_date(work: &Work, action: &Action) -> Result<(), Fault> {
    let Action::Receive { lot: Some(NamedLot { best_before: Some(date), .. }), .. } = action else {
        return Ok(());
    };
    limits::date_to_come(*date, work.facts.now)
}

/// What an entry set of its level.
fn limits_of(entry: &Entry) -> Limits {
    Limits {
        safety_stock: entry.safety_stock,
        buyer_limit: entry.buyer_limit,
        backorder_limit: entry.backorder_limit,
        on_sale_from: entry.on_sale_from,
        on_sale_until: entry.on_sale_until,
        min_life: entry.min_life,
        near_expiry: entry.near_expiry,
    }
}

/// The levels a request concerns, as lines to answer; the quantity is what makes one request differ
/// from another.
fn asked(action: &Action) -> Vec<Line> {
    let line = |number, at: &LevelId, quantity, lot: Option<&Name>| Line {
        lot: lot.cloned(),
        ..Line::new(number, at.clone(), quantity)
    };
    match action {
        Action::Receive { at, quantity, lot } => {
            vec![line(1, at, *quantity, lot.as_ref().map(|lot| &lot.name))]
        }
        Action::Adjust { at, delta, lot, .. } => vec![line(1, at, *delta, lot.as_ref())],
        Action::Set { at, on_hand, lot, .. } => vec![line(1, at, *on_hand, lot.as_ref())],
        Action::Transfer { from, to, quantity, lot } => {
            let lot = lot.as_ref();
            vec![line(1, from, *quantity, lot), line(2, to, *quantity, lot)]
        }
        Action::SetLimits { at, .. }
        | Action::Freeze { at }
        | Action::Unfreeze { at }
        | Action::TrackLots { at } => vec![line(1, at, 0, None)],
        Action::FreezeLot { at, lot } | Action::UnfreezeLot { at, lot } => {
            vec![line(1, at, 0, Some(lot))]
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
        Action::Unfreeze { .. } => Outcome::Unfrozen,
        Action::TrackLots { .. } => Outcome::LotsTracked,
        Action::FreezeLot { .. } => Outcome::LotFrozen,
        _ => Outcome::LotUnfrozen,
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
            Action::Receive { lot, .. } => {
                first.best_before == lot.as_ref().and_then(|lot| lot.best_before)
            }
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
        Action::Receive { at, lot: Some(named), .. } => match work.lot(at, &named.name) {
            Some(lot) if lot.best_before != named.best_before => {
                Err((at.clone(), Outcome::LotConflict))
            }
            _ => Ok(Vec::new()),
        },
        Action::Adjust { at, delta, expected_version, lot } => {
            let change = Change { at, expected_version: *expected_version, lot: lot.as_ref() };
            judge_change(work, &change, |on_hand| on_hand + delta).map_err(refused_at(at))
        }
        // Who has counted an article that is new here makes its level, with nothing in it, too.
        Action::Set { at, expected_version: None, lot: None, .. } if work.level(at).is_none() => {
            Ok(Vec::new())
        }
        Action::Set { at, on_hand, expected_version, lot } => {
            let change = Change { at, expected_version: *expected_version, lot: lot.as_ref() };
            judge_change(work, &change, |_| *on_hand).map_err(refused_at(at))
        }
        Action::Transfer { from, to, quantity, lot } => {
            if work.level(from).is_some_and(|level| level.frozen) {
                return Err(refused_at(from)(Outcome::LevelFrozen));
            }
            let covering =
                judge_leaving(work, from, *quantity, lot.as_ref()).map_err(refused_at(from))?;
            let picks = leaving(work, from, *quantity, lot.as_ref(), &covering);
            work.check_dates(to, &picks).map_err(refused_at(to))?;
            Ok(covering)
        }
        Action::SetLimits { at, .. }
        | Action::Freeze { at }
        | Action::Unfreeze { at }
        | Action::TrackLots { at } => known(work, at).map(|_| Vec::new()),
        Action::FreezeLot { at, lot } | Action::UnfreezeLot { at, lot } => {
            known(work, at)?;
            work.check_lot(at, Some(lot)).map_err(refused_at(at))?;
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

fn known<'w>(work: &'w Work, at: &LevelId) -> Result<&'w Level, (LevelId, Outcome)> {
    work.level(at).ok_or_else(|| refused_at(at)(Outcome::UnknownLevel))
}

fn refused_at(at: &LevelId) -> impl Fn(Outcome) -> (LevelId, Outcome) {
    |outcome| (at.clone(), outcome)
}

/// A correction of the stock of a level, or of one of its lots.
struct Change<'a> {
    at: &'a LevelId,
    expected_version: Option<i64>,
    lot: Option<&'a Name>,
}

fn judge_change(
    work: &Work,
    Change { at, expected_version, lot }: &Change,
    becomes: impl Fn(i64) -> i64,
) -> Result<Vec<Hold>, Outcome> {
    if !work.has_lots(at) && lot.is_none() {
        return judge_stock(work, at, *expected_version, becomes);
    }
    let level = work.level(at).ok_or(Outcome::UnknownLevel)?;
    if expected_version.is_some_and(|expected| expected != level.version) {
        return Err(Outcome::VersionConflict);
    }
    let name = lot.ok_or(Outcome::LotRequired)?;
    let lot = work.lot(at, name).ok_or(Outcome::UnknownLot)?;
    let on_hand = becomes(lot.on_hand);
    let gone = if on_hand < 0 { limits::QUANTITY_MAX + 1 } else { lot.on_hand - on_hand };
    work.cover_goods(at, gone, &Choice::to_move(Some(name))).ok_or(Outcome::BelowReserved)
}

/// The overdue holds that give way to goods which leave a level, of a lot or of those that may be
/// sold.
fn judge_leaving(
    work: &Work,
    at: &LevelId,
    quantity: i64,
    lot: Option<&Name>,
) -> Result<Vec<Hold>, Outcome> {
    if work.level(at).is_some() {
        work.check_lot(at, lot)?;
    }
    let covering = judge_stock(work, at, None, |on_hand| on_hand - quantity)?;
    if !work.has_lots(at) {
        return Ok(covering);
    }
    // What is there and may not be sold leaves by its name alone.
    let otherwise = if lot.is_some() { Outcome::BelowReserved } else { Outcome::LotRequired };
    work.cover_goods(at, quantity, &Choice::to_move(lot)).ok_or(otherwise)
}

/// The lots that goods will leave once these holds have given way.
fn leaving(
    work: &Work,
    at: &LevelId,
    quantity: i64,
    lot: Option<&Name>,
    covering: &[Hold],
) -> Vec<(Lot, i64)> {
    let taken = work.pick_after(at, quantity, &Choice::to_move(lot), covering);
    work.as_lots(at, &taken)
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

/// Writes the entries of a request that is granted.
fn post(work: &mut Work, request: &Request, lines: &[Line]) -> Result<(), Fault> {
    let mut leaving = Vec::new();
    for line in lines {
        let lots = match &request.action {
            Action::Receive { lot, .. } => arriving(work, request, line, lot.as_ref())?,
            Action::Adjust { lot: Some(lot), delta, .. } => {
                goods(&vec![(lot.clone(), *delta)], 1, false)
            }
            Action::Set { lot: Some(lot), on_hand, .. } => {
                let there = work.lot(&line.at, lot).map_or(0, |lot| lot.on_hand);
                goods(&vec![(lot.clone(), on_hand - there)], 1, false)
            }
            Action::Transfer { lot, .. } if line.number == 1 => {
                let choice = Choice::to_move(lot.as_ref());
                let taken = work.pick(&line.at, line.quantity, &choice);
                leaving = work.as_lots(&line.at, &taken);
                goods(&taken, -1, false)
            }
            Action::Transfer { .. } => work.land(request, line, &leaving)?,
            _ => Vec::new(),
        };
        let operation = request.action.operation();
        let entry = work.entry(request, operation, line.number, &line.at, line.quantity);
        let there = match &line.lot {
            Some(lot) => work.lot(&line.at, lot).map_or(0, |lot| lot.on_hand),
            None => work.level(&line.at).map_or(0, |level| level.on_hand),
        };
        let entry = fill(entry, &request.action, line, there);
        work.post(Entry { lots, lot: line.lot.clone(), ..entry })?;
    }
    Ok(())
}

/// The lot that goods come into, which is made where it is new.
fn arriving(
    work: &mut Work,
    request: &Request,
    line: &Line,
    named: Option<&NamedLot>,
) -> Result<Vec<LotMove>, Fault> {
    match named {
        Some(named) => {
            work.track(request, line.number, &line.at)?;
            work.make_lot(&line.at, named);
            Ok(goods(&vec![(named.name.clone(), line.quantity)], 1, false))
        }
        None if work.has_lots(&line.at) => Ok(work.unnamed_goods(&line.at, line.quantity)),
        None => Ok(Vec::new()),
    }
}

fn fill(entry: Entry, action: &Action, line: &Line, on_hand: i64) -> Entry {
    match action {
        Action::Receive { quantity, lot, .. } => Entry {
            on_hand_delta: *quantity,
            best_before: lot.as_ref().and_then(|lot| lot.best_before),
            ..entry
        },
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
            min_life: limits.min_life,
            near_expiry: limits.near_expiry,
            ..entry
        },
        Action::Freeze { .. } => Entry { frozen: Some(true), ..entry },
        Action::Unfreeze { .. } => Entry { frozen: Some(false), ..entry },
        _ => entry,
    }
}
