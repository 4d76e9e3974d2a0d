//! Histories with lots: after each step the tables agree, what is promised is what expires first,
//! and who is refused is refused by right, as the tables alone tell.

use pg_stock_core::facts::LevelId;
use pg_stock_core::limits::SECOND;
use pg_stock_core::{Action, Limits, Line, Load, Name, NamedLot, Outcome, Request};
use proptest::option;
use proptest::prelude::*;

use crate::database::Database;
use crate::{HISTORIES, Step, name, step};

/// One more location than other histories have, so that a lorry may have come from two.
fn level() -> impl Strategy<Value = LevelId> {
    (name("s", 2), name("l", 3)).prop_map(|(sku, location)| LevelId { sku, location })
}

fn lot() -> impl Strategy<Value = Name> {
    name("d", 3)
}

/// Lots of one name have one date, but for some that come with another.
fn named_lot() -> impl Strategy<Value = NamedLot> {
    (0..3u8, 0..12i64).prop_map(|(number, odd)| NamedLot {
        name: Name::from(format!("d{number}").as_str()),
        best_before: match (number, odd) {
            (_, 0) => Some(40 * SECOND),
            (0, _) => Some(10 * SECOND),
            (1, _) => Some(25 * SECOND),
            _ => None,
        },
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (level(), 1..6i64, option::weighted(0.9, named_lot()))
            .prop_map(|(at, quantity, lot)| Action::Receive { at, quantity, lot }),
        1 => level().prop_map(|at| Action::TrackLots { at }),
        2 => (level(), lot(), any::<bool>()).prop_map(|(at, lot, freeze)| match freeze {
            true => Action::FreezeLot { at, lot },
            false => Action::UnfreezeLot { at, lot },
        }),
        1 => (level(), prop_oneof![-4..0i64, 1..4i64], option::weighted(0.9, lot()))
            .prop_map(|(at, delta, lot)| Action::Adjust { at, delta, expected_version: None, lot }),
        1 => (level(), 0..6i64, option::weighted(0.9, lot())).prop_map(|(at, on_hand, lot)| {
            Action::Set { at, on_hand, expected_version: None, lot }
        }),
        1 => (name("s", 2), 0..6u8, 1..5i64, option::weighted(0.4, lot())).prop_map(
            |(sku, way, quantity, lot)| {
                let (from, to) = ends(&sku, way);
                Action::Transfer { from, to, quantity, lot }
            }
        ),
        1 => proptest::collection::vec(
            (name("s", 2), 0..6u8, 1..4i64, option::weighted(0.5, lot())),
            1..4,
        )
        .prop_map(|loads| Action::Dispatch { loads: loads_of(loads) }),
        2 => (level(), 0..8i64).prop_map(|(at, life)| Action::SetLimits {
            at,
            limits: Limits { min_life: Some(life * SECOND), ..Limits::default() },
        }),
        4 => (
            level(),
            1..4i64,
            option::weighted(0.3, lot()),
            option::weighted(0.3, 1..12i64),
            any::<bool>(),
        )
            .prop_map(|(at, quantity, lot, life, holds)| Action::Reserve {
                lines: vec![Line { lot, ..Line::new(1, at, quantity) }],
                ttl: holds.then_some(3 * SECOND),
                buyer: None,
                min_life: life.map(|life| life * SECOND),
            }),
        1 => (level(), 1..4i64, lot()).prop_map(|(at, quantity, lot)| Action::Return {
            lines: Some(vec![Line { lot: Some(lot), ..Line::new(1, at, quantity) }]),
        }),
        1 => (level(), 1..3i64, lot(), any::<bool>()).prop_map(|(at, quantity, lot, arrives)| {
            let lines = Some(vec![Line { lot: Some(lot), ..Line::new(1, at, quantity) }]);
            if arrives { Action::Arrive { lines } } else { Action::Lose { lines } }
        }),
    ]
}

fn ends(sku: &Name, way: u8) -> (LevelId, LevelId) {
    let at = |location: u8| LevelId {
        sku: sku.clone(),
        location: Name::from(format!("l{location}").as_str()),
    };
    (at(way % 3), at((way % 3 + 1 + way / 3) % 3))
}

/// Each way and lot once.
fn loads_of(asked: Vec<(Name, u8, i64, Option<Name>)>) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    for (sku, way, quantity, lot) in asked {
        let (from, to) = ends(&sku, way);
        let is_same = |load: &Load| (&load.from, &load.to, &load.lot) == (&from, &to, &lot);
        if !loads.iter().any(is_same) {
            loads.push(Load { number: loads.len() as i32 + 1, from, to, quantity, lot });
        }
    }
    loads
}

fn steps() -> impl Strategy<Value = Vec<Option<Step>>> {
    let request = (name("k", 4), action(), 0..3u8).prop_map(|(key, action, part)| {
        let is_part = part > 0 && action.follows_its_key();
        let operation_key = format!("p{part}");
        let request = Request {
            number: 1,
            key,
            operation_key: if is_part { operation_key.as_str().into() } else { Name::default() },
            reason: Name::default(),
            context: Name::default(),
            action,
        };
        Some(Step::Run(request))
    });
    let fresh = (0..1_000u32, action()).prop_map(|(number, action)| {
        Some(Step::Run(crate::request_of(format!("goods {number}").as_str().into(), action)))
    });
    let others = step().prop_map(Some);
    proptest::collection::vec(
        prop_oneof![8 => request, 6 => fresh, 12 => others, 1 => Just(None)],
        1..80,
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: HISTORIES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn lots_are_what_their_levels_have_and_the_first_to_expire_is_promised_first(steps in steps()) {
        let mut database = Database::default();
        for step in &steps {
            match step {
                None => database.spoil(),
                Some(Step::Wait(micros)) => database.now += micros,
                Some(Step::RetakeLapsed(on)) => database.retake_lapsed = *on,
                Some(Step::MaxHold(most)) => database.max_hold = *most,
                Some(Step::Sweep(at)) => database.sweep(at),
                Some(Step::Run(request)) => run(&mut database, request),
                Some(Step::Batch(requests)) => drop(database.try_run(requests)),
            }
            database.check();
        }
    }
}

/// A single reserve is refused for want of stock where the tables have too little, and only there;
/// whatever is answered, what is available is what they have.
fn run(database: &mut Database, request: &Request) {
    let before = database.clone();
    let Ok(answers) = database.try_run(std::slice::from_ref(request)) else { return };
    for answer in answers.iter().filter(|answer| !answer.replayed) {
        let Some(at) = answer.at.as_ref().filter(|at| database.levels.contains_key(at)) else {
            assert_eq!(answer.available, None);
            continue;
        };
        let level = &database.levels[at];
        let is_for_sale = !level.frozen && level.sale.is_open(database.now);
        let expected = if is_for_sale { database.promisable(at, None, 0).0.max(0) } else { 0 };
        assert_eq!(answer.available, Some(expected), "{answer:?} of {database:?}");
    }
    if let Action::Reserve { lines, min_life, .. } = &request.action
        && let [line] = lines.as_slice()
        && let [answer] = answers.as_slice()
        && [Outcome::Reserved, Outcome::Sold, Outcome::InsufficientStock].contains(&answer.outcome)
        && !answer.replayed
    {
        let (most, _) = before.promisable(&line.at, line.lot.as_ref(), min_life.unwrap_or(0));
        let is_enough = most >= line.quantity;
        assert_eq!(answer.outcome.is_refusal(), !is_enough, "{most} for {answer:?} {before:?}");
    }
}
