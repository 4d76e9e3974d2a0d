//! Text as the caller gave it: keys, SKUs, locations, buyers.

use std::fmt;
use std::sync::Arc;

/// A key, SKU, location or buyer, byte for byte as given.
///
/// Bytes rather than `str`, because a database may be encoded in LATIN1 or SQL_ASCII; ordered by
/// byte, as `COLLATE "C"` orders, so that locks and claims are taken in the same order on both
/// sides. Copies share the bytes: a key stands in facts, entries, holds and answers alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The bytes, in the encoding of the database.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the empty name, which stands for "none" (an operation key that was not given, say).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Name(bytes.into())
    }
}

impl From<Vec<u8>> for Name {
    fn from(bytes: Vec<u8>) -> Self {
        Name(bytes.into())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Name(text.as_bytes().into())
    }
}

/// Shows the text; bytes that are not UTF-8 are escaped, so that a message is sound in every
/// encoding.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
