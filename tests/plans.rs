//! The engine reads by its indexes whatever the database knows of its tables: nothing, or something
//! that is no longer so. That the plans themselves never change is tested inside the database
//! (pgrx-tests/plans.rs).

use postgres::Client;

use super::support::{TABLES, database, finish, outcome, raised, stocked, value};

/// How often a table that grows was read from end to end, and rows that were read so.
const SCANS: &str = "SELECT coalesce(string_agg(relname || ' ' || seq_scan, ', ' ORDER BY relname),
                     '')
                       FROM pg_stat_user_tables
                      WHERE relname IN ('level', 'hold', 'ledger', 'buyer_quantity', 'waiting',
                                        'shipment', 'alert', 'maintenance_run', 'lot',
                                        'hold_lot', 'ledger_lot')
                        AND schemaname = 'stock' AND seq_scan > 0";

/// What all sessions have counted so far: each tells the others of it when it ends, or is asked to.
fn scans(client: &mut Client, trader: &mut Client) -> String {
    trader.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    value(trader, "SELECT 1");
    value(client, SCANS)
}

/// Orders of one line each, all by one call.
fn batch(number: usize, orders: usize) -> String {
    let order = |nth: usize| {
        format!(
            r#"{{"key":"b{number} {nth}","lines":[{{"sku":"a{}","location":"m","quantity":1}}]}}"#,
            nth % 20
        )
    };
    format!("[{}]", (0..orders).map(order).collect::<Vec<_>>().join(","))
}

fn unanalysed(client: &mut Client) {
    for table in TABLES {
        client
            .batch_execute(&format!("ALTER TABLE stock.{table} SET (autovacuum_enabled = off)"))
            .unwrap();
    }
}

/// Every operation, in every size for which there is a way of its own.
fn trade(client: &mut Client, name: &str) {
    for (number, size) in [1, 2, 40].into_iter().enumerate() {
        let lines: Vec<String> = (0..size)
            .map(|nth| format!(r#"{{"sku":"a{}","location":"m","quantity":1}}"#, nth % 20))
            .collect();
        let lines = lines.join(",");
        for key in ["c", "r", "s", "e"] {
            let text = format!(
                "SELECT stock.reserve_stock('{name} {key}{number}', '[{lines}]', \
                 '{{\"buyer\":\"anna\",\"ttl\":\"{ttl}\"}}')",
                ttl = if key == "e" { "1 microsecond" } else { "1 hour" }
            );
            client.batch_execute(&text).unwrap();
        }
        let calls = [
            format!("confirm_stock('{name} c{number}')"),
            format!("confirm_stock('{name} c{number}')"),
            format!("return_stock('{name} c{number}')"),
            format!("extend_reservation('{name} s{number}', '2 hours')"),
            format!("release_stock('{name} r{number}')"),
            format!("sell_stock('{name} sold {number}', '[{lines}]')"),
            format!("reserve_many('[{{\"key\":\"{name} m{number}\",\"lines\":[{lines}]}}]')"),
        ];
        for call in calls {
            client
                .batch_execute(&format!("SELECT * FROM stock.{call}"))
                .unwrap_or_else(|error| panic!("{call}: {error:?}"));
        }
    }
    let orders = [("s0", "paid"), ("s1", "cancelled")]
        .map(|(key, status)| format!(r#"{{"key":"{name} {key}","status":"{status}"}}"#))
        .join(",");
    for text in [
        &format!("settle('[{orders}]')"),
        "expire_reservations()",
        "emit_changes()",
        &format!("reservation('{name} c1')"),
        "available('a1', 'm')",
    ] {
        client
            .batch_execute(&format!("SELECT * FROM stock.{text}"))
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
}

#[test]
fn nothing_is_read_from_end_to_end_on_a_database_that_was_never_analysed() {
    let database = database();
    let mut client = database.connect();
    unanalysed(&mut client);
    (0..20).for_each(|sku| stocked(&mut client, &format!("a{sku}"), "m", 1_000_000));
    // The first emission of a generation looks at all levels.
    trade(&mut client, "first");
    trade(&mut client, "second");
    let before = scans(&mut database.connect(), &mut client);
    for direct in ["on", "off"] {
        let mut trader = database.connect();
        trader.batch_execute(&format!("SET pg_stock.direct_access = {direct}")).unwrap();
        for number in 0..10 {
            let text = format!(
                "SELECT count(*) FROM stock.reserve_many('{}')",
                batch(number, 200).replace("\"b", &format!("\"{direct} b"))
            );
            assert_eq!(value(&mut trader, &text), "200");
        }
        for round in 0..8 {
            trade(&mut trader, &format!("{direct} {round}"));
        }
        assert_eq!(scans(&mut client, &mut trader), before, "direct_access = {direct}");
    }
    finish(database);
}

/// All keys, SKUs and buyers alike: whoever believes that an index finds all rows does not use it.
const MISLEADING: &str = "
    INSERT INTO stock.level (on_hand, reserved, version, updated_at, sku, location)
    SELECT 1, 0, 1, now(), 'a', 'x' || n FROM generate_series(1, 2000) n;
    INSERT INTO stock.hold (quantity, expires_at, reserved_at, line, key, sku, location)
    SELECT 1, 'infinity', now(), n, 'k', 'a', 'm' FROM generate_series(1, 2000) n;
    INSERT INTO stock.ledger (recorded_at, quantity, on_hand_delta, reserved_delta, line, key,
    operation, sku, location)
    SELECT now(), 1, 0, 0, n, 'k', 'reserve', 'a', 'm' FROM generate_series(1, 2000) n;
    ANALYZE stock.level, stock.hold, stock.ledger;
    TRUNCATE stock.level, stock.hold;
    ALTER TABLE stock.ledger DISABLE TRIGGER USER;
    TRUNCATE stock.ledger;
    ALTER TABLE stock.ledger ENABLE TRIGGER USER";

#[test]
fn nothing_is_read_from_end_to_end_where_statistics_and_settings_mislead() {
    let database = database();
    let mut client = database.connect();
    unanalysed(&mut client);
    client.batch_execute(MISLEADING).unwrap();
    (0..20).for_each(|sku| stocked(&mut client, &format!("a{sku}"), "m", 1_000_000));
    // The first emission of a generation looks at all levels.
    trade(&mut client, "first");
    trade(&mut client, "second");
    let before = scans(&mut database.connect(), &mut client);
    for settings in [
        "SET plan_cache_mode = force_custom_plan; SET enable_indexscan = off; SET \
         enable_indexonlyscan = off",
        "SET enable_nestloop = off; SET random_page_cost = 1000; SET seq_page_cost = 0; SET \
         cpu_index_tuple_cost = 1000",
        "SET join_collapse_limit = 1; SET from_collapse_limit = 1; SET effective_cache_size = \
         '8kB'; SET work_mem = '64kB'",
    ] {
        let mut trader = database.connect();
        trader.batch_execute(&format!("SET pg_stock.direct_access = off; {settings}")).unwrap();
        for round in 0..3 {
            trade(&mut trader, &format!("{round} {}", settings.len()));
        }
        // The settings were those of the session again for everybody else.
        let shown = value(
            &mut client,
            "SELECT current_setting('enable_seqscan') || current_setting('enable_hashjoin')",
        );
        assert_eq!(shown, "onon");
        assert_eq!(scans(&mut client, &mut trader), before, "{settings}");
    }
    finish(database);
}

#[test]
fn plans_of_others_are_made_as_ever() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    // A trigger of a DBA's that reads a table of his own from end to end, and says how.
    client
        .batch_execute(
            "CREATE TABLE small (n integer PRIMARY KEY); INSERT INTO small VALUES (1);
             ANALYZE small;
             CREATE TABLE plan (line text);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE line text;
             BEGIN
                 FOR line IN EXECUTE 'EXPLAIN SELECT * FROM public.small WHERE n = 1' LOOP
                     INSERT INTO public.plan VALUES (line);
                 END LOOP;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER look BEFORE INSERT ON stock.hold FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .unwrap();
    client.batch_execute("SELECT stock.reserve_stock('k', 'a', 'm', 1)").unwrap();
    let plan = value(&mut client, "SELECT string_agg(line, E'\\n') FROM plan");
    assert!(plan.contains("Seq Scan on small"), "{plan}");
    finish(database);
}

#[test]
fn a_failed_plan_leaves_the_settings_of_the_session_as_they_were() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client
        .batch_execute("SET pg_stock.direct_access = off; ALTER TABLE stock.hold RENAME TO away")
        .unwrap();
    assert_eq!(raised(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "42P01");
    assert_eq!(value(&mut client, "SELECT current_setting('enable_seqscan')"), "on");
    client.batch_execute("ALTER TABLE stock.away RENAME TO hold").unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    finish(database);
}

/// docs/operating.md says which look-ups through the views use an index.
#[test]
fn look_ups_through_the_views_use_an_index() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client.batch_execute("SET enable_seqscan = off").unwrap();
    for lookup in [
        "stock.levels WHERE sku = 'a' AND location = 'm'",
        "stock.levels WHERE sku = 'a'",
        "stock.holds WHERE key = 'o'",
        "stock.holds WHERE sku = 'a' AND location = 'm'",
        "stock.ledger_rows WHERE key = 'o'",
    ] {
        let plan = client.simple_query(&format!("EXPLAIN SELECT * FROM {lookup}")).unwrap();
        assert!(!format!("{plan:?}").contains("Seq Scan"), "{lookup}: {plan:?}");
    }
    finish(database);
}

/// MISSION E6: each look-up that docs/operating.md names an index for uses it, through the views.
#[test]
fn each_index_that_is_offered_serves_its_look_up() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10_000);
    outcome(&mut client, "reserve_stock('o', 'a', 'm', 1, '1 day', 'b')");
    client
        .batch_execute(
            "SELECT count(*) FROM generate_series(1, 2000) n,
               stock.reserve_stock('o' || n, 'a', 'm', 1, '1 day', 'b' || n); ANALYZE",
        )
        .unwrap();
    let offered = include_str!("../docs/operating.md");
    let indexes: Vec<&str> =
        offered.lines().filter(|line| line.starts_with("CREATE INDEX ")).collect();
    assert_eq!(indexes.len(), 3, "{indexes:?}");
    indexes.iter().for_each(|index| client.batch_execute(index).unwrap());
    client.batch_execute("SET enable_seqscan = off").unwrap();
    for (index, look_up) in [
        ("ledger_by_level", "ledger_rows WHERE sku = 'a' AND location = 'm' ORDER BY recorded_at"),
        (
            "ledger_by_buyer",
            "ledger_rows WHERE buyer = 'b' AND recorded_at > now() - '1 d'::interval",
        ),
        ("hold_by_buyer", "holds WHERE buyer = 'b'"),
        ("ledger_claim", "ledger_rows WHERE key = 'o'"),
        ("hold_pkey", "holds WHERE key = 'o'"),
    ] {
        let sql = format!("EXPLAIN SELECT * FROM stock.{look_up}");
        let plan: Vec<String> =
            client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{look_up}: {plan:#?}");
    }
    // What sells writes into them, too.
    for direct in ["on", "off"] {
        client.batch_execute(&format!("SET pg_stock.direct_access = {direct}")).unwrap();
        outcome(&mut client, &format!("reserve_stock('{direct}', 'a', 'm', 1, '1 day', 'b')"));
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.holds WHERE buyer = 'b'"), "3");
    let entries = "SELECT count(*) FROM stock.ledger_rows WHERE buyer = 'b'";
    assert_eq!(value(&mut client, entries), "3");
    finish(database);
}
