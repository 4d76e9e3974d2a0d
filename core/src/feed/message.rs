//! The JSON that NOTIFY carries: levels, several in a message, or alerts.
//!
//! PostgreSQL takes payloads below 8,000 bytes. The text is ASCII (other characters are escaped, as
//! JSON allows), so that it is the same in every encoding of a database.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::alert::Alert;
use crate::facts::Level;
use crate::moment;

/// Most bytes of a payload: PostgreSQL refuses 8,000.
pub const PAYLOAD_BYTES_MAX: usize = 7_999;
/// Room for what surrounds the levels of a message: generation, sequence, part, parts.
const ENVELOPE_BYTES: usize = 200;

/// A level as a listener is told of it.
#[derive(Clone, Debug, Serialize)]
pub struct LevelState {
    sku: String,
    location: String,
    on_hand: i64,
    reserved: i64,
    safety_stock: i64,
    #[serde(skip_serializing_if = "is_zero")]
    waiting: i64,
    #[serde(skip_serializing_if = "is_zero")]
    in_transit: i64,
    #[serde(skip_serializing_if = "is_zero")]
    backorder_limit: i64,
    #[serde(skip_serializing_if = "is_zero")]
    unsellable: i64,
    available: i64,
    frozen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_sale_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_sale_until: Option<String>,
    version: i64,
}

impl LevelState {
    /// A level with its names.
    pub fn new(sku: String, location: String, level: &Level) -> LevelState {
        LevelState {
            sku,
            location,
            on_hand: level.on_hand,
            reserved: level.reserved,
            safety_stock: level.safety_stock,
            waiting: level.waiting,
            in_transit: level.in_transit,
            backorder_limit: level.backorder_limit,
            unsellable: level.unsellable,
            available: level.announced(),
            frozen: level.frozen,
            on_sale_from: level.sale.from.and_then(moment::iso),
            on_sale_until: level.sale.until.and_then(moment::iso),
            version: level.version,
        }
    }
}

/// Whether a counter is left out of a message: most levels have nothing in it.
fn is_zero(counter: &i64) -> bool {
    *counter == 0
}

/// One emission of the feed.
#[derive(Clone, Debug)]
pub struct Emission<'a> {
    /// The life of the database.
    pub generation: &'a str,
    /// Its place among the emissions.
    pub sequence: i64,
    /// What a listener who has seen all emissions so far has seen with this one; `None` if
    /// something was left out.
    pub cursor: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    levels: Option<&'a [LevelState]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<&'a [AlertState]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

impl<'a> Message<'a> {
    const EMPTY: Message<'static> = Message {
        generation: None,
        sequence: None,
        part: None,
        parts: None,
        levels: None,
        alerts: None,
        cursor: None,
    };

    fn of(emission: Option<&'a Emission<'a>>) -> Message<'a> {
        Message {
            generation: emission.map(|emission| emission.generation),
            sequence: emission.map(|emission| emission.sequence),
            ..Message::EMPTY
        }
    }
}

/// An alert with the level it is about.
#[derive(Clone, Debug, Serialize)]
pub struct AlertState {
    alert: &'static str,
    #[serde(flatten)]
    level: LevelState,
}

impl AlertState {
    /// An alert that begins, or ends.
    pub fn new(alert: Alert, begins: bool, level: LevelState) -> AlertState {
        AlertState { alert: if begins { alert.word() } else { alert.end_word() }, level }
    }
}

/// An alert about a lot.
#[derive(Clone, Debug, Serialize)]
pub struct LotState {
    /// Whether its date is near, or past.
    pub alert: &'static str,
    /// What is sold.
    pub sku: String,
    /// Where it lies.
    pub location: String,
    /// The lot.
    pub lot: String,
    /// Its date.
    pub best_before: Option<String>,
    /// Units of it physically there.
    pub on_hand: i64,
    /// Units of them that are promised to open holds.
    pub reserved: i64,
}

/// The messages that tell of levels. Only the last of them has the cursor, and only where there is
/// room for it. Outside an emission (in the transaction that changes the levels) a message has
/// levels alone.
pub fn of_levels(emission: Option<&Emission<'_>>, levels: &[LevelState]) -> Vec<String> {
    let groups = split(levels);
    let number = |count: usize| emission.map(|_| count);
    let message = |place: usize, cursor: Option<&str>| {
        to_json(&Message {
            part: number(place + 1),
            parts: number(groups.len()),
            levels: Some(groups[place]),
            cursor,
            ..Message::of(emission)
        })
    };
    let mut messages: Vec<String> = (0..groups.len()).map(|place| message(place, None)).collect();
    if let (Some(last), Some(cursor)) =
        (messages.last_mut(), emission.and_then(|emission| emission.cursor.as_deref()))
    {
        let with_cursor = message(groups.len() - 1, Some(cursor));
        if with_cursor.len() <= PAYLOAD_BYTES_MAX {
            *last = with_cursor;
        }
    }
    messages
}

/// The messages that tell of alerts.
pub fn of_alerts(emission: Option<&Emission<'_>>, alerts: &[AlertState]) -> Vec<String> {
    split(alerts)
        .into_iter()
        .map(|alerts| to_json(&Message { alerts: Some(alerts), ..Message::of(emission) }))
        .collect()
}

/// The messages that tell of lots.
pub fn of_lots(lots: &[LotState]) -> Vec<String> {
    let message = |alerts| to_json(&serde_json::json!({ "alerts": alerts }));
    split(lots).into_iter().map(message).collect()
}

/// Groups that fit into a message each.
fn split<T: Serialize>(items: &[T]) -> Vec<&[T]> {
    let (mut groups, mut begin, mut size) = (Vec::new(), 0, ENVELOPE_BYTES);
    for (place, item) in items.iter().enumerate() {
        let length = to_json(item).len() + 1;
        if size + length > PAYLOAD_BYTES_MAX && place > begin {
            groups.push(&items[begin..place]);
            (begin, size) = (place, ENVELOPE_BYTES);
        }
        size += length;
    }
    if begin < items.len() {
        groups.push(&items[begin..]);
    }
    groups
}

fn to_json<T: Serialize>(value: &T) -> String {
    let mut text = Vec::new();
    // Neither can fail: there are only strings for keys, and the writer is memory.
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Ascii));
    debug_assert!(written.is_ok());
    String::from_utf8(text).unwrap_or_default()
}

/// Writes JSON in ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn state(sku: &str, version: i64) -> LevelState {
        let level = Level { on_hand: 10, reserved: 3, safety_stock: 2, version, ..Level::new() };
        LevelState::new(sku.into(), "main".into(), &level)
    }

    #[test]
    fn a_message_names_everything() {
        let emission = Emission { generation: "g", sequence: 7, cursor: Some("c".into()) };
        let messages = of_levels(Some(&emission), &[state("äpfel 🍏 \"\\\u{1}", 4)]);
        assert_eq!(
            messages,
            [concat!(
                r#"{"generation":"g","sequence":7,"part":1,"parts":1,"levels":[{"sku":"\u00e4pfel \ud83c\udf4f \"\\\u0001","#,
                r#""location":"main","on_hand":10,"reserved":3,"safety_stock":2,"available":5,"frozen":false,"version":4}],"#,
                r#""cursor":"c"}"#
            )]
        );
        let told: Value = serde_json::from_str(&messages[0]).expect("JSON");
        assert_eq!(told["levels"][0]["sku"], "äpfel 🍏 \"\\\u{1}");
        let alert = AlertState::new(Alert::SoldOut, false, state("a", 4));
        assert!(
            of_alerts(None, &[alert])[0]
                .starts_with(r#"{"alerts":[{"alert":"available_again","sku":"a","#)
        );
        assert!(of_levels(None, &[state("a", 1)])[0].starts_with(r#"{"levels":[{"sku":"a","#));
        assert!(of_levels(Some(&emission), &[]).is_empty());
    }

    #[test]
    fn no_message_is_too_long_and_none_is_lost() {
        for length in [1, 30, 200] {
            for filler in ["x", "\u{1}", "é"] {
                let sku = |number: usize| {
                    format!("{number}{}", filler.repeat(length / filler.len().max(1)))
                };
                let levels: Vec<LevelState> =
                    (0..500).map(|number| state(&sku(number), 1)).collect();
                let emission = Emission {
                    generation: &"g".repeat(36),
                    sequence: i64::MAX,
                    cursor: Some("c".repeat(100)),
                };
                let messages = of_levels(Some(&emission), &levels);
                assert!(messages.iter().all(|message| message.len() <= PAYLOAD_BYTES_MAX));
                let told: Vec<Value> =
                    messages.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
                let skus: Vec<String> = told
                    .iter()
                    .flat_map(|message| message["levels"].as_array().expect("levels"))
                    .map(|level| level["sku"].as_str().expect("a SKU").to_owned())
                    .collect();
                assert_eq!(skus, (0..500).map(sku).collect::<Vec<_>>());
                assert!(
                    told.iter().enumerate().all(|(place, message)| message["part"] == place + 1)
                );
                assert!(told.iter().rev().skip(1).all(|message| message.get("cursor").is_none()));
            }
        }
    }

    #[test]
    fn a_cursor_that_does_not_fit_is_left_out() {
        let emission =
            Emission { generation: "g", sequence: 1, cursor: Some("1".repeat(PAYLOAD_BYTES_MAX)) };
        let messages = of_levels(Some(&emission), &[state("a", 1)]);
        assert!(messages.len() == 1 && !messages[0].contains("cursor"));
    }
}
