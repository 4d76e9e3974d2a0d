//! A Redis that listens on a socket in a folder of its own, and ends with its test.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use redis::Connection;
use tempfile::TempDir;

use super::{eventually, signal};

/// Debian's redis-tools has the server, too: it is the same program, which looks at the name it is called by.
const PROGRAM: &str = "redis-check-rdb";

/// A running Redis; or Valkey, if `REDIS_SERVER` names its program.
pub struct RedisServer {
    process: Mutex<Option<Child>>,
    folder: TempDir,
    settings: Vec<String>,
}

impl RedisServer {
    /// Starts one with these settings beside the usual ones (no persistence).
    pub fn start(settings: &[&str]) -> RedisServer {
        let folder = tempfile::Builder::new().prefix("pg_stock_redis-").tempdir_in("/tmp").expect("a folder");
        let settings = settings.iter().flat_map(|setting| setting.split(' ')).map(str::to_owned).collect();
        let server = RedisServer { process: Mutex::new(None), folder, settings };
        server.resume();
        server
    }

    /// Starts it again.
    pub fn resume(&self) {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| PROGRAM.into());
        let process = Command::new(&program)
            .arg0("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", &self.socket(), "--dir"])
            .arg(self.folder.path())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): install Debian's redis-tools"));
        *self.process.lock().expect("nobody panicked") = Some(process);
        eventually("Redis answers", || {
            self.try_connect().is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
        });
    }

    /// Kills it: SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("nobody panicked").take() {
            signal(process.id(), libc::SIGKILL);
            process.wait().expect("it ends");
        }
    }

    /// The path of its socket.
    pub fn socket(&self) -> String {
        self.folder.path().join("redis.sock").display().to_string()
    }

    /// How to connect to it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket())
    }

    /// A client for it.
    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a URL")
    }

    /// Connects to it.
    pub fn connect(&self) -> Connection {
        self.try_connect().expect("a connection")
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        self.client().get_connection()
    }

    /// Runs one command.
    pub fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut call = redis::cmd(command[0]);
        call.arg(&command[1..]).query(&mut self.connect()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
