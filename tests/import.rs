//! A shop is loaded row by row (MISSION D6): each row once, bad ones beside, and what was broken
//! off is taken up again.

use postgres::Client;

use super::support::{call, database, eventually, finish, outcome, sqlstate, stocked, value};

/// What the last call came to: rows, applied, repeated, refused, whether it is through.
fn batch(client: &mut Client, name: &str) -> String {
    value(
        client,
        &format!(
            "SELECT concat_ws(' ', rows, applied, repeated, refused, finished_at IS NOT NULL)
               FROM stock.import_batch WHERE batch = '{name}'"
        ),
    )
}

/// The errors of a batch: row, column, outcome.
fn errors(client: &mut Client, name: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(' ', content ->> 'sku', nullif(path, ''), outcome)
           FROM stock.import_error WHERE batch = '{name}' ORDER BY number"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// MISSION D6. What a shop has becomes levels; a second call of the batch does what is missing, and
/// nothing twice.
#[test]
fn a_shop_is_loaded_once_and_bad_rows_stop_no_good_ones() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"CREATE SCHEMA shop;
               CREATE TABLE shop.goods (id int, sku text, location varchar(40), on_hand numeric,
                                        safety_stock int, buyer_limit int, colour text);
               INSERT INTO shop.goods
               SELECT n, 'sku ' || n, 'm', n, n % 3, NULL, 'red' FROM generate_series(1, 1000) n;
               INSERT INTO shop.goods VALUES
                 (0, 'minus', 'm', -1, 0, 0, ''), (0, 'half', 'm', 1.5, 0, 0, ''),
                 (0, NULL, 'm', 1, 0, 0, ''), (0, 'twice', 'm', 1, 0, 0, ''),
                 (0, 'twice', 'm', 2, 0, 0, ''), (0, ' blank', 'm', 2, 0, 0, ''),
                 (0, 'huge', 'm', 1e30, 0, 0, ''), (0, 'held', 'm', 1, 0, 2, '');"#,
        )
        .unwrap();
    stocked(&mut client, "held", "m", 5);
    outcome(&mut client, "reserve_stock('o', 'held', 'm', 3, '1 day')");

    let import = "CALL stock.import('first load', 'shop.goods', 'set', 300)";
    assert_eq!(value(&mut client, import), "1000");
    assert_eq!(batch(&mut client, "first load"), "1008 1000 0 8 t");
    assert_eq!(
        errors(&mut client, "first load"),
        [
            " blank sku 22023",
            "half on_hand 22023",
            "held below_reserved",
            "huge on_hand 22003",
            "minus on_hand 22023",
            "twice sku 22023",
            "twice sku 22023",
            "sku 22023"
        ]
    );
    let sum = "SELECT concat_ws(' ', count(*), sum(on_hand), sum(safety_stock)) FROM stock.levels
                WHERE sku LIKE 'sku %'";
    assert_eq!(value(&mut client, sum), "1000 500500 1000");
    assert_eq!(value(&mut client, "SELECT buyer_limit FROM stock.levels WHERE sku = 'held'"), "2");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");

    // The shop mends its rows, and sells meanwhile.
    outcome(&mut client, "sell_stock('p', 'sku 7', 'm', 2)");
    client
        .batch_execute(
            "UPDATE shop.goods SET on_hand = 1 WHERE sku IN ('minus', 'half', 'huge');
             DELETE FROM shop.goods WHERE sku = 'twice' AND on_hand = 2 OR sku IS NULL;
             UPDATE shop.goods SET on_hand = 4 WHERE sku = 'held';
             UPDATE shop.goods SET sku = 'no blank' WHERE sku = ' blank'",
        )
        .unwrap();
    assert_eq!(value(&mut client, import), "6");
    assert_eq!(batch(&mut client, "first load"), "1006 6 1000 0 t");
    assert!(errors(&mut client, "first load").is_empty());
    assert_eq!(value(&mut client, "SELECT on_hand FROM stock.levels WHERE sku = 'sku 7'"), "5");
    assert_eq!(value(&mut client, import), "0");
    assert_eq!(batch(&mut client, "first load"), "1006 0 1006 0 t");

    // A row that says something else now was taken as it was.
    client.batch_execute("UPDATE shop.goods SET on_hand = 9 WHERE sku = 'sku 7'").unwrap();
    assert_eq!(value(&mut client, import), "0");
    assert_eq!(errors(&mut client, "first load"), ["sku 7 key_conflict"]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// What comes has lots and dates; a view serves as well as a table.
#[test]
fn what_comes_is_imported_with_its_lots() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE VIEW coming AS
             SELECT * FROM (VALUES ('berries', 'm', 10, 'L1', date '2060-01-02'),
                                   ('berries', 'm', 20, 'L2', date '2060-01-01'),
                                   ('berries', 'm', 5, NULL, NULL),
                                   ('old', 'm', 5, 'L3', date '2020-01-01'),
                                   ('ever', 'm', 5, 'L4', 'infinity'),
                                   ('none', 'm', 0, NULL, NULL))
                        AS goods (sku, location, on_hand, lot, best_before)",
        )
        .unwrap();
    assert_eq!(value(&mut client, "CALL stock.import('lorry 7', 'coming', 'receive')"), "3");
    assert_eq!(
        errors(&mut client, "lorry 7"),
        ["ever best_before 22023", "none on_hand 22023", "old best_before 22023"]
    );
    let date = "SELECT content ->> 'best_before' FROM stock.import_error WHERE path <> 'on_hand'
                 ORDER BY number";
    let dates: Vec<String> =
        client.query(date, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(dates, ["infinity", "2020-01-01T00:00:00+00:00"]);
    let lots = "SELECT string_agg(concat_ws(' ', lot, on_hand, best_before::date), ', '
                                  ORDER BY best_before) FROM stock.lots";
    assert_eq!(value(&mut client, lots), "L2 20 2060-01-01, L1 10 2060-01-02,  5");
    assert_eq!(value(&mut client, "CALL stock.import('lorry 7', 'coming', 'receive')"), "0");
    assert_eq!(batch(&mut client, "lorry 7"), "6 0 3 3 t");

    // A count has no dates.
    assert_eq!(value(&mut client, "CALL stock.import('count', 'coming', 'set')"), "1");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// Whatever the columns hold, a bad row stops no other; and a row is the same in each call, however
/// the client is encoded.
#[test]
fn odd_columns_and_clients_change_nothing_for_others() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"CREATE TABLE odd (sku text, location char(3), on_hand text, lot text);
               INSERT INTO odd VALUES ('größe', 'm', '5', NULL), ('nan', 'm', 'NaN', NULL),
                 ('huge', 'm', repeat('9', 400), NULL), ('object', 'm', '{"a": [1]}', NULL),
                 ('exponent', 'm', '1e3', NULL), ('point', 'm', '7.000', NULL),
                 (repeat('x', 5000), 'm', '1', NULL), ('quoted"\''s', 'm', '2', NULL),
                 ('lots', 'm', '1', NULL), ('lots', 'm', '1', '');
               CREATE TABLE wide AS SELECT 'w' || n AS sku, 'm' AS location,
                 CASE n WHEN 1 THEN float8 'infinity' WHEN 2 THEN 'nan' ELSE n END AS on_hand
                 FROM generate_series(1, 5) n;
               CREATE TABLE far AS SELECT 'f' || n AS sku, 'm' AS location, 1 AS on_hand,
                 'l' AS lot,
                 CASE n WHEN 1 THEN date '300000-01-01' WHEN 2 THEN '4712-01-01 BC'
                        ELSE '2060-01-01' END AS best_before FROM generate_series(1, 3) n;
               CREATE TEMP TABLE wide AS SELECT 'temp' AS sku, 'm' AS location, 1 AS on_hand;
               CREATE TABLE nested AS SELECT 'n' AS sku, 'm' AS location, ARRAY[1, 2] AS on_hand"#,
        )
        .unwrap();
    assert_eq!(value(&mut client, "CALL stock.import('odd', 'odd', 'receive')"), "3");
    assert_eq!(batch(&mut client, "odd"), "10 3 0 7 t");
    assert_eq!(value(&mut client, "CALL stock.import('wide', 'public.wide')"), "3");
    client.batch_execute("SET search_path = public, pg_temp").unwrap();
    assert_eq!(value(&mut client, "CALL stock.import('temporary', 'pg_temp.wide')"), "1");
    let temporary = "SELECT count(*) FROM stock.levels WHERE sku = 'temp'";
    assert_eq!(value(&mut client, temporary), "1", "the table that was named");
    assert_eq!(value(&mut client, "CALL stock.import('far', 'far', 'receive')"), "1");
    assert_eq!(batch(&mut client, "far"), "3 1 0 2 t");
    assert_eq!(value(&mut client, "CALL stock.import('nested', 'nested')"), "0");
    assert_eq!(batch(&mut client, "nested"), "1 0 0 1 t");
    client.batch_execute("SET client_encoding = 'LATIN1'").unwrap();
    client.batch_execute("CALL stock.import('odd', 'odd', 'receive')").unwrap();
    client.batch_execute("SET client_encoding = 'UTF8'").unwrap();
    assert_eq!(batch(&mut client, "odd"), "10 0 3 7 t");
    let there = "SELECT on_hand FROM stock.levels WHERE sku = 'größe'";
    assert_eq!(value(&mut client, there), "5");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// Open carts and orders are held until their deadlines, under the keys with which they are
/// confirmed.
#[test]
fn open_orders_are_imported_with_their_deadlines() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    stocked(&mut client, "b", "m", 10);
    client
        .batch_execute(
            "CREATE TABLE carts (key text, sku text, location text, quantity int, buyer text,
                                 expires_at timestamptz);
             INSERT INTO carts VALUES
               ('c1', 'a', 'm', 2, 'ann', now() + interval '1 hour'),
               ('c1', 'b', 'm', 1, 'ann', now() + interval '1 hour'),
               ('c1', 'a', 'm', 1, 'ann', now() + interval '1 hour'),
               ('c2', 'a', 'm', 4, NULL, now() + interval '2 hours'),
               ('greedy', 'b', 'm', 99, NULL, now() + interval '2 hours'),
               ('late', 'a', 'm', 1, NULL, now() - interval '1 hour'),
               ('never', 'a', 'm', 1, NULL, 'infinity'),
               ('torn', 'a', 'm', 1, NULL, now() + interval '1 hour'),
               ('torn', 'b', 'm', 1, NULL, now() + interval '2 hours'),
               ('none', 'a', 'm', 0, NULL, now() + interval '1 hour'),
               (NULL, 'a', 'm', 1, NULL, now() + interval '1 hour'),
               ('pg_stock:x', 'a', 'm', 1, NULL, now() + interval '1 hour')",
        )
        .unwrap();
    let import = "CALL stock.import('carts', 'carts', 'hold', 2)";
    assert_eq!(value(&mut client, import), "2");
    assert_eq!(batch(&mut client, "carts"), "9 2 0 7 t");
    let bad = "SELECT string_agg(concat_ws(' ', content ->> 'key', nullif(path, ''), outcome), ', '
                                 ORDER BY content ->> 'key') FROM stock.import_error";
    assert_eq!(
        value(&mut client, bad),
        "greedy insufficient_stock, late expires_at 22023, never expires_at 22023, none quantity \
         22023, pg_stock:x key 22023, torn key 22023, key 22023"
    );
    let held = "SELECT string_agg(concat_ws(' ', h.key, h.sku, h.quantity, h.buyer,
                         h.expires_at - c.expires_at BETWEEN '0' AND '1 min'), ', '
                         ORDER BY h.key, h.sku)
                  FROM stock.holds h
                  JOIN (SELECT DISTINCT key, expires_at FROM carts) c USING (key)";
    assert_eq!(value(&mut client, held), "c1 a 3 ann t, c1 b 1 ann t, c2 a 4 t");
    // Whatever becomes of an order, it was taken; also once its deadline is past.
    call(&mut client, "confirm_stock('c1')").unwrap();
    call(&mut client, "release_stock('c2')").unwrap();
    client
        .batch_execute("INSERT INTO carts VALUES ('c3', 'a', 'm', 1, NULL, now() + '300 ms')")
        .unwrap();
    assert_eq!(value(&mut client, import), "1");
    assert_eq!(batch(&mut client, "carts"), "10 1 2 7 t");
    eventually("it has lapsed", || {
        value(&mut client, "SELECT expires_at < now() FROM carts WHERE key = 'c3'") == "t"
    });
    assert_eq!(value(&mut client, import), "0");
    assert_eq!(batch(&mut client, "carts"), "10 0 3 7 t");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// A call that is cancelled keeps its whole chunks, says that it is not through, and is taken up
/// again; one that a further call overtakes ends.
#[test]
fn an_import_that_is_broken_off_is_taken_up_again() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE goods AS
             SELECT 'sku ' || n AS sku, 'm' AS location, 10 AS on_hand
               FROM generate_series(1, 2000) n",
        )
        .unwrap();
    // Somebody holds a level in the middle.
    stocked(&mut client, "sku 500", "m", 1);
    let mut holder = database.connect();
    holder
        .batch_execute("BEGIN; SELECT * FROM stock.adjust_stock('a', 'sku 500', 'm', 1, 'why')")
        .unwrap();
    let import = "CALL stock.import('load', 'goods', 'set', 100)";
    std::thread::scope(|scope| {
        let mut session = database.connect();
        let token = session.cancel_token();
        let call = scope.spawn(move || session.batch_execute(import));
        let progress = "SELECT coalesce(max(done), 0) FROM stock.import_progress";
        eventually("it waits in the middle", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            value(&mut client, waits) == "1" && value(&mut client, progress) != "0"
        });
        token.cancel_query(postgres::NoTls).unwrap();
        let error = call.join().expect("no panic").expect_err("cancelled");
        assert_eq!(sqlstate(&error), "57014");
    });
    let half = "SELECT done = (SELECT count(*) FROM stock.levels WHERE on_hand = 10), rows, percent
                       BETWEEN 1 AND 99 FROM stock.import_progress";
    let row = client.query_one(half, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (true, 2000i64, true));

    // One more waits at the same place, and another overtakes it.
    std::thread::scope(|scope| {
        let mut session = database.connect();
        let call = scope.spawn(move || session.batch_execute(import));
        eventually("it waits in the middle", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            value(&mut client, waits) == "1"
        });
        let mut other = database.connect();
        let last = scope.spawn(move || other.batch_execute(import));
        eventually("both wait", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            value(&mut client, waits) == "2"
        });
        holder.batch_execute("ROLLBACK").unwrap();
        let error = call.join().expect("no panic").expect_err("overtaken");
        assert_eq!(sqlstate(&error), "55006");
        last.join().expect("no panic").unwrap();
    });
    let found = "SELECT concat_ws(' ', rows, applied + repeated, refused, finished_at IS NOT NULL)
                   FROM stock.import_batch";
    assert_eq!(value(&mut client, found), "2000 2000 0 t");
    let once = "SELECT count(*) = 2000 AND bool_and(on_hand = 10) FROM stock.levels";
    assert_eq!(value(&mut client, once), "t");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// A crash in the middle of an import loses no chunk that was committed, and doubles none.
#[test]
fn a_crash_during_an_import_is_made_good_by_another_call() {
    let cluster = pg_stock_tests::Cluster::start(&["shared_preload_libraries=pg_stock"]);
    let database = cluster.database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE goods AS
             SELECT 'sku ' || n AS sku, 'm' AS location, 10 AS on_hand
               FROM generate_series(1, 20000) n; CHECKPOINT",
        )
        .unwrap();
    let import = "CALL stock.import('load', 'goods', 'receive', 500)";
    std::thread::scope(|scope| {
        let mut session = database.connect();
        let call = scope.spawn(move || session.batch_execute(import));
        let progress = "SELECT coalesce(max(done), 0) >= 1000 FROM stock.import_progress";
        eventually("it is on its way", || value(&mut client, progress) == "t");
        cluster.kill();
        assert!(call.join().expect("no panic").is_err());
    });
    cluster.resume();
    let mut client = database.connect();
    client.batch_execute(import).unwrap();
    let found = "SELECT rows = 20000 AND repeated >= 1000 AND applied + repeated = 20000
                   FROM stock.import_batch";
    assert_eq!(value(&mut client, found), "t");
    let once = "SELECT count(*) = 20000 AND bool_and(on_hand = 10) FROM stock.levels";
    assert_eq!(value(&mut client, once), "t");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
}

#[test]
fn what_cannot_be_imported_is_told_so() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE bare (sku text, location text);
             CREATE TABLE empty (sku text, location text, on_hand bigint);
             CREATE TABLE dated (sku text, location text, on_hand bigint, best_before text)",
        )
        .unwrap();
    for (call, code, what) in [
        ("import(NULL, 'empty')", "22023", "batch must not be null"),
        ("import('', 'empty')", "22023", "batch"),
        ("import(' b', 'empty')", "22023", "batch must not begin or end with a blank"),
        ("import(repeat('b', 101), 'empty')", "22023", "batch must have at most 100 bytes"),
        ("import('b', NULL)", "22023", "source must not be null"),
        ("import('b', 'nowhere')", "42P01", "nowhere"),
        ("import('b', 'bare')", "42703", "no column on_hand"),
        ("import('b', 'dated')", "42804", "best_before"),
        ("import('b', 'empty', 'add')", "22023", "mode must be set, receive or hold"),
        ("import('b', 'empty', NULL)", "22023", "mode must be set, receive or hold"),
        ("import('b', 'empty', 'hold')", "42703", "no column key"),
        ("import('b', 'empty', 'set', 0)", "22023", "chunk_rows must be"),
        ("import('b', 'empty', 'set', NULL)", "22023", "chunk_rows must be"),
    ] {
        let error = client.batch_execute(&format!("CALL stock.{call}")).expect_err(call);
        assert_eq!(sqlstate(&error), code, "{call}: {error:?}");
        let report = error.as_db_error().expect("from the server");
        assert!(report.message().contains(what), "{call}: {report:?}");
    }
    assert_eq!(value(&mut client, "CALL stock.import('b', 'empty')"), "0");
    assert_eq!(batch(&mut client, "b"), "0 0 0 0 t");
    let error =
        client.batch_execute("CALL stock.import('b', 'empty', 'receive')").expect_err("mode");
    assert!(error.as_db_error().unwrap().message().contains("with the mode set"), "{error:?}");
    let error = client
        .batch_execute("BEGIN; CALL stock.import('c', 'empty')")
        .expect_err("inside a transaction");
    assert_eq!(sqlstate(&error), "2D000");
    client.batch_execute("ROLLBACK").unwrap();

    // The source is read with the rights of the caller, whatever is on the search path.
    client
        .batch_execute(
            "CREATE ROLE importer; SELECT stock.grant_access('importer', 'administer');
             CREATE SCHEMA evil AUTHORIZATION importer; SET ROLE importer;
             SET search_path = evil, pg_catalog;
             CREATE FUNCTION evil.count(anyelement) RETURNS bigint LANGUAGE sql AS 'SELECT 7';",
        )
        .unwrap();
    let error = client.batch_execute("CALL stock.import('b', 'public.empty')").expect_err("rights");
    assert_eq!(sqlstate(&error), "42501");
    client
        .batch_execute(
            "CREATE TABLE evil.own (sku text, location text, on_hand bigint);
             INSERT INTO evil.own VALUES ('a', 'm', 1)",
        )
        .unwrap();
    assert_eq!(value(&mut client, "CALL stock.import('own', 'evil.own')"), "1");
    client.batch_execute("RESET ROLE; DROP OWNED BY importer; DROP ROLE importer").unwrap();
    finish(database);
}
