//! The rows of an import: one batch, of which some rows cannot be carried out.

use pg_stock_core::answer::take_own;
use pg_stock_core::import::Verdict;
use pg_stock_core::{Answer, Fault, Request};

use super::run::run;
use crate::error::Error;

/// A sound row: its place, and what it asks for.
type Asked = (usize, Vec<Request>);

/// Carries out what rows ask for, and says what became of each. A
/// row at which the batch breaks, say because the level would hold too many units, is found by
/// halves, and left out.
pub fn import(rows: Vec<Result<Vec<Request>, Fault>>) -> Result<Vec<Verdict>, Error> {
    let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(rows.len());
    let mut asked: Vec<Asked> = Vec::with_capacity(rows.len());
    for (place, row) in rows.into_iter().enumerate() {
        match row {
            Ok(requests) => {
                verdicts.push(None);
                asked.push((place, requests));
            }
            Err(fault) => verdicts.push(Some(Verdict::of_fault(&fault))),
        }
    }
    carry_out(&asked, &mut verdicts)?;
    Ok(verdicts.into_iter().flatten().collect())
}

fn carry_out(rows: &[Asked], verdicts: &mut [Option<Verdict>]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let requests: Vec<Request> =
        rows.iter().flat_map(|(_, requests)| requests.iter().cloned()).collect();
    match (run(&requests), rows) {
        (Ok(answers), _) => {
            judge(rows, &answers, verdicts);
            Ok(())
        }
        (Err(Error::Fault(fault)), [(place, _)]) => {
            verdicts[*place] = Some(Verdict::of_fault(&fault));
            Ok(())
        }
        // A fault was found before anything was written.
        (Err(Error::Fault(_)), _) => {
            let (one, other) = rows.split_at(rows.len() / 2);
            carry_out(one, verdicts)?;
            carry_out(other, verdicts)
        }
        (Err(error), _) => Err(error),
    }
}

fn judge(rows: &[Asked], answers: &[Answer], verdicts: &mut [Option<Verdict>]) {
    let mut rest = answers;
    for (place, requests) in rows {
        let numbers = requests.iter().map(|request| request.number);
        let own =
            take_own(&mut rest, |answer| numbers.clone().any(|number| number == answer.request));
        verdicts[*place] = Some(Verdict::of_answers(own));
    }
}
