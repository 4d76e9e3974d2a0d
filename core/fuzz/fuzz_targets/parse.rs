//! The request parser takes any bytes: it answers or names the fault, it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_stock_core::limits::{MAX_BATCH_LINES, MAX_LINES, MAX_QUANTITY};
use pg_stock_core::parse;

fuzz_target!(|json: &[u8]| {
    if let Ok(lines) = parse::lines(json) {
        assert!(!lines.is_empty() && lines.len() <= MAX_LINES);
        assert!(lines.iter().all(|line| (1..=MAX_QUANTITY).contains(&line.quantity)));
    }
    drop(parse::options(json, true));
    drop(parse::requests(json, MAX_BATCH_LINES));
    drop(parse::orders(json));
});
