//! What the tests share: a Redis of their own, the worker as a process, a shop, and a network that
//! can be cut.

pub mod metrics;
pub mod proxy;
pub mod redis_server;
pub mod shop;
pub mod worker;

use std::time::{Duration, Instant};

pub use redis_server::RedisServer;
pub use shop::Shop;
pub use worker::Worker;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so; says how long it took.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

/// A port that nobody listens on, at that address or at all of them.
pub fn free_port(host: &str) -> u16 {
    std::net::TcpListener::bind((host, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

/// Tells how long it took until the cache was in step again.
pub fn report(disaster: &str, took: Duration) {
    println!("in step again {:.2} s after {disaster}", took.as_secs_f64());
}

/// Waits for something asynchronous.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> =
        std::sync::LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));
    RUNTIME.block_on(future)
}

/// Sends a signal to a process that a test has started.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a child of this process that has not been waited for.
    unsafe { libc::kill(pid as i32, signal) };
}
