//! Moments as text, for messages and for JSON.

use jiff::Timestamp;

use crate::facts::Micros;

/// From 1970, where Unix begins to count, to 2000, where PostgreSQL does.
const UNIX_TO_POSTGRES: Micros = 946_684_800_000_000;

/// A moment as ISO 8601 has it, in UTC: `2026-11-27T09:00:00Z`; `None` beyond the years that have
/// four digits.
pub fn iso(at: Micros) -> Option<String> {
    let unix = at.checked_add(UNIX_TO_POSTGRES)?;
    Timestamp::from_microsecond(unix).ok().map(|moment| moment.to_string())
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
    }
}
