//! Every cell of the table of outcomes in docs/reference.md by operation and state, played against
//! a real server.

use super::support::{call, database, finish, sqlstate, value};
use pg_stock_core::table::{Cell, Step, level_cells, lot_cells, reservation_cells, shipment_cells};
use pg_stock_core::{Action, LevelId, Line, Load, Name, Outcome, Request};

fn text(name: &Name) -> String {
    if name.is_empty() { "NULL".into() } else { format!("'{name}'") }
}

fn opt_text(name: &Option<Name>) -> String {
    name.as_ref().map_or("NULL".into(), text)
}

fn span(value: Option<i64>) -> String {
    value.map_or("NULL".into(), |micros| format!("interval '{micros} us'"))
}

fn number(value: Option<i64>) -> String {
    value.map_or("NULL".into(), |value| value.to_string())
}

fn moment(value: Option<i64>) -> String {
    let from_2000 = |at| format!("timestamptz '2000-01-01 00:00:00+00' + interval '{at} us'");
    value.map_or("NULL".into(), from_2000)
}

fn level(at: &LevelId) -> String {
    format!("{}, {}", text(&at.sku), text(&at.location))
}

fn json(lines: Option<&[Line]>) -> String {
    let Some(lines) = lines else { return "NULL".into() };
    let line = |line: &Line| {
        let (sku, location) = (line.at.sku.to_string(), line.at.location.to_string());
        let mut told =
            serde_json::json!({"sku": sku, "location": location, "quantity": line.quantity});
        if let Some(lot) = &line.lot {
            told["lot"] = lot.to_string().into();
        }
        told
    };
    format!("'{}'", serde_json::Value::from(lines.iter().map(line).collect::<Vec<_>>()))
}

fn json_of_loads(loads: &[Load]) -> String {
    let load = |load: &Load| {
        let [sku, from, to] =
            [&load.from.sku, &load.from.location, &load.to.location].map(Name::to_string);
        serde_json::json!({"sku": sku, "from": from, "to": to, "quantity": load.quantity})
    };
    format!("'{}'", serde_json::Value::from(loads.iter().map(load).collect::<Vec<_>>()))
}

/// The call that makes a request.
fn sql(request: &Request) -> String {
    let (key, part, reason) =
        (text(&request.key), text(&request.operation_key), text(&request.reason));
    let part_of = |operation: &str, lines: &Option<Vec<Line>>| {
        format!("try_{operation}_stock({key}, {}, {part})", json(lines.as_deref()))
    };
    match &request.action {
        Action::Reserve { lines, ttl: Some(ttl), .. } if lines[0].lot.is_some() => {
            let options = format!("'{{\"ttl\": \"{ttl} microseconds\"}}'");
            format!("try_reserve_stock({key}, {}, {options})", json(Some(lines.as_slice())))
        }
        Action::Reserve { lines, ttl, .. } => {
            let (line, version) = (&lines[0], number(lines[0].expected_version));
            match ttl {
                Some(ttl) => format!(
                    "try_reserve_stock({key}, {}, {}, '{ttl} microseconds', NULL, {version})",
                    level(&line.at),
                    line.quantity
                ),
                None => format!(
                    "try_sell_stock({key}, {}, {}, NULL, {version})",
                    level(&line.at),
                    line.quantity
                ),
            }
        }
        Action::Confirm { lines } => part_of("confirm", lines),
        Action::Release { lines } => part_of("release", lines),
        Action::Return { lines } => part_of("return", lines),
        Action::Extend { ttl } => format!("try_extend_reservation({key}, '{ttl} microseconds')"),
        Action::Reopen => format!("try_reopen_key({key}, {reason})"),
        Action::Dispatch { loads } => {
            format!("try_dispatch_stock({key}, {})", json_of_loads(loads))
        }
        Action::Arrive { lines } => part_of("arrive", lines),
        Action::Lose { lines } => part_of("lose", lines),
        Action::Recall => format!("try_recall_stock({key}, {part})"),
        _ => sql_of_goods(request),
    }
}

/// The call that makes a request about a level.
fn sql_of_goods(request: &Request) -> String {
    let (key, reason) = (text(&request.key), text(&request.reason));
    match &request.action {
        Action::Receive { at, quantity, lot: None } => {
            format!("try_receive_stock({key}, {}, {quantity})", level(at))
        }
        Action::Receive { at, quantity, lot: Some(lot) } => format!(
            "try_receive_stock({key}, {}, {quantity}, NULL, {}, {})",
            level(at),
            text(&lot.name),
            moment(lot.best_before)
        ),
        Action::Adjust { at, delta, expected_version, lot } => {
            format!(
                "try_adjust_stock({key}, {}, {delta}, {reason}, {}, {})",
                level(at),
                number(*expected_version),
                opt_text(lot)
            )
        }
        Action::Set { at, on_hand, expected_version, lot } => {
            format!(
                "try_set_stock({key}, {}, {on_hand}, {}, NULL, {})",
                level(at),
                number(*expected_version),
                opt_text(lot)
            )
        }
        Action::Transfer { from, to, quantity, lot } => {
            format!(
                "try_transfer_stock({key}, {}, {}, {quantity}, NULL, {})",
                level(from),
                text(&to.location),
                opt_text(lot)
            )
        }
        Action::SetLimits { at, limits } => {
            format!(
                "try_set_limits({key}, {}, {}, {}, {}, {}, {}, {})",
                level(at),
                number(limits.safety_stock),
                number(limits.buyer_limit),
                moment(limits.on_sale_from),
                moment(limits.on_sale_until),
                number(limits.backorder_limit),
                span(limits.min_life)
            )
        }
        Action::Freeze { at } => format!("try_freeze_level({key}, {}, {reason})", level(at)),
        Action::Unfreeze { at } => format!("try_unfreeze_level({key}, {}, {reason})", level(at)),
        Action::TrackLots { at } => format!("try_track_lots({key}, {})", level(at)),
        Action::FreezeLot { at, lot } => {
            format!("try_freeze_lot({key}, {}, {}, {reason})", level(at), text(lot))
        }
        Action::UnfreezeLot { at, lot } => {
            format!("try_unfreeze_lot({key}, {}, {}, {reason})", level(at), text(lot))
        }
        action => unreachable!("not about a level: {action:?}"),
    }
}

/// The SQLSTATE that the raising form raises, if it does; whatever it changed is undone.
fn raising(client: &mut postgres::Client, request: &Request) -> Option<String> {
    client.batch_execute("SAVEPOINT raising").unwrap();
    let raised = call(client, &sql(request).replace("try_", "")).err();
    client.batch_execute("ROLLBACK TO raising").unwrap();
    raised.map(|error| sqlstate(&error))
}

/// Plays a cell in a transaction that is rolled back; gives its outcome.
fn play(client: &mut postgres::Client, cell: &Cell) -> String {
    client.batch_execute("BEGIN").unwrap();
    for step in &cell.steps {
        match step {
            Step::Wait => drop(value(client, "SELECT pg_sleep(0.005)")),
            Step::Run(request) => assert!(!call(client, &sql(request)).unwrap().is_empty()),
        }
    }
    let raised = raising(client, &cell.request);
    let before = value(client, "SELECT count(*) FROM stock.ledger");
    let rows = call(client, &sql(&cell.request)).unwrap();
    let row = rows.iter().find(|row| row.outcome != "not_applied").expect("an outcome");
    let outcome =
        Outcome::ALL.iter().find(|outcome| outcome.word() == row.outcome).expect("one of the list");
    let refused = outcome.is_refusal();
    assert_eq!(raised.as_deref(), outcome.sqlstate(), "what the raising form raises: {cell:?}");
    let after = value(client, "SELECT count(*) FROM stock.ledger");
    assert_eq!(
        before == after,
        refused || row.replayed,
        "a refusal and a replay write nothing: {cell:?}"
    );
    pg_stock_tests::invariants::assert_hold(client);
    client.batch_execute("ROLLBACK").unwrap();
    if row.replayed { format!("{} (replay)", row.outcome) } else { row.outcome.clone() }
}

#[test]
fn every_cell_is_answered_as_the_readme_says() {
    let database = database();
    let mut client = database.connect();
    let cells = [reservation_cells(), level_cells(), shipment_cells(), lot_cells()].concat();
    for cell in &cells {
        assert_eq!(
            play(&mut client, cell),
            cell.outcome,
            "{} on {}: {:?}",
            cell.operation,
            cell.state,
            cell.request
        );
    }
    println!("{} cells", cells.len());
    finish(database);
}
