//! The one path: load the facts, decide, store the effects.
//!
//! Everything that changes stock comes through [`run`].
//!
//! **First without a lock.** A request is judged from an unlocked read. Levels are read before the
//! entries of the keys: a key that is unknown afterwards had not changed the level that was read,
//! so a repeat is never told "sold out" by its own first effect. If nothing would change (a
//! refusal, a replay), that is the answer. Two reads more may be needed, overdue holds and buyers'
//! counts, and these come later: a refusal that may rest on them stands only if the levels still
//! have the versions that were read first (then nothing on them changed in between), and is else
//! decided again under the locks. Statements run as ones that may write, so that each sees what
//! those before it did; none takes a transaction id before it writes. A confirm, release, return or
//! extension must read the entries of its key first, to know its levels; where these alone say that
//! it will change something, it is not judged twice but goes on to the locks.
//!
//! **A one-line reserve is stored under a guard.** One UPDATE changes the level if it still has the
//! units. Waiting buyers queue for the row once. If another connection turns out to have used the
//! key meanwhile, the level is put back by the opposite UPDATE (nobody has seen it), and the call
//! starts again. A subtransaction would undo it as well, at the price of a second transaction id
//! for each sale.
//!
//! **Everything else** locks its levels in byte order, reads again with a new snapshot, decides
//! again, and stores. The entries of keys that were new a moment ago are not read again, if the
//! index of the claims is as it was made: should one have been used meanwhile, its claim fails.
//! Only a refusal or a fault claims nothing: then they are read. If a key was taken meanwhile, the
//! call starts again. A level that was created, or a reservation that was made, between the lock
//! and the read was not locked: the call starts again and locks it. As a second wall the UPDATE of
//! locked levels demands the versions that were read.

mod crowd;
pub mod datum;
mod direct;
mod expire;
mod load;
pub mod notify;
mod planner;
pub mod sql;
pub mod statement;
pub mod subtransaction;
mod write;

use std::collections::BTreeSet;

pub use expire::{expire, forget, is_restoring, is_subscribed};
use load::History;
pub use load::now;
use pg_stock_core::standing::Standing;
use pg_stock_core::{Action, Answer, Decision, Facts, Fault, LevelId, Name, Request, decide};
use pgrx::pg_sys;
use pgrx::spi::SpiError;

use crate::error::Error;
use crate::{citus, durable, memory};

/// Registers what PostgreSQL calls back; once, when the library is loaded.
pub fn register() {
    planner::register();
    direct::register();
}

/// How often a call starts again because others changed what it had read; each time it sees more of what they did.
const ATTEMPTS: usize = 100;

/// Why a store did not happen.
enum Setback {
    /// Another connection used the key or created the level: read again with a new snapshot.
    Outrun,
    /// The decision, made under the locks, changes nothing.
    Settled(Vec<Answer>),
    /// PostgreSQL raised an error that was expected.
    Caught(subtransaction::Caught),
    /// The call cannot be answered.
    Failed(Error),
}

impl From<subtransaction::Caught> for Setback {
    fn from(caught: subtransaction::Caught) -> Self {
        Setback::Caught(caught)
    }
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Setback::Failed(error)
    }
}

impl From<SpiError> for Setback {
    fn from(error: SpiError) -> Self {
        Setback::Failed(error.into())
    }
}

impl From<Fault> for Setback {
    fn from(fault: Fault) -> Self {
        Setback::Failed(fault.into())
    }
}

/// Answers requests in order, each all or nothing, and stores what they change. What an answer reports of earlier
/// transactions is durable.
pub fn run(requests: &[Request]) -> Result<Vec<Answer>, Error> {
    refuse_on_standby()?;
    refuse_where_distributed()?;
    let answers = answers_to(requests)?;
    if answers.iter().any(Answer::reports_the_past) {
        durable::flush_before_an_answer()?;
    }
    Ok(answers)
}

/// As [`run`], but requests on keys on which the tables contradict each other are left out; gives their places.
pub fn run_what_is_sound(requests: &[Request]) -> Result<(Vec<Answer>, BTreeSet<usize>), Error> {
    match subtransaction::attempt(is_damage, || run(requests).map_err(Setback::from)) {
        Ok(answers) => return Ok((answers, BTreeSet::new())),
        Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))) => {}
        Err(Setback::Failed(error)) => return Err(error),
        Err(Setback::Outrun | Setback::Settled(_)) => unreachable!("a run has an end"),
    }
    let mut damaged = BTreeSet::new();
    find_damaged(requests, 0, &mut damaged)?;
    let sound = requests.iter().enumerate().filter(|(place, _)| !damaged.contains(place));
    let answers = run(&sound.map(|(_, request)| request.clone()).collect::<Vec<_>>())?;
    Ok((answers, damaged))
}

/// Whether an error with this SQLSTATE says that the tables contradict each other: a constraint, or PostgreSQL's own word.
fn is_damage(sqlstate: &str) -> bool {
    sqlstate.starts_with("23") || sqlstate.starts_with("XX")
}

/// Finds requests that fail by themselves, by halves. Whatever is tried is undone, with its locks.
fn find_damaged(requests: &[Request], first: usize, damaged: &mut BTreeSet<usize>) -> Result<(), Error> {
    let tried = subtransaction::attempt(is_damage, || {
        run(requests)?;
        Err::<(), _>(Setback::Outrun)
    });
    match (tried, requests.len()) {
        (Err(Setback::Outrun), _) => Ok(()),
        (Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))), 1) => {
            damaged.insert(first);
            Ok(())
        }
        (Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))), count) => {
            let (one, other) = requests.split_at(count / 2);
            find_damaged(one, first, damaged)?;
            find_damaged(other, first + count / 2, damaged)
        }
        (Err(Setback::Failed(error)), _) => Err(error),
        (Ok(()) | Err(Setback::Settled(_)), _) => unreachable!("what is tried is undone"),
    }
}

/// A standby would refuse to write; but a refusal writes nothing, and would be judged from what may be out of date.
fn refuse_on_standby() -> Result<(), Error> {
    // SAFETY: reads the state of the server.
    if unsafe { pg_sys::RecoveryInProgress() } { Err(Error::ReadOnly) } else { Ok(()) }
}

/// Citus runs a statement on a distributed table on other nodes, one by one, and does not lock there what must be locked.
fn refuse_where_distributed() -> Result<(), Error> {
    match citus::is_talking().then(direct::distributed).flatten() {
        Some(table) => Err(Error::Distributed(table)),
        None => Ok(()),
    }
}

fn answers_to(requests: &[Request]) -> Result<Vec<Answer>, Error> {
    let reached = direct::Tables::reach();
    let tables = reached.as_ref();
    if let Some(facts) = load::glance(tables, requests)? {
        let decision = decide(facts, requests)?;
        if let Some(answers) = unlocked(tables, decision)? {
            return Ok(answers);
        }
    }
    let (mut levels, history) = load::levels_of(tables, requests)?;
    memory::work_on(levels.len().max(requests.len()));
    let mut keys_are_new = false;
    // Whether all levels that have to be locked are known: the lines of a reservation, or those that a request names and
    // that were there. Then a try that is outrun begins again with the same.
    let mut levels_are_known = !history.is_empty() && history.values().all(|entries| !entries.is_empty());
    if !act_by_their_history(requests, history)? {
        let facts = load::facts(tables, requests, &levels)?;
        let are_new = load::are_keys_new(&facts, requests);
        let outgrown = load::outgrown(&facts, requests, &levels);
        let seen = load::pieced_together(&facts).then(|| facts.levels.clone());
        let decision = decide(facts, requests)?;
        levels_are_known |=
            !is_refused(&decision) && !requests.iter().any(|request| request.action.acts_on_reservation());
        keys_are_new = are_new && !is_refused(&decision) && tables.is_some_and(direct::Tables::has_claims);
        if outgrown {
            levels.extend(load::levels_of(tables, requests)?.0);
        } else if (!is_refused(&decision) || load::unchanged(tables, seen.as_ref())?)
            && let Some(answers) = unlocked(tables, decision)?
        {
            return Ok(answers);
        }
    }
    let may_keep_locks = levels_are_known && may_keep_its_locks(requests);
    for attempt in 0..ATTEMPTS {
        match attempt_locked(tables, requests, &levels, keys_are_new && attempt == 0, may_keep_locks) {
            Ok(answers) | Err(Setback::Settled(answers)) => return Ok(answers),
            Err(Setback::Failed(error)) => return Err(error),
            Err(Setback::Outrun | Setback::Caught(_)) => levels.extend(load::levels_of(tables, requests)?.0),
        }
    }
    Err(Error::Contended)
}

/// Whether requests on reservations change something as far as the entries of their keys tell: then they need not be
/// judged before their levels are locked, for they will hardly be refused.
fn act_by_their_history(requests: &[Request], history: History) -> Result<bool, Error> {
    if !requests.iter().all(|request| request.action.acts_on_reservation()) {
        return Ok(false);
    }
    let facts = Facts { now: load::now(), history, ..Facts::default() };
    Ok(!decide(facts, requests)?.effects.is_empty())
}

fn is_refused(decision: &Decision) -> bool {
    decision.answers.iter().any(|answer| answer.outcome.is_refusal())
}

/// The answers of a decision that was made without locks, if it can stand: it changes nothing, or it is stored under
/// its guard.
fn unlocked(tables: Option<&direct::Tables>, decision: Decision) -> Result<Option<Vec<Answer>>, Error> {
    if decision.effects.is_empty() { Ok(Some(decision.answers)) } else { write::guarded(tables, decision) }
}

/// Decides and stores under the locks of all levels concerned. What is outrun leaves nothing behind.
///
/// A subtransaction would always see to that. But each that writes has a transaction id of its own, and a transaction with
/// more than 64 of them makes every snapshot of the server dearer; so there is one only where something must be undone.
fn attempt_locked(
    tables: Option<&direct::Tables>,
    requests: &[Request],
    levels: &BTreeSet<LevelId>,
    keys_are_new: bool,
    may_keep_locks: bool,
) -> Result<Vec<Answer>, Setback> {
    let judge = || decide_under_locks(tables, requests, levels, keys_are_new);
    let store = |decision: Decision| write::locked(tables, &decision.effects).map(|()| decision.answers);
    if !may_keep_locks {
        return subtransaction::run(|| store(judge()?));
    }
    let decision = judge()?;
    if write::is_outrun_at_once_or_never(&decision.effects) {
        store(decision)
    } else {
        subtransaction::run(|| store(decision))
    }
}

/// Whether a try that is outrun may keep the locks that it has, if its levels are known. A batch, and a transfer to a level
/// that is made meanwhile, may have to lock others first.
fn may_keep_its_locks(requests: &[Request]) -> bool {
    matches!(requests, [request] if !matches!(request.action, Action::Transfer { .. }))
}

/// The decision under the locks of all levels concerned. It changes something.
fn decide_under_locks(
    tables: Option<&direct::Tables>,
    requests: &[Request],
    levels: &BTreeSet<LevelId>,
    keys_are_new: bool,
) -> Result<Decision, Setback> {
    let held = load::lock(tables, levels)?;
    let judge = |keys_are_new| {
        let facts = match keys_are_new {
            true => load::facts_of_new_keys(tables, requests, levels)?,
            false => load::facts(tables, requests, levels)?,
        };
        // A level that was created, or a reservation that was made, after the lock was taken: lock it, too.
        if !facts.levels.keys().all(|at| held.contains(at)) || load::outgrown(&facts, requests, levels) {
            return Err(Setback::Outrun);
        }
        Ok(decide(facts, requests)?)
    };
    let mut decision = judge(keys_are_new);
    // Keys that were new may have been used meanwhile. Their claims will tell; a refusal or a fault would not.
    if keys_are_new && decision.as_ref().map_or(true, is_refused) {
        decision = judge(false);
    }
    let decision = decision?;
    if decision.effects.is_empty() { Err(Setback::Settled(decision.answers)) } else { Ok(decision) }
}

/// Units of a level that may still be promised; `None` for an unknown level.
pub fn available(at: LevelId) -> Result<Option<i64>, Error> {
    let levels = load::read_levels(direct::Tables::reach().as_ref(), &[at].into(), load::now())?;
    Ok(levels.first().map(|(_, level)| level.available()))
}

/// What has become of the reservation of a key by now. What is told is durable.
pub fn standing(key: &Name) -> Result<Standing, Error> {
    let entries = load::history_of(None, key)?;
    durable::flush_before_an_answer()?;
    Ok(Standing::at(&entries, load::now()))
}

/// What has become of the reservations of keys by now, in the order of the keys. What is told is durable.
pub fn standings(keys: &[&Name]) -> Result<Vec<Standing>, Error> {
    let entries = load::histories(None, keys.iter().copied())?;
    durable::flush_before_an_answer()?;
    let (of, now) = (|key| entries.get(key).map(Vec::as_slice).unwrap_or_default(), load::now());
    Ok(keys.iter().map(|key| Standing::at(of(key), now)).collect())
}
