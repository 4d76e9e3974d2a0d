//! What must hold after anything that happened, in plain SQL. Each query returns what breaks it:
//! nothing, ever.

use postgres::Client;

/// A promise and the query that returns each breach of it.
pub struct Invariant {
    /// The promise.
    pub promise: &'static str,
    /// Returns the breaches.
    pub breaches: &'static str,
}

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        promise: "no level has less than nothing on hand, reserved or available",
        breaches: "SELECT sku, location FROM stock.levels WHERE on_hand < 0 OR reserved < 0
                   OR available < 0
                    OR reserved > on_hand OR waiting < 0 OR in_transit < 0",
    },
    Invariant {
        promise: "the ledger adds up to each level",
        breaches: "SELECT l.sku, l.location FROM stock.level l
                    LEFT JOIN (SELECT sku, location, sum(on_hand_delta) AS on_hand,
                    sum(reserved_delta) AS reserved
                                 FROM stock.history GROUP BY sku, location) g USING (sku, location)
                   WHERE (l.on_hand, l.reserved) IS DISTINCT
                   FROM (coalesce(g.on_hand, 0), coalesce(g.reserved, 0))",
    },
    Invariant {
        promise: "the open holds add up to what is reserved",
        breaches: "SELECT l.sku, l.location FROM stock.level l
                    LEFT JOIN (SELECT sku, location, sum(quantity) AS held FROM stock.hold
                    GROUP BY sku, location) h USING (sku, location)
                    LEFT JOIN (SELECT sku, location, sum(quantity) AS waiting FROM stock.waiting
                    WHERE NOT sold GROUP BY sku, location) w USING (sku, location)
                   WHERE l.reserved <> coalesce(h.held, 0) - coalesce(w.waiting, 0)",
    },
    Invariant {
        promise: "the queues add up to what is waiting",
        breaches: "SELECT l.sku, l.location FROM stock.level l
                    LEFT JOIN (SELECT sku, location, sum(quantity) AS queued FROM stock.waiting
                    GROUP BY sku, location) w USING (sku, location)
                    WHERE l.waiting <> coalesce(w.queued, 0)",
    },
    Invariant {
        promise: "nobody waits for what is there",
        breaches: "SELECT sku, location FROM stock.level
                    WHERE waiting > 0 AND on_hand - reserved - unsellable > safety_stock
                      AND NOT frozen AND coalesce(next_spoil > clock_timestamp(), true)",
    },
    Invariant {
        promise: "the lots add up to their level, and to what is held of them",
        breaches: "SELECT l.sku, l.location, o.on_hand, o.reserved, o.unsellable, b.held
                     FROM stock.level l
                     LEFT JOIN (SELECT sku, location, sum(on_hand) AS on_hand,
                                       sum(reserved) AS reserved,
                                       coalesce(sum(on_hand - reserved)
                                                FILTER (WHERE frozen OR spoiled), 0) AS unsellable
                                  FROM stock.lot GROUP BY sku, location) o USING (sku, location)
                     LEFT JOIN (SELECT h.sku, h.location, sum(c.quantity) AS held
                                  FROM stock.hold_lot c JOIN stock.hold h USING (key, line)
                                 GROUP BY h.sku, h.location) b USING (sku, location)
                    WHERE next_spoil IS NOT NULL
                      AND (l.on_hand, l.reserved, l.unsellable, l.reserved)
                          <> (coalesce(o.on_hand, 0), coalesce(o.reserved, 0),
                              coalesce(o.unsellable, 0), coalesce(b.held, 0))",
    },
    Invariant {
        promise: "what is on the way adds up to what is in transit",
        breaches: "SELECT l.sku, l.location FROM stock.level l
                    LEFT JOIN (SELECT sku, to_location AS location, sum(quantity) AS bound
                                 FROM stock.shipment GROUP BY sku, to_location) s
                    USING (sku, location) WHERE l.in_transit <> coalesce(s.bound, 0)",
    },
    Invariant {
        promise: "no line of a reservation gives out more than it holds: each hold ends once",
        breaches: "SELECT key, sku, location FROM stock.history WHERE sku IS NOT NULL GROUP BY key,
                   sku, location
                   HAVING sum(reserved_delta) FILTER (WHERE operation IN ('reserve', 'confirm',
                   'release', 'expire', 'extend', 'supply')) < 0
                       OR sum(quantity) FILTER (WHERE operation = 'confirm')
                        + coalesce(sum(quantity) FILTER (WHERE operation = 'release'), 0)
                        > sum(quantity) FILTER (WHERE operation = 'reserve')",
    },
    Invariant {
        promise: "versions rise by exactly one with each change of a level",
        breaches: "SELECT sku, location, version FROM (
                     SELECT sku, location, version, row_number() OVER (PARTITION BY sku, location
                     ORDER BY version) AS nth
                       FROM stock.history WHERE sku IS NOT NULL
                       AND NOT (operation = 'extend' AND reserved_delta = 0
                                AND waiting_delta IS NULL)) v
                       WHERE version <> nth",
    },
    Invariant {
        promise: "each key did each thing once",
        breaches: "SELECT key, operation, operation_key, line FROM stock.ledger
                   GROUP BY key, operation, operation_key, line HAVING count(*) > 1",
    },
    Invariant {
        promise: "stock.verify() finds nothing",
        breaches: "SELECT sku, location, problem FROM stock.verify()",
    },
];

/// Checks them all; for each, the promise and how many breaches there are.
///
/// # Panics
/// If a query fails.
pub fn check(client: &mut Client) -> Vec<(&'static str, usize)> {
    let breaches = |client: &mut Client, sql: &str| client.query(sql, &[]).expect(sql).len();
    INVARIANTS
        .iter()
        .map(|invariant| (invariant.promise, breaches(client, invariant.breaches)))
        .collect()
}

/// Panics unless they all hold.
///
/// # Panics
/// If one is broken.
pub fn assert_hold(client: &mut Client) {
    for (promise, breaches) in check(client) {
        assert_eq!(breaches, 0, "broken: {promise}");
    }
}
