//! The one path: load the facts, decide, store the effects.
//!
//! Everything that changes stock comes through [`run`]. A call is tried in three ways, each dearer
//! than the one before; what one try cannot answer goes on to the next.
//!
//! **At a glance.** A single one-line reserve of a new key, in the plain case, is judged from one
//! read of its level. If it changes nothing, that is the answer; else it is stored under a guard:
//! the change of the level demands that it still has the units. Waiting buyers queue for the row
//! once. If another connection turns out to have used the key meanwhile, the level is put back
//! (nobody has seen it). A subtransaction would undo it as well, at the price of a second
//! transaction id for each sale.
//!
//! (A reserve on a level with lots that has units enough goes to the locks at once.)
//!
//! **Without locks.** A request is judged from an unlocked read. Levels are read before the entries
//! of the keys: a key that is unknown afterwards had not changed the level that was read, so a
//! repeat is never told "sold out" by its own first effect. If nothing would change (a refusal, a
//! replay), that is the answer. Two reads more may be needed, overdue holds and buyers' counts, and
//! these come later: a refusal that may rest on them stands only if the levels still have the
//! versions that were read first (then nothing on them changed in between), and is else decided
//! again under the locks. Statements run as ones that may write, so that each sees what those
//! before it did; none takes a transaction id before it writes. A confirm, release, return or
//! extension must read the entries of its key first, to know its levels; where these say that it
//! [`will_act`], it is not judged here but goes on to the locks.
//!
//! **Under locks.** The call locks its levels in byte order, reads again with a new snapshot,
//! decides again, and stores. If a key was taken meanwhile, its claim fails and the call starts
//! again. A level that was created, or a reservation that was made, between the lock and the read
//! was not locked: the call starts again and locks it. As a second wall the change of locked levels
//! demands the versions that were read. (The entries of keys that were new a
//! moment ago are read again like all. To spare that gained nothing that could be measured: the
//! rate with this read is 1.01 and 1.06 of that without for orders of five lines, by 1 and 16
//! connections, and 1.0 and 0.94 for batches of 200, by 1 and 8; by hand.)

use std::collections::BTreeSet;
use std::time::Instant;

use pg_stock_core::{Action, Answer, Decision, Facts, LevelId, Request, decide, will_act};

use super::access::Access;
use super::clock::now;
use super::load::{self, Glance, History};
use super::setback::Setback;
use super::{direct, subtransaction, write};
use crate::error::Error;
use crate::{citus, durable, memory, standby, stat};

/// How often a call starts again because others changed what it had read; each time it sees more of
/// what they did.
const ATTEMPTS_MAX: usize = 100;

/// Answers requests in order, each all or nothing, and stores what they change. What an answer
/// reports of earlier transactions is durable.
pub fn run(requests: &[Request]) -> Result<Vec<Answer>, Error> {
    standby::refuse_changes()?;
    refuse_where_distributed()?;
    let begin = Instant::now();
    let answers = answers_to(requests)?;
    stat::count(requests, &answers, begin.elapsed());
    if answers.iter().any(Answer::reports_the_past) {
        durable::flush_before_an_answer();
    }
    Ok(answers)
}

/// Citus runs a statement on a distributed table on other nodes, one by one, and does not lock
/// there what must be locked.
pub fn refuse_where_distributed() -> Result<(), Error> {
    match citus::is_talking().then(direct::distributed).flatten() {
        Some(table) => Err(Error::Distributed(table)),
        None => Ok(()),
    }
}

fn answers_to(requests: &[Request]) -> Result<Vec<Answer>, Error> {
    let access = Access::reach();
    match load::glance(&access, requests)? {
        Glance::Plain(facts) => {
            if let Some(answers) = stand(&access, decide(*facts, requests)?)? {
                return Ok(answers);
            }
        }
        Glance::OfLots => return of_lots(access, requests),
        Glance::Unclear => {}
    }
    let (levels, history) = load::levels_of(&access, requests)?;
    memory::work_on(levels.len().max(requests.len()));
    let mut call = Call::new(requests, access, levels, &history);
    let facts = Facts { now: now(), history, ..Facts::default() };
    if !will_act(facts, requests)
        && let Some(answers) = call.without_locks()?
    {
        return Ok(answers);
    }
    call.under_locks()
}

/// A reserve on a level with lots: what is there of which is only told under its lock, so that
/// nothing is judged before.
fn of_lots(access: Access, requests: &[Request]) -> Result<Vec<Answer>, Error> {
    let named = requests.iter().flat_map(|request| request.action.named_levels());
    let levels = named.map(|(at, _)| at.clone()).collect();
    let mut call = Call::new(requests, access, levels, &History::new());
    call.levels_are_known = true;
    call.under_locks()
}

/// The answers of a decision that was made without locks, if it can stand: it changes nothing, or
/// it is stored under its guard.
fn stand(access: &Access, decision: Decision) -> Result<Option<Vec<Answer>>, Error> {
    if decision.effects.is_empty() {
        Ok(Some(decision.answers))
    } else {
        write::guarded(access, decision)
    }
}

/// Requests on their way through the tries, and what is known of them.
struct Call<'r> {
    requests: &'r [Request],
    access: Access,
    /// The levels that are to be locked.
    levels: BTreeSet<LevelId>,
    /// These are all: the lines of a reservation, or those that a request names and that were
    /// there. Then a try that is outrun begins again with the same.
    levels_are_known: bool,
}

impl<'r> Call<'r> {
    fn new(
        requests: &'r [Request],
        access: Access,
        levels: BTreeSet<LevelId>,
        history: &History,
    ) -> Self {
        let levels_are_known =
            !history.is_empty() && history.values().all(|entries| !entries.is_empty());
        Call { requests, access, levels, levels_are_known }
    }

    fn without_locks(&mut self) -> Result<Option<Vec<Answer>>, Error> {
        let (access, requests) = (&self.access, self.requests);
        let facts = load::facts(access, requests, &self.levels)?;
        let is_outgrown = load::outgrown(&facts, requests, &self.levels);
        let seen = load::pieced_together(&facts).then(|| facts.levels.clone());
        let decision = decide(facts, requests)?;
        let is_refused = decision.is_refused();
        if !is_refused {
            self.levels_are_known |=
                !requests.iter().any(|request| request.action.follows_its_key());
        }
        if is_outgrown {
            self.look_again()?;
            return Ok(None);
        }
        if is_refused && !load::unchanged(access, seen.as_ref())? {
            return Ok(None);
        }
        stand(access, decision)
    }

    fn under_locks(&mut self) -> Result<Vec<Answer>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt() {
                Ok(answers) | Err(Setback::Settled(answers)) => return Ok(answers),
                Err(Setback::Failed(error)) => return Err(error),
                Err(Setback::Outrun | Setback::Caught(_)) => self.look_again()?,
            }
        }
        Err(Error::Contended)
    }

    /// Takes in what others have done meanwhile.
    fn look_again(&mut self) -> Result<(), Error> {
        self.levels.extend(load::levels_of(&self.access, self.requests)?.0);
        Ok(())
    }

    /// Decides and stores under the locks of all levels concerned. What is outrun leaves nothing
    /// behind.
    ///
    /// A subtransaction would always see to that. But each that writes has a transaction id of its
    /// own, and a transaction with more than 64 of them makes every snapshot of the server dearer;
    /// so there is one only where something must be undone.
    fn attempt(&self) -> Result<Vec<Answer>, Setback> {
        let store = |decision: Decision| {
            write::locked(&self.access, &decision.effects).map(|()| decision.answers)
        };
        if !self.may_keep_locks() {
            return subtransaction::run(|| store(self.decide_under_locks()?));
        }
        let decision = self.decide_under_locks()?;
        if write::is_outrun_at_once_or_never(&decision.effects) {
            store(decision)
        } else {
            subtransaction::run(|| store(decision))
        }
    }

    /// Whether a try that is outrun may keep the locks that it has. A batch, and a transfer or
    /// dispatch to a level that is made meanwhile, may have to lock others first.
    fn may_keep_locks(&self) -> bool {
        let may_make_others = |request: &Request| {
            matches!(request.action, Action::Transfer { .. } | Action::Dispatch { .. })
        };
        self.levels_are_known && matches!(self.requests, [request] if !may_make_others(request))
    }

    /// The decision under the locks of all levels concerned. It changes something.
    fn decide_under_locks(&self) -> Result<Decision, Setback> {
        let locked = self.access.lock(&self.levels)?;
        let locked: BTreeSet<LevelId> = locked.into_iter().map(|(at, _)| at).collect();
        let facts = load::facts(&self.access, self.requests, &self.levels)?;
        // A level that was created, or a reservation that was made, after the lock was taken: lock
        // it, too.
        let is_locked = facts.levels.keys().all(|at| locked.contains(at));
        if !is_locked || load::outgrown(&facts, self.requests, &self.levels) {
            return Err(Setback::Outrun);
        }
        let decision =
            load::with_queues(&self.access, facts, |facts| decide(facts, self.requests))?;
        if decision.effects.is_empty() {
            Err(Setback::Settled(decision.answers))
        } else {
            Ok(decision)
        }
    }
}
