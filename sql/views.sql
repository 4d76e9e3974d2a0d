-- What may be looked at: levels, open holds, queues, shipments, lots, and the ledger.

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
    'ends it. What was archived is in stock.ledger_rows alone.';
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
       CASE WHEN pg_catalog.isfinite(s.dispatched_at)
            THEN pg_catalog.clock_timestamp() - s.dispatched_at END AS on_the_way_for
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
COMMENT ON COLUMN stock.shipments.on_the_way_for IS
    'How long ago that was; NULL: for ever.';

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
SELECT m.lot, m.sku, m.location, m.recorded_at, m.operation, m.key, m.operation_key, m.line,
       m.on_hand_delta, m.reserved_delta, m.in_transit_delta,
       coalesce(m.buyer, (SELECT r.buyer FROM stock.history r
                           WHERE r.key = m.key AND r.operation = 'reserve' AND r.sku = m.sku
                             AND r.location = m.location AND r.buyer IS NOT NULL LIMIT 1)) AS buyer,
       m.position
  FROM stock.lot_history m;
COMMENT ON VIEW stock.lot_moves IS
    'What happened to lots: whoever got of one that is called back is found here. Look-ups by lot '
    'and by key use an index; by lot the archive is read from its beginning to its end besides.';
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
WITH own AS (
    SELECT timestamptz 'infinity' AS archived_at, g.position, g.key, g.operation, g.line, g.sku,
           g.location, g.quantity, coalesce(g.waiting_delta, 0) AS waits, g.on_hand_delta,
           g.reserved_delta
      FROM stock.ledger g WHERE g.key = $1
     UNION ALL
    SELECT a.archived_at, a.position, a.key, a.operation, a.line, a.sku, a.location, a.quantity,
           coalesce(a.waiting_delta, 0), a.on_hand_delta, a.reserved_delta
      FROM stock.ledger_archive a WHERE a.key = $1
), entry AS (
    -- of a key that was used again since it was archived, only the last use counts
    SELECT o.* FROM own o
     WHERE o.archived_at = (SELECT max(l.archived_at) FROM own l)
       AND o.operation IN ('reserve', 'confirm', 'release', 'expire', 'extend', 'return', 'supply',
                           'repair')
), of_order AS (
    SELECT e.sku, e.location, min(e.line) FILTER (WHERE e.operation = 'reserve') AS line,
           -- what is held or sold, and there
           sum(CASE WHEN e.operation IN ('reserve', 'repair') THEN e.quantity - e.waits
                    WHEN e.operation IN ('release', 'expire', 'return') THEN -e.quantity - e.waits
                    WHEN e.operation = 'supply' THEN -e.waits
                    ELSE e.reserved_delta - e.on_hand_delta END) AS quantity
      FROM entry e GROUP BY e.sku, e.location
), of_lot AS (
    SELECT e.sku, e.location, m.lot, sum(m.reserved_delta - m.on_hand_delta) AS quantity
      FROM entry e JOIN stock.lot_history m ON m.key = e.key AND m.position = e.position
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
  FROM stock.history g;
COMMENT ON VIEW stock.ledger_rows IS
    'The ledger: every change to every level, what was archived included. A look-up by key uses an '
    'index; by SKU the whole ledger and archive are read, by time the whole ledger and the months '
    'of the archive that are asked for.';
-- What bears the name of a column of the ledger, and of which nothing else is said, means what it
-- means there.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT a.attrelid::pg_catalog.regclass AS place, a.attname,
                    pg_catalog.col_description(g.attrelid, g.attnum) AS meaning
               FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_attribute g ON g.attname = a.attname
              WHERE a.attrelid IN ('stock.ledger_archive'::pg_catalog.regclass,
                                   'stock.history'::pg_catalog.regclass,
                                   'stock.entry'::pg_catalog.regclass,
                                   'stock.ledger_rows'::pg_catalog.regclass)
                AND g.attrelid = 'stock.ledger'::pg_catalog.regclass
                AND a.attnum > 0 AND g.attnum > 0
                AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', c.place, c.attname, c.meaning);
    END LOOP;
END
$$;
