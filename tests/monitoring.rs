//! The monitoring that pg_stock brings, with the real programs: both exporters that Debian
//! packages, as a role with the access level `monitor`, and a Prometheus that evaluates every query
//! of the alerts and of the board.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pg_stock_tests::Cluster;
use postgres::Client;
use serde_json::Value;

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What monitoring/ holds, and where the programs are.
struct Monitoring {
    files: PathBuf,
    programs: PathBuf,
    /// Configurations with the addresses of this test, data, logs.
    folder: tempfile::TempDir,
}

impl Monitoring {
    fn new() -> Monitoring {
        let programs = std::env::var_os("PG_STOCK_MONITORING")
            .expect("PG_STOCK_MONITORING must name the folder of prometheus: make test-monitoring");
        Monitoring {
            files: Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring"),
            programs: programs.into(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.files.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A copy of a file in which other addresses stand; each that is replaced must be there.
    fn with(&self, name: &str, replaced: &[(&str, String)]) -> PathBuf {
        let mut text = self.read(name);
        for (old, new) in replaced {
            assert!(text.contains(old), "{name} has no {old}");
            text = text.replace(old, new);
        }
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.files);
        command
    }

    fn run(&self, program: &str, variables: &[(&str, &str)], arguments: &[String]) -> Running {
        let log =
            fs::File::create(self.folder.path().join(format!("{program}.log"))).expect("a log");
        let mut command = self.command(program);
        command.envs(variables.iter().copied()).args(arguments).stdin(Stdio::null());
        let errors = log.try_clone().expect("the same log");
        Running(command.stdout(log).stderr(errors).spawn().unwrap_or_else(|error| {
            panic!("{program}: {error}");
        }))
    }
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port()
}

fn get(url: &str) -> Option<String> {
    ureq::get(url).call().ok()?.body_mut().read_to_string().ok()
}

/// Waits until something is there.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "in vain: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// promtool's word on the rules; that each alert fires and ends; and on the configuration.
#[test]
fn promtool_passes_the_rules_and_each_alert_fires_and_ends() {
    let monitoring = Monitoring::new();
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let output = monitoring.command("promtool").args(arguments).output().expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
    let (alerts, tests) = (monitoring.read("alerts.yml"), monitoring.read("alerts.test.yml"));
    let runbook = monitoring.read("runbook.md");
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), 16);
    for name in names {
        assert!(tests.contains(&format!("name: {name}\n")), "{name} is not tested");
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name} is not in the runbook");
    }
}

/// The queries of both exporters are the same, but for how they are indented.
#[test]
fn both_exporters_ask_the_same() {
    let monitoring = Monitoring::new();
    let queries = |name: &str| -> Vec<String> {
        let text = monitoring.read(name);
        let blocks = text.split("query: |\n").skip(1);
        let is_of_query = |line: &&str| {
            let line = line.trim();
            !line.is_empty() && !line.ends_with("metrics:") && !line.starts_with("- ")
        };
        let sql = |block: &str| {
            let lines = block.lines().take_while(is_of_query).map(str::trim);
            lines.collect::<Vec<_>>().join(" ")
        };
        let mut queries: Vec<String> = blocks.map(sql).collect();
        queries.sort();
        queries
    };
    let of_one = queries("postgres_exporter.yml");
    assert_eq!(of_one.len(), 8, "{of_one:#?}");
    assert_eq!(of_one, queries("sql_exporter.yml"));
}

/// MISSION B3, C9: a live sale is scraped, and every query has an answer.
#[test]
fn every_query_of_the_board_and_of_the_alerts_has_an_answer() {
    let monitoring = Monitoring::new();
    let port = free_port();
    let cluster = Cluster::start(&[
        "shared_preload_libraries=pg_stock",
        "fsync=off",
        "listen_addresses='127.0.0.1'",
        &format!("port={port}"),
    ]);
    let name = cluster.database().name();
    let mut shop = cluster.connect(name);
    prepare(&mut shop);
    let address = format!("watcher@127.0.0.1:{port}/{name}?sslmode=disable");
    let ports = [free_port(), free_port(), free_port()];
    let _running = start(&monitoring, &address, ports);
    let [pg, sql, prometheus] = ports.map(|port| format!("http://127.0.0.1:{port}"));

    // Both exporters have the same metrics.
    let mut round = 0;
    let mut sold = |exporter: &str, prefix: &str| {
        eventually(exporter, || {
            round += 1;
            sell(&mut shop, round);
            metrics(exporter, prefix)
        })
    };
    let of_one = sold(&pg, "pg_stock_");
    let of_other = sold(&sql, "sql_pg_stock_");
    assert!(of_one.len() > 20, "{of_one:?}");
    let queries = |names: &BTreeSet<String>| -> BTreeSet<String> {
        names.iter().map(|name| name.split('_').take(3).collect::<Vec<_>>().join("_")).collect()
    };
    assert_eq!(queries(&of_one), queries(&of_other));

    // Prometheus evaluates.
    let rules = eventually("rules", || {
        let rules: Value =
            serde_json::from_str(&get(&format!("{prometheus}/api/v1/rules"))?).ok()?;
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        (rules.len() == 16).then_some(rules)
    });
    let of_alerts = rules.iter().map(|rule| base(rule["query"].as_str().expect("a query")));
    let of_board = board_queries(&monitoring.read("board.json"));
    for query in of_alerts.chain(of_board) {
        for job in ["pg_stock", "pg_stock_sql"] {
            let query = of_job(&query, job);
            eventually(&query, || {
                round += 1;
                sell(&mut shop, round);
                has_answer(&prometheus, &query).then_some(())
            });
        }
    }

    // What is wrong is seen as an alert, and its end, too.
    let state = |alert: &str| {
        let rules: Value =
            serde_json::from_str(&get(&format!("{prometheus}/api/v1/rules"))?).ok()?;
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        let rule = rules.iter().find(|rule| rule["name"] == alert)?.clone();
        rule["state"].as_str().map(str::to_owned)
    };
    let books = "PgStockBooksDisagree";
    eventually("the books were not verified yet", || (state(books)? == "pending").then_some(()));
    shop.batch_execute("SELECT stock.run_verification()").unwrap();
    eventually("they are right", || (state(books)? == "inactive").then_some(()));
}

/// A shop, and a role that may see its numbers alone.
fn prepare(shop: &mut Client) {
    shop.batch_execute(
        "CREATE ROLE watcher LOGIN; SELECT stock.grant_access('watcher', 'monitor');
         SELECT stock.receive_stock('r', 'hot', 'berlin', 1000000);
         SELECT stock.set_stock('s', 'none', 'berlin', 0, NULL);
         SELECT stock.reserve_stock('o', 'hot', 'berlin', 1, '1 ms')",
    )
    .expect("a shop");
    // The worker gives it back, and tells of it.
    let swept = "SELECT count(*) FROM stock.stat_worker WHERE holds_expired > 0 AND messages > 0";
    eventually("the worker", || {
        (shop.query_one(swept, &[]).ok()?.get::<_, i64>(0) == 1).then_some(())
    });
}

/// Some calls of each kind.
fn sell(shop: &mut Client, round: u32) {
    shop.batch_execute(&format!(
        "SELECT stock.try_sell_stock('k{round}', 'hot', 'berlin', 1);
         SELECT stock.try_reserve_stock('n{round}', 'none', 'berlin', 1);
         SELECT stock.try_reserve_stock('v{round}', 'hot', 'berlin', 1, NULL, NULL, 1);
         BEGIN; SELECT stock.try_reserve_stock('b{round}', 'hot', 'berlin', 1); ROLLBACK"
    ))
    .expect("a sale");
}

/// Starts both exporters and Prometheus on these ports.
fn start(monitoring: &Monitoring, address: &str, ports: [u16; 3]) -> [Running; 3] {
    let [pg, sql, prometheus] = ports;
    let sql_file = monitoring.with(
        "sql_exporter.yml",
        &[
            ("watcher@127.0.0.1:5432/shop?sslmode=disable", address.to_owned()),
            ("interval: 15s", "interval: 1s".to_owned()),
        ],
    );
    let configuration = monitoring.with(
        "prometheus.yml",
        &[
            ("127.0.0.1:9187", format!("127.0.0.1:{pg}")),
            ("127.0.0.1:9237", format!("127.0.0.1:{sql}")),
            ("_interval: 15s", "_interval: 1s".to_owned()),
            ("alerts.yml", monitoring.files.join("alerts.yml").display().to_string()),
        ],
    );
    let data = monitoring.folder.path().join("data");
    [
        monitoring.run(
            "prometheus-postgres-exporter",
            &[("DATA_SOURCE_NAME", &format!("postgresql://{address}"))],
            &[
                "--extend.query-path=postgres_exporter.yml".to_owned(),
                format!("--web.listen-address=127.0.0.1:{pg}"),
            ],
        ),
        monitoring.run(
            "prometheus-sql-exporter",
            &[],
            &[
                format!("-config.file={}", sql_file.display()),
                format!("-web.listen-address=127.0.0.1:{sql}"),
            ],
        ),
        monitoring.run(
            "prometheus",
            &[],
            &[
                format!("--config.file={}", configuration.display()),
                format!("--storage.tsdb.path={}", data.display()),
                format!("--web.listen-address=127.0.0.1:{prometheus}"),
            ],
        ),
    ]
}

/// The names of the metrics that an exporter shows, if they are all there.
fn metrics(exporter: &str, prefix: &str) -> Option<BTreeSet<String>> {
    let text = get(&format!("{exporter}/metrics"))?;
    let short = |name: &str| name.strip_prefix("sql_").unwrap_or(name).to_owned();
    let names: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with(prefix))
        .map(|line| short(line.split(['{', ' ']).next().unwrap_or_default()))
        .collect();
    let groups: BTreeSet<&str> = names.iter().filter_map(|name| name.split('_').nth(2)).collect();
    let wanted = ["alerts", "calls", "feed", "health", "hot", "latency", "stock", "worker"];
    wanted.iter().all(|group| groups.contains(group)).then_some(names)
}

/// What an alert compares, without the bound.
fn base(query: &str) -> String {
    let compared = [" == ", " > ", " < "].iter().filter_map(|sign| query.rfind(sign)).max();
    query[..compared.expect("an alert compares")].to_owned()
}

/// The queries of the panels, over half a minute.
fn board_queries(board: &str) -> Vec<String> {
    let board: Value = serde_json::from_str(board).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| target["expr"].as_str().expect("a query").replace("$__rate_interval", "30s"))
        .collect()
}

/// A query of what one job has scraped; shorter times, so that there is something to compare.
fn of_job(query: &str, job: &str) -> String {
    let query = query.replace("[5m]", "[30s]").replace("[15m]", "[30s]");
    let mut parts = query.split("pg_stock_").collect::<Vec<_>>().into_iter();
    let mut own = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end =
            part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let rest = match rest.strip_prefix('{') {
            Some(rest) => format!("{{job=\"{job}\",{rest}"),
            None => format!("{{job=\"{job}\"}}{rest}"),
        };
        own.push_str(&format!("pg_stock_{name}{rest}"));
    }
    own
}

fn has_answer(prometheus: &str, query: &str) -> bool {
    let url = format!("{prometheus}/api/v1/query");
    let Ok(mut response) = ureq::get(&url).query("query", query).call() else { return false };
    let text = response.body_mut().read_to_string().expect("an answer");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let rows = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
    rows.iter().any(|row| row["value"][1].as_str().is_some_and(|value| value != "NaN"))
}
