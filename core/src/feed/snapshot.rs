//! Which transactions a moment could see, and the difference of two moments.

use std::fmt;

/// A transaction's number, as PostgreSQL's `xid8` counts it: never used again within a generation.
pub type Xid = u64;

/// Which transactions had ended at a moment: PostgreSQL's `pg_snapshot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// No transaction from this one on had ended.
    next: Xid,
    /// The transactions before `next` that had not ended, ascending.
    running: Vec<Xid>,
}

impl Snapshot {
    /// The moment before all transactions.
    pub fn beginning() -> Snapshot {
        Snapshot { next: 1, running: Vec::new() }
    }

    /// The snapshot of these parts; `None` if they contradict each other.
    pub fn new(next: Xid, running: Vec<Xid>) -> Option<Snapshot> {
        let ascending = running.windows(2).all(|pair| pair[0] < pair[1]);
        let earlier = running.last().is_none_or(|last| *last < next);
        (next > 0 && ascending && earlier).then_some(Snapshot { next, running })
    }

    /// Reads PostgreSQL's text, `xmin:xmax:xip,xip`.
    pub fn parse(text: &str) -> Option<Snapshot> {
        let (_, rest) = text.split_once(':')?;
        Snapshot::parse_parts(rest)
    }

    /// Reads `xmax:xip,xip`.
    pub fn parse_parts(text: &str) -> Option<Snapshot> {
        let (next, running) = text.split_once(':')?;
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
        Snapshot::new(next.parse().ok()?, running.collect::<Option<_>>()?)
    }

    /// The same moment, but for a transaction that is still running: the one that asks, which
    /// PostgreSQL leaves out.
    #[must_use]
    pub fn with_running(mut self, xid: Xid) -> Snapshot {
        if xid < self.next
            && let Err(place) = self.running.binary_search(&xid)
        {
            self.running.insert(place, xid);
        }
        self
    }

    /// True if the transaction had ended.
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.next && self.running.binary_search(&xid).is_err()
    }

    /// All transactions before this one had ended.
    pub fn oldest(&self) -> Xid {
        self.running.first().copied().unwrap_or(self.next)
    }

    /// No transaction from this one on had ended.
    pub fn next(&self) -> Xid {
        self.next
    }

    /// The text of the parts, `xmax:xip,xip`.
    pub fn parts(&self) -> String {
        let running: Vec<String> = self.running.iter().map(Xid::to_string).collect();
        format!("{}:{}", self.next, running.join(","))
    }
}

/// PostgreSQL's text.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.oldest(), self.parts())
    }
}

/// What came to be seen between two moments.
///
/// A long transaction does not hold the feed up: those that began after the earlier moment are
/// found in one range, and the few that were running then, and have ended since, one by one.
#[derive(Clone, Debug)]
pub struct Window {
    from: Snapshot,
    to: Snapshot,
}

/// How far rows of a window reach that were cut off at a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only the first so many rows belong to transactions that are there as a whole; the snapshot
    /// says what was seen with them.
    Rows(usize, Snapshot),
    /// All rows are of one transaction, of which there are more: it must be read as a whole.
    Within(Xid),
}

impl Window {
    /// The window between two moments; `None` if the later one is not later, so that it cannot
    /// follow from the earlier one.
    pub fn between(from: Snapshot, to: Snapshot) -> Option<Window> {
        (from.next <= to.next).then_some(Window { from, to })
    }

    /// Transactions that were running and have ended.
    pub fn late(&self) -> Vec<Xid> {
        self.from.running.iter().copied().filter(|xid| self.to.sees(*xid)).collect()
    }

    /// Transactions that began since: from the first on, before the second. Some of them may still
    /// be running.
    pub fn range(&self) -> (Xid, Xid) {
        (self.from.next, self.to.next)
    }

    /// True if the transaction came to be seen in the window.
    pub fn contains(&self, xid: Xid) -> bool {
        self.to.sees(xid) && !self.from.sees(xid)
    }

    /// The later moment.
    pub fn end(&self) -> &Snapshot {
        &self.to
    }

    /// How far rows reach that were read in the order of their transactions and cut off at a limit.
    /// A transaction is never split: what is after the last whole one is left for the next window.
    pub fn reach(&self, xids: &[Xid]) -> Reach {
        let Some(last) = xids.last().copied() else { return Reach::Rows(0, self.to.clone()) };
        match xids.partition_point(|xid| *xid < last) {
            0 => Reach::Within(last),
            whole => Reach::Rows(whole, self.before(last)),
        }
    }

    /// What was seen when all transactions of the window before this one were.
    pub fn before(&self, xid: Xid) -> Snapshot {
        let next = xid.max(self.from.next);
        let in_order =
            |running: &Xid| *running < next && (!self.to.sees(*running) || *running >= xid);
        let old = self.from.running.iter().copied().filter(in_order);
        let new = self
            .to
            .running
            .iter()
            .copied()
            .filter(|running| *running >= self.from.next && *running < next);
        Snapshot { next, running: old.chain(new).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_postgresql_s() {
        let snapshot = Snapshot::parse("10:20:10,14").expect("sound");
        assert!(
            !snapshot.sees(10)
                && snapshot.sees(11)
                && !snapshot.sees(14)
                && snapshot.sees(19)
                && !snapshot.sees(20)
        );
        assert_eq!(snapshot.to_string(), "10:20:10,14");
        assert_eq!(Snapshot::parse("20:20:").expect("sound").to_string(), "20:20:");
        assert!(!snapshot.clone().with_running(15).sees(15));
        for bad in ["", "1", "1:2", "1:x:", "1:5:7", "1:9:4,3", "1:-2:", "0:0:"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad}");
        }
    }

    /// A moment in a life of transactions: which of them have begun and ended.
    fn life() -> impl Strategy<Value = (Vec<Xid>, Vec<Snapshot>)> {
        (1usize..40, prop::collection::vec((0usize..40, 0usize..40), 40)).prop_map(
            |(count, spans)| {
                let xids: Vec<Xid> = (1..=count as Xid).collect();
                // A transaction ends `span` steps after it began; a moment lies between any two
                // steps.
                let ends: Vec<usize> = (0..count).map(|place| place + 1 + spans[place].0).collect();
                let moments = (0..=count + 41).map(|step| {
                    let ended = |place: usize| ends[place] <= step && place < step;
                    let next = (0..count)
                        .rev()
                        .find(|place| ended(*place))
                        .map_or(1, |place| place as Xid + 2);
                    let running =
                        (0..count).filter(|place| !ended(*place)).map(|place| place as Xid + 1);
                    Snapshot { next, running: running.filter(|xid| *xid < next).collect() }
                });
                (xids, moments.collect())
            },
        )
    }

    proptest! {
        /// However a listener looks, and however little it takes at a time, it sees each
        /// transaction once.
        #[test]
        fn each_transaction_is_seen_once(
            (xids, moments) in life(),
            looks in prop::collection::vec((0usize..80, 1usize..5), 1..30),
        ) {
            let mut seen: Vec<Xid> = Vec::new();
            let mut cursor = Snapshot::beginning();
            let last = moments.len() - 1;
            let looks = looks.into_iter().map(|(at, most)| (at.min(last), most));
            let mut looks: Vec<_> = looks.collect();
            looks.sort_by_key(|(at, _)| *at);
            looks.extend((0..xids.len()).map(|_| (moments.len() - 1, 1)));
            for (at, most) in looks {
                let window = Window::between(cursor.clone(), moments[at].clone()).expect("later");
                let (first, end) = window.range();
                let late = window.late();
                let is_new = |xid: &Xid| late.contains(xid) || (first..end).contains(xid);
                let new = xids.iter().copied().filter(is_new);
                let mut rows: Vec<Xid> = new.flat_map(|xid| [xid; 3]).collect();
                let cut = rows.len() > most;
                rows.truncate(most);
                let (rows, next) = match cut.then(|| window.reach(&rows)) {
                    None => (rows, window.end().clone()),
                    Some(Reach::Rows(whole, next)) => (rows[..whole].to_vec(), next),
                    Some(Reach::Within(xid)) => (vec![xid; 3], window.before(xid + 1)),
                };
                let rows = rows.into_iter();
                let mut new: Vec<Xid> = rows.filter(|xid| window.contains(*xid)).collect();
                new.dedup();
                for xid in &xids {
                    let is_seen = cursor.sees(*xid) || new.contains(xid);
                    prop_assert_eq!(next.sees(*xid), is_seen, "{} after {:?}", xid, next);
                }
                seen.extend(new);
                cursor = next;
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, xids);
        }
    }
}
