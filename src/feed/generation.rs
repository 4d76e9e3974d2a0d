//! The life of the database that cursors belong to.
//!
//! After a failover, a restore, or in a copy, transaction numbers are used again: what a cursor says of them is then
//! false. So a cursor names its generation, and a generation the place where it began: the cluster, its timeline, the
//! database. In another place another generation begins.

use pg_stock_core::feed::{Snapshot, Xid};
use pgrx::pg_sys;
use pgrx::spi::SpiResult;

use super::changes::Change;
use crate::error::Error;
use crate::store::datum::{Argument, Row, flag, int, opt_text};
use crate::store::sql;
use crate::store::statement::{Statement, execute, query};

/// A generation, and how far it was sent.
pub struct Generation {
    /// Its name.
    pub id: String,
    /// Changes of transactions that this snapshot sees were sent.
    pub sent: Snapshot,
    /// The number of the last emission.
    pub sequence: i64,
    first_position: i64,
    first_xact: Xid,
}

/// In place of a name: nothing has happened in the database yet, or its data is still being restored. A cursor of it is
/// good until something has happened.
pub const NONE: &str = "00000000-0000-0000-0000-000000000000";

/// A generation that begins with no more ledger rows than this tells of all of them: nobody misses the first change.
const FEW: i64 = 1_000;

impl Generation {
    /// The one that this life of the database has begun, if it has.
    pub fn current() -> Result<Option<Generation>, Error> {
        Generation::read(&sql::GENERATION)
    }

    /// The same, locked until the transaction ends.
    pub fn lock() -> Result<Option<Generation>, Error> {
        Generation::read(&sql::LOCK_GENERATION)
    }

    /// The current one, begun if there is none; `None` while nothing has happened yet, or the data is being restored
    /// (a dump sets the ledger's sequence last): what is then there would belong to no generation.
    pub fn current_or_new() -> Result<Option<Generation>, Error> {
        if let Some(generation) = Generation::current()? {
            return Ok(Some(generation));
        }
        if last_position()? == 0 {
            return Ok(None);
        }
        Generation::begin(false)?;
        Generation::current()
    }

    /// Begins one, unless somebody else has begun one for this life meanwhile, or `anew` in any case.
    fn begin(anew: bool) -> SpiResult<()> {
        // First the position, then the number of this transaction: rows of later transactions have later positions.
        let last = last_position()?;
        let sent = (last <= FEW).then(|| Snapshot::beginning().to_string());
        let [system, timeline, database] = place();
        let args = [system, timeline, database, int(last), opt_text(sent.as_deref().map(str::as_bytes)), flag(anew)];
        execute(&sql::BEGIN_GENERATION, &args).map(|_| ())
    }

    fn read(statement: &Statement) -> Result<Option<Generation>, Error> {
        let generation = |row: Row<'_>| {
            Some(Generation {
                id: row.name(0).to_string(),
                sent: Snapshot::parse(&row.name(3).to_string())?,
                sequence: row.int(4),
                first_position: row.int(1),
                first_xact: row.int(2) as Xid,
            })
        };
        let unreadable = || Error::Corrupted("the snapshot in stock.feed cannot be read".into());
        query(statement, &place(), generation)?.pop().map(|row| row.ok_or_else(unreadable)).transpose()
    }

    /// False for what was written in an earlier life, and restored: its transaction's number says nothing here.
    pub fn counts(&self, change: &Change) -> bool {
        change.position > self.first_position || change.xact < self.first_xact
    }
}

/// Begins a new generation, whatever there was: all cursors become invalid. Gives its name.
pub fn begin() -> Result<String, Error> {
    super::check_moment()?;
    Generation::begin(true)?;
    Ok(Generation::current()?.map_or_else(|| NONE.to_owned(), |generation| generation.id))
}

/// The last position of the ledger that was handed out; 0 if none was.
fn last_position() -> SpiResult<i64> {
    Ok(query(&sql::LAST_POSITION, &[], |row| row.int(0))?.pop().unwrap_or(0))
}

/// Cluster, timeline, database.
fn place() -> [Argument; 3] {
    // SAFETY: asks for constants of the cluster and of the backend, outside recovery.
    unsafe {
        [
            int(pg_sys::GetSystemIdentifier() as i64),
            // Not that of the control file, which lags behind after a promotion.
            int(i64::from(pg_sys::GetWALInsertionTimeLine())),
            int(i64::from(pg_sys::MyDatabaseId.to_u32())),
        ]
    }
}
