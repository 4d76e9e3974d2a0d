//! Ten thousand bad requests: each gets a clear error or an honest refusal, and the backend works
//! on.

use super::support::{call, database, finish, outcome, sqlstate, stocked};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// How many bad requests are sent.
const REQUESTS: usize = 10_000;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-10..10i64).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinity", |x| x.is_finite()).prop_map(Value::from),
        "[^\\x00]{0,8}".prop_map(Value::from),
        Just(json!("x".repeat(201))),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("[a-z_]{0,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// A line that is sound but for one thing, or not even that.
fn line() -> impl Strategy<Value = Value> {
    let name = || prop_oneof![3 => Just(json!("a")), 1 => anything()];
    let quantity = prop_oneof![2 => (1..3i64).prop_map(Value::from), 2 => anything()];
    let more = proptest::option::weighted(0.2, ("[a-z_]{1,8}", anything()));
    (name(), name(), quantity, proptest::option::weighted(0.3, anything()), more).prop_map(
        |(sku, location, quantity, version, more)| {
            let mut line = json!({"sku": sku, "location": location, "quantity": quantity});
            if let Some(version) = version {
                line["expected_version"] = version;
            }
            if let Some((field, value)) = more {
                line[field] = value;
            }
            line
        },
    )
}

fn lines() -> impl Strategy<Value = Value> {
    prop_oneof![4 => proptest::collection::vec(line(), 0..3).prop_map(Value::from), 1 => anything()]
}

fn options() -> impl Strategy<Value = Value> {
    let ttl =
        prop_oneof![Just(json!("1 hour")), Just(json!("")), Just(json!("-1 day")), anything()];
    let sound = (ttl, anything()).prop_map(|(ttl, buyer)| json!({"ttl": ttl, "buyer": buyer}));
    prop_oneof![Just(json!({})), sound, anything()]
}

fn requests() -> impl Strategy<Value = Value> {
    let request = (anything(), lines(), anything())
        .prop_map(|(key, lines, ttl)| json!({"key": key, "lines": lines, "ttl": ttl}));
    let requests = proptest::collection::vec(request, 0..3).prop_map(Value::from);
    prop_oneof![3 => requests, 1 => anything()]
}

/// The SQL of a call with JSON that may be anything.
fn bad_call() -> impl Strategy<Value = String> {
    let text = |value: &Value| value.to_string().replace('\'', "''");
    let keyed = prop_oneof!["reserve_stock", "sell_stock"].prop_map(|name| name.to_string());
    let closing = prop_oneof!["confirm_stock", "release_stock", "return_stock"]
        .prop_map(|name| name.to_string());
    prop_oneof![
        4 => (keyed, "[a-z]{0,2}", lines(), options())
            .prop_map(move |(name, key, lines, options)| {
                format!("try_{name}('{key}', '{}', '{}')", text(&lines), text(&options))
            }),
        2 => (closing, "[a-z]{0,2}", lines()).prop_map(move |(name, key, lines)| {
            format!("try_{name}('{key}', '{}')", text(&lines))
        }),
        2 => requests().prop_map(move |requests| format!("reserve_many('{}')", text(&requests))),
        1 => (any::<i64>(), any::<i64>()).prop_map(|(quantity, version)| {
            format!("try_reserve_stock('k', 'a', 'a', {quantity}, NULL, NULL, {version})")
        }),
    ]
}

#[test]
fn ten_thousand_bad_requests_get_clear_errors_and_the_backend_works_on() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "a", 1_000_000);
    let (mut runner, strategy) = (TestRunner::deterministic(), bad_call());
    let mut errors = 0;
    for number in 0..REQUESTS {
        let text = strategy.new_tree(&mut runner).expect("a request").current();
        let Err(error) = call(&mut client, &text) else { continue };
        errors += 1;
        let report = error.as_db_error().unwrap_or_else(|| panic!("{text}: {error:?}"));
        // 22P02, 22P05, 22023 before us: what is not JSON for PostgreSQL itself, a lone surrogate,
        // say.
        let known = ["22023", "22003", "22P02", "22P05"];
        assert!(known.contains(&sqlstate(&error).as_str()), "{text}: {error:?}");
        if report.code().code() == "22023" && report.routine() == Some("pg_stock") {
            assert!(report.hint().is_some(), "{text}: {error:?}");
        }
        let shown = format!("{:?}", report);
        assert!(!shown.contains("backtrace") && !shown.contains("panicked"), "{text}: {shown}");
        if number % 100 == 0 {
            assert_eq!(outcome(&mut client, "try_reserve_stock('sound', 'a', 'a', 1)"), "reserved");
        }
    }
    println!("{REQUESTS} bad requests, {errors} errors");
    assert!(errors > REQUESTS / 2, "only {errors} errors: the corpus is too kind");
    finish(database);
}

#[test]
fn null_in_each_argument_is_a_default_or_a_clear_error() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    let functions = "SELECT p.proname || '(' || array_to_string(array(
                       SELECT CASE WHEN n = i THEN 'NULL' ELSE (CASE t.typname
                              WHEN 'text' THEN quote_literal('a') WHEN 'int8' THEN '1'
                              WHEN 'interval' THEN quote_literal('1 hour')
                              WHEN 'timestamptz' THEN quote_literal('2099-01-0' || i)
                              ELSE quote_literal('[{\"sku\":\"a\",\"location\":\"m\",\"quantity\":1}]') END)
                              || '::' || t.typname END
                         FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (type, i)
                         JOIN pg_type t ON t.oid = a.type
                        ORDER BY i), ', ') || ')' AS call, (p.pronargs - p.pronargdefaults) >= n
                        AS required
                       FROM pg_proc p, generate_series(1, p.pronargs) n
                      WHERE p.pronamespace = 'stock'::regnamespace
                      AND p.prorettype = 'stock.answer'::regtype";
    let calls: Vec<(String, bool)> =
        client.query(functions, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(calls.len() > 100, "{}", calls.len());
    for (text, required) in calls {
        let optional = text.contains("set_stock") && text.contains("1::int8, NULL");
        match call(&mut client, &text) {
            Err(error) if required && !optional => {
                assert_eq!(sqlstate(&error), "22023", "{text}: {error:?}")
            }
            Ok(rows) if required && !optional => panic!("{text}: {rows:?}"),
            Ok(_) => {}
            Err(error) => {
                let state = sqlstate(&error);
                // The other arguments make this call a refusal or a fault of their own (an option
                // that is an array).
                assert!(state.starts_with("ST") || state == "22023", "{text}: {error:?}");
            }
        }
    }
    finish(database);
}

/// A server whose environment asks for Rust backtraces must not show them to users.
#[test]
fn no_backtrace_reaches_a_user() {
    let database = database();
    let mut client = database.connect();
    for text in [
        "try_reserve_stock('k', 'a', 'm', -1)",
        "reserve_stock('k', '[{}]')",
        "reserve_stock('k', 'a', 'm', 1)",
    ] {
        let error = call(&mut client, text).unwrap_err();
        let shown = format!("{:?}", error.as_db_error());
        assert!(
            !shown.contains("rust_begin_unwind") && !shown.contains("stack backtrace"),
            "{shown}"
        );
    }
    finish(database);
}
