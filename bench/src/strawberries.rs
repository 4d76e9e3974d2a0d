//! The second act of the demo: strawberries of three dates are sold before they are picked, and the
//! lorry that brings them arrives half empty. Who was promised first gets what there is, of what
//! expires first. Then a lot is called back.

use std::sync::Mutex;

use comfy_table::{Table, presets};
use pg_stock_tests::Database;
use postgres::{Client, Error};

/// Orders that are placed before a single strawberry is there.
const ORDERS: usize = 24;
/// Connections they come over, all at once.
const CONNECTIONS: usize = 8;
/// Units that may be promised.
const ALLOWANCE: i64 = 40;
/// Units that leave the farm, and those of them that arrive.
const LOADED: i64 = 40;
const ARRIVED: i64 = 20;

/// Plays it, and shows who got what and who waits.
///
/// # Errors
/// If the database gives one.
pub fn play(database: Database<'_>) -> Result<(), Error> {
    let mut client = database.connect();
    client.batch_execute(&format!(
        "SELECT stock.receive_stock('picked ' || lot, 'strawberries', 'farm', units, NULL, lot,
                                    now() + days * '1 day'::interval)
           FROM (VALUES ('A', 8, 1), ('B', 10, 2), ('C', {LOADED} - 18, 4)) l (lot, units, days);
         SELECT stock.set_stock('opening', 'strawberries', 'shop', 0, NULL);
         SELECT stock.set_limits('pre-sale', 'strawberries', 'shop',
                                 backorder_limit => {ALLOWANCE})"
    ))?;
    println!(
        "\nPre-sale: none of the strawberries is in the shop, and {ALLOWANCE} may be promised. \
         {ORDERS} orders of one to three over {CONNECTIONS} connections, half of them paid at once."
    );
    let refused = order(database)?;
    client.batch_execute(&format!(
        "SELECT stock.dispatch_stock('lorry', '[{{\"sku\": \"strawberries\", \"from\": \"farm\",
                                                  \"to\": \"shop\", \"quantity\": {LOADED}}}]');
         SELECT stock.arrive_stock('lorry', '[{{\"sku\": \"strawberries\", \"location\": \"shop\",
                                                \"quantity\": {ARRIVED}}}]', 'ramp 1');
         SELECT stock.lose_stock('lorry', NULL, 'ramp 1', 'fell off in a bend')"
    ))?;
    show(&mut client, refused)?;
    call_back(&mut client)
}

/// Places the orders; gives how many were refused.
fn order(database: Database<'_>) -> Result<usize, Error> {
    let refused = Mutex::new(0);
    let buy = |first: usize| -> Result<(), Error> {
        let mut client = database.connect();
        for order in (first..ORDERS).step_by(CONNECTIONS) {
            let (key, units) = (format!("berries {order}"), 1 + order as i64 % 3);
            let reserve = "SELECT outcome FROM stock.try_reserve_stock($1, 'strawberries', 'shop',
                                                                       $2)";
            let outcome: String = client.query_one(reserve, &[&key, &units])?.get(0);
            match outcome.as_str() {
                "reserved" if order.is_multiple_of(2) => {
                    client.query_one("SELECT outcome FROM stock.confirm_stock($1)", &[&key])?;
                }
                "reserved" => {}
                _ => *refused.lock().expect("nobody panicked") += 1,
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let buyers: Vec<_> =
            (0..CONNECTIONS).map(|first| scope.spawn(move || buy(first))).collect();
        buyers.into_iter().try_for_each(|buyer| buyer.join().expect("no panic"))
    })?;
    Ok(refused.into_inner().expect("nobody panicked"))
}

fn show(client: &mut Client, refused: usize) -> Result<(), Error> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["order, oldest first", "units", "paid", "has come", "of lot", "waits"]);
    let orders = "SELECT p.key, p.quantity, r.confirmed > 0, p.quantity - r.backordered,
                         r.backordered,
                         (SELECT coalesce(string_agg(k.quantity || ' ' || k.lot, ', '
                                                     ORDER BY k.best_before), '')
                            FROM stock.picks(p.key) k)
                    FROM stock.ledger_rows p, LATERAL stock.reservation(p.key) r
                   WHERE p.sku = 'strawberries' AND p.operation = 'reserve'
                   ORDER BY p.version";
    for row in client.query(orders, &[])? {
        let units = |column| row.get::<_, i64>(column).to_string();
        let paid = if row.get(2) { "yes" } else { "not yet" };
        table.add_row([row.get(0), units(1), paid.to_owned(), units(3), row.get(5), units(4)]);
    }
    println!("{table}");
    let level = "SELECT on_hand, reserved, waiting, in_transit, available FROM stock.levels
                  WHERE (sku, location) = ('strawberries', 'shop')";
    let row = client.query_one(level, &[])?;
    let [on_hand, reserved, waiting, in_transit, available]: [i64; 5] =
        std::array::from_fn(|column| row.get(column));
    println!(
        "A lorry of {LOADED} brought {ARRIVED}; the rest was written off. In the shop: {on_hand} \
         on hand, {reserved} of them reserved, {waiting} waited for, {in_transit} on the road, \
         {available} more may be promised. {refused} orders were refused.\n"
    );
    Ok(())
}

/// Glass was found in what expires first: who got of it, and who holds of it?
fn call_back(client: &mut Client) -> Result<(), Error> {
    client.batch_execute(
        "SELECT stock.freeze_lot('recall', 'strawberries', 'shop', 'A', 'glass found')",
    )?;
    let named = |sql: &str, client: &mut Client| -> Result<String, Error> {
        Ok(client.query_one(sql, &[])?.get(0))
    };
    let got = named(
        "SELECT coalesce(string_agg(DISTINCT key, ', '), 'nobody') FROM stock.lot_moves
          WHERE lot = 'A' AND location = 'shop' AND operation IN ('confirm', 'supply')
            AND on_hand_delta < 0",
        client,
    )?;
    let hold = named(
        "SELECT coalesce(string_agg(key, ', ' ORDER BY key), 'nobody') FROM stock.lot_holds
          WHERE lot = 'A' AND location = 'shop'",
        client,
    )?;
    let held = "SELECT stock.release_stock(key) FROM stock.lot_holds
                 WHERE lot = 'A' AND location = 'shop'";
    client.batch_execute(held)?;
    println!("Lot A is called back. Who was sold of it is told: {got}. Who holds of it: {hold};");
    let left = "SELECT unsellable FROM stock.levels
                 WHERE (sku, location) = ('strawberries', 'shop')";
    let unsellable: i64 = client.query_one(left, &[])?.get(0);
    println!(
        "these are released, and the {unsellable} units that come free of it are sold to nobody.\n"
    );
    Ok(())
}
