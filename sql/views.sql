-- What may be looked at: levels, open holds, the ledger, and the check that they agree.

CREATE VIEW stock.levels AS
SELECT l.sku, l.location, l.on_hand, l.reserved, l.waiting, l.in_transit, l.safety_stock,
       l.backorder_limit,
       CASE WHEN l.frozen
              OR l.on_sale_from > pg_catalog.clock_timestamp()
              OR l.on_sale_until <= pg_catalog.clock_timestamp() THEN 0
            ELSE greatest(0, l.on_hand - l.reserved - l.unsellable - spoilt.free - l.safety_stock
                               - l.waiting + l.backorder_limit + due.overdue - spoilt.overdue)
       END AS available,
       due.overdue, l.buyer_limit, l.frozen, l.on_sale_from, l.on_sale_until, l.version,
       l.updated_at, l.unsellable, l.min_life, l.near_expiry, l.next_spoil IS NOT NULL AS has_lots
  FROM stock.level l
 CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.sum(h.quantity), 0)::bigint AS overdue
         FROM stock.hold h
        WHERE l.next_due <= pg_catalog.clock_timestamp()
          AND h.sku = l.sku AND h.location = l.location
          AND h.expires_at BETWEEN l.next_due AND pg_catalog.clock_timestamp()) due
 CROSS JOIN LATERAL (
       -- what lots have past their time that is not booked yet; what overdue holds have of lots
       -- that may not be sold
       SELECT CASE WHEN l.next_spoil IS NULL THEN 0 ELSE coalesce((
                SELECT pg_catalog.sum(o.on_hand - o.reserved) FROM stock.lot o
                 WHERE o.sku = l.sku AND o.location = l.location AND NOT o.spent
                   AND o.spoils_at <= pg_catalog.clock_timestamp()), 0)::bigint END AS free,
              CASE WHEN l.next_spoil IS NULL THEN 0 ELSE coalesce((
                SELECT pg_catalog.sum(b.quantity)
                  FROM stock.hold h
                  JOIN stock.hold_lot b ON b.key = h.key AND b.line = h.line
                  JOIN stock.lot o
                    ON o.sku = h.sku AND o.location = h.location AND o.lot = b.lot
                 WHERE l.next_due <= pg_catalog.clock_timestamp()
                   AND h.sku = l.sku AND h.location = l.location
                   AND h.expires_at BETWEEN l.next_due AND pg_catalog.clock_timestamp()
                   AND (o.frozen OR o.spoiled OR o.spoils_at <= pg_catalog.clock_timestamp())
              ), 0)::bigint END AS overdue) spoilt;
COMMENT ON VIEW stock.levels IS
    'Each level with what may still be promised of it. Look up by (sku, location), or by sku.';
COMMENT ON COLUMN stock.levels.sku IS 'What is sold.';
COMMENT ON COLUMN stock.levels.location IS 'Where it lies.';
COMMENT ON COLUMN stock.levels.on_hand IS 'Units physically there.';
COMMENT ON COLUMN stock.levels.reserved IS
    'Units there that are promised to open holds, overdue ones included.';
COMMENT ON COLUMN stock.levels.waiting IS
    'Units promised, to holds or by a sale, that are not there yet.';
COMMENT ON COLUMN stock.levels.backorder_limit IS
    'How many units may be promised without being there.';
COMMENT ON COLUMN stock.levels.in_transit IS
    'Units on the road to here; not among on_hand, and promised to nobody.';
COMMENT ON COLUMN stock.levels.safety_stock IS 'Units that are never promised.';
COMMENT ON COLUMN stock.levels.available IS
    'Units that may still be promised: on_hand - reserved - unsellable - safety_stock - waiting + '
    'backorder_limit, at least 0; overdue holds count as free, and lots past their time as '
    'unsellable; 0 while the level is frozen or not on sale.';
COMMENT ON COLUMN stock.levels.unsellable IS
    'Units there, promised to nobody, that must not be sold: those of lots that are frozen or past '
    'their time, as far as that is booked.';
COMMENT ON COLUMN stock.levels.min_life IS
    'How long a lot must last to be promised; NULL: until it is needed.';
COMMENT ON COLUMN stock.levels.near_expiry IS
    'How long before its date a lot is warned of; NULL: as pg_stock.near_expiry says.';
COMMENT ON COLUMN stock.levels.has_lots IS 'Whether each unit of it lies in a lot.';
COMMENT ON COLUMN stock.levels.overdue IS 'Units in holds past their deadline.';
COMMENT ON COLUMN stock.levels.buyer_limit IS
    'Most units that one buyer may hold and have bought; NULL: no limit.';
COMMENT ON COLUMN stock.levels.frozen IS
    'While true, nothing is reserved, sold or transferred from here; what was held in time can be '
    'confirmed.';
COMMENT ON COLUMN stock.levels.on_sale_from IS
    'Nothing is reserved or sold before this; NULL: no bound.';
COMMENT ON COLUMN stock.levels.on_sale_until IS
    'Nothing is reserved or sold from this on; NULL: no bound.';
COMMENT ON COLUMN stock.levels.version IS
    'Rises by one with each ledger row that changes the level.';
COMMENT ON COLUMN stock.levels.updated_at IS 'When the level last changed.';

CREATE VIEW stock.totals AS
SELECT l.location, pg_catalog.count(*) AS levels, pg_catalog.sum(l.on_hand) AS on_hand,
       pg_catalog.sum(l.reserved) AS reserved, pg_catalog.sum(l.waiting) AS waiting,
       pg_catalog.sum(l.in_transit) AS in_transit, pg_catalog.sum(l.unsellable) AS unsellable
  FROM stock.level l
 GROUP BY l.location;
COMMENT ON VIEW stock.totals IS
    'Units by location, for gauges. Reads all levels: some hundredths of a second for 100,000.';
COMMENT ON COLUMN stock.totals.location IS 'Where.';
COMMENT ON COLUMN stock.totals.levels IS 'How many levels there are there.';
COMMENT ON COLUMN stock.totals.on_hand IS 'Units physically there.';
COMMENT ON COLUMN stock.totals.reserved IS 'Units there that are promised to open holds.';
COMMENT ON COLUMN stock.totals.waiting IS 'Units promised that are not there yet.';
COMMENT ON COLUMN stock.totals.in_transit IS 'Units on the road to there.';
COMMENT ON COLUMN stock.totals.unsellable IS
    'Units there, promised to nobody, that must not be sold.';

CREATE VIEW stock.holds AS
SELECT h.key, h.line, h.sku, h.location, h.quantity, coalesce(w.quantity, 0) AS waiting, h.buyer,
       h.reserved_at, h.expires_at, h.expires_at <= pg_catalog.clock_timestamp() AS overdue
  FROM stock.hold h
  LEFT JOIN stock.waiting w ON w.key = h.key AND w.line = h.line AND NOT w.sold;
COMMENT ON VIEW stock.holds IS
    'What is held. Look-ups by key and by (sku, location) use an index; by buyer alone all open '
    'holds are read.';
COMMENT ON COLUMN stock.holds.key IS 'The reservation.';
COMMENT ON COLUMN stock.holds.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.holds.sku IS 'What is held.';
COMMENT ON COLUMN stock.holds.location IS 'Where it is held.';
COMMENT ON COLUMN stock.holds.quantity IS 'Units still held.';
COMMENT ON COLUMN stock.holds.waiting IS 'Units of them that are not there yet.';
COMMENT ON COLUMN stock.holds.buyer IS 'For whom.';
COMMENT ON COLUMN stock.holds.reserved_at IS
    'When the reservation was made; an extension does not change it.';
COMMENT ON COLUMN stock.holds.expires_at IS 'The deadline.';
COMMENT ON COLUMN stock.holds.overdue IS
    'True once the deadline has passed: the units are free to whoever needs them.';

CREATE VIEW stock.waiting_lines AS
SELECT w.position, w.key, w.line, w.sku, w.location, w.quantity, w.sold
  FROM stock.waiting w;
COMMENT ON VIEW stock.waiting_lines IS
    'The queues: what is promised and not there yet, oldest promise first by position. Look-ups by '
    'key and by (sku, location) use an index.';
COMMENT ON COLUMN stock.waiting_lines.position IS
    'The place in the queue of the level: lower is earlier.';
COMMENT ON COLUMN stock.waiting_lines.key IS 'The reservation.';
COMMENT ON COLUMN stock.waiting_lines.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.waiting_lines.sku IS 'What is waited for.';
COMMENT ON COLUMN stock.waiting_lines.location IS 'Where it is waited for.';
COMMENT ON COLUMN stock.waiting_lines.quantity IS 'Units that wait.';
COMMENT ON COLUMN stock.waiting_lines.sold IS 'Whether they are sold; else they are held.';

CREATE VIEW stock.supplied AS
SELECT g.recorded_at, g.key, g.line, g.sku, g.location, g.quantity, g.on_hand_delta <> 0 AS sold,
       g.version
  FROM stock.ledger g
 WHERE g.operation = 'supply'
 ORDER BY g.xact DESC, g.version DESC;
COMMENT ON VIEW stock.supplied IS
    'What has come for those who waited for it, newest first: whoever ships learns it here. A '
    'look-up by key uses an index; else the ledger is read from its newest rows on, until LIMIT '
    'ends it.';
COMMENT ON COLUMN stock.supplied.recorded_at IS 'When it had come.';
COMMENT ON COLUMN stock.supplied.key IS 'For which reservation.';
COMMENT ON COLUMN stock.supplied.line IS 'For which line of it.';
COMMENT ON COLUMN stock.supplied.sku IS 'What has come.';
COMMENT ON COLUMN stock.supplied.location IS 'Where.';
COMMENT ON COLUMN stock.supplied.quantity IS 'Units that have come.';
COMMENT ON COLUMN stock.supplied.sold IS
    'Whether they were sold, and so have left the stock to be shipped; else they are held now.';
COMMENT ON COLUMN stock.supplied.version IS
    'The version of the level then: tells in which order lines of one level were supplied.';

CREATE VIEW stock.shipments AS
SELECT s.key, s.sku, s.from_location, s.to_location, s.quantity, s.dispatched_at,
       pg_catalog.clock_timestamp() - s.dispatched_at AS on_the_way_for
  FROM stock.shipment s;
COMMENT ON VIEW stock.shipments IS
    'What is on the way. Look-ups by key, and by (sku, to_location), use an index.';
COMMENT ON COLUMN stock.shipments.key IS 'The key of the dispatch: the shipment.';
COMMENT ON COLUMN stock.shipments.sku IS 'What is on the way.';
COMMENT ON COLUMN stock.shipments.from_location IS 'Where it comes from.';
COMMENT ON COLUMN stock.shipments.to_location IS 'Where it goes.';
COMMENT ON COLUMN stock.shipments.quantity IS 'Units that are still on the way.';
COMMENT ON COLUMN stock.shipments.dispatched_at IS
    'When they left; that they turned round does not change it.';
COMMENT ON COLUMN stock.shipments.on_the_way_for IS 'How long ago that was.';

CREATE VIEW stock.lots AS
SELECT o.sku, o.location, o.lot, o.best_before, o.on_hand, o.reserved,
       CASE WHEN o.frozen OR o.spoiled OR o.spoils_at <= pg_catalog.clock_timestamp() THEN 0
            ELSE o.on_hand - o.reserved END AS sellable,
       o.frozen, o.received_at
  FROM stock.lot o;
COMMENT ON VIEW stock.lots IS
    'The lots of levels, those of which nothing is left included. Look up by (sku, location), or '
    'by sku.';
COMMENT ON COLUMN stock.lots.sku IS 'What is sold.';
COMMENT ON COLUMN stock.lots.location IS 'Where it lies.';
COMMENT ON COLUMN stock.lots.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lots.best_before IS 'Its date; NULL: it has none, and is sold last.';
COMMENT ON COLUMN stock.lots.on_hand IS 'Units of it physically there.';
COMMENT ON COLUMN stock.lots.reserved IS 'Units of them that are promised to open holds.';
COMMENT ON COLUMN stock.lots.sellable IS
    'Units of it that may be promised, as far as the lot alone says.';
COMMENT ON COLUMN stock.lots.frozen IS 'While true, nothing of it is promised: it was called back.';
COMMENT ON COLUMN stock.lots.received_at IS 'When the first of it came.';

CREATE VIEW stock.expiring_lots AS
SELECT o.sku, o.location, o.lot, o.best_before, o.on_hand, o.reserved,
       o.best_before - pg_catalog.clock_timestamp() AS time_left
  FROM stock.lot o
 WHERE o.warns_at <= pg_catalog.clock_timestamp();
COMMENT ON VIEW stock.expiring_lots IS
    'The lots of which something is left whose date is near, or past. Uses an index.';
COMMENT ON COLUMN stock.expiring_lots.sku IS 'What is sold.';
COMMENT ON COLUMN stock.expiring_lots.location IS 'Where it lies.';
COMMENT ON COLUMN stock.expiring_lots.lot IS 'The lot.';
COMMENT ON COLUMN stock.expiring_lots.best_before IS 'Its date.';
COMMENT ON COLUMN stock.expiring_lots.on_hand IS 'Units of it physically there.';
COMMENT ON COLUMN stock.expiring_lots.reserved IS 'Units of them that are promised to open holds.';
COMMENT ON COLUMN stock.expiring_lots.time_left IS 'How long until its date; negative once past.';

CREATE VIEW stock.lot_holds AS
SELECT h.sku, h.location, b.lot, b.key, b.line, b.quantity, h.buyer, h.expires_at
  FROM stock.hold_lot b
  JOIN stock.hold h ON h.key = b.key AND h.line = b.line;
COMMENT ON VIEW stock.lot_holds IS
    'Who holds units of which lot. Look-ups by key, and by (sku, location), use an index.';
COMMENT ON COLUMN stock.lot_holds.sku IS 'What is held.';
COMMENT ON COLUMN stock.lot_holds.location IS 'Where it is held.';
COMMENT ON COLUMN stock.lot_holds.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lot_holds.key IS 'The reservation.';
COMMENT ON COLUMN stock.lot_holds.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.lot_holds.quantity IS 'Units held of the lot.';
COMMENT ON COLUMN stock.lot_holds.buyer IS 'For whom.';
COMMENT ON COLUMN stock.lot_holds.expires_at IS 'The deadline of the hold.';

CREATE VIEW stock.lot_moves AS
SELECT m.lot, g.sku, g.location, g.recorded_at, g.operation, g.key, g.operation_key, g.line,
       m.on_hand_delta, m.reserved_delta, m.in_transit_delta,
       coalesce(g.buyer, (SELECT r.buyer FROM stock.ledger r
                           WHERE r.key = g.key AND r.operation = 'reserve' AND r.sku = g.sku
                             AND r.location = g.location AND r.buyer IS NOT NULL LIMIT 1)) AS buyer,
       g.position
  FROM stock.ledger_lot m
  JOIN stock.ledger g ON g.key = m.key AND g.position = m.position;
COMMENT ON VIEW stock.lot_moves IS
    'What happened to lots: whoever got of one that is called back is found here. Look-ups by lot '
    'and by key use an index.';
COMMENT ON COLUMN stock.lot_moves.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lot_moves.sku IS 'What changed.';
COMMENT ON COLUMN stock.lot_moves.location IS 'Where it changed.';
COMMENT ON COLUMN stock.lot_moves.recorded_at IS 'When.';
COMMENT ON COLUMN stock.lot_moves.operation IS
    'What happened; of a track_lots: what lay there became the lot.';
COMMENT ON COLUMN stock.lot_moves.key IS 'Under which key: of a sale, the order.';
COMMENT ON COLUMN stock.lot_moves.operation_key IS 'Which part of it.';
COMMENT ON COLUMN stock.lot_moves.line IS 'The line of the request.';
COMMENT ON COLUMN stock.lot_moves.on_hand_delta IS 'Change of the lot''s on_hand.';
COMMENT ON COLUMN stock.lot_moves.reserved_delta IS 'Change of the lot''s reserved.';
COMMENT ON COLUMN stock.lot_moves.in_transit_delta IS
    'Change of what of the lot is on the road to the level.';
COMMENT ON COLUMN stock.lot_moves.buyer IS 'For whom, where the operation was an order''s.';
COMMENT ON COLUMN stock.lot_moves.position IS 'The row of the ledger.';

CREATE FUNCTION stock.picks(key text) RETURNS TABLE (
    line integer, sku text, location text, lot text, best_before timestamptz, quantity bigint
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH entry AS (
    SELECT g.* FROM stock.ledger g
     WHERE g.key = $1
       AND g.operation IN ('reserve', 'confirm', 'release', 'expire', 'extend', 'return', 'supply')
), of_order AS (
    SELECT e.sku, e.location, min(e.line) FILTER (WHERE e.operation = 'reserve') AS line,
           sum(e.reserved_delta - e.on_hand_delta) AS quantity
      FROM entry e GROUP BY e.sku, e.location
), of_lot AS (
    SELECT e.sku, e.location, m.lot, sum(m.reserved_delta - m.on_hand_delta) AS quantity
      FROM entry e JOIN stock.ledger_lot m ON m.key = e.key AND m.position = e.position
     GROUP BY e.sku, e.location, m.lot
), lapsed AS (
    -- what an overdue hold has is nobody's to pick
    SELECT h.sku, h.location, b.lot, coalesce(b.quantity, h.quantity - coalesce(w.quantity, 0))
             AS quantity
      FROM stock.hold h
      LEFT JOIN stock.hold_lot b ON b.key = h.key AND b.line = h.line
      LEFT JOIN stock.waiting w ON w.key = h.key AND w.line = h.line AND NOT w.sold
     WHERE h.key = $1 AND h.expires_at <= clock_timestamp()
), part AS (
    SELECT p.sku, p.location, p.lot, p.quantity FROM of_lot p WHERE p.lot <> ''
     UNION ALL
    -- what was promised before there were lots, and where there are none
    SELECT o.sku, o.location, NULL,
           o.quantity - coalesce((SELECT sum(p.quantity) FROM of_lot p
                                   WHERE p.sku = o.sku AND p.location = o.location
                                     AND p.lot <> ''), 0)
      FROM of_order o
), pick AS (
    SELECT p.sku, p.location, p.lot,
           p.quantity - coalesce((SELECT sum(d.quantity) FROM lapsed d
                                   WHERE d.sku = p.sku AND d.location = p.location
                                     AND nullif(d.lot, '') IS NOT DISTINCT FROM p.lot), 0)
             AS quantity
      FROM part p
), ranked AS (
    -- what came back to another lot than it came from is missing from the last ones
    SELECT o.line, p.sku, p.location, p.lot, l.best_before, p.quantity,
           sum(p.quantity) OVER level
             - coalesce(sum(greatest(p.quantity, 0)) OVER (level ORDER BY l.best_before, p.lot
                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS left_over
      FROM pick p
      JOIN of_order o ON o.sku = p.sku AND o.location = p.location
      LEFT JOIN stock.lot l ON l.sku = p.sku AND l.location = p.location AND l.lot = p.lot
    WINDOW level AS (PARTITION BY p.sku, p.location)
)
SELECT r.line, r.sku, r.location, r.lot, r.best_before, least(r.quantity, r.left_over)::bigint
  FROM ranked r
 WHERE least(r.quantity, r.left_over) > 0
 ORDER BY r.line, r.best_before, r.lot
$$;
COMMENT ON FUNCTION stock.picks(text) IS
    'What to take from the shelves for a reservation: of each line the units there that it holds '
    'or was sold and has not returned, lot by lot. lot is NULL where they lie in none, or came '
    'without one.';

CREATE VIEW stock.ledger_rows AS
SELECT g.position, g.xact, g.recorded_at, g.key, g.operation, g.operation_key, g.line,
       g.sku, g.location, g.quantity, g.on_hand_delta, g.reserved_delta, g.waiting_delta,
       g.in_transit_delta, g.on_hand_after, g.reserved_after, g.available, g.version,
       g.answered_version, g.buyer, g.expires_at, g.safety_stock, g.buyer_limit,
       g.backorder_limit, g.frozen, g.on_sale_from, g.on_sale_until, g.unsellable_delta, g.lot,
       g.best_before, g.min_life, g.near_expiry,
       g.reason, g.actor, g.login, g.client_addr, g.application_name, g.context
  FROM stock.ledger g;
COMMENT ON VIEW stock.ledger_rows IS
    'The ledger: every change to every level. A look-up by key uses an index; by SKU or by time '
    'the whole ledger is read.';
-- Its columns mean what those of the table mean.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS meaning
               FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = 'stock.ledger'::pg_catalog.regclass AND a.attnum > 0
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN stock.ledger_rows.%I IS %L',
                                  c.attname, c.meaning);
    END LOOP;
END
$$;

-- -------------------------------------------------------------------------------------------------
-- The check: each level recomputed from the ledger and from its holds, in one statement and so at
-- one moment.

CREATE FUNCTION stock.verify()
RETURNS TABLE (sku text, location text, problem text, expected text, found text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- To compile it takes longer than to run it, but for very large stocks.
SET jit = off AS $$
WITH entry AS (
    -- what changed a level, with the running sums of its changes
    SELECT g.*,
           row_number() OVER chain AS nth,
           sum(g.on_hand_delta) OVER chain AS on_hand_sum,
           sum(g.reserved_delta) OVER chain AS reserved_sum
      FROM stock.ledger g
     WHERE NOT (g.operation IN ('cancel', 'reopen', 'erase')
                OR g.operation = 'extend' AND g.reserved_delta = 0 AND g.waiting_delta IS NULL)
    WINDOW chain AS (PARTITION BY g.sku, g.location ORDER BY g.version, g.position)
), total AS (
    SELECT e.sku, e.location,
           sum(e.on_hand_delta) AS on_hand, sum(e.reserved_delta) AS reserved,
           coalesce(sum(e.waiting_delta), 0) AS waiting,
           coalesce(sum(e.in_transit_delta), 0) AS in_transit,
           coalesce(sum(e.unsellable_delta), 0) AS unsellable, count(*) AS version,
           bool_or(e.operation = 'track_lots') AS has_lots,
           min(e.version) FILTER (WHERE e.operation = 'track_lots') AS lots_since,
           nullif((array_agg(e.min_life ORDER BY e.version DESC)
                     FILTER (WHERE e.operation = 'set_limits' AND e.min_life IS NOT NULL))[1],
                  '0') AS min_life,
           (array_agg(e.near_expiry ORDER BY e.version DESC)
              FILTER (WHERE e.near_expiry IS NOT NULL))[1] AS near_expiry,
           coalesce((array_agg(e.safety_stock ORDER BY e.version DESC)
                       FILTER (WHERE e.safety_stock IS NOT NULL))[1], 0) AS safety_stock,
           nullif((array_agg(e.buyer_limit ORDER BY e.version DESC)
                     FILTER (WHERE e.buyer_limit IS NOT NULL))[1], 0) AS buyer_limit,
           coalesce((array_agg(e.backorder_limit ORDER BY e.version DESC)
                       FILTER (WHERE e.backorder_limit IS NOT NULL))[1], 0) AS backorder_limit,
           coalesce((array_agg(e.frozen ORDER BY e.version DESC)
                       FILTER (WHERE e.frozen IS NOT NULL))[1], false) AS frozen,
           nullif((array_agg(e.on_sale_from ORDER BY e.version DESC)
                     FILTER (WHERE e.on_sale_from IS NOT NULL))[1], '-infinity') AS on_sale_from,
           nullif((array_agg(e.on_sale_until ORDER BY e.version DESC)
                     FILTER (WHERE e.on_sale_until IS NOT NULL))[1], 'infinity') AS on_sale_until
      FROM entry e GROUP BY e.sku, e.location
), held AS (
    SELECT h.sku, h.location, sum(h.quantity) AS quantity, min(h.expires_at) AS first_due
      FROM stock.hold h GROUP BY h.sku, h.location
), queue AS (
    SELECT w.sku, w.location, sum(w.quantity) AS quantity,
           coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0) AS held
      FROM stock.waiting w GROUP BY w.sku, w.location
), of_lots AS (
    -- what each ledger row did to lots, in all
    SELECT m.key, m.position, sum(m.on_hand_delta) AS on_hand, sum(m.reserved_delta) AS reserved
      FROM stock.ledger_lot m GROUP BY m.key, m.position
), lot AS (
    SELECT g.sku, g.location, m.lot, sum(m.on_hand_delta) AS on_hand,
           sum(m.reserved_delta) AS reserved
      FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
     GROUP BY g.sku, g.location, m.lot
), shelf AS (
    SELECT o.sku, o.location, sum(o.on_hand) AS on_hand, sum(o.reserved) AS reserved,
           coalesce(sum(o.on_hand - o.reserved) FILTER (WHERE o.frozen OR o.spoiled), 0)
             AS unsellable,
           min(o.spoils_at) AS first_spoil
      FROM stock.lot o GROUP BY o.sku, o.location
), called_back AS (
    SELECT g.sku, g.location, g.lot,
           (array_agg(g.operation ORDER BY g.version DESC))[1] = 'freeze_lot' AS frozen
      FROM stock.ledger g WHERE g.operation IN ('freeze_lot', 'unfreeze_lot')
     GROUP BY g.sku, g.location, g.lot
), bound_lots AS (
    SELECT b.key, b.line, sum(b.quantity) AS quantity
      FROM stock.hold_lot b GROUP BY b.key, b.line
), level AS (
    SELECT coalesce(l.sku, t.sku) AS sku, coalesce(l.location, t.location) AS location,
           l.on_hand, l.reserved, l.waiting, l.in_transit,
           l.backorder_limit, l.safety_stock, l.buyer_limit, l.frozen, l.on_sale_from,
           l.on_sale_until, l.version,
           l.next_due, l.unsellable, l.next_spoil, l.min_life, l.near_expiry,
           t.unsellable AS unsellable_sum, t.has_lots, t.lots_since,
           t.min_life AS min_life_set, t.near_expiry AS near_expiry_set,
           t.on_hand AS on_hand_sum, t.reserved AS reserved_sum, t.waiting AS waiting_sum,
           t.in_transit AS in_transit_sum, t.backorder_limit AS backorder_limit_set,
           t.version AS entries,
           t.safety_stock AS safety_stock_set, t.buyer_limit AS buyer_limit_set,
           t.frozen AS frozen_set, t.on_sale_from AS on_sale_from_set,
           t.on_sale_until AS on_sale_until_set
      FROM stock.level l FULL JOIN total t ON t.sku = l.sku AND t.location = l.location
), line AS (
    -- what each reservation should hold of each level, and until when; what of that is not there
    -- yet, and what of its sales
    SELECT g.key, g.sku, g.location,
           sum(CASE WHEN g.operation = 'reserve' THEN g.quantity
                    WHEN g.operation = 'confirm' THEN -n.from_hold
                    WHEN g.operation IN ('release', 'expire') THEN -g.quantity
                    WHEN g.operation = 'extend' THEN n.promised
                    ELSE 0 END) AS quantity,
           sum(CASE WHEN g.operation = 'confirm' THEN -n.from_hold - g.reserved_delta
                    WHEN g.operation = 'return' OR g.on_hand_delta <> 0 THEN 0
                    ELSE n.waits END) AS waiting,
           sum(CASE WHEN g.operation = 'confirm' THEN n.from_hold + g.reserved_delta + n.waits
                    WHEN g.operation = 'return' OR g.on_hand_delta <> 0 THEN n.waits
                    ELSE 0 END) AS owed,
           -- an extension never shortens
           max(g.expires_at) FILTER (WHERE g.operation IN ('reserve', 'extend')) AS expires_at,
           min(g.buyer) FILTER (WHERE g.operation = 'reserve') AS buyer,
           min(g.line) FILTER (WHERE g.operation = 'reserve') AS line
      FROM stock.ledger g
     CROSS JOIN LATERAL (
           SELECT coalesce(g.waiting_delta, 0) AS waits,
                  g.reserved_delta + coalesce(g.waiting_delta, 0) - g.on_hand_delta AS promised,
                  g.quantity - g.reserved_delta - coalesce(g.waiting_delta, 0)
                    + g.on_hand_delta AS from_hold) n
     WHERE g.operation IN ('reserve', 'confirm', 'release', 'expire', 'extend', 'return', 'supply')
     GROUP BY g.key, g.sku, g.location
), place AS (
    SELECT l.key, l.sku, l.location, l.line, p.sold, p.quantity
      FROM line l
     CROSS JOIN LATERAL (VALUES (false, l.waiting), (true, l.owed)) AS p (sold, quantity)
     WHERE p.quantity <> 0
), moved AS (
    -- what each shipment should have on the way to each level
    SELECT g.key, g.sku, g.location, sum(g.in_transit_delta) AS quantity,
           min(g.recorded_at) FILTER (WHERE g.operation = 'dispatch') AS dispatched_at
      FROM stock.ledger g WHERE g.operation IN ('dispatch', 'arrive', 'lose', 'recall')
     GROUP BY g.key, g.sku, g.location
), bound AS (
    SELECT s.key, s.sku, s.to_location AS location, sum(s.quantity) AS quantity,
           max(s.dispatched_at) AS dispatched_at
      FROM stock.shipment s GROUP BY s.key, s.sku, s.to_location
), bought AS (
    SELECT e.sku, e.location, e.buyer,
           sum(CASE WHEN e.operation = 'reserve' THEN e.quantity
                    WHEN e.operation IN ('release', 'expire', 'return') THEN -e.quantity
                    WHEN e.operation IN ('confirm', 'extend')
                    THEN e.reserved_delta + coalesce(e.waiting_delta, 0) - e.on_hand_delta
                    ELSE 0 END) AS quantity
      FROM entry e WHERE e.buyer IS NOT NULL GROUP BY e.sku, e.location, e.buyer
)
SELECT NULL, NULL, 'the sequence stock.ledger_position_seq is behind the ledger',
       last.position::text, s.last_value::text
  FROM (SELECT max(g.position) AS position FROM stock.ledger g) last, stock.ledger_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL, 'the sequence stock.waiting_position_seq is behind the queues',
       last.position::text, s.last_value::text
  FROM (SELECT max(w.position) AS position FROM stock.waiting w) last, stock.waiting_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL,
       'the ledger is empty beside levels: no key is known any more; was it restored with a '
       'column of one''s own?',
       'rows', 'none'
 WHERE EXISTS (SELECT FROM stock.level) AND NOT EXISTS (SELECT FROM stock.ledger)
UNION ALL
SELECT v.sku, v.location, 'the level''s ' || c.name || ' differs from the ledger',
       c.expected, c.found
  FROM level v
 CROSS JOIN LATERAL (VALUES ('on_hand', v.on_hand_sum::text, v.on_hand::text),
                            ('reserved', v.reserved_sum::text, v.reserved::text),
                            ('waiting', v.waiting_sum::text, v.waiting::text),
                            ('in_transit', v.in_transit_sum::text, v.in_transit::text),
                            ('backorder_limit', v.backorder_limit_set::text,
                             v.backorder_limit::text),
                            ('unsellable', v.unsellable_sum::text, v.unsellable::text),
                            ('lots', v.has_lots::text, (v.next_spoil IS NOT NULL)::text),
                            ('min_life', v.min_life_set::text, v.min_life::text),
                            ('near_expiry', v.near_expiry_set::text, v.near_expiry::text),
                            ('version', v.entries::text, v.version::text),
                            ('safety_stock', v.safety_stock_set::text, v.safety_stock::text),
                            ('buyer_limit', v.buyer_limit_set::text, v.buyer_limit::text),
                            ('frozen', v.frozen_set::text, v.frozen::text),
                            ('on_sale_from', v.on_sale_from_set::text, v.on_sale_from::text),
                            ('on_sale_until', v.on_sale_until_set::text, v.on_sale_until::text))
                    AS c (name, expected, found)
 WHERE c.expected IS DISTINCT FROM c.found
UNION ALL
SELECT v.sku, v.location, 'the level''s reserved differs from its holds',
       (coalesce(h.quantity, 0) - coalesce(q.held, 0))::text, v.reserved::text
  FROM level v
  LEFT JOIN held h ON h.sku = v.sku AND h.location = v.location
  LEFT JOIN queue q ON q.sku = v.sku AND q.location = v.location
 WHERE coalesce(h.quantity, 0) - coalesce(q.held, 0) IS DISTINCT FROM v.reserved
UNION ALL
SELECT v.sku, v.location, 'the level''s waiting differs from its queue',
       coalesce(q.quantity, 0)::text, v.waiting::text
  FROM level v LEFT JOIN queue q ON q.sku = v.sku AND q.location = v.location
 WHERE coalesce(q.quantity, 0) IS DISTINCT FROM v.waiting
UNION ALL
SELECT v.sku, v.location, 'a hold is due before the level''s next_due',
       h.first_due::text, v.next_due::text
  FROM level v JOIN held h ON h.sku = v.sku AND h.location = v.location
 WHERE h.first_due < v.next_due
UNION ALL
SELECT e.sku, e.location, 'a ledger row does not follow from the one before it',
       format('version %s, on_hand %s, reserved %s', e.nth, e.on_hand_sum, e.reserved_sum),
       format('version %s, on_hand %s, reserved %s (position %s)',
              e.version, e.on_hand_after, e.reserved_after, e.position)
  FROM entry e
 WHERE (e.nth, e.on_hand_sum, e.reserved_sum)
       IS DISTINCT FROM (e.version, e.on_hand_after, e.reserved_after)
UNION ALL
SELECT g.sku, g.location, 'a ledger row contradicts itself',
       format('the deltas of %s %s', g.operation, g.quantity),
       format('on_hand %s, reserved %s, waiting %s, in_transit %s (position %s)', g.on_hand_delta,
              g.reserved_delta, n.waits, n.moves, g.position)
  FROM stock.ledger g
 CROSS JOIN LATERAL (SELECT coalesce(g.waiting_delta, 0) AS waits,
                            coalesce(g.in_transit_delta, 0) AS moves) n
 WHERE g.operation NOT IN ('cancel', 'reopen', 'erase')
   AND NOT coalesce(CASE
       WHEN n.moves <> 0 AND g.operation NOT IN ('dispatch', 'arrive', 'lose', 'recall')
         OR n.waits <> 0 AND g.operation NOT IN ('reserve', 'confirm', 'release', 'expire',
                                                 'extend', 'return', 'supply') THEN false
       WHEN g.operation = 'reserve'
       THEN (g.on_hand_delta, g.reserved_delta + n.waits) = (0, g.quantity)
            AND least(g.reserved_delta, n.waits) >= 0
       WHEN g.operation = 'confirm'
       THEN (g.on_hand_delta, n.waits) = (g.reserved_delta, 0)
            AND g.reserved_delta BETWEEN -g.quantity AND 0
            OR (g.reserved_delta, n.waits - g.on_hand_delta) = (0, g.quantity)
            AND g.expires_at IS NOT NULL AND n.waits >= 0
       WHEN g.operation IN ('release', 'expire')
       THEN (g.on_hand_delta, g.reserved_delta + n.waits) = (0, -g.quantity)
            AND greatest(g.reserved_delta, n.waits) <= 0
       WHEN g.operation = 'return'
       THEN (g.on_hand_delta - n.waits, g.reserved_delta) = (g.quantity, 0) AND n.waits <= 0
       WHEN g.operation IN ('receive', 'adjust')
       THEN (g.on_hand_delta, g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'set'
       THEN g.reserved_delta = 0 AND (g.lot IS NOT NULL OR g.on_hand_after = g.quantity)
       WHEN g.operation = 'spoil'
       THEN (g.on_hand_delta, g.reserved_delta, coalesce(g.unsellable_delta, 0))
            = (0, 0, g.quantity)
       WHEN g.operation = 'transfer' THEN (abs(g.on_hand_delta), g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'extend'
       THEN g.on_hand_delta = 0 AND g.reserved_delta + n.waits IN (0, g.quantity)
            AND least(g.reserved_delta, n.waits) >= 0
       WHEN g.operation = 'supply'
       THEN n.waits = -g.quantity
            AND (g.on_hand_delta, g.reserved_delta) IN ((0, g.quantity), (-g.quantity, 0))
       WHEN g.operation = 'dispatch'
       THEN (g.on_hand_delta, g.reserved_delta, n.moves)
            IN ((-g.quantity, 0, 0), (0, 0, g.quantity))
       WHEN g.operation = 'arrive'
       THEN (g.on_hand_delta, g.reserved_delta, n.moves) = (g.quantity, 0, -g.quantity)
       WHEN g.operation = 'lose'
       THEN (g.on_hand_delta, g.reserved_delta, n.moves) = (0, 0, -g.quantity)
       WHEN g.operation = 'recall'
       THEN (g.on_hand_delta, g.reserved_delta, abs(n.moves)) = (0, 0, g.quantity)
       WHEN g.operation IN ('set_limits', 'freeze', 'unfreeze', 'track_lots', 'freeze_lot',
                            'unfreeze_lot')
       THEN (g.on_hand_delta, g.reserved_delta) = (0, 0)
       END, false)
UNION ALL
SELECT coalesce(o.sku, t.sku), coalesce(o.location, t.location),
       'a lot differs from the ledger (lot ' || coalesce(o.lot, t.lot) || ')',
       format('on_hand %s, reserved %s', coalesce(t.on_hand, 0), coalesce(t.reserved, 0)),
       format('on_hand %s, reserved %s', coalesce(o.on_hand, 0), coalesce(o.reserved, 0))
  FROM stock.lot o
  FULL JOIN (SELECT * FROM lot WHERE (lot.on_hand, lot.reserved) IS DISTINCT FROM (0, 0)) t
    ON t.sku = o.sku AND t.location = o.location AND t.lot = o.lot
 WHERE (coalesce(o.on_hand, 0), coalesce(o.reserved, 0))
       IS DISTINCT FROM (coalesce(t.on_hand, 0), coalesce(t.reserved, 0))
UNION ALL
SELECT v.sku, v.location, 'the level differs from its lots',
       format('on_hand %s, reserved %s, unsellable %s', coalesce(s.on_hand, 0),
              coalesce(s.reserved, 0), coalesce(s.unsellable, 0)),
       format('on_hand %s, reserved %s, unsellable %s', v.on_hand, v.reserved, v.unsellable)
  FROM level v
  LEFT JOIN shelf s ON s.sku = v.sku AND s.location = v.location
 WHERE (v.next_spoil IS NOT NULL OR s.sku IS NOT NULL)
   AND (coalesce(s.on_hand, 0), coalesce(s.reserved, 0), coalesce(s.unsellable, 0))
       IS DISTINCT FROM (v.on_hand, v.reserved, v.unsellable)
UNION ALL
SELECT v.sku, v.location, 'a lot spoils before the level''s next_spoil',
       s.first_spoil::text, v.next_spoil::text
  FROM level v JOIN shelf s ON s.sku = v.sku AND s.location = v.location
 WHERE s.first_spoil < v.next_spoil
UNION ALL
SELECT o.sku, o.location, 'a lot contradicts itself (lot ' || o.lot || ')',
       format('spoils at %s, is warned of %s, spent %s', due.spoils_at, due.is_warned_of,
              o.on_hand = 0),
       format('spoils at %s, is warned of %s, spent %s', o.spoils_at, o.warns_at IS NOT NULL,
              o.spent)
  FROM stock.lot o
  LEFT JOIN stock.level l ON l.sku = o.sku AND l.location = o.location
 CROSS JOIN LATERAL (
       SELECT CASE WHEN o.on_hand > 0 AND NOT o.frozen AND NOT o.spoiled
                   THEN o.best_before - coalesce(l.min_life, '0') END AS spoils_at,
              o.on_hand > 0 AND o.best_before IS NOT NULL AS is_warned_of) due
 WHERE (o.spoils_at, o.warns_at IS NOT NULL, o.spent)
       IS DISTINCT FROM (due.spoils_at, due.is_warned_of, o.on_hand = 0)
UNION ALL
SELECT o.sku, o.location, 'a lot''s frozen differs from the ledger (lot ' || o.lot || ')',
       coalesce(c.frozen, false)::text, o.frozen::text
  FROM stock.lot o
  LEFT JOIN called_back c ON c.sku = o.sku AND c.location = o.location AND c.lot = o.lot
 WHERE coalesce(c.frozen, false) <> o.frozen
UNION ALL
SELECT coalesce(g.sku, ''), coalesce(g.location, ''),
       'a ledger row differs from what it did to lots (position '
         || coalesce(m.position, g.position) || ')',
       format('on_hand %s, reserved %s', g.on_hand_delta, g.reserved_delta),
       format('on_hand %s, reserved %s', m.on_hand, m.reserved)
  FROM of_lots m
  FULL JOIN (
       SELECT e.* FROM entry e
         JOIN level v ON v.sku = e.sku AND v.location = e.location
        WHERE e.version > v.lots_since) g ON g.key = m.key AND g.position = m.position
 WHERE NOT EXISTS (SELECT FROM stock.ledger t
                    WHERE t.key = m.key AND t.position = m.position
                      AND (t.operation = 'track_lots'
                           AND (t.on_hand_after, t.reserved_after) = (m.on_hand, m.reserved)
                           OR m.on_hand = 0 AND m.reserved = 0 AND t.on_hand_delta = 0
                           AND t.reserved_delta = 0))
   AND (coalesce(g.on_hand_delta, 0), coalesce(g.reserved_delta, 0))
       IS DISTINCT FROM (coalesce(m.on_hand, 0), coalesce(m.reserved, 0))
UNION ALL
SELECT h.sku, h.location, 'a hold differs from its lots (key ' || h.key || ')',
       format('line %s: %s', h.line, h.quantity - coalesce(w.quantity, 0)),
       format('line %s: %s', h.line, coalesce(b.quantity, 0))
  FROM stock.hold h
  JOIN stock.level l ON l.sku = h.sku AND l.location = h.location
  LEFT JOIN stock.waiting w ON w.key = h.key AND w.line = h.line AND NOT w.sold
  LEFT JOIN bound_lots b ON b.key = h.key AND b.line = h.line
 WHERE CASE WHEN l.next_spoil IS NULL THEN 0 ELSE h.quantity - coalesce(w.quantity, 0) END
       <> coalesce(b.quantity, 0)
UNION ALL
SELECT NULL, NULL, 'lots are bound to no hold (key ' || b.key || ')', 'none',
       format('line %s: %s', b.line, b.quantity)
  FROM bound_lots b
 WHERE NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = b.key AND h.line = b.line)
UNION ALL
SELECT coalesce(b.sku, t.sku), coalesce(b.location, t.location),
       'what is held of a lot differs from the ledger (key ' || coalesce(b.key, t.key) || ', lot '
         || coalesce(b.lot, t.lot) || ')',
       coalesce(t.quantity, 0)::text, coalesce(b.quantity, 0)::text
  FROM (SELECT h.key, h.sku, h.location, c.lot, c.quantity
          FROM stock.hold_lot c JOIN stock.hold h ON h.key = c.key AND h.line = c.line
         WHERE c.lot <> '') b
  FULL JOIN (SELECT g.key, g.sku, g.location, m.lot, sum(m.reserved_delta) AS quantity
               FROM stock.ledger_lot m
               JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
              WHERE m.lot <> '' AND g.operation <> 'track_lots'
              GROUP BY g.key, g.sku, g.location, m.lot
             HAVING sum(m.reserved_delta) <> 0) t
    ON t.key = b.key AND t.sku = b.sku AND t.location = b.location AND t.lot = b.lot
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(t.quantity, 0)
UNION ALL
SELECT coalesce(h.sku, o.sku), coalesce(h.location, o.location),
       'a hold differs from the ledger (key ' || coalesce(h.key, o.key) || ')',
       format('line %s: %s until %s for %s',
              o.line, coalesce(o.quantity, 0), o.expires_at, o.buyer),
       format('line %s: %s until %s for %s', h.line, coalesce(h.quantity, 0), h.expires_at, h.buyer)
  FROM stock.hold h
  FULL JOIN (SELECT * FROM line WHERE line.quantity <> 0) o
    ON o.key = h.key AND o.sku = h.sku AND o.location = h.location
 WHERE (h.quantity, h.line, h.expires_at, h.buyer)
       IS DISTINCT FROM (o.quantity, o.line, o.expires_at, o.buyer)
UNION ALL
SELECT coalesce(w.sku, p.sku), coalesce(w.location, p.location),
       'a place in a queue differs from the ledger (key ' || coalesce(w.key, p.key) || ')',
       format('line %s: %s, sold %s', p.line, coalesce(p.quantity, 0), p.sold),
       format('line %s: %s, sold %s', w.line, coalesce(w.quantity, 0), w.sold)
  FROM (SELECT q.key, q.line, q.sku, q.location, q.sold, sum(q.quantity) AS quantity
          FROM stock.waiting q GROUP BY q.key, q.line, q.sku, q.location, q.sold) w
  FULL JOIN place p
    ON p.key = w.key AND p.sku = w.sku AND p.location = w.location AND p.sold = w.sold
 WHERE (w.quantity, w.line) IS DISTINCT FROM (p.quantity, p.line)
UNION ALL
SELECT coalesce(b.sku, m.sku), coalesce(b.location, m.location),
       'a shipment differs from the ledger (key ' || coalesce(b.key, m.key) || ')',
       format('%s since %s', coalesce(m.quantity, 0), m.dispatched_at),
       format('%s since %s', coalesce(b.quantity, 0), b.dispatched_at)
  FROM bound b
  FULL JOIN (SELECT * FROM moved WHERE moved.quantity <> 0) m
    ON m.key = b.key AND m.sku = b.sku AND m.location = b.location
 WHERE (b.quantity, b.dispatched_at) IS DISTINCT FROM (m.quantity, m.dispatched_at)
UNION ALL
SELECT s.sku, s.to_location,
       'a shipment has a way that nothing was dispatched on (key ' || s.key || ')',
       'none', format('from %s', s.from_location)
  FROM stock.shipment s
 WHERE NOT EXISTS (SELECT FROM stock.ledger f
                     JOIN stock.ledger t
                       ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
                    WHERE f.key = s.key AND f.operation = 'dispatch' AND f.line % 2 = 1
                      AND f.sku = s.sku
                      AND (f.location, t.location) IN ((s.from_location, s.to_location),
                                                       (s.to_location, s.from_location)))
UNION ALL
SELECT coalesce(b.sku, q.sku), coalesce(b.location, q.location),
       'the count of a buyer differs from the ledger (buyer ' || coalesce(b.buyer, q.buyer) || ')',
       coalesce(b.quantity, 0)::text, coalesce(q.quantity, 0)::text
  FROM bought b
  FULL JOIN stock.buyer_quantity q
    ON q.sku = b.sku AND q.location = b.location AND q.buyer = b.buyer
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(q.quantity, 0)
$$;
COMMENT ON FUNCTION stock.verify() IS
    'Recomputes each level, lot, hold, queue and shipment from the ledger; returns each '
    'disagreement. '
    'No rows, ever, unless somebody changed the tables by hand. Reads everything.';
