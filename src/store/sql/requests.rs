//! What a request reads and writes.

use super::statement::Statement;
use super::{FLAG, INT, LINE, LOCATION, LOT_NAME, SKU, TEXT, TIME};
use crate::store::rows::hold::HOLD;
use crate::store::rows::hold_lot::HOLD_LOT;
use crate::store::rows::ledger::LEDGER;
use crate::store::rows::level::LEVEL;
use crate::store::rows::lot::LOT;
use crate::store::rows::waiting::WAITING;

/// Reads one level as it is, and whether a key is known.
pub static GLANCE: Statement = Statement::new(
    "SELECT {level}, {overdue}, EXISTS (SELECT FROM stock.ledger WHERE ledger.key = $4) AS is_known
       FROM stock.level WHERE level.sku = $2 AND level.location = $3",
    &[TIME, TEXT, TEXT, TEXT],
);

/// Reads levels.
pub static LEVELS: Statement = Statement::new(
    "SELECT {level}, {overdue}
       FROM {given} JOIN stock.level ON level.sku = given.sku AND level.location = given.location",
    &[TIME],
)
.each(&[SKU, LOCATION]);

/// Locks levels in their order, and says how they are.
pub static LOCK_LEVELS: Statement = Statement::new(
    "SELECT {level}
       FROM {given} JOIN stock.level ON level.sku = given.sku AND level.location = given.location
      ORDER BY level.sku, level.location
        FOR NO KEY UPDATE OF level",
    &[],
)
.each(&[SKU, LOCATION]);

/// Reads the ledger entries of keys.
pub static HISTORY: Statement = Statement::new(
    "SELECT {ledger}
       FROM {given} JOIN stock.ledger ON ledger.key = given.key
      ORDER BY ledger.position",
    &[],
)
.each(&[("key", TEXT)]);

/// Reads the ledger entries of keys that were archived: those of the last time.
pub static ARCHIVED_HISTORY: Statement = Statement::new(
    "SELECT {ledger}
       FROM {given} JOIN stock.ledger_archive ledger ON ledger.key = given.key
      WHERE ledger.archived_at = (SELECT pg_catalog.max(a.archived_at) FROM stock.ledger_archive a
                                   WHERE a.key = given.key)
      ORDER BY ledger.position",
    &[],
)
.each(&[("key", TEXT)]);

/// Reads overdue holds, enough of each level to cover what is asked.
pub static OVERDUE: Statement = Statement::new(
    "SELECT {hold}
       FROM {given}
      CROSS JOIN LATERAL (
        SELECT {hold},
               pg_catalog.sum(hold.quantity) OVER (ORDER BY hold.expires_at, hold.key, hold.line)
                 - hold.quantity AS earlier
          FROM stock.hold
         WHERE hold.sku = given.sku AND hold.location = given.location
           AND hold.expires_at BETWEEN given.next_due AND $1) hold
      WHERE hold.earlier < given.need
      ORDER BY hold.expires_at, hold.key, hold.line",
    &[TIME],
)
.each(&[SKU, LOCATION, ("need", INT), ("next_due", TIME)]);

/// Reads what buyers hold and have bought.
pub static BOUGHT: Statement = Statement::new(
    "SELECT given.sku, given.location, given.buyer,
            coalesce(b.quantity, 0)
              - coalesce((SELECT pg_catalog.sum(h.quantity) FROM stock.hold h
                           WHERE h.sku = given.sku AND h.location = given.location
                             AND h.expires_at BETWEEN given.next_due AND $1
                             AND h.buyer = given.buyer), 0)::bigint
       FROM {given}
       LEFT JOIN stock.buyer_quantity b
         ON b.sku = given.sku AND b.location = given.location AND b.buyer = given.buyer",
    &[TIME],
)
.each(&[SKU, LOCATION, ("buyer", TEXT), ("next_due", TIME)]);

/// Writes ledger rows, which claim their keys.
pub static CLAIM: Statement = Statement::new(
    "INSERT INTO stock.ledger ({columns}) SELECT given.* FROM {given} ON CONFLICT DO NOTHING",
    &[],
)
.each_of(&LEDGER);

/// Opens holds.
pub static OPEN_HOLDS: Statement =
    Statement::new("INSERT INTO stock.hold ({columns}) SELECT given.* FROM {given}", &[])
        .each_of(&HOLD);

/// Closes holds.
pub static CLOSE_HOLDS: Statement = Statement::new(
    "DELETE FROM stock.hold USING {given}
      WHERE hold.key = given.key AND hold.line = given.line AND hold.quantity = given.quantity",
    &[],
)
.each(&[("key", TEXT), ("line", LINE), ("quantity", INT)]);

/// Changes units and deadline of holds.
pub static CHANGE_HOLDS: Statement = Statement::new(
    "UPDATE stock.hold SET quantity = given.quantity, expires_at = given.expires_at
       FROM {given}
      WHERE hold.key = given.key AND hold.line = given.line
        AND hold.quantity = given.quantity_before",
    &[],
)
.each(&[
    ("key", TEXT),
    ("line", LINE),
    ("quantity_before", INT),
    ("quantity", INT),
    ("expires_at", TIME),
]);

/// Creates levels.
pub static CREATE_LEVELS: Statement = Statement::new(
    "INSERT INTO stock.level ({columns}) SELECT given.* FROM {given} ON CONFLICT DO NOTHING",
    &[],
)
.each_of(&LEVEL);

/// Changes levels that are locked.
pub static CHANGE_LEVELS: Statement = Statement::new(
    "UPDATE stock.level SET {changes of level}
       FROM {given}
      WHERE level.sku = given.sku AND level.location = given.location
        AND level.version = given.version_before",
    &[],
)
.each_of(&LEVEL)
.each(&[("version_before", INT)]);

/// Finds the earliest deadline of levels again, of which none lies before the bound that is given:
/// what an old snapshot keeps alive of holds that ended is passed over once.
pub static FIRST_DUE: Statement = Statement::new(
    "SELECT given.sku, given.location,
            coalesce((SELECT pg_catalog.min(h.expires_at) FROM stock.hold h
                       WHERE h.sku = given.sku AND h.location = given.location
                         AND h.expires_at >= given.next_due),
                     'infinity')
       FROM {given}",
    &[],
)
.each(&[SKU, LOCATION, ("next_due", TIME)]);

/// The same for levels on which nothing else changes, with what they have as the bound.
pub static RAISE_BOUNDS: Statement = Statement::new(
    "UPDATE stock.level
        SET next_due = coalesce((SELECT pg_catalog.min(h.expires_at) FROM stock.hold h
                                  WHERE h.sku = level.sku AND h.location = level.location
                                    AND h.expires_at >= level.next_due), 'infinity')
       FROM {given}
      WHERE level.sku = given.sku AND level.location = given.location",
    &[],
)
.each(&[SKU, LOCATION]);

/// Reads what of holds is not there yet.
pub static WAITING_OF: Statement = Statement::new(
    "SELECT waiting.key, waiting.line, waiting.quantity, waiting.promise
       FROM {given} JOIN stock.waiting ON waiting.key = given.key AND waiting.line = given.line
      WHERE NOT waiting.sold",
    &[],
)
.each(&[("key", TEXT), ("line", LINE)]);

/// Reads the heads of queues: as many places as there are units to give, at most so many of each;
/// with the holds that are overdue.
pub static QUEUES: Statement = Statement::new(
    "SELECT {hold}, given.sku, given.location, w.key, w.line, w.quantity, w.sold,
            hold.key IS NOT NULL, w.promise
       FROM {given}
      CROSS JOIN LATERAL (
        SELECT q.key, q.line, q.quantity, q.sold, q.position, q.promise
          FROM stock.waiting q
         WHERE q.sku = given.sku AND q.location = given.location
         ORDER BY q.position, q.sold DESC
         LIMIT least(given.units, $2)) w
       LEFT JOIN stock.hold
         ON hold.key = w.key AND hold.line = w.line AND NOT w.sold AND hold.expires_at <= $1
      ORDER BY given.sku, given.location, w.position, w.sold DESC",
    &[TIME, INT],
)
.each(&[SKU, LOCATION, ("units", INT)]);

/// Takes the last places in queues.
pub static TAKE_LAST_PLACES: Statement =
    Statement::new("INSERT INTO stock.waiting ({columns}) SELECT given.* FROM {given}", &[])
        .each_of(&WAITING);

/// Takes the places in queues that the same lines have had so far.
pub static TAKE_OWN_PLACES: Statement = Statement::new(
    "INSERT INTO stock.waiting (position, {columns})
     SELECT held.position, given.*
       FROM {given}
       JOIN stock.waiting held
         ON held.key = given.key AND held.line = given.line AND NOT held.sold
        AND held.promise = given.promise",
    &[],
)
.each_of(&WAITING);

/// Changes how many units wait at places in queues.
pub static CHANGE_PLACES: Statement = Statement::new(
    "UPDATE stock.waiting SET quantity = given.quantity
       FROM {given}
      WHERE waiting.key = given.key AND waiting.line = given.line AND waiting.sold = given.sold
        AND waiting.promise = given.promise AND waiting.quantity = given.before",
    &[],
)
.each(&[
    ("key", TEXT),
    ("line", LINE),
    ("sold", FLAG),
    ("promise", LINE),
    ("before", INT),
    ("quantity", INT),
]);

/// Gives places in queues up.
pub static LEAVE_PLACES: Statement = Statement::new(
    "DELETE FROM stock.waiting USING {given}
      WHERE waiting.key = given.key AND waiting.line = given.line AND waiting.sold = given.sold
        AND waiting.promise = given.promise AND waiting.quantity = given.before",
    &[],
)
.each(&[("key", TEXT), ("line", LINE), ("sold", FLAG), ("promise", LINE), ("before", INT)]);

/// Takes goods off the road, of which so many are on the way.
pub static END_LEGS: Statement = Statement::new(
    "DELETE FROM stock.shipment USING {given}
      WHERE shipment.key = given.key AND shipment.sku = given.sku
        AND shipment.from_location = given.from_location
        AND shipment.to_location = given.to_location
        AND shipment.quantity = given.before",
    &[],
)
.each(&[("key", TEXT), SKU, ("from_location", TEXT), ("to_location", TEXT), ("before", INT)]);

/// Changes how many goods are on the road.
pub static CHANGE_LEGS: Statement = Statement::new(
    "UPDATE stock.shipment SET quantity = given.quantity
       FROM {given}
      WHERE shipment.key = given.key AND shipment.sku = given.sku
        AND shipment.from_location = given.from_location
        AND shipment.to_location = given.to_location
        AND shipment.quantity = given.before",
    &[],
)
.each(&[
    ("key", TEXT),
    SKU,
    ("from_location", TEXT),
    ("to_location", TEXT),
    ("before", INT),
    ("quantity", INT),
]);

/// Puts goods on the road.
pub static BEGIN_LEGS: Statement =
    Statement::new("INSERT INTO stock.shipment ({columns}) SELECT given.* FROM {given}", &[]).each(
        &[
            ("key", TEXT),
            SKU,
            ("from_location", TEXT),
            ("to_location", TEXT),
            ("quantity", INT),
            ("dispatched_at", TIME),
        ],
    );

/// Adds to what buyers hold and have bought.
pub static ADD_BOUGHT: Statement = Statement::new(
    "INSERT INTO stock.buyer_quantity AS b ({columns}) SELECT given.* FROM {given}
         ON CONFLICT (sku, location, buyer) DO UPDATE
        SET quantity = b.quantity + excluded.quantity",
    &[],
)
.each(&[SKU, LOCATION, ("buyer", TEXT), ("quantity", INT)]);

/// Reads the lots of levels of which something is left.
pub static LOTS: Statement = Statement::new(
    "SELECT {lot}
       FROM {given} JOIN stock.lot ON lot.sku = given.sku AND lot.location = given.location
      WHERE NOT lot.spent",
    &[],
)
.each(&[SKU, LOCATION]);

/// Reads lots by their names.
pub static NAMED_LOTS: Statement = Statement::new(
    "SELECT {lot}
       FROM {given}
       JOIN stock.lot
         ON lot.sku = given.sku AND lot.location = given.location AND lot.lot = given.lot",
    &[],
)
.each(&[SKU, LOCATION, LOT_NAME]);

/// Reads what the ledger entries of keys did to lots.
pub static HISTORY_LOTS: Statement = Statement::new(
    "SELECT ledger.key, ledger.operation, ledger.operation_key, ledger.line,
            moved.lot, moved.on_hand_delta, moved.reserved_delta, moved.in_transit_delta
       FROM {given}
       JOIN stock.ledger ON ledger.key = given.key
       JOIN stock.ledger_lot moved
         ON moved.key = ledger.key AND moved.position = ledger.position",
    &[],
)
.each(&[("key", TEXT)]);

/// Reads the lots of holds.
pub static HOLD_LOTS: Statement = Statement::new(
    "SELECT bound.key, bound.line, bound.lot, bound.quantity
       FROM {given} JOIN stock.hold_lot bound ON bound.key = given.key AND bound.line = given.line
      ORDER BY bound.key, bound.line, bound.lot",
    &[],
)
.each(&[("key", TEXT), ("line", LINE)]);

/// Writes down what ledger rows that were just written did to lots.
pub static CLAIM_LOTS: Statement = Statement::new(
    "INSERT INTO stock.ledger_lot
            (key, position, lot, on_hand_delta, reserved_delta, in_transit_delta)
     SELECT ledger.key, ledger.position, given.lot, given.on_hand_delta, given.reserved_delta,
            given.in_transit_delta
       FROM {given}
       JOIN stock.ledger
         ON ledger.key = given.key
        AND (CASE ledger.operation WHEN 'cancel' THEN 'reserve' ELSE ledger.operation END)
              = given.operation
        AND ledger.operation_key = given.operation_key AND ledger.line = given.line",
    &[],
)
.each(&[
    ("key", TEXT),
    ("operation", TEXT),
    ("operation_key", TEXT),
    ("line", LINE),
    LOT_NAME,
    ("on_hand_delta", INT),
    ("reserved_delta", INT),
    ("in_transit_delta", INT),
]);

/// Makes lots.
pub static MAKE_LOTS: Statement =
    Statement::new("INSERT INTO stock.lot ({columns}) SELECT given.* FROM {given}", &[])
        .each_of(&LOT);

/// Changes lots of levels that are locked.
pub static CHANGE_LOTS: Statement = Statement::new(
    "UPDATE stock.lot
        SET on_hand = given.on_hand, reserved = given.reserved, spoils_at = given.spoils_at,
            warns_at = given.warns_at, frozen = given.frozen, spoiled = given.spoiled,
            spent = given.spent
       FROM {given}
      WHERE lot.sku = given.sku AND lot.location = given.location AND lot.lot = given.lot
        AND lot.on_hand = given.on_hand_before AND lot.reserved = given.reserved_before",
    &[],
)
.each_of(&LOT)
.each(&[("on_hand_before", INT), ("reserved_before", INT)]);

/// Binds what is held of levels to the lot without a name.
pub static TRACK_HOLDS: Statement = Statement::new(
    "INSERT INTO stock.hold_lot (key, line, lot, quantity)
     SELECT hold.key, hold.line, '', hold.quantity - coalesce(waiting.quantity, 0)
       FROM {given}
       JOIN stock.hold ON hold.sku = given.sku AND hold.location = given.location
       LEFT JOIN stock.waiting
         ON waiting.key = hold.key AND waiting.line = hold.line AND NOT waiting.sold
      WHERE hold.quantity > coalesce(waiting.quantity, 0)",
    &[],
)
.each(&[SKU, LOCATION]);

/// Binds lots to holds that were just opened.
pub static BIND_NEW_LOTS: Statement =
    Statement::new("INSERT INTO stock.hold_lot ({columns}) SELECT given.* FROM {given}", &[])
        .each_of(&HOLD_LOT);

/// Binds more units of lots to holds.
pub static BIND_LOTS: Statement = Statement::new(
    "INSERT INTO stock.hold_lot AS bound ({columns}) SELECT given.* FROM {given}
         ON CONFLICT (key, line, lot) DO UPDATE
        SET quantity = bound.quantity + excluded.quantity",
    &[],
)
.each_of(&HOLD_LOT);

/// Takes from holds all that they have of lots.
pub static FREE_LOTS: Statement = Statement::new(
    "DELETE FROM stock.hold_lot bound USING {given}
      WHERE bound.key = given.key AND bound.line = given.line AND bound.lot = given.lot
        AND bound.quantity = given.quantity",
    &[],
)
.each_of(&HOLD_LOT);

/// Takes from holds some of what they have of lots.
pub static SHRINK_LOTS: Statement = Statement::new(
    "UPDATE stock.hold_lot bound SET quantity = bound.quantity - given.quantity
       FROM {given}
      WHERE bound.key = given.key AND bound.line = given.line AND bound.lot = given.lot
        AND bound.quantity > given.quantity",
    &[],
)
.each_of(&HOLD_LOT);
