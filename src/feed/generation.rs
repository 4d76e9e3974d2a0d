//! The life of the database that cursors belong to.
//!
//! After a failover, a restore, or in a copy, transaction numbers are used again: what a cursor
//! says of them is then false. So a cursor names its generation, and a generation the place where
//! it began: the cluster, its timeline, the database. In another place another generation begins.

use pg_stock_core::feed::{Snapshot, Xid};
use pgrx::pg_sys;
use pgrx::spi::SpiResult;

use super::moment;
use crate::error::Error;
use crate::settings;
use crate::standby;
use crate::store::datum::{Row, Value, flag, int, word};
use crate::store::sql;
use crate::store::sql::Statement;
use crate::store::subtransaction::{self, Caught};

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

/// In place of a name: nothing has happened in the database yet, or its data is still being
/// restored. A cursor of it is good until something has happened.
pub const NONE: &str = "00000000-0000-0000-0000-000000000000";

/// A generation that begins tells of so many of the last ledger rows again: nobody misses the first
/// changes.
const TOLD_AGAIN_ROWS: i64 = 1_000;
/// How long a reader waits for somebody who is beginning a generation.
const LOCK_WAIT_MAX_MS: i32 = 100;

impl Generation {
    /// The one that this life of the database has begun, if it has.
    pub fn current() -> Result<Option<Generation>, Error> {
        Generation::read(&sql::GENERATION)
    }

    /// The same, locked until the transaction ends.
    pub fn lock() -> Result<Option<Generation>, Error> {
        Generation::read(&sql::LOCK_GENERATION)
    }

    /// The current one, begun if there is none; `None` while nothing has happened yet, or the data
    /// is being restored (a dump sets the ledger's sequence last): what is then there would belong
    /// to no generation.
    pub fn current_or_new() -> Result<Option<Generation>, Error> {
        if let Some(generation) = Generation::current()? {
            return Ok(Some(generation));
        }
        if last_position()? == 0 {
            return Ok(None);
        }
        Generation::begin(Beginning::IfNone)?;
        Generation::current()
    }

    fn begin(how: Beginning) -> Result<(), Error> {
        let anew = how == Beginning::Anew;
        // First the position, then the number of this transaction: rows of later transactions have
        // later positions.
        let last = last_position()?;
        let sent = if anew && last > TOLD_AGAIN_ROWS { moment::now()? } else { recently(last)? }
            .to_string();
        let [system, timeline, database] = place();
        let name = (!anew).then(Generation::to_begin);
        let name = name.as_deref().and_then(word);
        sql::BEGIN_GENERATION.execute(&[
            system,
            timeline,
            database,
            int(last),
            word(&sent),
            flag(anew),
            name,
        ])?;
        Ok(())
    }

    /// Begins one for a reader, who waits for nobody and in whose way nobody is to be: not in a
    /// transaction that may stay open, and not where somebody else is just beginning one.
    pub fn begin_if_free() -> Result<(), Error> {
        // SAFETY: asks for the state of the transaction.
        if unsafe { pg_sys::IsTransactionBlock() || pg_sys::XactReadOnly } {
            return Ok(());
        }
        let is_taken = |sqlstate: &str| sqlstate == "55P03";
        let begun: Result<(), Setback> = subtransaction::attempt(is_taken, || {
            settings::limit_lock_waits(LOCK_WAIT_MAX_MS);
            Ok(Generation::begin(Beginning::IfNone)?)
        });
        match begun {
            Ok(()) | Err(Setback::Taken) => Ok(()),
            Err(Setback::Failed(error)) => Err(error),
        }
    }

    /// The name of the generation that begins in this life of the database, unless it is begun
    /// anew: it follows from the place, so that a cursor can be given out before it has begun.
    pub fn to_begin() -> String {
        let [system, timeline, database] = coordinates();
        let low = (database << 32 | u64::from(own_table())) ^ (timeline << 16);
        let digits = format!("{system:016x}{low:016x}");
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }

    /// One that has not begun, though cursors of it were given out.
    pub fn not_begun() -> Generation {
        let id = Generation::to_begin();
        Generation {
            id,
            sent: Snapshot::beginning(),
            sequence: 0,
            first_position: 0,
            first_xact: 0,
        }
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
        statement
            .query(&place(), generation)?
            .pop()
            .map(|row| row.ok_or_else(unreadable))
            .transpose()
    }

    /// False for what was written in an earlier life, and restored: its transaction's number says
    /// nothing here.
    pub fn counts(&self, position: i64, xact: Xid) -> bool {
        position > self.first_position || xact < self.first_xact
    }
}

/// Begins a new generation, whatever there was: all cursors become invalid. Gives its name.
pub fn begin() -> Result<String, Error> {
    standby::refuse_changes()?;
    moment::check()?;
    Generation::begin(Beginning::Anew)?;
    Ok(Generation::current()?.map_or_else(|| NONE.to_owned(), |generation| generation.id))
}

/// The last position of the ledger that was handed out; 0 if none was.
pub fn last_position() -> SpiResult<i64> {
    Ok(sql::LAST_POSITION.query(&[], |row| row.int(0))?.pop().unwrap_or(0))
}

/// What a generation that begins may take for told: all but the last changes. Cursors may have been
/// given out a moment before it begins, and who waits for messages would miss what came in between.
fn recently(last: i64) -> Result<Snapshot, Error> {
    let now = moment::now()?;
    if last <= TOLD_AGAIN_ROWS {
        return Ok(Snapshot::beginning());
    }
    let recent = sql::RECENT_XACT.query(&[int(TOLD_AGAIN_ROWS)], |row| row.int(0) as Xid)?.pop();
    // Numbers that a restore brought along may lie ahead of this database.
    let before =
        recent.filter(|xact| *xact < now.oldest()).and_then(|xact| Snapshot::new(xact, Vec::new()));
    Ok(before.unwrap_or(now))
}

/// When a generation begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// Unless somebody else has begun one for this life meanwhile.
    IfNone,
    /// In any case.
    Anew,
}

/// Why a generation did not begin.
enum Setback {
    /// Somebody else is beginning it.
    Taken,
    Failed(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Setback::Failed(error)
    }
}

impl From<Caught> for Setback {
    fn from(_: Caught) -> Self {
        Setback::Taken
    }
}

/// Cluster, timeline, database.
fn place() -> [Value; 3] {
    let [system, timeline, database] = coordinates();
    [int(system as i64), int(timeline as i64), int(database as i64)]
}

/// Cluster, timeline, database.
fn coordinates() -> [u64; 3] {
    // SAFETY: asks for constants of the cluster and of the backend, outside recovery.
    unsafe {
        [
            pg_sys::GetSystemIdentifier(),
            // Not that of the control file, which lags behind after a promotion.
            u64::from(pg_sys::GetWALInsertionTimeLine()),
            u64::from(pg_sys::MyDatabaseId.to_u32()),
        ]
    }
}

/// The oid of stock.feed, which is another one after the extension was dropped and created again.
fn own_table() -> u32 {
    // SAFETY: looks names up.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"stock".as_ptr(), true);
        pg_sys::get_relname_relid(c"feed".as_ptr(), schema).to_u32()
    }
}
