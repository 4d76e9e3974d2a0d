//! What a PostgreSQL that was built with its own assertions can show (`make test-asserts`).

use pg_stock_tests::cluster::Cluster;
use pg_stock_tests::invariants;
use postgres::{Client, SimpleQueryMessage};

use super::security::CALLS;
use super::support::{sqlstate, stocked};

/// Whatever a session has cached may be forgotten at any moment, because somebody somewhere changed
/// a table. With this setting everything is, whenever it may be.
#[test]
fn each_call_answers_the_same_whatever_is_forgotten() {
    let cluster = Cluster::start(&["fsync=off", "shared_preload_libraries=pg_stock"]);
    // By statements, the calls of a sale alone: a call takes seconds here, verify() a minute.
    for (access, levels) in
        [("on", &["monitor", "read", "operate", "administer"][..]), ("off", &["operate"])]
    {
        let [mut calm, mut forgetful] = std::array::from_fn(|_| {
            let mut client = cluster.database().connect();
            client.batch_execute(&format!("SET pg_stock.direct_access = {access}")).unwrap();
            stocked(&mut client, "a", "m", 100);
            client
        });
        forgetful.batch_execute("SET debug_discard_caches = 1").expect("a server with assertions");
        for (_, sql) in CALLS.iter().filter(|(needs, _)| levels.contains(needs)) {
            assert_eq!(told(&mut forgetful, sql), told(&mut calm, sql), "{sql}");
        }
        forgetful.batch_execute("SET debug_discard_caches = 0").unwrap();
        invariants::assert_hold(&mut forgetful);
    }
}

/// The outcomes that a call answers, or its SQLSTATE.
fn told(client: &mut Client, sql: &str) -> Vec<String> {
    let outcome = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.try_get("outcome").ok()?.map(str::to_owned),
        _ => None,
    };
    match client.simple_query(sql) {
        Ok(messages) => messages.iter().filter_map(outcome).collect(),
        Err(error) => vec![sqlstate(&error)],
    }
}
