//! A Redis that ends with its test, and what the tests ask of it.

use pg_stock_tests::Redis;
use redis::Connection;

/// A running Redis.
pub struct RedisServer(Redis);

impl RedisServer {
    /// Starts one with these settings beside the usual ones (no persistence).
    pub fn start(settings: &[&str]) -> RedisServer {
        RedisServer(Redis::start(settings))
    }

    /// Starts it again.
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Kills it: SIGKILL.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// The path of its socket.
    pub fn socket(&self) -> String {
        self.0.socket()
    }

    /// How to connect to it.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// A client for it.
    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a URL")
    }

    /// Connects to it.
    pub fn connect(&self) -> Connection {
        self.client().get_connection().expect("a connection")
    }

    /// Runs one command.
    pub fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut call = redis::cmd(command[0]);
        call.arg(&command[1..])
            .query(&mut self.connect())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}
