//! Reads requests from JSON, and names the path of each fault.

mod loads;
mod orders;
mod stock;

use std::collections::HashMap;
use std::fmt::{self, Arguments};

pub use loads::loads;
pub use orders::orders;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;
pub use stock::{open_orders, rows};

use crate::facts::LevelId;
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::request::Line;

/// What the argument `options` may say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Time to live, as text that PostgreSQL reads as an interval.
    pub ttl: Option<Name>,
    /// For whom.
    pub buyer: Option<Name>,
    /// How long lots must last, as text that PostgreSQL reads as an interval.
    pub min_life: Option<Name>,
    /// What the ledger rows are to say besides; empty for nothing.
    pub context: Name,
}

/// One request of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchRequest {
    /// Its key.
    pub key: Name,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Its options.
    pub options: Options,
}

/// Reads `[{"sku": …, "location": …, "quantity": …, "expected_version": …, "lot": …}, …]`.
///
/// A SKU and location named twice is summed into its first line; both must name the same lot, or
/// none.
///
/// # Errors
/// A [`Fault`] with the path of what is malformed, unknown, missing, out of range or too much.
pub fn lines(json: &[u8]) -> Result<Vec<Line>, Fault> {
    check_lines(format_args!("lines"), read("lines", json)?)
}

/// As [`parts_of_lots`], of what holds its lots already.
///
/// # Errors
/// As [`parts_of_lots`]; also where a `lot` is given.
pub fn parts(json: &[u8]) -> Result<Vec<Line>, Fault> {
    let lines = parts_of_lots(json)?;
    match lines.iter().find(|line| line.lot.is_some()) {
        None => Ok(lines),
        Some(line) => {
            let path = format!("lines[{}].lot", line.number - 1);
            Err(Fault::invalid(&path, format!("{path} is not allowed here"))
                .hint("What is held keeps its lots, see stock.picks(key); leave it out."))
        }
    }
}

/// As [`lines`], of what was reserved or sent before: the version of a level says nothing of that,
/// so that none may be demanded.
///
/// # Errors
/// As [`lines`]; also where an `expected_version` is given.
pub fn parts_of_lots(json: &[u8]) -> Result<Vec<Line>, Fault> {
    let lines = lines(json)?;
    match lines.iter().find(|line| line.expected_version.is_some()) {
        None => Ok(lines),
        Some(line) => {
            let path = format!("lines[{}].expected_version", line.number - 1);
            Err(Fault::invalid(&path, format!("{path} is not allowed here")).hint(
                "Only what is reserved or sold anew can demand the version that was seen; leave it \
                 out.",
            ))
        }
    }
}

/// Reads `{"ttl": "30 minutes", "buyer": "…", "context": "…"}`.
///
/// # Errors
/// As [`lines`].
pub fn options(json: &[u8]) -> Result<Options, Fault> {
    check_options(format_args!("options"), read("options", json)?)
}

/// As [`options`], of a sale, which has no `ttl`.
///
/// # Errors
/// As [`lines`]; also where a `ttl` is given.
pub fn options_of_sale(json: &[u8]) -> Result<Options, Fault> {
    let raw: RawOptions = read("options", json)?;
    if raw.ttl.is_some() {
        return Err(no_ttl(format_args!("options.ttl")));
    }
    check_options(format_args!("options"), raw)
}

/// The fault of a `ttl` that a sale is given.
pub fn no_ttl(path: Arguments<'_>) -> Fault {
    Fault::invalid(path, format!("{path} is not allowed here"))
        .hint("What is sold at once is not held; leave ttl out.")
}

/// Reads `[{"key": …, "lines": […], "ttl": …, "buyer": …, "context": …}, …]`, of so many lines at
/// most.
///
/// # Errors
/// As [`lines`].
pub fn requests(json: &[u8], most: usize) -> Result<Vec<BatchRequest>, Fault> {
    let raw: Vec<RawRequest> = read("requests", json)?;
    check_count("requests", raw.len(), limits::REQUESTS_MAX)?;
    let total: usize = raw.iter().map(|request| request.lines.len()).sum();
    // That one has none is told with its path.
    check_count("requests", total.max(1), most.min(limits::BATCH_LINES_MAX))?;
    raw.into_iter()
        .enumerate()
        .map(|(place, raw)| {
            let path = format_args!("requests[{place}]");
            Ok(BatchRequest {
                key: limits::key(format_args!("{path}.key"), &raw.key.0)?,
                lines: check_lines(format_args!("{path}.lines"), raw.lines)?,
                options: check_options(
                    path,
                    RawOptions {
                        ttl: raw.ttl,
                        buyer: raw.buyer,
                        min_life: raw.min_life,
                        context: raw.context,
                    },
                )?,
            })
        })
        .collect()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine<'a> {
    sku: Text,
    location: Text,
    #[serde(borrow)]
    quantity: &'a RawValue,
    #[serde(borrow, default)]
    expected_version: Option<&'a RawValue>,
    #[serde(default)]
    lot: Option<Text>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOptions {
    #[serde(default)]
    ttl: Option<Text>,
    #[serde(default)]
    buyer: Option<Text>,
    #[serde(default)]
    min_life: Option<Text>,
    #[serde(default)]
    context: Option<Text>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest<'a> {
    key: Text,
    #[serde(borrow)]
    lines: Vec<RawLine<'a>>,
    #[serde(default)]
    ttl: Option<Text>,
    #[serde(default)]
    buyer: Option<Text>,
    #[serde(default)]
    min_life: Option<Text>,
    #[serde(default)]
    context: Option<Text>,
}

/// A JSON string, byte for byte: the database may not be encoded in UTF-8.
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.as_bytes().to_vec()))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(bytes.to_vec()))
    }
}

fn read<'a, T: Deserialize<'a>>(argument: &str, json: &'a [u8]) -> Result<T, Fault> {
    read_as(argument, argument, json)
}

/// Reads an argument whose hint tells of another form than that of its name.
fn read_as<'a, T: Deserialize<'a>>(argument: &str, form: &str, json: &'a [u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let place = error.path().to_string();
        let dot = if place.starts_with('[') { "" } else { "." };
        let path = if place == "." { argument.into() } else { format!("{argument}{dot}{place}") };
        let message = error.inner().to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        Fault::invalid(&path, format!("{path}: {what}")).hint(form_of(form))
    })
}

fn form_of(argument: &str) -> &'static str {
    match argument {
        "lines" => {
            r#"Give an array like [{"sku": "A-1", "location": "main", "quantity": 2, "expected_version": 7, "lot": "L1"}]; expected_version and lot are optional."#
        }
        "loads" => {
            r#"Give an array like [{"sku": "A-1", "from": "north", "to": "south", "quantity": 2, "lot": "L1"}]; lot is optional."#
        }
        "options" => {
            r#"Give an object like {"ttl": "30 minutes", "buyer": "b-7", "min_life": "3 days", "context": "trace 12"}; all are optional."#
        }
        "orders" => {
            r#"Give an array like [{"key": "order-1", "status": "paid"}, {"key": "order-2", "status": "cancelled"}]."#
        }
        _ => {
            r#"Give an array like [{"key": "order-1", "lines": [{"sku": "A-1", "location": "main", "quantity": 2}], "ttl": "30 minutes", "buyer": "b-7", "min_life": "3 days", "context": "trace 12"}]; ttl, buyer, min_life and context are optional."#
        }
    }
}

fn check_count(path: impl fmt::Display + Copy, count: usize, most: usize) -> Result<(), Fault> {
    if count == 0 {
        return Err(
            Fault::invalid(path, format!("{path} must not be empty")).hint("Give at least one.")
        );
    }
    if count > most {
        return Err(Fault::invalid(path, format!("{path} has too many entries"))
            .detail(format!("There are {count}; at most {most} are allowed."))
            .hint("Split the call."));
    }
    Ok(())
}

fn check_options(path: Arguments<'_>, raw: RawOptions) -> Result<Options, Fault> {
    let buyer =
        raw.buyer.map(|buyer| limits::name(format_args!("{path}.buyer"), &buyer.0)).transpose()?;
    let context = raw.context.map(|context| Name::from(context.0)).unwrap_or_default();
    let text = |raw: Option<Text>| raw.map(|text| Name::from(text.0));
    Ok(Options { ttl: text(raw.ttl), buyer, min_life: text(raw.min_life), context })
}

fn check_lines(path: Arguments<'_>, raw: Vec<RawLine<'_>>) -> Result<Vec<Line>, Fault> {
    check_count(path, raw.len(), limits::LINES_MAX)?;
    let mut lines: Vec<Line> = Vec::with_capacity(raw.len());
    let mut places: HashMap<LevelId, usize> = HashMap::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let path = format_args!("{path}[{index}]");
        let line = check_line(path, index, raw)?;
        match places.get(&line.at) {
            Some(&place) => join(path, &mut lines[place], line)?,
            None => {
                places.insert(line.at.clone(), lines.len());
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

fn check_line(path: Arguments<'_>, index: usize, raw: &RawLine<'_>) -> Result<Line, Fault> {
    let quantity_path = format_args!("{path}.quantity");
    let version_path = format_args!("{path}.expected_version");
    Ok(Line {
        number: i32::try_from(index + 1).unwrap_or(i32::MAX),
        at: LevelId {
            sku: limits::name(format_args!("{path}.sku"), &raw.sku.0)?,
            location: limits::name(format_args!("{path}.location"), &raw.location.0)?,
        },
        quantity: limits::quantity(quantity_path, integer(quantity_path, raw.quantity)?)?,
        expected_version: raw.expected_version.map(|raw| integer(version_path, raw)).transpose()?,
        lot: lot(path, raw.lot.as_ref())?,
    })
}

/// Takes the lot of a line.
fn lot(path: Arguments<'_>, raw: Option<&Text>) -> Result<Option<Name>, Fault> {
    raw.map(|lot| limits::lot(format_args!("{path}.lot"), &lot.0)).transpose()
}

/// Sums a line into an earlier one of the same SKU and location.
fn join(path: Arguments<'_>, first: &mut Line, again: Line) -> Result<(), Fault> {
    first.quantity =
        limits::quantity(format_args!("{path}.quantity"), first.quantity + again.quantity)?;
    if first.lot != again.lot {
        let message = format!("{path}.lot differs from that of line {}", first.number);
        return Err(Fault::invalid(path, message)
            .detail("Both lines name the same SKU and location.")
            .hint("A request takes one lot of a level, or leaves it open; use a key for each."));
    }
    match (first.expected_version, again.expected_version) {
        (Some(one), Some(other)) if one != other => Err(Fault::invalid(
            path,
            format!("{path}.expected_version differs from that of line {}", first.number),
        )
        .detail("Both lines name the same SKU and location.")
        .hint("A level has one version; name it once.")),
        (None, version @ Some(_)) => {
            first.expected_version = version;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads an integer from JSON: no exponent, no text, and no fraction but 0, which some drivers send
/// with whole numbers.
fn integer(path: Arguments<'_>, raw: &RawValue) -> Result<i64, Fault> {
    integer_of(path, raw.get())
}

/// The same from its text.
fn integer_of(path: impl fmt::Display + Copy, text: &str) -> Result<i64, Fault> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_integer || !fraction.bytes().all(|byte| byte == b'0') {
        let shown: String = text.chars().take(40).collect();
        return Err(Fault::invalid(path, format!("{path} must be an integer"))
            .detail(format!("It is {shown}."))
            .hint("Give a whole number without quotes."));
    }
    whole.parse().map_err(|_| {
        Fault::overflow(path, format!("{path} is out of range"))
            .detail(format!("It has {} digits.", digits.len()))
            .hint(format!("At most {} units are allowed.", limits::QUANTITY_MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    fn fault(json: &str) -> Fault {
        lines(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_sound_line_is_read() {
        let lines = lines(br#"[{"sku":"s","location":"l","quantity":2,"expected_version":7}]"#)
            .expect("sound");
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0].number, lines[0].quantity, lines[0].expected_version),
            (1, 2, Some(7))
        );
    }

    #[test]
    fn a_batch_has_at_most_ten_thousand_requests_and_a_hundred_thousand_lines() {
        let line = |number: usize| format!(r#"{{"sku":"s{number}","location":"l","quantity":1}}"#);
        let batch = |count: usize, lines: usize| {
            let lines = (0..lines).map(line).collect::<Vec<_>>().join(",");
            let request = |number| format!(r#"{{"key":"k{number}","lines":[{lines}]}}"#);
            format!("[{}]", (0..count).map(request).collect::<Vec<_>>().join(","))
        };
        for (count, lines, is_sound) in
            [(10_000, 1, true), (10_001, 1, false), (10, 10_000, true), (11, 9_091, false)]
        {
            let read = requests(batch(count, lines).as_bytes(), limits::BATCH_LINES_MAX);
            assert_eq!(read.is_ok(), is_sound, "{count} requests of {lines} lines");
        }
    }

    #[test]
    fn whole_numbers_pass_with_a_fraction_of_nothing() {
        for quantity in ["2", "2.0", "2.00"] {
            let json = format!(
                r#"[{{"sku":"s","location":"l","quantity":{quantity},"expected_version":{quantity}}}]"#
            );
            let lines = lines(json.as_bytes()).expect("sound");
            assert_eq!((lines[0].quantity, lines[0].expected_version), (2, Some(2)));
        }
    }

    #[test]
    fn names_are_what_is_seen_of_them() {
        for sku in
            [" s", "s ", "\u{feff}s", "s\u{a0}", "s\u{200b}", "s\nt", "s\u{7}", "s\u{85}t", "\t"]
        {
            let json =
                serde_json::json!([{"sku": sku, "location": "l", "quantity": 1}]).to_string();
            assert_eq!(fault(&json).path, "lines[0].sku", "{sku:?}");
        }
        for sku in ["s t", "Größe 42", "日本", "-", "pg_stock:s"] {
            let json =
                serde_json::json!([{"sku": sku, "location": "l", "quantity": 1}]).to_string();
            assert_eq!(lines(json.as_bytes()).expect(sku)[0].at.sku, sku.into());
        }
    }

    #[test]
    fn keys_of_our_own_are_refused() {
        let json = br#"[{"key":"pg_stock:k","lines":[{"sku":"s","location":"l","quantity":1}]}]"#;
        assert_eq!(requests(json, 10).expect_err("ours").path, "requests[0].key");
    }

    #[test]
    fn one_sku_twice_is_summed_into_its_first_line() {
        let json =
            br#"[{"sku":"s","location":"l","quantity":2},{"sku":"t","location":"l","quantity":1},
                        {"sku":"s","location":"l","quantity":3}]"#;
        let lines = lines(json).expect("sound");
        assert_eq!(
            lines.iter().map(|line| (line.number, line.quantity)).collect::<Vec<_>>(),
            [(1, 5), (2, 1)]
        );
    }

    #[test]
    fn faults_name_their_path() {
        let cases = [
            (r#"[]"#, "lines"),
            (r#"{}"#, "lines"),
            (r#"null"#, "lines"),
            (r#"[1]"#, "lines[0]"),
            (r#"[{"sku":"s","location":"l"}]"#, "lines[0]"),
            (
                r#"[{"sku":"s","location":"l","quantity":1},{"sku":5,"location":"l","quantity":1}]"#,
                "lines[1].sku",
            ),
            (r#"[{"sku":"s","location":null,"quantity":1}]"#, "lines[0].location"),
            (r#"[{"sku":"","location":"l","quantity":1}]"#, "lines[0].sku"),
            (r#"[{"sku":"s","location":"l","quantity":1.5}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","location":"l","quantity":"1"}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","location":"l","quantity":null}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","location":"l","quantity":0}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","location":"l","quantity":-1}]"#, "lines[0].quantity"),
            (
                r#"[{"sku":"s","location":"l","quantity":1,"expected_version":true}]"#,
                "lines[0].expected_version",
            ),
        ];
        for (json, path) in cases {
            let fault = fault(json);
            assert_eq!(fault.path, path, "{json}: {fault:?}");
            assert_eq!(fault.kind, FaultKind::Invalid, "{json}");
            assert!(fault.message.contains(path), "{json}: {fault:?}");
            assert!(fault.hint.is_some(), "{json}");
        }
        assert!(
            fault(r#"[{"sku":"s","location":"l","quantity":1,"colour":"red"}]"#)
                .message
                .contains("colour")
        );
    }

    #[test]
    fn overflow_is_told_from_nonsense() {
        for quantity in ["1000000000000001", "9223372036854775808", &"9".repeat(400)] {
            let fault = fault(&format!(r#"[{{"sku":"s","location":"l","quantity":{quantity}}}]"#));
            assert_eq!(
                (fault.kind, fault.path.as_str()),
                (FaultKind::Overflow, "lines[0].quantity")
            );
        }
        let sum = r#"[{"sku":"s","location":"l","quantity":1000000000000000},{"sku":"s","location":"l","quantity":1}]"#;
        assert_eq!(fault(sum).kind, FaultKind::Overflow);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_taken_as_given() {
        let json = b"[{\"sku\":\"caf\xe9\",\"location\":\"l\",\"quantity\":1}]";
        assert_eq!(lines(json).expect("sound")[0].at.sku.as_bytes(), b"caf\xe9");
    }

    #[test]
    fn options_and_requests_name_their_paths() {
        assert_eq!(options(br#"{"buyer":""}"#).expect_err("empty").path, "options.buyer");
        assert_eq!(
            options_of_sale(br#"{"ttl":"1 hour"}"#).expect_err("no ttl").path,
            "options.ttl"
        );
        assert_eq!(options(br#"{"ttl":5}"#).expect_err("number").path, "options.ttl");
        let json = br#"[{"key":"k","lines":[{"sku":"s","location":"l","quantity":0}]}]"#;
        assert_eq!(requests(json, 10).expect_err("zero").path, "requests[0].lines[0].quantity");
        let json = br#"[{"key":"k","lines":[{"sku":"s","location":"l","quantity":"x","more":1}]}]"#;
        assert_eq!(requests(json, 10).expect_err("unknown").path, "requests[0].lines[0].more");
    }
}
