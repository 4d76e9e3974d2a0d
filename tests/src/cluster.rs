//! A private PostgreSQL that is thrown away afterwards.
//!
//! It listens on a Unix socket in a folder of its own only, runs as the user postgres if this
//! program runs as root, and is stopped and removed when it is dropped, or when the program ends.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};
use tempfile::TempDir;

/// How long a server may take to answer its first query.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Gives the socket its name, unless the settings name a port; nothing listens on it.
const PORT: u16 = 5432;

/// A running server.
pub struct Cluster {
    server: Mutex<Option<Child>>,
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

/// A database of a cluster, with the extension in it.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    /// Where it is.
    pub cluster: &'a Cluster,
    name: &'static str,
}

impl Cluster {
    /// Makes and starts a server with these settings (`name=value`) and a template with the
    /// extension. Those that the environment variable `PG_STOCK_SETTINGS` names (separated by
    /// semicolons) come first.
    ///
    /// # Panics
    /// If it cannot be started: nothing can be tested then.
    pub fn start(settings: &[&str]) -> Cluster {
        let mut cluster = Cluster::new();
        let named = settings.iter().find_map(|setting| setting.strip_prefix("port="));
        cluster.port = named.map_or(PORT, |port| port.parse().expect("a port"));
        cluster.run(
            "initdb",
            &["-D", &cluster.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"],
        );
        let mut conf =
            format!("unix_socket_directories = '{}'\nlisten_addresses = ''\n", cluster.socket());
        // Below the data folder, and so gone with it, also where a server is killed.
        conf.push_str("dynamic_shared_memory_type = mmap\n");
        conf.push_str(
            "max_connections = 200\nmax_prepared_transactions = 20\nlog_min_messages = warning\n",
        );
        // Tests let holds lapse at once, and hold them for as long as can be.
        conf.push_str(
            "pg_stock.min_ttl = 0\npg_stock.max_ttl = 366d\npg_stock.min_archive_age = 0\n",
        );
        let common = std::env::var("PG_STOCK_SETTINGS").unwrap_or_default();
        let common = common.split(';').filter(|setting| !setting.is_empty());
        cluster.append("postgresql.conf", &conf);
        cluster.configure(common.chain(settings.iter().copied()));
        cluster.resume();
        let mut client = cluster.connect("postgres");
        client
            .batch_execute("CREATE DATABASE stock_template IS_TEMPLATE true")
            .expect("a template");
        cluster.connect("stock_template").batch_execute(&extension()).expect("the extension");
        cluster
    }

    /// A server of the major whose programs are in this folder, to which pg_upgrade brings all that
    /// this one has. This one is stopped.
    ///
    /// # Panics
    /// If it cannot be upgraded.
    pub fn upgraded(&self, programs: &Path, settings: &[&str]) -> Cluster {
        self.stop(false);
        let mut newer = Cluster::new();
        newer.programs = programs.to_owned();
        newer.port = self.port;
        let initdb = ["-D", &newer.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8"];
        let as_before = ["--no-locale", "--no-data-checksums"];
        // Before 18 there are none unless they are asked for, and no such option.
        if let Err(error) = newer.try_run("initdb", &[&initdb[..], &as_before].concat()) {
            assert!(error.contains("no-data-checksums"), "{error}");
            newer.run("initdb", &[&initdb[..], &as_before[..1]].concat());
        }
        let socket = format!("unix_socket_directories='{}'", newer.socket());
        let own = [&socket[..], "listen_addresses=''", "dynamic_shared_memory_type=mmap"];
        newer.configure(own.iter().chain(settings).copied());
        let [old, new] = [self, &newer].map(|cluster| cluster.programs.display().to_string());
        newer.run(
            "pg_upgrade",
            &["-b", &old, "-B", &new, "-d", &self.data(), "-D", &newer.data(), "-U", "postgres"],
        );
        newer.resume();
        newer
    }

    /// Makes and starts a standby of this server, which follows it until it is promoted.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn standby(&self) -> Cluster {
        let mut standby = Cluster::new();
        standby.port = self.port;
        self.run("pg_basebackup", &["-D", &standby.data(), "-R", "-c", "fast"]);
        standby.append(
            "postgresql.conf",
            &format!("unix_socket_directories = '{}'\n", standby.socket()),
        );
        standby.resume();
        standby
    }

    /// A folder for a server.
    fn new() -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("pg_stock-")
            .tempdir_in("/tmp")
            .expect("a folder below /tmp");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("its permissions");
        if let Some((uid, gid)) = other_user() {
            chown(folder.path(), Some(uid), Some(gid)).expect("its owner");
        }
        Cluster { server: Mutex::new(None), folder, programs: programs(), port: PORT }
    }

    /// Starts the server of an existing data folder, and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer in time.
    pub fn resume(&self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log");
        let server = self
            .program("postgres")
            .args(["-D", &self.data()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres");
        remember(server.id(), self.folder.path());
        *self.server.lock().expect("nobody panicked") = Some(server);
        let begin = Instant::now();
        while let Err(error) = self.config("postgres").connect(NoTls) {
            assert!(
                begin.elapsed() < START_LIMIT,
                "the server does not answer: {error}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server: fast, or as a crash (no shutdown at all).
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn stop(&self, crash: bool) {
        if let Some(mut server) = self.server.lock().expect("nobody panicked").take() {
            signal(server.id(), if crash { libc::SIGQUIT } else { libc::SIGINT });
            server.wait().expect("the server ends");
            forget(server.id());
        }
    }

    /// Kills every process of the server with SIGKILL, the postmaster first: a crash of all of them
    /// at once.
    ///
    /// # Panics
    /// If they do not go away.
    pub fn kill(&self) {
        if let Some(mut server) = self.server.lock().expect("nobody panicked").take() {
            // While it is stopped it makes no child that would be missed.
            signal(server.id(), libc::SIGSTOP);
            let children = children(server.id());
            signal(server.id(), libc::SIGKILL);
            children.iter().for_each(|child| signal(*child, libc::SIGKILL));
            server.wait().expect("the server ends");
            forget(server.id());
            let begin = Instant::now();
            while children.iter().any(|child| is_running(*child)) {
                assert!(begin.elapsed() < START_LIMIT, "processes of the server do not end");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Gives back the segment of shared memory that a server has left behind which was killed and
    /// not started again.
    fn remove_shared_memory(&self) {
        let file = std::fs::read_to_string(Path::new(&self.data()).join("postmaster.pid"))
            .unwrap_or_default();
        // The seventh line has its key and its identifier.
        let segment =
            file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        if let Some(segment) = segment {
            // SAFETY: marks a segment of a server that has ended.
            let is_marked =
                unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) } == 0;
            // In a container root may not touch what belongs to others.
            if let (false, Some((uid, gid))) = (is_marked, other_user()) {
                drop(
                    Command::new("ipcrm")
                        .args(["-m", &segment.to_string()])
                        .uid(uid)
                        .gid(gid)
                        .output(),
                );
            }
        }
    }

    /// The port that gives the socket its name, and on which it listens if its settings say so.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to connect to one of its databases.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.folder.path()).port(self.port).user("postgres").dbname(database);
        config
    }

    /// Connects to one of its databases as the superuser.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn connect(&self, database: &str) -> Client {
        self.config(database).connect(NoTls).expect("a connection")
    }

    /// A new database with the extension.
    ///
    /// # Panics
    /// If it cannot be created.
    pub fn database(&self) -> Database<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        // One at a time: PostgreSQL refuses to copy a template that somebody else is copying from.
        static COPYING: Mutex<()> = Mutex::new(());
        let name: &'static str = format!("stock_{}", NEXT.fetch_add(1, Ordering::Relaxed)).leak();
        let guard = COPYING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let create = format!("CREATE DATABASE {name} TEMPLATE stock_template");
        self.connect("postgres").batch_execute(&create).expect("a database");
        drop(guard);
        Database { cluster: self, name }
    }

    /// A new database of this name with the extension, not copied from the template: while a worker
    /// looks at that, nobody can copy it.
    ///
    /// # Panics
    /// If it cannot be created.
    pub fn create(&self, name: &'static str) -> Database<'_> {
        self.connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("a database");
        self.connect(name).batch_execute(&extension()).expect("the extension");
        self.existing(name)
    }

    /// A database that [`Cluster::create`] has made.
    pub fn existing(&self, name: &'static str) -> Database<'_> {
        Database { cluster: self, name }
    }

    /// Runs one of PostgreSQL's programs to its end and gives its output.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).unwrap_or_else(|error| panic!("{program} {args:?}: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// What it said, if it fails.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let output = self.program(program).args(args).output().expect(program);
        let [said, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        if output.status.success() { Ok(said) } else { Err(error) }
    }

    /// The folder of its socket.
    pub fn socket(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Below the folder that the environment variable `PG_STOCK_LOGS` names, where it is kept, or
    /// beside the data.
    fn log_path(&self) -> PathBuf {
        let own = self.folder.path();
        std::env::var_os("PG_STOCK_LOGS")
            .and_then(|kept| Some(Path::new(&kept).join(own.file_name()?)))
            .unwrap_or_else(|| own.join("log"))
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// Writes settings (`name=value`) to the configuration.
    fn configure<'s>(&self, settings: impl Iterator<Item = &'s str>) {
        let line = |setting: &str| format!("{}\n", setting.replacen('=', " = ", 1));
        self.append("postgresql.conf", &settings.map(line).collect::<String>());
    }

    fn append(&self, file: &str, text: &str) {
        use std::io::Write;
        let path = Path::new(&self.data()).join(file);
        let mut file =
            std::fs::File::options().append(true).open(path).expect("a configuration file");
        file.write_all(text.as_bytes()).expect("its text");
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // A server's environment may ask for Rust backtraces: no user is to see one all the same.
        command.current_dir(self.folder.path()).env("RUST_BACKTRACE", "1");
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(variable);
        }
        command
            .env("PGHOST", self.folder.path())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres");
        if let Some((uid, gid)) = other_user() {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(false);
        self.remove_shared_memory();
    }
}

impl Database<'_> {
    /// Connects to it as the superuser.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn connect(&self) -> Client {
        self.cluster.connect(self.name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Where initdb and postgres are.
fn programs() -> PathBuf {
    let programs = std::env::var_os("PG_STOCK_PROGRAMS").expect(
        "PG_STOCK_PROGRAMS must name the folder of initdb and postgres: use `make test` or `make \
         demo`",
    );
    programs.into()
}

/// What the PostgreSQL of the tests says of itself: where its libraries are (`--pkglibdir`), say.
///
/// # Panics
/// If it says nothing.
#[must_use]
pub fn pg_config(what: &str) -> String {
    let output = Command::new(programs().join("pg_config")).arg(what).output().expect("pg_config");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How the extension is made: by the released script that the environment variable
/// `PG_STOCK_VERSION` names, or the one that is.
fn extension() -> String {
    let version = std::env::var("PG_STOCK_VERSION").map(|version| format!(" VERSION '{version}'"));
    format!("CREATE EXTENSION pg_stock{}", version.unwrap_or_default())
}

/// PostgreSQL refuses to run as root: the user and group to run it as, if this program runs as
/// root.
fn other_user() -> Option<(u32, u32)> {
    // SAFETY: geteuid cannot fail; getpwnam returns null or a record that is read before any other
    // call.
    unsafe {
        if libc::geteuid() != 0 {
            return None;
        }
        let user = libc::getpwnam(c"postgres".as_ptr())
            .as_ref()
            .expect("a user postgres, as Debian's package makes");
        Some((user.pw_uid, user.pw_gid))
    }
}

/// The servers to stop when the program ends: what lives in a static is never dropped.
static RUNNING: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

fn remember(pid: u32, folder: &Path) {
    static AT_EXIT: std::sync::Once = std::sync::Once::new();
    AT_EXIT.call_once(|| {
        // SAFETY: the handler touches nothing but RUNNING.
        unsafe { libc::atexit(stop_all) };
        ctrlc::set_handler(|| std::process::exit(130)).expect("nobody else handles signals");
    });
    RUNNING.lock().expect("nobody panicked").push((pid, folder.to_owned()));
}

fn forget(pid: u32) {
    RUNNING.lock().expect("nobody panicked").retain(|(running, _)| *running != pid);
}

extern "C" fn stop_all() {
    let running = RUNNING.lock().map(|running| running.clone()).unwrap_or_default();
    for (pid, folder) in running {
        signal(pid, libc::SIGQUIT);
        // SAFETY: waits for a child of this process.
        unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
        drop(std::fs::remove_dir_all(folder));
    }
}

/// Whether a process is at work. One that has ended may be there until somebody asks what became of
/// it: in a container, for ever.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state comes after the name in brackets, which may have any letters.
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| state != "Z")
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a child of this process that has not been waited for, or a child of that.
    unsafe { libc::kill(pid as i32, signal) };
}
