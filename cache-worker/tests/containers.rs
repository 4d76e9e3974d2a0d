//! Database, Redis and worker on machines of their own, as far as containers are: each is cut off,
//! and killed.
//!
//! Needs a Docker engine, and a base image of Debian 12 (`PG_STOCK_BASE_IMAGE`, `debian:bookworm`
//! unless it says otherwise): `make test-cache` sees to it.

use std::process::Command;

use pg_stock_tests::pg_config;
use postgres::{Client, NoTls};
use redis::{Connection, RedisResult};
use testcontainers::core::{BuildImageOptions, ContainerRequest, IntoContainerPort};
use testcontainers::runners::{SyncBuilder, SyncRunner};
use testcontainers::{Container, GenericBuildableImage, GenericImage, ImageExt};

use super::support::shop::{in_cache, in_database, layout, sell};
use super::support::{eventually, report};

const DOCKERFILE: &str = include_str!("support/Dockerfile");
const DATABASE: &str = include_str!("support/database.sh");

/// What all machines are made from.
fn base() -> String {
    std::env::var("PG_STOCK_BASE_IMAGE").unwrap_or_else(|_| "debian:bookworm".into())
}

/// Builds an image with everything in it. It is kept, for the next time.
fn image() -> GenericImage {
    let mut image = GenericBuildableImage::new("pg_stock_cache_test", "latest")
        .with_dockerfile_string(DOCKERFILE)
        .with_file(format!("{}/pg_stock.so", pg_config("--pkglibdir")), "./pg_stock.so")
        .with_file(env!("CARGO_BIN_EXE_pg-stock-cache"), "./pg-stock-cache");
    let extension = format!("{}/extension", pg_config("--sharedir"));
    for file in std::fs::read_dir(&extension).expect("the extension").map_while(Result::ok) {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("pg_stock") {
            image = image.with_file(file.path(), format!("./extension/{name}"));
        }
    }
    let options = BuildImageOptions::new().with_build_arg("BASE", base());
    image.build_image_with(options).expect("an image")
}

/// The three machines.
struct Machines {
    network: String,
    database: Container<GenericImage>,
    redis: Container<GenericImage>,
    worker: Container<GenericImage>,
}

impl Machines {
    fn start() -> Machines {
        let network = format!("pg_stock_{}", std::process::id());
        let image = image();
        let machine = |name: &str, command: &[&str]| -> ContainerRequest<GenericImage> {
            let name = format!("{network}_{name}");
            image
                .clone()
                .with_cmd(command.iter().copied())
                .with_network(&network)
                .with_container_name(name)
        };
        let start = |machine: ContainerRequest<GenericImage>| machine.start().expect("a container");
        let database =
            start(machine("database", &["bash", "-c", DATABASE]).with_mapped_port(0, 5432.tcp()));
        let redis =
            ["redis-server", "--appendonly", "yes", "--protected-mode", "no", "--dir", "/tmp"];
        let redis = start(machine("redis", &redis).with_mapped_port(0, 6379.tcp()));
        let worker = start(
            machine(
                "worker",
                &[
                    "pg-stock-cache",
                    "--heartbeat",
                    "300ms",
                    "--time-limit",
                    "1s",
                    "--pause-max",
                    "500ms",
                ],
            )
            .with_env_var(
                "PG_STOCK_CACHE_DATABASE",
                format!("host={network}_database user=cache dbname=postgres"),
            )
            .with_env_var("PG_STOCK_CACHE_REDIS", format!("redis://{network}_redis")),
        );
        Machines { network, database, redis, worker }
    }

    /// A connection to the database, once it answers.
    fn client(&self) -> Client {
        let mut client = None;
        eventually("the database answers", || {
            let port = self.database.get_host_port_ipv4(5432).unwrap_or(0);
            let address = format!(
                "host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=2"
            );
            client = Client::connect(&address, NoTls).ok().filter(|client| !client.is_closed());
            client.is_some()
        });
        client.expect("a connection")
    }

    /// A connection to Redis.
    fn redis(&self) -> RedisResult<Connection> {
        let port = self.redis.get_host_port_ipv4(6379).unwrap_or(0);
        redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_connection()
    }

    /// Waits until the cache equals the database, and says that it is in step.
    fn in_step(&self, disaster: &str) {
        let database = in_database(&mut self.client());
        let mut since = None;
        let took = eventually("the cache is in step", || {
            let Ok(mut redis) = self.redis() else { return false };
            let Ok((seconds, _)) = redis::cmd("TIME").query::<(i64, i64)>(&mut redis) else {
                return false;
            };
            let since = *since.get_or_insert((seconds + 1) * 1_000);
            let at = redis::cmd("GET").arg(layout().in_step()).query::<Option<i64>>(&mut redis);
            at.is_ok_and(|at| at.is_some_and(|at| at >= since))
                && in_cache(&mut redis).is_ok_and(|cache| cache == database)
        });
        report(disaster, took);
    }

    fn sell(&self) {
        let mut client = self.client();
        (0..20).for_each(|nth| sell(&mut client, &format!("s{nth}")));
    }

    /// Cuts a machine off the network of the others, sells, and lets it back.
    fn cut_off(&self, machine: &Container<GenericImage>, name: &str) {
        docker(&["network", "disconnect", &self.network, machine.id()]);
        // What cannot be reached cannot be sold from.
        if name != "the database" {
            self.sell();
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
        docker(&["network", "connect", &self.network, machine.id()]);
        self.sell();
        self.in_step(&format!("{name} was on the network again"));
    }

    /// Kills a machine, and starts it again.
    fn kill(&self, machine: &Container<GenericImage>, name: &str) {
        docker(&["kill", machine.id()]);
        if name != "the database" {
            self.sell();
        }
        docker(&["start", machine.id()]);
        self.sell();
        self.in_step(&format!("the machine of {name} was started again"));
    }
}

/// Runs a command of Docker.
fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().expect("docker");
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn each_machine_is_cut_off_and_killed() {
    let machines = Machines::start();
    let mut client = machines.client();
    let sql = "CREATE EXTENSION pg_stock; CREATE ROLE cache LOGIN;
               SELECT stock.grant_access('cache', 'read');
        SELECT count(*) FROM generate_series(0, 999) i, LATERAL stock.receive_stock('stock ' || i,
        's' || i, 'main', 1000)";
    client.batch_execute(sql).expect("goods");
    machines.in_step("everything was started");
    machines.cut_off(&machines.worker, "the worker");
    machines.cut_off(&machines.redis, "Redis");
    machines.cut_off(&machines.database, "the database");
    machines.kill(&machines.worker, "the worker");
    machines.kill(&machines.redis, "Redis");
    machines.kill(&machines.database, "the database");
}
