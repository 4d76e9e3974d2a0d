//! The desk on which requests are decided: whether a line can be had, the facts as they change, and
//! the effects as they gather.

use std::collections::{BTreeMap, HashMap};

use super::choice::Choice;
use super::{Decision, Effects, Guard, LegChange, LevelChange};
use crate::answer::Answer;
use crate::facts::{Entry, Facts, Hold, Level, LevelId, Micros, Operation};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::outcome::{Outcome, State};
use crate::request::{Line, Request};
use crate::standing::{Claim, LineStanding, Standing, own_key, times_reopened};

/// Where a place in a queue is that is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind all others.
    Last,
    /// Where the same line has waited so far, its units being held.
    Inherited,
}

pub(super) struct Work {
    pub facts: Facts,
    pub effects: Effects,
    /// Where the effects tell of a place in a queue: by key, line, whether it is sold, and promise.
    pub waits: HashMap<(Name, i32, bool, i32), usize>,
    /// Places in queues that were paid.
    pub paid: usize,
    /// What is there for those who wait and could not be given to them.
    pub unpaid: BTreeMap<LevelId, i64>,
}

impl Work {
    pub fn new(facts: Facts) -> Self {
        let mut work = Work {
            facts,
            effects: Effects::default(),
            waits: HashMap::new(),
            paid: 0,
            unpaid: BTreeMap::new(),
        };
        work.take_in_lots();
        work
    }

    /// Where the entries of the next request begin.
    pub fn mark(&self) -> usize {
        self.effects.entries.len()
    }

    pub fn history(&self, key: &Name) -> &[Entry] {
        self.facts.history.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn standing(&self, key: &Name) -> Standing {
        Standing::at(self.history(key), self.facts.now)
    }

    pub fn level(&self, at: &LevelId) -> Option<&Level> {
        self.facts.levels.get(at)
    }

    /// A ledger entry of a request that changes nothing yet.
    pub fn entry(
        &self,
        request: &Request,
        operation: Operation,
        line: i32,
        at: &LevelId,
        quantity: i64,
    ) -> Entry {
        Entry {
            operation_key: request.operation_key.clone(),
            reason: request.reason.clone(),
            context: request.context.clone(),
            ..blank(
                request.key.clone(),
                operation,
                line,
                Some(at.clone()),
                quantity,
                self.facts.now,
            )
        }
    }

    /// An entry about a key alone, of which no level has units.
    pub fn entry_of_key(
        &self,
        request: &Request,
        operation: Operation,
        operation_key: Name,
    ) -> Entry {
        Entry {
            operation_key,
            reason: request.reason.clone(),
            context: request.context.clone(),
            ..blank(request.key.clone(), operation, 1, None, 0, self.facts.now)
        }
    }

    /// The operation key of the reserve of a key, and of the cancellation that takes its place:
    /// another one each time that the key was opened again.
    pub fn reserve_key(&self, key: &Name) -> Name {
        match self.times_reopened(key) {
            0 => Name::default(),
            times => own_key(times),
        }
    }

    /// How often the key was made usable again.
    pub fn times_reopened(&self, key: &Name) -> i64 {
        times_reopened(self.history(key))
    }

    /// Writes an entry and carries it out on its level.
    pub fn post(&mut self, mut entry: Entry) -> Result<(), Fault> {
        self.post_level(&mut entry)?;
        self.post_buyer(&entry);
        self.effects.entries.push(entry);
        Ok(())
    }

    fn post_level(&mut self, entry: &mut Entry) -> Result<(), Fault> {
        let Some(at) = entry.at.clone() else { return Ok(()) };
        let before = self.facts.levels.get(&at).cloned();
        let is_change = entry.changes_level();
        let level = self.facts.levels.entry(at.clone()).or_default();
        if is_change {
            level.on_hand = limits::add_stock(level.on_hand, entry.on_hand_delta)?;
            level.reserved += entry.reserved_delta;
            level.waiting += entry.waiting_delta;
            level.in_transit = limits::add_in_transit(level.in_transit, entry.in_transit_delta)?;
            level.safety_stock = entry.safety_stock.unwrap_or(level.safety_stock);
            level.buyer_limit =
                entry.buyer_limit.map_or(level.buyer_limit, |limit| (limit > 0).then_some(limit));
            level.backorder_limit = entry.backorder_limit.unwrap_or(level.backorder_limit);
            level.frozen = entry.frozen.unwrap_or(level.frozen);
            level.sale = level.sale.with(entry.on_sale_from, entry.on_sale_until);
            if entry.operation == Operation::SetLimits {
                level.min_life = entry.min_life.unwrap_or(level.min_life);
                level.near_expiry = entry.near_expiry.or(level.near_expiry);
            }
            self.post_lots(&at, entry);
        }
        let level = self.facts.levels.entry(at.clone()).or_default();
        if is_change {
            level.unsellable += entry.unsellable_delta;
            level.version += 1;
            let after = level.clone();
            self.effects.levels.entry(at).or_insert(LevelChange { before, after });
        }
        entry.on_hand_after = level.on_hand;
        entry.reserved_after = level.reserved;
        entry.version = level.version;
        Ok(())
    }

    /// Counts what the buyer holds and has bought. Overdue holds were never in the facts' count, so
    /// that their end changes only what is stored.
    fn post_buyer(&mut self, entry: &Entry) {
        let (Some(buyer), Some(at)) = (&entry.buyer, &entry.at) else { return };
        let q = entry.quantity;
        let late = entry.operation == Operation::Confirm && entry.expires_at.is_some();
        let (stored, counted) = match entry.operation {
            Operation::Reserve => (q, q),
            Operation::Release | Operation::Return => (-q, -q),
            Operation::Expire => (-q, 0),
            Operation::Extend => (entry.promised(), entry.promised()),
            Operation::Confirm => (entry.promised(), if late { q } else { 0 }),
            _ => return,
        };
        let place = (at.clone(), buyer.clone());
        if stored != 0 {
            *self.effects.bought.entry(place.clone()).or_default() += stored;
        }
        if counted != 0 {
            *self.facts.bought.entry(place).or_default() += counted;
        }
    }

    /// Changes goods on the road.
    pub fn ship(&mut self, change: LegChange) {
        self.effects.shipped.push(change);
    }

    /// Why a level cannot give units that are not promised yet, if it cannot; else the overdue
    /// holds to close first.
    pub fn take_free(
        &self,
        line: &Line,
        buyer: Option<&Name>,
        choice: &Choice,
    ) -> Result<Vec<Hold>, Outcome> {
        let level = self.level(&line.at).ok_or(Outcome::UnknownLevel)?;
        self.check_sale(level, line, buyer)?;
        self.check_lot(&line.at, line.lot.as_ref())?;
        if choice.is_narrow() {
            let unpromised = level.unpromised();
            let covering = self.cover_narrow(&line.at, line.quantity, choice, unpromised, None);
            return covering.ok_or(Outcome::InsufficientStock);
        }
        let wanted = (line.quantity, level.unpromised());
        let shortage = line.quantity - level.free();
        self.cover(&line.at, shortage, wanted, None).ok_or(Outcome::InsufficientStock)
    }

    /// The same for units that lapsed; `held` of them are still in a hold of `key`, and free to
    /// itself. That they are gone comes before what keeps them from being sold (Outcome::ALL has
    /// the order).
    pub fn take_again(
        &self,
        line: &Line,
        buyer: Option<&Name>,
        key: &Name,
        held: i64,
        choice: &Choice,
    ) -> Result<Vec<Hold>, Outcome> {
        let level = self.level(&line.at).ok_or(Outcome::ReservationExpired)?;
        // What is still bound to its lots needs no others.
        if choice.is_narrow() && held == 0 {
            let unpromised = level.unpromised();
            let covering =
                self.cover_narrow(&line.at, line.quantity, choice, unpromised, Some(key));
            let covering = covering.ok_or(Outcome::ReservationExpired)?;
            self.check_sale(level, line, buyer)?;
            return Ok(covering);
        }
        let shortage = line.quantity - held - level.free();
        let wanted = (line.quantity - held, level.unpromised());
        let covering =
            self.cover(&line.at, shortage, wanted, Some(key)).ok_or(Outcome::ReservationExpired)?;
        self.check_sale(level, line, buyer)?;
        Ok(covering)
    }

    /// What keeps a line from being sold, however many units there are.
    fn check_sale(&self, level: &Level, line: &Line, buyer: Option<&Name>) -> Result<(), Outcome> {
        if level.frozen {
            return Err(Outcome::LevelFrozen);
        }
        if !level.sale.is_open(self.facts.now) {
            return Err(Outcome::NotOnSale);
        }
        if line.expected_version.is_some_and(|expected| expected != level.version) {
            return Err(Outcome::VersionConflict);
        }
        self.check_buyer(level, line, buyer)
    }

    fn check_buyer(&self, level: &Level, line: &Line, buyer: Option<&Name>) -> Result<(), Outcome> {
        let Some(limit) = level.buyer_limit else { return Ok(()) };
        let buyer = buyer.ok_or(Outcome::BuyerRequired)?;
        let bought = self.facts.bought.get(&(line.at.clone(), buyer.clone())).copied().unwrap_or(0);
        if bought + line.quantity > limit { Err(Outcome::BuyerLimitExceeded) } else { Ok(()) }
    }

    /// One answer; availability and version are filled in when the whole request is done.
    pub fn answer(
        &self,
        request: &Request,
        line: i32,
        at: Option<&LevelId>,
        quantity: i64,
        outcome: Outcome,
    ) -> Answer {
        Answer {
            request: request.number,
            line,
            key: request.key.clone(),
            at: at.cloned(),
            quantity,
            outcome,
            state: State::None,
            available: None,
            version: None,
            expires_at: None,
            replayed: false,
            opens_at: None,
            backordered: 0,
            there: None,
        }
    }

    /// The answers of a request of which some lines are refused: nothing is applied.
    pub fn refuse(
        &self,
        request: &Request,
        lines: &[Line],
        refused: &[Option<Outcome>],
    ) -> Vec<Answer> {
        lines
            .iter()
            .zip(refused)
            .map(|(line, outcome)| {
                let outcome = outcome.unwrap_or(Outcome::NotApplied);
                self.answer(request, line.number, Some(&line.at), line.quantity, outcome)
            })
            .collect()
    }

    /// Refuses every line for the same reason.
    pub fn refuse_all(&self, request: &Request, lines: &[Line], outcome: Outcome) -> Vec<Answer> {
        self.refuse(request, lines, &vec![Some(outcome); lines.len()])
    }

    /// Completes the answers of a request and its entries: state and availability are those after
    /// all of it.
    pub fn finish(&mut self, mark: usize, request: &Request, answers: &mut [Answer]) {
        for entry in &mut self.effects.entries[mark..] {
            if let Some(level) = entry.at.as_ref().and_then(|at| self.facts.levels.get(at)) {
                // Nobody is answered what has come for him.
                let is_answered = entry.operation != Operation::Supply;
                entry.available = is_answered.then(|| level.available(self.facts.now));
                let is_later = is_answered && level.version != entry.version;
                entry.answered_version = is_later.then_some(level.version);
            }
            if let Some(history) = self.facts.history.get_mut(&entry.key) {
                history.push(entry.clone());
            }
        }
        for answer in answers.iter_mut() {
            let level = answer.at.as_ref().and_then(|at| self.facts.levels.get(at));
            answer.available =
                answer.available.or(level.map(|level| level.available(self.facts.now)));
            answer.version = answer.version.or(level.map(|level| level.version));
            if answer.outcome == Outcome::NotOnSale {
                answer.opens_at = level.and_then(|level| level.sale.opens_at(self.facts.now));
            }
            let now = self.facts.now;
            answer.there = answer.there.or(level.and_then(|level| there(answer, level, now)));
        }
        if request.action.concerns_reservation() {
            let standing = self.standing(&request.key);
            answers.iter_mut().for_each(|answer| tell_state(answer, &standing));
            if request.action.acts_on_reservation() {
                number_as_reserved(answers, &standing);
            }
        }
    }

    /// The decision, with each level as it is in the end.
    pub fn into_decision(mut self, answers: Vec<Answer>, guard: Option<Guard>) -> Decision {
        for (at, change) in &mut self.effects.levels {
            if let Some(level) = self.facts.levels.get(at) {
                change.after = level.clone();
            }
            if change.before.as_ref().is_some_and(|level| level.next_due <= self.facts.now) {
                self.effects.bounds.insert(at.clone());
            }
        }
        self.effects.waits.retain(|wait| wait.before != wait.after);
        self.effects.held_lots.retain(|_, units| *units != 0);
        for ((at, _), change) in &mut self.effects.lots {
            let level = self.facts.levels.get(at);
            let near = level.and_then(|level| level.near_expiry).unwrap_or(self.facts.near_expiry);
            change.spoils_at = change.after.due(level.map_or(0, |level| level.min_life));
            change.warns_at = change.after.warns_at(near);
        }
        Decision { answers, effects: self.effects, guard, unpaid: self.unpaid }
    }
}

/// What there is of that which a refusal is about, as far as its level tells.
fn there(answer: &Answer, level: &Level, now: Micros) -> Option<i64> {
    match answer.outcome {
        // Of a level with lots it is about one of them.
        Outcome::BelowReserved if level.has_lots() => None,
        Outcome::BelowReserved => Some(level.on_hand - level.reserved),
        Outcome::InsufficientStock => {
            let (there, waits) = level.split(level.available(now));
            (level.waiting > 0 || waits > 0).then_some(there)
        }
        _ => None,
    }
}

/// Gives answers the numbers that their lines have in the reservation, which is what callers know
/// them by. Lines that it has not come after its last.
fn number_as_reserved(answers: &mut [Answer], standing: &Standing) {
    let last = standing.lines.iter().map(|line| line.line).max().unwrap_or(0);
    for answer in answers.iter_mut() {
        let line = answer.at.as_ref().and_then(|at| standing.line(at));
        answer.line = line.map_or(last + answer.line, |line| line.line);
    }
    answers.sort_by_key(|answer| answer.line);
}

/// What the answer's line is now, whatever was asked.
fn tell_state(answer: &mut Answer, standing: &Standing) {
    let line = answer.at.as_ref().and_then(|at| standing.line(at));
    answer.state = match (line, standing.claim) {
        (Some(line), _) => line.state(),
        (None, Claim::Cancelled) => State::Cancelled,
        (None, _) => State::None,
    };
    answer.expires_at = line.and_then(LineStanding::expires_at);
    answer.backordered = line.map_or(0, LineStanding::backordered);
}

pub(super) fn blank(
    key: Name,
    operation: Operation,
    line: i32,
    at: Option<LevelId>,
    quantity: i64,
    recorded_at: Micros,
) -> Entry {
    Entry {
        key,
        operation,
        operation_key: Name::default(),
        line,
        at,
        quantity,
        on_hand_delta: 0,
        reserved_delta: 0,
        waiting_delta: 0,
        in_transit_delta: 0,
        unsellable_delta: 0,
        lots: Vec::new(),
        on_hand_after: 0,
        reserved_after: 0,
        version: 0,
        answered_version: None,
        available: None,
        buyer: None,
        expires_at: None,
        reason: Name::default(),
        context: Name::default(),
        safety_stock: None,
        buyer_limit: None,
        backorder_limit: None,
        frozen: None,
        on_sale_from: None,
        on_sale_until: None,
        lot: None,
        best_before: None,
        min_life: None,
        near_expiry: None,
        recorded_at,
    }
}
