//! Backup: what is dumped and restored into a new cluster is all there, and the next reservation
//! works.

use super::support::{TABLES, call, cluster, outcome, sqlstate, value};
use pg_stock_tests::{Cluster, invariants};
use postgres::Client;

/// Something of everything.
pub fn trade(client: &mut Client) {
    client
        .batch_execute(
            "SELECT stock.receive_stock('r' || i, 'sku' || i, 'main', 100)
             FROM generate_series(1, 20) i;
             SELECT stock.set_limits('limits', 'sku1', 'main', 5, 10);
             SELECT stock.freeze_level('recall', 'sku2', 'main', 'recall');
             SELECT stock.reserve_stock('open ' || i, 'sku' || i, 'main', 2, buyer => 'b')
             FROM generate_series(3, 9) i;
             SELECT stock.reserve_stock('lapsed', 'sku10', 'main', 2, '1 ms');
             SELECT stock.sell_stock('sold', 'sku11', 'main', 2);
             SELECT stock.confirm_stock('open 3'); SELECT stock.release_stock('open 4');
             SELECT stock.release_stock('early');
             SELECT stock.set_limits('pre-sale', 'sku12', 'main', backorder_limit => 50);
             SELECT stock.reserve_stock('patient', 'sku12', 'main', 104);
             SELECT stock.sell_stock('paid', 'sku12', 'main', 3);
             SELECT stock.receive_stock('d1', 'dated', 'main', 2, NULL, 'a', '2060-01-01');
             SELECT stock.receive_stock('d2', 'dated', 'main', 9, NULL, 'b', '2061-01-01');
             SELECT stock.set_limits('life', 'dated', 'main', min_life => '36 hours');
             SELECT stock.reserve_stock('dated', 'dated', 'main', 3);
             SELECT stock.freeze_lot('glass', 'dated', 'main', 'b', 'glass found');
             SELECT stock.dispatch_stock('lorry',
               '[{\"sku\":\"sku13\",\"from\":\"main\",\"to\":\"shop\",\"quantity\":40}]');",
        )
        .unwrap();
}

/// Tables of the archive.
const ARCHIVE: [&str; 4] =
    ["ledger_archive", "balance_forward", "balance_forward_lot", "balance_forward_buyer"];

/// What is past: two months of it.
pub fn archived(client: &mut Client) {
    client
        .batch_execute(
            "SELECT stock.receive_stock('long ago', 'sku3', 'main', 5);
             SELECT stock.receive_stock('d0', 'dated', 'main', 5, NULL, 'a', '2060-01-01');
             SELECT stock.sell_stock('old', 'dated', 'main', 5, buyer => 'b');
             SET session_replication_role = replica;
             UPDATE stock.ledger SET recorded_at = '2020-02-01' WHERE key = 'long ago';
             RESET session_replication_role",
        )
        .unwrap();
    client.batch_execute("CALL stock.archive('0')").unwrap();
}

#[test]
fn a_dump_restored_into_a_new_cluster_keeps_everything() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute("CREATE ROLE shop LOGIN; SELECT stock.grant_access('shop', 'operate')")
        .unwrap();
    archived(&mut client);
    trade(&mut client);
    let new = Cluster::start(&["fsync=off"]);
    let mut target = new.connect("postgres");
    target.batch_execute("CREATE ROLE shop LOGIN").unwrap();
    let folder = tempfile_for_all();
    for format in ["plain", "custom", "directory", "tar"] {
        let file = format!("{}/dump.{format}", folder.path().display());
        cluster().run("pg_dump", &["-F", format, "-f", &file, "-d", database.name()]);
        target.batch_execute(&format!("CREATE DATABASE restored_{format}")).unwrap();
        let into = format!("restored_{format}");
        match format {
            "plain" => {
                new.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &into, "-f", &file])
            }
            _ => new.run("pg_restore", &["--exit-on-error", "-d", &into, &file]),
        };
        let mut restored = new.connect(&into);
        for table in TABLES.iter().chain(&ARCHIVE) {
            let content = format!(
                "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM stock.{table} t"
            );
            assert_eq!(
                value(&mut restored, &content),
                value(&mut client, &content),
                "{table}, {format}"
            );
        }
        invariants::assert_hold(&mut restored);
        works(&mut restored, format);
        invariants::assert_hold(&mut restored);
    }
    client.batch_execute("DROP OWNED BY shop; DROP ROLE shop").unwrap();
}

/// What docs/operating.md says of dumps that lack something: a column more is no good, other
/// additions are not there.
#[test]
fn what_a_dump_does_not_take_along_is_seen_afterwards() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT stock.receive_stock('r', 'a', 'main', 9);
             CREATE INDEX ours ON stock.ledger (sku);
             CREATE FUNCTION ours() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER ours AFTER INSERT ON stock.hold FOR EACH ROW EXECUTE FUNCTION ours();
             ALTER TABLE stock.ledger ADD COLUMN tenant text DEFAULT 'a'",
        )
        .unwrap();
    assert_eq!(outcome(&mut client, "reserve_stock('o', 'a', 'main', 1)"), "reserved");
    let folder = tempfile_for_all();
    let file = format!("{}/dump", folder.path().display());
    let new = Cluster::start(&["fsync=off"]);
    let mut target = new.connect("postgres");
    target.batch_execute("CREATE DATABASE whole").unwrap();
    cluster().run("pg_dump", &["-Fc", "-f", &file, "-d", database.name()]);
    // The dump has the ledger's rows with the new column, which the restored table has not: said,
    // and the rest restored.
    let error =
        new.try_run("pg_restore", &["-d", "whole", &file]).expect_err("a column that is not there");
    assert!(error.contains("tenant"), "{error}");
    let mut restored = new.connect("whole");
    assert_eq!(value(&mut restored, "SELECT count(*) FROM stock.level"), "1", "{error}");
    let named = "SELECT count(*) FROM stock.verify() WHERE problem LIKE 'the ledger is empty%'";
    assert_eq!(value(&mut restored, named), "1");
    let ours = "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'ours')
                       + (SELECT count(*) FROM pg_trigger WHERE tgname = 'ours')";
    assert_eq!(value(&mut restored, ours), "0");
}

/// The stock is in no dump of some schemas alone.
#[test]
fn a_dump_of_schemas_has_no_stock() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT stock.receive_stock('r', 'a', 'main', 9); CREATE TABLE public.orders (id text)",
        )
        .unwrap();
    for schema in ["stock", "public"] {
        let dump = cluster().run("pg_dump", &["-n", schema, "-d", database.name()]);
        assert!(!dump.contains("level"), "{dump}");
    }
}

/// The next calls work, as the role that had the right before, and an earlier key is still known.
pub fn works(client: &mut postgres::Client, format: &str) {
    client.batch_execute("SET SESSION AUTHORIZATION shop").unwrap();
    let rows = call(client, "reserve_stock('open 5', 'sku5', 'main', 2, buyer => 'b')").unwrap();
    assert!(rows[0].replayed && rows[0].state == "held", "{format}: {rows:?}");
    assert_eq!(outcome(client, "reserve_stock('next', 'sku5', 'main', 2)"), "reserved", "{format}");
    assert_eq!(outcome(client, "confirm_stock('open 6')"), "confirmed", "{format}");
    assert_eq!(
        outcome(client, "try_reserve_stock('early', 'sku5', 'main', 2)"),
        "already_released",
        "{format}"
    );
    let past = "SELECT string_agg(concat_ws(' ', sku, state, quantity), ', ') FROM
                  stock.reservation('old')";
    assert_eq!(value(client, past), "dated confirmed 5", "{format}");
    // Whoever comes now stands behind those who waited before.
    assert_eq!(outcome(client, "sell_stock('late', 'sku12', 'main', 1)"), "sold", "{format}");
    let refused = call(client, "receive_stock('x', 'sku5', 'main', 1)").unwrap_err();
    assert_eq!(sqlstate(&refused), "42501", "{format}: the role may not administer");
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    assert_eq!(outcome(client, "receive_stock('more', 'sku12', 'main', 7)"), "received");
    let paid = "SELECT string_agg(concat_ws(' ', key, quantity), ', ' ORDER BY version)
                  FROM stock.supplied";
    assert_eq!(value(client, paid), "patient 4, paid 3", "{format}");
    // The archive goes on where it was: in the same months.
    client.batch_execute("CALL stock.archive('0')").unwrap();
    let months = "SELECT count(*) FROM pg_inherits
                   WHERE inhparent = 'stock.ledger_archive'::regclass";
    assert_eq!(value(client, months), "2", "{format}");
    assert_eq!(outcome(client, "arrive_stock('lorry')"), "arrived", "{format}");
}

/// A folder that the server's programs may write into, whoever they run as.
fn tempfile_for_all() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}
