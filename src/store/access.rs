//! What is done with the tables, verb by verb: directly where that means the same, else by a
//! statement. `load` and `write` know neither way. A level is locked FOR NO KEY UPDATE on both, so
//! that foreign keys may still refer to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use pg_stock_core::decide::{
    Guard, HoldChange, LegChange, LevelChange, LotChange, Queues, WaitChange,
};
use pg_stock_core::limits::LINES_MAX;
use pg_stock_core::{Entry, Hold, Level, LevelId, Lot, Micros, Name, Wait};
use pgrx::spi::SpiResult;

use super::datum::{Row, Value, flag, int, line, text, time};
use super::direct::Tables;
use super::rows::ledger::Context;
use super::rows::{hold, hold_lot, ledger, ledger_lot, level, level_id, waiting};
use super::{crowd, sql};
use crate::early;
use crate::error::Error;

/// How many levels or holds are dealt with directly at most; of more, one statement costs less for
/// each.
const DIRECT_ROWS_MAX: usize = 16;

/// The way to the tables.
pub struct Access {
    direct: Option<Tables>,
    /// Where ledger rows lie that were written directly and did something to lots.
    positions: RefCell<HashMap<ledger::Claim, i64>>,
}

impl Access {
    /// The shortest way that this transaction may take.
    pub fn reach() -> Self {
        Access { direct: Tables::reach(), positions: RefCell::default() }
    }

    /// The way that is always open.
    pub fn by_statements() -> Self {
        Access { direct: None, positions: RefCell::default() }
    }

    fn directly<T>(&self, verb: impl FnOnce(&Tables) -> Option<T>) -> Option<T> {
        self.direct.as_ref().and_then(verb)
    }

    fn directly_if_few<T>(
        &self,
        count: usize,
        verb: impl FnOnce(&Tables) -> Option<T>,
    ) -> Option<T> {
        if count <= DIRECT_ROWS_MAX { self.directly(verb) } else { None }
    }

    /// The level as it is by now, if the key is not known.
    pub fn glance(&self, at: &LevelId, key: &Name, now: Micros) -> SpiResult<Option<Level>> {
        if let Some(level) =
            self.directly(|tables| tables.glance(at, key)).filter(|level| level.next_due > now)
        {
            return Ok(Some(level));
        }
        let is_known = |row: Row<'_>| row.flag(level::WIDTH + 1);
        let found = sql::GLANCE
            .query(&[time(now), text(&at.sku), text(&at.location), text(key)], |row| {
                (!is_known(row)).then(|| with_overdue(row).1)
            })?;
        Ok(found.into_iter().flatten().next())
    }

    /// Levels as they are, and what is overdue on them by `now`, which is counted only where
    /// something may be.
    pub fn levels(
        &self,
        levels: &BTreeSet<LevelId>,
        now: Micros,
    ) -> SpiResult<Vec<(LevelId, Level)>> {
        if levels.is_empty() {
            return Ok(Vec::new());
        }
        match self.directly_if_few(levels.len(), |tables| tables.levels(levels, now)) {
            Some(found) => Ok(found),
            None => sql::LEVELS.query_each(&[time(now)], &names(levels), with_overdue),
        }
    }

    /// Locks levels in their one order, and says which there were to be locked and how they are,
    /// but for what is overdue: nobody else changes these or their holds until the transaction
    /// ends. A level that is created afterwards is not among them.
    pub fn lock(&self, levels: &BTreeSet<LevelId>) -> SpiResult<Vec<(LevelId, Level)>> {
        if let Some(locked) = self.directly_if_few(levels.len(), |tables| tables.lock(levels)) {
            return Ok(locked);
        }
        let locked = |row: Row<'_>| (level::id(row), level::level(row));
        let (rows, has_waited) =
            early::watch(|| sql::LOCK_LEVELS.query_each(&[], &names(levels), locked));
        levels.iter().take(DIRECT_ROWS_MAX).for_each(|at| crowd::note(at, has_waited));
        rows
    }

    /// The ledger entries of keys, each of which is named once; those of one key are oldest first.
    pub fn history(&self, keys: &[&Name]) -> Result<Vec<Entry>, Error> {
        let entries = match keys {
            [] => Vec::new(),
            [key] => match self.directly(|tables| tables.history(key, ledger::entry)) {
                Some(entries) => entries,
                None => history_by_statement(keys)?,
            },
            keys => history_by_statement(keys)?,
        };
        entries.into_iter().collect()
    }

    /// The ledger entries of keys that were archived.
    pub fn archived_history(&self, keys: &[&Name]) -> Result<Vec<Entry>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = each(keys, |key| [text(key)]);
        sql::ARCHIVED_HISTORY.query_each(&[], &rows, ledger::entry)?.into_iter().collect()
    }

    /// Overdue holds by `now`, earliest first, of levels with the earliest deadline on each: enough
    /// to have the units that are needed there.
    pub fn overdue(&self, needed: &[(&LevelId, i64, Micros)], now: Micros) -> SpiResult<Vec<Hold>> {
        let rows = each(needed, |(at, units, next_due)| {
            [text(&at.sku), text(&at.location), int(*units), time(*next_due)]
        });
        sql::OVERDUE.query_each(&[time(now)], &rows, hold::hold)
    }

    /// What buyers hold by `now` and have bought, of levels with the earliest deadline on each.
    pub fn bought(
        &self,
        asked: &[(&LevelId, Name, Micros)],
        now: Micros,
    ) -> SpiResult<Vec<((LevelId, Name), i64)>> {
        let rows = each(asked, |(at, buyer, next_due)| {
            [text(&at.sku), text(&at.location), text(buyer), time(*next_due)]
        });
        let bought = |row: Row<'_>| ((level_id(row), row.name(2)), row.int(3));
        sql::BOUGHT.query_each(&[time(now)], &rows, bought)
    }

    /// Changes one level if the guard admits it as it is then, and says how it is afterwards. `due`
    /// is the deadline of a hold that is about to be opened there.
    pub fn change_guarded(
        &self,
        guard: &Guard,
        change: &LevelChange,
        due: Micros,
    ) -> Result<Option<Level>, Error> {
        if let Some(done) = self.directly(|tables| tables.change_guarded(guard, change, due)) {
            return Ok(done);
        }
        let locked = Access::by_statements().lock(&BTreeSet::from([guard.at.clone()]))?.pop();
        let Some((at, before)) = locked.filter(|(_, level)| guard.admits(level)) else {
            return Ok(None);
        };
        let after = change.onto(&before, due);
        let is_changed = change_by_statement(&[(&at, &before, &after)], guard.now)? == 1;
        Ok(is_changed.then_some(after))
    }

    /// Writes ledger rows, which claim their keys; says how many were written, fewer than given
    /// where a key was taken. Of one key none is written where the first is taken.
    pub fn claim(&self, entries: &[&Entry]) -> SpiResult<usize> {
        let context = Context::of_session();
        let rows = || entries.iter().map(|entry| ledger::row(entry, &context));
        if let Some(positions) = self.directly(|tables| tables.claim(rows())) {
            let with_lots =
                entries.iter().zip(&positions).filter(|(entry, _)| !entry.lots.is_empty());
            let known = with_lots.map(|(entry, position)| (ledger::claim_of(entry), *position));
            self.positions.borrow_mut().extend(known);
            return Ok(positions.len());
        }
        let rows: Vec<_> = rows().collect();
        let alone = if is_of_one_key(entries) { rows.len().min(1) } else { 0 };
        let (first, rest) = rows.split_at(alone);
        let claimed = if first.is_empty() { 0 } else { sql::CLAIM.execute_each(&[], first)? };
        if claimed < first.len() || rest.is_empty() {
            return Ok(claimed);
        }
        Ok(claimed + sql::CLAIM.execute_each(&[], rest)?)
    }

    /// Writes down what entries that were just claimed did to lots, where that is possible
    /// directly: says how many moves there were.
    pub fn claim_lots(&self, entries: &[Entry]) -> Option<usize> {
        let positions = self.positions.borrow();
        let mut rows = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.lots.is_empty()) {
            let position = *positions.get(&ledger::claim_of(entry))?;
            let row = |moved| ledger_lot::row(position, &entry.key, moved);
            rows.extend(entry.lots.iter().map(row));
        }
        let count = rows.len();
        self.directly(|tables| tables.claim_lots(rows.into_iter())).map(|()| count)
    }

    /// The lots of levels of which something is left, where they can be read directly.
    pub fn lots(&self, levels: &BTreeSet<LevelId>) -> Option<Vec<(LevelId, Lot)>> {
        self.directly_if_few(levels.len(), |tables| tables.lots(levels))
    }

    /// Changes a lot, where that is possible directly.
    pub fn change_lot(&self, at: &LevelId, change: &LotChange) -> Option<()> {
        self.directly(|tables| tables.change_lot(at, change))
    }

    /// Binds lots to holds that were just opened, where that is possible directly.
    pub fn bind_lots(&self, rows: &[[Value; hold_lot::WIDTH]]) -> Option<()> {
        self.directly(|tables| tables.bind_lots(rows.iter().copied()))
    }

    /// Opens holds.
    pub fn open_holds(&self, holds: &[Hold]) -> SpiResult<()> {
        let rows = || holds.iter().map(hold::row);
        if self.directly(|tables| tables.open_holds(rows())).is_some() {
            return Ok(());
        }
        sql::OPEN_HOLDS.execute_each(&[], &rows().collect::<Vec<_>>()).map(drop)
    }

    /// Closes holds, and shrinks or puts off others; says how many were as they must be.
    pub fn change_holds(&self, changes: &[HoldChange]) -> SpiResult<usize> {
        let (kept, closed): (Vec<&HoldChange>, Vec<&HoldChange>) =
            changes.iter().partition(|change| change.after.is_some());
        Ok(self.close_holds(closed)? + keep_holds(&kept)?)
    }

    fn close_holds(&self, mut holds: Vec<&HoldChange>) -> SpiResult<usize> {
        let count = holds.len();
        holds
            .retain(|hold| self.directly_if_few(count, |tables| tables.close_hold(hold)).is_none());
        let directly = count - holds.len();
        if holds.is_empty() {
            return Ok(directly);
        }
        let rows =
            each(&holds, |hold| [text(&hold.key), line(hold.line), int(hold.quantity_before)]);
        Ok(directly + sql::CLOSE_HOLDS.execute_each(&[], &rows)?)
    }

    /// Creates levels; says how many there were not.
    pub fn create_levels(&self, levels: &[(&LevelId, &Level)], now: Micros) -> SpiResult<usize> {
        sql::CREATE_LEVELS
            .execute_each(&[], &each(levels, |(at, level)| level::row(at, level, now)))
    }

    /// Changes levels that are locked, from what they were to what they will be; says how many were
    /// as they must be.
    pub fn change_levels(
        &self,
        levels: &[(&LevelId, &Level, &Level)],
        now: Micros,
    ) -> SpiResult<usize> {
        let directly = |(at, before, after): &(&LevelId, &Level, &Level)| {
            self.directly_if_few(levels.len(), |tables| {
                tables.change_locked(at, before, after, now)
            })
            .is_some()
        };
        let rest: Vec<_> = levels.iter().filter(|level| !directly(level)).copied().collect();
        let done = levels.len() - rest.len();
        if rest.is_empty() { Ok(done) } else { Ok(done + change_by_statement(&rest, now)?) }
    }

    /// The earliest deadline of the holds of levels, of which none lies before the bound of its
    /// level.
    pub fn first_due(
        &self,
        bounds: &BTreeMap<&LevelId, Micros>,
    ) -> SpiResult<BTreeMap<LevelId, Micros>> {
        if bounds.is_empty() {
            return Ok(BTreeMap::new());
        }
        if let Some(first) = self.directly_if_few(bounds.len(), |tables| tables.first_due(bounds)) {
            return Ok(first);
        }
        let rows: Vec<_> = bounds
            .iter()
            .map(|(at, bound)| [text(&at.sku), text(&at.location), time(*bound)])
            .collect();
        let first = |row: Row<'_>| (level_id(row), row.int(2));
        Ok(sql::FIRST_DUE.query_each(&[], &rows, first)?.into_iter().collect())
    }

    /// Finds the earliest deadline of levels again on which nothing else changes.
    pub fn raise_bounds(&self, levels: &BTreeSet<LevelId>) -> SpiResult<()> {
        sql::RAISE_BOUNDS.execute_each(&[], &names(levels)).map(drop)
    }

    /// Adds to what buyers hold and have bought.
    pub fn add_bought<'a>(
        &self,
        bought: impl Iterator<Item = (&'a (LevelId, Name), &'a i64)>,
    ) -> SpiResult<()> {
        let row = |((at, buyer), units): (&(LevelId, Name), &i64)| {
            [text(&at.sku), text(&at.location), text(buyer), int(*units)]
        };
        sql::ADD_BOUGHT.execute_each(&[], &bought.map(row).collect::<Vec<_>>()).map(drop)
    }

    /// Fills in what of holds is not there yet.
    pub fn fill_in_waiting(&self, holds: &mut [Hold]) -> SpiResult<()> {
        let rows = each(holds, |hold| [text(&hold.key), line(hold.line)]);
        let waiting = |row: Row<'_>| ((row.name(0), row.line(1)), (row.int(2), row.line(3)));
        let waiting: HashMap<(Name, i32), (i64, i32)> =
            sql::WAITING_OF.query_each(&[], &rows, waiting)?.into_iter().collect();
        for hold in holds {
            let known = waiting.get(&(hold.key.clone(), hold.line)).copied();
            (hold.waiting, hold.promise) = known.unwrap_or_default();
        }
        Ok(())
    }

    /// The heads of queues, for so many units at each level, as far as one call may pay; and which
    /// of their holds are overdue by `now`.
    pub fn queues(&self, need: &BTreeMap<LevelId, i64>, now: Micros) -> SpiResult<Queues> {
        let rows: Vec<_> = need
            .iter()
            .map(|(at, units)| [text(&at.sku), text(&at.location), int(*units)])
            .collect();
        let place = |row: Row<'_>| {
            let of_hold = hold::WIDTH;
            let at = LevelId { sku: row.name(of_hold), location: row.name(of_hold + 1) };
            let (quantity, promise) = (row.int(of_hold + 4), row.line(of_hold + 7));
            let lapsed = row.flag(of_hold + 6).then(|| Hold {
                waiting: quantity,
                promise,
                ..hold::hold(row)
            });
            let (key, line, sold) =
                (row.name(of_hold + 2), row.line(of_hold + 3), row.flag(of_hold + 5));
            (at, Wait { key, line, quantity, sold, promise, lapsed })
        };
        let mut queues: Queues = need.keys().map(|at| (at.clone(), Default::default())).collect();
        for (at, wait) in
            sql::QUEUES.query_each(&[time(now), int(LINES_MAX as i64)], &rows, place)?
        {
            queues.entry(at).or_default().push_back(wait);
        }
        Ok(queues)
    }

    /// Changes places in queues; new ones first, which may be where the same line has one that it
    /// gives up. Says how many were as they must be.
    pub fn change_places(&self, changes: &[WaitChange]) -> SpiResult<usize> {
        let (taken, there): (Vec<_>, Vec<_>) = changes.iter().partition(|wait| wait.before == 0);
        let (left, kept): (Vec<_>, Vec<_>) = there.into_iter().partition(|wait| wait.after == 0);
        let taken = self.take_places(&taken)?;
        let kept = each(&kept, |wait| {
            let [key, line, sold, promise] = place_of(wait);
            [key, line, sold, promise, int(wait.before), int(wait.after)]
        });
        let left = each(&left, |wait| {
            let [key, line, sold, promise] = place_of(wait);
            [key, line, sold, promise, int(wait.before)]
        });
        Ok(taken
            + sql::CHANGE_PLACES.execute_if_any(&kept)?
            + sql::LEAVE_PLACES.execute_if_any(&left)?)
    }

    /// Takes the last places in queues, and those that the same lines have had so far.
    fn take_places(&self, places: &[&WaitChange]) -> SpiResult<usize> {
        let (own, last): (Vec<&WaitChange>, Vec<&WaitChange>) =
            places.iter().copied().partition(|wait| wait.inherits);
        let own = sql::TAKE_OWN_PLACES.execute_if_any(&each(&own, |wait| waiting::row(wait)))?;
        if last.is_empty() {
            return Ok(own);
        }
        let rows = || last.iter().map(|wait| waiting::row(wait));
        if self.directly_if_few(last.len(), |tables| tables.take_places(rows())).is_some() {
            return Ok(own + last.len());
        }
        Ok(own + sql::TAKE_LAST_PLACES.execute_if_any(&rows().collect::<Vec<_>>())?)
    }

    /// Changes goods on the road: what ends first, what begins last, for goods that turn round may
    /// take the place of others. Says how many were as they must be.
    pub fn change_legs(&self, changes: &[LegChange]) -> SpiResult<usize> {
        let way = |leg: &LegChange| {
            [text(&leg.key), text(&leg.from.sku), text(&leg.from.location), text(&leg.to.location)]
        };
        let (begun, there): (Vec<_>, Vec<_>) = changes.iter().partition(|leg| leg.before == 0);
        let (ended, kept): (Vec<_>, Vec<_>) = there.into_iter().partition(|leg| leg.after == 0);
        let ended = each(&ended, |leg| {
            let [key, sku, from, to] = way(leg);
            [key, sku, from, to, int(leg.before)]
        });
        let kept = each(&kept, |leg| {
            let [key, sku, from, to] = way(leg);
            [key, sku, from, to, int(leg.before), int(leg.after)]
        });
        let begun = each(&begun, |leg| {
            let [key, sku, from, to] = way(leg);
            [key, sku, from, to, int(leg.after), time(leg.dispatched_at)]
        });
        Ok(sql::END_LEGS.execute_if_any(&ended)?
            + sql::CHANGE_LEGS.execute_if_any(&kept)?
            + sql::BEGIN_LEGS.execute_if_any(&begun)?)
    }
}

/// Whether entries claim one key for one operation. Their lines are from 1 on, so that the first
/// one finds what is taken.
pub fn is_of_one_key(entries: &[&Entry]) -> bool {
    let mut keys = entries.iter().map(|entry| (&entry.key, entry.operation));
    keys.next().is_some_and(|first| keys.all(|key| key == first))
}

/// Rows of the names of levels.
pub fn names<'a>(levels: impl IntoIterator<Item = &'a LevelId>) -> Vec<[Value; 2]> {
    levels.into_iter().map(|at| [text(&at.sku), text(&at.location)]).collect()
}

fn each<T, const N: usize>(things: &[T], row: impl Fn(&T) -> [Value; N]) -> Vec<[Value; N]> {
    things.iter().map(row).collect()
}

/// A level with what a statement has counted on it.
fn with_overdue(row: Row<'_>) -> (LevelId, Level) {
    (level::id(row), Level { overdue: row.int(level::WIDTH), ..level::level(row) })
}

fn place_of(wait: &WaitChange) -> [Value; 4] {
    [text(&wait.key), line(wait.line), flag(wait.sold), line(wait.promise)]
}

fn history_by_statement(keys: &[&Name]) -> SpiResult<Vec<Result<Entry, Error>>> {
    sql::HISTORY.query_each(&[], &each(keys, |key| [text(key)]), ledger::entry)
}

fn keep_holds(holds: &[&HoldChange]) -> SpiResult<usize> {
    let row = |hold: &&HoldChange| {
        let (quantity, deadline) = hold.after?;
        Some([
            text(&hold.key),
            line(hold.line),
            int(hold.quantity_before),
            int(quantity),
            time(deadline),
        ])
    };
    sql::CHANGE_HOLDS.execute_if_any(&holds.iter().filter_map(row).collect::<Vec<_>>())
}

fn change_by_statement(levels: &[(&LevelId, &Level, &Level)], now: Micros) -> SpiResult<usize> {
    let rows = levels.iter().map(|(at, before, after)| {
        let mut row = level::row(at, after, now).to_vec();
        row.push(int(before.version));
        row
    });
    sql::CHANGE_LEVELS.execute_each(&[], &rows.collect::<Vec<_>>())
}
