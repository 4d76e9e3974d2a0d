//! What the change feed reads and writes.

use pgrx::pg_sys::XID8ARRAYOID;

use super::statement::Statement;
use super::{FLAG, INT, LOCATION, LOT_NAME, SKU, TEXT, TIME, XID};

/// The moment that the statement sees.
pub static CURRENT_SNAPSHOT: Statement =
    Statement::new("SELECT pg_catalog.pg_current_snapshot()::text", &[]);

/// The generation of this life of the database, and how far it was sent.
pub static GENERATION: Statement = Statement::new(
    "SELECT f.generation::text, f.first_position, f.first_xact, f.seen::text, f.sequence
       FROM stock.feed f
      WHERE f.system_identifier = $1 AND f.timeline = $2 AND f.database = $3",
    &[INT, INT, INT],
);

/// The same, locked: there is one emission at a time.
pub static LOCK_GENERATION: Statement = Statement::new(
    "SELECT f.generation::text, f.first_position, f.first_xact, f.seen::text, f.sequence
       FROM stock.feed f
      WHERE f.system_identifier = $1 AND f.timeline = $2 AND f.database = $3
        FOR NO KEY UPDATE",
    &[INT, INT, INT],
);

/// Whether rows were archived that a snapshot did not see. As a rule the last of them is older than
/// all that it was taken beside; else it is looked for one that is not.
pub static IS_ARCHIVED: Statement = Statement::new(
    "SELECT true
       FROM stock.feed f
      WHERE f.archived >= pg_catalog.pg_snapshot_xmin($1::pg_catalog.pg_snapshot)
        AND (NOT pg_catalog.pg_visible_in_snapshot(f.archived, $1::pg_catalog.pg_snapshot)
             OR EXISTS (
                SELECT FROM stock.ledger_archive a
                 WHERE a.xact >= pg_catalog.pg_snapshot_xmin($1::pg_catalog.pg_snapshot)
                   AND NOT pg_catalog.pg_visible_in_snapshot(a.xact, $1::pg_catalog.pg_snapshot)
                   AND (a.position > f.first_position OR a.xact < f.first_xact)))",
    &[TEXT],
);

/// The last position that was handed out; 0: none.
pub static LAST_POSITION: Statement = Statement::new(
    "SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM stock.ledger_position_seq s",
    &[],
);

/// The transaction of the row that so many rows follow.
pub static RECENT_XACT: Statement = Statement::new(
    "SELECT g.xact FROM stock.ledger g ORDER BY g.xact DESC OFFSET $1 LIMIT 1",
    &[INT],
);

/// Begins a generation, unless somebody else did so meanwhile.
pub static BEGIN_GENERATION: Statement = Statement::new(
    "INSERT INTO stock.feed AS f
            (generation, system_identifier, timeline, database, first_position, first_xact, seen)
     VALUES (coalesce($7::pg_catalog.uuid, pg_catalog.gen_random_uuid()), $1, $2, $3, $4,
             pg_catalog.pg_current_xact_id(), $5::pg_catalog.pg_snapshot)
         ON CONFLICT (only_row) DO UPDATE
        SET generation = excluded.generation, system_identifier = excluded.system_identifier,
            timeline = excluded.timeline, database = excluded.database,
            first_position = excluded.first_position, first_xact = excluded.first_xact,
            seen = excluded.seen, archived = NULL, sequence = 0, emitted_at = NULL,
            failed_at = NULL, error = NULL
      WHERE $6 OR (f.system_identifier, f.timeline, f.database)
               IS DISTINCT FROM (excluded.system_identifier, excluded.timeline, excluded.database)",
    &[INT, INT, INT, INT, TEXT, FLAG, TEXT],
);

/// The ledger rows of some transactions, in their order.
pub static CHANGES_OF: Statement = Statement::new(
    "SELECT g.xact, g.position, g.sku, g.location
       FROM stock.ledger g
      WHERE g.xact = ANY ($1)
      ORDER BY g.xact
      LIMIT $2",
    &[XID8ARRAYOID, INT],
);

/// The ledger rows of a range of transactions, in their order.
pub static CHANGES_BETWEEN: Statement = Statement::new(
    "SELECT g.xact, g.position, g.sku, g.location
       FROM stock.ledger g
      WHERE g.xact >= $1 AND g.xact < $2
      ORDER BY g.xact
      LIMIT $3",
    &[XID, XID, INT],
);

/// Levels as they are now.
pub static LEVEL_ROWS: Statement = Statement::new(
    "SELECT {level}
       FROM {given} JOIN stock.level ON level.sku = given.sku AND level.location = given.location",
    &[],
)
.each(&[SKU, LOCATION]);

/// Levels in their order, from the first on.
pub static FIRST_LEVEL_ROWS: Statement = Statement::new(
    "SELECT {level} FROM stock.level ORDER BY level.sku, level.location LIMIT $1",
    &[INT],
);

/// Levels in their order, after one.
pub static LEVEL_ROWS_AFTER: Statement = Statement::new(
    "SELECT {level}
       FROM stock.level
      WHERE (level.sku, level.location) > ($1, $2)
      ORDER BY level.sku, level.location
      LIMIT $3",
    &[TEXT, TEXT, INT],
);

/// Levels that are sold out, frozen or below their safety stock, and those of which that was
/// announced.
pub static ALARMING_LEVEL_ROWS: Statement = Statement::new(
    "SELECT {level}
       FROM stock.level
      WHERE level.on_hand - level.reserved - level.unsellable - level.safety_stock <= level.waiting
         OR level.frozen
         OR EXISTS (SELECT FROM stock.alert a
                     WHERE a.sku = level.sku AND a.location = level.location)",
    &[],
);

/// The alerts of levels that were announced and have not ended.
pub static ALERTS: Statement = Statement::new(
    "SELECT a.sku, a.location, a.alert
       FROM {given} JOIN stock.alert a ON a.sku = given.sku AND a.location = given.location",
    &[],
)
.each(&[SKU, LOCATION]);

/// Remembers an alert that was announced.
pub static BEGIN_ALERTS: Statement = Statement::new(
    "INSERT INTO stock.alert (sku, location, alert, since)
     SELECT given.sku, given.location, given.alert, pg_catalog.clock_timestamp() FROM {given}
         ON CONFLICT DO NOTHING",
    &[],
)
.each(&[SKU, LOCATION, ("alert", TEXT)]);

/// Forgets alerts whose end was announced.
pub static END_ALERTS: Statement = Statement::new(
    "DELETE FROM stock.alert a
      USING {given}
      WHERE a.sku = given.sku AND a.location = given.location AND a.alert = given.alert",
    &[],
)
.each(&[SKU, LOCATION, ("alert", TEXT)]);

/// Finds lots whose date is near or past, of which that was not announced.
pub static LOT_ALERTS: Statement = Statement::new(
    "SELECT lot.sku, lot.location, lot.lot, lot.best_before, lot.on_hand, lot.reserved,
            lot.best_before <= $1
       FROM stock.lot
      WHERE lot.warns_at <= $1
        AND NOT EXISTS (SELECT FROM stock.alert a
                         WHERE a.sku = lot.sku AND a.location = lot.location AND a.lot = lot.lot
                           AND a.alert = CASE WHEN lot.best_before <= $1 THEN 'lot_expired'
                                              ELSE 'lot_near_expiry' END)
      ORDER BY lot.warns_at
      LIMIT $2",
    &[TIME, INT],
);

/// Remembers alerts of lots, and says of which nobody else did.
pub static BEGIN_LOT_ALERTS: Statement = Statement::new(
    "INSERT INTO stock.alert (sku, location, alert, lot, since)
     SELECT given.sku, given.location, given.alert, given.lot, $1 FROM {given}
         ON CONFLICT DO NOTHING
     RETURNING sku, location, alert, lot",
    &[TIME],
)
.each(&[SKU, LOCATION, ("alert", TEXT), LOT_NAME]);

/// Forgets the alerts of lots of which nothing is left, or which are not near their date any more.
pub static END_LOT_ALERTS: Statement = Statement::new(
    "DELETE FROM stock.alert a
      WHERE a.lot <> ''
        AND NOT EXISTS (SELECT FROM stock.lot
                         WHERE lot.sku = a.sku AND lot.location = a.location AND lot.lot = a.lot
                           AND lot.warns_at <= $1)",
    &[TIME],
);

/// Sends a message when the transaction commits.
pub static NOTIFY: Statement = Statement::new("SELECT pg_catalog.pg_notify($1, $2)", &[TEXT, TEXT]);

/// Writes down how far the changes were sent.
pub static ADVANCE: Statement = Statement::new(
    "UPDATE stock.feed
        SET seen = $1::pg_catalog.pg_snapshot, sequence = $2,
            emitted_at = pg_catalog.clock_timestamp(), failed_at = NULL, error = NULL",
    &[TEXT, INT],
);

/// Writes down why an emission failed.
pub static FAIL: Statement = Statement::new(
    "UPDATE stock.feed SET failed_at = pg_catalog.clock_timestamp(), error = $1",
    &[TEXT],
);
