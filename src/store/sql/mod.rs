//! All SQL text of the engine.
//!
//! Every name is qualified, every statement names SKU and location in its WHERE where it touches a level or a hold,
//! so that the tables can be distributed by SKU. Statements for one line and for many differ: an array statement
//! costs about three times a scalar one when there is one line, and a fraction of it when there are a thousand.
//!
//! | room | whose statements |
//! |---|---|
//! | `requests` | those of a request |
//! | `expiry` | those of the sweep |
//! | `feed` | those of the change feed |

mod expiry;
mod feed;
mod requests;

use pgrx::pg_sys::{
    BOOLARRAYOID, BOOLOID, INT4ARRAYOID, INT4OID, INT8ARRAYOID, INT8OID, Oid, TEXTARRAYOID, TEXTOID,
    TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, XID8ARRAYOID, XID8OID,
};

/// A statement of the engine; its place is the slot of its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Reads one level as it is, and whether a key is known.
    Glance,
    /// Reads one level.
    Level,
    /// Reads levels.
    Levels,
    /// Locks levels in their order.
    LockLevels,
    /// Reads the ledger entries of a key.
    KeyHistory,
    /// Reads the ledger entries of keys.
    History,
    /// Reads overdue holds, enough of each level to cover what is asked.
    Overdue,
    /// Reads what buyers hold and have bought.
    Bought,
    /// Changes one level if it still has the units.
    GuardedUpdate,
    /// Takes a guarded update back.
    UndoGuardedUpdate,
    /// Writes a reserve into the ledger, which claims its key.
    ClaimReserve,
    /// Writes ledger rows, which claim their keys.
    Claim,
    /// Opens one hold.
    OpenHold,
    /// Opens holds.
    OpenHolds,
    /// Closes holds.
    CloseHolds,
    /// Changes units and deadline of holds.
    ChangeHolds,
    /// Creates levels.
    CreateLevels,
    /// Changes levels that are locked.
    ChangeLevels,
    /// Finds the earliest deadline of levels again on which nothing else changes.
    RaiseBounds,
    /// Adds to what buyers hold and have bought.
    AddBought,
    /// Tells whether the data is still being restored.
    Restoring,
    /// Finds the levels of the holds that are due next.
    DueHolds,
    /// Finds the levels of holds that were set aside and are to be tried again.
    RetryLevels,
    /// Locks those levels that nobody else has locked.
    LockFreeLevels,
    /// Reads the overdue holds of levels.
    OverdueHolds,
    /// Reads the overdue holds of a level that does not exist.
    Orphans,
    /// Sets a hold aside that could not be closed.
    SetAside,
    /// Forgets the errors of holds that are no longer overdue.
    ForgetErrors,
    /// Finds the next deadline, and when a hold that was set aside is tried again.
    NextDue,
    /// Writes down what a run did.
    LogRun,
    /// Sums the runs up by the hour that are older than that.
    SumUpRuns,
    /// Removes what is too old to be kept.
    ForgetRuns,
    /// Tells what the moment sees.
    CurrentSnapshot,
    /// Reads the generation of the feed.
    Generation,
    /// Reads and locks the generation of the feed.
    LockGeneration,
    /// Tells the last position of the ledger that was handed out.
    LastPosition,
    /// Begins a generation of the feed.
    BeginGeneration,
    /// Reads the ledger rows of transactions.
    ChangesOf,
    /// Reads the ledger rows of a range of transactions.
    ChangesBetween,
    /// Reads levels as the feed tells them.
    States,
    /// Reads the first levels.
    FirstStates,
    /// Reads the levels after one.
    StatesAfter,
    /// Reads the levels that are in a state to be announced, or were announced to be.
    AlarmingStates,
    /// Reads the alerts that were announced.
    Alerts,
    /// Remembers alerts.
    BeginAlerts,
    /// Forgets alerts.
    EndAlerts,
    /// Sends a message.
    Notify,
    /// Writes down how far the feed was sent.
    Advance,
    /// Writes down why the feed was not sent.
    Fail,
}

impl Statement {
    /// How many statements there are.
    pub const COUNT: usize = Statement::Fail as usize + 1;

    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Statement::Glance => requests::GLANCE,
            Statement::Level => requests::LEVEL,
            Statement::Levels => requests::LEVELS,
            Statement::LockLevels => requests::LOCK_LEVELS,
            Statement::KeyHistory => requests::KEY_HISTORY,
            Statement::History => requests::HISTORY,
            Statement::Overdue => requests::OVERDUE,
            Statement::Bought => requests::BOUGHT,
            Statement::GuardedUpdate => requests::GUARDED_UPDATE,
            Statement::UndoGuardedUpdate => requests::UNDO_GUARDED_UPDATE,
            Statement::ClaimReserve => requests::CLAIM_RESERVE,
            Statement::Claim => requests::CLAIM,
            Statement::OpenHold => requests::OPEN_HOLD,
            Statement::OpenHolds => requests::OPEN_HOLDS,
            Statement::CloseHolds => requests::CLOSE_HOLDS,
            Statement::ChangeHolds => requests::CHANGE_HOLDS,
            Statement::CreateLevels => requests::CREATE_LEVELS,
            Statement::ChangeLevels => requests::CHANGE_LEVELS,
            Statement::RaiseBounds => requests::RAISE_BOUNDS,
            Statement::AddBought => requests::ADD_BOUGHT,
            Statement::Restoring => expiry::RESTORING,
            Statement::DueHolds => expiry::DUE_HOLDS,
            Statement::RetryLevels => expiry::RETRY_LEVELS,
            Statement::LockFreeLevels => expiry::LOCK_FREE_LEVELS,
            Statement::OverdueHolds => expiry::OVERDUE_HOLDS,
            Statement::Orphans => expiry::ORPHANS,
            Statement::SetAside => expiry::SET_ASIDE,
            Statement::ForgetErrors => expiry::FORGET_ERRORS,
            Statement::NextDue => expiry::NEXT_DUE,
            Statement::LogRun => expiry::LOG_RUN,
            Statement::SumUpRuns => expiry::SUM_UP_RUNS,
            Statement::ForgetRuns => expiry::FORGET_RUNS,
            Statement::CurrentSnapshot => feed::CURRENT_SNAPSHOT,
            Statement::Generation => feed::GENERATION,
            Statement::LockGeneration => feed::LOCK_GENERATION,
            Statement::LastPosition => feed::LAST_POSITION,
            Statement::BeginGeneration => feed::BEGIN_GENERATION,
            Statement::ChangesOf => feed::CHANGES_OF,
            Statement::ChangesBetween => feed::CHANGES_BETWEEN,
            Statement::States => feed::STATES,
            Statement::FirstStates => feed::FIRST_STATES,
            Statement::StatesAfter => feed::STATES_AFTER,
            Statement::AlarmingStates => feed::ALARMING_STATES,
            Statement::Alerts => feed::ALERTS,
            Statement::BeginAlerts => feed::BEGIN_ALERTS,
            Statement::EndAlerts => feed::END_ALERTS,
            Statement::Notify => feed::NOTIFY,
            Statement::Advance => feed::ADVANCE,
            Statement::Fail => feed::FAIL,
        }
    }

    /// The types of its parameters.
    pub fn types(self) -> &'static [Oid] {
        const T: Oid = TEXTOID;
        const I: Oid = INT8OID;
        const Z: Oid = TIMESTAMPTZOID;
        const TS: Oid = TEXTARRAYOID;
        const IS: Oid = INT8ARRAYOID;
        const LS: Oid = INT4ARRAYOID;
        const ZS: Oid = TIMESTAMPTZARRAYOID;
        const BS: Oid = BOOLARRAYOID;
        const X: Oid = XID8OID;
        const XS: Oid = XID8ARRAYOID;
        match self {
            Statement::Glance => &[T, T, Z, T],
            Statement::Level => &[T, T, Z],
            Statement::Levels => &[TS, TS, Z],
            Statement::LockLevels => &[TS, TS],
            Statement::KeyHistory => &[T],
            Statement::History => &[TS],
            Statement::Overdue => &[TS, TS, IS, ZS, Z],
            Statement::Bought => &[TS, TS, TS, ZS, Z],
            Statement::GuardedUpdate => &[T, T, I, I, I, Z, Z, I, I, Z, I],
            Statement::UndoGuardedUpdate => &[T, T, I, I, I],
            Statement::ClaimReserve => &[Z, T, INT4OID, T, T, I, I, I, I, I, T, Z, T],
            Statement::Claim => &[TS, TS, TS, LS, TS, TS, IS, IS, IS, IS, IS, IS, IS, TS, ZS, TS, IS, IS, BS, Z, T],
            Statement::OpenHold => &[T, INT4OID, T, T, I, T, Z, Z],
            Statement::OpenHolds => &[TS, LS, TS, TS, IS, TS, ZS, Z],
            Statement::CloseHolds => &[TS, LS, IS],
            Statement::ChangeHolds => &[TS, LS, IS, IS, ZS],
            Statement::CreateLevels => &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z],
            Statement::ChangeLevels => &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z, IS, BS],
            Statement::RaiseBounds => &[TS, TS],
            Statement::AddBought => &[TS, TS, TS, IS],
            Statement::Restoring => &[],
            Statement::DueHolds => &[Z, Z, TS, TS, I],
            Statement::RetryLevels => &[Z, I],
            Statement::LockFreeLevels => &[TS, TS],
            Statement::OverdueHolds => &[TS, TS, ZS, Z, I],
            Statement::Orphans => &[T, T, Z],
            Statement::SetAside => &[T, INT4OID, Z, T, T],
            Statement::ForgetErrors | Statement::NextDue | Statement::SumUpRuns | Statement::ForgetRuns => &[Z],
            Statement::LogRun => &[Z, I, I, I, T],
            Statement::CurrentSnapshot => &[],
            Statement::Generation => &[I, I, I],
            Statement::LockGeneration => &[I, I, I],
            Statement::LastPosition => &[],
            Statement::BeginGeneration => &[I, I, I, I, T, BOOLOID],
            Statement::ChangesOf => &[XS, I],
            Statement::ChangesBetween => &[X, X, I],
            Statement::States => &[TS, TS],
            Statement::FirstStates => &[I],
            Statement::StatesAfter => &[T, T, I],
            Statement::AlarmingStates => &[],
            Statement::Alerts => &[TS, TS],
            Statement::BeginAlerts => &[TS, TS, TS],
            Statement::EndAlerts => &[TS, TS, TS],
            Statement::Notify => &[T, T],
            Statement::Advance => &[T, I],
            Statement::Fail => &[T],
        }
    }
}
