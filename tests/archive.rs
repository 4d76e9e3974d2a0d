//! The ledger stays small: closed keys go to the archive, and everything still adds up and can
//! still be looked up (E5).

use super::repair::is_mended;
use super::support::feed::{Follower, answer, levels, receive, shop};
use super::support::{
    at_once, backend, call, database, finish, outcome, sqlstate, stocked, value, wait_for_lock,
};
use super::verify;
use pg_stock_tests::invariants;
use postgres::Client;

/// Something of every kind of key: closed ones, and some of which something is open.
fn trade(client: &mut Client) {
    verify::trade(client);
    client
        .batch_execute(
            "SELECT stock.return_stock('sold', '[{\"sku\":\"a\",\"location\":\"m\",
                                                 \"quantity\":2}]', 'back');
             SELECT stock.sell_stock('eaten', 'a', 'dated', 2, buyer => 'c')",
        )
        .unwrap();
}

/// All that can be looked up of the past.
const PAST: &[&str] = &[
    "SELECT string_agg(t::text, '|' ORDER BY t.position) FROM stock.ledger_rows t",
    "SELECT string_agg(t::text, '|' ORDER BY t.position, t.lot) FROM stock.lot_moves t",
    "SELECT string_agg(t::text, '|') FROM stock.picks('eaten') t",
    "SELECT string_agg(t::text, '|') FROM stock.picks('sold') t",
    "SELECT string_agg(t::text, '|') FROM stock.reservation('sold') t",
    "SELECT string_agg(t::text, '|') FROM stock.reservation('eaten') t",
    "SELECT string_agg(t::text, '|') FROM stock.reservation('never heard of') t",
];

/// Archives everything that is closed; answers how many keys and rows.
fn archive(client: &mut Client) -> (i64, i64) {
    let row = client.query_one("CALL stock.archive('0')", &[]).unwrap();
    (row.get(0), row.get(1))
}

fn past(client: &mut Client) -> Vec<String> {
    PAST.iter().map(|sql| value(client, sql)).collect()
}

/// The keys that are still known.
fn known(client: &mut Client) -> String {
    value(client, "SELECT string_agg(DISTINCT key, ', ' ORDER BY key) FROM stock.ledger")
}

#[test]
fn closed_keys_go_and_all_adds_up_and_is_found() {
    let database = database();
    let mut client = database.connect();
    trade(&mut client);
    let before = past(&mut client);
    let rows: i64 = value(&mut client, "SELECT count(*) FROM stock.ledger").parse().unwrap();

    let (keys, moved) = archive(&mut client);

    assert_eq!(known(&mut client), "eater, held, late, lorry, paid, patient");
    let left: i64 = value(&mut client, "SELECT count(*) FROM stock.ledger").parse().unwrap();
    assert_eq!((keys > 10, moved), (true, rows - left));
    assert_eq!(past(&mut client), before);
    assert_eq!(archive(&mut client), (0, 0), "nothing is archived twice");

    // What was open goes on, and goes once it is closed; then one row is left of each level.
    client
        .batch_execute(
            "SELECT stock.confirm_stock('held'); SELECT stock.release_stock('late');
             SELECT stock.release_stock('patient');
             SELECT stock.receive_stock('rest', 'a', 'late', 9);
             SELECT stock.release_stock('eater'); SELECT stock.arrive_stock('lorry')",
        )
        .unwrap();
    invariants::assert_hold(&mut client);
    let before = past(&mut client);
    archive(&mut client);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.ledger"), "0");
    assert_eq!(past(&mut client), before);
    let whole = "SELECT count(*) FROM stock.balance_forward f
                   JOIN stock.level l USING (sku, location)
                  WHERE (f.from_version, f.version) = (1, l.version)";
    assert_eq!(value(&mut client, whole), value(&mut client, "SELECT count(*) FROM stock.level"));
    finish(database);
}

/// Each changes what was carried forward behind the extension's back.
const FALSIFICATIONS: &[&str] = &[
    "UPDATE stock.balance_forward SET on_hand_delta = on_hand_delta + 1",
    "UPDATE stock.balance_forward SET reserved_delta = reserved_delta + 1",
    "UPDATE stock.balance_forward SET waiting_delta = waiting_delta + 1",
    "UPDATE stock.balance_forward SET in_transit_delta = in_transit_delta + 1",
    "UPDATE stock.balance_forward SET unsellable_delta = unsellable_delta + 1",
    "UPDATE stock.balance_forward SET on_hand_after = on_hand_after + 1",
    "UPDATE stock.balance_forward SET reserved_after = reserved_after + 1",
    "UPDATE stock.balance_forward SET from_version = from_version + 1 WHERE from_version < version",
    "UPDATE stock.balance_forward SET version = version + 100",
    "UPDATE stock.balance_forward SET safety_stock = 9",
    "UPDATE stock.balance_forward SET buyer_limit = 9",
    "UPDATE stock.balance_forward SET backorder_limit = 9",
    "UPDATE stock.balance_forward SET frozen = true",
    "UPDATE stock.balance_forward SET on_sale_from = '2030-01-01'",
    "UPDATE stock.balance_forward SET on_sale_until = '2030-01-01'",
    "UPDATE stock.balance_forward SET min_life = '1 hour'",
    "UPDATE stock.balance_forward SET near_expiry = '1 hour'",
    "UPDATE stock.balance_forward SET lots_since = NULL",
    "UPDATE stock.balance_forward SET is_opening = true WHERE location = 'late' AND \
     from_version = (SELECT max(from_version) FROM stock.balance_forward WHERE location = 'late')",
    "DELETE FROM stock.balance_forward WHERE location = 'dated'",
    "UPDATE stock.balance_forward SET location = 'elsewhere' WHERE location = 'dated'",
    "UPDATE stock.balance_forward_lot SET on_hand = on_hand + 1",
    "UPDATE stock.balance_forward_lot SET reserved = reserved + 1",
    "UPDATE stock.balance_forward_lot SET frozen = NOT frozen",
    "UPDATE stock.balance_forward_lot SET lot = 'other' WHERE lot = 'x'",
    "DELETE FROM stock.balance_forward_lot WHERE lot = 'y'",
    "UPDATE stock.balance_forward_buyer SET quantity = quantity + 1",
    "UPDATE stock.balance_forward_buyer SET buyer = 'd' WHERE buyer = 'c'",
    "DELETE FROM stock.balance_forward_buyer",
];

#[test]
fn what_is_carried_forward_cannot_be_falsified_unseen() {
    let database = database();
    let mut client = database.connect();
    trade(&mut client);
    archive(&mut client);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    for falsification in FALSIFICATIONS {
        client.batch_execute(&format!("BEGIN; {falsification}")).unwrap();
        let found = value(&mut client, "SELECT count(*) FROM stock.verify() WHERE sku = 'a'");
        assert_ne!(found, "0", "not found: {falsification}");
        is_mended(&mut client).unwrap_or_else(|fault| panic!("{falsification}: {fault}"));
        client.batch_execute("ROLLBACK").unwrap();
    }
    finish(database);
}

/// As the contract says: a key is remembered as long as it is in the ledger.
#[test]
fn an_archived_key_is_new_again_and_can_be_archived_again() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    outcome(&mut client, "sell_stock('order', 'a', 'm', 5)");
    archive(&mut client);
    let sold = "SELECT string_agg(concat_ws(' ', state, quantity), ', ')
                  FROM stock.reservation('order')";
    assert_eq!(value(&mut client, sold), "confirmed 5");
    assert_eq!(outcome(&mut client, "try_return_stock('order')"), "unknown_reservation");
    let again = call(&mut client, "reserve_stock('order', 'a', 'm', 7)").unwrap();
    assert!(!again[0].replayed && again[0].outcome == "reserved", "{again:?}");
    assert_eq!(value(&mut client, sold), "held 7", "its life of today");
    outcome(&mut client, "release_stock('order')");
    archive(&mut client);
    assert_eq!(value(&mut client, sold), "released 7", "its last life");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.picks('order')"), "0");
    finish(database);
}

#[test]
fn what_cannot_be_archived_says_why() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    let refused = |before: &str, call: &str| {
        let mut other = database.connect();
        other.batch_execute(before).unwrap();
        let error = other.batch_execute(call).expect_err(call);
        let error = error.as_db_error().unwrap();
        (
            error.code().code().to_owned(),
            error.message().to_owned(),
            error.hint().map(str::to_owned),
        )
    };
    for (before, call, sqlstate, says) in [
        ("", "CALL stock.archive(NULL)", "22023", "older_than must be at least"),
        ("", "CALL stock.archive('-1 day')", "22023", "older_than must be at least"),
        (
            "SET pg_stock.min_archive_age = '31d'",
            "CALL stock.archive('30 days')",
            "22023",
            "older_than must be at least 31d, as pg_stock.min_archive_age says",
        ),
        ("", "CALL stock.archive('1 day', 0)", "22023", "batch_rows must be from 1 to 100,000"),
        ("", "CALL stock.archive('1 day', NULL)", "22023", "batch_rows must be from 1 to 100,000"),
        (
            "SET default_transaction_isolation = 'repeatable read'",
            "CALL stock.archive('1 day')",
            "25001",
            "nothing can be archived in a repeatable read transaction",
        ),
        ("BEGIN", "CALL stock.archive('1 day')", "2D000", "invalid transaction termination"),
    ] {
        let (code, message, hint) = refused(before, call);
        assert_eq!((code.as_str(), message.contains(says)), (sqlstate, true), "{message}");
        assert!(hint.is_some() || sqlstate == "2D000", "{message}");
    }
    client.batch_execute("ALTER TABLE stock.ledger ADD COLUMN tenant text DEFAULT 'ours'").unwrap();
    for (column, says) in [
        ("twice bigint GENERATED ALWAYS AS (2 * quantity) STORED", "lacks the column \"tenant\""),
        ("tenant text GENERATED ALWAYS AS ('x') STORED", "\"tenant\" of stock.ledger_archive is"),
    ] {
        let added = format!("ALTER TABLE stock.ledger_archive ADD COLUMN {column}");
        client.batch_execute(&added).unwrap();
        let (code, message, hint) = refused("", "CALL stock.archive('0')");
        assert_eq!((&code[..], hint.is_some()), ("55000", true), "{message}");
        assert!(message.contains(says), "{message}");
    }
    finish(database);
}

/// A column of the shop's own is not lost, and nobody changes what is past.
#[test]
fn what_is_archived_stays_as_it_was() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    for table in ["ledger", "ledger_archive"] {
        let add = format!("ALTER TABLE stock.{table} ADD COLUMN tenant text DEFAULT 'ours'");
        client.batch_execute(&add).unwrap();
    }
    // One that the archive alone has may be generated.
    client
        .batch_execute(
            "ALTER TABLE stock.ledger_archive
               ADD COLUMN twice bigint GENERATED ALWAYS AS (2 * quantity) STORED",
        )
        .unwrap();
    assert_eq!(archive(&mut client), (1, 1));
    assert_eq!(value(&mut client, "SELECT tenant FROM stock.ledger_archive"), "ours");
    for change in [
        "UPDATE stock.ledger_archive SET quantity = 1",
        "DELETE FROM stock.ledger_archive",
        "TRUNCATE stock.ledger_archive",
    ] {
        let error = client.batch_execute(change).expect_err(change);
        assert_eq!(sqlstate(&error), "42501", "{change}");
        let month = value(
            &mut client,
            "SELECT inhrelid::regclass FROM pg_inherits
              WHERE inhparent = 'stock.ledger_archive'::regclass",
        );
        let error = client
            .batch_execute(&change.replace("stock.ledger_archive", &month))
            .expect_err("a month");
        assert_eq!(sqlstate(&error), "42501", "{change}");
    }
    finish(database);
}

/// Ninety random things that a shop does, the same for the same number.
fn random_work(client: &mut Client, number: i32) {
    client
        .batch_execute(&format!(
            "SELECT setseed({number} / 100.0);
             DO $$
             DECLARE
                 sku text; key text; units integer; line jsonb;
             BEGIN
                 FOR i IN 1..90 LOOP
                     sku := chr(97 + floor(random() * 3)::int);
                     key := 'k' || floor(random() * 60);
                     units := 1 + floor(random() * 5);
                     line := jsonb_build_array(jsonb_build_object(
                         'sku', sku, 'location', 'm', 'quantity', units));
                     CASE floor(random() * 15)
                     WHEN 0 THEN PERFORM stock.try_receive_stock(
                         'r{number}.' || i, sku, 'm', units, NULL,
                         CASE WHEN sku = 'c' THEN 'lot' || floor(random() * 3) END);
                     WHEN 1 THEN PERFORM stock.try_sell_stock(key, sku, 'm', units, buyer => 'b');
                     WHEN 2 THEN PERFORM stock.try_confirm_stock(key);
                     WHEN 3 THEN PERFORM stock.try_release_stock(key);
                     WHEN 4 THEN PERFORM stock.try_return_stock(key, line, 'back ' || i);
                     WHEN 5 THEN PERFORM stock.try_extend_reservation(key, '1 hour');
                     WHEN 6 THEN PERFORM stock.try_set_limits(
                         'l{number}.' || i, sku, 'm', units, 20, backorder_limit => units * 3);
                     WHEN 7 THEN PERFORM stock.try_adjust_stock(
                         'a{number}.' || i, sku, 'm', -1, 'broken');
                     WHEN 8 THEN PERFORM stock.try_dispatch_stock('w{number}.' || i,
                         jsonb_build_array(jsonb_build_object('sku', sku, 'from', 'm', 'to', 'n',
                                                              'quantity', 1)));
                     WHEN 9 THEN PERFORM stock.try_arrive_stock(
                         'w{number}.' || floor(random() * i));
                     WHEN 10 THEN PERFORM stock.try_reopen_key(key, 'try again');
                     WHEN 11 THEN PERFORM stock.try_reserve_stock(key, sku, 'm', units, '1 ms');
                     WHEN 12 THEN PERFORM stock.expire_reservations(2);
                     ELSE PERFORM stock.try_reserve_stock(key, sku, 'm', units, buyer => 'd');
                     END CASE;
                 END LOOP;
             END $$"
        ))
        .unwrap();
}

#[test]
fn whatever_was_done_it_can_be_archived_at_any_time() {
    let database = database();
    let mut client = database.connect();
    for sku in ["a", "b"] {
        stocked(&mut client, sku, "m", 30);
    }
    let (mut archived, mut runs) = (0, 0);
    for number in 1..=20 {
        random_work(&mut client, number);
        let rows = "SELECT md5(string_agg(t::text, '|' ORDER BY t.position)),
                           (SELECT md5(string_agg(m::text, '|' ORDER BY m.position, m.lot))
                              FROM stock.lot_moves m) FROM stock.ledger_rows t";
        let before = value(&mut client, rows);
        let batch = number % 7 * 20 + 3;
        let row = client.query_one(&format!("CALL stock.archive('0', {batch})"), &[]).unwrap();
        archived += row.get::<_, i64>(1);
        assert_eq!(value(&mut client, rows), before, "round {number}");
        invariants::assert_hold(&mut client);
        runs = runs.max(
            value(&mut client, "SELECT count(*) FROM stock.balance_forward")
                .parse::<i64>()
                .unwrap(),
        );
    }
    assert!(archived > 500 && runs > 6, "{archived} rows, {runs} runs of versions");
    finish(database);
}

/// Returns, repeats and new orders under the very keys that go to the archive meanwhile.
#[test]
fn who_acts_on_a_key_while_it_is_archived_breaks_nothing() {
    let database = database();
    let mut client = database.connect();
    for sku in ["a", "b", "c"] {
        stocked(&mut client, sku, "m", 100_000);
    }
    at_once(database, 6, |who, client| {
        if who == 0 {
            for _ in 0..60 {
                client.query_one("CALL stock.archive('0')", &[]).unwrap();
                assert_eq!(value(client, "SELECT count(*) FROM stock.verify()"), "0");
            }
            return;
        }
        for i in 0..600 {
            let key = format!("k{}", (who * 7 + i * 3) % 25);
            let sku = ["a", "b", "c"][i % 3];
            let order = format!("[{{\"sku\":\"{sku}\",\"location\":\"m\",\"quantity\":2}}]");
            let text = match (who + i) % 6 {
                0 => format!("try_sell_stock('{key}', '{order}')"),
                1 => format!("try_return_stock('{key}', NULL, 'back {i} {who}')"),
                2 => format!("try_release_stock('{key}')"),
                3 => format!("try_confirm_stock('{key}')"),
                4 => format!("try_reopen_key('{key}', 'mistyped')"),
                _ => format!("try_reserve_stock('{key}', '{order}', '{{\"ttl\": \"1 minute\"}}')"),
            };
            call(client, &text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    });
    archive(&mut client);
    let returned = "SELECT count(*) FROM (
                      SELECT FROM stock.ledger_rows GROUP BY key, sku
                      HAVING sum(quantity) FILTER (WHERE operation = 'return')
                           > coalesce(sum(quantity) FILTER (WHERE operation = 'confirm'), 0)) o";
    assert_eq!(value(&mut client, returned), "0", "more came back than was sold");
    finish(database);
}

/// What is committed between the steps of a batch is not moved without having been counted: here it
/// waits before it moves anything, and the key comes to life meanwhile.
#[test]
fn a_key_that_comes_to_life_in_the_middle_stays() {
    let database = database();
    let [mut client, mut holder, mut watcher, mut archiver] =
        std::array::from_fn(|_| database.connect());
    stocked(&mut client, "a", "m", 100);
    outcome(&mut client, "sell_stock('order', 'a', 'm', 5)");
    // A month is attached under a lock that this one holds.
    holder
        .batch_execute("BEGIN; LOCK TABLE stock.ledger_archive IN SHARE UPDATE EXCLUSIVE MODE")
        .unwrap();
    let process = backend(&mut archiver);
    std::thread::scope(|scope| {
        let batch = "SELECT * FROM stock.archive_batch('0', NULL, NULL, 100)";
        let archiving = scope.spawn(|| archiver.execute(batch, &[]).unwrap());
        wait_for_lock(&mut watcher, process);
        assert_eq!(outcome(&mut client, "return_stock('order')"), "returned");
        holder.batch_execute("COMMIT").unwrap();
        archiving.join().unwrap();
    });
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    assert!(known(&mut client).contains("order"), "it happened a moment ago");
    archive(&mut client);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.ledger"), "0");
    finish(database);
}

/// A key without lines has no level whose lock would keep it from being archived while somebody
/// acts on it.
#[test]
fn what_is_done_to_a_key_without_lines_while_it_is_archived_means_the_same() {
    let database = database();
    let (mut client, mut archiver) = (database.connect(), database.connect());
    let reserve = |key: &str| format!("try_reserve_stock('{key}', 'a', 'm', 5)");
    let reopen = |key: &str| format!("try_reopen_key('{key}', 'mistyped')");
    let release = |key: &str| format!("try_release_stock('{key}')");
    for key in ["reopened", "released", "reserved"] {
        assert_eq!(outcome(&mut client, &release(key)), "cancelled");
    }
    for key in ["released", "reserved"] {
        assert_eq!(outcome(&mut client, &reopen(key)), "reopened");
    }
    archiver
        .batch_execute("BEGIN; SELECT * FROM stock.archive_batch('0', NULL, NULL, 100)")
        .unwrap();
    stocked(&mut client, "a", "m", 100);
    assert_eq!(outcome(&mut client, &reopen("reopened")), "reopened");
    assert_eq!(outcome(&mut client, &release("released")), "cancelled");
    assert_eq!(outcome(&mut client, &reserve("reserved")), "reserved");
    archiver.batch_execute("COMMIT").unwrap();
    let left = "SELECT string_agg(key || ' ' || operation, ', ' ORDER BY position)
                  FROM stock.ledger WHERE operation <> 'receive'";
    assert_eq!(
        value(&mut client, left),
        "reopened reopen, released cancel, reserved reserve",
        "all else was archived"
    );

    let mut expect = |call: String, told: &str| {
        assert_eq!(outcome(&mut client, &call), told, "{call}");
    };
    expect(release("reopened"), "cancelled");
    for key in ["reopened", "released"] {
        expect(release(key), "cancelled");
        expect(reserve(key), "already_released");
        expect(reopen(key), "reopened");
        expect(reserve(key), "reserved");
    }
    for key in ["reopened", "released", "reserved"] {
        expect(reserve(key), "reserved");
        expect(release(key), "released");
        expect(reopen(key), "key_conflict");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    archive(&mut client);
    finish(database);
}

/// A session that sits on one level keeps neither buyers of others nor the feed waiting.
#[test]
fn a_level_that_stays_locked_is_left_to_the_next_run() {
    let database = database();
    let [mut client, mut idle, mut archiver] = std::array::from_fn(|_| database.connect());
    for sku in ["a", "b"] {
        stocked(&mut client, sku, "m", 100);
        outcome(&mut client, &format!("sell_stock('{sku}', '{sku}', 'm', 5)"));
    }
    client.batch_execute("SELECT stock.emit_changes()").unwrap();
    idle.batch_execute("BEGIN; SELECT stock.reserve_stock('idle', 'b', 'm', 1)").unwrap();
    assert_eq!(archive(&mut archiver), (0, 0), "all four are of one batch");
    let row = archiver.query_one("CALL stock.archive('0', 1)", &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 2, "what is of the other level goes");
    assert_eq!(known(&mut client), "b, stock of b m");
    idle.batch_execute("ROLLBACK").unwrap();
    assert_eq!(archive(&mut archiver), (2, 3));
    finish(database);
}

#[test]
fn the_feed_is_not_passed_and_an_old_cursor_is_told_so() {
    let database = shop();
    let (mut client, mut reader) = (database.connect(), database.connect());
    let mut follower = Follower::begin(&mut reader);
    receive(&mut client, "r1", "a");
    assert_eq!(follower.catch_up(&mut reader), 1);
    let old = follower.clone();
    receive(&mut client, "r2", "b");
    receive(&mut client, "r3", "a");
    assert_eq!(follower.catch_up(&mut reader), 2);
    assert_eq!(archive(&mut client).0, 4);
    // Who has seen it all goes on; who has not must read all levels anew.
    assert_eq!(follower.catch_up(&mut reader), 0);
    receive(&mut client, "r4", "c");
    assert_eq!(follower.catch_up(&mut reader), 1);
    assert_eq!(answer(&mut reader, "changes_since", &old.cursor), "resynchronise");
    assert_eq!(Follower::begin(&mut reader).levels, levels(&mut reader));

    // Where messages are sent, what was not sent yet stays.
    client.batch_execute("SELECT stock.emit_changes()").unwrap();
    receive(&mut client, "r5", "d");
    assert_eq!(archive(&mut client).0, 1, "r4 was sent, r5 was not");
    assert_eq!(known(&mut client), "r5");
    client.batch_execute("SELECT stock.emit_changes()").unwrap();
    assert_eq!(archive(&mut client).0, 1);
    finish(database);
}

#[test]
fn months_come_and_go() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    outcome(&mut client, "sell_stock('old', 'a', 'm', 1)");
    outcome(&mut client, "sell_stock('older', 'a', 'm', 1)");
    outcome(&mut client, "sell_stock('young', 'a', 'm', 1)");
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE stock.ledger SET recorded_at = '2020-02-29 23:30+00' WHERE key = 'old';
             UPDATE stock.ledger SET recorded_at = '2019-12-31 23:30+00' WHERE key = 'older';
             RESET session_replication_role; SET timezone = 'Asia/Tokyo'",
        )
        .unwrap();
    let row = client.query_one("CALL stock.archive()", &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 2, "the keys older than 400 days");
    let months = "SELECT string_agg(inhrelid::regclass::text, ', ' ORDER BY 1) FROM pg_inherits
                   WHERE inhparent = 'stock.ledger_archive'::regclass";
    assert_eq!(
        value(&mut client, months),
        "stock.ledger_archive_2019_12, stock.ledger_archive_2020_02"
    );

    // A month may be taken away; what it added up to is still known.
    client
        .batch_execute(
            "ALTER TABLE stock.ledger_archive DETACH PARTITION stock.ledger_archive_2019_12;
             DROP TABLE stock.ledger_archive_2019_12;
             ALTER TABLE stock.ledger_archive DETACH PARTITION stock.ledger_archive_2020_02",
        )
        .unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.reservation('old')"), "0");

    // One that is only detached stands in nobody's way.
    outcome(&mut client, "sell_stock('late', 'a', 'm', 1)");
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE stock.ledger SET recorded_at = '2020-02-01 00:00+00' WHERE key = 'late';
             RESET session_replication_role",
        )
        .unwrap();
    client.query_one("CALL stock.archive()", &[]).unwrap();
    assert_eq!(value(&mut client, months), "stock.ledger_archive_2020_02_2");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    client
        .batch_execute(
            "ALTER TABLE stock.ledger_archive DETACH PARTITION stock.ledger_archive_2020_02_2;
             INSERT INTO stock.ledger_archive_2020_02 SELECT * FROM stock.ledger_archive_2020_02_2;
             DROP TABLE stock.ledger_archive_2020_02_2;
             ALTER TABLE stock.ledger_archive ATTACH PARTITION stock.ledger_archive_2020_02
             FOR VALUES FROM ('2020-02-01 00:00+00') TO ('2020-03-01 00:00+00')",
        )
        .unwrap();
    assert_eq!(value(&mut client, "SELECT quantity FROM stock.reservation('late')"), "1");
}

/// What a batch and an erasure must know of the past is not forgotten with it.
#[test]
fn an_import_and_a_buyer_are_not_forgotten_with_their_rows() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute("CREATE TABLE goods AS SELECT 'a' AS sku, 'm' AS location, 9 AS on_hand")
        .unwrap();
    client.batch_execute("CALL stock.import('first load', 'goods', 'receive')").unwrap();
    outcome(&mut client, "sell_stock('o', 'a', 'm', 2, 'annika')");
    archive(&mut client);
    let error = client
        .batch_execute("CALL stock.import('first load', 'goods', 'receive')")
        .expect_err("its rows would come twice");
    assert_eq!(sqlstate(&error), "55000");
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.level"), "7");
    client
        .batch_execute(
            "CREATE TABLE carts AS SELECT 'cart' AS key, 'a' AS sku, 'm' AS location,
                    1 AS quantity, now() + interval '1 hour' AS expires_at",
        )
        .unwrap();
    client.batch_execute("CALL stock.import('carts', 'carts', 'hold')").unwrap();
    outcome(&mut client, "release_stock('cart')");
    archive(&mut client);
    let again = client.batch_execute("CALL stock.import('carts', 'carts', 'hold')");
    assert_eq!(sqlstate(&again.expect_err("it would be held again")), "55000");

    outcome(&mut client, "sell_stock('p', 'a', 'm', 1, 'annika')");
    assert_eq!(value(&mut client, "SELECT stock.erase_buyer('annika', 'p-1')"), "6");
    for table in ["ledger", "ledger_archive", "buyer_quantity", "balance_forward_buyer"] {
        let named = format!("SELECT count(*) FROM stock.{table} WHERE buyer = 'annika'");
        assert_eq!(value(&mut client, &named), "0", "{table}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    let sold = "SELECT actual FROM stock.reconcile('[{\"sku\":\"a\",\"sold\":3}]')";
    assert_eq!(value(&mut client, sold), "3", "the archive counts for the shop's books");
}
