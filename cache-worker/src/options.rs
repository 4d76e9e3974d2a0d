//! What the user may choose.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tokio_postgres::Config;

use crate::error::with_cause;
use crate::layout::Layout;

/// Keeps Redis or Valkey in step with the stock levels of PostgreSQL.
///
/// Durations are written as 500ms, 5s, 10m, 24h.
#[derive(Clone, Debug, Parser)]
#[command(name = "pg-stock-cache", version, args_override_self = true)]
pub struct Options {
    /// The database: postgresql://user@host/database, or 'host=/run/postgresql user=cache
    /// dbname=shop'
    #[arg(long, env = "PG_STOCK_CACHE_DATABASE", hide_env_values = true)]
    #[arg(value_name = "CONNECTION", value_parser = connection)]
    pub database: Config,

    /// Redis or Valkey: redis://user:password@host:6379/0, or redis+unix:///run/redis/redis.sock
    #[arg(long, env = "PG_STOCK_CACHE_REDIS", hide_env_values = true)]
    #[arg(value_name = "URL", value_parser = redis_info)]
    pub redis: redis::ConnectionInfo,

    /// How the keys in Redis begin
    #[arg(long, default_value = "stock", value_name = "PREFIX")]
    pub key_prefix: Layout,

    /// How the channels in PostgreSQL begin; as pg_stock.channel_prefix there
    #[arg(long, default_value = "stock", value_name = "PREFIX")]
    pub channel_prefix: String,

    /// Take notifications for a wake-up only, and ask the database what changed: where others may
    /// send them, too
    #[arg(long)]
    pub only_wake: bool,

    /// How often the database is asked for changes, whatever was announced, and in_step is written
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub heartbeat: Duration,

    /// How long one call to either side may take
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub time_limit: Duration,

    /// How long one page may take while catching up and rebuilding
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub catch_up_limit: Duration,

    /// The longest pause between two attempts to begin anew
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub pause_max: Duration,

    /// How long an entry lives that is neither changed nor checked
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub entry_ttl: Duration,

    /// How often a sample of the cache is compared with the database
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub check_every: Duration,

    /// How many of the levels are in the sample, in percent; half of them are the most changed ones
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT", value_parser = percent)]
    pub check_percent: f64,

    /// If more than this is wrong, in percent, the cache is rebuilt; else each wrong entry is put
    /// right
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT", value_parser = percent)]
    pub wrong_percent: f64,

    /// How long after the database the cache is read
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = duration)]
    pub check_grace: Duration,

    /// Serve metrics in Prometheus's format over HTTP at this address, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_address: Option<SocketAddr>,

    /// Get in step, then end
    #[arg(long)]
    pub once: bool,

    /// Get in step, check a sample at once, put right what is wrong, print what was found, then
    /// end; 1 if something was
    #[arg(long, conflicts_with = "once")]
    pub check_now: bool,
}

/// What could never be connected to is a mistake at once.
fn connection(text: &str) -> Result<Config, String> {
    let config: Config = text.parse().map_err(|error| with_cause(&error))?;
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let (ports, all) = (config.get_ports().len(), hosts.max(addresses));
    if all == 0 {
        return Err("it must name a host".into());
    }
    if hosts.min(addresses) > 0 && hosts != addresses {
        return Err("it must have as many hostaddr as host".into());
    }
    if ports > 1 && ports != all {
        return Err("it must have one port, or as many as hosts".into());
    }
    Ok(config)
}

fn redis_info(url: &str) -> Result<redis::ConnectionInfo, redis::RedisError> {
    redis::IntoConnectionInfo::into_connection_info(url)
}

/// More than nothing: a pause of nothing would never end.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) {
        Err("it must be 1ms or more".into())
    } else {
        Ok(duration)
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err("it must be from 0 to 100".into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{CommandFactory, Parser};

    use super::Options;

    const README: &str = include_str!("../README.md");

    #[test]
    fn the_options_are_sound() {
        Options::command().debug_assert();
    }

    /// The words in backticks of a cell.
    fn quoted(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    /// The options in the table of the README: variable and default of each.
    fn documented() -> BTreeMap<String, (Option<String>, Option<String>)> {
        let mut options = BTreeMap::new();
        for row in README.lines().filter(|line| line.starts_with("| `--")) {
            let cells: Vec<&str> = row.split('|').collect();
            let (names, defaults) = (quoted(cells[1]), quoted(cells[2]));
            let (options_of_row, variables): (Vec<&str>, Vec<&str>) =
                names.into_iter().partition(|name| name.starts_with("--"));
            for (nth, name) in options_of_row.into_iter().enumerate() {
                let text = |texts: &[&str], nth| texts.get(nth).map(|&text: &&str| text.to_owned());
                let name = name.trim_start_matches("--").to_owned();
                options.insert(name, (text(&variables, 0), text(&defaults, nth)));
            }
        }
        options
    }

    #[test]
    fn the_table_of_the_readme_has_all_options_and_their_defaults() {
        let command = Options::command();
        let mut options = BTreeMap::new();
        for option in command.get_arguments() {
            let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            // A flag has a default that nobody writes.
            let values = option.get_action().takes_values().then(|| option.get_default_values());
            let default = values.and_then(|values| values.first()).map(|value| text(value));
            let name = option.get_long().expect("a name").to_owned();
            options.insert(name, (option.get_env().map(text), default));
        }
        // These are not in the table, but in the commands above it.
        for name in ["once", "check-now"] {
            assert!(options.remove(name).is_some());
            assert!(README.contains(&format!("    pg-stock-cache --{name} ")), "{name}");
        }
        assert_eq!(options, documented());
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |args: &[&str]| {
            let right = ["pg-stock-cache", "--database", "host=h user=u", "--redis", "redis://h"];
            Options::try_parse_from(right.iter().chain(args))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(parse(&[]), Ok(()));
        assert!(parse(&["--heartbeat", "0s"]).is_err_and(|text| text.contains("1ms or more")));
        assert!(
            parse(&["--check-percent", "101"]).is_err_and(|text| text.contains("from 0 to 100"))
        );
        assert!(parse(&["--key-prefix", "a:b"]).is_err_and(|text| text.contains("a prefix has")));
        assert!(parse(&["--redis", "http://h"]).is_err());
        let of_database = |text: &str, error: &str| {
            assert!(parse(&["--database", text]).is_err_and(|told| told.contains(error)), "{text}");
        };
        of_database("no=such", "unknown option");
        of_database("dbname=shop", "a host");
        of_database("postgresql:///shop", "a host");
        of_database("host=a,b port=1,2,3", "one port");
        of_database("host=a,b hostaddr=10.0.0.1", "as many hostaddr");
    }
}
