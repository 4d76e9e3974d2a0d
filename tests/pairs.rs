//! Confirm, release, extend and expire of one reservation at once, pair by pair over two real
//! connections: whichever is first, each has one defined outcome, with the sweeper on and off,
//! whether the first commits or is rolled back.

use std::sync::OnceLock;

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::{backend, call, cluster, eventually, finish, outcome, stocked, value};

const OPERATIONS: [&str; 4] = ["confirm", "release", "extend", "expire"];

/// A server whose worker sweeps.
fn sweeping() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start(&[
            "shared_preload_libraries=pg_stock",
            "fsync=off",
            "max_worker_processes=40",
        ])
    })
}

/// Runs an operation on the reservation 'o'; `part` tells two of a kind apart.
fn operate(client: &mut Client, operation: &str, part: &str) -> String {
    let text = match operation {
        "confirm" => format!("try_confirm_stock('o', operation_key => '{part}')"),
        "release" => format!("try_release_stock('o', operation_key => '{part}')"),
        "extend" => "try_extend_reservation('o', '1 hour')".into(),
        _ => return value(client, "SELECT holds_expired FROM stock.expire_reservations()"),
    };
    call(client, &text).unwrap_or_else(|error| panic!("{text}: {error:?}"))[0].outcome.clone()
}

/// What an operation answers that comes upon an open hold, in time or late.
fn alone(operation: &str, late: bool) -> &'static str {
    match (operation, late) {
        ("confirm", false) => "confirmed",
        ("confirm", true) => "confirmed_late",
        ("release", false) => "released",
        ("extend", false) => "extended",
        ("release", true) => "reservation_expired",
        ("extend", true) => "extended_late",
        (_, false) => "0",
        (_, true) => "1",
    }
}

/// What the second answers that came while the first was in mid-transaction, and the first commits.
fn after(first: &str, second: &str, late: bool) -> &'static str {
    match (first, second, late) {
        ("confirm" | "extend", "expire", _) | ("release", "expire", false) => "0",
        // A quick no: the hold has lapsed, which is all that can be seen until the first commits.
        // Nobody waits for it.
        ("confirm" | "extend", "release", true) => "reservation_expired",
        // What was held again is in time.
        ("extend", "confirm" | "extend", true) => alone(second, false),
        ("confirm", ..) => "already_confirmed",
        ("release", _, false) => "already_released",
        ("expire", "expire", true) => "0",
        // Swept or not, a late hold is what it was: the units are taken again, or the deadline has
        // passed.
        _ => alone(second, late),
    }
}

/// The second meets the first in mid-transaction.
fn meet(database: Database<'_>, first: &str, second: &str, end: &str) -> (String, String) {
    let [mut one, mut other, mut watcher] = std::array::from_fn(|_| database.connect());
    let process = backend(&mut other);
    one.batch_execute("BEGIN").unwrap();
    let answered = operate(&mut one, first, "first");
    let told = std::thread::scope(|scope| {
        let second = scope.spawn(|| operate(&mut other, second, "second"));
        let waits = format!("SELECT wait_event_type FROM pg_stat_activity WHERE pid = {process}");
        eventually("the second waits or is done", || {
            second.is_finished() || value(&mut watcher, &waits) == "Lock"
        });
        one.batch_execute(end).unwrap();
        second.join().expect("no panic")
    });
    (answered, told)
}

fn each_pair(cluster: &'static Cluster, sweeper_is_on: bool) {
    for (first, second) in
        OPERATIONS.iter().flat_map(|first| OPERATIONS.map(|second| (*first, second)))
    {
        for (late, end) in
            [(false, "COMMIT"), (false, "ROLLBACK"), (true, "COMMIT"), (true, "ROLLBACK")]
        {
            let what = format!("{first}, {second}, late {late}, {end}, sweeper {sweeper_is_on}");
            let database = cluster.database();
            let mut client = database.connect();
            stocked(&mut client, "a", "m", 5);
            let ttl = if late { "1 ms" } else { "1 hour" };
            outcome(&mut client, &format!("try_reserve_stock('o', 'a', 'm', 5, '{ttl}')"));
            value(&mut client, "SELECT pg_sleep(0.005)");
            let (answered, told) = meet(database, first, second, end);
            let expected =
                if end == "COMMIT" { after(first, second, late) } else { alone(second, late) };
            if first != "expire" || !sweeper_is_on {
                assert_eq!(answered, alone(first, late), "the first of {what}");
            }
            if second != "expire" {
                assert_eq!(told, expected, "the second of {what}");
            } else if !sweeper_is_on {
                // A sweep does not wait for a locked level: it comes again.
                let again = operate(&mut client, "expire", "");
                assert!(
                    [&told, &again].contains(&&expected.to_owned()),
                    "{told} and {again}, {what}"
                );
            }
            finish(database);
        }
    }
}

#[test]
fn each_pair_of_operations_has_one_defined_outcome() {
    each_pair(cluster(), false);
}

#[test]
fn each_pair_of_operations_has_the_same_outcome_beside_the_sweeper() {
    each_pair(sweeping(), true);
}
