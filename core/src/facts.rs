//! What the database knows, as far as a decision needs it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::name::Name;

/// A moment or a span: microseconds, counted from 2000-01-01 00:00 UTC as PostgreSQL does.
pub type Micros = i64;

/// Later than every deadline: PostgreSQL's `infinity`.
pub const NEVER: Micros = Micros::MAX;
/// Earlier than every moment: PostgreSQL's `-infinity`.
pub const ALWAYS: Micros = Micros::MIN;

/// What is sold and where it lies. Ordered by byte: the one order in which levels are locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LevelId {
    /// What is sold.
    pub sku: Name,
    /// Where it lies.
    pub location: Name,
}

/// When a level is on sale: from one moment on, until just before another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaleWindow {
    /// When it opens; `None`: it was always open.
    pub from: Option<Micros>,
    /// When it has ended; `None`: it does not end.
    pub until: Option<Micros>,
}

impl SaleWindow {
    /// Whether the level is on sale at a moment.
    pub fn is_open(self, now: Micros) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// When it opens, where it has not yet.
    pub fn opens_at(self, now: Micros) -> Option<Micros> {
        self.from.filter(|from| *from > now)
    }

    /// The window with another bound, or two; [`ALWAYS`] lifts the first and [`NEVER`] the second.
    pub fn with(self, from: Option<Micros>, until: Option<Micros>) -> SaleWindow {
        let kept = |set: Option<Micros>, lifts, now| match set {
            Some(bound) => Some(bound).filter(|bound| *bound != lifts),
            None => now,
        };
        SaleWindow { from: kept(from, ALWAYS, self.from), until: kept(until, NEVER, self.until) }
    }

    /// Whether it ends after it opens.
    pub fn is_sound(self) -> bool {
        self.from.zip(self.until).is_none_or(|(from, until)| from < until)
    }
}

/// The counters of one SKU at one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Units physically there.
    pub on_hand: i64,
    /// Units promised to holds.
    pub reserved: i64,
    /// Units that are never promised.
    pub safety_stock: i64,
    /// Most units one buyer may hold and have bought; `None`: no limit.
    pub buyer_limit: Option<i64>,
    /// Units promised, to holds or by a sale, that are not there yet.
    pub waiting: i64,
    /// How many units may be waiting.
    pub backorder_limit: i64,
    /// Units on the road to this level; not among `on_hand`.
    pub in_transit: i64,
    /// No sales while true.
    pub frozen: bool,
    /// No sales outside of it.
    pub sale: SaleWindow,
    /// Rises by one with each ledger entry that changes the level; the first gives 1.
    pub version: i64,
    /// A lower bound of the deadlines of its holds.
    pub next_due: Micros,
    /// Units in holds past their deadline: still in `reserved`, and free to whoever needs them.
    /// (Where it has lots: but for those in lots that nothing is promised of.)
    pub overdue: i64,
    /// Units there that are promised to nobody and must not be sold, as far as that is booked.
    pub unsellable: i64,
    /// Units that have become unsellable since, by their date, which is not booked yet.
    pub unbooked: i64,
    /// A lower bound of the moments at which more of it becomes unsellable; `None`: it has no lots.
    pub next_spoil: Option<Micros>,
    /// How long a lot must last to be promised.
    pub min_life: Micros,
    /// How long before its date a lot is warned of; `None`: as the settings say.
    pub near_expiry: Option<Micros>,
}

impl Level {
    /// A level on which nothing has happened yet.
    pub fn new() -> Self {
        Level {
            on_hand: 0,
            reserved: 0,
            safety_stock: 0,
            buyer_limit: None,
            waiting: 0,
            backorder_limit: 0,
            in_transit: 0,
            frozen: false,
            sale: SaleWindow::default(),
            version: 0,
            next_due: NEVER,
            overdue: 0,
            unsellable: 0,
            unbooked: 0,
            next_spoil: None,
            min_life: 0,
            near_expiry: None,
        }
    }

    /// Whether each unit of it lies in a lot.
    pub fn has_lots(&self) -> bool {
        self.next_spoil.is_some()
    }

    /// Units there that may be sold, are promised to nobody and are not the safety stock; negative
    /// when that is in use.
    pub fn spare(&self) -> i64 {
        self.on_hand - self.reserved - self.unsellable - self.unbooked - self.safety_stock
    }

    /// What is spare beyond what is waited for; negative where more is waited for.
    pub fn unpromised(&self) -> i64 {
        self.spare() - self.waiting
    }

    /// What may be promised without giving back overdue holds: what is unpromised, and what may
    /// wait. Negative where too much is promised, for a limit was changed or goods were lost.
    pub fn free(&self) -> i64 {
        self.unpromised() + self.backorder_limit
    }

    /// How many of some units that are promised anew are there, and how many wait: who waits
    /// already comes first.
    pub fn split(&self, units: i64) -> (i64, i64) {
        let there = self.unpromised().min(units).max(0);
        (there, units - there)
    }

    /// What is there for those who wait.
    pub fn payable(&self) -> i64 {
        if self.frozen { 0 } else { self.spare().min(self.waiting).max(0) }
    }

    /// What must be true of every level (`level_counters` in sql/tables.sql).
    pub fn is_sound(&self) -> bool {
        0 <= self.reserved
            && 0 <= self.unsellable
            && self.reserved + self.unsellable <= self.on_hand
            && 0 <= self.waiting
            && 0 <= self.in_transit
    }

    /// What may be promised now: overdue holds count as free, and nothing is promised of a frozen
    /// level, or outside its sale window.
    pub fn available(&self, now: Micros) -> i64 {
        let is_for_sale = !self.frozen && self.sale.is_open(now);
        if is_for_sale { (self.free() + self.overdue).max(0) } else { 0 }
    }

    /// What may still be promised by the counters alone, so that one version has one value: overdue
    /// holds count as held until they are given back, and the time is not looked at.
    pub fn announced(&self) -> i64 {
        if self.frozen { 0 } else { (self.free() + self.unbooked).max(0) }
    }
}

impl Default for Level {
    fn default() -> Self {
        Level::new()
    }
}

/// The units of a level that came together under one name and date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Its name; empty for what came without one.
    pub name: Name,
    /// Its date; `None`: it has none.
    pub best_before: Option<Micros>,
    /// Units physically there.
    pub on_hand: i64,
    /// Units of them that are promised to holds.
    pub reserved: i64,
    /// Nothing of it is promised while true: it was called back.
    pub frozen: bool,
    /// Nothing of it is promised any more: its date is near or past, and that is booked.
    pub spoiled: bool,
    /// When the first of it came.
    pub received_at: Micros,
}

impl Lot {
    /// Units promised to nobody.
    pub fn free(&self) -> i64 {
        self.on_hand - self.reserved
    }

    /// Whether its free units are booked as unsellable.
    pub fn is_booked(&self) -> bool {
        self.frozen || self.spoiled
    }

    /// When too little of its life is left; [`NEVER`] where it has no date.
    pub fn spoils_at(&self, min_life: Micros) -> Micros {
        self.best_before.map_or(NEVER, |date| date.saturating_sub(min_life))
    }

    /// When its free units must be booked as unsellable, where there are any that are not.
    pub fn due(&self, min_life: Micros) -> Option<Micros> {
        let due = self.spoils_at(min_life);
        (self.on_hand > 0 && !self.is_booked() && due < NEVER).then_some(due)
    }

    /// When its date is near, where something of it is left.
    pub fn warns_at(&self, near: Micros) -> Option<Micros> {
        let date = self.best_before.filter(|_| self.on_hand > 0);
        date.map(|date| date.saturating_sub(near))
    }

    /// Whether it may be promised to who needs it to last so long.
    pub fn may_be_promised(&self, now: Micros, min_life: Micros) -> bool {
        !self.is_booked() && now < self.spoils_at(min_life)
    }

    /// The order in which lots are taken: earliest date first, those without one last; by name.
    pub fn rank(&self) -> (Micros, &Name) {
        (self.best_before.unwrap_or(NEVER), &self.name)
    }
}

/// What an entry does to one lot of its level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LotMove {
    /// The lot.
    pub lot: Name,
    /// Change of its `on_hand`.
    pub on_hand: i64,
    /// Change of its `reserved`.
    pub reserved: i64,
    /// Change of what of it is on the road to the level.
    pub in_transit: i64,
}

/// Units of lots, by name.
pub type Units = Vec<(Name, i64)>;

/// One open line of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The reservation.
    pub key: Name,
    /// Its line.
    pub line: i32,
    /// The level it holds units of.
    pub at: LevelId,
    /// Units held.
    pub quantity: i64,
    /// Units of them that are not there yet.
    pub waiting: i64,
    /// Which promise of the line they wait by.
    pub promise: i32,
    /// For whom, where the caller said so.
    pub buyer: Option<Name>,
    /// Lapses at this moment: overdue from then on.
    pub expires_at: Micros,
    /// When the reservation was made; an extension does not change it.
    pub reserved_at: Micros,
    /// Of which lots it holds how much; empty where its level has none.
    pub lots: Units,
}

/// Units of one line that are not there yet: its place in the queue of its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The reservation.
    pub key: Name,
    /// Its line.
    pub line: i32,
    /// Units that wait.
    pub quantity: i64,
    /// Whether they are sold; else they are held.
    pub sold: bool,
    /// Which promise of the line it is: 0 that of the reserve, one more each time that units of the
    /// line were promised anew.
    pub promise: i32,
    /// The hold, where it is overdue: it gives its place up.
    pub lapsed: Option<Hold>,
}

/// What a ledger entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum Operation {
    Reserve,
    Confirm,
    Release,
    Expire,
    Cancel,
    Reopen,
    Extend,
    Return,
    Receive,
    Adjust,
    Set,
    Transfer,
    SetLimits,
    Freeze,
    Unfreeze,
    Dispatch,
    Arrive,
    Lose,
    Recall,
    Supply,
    TrackLots,
    FreezeLot,
    UnfreezeLot,
    Spoil,
    Erase,
    Repair,
}

/// Every operation and its word in the ledger.
const WORDS: [(Operation, &str); 26] = [
    (Operation::Reserve, "reserve"),
    (Operation::Confirm, "confirm"),
    (Operation::Release, "release"),
    (Operation::Expire, "expire"),
    (Operation::Cancel, "cancel"),
    (Operation::Reopen, "reopen"),
    (Operation::Extend, "extend"),
    (Operation::Return, "return"),
    (Operation::Receive, "receive"),
    (Operation::Adjust, "adjust"),
    (Operation::Set, "set"),
    (Operation::Transfer, "transfer"),
    (Operation::SetLimits, "set_limits"),
    (Operation::Freeze, "freeze"),
    (Operation::Unfreeze, "unfreeze"),
    (Operation::Dispatch, "dispatch"),
    (Operation::Arrive, "arrive"),
    (Operation::Lose, "lose"),
    (Operation::Recall, "recall"),
    (Operation::Supply, "supply"),
    (Operation::TrackLots, "track_lots"),
    (Operation::FreezeLot, "freeze_lot"),
    (Operation::UnfreezeLot, "unfreeze_lot"),
    (Operation::Spoil, "spoil"),
    (Operation::Erase, "erase"),
    (Operation::Repair, "repair"),
];

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; WORDS.len()] = {
        let mut all = [Operation::Reserve; WORDS.len()];
        let mut at = 0;
        while at < WORDS.len() {
            assert!(WORDS[at].0 as usize == at, "the words stand in the order of the operations");
            all[at] = WORDS[at].0;
            at += 1;
        }
        all
    };

    /// Whether it is about what its key has reserved.
    pub fn is_of_reservation(self) -> bool {
        matches!(
            self,
            Operation::Reserve
                | Operation::Confirm
                | Operation::Release
                | Operation::Expire
                | Operation::Extend
                | Operation::Return
                | Operation::Supply
                | Operation::Repair
        )
    }

    /// Its word in the ledger.
    pub fn word(self) -> &'static str {
        WORDS[self as usize].1
    }

    /// The operation of a ledger word.
    pub fn from_word(word: &[u8]) -> Option<Operation> {
        Operation::ALL.into_iter().find(|operation| operation.word().as_bytes() == word)
    }
}

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose claim it is.
    pub key: Name,
    /// What happened.
    pub operation: Operation,
    /// Tells several operations of one kind under one key apart; empty unless given.
    pub operation_key: Name,
    /// Its line in the request that made it; the reservation's line for `expire` and `supply`.
    pub line: i32,
    /// The level; `None` where a key is cancelled or opened again.
    pub at: Option<LevelId>,
    /// Units asked: for `adjust` the difference, for `set` the stock counted, 0 where no units are
    /// meant.
    pub quantity: i64,
    /// Change of `on_hand`.
    pub on_hand_delta: i64,
    /// Change of `reserved`.
    pub reserved_delta: i64,
    /// Change of `waiting`.
    pub waiting_delta: i64,
    /// Change of `in_transit`.
    pub in_transit_delta: i64,
    /// Change of `unsellable`.
    pub unsellable_delta: i64,
    /// What it does to the lots of its level.
    pub lots: Vec<LotMove>,
    /// `on_hand` afterwards.
    pub on_hand_after: i64,
    /// `reserved` afterwards.
    pub reserved_after: i64,
    /// The level's version afterwards.
    pub version: i64,
    /// The version that was answered, where it is a later one: the same request changed the level
    /// again.
    pub answered_version: Option<i64>,
    /// The `available` that was answered; `None` where nobody was answered (a sweep, a supply).
    pub available: Option<i64>,
    /// For whom.
    pub buyer: Option<Name>,
    /// Of a reserve or an extension: the deadline; `None` on a reserve marks a sale. Of an expiry:
    /// the deadline that passed. Of a confirm: the deadline it missed, `None` if it came in time.
    pub expires_at: Option<Micros>,
    /// Why.
    pub reason: Name,
    /// The context of its request; empty where it had none, and where the entry was read.
    pub context: Name,
    /// The safety stock it set, if it set one.
    pub safety_stock: Option<i64>,
    /// The limit per buyer it set, if it set one; 0 lifted it.
    pub buyer_limit: Option<i64>,
    /// The units it let wait, if it set that.
    pub backorder_limit: Option<i64>,
    /// Whether it froze or unfroze the level, if it did either.
    pub frozen: Option<bool>,
    /// The moment from which on it put the level on sale, if it set one; [`ALWAYS`] lifted it.
    pub on_sale_from: Option<Micros>,
    /// The moment at which it ends the sale, if it set one; [`NEVER`] lifted it.
    pub on_sale_until: Option<Micros>,
    /// The lot that the request named, if it named one.
    pub lot: Option<Name>,
    /// The date of that lot, where goods of it came.
    pub best_before: Option<Micros>,
    /// How long a lot must last to be promised: as it set it, or as a reserve asked for.
    pub min_life: Option<Micros>,
    /// How long before its date a lot is warned of, if it set that.
    pub near_expiry: Option<Micros>,
    /// When it was decided.
    pub recorded_at: Micros,
}

impl Entry {
    /// True where it changes a level's counters or settings, and so raises its version.
    pub fn changes_level(&self) -> bool {
        match self.operation {
            Operation::Cancel | Operation::Reopen => false,
            Operation::Extend => self.promised() != 0,
            _ => true,
        }
    }

    /// Units that it promised anew, there or not; negative where it took promises back. What was
    /// promised and leaves the stock, or has come for who waits, is none of them.
    pub fn promised(&self) -> i64 {
        self.reserved_delta + self.waiting_delta - self.on_hand_delta
    }

    /// Whether there may be units for those who wait because of it.
    pub fn frees(&self) -> bool {
        self.promised() < 0
            || self.unsellable_delta < 0
            || self.safety_stock.is_some()
            || self.frozen == Some(false)
            || self.operation == Operation::SetLimits
    }

    /// Its moves of lots' promises, or of what lots have: those that are not 0.
    pub fn lots_by(&self, by: fn(&LotMove) -> i64) -> impl Iterator<Item = (&Name, i64)> {
        self.lots.iter().map(move |moved| (&moved.lot, by(moved))).filter(|(_, units)| *units != 0)
    }
}

/// What is known when a request is decided.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The moment of the decision, by the database's clock and no other (ARCHITECTURE, C7).
    pub now: Micros,
    /// Whether a late confirm or extension may take units again that are still there.
    pub retake_lapsed: bool,
    /// The longest time from a reserve to its last deadline; `None`: no limit.
    pub max_hold: Option<Micros>,
    /// How long before its date a lot is warned of, where its level does not say.
    pub near_expiry: Micros,
    /// The levels that the requests concern; unknown levels are absent.
    pub levels: BTreeMap<LevelId, Level>,
    /// All ledger entries of the keys that the requests name, oldest first.
    pub history: HashMap<Name, Vec<Entry>>,
    /// Per level, overdue holds in the order of their deadlines: enough of them to cover what is
    /// asked, or all.
    pub overdue: HashMap<LevelId, VecDeque<Hold>>,
    /// The heads of queues, oldest promise first, of levels that have one; absent where it was not
    /// read.
    pub queues: HashMap<LevelId, VecDeque<Wait>>,
    /// The lots of levels that have lots: all of which units are there, and those that the requests
    /// or their keys' entries name.
    pub lots: HashMap<LevelId, Vec<Lot>>,
    /// Per level and buyer, held + confirmed - returned; overdue holds are not counted.
    pub bought: HashMap<(LevelId, Name), i64>,
}
