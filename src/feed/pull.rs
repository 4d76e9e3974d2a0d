//! Answers a listener who catches up.

use pg_stock_core::feed::Cursor;

use super::changes;
use super::generation::{self, Generation, NONE};
use super::levels::{self, LevelRow};
use super::moment;
use crate::durable;
use crate::error::Error;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The listener has seen everything.
    CaughtUp,
    /// There are more changes.
    MoreChanges,
    /// There are more levels.
    MoreLevels,
    /// All levels were read.
    Complete,
    /// The cursor says nothing about this life of the database: all levels must be read anew.
    Resynchronise,
}

impl Outcome {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::CaughtUp => "caught_up",
            Outcome::MoreChanges => "more_changes",
            Outcome::MoreLevels => "more_levels",
            Outcome::Complete => "complete",
            Outcome::Resynchronise => "resynchronise",
        }
    }
}

/// An answer.
pub struct Page {
    /// The levels.
    pub levels: Vec<LevelRow>,
    /// How it ends.
    pub outcome: Outcome,
    /// For the next call.
    pub cursor: Option<Cursor>,
}

impl Page {
    const RESYNCHRONISE: Page =
        Page { levels: Vec::new(), outcome: Outcome::Resynchronise, cursor: None };
}

/// What changed since a cursor was given out.
pub fn changes_since(cursor: Cursor, most: usize) -> Result<Page, Error> {
    moment::check()?;
    let Some(generation) = current(&cursor)? else { return still_nothing(cursor) };
    let seen = cursor.seen.to_string();
    let Some(changes) = changes::since(&generation, cursor.seen, most)? else {
        return Ok(Page::RESYNCHRONISE);
    };
    // Asked after the changes were read: what was archived since is not missed.
    if changes::are_archived(&seen)? {
        return Ok(Page::RESYNCHRONISE);
    }
    let levels = levels::of(&changes.levels)?;
    durable::flush();
    let outcome = if changes.more { Outcome::MoreChanges } else { Outcome::CaughtUp };
    let cursor = Cursor { generation: generation.id, seen: changes.seen, after: None };
    Ok(Page { levels, outcome, cursor: Some(cursor) })
}

/// All levels, a page at a time. The snapshot is that of the first page: what changes later is
/// among the changes since.
pub fn snapshot(cursor: Option<Cursor>, most: usize) -> Result<Page, Error> {
    // Later pages may be part of the transaction that has begun the generation, but not of one that
    // changes levels.
    if cursor.is_none() {
        moment::check()?;
    } else {
        moment::check_levels()?;
    }
    let mut cursor = match begin_or_go_on(cursor)? {
        Some(cursor) if cursor.generation == NONE => {
            return Ok(Page {
                levels: Vec::new(),
                outcome: Outcome::Complete,
                cursor: Some(cursor),
            });
        }
        Some(cursor) => cursor,
        None => return Ok(Page::RESYNCHRONISE),
    };
    let levels = levels::after(cursor.after.as_ref(), most)?;
    cursor.after = levels.last().map(|state| state.at.clone()).filter(|_| levels.len() == most);
    let outcome = if cursor.after.is_some() { Outcome::MoreLevels } else { Outcome::Complete };
    durable::flush();
    Ok(Page { levels, outcome, cursor: Some(cursor) })
}

fn begin_or_go_on(cursor: Option<Cursor>) -> Result<Option<Cursor>, Error> {
    match cursor {
        Some(cursor) => Ok(current(&cursor)?.map(|_| cursor)),
        None => {
            Ok(Some(Cursor { generation: name_for_a_reader()?, seen: moment::now()?, after: None }))
        }
    }
}

/// The name of the current generation, begun if that disturbs nobody.
fn name_for_a_reader() -> Result<String, Error> {
    if let Some(generation) = Generation::current()? {
        return Ok(generation.id);
    }
    if generation::last_position()? == 0 {
        return Ok(NONE.to_owned());
    }
    Generation::begin_if_free()?;
    Ok(Generation::current()?.map_or_else(Generation::to_begin, |generation| generation.id))
}

/// The answer to a cursor that is not of this generation: it is still good where it was given out
/// before anything had happened, and nothing has happened since.
fn still_nothing(cursor: Cursor) -> Result<Page, Error> {
    if cursor.generation == NONE && Generation::current_or_new()?.is_none() {
        return Ok(Page { levels: Vec::new(), outcome: Outcome::CaughtUp, cursor: Some(cursor) });
    }
    Ok(Page::RESYNCHRONISE)
}

/// The generation of this life of the database, if the cursor is of it.
fn current(cursor: &Cursor) -> Result<Option<Generation>, Error> {
    let generation = Generation::current()?.unwrap_or_else(Generation::not_begun);
    Ok(Some(generation).filter(|generation| generation.id == cursor.generation))
}
