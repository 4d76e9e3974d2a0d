//! The rules once more, as simply as they can be said: no reserved counter, no overdue holds, no
//! guards. A hold is in force until its deadline and is then gone; what is available is what is
//! there less what is in force.

use std::collections::{BTreeMap, HashMap};

use pg_stock_core::facts::{ALWAYS, LevelId, NEVER};
use pg_stock_core::{
    Action, Answer, Fault, Limits, Line, Load, Micros, Name, Operation, Outcome, Request, State,
};

use crate::database::Database;

/// What is sold and has not come yet is gone from `on_hand` all the same.
#[derive(Clone, Debug, Default)]
struct Level {
    on_hand: i64,
    safety_stock: i64,
    buyer_limit: Option<i64>,
    backorder_limit: i64,
    frozen: bool,
    opens: Option<Micros>,
    ends: Option<Micros>,
}

impl Level {
    /// Why nobody may buy of it now, whoever asks for how much.
    fn closed(&self, now: Micros) -> Option<Outcome> {
        let early = self.opens.is_some_and(|opens| now < opens);
        let late = self.ends.is_some_and(|ends| now >= ends);
        match (self.frozen, early || late) {
            (true, _) => Some(Outcome::LevelFrozen),
            (false, true) => Some(Outcome::NotOnSale),
            (false, false) => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Part {
    at: LevelId,
    buyer: Option<Name>,
    reserved: i64,
    confirmed: i64,
    released: i64,
    returned: i64,
    reserved_at: Micros,
    deadline: Micros,
}

impl Part {
    fn open(&self) -> i64 {
        self.reserved - self.confirmed - self.released
    }

    fn live(&self, now: Micros) -> i64 {
        if self.deadline > now { self.open() } else { 0 }
    }
}

/// What a claim answered, so that a repeat can be told from another request.
#[derive(Clone, Debug)]
struct Claim {
    lines: Vec<(LevelId, i64)>,
    extra: String,
    took_all: bool,
    outcome: Vec<(LevelId, Outcome)>,
}

#[derive(Clone, Debug)]
pub struct Naive {
    pub now: Micros,
    pub retake_lapsed: bool,
    pub max_hold: Option<Micros>,
    levels: BTreeMap<LevelId, Level>,
    versions: BTreeMap<LevelId, i64>,
    /// Of what is there, what is promised to holds in force, and what is there.
    there: BTreeMap<LevelId, (i64, i64)>,
    orders: BTreeMap<Name, Vec<Part>>,
    cancelled: Vec<Name>,
    reopened: Vec<Name>,
    claims: HashMap<(Name, Operation, Name), Claim>,
    /// What each key has sent: from where, where to, and how much is still on the way.
    road: BTreeMap<Name, Vec<(LevelId, LevelId, i64)>>,
}

impl Default for Naive {
    fn default() -> Self {
        Naive {
            now: 1,
            retake_lapsed: true,
            max_hold: None,
            levels: BTreeMap::new(),
            versions: BTreeMap::new(),
            there: BTreeMap::new(),
            orders: BTreeMap::new(),
            cancelled: Vec::new(),
            reopened: Vec::new(),
            claims: HashMap::new(),
            road: BTreeMap::new(),
        }
    }
}

/// What is compared of an answer: where, how much, outcome, state, replayed, deadline; and, unless
/// it is a replay, what is available.
type Row = (Option<LevelId>, i64, Outcome, State, bool, Option<Micros>, Option<i64>);

/// A row and the number of its line.
type Seen = (i32, Row);

/// A call that must be raised as bad input.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad;

impl Naive {
    pub fn seen(&self, answers: Result<Vec<Answer>, Fault>) -> Result<Vec<Seen>, Bad> {
        let seen = answers
            .map_err(|_| Bad)?
            .iter()
            .map(|answer| {
                let available = answer.available.filter(|_| !answer.replayed);
                let Answer { line, at, quantity, outcome, state, replayed, expires_at, .. } =
                    answer.clone();
                (line, (at, quantity, outcome, state, replayed, expires_at, available))
            })
            .collect();
        Ok(seen)
    }

    /// Levels and holds in force must agree; versions are taken over, for expiry raises them too,
    /// and so is what of the goods has come.
    pub fn compare(&mut self, database: &Database) {
        assert_eq!(
            self.levels.keys().collect::<Vec<_>>(),
            database.levels.keys().collect::<Vec<_>>()
        );
        for (at, level) in &database.levels {
            let live =
                database.holds.values().filter(|hold| hold.at == *at && hold.expires_at > self.now);
            assert_eq!(
                live.map(|hold| hold.quantity).sum::<i64>(),
                self.promised(at),
                "holds in force at {at:?}"
            );
            let waits = || database.waits.values().filter(|(place, _)| place == at);
            let owed = waits().filter(|(_, wait)| wait.sold).map(|(_, wait)| wait.quantity);
            let owed = owed.sum::<i64>();
            assert_eq!(self.levels[at].on_hand, level.on_hand - owed, "on_hand at {at:?}");
            let live =
                database.holds.values().filter(|hold| hold.at == *at && hold.expires_at > self.now);
            let there =
                live.map(|hold| hold.quantity - database.waiting(&hold.key, hold.line, false));
            self.there.insert(at.clone(), (there.sum(), level.on_hand));
            for hold in database.holds.values().filter(|hold| hold.at == *at) {
                let part = find(&self.orders[&hold.key], at).expect("who holds has ordered");
                assert_eq!(hold.reserved_at, part.reserved_at, "when {:?} was reserved", hold.key);
            }
            self.versions.insert(at.clone(), level.version);
        }
    }

    fn promised(&self, at: &LevelId) -> i64 {
        let parts = self.orders.values().flatten().filter(|part| part.at == *at);
        parts.map(|part| part.live(self.now)).sum()
    }

    fn bought(&self, at: &LevelId, buyer: &Name) -> i64 {
        let parts = self
            .orders
            .values()
            .flatten()
            .filter(|part| part.at == *at && part.buyer.as_ref() == Some(buyer));
        parts.map(|part| part.live(self.now) + part.confirmed - part.returned).sum()
    }

    /// What is there or may wait, and is promised to nobody.
    fn unpromised(&self, at: &LevelId) -> i64 {
        let level = &self.levels[at];
        level.on_hand - self.promised(at) + level.backorder_limit
    }

    fn free(&self, at: &LevelId) -> i64 {
        self.levels.get(at).map_or(0, |level| self.unpromised(at) - level.safety_stock)
    }

    fn available(&self, at: &LevelId) -> i64 {
        if self.levels[at].closed(self.now).is_some() { 0 } else { self.free(at).max(0) }
    }

    pub fn run(&mut self, request: &Request) -> Result<Vec<Seen>, Bad> {
        let rows = match &request.action {
            Action::Reserve { lines, ttl, buyer, .. } => {
                self.reserve(request, lines, *ttl, buyer.as_ref())
            }
            Action::Confirm { lines } => self.close(request, lines.as_deref())?,
            Action::Release { lines } => self.close(request, lines.as_deref())?,
            Action::Return { lines } => self.close(request, lines.as_deref())?,
            Action::Extend { ttl } => self.extend(request, *ttl),
            Action::Reopen => self.reopen(&request.key),
            Action::Dispatch { loads } => self.dispatch(&request.key, loads),
            Action::Arrive { lines } | Action::Lose { lines } => {
                self.unload(request, lines.as_deref())?
            }
            Action::Recall => self.recall(request),
            _ => self.goods(request)?,
        };
        // A line of a reservation keeps the number that it got there; what it has not comes behind.
        let parts = self.orders.get(&request.key).filter(|_| request.action.acts_on_reservation());
        let parts: Vec<&LevelId> = parts.into_iter().flatten().map(|part| &part.at).collect();
        let number =
            |at: &Option<LevelId>| parts.iter().position(|part| Some(*part) == at.as_ref());
        let numbered = (1..).zip(rows).map(|(place, row)| {
            let behind = parts.len() as i32 + place;
            (number(&row.0).map_or(behind, |place| place as i32 + 1), row)
        });
        let mut numbered: Vec<Seen> = numbered.collect();
        numbered.sort_by_key(|(line, _)| *line);
        Ok(numbered)
    }

    /// Requests in turn; nothing stands if one of them is bad.
    pub fn run_all(&mut self, requests: &[Request]) -> Result<Vec<Seen>, Bad> {
        let mut after = self.clone();
        let rows: Result<Vec<_>, Bad> = requests.iter().map(|request| after.run(request)).collect();
        let rows = rows?.into_iter().flatten().collect();
        *self = after;
        Ok(rows)
    }

    fn state(&self, key: &Name, at: Option<&LevelId>) -> State {
        if self.cancelled.contains(key) {
            return State::Cancelled;
        }
        let part =
            self.orders.get(key).and_then(|parts| parts.iter().find(|part| Some(&part.at) == at));
        match part {
            None => State::None,
            Some(part) if part.live(self.now) > 0 => State::Held,
            Some(part) if part.confirmed > 0 => State::Confirmed,
            Some(part) if part.released > 0 => State::Released,
            Some(_) => State::Expired,
        }
    }

    fn row(
        &self,
        key: &Name,
        at: Option<&LevelId>,
        quantity: i64,
        outcome: Outcome,
        replayed: bool,
    ) -> Row {
        let state = self.state(key, at);
        let part = self.orders.get(key).and_then(|parts| find(parts, at?));
        let deadline = part.filter(|_| state == State::Held).map(|part| part.deadline);
        let known = at.filter(|at| self.levels.contains_key(at) && !replayed);
        (
            at.cloned(),
            quantity,
            outcome,
            state,
            replayed,
            deadline,
            known.map(|at| self.available(at)),
        )
    }

    fn rows(
        &self,
        key: &Name,
        lines: &[(LevelId, i64)],
        outcome: impl Fn(&LevelId) -> Outcome,
    ) -> Vec<Row> {
        lines
            .iter()
            .map(|(at, quantity)| self.row(key, Some(at), *quantity, outcome(at), false))
            .collect()
    }

    fn refusals(
        &self,
        key: &Name,
        lines: &[(LevelId, i64)],
        refused: &[Option<Outcome>],
    ) -> Vec<Row> {
        let row = |((at, quantity), outcome): (&(LevelId, i64), &Option<Outcome>)| {
            self.row(key, Some(at), *quantity, outcome.unwrap_or(Outcome::NotApplied), false)
        };
        lines.iter().zip(refused).map(row).collect()
    }

    /// The answer of a repeat, in the order in which its lines stand now.
    fn repeat(&self, key: &Name, claim: &Claim, order: Option<&[(LevelId, i64)]>) -> Vec<Row> {
        let lines = order.map_or_else(|| claim.lines.clone(), <[_]>::to_vec);
        let outcome =
            |at: &LevelId| claim.outcome.iter().find(|(place, _)| place == at).expect("recorded").1;
        lines
            .iter()
            .map(|(at, quantity)| self.row(key, Some(at), *quantity, outcome(at), true))
            .collect()
    }

    fn reserve(
        &mut self,
        request: &Request,
        lines: &[Line],
        ttl: Option<Micros>,
        buyer: Option<&Name>,
    ) -> Vec<Row> {
        let asked = pairs(lines);
        let place = (request.key.clone(), Operation::Reserve, Name::default());
        let extra = format!("{buyer:?} {}", ttl.is_some());
        if self.cancelled.contains(&request.key) {
            return self.rows(&request.key, &asked, |_| Outcome::AlreadyReleased);
        }
        if let Some(claim) = self.claims.get(&place) {
            if !same(&claim.lines, &asked) || claim.extra != extra {
                return self.rows(&request.key, &asked, |_| Outcome::KeyConflict);
            }
            let parts = &self.orders[&request.key];
            if parts.iter().all(|part| part.live(self.now) == 0 && part.confirmed == part.returned)
            {
                let why = |at: &LevelId| match find(parts, at).expect("its own part") {
                    part if part.confirmed > 0 || part.released > 0 => Outcome::AlreadyReleased,
                    _ => Outcome::ReservationExpired,
                };
                return self.rows(&request.key, &asked, why);
            }
            return self.repeat(&request.key, claim, Some(&asked));
        }
        let refused: Vec<_> = lines.iter().map(|line| self.why_not(line, buyer)).collect();
        if refused.iter().any(Option::is_some) {
            return self.refusals(&request.key, &asked, &refused);
        }
        let mut parts = Vec::new();
        for line in lines {
            if ttl.is_none() {
                self.level(&line.at).on_hand -= line.quantity;
            }
            parts.push(Part {
                at: line.at.clone(),
                buyer: buyer.cloned(),
                reserved: line.quantity,
                confirmed: if ttl.is_none() { line.quantity } else { 0 },
                released: 0,
                returned: 0,
                reserved_at: self.now,
                deadline: ttl.map_or(Micros::MAX, |ttl| self.now + ttl),
            });
        }
        self.orders.insert(request.key.clone(), parts);
        let outcome = if ttl.is_some() { Outcome::Reserved } else { Outcome::Sold };
        self.claim(place, &asked, extra, false, |_| outcome);
        if ttl.is_none() {
            let confirm = (request.key.clone(), Operation::Confirm, Name::default());
            self.claim(confirm, &asked, String::new(), true, |_| Outcome::Confirmed);
        }
        self.rows(&request.key, &asked, |_| outcome)
    }

    fn claim(
        &mut self,
        place: (Name, Operation, Name),
        lines: &[(LevelId, i64)],
        extra: String,
        took_all: bool,
        outcome: impl Fn(&LevelId) -> Outcome,
    ) {
        let outcome = lines.iter().map(|(at, _)| (at.clone(), outcome(at))).collect();
        self.claims.insert(place, Claim { lines: lines.to_vec(), extra, took_all, outcome });
    }

    fn level(&mut self, at: &LevelId) -> &mut Level {
        self.levels.entry(at.clone()).or_default()
    }

    fn why_not(&self, line: &Line, buyer: Option<&Name>) -> Option<Outcome> {
        let Some(level) = self.levels.get(&line.at) else { return Some(Outcome::UnknownLevel) };
        if let Some(closed) = level.closed(self.now) {
            return Some(closed);
        }
        if line.expected_version.is_some_and(|version| version != self.versions[&line.at]) {
            return Some(Outcome::VersionConflict);
        }
        if let Some(limit) = level.buyer_limit {
            match buyer {
                None => return Some(Outcome::BuyerRequired),
                Some(buyer) if self.bought(&line.at, buyer) + line.quantity > limit => {
                    return Some(Outcome::BuyerLimitExceeded);
                }
                Some(_) => {}
            }
        }
        (self.free(&line.at) < line.quantity).then_some(Outcome::InsufficientStock)
    }

    /// What an operation may still take of a part.
    fn may(&self, operation: Operation, part: &Part) -> i64 {
        match operation {
            Operation::Confirm => part.open(),
            Operation::Return => part.confirmed - part.returned,
            _ => part.live(self.now),
        }
    }

    fn close(&mut self, request: &Request, lines: Option<&[Line]>) -> Result<Vec<Row>, Bad> {
        let operation = request.action.operation();
        let key = &request.key;
        let named = lines.map(pairs);
        if let Some(rows) = self.without_order(request, named.as_deref()) {
            return Ok(rows);
        }
        let place = (key.clone(), operation, request.operation_key.clone());
        if let Some(claim) = self.claims.get(&place) {
            let equal = match &named {
                Some(named) => same(&claim.lines, named),
                None => claim.took_all,
            };
            let again = operation == Operation::Return && request.operation_key.is_empty();
            if equal && again && self.orders[key].iter().any(|part| self.may(operation, part) > 0) {
                return Err(Bad);
            }
            return Ok(match (equal, &named) {
                (true, _) => self.repeat(key, claim, named.as_deref()),
                (false, Some(named)) => self.rows(key, named, |_| Outcome::KeyConflict),
                (false, None) => self.rows(key, &self.whole(key), |_| Outcome::KeyConflict),
            });
        }
        let parts = self.orders[key].clone();
        let asked = match named {
            Some(named) => {
                let refused: Vec<_> =
                    named.iter().map(|line| self.why_not_close(operation, &parts, line)).collect();
                if refused.iter().any(Option::is_some) {
                    return Ok(self.refusals(key, &named, &refused));
                }
                let some: i64 = named.iter().map(|(_, quantity)| quantity).sum();
                if some < self.may_in_all(operation, &parts) && request.operation_key.is_empty() {
                    return Err(Bad);
                }
                named
            }
            None => {
                let open = parts.iter().filter(|part| self.may(operation, part) > 0);
                let open: Vec<_> =
                    open.map(|part| (part.at.clone(), self.may(operation, part))).collect();
                if open.is_empty() {
                    let why = |at: &LevelId| {
                        self.nothing(operation, find(&parts, at).expect("its own part"))
                    };
                    return Ok(self.rows(key, &self.whole(key), why));
                }
                open
            }
        };
        let refused: Vec<_> =
            asked.iter().map(|line| self.why_not_late(operation, &parts, line)).collect();
        if refused.iter().any(Option::is_some) {
            return Ok(self.refusals(key, &asked, &refused));
        }
        let outcome = |at: &LevelId| (at.clone(), self.closed(operation, find(&parts, at)));
        let outcomes: HashMap<LevelId, Outcome> = asked.iter().map(|(at, _)| outcome(at)).collect();
        for (at, quantity) in &asked {
            self.apply_close(request, at, *quantity);
        }
        let parts = &self.orders[key];
        let took_all = self.may_in_all(operation, parts) == 0;
        self.claim(place, &asked, String::new(), took_all, |at| outcomes[at]);
        Ok(self.rows(key, &asked, |at| outcomes[at]))
    }

    fn closed(&self, operation: Operation, part: Option<&Part>) -> Outcome {
        match operation {
            Operation::Confirm if part.is_some_and(|part| part.live(self.now) == 0) => {
                Outcome::ConfirmedLate
            }
            Operation::Confirm => Outcome::Confirmed,
            Operation::Release => Outcome::Released,
            _ => Outcome::Returned,
        }
    }

    fn may_in_all(&self, operation: Operation, parts: &[Part]) -> i64 {
        parts.iter().map(|part| self.may(operation, part)).sum()
    }

    fn apply_close(&mut self, request: &Request, at: &LevelId, quantity: i64) {
        let parts = self.orders.get_mut(&request.key).expect("checked");
        let part = parts.iter_mut().find(|part| part.at == *at).expect("checked");
        let moved = match &request.action {
            Action::Confirm { .. } => {
                part.confirmed += quantity;
                -quantity
            }
            Action::Release { .. } => {
                part.released += quantity;
                0
            }
            Action::Return { .. } => {
                part.returned += quantity;
                quantity
            }
            _ => unreachable!("not about a reservation"),
        };
        self.level(at).on_hand += moved;
    }

    fn extend(&mut self, request: &Request, ttl: Micros) -> Vec<Row> {
        if let Some(rows) = self.without_order(request, None) {
            return rows;
        }
        let (key, now) = (&request.key, self.now);
        let parts = self.orders[key].clone();
        let open: Vec<&Part> = parts.iter().filter(|part| part.open() > 0).collect();
        if open.is_empty() {
            let why = |at: &LevelId| {
                self.nothing(Operation::Extend, find(&parts, at).expect("its own part"))
            };
            return self.rows(key, &self.whole(key), why);
        }
        let until = |part: &Part| {
            let most = self.max_hold.map_or(Micros::MAX, |most| part.reserved_at + most);
            part.deadline.max(most.min(now + ttl))
        };
        let why_not = |part: &&Part| {
            if part.live(now) > 0 {
                return None;
            }
            // Who is told that a level is frozen waits for it: not for units that are gone.
            if !self.retake_lapsed || until(part) <= now || self.free(&part.at) < part.open() {
                return Some(Outcome::ReservationExpired);
            }
            let again = Line::new(1, part.at.clone(), part.open());
            self.why_not(&again, part.buyer.as_ref())
        };
        let asked: Vec<_> = open.iter().map(|part| (part.at.clone(), part.open())).collect();
        let refused: Vec<_> = open.iter().map(why_not).collect();
        if refused.iter().any(Option::is_some) {
            return self.refusals(key, &asked, &refused);
        }
        let late = |part: &&Part| {
            if part.live(now) > 0 { Outcome::Extended } else { Outcome::ExtendedLate }
        };
        let told: Vec<_> =
            open.iter().map(|part| (part.at.clone(), late(part), until(part))).collect();
        let moves = open.iter().any(|part| until(part) > part.deadline);
        for part in self.orders.get_mut(key).expect("its own parts") {
            if let Some((.., until)) = told.iter().find(|(at, ..)| *at == part.at) {
                part.deadline = *until;
            }
        }
        let rows = asked.iter().zip(&told);
        rows.map(|((at, quantity), (_, outcome, _))| {
            self.row(key, Some(at), *quantity, *outcome, !moves)
        })
        .collect()
    }

    fn reopen(&mut self, key: &Name) -> Vec<Row> {
        if self.orders.contains_key(key) {
            return self.rows(key, &self.whole(key), |_| Outcome::KeyConflict);
        }
        let (outcome, replayed) = match self.cancelled.contains(key) {
            true => (Outcome::Reopened, false),
            false if self.reopened.contains(key) => (Outcome::Reopened, true),
            false => (Outcome::UnknownReservation, false),
        };
        if outcome == Outcome::Reopened && !replayed {
            self.cancelled.retain(|cancelled| cancelled != key);
            self.reopened.push(key.clone());
        }
        vec![self.row(key, None, 0, outcome, replayed)]
    }

    /// The answers where the key has no reservation.
    fn without_order(
        &mut self,
        request: &Request,
        named: Option<&[(LevelId, i64)]>,
    ) -> Option<Vec<Row>> {
        let key = &request.key;
        if self.orders.contains_key(key) {
            return None;
        }
        let known = self.cancelled.contains(key);
        let (outcome, replayed) = match request.action {
            Action::Release { .. } => {
                if !known {
                    self.cancelled.push(key.clone());
                }
                (Outcome::Cancelled, known)
            }
            _ if known => (Outcome::AlreadyReleased, false),
            _ => (Outcome::UnknownReservation, false),
        };
        let row = |at, quantity| self.row(key, at, quantity, outcome, replayed);
        Some(match named {
            Some(named) => named.iter().map(|(at, quantity)| row(Some(at), *quantity)).collect(),
            None => vec![row(None, 0)],
        })
    }

    fn whole(&self, key: &Name) -> Vec<(LevelId, i64)> {
        self.orders[key].iter().map(|part| (part.at.clone(), part.reserved)).collect()
    }

    fn nothing(&self, operation: Operation, part: &Part) -> Outcome {
        if operation == Operation::Return && (part.live(self.now) > 0 || part.confirmed > 0) {
            Outcome::MoreThanHeld
        } else if part.confirmed > 0 {
            Outcome::AlreadyConfirmed
        } else if part.released > 0 {
            Outcome::AlreadyReleased
        } else {
            Outcome::ReservationExpired
        }
    }

    fn why_not_close(
        &self,
        operation: Operation,
        parts: &[Part],
        line: &(LevelId, i64),
    ) -> Option<Outcome> {
        let Some(part) = find(parts, &line.0) else { return Some(Outcome::MoreThanHeld) };
        match self.may(operation, part) {
            0 => Some(self.nothing(operation, part)),
            left if line.1 > left
                && operation == Operation::Confirm
                && part.live(self.now) == 0 =>
            {
                Some(Outcome::ReservationExpired)
            }
            left if line.1 > left => Some(Outcome::MoreThanHeld),
            _ => None,
        }
    }

    fn why_not_late(
        &self,
        operation: Operation,
        parts: &[Part],
        line: &(LevelId, i64),
    ) -> Option<Outcome> {
        let part = find(parts, &line.0)?;
        if operation != Operation::Confirm || part.live(self.now) > 0 {
            return None;
        }
        let level = &self.levels[&part.at];
        if !self.retake_lapsed || self.unpromised(&part.at) < line.1 {
            return Some(Outcome::ReservationExpired);
        }
        level.frozen.then_some(Outcome::LevelFrozen)
    }

    fn goods(&mut self, request: &Request) -> Result<Vec<Row>, Bad> {
        let asked: Vec<(LevelId, i64)> = match &request.action {
            Action::Receive { at, quantity, .. } => vec![(at.clone(), *quantity)],
            Action::Adjust { at, delta, .. } => vec![(at.clone(), *delta)],
            Action::Set { at, on_hand, .. } => vec![(at.clone(), *on_hand)],
            Action::Transfer { from, to, quantity, .. } => {
                vec![(from.clone(), *quantity), (to.clone(), *quantity)]
            }
            Action::SetLimits { at, .. } | Action::Freeze { at } | Action::Unfreeze { at } => {
                vec![(at.clone(), 0)]
            }
            _ => unreachable!("not about goods"),
        };
        let (extra, outcome) = match &request.action {
            Action::Receive { .. } => (String::new(), Outcome::Received),
            Action::Adjust { .. } => (String::new(), Outcome::Adjusted),
            Action::Set { .. } => (String::new(), Outcome::Set),
            Action::Transfer { from, .. } => (format!("{from:?}"), Outcome::Transferred),
            Action::SetLimits { limits, .. } => (format!("{limits:?}"), Outcome::LimitsSet),
            Action::Freeze { .. } => (String::new(), Outcome::Frozen),
            _ => (String::new(), Outcome::Unfrozen),
        };
        let place = (request.key.clone(), request.action.operation(), Name::default());
        if let Some(claim) = self.claims.get(&place) {
            return Ok(stateless(if same(&claim.lines, &asked) && claim.extra == extra {
                self.repeat(&request.key, claim, Some(&asked))
            } else {
                self.rows(&request.key, &asked, |_| Outcome::KeyConflict)
            }));
        }
        if let Action::SetLimits { at, limits } = &request.action
            && let Some(level) = self.levels.get(at)
            && let (Some(opens), Some(ends)) = window(level, limits)
            && ends <= opens
        {
            return Err(Bad);
        }
        if let Some(why) = self.why_not_goods(&request.action) {
            let mut refused = vec![None; asked.len()];
            refused[0] = Some(why);
            return Ok(stateless(self.refusals(&request.key, &asked, &refused)));
        }
        self.apply_goods(&request.action);
        self.claim(place, &asked, extra, false, |_| outcome);
        Ok(stateless(self.rows(&request.key, &asked, |_| outcome)))
    }

    /// The levels at both ends of each load, and what is asked there.
    fn ends(loads: &[(LevelId, LevelId, i64)]) -> Vec<(LevelId, i64)> {
        let ends = |(from, to, units): &(LevelId, LevelId, i64)| {
            [(from.clone(), *units), (to.clone(), *units)]
        };
        loads.iter().flat_map(ends).collect()
    }

    fn dispatch(&mut self, key: &Name, loads: &[Load]) -> Vec<Row> {
        let loads: Vec<_> =
            loads.iter().map(|load| (load.from.clone(), load.to.clone(), load.quantity)).collect();
        let asked = Self::ends(&loads);
        let mut sorted = loads.clone();
        sorted.sort();
        let extra = format!("{sorted:?}");
        let place = (key.clone(), Operation::Dispatch, Name::default());
        if let Some(claim) = self.claims.get(&place) {
            return stateless(match claim.extra == extra {
                true => self.repeat(key, claim, None),
                false => self.rows(key, &asked, |_| Outcome::KeyConflict),
            });
        }
        let why_not = |(from, _, _): &(LevelId, LevelId, i64)| {
            let leaving = loads.iter().filter(|load| load.0 == *from).map(|load| load.2).sum();
            let (from, to) = (from.clone(), from.clone());
            self.why_not_goods(&Action::Transfer { from, to, quantity: leaving, lot: None })
        };
        let refused: Vec<_> = loads.iter().flat_map(|load| [why_not(load), None]).collect();
        if refused.iter().any(Option::is_some) {
            return stateless(self.refusals(key, &asked, &refused));
        }
        for (from, to, units) in &loads {
            self.level(from).on_hand -= units;
            self.level(to);
        }
        self.road.insert(key.clone(), loads);
        self.claim(place, &asked, extra, false, |_| Outcome::Dispatched);
        stateless(self.rows(key, &asked, |_| Outcome::Dispatched))
    }

    fn unload(&mut self, request: &Request, lines: Option<&[Line]>) -> Result<Vec<Row>, Bad> {
        let (key, operation) = (&request.key, request.action.operation());
        let named = lines.map(pairs);
        let Some(road) = self.road.get(key).cloned() else {
            return Ok(stateless(self.without_shipment(key, named)));
        };
        let place = (key.clone(), operation, request.operation_key.clone());
        let legs: Vec<_> = road.iter().map(|(_, to, units)| (to.clone(), *units)).collect();
        if let Some(claim) = self.claims.get(&place) {
            let equal = named.as_ref().map_or(claim.took_all, |named| same(&claim.lines, named));
            return Ok(stateless(match equal {
                true => self.repeat(key, claim, named.as_deref()),
                false => self.rows(key, &named.unwrap_or(legs), |_| Outcome::KeyConflict),
            }));
        }
        let mut there: Vec<(LevelId, i64)> = Vec::new();
        for (to, units) in legs.iter().filter(|(_, units)| *units > 0) {
            match there.iter_mut().find(|(at, _)| at == to) {
                Some((_, sum)) => *sum += units,
                None => there.push((to.clone(), *units)),
            }
        }
        if named.is_none() && there.is_empty() {
            return Ok(stateless(self.rows(key, &legs, |_| Outcome::NotOnTheWay)));
        }
        let asked = named.unwrap_or_else(|| there.clone());
        let bound =
            |at: &LevelId| there.iter().find(|(to, _)| to == at).map_or(0, |(_, units)| *units);
        let refused: Vec<_> = asked
            .iter()
            .map(|(at, units)| (*units > bound(at)).then_some(Outcome::NotOnTheWay))
            .collect();
        if refused.iter().any(Option::is_some) {
            return Ok(stateless(self.refusals(key, &asked, &refused)));
        }
        let units = |lines: &[(LevelId, i64)]| lines.iter().map(|(_, units)| units).sum::<i64>();
        let took_all = units(&asked) == units(&there);
        if !took_all && request.operation_key.is_empty() {
            return Err(Bad);
        }
        let outcome = match operation {
            Operation::Arrive => Outcome::Arrived,
            _ => Outcome::Lost,
        };
        for (at, units) in &asked {
            self.take_off_the_road(key, at, *units);
            if operation == Operation::Arrive {
                self.level(at).on_hand += units;
            }
        }
        self.claim(place, &asked, String::new(), took_all, |_| outcome);
        Ok(stateless(self.rows(key, &asked, |_| outcome)))
    }

    fn take_off_the_road(&mut self, key: &Name, at: &LevelId, units: i64) {
        for _ in 0..units {
            let legs = self.road.get_mut(key).expect("dispatched").iter_mut();
            let mut bound = legs.filter(|(_, to, left)| to == at && *left > 0);
            bound.next().expect("checked").2 -= 1;
        }
    }

    fn recall(&mut self, request: &Request) -> Vec<Row> {
        let key = &request.key;
        let Some(road) = self.road.get(key).cloned() else {
            return stateless(self.without_shipment(key, None));
        };
        let place = (key.clone(), Operation::Recall, request.operation_key.clone());
        if let Some(claim) = self.claims.get(&place) {
            return stateless(self.repeat(key, claim, None));
        }
        let left: Vec<_> = road.iter().filter(|(.., units)| *units > 0).cloned().collect();
        if left.is_empty() {
            let legs: Vec<_> = road.iter().map(|(_, to, units)| (to.clone(), *units)).collect();
            return stateless(self.rows(key, &legs, |_| Outcome::NotOnTheWay));
        }
        for (from, to, units) in self.road.get_mut(key).expect("dispatched") {
            if *units > 0 {
                std::mem::swap(from, to);
            }
        }
        let back: Vec<_> = left.into_iter().map(|(from, to, units)| (to, from, units)).collect();
        let asked = Self::ends(&back);
        self.claim(place, &asked, String::new(), true, |_| Outcome::Recalled);
        stateless(self.rows(key, &asked, |_| Outcome::Recalled))
    }

    fn without_shipment(&self, key: &Name, named: Option<Vec<(LevelId, i64)>>) -> Vec<Row> {
        match named {
            Some(named) => self.rows(key, &named, |_| Outcome::UnknownShipment),
            None => vec![self.row(key, None, 0, Outcome::UnknownShipment, false)],
        }
    }

    fn why_not_goods(&self, action: &Action) -> Option<Outcome> {
        let (at, becomes, version): (&LevelId, i64, Option<i64>) = match action {
            Action::Receive { .. } => return None,
            Action::Set { at, expected_version: None, .. } if !self.levels.contains_key(at) => {
                return None;
            }
            Action::SetLimits { at, .. } | Action::Freeze { at } | Action::Unfreeze { at } => {
                return (!self.levels.contains_key(at)).then_some(Outcome::UnknownLevel);
            }
            Action::Adjust { at, delta, expected_version, .. } => {
                (at, self.on_hand(at) + delta, *expected_version)
            }
            Action::Set { at, on_hand, expected_version, .. } => (at, *on_hand, *expected_version),
            Action::Transfer { from, quantity, .. } => (from, self.on_hand(from) - quantity, None),
            _ => unreachable!("not about goods"),
        };
        let Some(level) = self.levels.get(at) else { return Some(Outcome::UnknownLevel) };
        if level.frozen && matches!(action, Action::Transfer { .. }) {
            return Some(Outcome::LevelFrozen);
        }
        if version.is_some_and(|version| version != self.versions[at]) {
            return Some(Outcome::VersionConflict);
        }
        let promised = self.there.get(at).map_or(0, |(promised, _)| *promised);
        (becomes < promised).then_some(Outcome::BelowReserved)
    }

    /// What is there.
    fn on_hand(&self, at: &LevelId) -> i64 {
        self.there.get(at).map_or(0, |(_, on_hand)| *on_hand)
    }

    fn apply_goods(&mut self, action: &Action) {
        match action {
            Action::Receive { at, quantity, .. } => self.level(at).on_hand += quantity,
            Action::Adjust { at, delta, .. } => self.level(at).on_hand += delta,
            Action::Set { at, on_hand, .. } => {
                let owed = self.on_hand(at) - self.level(at).on_hand;
                self.level(at).on_hand = on_hand - owed;
            }
            Action::Transfer { from, to, quantity, .. } => {
                self.level(from).on_hand -= quantity;
                self.level(to).on_hand += quantity;
            }
            Action::SetLimits { at, limits } => {
                let level = self.level(at);
                level.safety_stock = limits.safety_stock.unwrap_or(level.safety_stock);
                level.buyer_limit = match limits.buyer_limit {
                    None => level.buyer_limit,
                    Some(0) => None,
                    limit => limit,
                };
                level.backorder_limit = limits.backorder_limit.unwrap_or(level.backorder_limit);
                (level.opens, level.ends) = window(level, limits);
            }
            Action::Freeze { at } => self.level(at).frozen = true,
            Action::Unfreeze { at } => self.level(at).frozen = false,
            _ => unreachable!("not about goods"),
        }
    }
}

/// What is about no reservation tells of none, whatever the key has reserved besides.
fn stateless(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(|row| (row.0, row.1, row.2, State::None, row.4, None, row.6)).collect()
}

/// When a sale opens and ends, once the limits are set.
fn window(level: &Level, limits: &Limits) -> (Option<Micros>, Option<Micros>) {
    let opens = match limits.on_sale_from {
        None => level.opens,
        Some(ALWAYS) => None,
        from => from,
    };
    let ends = match limits.on_sale_until {
        None => level.ends,
        Some(NEVER) => None,
        until => until,
    };
    (opens, ends)
}

fn pairs(lines: &[Line]) -> Vec<(LevelId, i64)> {
    lines.iter().map(|line| (line.at.clone(), line.quantity)).collect()
}

fn same(recorded: &[(LevelId, i64)], asked: &[(LevelId, i64)]) -> bool {
    let (mut recorded, mut asked) = (recorded.to_vec(), asked.to_vec());
    recorded.sort();
    asked.sort();
    recorded == asked
}

fn find<'a>(parts: &'a [Part], at: &LevelId) -> Option<&'a Part> {
    parts.iter().find(|part| part.at == *at)
}
