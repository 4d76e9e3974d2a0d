//! How much of what is overdue a decision may need.

use std::collections::HashMap;

use crate::facts::{Facts, LevelId};
use crate::request::Request;
use crate::standing::Standing;

/// The most units that may have to come from overdue holds, by level: what is asked, what the level
/// is short of anyway, what is waited for there (units of the holds themselves may be among that),
/// and as much again as the asking reservation has there itself, for its own holds do not count.
/// `facts` has the levels and the history.
pub fn overdue_needed(facts: &Facts, requests: &[Request]) -> HashMap<LevelId, i64> {
    let mut need: HashMap<LevelId, i64> = HashMap::new();
    for request in requests {
        for (at, quantity) in request.action.named_levels() {
            let most = need.entry(at.clone()).or_default();
            *most = most.saturating_add(quantity);
        }
        if request.action.acts_on_reservation()
            && let Some(entries) = facts.history.get(&request.key)
        {
            for line in Standing::at(entries, facts.now).lines {
                let most = need.entry(line.at).or_default();
                *most = most.saturating_add(line.quantity.saturating_mul(2));
            }
        }
    }
    for (at, most) in &mut need {
        let Some(level) = facts.levels.get(at) else { continue };
        // Whoever need not wait for it is given what is overdue, however much may wait.
        let short = (-level.unpromised()).max(-level.free()).max(0);
        *most = most.saturating_add(short).saturating_add(level.waiting);
    }
    // What a hold is worth depends on its lots.
    let with_lots = facts.levels.iter().filter(|(_, level)| level.has_lots());
    need.extend(with_lots.map(|(at, _)| (at.clone(), i64::MAX)));
    need
}
