//! What the tests from outside and the benchmark share: a private throwaway PostgreSQL, and the invariants in SQL.
#![warn(missing_docs)]

pub mod cluster;
pub mod invariants;

pub use cluster::{Cluster, Database};
