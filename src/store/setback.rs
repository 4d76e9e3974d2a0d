//! Why a call could not be stored, or was answered otherwise.

use pg_stock_core::{Answer, Fault};
use pgrx::spi::SpiError;

use super::subtransaction;
use crate::error::Error;

/// Why a store did not happen.
pub enum Setback {
    /// Another connection used the key or created the level: read again with a new snapshot.
    Outrun,
    /// The decision, made under the locks, changes nothing.
    Settled(Vec<Answer>),
    /// PostgreSQL raised an error that was expected.
    Caught(subtransaction::Caught),
    /// The call cannot be answered.
    Failed(Error),
}

impl From<subtransaction::Caught> for Setback {
    fn from(caught: subtransaction::Caught) -> Self {
        Setback::Caught(caught)
    }
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Setback::Failed(error)
    }
}

impl From<SpiError> for Setback {
    fn from(error: SpiError) -> Self {
        Setback::Failed(error.into())
    }
}

impl From<Fault> for Setback {
    fn from(fault: Fault) -> Self {
        Setback::Failed(fault.into())
    }
}
