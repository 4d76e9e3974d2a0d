//! A database in memory: loads facts, stores effects, and checks the invariants as stock.verify()
//! does.

use std::collections::{BTreeMap, HashMap};

use pg_stock_core::facts::NEVER;
use pg_stock_core::{
    Action, Answer, Decision, Effects, Entry, Facts, Fault, Hold, Level, LevelId, Micros, Name,
    Operation, Outcome, Request, decide, expire, will_act,
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
        let decision = decide(self.facts(), requests);
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
        self.store(&decision.effects);
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
            assert!(is_late || decision.effects.is_empty(), "{request:?}");
        }
    }

    /// Closes the overdue holds of a level, as a sweeper does.
    pub fn sweep(&mut self, at: &LevelId) {
        let mut facts = self.facts();
        facts.levels.retain(|place, _| place == at);
        let due = self.overdue(at).len();
        let effects = expire(facts).expect("nothing exceeds a limit");
        assert_eq!(effects.entries.len(), due, "each overdue hold is closed, and no other");
        self.store(&effects);
    }

    fn overdue(&self, at: &LevelId) -> Vec<Hold> {
        let due = |hold: &&Hold| hold.at == *at && hold.expires_at <= self.now;
        let mut holds: Vec<Hold> = self.holds.values().filter(due).cloned().collect();
        holds.sort_by(|a, b| (a.expires_at, &a.key, a.line).cmp(&(b.expires_at, &b.key, b.line)));
        holds
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

    fn store(&mut self, effects: &Effects) {
        self.entries.extend(effects.entries.iter().cloned());
        for (at, change) in &effects.levels {
            let mut level = change.after.clone();
            level.overdue = 0;
            self.levels.insert(at.clone(), level);
        }
        for hold in &effects.opened {
            assert!(
                self.holds.insert((hold.key.clone(), hold.line), hold.clone()).is_none(),
                "a hold opened twice"
            );
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
        for at in &effects.bounds {
            let holds = self.holds.values().filter(|hold| hold.at == *at);
            let first = holds.map(|hold| hold.expires_at).min().unwrap_or(NEVER);
            self.levels.get_mut(at).expect("a known level").next_due = first;
        }
        for (place, quantity) in &effects.bought {
            *self.bought.entry(place.clone()).or_default() += quantity;
        }
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

    pub fn check(&self) {
        for (at, level) in &self.levels {
            let entries =
                || self.entries.iter().filter(|e| e.at.as_ref() == Some(at) && e.changes_level());
            let holds = || self.holds.values().filter(|hold| hold.at == *at);
            assert!(0 <= level.reserved && level.reserved <= level.on_hand, "{at:?} {level:?}");
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
            assert_eq!(
                level.reserved,
                holds().map(|hold| hold.quantity).sum::<i64>(),
                "holds {at:?}"
            );
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
        assert!(self.bought.values().all(|quantity| *quantity >= 0), "{:?}", self.bought);
        let mut claims: Vec<_> = self.entries.iter().map(claim).collect();
        claims.sort();
        let count = claims.len();
        claims.dedup();
        assert_eq!(claims.len(), count, "one key does one thing once");
    }
}

/// The unique key of the ledger: a cancellation takes the place of the reserve it forestalls.
fn claim(entry: &Entry) -> (Name, Operation, Name, i32) {
    let operation =
        if entry.operation == Operation::Cancel { Operation::Reserve } else { entry.operation };
    (entry.key.clone(), operation, entry.operation_key.clone(), entry.line)
}
