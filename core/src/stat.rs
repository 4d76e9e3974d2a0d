//! What is counted of calls: for each operation and outcome how often, how much, and how long it
//! took.

use crate::answer::{Answer, take_own};
use crate::facts::Operation;
use crate::outcome::Outcome;
use crate::request::Request;

/// How many buckets a histogram of times has. Each but the last has a bound, twice that of the one
/// before it.
pub const BUCKETS: usize = 21;
/// The bound of the first, in microseconds.
const FIRST_BOUND: u64 = 16;

/// The bucket of a time: the first whose bound is not less.
pub fn bucket(micros: u64) -> usize {
    let over = micros.max(1).div_ceil(FIRST_BOUND);
    // The power of two that is not less than it.
    (over.next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

/// What is to be counted of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What was asked for.
    pub operation: Operation,
    /// The answer: of a refusal the first by precedence.
    pub outcome: Outcome,
    /// An earlier effect was reported.
    pub is_repeat: bool,
    /// Lines.
    pub lines: u64,
    /// Units in them.
    pub units: u64,
}

impl Tally {
    /// True where the request changed something.
    pub fn has_effect(&self) -> bool {
        !self.is_repeat && !self.outcome.is_refusal()
    }
}

/// What is to be counted of requests, whose answers come in their order.
pub fn tallies(requests: &[Request], answers: &[Answer]) -> impl Iterator<Item = Tally> {
    let mut rest = answers;
    requests.iter().filter_map(move |request| {
        let own = take_own(&mut rest, |answer| answer.request == request.number);
        tally(request.action.operation(), own)
    })
}

fn tally(operation: Operation, answers: &[Answer]) -> Option<Tally> {
    let outcomes = answers.iter().map(|answer| answer.outcome);
    let refused = outcomes.clone().filter(|outcome| outcome.is_refusal()).min();
    Some(Tally {
        operation,
        outcome: refused.or_else(|| outcomes.clone().next())?,
        is_repeat: answers.iter().all(|answer| answer.replayed),
        lines: answers.len() as u64,
        units: answers
            .iter()
            .fold(0, |units: u64, answer| units.saturating_add(answer.quantity.unsigned_abs())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_twice_the_bound_of_the_one_before() {
        let expected = [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (64, 2), (65, 3)];
        for (micros, place) in expected {
            assert_eq!(bucket(micros), place, "{micros}");
        }
        assert_eq!(bucket(16 << 19), 19);
        assert_eq!(bucket((16 << 19) + 1), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX / 2), BUCKETS - 1);
    }
}
