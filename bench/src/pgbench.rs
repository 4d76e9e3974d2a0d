//! Load by pgbench.

use pg_stock_tests::Database;

/// Runs a script on many connections, with prepared statements; gives transactions a second.
///
/// # Panics
/// If pgbench fails.
pub fn rate(database: Database<'_>, script: &str, connections: usize, seconds: usize) -> f64 {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("the script");
    let [connections, seconds, file_name] =
        [connections.to_string(), seconds.to_string(), file.path().display().to_string()];
    let options =
        ["-n", "-M", "prepared", "-j", "2", "-c", &connections, "-T", &seconds, "-f", &file_name];
    // pgbench may run as another user.
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("permissions");
    let output = database.cluster.run("pgbench", &[&options[..], &[database.name()]].concat());
    let line =
        output.lines().find(|line| line.starts_with("tps = ")).expect("pgbench says its rate");
    line.split_whitespace().nth(2).and_then(|rate| rate.parse().ok()).expect("a number")
}
