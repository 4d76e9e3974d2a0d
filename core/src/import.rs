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

/// What an import does with the units of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They were counted: that many are there.
    Set,
    /// They came: that many more are there.
    Receive,
    /// They are promised to orders: carts and orders that are open.
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
    /// What it asks for, under keys that are the same in each call of the batch; `number` is that
    /// of the first.
    ///
    /// # Errors
    /// Of a date that a count cannot have.
    pub fn requests(&self, batch: &Name, mode: Mode, number: i32) -> Result<Vec<Request>, Fault> {
        let key = [KEY_PREFIX.as_bytes(), batch.as_bytes(), b":", self.id.as_bytes()].concat();
        let request = |number, action| Request {
            number,
            key: Name::from(key.as_slice()),
            operation_key: Name::default(),
            reason: Name::from(format!("import {batch}").as_str()),
            context: Name::default(),
            action,
        };
        let mut requests = vec![request(number, self.units(mode)?)];
        if self.limits != Limits::default() {
            let action = Action::SetLimits { at: self.at.clone(), limits: self.limits };
            requests.push(request(number + 1, action));
        }
        Ok(requests)
    }

    fn units(&self, mode: Mode) -> Result<Action, Fault> {
        let at = self.at.clone();
        match mode {
            Mode::Receive => {
                let quantity = crate::limits::quantity("on_hand", self.on_hand)?;
                Ok(Action::Receive { at, quantity, lot: self.lot.clone() })
            }
            Mode::Set | Mode::Hold => {
                let lot = self.lot.as_ref();
                if lot.is_some_and(|lot| lot.best_before.is_some()) {
                    let message = "best_before cannot be set by a count";
                    return Err(Fault::invalid("best_before", message)
                        .hint("Import what comes with a date with the mode receive."));
                }
                let lot = lot.map(|lot| lot.name.clone());
                Ok(Action::Set { at, on_hand: self.on_hand, expected_version: None, lot })
            }
        }
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
    /// The reserve that it asks for, and how long from now on.
    ///
    /// # Errors
    /// Where the deadline is past.
    pub fn request(self, batch: &Name, number: i32, now: Micros) -> Result<Request, Fault> {
        let ttl = self.expires_at.saturating_sub(now);
        if ttl <= 0 {
            return Err(Fault::invalid("expires_at", "expires_at must not be past")
                .hint("Leave out what nobody holds any more."));
        }
        let OpenOrder { key, lines, buyer, .. } = self;
        Ok(Request {
            number,
            key,
            operation_key: Name::default(),
            reason: Name::from(format!("import {batch}").as_str()),
            context: Name::default(),
            action: Action::Reserve { lines, ttl: Some(ttl), buyer, min_life: None },
        })
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
