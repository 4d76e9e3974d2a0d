//! pg_stock: stock that cannot be oversold, enforced by PostgreSQL.
//!
//! This file holds names only. A call goes `api` -> `store` (load) -> `pg_stock_core` (decide) ->
//! `store` (write).
//!
//! | room | what it does |
//! |---|---|
//! | `api` | the functions that SQL calls: arguments in, rows out |
//! | `store` | loads the facts, asks for a decision, stores its effects |
//! | `early` | lets go of locks before the commit is flushed |
//! | `durable` | nothing is told before it is on disk |
//! | `citus` | what Citus says of a table and of a transaction, where it is loaded |
//! | `standby` | what this server shows of the log |
//! | `shared` | shared memory |
//! | `board` | what backends and workers tell each other, in shared memory |
//! | `stat` | what is counted of calls, and of the worker |
//! | `latch` | sleep that anything may end |
//! | `memory` | gives memory back after large work |
//! | `feed` | what changed, for those who listen |
//! | `worker` | the background worker that expires holds and sends the feed |
//! | `settings` | the settings `pg_stock.*` |
//! | `error` | how a fault becomes a PostgreSQL error |
//! | `fields` | errors of PostgreSQL keep all their fields on their way through Rust |
//!
//! The SQL face stands in `sql/`: tables.sql, history.sql, functions.sql, views.sql, verify.sql,
//! maintenance.sql, feed.sql, standby.sql, import.sql, stat.sql, health.sql, reconcile.sql,
//! archive.sql, repair.sql, privacy.sql, grants.sql.

mod api;
mod board;
mod citus;
mod durable;
mod early;
mod error;
mod feed;
mod fields;
mod latch;
mod memory;
mod settings;
mod shared;
mod standby;
mod stat;
mod store;
mod worker;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/history.sql", name = "history", requires = ["tables"]);
extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["history"]);
extension_sql_file!("../sql/views.sql", name = "views", requires = ["functions"]);
extension_sql_file!("../sql/verify.sql", name = "verify", requires = ["views"]);
extension_sql_file!("../sql/maintenance.sql", name = "maintenance", requires = ["verify"]);
extension_sql_file!("../sql/feed.sql", name = "feed", requires = ["maintenance"]);
extension_sql_file!("../sql/standby.sql", name = "standby", requires = ["feed"]);
extension_sql_file!("../sql/import.sql", name = "import", requires = ["standby"]);
extension_sql_file!("../sql/stat.sql", name = "stat", requires = ["import"]);
extension_sql_file!("../sql/health.sql", name = "health", requires = ["stat"]);
extension_sql_file!("../sql/reconcile.sql", name = "reconcile", requires = ["health"]);
extension_sql_file!("../sql/archive.sql", name = "archive", requires = ["reconcile"]);
extension_sql_file!("../sql/repair.sql", name = "repair", requires = ["archive"]);
extension_sql_file!("../sql/privacy.sql", name = "privacy", requires = ["repair"]);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Runs once in each backend, when PostgreSQL loads the library.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    error::keep_backtraces_to_ourselves();
    settings::define();
    store::register();
    board::hook();
    early::hook();
    memory::register();
    stat::register();
    worker::register();
}

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/mod.rs"]
mod pgrx_tests;

/// The test framework asks for this module at the root of the crate.
#[cfg(test)]
pub mod pg_test {
    /// Nothing to prepare.
    pub fn setup(_options: Vec<&str>) {}

    /// No settings beyond PostgreSQL's own.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        // Tests let holds lapse at once.
        vec!["pg_stock.min_ttl = 0"]
    }
}
