//! The change feed: what a listener has seen, what it has missed, and how it is told.
//!
//! The ledger is the outbox. Each of its rows names the transaction that wrote it, and a row is new
//! to a listener if that transaction is visible now and was not visible when the listener looked
//! last: the difference of two snapshots. A counter could not serve as the cursor, because
//! transactions commit in another order than they write.
//!
//! | room | what it holds |
//! |---|---|
//! | [`snapshot`] | which transactions a moment could see, and the difference of two moments |
//! | [`cursor`] | the text in which a listener keeps a snapshot |
//! | [`alert`] | when a level is sold out or has fallen below its safety stock |
//! | [`message`] | the JSON that NOTIFY carries |

pub mod alert;
pub mod cursor;
pub mod message;
pub mod snapshot;

pub use alert::Alert;
pub use cursor::Cursor;
pub use snapshot::{Snapshot, Window, Xid};
