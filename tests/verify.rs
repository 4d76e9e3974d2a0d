//! stock.verify() finds nothing after honest work, and each kind of falsification that is planted.

use postgres::Client;

use super::support::{database, stocked, value};

/// Each changes the tables behind the extension's back.
pub const FALSIFICATIONS: &[&str] = &[
    "UPDATE stock.level SET on_hand = on_hand + 1 WHERE sku = 'a'",
    "UPDATE stock.level SET on_hand = on_hand + 1, reserved = reserved + 1 WHERE sku = 'a'",
    "UPDATE stock.level SET reserved = reserved - 1 WHERE sku = 'a' AND location = 'm'",
    "UPDATE stock.level SET waiting = waiting + 1 WHERE location = 'late'",
    "UPDATE stock.level SET backorder_limit = 9 WHERE location = 'late'",
    "UPDATE stock.level SET reserved = reserved + 1, on_hand = on_hand + 1, waiting = waiting - 1 \
     WHERE location = 'late'",
    "UPDATE stock.waiting SET quantity = quantity + 1 WHERE sold",
    "UPDATE stock.waiting SET quantity = quantity + 1 WHERE NOT sold",
    "UPDATE stock.waiting SET sold = true WHERE key = 'patient'",
    "UPDATE stock.waiting SET line = 7 WHERE key = 'patient'",
    "UPDATE stock.waiting SET key = 'stolen' WHERE key = 'patient'",
    "UPDATE stock.waiting SET location = 'm' WHERE key = 'patient'",
    "DELETE FROM stock.waiting WHERE sold",
    "DELETE FROM stock.waiting WHERE NOT sold",
    "INSERT INTO stock.waiting SELECT position, quantity, line, promise, sold, 'twin', sku, \
     location FROM stock.waiting LIMIT 1",
    "UPDATE stock.ledger SET waiting_delta = waiting_delta + 1 WHERE operation = 'supply'",
    "UPDATE stock.ledger SET waiting_delta = NULL WHERE key = 'patient'",
    "UPDATE stock.ledger SET waiting_delta = 3, reserved_delta = 1 WHERE key = 'patient'",
    "UPDATE stock.ledger SET waiting_delta = 1 WHERE operation = 'receive' AND location = 'late'",
    "UPDATE stock.ledger SET backorder_limit = 9 WHERE backorder_limit IS NOT NULL",
    "DELETE FROM stock.ledger WHERE operation = 'supply'",
    "UPDATE stock.level SET unsellable = unsellable + 1 WHERE location = 'dated'",
    "UPDATE stock.level SET unsellable = 0 WHERE location = 'dated'",
    "UPDATE stock.level SET next_spoil = NULL WHERE location = 'dated'",
    "UPDATE stock.level SET next_spoil = 'infinity' WHERE location = 'm' AND sku = 'a'",
    "UPDATE stock.level SET next_spoil = 'infinity' WHERE location = 'dated'",
    "UPDATE stock.level SET min_life = '1 hour' WHERE location = 'dated'",
    "UPDATE stock.level SET near_expiry = '1 hour' WHERE location = 'dated'",
    "UPDATE stock.lot SET on_hand = on_hand + 1 WHERE lot = 'x'",
    "UPDATE stock.lot SET on_hand = on_hand - CASE lot WHEN 'y' THEN 1 ELSE -1 END \
     WHERE lot IN ('', 'y')",
    "UPDATE stock.lot SET warns_at = NULL WHERE lot = 'y'",
    "UPDATE stock.lot SET reserved = reserved - 1 WHERE lot = 'x'",
    "UPDATE stock.lot SET best_before = best_before + interval '1 day' WHERE lot = 'y'",
    "UPDATE stock.lot SET spoils_at = spoils_at + interval '1 hour' WHERE lot = 'y'",
    "UPDATE stock.lot SET spoils_at = NULL WHERE lot = 'y'",
    "UPDATE stock.lot SET frozen = NOT frozen WHERE lot = 'z'",
    "UPDATE stock.lot SET frozen = true, spoils_at = NULL WHERE lot = 'y'",
    "UPDATE stock.lot SET spoiled = true, spoils_at = NULL WHERE lot = 'y'",
    "UPDATE stock.lot SET spent = true WHERE lot = 'x'",
    "UPDATE stock.lot SET lot = 'stolen' WHERE lot = 'x'",
    "UPDATE stock.lot SET location = 'm' WHERE lot = 'x'",
    "DELETE FROM stock.lot WHERE lot = 'x'",
    "UPDATE stock.lot SET best_before = '2071-01-01', spoils_at = '2071-01-01' WHERE lot = 'y'",
    "UPDATE stock.level SET min_life = '300000 years' WHERE location = 'dated'",
    "UPDATE stock.level SET version = 9223372036854775807 WHERE location = 'dated'",
    "UPDATE stock.waiting SET promise = 1 WHERE key = 'patient'",
    "UPDATE stock.ledger SET location = NULL WHERE key = 'some'",
    "UPDATE stock.ledger SET min_life = '1 day' WHERE key = 'pre-sale'",
    "DELETE FROM stock.ledger WHERE key = 'lorry' AND operation = 'dispatch' AND line = 1",
    "DELETE FROM stock.ledger WHERE key = 'lorry' AND operation = 'dispatch' AND line = 2",
    "UPDATE stock.ledger_lot SET reserved_delta = 3 WHERE key = 'd1'",
    "DELETE FROM stock.ledger WHERE sku = 'a' AND location = 'late'",
    "DELETE FROM stock.ledger WHERE key = 'eater'",
    "INSERT INTO stock.waiting SELECT position, quantity + 5, line, promise + 3, sold, key, sku, \
     'm' FROM stock.waiting WHERE key = 'patient'",
    "INSERT INTO stock.lot SELECT on_hand, reserved, best_before, spoils_at, warns_at, \
     received_at, frozen, spoiled, spent, sku, location, 'twin' FROM stock.lot WHERE lot = 'x'",
    "UPDATE stock.hold_lot SET quantity = quantity + 1 WHERE lot = 'x'",
    "UPDATE stock.hold_lot SET quantity = quantity - CASE lot WHEN 'x' THEN 1 ELSE -1 END \
     WHERE key = 'eater'",
    "UPDATE stock.hold_lot SET lot = 'z' WHERE lot = 'x'",
    "UPDATE stock.hold_lot SET key = 'held' WHERE lot = 'x'",
    "DELETE FROM stock.hold_lot WHERE lot = 'x'",
    "INSERT INTO stock.hold_lot SELECT quantity, line, 'held', lot FROM stock.hold_lot LIMIT 1",
    "UPDATE stock.ledger_lot SET on_hand_delta = on_hand_delta + 1 WHERE on_hand_delta > 0",
    "UPDATE stock.ledger_lot SET reserved_delta = reserved_delta + 1 WHERE reserved_delta > 0",
    "UPDATE stock.ledger_lot SET lot = 'z' WHERE lot = 'x' AND reserved_delta > 0",
    "DELETE FROM stock.ledger_lot WHERE lot = 'x' AND reserved_delta > 0",
    "DELETE FROM stock.ledger_lot",
    "UPDATE stock.ledger SET unsellable_delta = 1 WHERE operation = 'freeze_lot'",
    "UPDATE stock.ledger SET unsellable_delta = 1 WHERE key = 'eater'",
    "UPDATE stock.ledger SET lot = 'y' WHERE operation = 'freeze_lot'",
    "DELETE FROM stock.ledger WHERE operation = 'freeze_lot'",
    "DELETE FROM stock.ledger WHERE operation = 'track_lots'",
    "UPDATE stock.level SET in_transit = in_transit + 1 WHERE sku = 'a' AND location = 'way'",
    "UPDATE stock.shipment SET quantity = quantity + 1",
    "UPDATE stock.shipment SET dispatched_at = dispatched_at - interval '1 day'",
    "UPDATE stock.shipment SET key = 'stolen'",
    "UPDATE stock.shipment SET from_location = 'elsewhere'",
    "UPDATE stock.shipment SET to_location = 'm', from_location = 'way'",
    "DELETE FROM stock.shipment",
    "INSERT INTO stock.shipment SELECT quantity, dispatched_at, 'twin', sku, from_location, \
     to_location FROM stock.shipment",
    "UPDATE stock.ledger SET in_transit_delta = 3 WHERE operation = 'dispatch' AND line = 2",
    "UPDATE stock.ledger SET in_transit_delta = NULL WHERE operation = 'arrive'",
    "UPDATE stock.ledger SET in_transit_delta = 1 WHERE operation = 'receive' AND sku = 'a'",
    "UPDATE stock.level SET version = version + 1 WHERE sku = 'a'",
    "UPDATE stock.level SET safety_stock = safety_stock + 1 WHERE sku = 'a'",
    "UPDATE stock.level SET buyer_limit = 7 WHERE sku = 'a'",
    "UPDATE stock.level SET buyer_limit = NULL WHERE sku = 'a'",
    "UPDATE stock.level SET frozen = NOT frozen WHERE sku = 'a'",
    "UPDATE stock.level SET on_sale_from = '2030-01-01' WHERE sku = 'a'",
    "UPDATE stock.level SET on_sale_until = '2030-01-01' WHERE sku = 'a'",
    "UPDATE stock.level SET next_due = 'infinity' WHERE sku = 'a'",
    "DELETE FROM stock.level WHERE sku = 'a'",
    "INSERT INTO stock.level (sku, location, on_hand, reserved, version, updated_at) VALUES ('a', \
     'ghost', 1, 0, 1, now())",
    "UPDATE stock.hold SET quantity = quantity + 1 WHERE key = 'held'",
    "UPDATE stock.hold SET expires_at = expires_at + interval '1 hour' WHERE key = 'held'",
    "UPDATE stock.hold SET buyer = 'someone else' WHERE key = 'held'",
    "UPDATE stock.hold SET key = 'stolen' WHERE key = 'held'",
    "UPDATE stock.hold SET line = 9 WHERE key = 'held'",
    "DELETE FROM stock.hold WHERE key = 'held'",
    "INSERT INTO stock.hold SELECT quantity, expires_at, reserved_at, line, 'twin', sku, location, \
     buyer FROM stock.hold WHERE key = 'held'",
    "UPDATE stock.buyer_quantity SET quantity = quantity + 1",
    "DELETE FROM stock.buyer_quantity",
    "UPDATE stock.ledger SET on_hand_delta = on_hand_delta + 1 WHERE key = 'sold' AND operation = \
     'confirm'",
    "UPDATE stock.ledger SET reserved_delta = reserved_delta + 1 WHERE key = 'held'",
    "UPDATE stock.ledger SET quantity = quantity + 1 WHERE key = 'held'",
    "UPDATE stock.ledger SET quantity = quantity + 1 WHERE operation = 'set'",
    "UPDATE stock.ledger SET on_hand_after = on_hand_after + 1 WHERE key = 'held'",
    "UPDATE stock.ledger SET reserved_after = reserved_after + 1 WHERE key = 'held'",
    "UPDATE stock.ledger SET version = version + 100 WHERE key = 'held'",
    "UPDATE stock.ledger SET operation = 'release' WHERE key = 'held'",
    "UPDATE stock.ledger SET operation = 'nonsense' WHERE key = 'sold' AND operation = 'reserve'",
    "UPDATE stock.ledger SET key = 'stolen' WHERE key = 'held'",
    "UPDATE stock.ledger SET sku = 'b' WHERE key = 'held'",
    "UPDATE stock.ledger SET buyer = 'someone else' WHERE key = 'held'",
    "UPDATE stock.ledger SET expires_at = expires_at + interval '1 hour' WHERE key = 'held'",
    "UPDATE stock.ledger SET safety_stock = 9 WHERE operation = 'set_limits'",
    "UPDATE stock.ledger SET on_sale_from = '2030-01-01' WHERE operation = 'set_limits'",
    "UPDATE stock.ledger SET on_sale_until = '2030-01-01' WHERE operation = 'set_limits'",
    "UPDATE stock.ledger SET reserved_delta = 0 WHERE operation = 'extend'",
    "UPDATE stock.ledger SET reserved_delta = 2 WHERE operation = 'extend'",
    "UPDATE stock.ledger SET expires_at = expires_at + interval '1 hour' WHERE operation = \
     'extend'",
    "DELETE FROM stock.ledger WHERE operation = 'extend'",
    "DELETE FROM stock.ledger WHERE operation = 'expire'",
    "DELETE FROM stock.ledger",
    "UPDATE stock.ledger SET frozen = true WHERE operation = 'unfreeze'",
    "DELETE FROM stock.ledger WHERE key = 'held'",
    "DELETE FROM stock.ledger WHERE key = 'sold'",
    "DELETE FROM stock.ledger WHERE operation = 'receive' AND sku = 'a'",
    "INSERT INTO stock.ledger (recorded_at, key, operation, line, sku, location, quantity,
     on_hand_delta, reserved_delta, on_hand_after, reserved_after, version)
     SELECT now(), 'ghost', 'receive', 1, 'a', 'm', 1, 1, 0, on_hand + 1, reserved, version + 1
     FROM stock.level WHERE sku = 'a' AND location = 'm'",
];

/// Something of everything that can be falsified.
pub fn trade(client: &mut Client) {
    stocked(client, "a", "m", 100);
    stocked(client, "b", "m", 100);
    client
        .batch_execute(
            "SELECT stock.set_limits('l', 'a', 'm', 3, 50);
             SELECT stock.freeze_level('f', 'a', 'm', 'x');
             SELECT stock.unfreeze_level('u', 'a', 'm', 'x');
             SELECT stock.set_stock('s', 'a', 'm', 90, NULL);
             SELECT stock.reserve_stock('held', 'a', 'm', 5, buyer => 'b');
             SELECT stock.sell_stock('sold', 'a', 'm', 5, buyer => 'b');
             SELECT stock.reserve_stock('late', 'a', 'm', 1, '1 ms', 'b'); SELECT pg_sleep(0.01);
             SELECT stock.expire_reservations(10); SELECT stock.extend_reservation('late',
             '1 hour');
             SELECT stock.dispatch_stock('lorry', '[{\"sku\":\"a\",\"from\":\"m\",
             \"to\":\"way\",\"quantity\":9}]');
             SELECT stock.arrive_stock('lorry', '[{\"sku\":\"a\",\"location\":\"way\",
             \"quantity\":4}]', 'pallet 1');
             SELECT stock.receive_stock('few', 'a', 'late', 1);
             SELECT stock.set_limits('pre-sale', 'a', 'late', backorder_limit => 20);
             SELECT stock.sell_stock('paid', 'a', 'late', 5);
             SELECT stock.reserve_stock('patient', 'a', 'late', 4);
             SELECT stock.receive_stock('some', 'a', 'late', 2);
             SELECT stock.receive_stock('d0', 'a', 'dated', 4);
             SELECT stock.receive_stock('d1', 'a', 'dated', 3, NULL, 'x', '2060-01-01');
             SELECT stock.receive_stock('d2', 'a', 'dated', 3, NULL, 'y', '2061-01-01');
             SELECT stock.receive_stock('d3', 'a', 'dated', 3, NULL, 'z', '2062-01-01');
             SELECT stock.freeze_lot('glass', 'a', 'dated', 'z', 'glass found');
             SELECT stock.reserve_stock('eater', 'a', 'dated', 4);
             SELECT stock.release_stock('never heard of');
             SELECT stock.reopen_key('never heard of', 'mistyped')",
        )
        .unwrap();
    assert_eq!(value(client, "SELECT count(*) FROM stock.verify()"), "0");
}

/// Harms the books in a transaction that is left open.
pub fn falsify(client: &mut Client, falsification: &str) {
    // Replica mode silences the ledger's guard, as somebody with the rights to harm could.
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica; {falsification};
             SET LOCAL session_replication_role = origin"
        ))
        .unwrap();
}

#[test]
fn each_falsification_is_found_and_names_its_level() {
    let database = database();
    let mut client = database.connect();
    trade(&mut client);
    for falsification in FALSIFICATIONS {
        falsify(&mut client, falsification);
        let found = value(&mut client, "SELECT count(*) FROM stock.verify() WHERE sku = 'a'");
        assert_ne!(found, "0", "not found: {falsification}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
}

#[test]
fn a_ledger_without_rows_beside_levels_is_named() {
    let database = database();
    let mut client = database.connect();
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.verify()"),
        "0",
        "nothing has happened yet"
    );
    stocked(&mut client, "a", "m", 1);
    client
        .batch_execute(
            "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM stock.ledger",
        )
        .unwrap();
    let named = "SELECT count(*) FROM stock.verify() WHERE problem LIKE 'the ledger is empty%'";
    assert_eq!(value(&mut client, named), "1");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(value(&mut client, named), "0");
}

/// Of some levels alone: those that have changed, or that are named.
#[test]
fn only_what_is_asked_for_is_looked_at() {
    let database = database();
    let mut client = database.connect();
    for sku in ["a", "b", "c"] {
        stocked(&mut client, sku, "m", 10);
        stocked(&mut client, sku, "n", 10);
    }
    client
        .batch_execute(
            "UPDATE stock.level SET on_hand = 11, updated_at = now() - interval '1 day';
             UPDATE stock.level SET updated_at = now() WHERE sku = 'c'",
        )
        .unwrap();
    let mut levels = |arguments: &str| {
        let sql = format!(
            "SELECT coalesce(string_agg(DISTINCT sku || location, ' '), '')
               FROM stock.verify({arguments})"
        );
        value(&mut client, &sql)
    };
    assert_eq!(levels(""), "am an bm bn cm cn");
    assert_eq!(levels("now() - interval '1 hour'"), "cm cn");
    assert_eq!(levels("for_sku => 'a'"), "am an");
    assert_eq!(levels("for_location => 'm'"), "am bm cm");
    assert_eq!(levels("for_sku => 'a', for_location => 'm'"), "am");
    assert_eq!(levels("now() - interval '1 hour', 'a'"), "");
    assert_eq!(levels("for_sku => 'no such'"), "");
    client.batch_execute("DELETE FROM stock.level WHERE sku = 'b'").unwrap();
    let gone = value(
        &mut client,
        "SELECT count(*) > 0 FROM stock.verify(for_sku => 'b', for_location => 'm')",
    );
    assert_eq!(gone, "t", "a level that is missing is found by its name");
}
