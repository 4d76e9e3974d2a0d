//! From one release to the next: the library is replaced first, and ALTER EXTENSION UPDATE comes
//! when the DBA has time for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pg_stock_tests::{Cluster, Database, invariants};
use postgres::Client;

use super::dump;
use super::support::feed::{Follower, answer};
use super::support::{TABLES, at_once, cluster, eventually, outcome, sqlstate, stocked, value};
use super::verify;

/// What is released as version 1.2.3 is kept in sql/released/pg_stock--1.2.3.sql, for ever.
fn released() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/released");
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let mut versions: Vec<String> = names
        .filter_map(|name| {
            Some(name.to_str()?.strip_prefix("pg_stock--")?.strip_suffix(".sql")?.to_owned())
        })
        .collect();
    versions.sort();
    assert!(!versions.is_empty());
    versions
}

/// Those before this one.
fn older() -> Vec<String> {
    let mut versions = released();
    versions.retain(|version| version != env!("CARGO_PKG_VERSION"));
    versions
}

/// A database without the extension.
fn bare(cluster: &Cluster, name: &'static str) -> Client {
    cluster.connect("postgres").batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    cluster.connect(name)
}

/// A database with the extension of an earlier release.
fn of_version(version: &str) -> (Database<'static>, Client) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name: &'static str = format!("older_{number}").leak();
    let mut client = bare(cluster(), name);
    client.batch_execute(&format!("CREATE EXTENSION pg_stock VERSION '{version}'")).unwrap();
    (cluster().existing(name), client)
}

/// Everything that the extension has, one line for each thing: whatever a DBA or a program can see
/// of it.
const CATALOG: &str = "
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend d
      JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
     WHERE d.deptype = 'e' AND e.extname = 'pg_stock'
), relation AS (
    SELECT c.* FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
), line (line) AS (
    SELECT concat_ws(' | ', pg_describe_object(m.classid, m.objid, 0),
                     obj_description(m.objid, m.classid::regclass::name))
      FROM member m
     UNION ALL
    SELECT concat_ws(' | ', 'function', p.oid::regprocedure, pg_get_functiondef(p.oid), p.proacl,
                     p.proowner::regrole)
      FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
     UNION ALL
    SELECT concat_ws(' | ', 'type', t.oid::regtype, t.typtype, t.typacl, t.typnotnull,
                     format_type(t.typbasetype, t.typtypmod), t.typdefault)
      FROM member m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
     UNION ALL
    SELECT concat_ws(' | ', 'relation', r.oid::regclass, r.relkind, r.relacl, r.reloptions,
                     r.relpersistence, r.relreplident, r.relrowsecurity, r.relowner::regrole,
                     CASE r.relkind WHEN 'v' THEN pg_get_viewdef(r.oid) END,
                     (SELECT q::text FROM (SELECT s.seqtypid::regtype, s.seqstart, s.seqincrement,
                             s.seqmax, s.seqmin, s.seqcache, s.seqcycle FROM pg_sequence s
                              WHERE s.seqrelid = r.oid) q))
      FROM relation r
     UNION ALL
    SELECT concat_ws(' | ', 'column', a.attrelid::regclass,
                     row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
                     format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                     a.attgenerated, a.attstorage, a.attstattarget, a.attacl,
                     (SELECT array_agg(o.o) FROM unnest(a.attoptions) AS o (o)
                       WHERE o.o NOT LIKE 'pg_attver=%'),
                     a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid),
                     col_description(a.attrelid, a.attnum))
      FROM relation r
      JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     UNION ALL
    SELECT concat_ws(' | ', 'constraint', c.conrelid::regclass, c.conname,
                     pg_get_constraintdef(c.oid), c.convalidated,
                     obj_description(c.oid, 'pg_constraint'))
      FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
     UNION ALL
    SELECT concat_ws(' | ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid,
                     obj_description(i.indexrelid, 'pg_class'))
      FROM relation r JOIN pg_index i ON i.indrelid = r.oid
     UNION ALL
    SELECT concat_ws(' | ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled,
                     obj_description(t.oid, 'pg_trigger'))
      FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
     UNION ALL
    SELECT concat_ws(' | ', 'schema', n.nspname, n.nspacl, n.nspowner::regrole)
      FROM member m JOIN pg_namespace n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass
     UNION ALL
    SELECT concat_ws(' | ', 'extension', e.extversion, e.extrelocatable,
                     e.extnamespace::regnamespace)
      FROM pg_extension e WHERE e.extname = 'pg_stock'
     UNION ALL
    SELECT concat_ws(' | ', 'dumped', t.relation::regclass, t.condition)
      FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS t (relation, condition)
     WHERE e.extname = 'pg_stock'
)
SELECT line FROM line ORDER BY line COLLATE \"C\"";

fn catalog(client: &mut Client) -> Vec<String> {
    client.query(CATALOG, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// What the tables of stock hold.
fn content(client: &mut Client) -> Vec<String> {
    let text =
        |table| format!("SELECT string_agg(t::text, '|' ORDER BY t::text) FROM stock.{table} t");
    TABLES.iter().map(|table| value(client, &text(table))).collect()
}

fn health(client: &mut Client, of: &str) -> String {
    let row = "concat_ws(' ', ok, value, \"limit\", hint)";
    value(client, &format!("SELECT {row} FROM stock.health() WHERE name = '{of}'"))
}

#[test]
fn an_updated_catalog_is_a_fresh_one() {
    let mut fresh = cluster().database().connect();
    let expected = catalog(&mut fresh);
    assert!(expected.len() > 500, "{}", expected.len());
    for version in older() {
        let (_, mut client) = of_version(&version);
        assert_ne!(catalog(&mut client), expected, "{version}");
        client.batch_execute("ALTER EXTENSION pg_stock UPDATE").unwrap();
        let updated = catalog(&mut client);
        let missing: Vec<_> = expected.iter().filter(|line| !updated.contains(line)).collect();
        let left: Vec<_> = updated.iter().filter(|line| !expected.contains(line)).collect();
        assert!(missing.is_empty() && left.is_empty(), "{version}: {missing:#?} {left:#?}");
    }
}

#[test]
fn the_library_works_with_each_older_sql_and_says_what_is_behind() {
    for version in older() {
        let (_, mut client) = of_version(&version);
        verify::trade(&mut client);
        let told = health(&mut client, "version");
        let ours = env!("CARGO_PKG_VERSION");
        assert!(
            told.starts_with(&format!("f {ours} {version} ")) && told.contains("UPDATE"),
            "{told}"
        );
        assert_eq!(outcome(&mut client, "confirm_stock('held')"), "confirmed");
        client.batch_execute("ALTER EXTENSION pg_stock UPDATE").unwrap();
        assert_eq!(health(&mut client, "version"), format!("t {ours} {ours}"));
    }
}

#[test]
fn what_was_there_before_is_there_after_and_goes_on() {
    for version in older() {
        let (database, mut client) = of_version(&version);
        let mut driver = database.connect();
        let reserve = "SELECT outcome FROM stock.try_reserve_stock($1, 'b', 'm', 1)";
        let prepared = driver.prepare(reserve).unwrap();
        client.batch_execute("CREATE ROLE shopkeeper LOGIN").unwrap();
        client.batch_execute("SELECT stock.grant_access('shopkeeper', 'operate')").unwrap();
        verify::trade(&mut client);
        let mut told =
            |key: &str| -> String { driver.query_one(&prepared, &[&key]).unwrap().get("outcome") };
        assert_eq!(told("prepared"), "reserved");
        let mut follower = Follower::begin(&mut client);
        let before = content(&mut client);
        client.batch_execute("ALTER EXTENSION pg_stock UPDATE").unwrap();
        assert_eq!(content(&mut client), before, "{version}");
        // What drivers and poolers have prepared goes on.
        assert_eq!(
            (told("prepared"), told("prepared since")),
            ("reserved".into(), "reserved".into())
        );
        assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
        follower.catch_up(&mut client);

        client.batch_execute("SET SESSION AUTHORIZATION shopkeeper").unwrap();
        assert_eq!(outcome(&mut client, "release_stock('held')"), "released");
        assert_eq!(outcome(&mut client, "confirm_stock('eater')"), "confirmed");
        assert_eq!(outcome(&mut client, "confirm_stock('patient')"), "confirmed");
        client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
        assert_eq!(outcome(&mut client, "arrive_stock('lorry')"), "arrived");
        follower.catch_up(&mut client);
        assert_eq!(follower.levels, super::support::feed::levels(&mut client));
        invariants::assert_hold(&mut client);
        client.batch_execute("DROP OWNED BY shopkeeper; DROP ROLE shopkeeper").unwrap();
    }
}

/// Buyers and the worker notice nothing of an update but that they may have to wait.
#[test]
fn an_update_under_load_disturbs_nobody() {
    for version in older() {
        let cluster =
            Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off", "port=5433"]);
        let mut client = bare(&cluster, "busy");
        client.batch_execute(&format!("CREATE EXTENSION pg_stock VERSION '{version}'")).unwrap();
        let database = cluster.existing("busy");
        stocked(&mut client, "a", "m", 1_000_000);
        let is_updated = AtomicBool::new(false);
        at_once(database, 5, |who, client| {
            if who == 0 {
                // In the middle of all the others.
                let busy = "SELECT count(*) > 200 FROM stock.ledger";
                eventually("others are at it", || value(client, busy) == "t");
                let updated = client.batch_execute("ALTER EXTENSION pg_stock UPDATE");
                is_updated.store(true, Ordering::Release);
                updated.unwrap();
                return;
            }
            let (mut i, mut after) = (0, 0);
            while after < 100 {
                let key = format!("{who} {i}");
                let ttl = if i % 3 == 0 { "1 ms" } else { "1 hour" };
                let reserve = format!("try_reserve_stock('{key}', 'a', 'm', 1, '{ttl}')");
                assert_eq!(outcome(client, &reserve), "reserved");
                let end = if i % 4 == 0 { "release" } else { "confirm" };
                outcome(client, &format!("try_{end}_stock('{key}')"));
                i += 1;
                after += i32::from(is_updated.load(Ordering::Acquire));
            }
        });
        let lapsed = "SELECT count(*) FROM stock.hold WHERE expires_at < now()";
        eventually("the worker goes on", || value(&mut client, lapsed) == "0");
        let status = "SELECT concat_ws(' ', state, error) FROM stock.worker";
        assert_eq!(value(&mut client, status), "working");
        let log = cluster.log();
        assert!(log.contains(&format!("is {version}")), "the log says what is behind: {log}");
        assert!(!log.contains("ERROR") && !log.contains("could not"), "{log}");
        invariants::assert_hold(&mut client);
        assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    }
}

/// There is no way back, and nothing is half done where there is no way at all.
#[test]
fn an_update_to_what_is_not_there_changes_nothing() {
    let mut client = cluster().database().connect();
    let before = catalog(&mut client);
    let error = client
        .batch_execute("ALTER EXTENSION pg_stock UPDATE TO '0.0.1'")
        .expect_err("there is no such release");
    assert_eq!(sqlstate(&error), "22023");
    assert_eq!(catalog(&mut client), before);
}

/// To another major of PostgreSQL, with all that is open.
#[test]
fn pg_upgrade_brings_everything_along() {
    let programs = std::env::var_os("PG_STOCK_NEWER_PROGRAMS").expect(
        "PG_STOCK_NEWER_PROGRAMS must name the folder of a newer PostgreSQL: use `make \
         test-upgrade`",
    );
    let ours = ["pg_stock.min_ttl=0", "pg_stock.min_archive_age=0"];
    let settings = [&["shared_preload_libraries=pg_stock", "fsync=off"][..], &ours].concat();
    let older = Cluster::start(&settings);
    let database = older.create("shop");
    let mut client = database.connect();
    client
        .batch_execute("CREATE ROLE shop LOGIN; SELECT stock.grant_access('shop', 'operate')")
        .unwrap();
    dump::archived(&mut client);
    dump::trade(&mut client);
    let follower = Follower::begin(&mut client);
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "caught_up");
    // Nothing is due any more that the worker would change meanwhile.
    let lapsed = "SELECT count(*) FROM stock.hold WHERE expires_at < now()";
    eventually("the worker gives back what has lapsed", || value(&mut client, lapsed) == "0");
    let before = content(&mut client);
    let number = value(&mut client, "SHOW server_version_num");
    drop(client);

    let newer = older.upgraded(Path::new(&programs), &settings);
    let mut client = newer.existing("shop").connect();
    assert!(value(&mut client, "SHOW server_version_num") > number);
    assert_eq!(content(&mut client), before);
    assert_eq!(answer(&mut client, "changes_since", &follower.cursor), "resynchronise");
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    dump::works(&mut client, "pg_upgrade");
    let mut follower = Follower::begin(&mut client);
    assert_eq!(
        outcome(&mut client, "reserve_stock('after', 'sku5', 'main', 1, '1 ms')"),
        "reserved"
    );
    eventually("the worker is there", || value(&mut client, lapsed) == "0");
    follower.catch_up(&mut client);
    assert_eq!(follower.levels, super::support::feed::levels(&mut client));
    assert_eq!(value(&mut client, "SELECT count(*) FROM stock.verify()"), "0");
    invariants::assert_hold(&mut client);
}
