//! The request parser takes any bytes: it answers or names the fault, it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_stock_core::limits::{BATCH_LINES_MAX, LINES_MAX, QUANTITY_MAX};
use pg_stock_core::parse;

fuzz_target!(|json: &[u8]| {
    if let Ok(lines) = parse::lines(json) {
        assert!(!lines.is_empty() && lines.len() <= LINES_MAX);
        assert!(lines.iter().all(|line| (1..=QUANTITY_MAX).contains(&line.quantity)));
    }
    if let Ok(loads) = parse::loads(json) {
        assert!(loads.iter().all(|load| (1..=QUANTITY_MAX).contains(&load.quantity)));
        assert!(loads.iter().all(|load| load.from != load.to));
    }
    drop(parse::parts(json));
    drop(parse::options(json));
    drop(parse::requests(json, BATCH_LINES_MAX));
    drop(parse::orders(json));
});
