//! The table of outcome by operation and state, made by running the rules.
//!
//! docs/reference.md contains it (a test compares), and a test from outside plays every cell
//! against a real server.

use std::collections::{HashMap, VecDeque};

use crate::facts::{Entry, Facts, Hold, Level, LevelId, Lot, Micros};
use crate::limits::SECOND;
use crate::name::Name;
use crate::request::{Action, Limits, Line, Load, NamedLot, Request};
use crate::{Answer, decide};

/// What happens before the operation that a cell is about.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request that succeeds.
    Run(Box<Request>),
    /// The deadline of a short hold passes.
    Wait,
}

/// One cell: an operation on a state.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The row of the table.
    pub operation: &'static str,
    /// The column of the table.
    pub state: &'static str,
    /// How the state comes about.
    pub steps: Vec<Step>,
    /// The request.
    pub request: Request,
    /// The outcome, with a note where it is a replay.
    pub outcome: String,
}

/// The time to live of a hold whose deadline is to pass: a millisecond.
const SHORT: Micros = SECOND / 1_000;
/// Units that the level has and that the reservation of the table takes.
const UNITS: i64 = 5;
/// The lot that is named.
const LOT: &str = "L1";
/// Its date: in 2060.
const DATE: Micros = 60 * 365 * 24 * 3600 * SECOND;

/// The cells of the table about reservations, by rows.
pub fn reservation_cells() -> Vec<Cell> {
    let again = |action| Request { operation_key: "again".into(), ..request("k", action) };
    let operations = [
        ("reserve, same request", request("k", reserve(UNITS, Some(SHORT)))),
        ("reserve, other request", request("k", reserve(1, Some(SHORT)))),
        ("sell", request("k", reserve(UNITS, None))),
        ("confirm", again(Action::Confirm { lines: None })),
        ("confirm of more", again(Action::Confirm { lines: Some(lines(UNITS + 1)) })),
        ("release", again(Action::Release { lines: None })),
        ("return", again(Action::Return { lines: None })),
        ("extend", request("k", Action::Extend { ttl: 7200 * SECOND })),
        ("reopen_key", request("k", Action::Reopen)),
    ];
    cells(&operations, &reservation_states())
}

/// The cells of the table about levels, by rows.
pub fn level_cells() -> Vec<Cell> {
    let (there, elsewhere) = (at("main"), at("elsewhere"));
    let expecting = |action: Action, version: i64| match action {
        Action::Reserve { mut lines, ttl, buyer, min_life } => {
            lines[0].expected_version = Some(version);
            Action::Reserve { lines, ttl, buyer, min_life }
        }
        action => action,
    };
    let operations = [
        ("reserve", reserve(UNITS, Some(SHORT))),
        ("reserve, expecting version 1", expecting(reserve(UNITS, Some(SHORT)), 1)),
        ("sell", reserve(UNITS, None)),
        ("receive", Action::Receive { at: there.clone(), quantity: 1, lot: None }),
        (
            "adjust by -1",
            Action::Adjust { at: there.clone(), delta: -1, expected_version: None, lot: None },
        ),
        (
            "set to 1",
            Action::Set { at: there.clone(), on_hand: 1, expected_version: None, lot: None },
        ),
        (
            "set to 1, expecting version 1",
            Action::Set { at: there.clone(), on_hand: 1, expected_version: Some(1), lot: None },
        ),
        (
            "transfer",
            Action::Transfer { from: there.clone(), to: elsewhere, quantity: 1, lot: None },
        ),
        ("dispatch", dispatch(1)),
        (
            "set_limits",
            Action::SetLimits {
                at: there.clone(),
                limits: Limits { safety_stock: Some(1), ..Limits::default() },
            },
        ),
        ("freeze", Action::Freeze { at: there.clone() }),
        ("unfreeze", Action::Unfreeze { at: there }),
    ]
    .map(|(name, action)| (name, request("k", action)));
    cells(&operations, &level_states())
}

/// The cells of the table about shipments, by rows.
pub fn shipment_cells() -> Vec<Cell> {
    let again = |action| Request { operation_key: "again".into(), ..request("k", action) };
    let elsewhere = |quantity| Some(vec![Line::new(1, at("elsewhere"), quantity)]);
    let operations = [
        ("dispatch, same request", request("k", dispatch(UNITS))),
        ("dispatch, other request", request("k", dispatch(1))),
        ("arrive", again(Action::Arrive { lines: None })),
        ("arrive of one unit", again(Action::Arrive { lines: elsewhere(1) })),
        ("arrive of more", again(Action::Arrive { lines: elsewhere(UNITS + 1) })),
        ("lose", again(Action::Lose { lines: None })),
        ("recall", again(Action::Recall)),
    ];
    cells(&operations, &shipment_states())
}

/// The cells of the table about lots, by rows: the lot is that which is named.
pub fn lot_cells() -> Vec<Cell> {
    let (there, elsewhere, lot) = (at("main"), at("elsewhere"), || Some(Name::from(LOT)));
    let of_lot = Action::Reserve {
        lines: vec![Line { lot: lot(), ..lines(UNITS).remove(0) }],
        ttl: Some(SHORT),
        buyer: None,
        min_life: None,
    };
    let adjust = |lot| Action::Adjust { at: there.clone(), delta: -1, expected_version: None, lot };
    let transfer = |lot| {
        let (from, to) = (there.clone(), elsewhere.clone());
        Action::Transfer { from, to, quantity: 1, lot }
    };
    let set = |lot| Action::Set { at: there.clone(), on_hand: 1, expected_version: None, lot };
    let operations = [
        ("reserve", reserve(UNITS, Some(SHORT))),
        ("reserve of the lot", of_lot),
        ("receive", receive(UNITS, None)),
        ("receive of the lot", receive(UNITS, Some(DATE))),
        ("receive of the lot, other date", receive(UNITS, Some(DATE + SECOND))),
        ("adjust by -1", adjust(None)),
        ("adjust of the lot by -1", adjust(lot())),
        ("set to 1", set(None)),
        ("set of the lot to 1", set(lot())),
        ("transfer", transfer(None)),
        ("transfer of the lot", transfer(lot())),
        ("track_lots", Action::TrackLots { at: there.clone() }),
        ("freeze_lot", Action::FreezeLot { at: there.clone(), lot: LOT.into() }),
        ("unfreeze_lot", Action::UnfreezeLot { at: there.clone(), lot: LOT.into() }),
    ]
    .map(|(name, action)| (name, request("k", action)));
    cells(&operations, &lot_states())
}

/// The tables in Markdown.
pub fn markdown() -> String {
    let about_reservations = table("operation \\ the key is", &reservation_cells());
    let about_levels = table("operation \\ the level is", &level_cells());
    let about_shipments = table("operation \\ the shipment is", &shipment_cells());
    let about_lots = table("operation \\ the level has", &lot_cells());
    format!("{about_reservations}\n{about_levels}\n{about_shipments}\n{about_lots}")
}

fn reservation_states() -> Vec<(&'static str, Vec<Step>)> {
    let received = Step::Run(request("stock", receive(UNITS, None)).into());
    let run = |action| Step::Run(request("k", action).into());
    let long = || run(reserve(UNITS, Some(3600 * SECOND)));
    let short = || run(reserve(UNITS, Some(SHORT)));
    let resold = Step::Run(request("other", reserve(UNITS, Some(3600 * SECOND))).into());
    let (confirm, release) =
        (run(Action::Confirm { lines: None }), run(Action::Release { lines: None }));
    let returned = run(Action::Return { lines: None });
    [
        ("unknown", vec![]),
        ("held", vec![long()]),
        ("lapsed, units there", vec![short(), Step::Wait]),
        ("lapsed, units gone", vec![short(), Step::Wait, resold]),
        ("confirmed", vec![long(), confirm.clone()]),
        ("returned", vec![long(), confirm, returned]),
        ("released", vec![long(), release.clone()]),
        ("cancelled", vec![release]),
    ]
    .map(|(name, steps)| (name, [vec![received.clone()], steps].concat()))
    .into()
}

fn shipment_states() -> Vec<(&'static str, Vec<Step>)> {
    let received = Step::Run(request("stock", receive(UNITS, None)).into());
    let run = |action| Step::Run(request("k", action).into());
    let sent = || vec![received.clone(), run(dispatch(UNITS))];
    let then = |action| [sent(), vec![run(action)]].concat();
    vec![
        ("unknown", vec![received.clone()]),
        ("on the way", sent()),
        ("arrived", then(Action::Arrive { lines: None })),
        ("lost", then(Action::Lose { lines: None })),
        ("recalled", then(Action::Recall)),
    ]
}

fn lot_states() -> Vec<(&'static str, Vec<Step>)> {
    let run = |key: &str, action| Step::Run(request(key, action).into());
    let dated = run("stock", receive(UNITS, Some(DATE)));
    let held = run("other", reserve(UNITS, Some(3600 * SECOND)));
    let frozen = run("recall", Action::FreezeLot { at: at("main"), lot: LOT.into() });
    let limits = Limits { min_life: Some(DATE + SECOND), ..Limits::default() };
    let short = run("life", Action::SetLimits { at: at("main"), limits });
    let of_other = Action::Receive {
        at: at("main"),
        quantity: UNITS,
        lot: Some(NamedLot { name: "other".into(), best_before: None }),
    };
    vec![
        ("no lots", vec![run("stock", receive(UNITS, None))]),
        ("that lot", vec![dated.clone()]),
        ("that lot, held by others", vec![dated.clone(), held]),
        ("that lot, called back", vec![dated.clone(), frozen]),
        ("that lot, too near its date", vec![dated, short]),
        ("another lot", vec![run("stock", of_other)]),
    ]
}

fn level_states() -> Vec<(&'static str, Vec<Step>)> {
    let received = Step::Run(request("stock", receive(UNITS, None)).into());
    let frozen = Step::Run(request("recall", Action::Freeze { at: at("main") }).into());
    // In 2000, where time begins.
    let limits = Limits { on_sale_until: Some(0), ..Limits::default() };
    let ended = Step::Run(request("end", Action::SetLimits { at: at("main"), limits }).into());
    let held = Step::Run(request("other", reserve(UNITS, Some(3600 * SECOND))).into());
    let limits = Limits { backorder_limit: Some(UNITS), ..Limits::default() };
    let may_wait =
        Step::Run(request("pre-sale", Action::SetLimits { at: at("main"), limits }).into());
    let overdue = vec![Step::Run(request("other", reserve(UNITS, Some(SHORT))).into()), Step::Wait];
    vec![
        ("unknown", vec![]),
        ("open", vec![received.clone()]),
        ("held by others", vec![received.clone(), held.clone()]),
        ("held by others, backorders", vec![received.clone(), held, may_wait]),
        ("held by others, overdue", [vec![received.clone()], overdue].concat()),
        ("frozen", vec![received.clone(), frozen]),
        ("not on sale", vec![received, ended]),
    ]
}

fn cells(
    operations: &[(&'static str, Request)],
    states: &[(&'static str, Vec<Step>)],
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (operation, request) in operations {
        for (state, steps) in states {
            cells.push(Cell {
                operation,
                state,
                steps: steps.clone(),
                request: request.clone(),
                outcome: outcome(steps, request),
            });
        }
    }
    cells
}

fn outcome(steps: &[Step], request: &Request) -> String {
    let mut shelf = Shelf::default();
    for step in steps {
        match step {
            Step::Wait => shelf.now += SECOND,
            Step::Run(request) => drop(shelf.run(request)),
        }
    }
    let told = |answer: &Answer| match answer.replayed {
        true => format!("{} (replay)", answer.outcome.word()),
        false => answer.outcome.word().to_owned(),
    };
    shelf
        .run(request)
        .iter()
        .find(|answer| answer.outcome.word() != "not_applied")
        .map(told)
        .unwrap_or_default()
}

fn table(corner: &str, cells: &[Cell]) -> String {
    let states: Vec<&str> = cells
        .iter()
        .take_while(|cell| cell.operation == cells[0].operation)
        .map(|cell| cell.state)
        .collect();
    let mut text =
        format!("| {corner} | {} |\n|---{}|\n", states.join(" | "), "|---".repeat(states.len()));
    for row in cells.chunks(states.len()) {
        let outcomes: Vec<&str> = row.iter().map(|cell| cell.outcome.as_str()).collect();
        text.push_str(&format!("| **{}** | {} |\n", row[0].operation, outcomes.join(" | ")));
    }
    text
}

fn at(location: &str) -> LevelId {
    LevelId { sku: "apple".into(), location: location.into() }
}

fn lines(quantity: i64) -> Vec<Line> {
    vec![Line::new(1, at("main"), quantity)]
}

/// Goods of the lot with a date, or without one.
fn receive(quantity: i64, date: Option<Micros>) -> Action {
    let lot = date.map(|date| NamedLot { name: LOT.into(), best_before: Some(date) });
    Action::Receive { at: at("main"), quantity, lot }
}

fn dispatch(quantity: i64) -> Action {
    let (from, to) = (at("main"), at("elsewhere"));
    Action::Dispatch { loads: vec![Load { number: 1, from, to, quantity, lot: None }] }
}

fn reserve(quantity: i64, ttl: Option<Micros>) -> Action {
    Action::Reserve { lines: lines(quantity), ttl, buyer: None, min_life: None }
}

fn request(key: &str, action: Action) -> Request {
    let reason = match action {
        Action::Adjust { .. }
        | Action::Freeze { .. }
        | Action::Unfreeze { .. }
        | Action::FreezeLot { .. }
        | Action::UnfreezeLot { .. }
        | Action::Reopen => "why".into(),
        _ => Name::default(),
    };
    Request {
        number: 1,
        key: key.into(),
        operation_key: Name::default(),
        reason,
        context: Name::default(),
        action,
    }
}

/// A few levels, holds and entries: as much of a database as the table needs.
#[derive(Default)]
struct Shelf {
    now: Micros,
    levels: std::collections::BTreeMap<LevelId, Level>,
    lots: std::collections::BTreeMap<(LevelId, Name), Lot>,
    holds: Vec<Hold>,
    entries: Vec<Entry>,
}

impl Shelf {
    fn run(&mut self, request: &Request) -> Vec<Answer> {
        let Ok(decision) = decide(self.facts(request), std::slice::from_ref(request)) else {
            return Vec::new();
        };
        self.entries.extend(decision.effects.entries);
        self.levels
            .extend(decision.effects.levels.into_iter().map(|(at, change)| (at, change.after)));
        self.lots
            .extend(decision.effects.lots.into_iter().map(|(lot, change)| (lot, change.after)));
        for change in decision.effects.changed {
            self.holds.retain(|hold| change.after.is_some() || hold.key != change.key);
        }
        self.holds.extend(decision.effects.opened);
        decision.answers
    }

    fn facts(&self, request: &Request) -> Facts {
        let mut overdue: HashMap<LevelId, VecDeque<Hold>> = HashMap::new();
        for hold in self.holds.iter().filter(|hold| hold.expires_at <= self.now) {
            overdue.entry(hold.at.clone()).or_default().push_back(hold.clone());
        }
        let units =
            |at: &LevelId| overdue.get(at).into_iter().flatten().map(|hold| hold.quantity).sum();
        let level = |(at, level): (&LevelId, &Level)| {
            (at.clone(), Level { overdue: units(at), ..level.clone() })
        };
        let entries =
            self.entries.iter().filter(|entry| entry.key == request.key).cloned().collect();
        let mut lots: HashMap<LevelId, Vec<Lot>> = HashMap::new();
        for ((at, _), lot) in &self.lots {
            lots.entry(at.clone()).or_default().push(lot.clone());
        }
        Facts {
            lots,
            now: self.now,
            retake_lapsed: true,
            levels: self.levels.iter().map(level).collect(),
            history: [(request.key.clone(), entries)].into(),
            overdue,
            ..Facts::default()
        }
    }
}
