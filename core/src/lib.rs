//! The decisions of pg_stock.
//!
//! Requests and facts go in; answers and effects come out. Nothing in here knows PostgreSQL, reads
//! a clock or touches a table: the extension loads the facts, asks [`decide()`], and stores the
//! effects.
//!
//! | room | what it holds |
//! |---|---|
//! | [`name`], [`limits`], [`fault`] | the values a caller may send, and how a bad one is refused |
//! | [`moment`] | moments as text |
//! | [`request`], [`parse`] | what a caller asks, and how it is read from JSON |
//! | [`facts`] | what the database knows: levels, holds, ledger entries |
//! | [`units`] | units of lots |
//! | [`standing`] | what has become of a reservation, computed from its ledger entries |
//! | [`shipment`] | what is on the way, computed from the entries of its key |
//! | [`outcome`], [`answer`] | the closed list of answers, their SQLSTATEs, and the row a caller gets |
//! | [`mod@decide`] | the rules |
//! | [`feed`] | the change feed: cursors, messages, alerts |
//! | [`import`] | the rows of a shop's stock, and what became of each |
//! | [`settle`] | what a shop says of its orders against what became of their reservations |
//! | [`stat`] | what is counted of calls |
//! | [`table`] | the table of outcome by operation and state, made by running the rules |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod answer;
pub mod decide;
pub mod facts;
pub mod fault;
pub mod feed;
pub mod import;
pub mod limits;
pub mod moment;
pub mod name;
pub mod outcome;
pub mod parse;
pub mod request;
pub mod settle;
pub mod shipment;
pub mod standing;
pub mod stat;
pub mod table;
pub mod units;

pub use answer::Answer;
pub use decide::{Decision, Effects, counted, decide, expire, pay, spoil, will_act, with_queues};
pub use facts::{
    Entry, Facts, Hold, Level, LevelId, Lot, LotMove, Micros, Operation, SaleWindow, Wait,
};
pub use fault::Fault;
pub use name::Name;
pub use outcome::{Outcome, State};
pub use request::{Action, Limits, Line, Load, NamedLot, Request};
