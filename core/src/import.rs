//! A shop's stock, loaded row by row: each row is a level, or a lot of one, and what lies there.

use std::fmt::Display;

use crate::answer::{Answer, report};
use crate::facts::{LevelId, Micros};
use crate::fault::Fault;
use crate::name::Name;
use crate::outcome::{Outcome, State};
use crate::request::{Action, Limits, Line, NamedLot, Request};

/// How the keys of imported rows begin.
const KEY_PREFIX: &str = "pg_stock:import:";

/// What the rows of an import are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Goods that were counted: that many are there.
    Set,
    /// Goods that came: that many more are there.
    Receive,
    /// Carts and orders that are open, to which units are promised.
    Hold,
}

impl Mode {
    /// The mode of a word.
    pub fn from_word(word: &[u8]) -> Option<Mode> {
        match word {
            b"set" => Some(Mode::Set),
            b"receive" => Some(Mode::Receive),
            b"hold" => Some(Mode::Hold),
            _ => None,
        }
    }
}

/// A row of what is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What tells it from the other rows of its batch, the same in each call.
    pub id: Name,
    /// The level.
    pub at: LevelId,
    /// The units.
    pub on_hand: i64,
    /// The lot that they are of.
    pub lot: Option<NamedLot>,
    /// The limits of the level, where they are given.
    pub limits: Limits,
}

impl Row {
    /// What it asks for where it came, under keys that are the same in each call of the batch;
    /// `number` is that of the first.
    ///
    /// # Errors
    /// Where nothing came.
    pub fn received(&self, batch: &Name, number: i32) -> Result<Vec<Request>, Fault> {
        let quantity = crate::limits::quantity("on_hand", self.on_hand)?;
        let (at, lot) = (self.at.clone(), self.lot.clone());
        Ok(self.requests(batch, number, Action::Receive { at, quantity, lot }))
    }

    /// The same where it was counted.
    ///
    /// # Errors
    /// Of a date, which a count cannot give.
    pub fn counted(&self, batch: &Name, number: i32) -> Result<Vec<Request>, Fault> {
        if self.lot.as_ref().is_some_and(|lot| lot.best_before.is_some()) {
            return Err(Fault::invalid("best_before", "best_before cannot be set by a count")
                .hint("Import what comes with a date with the mode receive."));
        }
        let lot = self.lot.as_ref().map(|lot| lot.name.clone());
        let (at, on_hand) = (self.at.clone(), self.on_hand);
        let set = Action::Set { at, on_hand, expected_version: None, lot };
        Ok(self.requests(batch, number, set))
    }

    fn requests(&self, batch: &Name, number: i32, units: Action) -> Vec<Request> {
        let key = [KEY_PREFIX.as_bytes(), batch.as_bytes(), b":", self.id.as_bytes()].concat();
        let key = Name::from(key.as_slice());
        let limits = Action::SetLimits { at: self.at.clone(), limits: self.limits };
        let limits = (self.limits != Limits::default()).then_some(limits);
        let numbered = [units].into_iter().chain(limits).zip(number..);
        numbered.map(|(action, number)| request(batch, number, key.clone(), action)).collect()
    }
}

fn request(batch: &Name, number: i32, key: Name, action: Action) -> Request {
    Request {
        number,
        key,
        operation_key: Name::default(),
        reason: Name::from(format!("import {batch}").as_str()),
        context: Name::default(),
        action,
    }
}

/// An order that is open, of one row or of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// Its key, with which it will be confirmed.
    pub key: Name,
    /// Its lines.
    pub lines: Vec<Line>,
    /// For whom.
    pub buyer: Option<Name>,
    /// Until when its units are held.
    pub expires_at: Micros,
}

impl OpenOrder {
    /// The reserve that it asks for. Where its deadline is past that can only be a repeat.
    pub fn request(self, batch: &Name, number: i32, now: Micros) -> Request {
        let ttl = Some(self.expires_at.saturating_sub(now));
        let OpenOrder { key, lines, buyer, .. } = self;
        request(batch, number, key, Action::Reserve { lines, ttl, buyer, min_life: None })
    }
}

/// What became of a row.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect now.
    Applied,
    /// It had taken effect before.
    Repeated,
    /// It took no effect, or not all.
    Refused {
        /// The column of the fault; empty where none is to blame.
        path: String,
        /// The outcome, or the SQLSTATE of bad input.
        outcome: String,
        /// What was wrong.
        message: String,
    },
}

impl Verdict {
    /// That of a row which cannot be understood.
    pub fn of_fault(fault: &Fault) -> Verdict {
        Verdict::Refused {
            path: fault.path.clone(),
            outcome: fault.kind.sqlstate().to_owned(),
            message: said(&fault.message, fault.detail.as_deref(), fault.hint.as_deref()),
        }
    }

    /// That of a row whose requests were answered so.
    pub fn of_answers(answers: &[Answer]) -> Verdict {
        let has_ended = |answer: &Answer| {
            matches!(answer.outcome, Outcome::ReservationExpired | Outcome::AlreadyReleased)
                && answer.state != State::Cancelled
        };
        match report(answers) {
            // It was held once, and what became of it since is no matter of the import.
            Some(_) if answers.iter().all(has_ended) => Verdict::Repeated,
            Some(report) => {
                let refused = answers.iter().map(|answer| answer.outcome);
                let worst = refused.filter(|outcome| outcome.is_refusal()).min();
                Verdict::Refused {
                    path: String::new(),
                    outcome: worst.map(|outcome| outcome.word()).unwrap_or_default().to_owned(),
                    message: said(&report.message, Some(&report.detail), Some(report.hint)),
                }
            }
            None if answers.iter().all(|answer| answer.replayed) => Verdict::Repeated,
            None => Verdict::Applied,
        }
    }
}

/// A message with its numbers and the next step, in one text.
fn said(message: impl Display, detail: Option<&str>, hint: Option<&str>) -> String {
    let more: String =
        [detail, hint].into_iter().flatten().map(|text| format!(" {text}")).collect();
    format!("{message}.{more}")
}
