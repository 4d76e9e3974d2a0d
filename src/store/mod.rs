//! Everything that reads and writes the tables.
//!
//! | room | what it does |
//! |---|---|
//! | `run` | the one path: a call in three tries |
//! | `load` | reads what a decision needs |
//! | `write` | stores what a decision changes |
//! | `expire` | the sweep: gives overdue holds back |
//! | `pay` | gives what has come to those who wait, where one call could not |
//! | `reads` | what callers ask without changing anything |
//! | `sound` | a batch of which some requests meet damaged tables |
//! | `import` | a batch of rows, of which some cannot be carried out |
//! | `access` | what is done with the tables, verb by verb, either directly or by a statement |
//! | `rows` | the tables, each said once |
//! | `direct` | the way to the tables without SQL |
//! | `sql` | the statements |
//! | `spoil` | books lots past their time |
//! | `lots` | what is done with the tables of lots |
//! | `planner` | plans that stay right, whatever is known of the tables |
//! | `datum` | values on their way between Rust and PostgreSQL |
//! | `clock` | the one clock that decides |
//! | `notify` | what a transaction tells of itself, and the channels |
//! | `crowd` | which levels others wanted a moment ago |
//! | `subtransaction` | undo inside a transaction |
//! | `setback` | why a call could not be stored |

mod access;
mod clock;
mod crowd;
pub mod datum;
mod direct;
mod expire;
mod import;
mod load;
mod lots;
pub mod notify;
mod pay;
mod planner;
mod reads;
pub mod rows;
mod run;
mod setback;
mod sound;
mod spoil;
pub mod sql;
pub mod subtransaction;
mod write;

pub use access::names;
pub use clock::now;
pub use expire::{expire, forget, is_restoring, is_subscribed};
pub use import::import;
pub use pay::pay;
pub use reads::{LIBRARY_VERSION, available, installed_version, standing, standings};
pub use run::run;
pub use sound::run_what_is_sound;
pub use spoil::spoil;

/// Registers what PostgreSQL calls back; once, when the library is loaded.
pub fn register() {
    planner::register();
    direct::register();
}
