//! What a request reads and writes.

use pgrx::pg_sys::{BOOLOID, INT4OID};

use super::{BS, I, IS, LS, T, TS, Z, ZS};
use crate::store::statement::Statement;

/// The columns of a level; $3 is the time. What is overdue is only looked for where something may be.
macro_rules! level_columns {
    () => {
        "l.sku, l.location, l.on_hand, l.reserved, l.safety_stock, l.buyer_limit, l.frozen, l.version, l.next_due,
         CASE WHEN l.next_due <= $3 THEN
           (SELECT pg_catalog.sum(h.quantity)::bigint FROM stock.hold h
             WHERE h.sku = l.sku AND h.location = l.location AND h.expires_at BETWEEN l.next_due AND $3)
         END AS overdue"
    };
}

/// The earliest deadline of a level's holds, of which none lies before the bound that is given: what an old snapshot
/// keeps alive of holds that ended is passed over once.
macro_rules! first_due {
    ($bound:literal) => {
        concat!(
            "coalesce((SELECT pg_catalog.min(h.expires_at) FROM stock.hold h
                        WHERE h.sku = l.sku AND h.location = l.location AND h.expires_at >= ",
            $bound,
            "), 'infinity')"
        )
    };
}

/// The columns of a ledger entry, in the order in which `load` takes them.
macro_rules! entry_columns {
    () => {
        "key, operation, operation_key, line, sku, location, quantity, on_hand_delta, reserved_delta, on_hand_after,
         reserved_after, version, available, buyer, expires_at, reason, safety_stock, buyer_limit, frozen, recorded_at"
    };
}

/// Reads one level as it is, and whether a key is known.
pub static GLANCE: Statement = Statement::new(
    concat!(
        "SELECT ",
        level_columns!(),
        ", EXISTS (SELECT FROM stock.ledger g WHERE g.key = $4) AS known
                   FROM stock.level l WHERE l.sku = $1 AND l.location = $2"
    ),
    &[T, T, Z, T],
);

/// Reads one level.
pub static LEVEL: Statement = Statement::new(
    concat!("SELECT ", level_columns!(), " FROM stock.level l WHERE l.sku = $1 AND l.location = $2"),
    &[T, T, Z],
);

/// Reads levels.
pub static LEVELS: Statement = Statement::new(
    concat!(
        "SELECT ",
        level_columns!(),
        " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS asked (sku, location)
                  JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location"
    ),
    &[TS, TS, Z],
);

/// Locks one level.
pub static LOCK_LEVEL: Statement = Statement::new(
    "SELECT l.sku, l.location FROM stock.level l WHERE l.sku = $1 AND l.location = $2 FOR NO KEY UPDATE",
    &[T, T],
);

/// Locks levels in their order.
pub static LOCK_LEVELS: Statement = Statement::new(
    "SELECT l.sku, l.location
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS asked (sku, location)
                   JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location
                  ORDER BY l.sku, l.location
                    FOR NO KEY UPDATE OF l",
    &[TS, TS],
);

/// Reads the ledger entries of a key.
pub static KEY_HISTORY: Statement =
    Statement::new(concat!("SELECT ", entry_columns!(), " FROM stock.ledger WHERE key = $1 ORDER BY position"), &[T]);

/// Reads the ledger entries of keys.
pub static HISTORY: Statement = Statement::new(
    concat!("SELECT ", entry_columns!(), " FROM stock.ledger WHERE key = ANY ($1) ORDER BY position"),
    &[TS],
);

/// Reads overdue holds, enough of each level to cover what is asked.
pub static OVERDUE: Statement = Statement::new("SELECT h.key, h.line, asked.sku, asked.location, h.quantity, h.buyer, h.expires_at, h.reserved_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                                   pg_catalog.unnest($4)) AS asked (sku, location, need, next_due)
                  CROSS JOIN LATERAL (
                    SELECT o.key, o.line, o.quantity, o.buyer, o.expires_at, o.reserved_at,
                           pg_catalog.sum(o.quantity) OVER (ORDER BY o.expires_at, o.key, o.line) - o.quantity AS earlier
                      FROM stock.hold o
                     WHERE o.sku = asked.sku AND o.location = asked.location
                       AND o.expires_at BETWEEN asked.next_due AND $5) h
                  WHERE h.earlier < asked.need
                  ORDER BY h.expires_at, h.key, h.line", &[TS, TS, IS, ZS, Z]);

/// Reads what buyers hold and have bought.
pub static BOUGHT: Statement = Statement::new(
    "SELECT asked.sku, asked.location, asked.buyer,
                        coalesce(b.quantity, 0) - coalesce(
                          (SELECT pg_catalog.sum(h.quantity) FROM stock.hold h
                            WHERE h.sku = asked.sku AND h.location = asked.location
                              AND h.expires_at BETWEEN asked.next_due AND $5 AND h.buyer = asked.buyer), 0)::bigint
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                                   pg_catalog.unnest($4)) AS asked (sku, location, buyer, next_due)
                   LEFT JOIN stock.buyer_quantity b
                     ON b.sku = asked.sku AND b.location = asked.location AND b.buyer = asked.buyer",
    &[TS, TS, TS, ZS, Z],
);

/// Changes one level if it still has the units.
pub static GUARDED_UPDATE: Statement = Statement::new(
    "UPDATE stock.level
                    SET on_hand = on_hand + $3, reserved = reserved + $4, version = version + $5,
                        next_due = least(next_due, $6), updated_at = $7
                  WHERE sku = $1 AND location = $2
                    AND on_hand - reserved - safety_stock >= $8
                    AND NOT frozen AND buyer_limit IS NULL
                    AND CASE WHEN $10 > $7 THEN next_due > $7 ELSE next_due = $10 AND version = $11 END
                    AND ($9 IS NULL OR version = $9)
              RETURNING on_hand, reserved, safety_stock, version",
    &[T, T, I, I, I, Z, Z, I, I, Z, I],
);

/// Takes a guarded update back.
pub static UNDO_GUARDED_UPDATE: Statement = Statement::new(
    "UPDATE stock.level
                    SET on_hand = on_hand - $3, reserved = reserved - $4, version = version - $5
                  WHERE sku = $1 AND location = $2",
    &[T, T, I, I, I],
);

/// Writes one ledger row, which claims its key.
pub static CLAIM_ONE: Statement = Statement::new(
    concat!(
        "INSERT INTO stock.ledger (",
        entry_columns!(),
        ", context)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
                     ON CONFLICT DO NOTHING"
    ),
    &[T, T, T, INT4OID, T, T, I, I, I, I, I, I, I, T, Z, T, I, I, BOOLOID, Z, T],
);

/// Writes ledger rows, which claim their keys.
pub static CLAIM: Statement = Statement::new(
    concat!(
        "INSERT INTO stock.ledger (",
        entry_columns!(),
        ", context)
                 SELECT e.key, e.operation, e.operation_key, e.line, e.sku, e.location, e.quantity, e.on_hand_delta,
                        e.reserved_delta, e.on_hand_after, e.reserved_after, e.version, e.available, e.buyer,
                        e.expires_at, e.reason, e.safety_stock, e.buyer_limit, e.frozen, $20, e.context
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                          pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13),
                          pg_catalog.unnest($14), pg_catalog.unnest($15), pg_catalog.unnest($16),
                          pg_catalog.unnest($17), pg_catalog.unnest($18), pg_catalog.unnest($19),
                          pg_catalog.unnest($21))
                     AS e (",
        "key, operation, operation_key, line, sku, location, quantity, on_hand_delta, reserved_delta,
                      on_hand_after, reserved_after, version, available, buyer, expires_at, reason, safety_stock,
                      buyer_limit, frozen, context)
                     ON CONFLICT DO NOTHING"
    ),
    &[TS, TS, TS, LS, TS, TS, IS, IS, IS, IS, IS, IS, IS, TS, ZS, TS, IS, IS, BS, Z, TS],
);

/// Opens one hold.
pub static OPEN_HOLD: Statement = Statement::new(
    "INSERT INTO stock.hold (key, line, sku, location, quantity, buyer, expires_at, reserved_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    &[T, INT4OID, T, T, I, T, Z, Z],
);

/// Opens holds.
pub static OPEN_HOLDS: Statement = Statement::new(
    "INSERT INTO stock.hold (key, line, sku, location, quantity, buyer, expires_at, reserved_at)
                 SELECT h.key, h.line, h.sku, h.location, h.quantity, h.buyer, h.expires_at, h.reserved_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8))
                     AS h (key, line, sku, location, quantity, buyer, expires_at, reserved_at)",
    &[TS, LS, TS, TS, IS, TS, ZS, ZS],
);

/// Closes one hold.
pub static CLOSE_HOLD: Statement =
    Statement::new("DELETE FROM stock.hold h WHERE h.key = $1 AND h.line = $2 AND h.quantity = $3", &[T, INT4OID, I]);

/// Closes holds.
pub static CLOSE_HOLDS: Statement = Statement::new(
    "DELETE FROM stock.hold h
                  USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                     AS closed (key, line, quantity)
                  WHERE h.key = closed.key AND h.line = closed.line AND h.quantity = closed.quantity",
    &[TS, LS, IS],
);

/// Changes units and deadline of holds.
pub static CHANGE_HOLDS: Statement = Statement::new(
    "UPDATE stock.hold h
                    SET quantity = changed.quantity, expires_at = changed.expires_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5))
                     AS changed (key, line, quantity_before, quantity, expires_at)
                  WHERE h.key = changed.key AND h.line = changed.line AND h.quantity = changed.quantity_before",
    &[TS, LS, IS, IS, ZS],
);

/// Creates levels.
pub static CREATE_LEVELS: Statement = Statement::new(
    "INSERT INTO stock.level (sku, location, on_hand, reserved, safety_stock, buyer_limit, frozen, version,
                        next_due, updated_at)
                 SELECT l.sku, l.location, l.on_hand, l.reserved, l.safety_stock, l.buyer_limit, l.frozen, l.version,
                        l.next_due, $10
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8), pg_catalog.unnest($9))
                     AS l (sku, location, on_hand, reserved, safety_stock, buyer_limit, frozen, version, next_due)
                     ON CONFLICT DO NOTHING",
    &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z],
);

/// Changes one level that is locked.
pub static CHANGE_LEVEL: Statement = Statement::new(
    concat!(
        "UPDATE stock.level l
                    SET on_hand = $3, reserved = $4, safety_stock = $5, buyer_limit = $6, frozen = $7, version = $8,
                        next_due = CASE WHEN $12 THEN ",
        first_due!("$9"),
        " ELSE $9 END,
                        updated_at = $10
                  WHERE l.sku = $1 AND l.location = $2 AND l.version = $11"
    ),
    &[T, T, I, I, I, I, BOOLOID, I, Z, Z, I, BOOLOID],
);

/// Changes levels that are locked.
pub static CHANGE_LEVELS: Statement = Statement::new(
    concat!(
        "UPDATE stock.level l
                    SET on_hand = c.on_hand, reserved = c.reserved, safety_stock = c.safety_stock,
                        buyer_limit = c.buyer_limit, frozen = c.frozen, version = c.version,
                        next_due = CASE WHEN c.look THEN ",
        first_due!("c.next_due"),
        " ELSE c.next_due END,
                        updated_at = $10
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($11), pg_catalog.unnest($12))
                     AS c (sku, location, on_hand, reserved, safety_stock, buyer_limit, frozen, version, next_due,
                           version_before, look)
                  WHERE l.sku = c.sku AND l.location = c.location AND l.version = c.version_before"
    ),
    &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z, IS, BS],
);

/// Finds the earliest deadline of levels again on which nothing else changes.
pub static RAISE_BOUNDS: Statement = Statement::new(
    concat!(
        "UPDATE stock.level l
                    SET next_due = ",
        first_due!("l.next_due"),
        "
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS b (sku, location)
                  WHERE l.sku = b.sku AND l.location = b.location"
    ),
    &[TS, TS],
);

/// Adds to what one buyer holds and has bought.
pub static ADD_BOUGHT_ONE: Statement = Statement::new(
    "INSERT INTO stock.buyer_quantity AS b (sku, location, buyer, quantity)
                 VALUES ($1, $2, $3, $4)
                     ON CONFLICT (sku, location, buyer) DO UPDATE SET quantity = b.quantity + excluded.quantity",
    &[T, T, T, I],
);

/// Adds to what buyers hold and have bought.
pub static ADD_BOUGHT: Statement = Statement::new(
    "INSERT INTO stock.buyer_quantity AS b (sku, location, buyer, quantity)
                 SELECT a.sku, a.location, a.buyer, a.quantity
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4)) AS a (sku, location, buyer, quantity)
                     ON CONFLICT (sku, location, buyer) DO UPDATE SET quantity = b.quantity + excluded.quantity",
    &[TS, TS, TS, IS],
);
