//! scripts/setup.sh installs packages and leaves nothing of its own behind; programs that only
//! write down what they are asked stand in for apt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the package brings.
const PACKAGED: &str = "# create_main_cluster = true\nlog_line_prefix = '%m '\n";

/// Where nothing is installed, and apt does as it is told.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// `installs` is what `apt-get install` comes to, but for the package that brings the file.
    fn new(installs: &str) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.path("bin")).unwrap();
        fs::write(machine.path("packaged"), PACKAGED).unwrap();
        let [seen, etc, packaged] =
            ["seen", "etc", "packaged"].map(|name| machine.path(name).display().to_string());
        let clusters = machine.clusters().display().to_string();
        machine.program("sudo", r#"exec "$@""#);
        machine.program("apt-cache", r#"[ "$2" != no-such-package ]"#);
        machine.program(
            "dpkg-query",
            &format!("[ $4 = postgresql-common ] && [ -e '{clusters}' ] && echo ok installed"),
        );
        // The package keeps a file that is there.
        let common =
            format!("mkdir -p '{etc}'; [ -e '{clusters}' ] || cp '{packaged}' '{clusters}'");
        let install = format!(
            "case \"$*\" in *postgresql-common*) {common} ;; *) cp '{clusters}' '{seen}'; \
             {installs} ;; esac"
        );
        machine.program("apt-get", &format!("[ $1 = update ] || {install}"));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What tells Debian's packages whether to make a cluster.
    fn clusters(&self) -> PathBuf {
        self.path("etc").join("createcluster.conf")
    }

    fn install(&self, package: &str) -> (bool, String) {
        self.setup(&["install-missing", package])
    }

    fn setup(&self, arguments: &[&str]) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup.sh");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(script)
            .args(arguments)
            .env("PATH", path)
            .env("PG_STOCK_CREATECLUSTER_CONF", self.clusters())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn installing_makes_no_cluster_and_leaves_the_package_s_own_settings() {
    for installs in ["true", "false"] {
        let machine = Machine::new(installs);
        assert_eq!(machine.install("postgresql-15").0, installs == "true");
        let seen = fs::read_to_string(machine.path("seen")).unwrap();
        assert!(
            seen.starts_with(PACKAGED) && seen.contains("create_main_cluster = false"),
            "{seen}"
        );
        assert_eq!(fs::read_to_string(machine.clusters()).unwrap(), PACKAGED);
    }
}

#[test]
fn a_setting_of_somebody_else_s_stays_as_it_is() {
    let machine = Machine::new("true");
    fs::create_dir(machine.path("etc")).unwrap();
    let theirs = "# ours\ncreate_main_cluster = true\ndata_directory = '/data/%v/%c'\n";
    fs::write(machine.clusters(), theirs).unwrap();
    assert!(machine.install("postgresql-15").0);
    let seen = fs::read_to_string(machine.path("seen")).unwrap();
    assert!(seen.starts_with(theirs) && seen.contains("create_main_cluster = false"), "{seen}");
    assert_eq!(fs::read_to_string(machine.clusters()).unwrap(), theirs);
}

#[test]
fn a_package_that_apt_does_not_know_is_named_before_anything_is_done() {
    let machine = Machine::new("true");
    let (done, error) = machine.install("no-such-package");
    assert!(!done && error.contains("no-such-package") && error.contains("SYSTEM="), "{error}");
    assert!(!machine.path("seen").exists() && !machine.clusters().exists());
}

/// On a machine where nothing was installed yet the tests must find all that they need, too.
#[test]
fn what_the_tests_need_comes_before_the_server_does() {
    for (server, is_needed) in [("/usr/lib/postgresql/15/bin", true), ("/opt/bin", false)] {
        let machine = Machine::new(r#"echo "$*" >>"${0%/*}/asked""#);
        let (done, error) = machine.setup(&["test-packages", "15", &format!("{server}/pg_config")]);
        assert!(done, "{error}");
        let asked = fs::read_to_string(machine.path("bin").join("asked")).unwrap();
        assert!(asked.contains("python3-psycopg2"), "{asked}");
        assert_eq!(asked.contains("postgresql-15-cron"), is_needed, "{asked}");
    }
}
