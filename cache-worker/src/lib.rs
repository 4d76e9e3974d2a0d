//! Keeps Redis or Valkey in step with the levels of pg_stock, and reads them there.
//!
//! Programs that read use [`read::Cache`]; the rest is the worker. A cache is for showing. Whether
//! something may be sold is decided by the database alone.
#![warn(missing_docs)]

pub mod check;
pub mod entry;
pub mod error;
pub mod feed;
pub mod layout;
pub mod message;
pub mod metrics;
pub mod options;
pub mod read;
pub mod scripts;
pub mod session;
pub mod store;
pub mod worker;
