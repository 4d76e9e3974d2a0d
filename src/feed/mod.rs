//! The change feed: the ledger is the outbox, snapshots are the cursor.
//!
//! Each ledger row names the transaction that wrote it. What is new to a listener are the rows of
//! transactions that are visible in the snapshot of now and were not in that of its cursor: the
//! algorithm of PgQ. Positions come from a sequence, and a later one may commit first; "everything
//! before the oldest running transaction" would wait for any forgotten transaction of any database.
//! So the rows of the transactions that began since are read by one range of `ledger_xact`, and
//! those of the few that were running, one by one; a long transaction costs a look-up. The answer
//! is cut at whole transactions, in the order of their numbers, and the cut is a snapshot again
//! (`Window::before`): a cursor needs nothing else, and a property test follows random lives of
//! transactions through it.
//!
//! - **Own transaction.** In one's own snapshot one's own transaction can look ended, once a later
//!   one has. So the feed is refused in a transaction that has written, and where it writes itself
//!   (the first snapshot begins the generation) its number is put among the running.
//! - **Durable.** A cursor promises that no number before its end is used again. A crash that loses
//!   an asynchronous commit of anybody would break that: the log is flushed after the snapshot was
//!   taken and before it answers. The emitter's commit does the same: it writes its position. The
//!   worker looks for news in one transaction, waits for disk and standbys while it holds nothing
//!   (a second at most, then it says so and tries again), and tells in another, which commits
//!   locally: a commit that carries a NOTIFY holds a lock of the whole cluster, and must not wait
//!   for a standby with it.
//! - **Generation.** Cursors name the life of the database: system identifier, timeline (of the log
//!   that is being written, for the control file lags behind a promotion), database. A new one
//!   begins by itself where one of these differs. Its name follows from the place, so that a reader
//!   who must not write, or may stay in his transaction, gets a cursor before it has begun; it then
//!   tells of the last thousand rows again (not where a restore brought along higher numbers of
//!   transactions; `changes_since` is complete in any case). Rows that a restore brought along
//!   carry numbers of elsewhere; a generation knows its first position and first transaction, and
//!   passes over rows below the one and above the other. (Therefore a ledger row takes its
//!   transaction's number before its position.)
//! - **One version, one value.** `available` in the feed follows from the counters alone. Overdue
//!   holds are added when they are given back; else two readers of one version would disagree.
//! - **Waking.** A backend that commits a change sets a mark in shared memory, and only who sets it
//!   first wakes the worker: one signal for each emission, not for each sale. The worker takes the
//!   mark, then looks. COMMIT PREPARED sets no mark; the worker looks every second.
//! - **Alerts** compare a level with what was announced of it (`stock.alert`), not with its last
//!   value: none is lost with a failed emission, none comes twice. The first emission of a
//!   generation compares all levels.
//! - **Restore.** While the ledger's sequence was never called no generation begins: a dump sets it
//!   last. A cursor from then names none, and is good for nothing once something has happened.
//! - **Failures.** An emission that fails (the queue of notifications is full) is undone, noted in
//!   `stock.feed`, and tried again; the same process goes on sweeping. It waits for a lock for 0.1
//!   s only: somebody may read or send the feed in a transaction and leave it open. Expiry and
//!   emission never share a transaction.
//!
//! | room | what it does |
//! |---|---|
//! | `moment` | whether the feed may be looked at now, and what this moment sees |
//! | `generation` | the life of the database that cursors belong to |
//! | `levels` | levels, as the feed tells of them |
//! | `changes` | what came to be seen between two snapshots |
//! | `pull` | answers a listener who catches up |
//! | `emit` | tells by NOTIFY |

mod changes;
mod emit;
mod generation;
mod levels;
mod moment;
mod pull;

pub use emit::{emit, look, note_failure, tell};
pub use generation::begin as begin_generation;
pub use levels::LevelRow;
pub use pull::{Page, changes_since, snapshot};
