//! A request that cannot be understood.

use std::fmt::Display;

/// What kind of bad input it is; each kind has one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 22023 invalid_parameter_value.
    Invalid,
    /// 22003 numeric_value_out_of_range.
    Overflow,
}

impl FaultKind {
    /// Its SQLSTATE.
    pub fn sqlstate(self) -> &'static str {
        match self {
            FaultKind::Invalid => "22023",
            FaultKind::Overflow => "22003",
        }
    }
}

/// Bad input: always raised, never returned as a row. Says where the fault is and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which SQLSTATE it is raised with.
    pub kind: FaultKind,
    /// The argument, or the JSON path inside it (`lines[2].quantity`).
    pub path: String,
    /// One clause without a full stop, as PostgreSQL's style asks.
    pub message: String,
    /// The numbers.
    pub detail: Option<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl Fault {
    /// Input of the wrong form.
    pub fn invalid(path: impl Display, message: impl Into<String>) -> Self {
        Fault::new(FaultKind::Invalid, path, message)
    }

    /// A number beyond its limit.
    pub fn overflow(path: impl Display, message: impl Into<String>) -> Self {
        Fault::new(FaultKind::Overflow, path, message)
    }

    fn new(kind: FaultKind, path: impl Display, message: impl Into<String>) -> Self {
        Fault { kind, path: path.to_string(), message: message.into(), detail: None, hint: None }
    }

    /// Adds the numbers.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
