//! Beside Citus: what concerns its tables and its transactions is left alone, everything else is as
//! without it; and where it has one of our tables, nothing is changed.
//!
//! A library of the test's own stands in for it. The last test is beside the real one, where that
//! is installed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pg_stock_tests::{Cluster, Database, pg_config};
use postgres::Client;

use super::early::{committed, held_at_a_wanted_level, is_unlocked, waiting};
use super::support::{TABLES, backend, finish, outcome, sqlstate, stocked, value, wait_for_lock};

/// A server with a library called citus, whose sessions wait for a standby that never comes, if
/// they ask for it.
fn beside_stand_in(defines: &[&str]) -> (tempfile::TempDir, Cluster) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
        .expect("its permissions");
    compile(folder.path(), defines);
    let path = format!("dynamic_library_path='{}:$libdir'", folder.path().display());
    let cluster = beside(&[&path]);
    (folder, cluster)
}

fn beside(settings: &[&str]) -> Cluster {
    let common = [
        "fsync=off",
        "synchronous_commit=local",
        "synchronous_standby_names=nobody",
        "statement_timeout=120s",
        "shared_preload_libraries=citus",
    ];
    Cluster::start(&[&common, settings].concat())
}

fn compile(folder: &Path, defines: &[&str]) {
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.join("citus.so"))
        .args(["-I", &pg_config("--includedir-server")])
        .args(defines)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/citus/stand_in.c"))
        .output()
        .expect("cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn shop(cluster: &Cluster) -> (Database<'_>, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    (database, client)
}

/// Whether a buyer reaches the tables directly: then he stands in line where somebody is at
/// the level.
fn reaches_directly(database: Database<'_>, settings: &str) -> bool {
    let (mut buyer, mut rival, mut watcher) =
        (waiting(database, settings), database.connect(), database.connect());
    buyer.batch_execute("SET synchronous_commit = local").unwrap();
    rival.batch_execute("BEGIN; SELECT FROM stock.level FOR NO KEY UPDATE").unwrap();
    let pid = backend(&mut buyer);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            outcome(&mut buyer, &format!("reserve_stock('short {pid}', 'a', 'm', 1)"))
        });
        wait_for_lock(&mut watcher, pid);
        let stands =
            format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND objsubid = 21332");
        let stands = value(&mut watcher, &stands);
        rival.batch_execute("ROLLBACK").unwrap();
        stands == "1"
    })
}

/// Whether a buyer lets go of a level early that others want.
fn lets_go_early(database: Database<'_>, settings: &str) -> bool {
    let session =
        waiting(database, &format!("{settings} -c pg_stock.early_lock_release=transaction"));
    let sql = format!("SELECT stock.reserve_stock('early ({settings})', 'a', 'm', 1)");
    committed(held_at_a_wanted_level(database, session, &sql, is_unlocked))
}

#[test]
fn beside_citus_all_is_as_without_but_for_transactions_that_it_coordinates() {
    let (_folder, cluster) = beside_stand_in(&[]);
    let (database, _) = shop(&cluster);
    for settings in ["", "-c stand_in.distributed=orders"] {
        assert!(reaches_directly(database, settings), "{settings}");
        assert!(lets_go_early(database, settings), "{settings}");
    }
    let coordinated = "-c stand_in.coordinated=on";
    assert!(reaches_directly(database, coordinated));
    assert!(!lets_go_early(database, coordinated), "it commits elsewhere before our flush");
    finish(database);
}

#[test]
fn where_citus_cannot_be_asked_nothing_is_taken_for_safe() {
    let (_folder, cluster) = beside_stand_in(&["-DSILENT"]);
    let (database, _) = shop(&cluster);
    assert!(!reaches_directly(database, ""));
    assert!(!lets_go_early(database, ""));
    finish(database);
}

#[test]
fn nothing_is_changed_where_citus_has_one_of_our_tables() {
    let (_folder, cluster) = beside_stand_in(&[]);
    let (database, mut client) = shop(&cluster);
    let line = r#"[{"sku":"a","location":"m","quantity":1}]"#;
    assert_eq!(outcome(&mut client, "reserve_stock('held', 'a', 'm', 1)"), "reserved");
    let both = [
        "reserve_stock('k', 'a', 'm', 1)".to_owned(),
        "reserve_stock('held', 'a', 'm', 1)".into(),
        "reserve_stock('k', 'no such', 'm', 1)".into(),
        format!("reserve_stock('k', '{line}')"),
        "sell_stock('k', 'a', 'm', 1)".into(),
        "confirm_stock('held')".into(),
        "release_stock('held')".into(),
        "return_stock('held')".into(),
        "extend_reservation('held', '1 hour')".into(),
        "receive_stock('k', 'a', 'm', 1)".into(),
        "adjust_stock('k', 'a', 'm', -1, 'lost')".into(),
        "set_stock('k', 'a', 'm', 1, NULL)".into(),
        "transfer_stock('k', 'a', 'm', 'n', 1)".into(),
        "set_limits('k', 'a', 'm', 1)".into(),
        "freeze_level('k', 'a', 'm', 'counting')".into(),
        "unfreeze_level('k', 'a', 'm', 'counted')".into(),
    ];
    let one = [
        format!(r#"SELECT stock.reserve_many('[{{"key": "k", "lines": {line}}}]')"#),
        r#"SELECT stock.settle('[{"key": "held", "status": "paid"}]')"#.into(),
        "SELECT stock.expire_reservations()".into(),
        "CALL stock.expire_all()".into(),
    ];
    let calls = both
        .iter()
        .flat_map(|call| [format!("SELECT stock.{call}"), format!("SELECT stock.try_{call}")]);
    for call in calls.chain(one) {
        for table in TABLES {
            client.batch_execute(&format!("SET stand_in.distributed = '{table}'")).unwrap();
            let error = client.simple_query(&call).expect_err(&call);
            assert_eq!(sqlstate(&error), "0A000", "{table}: {call}");
            let report = error.as_db_error().expect("of the server");
            assert!(report.message().contains(&format!("stock.{table}")), "{report:?}");
            assert!(report.detail().is_some() && report.hint().is_some(), "{report:?}");
        }
    }
    client.batch_execute("RESET stand_in.distributed").unwrap();
    assert_eq!(outcome(&mut client, "confirm_stock('held')"), "confirmed");
    finish(database);
}

/// As above, beside the real one. Where there is none, the summary counts this test as ignored.
#[test]
#[ignore = "Citus's library must be in pkglibdir: `make test-outside` runs this where it is"]
fn beside_the_real_citus() {
    let cluster = beside(&["wal_level=logical"]);
    let (database, mut client) = shop(&cluster);
    client.batch_execute("CREATE EXTENSION citus; CREATE TABLE orders (id bigint)").unwrap();
    assert!(reaches_directly(database, ""));
    assert!(lets_go_early(database, ""));
    client.batch_execute("SELECT create_distributed_table('orders', 'id')").unwrap();
    assert!(reaches_directly(database, ""));
    let session = waiting(database, "-c pg_stock.early_lock_release=transaction");
    let sql = "BEGIN; INSERT INTO orders VALUES (1); INSERT INTO orders VALUES (2);
               SELECT stock.reserve_stock('coordinated', 'a', 'm', 1); COMMIT";
    assert!(!committed(held_at_a_wanted_level(database, session, sql, is_unlocked)));
    finish(database);
    client.batch_execute("SELECT create_distributed_table('stock.buyer_quantity', 'sku')").unwrap();
    let error = client.simple_query("SELECT stock.reserve_stock('k', 'a', 'm', 1)").unwrap_err();
    assert_eq!(sqlstate(&error), "0A000");
}
