//! The scripts that Redis runs: each is one indivisible step.

use std::sync::LazyLock;

use redis::Script;

/// A script that uses the version check.
fn checked(code: &str) -> Script {
    Script::new(&format!("{}\n{code}", include_str!("lua/newer.lua")))
}

/// Writes entries and moves the cursor.
pub static WRITE: LazyLock<Script> = LazyLock::new(|| checked(include_str!("lua/write.lua")));
/// Begins a rebuild.
pub static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/begin.lua")));
/// Removes entries of older epochs.
pub static SWEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/sweep.lua")));
/// Ends a rebuild.
pub static COMPLETE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/complete.lua")));
/// Reads an entry, or hands out a lease.
pub static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/read.lua")));
/// Fills in what a reader found in the database.
pub static FILL: LazyLock<Script> = LazyLock::new(|| checked(include_str!("lua/fill.lua")));
