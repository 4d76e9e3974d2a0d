//! Moments as text, for messages and for JSON.

use jiff::SignedDuration;
use jiff::civil::date;

use crate::facts::Micros;

/// The beginning of 1970, as PostgreSQL counts.
pub const UNIX_EPOCH: Micros = -946_684_800_000_000;

/// A moment as ISO 8601 has it, in UTC: `2026-11-27T09:00:00Z`; `None` outside the years 1970 to
/// 9999.
pub fn iso(at: Micros) -> Option<String> {
    let origin = date(2000, 1, 1).at(0, 0, 0, 0);
    let moment = origin.checked_add(SignedDuration::from_micros(at)).ok()?;
    (moment.year() >= 1970).then(|| format!("{moment}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ALWAYS, NEVER};

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(iso(0).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(iso(-1).as_deref(), Some("1999-12-31T23:59:59.999999Z"));
        assert_eq!((iso(NEVER), iso(ALWAYS)), (None, None));
        let last = 252_455_615_999_999_999;
        assert_eq!(iso(last).as_deref(), Some("9999-12-31T23:59:59.999999Z"));
        assert_eq!(iso(last + 1), None);
        let first = -946_684_800_000_000;
        assert_eq!(iso(first).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(iso(first - 1), None);
    }
}
