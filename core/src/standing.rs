//! What has become of a reservation, computed from its ledger entries and the time.

use crate::facts::{Entry, LevelId, Micros, NEVER, Operation, Units};
use crate::limits::OWN_PREFIX;
use crate::name::Name;
use crate::outcome::{Outcome, State};
use crate::units;

/// What the key of a reservation stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing is known of the key.
    Free,
    /// The key was reserved.
    Reserved,
    /// The key was sold without a hold.
    Sold,
    /// The key was released before it was reserved.
    Cancelled,
}

/// A reservation as it stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the key stands for.
    pub claim: Claim,
    /// Its lines, in the order of the request that made them.
    pub lines: Vec<LineStanding>,
}

/// One line of a reservation as it stands at one moment; the quantities are units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineStanding {
    /// The line's place in the request that reserved it.
    pub line: i32,
    /// Its level.
    pub at: LevelId,
    /// For whom.
    pub buyer: Option<Name>,
    /// Units reserved.
    pub quantity: i64,
    /// Units in an open hold, overdue or not.
    pub held: i64,
    /// Units of those that are not there yet.
    pub waiting: i64,
    /// Units confirmed.
    pub confirmed: i64,
    /// Units of those that are not there yet, by the promise that they wait by, oldest first.
    pub owed: Vec<(i32, i64)>,
    /// The last promise of the line: 0 that of the reserve, one more each time that units which had
    /// lapsed were promised anew. What waits of a hold waits by it.
    pub promise: i32,
    /// Units released.
    pub released: i64,
    /// Units whose hold was closed because it was overdue, less those that were confirmed late or
    /// held again.
    pub expired: i64,
    /// Confirmed units that came back.
    pub returned: i64,
    /// The lot that it named.
    pub lot: Option<Name>,
    /// How long it asked a lot to last.
    pub min_life: Option<Micros>,
    /// Of which lots it holds how much, as far as its entries tell.
    pub held_lots: Units,
    /// From which lots its units were confirmed that have not come back, as far as they tell;
    /// negative where more came back to a lot than came from it.
    pub sold_lots: Units,
    /// When it was reserved.
    pub reserved_at: Micros,
    /// The deadline of the hold.
    pub deadline: Micros,
    /// True where the hold is open but past its deadline.
    pub overdue: bool,
}

impl Standing {
    /// The standing at `now` of the key whose entries are given, in any order: where a ledger was
    /// replicated or restored by hand, their positions need not be that in which they were written.
    pub fn at<'a>(entries: impl IntoIterator<Item = &'a Entry> + Clone, now: Micros) -> Standing {
        let mut standing = Standing { claim: Claim::Free, lines: Vec::new() };
        // Each cancellation but the last was taken back.
        let times = times_reopened(entries.clone());
        let is_cancelled = entries.clone().into_iter().any(|entry| {
            entry.operation == Operation::Cancel && own_number(&entry.operation_key) == times
        });
        let makes_lines =
            |entry: &&Entry| matches!(entry.operation, Operation::Reserve | Operation::Cancel);
        entries.clone().into_iter().filter(makes_lines).for_each(|entry| standing.take(entry));
        // A line's own entries follow each other as the versions of its level do.
        let mut later: Vec<&Entry> =
            entries.into_iter().filter(|entry| !makes_lines(entry)).collect();
        later.sort_by_key(|entry| entry.version);
        later.into_iter().for_each(|entry| standing.take(entry));
        if standing.claim == Claim::Cancelled && !is_cancelled {
            standing.claim = Claim::Free;
        }
        for line in &mut standing.lines {
            line.overdue = line.held > 0 && line.deadline <= now;
        }
        standing
    }

    /// The line that holds, or held, units of a level.
    pub fn line(&self, at: &LevelId) -> Option<&LineStanding> {
        self.lines.iter().find(|line| line.at == *at)
    }

    fn take(&mut self, entry: &Entry) {
        match entry.operation {
            Operation::Cancel if self.claim == Claim::Free => self.claim = Claim::Cancelled,
            Operation::Reserve => {
                self.claim = if entry.expires_at.is_some() { Claim::Reserved } else { Claim::Sold };
                self.lines.extend(LineStanding::reserved(entry));
            }
            _ => {
                if let Some(line) =
                    self.lines.iter_mut().find(|line| Some(&line.at) == entry.at.as_ref())
                {
                    line.take(entry);
                }
            }
        }
    }
}

/// How often a key was made usable again. Told by the number that each reserve, cancellation and
/// reopening carries, and not by counting: what came before may have been archived meanwhile, for
/// a key that has no lines has no level whose lock would keep it.
pub(crate) fn times_reopened<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> i64 {
    let is_numbered = |entry: &&Entry| {
        matches!(entry.operation, Operation::Reserve | Operation::Cancel | Operation::Reopen)
    };
    let numbered = entries.into_iter().filter(is_numbered);
    numbered.map(|entry| own_number(&entry.operation_key)).max().unwrap_or(0)
}

/// An operation key of our own, for what may happen to a line or a key more than once: each
/// deadline of a hold passes or is moved to once, each cancellation is taken back once, each
/// version of a level supplies one line.
pub(crate) fn own_key(number: i64) -> Name {
    Name::from(format!("{OWN_PREFIX}{number}").as_str())
}

/// The number of an operation key of our own; 0 where it is none.
fn own_number(operation_key: &Name) -> i64 {
    let digits = operation_key.as_bytes().strip_prefix(OWN_PREFIX.as_bytes());
    digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

impl LineStanding {
    fn reserved(entry: &Entry) -> Option<LineStanding> {
        Some(LineStanding {
            line: entry.line,
            at: entry.at.clone()?,
            buyer: entry.buyer.clone(),
            quantity: entry.quantity,
            held: entry.quantity,
            waiting: entry.waiting_delta,
            confirmed: 0,
            owed: Vec::new(),
            promise: 0,
            released: 0,
            expired: 0,
            returned: 0,
            lot: entry.lot.clone(),
            min_life: entry.min_life,
            held_lots: entry.lots_by(|moved| moved.reserved).map(owned).collect(),
            sold_lots: Units::new(),
            reserved_at: entry.recorded_at,
            deadline: entry.expires_at.unwrap_or(NEVER),
            overdue: false,
        })
    }

    fn take(&mut self, entry: &Entry) {
        // A key may also name a delivery, which is none of the reservation's.
        if entry.operation.is_of_reservation() {
            self.take_lots(entry);
        }
        match entry.operation {
            Operation::Confirm => self.confirm(entry),
            Operation::Release => {
                self.held -= entry.quantity;
                self.waiting += entry.waiting_delta;
                self.released += entry.quantity;
            }
            Operation::Expire => {
                self.held -= entry.quantity;
                self.waiting += entry.waiting_delta;
                self.expired += entry.quantity;
            }
            Operation::Return => {
                self.returned += entry.quantity;
                self.call_off(-entry.waiting_delta);
            }
            Operation::Extend => {
                self.promise += i32::from(entry.promised() > 0);
                self.deadline = self.deadline.max(entry.expires_at.unwrap_or(self.deadline));
                self.held += entry.promised();
                self.waiting += entry.waiting_delta;
                self.expired -= entry.promised();
            }
            // What comes for a sale leaves the stock at once.
            Operation::Supply if entry.on_hand_delta == 0 => self.waiting += entry.waiting_delta,
            Operation::Supply => self.deliver(-entry.waiting_delta),
            // What a repair found the hold, or the sales, to have more than the ledger said.
            Operation::Repair if entry.on_hand_delta == 0 => {
                self.held += entry.quantity;
                self.waiting += entry.waiting_delta;
                self.expired -= entry.quantity.clamp(0, self.expired.max(0));
            }
            Operation::Repair if entry.waiting_delta < 0 => self.deliver(-entry.waiting_delta),
            Operation::Repair => self.owe(entry.waiting_delta),
            _ => {}
        }
    }

    fn take_lots(&mut self, entry: &Entry) {
        for (lot, units) in entry.lots_by(|moved| moved.reserved) {
            units::add(&mut self.held_lots, lot, units);
        }
        for (lot, units) in entry.lots_by(|moved| moved.on_hand) {
            units::add(&mut self.sold_lots, lot, -units);
        }
    }

    /// Units out of a hold, or promised anew because that was swept. Those that wait go on waiting.
    fn confirm(&mut self, entry: &Entry) {
        let anew = entry.promised();
        let from_hold = entry.quantity - anew;
        let waiting = from_hold + entry.reserved_delta;
        self.confirmed += entry.quantity;
        self.held -= from_hold;
        self.waiting -= waiting;
        self.promise += i32::from(anew > 0);
        self.owe(waiting + entry.waiting_delta);
        self.expired -= anew;
    }

    /// Sold units wait by the last promise.
    fn owe(&mut self, units: i64) {
        match self.owed.last_mut() {
            Some((promise, owed)) if *promise == self.promise => *owed += units,
            _ if units > 0 => self.owed.push((self.promise, units)),
            _ => {}
        }
    }

    /// What is delivered was promised first.
    fn deliver(&mut self, units: i64) {
        let mut left = units;
        for (_, owed) in &mut self.owed {
            let taken = left.min(*owed);
            (*owed, left) = (*owed - taken, left - taken);
        }
        self.owed.retain(|(_, owed)| *owed > 0);
    }

    /// What is called off was promised last.
    fn call_off(&mut self, units: i64) {
        for (promise, taken) in self.called_off(units) {
            self.owed
                .iter_mut()
                .filter(|(of, _)| *of == promise)
                .for_each(|(_, owed)| *owed -= taken);
        }
        self.owed.retain(|(_, owed)| *owed > 0);
    }

    /// By which promises units are called off that are owed, those promised last first.
    pub fn called_off(&self, units: i64) -> Vec<(i32, i64)> {
        let (mut left, mut called_off) = (units, Vec::new());
        for (promise, owed) in self.owed.iter().rev() {
            let taken = left.min(*owed);
            if taken > 0 {
                called_off.push((*promise, taken));
                left -= taken;
            }
        }
        called_off
    }

    /// Sold units that wait by a promise.
    pub fn owed_by(&self, promise: i32) -> i64 {
        self.owed.iter().filter(|(of, _)| *of == promise).map(|(_, owed)| owed).sum()
    }

    /// Sold units that are not there yet.
    pub fn owed(&self) -> i64 {
        self.owed.iter().map(|(_, owed)| owed).sum()
    }

    /// Units held before their deadline.
    pub fn live(&self) -> i64 {
        if self.overdue { 0 } else { self.held }
    }

    /// Units whose deadline has passed, swept or not.
    pub fn lapsed(&self) -> i64 {
        self.expired + if self.overdue { self.held } else { 0 }
    }

    /// Units that are not there yet, held in time or confirmed.
    pub fn backordered(&self) -> i64 {
        self.owed() + if self.overdue { 0 } else { self.waiting }
    }

    /// Confirmed units that have not come back.
    pub fn returnable(&self) -> i64 {
        self.confirmed - self.returned
    }

    /// What the line is now.
    pub fn state(&self) -> State {
        if self.live() > 0 {
            State::Held
        } else if self.confirmed > 0 {
            State::Confirmed
        } else if self.released > 0 {
            State::Released
        } else {
            State::Expired
        }
    }

    /// The deadline, where units are held.
    pub fn expires_at(&self) -> Option<Micros> {
        (self.live() > 0).then_some(self.deadline)
    }

    /// How a line on which nothing is held any more ended.
    pub fn ended(&self) -> Outcome {
        match self.state() {
            State::Confirmed => Outcome::AlreadyConfirmed,
            State::Released => Outcome::AlreadyReleased,
            _ => Outcome::ReservationExpired,
        }
    }
}

fn owned((lot, units): (&Name, i64)) -> (Name, i64) {
    (lot.clone(), units)
}
