//! A request that cannot be understood.

/// What kind of bad input it is; each kind has one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 22023 invalid_parameter_value.
    Invalid,
    /// 22003 numeric_value_out_of_range.
    Overflow,
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
    pub fn invalid(path: &str, message: impl Into<String>) -> Self {
        Fault::new(FaultKind::Invalid, path, message)
    }

    /// A number beyond its limit.
    pub fn overflow(path: &str, message: impl Into<String>) -> Self {
        Fault::new(FaultKind::Overflow, path, message)
    }

    fn new(kind: FaultKind, path: &str, message: impl Into<String>) -> Self {
        Fault { kind, path: path.into(), message: message.into(), detail: None, hint: None }
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
