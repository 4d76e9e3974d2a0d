//! The examples of the README do what it says of them, word for word.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pg_stock_cache::entry::Level;
use pg_stock_cache::read::{Cache, Reading};
use pg_stock_cache::store::{Move, Store};
use redis::RedisError;

use super::scripts::{begun, level};
use super::support::{RedisServer, wait};

type Error = Box<dyn std::error::Error>;

const README: &str = include_str!("../README.md");

/// The first block of code in a language.
fn block(language: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("\n```").expect("its end").0
}

/// A Redis with a worker's epoch in it.
fn kept() -> (RedisServer, Store) {
    let redis = RedisServer::start(&[]);
    let mut store = begun(&redis, "one");
    wait(store.complete("c1")).expect("an end");
    (redis, store)
}

/// What the example in Python shows: the entry and its age.
fn show(redis: &RedisServer, sku: &str, location: &str) -> (serde_json::Value, Option<f64>) {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-", &redis.socket(), sku, location])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let program = [block("python"), include_str!("support/reader.py")].join("\n\n");
    python.stdin.take().expect("a pipe").write_all(program.as_bytes()).expect("the program");
    let output = python.wait_with_output().expect("an end");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_example_in_python_shows_the_entry_and_its_age() {
    let (redis, mut store) = kept();
    let strange = Level { location: "shelf:1 %3A".into(), ..level("50% off:red", 7, 8) };
    wait(store.write(&[level("apple", 5, 3), strange], None)).expect("a write");
    let (apple, age) = show(&redis, "apple", "main");
    assert_eq!((&apple["available"], &apple["version"]), (&3.into(), &5.into()));
    assert_eq!(age, None, "it was never in step");
    let in_step = Some(wait(store.now()).expect("the time") - 60_000);
    wait(store.write(&[], Some(Move { from: "c1", to: "c2", in_step }))).expect("a write");
    let (strange, age) = show(&redis, "50% off:red", "shelf:1 %3A");
    assert_eq!((&strange["sku"], &strange["version"]), (&"50% off:red".into(), &7.into()));
    assert!(age.is_some_and(|age| (60.0..90.0).contains(&age)), "{age:?}");
    assert!(show(&redis, "pear", "main").0.is_null(), "nothing: ask the database");
}

/// A page of a shop: the example in Rust, between what it leaves open. The database has this level.
async fn page(redis_client: redis::Client, known: Option<Level>) -> Result<String, Error> {
    let show = |level: Level, age: Option<Duration>| format!("{}, {age:?}", level.available);
    let no_such_article = || "no such article".to_owned();
    let show_or_not = |level: Option<Level>| format!("asked: {:?}", level.map(|it| it.available));
    let ask_the_primary = |_: &str, _: &str| std::future::ready(Ok::<_, RedisError>(known.clone()));
    let page = {
        let connection = redis_client.get_multiplexed_async_connection().await?;
        let mut cache = Cache::new(connection, "stock".parse()?);
        match cache.read("apple", "main").await? {
            Reading::Found { level, age } => show(level, age),
            Reading::Absent { .. } => no_such_article(),
            Reading::Missed { lease } => {
                // After the miss; a replica may be behind.
                let level = ask_the_primary("apple", "main").await?;
                if let Some(lease) = lease {
                    // No level: that is remembered for 60 seconds.
                    cache.fill(lease, level.clone()).await?;
                }
                show_or_not(level)
            }
        }
    };
    Ok(page)
}

/// Without what is only layout.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_in_rust_is_the_one_that_is_compiled_here() {
    assert!(words(include_str!("readme.rs")).contains(&words(block("rust"))), "{}", block("rust"));
}

#[test]
fn the_example_in_rust_asks_once_and_remembers_the_answer() {
    let (redis, _store) = kept();
    let page = |known| wait(page(redis.client(), known)).expect("a page");
    assert_eq!(page(Some(level("apple", 5, 3))), "asked: Some(3)");
    assert_eq!(page(None), "3, None", "the database was not asked");
    let _: i64 = redis.run(&["DEL", "stock:level:main:apple"]);
    assert_eq!(page(None), "asked: None");
    assert_eq!(page(Some(level("apple", 5, 3))), "no such article", "that is remembered, too");
    let left: i64 = redis.run(&["TTL", "stock:level:main:apple"]);
    assert!((50..=60).contains(&left), "{left}");
}
