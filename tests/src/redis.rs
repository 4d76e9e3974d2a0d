//! A private Redis that is thrown away afterwards.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Debian's redis-tools has the server, too: it is the same program, which looks at the name it is
/// called by.
const PROGRAM: &str = "redis-check-rdb";
/// How long it may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running Redis, or Valkey if `REDIS_SERVER` names its program. It listens on a socket in a
/// folder of its own only, keeps nothing unless told to, and is killed when it is dropped.
pub struct Redis {
    process: Mutex<Option<Child>>,
    folder: TempDir,
    settings: Vec<String>,
}

impl Redis {
    /// Starts one with these settings (`--appendonly yes`) beside the usual ones.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(settings: &[&str]) -> Redis {
        let folder = tempfile::Builder::new()
            .prefix("pg_stock_redis-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let settings =
            settings.iter().flat_map(|setting| setting.split(' ')).map(str::to_owned).collect();
        let redis = Redis { process: Mutex::new(None), folder, settings };
        redis.resume();
        redis
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer in time.
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
            .unwrap_or_else(|error| {
                panic!("{program} cannot be started ({error}): install Debian's redis-tools")
            });
        *self.process.lock().expect("nobody panicked") = Some(process);
        let begin = Instant::now();
        while self.ping().is_none() {
            assert!(begin.elapsed() < START_LIMIT, "Redis does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it: SIGKILL.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("nobody panicked").take() {
            process.kill().expect("it runs");
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

    /// Something if it answers, and has loaded its data.
    fn ping(&self) -> Option<()> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(START_LIMIT)).ok()?;
        stream.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).ok()?;
        (&answer == b"+PONG").then_some(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
