//! The text in which a listener keeps what it has seen.

use crate::fault::Fault;
use crate::{LevelId, Name};

use super::snapshot::Snapshot;

/// The first field of a cursor: its form.
const FORM: &str = "stock1";

/// What a listener has seen, or, with a level, how far it has come in reading all levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// In which life of the database: transaction numbers mean nothing in another one.
    pub generation: String,
    /// Which transactions it has seen.
    pub seen: Snapshot,
    /// The last level that was read, while all levels are being read.
    pub after: Option<LevelId>,
}

impl Cursor {
    /// Reads a cursor that must be one of changes.
    pub fn of_changes(text: &[u8]) -> Result<Cursor, Fault> {
        let cursor = Cursor::parse(text)?;
        match cursor.after {
            None => Ok(cursor),
            Some(_) => Err(Fault::invalid(
                "cursor",
                "the cursor is one of stock.snapshot(), which is not complete yet",
            )
            .hint("Call stock.snapshot() with it until the outcome is complete.")),
        }
    }

    /// Reads a cursor that must be one of a snapshot that is not complete.
    pub fn of_levels(text: &[u8]) -> Result<Cursor, Fault> {
        let cursor = Cursor::parse(text)?;
        match cursor.after {
            Some(_) => Ok(cursor),
            None => Err(Fault::invalid("cursor", "the cursor is one of stock.changes_since()")
                .hint("Call stock.snapshot() without a cursor to begin.")),
        }
    }

    fn parse(text: &[u8]) -> Result<Cursor, Fault> {
        std::str::from_utf8(text).ok().and_then(Cursor::parse_text).ok_or_else(|| {
            Fault::invalid("cursor", "the cursor is not one of pg_stock").hint(
                "Pass the cursor of the last row of stock.changes_since() or stock.snapshot() as \
                 it is.",
            )
        })
    }

    fn parse_text(text: &str) -> Option<Cursor> {
        let mut fields = text.split(':');
        if fields.next()? != FORM {
            return None;
        }
        let generation = fields.next().filter(|generation| !generation.is_empty())?.to_owned();
        let seen = Snapshot::parse_parts(&format!("{}:{}", fields.next()?, fields.next()?))?;
        let after = match (fields.next(), fields.next(), fields.next()) {
            (None, None, None) => None,
            (Some(sku), Some(location), None) => {
                Some(LevelId { sku: from_hex(sku)?, location: from_hex(location)? })
            }
            _ => return None,
        };
        Some(Cursor { generation, seen, after })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{FORM}:{}:{}", self.generation, self.seen.parts())?;
        match &self.after {
            Some(at) => write!(f, ":{}:{}", to_hex(&at.sku), to_hex(&at.location)),
            None => Ok(()),
        }
    }
}

fn to_hex(name: &Name) -> String {
    name.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Name> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(Name::from(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(after: Option<LevelId>) -> Cursor {
        Cursor { generation: "g-1".into(), seen: Snapshot::parse("3:9:3,5").expect("sound"), after }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let changes = cursor(None);
        assert_eq!(changes.to_string(), "stock1:g-1:9:3,5");
        assert_eq!(Cursor::of_changes(changes.to_string().as_bytes()), Ok(changes.clone()));
        assert!(Cursor::of_levels(changes.to_string().as_bytes()).is_err());

        let at = LevelId { sku: Name::from("ä:b"), location: Name::from(&b"\xff"[..]) };
        let levels = cursor(Some(at));
        assert_eq!(Cursor::of_levels(levels.to_string().as_bytes()), Ok(levels.clone()));
        assert!(Cursor::of_changes(levels.to_string().as_bytes()).is_err());
    }

    #[test]
    fn a_bad_cursor_is_refused() {
        let bad = [
            "",
            "x",
            "stock1",
            "stock1:g",
            "stock1:g:9",
            "stock1::9:",
            "stock2:g:9:",
            "stock1:g:9:12",
            "stock1:g:-1:",
            "stock1:g:9::00",
            "stock1:g:9::0:00",
            "stock1:g:9::é:00",
            "stock1:g:9::00:00:00",
            "stock1:g:99999999999999999999999:",
        ];
        for bad in bad {
            assert!(Cursor::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Cursor::parse(b"\xff").is_err());
    }
}
