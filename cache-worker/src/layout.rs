//! The names of the keys in Redis.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `<prefix>:level:<location>:<sku>` | string | the entry of a level, as JSON (see [`crate::entry`]) |
//! | `<prefix>:lease:<location>:<sku>` | string | the lease of a reader who missed that entry |
//! | `<prefix>:in_step` | string | when the cache was last known to be in step: milliseconds of Redis's own clock |
//! | `<prefix>:state` | hash | `epoch`, `cursor`: the worker's durable position |
//! | `<prefix>:rebuild` | string | who is rebuilding, for three seconds at a time |
//!
//! In a location or SKU, `%` is written `%25`, and then `:` is written `%3A`; all else stays as it
//! is. So no two levels share a key: a prefix has no colon, and the parts have none left.

use std::fmt;

/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 60;

/// The keys below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
}

/// A prefix that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPrefix;

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a prefix has 1 to {PREFIX_BYTES_MAX} letters, digits, '-', '_' or '.'")
    }
}

impl std::error::Error for BadPrefix {}

impl std::str::FromStr for Layout {
    type Err = BadPrefix;

    fn from_str(prefix: &str) -> Result<Self, BadPrefix> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(allowed) {
            return Err(BadPrefix);
        }
        Ok(Layout { prefix: prefix.to_owned() })
    }
}

impl Layout {
    /// The key of the entry of a level.
    pub fn level(&self, sku: &str, location: &str) -> String {
        format!("{}:level:{}:{}", self.prefix, escape(location), escape(sku))
    }

    /// The key of the lease for the entry of a level.
    pub fn lease(&self, sku: &str, location: &str) -> String {
        format!("{}:lease:{}:{}", self.prefix, escape(location), escape(sku))
    }

    /// The key of the worker's durable position.
    pub fn state(&self) -> String {
        format!("{}:state", self.prefix)
    }

    /// The key of the moment at which the cache was last known to be in step.
    pub fn in_step(&self) -> String {
        format!("{}:in_step", self.prefix)
    }

    /// The key that says who is rebuilding.
    pub fn rebuild(&self) -> String {
        format!("{}:rebuild", self.prefix)
    }

    /// A pattern for SCAN that matches the keys of all entries, and nothing else.
    pub fn levels(&self) -> String {
        format!("{}:level:*", self.prefix)
    }

    /// The SKU and location of the entry under a key; `None` if it is no such key.
    pub fn parse(&self, key: &str) -> Option<(String, String)> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(":level:")?;
        let (location, sku) = rest.split_once(':')?;
        let (sku, location) = (unescape(sku)?, unescape(location)?);
        // A key that is written otherwise is none of ours.
        (self.level(&sku, &location) == key).then_some((sku, location))
    }
}

fn escape(part: &str) -> String {
    part.replace('%', "%25").replace(':', "%3A")
}

fn unescape(part: &str) -> Option<String> {
    (!part.contains(':')).then(|| part.replace("%3A", ":").replace("%25", "%"))
}

#[cfg(test)]
mod tests {
    use super::Layout;

    fn layout() -> Layout {
        "stock".parse().expect("a prefix")
    }

    #[test]
    fn a_key_names_one_level_and_says_which() {
        let parts = [
            "a", "a:b", "b", ":", "%", "%3A", "%25", "%253A", "::", "a%", "ä:ö", " ", "*",
            "level:a",
        ];
        let mut keys = std::collections::HashSet::new();
        for sku in parts {
            for location in parts {
                let key = layout().level(sku, location);
                assert_eq!(
                    layout().parse(&key),
                    Some((sku.to_owned(), location.to_owned())),
                    "{key}"
                );
                assert!(keys.insert(key), "{sku} at {location}");
            }
        }
    }

    #[test]
    fn the_documented_example_holds() {
        assert_eq!(layout().level("apple", "main"), "stock:level:main:apple");
        assert_eq!(
            layout().level("50% off:red", "shelf:1"),
            "stock:level:shelf%3A1:50%25 off%3Ared"
        );
    }

    #[test]
    fn other_keys_are_none_of_ours() {
        for key in [
            "stock:state",
            "stock:level:a",
            "stock:level:a:b:c",
            "stock:level:a:%",
            "other:level:a:b",
        ] {
            assert_eq!(layout().parse(key), None, "{key}");
        }
    }

    #[test]
    fn a_prefix_holds_no_colon_and_no_pattern() {
        for prefix in ["", "a:b", "a*", "[a]", "ä", &"a".repeat(61)] {
            assert!(prefix.parse::<Layout>().is_err(), "{prefix}");
        }
    }
}
