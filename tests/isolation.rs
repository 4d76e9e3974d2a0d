//! Inside the caller's transaction: savepoints, EXCEPTION blocks, procedures, two-phase commit,
//! every isolation level.

use super::support::{call, database, finish, outcome, raised, sqlstate, stocked, value};

#[test]
fn hold_order_row_and_key_commit_or_vanish_together() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    client.batch_execute("CREATE TABLE orders (id text PRIMARY KEY)").unwrap();
    for (end, left) in [("ROLLBACK", "0"), ("COMMIT", "1")] {
        client.batch_execute("BEGIN; INSERT INTO orders VALUES ('o')").unwrap();
        assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'm', 2)"), "reserved");
        client.batch_execute(end).unwrap();
        for table in ["orders", "stock.hold", "stock.ledger WHERE key = 'o'"] {
            assert_eq!(
                value(&mut client, &format!("SELECT count(*) FROM {table}")),
                left,
                "{table} after {end}"
            );
        }
    }
    finish(database);
}

#[test]
fn the_raising_form_aborts_the_transaction_and_the_try_form_does_not() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('o', 'a', 'm', 2)"), "insufficient_stock");
    assert_eq!(
        outcome(&mut client, "try_reserve_stock('o', 'a', 'm', 1)"),
        "reserved",
        "a refusal leaves no trace"
    );
    assert_eq!(raised(&mut client, "reserve_stock('p', 'a', 'm', 2)"), "ST001");
    assert_eq!(raised(&mut client, "try_reserve_stock('q', 'a', 'm', 1)"), "25P02");
    client.batch_execute("ROLLBACK").unwrap();
    finish(database);
}

#[test]
fn savepoints_take_back_what_they_should() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    stocked(&mut client, "b", "m", 5);
    let lines =
        r#"[{"sku":"b","location":"m","quantity":1},{"sku":"a","location":"m","quantity":1}]"#;
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('kept', 'a', 'm', 1)"), "reserved");
    client.batch_execute("SAVEPOINT s").unwrap();
    assert_eq!(call(&mut client, &format!("reserve_stock('undone', '{lines}')")).unwrap().len(), 2);
    assert_eq!(raised(&mut client, "reserve_stock('x', 'a', 'm', 50)"), "ST001");
    client.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(call(&mut client, &format!("reserve_stock('again', '{lines}')")).unwrap().len(), 2);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(
        value(&mut client, "SELECT string_agg(DISTINCT key, ' ' ORDER BY key) FROM stock.holds"),
        "again kept"
    );
    finish(database);
}

/// An error inside our own subtransaction must leave the caller's EXCEPTION block in order.
#[test]
fn exception_blocks_catch_refusals_and_engine_errors() {
    let lines =
        r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
    for (text, state) in [
        ("reserve_stock('x', 'a', 'm', 50)".to_owned(), "ST001"),
        ("reserve_stock('x', 'a', 'm', -1)".to_owned(), "22023"),
        (format!("reserve_stock('x', '{lines}')"), "55P03"),
        (format!("reserve_many('[{{\"key\":\"x\",\"lines\":{lines}}}]')"), "55P03"),
    ] {
        let database = database();
        let (mut client, mut other) = (database.connect(), database.connect());
        stocked(&mut client, "a", "m", 5);
        stocked(&mut client, "b", "m", 5);
        other.batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'b' FOR UPDATE").unwrap();
        client
            .batch_execute(&format!(
                "SET lock_timeout = '20ms';
                 DO $$ BEGIN
                    PERFORM stock.reserve_stock('before', 'a', 'm', 1);
                    BEGIN
                        PERFORM stock.reserve_stock('inside', 'a', 'm', 1);
                        PERFORM stock.{text};
                    EXCEPTION WHEN OTHERS THEN
                        PERFORM set_config('t.state', SQLSTATE, false);
                    END;
                    PERFORM stock.reserve_stock('after', 'a', 'm', 1);
                 END $$"
            ))
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(value(&mut client, "SELECT current_setting('t.state')"), state, "{text}");
        let keys = "SELECT string_agg(key, ' ' ORDER BY key) FROM stock.holds";
        assert_eq!(value(&mut client, keys), "after before", "{text}");
        other.batch_execute("ROLLBACK").unwrap();
        finish(database);
    }
}

#[test]
fn repeatable_read_and_serializable_are_told_to_retry_and_then_succeed() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = database();
        let (mut one, mut other) = (database.connect(), database.connect());
        stocked(&mut one, "a", "m", 5);
        stocked(&mut one, "b", "m", 5);
        let lines =
            r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
        for text in
            ["reserve_stock('o', 'a', 'm', 1)".to_owned(), format!("reserve_stock('p', '{lines}')")]
        {
            one.batch_execute(&format!(
                "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM stock.level"
            ))
            .unwrap();
            let found =
                format!("adjust_stock('found before {}', 'a', 'm', 1, 'found')", text.len());
            outcome(&mut other, &found);
            assert_eq!(raised(&mut one, &text), "40001", "{isolation}: {text}");
            one.batch_execute("ROLLBACK").unwrap();
            one.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).unwrap();
            assert!(call(&mut one, &text).unwrap().iter().all(|row| row.outcome == "reserved"));
            one.batch_execute("COMMIT").unwrap();
        }
        finish(database);
    }
}

#[test]
fn a_quick_no_in_repeatable_read_speaks_of_the_snapshot() {
    let database = database();
    let (mut one, mut other) = (database.connect(), database.connect());
    stocked(&mut one, "a", "m", 1);
    one.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM stock.level")
        .unwrap();
    outcome(&mut other, "receive_stock('more', 'a', 'm', 10)");
    assert_eq!(outcome(&mut one, "try_reserve_stock('o', 'a', 'm', 5)"), "insufficient_stock");
    one.batch_execute("COMMIT").unwrap();
    assert_eq!(outcome(&mut one, "try_reserve_stock('o', 'a', 'm', 5)"), "reserved");
    finish(database);
}

#[test]
fn two_phase_commit_carries_a_reservation() {
    let database = database();
    let (mut one, mut other) = (database.connect(), database.connect());
    stocked(&mut one, "a", "m", 5);
    stocked(&mut one, "b", "m", 5);
    let name = database.name();
    let lines =
        r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
    for (end, held) in [("ROLLBACK", "0"), ("COMMIT", "3")] {
        one.batch_execute("BEGIN").unwrap();
        outcome(&mut one, "reserve_stock('o', 'a', 'm', 1)");
        call(&mut one, &format!("reserve_stock('p', '{lines}')")).unwrap();
        one.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).unwrap();
        // A prepared transaction stops nobody elsewhere.
        assert_eq!(
            outcome(&mut other, &format!("try_receive_stock('other {end}', 'c', 'm', 1)")),
            "received"
        );
        other.batch_execute(&format!("{end} PREPARED '{name}'")).unwrap();
        assert_eq!(value(&mut other, "SELECT count(*) FROM stock.hold"), held);
    }
    finish(database);
}

#[test]
fn procedures_that_commit_and_users_triggers_work() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    client
        .batch_execute(
            "CREATE TABLE orders (id text PRIMARY KEY, quantity bigint);
             CREATE FUNCTION hold_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM stock.reserve_stock(NEW.id, 'a', 'm', NEW.quantity); RETURN NEW; END $$;
             CREATE TRIGGER hold_it BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION hold_it();
             CREATE PROCEDURE many() LANGUAGE plpgsql AS $$ BEGIN
                FOR i IN 1..5 LOOP
                    PERFORM stock.reserve_stock('p' || i, 'a', 'm', 1);
                    IF i % 2 = 1 THEN COMMIT; ELSE ROLLBACK; END IF;
                END LOOP; END $$;",
        )
        .unwrap();
    client
        .batch_execute("INSERT INTO orders SELECT 'o' || i, i FROM generate_series(1, 3) i")
        .unwrap();
    client.batch_execute("CALL many()").unwrap();
    assert_eq!(value(&mut client, "SELECT sum(quantity) FROM stock.holds"), "9");
    let error = client.batch_execute("INSERT INTO orders VALUES ('big', 1000)").unwrap_err();
    assert_eq!(sqlstate(&error), "ST001");
    assert_eq!(value(&mut client, "SELECT count(*) FROM orders"), "3");
    finish(database);
}

#[test]
fn calls_in_one_statement_see_each_other() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 5);
    let sql = "SELECT string_agg(r.outcome, ' ' ORDER BY i)
                 FROM generate_series(1, 4) i, LATERAL stock.try_reserve_stock('o' || i % 3, 'a',
                 'm', 2) r";
    assert_eq!(value(&mut client, sql), "reserved reserved insufficient_stock reserved");
    finish(database);
}
