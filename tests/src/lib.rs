//! What the tests from outside and the benchmark share: a private throwaway PostgreSQL and Redis,
//! and the invariants in SQL.
#![warn(missing_docs)]

pub mod cluster;
pub mod invariants;
pub mod redis;

pub use cluster::{Cluster, Database, pg_config};
pub use redis::Redis;
