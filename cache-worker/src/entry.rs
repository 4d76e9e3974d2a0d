//! What the cache says about one level.

use serde::{Deserialize, Serialize};

/// The counters of one level, as the database had them at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What is sold.
    pub sku: String,
    /// Where it lies.
    pub location: String,
    /// What may still be promised: `max(0, on_hand - reserved - safety_stock)`. Overdue holds do not count as free here.
    pub available: i64,
    /// Units that are there.
    pub on_hand: i64,
    /// Units promised to open holds.
    pub reserved: i64,
    /// Units never to be promised.
    pub safety_stock: i64,
    /// Whether sales are stopped.
    pub frozen: bool,
    /// Rises by one with each change of the level.
    pub version: i64,
}

impl Level {
    /// What may be promised by these counters alone: it depends on nothing but the level's version.
    pub fn available_of(on_hand: i64, reserved: i64, safety_stock: i64) -> i64 {
        on_hand.saturating_sub(reserved).saturating_sub(safety_stock).max(0)
    }
}

/// A value in Redis: a level, or the knowledge that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// The level, and the epoch in which it was written.
    Found {
        /// The counters.
        #[serde(flatten)]
        level: Level,
        /// Rises with each rebuild of the cache.
        epoch: i64,
    },
    /// There is no such level.
    Absent {
        /// Always true.
        absent: bool,
        /// What was asked for.
        sku: String,
        /// Where it was asked for.
        location: String,
        /// Rises with each rebuild of the cache.
        epoch: i64,
    },
}

impl Entry {
    /// The text of the entry in Redis.
    ///
    /// # Errors
    /// None in practice: it has no maps and no foreign types.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Level};

    #[test]
    fn both_kinds_of_entries_are_told_apart() {
        let text = r#"{"sku":"a","location":"m","available":8,"on_hand":10,"reserved":2,"safety_stock":0,
                       "frozen":false,"version":7,"epoch":3}"#;
        let entry: Entry = serde_json::from_str(text).expect("an entry");
        assert!(matches!(&entry, Entry::Found { level, epoch: 3 } if level.version == 7));
        assert_eq!(serde_json::from_str::<Entry>(&entry.text().expect("text")).expect("an entry"), entry);
        let text = r#"{"absent":true,"sku":"a","location":"m","epoch":3}"#;
        assert!(matches!(serde_json::from_str(text), Ok(Entry::Absent { epoch: 3, .. })));
    }

    #[test]
    fn what_is_available_is_never_negative() {
        assert_eq!(Level::available_of(10, 2, 1), 7);
        assert_eq!(Level::available_of(1, 0, 5), 0);
    }
}
