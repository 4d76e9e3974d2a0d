//! A guarded decision holds as long as the level allows it, whatever others have made of the level.

use pg_stock_core::decide::{Guard, LevelChange};
use pg_stock_core::facts::NEVER;
use pg_stock_core::{Level, LevelId};

fn level() -> Level {
    Level { on_hand: 10, reserved: 3, safety_stock: 2, version: 7, next_due: 500, ..Level::new() }
}

fn guard() -> Guard {
    let at = LevelId { sku: "a".into(), location: "m".into() };
    let (waits, expected_version) = (false, None);
    Guard { at, quantity: 5, waits, expected_version, now: 100, next_due: 500, version: 7 }
}

#[test]
fn a_guard_admits_a_level_that_still_has_the_units() {
    assert!(guard().admits(&level()));
    assert!(
        guard().admits(&Level { version: 9, next_due: NEVER, ..level() }),
        "others sold meanwhile"
    );
    assert!(!guard().admits(&Level { reserved: 4, ..level() }), "a unit short");
    assert!(!guard().admits(&Level { safety_stock: 3, ..level() }), "a unit short");
    assert!(!guard().admits(&Level { frozen: true, ..level() }));
    assert!(!guard().admits(&Level { buyer_limit: Some(9), ..level() }));
    assert!(!guard().admits(&Level { next_due: 100, ..level() }), "holds are overdue by now");
}

#[test]
fn units_that_wait_and_units_that_are_there_are_not_exchanged() {
    // Two spare, nine may wait.
    let selling = Level { reserved: 6, backorder_limit: 9, ..level() };
    assert!(!guard().admits(&selling), "three of five would wait");
    let waiting = Guard { waits: true, ..guard() };
    assert!(!waiting.admits(&selling), "two of five are there");
    let sold_out = Level { reserved: 8, waiting: 4, ..selling };
    assert!(waiting.admits(&sold_out));
    assert!(!waiting.admits(&Level { waiting: 5, ..sold_out.clone() }), "a unit short");
    assert!(!guard().admits(&sold_out));
    // What has come is for those who waited before.
    assert!(waiting.admits(&Level { on_hand: 14, ..sold_out.clone() }));
    assert!(!waiting.admits(&Level { on_hand: 15, ..sold_out }));
}

#[test]
fn a_guard_that_demands_a_version_gets_it() {
    let demanding = Guard { expected_version: Some(7), ..guard() };
    assert!(demanding.admits(&level()));
    assert!(!demanding.admits(&Level { version: 8, ..level() }));
}

#[test]
fn a_guard_that_counted_overdue_holds_admits_the_very_level_alone() {
    let counting = Guard { next_due: 90, ..guard() };
    assert!(counting.admits(&Level { next_due: 90, ..level() }));
    assert!(!counting.admits(&Level { next_due: 90, version: 8, ..level() }));
    assert!(!counting.admits(&Level { next_due: 95, ..level() }));
}

#[test]
fn a_change_is_made_on_top_of_what_others_made_of_the_level() {
    let change =
        LevelChange { before: Some(level()), after: Level { reserved: 5, version: 8, ..level() } };
    let actual =
        Level { on_hand: 20, reserved: 6, safety_stock: 1, version: 11, next_due: 400, ..level() };
    let after = change.onto(&actual, 300);
    assert_eq!((after.on_hand, after.reserved, after.safety_stock, after.version), (20, 8, 1, 12));
    assert_eq!(after.next_due, 300);
    assert_eq!(change.onto(&actual, 450).next_due, 400);
    assert!(after.is_sound() && !Level { reserved: 21, ..after.clone() }.is_sound());
    assert!(!Level { reserved: -1, ..after }.is_sound());
}

#[test]
fn what_is_taken_back_leaves_what_others_made_of_the_level() {
    let change =
        LevelChange { before: Some(level()), after: Level { reserved: 5, version: 8, ..level() } };
    let actual =
        Level { on_hand: 20, reserved: 6, safety_stock: 1, version: 11, next_due: 400, ..level() };
    let back = change.off(&change.onto(&actual, 450));
    assert_eq!(back, actual, "an earlier deadline of theirs stays, though it was not read");
    assert_eq!(change.off(&change.onto(&actual, 300)).next_due, 300, "a bound may lie too early");
}
