//! What somebody has damaged, or copied by hand, is named; and it does not harm what is sound.

use postgres::Client;

use super::support::{call, database, finish, outcome, raised, sqlstate, stocked, value};

/// Gives ledger rows positions as if the sequence had lagged when they were written (logical
/// replication, a copy by hand): the later ones come first.
fn shuffle_positions(client: &mut Client) {
    client
        .batch_execute(
            "ALTER TABLE stock.ledger DISABLE TRIGGER USER;
             UPDATE stock.ledger SET position = 1000 - position;
             ALTER TABLE stock.ledger ENABLE TRIGGER USER",
        )
        .unwrap();
}

#[test]
fn history_does_not_depend_on_positions() {
    for direct in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        client.batch_execute(&format!("SET pg_stock.direct_access = {direct}")).unwrap();
        stocked(&mut client, "a", "m", 100);
        stocked(&mut client, "b", "m", 100);
        let part = r#"[{"sku":"a","location":"m","quantity":1}]"#;
        let both =
            r#"[{"sku":"a","location":"m","quantity":2},{"sku":"b","location":"m","quantity":1}]"#;
        for text in [
            "reserve_stock('confirmed', 'a', 'm', 1)",
            "confirm_stock('confirmed')",
            "reserve_stock('released', 'a', 'm', 1)",
            "release_stock('released')",
            "reserve_stock('extended', 'a', 'm', 1, '1 hour')",
            "extend_reservation('extended', '5 hours')",
            "extend_reservation('extended', '6 hours')",
            &format!("reserve_stock('parts', '{both}')"),
            &format!("confirm_stock('parts', '{part}', 'first')"),
            "confirm_stock('parts', operation_key => 'rest')",
            "return_stock('confirmed')",
        ] {
            client
                .batch_execute(&format!("SELECT * FROM stock.{text}"))
                .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
        let states = "SELECT string_agg(concat_ws(' ', k, r.line, r.state, r.held, r.confirmed,
                      r.released, r.returned,
                                                  r.expires_at), ', ' ORDER BY k, r.line)
                        FROM unnest('{confirmed,released,extended,parts}'::text[]) k,
                        LATERAL stock.reservation(k) r";
        let before = value(&mut client, states);
        shuffle_positions(&mut client);
        assert_eq!(value(&mut client, states), before);
        for (text, expected) in [
            ("try_confirm_stock('confirmed')", "confirmed"),
            ("try_return_stock('confirmed')", "returned"),
            ("try_release_stock('released')", "released"),
            ("try_release_stock('confirmed')", "already_confirmed"),
            ("try_extend_reservation('extended', '1 hour')", "extended"),
        ] {
            assert_eq!(outcome(&mut client, text), expected, "{text}");
        }
        let rest =
            call(&mut client, "try_confirm_stock('parts', operation_key => 'rest')").unwrap();
        assert!(rest.iter().all(|row| row.outcome == "confirmed" && row.replayed), "{rest:?}");
        let settled = "SELECT string_agg(concat_ws(' ', key, outcome, coalesce(mismatch, 'none')),
                       ', ')
                         FROM stock.settle('[{\"key\":\"parts\",\"status\":\"paid\"},{\"key\":\"extended\",\"status\":\"paid\"}]')";
        assert_eq!(
            value(&mut client, settled),
            "parts already_confirmed none, extended confirmed paid_not_confirmed"
        );
        client.batch_execute("SELECT setval('stock.ledger_position_seq', 1000)").unwrap();
        finish(database);
    }
}

#[test]
fn a_sequence_that_lags_is_named_and_raised() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    client.batch_execute("SELECT setval('stock.ledger_position_seq', 1)").unwrap();
    assert_eq!(
        value(&mut client, "SELECT problem || ' ' || expected || ' ' || found FROM stock.verify()"),
        "the sequence stock.ledger_position_seq is behind the ledger 2 1"
    );
    // A sweep that looks at everything, as the first of a session does.
    database.connect().batch_execute("SELECT * FROM stock.expire_reservations()").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    assert_eq!(value(&mut client, "SELECT last_value FROM stock.ledger_position_seq"), "2");
    finish(database);
}

#[test]
fn a_damaged_key_is_named_and_the_other_orders_are_settled() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    for number in 0..20 {
        assert_eq!(
            outcome(&mut client, &format!("try_reserve_stock('o{number}', 'a', 'm', 1)")),
            "reserved"
        );
    }
    client
        .batch_execute(
            "DELETE FROM stock.hold WHERE key = 'o7';
             ALTER TABLE stock.ledger DISABLE TRIGGER USER;
             UPDATE stock.ledger SET operation = 'unheard of' WHERE key = 'o13';
             ALTER TABLE stock.ledger ENABLE TRIGGER USER",
        )
        .unwrap();
    assert_eq!(raised(&mut client, "try_confirm_stock('o7')"), "XX001");
    let orders: Vec<String> =
        (0..20).map(|number| format!(r#"{{"key":"o{number}","status":"paid"}}"#)).collect();
    let settle = format!("SELECT * FROM stock.settle('[{}]')", orders.join(","));
    let rows = client.query(&settle, &[]).unwrap();
    for (number, row) in rows.iter().enumerate() {
        let damaged = [7, 13].contains(&number);
        let expected = if damaged {
            ("not_applied", "damaged", false)
        } else {
            ("confirmed", "paid_not_confirmed", true)
        };
        let found: (&str, &str, bool) =
            (row.get("outcome"), row.get("mismatch"), row.get("agrees"));
        assert_eq!(found, expected, "o{number}");
    }
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.hold"),
        "1",
        "that of the other damaged key"
    );
    let again = value(&mut client, &settle.replace('*', "count(*) FILTER (WHERE agrees)"));
    assert_eq!(again, "18");
}

#[test]
fn json_of_many_megabytes_is_refused_before_it_is_copied() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    for call in [
        "try_reserve_stock('k', J)",
        "try_sell_stock('k', J)",
        "try_confirm_stock('k', J)",
        "reserve_many(J)",
        "settle(J)",
    ] {
        let sql = format!(
            "SELECT * FROM stock.{}",
            call.replace('J', "(SELECT to_jsonb(repeat('x', 17000000)))")
        );
        let error = client.simple_query(&sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "22023", "{call}");
        assert!(error.message().ends_with("is too large"), "{error:?}");
        assert!(error.hint().is_some());
    }
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    finish(database);
}

#[test]
fn a_dba_can_bound_a_batch() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    let order = |key: &str| {
        format!(r#"{{"key":"{key}","lines":[{{"sku":"a","location":"m","quantity":1}}]}}"#)
    };
    let batch = format!("reserve_many('[{},{}]')", order("k"), order("l"));
    client
        .batch_execute("CREATE ROLE batcher; SELECT stock.grant_access('batcher', 'operate')")
        .unwrap();
    client
        .batch_execute(&format!(
            "ALTER DATABASE {} SET pg_stock.max_batch_lines = 1",
            database.name()
        ))
        .unwrap();
    let mut session = database.connect();
    session.batch_execute("SET ROLE batcher").unwrap();
    assert_eq!(raised(&mut session, &batch), "22023");
    let error = session.batch_execute("SET pg_stock.max_batch_lines = 2").unwrap_err();
    assert_eq!(super::support::sqlstate(&error), "42501");
    assert_eq!(outcome(&mut session, &format!("reserve_many('[{}]')", order("k"))), "reserved");
    session.batch_execute("RESET ROLE").unwrap();
    session.batch_execute("DROP OWNED BY batcher; DROP ROLE batcher").unwrap();
    finish(database);
}

/// A large batch is one call: a cancel ends it, and nothing of it is left.
#[test]
fn a_cancel_ends_a_large_batch() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000_000);
    client.batch_execute("SET statement_timeout = '300ms'").unwrap();
    let batch = "SELECT count(*) FROM stock.reserve_many((
        SELECT jsonb_agg(jsonb_build_object('key', 'k' || i, 'lines', lines))
        FROM generate_series(1, 1000) i,
               (SELECT jsonb_agg(jsonb_build_object('sku', 's' || j, 'location', 'm', 'quantity',
               1)) AS lines
                  FROM generate_series(1, 100) j) l))";
    for sku in 1..=100 {
        stocked(&mut client, &format!("s{sku}"), "m", 1_000);
    }
    assert_eq!(sqlstate(&client.batch_execute(batch).unwrap_err()), "57014");
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.hold"), "0");
    finish(database);
}

/// Whoever looks whether something is wrong is not stopped by it: no view raises because of a
/// moment before all others.
#[test]
fn every_view_and_health_show_what_happened_before_all_time() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "first", "m", 1);
    client.batch_execute("SELECT * FROM stock.emit_changes()").unwrap();
    super::verify::trade(&mut client);
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE stock.hold SET expires_at = '-infinity', reserved_at = '-infinity';
             UPDATE stock.shipment SET dispatched_at = '-infinity';
             UPDATE stock.ledger SET recorded_at = '-infinity', expires_at = '-infinity';
             UPDATE stock.lot SET best_before = '-infinity', spoils_at = '-infinity';
             UPDATE stock.level SET next_due = '-infinity', updated_at = '-infinity';
             RESET session_replication_role",
        )
        .unwrap();
    let views = "SELECT c.relname FROM pg_class c
                  WHERE c.relnamespace = 'stock'::regnamespace AND c.relkind = 'v'";
    for row in client.query(views, &[]).unwrap() {
        let view: String = row.get(0);
        value(&mut client, &format!("SELECT count(v::text) FROM stock.{view} v"));
    }
    value(&mut client, "SELECT count(v::text) FROM stock.verify() v");
    let told = "SELECT ok FROM stock.health() WHERE name = 'overdue_holds'";
    assert_eq!(value(&mut client, told), "f");
}
