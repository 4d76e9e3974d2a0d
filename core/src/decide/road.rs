//! Goods on the road: dispatch, arrive, lose, recall.
//!
//! What a key has on the way follows from its entries (`shipment`). A dispatch and a recall write
//! two entries for each leg: the level that the goods leave, and the one that they go to.

use std::collections::{BTreeMap, HashSet};

use super::LegChange;
use super::choice::goods;
use super::departure::{Departures, departures};
use super::parts::{check_operation_key, unknown};
use super::replay;
use super::work::Work;
use crate::answer::Answer;
use crate::facts::{Entry, Hold, LevelId, Lot, LotMove, Operation, Units};
use crate::fault::Fault;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::request::{Line, Load, Request};
use crate::shipment::{Leg, Shipment, on_the_road};

/// Sends goods on their way.
pub(super) fn dispatch(
    work: &mut Work,
    request: &Request,
    loads: &[Load],
) -> Result<Vec<Answer>, Fault> {
    let lines = ends_of(loads);
    let claimed = claimed(work, request);
    if !claimed.is_empty() {
        return Ok(if same_loads(&claimed, loads) {
            replay::answers(work, request, &claimed, None, |_| Outcome::Dispatched)
        } else {
            work.refuse_all(request, &lines, Outcome::KeyConflict)
        });
    }
    let departures = departures(work, loads);
    let judged: Vec<_> = lines.iter().map(|line| judge_end(work, &departures, line)).collect();
    if judged.iter().any(Result::is_err) {
        let refused: Vec<_> = judged.iter().map(|judged| judged.as_ref().err().copied()).collect();
        return Ok(work.refuse(request, &lines, &refused));
    }
    for covering in judged.into_iter().flatten() {
        work.expire(covering)?;
    }
    for ends in lines.chunks(2) {
        let picks = departures.picks(ends[0].number);
        depart(work, request, &ends[0], &ends[1], picks)?;
    }
    let mut ways: BTreeMap<(&LevelId, &LevelId), i64> = BTreeMap::new();
    for load in loads {
        *ways.entry((&load.from, &load.to)).or_default() += load.quantity;
    }
    for ((from, to), after) in ways {
        work.ship(LegChange {
            key: request.key.clone(),
            from: from.clone(),
            to: to.clone(),
            before: 0,
            after,
            dispatched_at: work.facts.now,
        });
    }
    Ok(accept(work, request, &lines, Outcome::Dispatched))
}

/// One load leaves its level and is on the road to another.
fn depart(
    work: &mut Work,
    request: &Request,
    from: &Line,
    to: &Line,
    picks: &[(Lot, i64)],
) -> Result<(), Fault> {
    let taken: Units = picks.iter().map(|(lot, units)| (lot.name.clone(), *units)).collect();
    let entry = |work: &Work, line: &Line| Entry {
        lot: line.lot.clone(),
        ..work.entry(request, Operation::Dispatch, line.number, &line.at, line.quantity)
    };
    work.post(Entry {
        on_hand_delta: -from.quantity,
        lots: goods(&taken, -1, false),
        ..entry(work, from)
    })?;
    work.post(Entry {
        in_transit_delta: to.quantity,
        lots: on_the_road(&taken, 1),
        ..entry(work, to)
    })
}

/// Each load as two lines: where it leaves, and where it goes.
fn ends_of(loads: &[Load]) -> Vec<Line> {
    let ends = |load: &Load| {
        let line = |number, at: &LevelId| Line {
            lot: load.lot.clone(),
            ..Line::new(number, at.clone(), load.quantity)
        };
        [line(2 * load.number - 1, &load.from), line(2 * load.number, &load.to)]
    };
    loads.iter().flat_map(ends).collect()
}

/// A level must have all that leaves it beside what it has promised; overdue holds give way, once
/// for all loads. Where goods go, they must fit the lots that are there.
fn judge_end(work: &Work, departures: &Departures, line: &Line) -> Result<Vec<Hold>, Outcome> {
    if line.number % 2 == 0 {
        return departures.arrival(&line.at).map(|()| Vec::new());
    }
    if work.level(&line.at).is_some_and(|level| level.frozen) {
        return Err(Outcome::LevelFrozen);
    }
    departures.covering(line)
}

/// Whether entries of a dispatch tell of exactly these loads, in any order.
fn same_loads(claimed: &[&Entry], loads: &[Load]) -> bool {
    let mut recorded: Vec<_> = claimed
        .chunks(2)
        .map(|pair| {
            let to = pair.last().and_then(|to| to.at.as_ref());
            (pair[0].at.as_ref(), to, pair[0].quantity, pair[0].lot.as_ref())
        })
        .collect();
    let mut asked: Vec<_> = loads
        .iter()
        .map(|load| (Some(&load.from), Some(&load.to), load.quantity, load.lot.as_ref()))
        .collect();
    recorded.sort_unstable();
    asked.sort_unstable();
    recorded == asked
}

/// Takes goods off the road: into the stock where they have arrived, out of the books where they
/// are lost.
pub(super) fn unload(
    work: &mut Work,
    request: &Request,
    lines: Option<&[Line]>,
) -> Result<Vec<Answer>, Fault> {
    let is_arrival = request.action.operation() == Operation::Arrive;
    let outcome = if is_arrival { Outcome::Arrived } else { Outcome::Lost };
    let history = work.history(&request.key);
    let Some(shipment) = Shipment::of(history) else {
        return Ok(unknown(work, request, lines, Outcome::UnknownShipment));
    };
    let claimed = claimed(work, request);
    if let Some(last) = claimed.last() {
        let same = match lines {
            Some(lines) => replay::same_lines(&claimed, lines),
            None => took_all(history, last),
        };
        return Ok(match same {
            true => replay::answers(work, request, &claimed, lines, |_| outcome),
            false => refuse(work, request, lines, &shipment, Outcome::KeyConflict),
        });
    }
    let all = all_on_the_way(&shipment);
    let asked = lines.map_or_else(|| all.clone(), <[Line]>::to_vec);
    let is_too_much = |line: &Line| shipment.bound_for(&line.at, line.lot.as_ref()) < line.quantity;
    if asked.is_empty() || asked.iter().any(is_too_much) {
        let refused: Vec<_> =
            asked.iter().map(|line| is_too_much(line).then_some(Outcome::NotOnTheWay)).collect();
        let answers = match lines {
            Some(lines) => work.refuse(request, lines, &refused),
            None => refuse(work, request, None, &shipment, Outcome::NotOnTheWay),
        };
        return Ok(on_the_way(answers, &shipment));
    }
    let units = |lines: &[Line]| lines.iter().map(|line| line.quantity).collect::<Vec<_>>();
    check_operation_key(request, units(&asked).into_iter(), units(&all).into_iter())?;
    if is_arrival {
        let judged = asked.iter().map(|line| {
            let coming = coming(work, &shipment, line);
            work.check_dates(&line.at, &coming).err()
        });
        let refused: Vec<_> = judged.collect();
        if refused.iter().any(Option::is_some) {
            return Ok(work.refuse(request, &asked, &refused));
        }
    }
    unload_lines(work, request, shipment, &asked)?;
    Ok(accept(work, request, &asked, outcome))
}

fn unload_lines(
    work: &mut Work,
    request: &Request,
    mut shipment: Shipment,
    lines: &[Line],
) -> Result<(), Fault> {
    let operation = request.action.operation();
    for line in lines {
        let coming = coming(work, &shipment, line);
        let lots: Units = coming.iter().map(|(lot, units)| (lot.name.clone(), *units)).collect();
        let mut moves = on_the_road(&lots, -1);
        if operation == Operation::Arrive {
            join(&mut moves, work.land(request, line, &coming)?);
        }
        work.post(Entry {
            lots: moves,
            lot: line.lot.clone(),
            on_hand_delta: if operation == Operation::Arrive { line.quantity } else { 0 },
            in_transit_delta: -line.quantity,
            ..work.entry(request, operation, line.number, &line.at, line.quantity)
        })?;
        for (place, before) in shipment.unload(&line.at, line.quantity, &lots) {
            let leg = &shipment.legs[place];
            work.ship(change_of(request, leg, before, leg.quantity));
        }
    }
    Ok(())
}

/// The lots of what a line takes off the road, earliest date first on each leg, as they are where
/// they came from. What comes from levels without lots is in none.
fn coming(work: &Work, shipment: &Shipment, line: &Line) -> Vec<(Lot, i64)> {
    let (mut coming, mut left): (Vec<(Lot, i64)>, i64) = (Vec::new(), line.quantity);
    for leg in shipment.legs_to(&line.at) {
        let lot =
            |(name, units): &(Name, i64)| Some((work.lot(&leg.origin, name)?.clone(), *units));
        let mut lots: Vec<(Lot, i64)> = leg.lots.iter().filter_map(lot).collect();
        lots.retain(|(lot, _)| line.lot.as_ref().is_none_or(|name| *name == lot.name));
        lots.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        if leg.lots.is_empty() && line.lot.is_none() {
            left -= leg.quantity.min(left);
        }
        for (lot, units) in lots {
            let taken = units.min(left);
            left -= taken;
            let is_same = |other: &Lot| other.rank() == lot.rank();
            match coming.iter_mut().find(|(other, _)| is_same(other)) {
                Some((known, sum)) => {
                    *sum += taken;
                    known.frozen |= lot.frozen && taken > 0;
                }
                None if taken > 0 => coming.push((lot, taken)),
                None => {}
            }
        }
    }
    coming
}

/// What arrives leaves the road.
fn join(moves: &mut Vec<LotMove>, landed: Vec<LotMove>) {
    for moved in landed {
        match moves.iter_mut().find(|known| known.lot == moved.lot) {
            Some(known) => known.on_hand += moved.on_hand,
            None => moves.push(moved),
        }
    }
}

/// What is still on the way, level by level, as lines.
fn all_on_the_way(shipment: &Shipment) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut seen = HashSet::new();
    for leg in shipment.legs.iter().filter(|leg| leg.quantity > 0) {
        if seen.insert(&leg.to) {
            let (number, quantity) = (lines.len() as i32 + 1, shipment.bound_for(&leg.to, None));
            lines.push(Line::new(number, leg.to.clone(), quantity));
        }
    }
    lines
}

/// True where an earlier request without lines, whose last entry is given, left nothing on the way.
fn took_all(history: &[Entry], last: &Entry) -> bool {
    let end = history.iter().position(|entry| entry == last).map_or(0, |place| place + 1);
    Shipment::of(&history[..end])
        .is_some_and(|shipment| shipment.legs.iter().all(|leg| leg.quantity == 0))
}

/// Turns round what is still on the way: it goes back to where it came from.
pub(super) fn recall(work: &mut Work, request: &Request) -> Result<Vec<Answer>, Fault> {
    let Some(shipment) = Shipment::of(work.history(&request.key)) else {
        return Ok(unknown(work, request, None, Outcome::UnknownShipment));
    };
    let claimed = claimed(work, request);
    if !claimed.is_empty() {
        return Ok(replay::answers(work, request, &claimed, None, |_| Outcome::Recalled));
    }
    let legs: Vec<&Leg> = shipment.legs.iter().filter(|leg| leg.quantity > 0).collect();
    if legs.is_empty() {
        let answers = refuse(work, request, None, &shipment, Outcome::NotOnTheWay);
        return Ok(on_the_way(answers, &shipment));
    }
    let back: Vec<Load> = (1..)
        .zip(&legs)
        .map(|(number, leg)| Load {
            number,
            from: leg.to.clone(),
            to: leg.from.clone(),
            quantity: leg.quantity,
            lot: None,
        })
        .collect();
    let lines = ends_of(&back);
    let turning = legs.iter().flat_map(|leg| [(leg, -1), (leg, 1)]);
    for (line, (leg, sign)) in lines.iter().zip(turning) {
        work.post(Entry {
            lots: on_the_road(&leg.lots, sign),
            in_transit_delta: sign * line.quantity,
            ..work.entry(request, Operation::Recall, line.number, &line.at, line.quantity)
        })?;
    }
    for leg in &legs {
        work.ship(change_of(request, leg, leg.quantity, 0));
    }
    for (leg, load) in legs.iter().zip(&back) {
        let turned = Leg { from: load.from.clone(), to: load.to.clone(), ..(*leg).clone() };
        work.ship(change_of(request, &turned, 0, turned.quantity));
    }
    Ok(accept(work, request, &lines, Outcome::Recalled))
}

/// Tells what is on the way, where that is too little.
fn on_the_way(answers: Vec<Answer>, shipment: &Shipment) -> Vec<Answer> {
    let there = |answer: &Answer| answer.at.as_ref().map(|at| shipment.bound_for(at, None));
    let is_refused = |answer: &Answer| answer.outcome == Outcome::NotOnTheWay;
    let told =
        |answer: Answer| Answer { there: there(&answer).filter(|_| is_refused(&answer)), ..answer };
    answers.into_iter().map(told).collect()
}

fn change_of(request: &Request, leg: &Leg, before: i64, after: i64) -> LegChange {
    LegChange {
        key: request.key.clone(),
        from: leg.from.clone(),
        to: leg.to.clone(),
        before,
        after,
        dispatched_at: leg.dispatched_at,
    }
}

/// The entries under which this request was answered before; empty: it is new.
fn claimed<'a>(work: &'a Work, request: &Request) -> Vec<&'a Entry> {
    let history = work.history(&request.key);
    replay::claimed(history, request.action.operation(), &request.operation_key)
}

fn accept(work: &Work, request: &Request, lines: &[Line], outcome: Outcome) -> Vec<Answer> {
    lines
        .iter()
        .map(|line| work.answer(request, line.number, Some(&line.at), line.quantity, outcome))
        .collect()
}

/// Refuses the lines that are named, or else each leg.
fn refuse(
    work: &Work,
    request: &Request,
    lines: Option<&[Line]>,
    shipment: &Shipment,
    outcome: Outcome,
) -> Vec<Answer> {
    match lines {
        Some(lines) => work.refuse_all(request, lines, outcome),
        None => (1..)
            .zip(&shipment.legs)
            .map(|(number, leg)| work.answer(request, number, Some(&leg.to), leg.quantity, outcome))
            .collect(),
    }
}
