//! What a caller asks.

use crate::facts::{LevelId, Micros, Operation};
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;

/// One request: one operation under one key, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its place in the batch, from 1.
    pub number: i32,
    /// The idempotency key: the reservation's name, or the name of a goods movement.
    pub key: Name,
    /// Tells several confirms, releases, returns or extensions of one reservation apart; empty
    /// unless given.
    pub operation_key: Name,
    /// Why, for the ledger; empty unless given.
    pub reason: Name,
    /// What the caller wants its ledger rows to say besides, a trace id say; empty unless given.
    pub context: Name,
    /// What to do.
    pub action: Action,
}

/// One line of a request: a quantity at one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place in the request, from 1.
    pub number: i32,
    /// The SKU and location.
    pub at: LevelId,
    /// Units, 1 to 10^15.
    pub quantity: i64,
    /// The version the level must have, if the caller demands one.
    pub expected_version: Option<i64>,
    /// The lot, if the caller names one.
    pub lot: Option<Name>,
}

impl Line {
    /// A line that demands nothing else.
    pub fn new(number: i32, at: LevelId, quantity: i64) -> Self {
        Line { number, at, quantity, expected_version: None, lot: None }
    }
}

/// One line of a dispatch: a quantity that goes from one location to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its place in the request, from 1.
    pub number: i32,
    /// Where the goods leave.
    pub from: LevelId,
    /// Where they go; of the same SKU.
    pub to: LevelId,
    /// Units, 1 to 10^15.
    pub quantity: i64,
    /// The lot, if the caller names one.
    pub lot: Option<Name>,
}

/// A lot as a delivery names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLot {
    /// Its name.
    pub name: Name,
    /// Its date; `None`: it has none.
    pub best_before: Option<Micros>,
}

impl NamedLot {
    /// The lot of a delivery, if it names one: an empty name is none.
    ///
    /// # Errors
    /// Of a date without a lot, and of one that no lot may have.
    pub fn of(name: Option<Name>, best_before: Option<Micros>) -> Result<Option<NamedLot>, Fault> {
        let best_before = best_before.map(limits::date).transpose()?;
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(Some(NamedLot { name, best_before })),
            None if best_before.is_none() => Ok(None),
            None => Err(Fault::invalid("lot", "lot must be given where best_before is")
                .hint("A date is that of a lot: give the lot a name, '2026-11-30' say.")),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the arguments of the SQL functions")]
pub enum Action {
    /// Hold the lines for `ttl`; with `ttl` `None`, sell them at once. What is promised of lots
    /// lasts at least `min_life`.
    Reserve {
        lines: Vec<Line>,
        ttl: Option<Micros>,
        buyer: Option<Name>,
        /// How long lots must last.
        min_life: Option<Micros>,
    },
    /// Take held units out of the stock; `None`: all that is still open.
    Confirm { lines: Option<Vec<Line>> },
    /// Give held units back; `None`: all that is still held.
    Release { lines: Option<Vec<Line>> },
    /// Take confirmed units back into the stock; `None`: all that was confirmed and not yet
    /// returned.
    Return { lines: Option<Vec<Line>> },
    /// Move the deadline of what is still held to `ttl` from now, never earlier than it was.
    Extend { ttl: Micros },
    /// Make a key usable again that was released before it was reserved.
    Reopen,
    /// Goods arrive; creates the level, and its first lot.
    Receive { at: LevelId, quantity: i64, lot: Option<NamedLot> },
    /// Correct the stock by a difference.
    Adjust { at: LevelId, delta: i64, expected_version: Option<i64>, lot: Option<Name> },
    /// Correct the stock, or that of a lot, to what was counted; creates the level, where no
    /// version of it was seen.
    Set { at: LevelId, on_hand: i64, expected_version: Option<i64>, lot: Option<Name> },
    /// Move goods to another location of the same SKU; creates the level there.
    Transfer { from: LevelId, to: LevelId, quantity: i64, lot: Option<Name> },
    /// Send goods to other locations; creates the levels there.
    Dispatch { loads: Vec<Load> },
    /// Goods on the road have arrived; `None`: all that are still on the way.
    Arrive { lines: Option<Vec<Line>> },
    /// Goods on the road will not arrive; `None`: all that are still on the way.
    Lose { lines: Option<Vec<Line>> },
    /// What is still on the way turns round.
    Recall,
    /// Change the limits of a level.
    SetLimits { at: LevelId, limits: Limits },
    /// Stop sales from the level.
    Freeze { at: LevelId },
    /// Allow sales from the level again.
    Unfreeze { at: LevelId },
    /// From now on each unit of the level lies in a lot.
    TrackLots { at: LevelId },
    /// Stop sales from a lot.
    FreezeLot { at: LevelId, lot: Name },
    /// Allow sales from a lot again.
    UnfreezeLot { at: LevelId, lot: Name },
}

/// What may be set of a level beside its stock; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Units that are never promised.
    pub safety_stock: Option<i64>,
    /// Most units one buyer may hold and have bought; 0 lifts the limit.
    pub buyer_limit: Option<i64>,
    /// Units that may be promised without being there.
    pub backorder_limit: Option<i64>,
    /// When its sale opens; [`ALWAYS`](crate::facts::ALWAYS) lifts the bound.
    pub on_sale_from: Option<Micros>,
    /// When its sale ends; [`NEVER`](crate::facts::NEVER) lifts the bound.
    pub on_sale_until: Option<Micros>,
    /// How long a lot must last to be promised; 0 lifts it.
    pub min_life: Option<Micros>,
    /// How long before its date a lot is warned of.
    pub near_expiry: Option<Micros>,
}

impl Action {
    /// The operation under which the ledger claims the key.
    pub fn operation(&self) -> Operation {
        match self {
            Action::Reserve { .. } => Operation::Reserve,
            Action::Confirm { .. } => Operation::Confirm,
            Action::Release { .. } => Operation::Release,
            Action::Return { .. } => Operation::Return,
            Action::Extend { .. } => Operation::Extend,
            Action::Reopen => Operation::Reopen,
            Action::Receive { .. } => Operation::Receive,
            Action::Adjust { .. } => Operation::Adjust,
            Action::Set { .. } => Operation::Set,
            Action::Transfer { .. } => Operation::Transfer,
            Action::Dispatch { .. } => Operation::Dispatch,
            Action::Arrive { .. } => Operation::Arrive,
            Action::Lose { .. } => Operation::Lose,
            Action::Recall => Operation::Recall,
            Action::SetLimits { .. } => Operation::SetLimits,
            Action::Freeze { .. } => Operation::Freeze,
            Action::Unfreeze { .. } => Operation::Unfreeze,
            Action::TrackLots { .. } => Operation::TrackLots,
            Action::FreezeLot { .. } => Operation::FreezeLot,
            Action::UnfreezeLot { .. } => Operation::UnfreezeLot,
        }
    }

    /// True where the answer tells what a line of a reservation is now.
    pub fn concerns_reservation(&self) -> bool {
        self.acts_on_reservation() || matches!(self, Action::Reserve { .. })
    }

    /// True where the levels follow from what the key did before, so that its entries must be read
    /// first.
    pub fn follows_its_key(&self) -> bool {
        self.acts_on_reservation() || self.acts_on_shipment()
    }

    /// True where it is about goods that the key has sent on their way.
    pub fn acts_on_shipment(&self) -> bool {
        matches!(self, Action::Arrive { .. } | Action::Lose { .. } | Action::Recall)
    }

    /// True where it is about what the key has reserved.
    pub fn acts_on_reservation(&self) -> bool {
        matches!(
            self,
            Action::Confirm { .. }
                | Action::Release { .. }
                | Action::Return { .. }
                | Action::Extend { .. }
                | Action::Reopen
        )
    }

    /// The levels that the request itself names, with the most units it may take from each.
    pub fn named_levels(&self) -> Vec<(&LevelId, i64)> {
        match self {
            Action::Reserve { lines, .. } => each(lines),
            Action::Confirm { lines } | Action::Release { lines } | Action::Return { lines } => {
                lines.as_deref().map(each).unwrap_or_default()
            }
            Action::Arrive { lines } | Action::Lose { lines } => {
                lines.iter().flatten().map(|line| (&line.at, 0)).collect()
            }
            Action::Extend { .. } | Action::Reopen | Action::Recall => Vec::new(),
            Action::Adjust { at, .. } | Action::Set { at, .. } => {
                vec![(at, limits::QUANTITY_MAX)]
            }
            Action::Transfer { from, to, quantity, .. } => vec![(from, *quantity), (to, 0)],
            Action::Dispatch { loads } => {
                loads.iter().flat_map(|load| [(&load.from, load.quantity), (&load.to, 0)]).collect()
            }
            Action::Receive { at, .. }
            | Action::SetLimits { at, .. }
            | Action::Freeze { at }
            | Action::Unfreeze { at }
            | Action::TrackLots { at }
            | Action::FreezeLot { at, .. }
            | Action::UnfreezeLot { at, .. } => vec![(at, 0)],
        }
    }

    /// The lots that the request itself names, and at which levels.
    pub fn named_lots(&self) -> Vec<(&LevelId, &Name)> {
        match self {
            Action::Reserve { lines, .. } => lots_of(lines),
            Action::Confirm { lines }
            | Action::Release { lines }
            | Action::Return { lines }
            | Action::Arrive { lines }
            | Action::Lose { lines } => lines.as_deref().map(lots_of).unwrap_or_default(),
            Action::Receive { at, lot, .. } => lot.iter().map(|lot| (at, &lot.name)).collect(),
            Action::Adjust { at, lot, .. } | Action::Set { at, lot, .. } => {
                lot.iter().map(|lot| (at, lot)).collect()
            }
            Action::Transfer { from, lot, .. } => lot.iter().map(|lot| (from, lot)).collect(),
            Action::Dispatch { loads } => {
                loads.iter().filter_map(|load| Some((&load.from, load.lot.as_ref()?))).collect()
            }
            Action::FreezeLot { at, lot } | Action::UnfreezeLot { at, lot } => vec![(at, lot)],
            _ => Vec::new(),
        }
    }

    /// Where goods go, from where: they take their lots along.
    pub fn ways(&self) -> Vec<(&LevelId, &LevelId)> {
        match self {
            Action::Transfer { from, to, .. } => vec![(from, to)],
            Action::Dispatch { loads } => loads.iter().map(|load| (&load.from, &load.to)).collect(),
            _ => Vec::new(),
        }
    }
}

fn each(lines: &[Line]) -> Vec<(&LevelId, i64)> {
    lines.iter().map(|line| (&line.at, line.quantity)).collect()
}

fn lots_of(lines: &[Line]) -> Vec<(&LevelId, &Name)> {
    lines.iter().filter_map(|line| Some((&line.at, line.lot.as_ref()?))).collect()
}
