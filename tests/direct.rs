//! Direct access does what the SQL statements do, and is not taken where it would do
//! less: with each thing that a DBA may add to the tables, and beside an old snapshot.

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::support::{
    at_once, backend, call, database, eventually, finish, outcome, sqlstate, stocked, value,
    wait_for_lock,
};

/// Every column that is written, but for what differs from call to call: names, positions,
/// transactions, times.
const WRITTEN: &str = "
    SELECT string_agg(t, E'\\n' ORDER BY t) FROM (
        SELECT 'ledger ' || (to_jsonb(g) - '{position,xact,recorded_at,expires_at}'::text[]
                 || jsonb_build_object('key', substr(key, 3), 'sku', substr(sku, 3),
                      'operation_key', CASE WHEN operation_key LIKE 'pg_stock:%' THEN 'our own'
                                            ELSE operation_key END,
                      'ttl', expires_at - recorded_at,
                      'is_new', xact IS NOT NULL AND position > 0
                                AND recorded_at > now() - interval '1 hour'))::text
          FROM stock.ledger g WHERE key LIKE '{prefix}%'
        UNION ALL
        SELECT 'hold ' || (to_jsonb(h) - '{expires_at,reserved_at}'::text[]
                 || jsonb_build_object('key', substr(key, 3), 'sku', substr(sku, 3),
                      'ttl', expires_at - reserved_at))::text
          FROM stock.hold h WHERE key LIKE '{prefix}%'
        UNION ALL
        SELECT 'level ' || (to_jsonb(l) - '{next_due,updated_at}'::text[]
                 || jsonb_build_object('sku', substr(sku, 3),
                      'is_bound_exact', next_due = coalesce(
                          (SELECT min(h.expires_at) FROM stock.hold h
                            WHERE h.sku = l.sku AND h.location = l.location), 'infinity'),
                      'is_new', updated_at > now() - interval '1 hour'))::text
          FROM stock.level l WHERE sku LIKE '{prefix}%'
    ) w(t)";

fn direct(client: &mut Client, on: bool) {
    client.batch_execute(&format!("SET pg_stock.direct_access = {on}")).unwrap();
}

/// Calls of one line, of which `PR` is replaced by a prefix, and their outcomes.
const CALLS: &[(&str, &str)] = &[
    ("try_reserve_stock('PRone', 'PRa', 'm', 2)", "reserved"),
    ("try_reserve_stock('PRtwo', 'PRa', 'm', 3, '5 min', 'anna')", "reserved"),
    ("try_reserve_stock('PRone', 'PRa', 'm', 2)", "reserved"),
    ("try_reserve_stock('PRone', 'PRa', 'm', 3)", "key_conflict"),
    ("try_reserve_stock('PRthree', 'PRa', 'm', 6)", "insufficient_stock"),
    ("try_reserve_stock('PRfour', 'PRa', 'm', 1, expected_version => 1)", "version_conflict"),
    ("try_reserve_stock('PRfive', 'PRa', 'm', 1, expected_version => 3)", "reserved"),
    ("try_sell_stock('PRsix', 'PRb', 'm', 2, 'bert')", "sold"),
    ("try_sell_stock('PRseven', 'PRb', 'm', 1)", "sold"),
    ("try_confirm_stock('PRone')", "confirmed"),
    ("try_confirm_stock('PRone')", "confirmed"),
    ("try_release_stock('PRone')", "already_confirmed"),
    ("try_return_stock('PRone', reason => 'too small')", "returned"),
    (
        "try_release_stock('PRtwo', '[{\"sku\":\"PRa\",\"location\":\"m\",\"quantity\":1}]', 'a \
         part')",
        "released",
    ),
    ("try_extend_reservation('PRtwo', '2 hours')", "extended"),
    ("try_confirm_stock('PRtwo')", "confirmed"),
    ("try_release_stock('PRnever')", "cancelled"),
    ("try_release_stock('PRfive')", "released"),
    ("try_adjust_stock('PRadjust', 'PRa', 'm', -1, 'broken')", "adjusted"),
    ("try_adjust_stock('PRadjust', 'PRa', 'm', -1, 'broken')", "adjusted"),
    ("try_set_limits('PRlimits', 'PRa', 'm', 1, 3)", "limits_set"),
    ("try_reserve_stock('PRlimited', 'PRa', 'm', 2, buyer => 'anna')", "buyer_limit_exceeded"),
    ("try_set_limits('PRno limits', 'PRa', 'm', NULL, 0)", "limits_set"),
    ("try_freeze_level('PRfreeze', 'PRb', 'm', 'counting')", "frozen"),
    ("try_set_stock('PRset', 'PRb', 'm', 4, NULL, 'counted')", "set"),
    ("try_unfreeze_level('PRunfreeze', 'PRb', 'm', 'counted')", "unfrozen"),
];

#[test]
fn both_ways_write_the_same() {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE ROLE direct_seller; SELECT stock.grant_access('direct_seller', 'operate')",
        )
        .unwrap();
    let mut write = |prefix: &str, on: bool| {
        direct(&mut client, on);
        for (sku, units) in [("a", 10), ("b", 5)] {
            stocked(&mut client, &format!("{prefix}{sku}"), "m", units);
        }
        for (call, expected) in CALLS {
            assert_eq!(outcome(&mut client, &call.replace("PR", prefix)), *expected, "{call}");
        }
        client
            .batch_execute(
                "SET ROLE direct_seller; SET application_name = ''; SET pg_stock.context = 'trace \
                 1'",
            )
            .unwrap();
        assert_eq!(
            outcome(
                &mut client,
                &format!("try_reserve_stock('{prefix}role', '{prefix}a', 'm', 1)")
            ),
            "reserved"
        );
        client.batch_execute("RESET ROLE; RESET application_name; RESET pg_stock.context").unwrap();
        let several = [
            ("try_transfer_stock('PRtransfer', 'PRa', 'm', 'n', 2)", 2),
            ("try_reserve_stock('PRlines', '[LINE_a, LINE_b]')", 2),
            (
                "reserve_many('[{\"key\":\"PRx\",\"lines\":[LINE_a]},{\"key\":\"PRx2\",\"lines\":[LINE_b,LINE_a]}]')",
                3,
            ),
            (
                "reserve_many('[{\"key\":\"PRx\",\"lines\":[LINE_a]},{\"key\":\"PRx3\",\"lines\":[LINE_b]}]')",
                2,
            ),
            ("try_confirm_stock('PRlines')", 2),
            ("try_release_stock('PRx2')", 2),
        ];
        for (calling, rows) in several {
            let text = ["a", "b"].iter().fold(calling.to_owned(), |text, sku| {
                let line = format!(r#"{{"sku":"{prefix}{sku}","location":"m","quantity":1}}"#);
                text.replace(&format!("LINE_{sku}"), &line)
            });
            let answers = call(&mut client, &text.replace("PR", prefix)).unwrap();
            assert_eq!(answers.len(), rows, "{text}");
            assert!(
                answers.iter().all(|answer| answer.outcome != "not_applied"),
                "{text}: {answers:?}"
            );
        }
        value(&mut client, &WRITTEN.replace("{prefix}", prefix))
    };
    let (direct, by_sql) = (write("d-", true), write("s-", false));
    assert_eq!(direct, by_sql);
    let count = |word: &str| direct.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("level"), count("hold"), count("ledger")), (3, 3, 33), "{direct}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    finish(database);
}

/// What a DBA may add to the tables, and a query that gives "t" if it took part in the reserve that
/// follows.
const ADDITIONS: &[(&str, &str)] = &[
    ("CREATE TRIGGER t AFTER UPDATE ON stock.level FOR EACH ROW EXECUTE FUNCTION note()", SEEN),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON stock.level FOR EACH STATEMENT EXECUTE FUNCTION note()",
        SEEN,
    ),
    ("CREATE TRIGGER t BEFORE INSERT ON stock.ledger FOR EACH ROW EXECUTE FUNCTION note()", SEEN),
    (
        "CREATE TRIGGER t AFTER INSERT ON stock.ledger FOR EACH STATEMENT EXECUTE FUNCTION note()",
        SEEN,
    ),
    (
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON stock.hold FOR EACH ROW EXECUTE FUNCTION \
         note()",
        SEEN,
    ),
    ("CREATE RULE r AS ON INSERT TO stock.hold DO ALSO INSERT INTO noted VALUES (1)", SEEN),
    (
        "ALTER TABLE stock.ledger ADD COLUMN more text DEFAULT 'there'",
        "SELECT more = 'there' FROM stock.ledger WHERE key = 'k'",
    ),
    (
        "ALTER TABLE stock.hold ADD COLUMN twice bigint GENERATED ALWAYS AS (2 * quantity) STORED",
        "SELECT twice = 2 FROM stock.hold",
    ),
    ("CREATE INDEX more ON stock.level (updated_at)", "SELECT true"),
    ("CREATE INDEX more ON stock.ledger (recorded_at) WHERE sku IS NOT NULL", "SELECT true"),
    ("CREATE INDEX more ON stock.hold USING brin (expires_at)", "SELECT true"),
    ("CREATE INDEX more ON stock.level USING brin (updated_at)", "SELECT true"),
    (
        "ALTER TABLE stock.hold ALTER buyer SET DEFAULT 'somebody'",
        "SELECT buyer IS NULL FROM stock.hold",
    ),
    (
        "ALTER TABLE stock.level DROP CONSTRAINT level_pkey, ADD CONSTRAINT level_pkey PRIMARY KEY \
         (location, sku)",
        "SELECT true",
    ),
];
/// What PostgreSQL 18 lets a DBA add besides.
const ADDITIONS_OF_18: &[(&str, &str)] = &[
    (
        "ALTER TABLE stock.level ADD COLUMN twice bigint GENERATED ALWAYS AS (2 * on_hand)",
        "SELECT twice = 20 FROM stock.level",
    ),
    (
        "ALTER TABLE stock.ledger ADD COLUMN twice bigint GENERATED ALWAYS AS (2 * quantity)",
        "SELECT twice = 2 FROM stock.ledger WHERE key = 'k'",
    ),
    (
        "ALTER TABLE stock.hold ADD COLUMN twice bigint GENERATED ALWAYS AS (2 * quantity)",
        "SELECT twice = 2 FROM stock.hold",
    ),
    ("ALTER TABLE stock.hold ADD CHECK (quantity > 5) NOT ENFORCED", "SELECT true"),
];
const SEEN: &str = "SELECT count(*) > 0 FROM noted";
/// What triggers and rules are to leave behind.
const NOTING: &str = "CREATE TABLE noted (n integer);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
        'BEGIN INSERT INTO noted VALUES (1); RETURN coalesce(NEW, OLD); END'";

#[test]
fn what_a_dba_adds_takes_part() {
    for (addition, took_part) in ADDITIONS {
        let (database, mut client) = reserved_beside(addition);
        assert_eq!(value(&mut client, took_part), "t", "{addition}");
        let by_index = "SET enable_seqscan = off; SET enable_indexscan = off;
                        SELECT (SELECT count(*) FROM stock.hold WHERE expires_at > now())
                            + (SELECT count(*) FROM stock.level
                            WHERE updated_at > now() - interval '1 hour')";
        assert_eq!(value(&mut client, by_index), "2", "{addition}");
        finish(database);
    }
}

#[test]
fn what_only_postgresql_18_lets_a_dba_add_takes_part() {
    for (addition, took_part) in ADDITIONS_OF_18 {
        let (database, mut client) = reserved_beside(addition);
        assert_eq!(value(&mut client, took_part), "t", "{addition}");
        assert_eq!(outcome(&mut client, "try_confirm_stock('k')"), "confirmed", "{addition}");
        finish(database);
    }
}

#[test]
fn amcheck_finds_the_indexes_sound_whatever_a_dba_adds() {
    for (addition, _) in ADDITIONS {
        let (database, mut client) = reserved_beside(addition);
        client.batch_execute("CREATE EXTENSION amcheck").unwrap();
        let sound = "SELECT count(bt_index_check(indexrelid, true)) FROM pg_index JOIN pg_class i
                     ON i.oid = indexrelid
                      WHERE indrelid IN ('stock.level'::regclass, 'stock.ledger'::regclass,
                      'stock.hold'::regclass)
                        AND relam = 403";
        value(&mut client, sound);
        finish(database);
    }
}

/// A reservation, beside what a DBA added.
fn reserved_beside(addition: &str) -> (Database<'static>, Client) {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    for statement in [NOTING, addition] {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    (database, client)
}

/// How many statements on the tables this session has planned.
pub const PLANNED: &str =
    "SELECT count(*) FROM pg_backend_memory_contexts WHERE ident ~ 'stock[.](level|hold|ledger)'";

#[test]
fn what_has_few_lines_needs_no_statement() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 100);
    stocked(&mut client, "b", "m", 100);
    client
        .batch_execute("SELECT stock.reserve_stock('overdue', 'b', 'm', 1, '1 microsecond')")
        .unwrap();
    let lines =
        r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
    let calls = [
        "reserve_stock('k', 'a', 'm', 1)",
        "confirm_stock('k')",
        "confirm_stock('k')",
        "return_stock('k')",
        "reserve_stock('l', 'a', 'm', 2)",
        "release_stock('l')",
        "receive_stock('more', 'a', 'm', 10)",
        "adjust_stock('less', 'a', 'm', -1, 'lost')",
        "freeze_level('f', 'a', 'm', 'counting')",
        "unfreeze_level('u', 'a', 'm', 'counted')",
    ];
    let mut fresh = database.connect();
    for call in calls {
        fresh.simple_query(&format!("SELECT * FROM stock.{call}")).unwrap();
    }
    assert_eq!(value(&mut fresh, PLANNED), "0");
    // Overdue holds are counted by a statement.
    fresh.simple_query(&format!("SELECT * FROM stock.reserve_stock('m', '{lines}')")).unwrap();
    assert_ne!(value(&mut fresh, PLANNED), "0");
    direct(&mut client, false);
    client.simple_query("SELECT * FROM stock.reserve_stock('n', 'a', 'm', 1)").unwrap();
    client.simple_query("SELECT * FROM stock.confirm_stock('n')").unwrap();
    assert_ne!(value(&mut client, PLANNED), "0");
    finish(database);
}

/// What a DBA may add, and a query that gives "t" if it took part in the confirm that follows.
const CLOSING_ADDITIONS: &[(&str, &str)] = &[
    ("CREATE TRIGGER t BEFORE DELETE ON stock.hold FOR EACH ROW EXECUTE FUNCTION note()", SEEN),
    (
        "CREATE TRIGGER t AFTER DELETE ON stock.hold FOR EACH STATEMENT EXECUTE FUNCTION note()",
        SEEN,
    ),
    ("CREATE RULE r AS ON DELETE TO stock.hold DO ALSO INSERT INTO noted VALUES (1)", SEEN),
    (
        "CREATE TRIGGER t AFTER UPDATE OF version ON stock.level FOR EACH ROW EXECUTE FUNCTION \
         note()",
        SEEN,
    ),
    ("DROP INDEX stock.hold_due", "SELECT true"),
    (
        "DROP INDEX stock.hold_due; CREATE INDEX hold_due ON stock.hold (sku, location, expires_at \
         DESC)",
        "SELECT true",
    ),
    (
        "DROP INDEX stock.hold_due; CREATE INDEX hold_due ON stock.hold (sku, location) INCLUDE \
         (expires_at)",
        "SELECT true",
    ),
    (
        "DROP INDEX stock.hold_due;
         CREATE INDEX hold_due ON stock.hold (sku COLLATE \"POSIX\", location, expires_at)",
        "SELECT true",
    ),
    ("ALTER TABLE stock.hold DROP CONSTRAINT hold_pkey", "SELECT true"),
    ("ALTER TABLE stock.level DROP CONSTRAINT level_pkey", "SELECT true"),
    ("ALTER TABLE stock.hold ENABLE ROW LEVEL SECURITY", "SELECT true"),
    ("CREATE TABLE more () INHERITS (stock.hold)", "SELECT true"),
];

#[test]
fn what_a_dba_adds_takes_part_in_what_closes_holds() {
    for (addition, took_part) in CLOSING_ADDITIONS {
        let database = database();
        let mut client = database.connect();
        stocked(&mut client, "a", "m", 10);
        for (key, ttl) in [("k", "10 min"), ("l", "20 min"), ("m", "30 min")] {
            let call = format!("try_reserve_stock('{key}', 'a', 'm', 1, '{ttl}')");
            assert_eq!(outcome(&mut client, &call), "reserved");
        }
        client.batch_execute(NOTING).unwrap();
        client.batch_execute(addition).unwrap();
        assert_eq!(outcome(&mut client, "try_confirm_stock('k')"), "confirmed", "{addition}");
        assert_eq!(value(&mut client, took_part), "t", "{addition}");
        assert_eq!(outcome(&mut client, "try_release_stock('l')"), "released", "{addition}");
        let left = "SELECT on_hand || ' ' || reserved || ' ' || (next_due = (SELECT min(expires_at)
                    FROM stock.hold))
                      FROM stock.level";
        assert_eq!(value(&mut client, left), "9 1 true", "{addition}");
        assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0", "{addition}");
        finish(database);
    }
}

#[test]
fn a_check_that_is_added_is_checked() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 10);
    client
        .batch_execute("ALTER TABLE stock.level ADD CONSTRAINT few CHECK (reserved < 3)")
        .unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 2)"), "reserved");
    let refused =
        client.query("SELECT * FROM stock.try_reserve_stock('l', 'a', 'm', 1)", &[]).unwrap_err();
    assert_eq!(super::support::sqlstate(&refused), "23514");
    assert_eq!(outcome(&mut client, "try_release_stock('k')"), "released");
    client.batch_execute("ALTER TABLE stock.hold ALTER buyer SET NOT NULL").unwrap();
    let refused =
        client.query("SELECT * FROM stock.try_reserve_stock('m', 'a', 'm', 1)", &[]).unwrap_err();
    assert_eq!(super::support::sqlstate(&refused), "23502");
    assert_eq!(
        outcome(&mut client, "try_reserve_stock('m', 'a', 'm', 1, buyer => 'anna')"),
        "reserved"
    );
    finish(database);
}

#[test]
fn a_repeat_is_known_also_where_the_index_of_the_claims_was_made_anew() {
    let database = database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1);
    let again = "DROP INDEX stock.ledger_claim;
        CREATE UNIQUE INDEX ledger_claim ON stock.ledger (key, operation, operation_key, line)
        WHERE key <> 'k'";
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    client.batch_execute(again).unwrap();
    assert_eq!(outcome(&mut client, "try_reserve_stock('k', 'a', 'm', 1)"), "reserved");
    finish(database);
}

/// How often this session has looked a level up by its key since it last reported what it did.
const LOOKED_UP: &str = "SELECT pg_stat_get_xact_numscans('stock.level_pkey'::regclass)";

#[test]
fn beside_an_old_snapshot_a_hot_level_is_found_where_it_lay_last() {
    let database = database();
    let (mut client, mut reader) = (database.connect(), database.connect());
    stocked(&mut client, "hot", "m", 1_000_000);
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM stock.level")
        .unwrap();
    let sell = |client: &mut Client, name: &str, times: i32| {
        for number in 0..times {
            let call = format!("try_reserve_stock('{name} {number}', 'hot', 'm', 1)");
            assert_eq!(outcome(client, &call), "reserved");
        }
    };
    sell(&mut client, "first", 2_000);
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    client.batch_execute("BEGIN").unwrap();
    sell(&mut client, "then", 100);
    assert_eq!(value(&mut client, LOOKED_UP), "0", "the level is found without its index");
    client.batch_execute("COMMIT").unwrap();

    // Another session sells meanwhile, and the row moves away in each way it can.
    let mut other = database.connect();
    sell(&mut other, "other", 500);
    sell(&mut client, "after the other", 10);
    reader.batch_execute("COMMIT").unwrap();
    for (number, moved) in
        ["VACUUM stock.level", "VACUUM FULL stock.level", "VACUUM (FREEZE, TRUNCATE) stock.level"]
            .iter()
            .enumerate()
    {
        client.batch_execute(moved).unwrap();
        sell(&mut client, &format!("moved {number}"), 3);
        sell(&mut other, &format!("moved other {number}"), 3);
    }
    // Where the row lay there are others by now.
    let others = "INSERT INTO stock.level (on_hand, reserved, version, updated_at, sku, location)
                  SELECT 9, 0, 1, now(), 'other ' || i, 'm' FROM generate_series(1, 500) i";
    for statement in ["DELETE FROM stock.level", "VACUUM stock.level", others] {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(outcome(&mut client, "try_reserve_stock('gone', 'hot', 'm', 1)"), "unknown_level");
}

#[test]
fn buyers_of_one_level_wait_in_line_and_hold_nothing_meanwhile() {
    let database = database();
    let (mut first, mut second, mut third, mut admin) =
        (database.connect(), database.connect(), database.connect(), database.connect());
    stocked(&mut admin, "a", "m", 100);
    stocked(&mut admin, "b", "m", 100);
    assert_eq!(outcome(&mut admin, "try_reserve_stock('paid', 'a', 'm', 1)"), "reserved");
    // The first holds the row by an order of two lines, and comes back for one of them while two
    // others wait.
    first.batch_execute("BEGIN").unwrap();
    let lines =
        r#"[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]"#;
    assert_eq!(
        value(&mut first, &format!("SELECT count(*) FROM stock.reserve_stock('both', '{lines}')")),
        "2"
    );
    let waiting = [backend(&mut second), backend(&mut third)];
    std::thread::scope(|scope| {
        let others = [
            (&mut second, "try_reserve_stock('two', 'a', 'm', 1)"),
            (&mut third, "try_confirm_stock('paid')"),
        ]
        .map(|(client, call)| scope.spawn(move || outcome(client, call)));
        waiting.iter().for_each(|pid| wait_for_lock(&mut admin, *pid));
        let in_line = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = \
                       21332 AND granted";
        assert_eq!(value(&mut admin, in_line), "1", "one is at the row, the other in line");
        assert_eq!(outcome(&mut first, "try_reserve_stock('one more', 'a', 'm', 1)"), "reserved");
        first.batch_execute("COMMIT").unwrap();
        assert_eq!(others.map(|other| other.join().unwrap()), ["reserved", "confirmed"]);
        assert_eq!(
            value(&mut admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            "0"
        );
    });
    finish(database);
}

#[test]
fn one_key_from_many_connections_is_claimed_once_by_either_way() {
    let database = database();
    stocked(&mut database.connect(), "a", "m", 1_000);
    for round in 0..20 {
        let answers = at_once(database, 8, |number, client| {
            direct(client, number % 2 == 0);
            outcome(client, &format!("try_reserve_stock('key {round}', 'a', 'm', 1)"))
        });
        assert!(answers.iter().all(|answer| answer == "reserved"), "{answers:?}");
    }
    assert_eq!(value(&mut database.connect(), "SELECT reserved FROM stock.level"), "20");
    finish(database);
}

/// Who waits in line can be told to wait no longer, and is seen.
#[test]
fn who_waits_in_line_is_seen_and_gives_up_as_for_every_lock() {
    let database = database();
    let [mut first, mut second, mut third, mut admin] = std::array::from_fn(|_| database.connect());
    stocked(&mut admin, "a", "m", 100);
    first.batch_execute("BEGIN; SELECT stock.reserve_stock('one', 'a', 'm', 1)").unwrap();
    let waiting = [backend(&mut second), backend(&mut third)];
    std::thread::scope(|scope| {
        let at_the_row = scope.spawn(|| outcome(&mut second, "reserve_stock('two', 'a', 'm', 1)"));
        wait_for_lock(&mut admin, waiting[0]);
        let in_line = scope.spawn(|| {
            third.batch_execute("SET lock_timeout = '1s'").unwrap();
            call(&mut third, "try_reserve_stock('three', 'a', 'm', 1)")
                .map_err(|error| sqlstate(&error))
        });
        wait_for_lock(&mut admin, waiting[1]);
        let event = format!(
            "SELECT wait_event_type || '/' || wait_event FROM pg_stat_activity WHERE pid = {}",
            waiting[1]
        );
        assert_eq!(value(&mut admin, &event), "Lock/advisory");
        assert_eq!(in_line.join().unwrap(), Err("55P03".to_owned()));
        first.batch_execute("COMMIT").unwrap();
        assert_eq!(at_the_row.join().unwrap(), "reserved");
    });
    assert_eq!(
        outcome(&mut third, "reserve_stock('three', 'a', 'm', 1)"),
        "reserved",
        "it may try again"
    );
    finish(database);
}

/// A change of a level stays on its page and touches no index.
#[test]
fn a_level_is_updated_without_its_index() {
    // A server of its own: a transaction elsewhere, in any database, keeps old versions alive.
    let cluster = Cluster::start(&["fsync=off", "autovacuum=off"]);
    let database = cluster.database();
    let mut client = database.connect();
    for sku in 0..20 {
        stocked(&mut client, &format!("s{sku}"), "m", 1_000);
    }
    for way in ["on", "off"] {
        client.batch_execute(&format!("SET pg_stock.direct_access = {way}")).unwrap();
        let calls = format!(
            "DO $$BEGIN FOR i IN 1..500 LOOP
                PERFORM stock.reserve_stock('{way} ' || i, 's' || i % 20, 'm', 1);
                PERFORM stock.confirm_stock('{way} ' || i);
                COMMIT;
             END LOOP; END$$"
        );
        client.batch_execute(&calls).unwrap();
    }
    let updates = "SELECT n_tup_upd || ' ' || n_tup_hot_upd FROM pg_stat_user_tables
                    WHERE relid = 'stock.level'::regclass";
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    eventually("all updates are heap-only ones", || value(&mut client, updates) == "2000 2000");
    finish(database);
}
