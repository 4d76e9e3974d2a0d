//! Who may do what, and what a hostile caller can do: nothing.

use super::support::{call, cluster, database, finish, outcome, sqlstate, stocked, value};

/// A call of each function that answers where it is allowed.
pub const CALLS: &[(&str, &str)] = &[
    ("read", "SELECT stock.available('a', 'm')"),
    ("read", "SELECT stock.available('a', 'm', 1, '0')"),
    ("read", "SELECT stock.write_position()"),
    ("read", "SELECT stock.wait_for('0/1')"),
    ("monitor", "SELECT stock.staleness()"),
    ("monitor", "SELECT * FROM stock.health()"),
    ("monitor", "SELECT stock.library_version()"),
    ("monitor", "SELECT * FROM stock.verification"),
    ("administer", "SELECT stock.run_verification()"),
    ("monitor", "SELECT * FROM stock.totals"),
    ("monitor", "SELECT * FROM stock.stat"),
    ("monitor", "SELECT * FROM stock.stat_calls()"),
    ("monitor", "SELECT * FROM stock.stat_bucket"),
    ("monitor", "SELECT * FROM stock.stat_latency"),
    ("monitor", "SELECT stock.stat_bound(1)"),
    ("monitor", "SELECT stock.stat_quantile('{1,2}', 0.5)"),
    ("monitor", "SELECT * FROM stock.stat_hot"),
    ("monitor", "SELECT * FROM stock.stat_hot_skus()"),
    ("monitor", "SELECT * FROM stock.stat_worker"),
    ("monitor", "SELECT * FROM stock.stat_worker_counts()"),
    ("administer", "SELECT stock.stat_reset()"),
    ("owner", "SELECT stock.access_of_views()"),
    ("read", "SELECT * FROM stock.reservation('k')"),
    ("read", "SELECT * FROM stock.verify()"),
    ("read", "SELECT * FROM stock.doubtful_reservations('1 day')"),
    ("read", "SELECT * FROM stock.changes_since('stock1:g:1:')"),
    ("read", "SELECT * FROM stock.snapshot()"),
    ("monitor", "SELECT * FROM stock.feed_lag"),
    ("monitor", "SELECT * FROM stock.worker"),
    ("monitor", "SELECT * FROM stock.worker_status()"),
    ("monitor", "SELECT * FROM stock.alert"),
    ("monitor", "SELECT * FROM stock.levels"),
    ("read", "SELECT * FROM stock.holds"),
    ("read", "SELECT * FROM stock.ledger_rows"),
    ("read", "SELECT * FROM stock.shipments"),
    ("read", "SELECT * FROM stock.waiting_lines"),
    ("read", "SELECT * FROM stock.supplied"),
    ("read", "SELECT * FROM stock.lots"),
    ("monitor", "SELECT * FROM stock.expiring_lots"),
    ("read", "SELECT * FROM stock.lot_holds"),
    ("read", "SELECT * FROM stock.lot_moves"),
    ("read", "SELECT * FROM stock.picks('k')"),
    ("read", "SELECT * FROM stock.overdue"),
    ("read", "SELECT * FROM stock.maintenance_run"),
    ("operate", "SELECT * FROM stock.reserve_stock('k1', 'a', 'm', 1)"),
    (
        "operate",
        r#"SELECT * FROM stock.reserve_stock('k2', '[{"sku":"a","location":"m","quantity":1}]')"#,
    ),
    ("operate", "SELECT * FROM stock.sell_stock('k3', 'a', 'm', 1)"),
    (
        "operate",
        r#"SELECT * FROM stock.sell_many('[{"key":"k7","lines":[{"sku":"a","location":"m","quantity":1}]}]')"#,
    ),
    (
        "operate",
        r#"SELECT * FROM stock.sell_stock('k4', '[{"sku":"a","location":"m","quantity":1}]')"#,
    ),
    (
        "operate",
        r#"SELECT * FROM stock.reserve_many('[{"key":"k5","lines":[{"sku":"a","location":"m","quantity":1}]}]')"#,
    ),
    ("operate", "SELECT * FROM stock.confirm_stock('k1')"),
    ("operate", "SELECT * FROM stock.release_stock('k2')"),
    ("operate", "SELECT * FROM stock.return_stock('k3')"),
    ("operate", "SELECT * FROM stock.extend_reservation('k5', '1 hour')"),
    ("operate", "SELECT * FROM stock.release_stock('never heard of')"),
    ("operate", "SELECT * FROM stock.try_reserve_stock('k1', 'a', 'm', 1)"),
    (
        "operate",
        r#"SELECT * FROM stock.try_reserve_stock('k2', '[{"sku":"a","location":"m","quantity":1}]')"#,
    ),
    ("operate", "SELECT * FROM stock.try_sell_stock('k3', 'a', 'm', 1)"),
    (
        "operate",
        r#"SELECT * FROM stock.try_sell_stock('k4', '[{"sku":"a","location":"m","quantity":1}]')"#,
    ),
    ("operate", "SELECT * FROM stock.try_confirm_stock('k1')"),
    ("operate", "SELECT * FROM stock.try_release_stock('k2')"),
    ("operate", "SELECT * FROM stock.try_return_stock('k3')"),
    ("operate", "SELECT * FROM stock.try_extend_reservation('k5', '1 hour')"),
    ("administer", "SELECT * FROM stock.emit_changes()"),
    ("administer", "SELECT stock.begin_generation()"),
    ("administer", "SELECT * FROM stock.receive_stock('g1', 'a', 'm', 1)"),
    ("administer", "SELECT * FROM stock.adjust_stock('g2', 'a', 'm', 1, 'found')"),
    ("administer", "SELECT * FROM stock.set_stock('g3', 'a', 'm', 50, NULL)"),
    ("administer", "SELECT * FROM stock.transfer_stock('g4', 'a', 'm', 'n', 1)"),
    (
        "administer",
        r#"SELECT * FROM stock.dispatch_stock('d1', '[{"sku":"a","from":"m","to":"n","quantity":1}]')"#,
    ),
    (
        "administer",
        r#"SELECT * FROM stock.dispatch_stock('d2', '[{"sku":"a","from":"m","to":"n","quantity":1}]')"#,
    ),
    ("administer", "SELECT * FROM stock.recall_stock('d1')"),
    ("administer", "SELECT * FROM stock.arrive_stock('d1')"),
    ("administer", "SELECT * FROM stock.lose_stock('d2')"),
    ("administer", "SELECT * FROM stock.set_limits('g5', 'a', 'm', 1)"),
    ("administer", "SELECT * FROM stock.freeze_level('g6', 'a', 'm', 'x')"),
    ("administer", "SELECT * FROM stock.unfreeze_level('g7', 'a', 'm', 'x')"),
    ("administer", "SELECT * FROM stock.reopen_key('never heard of', 'mistyped')"),
    ("administer", "SELECT * FROM stock.try_reopen_key('never heard of', 'mistyped')"),
    ("administer", "SELECT * FROM stock.try_receive_stock('g1', 'a', 'm', 1)"),
    ("administer", "SELECT * FROM stock.try_adjust_stock('g2', 'a', 'm', 1, 'found')"),
    ("administer", "SELECT * FROM stock.try_set_stock('g3', 'a', 'm', 50, NULL)"),
    ("administer", "SELECT * FROM stock.try_transfer_stock('g4', 'a', 'm', 'n', 1)"),
    (
        "administer",
        r#"SELECT * FROM stock.try_dispatch_stock('d1', '[{"sku":"a","from":"m","to":"n","quantity":1}]')"#,
    ),
    (
        "administer",
        r#"SELECT * FROM stock.try_dispatch_stock('d2', '[{"sku":"a","from":"m","to":"n","quantity":1}]')"#,
    ),
    ("administer", "SELECT * FROM stock.try_recall_stock('d1')"),
    ("administer", "SELECT * FROM stock.try_arrive_stock('d1')"),
    ("administer", "SELECT * FROM stock.try_lose_stock('d2')"),
    ("administer", "SELECT * FROM stock.try_set_limits('g5', 'a', 'm', 1)"),
    ("administer", "SELECT * FROM stock.try_freeze_level('g6', 'a', 'm', 'x')"),
    ("administer", "SELECT * FROM stock.try_unfreeze_level('g7', 'a', 'm', 'x')"),
    ("administer", "SELECT * FROM stock.receive_stock('g8', 'a', 'm', 1, NULL, 'x')"),
    ("administer", "SELECT * FROM stock.track_lots('g9', 'a', 'm')"),
    ("administer", "SELECT * FROM stock.try_track_lots('g10', 'a', 'm')"),
    ("administer", "SELECT * FROM stock.freeze_lot('g11', 'a', 'm', 'x', 'why')"),
    ("administer", "SELECT * FROM stock.try_freeze_lot('g12', 'a', 'm', 'x', 'why')"),
    ("administer", "SELECT * FROM stock.unfreeze_lot('g13', 'a', 'm', 'x', 'why')"),
    ("administer", "SELECT * FROM stock.try_unfreeze_lot('g14', 'a', 'm', 'x', 'why')"),
    ("administer", "SELECT * FROM stock.expire_lots(10)"),
    ("administer", "SELECT * FROM stock.expire_reservations(10)"),
    ("administer", "CALL stock.expire_all(10)"),
    ("administer", "SELECT * FROM stock.pay_queues()"),
    ("administer", "CALL stock.pay_waiting()"),
    ("administer", r#"SELECT * FROM stock.settle('[{"key":"k6","status":"cancelled"}]')"#),
    // Without pg_cron they answer that there is none, which is an answer all the same.
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.schedule_expiry(); EXCEPTION WHEN feature_not_supported THEN \
         NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.unschedule_expiry(); EXCEPTION WHEN feature_not_supported THEN \
         NULL; END $$",
    ),
    ("read", "SELECT * FROM stock.import_progress"),
    ("read", "SELECT * FROM stock.import_batch"),
    ("read", "SELECT * FROM stock.import_error"),
    ("administer", "CALL stock.import('b1', 'stock.levels')"),
    ("administer", "SELECT stock.begin_import('b2', 'stock.levels', 'set', 10)"),
    ("administer", "SELECT stock.import_chunk('b2', 1, 1, 0, NULL)"),
    ("owner", "SELECT stock.import_query('stock.levels', 'set', 5)"),
    ("owner", "SELECT stock.import_fields('stock.levels', 'set')"),
    ("owner", "SELECT stock.check_primary()"),
    ("owner", "SELECT * FROM stock.import_rows('b3', 'set', '[]')"),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.schedule_verification(); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.unschedule_verification(); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.schedule_job('j', 'SELECT 1', '* * * * *'); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.unschedule_job('j'); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    ("read", "SELECT stock.full_name('stock.levels')"),
    ("administer", "SELECT stock.erase_buyer('nobody', 'somebody')"),
    ("administer", "SELECT * FROM stock.reconcile('[]')"),
    ("administer", "SELECT * FROM stock.reconcile_source('stock.levels')"),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.schedule_reconciliation('stock.levels'); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.unschedule_reconciliation(); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    ("read", "SELECT * FROM stock.reconciliation"),
    ("read", "SELECT * FROM stock.reconciliation_line"),
    ("administer", "CALL stock.archive('1 day')"),
    ("administer", "SELECT * FROM stock.archive_batch('1 day', NULL, NULL, 1)"),
    ("administer", "SELECT stock.check_archive('1 day', 1)"),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.schedule_archive(); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    (
        "administer",
        "DO $$ BEGIN PERFORM stock.unschedule_archive(); EXCEPTION \
         WHEN feature_not_supported THEN NULL; END $$",
    ),
    ("owner", "SELECT stock.make_archive_month(now())"),
    ("owner", "SELECT stock.closed_keys('{}', now())"),
    ("owner", "SELECT * FROM stock.parts_of_balances('{}')"),
    ("owner", "SELECT stock.keys_of_broken_levels('{}')"),
    ("owner", "SELECT stock.archive_keys('{}', 0, now())"),
    ("owner", "SELECT stock.check_not_archived(NULL)"),
    ("owner", "SELECT stock.carry_forward('{}')"),
    ("owner", "SELECT stock.move_to_archive('{}')"),
    ("owner", "SELECT stock.close_imports('{}', now())"),
    ("administer", "SELECT * FROM stock.repair('a', 'm', 'a test')"),
    ("owner", "SELECT * FROM stock.lines()"),
    ("owner", "SELECT stock.operations()"),
    ("owner", "SELECT stock.repair_sequences()"),
    ("owner", "SELECT stock.remove_orphans(NULL, NULL, 'a test')"),
    ("owner", "SELECT stock.standings_to_be('a', 'm', true)"),
    ("owner", "SELECT stock.bindings_to_be('a', 'm', '[]', true)"),
    ("owner", "SELECT stock.write_holds('no such', 'm', '[]', '[]')"),
    ("owner", "SELECT stock.write_shipments('no such', 'm', true)"),
    ("owner", "SELECT stock.correct_shipments(NULL)"),
    ("owner", "SELECT stock.write_lots(NULL, true)"),
    ("owner", "SELECT stock.write_buyers('no such', 'm')"),
    ("owner", "SELECT stock.correct_lines(NULL, '[]', '[]')"),
    ("owner", "SELECT stock.open_balance(NULL)"),
    ("owner", "SELECT stock.level_to_be('no such', 'm', '[]', true)"),
    ("owner", "SELECT stock.write_level(l, l.version) FROM stock.level l LIMIT 1"),
    ("owner", "SELECT * FROM stock.repair_level('a', 'm', 'a test')"),
    (
        "owner",
        "DO $$ BEGIN PERFORM stock.repair_from('a', 'm', 'a test', '[]', true); RAISE \
         SQLSTATE 'RB000'; EXCEPTION WHEN SQLSTATE 'RB000' THEN NULL; END $$",
    ),
    ("owner", "SELECT * FROM stock.entries()"),
    ("owner", "SELECT * FROM stock.verify_levels(NULL, NULL)"),
    ("owner", "SELECT stock.send_alert('{}')"),
    ("owner", "SELECT stock.check_shop('[]')"),
    ("owner", "SELECT stock.is_units('1')"),
    ("owner", "SELECT * FROM stock.compare_stock('[]', now(), now())"),
    ("owner", "SELECT stock.alert_of_drift(1, 1, true)"),
    ("owner", "SELECT stock.check_name('a', 'b')"),
    ("owner", "SELECT stock.grant_access('postgres', 'read')"),
    ("owner", "SELECT stock.revoke_access('nobody', 'read')"),
    ("owner", "SELECT stock.access_of_functions()"),
    ("owner", "SELECT stock.access_rank('read')"),
    ("owner", "SELECT stock.check_access('postgres', 'read')"),
    ("owner", "INSERT INTO stock.level VALUES (1, 0, 0, NULL, 1)"),
    ("owner", "UPDATE stock.level SET on_hand = 5"),
    ("owner", "DELETE FROM stock.hold"),
    ("owner", "DELETE FROM stock.buyer_quantity"),
    ("owner", "DELETE FROM stock.shipment"),
    ("owner", "DELETE FROM stock.waiting"),
    ("owner", "UPDATE stock.lot SET frozen = false"),
    ("owner", "DELETE FROM stock.hold_lot"),
    ("owner", "SELECT * FROM stock.ledger_lot"),
    ("owner", "SELECT nextval('stock.waiting_position_seq')"),
    ("owner", "DELETE FROM stock.maintenance_run"),
    ("owner", "SELECT * FROM stock.hold_error"),
    ("owner", "SELECT * FROM stock.level"),
    ("owner", "SELECT * FROM stock.ledger"),
    ("owner", "SELECT nextval('stock.ledger_position_seq')"),
    ("owner", "CREATE TABLE stock.mine ()"),
];

fn rank(access: &str) -> usize {
    ["nothing", "monitor", "read", "operate", "administer", "owner"]
        .iter()
        .position(|level| *level == access)
        .unwrap()
}

#[test]
fn each_access_level_may_do_what_it_should_and_no_more() {
    let mut admin = cluster().connect("postgres");
    for access in ["nothing", "monitor", "read", "operate", "administer"] {
        let database = database();
        let mut client = database.connect();
        let role = format!("may_{access}");
        admin
            .batch_execute(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN"))
            .unwrap();
        stocked(&mut client, "a", "m", 100);
        if access != "nothing" {
            value(&mut client, &format!("SELECT stock.grant_access('{role}', '{access}')"));
        }
        client.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        for (needs, sql) in CALLS {
            let result = client.simple_query(sql);
            if rank(access) >= rank(needs) {
                result.unwrap_or_else(|error| panic!("{access}: {sql}: {error:?}"));
            } else {
                let error =
                    result.err().unwrap_or_else(|| panic!("{access}: {sql} must be refused"));
                assert_eq!(sqlstate(&error), "42501", "{access}: {sql}: {error:?}");
            }
        }
        client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
        client.batch_execute(&format!("DROP OWNED BY {role}")).unwrap();
        admin.batch_execute(&format!("DROP ROLE {role}")).unwrap();
        finish(database);
    }
}

/// Nothing in the schema was forgotten in the table above or in the access levels.
#[test]
fn every_function_has_its_access_level_and_its_test() {
    let database = database();
    let mut client = database.connect();
    let functions = "SELECT p.proname, coalesce(a.access, 'owner')
                       FROM pg_proc p LEFT JOIN stock.access_of_functions() a
                       ON a.function_name = p.proname
                      WHERE p.pronamespace = 'stock'::regnamespace
                      AND p.prorettype <> 'trigger'::regtype";
    for row in client.query(functions, &[]).unwrap() {
        let (name, access): (String, String) = (row.get(0), row.get(1));
        let tested = |(needs, sql): &(&str, &str)| {
            *needs == access && sql.contains(&format!("stock.{name}("))
        };
        assert!(CALLS.iter().any(tested), "{name} ({access}) is not tested");
    }
    let public = "SELECT count(*) FROM (
                    SELECT proacl AS acl, 'f'::\"char\" AS kind, proowner AS owner FROM pg_proc
                    WHERE pronamespace = 'stock'::regnamespace
                    UNION ALL SELECT relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\",
                    relowner
                      FROM pg_class WHERE relnamespace = 'stock'::regnamespace
                      AND relkind IN ('r', 'v', 'S')
                    UNION ALL SELECT nspacl, 'n', nspowner FROM pg_namespace WHERE nspname = 'stock'
                    UNION ALL SELECT typacl, 'T', typowner FROM pg_type
                    WHERE oid = 'stock.answer'::regtype) o,
                    LATERAL aclexplode(coalesce(acl, acldefault(kind, owner))) a
                    WHERE a.grantee = 0";
    assert_eq!(value(&mut client, public), "0", "PUBLIC has something");
    finish(database);
}

#[test]
fn access_is_taken_back_from_the_top() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "DROP ROLE IF EXISTS clerk; CREATE ROLE clerk; SELECT stock.grant_access('clerk', \
             'administer')",
        )
        .unwrap();
    stocked(&mut client, "a", "m", 10);
    for (taken, monitor, read, operate, administer) in [
        ("administer", true, true, true, false),
        ("operate", true, true, false, false),
        ("read", true, false, false, false),
        ("monitor", false, false, false, false),
    ] {
        value(&mut client, &format!("SELECT stock.revoke_access('clerk', '{taken}')"));
        client.batch_execute("SET ROLE clerk").unwrap();
        for (allowed, sql) in [
            (monitor, "SELECT * FROM stock.levels"),
            (read, "SELECT stock.available('a', 'm')"),
            (read, "SELECT * FROM stock.holds"),
            (operate, "SELECT stock.try_reserve_stock('k', 'a', 'm', 1)"),
            (administer, "SELECT stock.try_receive_stock('k', 'a', 'm', 1)"),
        ] {
            assert_eq!(client.simple_query(sql).is_ok(), allowed, "{taken} taken: {sql}");
        }
        client.batch_execute("RESET ROLE").unwrap();
    }
    for (text, state) in [
        ("'nobody', 'read'", "42704"),
        ("'clerk', 'everything'", "22023"),
        ("NULL, 'read'", "42704"),
    ] {
        let error = client.simple_query(&format!("SELECT stock.grant_access({text})")).unwrap_err();
        assert_eq!(sqlstate(&error), state);
    }
    client.batch_execute("DROP OWNED BY clerk; DROP ROLE clerk").unwrap();
    finish(database);
}

#[test]
fn the_ledger_cannot_be_changed_not_even_by_its_owner() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    for sql in [
        "UPDATE stock.ledger SET quantity = 1",
        "DELETE FROM stock.ledger",
        "TRUNCATE stock.ledger",
        "DELETE FROM stock.ledger WHERE false",
        "MERGE INTO stock.ledger USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
    ] {
        assert_eq!(sqlstate(&client.simple_query(sql).unwrap_err()), "42501", "{sql}");
    }
    finish(database);
}

#[test]
fn a_hostile_search_path_changes_nothing() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client
        .batch_execute(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.boom(bigint, bigint) RETURNS boolean LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'hijacked'; END $$;
             CREATE FUNCTION evil.boom2(text, text) RETURNS boolean LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'hijacked'; END $$;
             CREATE OPERATOR evil.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.boom);
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.boom2);
             CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$
             SELECT 'infinity'::timestamptz $$;
             CREATE TEMP TABLE level (sku text, location text, on_hand bigint);
             CREATE TEMP TABLE ledger (LIKE stock.ledger);
             SET search_path = evil, pg_temp, pg_catalog",
        )
        .unwrap();
    for text in
        ["reserve_stock('o', 'a', 'm', 1)", "confirm_stock('o')", "sell_stock('p', 'a', 'm', 1)"]
    {
        let rows = call(&mut client, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(rows[0].sku, "a");
    }
    assert_eq!(
        raised_state(&mut client, "SELECT stock.reserve_stock('q', 'a', 'm', 100)"),
        "ST001"
    );
    assert_eq!(value(&mut client, "SELECT stock.available('a', 'm')"), "8");
    assert_eq!(value(&mut client, "SELECT pg_catalog.count(*) FROM stock.verify()"), "0");
    client.batch_execute("RESET search_path; DROP TABLE pg_temp.level, pg_temp.ledger").unwrap();
    finish(database);
}

fn raised_state(client: &mut postgres::Client, sql: &str) -> String {
    sqlstate(&client.simple_query(sql).unwrap_err())
}

#[test]
fn a_squatted_schema_is_not_taken_over() {
    let mut admin = cluster().connect("postgres");
    admin.batch_execute("CREATE DATABASE squatted").unwrap();
    let mut client = cluster().connect("squatted");
    client.batch_execute("CREATE SCHEMA stock; CREATE TABLE stock.level (sku text)").unwrap();
    assert_eq!(raised_state(&mut client, "CREATE EXTENSION pg_stock"), "42P06");
    client.batch_execute("DROP SCHEMA stock CASCADE; CREATE EXTENSION pg_stock").unwrap();
    client.batch_execute("DROP EXTENSION pg_stock; CREATE EXTENSION pg_stock").unwrap();
}

#[test]
fn injection_through_every_text_argument_fails() {
    let database = database();
    let mut client = database.connect();
    let evil = "x'); DROP TABLE stock.hold CASCADE; --";
    let quoted = evil.replace('\'', "''");
    stocked(&mut client, &quoted, &quoted, 10);
    client
        .batch_execute(&format!(
            "SET pg_stock.context = '{quoted}'; SET application_name = '{quoted}'"
        ))
        .unwrap();
    for text in [
        format!("reserve_stock('{quoted}', '{quoted}', '{quoted}', 2, buyer => '{quoted}')"),
        format!("confirm_stock('{quoted}', NULL, '{quoted}')"),
        format!("return_stock('{quoted}', NULL, '{quoted}', '{quoted}')"),
        format!("adjust_stock('{quoted}', '{quoted}', '{quoted}', 1, '{quoted}')"),
    ] {
        assert_eq!(call(&mut client, &text).unwrap()[0].sku, evil);
    }
    finish(database);
}

#[test]
fn the_actor_is_right_under_set_role_and_inside_definer_functions() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client
        .batch_execute(
            "DROP ROLE IF EXISTS anna; DROP ROLE IF EXISTS bert; CREATE ROLE anna; CREATE ROLE bert;
             SELECT stock.grant_access('anna', 'operate');
             SELECT stock.grant_access('bert', 'operate');
             GRANT CREATE ON SCHEMA public TO bert;
             SET ROLE bert;
             CREATE FUNCTION public.order_it(k text) RETURNS void LANGUAGE sql SECURITY DEFINER
                AS $$ SELECT stock.reserve_stock(k, 'a', 'm', 1) $$;
             RESET ROLE",
        )
        .unwrap();
    outcome(&mut client, "reserve_stock('as superuser', 'a', 'm', 1)");
    client
        .batch_execute("SET ROLE anna; SELECT stock.reserve_stock('as anna', 'a', 'm', 1)")
        .unwrap();
    client.batch_execute("SELECT public.order_it('anna through bert'); RESET ROLE").unwrap();
    client
        .batch_execute(
            "SET SESSION AUTHORIZATION bert; SELECT public.order_it('bert'); RESET SESSION \
             AUTHORIZATION",
        )
        .unwrap();
    for (key, actor, login) in [
        ("as superuser", "postgres", "postgres"),
        ("as anna", "anna", "postgres"),
        ("anna through bert", "anna", "postgres"),
        ("bert", "bert", "bert"),
    ] {
        let who =
            format!("SELECT actor || ' ' || login FROM stock.ledger_rows WHERE key = '{key}'");
        assert_eq!(value(&mut client, &who), format!("{actor} {login}"));
    }
    client.batch_execute("DROP OWNED BY anna, bert; DROP ROLE anna, bert").unwrap();
    finish(database);
}

/// Drivers send parameters without types: every function must be found all the same.
#[test]
fn every_call_resolves_with_untyped_parameters() {
    let database = database();
    let mut client = database.connect();
    let functions = "SELECT p.proname::text, n, p.prokind = 'p'
                       FROM pg_proc p, generate_series((p.pronargs - p.pronargdefaults)::int,
                       p.pronargs::int) n
                      WHERE p.pronamespace = 'stock'::regnamespace
                      AND p.prorettype <> 'trigger'::regtype";
    let signatures: Vec<(String, i32, bool)> = client
        .query(functions, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    for (name, count, procedure) in &signatures {
        let same = signatures
            .iter()
            .filter(|signature| (&signature.0, signature.1) == (name, *count))
            .count();
        assert_eq!(same, 1, "two functions {name} accept {count} arguments");
        let parameters = (1..=*count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let verb = if *procedure { "CALL" } else { "SELECT * FROM" };
        let sql = format!("{verb} stock.{name}({parameters})");
        client.prepare(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    finish(database);
}

/// COMMENT ON every object.
#[test]
fn every_object_is_commented() {
    let database = database();
    let mut client = database.connect();
    let bare = "SELECT coalesce(string_agg(o, ', '), '') FROM (
        SELECT oid::regprocedure::text AS o FROM pg_proc
         WHERE pronamespace = 'stock'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
        UNION ALL SELECT oid::regclass::text FROM pg_class
         WHERE relnamespace = 'stock'::regnamespace AND relkind IN ('r', 'v', 'S')
         AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL SELECT attrelid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c
        ON c.oid = attrelid
         WHERE relnamespace = 'stock'::regnamespace AND relkind IN ('r', 'v', 'c') AND attnum > 0
           AND col_description(attrelid, attnum) IS NULL) x";
    assert_eq!(value(&mut client, bare), "");
    finish(database);
}
