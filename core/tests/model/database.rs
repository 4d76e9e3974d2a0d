//! A database in memory: loads facts, stores effects, and checks the invariants as stock.verify()
//! does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pg_stock_core::decide::overdue_needed;
use pg_stock_core::facts::NEVER;
use pg_stock_core::standing::Standing;
use pg_stock_core::units;
use pg_stock_core::{
    Action, Answer, Decision, Effects, Entry, Facts, Fault, Hold, Level, LevelId, Lot, LotMove,
    Micros, Name, Operation, Outcome, Request, State, Wait, decide, expire, spoil, will_act,
    with_queues,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub now: Micros,
    pub retake_lapsed: bool,
    pub max_hold: Option<Micros>,
    pub levels: BTreeMap<LevelId, Level>,
    pub holds: BTreeMap<(Name, i32), Hold>,
    pub entries: Vec<Entry>,
    pub bought: BTreeMap<(LevelId, Name), i64>,
    /// The queues of all levels: where each waits, and since when.
    pub waits: BTreeMap<i64, (LevelId, Wait)>,
    /// The lots of levels.
    pub lots: BTreeMap<(LevelId, Name), Lot>,
    /// What lines hold of lots: by key, line and lot.
    pub bound: BTreeMap<(Name, i32, Name), i64>,
    /// Units on the way, by key, from and to, and since when.
    pub shipped: BTreeMap<(Name, LevelId, LevelId), (i64, Micros)>,
}

impl Default for Database {
    fn default() -> Self {
        Database {
            now: 1,
            retake_lapsed: true,
            max_hold: None,
            levels: BTreeMap::new(),
            holds: BTreeMap::new(),
            entries: Vec::new(),
            bought: BTreeMap::new(),
            waits: BTreeMap::new(),
            lots: BTreeMap::new(),
            bound: BTreeMap::new(),
            shipped: BTreeMap::new(),
        }
    }
}

impl Database {
    pub fn run(&mut self, requests: &[Request]) -> Vec<Answer> {
        self.try_run(requests).expect("sound requests")
    }

    /// As [`Database::run`], of requests that may have to be raised as bad input.
    pub fn try_run(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Fault> {
        let decision = with_queues(
            self.facts_for(requests),
            |facts| decide(facts, requests),
            |need| Ok(self.queues(need)),
        );
        if let [request] = requests {
            self.check_look_ahead(request, decision.as_ref().ok());
        }
        let decision = decision?;
        let refused =
            decision.answers.iter().all(|answer| answer.outcome.is_refusal() || answer.replayed);
        assert_eq!(
            decision.effects.is_empty(),
            refused,
            "refusals and replays write nothing, all else does"
        );
        assert!(decision.unpaid.is_empty(), "{:?}", decision.unpaid);
        self.store(&decision.effects);
        if requests.len() == 1 {
            decision.answers.iter().for_each(|answer| self.check_answer(answer));
            self.check_replay(requests, &decision);
        }
        Ok(decision.answers)
    }

    /// What the entries of a key let expect of a request comes true: what will act is refused
    /// nothing and is no repeat (but of an extension that the longest hold cuts short), and what
    /// will not changes nothing, unless it takes again what has lapsed.
    fn check_look_ahead(&self, request: &Request, decision: Option<&Decision>) {
        let entries = self.entries.iter().filter(|entry| entry.key == request.key);
        let history = [(request.key.clone(), entries.cloned().collect())].into();
        let facts = Facts { now: self.now, history, ..Facts::default() };
        let will_act = will_act(facts, std::slice::from_ref(request));
        let Some(decision) = decision else {
            // A level that would exceed its limit is not known from the key.
            assert!(!will_act || matches!(request.action, Action::Return { .. }), "{request:?}");
            return;
        };
        if will_act {
            let cut_short = matches!(request.action, Action::Extend { .. });
            assert!(!decision.is_refused(), "{request:?}");
            assert!(cut_short || !decision.effects.is_empty(), "{request:?}");
        } else if request.action.acts_on_reservation() {
            let late = [Outcome::ConfirmedLate, Outcome::ExtendedLate];
            let is_late = decision.answers.iter().any(|answer| late.contains(&answer.outcome));
            let names_a_lot = !request.action.named_lots().is_empty();
            assert!(is_late || names_a_lot || decision.effects.is_empty(), "{request:?}");
        }
    }

    /// Closes the overdue holds of a level, as a sweeper does.
    pub fn sweep(&mut self, at: &LevelId) {
        let mut facts = self.facts();
        facts.levels.retain(|place, _| place == at);
        let due = self.overdue(at).len();
        let upkeep = with_queues(facts, expire, |need| Ok::<_, Fault>(self.queues(need)));
        let effects = upkeep.expect("nothing exceeds a limit").effects;
        let closed = effects.entries.iter().filter(|entry| entry.operation == Operation::Expire);
        assert_eq!(closed.count(), due, "each overdue hold is closed, and no other");
        self.store(&effects);
    }

    /// The same request at once again is told the same, and changes nothing.
    fn check_replay(&self, requests: &[Request], first: &Decision) {
        let Ok(again) = decide(self.facts_for(requests), requests) else { return };
        if first.effects.is_empty() || !again.answers.iter().all(|answer| answer.replayed) {
            return;
        }
        assert!(again.effects.is_empty(), "{requests:?}");
        let told = |decision: &Decision| {
            let told = |a: &Answer| (a.at.clone(), a.quantity, a.outcome, a.available, a.version);
            let mut told: Vec<_> = decision.answers.iter().map(told).collect();
            told.sort();
            told
        };
        if !matches!(requests[0].action, Action::Extend { .. }) {
            assert_eq!(told(&again), told(first), "{requests:?}");
        }
    }

    /// The heads of queues, as the extension reads them: with so many units, and no further.
    fn queues(&self, need: &BTreeMap<LevelId, i64>) -> HashMap<LevelId, VecDeque<Wait>> {
        let head = |(at, units): (&LevelId, &i64)| {
            let mut head: VecDeque<Wait> = VecDeque::new();
            let mut left = *units;
            for (_, wait) in self.waits.values().filter(|(place, _)| place == at) {
                if left > 0 {
                    left -= wait.quantity;
                    let lapsed = self.overdue(at).into_iter().find(|hold| {
                        !wait.sold && (&hold.key, hold.line) == (&wait.key, wait.line)
                    });
                    head.push_back(Wait { lapsed, ..wait.clone() });
                }
            }
            (at.clone(), head)
        };
        need.iter().map(head).collect()
    }

    /// The same with places that are numbered anew, level by level: what counts is their order.
    pub fn renumbered(mut self) -> Self {
        let mut places: Vec<_> = std::mem::take(&mut self.waits).into_iter().collect();
        places.sort_by(|(a, (at, _)), (b, (other, _))| (at, a).cmp(&(other, b)));
        self.waits = (0..).zip(places.into_iter().map(|(_, place)| place)).collect();
        self
    }

    /// What waits of a line, as its places in the queue say.
    pub fn waiting(&self, key: &Name, line: i32, sold: bool) -> i64 {
        let is_of_it = |wait: &&Wait| (&wait.key, wait.line, wait.sold) == (key, line, sold);
        let waits = self.waits.values().map(|(_, wait)| wait).filter(is_of_it);
        waits.map(|wait| wait.quantity).sum()
    }

    /// What an answer says of units that wait is what the queue says.
    fn check_answer(&self, answer: &Answer) {
        let is_of_it =
            |at: &LevelId, wait: &Wait| Some(at) == answer.at.as_ref() && wait.key == answer.key;
        let counts = |wait: &Wait| wait.sold || answer.state == State::Held;
        let waits = self.waits.values().filter(|(at, wait)| is_of_it(at, wait) && counts(wait));
        let is_of_reservation = answer.state != State::None;
        let backordered: i64 = waits.map(|(_, wait)| wait.quantity).sum();
        let backordered = if is_of_reservation { backordered } else { 0 };
        assert_eq!(answer.backordered, backordered, "{answer:?}");
    }

    fn overdue(&self, at: &LevelId) -> Vec<Hold> {
        let due = |hold: &&Hold| hold.at == *at && hold.expires_at <= self.now;
        let mut holds: Vec<Hold> = self.holds.values().filter(due).cloned().collect();
        holds.sort_by(|a, b| (a.expires_at, &a.key, a.line).cmp(&(b.expires_at, &b.key, b.line)));
        for hold in &mut holds {
            hold.lots = self.lots_of(hold);
            hold.waiting = self.waiting(&hold.key, hold.line, false);
            let is_its =
                |wait: &&Wait| !wait.sold && (&wait.key, wait.line) == (&hold.key, hold.line);
            let place = self.waits.values().map(|(_, wait)| wait).find(is_its);
            hold.promise = place.map_or(0, |place| place.promise);
        }
        holds
    }

    /// The lots that a hold is bound to.
    pub fn lots_of(&self, hold: &Hold) -> Vec<(Name, i64)> {
        let bound =
            self.bound.iter().filter(|((key, line, _), _)| (key, *line) == (&hold.key, hold.line));
        bound.map(|((.., lot), units)| (lot.clone(), *units)).collect()
    }

    /// Books what is past its time, as `expire_lots` does.
    pub fn spoil(&mut self) {
        let mut facts = self.facts();
        facts.overdue.clear();
        facts.levels.values_mut().for_each(|level| level.overdue = 0);
        let effects = spoil(facts).expect("nothing exceeds a limit").effects;
        self.store(&effects);
        let is_left = |level: &Level| level.next_spoil.is_some_and(|next| next <= self.now);
        assert!(!self.levels.values().any(is_left));
    }

    /// As the extension loads them: overdue holds are only looked for from next_due on.
    fn facts(&self) -> Facts {
        let mut facts = Facts {
            now: self.now,
            retake_lapsed: self.retake_lapsed,
            max_hold: self.max_hold,
            ..Facts::default()
        };
        for (at, level) in &self.levels {
            let (mut level, mut holds) = (level.clone(), Vec::new());
            level.overdue = 0;
            if level.next_due <= self.now {
                holds = self
                    .overdue(at)
                    .into_iter()
                    .filter(|hold| hold.expires_at >= level.next_due)
                    .collect();
                level.overdue = holds.iter().map(|hold| hold.quantity).sum();
            }
            for ((place, buyer), quantity) in
                self.bought.iter().filter(|((place, _), _)| place == at)
            {
                let lapsed = holds.iter().filter(|hold| hold.buyer.as_ref() == Some(buyer));
                let counted = quantity - lapsed.map(|hold| hold.quantity).sum::<i64>();
                facts.bought.insert((place.clone(), buyer.clone()), counted);
            }
            facts.overdue.insert(at.clone(), holds.into());
            if level.next_spoil.is_some() {
                let lots = self.lots.iter().filter(|((place, _), _)| place == at);
                facts.lots.insert(at.clone(), lots.map(|(_, lot)| lot.clone()).collect());
            }
            facts.levels.insert(at.clone(), level);
        }
        let mut history: HashMap<Name, Vec<Entry>> = HashMap::new();
        for entry in &self.entries {
            history.entry(entry.key.clone()).or_default().push(entry.clone());
        }
        for key in 0..4 {
            history.entry(Name::from(format!("k{key}").as_str())).or_default();
        }
        facts.history = history;
        facts
    }

    /// The same, with no more of what is overdue than is read for these requests.
    fn facts_for(&self, requests: &[Request]) -> Facts {
        let mut facts = self.facts();
        let need = overdue_needed(&facts, requests);
        for (at, holds) in &mut facts.overdue {
            let mut left = need.get(at).copied().unwrap_or(1);
            holds.retain(|hold| {
                let is_read = left > 0;
                left -= hold.quantity;
                is_read
            });
        }
        facts
    }

    fn store(&mut self, effects: &Effects) {
        self.check_splits(effects);
        self.track(effects);
        self.entries.extend(effects.entries.iter().cloned());
        for (at, change) in &effects.levels {
            let mut level = change.after.clone();
            (level.overdue, level.unbooked) = (0, 0);
            self.levels.insert(at.clone(), level);
        }
        for change in &effects.changed {
            let place = (change.key.clone(), change.line);
            let hold = self.holds.get_mut(&place).expect("the hold that changes");
            assert_eq!(hold.quantity, change.quantity_before);
            match change.after {
                Some((quantity, expires_at)) => {
                    (hold.quantity, hold.expires_at) = (quantity, expires_at)
                }
                None => drop(self.holds.remove(&place)),
            }
        }
        for hold in &effects.opened {
            assert!(
                self.holds.insert((hold.key.clone(), hold.line), hold.clone()).is_none(),
                "a hold opened twice"
            );
        }
        for at in &effects.bounds {
            let holds = self.holds.values().filter(|hold| hold.at == *at);
            let first = holds.map(|hold| hold.expires_at).min().unwrap_or(NEVER);
            self.levels.get_mut(at).expect("a known level").next_due = first;
        }
        for (place, quantity) in &effects.bought {
            *self.bought.entry(place.clone()).or_default() += quantity;
        }
        self.store_lots(effects);
        self.store_waits(effects);
        for (is_new, leg) in effects.shipped.iter().map(|leg| (leg.before == 0, leg)) {
            let place = (leg.key.clone(), leg.from.clone(), leg.to.clone());
            let before = self.shipped.get(&place).map_or(0, |(units, _)| *units);
            assert_eq!((before, before == 0), (leg.before, is_new), "the leg that changes");
            match leg.after {
                0 => drop(self.shipped.remove(&place)),
                units => drop(self.shipped.insert(place, (units, leg.dispatched_at))),
            }
        }
    }

    fn store_lots(&mut self, effects: &Effects) {
        for ((at, name), change) in &effects.lots {
            let place = (at.clone(), name.clone());
            assert_eq!(self.lots.get(&place), change.before.as_ref(), "the lot that changes");
            self.lots.insert(place, change.after.clone());
        }
        for ((key, line, lot), by) in &effects.held_lots {
            let place = (key.clone(), *line, lot.clone());
            let units = self.bound.entry(place.clone()).or_default();
            *units += by;
            assert!(*units >= 0, "{place:?}");
            if *units == 0 {
                self.bound.remove(&place);
            }
        }
    }

    /// What held units of a level is bound to the lot without a name when it begins to have lots.
    fn track(&mut self, effects: &Effects) {
        for at in &effects.tracked {
            for hold in self.holds.values().filter(|hold| hold.at == *at) {
                let there = hold.quantity - self.waiting(&hold.key, hold.line, false);
                if there > 0 {
                    self.bound.insert((hold.key.clone(), hold.line, Name::default()), there);
                }
            }
        }
    }

    /// What is there is given first, but not before those who wait; what has not come is taken back
    /// first.
    fn check_splits(&self, effects: &Effects) {
        let mut levels = self.levels.clone();
        let mut lots = self.lots.clone();
        for (place, entry) in effects.entries.iter().enumerate() {
            let Some(at) = &entry.at else { continue };
            let level = levels.entry(at.clone()).or_default();
            level.unbooked = spoiled(&lots, at, level.min_life, self.now);
            let standing = || {
                let earlier = self.entries.iter().chain(&effects.entries[..place]);
                let of_key: Vec<&Entry> = earlier.filter(|other| other.key == entry.key).collect();
                Standing::at(of_key, self.now).line(at).cloned().expect("its own line")
            };
            match entry.operation {
                Operation::Reserve => {
                    // What is overdue comes before what is not there.
                    let is_closed =
                        |hold: &Hold| effects.changed.iter().any(|change| change.key == hold.key);
                    let overdue = self.overdue(at);
                    let left = overdue.iter().filter(|hold| !is_closed(hold));
                    let left: i64 = left.map(|hold| self.worth(hold)).sum();
                    // What must lie in certain lots never waits.
                    let is_narrow = entry.lot.is_some() || entry.min_life.is_some();
                    for there in [level.unpromised(), level.unpromised() + left] {
                        let there = there.clamp(0, entry.quantity);
                        let there = if is_narrow { entry.quantity } else { there };
                        assert_eq!(entry.reserved_delta, there, "{entry:?} on {level:?}");
                    }
                }
                Operation::Confirm if entry.promised() > 0 => {
                    let there = level.unpromised() + level.safety_stock;
                    assert_eq!(-entry.on_hand_delta, there.clamp(0, entry.quantity), "{entry:?}");
                }
                Operation::Supply if entry.reserved_delta > 0 => {
                    let deadline = standing().deadline;
                    assert!(deadline > self.now, "what has lapsed is not paid: {entry:?}");
                }
                Operation::Release => {
                    assert_eq!(
                        entry.waiting_delta,
                        -standing().waiting.min(entry.quantity),
                        "{entry:?}"
                    );
                }
                Operation::Return => {
                    assert_eq!(
                        entry.waiting_delta,
                        -standing().owed().min(entry.quantity),
                        "{entry:?}"
                    );
                }
                _ => {}
            }
            self.check_picks(&lots, level, entry, effects);
            level.on_hand += entry.on_hand_delta;
            level.reserved += entry.reserved_delta;
            level.waiting += entry.waiting_delta;
            level.unsellable += entry.unsellable_delta;
            level.safety_stock = entry.safety_stock.unwrap_or(level.safety_stock);
            if entry.operation == Operation::SetLimits {
                level.min_life = entry.min_life.unwrap_or(level.min_life);
            }
            follow(&mut lots, level, entry, effects);
        }
    }

    /// What is promised of lots is what expires first of those that may be promised, and an entry's
    /// lots add up to what it does.
    fn check_picks(
        &self,
        lots: &BTreeMap<(LevelId, Name), Lot>,
        level: &Level,
        entry: &Entry,
        effects: &Effects,
    ) {
        let at = entry.at.as_ref().expect("a level");
        let sum = |by: fn(&LotMove) -> i64| entry.lots.iter().map(by).sum::<i64>();
        let has_lots = lots.keys().any(|(place, _)| place == at);
        let relabels = [Operation::TrackLots, Operation::Spoil].contains(&entry.operation);
        if has_lots && !relabels {
            assert_eq!(sum(|moved| moved.on_hand), entry.on_hand_delta, "{entry:?}");
            assert_eq!(sum(|moved| moved.reserved), entry.reserved_delta, "{entry:?}");
        }
        let anew = match entry.operation {
            Operation::Reserve | Operation::Supply => true,
            Operation::Confirm | Operation::Extend => entry.promised() > 0,
            _ => false,
        };
        if !has_lots || !anew {
            return;
        }
        let taken = |moved: &LotMove| moved.reserved.max(-moved.on_hand);
        let first = |other: &&Entry| {
            other.operation == Operation::Reserve
                && (&other.key, &other.at) == (&entry.key, &entry.at)
        };
        let first = self.entries.iter().chain(&effects.entries).find(first).expect("reserved");
        // What waits asks for no certain lot.
        let asked = (entry.operation != Operation::Supply).then_some(first);
        let min_life = asked.and_then(|first| first.min_life).unwrap_or(0).max(level.min_life);
        let lot = asked.and_then(|first| first.lot.as_ref());
        let mut ranked: Vec<&Lot> =
            lots.iter().filter(|((place, _), _)| place == at).map(|(_, lot)| lot).collect();
        ranked.sort_by_key(|lot| (lot.best_before.unwrap_or(NEVER), lot.name.clone()));
        let mut left = entry.lots.iter().map(taken).sum::<i64>();
        let mut expected = Vec::new();
        for known in ranked {
            let may = known.best_before.is_none_or(|date| date - min_life > self.now);
            let may = may && !known.frozen && !known.spoiled;
            if may && lot.is_none_or(|lot| *lot == known.name) {
                let part = left.min(known.on_hand - known.reserved);
                left -= part;
                expected.extend((part > 0).then(|| (known.name.clone(), part)));
            }
        }
        let picked: Vec<_> =
            entry.lots.iter().map(|moved| (moved.lot.clone(), taken(moved))).collect();
        assert_eq!((picked, left), (expected, 0), "{entry:?} of {lots:?}");
    }

    fn store_waits(&mut self, effects: &Effects) {
        let supplied: BTreeSet<(Name, i32)> = (effects.entries.iter())
            .filter(|entry| entry.operation == Operation::Supply)
            .map(|entry| (entry.key.clone(), entry.line))
            .collect();
        let mut paid: BTreeMap<LevelId, i64> = BTreeMap::new();
        let place_of = |waits: &BTreeMap<i64, (LevelId, Wait)>, key: &Name, line, sold, promise| {
            let id = (key, line, sold, promise);
            let is_it = |wait: &Wait| (&wait.key, wait.line, wait.sold, wait.promise) == id;
            waits.iter().find(|(_, (_, wait))| is_it(wait)).map(|(place, _)| *place)
        };
        let before = self.waits.clone();
        let mut last_places = BTreeSet::new();
        for change in &effects.waits {
            let found =
                place_of(&self.waits, &change.key, change.line, change.sold, change.promise);
            let quantity = found.map_or(0, |place| self.waits[&place].1.quantity);
            assert_eq!(quantity, change.before, "the place that changes: {change:?}");
            let last = self.waits.keys().last().map_or(0, |place| place + 1_000);
            let held = place_of(&before, &change.key, change.line, false, change.promise);
            let place = found.unwrap_or(match change.inherits {
                true => held.expect("a place to inherit") - 1,
                false => last,
            });
            if found.is_none() && !change.inherits {
                last_places.insert(place);
            }
            if supplied.contains(&(change.key.clone(), change.line)) {
                let furthest = paid.entry(change.at.clone()).or_insert(place);
                *furthest = (*furthest).max(place);
            }
            let (key, line, sold) = (change.key.clone(), change.line, change.sold);
            let (quantity, promise) = (change.after, change.promise);
            let wait = Wait { key, line, quantity, sold, promise, lapsed: None };
            match change.after {
                0 => drop(self.waits.remove(&place)),
                _ => drop(self.waits.insert(place, (change.at.clone(), wait))),
            }
        }
        // Nobody is passed over. (Who took a last place came later, whatever its number is here:
        // that of a place which was given up may be given out again.)
        for (at, furthest) in paid {
            let earlier = self.waits.range(..furthest);
            let is_over = |(place, (level, wait)): &(&i64, &(LevelId, Wait))| {
                *level == at
                    && !last_places.contains(*place)
                    && !supplied.contains(&(wait.key.clone(), wait.line))
            };
            assert_eq!(earlier.clone().find(is_over), None, "paid up to {furthest}");
        }
    }

    /// What has become of a reservation does not depend on the order in which its entries are read.
    fn check_standings(&self) {
        let mut history: BTreeMap<&Name, Vec<&Entry>> = BTreeMap::new();
        for entry in &self.entries {
            history.entry(&entry.key).or_default().push(entry);
        }
        for entries in history.into_values() {
            let in_order = Standing::at(entries.clone(), self.now);
            let reversed: Vec<&Entry> = entries.into_iter().rev().collect();
            let mut reversed = Standing::at(reversed, self.now);
            reversed.lines.sort_by_key(|line| line.line);
            assert_eq!(in_order, reversed);
        }
    }

    /// The lots of a level are what it has, and what lines hold is bound to them.
    fn check_lots(&self, at: &LevelId, level: &Level) {
        let lots = || self.lots.iter().filter(|((place, _), _)| place == at).map(|(_, lot)| lot);
        let unsellable = self.entries.iter().filter(|entry| entry.at.as_ref() == Some(at));
        let unsellable: i64 = unsellable.map(|entry| entry.unsellable_delta).sum();
        assert_eq!(level.unsellable, unsellable, "{at:?}");
        if level.next_spoil.is_none() {
            assert_eq!((lots().count(), unsellable), (0, 0), "{at:?}");
            return;
        }
        let sum = |by: fn(&Lot) -> i64| lots().map(by).sum::<i64>();
        assert_eq!(sum(|lot| lot.on_hand), level.on_hand, "{at:?}");
        assert_eq!(sum(|lot| lot.reserved), level.reserved, "{at:?}");
        let booked = lots().filter(|lot| lot.frozen || lot.spoiled);
        assert_eq!(booked.map(Lot::free).sum::<i64>(), level.unsellable, "{at:?}");
        let due = lots().filter_map(|lot| lot.due(level.min_life)).min().unwrap_or(NEVER);
        assert_eq!(level.next_spoil, Some(due), "{at:?}");
        for lot in lots() {
            assert!(0 <= lot.reserved && lot.reserved <= lot.on_hand, "{lot:?}");
            let holds = self.bound.iter().filter(|((key, line, name), _)| {
                *name == lot.name
                    && self.holds.get(&(key.clone(), *line)).is_some_and(|h| h.at == *at)
            });
            assert_eq!(holds.map(|(_, units)| units).sum::<i64>(), lot.reserved, "{at:?} {lot:?}");
        }
        for hold in self.holds.values().filter(|hold| hold.at == *at) {
            let there = hold.quantity - self.waiting(&hold.key, hold.line, false);
            let lots = self.lots_of(hold);
            assert_eq!(lots.iter().map(|(_, units)| units).sum::<i64>(), there, "{hold:?}");
            let entries = self.entries.iter().filter(|entry| entry.key == hold.key);
            let standing = Standing::at(entries.collect::<Vec<_>>(), self.now);
            let mut told = standing.line(at).expect("its line").held_lots.clone();
            let left = there - units::total(&told);
            units::add(&mut told, &Name::default(), left);
            told.sort();
            assert_eq!(told, lots, "{hold:?}");
        }
    }

    /// What a hold is worth to a buyer: not what it has of lots that may not be promised.
    fn worth(&self, hold: &Hold) -> i64 {
        let min_life = self.levels[&hold.at].min_life;
        let is_worthless = |lot: &Lot| !lot.may_be_promised(self.now, min_life);
        let worthless = self.lots_of(hold).into_iter().filter(|(name, _)| {
            self.lots.get(&(hold.at.clone(), name.clone())).is_some_and(is_worthless)
        });
        hold.quantity - worthless.map(|(_, units)| units).sum::<i64>()
    }

    /// What may be promised of a level, by its tables alone: in these lots, and in all.
    pub fn promisable(&self, at: &LevelId, lot: Option<&Name>, min_life: Micros) -> (i64, i64) {
        let level = &self.levels[at];
        let in_force =
            |key: &Name, line: i32| self.holds[&(key.clone(), line)].expires_at > self.now;
        let waiting = self
            .waits
            .values()
            .filter(|(place, wait)| place == at && (wait.sold || in_force(&wait.key, wait.line)));
        let waiting: i64 = waiting.map(|(_, wait)| wait.quantity).sum();
        let free_in = |min_life: Micros, lot: Option<&Name>| {
            if level.next_spoil.is_none() {
                let holds = self.holds.values().filter(|h| h.at == *at && h.expires_at > self.now);
                let there = |hold: &Hold| hold.quantity - self.waiting(&hold.key, hold.line, false);
                return level.on_hand - holds.map(there).sum::<i64>();
            }
            let lots = self.lots.values().zip(self.lots.keys()).filter(|(known, (place, _))| {
                place == at
                    && lot.is_none_or(|lot| *lot == known.name)
                    && known.may_be_promised(self.now, min_life)
            });
            let free = |known: &Lot| {
                let held = self.bound.iter().filter(|((key, line, name), _)| {
                    let hold = &self.holds[&(key.clone(), *line)];
                    *name == known.name && hold.at == *at && hold.expires_at > self.now
                });
                known.on_hand - held.map(|(_, units)| units).sum::<i64>()
            };
            lots.map(|(known, _)| free(known)).sum()
        };
        let unpromised = free_in(level.min_life, None) - level.safety_stock - waiting;
        match lot.is_some() || min_life > 0 {
            true if level.next_spoil.is_none() => (unpromised, unpromised),
            true => (free_in(level.min_life.max(min_life), lot).min(unpromised), unpromised),
            false => (unpromised + level.backorder_limit, unpromised),
        }
    }

    pub fn check(&self) {
        for (at, level) in &self.levels {
            let entries =
                || self.entries.iter().filter(|e| e.at.as_ref() == Some(at) && e.changes_level());
            let holds = || self.holds.values().filter(|hold| hold.at == *at);
            assert!(level.is_sound(), "{at:?} {level:?}");
            assert_eq!(
                level.on_hand,
                entries().map(|entry| entry.on_hand_delta).sum::<i64>(),
                "on_hand {at:?}"
            );
            assert_eq!(
                level.reserved,
                entries().map(|entry| entry.reserved_delta).sum::<i64>(),
                "reserved {at:?}"
            );
            let there = |hold: &Hold| hold.quantity - self.waiting(&hold.key, hold.line, false);
            assert_eq!(level.reserved, holds().map(there).sum::<i64>(), "holds {at:?}");
            assert!(holds().all(|hold| there(hold) >= 0), "{at:?}");
            let moved = entries().map(|entry| entry.waiting_delta).sum::<i64>();
            assert_eq!(level.waiting, moved, "waiting {at:?}");
            let waits = self.waits.values().filter(|(place, _)| place == at);
            assert_eq!(level.waiting, waits.map(|(_, wait)| wait.quantity).sum::<i64>(), "{at:?}");
            let unbooked = spoiled(&self.lots, at, level.min_life, self.now);
            let payable = Level { unbooked, ..level.clone() }.payable();
            assert_eq!(payable, 0, "what is there is given to those who wait: {level:?}");
            self.check_lots(at, level);
            let moved = entries().map(|entry| entry.in_transit_delta).sum::<i64>();
            assert_eq!(level.in_transit, moved, "in_transit {at:?}");
            let bound = self.shipped.iter().filter(|((.., to), _)| to == at);
            let bound = bound.map(|(_, (units, _))| units).sum::<i64>();
            assert_eq!(level.in_transit, bound, "shipped to {at:?}");
            assert_eq!(level.version, entries().count() as i64, "version {at:?}");
            let first = holds().map(|hold| hold.expires_at).min().unwrap_or(NEVER);
            assert_eq!(level.next_due, first, "next_due {at:?}");
            let (mut on_hand, mut reserved) = (0, 0);
            for (entry, version) in entries().zip(1..) {
                (on_hand, reserved) =
                    (on_hand + entry.on_hand_delta, reserved + entry.reserved_delta);
                assert_eq!(
                    (entry.version, entry.on_hand_after, entry.reserved_after),
                    (version, on_hand, reserved)
                );
            }
        }
        self.check_standings();
        assert!(self.bought.values().all(|quantity| *quantity >= 0), "{:?}", self.bought);
        let mut claims: Vec<_> = self.entries.iter().map(claim).collect();
        claims.sort();
        let count = claims.len();
        claims.dedup();
        assert_eq!(claims.len(), count, "one key does one thing once");
    }
}

/// Free units past their time that are not booked yet.
fn spoiled(
    lots: &BTreeMap<(LevelId, Name), Lot>,
    at: &LevelId,
    min_life: Micros,
    now: Micros,
) -> i64 {
    let of_level = lots.iter().filter(|((place, _), _)| place == at).map(|(_, lot)| lot);
    of_level.filter(|lot| lot.due(min_life).is_some_and(|due| due <= now)).map(Lot::free).sum()
}

/// Lots after an entry.
fn follow(
    lots: &mut BTreeMap<(LevelId, Name), Lot>,
    level: &Level,
    entry: &Entry,
    effects: &Effects,
) {
    let at = entry.at.as_ref().expect("a level");
    for moved in &entry.lots {
        let place = (at.clone(), moved.lot.clone());
        let Some(known) = lots.get(&place).or(effects.lots.get(&place).map(|lot| &lot.after))
        else {
            continue;
        };
        let mut lot = known.clone();
        if !lots.contains_key(&place) {
            (lot.on_hand, lot.reserved) = (0, 0);
        }
        lot.on_hand += moved.on_hand;
        lot.reserved += moved.reserved;
        if entry.operation == Operation::Spoil {
            lot.spoiled = true;
        }
        lots.insert(place, lot);
    }
    match (entry.operation, &entry.lot) {
        (Operation::FreezeLot | Operation::UnfreezeLot, Some(name)) => {
            if let Some(lot) = lots.get_mut(&(at.clone(), name.clone())) {
                lot.frozen = entry.operation == Operation::FreezeLot;
            }
        }
        (Operation::SetLimits, _) if entry.min_life.is_some() => {
            for (_, lot) in lots.iter_mut().filter(|((place, _), _)| place == at) {
                lot.spoiled = lot.spoils_at(level.min_life) <= entry.recorded_at;
            }
        }
        _ => {}
    }
}

/// The unique key of the ledger: a cancellation takes the place of the reserve it forestalls.
fn claim(entry: &Entry) -> (Name, Operation, Name, i32) {
    let operation =
        if entry.operation == Operation::Cancel { Operation::Reserve } else { entry.operation };
    (entry.key.clone(), operation, entry.operation_key.clone(), entry.line)
}
