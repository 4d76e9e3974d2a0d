//! Errors that PostgreSQL, or a DBA's trigger, raises inside a call arrive as they were raised,
//! with every field.

use postgres::Client;
use postgres::error::DbError;

use super::support::{cluster, database, finish, outcome, stocked};

fn error(client: &mut Client, call: &str) -> DbError {
    let error = client.simple_query(&format!("SELECT * FROM stock.{call}")).expect_err(call);
    error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
}

const RAISING: &str = "
    CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.key LIKE 'bad%' THEN
            RAISE 'not %', NEW.key USING ERRCODE = 'ZZ123', DETAIL = 'some detail',
            HINT = 'some hint',
                CONSTRAINT = 'some_constraint', SCHEMA = 'some_schema', TABLE = 'some_table',
                COLUMN = 'some_column',
                DATATYPE = 'some_type';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER object BEFORE INSERT ON stock.hold FOR EACH ROW EXECUTE FUNCTION object()";

#[test]
fn a_trigger_s_error_keeps_every_field() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute(RAISING).unwrap();
    let lines = r#"'[{"sku":"a","location":"m","quantity":1}]'"#;
    for call in [
        "try_reserve_stock('bad 1', 'a', 'm', 1)".to_owned(),
        "reserve_stock('bad 1', 'a', 'm', 1)".to_owned(),
        format!("try_reserve_stock('bad 1', {lines})"),
        format!("reserve_many('[{{\"key\":\"bad 1\",\"lines\":{}}}]')", lines.trim_matches('\'')),
    ] {
        let error = error(&mut client, &call);
        assert_eq!(error.code().code(), "ZZ123", "{call}");
        assert_eq!(error.message(), "not bad 1");
        assert_eq!((error.detail(), error.hint()), (Some("some detail"), Some("some hint")));
        let names =
            [error.constraint(), error.schema(), error.table(), error.column(), error.datatype()];
        let expected = ["some_constraint", "some_schema", "some_table", "some_column", "some_type"];
        assert_eq!(names, expected.map(Some), "{call}");
        let context = error.where_().unwrap_or_default();
        assert!(
            context.contains("PL/pgSQL function public.object() line 4 at RAISE"),
            "{call}: {context}"
        );
        assert_eq!(context.matches("object()").count(), 1, "{context}");
    }
    // The next error is its own, and so is what does not fail.
    assert_eq!(error(&mut client, "try_reserve_stock('', 'a', 'm', 1)").code().code(), "22023");
    assert_eq!(outcome(&mut client, "try_reserve_stock('good', 'a', 'm', 1)"), "reserved");
    finish(database);
}

#[test]
fn a_violated_constraint_is_named_by_both_ways() {
    for direct in ["on", "off"] {
        let database = database();
        let mut client = database.connect();
        stocked(&mut client, "a", "m", 10);
        client
            .batch_execute(&format!(
                "SET pg_stock.direct_access = {direct};
                 ALTER TABLE stock.hold ADD CONSTRAINT few CHECK (quantity < 5)"
            ))
            .unwrap();
        let error = error(&mut client, "try_reserve_stock('k', 'a', 'm', 7)");
        assert_eq!(error.code().code(), "23514");
        let names = [error.constraint(), error.schema(), error.table()];
        assert_eq!(names, ["few", "stock", "hold"].map(Some), "{direct}");
        assert!(
            error.detail().is_some_and(|detail| detail.starts_with("Failing row contains")),
            "{error:?}"
        );
        finish(database);
    }
}

#[test]
fn an_error_that_a_block_catches_leaves_nothing_behind() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute(RAISING).unwrap();
    client
        .batch_execute(
            "DO $$
             DECLARE state text; named text;
             BEGIN
                 FOR n IN 1..100 LOOP
                     BEGIN
                         PERFORM stock.try_reserve_stock('bad ' || n, 'a', 'm', 1);
                         RAISE 'it must fail';
                     EXCEPTION WHEN SQLSTATE 'ZZ123' THEN
                         GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, named = CONSTRAINT_NAME;
                         ASSERT state = 'ZZ123' AND named = 'some_constraint';
                     END;
                     PERFORM stock.try_reserve_stock('good ' || n, 'a', 'm', 1, '1 microsecond');
                 END LOOP;
             END $$",
        )
        .unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('after', 'a', 'm', 10)"), "reserved");
    finish(database);
}

/// The planner hook is in everybody's way: what others' statements raise while they are planned
/// arrives as it was raised.
#[test]
fn errors_of_other_statements_while_they_are_planned_are_left_alone() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client
        .batch_execute(
            "CREATE FUNCTION folded(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
             BEGIN RAISE 'not while planning' USING ERRCODE = 'ZZ123',
             CONSTRAINT = 'some_constraint'; END $$",
        )
        .unwrap();
    let error = client.simple_query("SELECT folded(1)").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.constraint()), ("ZZ123", Some("some_constraint")));
    assert!(
        error.where_().is_some_and(|context| context.contains("PL/pgSQL function folded(integer)")),
        "{error:?}"
    );
    finish(database);
}

#[test]
fn text_that_is_not_utf_8_arrives_as_it_is() {
    let mut admin = cluster().connect("postgres");
    admin
        .batch_execute(
            "CREATE DATABASE fields_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' \
             LC_CTYPE 'C'",
        )
        .unwrap();
    let mut client = cluster().connect("fields_latin1");
    client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute(RAISING).unwrap();
    let error = error(&mut client, "try_reserve_stock('bad é', 'a', 'm', 1)");
    assert_eq!((error.code().code(), error.message()), ("ZZ123", "not bad é"));
    drop(client);
    admin.batch_execute("DROP DATABASE fields_latin1").unwrap();
}

/// A refusal is raised by the function itself: with the SQLSTATE of its outcome, and without a line
/// of PL/pgSQL.
#[test]
fn a_refusal_is_raised_as_it_is_and_leaves_nothing_behind() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    let text = "reserve_stock('order', 'a', 'm', 2)";
    let refusal = error(&mut client, text);
    assert_eq!(refusal.code().code(), "ST001");
    assert_eq!(
        refusal.message(),
        "insufficient_stock: not enough stock is available (key \"order\")"
    );
    let detail = "Line 1: SKU \"a\" at \"m\": insufficient_stock: 2 asked, 1 available, version 1.";
    assert_eq!((refusal.detail(), refusal.where_()), (Some(detail), None));
    assert!(refusal.hint().is_some());
    // Errors of others keep theirs, in the same block, the same session, and below another call.
    let caught = "DO $$BEGIN
        BEGIN PERFORM stock.reserve_stock('order', 'a', 'm', 2); EXCEPTION WHEN SQLSTATE 'ST001'
        THEN NULL; END;
        PERFORM stock.reserve_stock('', 'a', 'm', 1);
    END$$";
    let after = client.simple_query(caught).expect_err("an empty key");
    assert_eq!(after.as_db_error().unwrap().code().code(), "22023");
    client
        .batch_execute(
            "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.key = 'outer' THEN PERFORM stock.reserve_stock('inner', 'a', 'm', 9);
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER other BEFORE INSERT ON stock.hold
                 FOR EACH ROW EXECUTE FUNCTION other()",
        )
        .unwrap();
    let inner = error(&mut client, "try_reserve_stock('outer', 'a', 'm', 1)");
    assert_eq!(inner.code().code(), "ST001");
    assert!(inner.message().contains("\"inner\""), "{inner:?}");
    client.batch_execute("DROP TRIGGER other ON stock.hold").unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('order', 'a', 'm', 1)"), "reserved");
    finish(database);
}

/// An error that was caught is over: what looks like it later has its own SQLSTATE and context.
#[test]
fn a_caught_error_gives_nothing_to_one_that_looks_like_it() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 9);
    client
        .batch_execute(
            "CREATE FUNCTION translating() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 BEGIN PERFORM stock.try_reserve_stock('', 'a', 'm', 1); EXCEPTION WHEN OTHERS
                 THEN NULL; END;
                 IF NEW.key = 'translated' THEN
                     BEGIN
                         RAISE EXCEPTION 'no' USING ERRCODE = 'UU001', CONSTRAINT = 'first';
                     EXCEPTION WHEN OTHERS THEN
                         RAISE EXCEPTION '%', SQLERRM USING ERRCODE = 'UU002';
                     END;
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER translating BEFORE INSERT ON stock.hold
                 FOR EACH ROW EXECUTE FUNCTION translating()",
        )
        .unwrap();
    let translated = error(&mut client, "try_reserve_stock('translated', 'a', 'm', 1)");
    assert_eq!(
        (translated.code().code(), translated.constraint()),
        ("UU002", None),
        "{translated:?}"
    );
    assert_eq!(outcome(&mut client, "try_reserve_stock('fine', 'a', 'm', 1)"), "reserved");
    let plain = error(&mut client, "try_reserve_stock('', 'a', 'm', 1)");
    assert_eq!((plain.code().code(), plain.where_()), ("22023", None), "{plain:?}");
    client.batch_execute("DROP TRIGGER translating ON stock.hold").unwrap();
    finish(database);
}
