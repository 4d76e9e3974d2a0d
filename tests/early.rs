//! Early lock release: a level that others want is free while the commit of its last change is
//! still on its way to disk, and nobody is told of that change before it has arrived.
//!
//! A standby that does not exist holds commits exactly there: after they are visible, before they
//! are acknowledged.

use std::sync::OnceLock;

use pg_stock_tests::{Cluster, Database};
use postgres::{Client, Error, NoTls};

use super::support::{
    backend, eventually, finish, outcome, sqlstate, stocked, value, wait_for_lock,
};

/// A server whose sessions wait for a standby that never comes, if they ask for it.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start(&[
            "fsync=off",
            "synchronous_commit=local",
            "synchronous_standby_names=nobody",
            "statement_timeout=120s",
        ])
    })
}

fn shop() -> (Database<'static>, Client) {
    let database = cluster().database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    stocked(&mut client, "b", "m", 1_000);
    outcome(&mut client, "reserve_stock('earlier', 'a', 'm', 1)");
    outcome(&mut client, "reserve_stock('confirmed', 'a', 'm', 1)");
    outcome(&mut client, "confirm_stock('confirmed')");
    (database, client)
}

/// A session that waits for the standby.
pub fn waiting(database: Database<'_>, settings: &str) -> Client {
    let options = format!("-c synchronous_commit=on {settings}");
    database.cluster.config(database.name()).options(&options).connect(NoTls).expect("a session")
}

/// Runs a script in a session; calls `meanwhile` once it waits for the standby, then lets it go.
/// The second of the results is what became of the script.
fn held<T>(
    database: Database<'_>,
    mut session: Client,
    script: &str,
    meanwhile: impl FnOnce(&mut Client) -> T,
) -> (T, Result<(), Error>) {
    let pid = backend(&mut session);
    let mut observer = database.connect();
    std::thread::scope(|scope| {
        let script_runs = scope.spawn(move || session.batch_execute(script));
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"
        );
        eventually("it waits for the standby", || value(&mut observer, &waits) == "1");
        let seen = meanwhile(&mut observer);
        assert_eq!(
            value(&mut observer, &waits),
            "1",
            "it was acknowledged without the standby: {script}"
        );
        // Cancelled, it says so in a warning, and goes on.
        eventually("it goes on", || {
            value(&mut observer, &format!("SELECT pg_cancel_backend({pid})"));
            value(&mut observer, &waits) == "0"
        });
        (seen, script_runs.join().expect("no panic"))
    })
}

/// As [`held`], of a script that wants the level while somebody else is at it.
pub fn held_at_a_wanted_level<T>(
    database: Database<'_>,
    mut session: Client,
    script: &str,
    meanwhile: impl FnOnce(&mut Client) -> T,
) -> (T, Result<(), Error>) {
    let pid = backend(&mut session);
    let (mut rival, mut watcher) = (database.connect(), database.connect());
    rival
        .batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR NO KEY UPDATE")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            wait_for_lock(&mut watcher, pid);
            rival.batch_execute("ROLLBACK").unwrap();
        });
        held(database, session, script, meanwhile)
    })
}

/// What was seen meanwhile, of a script that came to its end.
pub fn committed<T>((seen, script): (T, Result<(), Error>)) -> T {
    script.expect("the script");
    seen
}

/// True where the level can be locked, as a change of it does.
pub fn is_unlocked(client: &mut Client) -> bool {
    client.batch_execute("SET lock_timeout = '100ms'").unwrap();
    match client.simple_query("SELECT FROM stock.level WHERE sku = 'a' FOR NO KEY UPDATE") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(sqlstate(&error), "55P03");
            false
        }
    }
}

#[test]
fn a_level_is_unlocked_before_the_commit_is_acknowledged_where_the_setting_says_so() {
    let (database, mut client) = shop();
    client
        .batch_execute(
            "CREATE TABLE orders (id text);
             CREATE FUNCTION reserve() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM stock.reserve_stock(NEW.id, 'a', 'm', 1); RETURN NEW; END $$;
             CREATE TRIGGER reserve AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION reserve();
             CREATE FUNCTION own(k text) RETURNS text LANGUAGE sql AS $$ SELECT outcome
             FROM stock.reserve_stock(k, 'a', 'm', 1) $$;
             CREATE PROCEDURE commits(k text) LANGUAGE plpgsql AS
               $$ BEGIN SET LOCAL synchronous_commit = local;
               PERFORM stock.reserve_stock(k || '1', 'b', 'm', 1); COMMIT;
                        PERFORM stock.reserve_stock(k || '2', 'a', 'm', 1); COMMIT; END $$",
        )
        .unwrap();
    // What commits; where it unlocks early: off, statement, transaction.
    let ways = [
        ("SELECT stock.reserve_stock('§', 'a', 'm', 1)", [false, true, true]),
        ("SELECT stock.receive_stock('§', 'a', 'm', 1)", [false, true, true]),
        ("SELECT stock.sell_stock('§', 'a', 'm', 1)", [false, true, true]),
        (
            r#"SELECT stock.reserve_many('[{"key": "§", "lines": [{"sku": "a", "location": "m", "quantity": 1}]}]')"#,
            [false, true, true],
        ),
        ("SELECT own('§')", [false, true, true]),
        ("INSERT INTO orders VALUES ('§')", [false, true, true]),
        ("CALL commits('§')", [false, true, true]),
        ("DO $$ BEGIN PERFORM stock.reserve_stock('§', 'a', 'm', 1); END $$", [false, true, true]),
        ("BEGIN; SELECT stock.reserve_stock('§', 'a', 'm', 1); COMMIT", [false, false, true]),
        (
            "BEGIN; SELECT stock.reserve_stock('§', 'a', 'm', 1); COMMIT AND CHAIN",
            [false, false, true],
        ),
        (
            "BEGIN; SAVEPOINT s; SELECT stock.reserve_stock('§-', 'a', 'm', 1); ROLLBACK TO s;
             SAVEPOINT s; SELECT stock.reserve_stock('§', 'a', 'm', 1); RELEASE s; COMMIT",
            [false, false, true],
        ),
    ];
    for (place, (sql, expected)) in ways.iter().enumerate() {
        let modes = ["off", "statement", "transaction"].into_iter().zip(expected);
        for (direct, (mode, unlocked)) in
            ["on", "off"].iter().flat_map(|direct| modes.clone().map(move |mode| (direct, mode)))
        {
            let sql = sql.replace('§', &format!("{mode} {direct} {place}"));
            let settings =
                format!("-c pg_stock.early_lock_release={mode} -c pg_stock.direct_access={direct}");
            let session = || waiting(database, &settings);
            let wanted = held_at_a_wanted_level(database, session(), &sql, is_unlocked);
            assert_eq!(committed(wanted), *unlocked, "{settings}: {sql}");
            // Where nobody else wants the level, all is as without us.
            let alone = held(
                database,
                session(),
                &sql.replace(mode, &format!("{mode} alone")),
                is_unlocked,
            );
            assert!(!committed(alone), "{settings}, alone: {sql}");
        }
    }
    finish(database);
}

/// Beside a standby that is away, nobody sees what is not acknowledged, neither the reserve nor the
/// shop's own row, unless somebody asks for it.
#[test]
fn by_default_nothing_is_seen_before_the_standby_has_it() {
    let (database, mut client) = shop();
    client.batch_execute("CREATE TABLE orders (id text)").unwrap();
    let sees = |client: &mut Client, key: &str| {
        let rows = format!(
            "SELECT (SELECT count(*) FROM stock.hold WHERE key = '{key}') + (SELECT count(*) FROM \
             orders WHERE id = '{key}')"
        );
        (value(client, &rows), is_unlocked(client))
    };
    let settings = [
        ("", "0", false),
        ("-c pg_stock.early_lock_release=auto", "0", false),
        ("-c pg_stock.early_lock_release=statement", "2", true),
    ];
    for (number, (settings, rows, unlocked)) in settings.iter().enumerate() {
        let order = format!(
            "WITH placed AS (INSERT INTO orders VALUES ('o{number}') RETURNING id)
             SELECT outcome FROM placed, stock.reserve_stock(placed.id, 'a', 'm', 1)"
        );
        let session = waiting(database, settings);
        let look = |client: &mut Client| sees(client, &format!("o{number}"));
        let seen = committed(held_at_a_wanted_level(database, session, &order, look));
        assert_eq!(seen, ((*rows).to_owned(), *unlocked), "{settings}");
    }
    finish(database);
}

/// Where no standby is waited for, the default lets go early. The flush takes a while here, after
/// the commit is visible.
#[test]
fn by_default_it_is_used_where_no_standby_is_waited_for() {
    let cluster = Cluster::start(&["commit_siblings=0", "statement_timeout=120s"]);
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    let seen_before_told = |settings: &str, key: &str| {
        let mut session = waiting(database, settings);
        session.batch_execute("SET commit_delay = 100000").unwrap();
        let (pid, mut rival, mut watcher) =
            (backend(&mut session), database.connect(), database.connect());
        rival.batch_execute("BEGIN; SELECT FROM stock.level FOR NO KEY UPDATE").unwrap();
        std::thread::scope(|scope| {
            let sql = format!("SELECT stock.reserve_stock('{key}', 'a', 'm', 1)");
            scope.spawn(move || session.batch_execute(&sql).unwrap());
            wait_for_lock(&mut watcher, pid);
            rival.batch_execute("ROLLBACK").unwrap();
            let seen = format!(
                "SELECT CASE WHEN EXISTS (SELECT FROM stock.hold WHERE key = '{key}')
                        THEN coalesce((SELECT state FROM pg_stat_activity WHERE pid = {pid}),
                        'gone') ELSE 'not yet' END"
            );
            loop {
                match value(&mut watcher, &seen).as_str() {
                    "not yet" => {}
                    state => return state == "active",
                }
            }
        })
    };
    assert!(seen_before_told("", "default"));
    assert!(seen_before_told("-c pg_stock.early_lock_release=statement", "statement"));
    finish(database);
}

/// What a foreign key locks keeps nobody from changing a level, so it does not count: neither that
/// of another session, nor those of several, nor that of the same transaction.
#[test]
fn a_foreign_key_that_refers_to_a_level_is_no_reason() {
    let (database, mut client) = shop();
    client
        .batch_execute(
            "CREATE TABLE line (sku text COLLATE \"C\", location text COLLATE \"C\", FOREIGN KEY \
             (sku, location) REFERENCES stock.level)",
        )
        .unwrap();
    let early = "-c pg_stock.early_lock_release=transaction";
    let refer = "INSERT INTO line VALUES ('a', 'm')";
    let mut others = [database.connect(), database.connect()];
    for (number, other) in others.iter_mut().enumerate() {
        other.batch_execute(&format!("BEGIN; {refer}")).unwrap();
        let sql = format!("SELECT stock.reserve_stock('beside {number}', 'a', 'm', 1)");
        assert!(
            !committed(held(database, waiting(database, early), &sql, is_unlocked)),
            "beside {number}"
        );
    }
    let own = format!("BEGIN; {refer}; SELECT stock.reserve_stock('own', 'a', 'm', 1); COMMIT");
    assert!(!committed(held(database, waiting(database, early), &own, is_unlocked)), "its own");
    // Who changes the level beside them is a reason.
    let sql = "SELECT stock.reserve_stock('wanted', 'a', 'm', 1)";
    assert!(committed(held_at_a_wanted_level(
        database,
        waiting(database, early),
        sql,
        is_unlocked
    )));
    others.iter_mut().for_each(|other| other.batch_execute("ROLLBACK").unwrap());
    finish(database);
}

/// Who comes to a free level, but is waited for when it commits, lets go early, too; also by SQL
/// statements.
#[test]
fn who_is_waited_for_lets_go_early() {
    let (database, _) = shop();
    for direct in ["on", "off"] {
        let settings = format!(
            "-c pg_stock.early_lock_release=transaction -c pg_stock.direct_access={direct}"
        );
        let (mut session, mut next, mut watcher) =
            (waiting(database, &settings), database.connect(), database.connect());
        session
            .batch_execute(&format!(
                "BEGIN; SELECT stock.reserve_stock('first {direct}', 'a', 'm', 1)"
            ))
            .unwrap();
        let (pid, sql) = (
            backend(&mut next),
            format!("SELECT stock.reserve_stock('next {direct}', 'a', 'm', 1)"),
        );
        next.batch_execute("SET lock_timeout = '5s'").unwrap();
        let next = std::thread::scope(|scope| {
            let waits = scope.spawn(move || next.batch_execute(&sql));
            wait_for_lock(&mut watcher, pid);
            committed(held(database, session, "COMMIT", |_| waits.join().expect("no panic")))
        });
        // It came to its end while the first was not acknowledged yet.
        next.unwrap_or_else(|error| panic!("{direct}: {error}"));
    }
    finish(database);
}

/// Two signs that nobody need be seen for: the last change is not on disk yet, and a crowd was
/// there a moment ago.
#[test]
fn a_crowd_that_is_out_of_sight_is_a_reason() {
    let settings = ["fsync=off", "synchronous_commit=local", "synchronous_standby_names=nobody"];
    let lazy = ["wal_writer_delay=10s", "wal_writer_flush_after=1GB", "statement_timeout=120s"];
    let cluster = Cluster::start(&[&settings[..], &lazy].concat());
    let database = cluster.database();
    let mut client = database.connect();
    stocked(&mut client, "a", "m", 1_000);
    let early = "-c pg_stock.early_lock_release=statement";
    let sql = "SELECT stock.reserve_stock('alone', 'a', 'm', 1)";
    assert!(!committed(held(database, waiting(database, early), sql, is_unlocked)));
    let session = waiting(database, early);
    client
        .batch_execute(
            "SET synchronous_commit = off; SELECT stock.reserve_stock('lazy', 'a', 'm', 1)",
        )
        .unwrap();
    let sql = "SELECT stock.reserve_stock('after a lazy one', 'a', 'm', 1)";
    assert!(committed(held(database, session, sql, is_unlocked)));
    client
        .batch_execute(
            "CREATE PROCEDURE two() LANGUAGE plpgsql AS
               $$ BEGIN SET LOCAL synchronous_commit = local;
               PERFORM stock.reserve_stock('one', 'a', 'm', 1); COMMIT;
                        PERFORM stock.reserve_stock('two', 'a', 'm', 1); COMMIT; END $$",
        )
        .unwrap();
    assert!(committed(held_at_a_wanted_level(
        database,
        waiting(database, early),
        "CALL two()",
        is_unlocked
    )));
    finish(database);
}

/// What others see early is a matter for whoever answers for the server.
#[test]
fn only_a_superuser_sets_it_and_whom_one_lets() {
    let (database, mut client) = shop();
    client
        .batch_execute(
            "CREATE ROLE early_shop LOGIN; SELECT stock.grant_access('early_shop', 'operate')",
        )
        .unwrap();
    let session = |options: &str| {
        let mut config = database.cluster.config(database.name());
        let mut session = config.user("early_shop").options(options).connect(NoTls).unwrap();
        outcome(&mut session, "try_reserve_stock('earlier', 'a', 'm', 1)");
        session
    };
    let set = "SET pg_stock.early_lock_release = transaction";
    assert_eq!(sqlstate(&session("").batch_execute(set).unwrap_err()), "42501");
    // Asked for before the library was there, it is refused with a warning.
    let asked = "-c pg_stock.early_lock_release=transaction";
    assert_eq!(value(&mut session(asked), "SHOW pg_stock.early_lock_release"), "auto");
    client
        .batch_execute("GRANT SET ON PARAMETER pg_stock.early_lock_release TO early_shop")
        .unwrap();
    session("").batch_execute(set).unwrap();
    assert_eq!(value(&mut session(asked), "SHOW pg_stock.early_lock_release"), "transaction");
    client
        .batch_execute("REVOKE SET ON PARAMETER pg_stock.early_lock_release FROM early_shop")
        .unwrap();
    client.batch_execute("DROP OWNED BY early_shop; DROP ROLE early_shop").unwrap();
    finish(database);
}

/// Several calls in one pipeline are one transaction, and one answer.
#[test]
fn a_pipeline_is_acknowledged_as_a_whole() {
    let (database, mut client) = shop();
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(script.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let calls = "\\startpipeline\nSELECT stock.try_reserve_stock('p1', 'a', 'm', 1);\nSELECT \
        stock.try_reserve_stock('p2', 'a', 'm', 1);\n\\endpipeline\n";
    std::fs::write(script.path(), calls).unwrap();
    let set = format!("ALTER DATABASE {} SET synchronous_commit", database.name());
    client.batch_execute(&format!("{set} = on")).unwrap();
    let early =
        format!("ALTER DATABASE {} SET pg_stock.early_lock_release = statement", database.name());
    client.batch_execute(&early).unwrap();
    let script = script.path().display().to_string();
    let mut rival = database.connect();
    rival
        .batch_execute("BEGIN; SELECT FROM stock.level WHERE sku = 'a' FOR NO KEY UPDATE")
        .unwrap();
    std::thread::scope(|scope| {
        let options = ["-n", "-M", "extended", "-t", "1", "-f", &script, database.name()];
        scope.spawn(move || database.cluster.run("pgbench", &options));
        let stands = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' AND \
                      wait_event_type = 'Lock'";
        eventually("it waits for the level", || value(&mut client, stands) == "1");
        rival.batch_execute("ROLLBACK").unwrap();
        let waits = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE application_name = \
                     'pgbench' AND wait_event = 'SyncRep'";
        eventually("it waits for the standby", || value(&mut client, waits) != "0");
        assert!(is_unlocked(&mut client));
        let go_on = format!("SELECT pg_cancel_backend(({waits})::int)");
        value(&mut client, &go_on);
    });
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM stock.hold WHERE key IN ('p1', 'p2')"),
        "2"
    );
    client.batch_execute(&format!("{set} = local")).unwrap();
    finish(database);
}

/// Where the commit record must ask the standby for something, where notifications go out with the
/// commit, and where nobody waits, all is as without us.
#[test]
fn it_is_never_used_where_it_would_break_a_promise() {
    let (database, _client) = shop();
    let sql = |number| format!("SELECT stock.reserve_stock('k{number}', 'a', 'm', 1)");
    for (number, settings) in
        ["-c synchronous_commit=remote_apply", "-c pg_stock.notify=transaction"].iter().enumerate()
    {
        let session =
            waiting(database, &format!("{settings} -c pg_stock.early_lock_release=transaction"));
        assert!(
            !committed(held_at_a_wanted_level(database, session, &sql(number), is_unlocked)),
            "{settings}"
        );
    }
    // What is to be told waits for the standby before it is: where that is cut short nothing was.
    let ((), told) =
        held(database, waiting(database, ""), "SELECT * FROM stock.emit_changes()", |_| ());
    assert_eq!(sqlstate(&told.expect_err("told too early")), "57014");
    for (number, settings) in
        ["-c synchronous_commit=remote_write", "-c synchronous_commit=on"].iter().enumerate()
    {
        let session =
            waiting(database, &format!("{settings} -c pg_stock.early_lock_release=statement"));
        let early = held_at_a_wanted_level(database, session, &sql(10 + number), is_unlocked);
        assert!(committed(early), "{settings}");
    }
    for settings in ["-c synchronous_commit=off", "-c synchronous_commit=local"] {
        let mut session = waiting(database, settings);
        outcome(&mut session, &format!("reserve_stock('{settings}', 'a', 'm', 1)"));
    }
    finish(database);
}

/// Whoever reports what another did waits for it to be durable; whoever only looks, or is told
/// "sold out", does not.
#[test]
fn an_answer_that_reports_an_earlier_effect_is_durable() {
    let (database, mut client) = shop();
    let cursor = value(&mut client, "SELECT max(next_cursor) FROM stock.snapshot()");
    let reports = [
        "SELECT * FROM stock.try_reserve_stock('earlier', 'a', 'm', 1)".to_owned(),
        "SELECT * FROM stock.try_reserve_stock('earlier', 'a', 'm', 2)".into(),
        "SELECT * FROM stock.try_confirm_stock('confirmed')".into(),
        "SELECT * FROM stock.try_release_stock('confirmed')".into(),
        "SELECT * FROM stock.reservation('earlier')".into(),
        format!("SELECT * FROM stock.changes_since('{cursor}')"),
        "SELECT * FROM stock.snapshot()".into(),
    ];
    for sql in &reports {
        let ((), told) = held(database, waiting(database, ""), sql, |_| ());
        // Where the wait is cut short, nothing is told.
        assert_eq!(sqlstate(&told.expect_err(sql)), "57014", "{sql}");
        // The same where nobody is to wait.
        waiting(database, "-c synchronous_commit=local").batch_execute(sql).unwrap();
    }
    let mut session = waiting(database, "");
    session.batch_execute("SET statement_timeout = '10s'").unwrap();
    for sql in [
        "SELECT * FROM stock.available('a', 'm')",
        "SELECT * FROM stock.levels",
        "SELECT * FROM stock.try_reserve_stock('too many', 'a', 'm', 100000)",
        "SELECT * FROM stock.try_reserve_stock('no such', 'x', 'm', 1)",
    ] {
        session.batch_execute(sql).unwrap();
    }
    finish(database);
}

/// Whatever ends a commit, the session asks for the same as before.
#[test]
fn an_error_while_committing_leaves_the_settings_alone() {
    let (database, mut client) = shop();
    let mut other = database.connect();
    for settings in ["local", "off"] {
        let set = format!(
            "SET synchronous_commit = {settings}; SET pg_stock.early_lock_release = transaction"
        );
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS t (n int); TRUNCATE t; INSERT INTO t VALUES (1), (2)",
            )
            .unwrap();
        for (session, key) in [(&mut client, "one"), (&mut other, "two")] {
            session.batch_execute(&set).unwrap();
            session.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap();
            session
                .batch_execute(&format!(
                    "SELECT sum(n) FROM t; INSERT INTO t VALUES (3); SELECT \
                     stock.receive_stock('{settings} {key}', '{key}', 'm', 1)"
                ))
                .unwrap();
        }
        other.batch_execute("COMMIT").unwrap();
        let failed = client.batch_execute("COMMIT").unwrap_err();
        assert_eq!(sqlstate(&failed), "40001");
        for session in [&mut client, &mut other] {
            assert_eq!(value(session, "SHOW synchronous_commit"), settings);
        }
        client
            .batch_execute(
                "BEGIN; SELECT stock.receive_stock('p', 'p', 'm', 1); PREPARE TRANSACTION 'early'",
            )
            .unwrap();
        client.batch_execute("ROLLBACK PREPARED 'early'").unwrap();
        client
            .batch_execute("BEGIN; SELECT stock.receive_stock('r', 'r', 'm', 1); ROLLBACK")
            .unwrap();
        assert_eq!(value(&mut client, "SHOW synchronous_commit"), settings);
    }
    finish(database);
}
