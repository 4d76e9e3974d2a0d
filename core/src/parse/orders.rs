//! Reads orders and what the shop says of them.

use std::collections::HashMap;

use super::{Text, check_count, read};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::settle::{Order, Status};

/// Reads `[{"key": …, "status": "paid" or "cancelled"}, …]`, each key once.
///
/// # Errors
/// A [`Fault`] with the path of what is malformed, unknown, missing, named twice or too much.
pub fn orders(json: &[u8]) -> Result<Vec<Order>, Fault> {
    let raw: Vec<RawOrder> = read("orders", json)?;
    check_count("orders", raw.len(), limits::REQUESTS_MAX)?;
    let mut places: HashMap<Name, usize> = HashMap::with_capacity(raw.len());
    let mut orders = Vec::with_capacity(raw.len());
    for (place, raw) in raw.iter().enumerate() {
        let order = check_order(place, raw)?;
        if let Some(first) = places.insert(order.key.clone(), place) {
            return Err(named_twice(&order.key, first, place));
        }
        orders.push(order);
    }
    Ok(orders)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrder {
    key: Text,
    status: Text,
}

fn check_order(place: usize, raw: &RawOrder) -> Result<Order, Fault> {
    let path = format_args!("orders[{place}].status");
    let status = Status::from_word(&raw.status.0).ok_or_else(|| {
        let shown: String =
            Name::from(raw.status.0.as_slice()).to_string().chars().take(40).collect();
        Fault::invalid(path, format!("{path} must be paid or cancelled"))
            .detail(format!("It is \"{shown}\"."))
            .hint("Leave orders out that are neither.")
    })?;
    Ok(Order { key: limits::key(format_args!("orders[{place}].key"), &raw.key.0)?, status })
}

/// Two statuses of one order could contradict each other.
fn named_twice(key: &Name, first: usize, place: usize) -> Fault {
    let path = format_args!("orders[{place}].key");
    Fault::invalid(path, format!("{path} is the same as orders[{first}].key"))
        .detail(format!("It is \"{key}\"."))
        .hint("Name each order once.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    #[test]
    fn sound_orders_are_read() {
        let read = orders(br#"[{"key":"a","status":"paid"},{"status":"cancelled","key":"b"}]"#)
            .expect("sound");
        let paid = Order { key: "a".into(), status: Status::Paid };
        assert_eq!(read, [paid, Order { key: "b".into(), status: Status::Cancelled }]);
    }

    #[test]
    fn faults_name_their_path() {
        let cases = [
            (r#"[]"#, "orders"),
            (r#"{}"#, "orders"),
            (r#"null"#, "orders"),
            (r#"[1]"#, "orders[0]"),
            (r#"[{"key":"a"}]"#, "orders[0]"),
            (r#"[{"status":"paid"}]"#, "orders[0]"),
            (r#"[{"key":"a","status":"paid","more":1}]"#, "orders[0].more"),
            (r#"[{"key":"a","status":"paid"},{"key":"","status":"paid"}]"#, "orders[1].key"),
            (r#"[{"key":7,"status":"paid"}]"#, "orders[0].key"),
            (r#"[{"key":"a","status":"shipped"}]"#, "orders[0].status"),
            (r#"[{"key":"a","status":"Paid"}]"#, "orders[0].status"),
            (r#"[{"key":"a","status":null}]"#, "orders[0].status"),
            (r#"[{"key":"a","status":"paid"},{"key":"a","status":"cancelled"}]"#, "orders[1].key"),
        ];
        for (json, path) in cases {
            let fault = orders(json.as_bytes()).expect_err(json);
            assert_eq!(
                (fault.path.as_str(), fault.kind),
                (path, FaultKind::Invalid),
                "{json}: {fault:?}"
            );
            assert!(fault.message.contains(path) && fault.hint.is_some(), "{json}: {fault:?}");
        }
    }

    #[test]
    fn there_are_at_most_ten_thousand() {
        let json = |count| {
            let order = |n| format!(r#"{{"key":"{n}","status":"paid"}}"#);
            format!("[{}]", (0..count).map(order).collect::<Vec<_>>().join(","))
        };
        assert_eq!(orders(json(10_000).as_bytes()).expect("as many as may be").len(), 10_000);
        assert_eq!(orders(json(10_001).as_bytes()).expect_err("too many").path, "orders");
    }
}
