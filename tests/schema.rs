//! The schema under its feet: for every change of our tables that PostgreSQL accepts, direct access
//! and the SQL statements give equal rows, equal errors, and leave the same behind. The
//! changes are generated, not thought of: each kind, for each column, constraint, index and table.

use std::fmt::Write;

use postgres::{Client, SimpleQueryMessage};

use super::support::{
    TABLES, backend, database, eventually, finish, outcome, stocked, value, wait_for_lock,
};

/// What is done after each change; each call by itself, so that one that fails spoils no other.
const CALLS: [&str; 25] = [
    "reserve_stock('k1', 'a', 'm', 2)",
    "reserve_stock('k1', 'a', 'm', 2)",
    "reserve_stock('k2', 'a', 'm', 1, '1 hour', 'anna')",
    "reserve_stock('k3', 'a', 'm', 1000)",
    "confirm_stock('k1')",
    "confirm_stock('k1')",
    "return_stock('k1')",
    "release_stock('k2')",
    "sell_stock('k4', 'a', 'm', 1)",
    r#"reserve_stock('k5', '[{"sku":"a","location":"m","quantity":1},{"sku":"b","location":"m","quantity":1}]')"#,
    "confirm_stock('k5')",
    "confirm_stock('old')",
    "release_stock('older')",
    "receive_stock('k6', 'a', 'm', 5)",
    "adjust_stock('k7', 'b', 'm', -1, 'lost')",
    "reserve_stock('k8', 'overdue', 'm', 1)",
    "sell_stock('k9', 'soon', 'm', 2)",
    "confirm_stock('patient')",
    "receive_stock('k10', 'soon', 'm', 3)",
    r#"dispatch_stock('k11', '[{"sku":"a","from":"m","to":"n","quantity":1}]')"#,
    "reserve_stock('k12', 'dated', 'm', 3)",
    "confirm_stock('k12')",
    "return_stock('k12')",
    "confirm_stock('dated')",
    "receive_stock('k13', 'dated', 'm', 3, NULL, 'new')",
];

/// What is left behind, but for what differs from run to run.
const LEFT: &str = "SELECT coalesce(jsonb_agg(row ORDER BY row::text), '[]')::text FROM (
    SELECT to_jsonb(t) - '{position,xact,recorded_at,updated_at}'::text[]
                       - '{reserved_at,expires_at,next_due,renamed}'::text[]
                       - '{dispatched_at,received_at}'::text[] AS row
      FROM TABLE t) x";

/// Where the table of holds, or a column of it, has another name, a sale and a refusal go on
/// directly, without a look at holds; the statements name the table, and fail.
fn needs_no_hold(change: &str) -> bool {
    let is_away = change.starts_with("ALTER TABLE stock.hold RENAME")
        || change == "ALTER TABLE stock.hold SET SCHEMA elsewhere";
    is_away && !change.contains(';')
}

fn prepare(client: &mut Client) {
    stocked(client, "a", "m", 100);
    stocked(client, "b", "m", 100);
    stocked(client, "overdue", "m", 1);
    for text in [
        "try_reserve_stock('old', 'a', 'm', 1, buyer => 'bert')",
        "try_reserve_stock('older', 'b', 'm', 1)",
        "try_reserve_stock('lapsed', 'overdue', 'm', 1, '1 microsecond')",
    ] {
        assert_eq!(outcome(client, text), "reserved");
    }
    client
        .batch_execute(
            "SELECT stock.set_stock('soon', 'soon', 'm', 0, NULL);
             SELECT stock.set_limits('soon', 'soon', 'm', backorder_limit => 9);
             SELECT stock.reserve_stock('patient', 'soon', 'm', 2);
             SELECT stock.receive_stock('d1', 'dated', 'm', 2, NULL, 'a', '2060-01-01');
             SELECT stock.receive_stock('d2', 'dated', 'm', 9, NULL, 'b', '2061-01-01');
             SELECT stock.reserve_stock('dated', 'dated', 'm', 1)",
        )
        .expect("somebody waits");
    client
        .batch_execute(
            "CREATE ROLE somebody_else; CREATE SCHEMA elsewhere; CREATE TABLE noted (what text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN INSERT INTO public.noted VALUES (TG_OP || TG_TABLE_NAME);
                 RETURN coalesce(NEW, OLD); END $$;
             CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE 'refused' USING ERRCODE = 'ZZ123', CONSTRAINT = 'some_rule'; END $$;
             CREATE VIEW names AS SELECT 'a'::text COLLATE \"C\" AS sku;
             CREATE TABLE article (sku text COLLATE \"C\" PRIMARY KEY); INSERT INTO article VALUES \
                                                      ('a'), ('b')",
        )
        .expect("what the changes refer to");
}

/// The first column of all rows.
fn list(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).expect(sql).iter().map(|row| row.get(0)).collect()
}

/// Every change, as SQL.
fn changes(client: &mut Client) -> Vec<String> {
    let mut all = vec!["SELECT 1".to_owned()];
    for table in TABLES {
        let columns = "SELECT attname::text FROM pg_attribute
                        WHERE attrelid = 'stock.TABLE'::regclass AND attnum > 0 ORDER BY attnum";
        for column in list(client, &columns.replace("TABLE", table)) {
            all.extend(of_column(table, &column));
        }
        let constraints = "SELECT conname::text FROM pg_constraint WHERE conrelid = \
                           'stock.TABLE'::regclass ORDER BY 1";
        for constraint in list(client, &constraints.replace("TABLE", table)) {
            all.push(format!("ALTER TABLE stock.{table} DROP CONSTRAINT {constraint}"));
            all.push(format!(
                "ALTER TABLE stock.{table} RENAME CONSTRAINT {constraint} TO another"
            ));
        }
        let indexes =
            "SELECT indexrelid::regclass::text || '|' || pg_get_indexdef(indexrelid) FROM pg_index
                        WHERE indrelid = 'stock.TABLE'::regclass ORDER BY 1";
        for index in list(client, &indexes.replace("TABLE", table)) {
            let (name, definition) = index.split_once('|').expect("both");
            all.extend(of_index(name, definition));
        }
        all.extend(of_table(table));
    }
    all.extend(of_sequence());
    all.extend(
        [
            "ALTER SCHEMA stock RENAME TO stocks",
            "ALTER TABLE stock.level DROP CONSTRAINT level_counters, ADD CONSTRAINT level_counters \
             CHECK (reserved >= 0)",
            "ALTER TABLE stock.level DROP CONSTRAINT level_counters,
                   ADD CONSTRAINT level_counters CHECK (reserved >= 0 AND reserved <= on_hand
                   AND reserved <= 2)",
            "ALTER TABLE stock.level ADD CHECK (reserved < 3) NOT VALID",
            "ALTER TABLE stock.level ADD FOREIGN KEY (sku) REFERENCES article NOT VALID",
            "ALTER TABLE stock.hold ADD FOREIGN KEY (sku) REFERENCES article NOT VALID",
            "ALTER TABLE stock.ledger ADD FOREIGN KEY (sku) REFERENCES article NOT VALID",
            "ALTER TABLE stock.hold ADD FOREIGN KEY (sku, location) REFERENCES stock.level",
            "CREATE TABLE line (s text COLLATE \"C\", l text COLLATE \"C\",
                FOREIGN KEY (s, l) REFERENCES stock.level);
             INSERT INTO line VALUES ('a', 'm')",
            "CREATE TABLE line (k text COLLATE \"C\", n integer,
                FOREIGN KEY (k, n) REFERENCES stock.hold ON DELETE CASCADE);
             INSERT INTO line VALUES ('old', 1)",
            "CREATE TABLE line (k text COLLATE \"C\", n integer,
                FOREIGN KEY (k, n) REFERENCES stock.hold);
             INSERT INTO line VALUES ('old', 1)",
            "CREATE PUBLICATION p FOR ALL TABLES",
            "SET quote_all_identifiers = on",
            "SET LOCAL session_replication_role = replica",
        ]
        .map(str::to_owned),
    );
    all
}

fn of_column(table: &str, column: &str) -> Vec<String> {
    let mut all: Vec<String> = [
        "RENAME COLUMN COLUMN TO renamed",
        "ALTER COLUMN TYPE text",
        "ALTER COLUMN TYPE numeric USING COLUMN::text::numeric",
        "ALTER COLUMN TYPE text COLLATE \"POSIX\"",
        "ALTER COLUMN SET NOT NULL",
        "ALTER COLUMN DROP NOT NULL",
        "ALTER COLUMN SET DEFAULT NULL",
        "ALTER COLUMN SET DEFAULT 7",
        "ALTER COLUMN DROP DEFAULT",
        "ADD CHECK (COLUMN IS NULL) NOT VALID",
        "ADD CHECK (COLUMN IS NOT NULL) NOT VALID",
        "DROP COLUMN COLUMN CASCADE",
        "ALTER COLUMN SET STORAGE PLAIN",
    ]
    .map(|change| {
        format!(
            "ALTER TABLE stock.{table} {}",
            change.replace("ALTER COLUMN", "ALTER COLUMN COLUMN")
        )
    })
    .to_vec();
    all.extend(
        [
            "CREATE INDEX ON stock.TABLE USING brin (COLUMN)",
            "CREATE UNIQUE INDEX ON stock.TABLE (COLUMN)",
        ]
        .map(|index| index.replace("TABLE", table)),
    );
    all.iter()
        .map(|change| {
            change
                .replace("COLUMN COLUMN", &format!("COLUMN {column}"))
                .replace("(COLUMN", &format!("({column}"))
                .replace("USING COLUMN", &format!("USING {column}"))
        })
        .collect()
}

fn of_index(name: &str, definition: &str) -> Vec<String> {
    let bare = name.trim_start_matches("stock.");
    let again =
        |change: &dyn Fn(&str) -> String| format!("DROP INDEX {name}; {}", change(definition));
    vec![
        format!("DROP INDEX {name}"),
        format!("ALTER INDEX {name} RENAME TO another"),
        format!("ALTER INDEX {name} RENAME TO another; {definition}"),
        format!(
            "ALTER INDEX {name} RENAME TO another; CREATE INDEX {bare} ON stock.level (updated_at)"
        ),
        again(&|text| text.to_owned()),
        again(&|text| format!("{text} WHERE random() >= 0").replace("random()", "1")),
        again(&|text| text.replacen(")", " DESC)", 1)),
        again(&|text| text.replacen("UNIQUE ", "", 1)),
        format!("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"),
    ]
}

fn of_table(table: &str) -> Vec<String> {
    let mut all: Vec<String> = [
        "ALTER TABLE stock.TABLE RENAME TO renamed",
        "ALTER TABLE stock.TABLE RENAME TO renamed; CREATE TABLE stock.TABLE (LIKE stock.renamed \
         INCLUDING ALL)",
        "ALTER TABLE stock.TABLE RENAME TO renamed;
         CREATE TABLE stock.TABLE (LIKE stock.renamed INCLUDING ALL);
         INSERT INTO stock.TABLE SELECT * FROM stock.renamed",
        "ALTER TABLE stock.TABLE RENAME TO renamed; CREATE VIEW stock.TABLE AS SELECT * FROM \
         stock.renamed",
        "ALTER TABLE stock.TABLE SET SCHEMA elsewhere",
        "ALTER TABLE stock.TABLE SET UNLOGGED",
        "ALTER TABLE stock.TABLE SET (fillfactor = 10)",
        "ALTER TABLE stock.TABLE REPLICA IDENTITY NOTHING",
        "ALTER TABLE stock.TABLE REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR ALL TABLES",
        "ALTER TABLE stock.TABLE ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE stock.TABLE ENABLE ROW LEVEL SECURITY;
         ALTER TABLE stock.TABLE FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON stock.TABLE WITH CHECK (false)",
        "ALTER TABLE stock.TABLE OWNER TO somebody_else",
        "ALTER TABLE stock.TABLE DISABLE TRIGGER ALL",
        "ALTER TABLE stock.TABLE ADD COLUMN more text DEFAULT 'there'",
        "ALTER TABLE stock.TABLE ADD COLUMN more text NOT NULL DEFAULT 'there'",
        "ALTER TABLE stock.TABLE ADD COLUMN more bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE stock.TABLE ADD COLUMN more text GENERATED ALWAYS AS ('x' || location) STORED",
        "CREATE TABLE child () INHERITS (stock.TABLE)",
        "CREATE TABLE parent (sku text COLLATE \"C\"); ALTER TABLE stock.TABLE ALTER sku
            SET NOT NULL;
         ALTER TABLE stock.TABLE INHERIT parent",
        "CLUSTER stock.TABLE USING TABLE_pkey",
        "ALTER TABLE stock.TABLE ALTER CONSTRAINT TABLE_pkey DEFERRABLE",
        "REVOKE ALL ON stock.TABLE FROM CURRENT_USER",
    ]
    .map(|change| {
        change
            .replace("TABLE_pkey", &format!("{table}_pkey"))
            .replace("stock.TABLE", &format!("stock.{table}"))
    })
    .to_vec();
    for event in ["INSERT", "UPDATE", "DELETE"] {
        for function in ["note", "skip", "refuse"] {
            for timing in ["BEFORE", "AFTER"] {
                for level in ["ROW", "STATEMENT"] {
                    all.push(format!(
                        "CREATE TRIGGER zz {timing} {event} ON stock.{table} FOR EACH {level} \
                         EXECUTE FUNCTION {function}()"
                    ));
                }
            }
            all.push(format!(
                "CREATE CONSTRAINT TRIGGER zz AFTER {event}
                 ON stock.{table} DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION {function}()"
            ));
        }
        for action in ["ALSO INSERT INTO noted VALUES ('rule')", "INSTEAD NOTHING"] {
            all.push(format!("CREATE RULE zz AS ON {event} TO stock.{table} DO {action}"));
        }
    }
    all
}

fn of_sequence() -> Vec<String> {
    [
        "RENAME TO another",
        "RESTART",
        "INCREMENT 7",
        "MAXVALUE 12",
        "OWNED BY NONE",
        "OWNER TO somebody_else",
        "SET SCHEMA elsewhere",
    ]
    .map(|change| format!("ALTER SEQUENCE stock.ledger_position_seq {change}"))
    .into_iter()
    .chain(["DROP SEQUENCE stock.ledger_position_seq CASCADE".to_owned()])
    .collect()
}

/// What happens after a change: every answer, every error, and what is left. `None` where
/// PostgreSQL does not accept the change.
fn after(client: &mut Client, change: &str, direct: &str) -> Option<String> {
    client
        .batch_execute(&format!("BEGIN; SET LOCAL pg_stock.direct_access = {direct}"))
        .expect("a transaction");
    let mut told = String::new();
    let accepted = client.batch_execute(change).is_ok();
    if accepted {
        for call in CALLS {
            writeln!(
                told,
                "{call}: {}",
                attempt(client, &format!("SELECT (a).* FROM (SELECT (stock.{call})) x(a)"))
            )
            .expect("text");
        }
        writeln!(told, "deferred: {}", attempt(client, "SET CONSTRAINTS ALL IMMEDIATE"))
            .expect("text");
        for table in TABLES.into_iter().chain(["noted"]) {
            let table =
                if table == "noted" { "public.noted".to_owned() } else { format!("stock.{table}") };
            writeln!(told, "{table}: {}", attempt(client, &LEFT.replace("TABLE", &table)))
                .expect("text");
        }
    }
    client.batch_execute("ROLLBACK").expect("the end");
    accepted.then_some(told)
}

/// Runs a query in a savepoint; gives its rows without times, or its error.
fn attempt(client: &mut Client, sql: &str) -> String {
    client.batch_execute("SAVEPOINT s").expect("a savepoint");
    match client.simple_query(sql) {
        Ok(messages) => {
            let mut rows = Vec::new();
            for message in messages {
                if let SimpleQueryMessage::Row(row) = message {
                    let shown = row
                        .columns()
                        .iter()
                        .enumerate()
                        .filter(|(_, column)| column.name() != "expires_at");
                    rows.push(
                        shown
                            .map(|(place, _)| row.get(place).unwrap_or("-"))
                            .collect::<Vec<_>>()
                            .join(" "),
                    );
                }
            }
            client.batch_execute("RELEASE s").expect("kept");
            rows.join("; ")
        }
        Err(error) => {
            client.batch_execute("ROLLBACK TO s").unwrap_or_else(|_| panic!("{sql}: {error:?}"));
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
            // What is not there is named as the statement names it that comes upon it first.
            let is_missing = ["42703", "42P01"].contains(&error.code().code());
            format!("{} {}", error.code().code(), if is_missing { "" } else { error.message() })
        }
    }
}

#[test]
fn whatever_is_done_to_the_tables_both_ways_are_alike() {
    let database = database();
    let mut client = database.connect();
    prepare(&mut client);
    let changes = changes(&mut client);
    let (mut accepted, mut different) = (0, Vec::new());
    for change in &changes {
        let Some(direct) = after(&mut client, change, "on") else { continue };
        let by_statements = after(&mut client, change, "off").expect("accepted before");
        accepted += 1;
        // PostgreSQL keeps the plan of a statement that a rule had replaced by nothing, also when
        // the rule is gone.
        if change.contains("RULE") {
            client = database.connect();
        }
        if direct != by_statements && !needs_no_hold(change) {
            let lines = direct.lines().zip(by_statements.lines()).filter(|(a, b)| a != b);
            let lines: Vec<String> = lines
                .take(2)
                .map(|(a, b)| format!("  direct:     {a}\n  statements: {b}"))
                .collect();
            different.push(format!("{change}\n{}", lines.join("\n")));
        }
    }
    println!("{accepted} of {} changes are accepted", changes.len());
    assert!(accepted > 400, "{accepted} of {}", changes.len());
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    client.batch_execute("DROP ROLE somebody_else").unwrap();
    finish(database);
}

/// A table that is given another's name while a call waits for its lock: whatever way, the call
/// finds what bears the name when it gets the lock.
#[test]
fn a_swap_while_a_call_waits_is_seen_by_both_ways() {
    for direct in ["on", "off"] {
        for table in ["level", "hold", "ledger"] {
            let database = database();
            let [mut admin, mut buyer, mut watcher] = std::array::from_fn(|_| database.connect());
            stocked(&mut admin, "a", "m", 10);
            buyer.batch_execute(&format!("SET pg_stock.direct_access = {direct}")).unwrap();
            assert_eq!(outcome(&mut buyer, "try_reserve_stock('before', 'a', 'm', 1)"), "reserved");
            admin
                .batch_execute(&format!(
                    "BEGIN; ALTER TABLE stock.{table} RENAME TO {table}_old;
                     CREATE TABLE stock.{table} (LIKE stock.{table}_old INCLUDING ALL);
                     INSERT INTO stock.{table} SELECT * FROM stock.{table}_old"
                ))
                .unwrap();
            let process = backend(&mut buyer);
            std::thread::scope(|scope| {
                let waiting =
                    scope.spawn(|| outcome(&mut buyer, "try_reserve_stock('k', 'a', 'm', 1)"));
                wait_for_lock(&mut watcher, process);
                admin.batch_execute("COMMIT").unwrap();
                assert_eq!(waiting.join().unwrap(), "reserved", "{table} {direct}");
            });
            let left = format!(
                "SELECT (SELECT count(*) FROM stock.{table}) - (SELECT count(*) FROM \
                 stock.{table}_old)"
            );
            let more = if table == "level" { "0" } else { "1" };
            assert_eq!(value(&mut admin, &left), more, "{table} {direct}");
            assert_eq!(
                outcome(&mut admin, "try_confirm_stock('k')"),
                "confirmed",
                "{table} {direct}"
            );
            assert_eq!(
                value(&mut admin, "SELECT count(*) FROM stock.verify()"),
                "0",
                "{table} {direct}"
            );
            eventually("nobody waits", || {
                value(
                    &mut watcher,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid \
                     FROM pg_database WHERE datname = current_database())",
                ) == "0"
            });
        }
    }
}
