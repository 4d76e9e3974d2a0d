//! What verify() names can be put right, and the shop goes on (E3).

use postgres::Client;

use super::support::{call, cluster, database, finish, outcome, sqlstate, stocked, value};
use super::verify::{FALSIFICATIONS, falsify, trade};

/// What is done with every key once the books are right again.
const AFTERWARDS: &[&str] = &[
    "stock.try_release_stock('held')",
    "stock.try_confirm_stock('late')",
    "stock.try_release_stock('patient')",
    "stock.try_return_stock('sold')",
    "stock.try_release_stock('eater')",
    "stock.try_return_stock('paid')",
    "stock.try_arrive_stock('lorry')",
    "stock.try_receive_stock('more', 'a', 'late', 30)",
    "stock.try_receive_stock('more', 'a', 'dated', 3, NULL, 'x', '2060-01-01')",
    "stock.try_reserve_stock('next', 'a', 'm', 1)",
    "stock.try_confirm_stock('next')",
    "stock.reservation('held')",
    "stock.picks('eater')",
];

/// E3: the journal is the truth, and where it contradicts itself, the books are made to agree.
#[test]
fn each_falsification_can_be_repaired_and_the_shop_goes_on() {
    let database = database();
    let mut client = database.connect();
    trade(&mut client);
    let mut faults = Vec::new();
    for falsification in FALSIFICATIONS {
        falsify(&mut client, falsification);
        if let Err(fault) = is_mended(&mut client) {
            faults.push(format!("{falsification}\n    {fault}"));
        }
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        FALSIFICATIONS.len(),
        faults.join("\n")
    );
}

/// Harm seldom comes alone: each falsification with another one, and some after the other was
/// repaired.
#[test]
fn falsifications_beside_and_after_each_other_can_be_repaired() {
    let database = database();
    let mut client = database.connect();
    trade(&mut client);
    let mut faults = Vec::new();
    for (nth, falsification) in FALSIFICATIONS.iter().enumerate() {
        let other = FALSIFICATIONS[(nth * 37 + 11) % FALSIFICATIONS.len()];
        let between =
            if nth % 3 == 0 { "SELECT stock.repair(NULL, NULL, 'the first')" } else { "" };
        falsify(&mut client, falsification);
        let harmed = client.batch_execute(&format!(
            "SAVEPOINT harm; {between}; SET LOCAL session_replication_role = replica; {other};
             SET LOCAL session_replication_role = origin"
        ));
        // Some cannot be done beside each other.
        if harmed.is_err() {
            client.batch_execute("ROLLBACK TO harm").unwrap();
        }
        if let Err(fault) = is_mended(&mut client) {
            faults.push(format!("{falsification}\n  {between}\n  {other}\n    {fault}"));
        }
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
}

/// Repairs, and does something with every key; says what went wrong.
pub fn is_mended(client: &mut Client) -> Result<(), String> {
    let mut run = |sql: &str| match client.query(sql, &[]) {
        Ok(rows) => Ok(rows),
        Err(error) => {
            let said = error
                .as_db_error()
                .map(|e| format!("{} {:?} {:?}", e.message(), e.detail(), e.where_()));
            Err(format!("{sql}: {}", said.unwrap_or_default()))
        }
    };
    run("SELECT * FROM stock.repair(NULL, NULL, 'a test')")?;
    let left = |rows: Vec<postgres::Row>, when: &str| match rows.first() {
        None => Ok(()),
        Some(row) => Err(format!(
            "{when}: {:?} {:?}: expected {:?}, found {:?}",
            row.get::<_, Option<String>>("location"),
            row.get::<_, Option<String>>("problem"),
            row.get::<_, Option<String>>("expected"),
            row.get::<_, Option<String>>("found")
        )),
    };
    left(run("SELECT * FROM stock.verify()")?, "repaired")?;
    // What the core believes of each reservation is what its holds, lots and picks say.
    let differing = run("SELECT h.key, h.quantity, r.held, p.picks, b.bound FROM stock.hold h
          CROSS JOIN LATERAL (SELECT sum(r.held) AS held, sum(r.confirmed - r.returned) AS sold
                                FROM stock.reservation(h.key) r WHERE r.sku = h.sku
                                 AND r.location = h.location) r
          CROSS JOIN LATERAL (SELECT coalesce(sum(w.quantity), 0) AS waiting FROM stock.waiting w
                               WHERE w.key = h.key) w
          CROSS JOIN LATERAL (SELECT coalesce(sum(p.quantity), 0) AS picks
                                FROM stock.picks(h.key) p
                               WHERE p.sku = h.sku AND p.location = h.location) p
          CROSS JOIN LATERAL (SELECT sum(b.quantity) AS bound FROM stock.hold_lot b
                               WHERE b.key = h.key) b
          WHERE h.expires_at > now()
            AND (h.quantity, h.quantity - w.waiting + r.sold,
                 coalesce(b.bound, h.quantity - w.waiting))
                IS DISTINCT FROM (r.held, p.picks, h.quantity - w.waiting)")?;
    if let Some(row) = differing.first() {
        return Err(format!("{} differs from what is told of it", row.get::<_, String>("key")));
    }
    for call in AFTERWARDS {
        run(&format!("SELECT * FROM {call}"))?;
        left(run("SELECT * FROM stock.verify()")?, call)?;
    }
    Ok(())
}

/// What a repair of one level answered, and its ledger row.
fn repaired(client: &mut Client, harm: &str) -> (String, String) {
    falsify(client, harm);
    client.batch_execute("COMMIT").unwrap();
    let answer = value(
        client,
        "SELECT concat_ws(' ', source, on_hand_before, on_hand, reserved_before, reserved, version)
           FROM stock.repair('a', 'm', 'who restored it by hand')",
    );
    let row = value(
        client,
        "SELECT concat_ws(' ', on_hand_delta, reserved_delta, on_hand_after, reserved_after,
                          version, reason, context::jsonb #>> '{before,on_hand}',
                          context::jsonb #>> '{after,on_hand}', context::jsonb ->> 'source',
                          context::jsonb #>> '{found,0,problem}')
           FROM stock.ledger_rows WHERE operation = 'repair' AND sku = 'a'
          ORDER BY version DESC, position LIMIT 1",
    );
    assert_eq!(value(client, "SELECT count(*) FROM stock.verify()"), "0", "{harm}");
    (answer, row)
}

/// The journal is the truth when it and the balance disagree; the counter where the journal
/// contradicts itself.
#[test]
fn the_ledger_is_the_truth_as_long_as_it_agrees_with_itself() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'm', 3)"), "reserved");
    assert_eq!(outcome(&mut client, "sell_stock('s', 'a', 'm', 1)"), "sold");

    let (answer, row) = repaired(&mut client, "UPDATE stock.level SET on_hand = 99, reserved = 7");
    assert_eq!(answer, "ledger 99 9 7 3 5");
    assert_eq!(
        row,
        "0 0 9 3 5 who restored it by hand 99 9 ledger the level's on_hand differs from the ledger"
    );
    let (answer, _) = repaired(&mut client, "DELETE FROM stock.hold");
    assert_eq!(answer, "ledger 9 9 3 3 6");
    let (answer, _) = repaired(&mut client, "DELETE FROM stock.level");
    assert_eq!(answer, "ledger 9 3 7", "the balances are made of the ledger");
    let (answer, row) = repaired(
        &mut client,
        "UPDATE stock.ledger SET on_hand_delta = 500 WHERE operation = 'receive'",
    );
    assert_eq!(answer, "counters 9 9 3 3 8");
    assert!(row.ends_with("counters the level's on_hand differs from the ledger"), "{row}");

    // What was not harmed goes on; what is whole is not touched.
    let none = value(&mut client, "SELECT count(*) FROM stock.repair('a', 'm', 'again')");
    assert_eq!(none, "0");
    let again = call(&mut client, "reserve_stock('o', 'a', 'm', 3)").unwrap();
    assert!(again[0].replayed && again[0].state == "held", "{again:?}");
    assert_eq!(outcome(&mut client, "confirm_stock('o')"), "confirmed");
    assert_eq!(outcome(&mut client, "return_stock('s')"), "returned");
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.level"), "7");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    client.batch_execute("CALL stock.archive('0')").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.ledger"), "0");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
}

/// Where the end of the ledger is gone it agrees with itself, and says that what was sold is there.
#[test]
fn a_ledger_that_lost_its_end_gives_nothing_back() {
    let database = database();
    let mut client = database.connect();
    for (lost, left) in
        [("key = 's'", "0"), ("key = 's' AND operation = 'confirm'", "0"), ("true", "0")]
    {
        client.batch_execute("BEGIN").unwrap();
        stocked(&mut client, "a", "m", 10);
        outcome(&mut client, "sell_stock('s', 'a', 'm', 10, 'b')");
        client
            .batch_execute(&format!(
                "SET LOCAL session_replication_role = replica;
                 DELETE FROM stock.ledger WHERE {lost}"
            ))
            .unwrap();
        let on_hand = "SELECT on_hand FROM stock.repair(NULL, NULL, 'a test')";
        assert_eq!(value(&mut client, on_hand), left, "{lost}");
        assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0", "{lost}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    finish(database);
}

/// What happens after a repair is carried forward like everything else.
#[test]
fn what_was_repaired_can_be_archived() {
    let database = database();
    let mut client = database.connect();
    call(&mut client, "receive_stock('r', 'a', 'm', 100, NULL, 'L', '2060-01-01')").unwrap();
    outcome(&mut client, "set_limits('l', 'a', 'm', NULL, 50)");
    falsify(&mut client, "UPDATE stock.ledger SET on_hand_delta = 500 WHERE key = 'r'");
    assert_eq!(value(&mut client, "SELECT source FROM stock.repair(NULL, NULL, 'x')"), "counters");
    client.batch_execute("COMMIT").unwrap();
    outcome(&mut client, "sell_stock('s1', 'a', 'm', 10, 'b')");
    client.batch_execute("CALL stock.archive('0')").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.ledger"), "0");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
}

/// A lot comes back with its date, also where that stands in the archive alone.
#[test]
fn a_lot_that_was_deleted_comes_back_with_its_date() {
    let database = database();
    let mut client = database.connect();
    call(&mut client, "receive_stock('r', 'a', 'm', 5, NULL, 'x', '2060-01-01')").unwrap();
    call(&mut client, "transfer_stock('t', 'a', 'm', 'n', 2)").unwrap();
    client.batch_execute("CALL stock.archive('0')").unwrap();
    let lots = "SELECT string_agg(concat_ws(' ', location, lot, on_hand, best_before::date), ', '
                                  ORDER BY location) FROM stock.lots";
    assert_eq!(value(&mut client, lots), "m x 3 2060-01-01, n x 2 2060-01-01");
    for location in ["m", "n"] {
        falsify(&mut client, &format!("DELETE FROM stock.lot WHERE location = '{location}'"));
        value(&mut client, "SELECT count(*) FROM stock.repair(NULL, NULL, 'a test')");
        assert_eq!(value(&mut client, lots), "m x 3 2060-01-01, n x 2 2060-01-01");
        client.batch_execute("COMMIT").unwrap();
    }
    finish(database);
}

/// One row that is wrong makes all after it wrong; what the ledger keeps of that stays small, and
/// names no buyer.
#[test]
fn what_is_kept_of_a_repair_is_bounded_and_names_nobody() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10_000);
    client
        .batch_execute(
            "SELECT count(*) FROM generate_series(1, 300) i,
               stock.sell_stock('s' || i, 'a', 'm', 1, 'annika')",
        )
        .unwrap();
    falsify(
        &mut client,
        "UPDATE stock.ledger SET on_hand_delta = on_hand_delta + 1 WHERE operation = 'receive';
         UPDATE stock.buyer_quantity SET quantity = 7",
    );
    let problems = "SELECT problems FROM stock.repair('a', 'm', 'a test')";
    assert_eq!(value(&mut client, problems), "604");
    let kept = "SELECT octet_length(context) < 6000 AND context NOT LIKE '%annika%'
                  FROM stock.ledger_rows WHERE operation = 'repair'";
    assert_eq!(value(&mut client, kept), "t");
    client.batch_execute("ROLLBACK").unwrap();
    finish(database);
}

/// Levels are locked in the order of their bytes, whatever the locale of the database: every call
/// does, and two orders would meet.
#[test]
fn levels_are_locked_in_the_order_of_their_bytes_whatever_icu_says() {
    let mut admin = cluster().connect("postgres");
    admin
        .batch_execute(
            "CREATE DATABASE repair_in_english TEMPLATE template0 LOCALE_PROVIDER icu
             ICU_LOCALE 'en-US'",
        )
        .unwrap();
    let mut client = cluster().connect("repair_in_english");
    client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
    for sku in ["aa", "BB", "a-b", "Ab"] {
        stocked(&mut client, sku, "m", 10);
    }
    client.batch_execute("UPDATE stock.level SET on_hand = 11").unwrap();
    let order = "SELECT string_agg(sku, ' ') FROM stock.repair(NULL, NULL, 'a test')";
    assert_eq!(value(&mut client, order), "Ab BB a-b aa");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    client.batch_execute("CALL stock.archive('0')").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    drop(client);
    admin.batch_execute("DROP DATABASE repair_in_english").unwrap();
}

/// A version that was shown is never shown again for something else: caches would not take it.
#[test]
fn versions_only_rise() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    let (answer, _) = repaired(&mut client, "UPDATE stock.level SET version = 500");
    assert_eq!(answer, "counters 10 10 0 0 501");
    let (answer, _) = repaired(&mut client, "UPDATE stock.ledger SET version = 900");
    assert_eq!(answer, "counters 10 10 0 0 901");
    assert_eq!(outcome(&mut client, "sell_stock('s', 'a', 'm', 1)"), "sold");
    assert_eq!(value(&mut client, "SELECT version FROM stock.levels"), "903");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
}

#[test]
fn who_asks_wrongly_is_told_so_and_nothing_is_done() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute("UPDATE stock.level SET on_hand = 99").unwrap();
    for (call, says) in [
        ("stock.repair('a', NULL, 'x')", "of_sku and of_location must both be given"),
        ("stock.repair(NULL, 'm', 'x')", "of_sku and of_location must both be given"),
        ("stock.repair(NULL, NULL, NULL)", "reason must say why"),
        ("stock.repair(NULL, NULL, '  ')", "reason must say why"),
        ("stock.repair('', 'm', 'x')", "of_sku must not be empty"),
    ] {
        let error = client.batch_execute(&format!("SELECT {call}")).expect_err(call);
        assert_eq!(sqlstate(&error), "22023", "{call}");
        let said = error.as_db_error().unwrap();
        assert!(said.message().contains(says) && said.hint().is_some(), "{call}: {said:?}");
    }
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.level"), "99");
    let none = "SELECT count(*) FROM stock.repair('no such', 'm', 'x')";
    assert_eq!(value(&mut client, none), "0");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.repair(NULL, NULL, 'x')"), "1");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}
