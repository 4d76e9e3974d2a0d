//! A batch of which some requests meet damaged tables: the others are answered.

use std::collections::BTreeSet;

use pg_stock_core::{Answer, Request};

use super::run::run;
use super::setback::Setback;
use super::subtransaction;
use crate::error::Error;

/// As [`run`], but requests on keys on which the tables contradict each other are left out; gives
/// their places.
pub fn run_what_is_sound(requests: &[Request]) -> Result<(Vec<Answer>, BTreeSet<usize>), Error> {
    match subtransaction::attempt(is_damage, || run(requests).map_err(Setback::from)) {
        Ok(answers) => return Ok((answers, BTreeSet::new())),
        Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))) => {}
        Err(Setback::Failed(error)) => return Err(error),
        Err(Setback::Outrun | Setback::Settled(_)) => unreachable!("a run has an end"),
    }
    let mut damaged = BTreeSet::new();
    find_damaged(requests, 0, &mut damaged)?;
    let sound = requests.iter().enumerate().filter(|(place, _)| !damaged.contains(place));
    let answers = run(&sound.map(|(_, request)| request.clone()).collect::<Vec<_>>())?;
    Ok((answers, damaged))
}

/// Whether an error with this SQLSTATE says that the tables contradict each other: a constraint, or
/// PostgreSQL's own word.
fn is_damage(sqlstate: &str) -> bool {
    sqlstate.starts_with("23") || sqlstate.starts_with("XX")
}

/// Finds requests that fail by themselves, by halves. Whatever is tried is undone, with its locks.
fn find_damaged(
    requests: &[Request],
    first: usize,
    damaged: &mut BTreeSet<usize>,
) -> Result<(), Error> {
    let tried = subtransaction::attempt(is_damage, || {
        run(requests)?;
        Err::<(), _>(Setback::Outrun)
    });
    match (tried, requests.len()) {
        (Err(Setback::Outrun), _) => Ok(()),
        (Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))), 1) => {
            damaged.insert(first);
            Ok(())
        }
        (Err(Setback::Caught(_) | Setback::Failed(Error::Corrupted(_))), count) => {
            let (one, other) = requests.split_at(count / 2);
            find_damaged(one, first, damaged)?;
            find_damaged(other, first + count / 2, damaged)
        }
        (Err(Setback::Failed(error)), _) => Err(error),
        (Ok(()) | Err(Setback::Settled(_)), _) => unreachable!("what is tried is undone"),
    }
}
