//! The row a caller gets for each line, and the report of a refusal.

use serde::Deserialize;

use crate::facts::{LevelId, Micros};
use crate::name::Name;
use crate::outcome::{Outcome, State};

/// One row: what became of one line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's place in the batch, from 1.
    pub request: i32,
    /// The line's place in the request, from 1.
    pub line: i32,
    /// The key.
    pub key: Name,
    /// The level; `None` where the request concerns none (both columns are then empty text).
    pub at: Option<LevelId>,
    /// Units asked, or taken where the caller left it open.
    pub quantity: i64,
    /// The named answer.
    pub outcome: Outcome,
    /// What the line is now.
    pub state: State,
    /// What may still be promised after the whole request; `None` for an unknown level.
    pub available: Option<i64>,
    /// The level's version; `None` for an unknown level.
    pub version: Option<i64>,
    /// The deadline; `None` where nothing is held.
    pub expires_at: Option<Micros>,
    /// True where an earlier effect is reported.
    pub replayed: bool,
}

/// The columns of an answer that a refusal's report shows, as the raising form passes them on.
#[derive(Debug, Deserialize)]
pub struct RefusedLine {
    line: i32,
    key: String,
    sku: String,
    location: String,
    quantity: i64,
    outcome: String,
    available: Option<i64>,
    version: Option<i64>,
}

/// The error that the raising form raises.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Five characters of class ST.
    pub sqlstate: &'static str,
    /// What was refused and why.
    pub message: String,
    /// Each line that failed, with what was asked and what there is.
    pub detail: String,
    /// The next step.
    pub hint: &'static str,
}

/// Most lines that a report spells out.
const SHOWN: usize = 20;

/// Reports the refusal that a JSON array of answers contains; the first outcome by precedence gives the SQLSTATE.
/// `None` where no answer is a refusal.
pub fn report(answers: &str) -> Option<Report> {
    let lines: Vec<RefusedLine> = serde_json::from_str(answers).ok()?;
    let failed: Vec<(Outcome, &RefusedLine)> = lines
        .iter()
        .filter_map(|line| Some((Outcome::from_word(&line.outcome)?, line)))
        .filter(|(outcome, _)| outcome.is_refusal() && *outcome != Outcome::NotApplied)
        .collect();
    let (first, worst) = failed.iter().min_by_key(|(outcome, _)| *outcome)?;
    let mut detail: Vec<String> = failed.iter().take(SHOWN).map(|(outcome, line)| line.show(*outcome)).collect();
    if failed.len() > SHOWN {
        detail.push(format!("And {} more lines.", failed.len() - SHOWN));
    }
    Some(Report {
        sqlstate: first.sqlstate()?,
        message: format!("{}: {} (key \"{}\")", first.word(), first.meaning(), worst.key),
        detail: detail.join("\n"),
        hint: first.hint(),
    })
}

impl RefusedLine {
    fn show(&self, outcome: Outcome) -> String {
        let there = match (self.available, self.version) {
            (Some(available), Some(version)) => format!("{available} available, version {version}"),
            _ => "no such level".into(),
        };
        if self.sku.is_empty() && self.location.is_empty() {
            return format!("Line {}: {}.", self.line, outcome.word());
        }
        format!(
            "Line {}: SKU \"{}\" at \"{}\": {}: {} asked, {there}.",
            self.line,
            self.sku,
            self.location,
            outcome.word(),
            self.quantity
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_by_precedence_gives_the_sqlstate() {
        let row = |line: i32, outcome: &str| {
            format!(
                r#"{{"request":1,"line":{line},"key":"k","sku":"s","location":"l","quantity":3,"outcome":"{outcome}",
                    "state":"none","available":2,"version":7,"expires_at":null,"replayed":false}}"#
            )
        };
        let rows = format!("[{},{},{}]", row(1, "not_applied"), row(2, "insufficient_stock"), row(3, "level_frozen"));
        let report = report(&rows).expect("a refusal");
        assert_eq!(report.sqlstate, "ST010");
        assert!(report.detail.contains("Line 2: SKU \"s\" at \"l\": insufficient_stock: 3 asked, 2 available"));
        assert!(report.detail.contains("Line 3"));
        assert!(!report.detail.contains("Line 1"));
    }

    #[test]
    fn a_success_is_not_reported() {
        assert_eq!(report("[]"), None);
    }
}
