//! The row a caller gets for each line, and the report of a refusal.

use crate::facts::{LevelId, Micros};
use crate::moment;
use crate::name::Name;
use crate::outcome::{Outcome, State};

/// One row: what became of one line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's place in the batch, from 1.
    pub request: i32,
    /// The line's place in the request that reserved it, or in this one where that reserves
    /// nothing; from 1.
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
    /// When the sale opens of a level that is not on sale yet; `None` for every other answer.
    pub opens_at: Option<Micros>,
    /// Units of the line that are not there yet.
    pub backordered: i64,
    /// What there is of that which a refusal is about: units there, beside what may wait; units
    /// that are not reserved; units on the way. `None` for every other answer.
    pub there: Option<i64>,
}

/// Takes those off the front that are of one request, or of some: answers come in the order of the
/// requests.
pub fn take_own<'a>(rest: &mut &'a [Answer], is_own: impl Fn(&Answer) -> bool) -> &'a [Answer] {
    let count = rest.iter().take_while(|answer| is_own(answer)).count();
    let (own, others) = rest.split_at(count);
    *rest = others;
    own
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
const LINES_SHOWN_MAX: usize = 20;

/// Reports a refusal; the first outcome by precedence gives the SQLSTATE. `None` where no answer is
/// a refusal.
pub fn report(answers: &[Answer]) -> Option<Report> {
    let failed: Vec<&Answer> = (answers.iter())
        .filter(|answer| answer.outcome.is_refusal() && answer.outcome != Outcome::NotApplied)
        .collect();
    let worst = failed.iter().min_by_key(|answer| answer.outcome)?;
    let mut detail: Vec<String> =
        failed.iter().take(LINES_SHOWN_MAX).map(|answer| answer.show()).collect();
    if failed.len() > LINES_SHOWN_MAX {
        detail.push(format!("And {} more lines.", failed.len() - LINES_SHOWN_MAX));
    }
    // Nobody had a line on a key that was cancelled before it was reserved.
    let (meaning, hint) = match (worst.outcome, worst.state) {
        (Outcome::AlreadyReleased, State::Cancelled) => (
            "nothing was known of this key; it was cancelled before it was reserved",
            "If that was by mistake, stock.reopen_key(key, reason) makes it usable again; else \
             reserve under a new key.",
        ),
        (outcome, _) => (outcome.meaning(), outcome.hint()),
    };
    Some(Report {
        sqlstate: worst.outcome.sqlstate()?,
        message: format!("{}: {meaning} (key \"{}\")", worst.outcome.word(), worst.key),
        detail: detail.join("\n"),
        hint,
    })
}

impl Answer {
    /// True where the answer reports what an earlier transaction did: that must be durable before
    /// it is told.
    pub fn reports_the_past(&self) -> bool {
        use Outcome::{
            AlreadyConfirmed, AlreadyReleased, KeyConflict, MoreThanHeld, NotOnTheWay,
            ReservationExpired,
        };
        let is_judged_by_it = matches!(
            self.outcome,
            AlreadyConfirmed
                | AlreadyReleased
                | KeyConflict
                | MoreThanHeld
                | NotOnTheWay
                | ReservationExpired
        );
        self.replayed || is_judged_by_it
    }

    /// What is available; or that of it which the refusal is about.
    fn show_there(&self, available: i64) -> String {
        match (self.outcome, self.there) {
            (Outcome::BelowReserved, Some(there)) => format!("{there} not reserved"),
            (Outcome::NotOnTheWay, Some(there)) => format!("{there} on the way"),
            (_, Some(there)) => {
                let waits = available - there;
                format!("{available} available ({there} there, {waits} may wait)")
            }
            (_, None) => format!("{available} available"),
        }
    }

    /// The answer in a sentence, with what was asked and what there is.
    fn show(&self) -> String {
        let word = self.outcome.word();
        let Some(at) = &self.at else { return format!("Line {}: {word}.", self.line) };
        let there = match (self.available, self.version) {
            (Some(available), Some(version)) => {
                format!("{}, version {version}", self.show_there(available))
            }
            _ => "no such level".into(),
        };
        let sale = match (self.outcome, self.opens_at.and_then(moment::iso)) {
            (_, Some(opens)) => format!(", on sale from {opens}"),
            (Outcome::NotOnSale, None) => ", the sale has ended".into(),
            _ => String::new(),
        };
        let LevelId { sku, location } = at;
        format!(
            "Line {}: SKU \"{sku}\" at \"{location}\": {word}: {} asked, {there}{sale}.",
            self.line, self.quantity
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: i32, outcome: Outcome) -> Answer {
        Answer {
            request: 1,
            line,
            key: "k".into(),
            at: Some(LevelId { sku: "s".into(), location: "l".into() }),
            quantity: 3,
            outcome,
            state: State::None,
            available: Some(2),
            version: Some(7),
            expires_at: None,
            replayed: false,
            opens_at: None,
            backordered: 0,
            there: None,
        }
    }

    #[test]
    fn the_first_outcome_by_precedence_gives_the_sqlstate() {
        let rows = [
            row(1, Outcome::NotApplied),
            row(2, Outcome::InsufficientStock),
            row(3, Outcome::LevelFrozen),
        ];
        let report = report(&rows).expect("a refusal");
        assert_eq!(report.sqlstate, "ST010");
        assert!(
            report
                .detail
                .contains("Line 2: SKU \"s\" at \"l\": insufficient_stock: 3 asked, 2 available")
        );
        assert!(report.detail.contains("Line 3"));
        assert!(!report.detail.contains("Line 1"));
    }

    #[test]
    fn a_success_is_not_reported() {
        assert_eq!(report(&[row(1, Outcome::Reserved)]), None);
        assert_eq!(report(&[]), None);
    }
}
