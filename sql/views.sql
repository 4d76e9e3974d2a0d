-- What may be looked at: levels, open holds, the ledger, and the check that they agree.

CREATE VIEW stock.levels AS
SELECT l.sku, l.location, l.on_hand, l.reserved, l.waiting, l.in_transit, l.safety_stock,
       l.backorder_limit,
       CASE WHEN l.frozen
              OR l.on_sale_from > pg_catalog.clock_timestamp()
              OR l.on_sale_until <= pg_catalog.clock_timestamp() THEN 0
            ELSE greatest(0, l.on_hand - l.reserved - l.safety_stock - l.waiting
                               + l.backorder_limit + due.overdue)
       END AS available,
       due.overdue, l.buyer_limit, l.frozen, l.on_sale_from, l.on_sale_until, l.version,
       l.updated_at
  FROM stock.level l
 CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.sum(h.quantity), 0)::bigint AS overdue
         FROM stock.hold h
        WHERE l.next_due <= pg_catalog.clock_timestamp()
          AND h.sku = l.sku AND h.location = l.location
          AND h.expires_at BETWEEN l.next_due AND pg_catalog.clock_timestamp()) due;
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
    'Units that may still be promised: on_hand - reserved - safety_stock - waiting + '
    'backorder_limit, at least 0; overdue holds count as free; 0 while the level is frozen or not '
    'on sale.';
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

CREATE VIEW stock.ledger_rows AS
SELECT g.position, g.xact, g.recorded_at, g.key, g.operation, g.operation_key, g.line,
       g.sku, g.location, g.quantity, g.on_hand_delta, g.reserved_delta, g.waiting_delta,
       g.in_transit_delta, g.on_hand_after, g.reserved_after, g.available, g.version,
       g.answered_version, g.buyer, g.expires_at, g.safety_stock, g.buyer_limit,
       g.backorder_limit, g.frozen, g.on_sale_from, g.on_sale_until,
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
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH entry AS (
    -- what changed a level, with the running sums of its changes
    SELECT g.*,
           row_number() OVER chain AS nth,
           sum(g.on_hand_delta) OVER chain AS on_hand_sum,
           sum(g.reserved_delta) OVER chain AS reserved_sum
      FROM stock.ledger g
     WHERE NOT (g.operation IN ('cancel', 'reopen')
                OR g.operation = 'extend' AND g.reserved_delta = 0 AND g.waiting_delta IS NULL)
    WINDOW chain AS (PARTITION BY g.sku, g.location ORDER BY g.version, g.position)
), total AS (
    SELECT e.sku, e.location,
           sum(e.on_hand_delta) AS on_hand, sum(e.reserved_delta) AS reserved,
           coalesce(sum(e.waiting_delta), 0) AS waiting,
           coalesce(sum(e.in_transit_delta), 0) AS in_transit, count(*) AS version,
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
), level AS (
    SELECT coalesce(l.sku, t.sku) AS sku, coalesce(l.location, t.location) AS location,
           l.on_hand, l.reserved, l.waiting, l.in_transit,
           l.backorder_limit, l.safety_stock, l.buyer_limit, l.frozen, l.on_sale_from,
           l.on_sale_until, l.version,
           l.next_due,
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
 WHERE g.operation NOT IN ('cancel', 'reopen')
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
       WHEN g.operation = 'set' THEN (g.on_hand_after, g.reserved_delta) = (g.quantity, 0)
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
       WHEN g.operation IN ('set_limits', 'freeze', 'unfreeze')
       THEN (g.on_hand_delta, g.reserved_delta) = (0, 0)
       END, false)
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
    'Recomputes each level, hold, queue and shipment from the ledger; returns each disagreement. '
    'No rows, ever, unless somebody changed the tables by hand. Reads everything.';
