-- The check: each level recomputed from the ledger and from its holds, in one statement and so at
-- one moment.

CREATE FUNCTION stock.verify_levels(skus text[], locations text[])
RETURNS TABLE (sku text, location text, problem text, expected text, found text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- To compile it takes longer than to run it, but for very large stocks. Whether all are asked for
-- makes another plan.
SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY
WITH chosen AS (
    SELECT c.sku COLLATE "C" AS sku, c.location COLLATE "C" AS location
      FROM unnest(skus, locations) AS c (sku, location)
), change AS (
    -- what changed a level: row by row as far as it is kept, and in sums
    SELECT e.sku, e.location, e.version AS from_version, e.version, e.position, e.key, e.operation,
           e.on_hand_delta, e.reserved_delta, e.waiting_delta, e.in_transit_delta,
           e.unsellable_delta, e.on_hand_after, e.reserved_after, e.safety_stock, e.buyer_limit,
           e.backorder_limit, e.on_sale_from, e.on_sale_until, e.frozen, e.min_life, e.near_expiry,
           CASE WHEN e.operation = 'track_lots' THEN e.version END AS lots_since
      FROM stock.entries() e
     WHERE skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen)
    UNION ALL
    SELECT f.sku, f.location, f.from_version, f.version, NULL, NULL, NULL, f.on_hand_delta,
           f.reserved_delta, f.waiting_delta, f.in_transit_delta, f.unsellable_delta,
           f.on_hand_after, f.reserved_after, f.safety_stock, f.buyer_limit, f.backorder_limit,
           f.on_sale_from, f.on_sale_until, f.frozen, f.min_life, f.near_expiry, f.lots_since
      FROM stock.balance_forward f
     WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)
), entry AS (
    -- with the running sums of the changes
    SELECT c.*, sum(c.version - c.from_version + 1) OVER chain AS nth,
           sum(c.on_hand_delta) OVER chain AS on_hand_sum,
           sum(c.reserved_delta) OVER chain AS reserved_sum
      FROM change c
    WINDOW chain AS (PARTITION BY c.sku, c.location ORDER BY c.version, c.position)
), total AS (
    SELECT e.sku, e.location,
           sum(e.on_hand_delta) AS on_hand, sum(e.reserved_delta) AS reserved,
           sum(e.waiting_delta) AS waiting, sum(e.in_transit_delta) AS in_transit,
           sum(e.unsellable_delta) AS unsellable,
           sum(e.version - e.from_version + 1) AS version,
           bool_or(e.lots_since IS NOT NULL) AS has_lots, min(e.lots_since) AS lots_since,
           nullif((array_agg(e.min_life ORDER BY e.version DESC)
                     FILTER (WHERE e.min_life IS NOT NULL))[1], '0') AS min_life,
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
), hold AS (
    SELECT h.* FROM stock.hold h
     WHERE skus IS NULL OR h.sku = ANY (skus) AND (h.sku, h.location) IN (TABLE chosen)
), waiting AS (
    SELECT w.* FROM stock.waiting w
     WHERE skus IS NULL OR w.sku = ANY (skus) AND (w.sku, w.location) IN (TABLE chosen)
), held AS (
    SELECT h.sku, h.location, sum(h.quantity) AS quantity, min(h.expires_at) AS first_due
      FROM hold h GROUP BY h.sku, h.location
), queue AS (
    SELECT w.sku, w.location, sum(w.quantity) AS quantity,
           coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0) AS held
      FROM waiting w GROUP BY w.sku, w.location
), move AS (
    -- what ledger rows did to lots
    SELECT m.key, m.position, m.lot, m.on_hand_delta, m.reserved_delta, g.sku, g.location,
           g.operation
      FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
     WHERE skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen)
), of_lots AS (
    SELECT m.key, m.position, sum(m.on_hand_delta) AS on_hand, sum(m.reserved_delta) AS reserved
      FROM stock.ledger_lot m
     WHERE skus IS NULL OR EXISTS (SELECT FROM move c
                                    WHERE c.key = m.key AND c.position = m.position)
     GROUP BY m.key, m.position
), counted AS (
    SELECT m.* FROM move m JOIN stock.entries() e ON e.key = m.key AND e.position = m.position
), lot AS (
    SELECT s.sku, s.location, s.lot, sum(s.on_hand) AS on_hand, sum(s.reserved) AS reserved,
           bool_or(s.lay_there) AS lay_there
      FROM (SELECT m.sku, m.location, m.lot, m.on_hand_delta AS on_hand,
                   m.reserved_delta AS reserved, m.on_hand_delta <> 0 AS lay_there
              FROM counted m
             UNION ALL
            SELECT f.sku, f.location, f.lot, f.on_hand, f.reserved, true
              FROM stock.balance_forward_lot f
             WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)
           ) s
     GROUP BY s.sku, s.location, s.lot
), present AS (
    SELECT o.* FROM stock.lot o
     WHERE skus IS NULL OR o.sku = ANY (skus) AND (o.sku, o.location) IN (TABLE chosen)
), shelf AS (
    SELECT o.sku, o.location, sum(o.on_hand) AS on_hand, sum(o.reserved) AS reserved,
           coalesce(sum(o.on_hand - o.reserved) FILTER (WHERE o.frozen OR o.spoiled), 0)
             AS unsellable,
           min(o.spoils_at) AS first_spoil
      FROM present o GROUP BY o.sku, o.location
), called_back AS (
    SELECT c.sku, c.location, c.lot, (array_agg(c.frozen ORDER BY c.version DESC))[1] AS frozen
      FROM (SELECT e.sku, e.location, e.lot, e.version, e.operation = 'freeze_lot' AS frozen
              FROM stock.entries() e
             WHERE e.operation IN ('freeze_lot', 'unfreeze_lot')
               AND (skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen))
             UNION ALL
            SELECT f.sku, f.location, f.lot, f.version, f.frozen
              FROM stock.balance_forward_lot f
             WHERE f.frozen IS NOT NULL
               AND (skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen))) c
     GROUP BY c.sku, c.location, c.lot
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
      FROM (SELECT l.* FROM stock.level l
             WHERE skus IS NULL OR l.sku = ANY (skus) AND (l.sku, l.location) IN (TABLE chosen)) l
      FULL JOIN total t ON t.sku = l.sku AND t.location = l.location
), line AS (
    SELECT l.* FROM stock.lines() l
     WHERE l.line IS NOT NULL
       AND (skus IS NULL OR l.sku = ANY (skus) AND (l.sku, l.location) IN (TABLE chosen))
), place AS (
    SELECT l.key, l.sku, l.location, l.line, p.sold, p.quantity
      FROM line l
     CROSS JOIN LATERAL (VALUES (false, l.waiting), (true, l.owed)) AS p (sold, quantity)
     WHERE p.quantity > 0
), moved AS (
    -- what each shipment should have on the way to each level
    SELECT g.key, g.sku, g.location, sum(g.in_transit_delta) AS quantity,
           min(g.recorded_at) FILTER (WHERE g.operation = 'dispatch') AS dispatched_at
      FROM stock.ledger g
     WHERE g.operation IN ('dispatch', 'arrive', 'lose', 'recall', 'repair')
       AND (skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen))
     GROUP BY g.key, g.sku, g.location
), bound AS (
    SELECT s.key, s.sku, s.to_location AS location, sum(s.quantity) AS quantity,
           max(s.dispatched_at) AS dispatched_at
      FROM stock.shipment s
     WHERE skus IS NULL OR s.sku = ANY (skus) AND (s.sku, s.to_location) IN (TABLE chosen)
     GROUP BY s.key, s.sku, s.to_location
), bought AS (
    SELECT b.sku, b.location, b.buyer, sum(b.quantity) AS quantity
      FROM (SELECT e.sku, e.location, e.buyer, e.bought AS quantity
              FROM stock.entries() e
             WHERE e.buyer IS NOT NULL
               AND (skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen))
             UNION ALL
            SELECT f.sku, f.location, f.buyer, f.quantity
              FROM stock.balance_forward_buyer f
             WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)) b
     GROUP BY b.sku, b.location, b.buyer
)
SELECT NULL::text, NULL::text, 'the sequence stock.ledger_position_seq is behind the ledger',
       last.position::text, s.last_value::text
  FROM (SELECT max(g.position) AS position FROM stock.ledger g) last, stock.ledger_position_seq s
 WHERE skus IS NULL AND last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL, 'the sequence stock.waiting_position_seq is behind the queues',
       last.position::text, s.last_value::text
  FROM (SELECT max(w.position) AS position FROM stock.waiting w) last, stock.waiting_position_seq s
 WHERE skus IS NULL AND last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL,
       'the ledger is empty beside levels: no key is known any more; was it restored with a '
       'column of one''s own?',
       'rows', 'none'
 WHERE skus IS NULL AND EXISTS (SELECT FROM stock.level)
   AND NOT EXISTS (SELECT FROM stock.ledger) AND NOT EXISTS (SELECT FROM stock.balance_forward)
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
                            ('min_life', extract(epoch FROM v.min_life_set)::text,
                             extract(epoch FROM v.min_life)::text),
                            ('near_expiry', extract(epoch FROM v.near_expiry_set)::text,
                             extract(epoch FROM v.near_expiry)::text),
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
SELECT e.sku, e.location,
       CASE WHEN e.position IS NULL
            THEN 'a balance carried forward does not follow from what was before'
            ELSE 'a ledger row does not follow from the one before it' END,
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
              g.reserved_delta, g.waiting_delta, g.in_transit_delta, g.position)
  FROM stock.entries() g
 WHERE (skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen))
   AND NOT coalesce(CASE
       WHEN g.in_transit_delta <> 0 AND g.operation NOT IN ('dispatch', 'arrive', 'lose', 'recall')
         OR g.waiting_delta <> 0 AND g.operation NOT IN ('reserve', 'confirm', 'release', 'expire',
                                                 'extend', 'return', 'supply') THEN false
       WHEN g.operation = 'reserve'
       THEN (g.on_hand_delta, g.reserved_delta + g.waiting_delta) = (0, g.quantity)
            AND least(g.reserved_delta, g.waiting_delta) >= 0
       WHEN g.operation = 'confirm'
       THEN (g.on_hand_delta, g.waiting_delta) = (g.reserved_delta, 0)
            AND g.reserved_delta BETWEEN -g.quantity AND 0
            OR (g.reserved_delta, g.waiting_delta - g.on_hand_delta) = (0, g.quantity)
            AND g.expires_at IS NOT NULL AND g.waiting_delta >= 0
       WHEN g.operation IN ('release', 'expire')
       THEN (g.on_hand_delta, g.reserved_delta + g.waiting_delta) = (0, -g.quantity)
            AND greatest(g.reserved_delta, g.waiting_delta) <= 0
       WHEN g.operation = 'return'
       THEN (g.on_hand_delta - g.waiting_delta, g.reserved_delta) = (g.quantity, 0)
            AND g.waiting_delta <= 0
       WHEN g.operation IN ('receive', 'adjust')
       THEN (g.on_hand_delta, g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'set'
       THEN g.reserved_delta = 0 AND (g.lot IS NOT NULL OR g.on_hand_after = g.quantity)
       WHEN g.operation = 'spoil'
       THEN (g.on_hand_delta, g.reserved_delta, g.unsellable_delta)
            = (0, 0, g.quantity)
       WHEN g.operation = 'transfer' THEN (abs(g.on_hand_delta), g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'extend'
       THEN g.on_hand_delta = 0 AND g.reserved_delta + g.waiting_delta IN (0, g.quantity)
            AND least(g.reserved_delta, g.waiting_delta) >= 0
       WHEN g.operation = 'supply'
       THEN g.waiting_delta = -g.quantity
            AND (g.on_hand_delta, g.reserved_delta) IN ((0, g.quantity), (-g.quantity, 0))
       WHEN g.operation = 'dispatch'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta)
            IN ((-g.quantity, 0, 0), (0, 0, g.quantity))
       WHEN g.operation = 'arrive'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta) = (g.quantity, 0, -g.quantity)
       WHEN g.operation = 'lose'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta) = (0, 0, -g.quantity)
       WHEN g.operation = 'recall'
       THEN (g.on_hand_delta, g.reserved_delta, abs(g.in_transit_delta)) = (0, 0, g.quantity)
       WHEN g.operation IN ('set_limits', 'freeze', 'unfreeze', 'track_lots', 'freeze_lot',
                            'unfreeze_lot', 'repair')
       THEN (g.on_hand_delta, g.reserved_delta) = (0, 0)
       END, false)
UNION ALL
SELECT coalesce(o.sku, t.sku), coalesce(o.location, t.location),
       'a lot differs from the ledger (lot ' || coalesce(o.lot, t.lot) || ')',
       format('on_hand %s, reserved %s', coalesce(t.on_hand, 0), coalesce(t.reserved, 0)),
       CASE WHEN o.lot IS NULL THEN 'none'
            ELSE format('on_hand %s, reserved %s', o.on_hand, o.reserved) END
  FROM present o
  FULL JOIN (SELECT * FROM lot
              WHERE lot.lay_there OR (lot.on_hand, lot.reserved) IS DISTINCT FROM (0, 0)) t
    ON t.sku = o.sku AND t.location = o.location AND t.lot = o.lot
 WHERE o.lot IS NULL
    OR (o.on_hand, o.reserved) IS DISTINCT FROM (coalesce(t.on_hand, 0), coalesce(t.reserved, 0))
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
  FROM present o
  LEFT JOIN stock.level l ON l.sku = o.sku AND l.location = o.location
 CROSS JOIN LATERAL (
       SELECT CASE WHEN o.on_hand > 0 AND NOT o.frozen AND NOT o.spoiled
                   THEN o.best_before - least(coalesce(l.min_life, '0'), '1000 years')
              END AS spoils_at,
              o.on_hand > 0 AND o.best_before IS NOT NULL AS is_warned_of) due
 WHERE (o.spoils_at, o.warns_at IS NOT NULL, o.spent)
       IS DISTINCT FROM (due.spoils_at, due.is_warned_of, o.on_hand = 0)
UNION ALL
SELECT o.sku, o.location, 'a lot''s date differs from the ledger (lot ' || o.lot || ')',
       d.best_before::text, o.best_before::text
  FROM present o
  JOIN (SELECT g.sku, g.location, g.lot, max(g.best_before) AS best_before
          FROM stock.ledger g
         WHERE g.operation = 'receive' AND g.best_before IS NOT NULL
           AND (skus IS NULL OR g.sku = ANY (skus))
         GROUP BY g.sku, g.location, g.lot) d
    ON d.sku = o.sku AND d.location = o.location AND d.lot = o.lot
 WHERE d.best_before IS DISTINCT FROM o.best_before
UNION ALL
SELECT o.sku, o.location, 'a lot''s frozen differs from the ledger (lot ' || o.lot || ')',
       coalesce(c.frozen, false)::text, o.frozen::text
  FROM present o
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
        WHERE e.position IS NOT NULL AND e.version > v.lots_since) g
    ON g.key = m.key AND g.position = m.position
 WHERE NOT EXISTS (SELECT FROM stock.ledger t
                    WHERE t.key = m.key AND t.position = m.position
                      AND (t.operation = 'track_lots'
                           AND (t.on_hand_after, t.reserved_after) = (m.on_hand, m.reserved)
                           OR m.on_hand = 0 AND m.reserved = 0 AND t.on_hand_delta = 0
                           AND t.reserved_delta = 0
                           OR EXISTS (SELECT FROM stock.balance_forward f
                                       WHERE f.sku = t.sku AND f.location = t.location
                                         AND f.is_opening AND t.version <= f.version)))
   AND (coalesce(g.on_hand_delta, 0), coalesce(g.reserved_delta, 0))
       IS DISTINCT FROM (coalesce(m.on_hand, 0), coalesce(m.reserved, 0))
UNION ALL
SELECT h.sku, h.location, 'a hold differs from its lots (key ' || h.key || ')',
       format('line %s: %s', h.line, h.quantity - coalesce(w.quantity, 0)),
       format('line %s: %s', h.line, coalesce(b.quantity, 0))
  FROM hold h
  JOIN stock.level l ON l.sku = h.sku AND l.location = h.location
  LEFT JOIN waiting w
    ON w.key = h.key AND w.line = h.line AND NOT w.sold AND w.sku = h.sku
       AND w.location = h.location
  LEFT JOIN bound_lots b ON b.key = h.key AND b.line = h.line
 WHERE CASE WHEN l.next_spoil IS NULL THEN 0 ELSE h.quantity - coalesce(w.quantity, 0) END
       <> coalesce(b.quantity, 0)
UNION ALL
SELECT NULL, NULL, 'lots are bound to no hold (key ' || b.key || ')', 'none',
       format('line %s: %s', b.line, b.quantity)
  FROM bound_lots b
 WHERE skus IS NULL
   AND NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = b.key AND h.line = b.line)
UNION ALL
SELECT coalesce(b.sku, t.sku), coalesce(b.location, t.location),
       'what is held of a lot differs from the ledger (key ' || coalesce(b.key, t.key) || ', lot '
         || coalesce(b.lot, t.lot) || ')',
       coalesce(t.quantity, 0)::text, coalesce(b.quantity, 0)::text
  FROM (SELECT h.key, h.sku, h.location, c.lot, c.quantity
          FROM stock.hold_lot c JOIN hold h ON h.key = c.key AND h.line = c.line
         WHERE c.lot <> '') b
  FULL JOIN (SELECT m.key, m.sku, m.location, m.lot, sum(m.reserved_delta) AS quantity
               FROM move m
              WHERE m.lot <> '' AND m.operation <> 'track_lots'
              GROUP BY m.key, m.sku, m.location, m.lot
             HAVING sum(m.reserved_delta) <> 0) t
    ON t.key = b.key AND t.sku = b.sku AND t.location = b.location AND t.lot = b.lot
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(t.quantity, 0)
UNION ALL
SELECT coalesce(h.sku, o.sku), coalesce(h.location, o.location),
       'a hold differs from the ledger (key ' || coalesce(h.key, o.key) || ')',
       format('line %s: %s until %s for %s',
              o.line, coalesce(o.quantity, 0), o.expires_at, o.buyer),
       format('line %s: %s until %s for %s', h.line, coalesce(h.quantity, 0), h.expires_at, h.buyer)
  FROM hold h
  FULL JOIN (SELECT * FROM line WHERE line.quantity > 0) o
    ON o.key = h.key AND o.sku = h.sku AND o.location = h.location
 WHERE (h.quantity, h.line, h.expires_at, h.buyer)
       IS DISTINCT FROM (o.quantity, o.line, o.expires_at, o.buyer)
UNION ALL
SELECT coalesce(w.sku, p.sku), coalesce(w.location, p.location),
       'a place in a queue differs from the ledger (key ' || coalesce(w.key, p.key) || ')',
       format('line %s: %s, sold %s', p.line, coalesce(p.quantity, 0), p.sold),
       format('line %s: %s, sold %s', w.line, coalesce(w.quantity, 0), w.sold)
  FROM (SELECT q.key, q.line, q.sku, q.location, q.sold, sum(q.quantity) AS quantity
          FROM waiting q GROUP BY q.key, q.line, q.sku, q.location, q.sold) w
  FULL JOIN place p
    ON p.key = w.key AND p.sku = w.sku AND p.location = w.location AND p.sold = w.sold
 WHERE (w.quantity, w.line) IS DISTINCT FROM (p.quantity, p.line)
UNION ALL
SELECT w.sku, w.location,
       'a place in a queue is of another promise than the ledger says (key ' || w.key || ')',
       l.promise::text, w.promise::text
  FROM waiting w
  JOIN line l ON l.key = w.key AND l.sku = w.sku AND l.location = w.location
 WHERE CASE WHEN w.sold THEN w.promise > l.promise ELSE w.promise <> l.promise END
UNION ALL
SELECT coalesce(b.sku, m.sku), coalesce(b.location, m.location),
       'a shipment differs from the ledger (key ' || coalesce(b.key, m.key) || ')',
       format('%s since %s', coalesce(m.quantity, 0), m.dispatched_at),
       format('%s since %s', coalesce(b.quantity, 0), b.dispatched_at)
  FROM bound b
  FULL JOIN (SELECT * FROM moved WHERE moved.quantity > 0) m
    ON m.key = b.key AND m.sku = b.sku AND m.location = b.location
 WHERE (b.quantity, b.dispatched_at) IS DISTINCT FROM (m.quantity, m.dispatched_at)
UNION ALL
SELECT s.sku, s.to_location,
       'a shipment has a way that nothing was dispatched on (key ' || s.key || ')',
       'none', format('from %s', s.from_location)
  FROM stock.shipment s
 WHERE (skus IS NULL OR s.sku = ANY (skus) AND (s.sku, s.to_location) IN (TABLE chosen))
   AND NOT EXISTS (SELECT FROM stock.ledger f
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
  FULL JOIN (SELECT q.* FROM stock.buyer_quantity q
              WHERE skus IS NULL OR q.sku = ANY (skus) AND (q.sku, q.location) IN (TABLE chosen)) q
    ON q.sku = b.sku AND q.location = b.location AND q.buyer = b.buyer
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(q.quantity, 0);
END
$$;
COMMENT ON FUNCTION stock.verify_levels(text[], text[]) IS
    'What stock.verify() answers, of the levels that are named; of all where the arrays are NULL.';

CREATE FUNCTION stock.verify(
    changed_since timestamptz DEFAULT NULL, for_sku text DEFAULT NULL,
    for_location text DEFAULT NULL
) RETURNS TABLE (sku text, location text, problem text, expected text, found text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    skus text[];
    locations text[];
BEGIN
    IF changed_since IS NOT NULL OR for_sku IS NOT NULL OR for_location IS NOT NULL THEN
        SELECT coalesce(array_agg(c.sku), '{}'), coalesce(array_agg(c.location), '{}')
          INTO skus, locations
          FROM (SELECT l.sku, l.location FROM stock.level l
                 WHERE (changed_since IS NULL OR l.updated_at >= changed_since)
                   AND (for_sku IS NULL OR l.sku = for_sku)
                   AND (for_location IS NULL OR l.location = for_location)
                UNION
                -- it may be the level that is missing
                SELECT for_sku, for_location
                 WHERE for_sku IS NOT NULL AND for_location IS NOT NULL
                   AND changed_since IS NULL) c;
    END IF;
    RETURN QUERY SELECT * FROM stock.verify_levels(skus, locations);
END
$$;
COMMENT ON FUNCTION stock.verify(timestamptz, text, text) IS
    'Recomputes each level, lot, hold, queue and shipment from the ledger and from what was '
    'carried forward of its archive; returns each disagreement. No rows, ever, unless somebody '
    'changed the tables by hand. Reads everything, and locks nothing. With changed_since only the '
    'levels are looked at that have changed since, with for_sku and for_location only those; the '
    'ledger is read from its beginning to its end for that, too, unless it has an index on SKU '
    'and location.';
