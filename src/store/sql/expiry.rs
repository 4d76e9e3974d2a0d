//! What the sweep reads and writes, beside what a request does.
//!
//! `OFFSET 0` keeps a subquery what it is, a look-up by key for each row. hold_error is taken for
//! large like every table (`planner`), and a join with it would read all holds. Where it is empty,
//! as it should be, no hold is looked up in it.

use super::statement::Statement;
use super::{INT, LINE, LOCATION, SKU, TEXT, TIME};

/// Reads the version of the extension of this database.
pub static INSTALLED_VERSION: Statement = Statement::new(
    "SELECT e.extversion FROM pg_catalog.pg_extension e
      WHERE e.extname OPERATOR(pg_catalog.=) 'pg_stock'",
    &[],
);

/// Tells whether the data is still being restored.
pub static RESTORING: Statement =
    Statement::new("SELECT NOT s.is_called FROM stock.ledger_position_seq s", &[]);

/// Raises the ledger's sequence where it is behind the last rows, as far as the index of
/// transactions shows them.
pub static RAISE_SEQUENCE: Statement = Statement::new(
    "SELECT pg_catalog.setval('stock.ledger_position_seq', last.position)
       FROM (SELECT pg_catalog.max(recent.position) AS position
               FROM (SELECT g.position FROM stock.ledger g
                      ORDER BY g.xact DESC LIMIT 1000) recent) last,
            stock.ledger_position_seq s
      WHERE last.position > s.last_value",
    &[],
);

/// Tells whether a subscription fills one of the tables.
pub static SUBSCRIBED: Statement = Statement::new(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r
                      JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
                     WHERE s.subenabled
                       AND r.srrelid IN ('stock.level'::pg_catalog.regclass,
                                         'stock.hold'::pg_catalog.regclass,
                                         'stock.ledger'::pg_catalog.regclass,
                                         'stock.waiting'::pg_catalog.regclass,
                                         'stock.lot'::pg_catalog.regclass,
                                         'stock.hold_lot'::pg_catalog.regclass))",
    &[],
);

/// Finds the levels of the holds that are due next.
pub static DUE_HOLDS: Statement = Statement::new(
    "SELECT h.sku, h.location, h.expires_at
       FROM stock.hold h
      WHERE greatest(h.expires_at, '-infinity') BETWEEN $1 AND $2
        AND (h.sku, h.location) NOT IN (SELECT given.sku, given.location FROM {given})
        AND CASE WHEN (SELECT EXISTS (SELECT FROM stock.hold_error))
                 THEN NOT EXISTS (SELECT FROM stock.hold_error e
                                   WHERE e.key = h.key AND e.line = h.line OFFSET 0)
                 ELSE true END
      ORDER BY greatest(h.expires_at, '-infinity')
      LIMIT $3",
    &[TIME, TIME, INT],
)
.each(&[SKU, LOCATION]);

/// Finds the levels of holds that were set aside and are to be tried again.
pub static RETRY_LEVELS: Statement = Statement::new(
    "SELECT h.sku, h.location, pg_catalog.min(h.expires_at)
       FROM stock.hold_error e
      CROSS JOIN LATERAL (SELECT o.sku, o.location, o.expires_at FROM stock.hold o
                           WHERE o.key = e.key AND o.line = e.line OFFSET 0) h
      WHERE e.retry_at <= $1 AND h.expires_at <= $1
      GROUP BY h.sku, h.location
      LIMIT $2",
    &[TIME, INT],
);

/// Finds two levels, after one, at which units are there for those who wait: each queue is looked
/// at once, however long it is.
pub static UNPAID_LEVELS: Statement = Statement::new(
    "WITH RECURSIVE queue AS (
         (SELECT w.sku, w.location FROM stock.waiting w
           WHERE (w.sku, w.location) > ($1, $2) ORDER BY w.sku, w.location LIMIT 1)
          UNION ALL {each queue after})
     SELECT level.sku, level.location
       FROM queue
       JOIN stock.level ON level.sku = queue.sku AND level.location = queue.location
      WHERE level.on_hand - level.reserved - level.unsellable > level.safety_stock
        AND level.waiting > 0 AND NOT level.frozen
        -- What is past its time there is not booked yet.
        AND coalesce(level.next_spoil > pg_catalog.clock_timestamp(), true)
      LIMIT 2",
    &[TEXT, TEXT],
);

/// Finds the levels that have lots past their time which is not booked, those longest past it
/// first.
pub static SPOILED_LEVELS: Statement = Statement::new(
    "SELECT due.sku, due.location
       FROM (SELECT lot.sku, lot.location, pg_catalog.min(lot.spoils_at) AS since
               FROM stock.lot
              WHERE lot.spoils_at <= $1
              GROUP BY lot.sku, lot.location) due
       JOIN stock.level ON level.sku = due.sku AND level.location = due.location
      ORDER BY due.since",
    &[TIME],
);

/// Raises the sequence of places in queues where it is behind the last one of any queue.
pub static RAISE_PLACES: Statement = Statement::new(
    "WITH RECURSIVE queue AS (
         (SELECT w.sku, w.location FROM stock.waiting w ORDER BY w.sku, w.location LIMIT 1)
          UNION ALL {each queue after})
     SELECT pg_catalog.setval('stock.waiting_position_seq', last.position)
       FROM (SELECT pg_catalog.max(place.position) AS position
               FROM queue
              CROSS JOIN LATERAL (SELECT w.position FROM stock.waiting w
                                   WHERE w.sku = queue.sku AND w.location = queue.location
                                   ORDER BY w.position DESC LIMIT 1) place) last,
            stock.waiting_position_seq s
      WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END",
    &[],
);

/// Locks those levels that nobody else has locked.
pub static LOCK_FREE_LEVELS: Statement = Statement::new(
    "SELECT level.sku, level.location
       FROM {given} JOIN stock.level ON level.sku = given.sku AND level.location = given.location
        FOR NO KEY UPDATE OF level SKIP LOCKED",
    &[],
)
.each(&[SKU, LOCATION]);

/// Reads the overdue holds of levels.
pub static OVERDUE_HOLDS: Statement = Statement::new(
    "SELECT {hold}
       FROM {given}
       JOIN stock.level ON level.sku = given.sku AND level.location = given.location
      CROSS JOIN LATERAL (
        SELECT {hold}
          FROM stock.hold
         WHERE hold.sku = given.sku AND hold.location = given.location
           AND hold.expires_at BETWEEN least(level.next_due, given.due) AND $1
           AND CASE WHEN (SELECT EXISTS (SELECT FROM stock.hold_error))
                    THEN NOT EXISTS (SELECT FROM stock.hold_error e
                                      WHERE e.key = hold.key AND e.line = hold.line
                                        AND e.retry_at > $1 OFFSET 0)
                    ELSE true END
         ORDER BY hold.expires_at
         LIMIT $2) hold
      LIMIT $2",
    &[TIME, INT],
)
.each(&[SKU, LOCATION, ("due", TIME)]);

/// Reads the overdue holds of a level that does not exist.
pub static ORPHANS: Statement = Statement::new(
    "SELECT h.key, h.line FROM stock.hold h
      WHERE h.sku = $1 AND h.location = $2 AND h.expires_at <= $3",
    &[TEXT, TEXT, TIME],
);

/// Sets a hold aside that could not be closed.
pub static SET_ASIDE: Statement = Statement::new(
    "INSERT INTO stock.hold_error AS e
            (key, line, attempts, first_failed_at, last_failed_at, retry_at, sqlstate, message)
     VALUES ($1, $2, 1, $3, $3, $3 + '1 minute'::interval, $4, $5)
         ON CONFLICT (key, line) DO UPDATE
        SET attempts = e.attempts + 1, last_failed_at = $3, sqlstate = $4, message = $5,
            retry_at = $3 + least('6 hours'::interval,
                                  '1 minute'::interval
                                    * pg_catalog.power(2, least(e.attempts, 10)))",
    &[TEXT, LINE, TIME, TEXT, TEXT],
);

/// Forgets the errors of holds that are no longer overdue.
pub static FORGET_ERRORS: Statement = Statement::new(
    "DELETE FROM stock.hold_error e
      WHERE e.ctid = ANY (ARRAY (
         SELECT o.ctid FROM stock.hold_error o
          WHERE NOT EXISTS (SELECT FROM stock.hold h
                             WHERE h.key = o.key AND h.line = o.line AND h.expires_at <= $1
                            OFFSET 0)
            FOR UPDATE SKIP LOCKED))",
    &[TIME],
);

/// Finds the next deadline, and when a hold that was set aside is tried again.
pub static NEXT_DUE: Statement = Statement::new(
    "SELECT (SELECT pg_catalog.min(greatest(h.expires_at, '-infinity')) FROM stock.hold h
              WHERE greatest(h.expires_at, '-infinity') >= $1),
            (SELECT pg_catalog.min(greatest(e.retry_at, h.expires_at))
               FROM stock.hold_error e
              CROSS JOIN LATERAL (SELECT o.expires_at FROM stock.hold o
                                   WHERE o.key = e.key AND o.line = e.line OFFSET 0) h)",
    &[TIME],
);

/// Writes down what a run did.
pub static LOG_RUN: Statement = Statement::new(
    "INSERT INTO stock.maintenance_run
            (job, started_at, finished_at, holds_expired, units_returned, errors, message)
     VALUES ('expire', $1, pg_catalog.clock_timestamp(), $2, $3, $4, $5)",
    &[TIME, INT, INT, INT, TEXT],
);

/// Sums the runs up by the hour that are older than that.
pub static SUM_UP_RUNS: Statement = Statement::new(
    "WITH old AS (
         SELECT r.ctid AS place FROM stock.maintenance_run r
          WHERE r.started_at < pg_catalog.date_trunc('hour', $1 - '1 hour'::interval)
            AND r.started_at >= $1 - '30 days'::interval AND NOT r.hourly AND r.errors = 0
            FOR UPDATE SKIP LOCKED),
     gone AS (
         DELETE FROM stock.maintenance_run r USING old WHERE r.ctid = old.place RETURNING r.*)
     INSERT INTO stock.maintenance_run
            (job, hourly, started_at, finished_at, runs, holds_expired, units_returned)
     SELECT g.job, true, pg_catalog.min(g.started_at), pg_catalog.max(g.finished_at),
            pg_catalog.count(*), pg_catalog.sum(g.holds_expired),
            least(pg_catalog.sum(g.units_returned), 9223372036854775807)
       FROM gone g
      GROUP BY g.job, pg_catalog.date_trunc('hour', g.started_at)",
    &[TIME],
);

/// Removes what is too old to be kept.
pub static FORGET_RUNS: Statement = Statement::new(
    "DELETE FROM stock.maintenance_run r
      WHERE r.ctid = ANY (ARRAY (
         SELECT o.ctid FROM stock.maintenance_run o
          WHERE o.started_at < $1 - '30 days'::interval
            FOR UPDATE SKIP LOCKED))",
    &[TIME],
);
