//! What is asked: the kinds of work, and the orders of one connection.

use std::collections::BTreeSet;

use clap::ValueEnum;
use rand::RngExt;

use super::Failure;

/// One order in so many of the work `duplicates` is the one before, sent again.
const ONE_IN_REPEATED: u32 = 20;
/// Lines of an order of the work `lines5`.
const LINES: usize = 5;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Work {
    /// One unit of one of 10,000 SKUs at random
    Spread,
    /// One unit of the same SKU, always
    Hot,
    /// One unit of a SKU of which there were 100: nearly all are refused
    Soldout,
    /// Five units, each of another SKU at random, in one order
    Lines5,
    /// As spread, but one order in 20 comes twice
    Duplicates,
}

impl Work {
    /// Its name, as one types it.
    pub fn name(self) -> &'static str {
        match self {
            Work::Spread => "spread",
            Work::Hot => "hot",
            Work::Soldout => "soldout",
            Work::Lines5 => "lines5",
            Work::Duplicates => "duplicates",
        }
    }

    /// What it is, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Work::Spread => "Each call asks for one unit of one of 10,000 SKUs at random.",
            Work::Hot => "Each call asks for one unit of the same SKU.",
            Work::Soldout => {
                "Each call asks for one unit of a SKU of which there were 100; counted are the \
                 answers."
            }
            Work::Lines5 => {
                "Each order asks for one unit of each of 5 random SKUs; counted in orders."
            }
            Work::Duplicates => {
                "As spread, but one order in 20 is the one before, sent again under its key."
            }
        }
    }
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is held now.
    Reserved,
    /// It had been reserved before, under the same key.
    Replayed,
    /// There is not enough.
    Refused,
}

impl Outcome {
    /// Understands the answer of a peer.
    ///
    /// # Errors
    /// If it is none that the work can lead to.
    pub fn read(outcome: &str, replayed: bool) -> Result<Outcome, Failure> {
        match (outcome, replayed) {
            ("reserved", false) => Ok(Outcome::Reserved),
            ("reserved", true) => Ok(Outcome::Replayed),
            ("insufficient_stock", false) => Ok(Outcome::Refused),
            _ => Err(format!("an answer that cannot be: {outcome}, replayed: {replayed}").into()),
        }
    }
}

/// An order: one unit of each SKU.
#[derive(Clone)]
pub struct Order {
    /// Its idempotency key.
    pub key: String,
    /// What is asked for, in order, none twice.
    pub skus: Vec<String>,
}

/// The orders of one connection, one after the other.
pub struct Orders {
    work: Work,
    levels: u64,
    name: String,
    count: u64,
    last: Option<Order>,
}

impl Orders {
    /// Orders of SKUs up to this number, under keys that begin with the name.
    pub fn new(work: Work, levels: u64, name: String) -> Orders {
        Orders { work, levels, name, count: 0, last: None }
    }

    /// The next order, and whether it was sent before.
    pub fn next(&mut self) -> (Order, bool) {
        if self.work == Work::Duplicates
            && rand::rng().random_ratio(1, ONE_IN_REPEATED)
            && let Some(last) = self.last.take()
        {
            return (last, true);
        }
        self.count += 1;
        let order = Order { key: format!("{} {}", self.name, self.count), skus: self.skus() };
        if self.work == Work::Duplicates {
            self.last = Some(order.clone());
        }
        (order, false)
    }

    /// Whether such an answer may come.
    pub fn allow(&self, outcome: Outcome, repeated: bool) -> bool {
        match self.work {
            Work::Soldout => outcome != Outcome::Replayed,
            _ if repeated => outcome == Outcome::Replayed,
            _ => outcome == Outcome::Reserved,
        }
    }

    fn skus(&self) -> Vec<String> {
        match self.work {
            Work::Hot => vec!["sku-1".into()],
            Work::Soldout => vec!["sku-0".into()],
            Work::Spread | Work::Duplicates => vec![self.random()],
            Work::Lines5 => {
                let mut skus = BTreeSet::new();
                while skus.len() < LINES {
                    skus.insert(self.random());
                }
                skus.into_iter().collect()
            }
        }
    }

    fn random(&self) -> String {
        format!("sku-{}", rand::rng().random_range(1..=self.levels))
    }
}
