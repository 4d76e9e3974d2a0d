//! All SQL text of the engine.
//!
//! Every name is qualified, every statement names SKU and location in its WHERE where it touches a level or a hold,
//! so that the tables can be distributed by SKU. Statements for one line and for many differ: an array statement
//! costs about three times a scalar one when there is one line, and a fraction of it when there are a thousand.
//!
//! `OFFSET 0` keeps a subquery what it is, a look-up by key for each row. hold_error is taken for large like every table
//! (`planner`), and a join with it would read all holds. Where it is empty, as it should be, no hold is looked up in it.

use pgrx::pg_sys::{
    BOOLARRAYOID, INT4ARRAYOID, INT4OID, INT8ARRAYOID, INT8OID, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID,
    TIMESTAMPTZOID,
};

/// A statement of the engine; its place is the slot of its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Reads one level as it is, and whether a key is known.
    Glance,
    /// Reads one level.
    Level,
    /// Reads levels.
    Levels,
    /// Locks levels in their order.
    LockLevels,
    /// Reads the ledger entries of a key.
    KeyHistory,
    /// Reads the ledger entries of keys.
    History,
    /// Reads overdue holds, enough of each level to cover what is asked.
    Overdue,
    /// Reads what buyers hold and have bought.
    Bought,
    /// Changes one level if it still has the units.
    GuardedUpdate,
    /// Takes a guarded update back.
    UndoGuardedUpdate,
    /// Writes a reserve into the ledger, which claims its key.
    ClaimReserve,
    /// Writes ledger rows, which claim their keys.
    Claim,
    /// Opens one hold.
    OpenHold,
    /// Opens holds.
    OpenHolds,
    /// Closes holds.
    CloseHolds,
    /// Changes units and deadline of holds.
    ChangeHolds,
    /// Creates levels.
    CreateLevels,
    /// Changes levels that are locked.
    ChangeLevels,
    /// Finds the earliest deadline of levels again on which nothing else changes.
    RaiseBounds,
    /// Adds to what buyers hold and have bought.
    AddBought,
    /// Tells whether the data is still being restored.
    Restoring,
    /// Finds the levels of the holds that are due next.
    DueHolds,
    /// Finds the levels of holds that were set aside and are to be tried again.
    RetryLevels,
    /// Locks those levels that nobody else has locked.
    LockFreeLevels,
    /// Reads the overdue holds of levels.
    OverdueHolds,
    /// Reads the overdue holds of a level that does not exist.
    Orphans,
    /// Sets a hold aside that could not be closed.
    SetAside,
    /// Forgets the errors of holds that are no longer overdue.
    ForgetErrors,
    /// Finds the next deadline, and when a hold that was set aside is tried again.
    NextDue,
    /// Writes down what a run did.
    LogRun,
    /// Sums the runs up by the hour that are older than that.
    SumUpRuns,
    /// Removes what is too old to be kept.
    ForgetRuns,
}

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

impl Statement {
    /// How many statements there are.
    pub const COUNT: usize = Statement::ForgetRuns as usize + 1;

    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Statement::Glance => concat!(
                "SELECT ",
                level_columns!(),
                ", EXISTS (SELECT FROM stock.ledger g WHERE g.key = $4) AS known
                   FROM stock.level l WHERE l.sku = $1 AND l.location = $2"
            ),
            Statement::Level => concat!(
                "SELECT ",
                level_columns!(),
                " FROM stock.level l WHERE l.sku = $1 AND l.location = $2"
            ),
            Statement::Levels => concat!(
                "SELECT ",
                level_columns!(),
                " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS asked (sku, location)
                  JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location"
            ),
            Statement::LockLevels => {
                "SELECT l.sku, l.location
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS asked (sku, location)
                   JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location
                  ORDER BY l.sku, l.location
                    FOR UPDATE OF l"
            }
            Statement::KeyHistory => {
                concat!("SELECT ", entry_columns!(), " FROM stock.ledger WHERE key = $1 ORDER BY position")
            }
            Statement::History => {
                concat!("SELECT ", entry_columns!(), " FROM stock.ledger WHERE key = ANY ($1) ORDER BY position")
            }
            Statement::Overdue => {
                "SELECT h.key, h.line, asked.sku, asked.location, h.quantity, h.buyer, h.expires_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                                   pg_catalog.unnest($4)) AS asked (sku, location, need, next_due)
                  CROSS JOIN LATERAL (
                    SELECT o.key, o.line, o.quantity, o.buyer, o.expires_at,
                           pg_catalog.sum(o.quantity) OVER (ORDER BY o.expires_at, o.key, o.line) - o.quantity AS earlier
                      FROM stock.hold o
                     WHERE o.sku = asked.sku AND o.location = asked.location
                       AND o.expires_at BETWEEN asked.next_due AND $5) h
                  WHERE h.earlier < asked.need
                  ORDER BY h.expires_at, h.key, h.line"
            }
            Statement::Bought => {
                "SELECT asked.sku, asked.location, asked.buyer,
                        coalesce(b.quantity, 0) - coalesce(
                          (SELECT pg_catalog.sum(h.quantity) FROM stock.hold h
                            WHERE h.sku = asked.sku AND h.location = asked.location
                              AND h.expires_at BETWEEN asked.next_due AND $5 AND h.buyer = asked.buyer), 0)::bigint
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                                   pg_catalog.unnest($4)) AS asked (sku, location, buyer, next_due)
                   LEFT JOIN stock.buyer_quantity b
                     ON b.sku = asked.sku AND b.location = asked.location AND b.buyer = asked.buyer"
            }
            Statement::GuardedUpdate => {
                "UPDATE stock.level
                    SET on_hand = on_hand + $3, reserved = reserved + $4, version = version + $5,
                        next_due = least(next_due, $6), updated_at = $7
                  WHERE sku = $1 AND location = $2
                    AND on_hand - reserved - safety_stock >= $8
                    AND NOT frozen AND buyer_limit IS NULL
                    AND CASE WHEN $10 > $7 THEN next_due > $7 ELSE next_due = $10 AND version = $11 END
                    AND ($9 IS NULL OR version = $9)
              RETURNING on_hand, reserved, safety_stock, version"
            }
            Statement::UndoGuardedUpdate => {
                "UPDATE stock.level
                    SET on_hand = on_hand - $3, reserved = reserved - $4, version = version - $5
                  WHERE sku = $1 AND location = $2"
            }
            Statement::ClaimReserve => {
                "INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku, location, quantity,
                        on_hand_delta, reserved_delta, on_hand_after, reserved_after, version, available, buyer,
                        expires_at, context)
                 VALUES ($1, $2, 'reserve', '', $3, $4, $5, $6, 0, $6, $7, $8, $9, $10, $11, $12, $13)
                     ON CONFLICT DO NOTHING"
            }
            Statement::Claim => concat!(
                "INSERT INTO stock.ledger (",
                entry_columns!(),
                ", context)
                 SELECT e.key, e.operation, e.operation_key, e.line, e.sku, e.location, e.quantity, e.on_hand_delta,
                        e.reserved_delta, e.on_hand_after, e.reserved_after, e.version, e.available, e.buyer,
                        e.expires_at, e.reason, e.safety_stock, e.buyer_limit, e.frozen, $20, $21
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                          pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13),
                          pg_catalog.unnest($14), pg_catalog.unnest($15), pg_catalog.unnest($16),
                          pg_catalog.unnest($17), pg_catalog.unnest($18), pg_catalog.unnest($19))
                     AS e (",
                "key, operation, operation_key, line, sku, location, quantity, on_hand_delta, reserved_delta,
                      on_hand_after, reserved_after, version, available, buyer, expires_at, reason, safety_stock,
                      buyer_limit, frozen)
                     ON CONFLICT DO NOTHING"
            ),
            Statement::OpenHold => {
                "INSERT INTO stock.hold (key, line, sku, location, quantity, buyer, expires_at, reserved_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            }
            Statement::OpenHolds => {
                "INSERT INTO stock.hold (key, line, sku, location, quantity, buyer, expires_at, reserved_at)
                 SELECT h.key, h.line, h.sku, h.location, h.quantity, h.buyer, h.expires_at, $8
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7))
                     AS h (key, line, sku, location, quantity, buyer, expires_at)"
            }
            Statement::CloseHolds => {
                "DELETE FROM stock.hold h
                  USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                     AS closed (key, line, quantity)
                  WHERE h.key = closed.key AND h.line = closed.line AND h.quantity = closed.quantity"
            }
            Statement::ChangeHolds => {
                "UPDATE stock.hold h
                    SET quantity = changed.quantity, expires_at = changed.expires_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5))
                     AS changed (key, line, quantity_before, quantity, expires_at)
                  WHERE h.key = changed.key AND h.line = changed.line AND h.quantity = changed.quantity_before"
            }
            Statement::CreateLevels => {
                "INSERT INTO stock.level (sku, location, on_hand, reserved, safety_stock, buyer_limit, frozen, version,
                        next_due, updated_at)
                 SELECT l.sku, l.location, l.on_hand, l.reserved, l.safety_stock, l.buyer_limit, l.frozen, l.version,
                        l.next_due, $10
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
                          pg_catalog.unnest($8), pg_catalog.unnest($9))
                     AS l (sku, location, on_hand, reserved, safety_stock, buyer_limit, frozen, version, next_due)
                     ON CONFLICT DO NOTHING"
            }
            Statement::ChangeLevels => concat!(
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
            Statement::RaiseBounds => concat!(
                "UPDATE stock.level l
                    SET next_due = ",
                first_due!("l.next_due"),
                "
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS b (sku, location)
                  WHERE l.sku = b.sku AND l.location = b.location"
            ),
            Statement::AddBought => {
                "INSERT INTO stock.buyer_quantity AS b (sku, location, buyer, quantity)
                 SELECT a.sku, a.location, a.buyer, a.quantity
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                          pg_catalog.unnest($4)) AS a (sku, location, buyer, quantity)
                     ON CONFLICT (sku, location, buyer) DO UPDATE SET quantity = b.quantity + excluded.quantity"
            }
            Statement::Restoring => {
                "SELECT NOT s.is_called FROM stock.ledger_position_seq s"
            }
            Statement::DueHolds => {
                "SELECT h.sku, h.location, h.expires_at
                   FROM stock.hold h
                  WHERE greatest(h.expires_at, '-infinity') BETWEEN $1 AND $2
                    AND (h.sku, h.location) NOT IN
                        (SELECT p.sku, p.location
                           FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS p (sku, location))
                    AND CASE WHEN (SELECT EXISTS (SELECT FROM stock.hold_error))
                             THEN NOT EXISTS (SELECT FROM stock.hold_error e
                                               WHERE e.key = h.key AND e.line = h.line OFFSET 0)
                             ELSE true END
                  ORDER BY greatest(h.expires_at, '-infinity')
                  LIMIT $5"
            }
            Statement::RetryLevels => {
                "SELECT h.sku, h.location, pg_catalog.min(h.expires_at)
                   FROM stock.hold_error e
                  CROSS JOIN LATERAL (SELECT o.sku, o.location, o.expires_at FROM stock.hold o
                                       WHERE o.key = e.key AND o.line = e.line OFFSET 0) h
                  WHERE e.retry_at <= $1 AND h.expires_at <= $1
                  GROUP BY h.sku, h.location
                  LIMIT $2"
            }
            Statement::LockFreeLevels => {
                "SELECT l.sku, l.location
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS asked (sku, location)
                   JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location
                    FOR UPDATE OF l SKIP LOCKED"
            }
            Statement::OverdueHolds => {
                "SELECT h.key, h.line, l.sku, l.location, h.quantity, h.buyer, h.expires_at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                        AS asked (sku, location, due)
                   JOIN stock.level l ON l.sku = asked.sku AND l.location = asked.location
                  CROSS JOIN LATERAL (
                    SELECT o.key, o.line, o.quantity, o.buyer, o.expires_at
                      FROM stock.hold o
                     WHERE o.sku = asked.sku AND o.location = asked.location
                       AND o.expires_at BETWEEN least(l.next_due, asked.due) AND $4
                       AND CASE WHEN (SELECT EXISTS (SELECT FROM stock.hold_error))
                                THEN NOT EXISTS (SELECT FROM stock.hold_error e
                                                  WHERE e.key = o.key AND e.line = o.line AND e.retry_at > $4 OFFSET 0)
                                ELSE true END
                     ORDER BY o.expires_at
                     LIMIT $5) h
                  LIMIT $5"
            }
            Statement::Orphans => {
                "SELECT h.key, h.line FROM stock.hold h WHERE h.sku = $1 AND h.location = $2 AND h.expires_at <= $3"
            }
            Statement::SetAside => {
                "INSERT INTO stock.hold_error AS e (key, line, attempts, first_failed_at, last_failed_at, retry_at, sqlstate,
                        message)
                 VALUES ($1, $2, 1, $3, $3, $3 + '1 minute'::interval, $4, $5)
                     ON CONFLICT (key, line) DO UPDATE
                    SET attempts = e.attempts + 1, last_failed_at = $3, sqlstate = $4, message = $5,
                        retry_at = $3 + least('1 minute'::interval * pg_catalog.power(2, least(e.attempts, 10)),
                                              '6 hours'::interval)"
            }
            Statement::ForgetErrors => {
                "DELETE FROM stock.hold_error e
                  WHERE e.ctid = ANY (ARRAY (
                     SELECT o.ctid FROM stock.hold_error o
                      WHERE NOT EXISTS (SELECT FROM stock.hold h
                                         WHERE h.key = o.key AND h.line = o.line AND h.expires_at <= $1 OFFSET 0)
                        FOR UPDATE SKIP LOCKED))"
            }
            Statement::NextDue => {
                "SELECT (SELECT pg_catalog.min(greatest(h.expires_at, '-infinity')) FROM stock.hold h
                          WHERE greatest(h.expires_at, '-infinity') >= $1),
                        (SELECT pg_catalog.min(greatest(e.retry_at, h.expires_at))
                           FROM stock.hold_error e
                          CROSS JOIN LATERAL (SELECT o.expires_at FROM stock.hold o
                                               WHERE o.key = e.key AND o.line = e.line OFFSET 0) h)"
            }
            Statement::LogRun => {
                "INSERT INTO stock.maintenance_run (job, started_at, finished_at, holds_expired, units_returned, errors,
                        message)
                 VALUES ('expire', $1, pg_catalog.clock_timestamp(), $2, $3, $4, $5)"
            }
            Statement::SumUpRuns => {
                "WITH old AS (
                     SELECT r.ctid AS place FROM stock.maintenance_run r
                      WHERE r.started_at < pg_catalog.date_trunc('hour', $1 - '1 hour'::interval)
                        AND r.started_at >= $1 - '30 days'::interval AND NOT r.hourly AND r.errors = 0
                        FOR UPDATE SKIP LOCKED),
                 gone AS (
                     DELETE FROM stock.maintenance_run r USING old WHERE r.ctid = old.place RETURNING r.*)
                 INSERT INTO stock.maintenance_run (job, hourly, started_at, finished_at, runs, holds_expired,
                        units_returned)
                 SELECT g.job, true, pg_catalog.min(g.started_at), pg_catalog.max(g.finished_at), pg_catalog.count(*),
                        pg_catalog.sum(g.holds_expired),
                        least(pg_catalog.sum(g.units_returned), 9223372036854775807)
                   FROM gone g
                  GROUP BY g.job, pg_catalog.date_trunc('hour', g.started_at)"
            }
            Statement::ForgetRuns => {
                "DELETE FROM stock.maintenance_run r
                  WHERE r.ctid = ANY (ARRAY (
                     SELECT o.ctid FROM stock.maintenance_run o
                      WHERE o.started_at < $1 - '30 days'::interval
                        FOR UPDATE SKIP LOCKED))"
            }
        }
    }

    /// The types of its parameters.
    pub fn types(self) -> &'static [Oid] {
        const T: Oid = TEXTOID;
        const I: Oid = INT8OID;
        const Z: Oid = TIMESTAMPTZOID;
        const TS: Oid = TEXTARRAYOID;
        const IS: Oid = INT8ARRAYOID;
        const LS: Oid = INT4ARRAYOID;
        const ZS: Oid = TIMESTAMPTZARRAYOID;
        const BS: Oid = BOOLARRAYOID;
        match self {
            Statement::Glance => &[T, T, Z, T],
            Statement::Level => &[T, T, Z],
            Statement::Levels => &[TS, TS, Z],
            Statement::LockLevels => &[TS, TS],
            Statement::KeyHistory => &[T],
            Statement::History => &[TS],
            Statement::Overdue => &[TS, TS, IS, ZS, Z],
            Statement::Bought => &[TS, TS, TS, ZS, Z],
            Statement::GuardedUpdate => &[T, T, I, I, I, Z, Z, I, I, Z, I],
            Statement::UndoGuardedUpdate => &[T, T, I, I, I],
            Statement::ClaimReserve => &[Z, T, INT4OID, T, T, I, I, I, I, I, T, Z, T],
            Statement::Claim => &[TS, TS, TS, LS, TS, TS, IS, IS, IS, IS, IS, IS, IS, TS, ZS, TS, IS, IS, BS, Z, T],
            Statement::OpenHold => &[T, INT4OID, T, T, I, T, Z, Z],
            Statement::OpenHolds => &[TS, LS, TS, TS, IS, TS, ZS, Z],
            Statement::CloseHolds => &[TS, LS, IS],
            Statement::ChangeHolds => &[TS, LS, IS, IS, ZS],
            Statement::CreateLevels => &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z],
            Statement::ChangeLevels => &[TS, TS, IS, IS, IS, IS, BS, IS, ZS, Z, IS, BS],
            Statement::RaiseBounds => &[TS, TS],
            Statement::AddBought => &[TS, TS, TS, IS],
            Statement::Restoring => &[],
            Statement::DueHolds => &[Z, Z, TS, TS, I],
            Statement::RetryLevels => &[Z, I],
            Statement::LockFreeLevels => &[TS, TS],
            Statement::OverdueHolds => &[TS, TS, ZS, Z, I],
            Statement::Orphans => &[T, T, Z],
            Statement::SetAside => &[T, INT4OID, Z, T, T],
            Statement::ForgetErrors | Statement::NextDue | Statement::SumUpRuns | Statement::ForgetRuns => &[Z],
            Statement::LogRun => &[Z, I, I, I, T],
        }
    }
}
