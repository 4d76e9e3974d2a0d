//! Tells by NOTIFY what changed, in a transaction of its own that writes no ledger rows.

use std::collections::{BTreeSet, HashSet};

use pg_stock_core::feed::message::{self, AlertState, Emission};
use pg_stock_core::feed::{Alert, Cursor, Snapshot, alert};
use pg_stock_core::{LevelId, Name};
use pgrx::spi::SpiResult;

use super::changes::{self, Changes};
use super::generation::Generation;
use super::levels::{self, LevelRow};
use super::moment;
use crate::error::Error;
use crate::settings;
use crate::store::datum::{bytes, int, text, word};
use crate::store::notify::{self, Channel};
use crate::store::rows::level_id;
use crate::store::{names, sql};
use crate::{durable, memory, standby, store};

/// What an emission told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Emitted {
    /// Ledger rows that were looked at.
    pub changes: usize,
    /// Levels told of.
    pub levels: usize,
    /// Alerts told of.
    pub alerts: usize,
    /// Messages sent.
    pub messages: usize,
    /// True where there is more to tell.
    pub more: bool,
}

/// Tells of about `most` ledger rows' changes when this transaction commits. Writes nothing where
/// there are none.
///
/// Standbys are waited for before the first message: a commit that tells something holds a lock
/// that every other one that does must take, in all databases, and should find them ready.
pub fn emit(most: usize) -> Result<Emitted, Error> {
    standby::refuse_changes()?;
    let Some(news) = look()? else { return Ok(Emitted::default()) };
    settings::commit_durably();
    durable::flush();
    tell(&news, most)
}

/// What is committed and was not told yet: all that this snapshot sees. `None`: nothing. Once the
/// log is flushed, and the standbys have it, it may be told.
pub fn look() -> Result<Option<Snapshot>, Error> {
    moment::check()?;
    if store::is_subscribed()? {
        return Ok(None);
    }
    let Some(generation) = Generation::current_or_new()? else { return Ok(None) };
    let now = moment::now()?;
    let news = changes::between(&generation, generation.sent.clone(), now.clone(), 1)?;
    let news =
        news.ok_or_else(|| Error::Corrupted("stock.feed is ahead of the database".into()))?;
    Ok((news.rows > 0).then_some(now))
}

/// Tells of about `most` ledger rows' changes that a snapshot sees, when this transaction commits.
pub fn tell(news: &Snapshot, most: usize) -> Result<Emitted, Error> {
    // One emission at a time; what another has told meanwhile is not told again.
    let Some(generation) = Generation::lock()? else { return Ok(Emitted::default()) };
    match changes::between(&generation, generation.sent.clone(), news.clone(), most)? {
        Some(changes) if changes.rows > 0 => {
            memory::work_on(changes.rows);
            tell_of(&generation, changes)
        }
        _ => Ok(Emitted::default()),
    }
}

fn tell_of(generation: &Generation, changes: Changes) -> Result<Emitted, Error> {
    let states = levels::of(&changes.levels)?;
    // A generation begins with levels of which nobody knows what was announced of them.
    let others = if generation.sequence == 0 { levels::alarming()? } else { Vec::new() };
    let known: BTreeSet<&LevelId> = states.iter().map(|state| &state.at).collect();
    let others: Vec<LevelRow> =
        others.into_iter().filter(|state| !known.contains(&state.at)).collect();
    let crossings = crossings(states.iter().chain(&others))?;
    let named: Vec<_> =
        states.iter().filter_map(|state| notify::level_state(&state.at, &state.level)).collect();
    let cursor =
        Cursor { generation: generation.id.clone(), seen: changes.seen.clone(), after: None };
    let emission = Emission {
        generation: &generation.id,
        sequence: generation.sequence + i64::from(!states.is_empty()),
        cursor: (named.len() == states.len()).then(|| cursor.to_string()),
    };
    let alerts: Vec<AlertState> = crossings.iter().filter_map(Crossing::state).collect();
    let levels = notify::send(Channel::Changed, &message::of_levels(Some(&emission), &named))?;
    let messages =
        levels + notify::send(Channel::Alert, &message::of_alerts(Some(&emission), &alerts))?;
    remember(&crossings)?;
    let seen = changes.seen.to_string();
    sql::ADVANCE.execute(&[word(&seen), int(emission.sequence)])?;
    Ok(Emitted {
        changes: changes.rows,
        levels: named.len(),
        alerts: alerts.len(),
        messages,
        more: changes.more,
    })
}

/// A level that entered or left a state that somebody should know of.
struct Crossing<'a> {
    state: &'a LevelRow,
    alert: Alert,
    begins: bool,
}

impl Crossing<'_> {
    fn state(&self) -> Option<AlertState> {
        let level = notify::level_state(&self.state.at, &self.state.level)?;
        Some(AlertState::new(self.alert, self.begins, level))
    }
}

/// Compares levels with what was announced of them.
fn crossings<'a>(
    states: impl Iterator<Item = &'a LevelRow> + Clone,
) -> SpiResult<Vec<Crossing<'a>>> {
    let levels: BTreeSet<LevelId> = states.clone().map(|state| state.at.clone()).collect();
    if levels.is_empty() {
        return Ok(Vec::new());
    }
    let announced =
        sql::ALERTS.query_each(&[], &names(&levels), |row| (level_id(row), row.name(2)))?;
    let announced: HashSet<(LevelId, Name)> = announced.into_iter().collect();
    let of = |state: &'a LevelRow| {
        let before =
            |alert: Alert| announced.contains(&(state.at.clone(), Name::from(alert.word())));
        let crossed = alert::crossings(before, &state.level).into_iter();
        crossed.map(move |(alert, begins)| Crossing { state, alert, begins })
    };
    Ok(states.flat_map(of).collect())
}

/// Writes down what was announced.
fn remember(crossings: &[Crossing<'_>]) -> SpiResult<()> {
    for (begins, statement) in [(true, &sql::BEGIN_ALERTS), (false, &sql::END_ALERTS)] {
        let crossed = crossings.iter().filter(|crossing| crossing.begins == begins);
        let row = |crossing: &Crossing<'_>| {
            let at = &crossing.state.at;
            [text(&at.sku), text(&at.location), word(crossing.alert.word())]
        };
        let rows: Vec<_> = crossed.map(row).collect();
        if !rows.is_empty() {
            statement.execute_each(&[], &rows)?;
        }
    }
    Ok(())
}

/// Writes down why an emission failed, for `stock.feed_lag`.
pub fn note_failure(error: &str) -> Result<(), Error> {
    let error = notify::storable(error);
    // Where the first emission of a generation has failed, it took the generation with it.
    Generation::current_or_new()?;
    sql::FAIL.execute(&[bytes(error.as_bytes())])?;
    Ok(())
}
