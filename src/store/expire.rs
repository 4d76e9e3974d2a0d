//! The sweep: gives overdue holds back. Correctness never needs it, for an overdue hold blocks no
//! buyer. (Who waits for what is not there yet gets the units of a lapsed hold with the sweep, or
//! when somebody needs them before.)
//!
//! Candidates are found by a plain read of `hold_expiry`, their levels locked in order, in ever
//! larger handfuls, and all that is overdue on each closed under that lock, by the same decision
//! and the same store as everything else. Visiting a level once for all its holds, instead of
//! taking holds strictly by deadline, made it five times faster (measured once: 20,000 to 98,000 a
//! second; `make bench-expiry` gives today's rate). Four things keep it going for ever:
//!
//! - It starts where it stopped ([`Progress::mark`]), so that what an old snapshot keeps alive of
//!   closed holds is not read again and again. At the start of a session, after an abort of the
//!   transaction or of a savepoint, and when the clock stepped back it looks at everything; hourly,
//!   too, for a transaction that took longer than its hold's time to live commits below the mark.
//! - A level that somebody has locked is passed over, and remembered. From the third time on it is
//!   waited for, briefly: one level in a call, before any lock is held, so that nothing can
//!   deadlock with it.
//! - A hold that cannot be closed is set aside with its error, and tried again with growing pauses.
//!   It is found by halving the batch; errors that speak of the moment and not of a hold (classes
//!   25, 40, 53, 55, 57, 58) end the call.
//! - What it did is logged, and the log has a bound.
//!
//! While a dump is being restored nothing is swept: the ledger's sequence is set last, and no hold
//! is made without it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use pg_stock_core::facts::{ALWAYS, NEVER};
use pg_stock_core::limits::SECOND;
use pg_stock_core::{
    Facts, Hold, Level, LevelId, Micros, Name, Operation, expire as decide_expiry,
};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use super::access::{Access, names};
use super::clock::now;
use super::datum::{Row, bytes, int, line, text, time, word};
use super::notify::storable;
use super::rows::{hold, level_id};
use super::run::refuse_where_distributed;
use super::setback::Setback;
use super::subtransaction::{self, Caught};
use super::{load, lots, sql, write};
use crate::error::Error;
use crate::{settings, standby};

/// How often everything is looked at: a hold whose transaction took longer than its time to live
/// lies below the mark.
const FULL_LOOK_INTERVAL: Micros = 3_600 * SECOND;
/// How long a level is waited for.
const LOCK_WAIT_MAX_MS: i32 = 1_000;
/// A level is waited for once it was passed over this often, then twice, four times … as often.
const PASSED_OVER_MIN: u32 = 3;
/// How many levels are visited at first; each further visit takes twice as many.
const CHUNK_LEVELS_MIN: usize = 16;
/// How many pages of levels are looked at in one sweep, as long as all of them are locked.
const PAGES_MAX: usize = 100;
/// How many levels that were passed over are tried again in one sweep.
const PENDING_MAX: usize = 500;
/// SQLSTATE classes that speak of the moment and not of a hold: transactions, resources, operators,
/// the system.
const PASSING_CLASSES: [&str; 6] = ["25", "40", "53", "55", "57", "58"];

/// What one sweep did.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Holds closed.
    pub holds: i64,
    /// Units in them.
    pub units: i64,
    /// Levels passed over because somebody has them locked.
    pub busy: usize,
    /// Holds set aside because they could not be closed.
    pub errors: i64,
    /// The text of the first of these errors.
    pub message: Option<String>,
    /// The next deadline; not later than now where holds are due already; [`NEVER`] where nothing
    /// is held.
    pub next_due: Micros,
    /// When a hold that was set aside is tried again; [`NEVER`] if there is none.
    pub retry_at: Micros,
}

/// How far this session's sweeps have come.
#[derive(Default)]
struct Progress {
    /// When everything was looked at last; `None`: not yet.
    looked_at_all: Option<Micros>,
    /// Every hold with an earlier deadline was dealt with, or its level is in `pending`, or it was
    /// set aside.
    mark: Micros,
    /// No hold is due between the mark and this moment, but for those that the caller is told of.
    quiet_until: Micros,
    /// Levels that may have overdue holds below the mark, and how often they were passed over.
    pending: BTreeMap<LevelId, u32>,
}

thread_local! {
    static PROGRESS: RefCell<Progress> = RefCell::default();
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Closes up to `most` overdue holds.
///
/// `told` is for a caller who hears of every hold with an early deadline that is committed: the
/// earliest of them since the last sweep ([`NEVER`]: none). Others pass `None`.
pub fn expire(most: usize, told: Option<Micros>) -> Result<Swept, Error> {
    standby::refuse_changes()?;
    refuse_where_distributed()?;
    watch_for_aborts();
    // Taken, and put back at the end only: after an error the next sweep looks at everything.
    let mut progress = PROGRESS.take();
    let swept = sweep(&mut progress, most, told)?;
    // SAFETY: a variable of the transaction.
    let sees_all = unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 };
    // An older snapshot does not show every hold below the mark.
    if sees_all {
        PROGRESS.set(progress);
    }
    Ok(swept)
}

/// Lets the next sweep look at everything.
pub fn forget() {
    PROGRESS.set(Progress::default());
}

fn sweep(progress: &mut Progress, most: usize, told: Option<Micros>) -> Result<Swept, Error> {
    let started = now();
    let all = progress.begin(started, told);
    if all && is_restoring()? || is_subscribed()? {
        *progress = Progress::default();
        return Ok(Swept { next_due: NEVER, retry_at: NEVER, ..Swept::default() });
    }
    if all {
        raise_sequences()?;
    }
    let retry = sql::RETRY_LEVELS.query(&[time(started), int(most as i64)], level_due)?;
    let mut swept = Swept::default();
    wait_for_stubborn(progress, &mut swept)?;
    let mut levels = in_turn(progress, retry);
    let mut full = false;
    // A page of levels that are all locked keeps the next from nothing. (Nothing is held then: no
    // lock of ours is kept longer for it.)
    for _ in 0..PAGES_MAX {
        let page = due_holds(progress, started, most)?;
        full = page.len() >= most;
        let until = page.last().map_or(started, |(_, due)| if full { *due } else { started });
        levels.extend(page);
        let levels = distinct(std::mem::take(&mut levels));
        let left = close_in_chunks(progress, &levels, started, most, &mut swept)?;
        // What was not reached is found again from its earliest deadline on.
        progress.mark =
            levels[left..].iter().map(|(_, due)| *due).find(|due| *due < NEVER).unwrap_or(until);
        full |= left < levels.len();
        if !full || swept.holds + swept.errors > 0 {
            break;
        }
    }
    let more = full || !progress.pending.is_empty();
    find_next(progress, &mut swept, started, told.filter(|_| !more && !all))?;
    if more {
        swept.next_due = swept.next_due.min(started);
    }
    if all {
        tidy(started)?;
    }
    if all || swept.holds > 0 || swept.errors > 0 {
        log(started, &swept)?;
    }
    Ok(swept)
}

impl Progress {
    /// Decides whether to look at everything, and forgets what is then found anew.
    fn begin(&mut self, started: Micros, told: Option<Micros>) -> bool {
        let due = |last: Micros| started >= last.saturating_add(FULL_LOOK_INTERVAL);
        // A mark in the future: the clock was stepped back.
        let all = self.looked_at_all.is_none_or(due) || started < self.mark;
        if all {
            *self = Progress {
                looked_at_all: Some(started),
                mark: ALWAYS,
                quiet_until: ALWAYS,
                ..Progress::default()
            };
        }
        let told = told.unwrap_or(NEVER);
        self.mark = self.mark.min(told);
        self.quiet_until = self.quiet_until.min(told);
        all
    }
}

/// True while a dump is being restored: it sets the ledger's sequence last, and no hold is made
/// without it. The ledger entries of what would be swept may not be there yet.
pub fn is_restoring() -> Result<bool, Error> {
    Ok(sql::RESTORING.query(&[], |row| row.flag(0))?.contains(&true))
}

/// Raises the sequences where logical replication or a restore by hand has left them behind:
/// positions would be handed out again.
fn raise_sequences() -> SpiResult<()> {
    let raised = [
        ("ledger_position_seq", "the ledger", &sql::RAISE_SEQUENCE),
        ("waiting_position_seq", "the queues", &sql::RAISE_PLACES),
    ];
    for (sequence, table, statement) in raised {
        for position in statement.query(&[], |row| row.int(0))? {
            let text = format!("pg_stock has raised the sequence stock.{sequence} to {position}");
            let hint = format!(
                "It was behind {table}. Set it with setval() where tables are filled by other \
                 means than pg_dump."
            );
            ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, text, hint);
        }
    }
    Ok(())
}

/// True while a subscription fills the tables: the holds are the publisher's to end, and what we
/// wrote would be in the way of what it sends.
pub fn is_subscribed() -> Result<bool, Error> {
    Ok(sql::SUBSCRIBED.query(&[], |row| row.flag(0))?.contains(&true))
}

/// The levels of the holds that are due next, with their deadlines, earliest first. Levels that are
/// pending and holds that were set aside are looked after elsewhere.
fn due_holds(
    progress: &Progress,
    started: Micros,
    most: usize,
) -> SpiResult<Vec<(LevelId, Micros)>> {
    let args = [time(progress.mark), time(started), int(most as i64)];
    sql::DUE_HOLDS.query_each(&args, &names(progress.pending.keys()), level_due)
}

/// The levels to visit before those that are due by their deadlines: those of holds that were set
/// aside and are tried again, and some of those that are pending, each in its turn. What is pending
/// lies above the bound of its level; its deadlines are not known here.
fn in_turn(progress: &Progress, retry: Vec<(LevelId, Micros)>) -> Vec<(LevelId, Micros)> {
    let mut pending: Vec<(&LevelId, u32)> =
        progress.pending.iter().map(|(at, times)| (at, *times)).collect();
    pending.sort_by_key(|(_, passed_over)| *passed_over);
    retry
        .into_iter()
        .chain(pending.into_iter().take(PENDING_MAX).map(|(at, _)| (at.clone(), NEVER)))
        .collect()
}

/// Each level once, at its first place.
fn distinct(levels: Vec<(LevelId, Micros)>) -> Vec<(LevelId, Micros)> {
    let mut seen = HashSet::new();
    levels.into_iter().filter(|(at, _)| seen.insert(at.clone())).collect()
}

/// Visits levels in turn, ever more at once, and closes all that is overdue on each, until `most`
/// holds are closed. Gives the place of the first level that was not visited.
fn close_in_chunks(
    progress: &mut Progress,
    levels: &[(LevelId, Micros)],
    started: Micros,
    most: usize,
    swept: &mut Swept,
) -> Result<usize, Error> {
    let (mut place, mut size, mut room) = (0, CHUNK_LEVELS_MIN, most);
    while place < levels.len() && room > 0 {
        let end = levels.len().min(place + size);
        let mut due: BTreeMap<LevelId, Micros> = levels[place..end].iter().cloned().collect();
        let held = lock(progress, &due, swept)?;
        due.retain(|at, _| held.contains(at));
        let holds = overdue_holds(&due, started, room)?;
        room -= holds.len();
        if room == 0 {
            // The list was cut short, nobody knows where: all are looked at again.
            progress.pending.extend(due.keys().map(|at| (at.clone(), 0)));
        }
        close(holds, swept)?;
        (place, size) = (end, size * 2);
    }
    Ok(place)
}

/// Locks what can be locked, and remembers what could not. Nothing is waited for, so that nothing
/// can deadlock with the sweep.
fn lock(
    progress: &mut Progress,
    due: &BTreeMap<LevelId, Micros>,
    swept: &mut Swept,
) -> SpiResult<BTreeSet<LevelId>> {
    let held = sql::LOCK_FREE_LEVELS.query_each(&[], &names(due.keys()), level_id)?;
    let held: BTreeSet<LevelId> = held.into_iter().collect();
    for at in due.keys() {
        if held.contains(at) {
            progress.pending.remove(at);
        } else {
            swept.busy += 1;
            *progress.pending.entry(at.clone()).or_default() += 1;
        }
    }
    Ok(held)
}

/// Waits for a level that was passed over often, while nothing else is held.
fn wait_for_stubborn(progress: &mut Progress, swept: &mut Swept) -> Result<(), Error> {
    let stubborn = progress.pending.iter().find(|(_, passed_over)| is_waited_for(**passed_over));
    let Some(at) = stubborn.map(|(at, _)| at.clone()) else { return Ok(()) };
    // Where there is nothing to lock, somebody deleted the level.
    if wait_for(&BTreeSet::from([at.clone()]))? == Some(0) {
        progress.pending.remove(&at);
        orphans(&at, swept)?;
    }
    Ok(())
}

fn is_waited_for(passed_over: u32) -> bool {
    passed_over.is_multiple_of(PASSED_OVER_MIN) && (passed_over / PASSED_OVER_MIN).is_power_of_two()
}

/// Waits for levels, briefly, and says how many there are; `None` where one stayed locked.
pub fn wait_for(levels: &BTreeSet<LevelId>) -> Result<Option<usize>, Error> {
    let timed_out = |sqlstate: &str| sqlstate == "55P03";
    let waited = subtransaction::attempt(timed_out, || {
        settings::limit_lock_waits(LOCK_WAIT_MAX_MS);
        Access::by_statements().lock(levels).map_err(Setback::from)
    });
    match waited {
        Ok(locked) => Ok(Some(locked.len())),
        Err(Setback::Caught(_)) => Ok(None),
        Err(Setback::Failed(error)) => Err(error),
        Err(Setback::Outrun | Setback::Settled(_)) => unreachable!("a lock decides nothing"),
    }
}

/// Sets the overdue holds of a level that does not exist aside: somebody deleted its row.
fn orphans(at: &LevelId, swept: &mut Swept) -> Result<(), Error> {
    let holds = sql::ORPHANS.query(&[text(&at.sku), text(&at.location), time(now())], |row| {
        (row.name(0), row.line(1))
    })?;
    for (key, line) in holds {
        let error = Error::Corrupted(format!(
            "the hold is on an unknown level (SKU \"{}\" at \"{}\")",
            at.sku, at.location
        ));
        set_aside(&key, line, error.into(), swept)?;
    }
    Ok(())
}

/// Reads the overdue holds of levels that are locked, at most `most`.
fn overdue_holds(
    due: &BTreeMap<LevelId, Micros>,
    started: Micros,
    most: usize,
) -> SpiResult<Vec<Hold>> {
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let levels: Vec<_> =
        due.iter().map(|(at, due)| [text(&at.sku), text(&at.location), time(*due)]).collect();
    sql::OVERDUE_HOLDS.query_each(&[time(started), int(most as i64)], &levels, hold::hold)
}

/// Whether an error with this SQLSTATE comes again where the same is tried again.
pub fn is_lasting(sqlstate: &str) -> bool {
    !PASSING_CLASSES.contains(&&sqlstate[..2])
}

/// Closes holds whose levels are locked. Where that fails, each half is tried by itself, down to
/// the one that is bad.
fn close(mut holds: Vec<Hold>, swept: &mut Swept) -> Result<(), Error> {
    if holds.is_empty() {
        return Ok(());
    }
    match subtransaction::attempt(is_lasting, || close_together(&holds)) {
        Ok(closed) => {
            swept.holds += closed.len() as i64;
            swept.units =
                closed.iter().fold(swept.units, |units, quantity| units.saturating_add(*quantity));
            Ok(())
        }
        Err(setback) if holds.len() == 1 => {
            let hold = &holds[0];
            set_aside(&hold.key, hold.line, setback, swept)
        }
        Err(_) => {
            let rest = holds.split_off(holds.len() / 2);
            close(holds, swept)?;
            close(rest, swept)
        }
    }
}

/// Closes holds, all or none, and gives the units in each. One that is not due after all (the clock
/// was stepped back) stays open.
fn close_together(holds: &[Hold]) -> Result<Vec<i64>, Setback> {
    let ids: BTreeSet<LevelId> = holds.iter().map(|hold| hold.at.clone()).collect();
    // The levels are read without a time: what else is overdue on them is of no interest.
    let access = Access::by_statements();
    let levels: BTreeMap<LevelId, Level> = access.levels(&ids, ALWAYS)?.into_iter().collect();
    let mut holds = holds.to_vec();
    if levels.values().any(|level| level.waiting > 0) {
        access.fill_in_waiting(&mut holds)?;
    }
    lots::fill_in_bound(&mut holds.iter_mut().collect::<Vec<_>>(), &levels)?;
    let mut overdue: HashMap<LevelId, VecDeque<Hold>> = HashMap::new();
    for hold in holds {
        overdue.entry(hold.at.clone()).or_default().push_back(hold);
    }
    let mut facts = Facts { levels, overdue, ..load::moment() };
    lots::fill_in(&access, &mut facts, &[])?;
    let effects = load::with_queues(&access, facts, decide_expiry)?.effects;
    write::locked(&Access::reach(), &effects)?;
    let closed = effects.entries.iter().filter(|entry| entry.operation == Operation::Expire);
    Ok(closed.map(|entry| entry.quantity).collect())
}

fn set_aside(key: &Name, number: i32, setback: Setback, swept: &mut Swept) -> Result<(), Error> {
    let (sqlstate, message) = match setback {
        Setback::Caught(Caught { sqlstate, message }) => (sqlstate, message),
        Setback::Failed(error) => (error.sqlstate(), error.to_string()),
        Setback::Outrun => ("23505".into(), "the ledger has an entry of its end already".into()),
        Setback::Settled(_) => unreachable!("a sweep answers nobody"),
    };
    let message = storable(&message);
    let args = [text(key), line(number), time(now()), word(&sqlstate), bytes(message.as_bytes())];
    sql::SET_ASIDE.execute(&args)?;
    swept.errors += 1;
    swept.message.get_or_insert(storable(&format!("{key}, line {number}: {message}")));
    Ok(())
}

/// Finds out when there is something to do again. Whoever is told of new holds need not read again
/// where none was.
fn find_next(
    progress: &mut Progress,
    swept: &mut Swept,
    started: Micros,
    told: Option<Micros>,
) -> SpiResult<()> {
    let from = if told.is_some() { started.max(progress.quiet_until) } else { started };
    let next = sql::NEXT_DUE.query(&[time(from)], |row| (row.opt_int(0), row.opt_int(1)))?.pop();
    let (due, retry) = next.unwrap_or_default();
    (swept.next_due, swept.retry_at) = (due.unwrap_or(NEVER), retry.unwrap_or(NEVER));
    progress.quiet_until = swept.next_due;
    Ok(())
}

fn log(started: Micros, swept: &Swept) -> SpiResult<()> {
    let message = swept.message.as_deref().and_then(|message| bytes(message.as_bytes()));
    sql::LOG_RUN
        .execute(&[time(started), int(swept.holds), int(swept.units), int(swept.errors), message])
        .map(drop)
}

/// Keeps the log and the errors bounded. Where that fails, holds are given back all the same.
fn tidy(started: Micros) -> Result<(), Error> {
    for statement in [&sql::SUM_UP_RUNS, &sql::FORGET_RUNS, &sql::FORGET_ERRORS] {
        match subtransaction::attempt(is_lasting, || {
            statement.execute(&[time(started)]).map_err(Setback::from)
        }) {
            Ok(_) => {}
            Err(Setback::Caught(Caught { message, .. })) => {
                let text =
                    format!("pg_stock could not tidy what it writes down of expiry: {message}");
                ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, text);
            }
            Err(Setback::Failed(error)) => return Err(error),
            Err(Setback::Outrun | Setback::Settled(_)) => unreachable!("nothing is decided"),
        }
    }
    Ok(())
}

fn level_due(row: Row<'_>) -> (LevelId, Micros) {
    let due = row.int(2);
    (level_id(row), due)
}

/// Forgets how far the sweeps have come where a transaction is rolled back, or prepared: its holds
/// are there again.
fn watch_for_aborts() {
    if !WATCHING.replace(true) {
        // SAFETY: the callbacks have the signatures that PostgreSQL asks for, and live as long as
        // the library.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        forget();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        forget();
    }
}
