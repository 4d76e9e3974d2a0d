//! Reads the rows of an import.

use super::{Text, check_count, integer_of, read};
use crate::facts::{LevelId, Micros};
use crate::fault::Fault;
use crate::import::{OpenOrder, Row};
use crate::limits;
use crate::moment::UNIX_EPOCH;
use crate::name::Name;
use crate::request::{Limits, Line, NamedLot};

/// A row, as the procedure that imports makes it of a row of the shop's: all as text, so that no
/// row can spoil the others.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    /// What tells it from others.
    id: Text,
    /// How often the source has it.
    times: i64,
    sku: Option<Text>,
    location: Option<Text>,
    on_hand: Option<Text>,
    #[serde(default)]
    safety_stock: Option<Text>,
    #[serde(default)]
    buyer_limit: Option<Text>,
    #[serde(default)]
    lot: Option<Text>,
    /// In microseconds since 1970.
    #[serde(default)]
    best_before: Option<Text>,
}

/// Takes a whole number, as a column of any type shows it.
fn whole(path: &str, given: Option<&Text>) -> Result<i64, Fault> {
    integer_of(path, &String::from_utf8_lossy(&known(path, given)?.0))
}

/// Takes a moment of the years 1 to 9999, in microseconds since 1970.
fn moment(path: &str, given: Option<&Text>) -> Result<Micros, Fault> {
    let since_1970 = whole(path, given).map_err(|fault| {
        Fault::invalid(path, format!("{path} must be a moment of the years 1 to 9999"))
            .detail(fault.detail.unwrap_or_default())
            .hint("Give a date or a time.")
    })?;
    Ok(since_1970.saturating_add(UNIX_EPOCH))
}

/// Reads `[{"id": …, "times": …, "sku": …, "location": …, "on_hand": …}, …]`, row by row: what is
/// wrong with one does not touch the others. The path of a fault is the column.
///
/// # Errors
/// Where it is no array of such objects.
pub fn rows(json: &[u8]) -> Result<Vec<Result<Row, Fault>>, Fault> {
    let rows: Vec<RawRow> = read("rows", json)?;
    Ok(rows.iter().map(row).collect())
}

fn row(raw: &RawRow) -> Result<Row, Fault> {
    if raw.times > 1 {
        return Err(Fault::invalid("sku", "the source has more than one row for this")
            .detail(format!("It has {}; none of them was taken.", raw.times))
            .hint("Give each level, or lot of a level, one row."));
    }
    let stock = |path: &str, given: Option<&Text>| limits::stock(path, whole(path, given)?);
    let limit =
        |path, given: Option<&Text>| given.map(|given| stock(path, Some(given))).transpose();
    Ok(Row {
        id: Name::from(raw.id.0.as_slice()),
        at: LevelId {
            sku: name("sku", raw.sku.as_ref())?,
            location: name("location", raw.location.as_ref())?,
        },
        on_hand: stock("on_hand", raw.on_hand.as_ref())?,
        lot: named_lot(raw.lot.as_ref(), raw.best_before.as_ref())?,
        limits: Limits {
            safety_stock: limit("safety_stock", raw.safety_stock.as_ref())?,
            buyer_limit: limit("buyer_limit", raw.buyer_limit.as_ref())?,
            ..Limits::default()
        },
    })
}

/// An order, as the procedure that imports makes it of the rows of its key.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrder {
    key: Option<Text>,
    /// How many deadlines and buyers its rows name.
    times: i64,
    /// How many rows it has; of too many there are no lines.
    rows: i64,
    lines: Vec<RawOrderLine>,
    #[serde(default)]
    buyer: Option<Text>,
    /// In microseconds since 1970.
    expires_at: Option<Text>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrderLine {
    sku: Option<Text>,
    location: Option<Text>,
    quantity: Option<Text>,
}

/// Reads `[{"key": …, "times": …, "lines": […], "buyer": …, "expires_at": …}, …]`, order by order,
/// as [`rows`].
///
/// # Errors
/// Where it is no array of such objects.
pub fn open_orders(json: &[u8]) -> Result<Vec<Result<OpenOrder, Fault>>, Fault> {
    let orders: Vec<RawOrder> = read("rows", json)?;
    Ok(orders.iter().map(open_order).collect())
}

fn open_order(raw: &RawOrder) -> Result<OpenOrder, Fault> {
    if raw.times > 1 {
        return Err(Fault::invalid(
            "key",
            "the rows of this key have more than one deadline or buyer",
        )
        .hint("An order has one deadline and one buyer; give others keys of their own."));
    }
    check_count("key", usize::try_from(raw.rows).unwrap_or(usize::MAX), limits::LINES_MAX)?;
    Ok(OpenOrder {
        key: limits::key("key", &known("key", raw.key.as_ref())?.0)?,
        lines: order_lines(&raw.lines)?,
        buyer: raw.buyer.as_ref().map(|buyer| limits::name("buyer", &buyer.0)).transpose()?,
        expires_at: moment("expires_at", raw.expires_at.as_ref())?,
    })
}

fn order_lines(raw: &[RawOrderLine]) -> Result<Vec<Line>, Fault> {
    let mut lines: Vec<Line> = Vec::with_capacity(raw.len());
    for (place, raw) in raw.iter().enumerate() {
        let line = Line {
            number: i32::try_from(place + 1).unwrap_or(i32::MAX),
            at: LevelId {
                sku: name("sku", raw.sku.as_ref())?,
                location: name("location", raw.location.as_ref())?,
            },
            quantity: limits::quantity("quantity", whole("quantity", raw.quantity.as_ref())?)?,
            expected_version: None,
            lot: None,
        };
        // The rows come in the order of their levels.
        match lines.last_mut().filter(|last| last.at == line.at) {
            Some(last) => {
                last.quantity = limits::quantity("quantity", last.quantity + line.quantity)?;
            }
            None => lines.push(line),
        }
    }
    Ok(lines)
}

fn name(path: &str, given: Option<&Text>) -> Result<Name, Fault> {
    limits::name(path, &known(path, given)?.0)
}

fn known<'t>(path: &str, given: Option<&'t Text>) -> Result<&'t Text, Fault> {
    given.ok_or_else(|| {
        Fault::invalid(path, format!("{path} must not be null")).hint("Fill the column.")
    })
}

fn named_lot(lot: Option<&Text>, date: Option<&Text>) -> Result<Option<NamedLot>, Fault> {
    let lot = lot.map(|lot| limits::lot("lot", &lot.0)).transpose()?;
    NamedLot::of(lot, date.map(|date| moment("best_before", Some(date))).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_row_leaves_the_others_alone_and_names_its_column() {
        let json = br#"[
            {"id": "1", "times": 1, "sku": "a", "location": "m", "on_hand": "5.0"},
            {"id": "2", "times": 1, "sku": "b", "location": "m", "on_hand": "-1"},
            {"id": "3", "times": 1, "sku": null, "location": "m", "on_hand": "1"},
            {"id": "4", "times": 1, "sku": "c", "location": "m", "on_hand": null},
            {"id": "5", "times": 1, "sku": "c", "location": " m", "on_hand": "1"},
            {"id": "6", "times": 2, "sku": "d", "location": "m", "on_hand": "1"},
            {"id": "7", "times": 1, "sku": "e", "location": "m", "on_hand": "1", "safety_stock": "two"},
            {"id": "8", "times": 1, "sku": "e", "location": "m", "on_hand": "1", "buyer_limit": "2"},
            {"id": "9", "times": 1, "sku": "e", "location": "m", "on_hand": "1", "lot": null,
             "best_before": "4000000000000000"},
            {"id": "10", "times": 1, "sku": "e", "location": "m", "on_hand": "1", "lot": "l",
             "best_before": "infinity"}]"#;
        let paths: Vec<Option<String>> = rows(json)
            .expect("an array")
            .into_iter()
            .map(|row| row.err().map(|f| f.path))
            .collect();
        let expected = [
            None,
            Some("on_hand"),
            Some("sku"),
            Some("on_hand"),
            Some("location"),
            Some("sku"),
            Some("safety_stock"),
            None,
            Some("lot"),
            Some("best_before"),
        ];
        assert_eq!(paths, expected.map(|path| path.map(str::to_owned)));
    }
}
