//! The worker as a process.

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use tempfile::NamedTempFile;

use super::{PATIENCE, signal};

/// A running worker; killed when it is dropped.
pub struct Worker {
    process: Child,
    log: NamedTempFile,
    output: NamedTempFile,
}

impl Worker {
    /// Starts one: short times, so that tests need not wait.
    pub fn start(database: &str, redis: &str, options: &[&str]) -> Worker {
        Worker::start_with(database, redis, options, &[])
    }

    /// Starts one with variables in its environment.
    pub fn start_with(
        database: &str,
        redis: &str,
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Worker {
        let (log, output) =
            (NamedTempFile::new().expect("a file"), NamedTempFile::new().expect("a file"));
        let write = |file: &NamedTempFile| -> File { file.reopen().expect("the file") };
        let process = Command::new(env!("CARGO_BIN_EXE_pg-stock-cache"))
            .args([
                "--heartbeat",
                "300ms",
                "--time-limit",
                "1s",
                "--catch-up-limit",
                "20s",
                "--pause-max",
                "500ms",
            ])
            .args(["--check-grace", "200ms"])
            .args(options)
            .env("PG_STOCK_CACHE_DATABASE", database)
            .env("PG_STOCK_CACHE_REDIS", redis)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(write(&output))
            .stderr(write(&log))
            .spawn()
            .expect("the worker");
        Worker { process, log, output }
    }

    /// Kills it: SIGKILL.
    pub fn kill(mut self) {
        signal(self.process.id(), libc::SIGKILL);
        self.process.wait().expect("it ends");
    }

    /// Asks it to stop: SIGTERM.
    pub fn ask_to_stop(&self) {
        signal(self.process.id(), libc::SIGTERM);
    }

    /// Asks it to stop as Ctrl-C does: SIGINT.
    pub fn interrupt(&self) {
        signal(self.process.id(), libc::SIGINT);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            eprintln!("the worker's log:\n{}", self.log());
        }
    }
}
