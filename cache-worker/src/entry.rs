//! What the cache says about one level.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// The counters of one level, as the database had them at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What is sold.
    pub sku: String,
    /// Where it lies.
    pub location: String,
    /// What may still be promised: `max(0, on_hand - reserved - unsellable - safety_stock -
    /// waiting + backorder_limit)`, and 0 while the level is frozen. Overdue holds do not count as
    /// free here.
    pub available: i64,
    /// Units that are there.
    pub on_hand: i64,
    /// Units promised to open holds.
    pub reserved: i64,
    /// Units never to be promised.
    pub safety_stock: i64,
    /// Units on the road to there; not among `on_hand`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_transit: i64,
    /// Units promised that are not there yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: i64,
    /// How many units may be promised without being there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backorder_limit: i64,
    /// Units that are there, are promised to nobody and must not be sold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsellable: i64,
    /// Whether sales are stopped.
    pub frozen: bool,
    /// When its sale opens; `None`: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "moment")]
    pub on_sale_from: Option<Timestamp>,
    /// When its sale has ended; `None`: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "moment")]
    pub on_sale_until: Option<Timestamp>,
    /// Rises by one with each change of the level.
    pub version: i64,
}

/// Whether a counter is left out: most levels have nothing in it.
fn is_zero(counter: &i64) -> bool {
    *counter == 0
}

/// A moment. The last hours of the year 9999, which stand for ever, are as late as can be told.
fn moment<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(reader)? else { return Ok(None) };
    match text.parse() {
        Ok(moment) => Ok(Some(moment)),
        Err(_) if text.starts_with("9999-12-3") => Ok(Some(Timestamp::MAX)),
        Err(error) => Err(D::Error::custom(error)),
    }
}

impl Level {
    /// The level with what may be promised by its counters alone: that depends on nothing but its
    /// version.
    pub fn counted(self) -> Level {
        let taken = [self.reserved, self.unsellable, self.safety_stock, self.waiting];
        let free = taken.into_iter().fold(self.on_hand, i64::saturating_sub);
        let free = free.saturating_add(self.backorder_limit).max(0);
        Level { available: if self.frozen { 0 } else { free }, ..self }
    }

    /// What may be promised at a moment: `available`, and 0 before its sale opens and from its end
    /// on. The database goes by its own clock, and has the last word.
    pub fn available_at(&self, now: Timestamp) -> i64 {
        let is_open = self.on_sale_from.is_none_or(|from| from <= now);
        let has_ended = self.on_sale_until.is_some_and(|until| until <= now);
        if is_open && !has_ended { self.available } else { 0 }
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
    use jiff::Timestamp;

    use super::{Entry, Level};

    #[test]
    fn both_kinds_of_entries_are_told_apart() {
        let text = r#"{"sku":"a","location":"m","available":8,"on_hand":10,"reserved":2,"safety_stock":0,
                       "frozen":false,"version":7,"epoch":3}"#;
        let entry: Entry = serde_json::from_str(text).expect("an entry");
        assert!(matches!(&entry, Entry::Found { level, epoch: 3 } if level.version == 7));
        assert_eq!(
            serde_json::from_str::<Entry>(&entry.text().expect("text")).expect("an entry"),
            entry
        );
        let text = r#"{"absent":true,"sku":"a","location":"m","epoch":3}"#;
        assert!(matches!(serde_json::from_str(text), Ok(Entry::Absent { epoch: 3, .. })));
    }

    #[test]
    fn what_is_available_is_never_negative_and_nothing_while_frozen() {
        let available = |on_hand, reserved, safety_stock, frozen| {
            let (sku, location) = ("a".to_owned(), "m".to_owned());
            let level = Level {
                sku,
                location,
                available: 0,
                on_hand,
                reserved,
                safety_stock,
                in_transit: 0,
                waiting: 0,
                backorder_limit: 0,
                unsellable: 0,
                frozen,
                on_sale_from: None,
                on_sale_until: None,
                version: 1,
            };
            level.counted().available
        };
        assert_eq!(available(10, 2, 1, false), 7);
        assert_eq!(available(1, 0, 5, false), 0);
        assert_eq!(available(10, 2, 1, true), 0);
    }

    #[test]
    fn nothing_is_available_outside_the_sale_window() {
        let text = r#"{"sku":"a","location":"m","available":8,"on_hand":8,"reserved":0,"safety_stock":0,
                       "frozen":false,"on_sale_from":"2026-11-27T09:00:00Z",
                       "on_sale_until":"2026-11-28T00:00:00Z","version":4}"#;
        let level: Level = serde_json::from_str(text).expect("a level");
        let at = |moment: &str| level.available_at(moment.parse().expect("a moment"));
        assert_eq!(at("2026-11-27T08:59:59.999999Z"), 0);
        assert_eq!(at("2026-11-27T09:00:00Z"), 8);
        assert_eq!(at("2026-11-27T23:59:59.999999Z"), 8);
        assert_eq!(at("2026-11-28T00:00:00Z"), 0);
        let text = text.replace("2026-11-28T00:00:00Z", "9999-12-31T23:59:59Z");
        let level: Level = serde_json::from_str(&text).expect("a level without an end");
        assert_eq!(level.on_sale_until, Some(Timestamp::MAX));
        let text = text.replace("9999-12-31T23:59:59Z", "some day");
        assert!(serde_json::from_str::<Level>(&text).is_err());
    }
}
