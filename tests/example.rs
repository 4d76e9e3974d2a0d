//! The example of a listener in another language does what docs/listening.md says of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pg_stock_tests::Cluster;

use super::support::{outcome, stocked};

/// The example, running, and the lines that it prints.
struct Example {
    program: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(connection: &str, cursor: &Path) -> Example {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/listener.py");
        // Debian's own, for which `make test` installs psycopg2.
        let mut program = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(connection)
            .arg(cursor)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let (sender, lines) = channel();
        let output = BufReader::new(program.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Example { program, lines }
    }

    /// The next line: SKU, available, version.
    #[track_caller]
    fn told(&self) -> (String, i64, i64) {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("a line");
        let level: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let number = |field: &str| level[field].as_i64().expect("a number");
        (level["sku"].as_str().expect("a SKU").to_owned(), number("available"), number("version"))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.program.kill().expect("it runs until it is killed");
        self.program.wait().expect("it ends");
    }
}

#[test]
fn the_example_of_a_listener_follows_through_restarts_of_both_sides() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let database = cluster.create("shop");
    let mut client = database.connect();
    client
        .batch_execute("CREATE ROLE cache LOGIN; SELECT stock.grant_access('cache', 'read')")
        .unwrap();
    stocked(&mut client, "äpfel", "m", 5);
    let folder = tempfile::tempdir().unwrap();
    let cursor = folder.path().join("cursor");
    let connection = format!("host={} dbname=shop user=cache", cluster.socket());
    let told = |sku: &str, available, version| (sku.to_owned(), available, version);

    let example = Example::start(&connection, &cursor);
    assert_eq!(example.told(), told("äpfel", 5, 1));
    outcome(&mut client, "reserve_stock('o1', 'äpfel', 'm', 2)");
    assert_eq!(example.told(), told("äpfel", 3, 2));

    drop(client);
    cluster.stop(true);
    cluster.resume();
    let mut client = database.connect();
    outcome(&mut client, "release_stock('o1')");
    assert_eq!(example.told(), told("äpfel", 5, 3));
    drop(example);

    outcome(&mut client, "reserve_stock('o2', 'äpfel', 'm', 1)");
    stocked(&mut client, "birnen", "m", 1);
    stocked(&mut client, "unknown to the cursor", "m", 1);
    let example = Example::start(&connection, &cursor);
    let mut missed = [example.told(), example.told(), example.told()];
    missed.sort();
    assert_eq!(
        missed,
        [told("birnen", 1, 1), told("unknown to the cursor", 1, 1), told("äpfel", 4, 4)]
    );

    // Another life of the database: everything anew.
    client.batch_execute("SELECT stock.begin_generation()").unwrap();
    let mut anew = [example.told(), example.told(), example.told()];
    anew.sort();
    assert_eq!(anew, missed);
}
