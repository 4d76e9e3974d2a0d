//! Where it was measured, when, and how.

use pg_stock_tests::Cluster;

/// Lines of a list in Markdown.
pub fn describe(cluster: &Cluster) -> Vec<String> {
    let mut client = cluster.connect("postgres");
    let mut ask = |sql: &str| client.query_one(sql, &[]).expect(sql).get::<_, String>(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        format!("date: {}", ask("SELECT current_date::text")),
        format!("command: `{}`", command()),
        format!("machine: {cores} cores ({}), {} of memory", cpu(), memory()),
        format!("kernel: {}", read("/proc/sys/kernel/osrelease").trim()),
        ask("SELECT version()"),
    ]
}

/// The command, as one would type it.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("stock-bench {}", arguments.join(" "))
}

fn cpu() -> String {
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "));
    model.map_or("of a kind unknown", |(_, model)| model).to_owned()
}

fn memory() -> String {
    let info = read("/proc/meminfo");
    let kib: Option<f64> =
        info.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.map_or("?".into(), |kib| format!("{:.0} GiB", kib / 1_048_576.0))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
