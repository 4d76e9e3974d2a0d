//! Reads what a dispatch is to send on its way.

use std::collections::HashMap;
use std::fmt::Arguments;

use serde_json::value::RawValue;

use super::{Text, check_count, integer, lot, read_as};
use crate::facts::LevelId;
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::request::Load;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLoad<'a> {
    sku: Text,
    from: Text,
    to: Text,
    #[serde(borrow)]
    quantity: &'a RawValue,
    #[serde(default)]
    lot: Option<Text>,
}

/// Reads `[{"sku": …, "from": …, "to": …, "quantity": …}, …]`.
///
/// The same way of a SKU and lot named twice is summed into its first line.
///
/// # Errors
/// As [`lines`](super::lines); also where goods would go where they are.
pub fn loads(json: &[u8]) -> Result<Vec<Load>, Fault> {
    let raw: Vec<RawLoad> = read_as("lines", "loads", json)?;
    check_count("lines", raw.len(), limits::LINES_MAX)?;
    let mut loads: Vec<Load> = Vec::with_capacity(raw.len());
    let mut places: HashMap<(LevelId, LevelId, Option<Name>), usize> =
        HashMap::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let path = format_args!("lines[{index}]");
        let load = check_load(path, index, raw)?;
        let way = (load.from.clone(), load.to.clone(), load.lot.clone());
        match places.get(&way) {
            Some(&place) => {
                let sum = loads[place].quantity + load.quantity;
                loads[place].quantity = limits::quantity(format_args!("{path}.quantity"), sum)?;
            }
            None => {
                places.insert(way, loads.len());
                loads.push(load);
            }
        }
    }
    Ok(loads)
}

fn check_load(path: Arguments<'_>, index: usize, raw: &RawLoad<'_>) -> Result<Load, Fault> {
    let quantity_path = format_args!("{path}.quantity");
    let sku = limits::name(format_args!("{path}.sku"), &raw.sku.0)?;
    let from = limits::name(format_args!("{path}.from"), &raw.from.0)?;
    let to = limits::name(format_args!("{path}.to"), &raw.to.0)?;
    if from == to {
        return Err(Fault::invalid(
            format_args!("{path}.to"),
            format!("{path}.to is the same as {path}.from"),
        )
        .hint("Name two locations."));
    }
    Ok(Load {
        number: i32::try_from(index + 1).unwrap_or(i32::MAX),
        from: LevelId { sku: sku.clone(), location: from },
        to: LevelId { sku, location: to },
        quantity: limits::quantity(quantity_path, integer(quantity_path, raw.quantity)?)?,
        lot: lot(path, raw.lot.as_ref())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_twice_is_summed_and_two_ways_are_two() {
        let json = br#"[{"sku":"s","from":"n","to":"w","quantity":2},
                        {"sku":"s","from":"w","to":"n","quantity":1},
                        {"sku":"s","from":"n","to":"w","quantity":3}]"#;
        let read = loads(json).expect("sound");
        assert_eq!(
            read.iter().map(|load| (load.number, load.quantity)).collect::<Vec<_>>(),
            [(1, 5), (2, 1)]
        );
    }

    #[test]
    fn faults_name_their_path() {
        let cases = [
            ("[]", "lines"),
            ("null", "lines"),
            (r#"[{"sku":"s","from":"n","to":"n","quantity":1}]"#, "lines[0].to"),
            (r#"[{"sku":"s","from":"","to":"n","quantity":1}]"#, "lines[0].from"),
            (r#"[{"sku":"s","from":"w","to":"n","quantity":-1}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","from":"w","to":"n","quantity":"NaN"}]"#, "lines[0].quantity"),
            (r#"[{"sku":"s","location":"w","quantity":1}]"#, "lines[0].location"),
        ];
        for (json, path) in cases {
            let fault = loads(json.as_bytes()).expect_err(json);
            assert_eq!(fault.path, path, "{json}: {fault:?}");
            assert!(fault.hint.is_some(), "{json}");
        }
    }
}
