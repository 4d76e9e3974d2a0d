//! Random interleavings of transactions: after each look, whoever follows the feed knows exactly
//! what is committed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pg_stock_tests::Database;
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::feed::{Follower, Listener, levels};
use super::support::{database, finish, stocked, value};

const WRITERS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Write(usize),
    Savepoint(usize),
    RollbackToSavepoint(usize),
    Commit(usize),
    Rollback(usize),
    Prepare(usize),
    EndPrepared(usize, bool),
    Elsewhere,
    Ask(i32),
    Emit(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..WRITERS;
    prop_oneof![
        2 => who().prop_map(Step::Begin),
        5 => who().prop_map(Step::Write),
        1 => who().prop_map(Step::Savepoint),
        1 => who().prop_map(Step::RollbackToSavepoint),
        2 => who().prop_map(Step::Commit),
        1 => who().prop_map(Step::Rollback),
        1 => who().prop_map(Step::Prepare),
        1 => (0..8usize, any::<bool>())
            .prop_map(|(which, commit)| Step::EndPrepared(which, commit)),
        1 => Just(Step::Elsewhere),
        3 => (1..6).prop_map(Step::Ask),
        2 => (1..6).prop_map(Step::Emit),
    ]
}

/// A connection that writes levels of its own, so that nobody waits for anybody.
struct Writer {
    client: Client,
    /// What its level is called; another one after each prepared transaction, which keeps the old
    /// one locked.
    level: String,
    in_transaction: bool,
    savepoints: usize,
    prepared: usize,
}

struct World {
    writers: Vec<Writer>,
    prepared: Vec<String>,
    elsewhere: Client,
    far_transaction: bool,
    reader: Client,
    follower: Follower,
    listener: Listener,
    keys: usize,
    name: String,
}

impl World {
    fn new(database: Database<'_>, elsewhere: Database<'_>, name: String) -> World {
        let mut reader = database.connect();
        stocked(&mut reader, &name, "m", 1);
        value(&mut reader, "SELECT count(*) FROM stock.emit_changes()");
        let mut listener = Listener::begin(database.connect());
        let follower = Follower::begin(&mut reader);
        listener.levels = follower.levels.clone();
        let writer = |number: usize| Writer {
            client: database.connect(),
            level: format!("{name} {number}"),
            in_transaction: false,
            savepoints: 0,
            prepared: 0,
        };
        World {
            writers: (0..WRITERS).map(writer).collect(),
            prepared: Vec::new(),
            elsewhere: elsewhere.connect(),
            far_transaction: false,
            reader,
            follower,
            listener,
            keys: 0,
            name,
        }
    }

    /// Asks once; true if it has caught up, and then it knows exactly what is committed.
    fn ask(&mut self, most: i32) -> bool {
        let caught_up = self.follower.ask(&mut self.reader, most) == "caught_up";
        if caught_up {
            assert_eq!(self.follower.levels, levels(&mut self.reader), "by asking");
        }
        caught_up
    }

    /// Emits once; true if there is nothing more to tell, and then the listener knows exactly what
    /// is committed.
    fn emit(&mut self, most: i32) -> bool {
        let row =
            self.reader.query_one("SELECT NOT more FROM stock.emit_changes($1)", &[&most]).unwrap();
        self.listener.hear(Duration::ZERO);
        if row.get(0) {
            assert_eq!(self.listener.levels, levels(&mut self.reader), "by listening");
        }
        row.get(0)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin(who) if !self.writers[who].in_transaction => {
                self.writers[who].run("BEGIN", true)
            }
            Step::Write(who) => {
                self.keys += 1;
                let writer = &mut self.writers[who];
                let sql = format!(
                    "SELECT stock.receive_stock('{} {}', '{}', 'm', 1)",
                    self.name, self.keys, writer.level
                );
                writer.client.batch_execute(&sql).unwrap();
            }
            Step::Savepoint(who) if self.writers[who].in_transaction => {
                let writer = &mut self.writers[who];
                writer.savepoints += 1;
                writer.client.batch_execute(&format!("SAVEPOINT s{}", writer.savepoints)).unwrap();
            }
            Step::RollbackToSavepoint(who) if self.writers[who].savepoints > 0 => {
                let writer = &mut self.writers[who];
                writer
                    .client
                    .batch_execute(&format!("ROLLBACK TO SAVEPOINT s{}", writer.savepoints))
                    .unwrap();
            }
            Step::Commit(who) if self.writers[who].in_transaction => {
                self.writers[who].run("COMMIT", false)
            }
            Step::Rollback(who) if self.writers[who].in_transaction => {
                self.writers[who].run("ROLLBACK", false)
            }
            Step::Prepare(who) if self.writers[who].in_transaction && self.prepared.len() < 4 => {
                let writer = &mut self.writers[who];
                writer.prepared += 1;
                let id = format!("{} {}", writer.level, writer.prepared);
                writer.run(&format!("PREPARE TRANSACTION '{id}'"), false);
                writer.level.push('+');
                self.prepared.push(id);
            }
            Step::EndPrepared(which, commit) if which < self.prepared.len() => {
                let id = self.prepared.swap_remove(which);
                let end = if commit { "COMMIT" } else { "ROLLBACK" };
                self.reader.batch_execute(&format!("{end} PREPARED '{id}'")).unwrap();
            }
            Step::Elsewhere => {
                let sql = if self.far_transaction {
                    "COMMIT"
                } else {
                    "BEGIN; SELECT pg_current_xact_id()"
                };
                self.elsewhere.batch_execute(sql).unwrap();
                self.far_transaction = !self.far_transaction;
            }
            Step::Ask(most) => {
                self.ask(most);
            }
            Step::Emit(most) => {
                self.emit(most);
            }
            _ => {}
        }
    }

    /// Lets everything end, and compares once more.
    fn end(mut self) {
        for who in 0..WRITERS {
            self.take(&Step::Commit(who));
        }
        while let Some(id) = self.prepared.pop() {
            self.reader.batch_execute(&format!("COMMIT PREPARED '{id}'")).unwrap();
        }
        while !self.ask(3) {}
        while !self.emit(3) {}
        let committed = levels(&mut self.reader);
        assert_eq!(self.follower.levels, committed, "by asking");
        assert_eq!(self.listener.levels, committed, "by listening");
        let sequences: Vec<i64> = self
            .listener
            .messages
            .iter()
            .map(|message| message["sequence"].as_i64().unwrap())
            .collect();
        assert!(
            sequences.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1),
            "{sequences:?}"
        );
    }
}

impl Writer {
    fn run(&mut self, sql: &str, begins: bool) {
        self.client.batch_execute(sql).unwrap();
        (self.in_transaction, self.savepoints) = (begins, 0);
    }
}

#[test]
fn the_feed_equals_the_commits() {
    let (database, elsewhere) = (database(), database());
    let mut runner = TestRunner::new(Config {
        cases: 30,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let number = AtomicUsize::new(0);
    runner
        .run(&prop::collection::vec(step(), 20..120), |steps| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let mut world = World::new(database, elsewhere, format!("case {number}"));
            steps.iter().for_each(|step| world.take(step));
            world.end();
            Ok(())
        })
        .unwrap();
    finish(database);
}
