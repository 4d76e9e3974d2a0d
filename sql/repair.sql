-- Puts right what stock.verify() names. Where the ledger of a level agrees with itself it is the
-- truth, and everything else is made of it anew. Where it does not, the counters and the open holds
-- stay as they are, as far as they agree with each other; the ledger gets what is missing to them,
-- and the level an opening balance, before which nothing counts any more.

CREATE FUNCTION stock.repair(of_sku text, of_location text, reason text)
RETURNS TABLE (
    sku text, location text, problems bigint, source text, on_hand_before bigint, on_hand bigint,
    reserved_before bigint, reserved bigint, version bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    at record;
BEGIN
    PERFORM stock.check_primary();
    IF stock.library_version() <> (SELECT e.extversion FROM pg_extension e
                                    WHERE e.extname = 'pg_stock') THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'the library is of another version than the extension in this database',
            HINT = 'Connect anew, or ALTER EXTENSION pg_stock UPDATE: one that is older does not '
                   'know all operations.';
    END IF;
    IF (of_sku IS NULL) <> (of_location IS NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'of_sku and of_location must both be given, or both be NULL',
            HINT = 'Both NULL: whatever stock.verify() names.';
    END IF;
    IF of_sku IS NOT NULL THEN
        PERFORM stock.check_name('of_sku', of_sku);
        PERFORM stock.check_name('of_location', of_location);
    END IF;
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'reason must say why',
            HINT = 'The ledger keeps it: what was done to the tables, and who found it.';
    END IF;
    -- Two repairs, and one and an archiving, would meet at the balances.
    LOCK TABLE stock.balance_forward IN SHARE ROW EXCLUSIVE MODE;
    IF of_sku IS NULL THEN
        PERFORM stock.repair_sequences();
    END IF;
    PERFORM stock.remove_orphans(of_sku, of_location, reason);
    IF of_sku IS NOT NULL THEN
        RETURN QUERY SELECT * FROM stock.repair_level(of_sku, of_location, reason);
        RETURN;
    END IF;
    FOR at IN
        -- in the order in which everybody locks levels
        SELECT c.sku COLLATE "C" AS sku, c.location COLLATE "C" AS location
          FROM (SELECT DISTINCT v.sku, v.location FROM stock.verify() v
                 WHERE v.sku <> '' AND v.location IS NOT NULL) c
         ORDER BY 1, 2 LIMIT 1000
    LOOP
        BEGIN
            RETURN QUERY SELECT * FROM stock.repair_level(at.sku, at.location, reason);
        -- One that cannot be put right stops no other.
        EXCEPTION WHEN data_corrupted OR data_exception OR integrity_constraint_violation THEN
            RAISE WARNING USING MESSAGE = SQLERRM,
                HINT = format('The level (%s, %s) is as it was; repair it alone for more.',
                              at.sku, at.location);
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.repair(text, text, text) IS
    'Puts right what stock.verify() says of a level; with NULL and NULL of up to a thousand that '
    'it names. Where the ledger of a level agrees with itself, its counters, holds, queues, '
    'shipments, lots and counts of buyers are made of the ledger anew (source: ledger). Where it '
    'does not, or has lost its end, they stay as they are, as far as they agree with each other '
    'and the ledger still knows their keys (source: counters): count such a level then, and '
    'stock.set_stock. Each level that is changed gets a ledger row, repair, whose context has '
    'some of what was found, and the level before and after; a reservation or shipment of which '
    'the ledger said something else gets one, too. Answers the levels that were changed; none: '
    'nothing is left that can be put right. What cannot raises XX001, beside others a WARNING, '
    'and stays as it is. Locks the levels until the transaction ends, and keeps stock.archive '
    'waiting as long; reads the ledger several times for each, unless it has an index on SKU and '
    'location. 55000 where the library that is loaded is not of the version of the extension.';

CREATE FUNCTION stock.repair_sequences() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT setval('stock.ledger_position_seq', last.position)
  FROM (SELECT max(g.position) AS position FROM stock.ledger g) last, stock.ledger_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
SELECT setval('stock.waiting_position_seq', last.position)
  FROM (SELECT max(w.position) AS position FROM stock.waiting w) last, stock.waiting_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
$$;
COMMENT ON FUNCTION stock.repair_sequences() IS 'Raises the sequences that are behind.';

CREATE FUNCTION stock.operations() RETURNS text[]
LANGUAGE c IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'operations_wrapper';
COMMENT ON FUNCTION stock.operations() IS 'Every operation that a ledger row can be of.';

-- The triggers that forbid it are of the role origin.
CREATE FUNCTION stock.remove_orphans(of_sku text, of_location text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
    nonsense jsonb;
    bound jsonb;
    moves jsonb;
BEGIN
    WITH gone AS (
        DELETE FROM stock.ledger g
         WHERE (g.operation <> ALL (stock.operations())
                OR (g.sku IS NULL) <> (g.location IS NULL)
                OR g.sku IS NULL AND g.operation NOT IN ('cancel', 'reopen', 'erase', 'repair'))
           AND (of_sku IS NULL OR (g.sku, g.location) = (of_sku, of_location))
        RETURNING g.*
    )
    SELECT jsonb_agg(to_jsonb(g) - 'buyer') INTO nonsense FROM gone g;
    IF of_sku IS NULL THEN
        WITH gone AS (
            DELETE FROM stock.hold_lot b
             WHERE NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = b.key AND h.line = b.line)
            RETURNING b.*
        )
        SELECT jsonb_agg(to_jsonb(g)) INTO bound FROM gone g;
        WITH gone AS (
            DELETE FROM stock.ledger_lot m
             WHERE NOT EXISTS (SELECT FROM stock.ledger g
                                WHERE g.key = m.key AND g.position = m.position)
            RETURNING m.*
        )
        SELECT jsonb_agg(to_jsonb(g)) INTO moves FROM gone g;
    END IF;
    IF num_nonnulls(nonsense, bound, moves) > 0 THEN
        INSERT INTO stock.ledger (recorded_at, key, operation, line, quantity, on_hand_delta,
                                  reserved_delta, reason, context)
        VALUES (clock_timestamp(), 'pg_stock:repair:' || gen_random_uuid(), 'repair', 1, 0, 0, 0,
                reason, jsonb_strip_nulls(jsonb_build_object(
                    'ledger', nonsense, 'hold_lot', bound, 'ledger_lot', moves)));
    END IF;
END
$$;
COMMENT ON FUNCTION stock.remove_orphans(text, text, text) IS
    'Removes ledger rows of a level, or of all, whose operation does not exist, or that have lost '
    'their level; and, of all, lots that are bound to no hold, and what is said of lots by ledger '
    'rows that are not there. A ledger row, repair, keeps them in its context.';

-- -------------------------------------------------------------------------------------------------
-- One level: first it is put down what is to be, then that is written.

CREATE FUNCTION stock.standings_to_be(of_sku text, of_location text, is_intact boolean)
RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH line AS (
    SELECT l.* FROM stock.lines() l WHERE l.sku = of_sku AND l.location = of_location
), held AS (
    SELECT h.key, sum(h.quantity) AS quantity FROM stock.hold h
     WHERE h.sku = of_sku AND h.location = of_location GROUP BY h.key
), queued AS (
    SELECT w.key, coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0) AS waiting,
           coalesce(sum(w.quantity) FILTER (WHERE w.sold), 0) AS owed
      FROM stock.waiting w
     WHERE w.sku = of_sku AND w.location = of_location GROUP BY w.key
), of_lots AS (
    SELECT DISTINCT c.key
      FROM (SELECT g.key FROM stock.ledger_lot m
              JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
             WHERE g.sku = of_sku AND g.location = of_location AND m.lot <> ''
               AND g.operation <> 'track_lots'
             GROUP BY g.key, m.lot HAVING sum(m.reserved_delta) <> 0) c
), known AS (
    -- where neither the ledger nor the tables have anything open, nothing is to be done
    SELECT coalesce(l.key, h.key, w.key, o.key) AS key, l.line, l.promise, l.buyer, l.expires_at,
           l.reserved_at, l.quantity, l.waiting, l.owed,
           CASE WHEN l.line IS NULL OR l.expires_at IS NULL THEN 0
                WHEN is_intact THEN greatest(l.quantity, 0)
                ELSE coalesce(h.quantity, 0) END AS hold,
           coalesce(CASE WHEN is_intact THEN l.waiting ELSE w.waiting END, 0) AS asked,
           CASE WHEN l.line IS NULL THEN 0
                WHEN is_intact THEN greatest(l.owed, 0) ELSE coalesce(w.owed, 0) END AS sold
      FROM line l
      FULL JOIN held h ON h.key = l.key
      FULL JOIN queued w ON w.key = coalesce(l.key, h.key)
      FULL JOIN of_lots o ON o.key = coalesce(l.key, h.key, w.key)
     WHERE h.key IS NOT NULL OR w.key IS NOT NULL OR o.key IS NOT NULL
        OR l.line IS NOT NULL AND (l.quantity, l.waiting, l.owed) <> (0, 0, 0)
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'key', k.key, 'line', k.line, 'promise', k.promise, 'buyer', k.buyer,
           'expires_at', k.expires_at, 'reserved_at', k.reserved_at, 'held', k.hold,
           'waiting', least(k.hold, greatest(k.asked, 0)), 'owed', k.sold,
           'held_missing', CASE WHEN k.line IS NOT NULL THEN k.hold - k.quantity END,
           'waiting_missing', CASE WHEN k.line IS NOT NULL
                              THEN least(k.hold, greatest(k.asked, 0)) - k.waiting END,
           'owed_missing', CASE WHEN k.line IS NOT NULL THEN k.sold - k.owed END)), '[]')
  FROM known k
$$;
COMMENT ON FUNCTION stock.standings_to_be(text, text, boolean) IS
    'What each reservation is to hold of a level, and what the ledger lacks to that: as the ledger '
    'says where it is intact, else as the holds and queues say of keys that the ledger knows.';

CREATE FUNCTION stock.bindings_to_be(
    of_sku text, of_location text, standings jsonb, is_intact boolean
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH standing AS (
    SELECT s.* FROM jsonb_to_recordset(standings)
             AS s (key text, line integer, held bigint, waiting bigint)
), moved AS (
    SELECT m.key, m.lot, sum(m.reserved_delta) AS quantity
      FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
     WHERE m.key IN (SELECT s.key FROM standing s) AND m.lot <> ''
       AND g.sku = of_sku AND g.location = of_location AND g.operation <> 'track_lots'
     GROUP BY m.key, m.lot
), bound AS (
    SELECT b.key, b.lot, sum(b.quantity) AS quantity
      FROM stock.hold_lot b
      JOIN stock.hold h ON h.key = b.key AND h.line = b.line
     WHERE h.sku = of_sku AND h.location = of_location AND b.lot <> ''
     GROUP BY b.key, b.lot
), part AS (
    -- no more than is held, and there
    SELECT s.key, s.line, c.lot, c.said,
           greatest(0, least(c.asked, s.held - s.waiting
             - coalesce(sum(greatest(c.asked, 0)) OVER (PARTITION BY s.key ORDER BY c.lot
                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))) AS quantity
      FROM standing s
      JOIN (SELECT coalesce(m.key, b.key) AS key, coalesce(m.lot, b.lot) AS lot,
                   coalesce(m.quantity, 0) AS said,
                   coalesce(CASE WHEN is_intact THEN m.quantity ELSE b.quantity END, 0) AS asked
              FROM moved m FULL JOIN bound b ON b.key = m.key AND b.lot = m.lot) c
        ON c.key = s.key
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'key', p.key, 'line', p.line, 'lot', p.lot, 'quantity', p.quantity,
           'missing', p.missing)), '[]')
  FROM (SELECT p.key, p.line, p.lot, p.quantity, p.quantity - p.said AS missing FROM part p
         UNION ALL
        -- the rest lies where what came without a lot lies
        SELECT s.key, s.line, '', s.held - s.waiting - coalesce((
                   SELECT sum(p.quantity) FROM part p WHERE p.key = s.key), 0), 0
          FROM standing s) p
 WHERE p.quantity > 0 OR p.missing <> 0
$$;
COMMENT ON FUNCTION stock.bindings_to_be(text, text, jsonb, boolean) IS
    'Of which lots each reservation is to have how much, and what the ledger lacks to that.';

CREATE FUNCTION stock.write_holds(of_sku text, of_location text, standings jsonb, bindings jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM stock.hold_lot b USING stock.hold h
     WHERE h.key = b.key AND h.line = b.line AND h.sku = of_sku AND h.location = of_location;
    DELETE FROM stock.hold_lot b
     USING jsonb_to_recordset(standings) AS s (key text, line integer)
     WHERE b.key = s.key AND b.line = s.line;
    DELETE FROM stock.hold h
     WHERE h.sku = of_sku AND h.location = of_location
       AND NOT EXISTS (SELECT FROM jsonb_to_recordset(standings)
                                AS s (key text, line integer, held bigint)
                        WHERE s.key = h.key AND s.line = h.line AND s.held > 0);
    INSERT INTO stock.hold AS h
    SELECT s.held, s.expires_at, s.reserved_at, s.line, s.key, of_sku, of_location, s.buyer
      FROM jsonb_to_recordset(standings)
        AS s (key text, line integer, held bigint, expires_at timestamptz, reserved_at timestamptz,
              buyer text)
     WHERE s.held > 0
        ON CONFLICT ON CONSTRAINT hold_pkey DO UPDATE
       SET quantity = excluded.quantity, expires_at = excluded.expires_at, buyer = excluded.buyer,
           sku = excluded.sku, location = excluded.location;
    INSERT INTO stock.hold_lot
    SELECT b.quantity, b.line, b.key, b.lot
      FROM jsonb_to_recordset(bindings) AS b (key text, line integer, lot text, quantity bigint)
     WHERE b.quantity > 0;
    -- Whoever waits keeps his place where nothing is wrong with it; else the first that he has, or
    -- the last of all.
    WITH place AS (
        SELECT s.key, s.line, s.promise, p.sold, p.quantity
          FROM jsonb_to_recordset(standings)
            AS s (key text, line integer, promise bigint, waiting bigint, owed bigint)
         CROSS JOIN LATERAL (VALUES (false, s.waiting), (true, s.owed)) AS p (sold, quantity)
    ), wrong AS (
        SELECT coalesce(q.key, p.key) AS key, coalesce(q.sold, p.sold) AS sold
          FROM (SELECT w.key, w.sold, min(w.line) AS line, max(w.line) AS last,
                       sum(w.quantity) AS quantity, max(w.promise) AS promise
                  FROM stock.waiting w
                 WHERE w.sku = of_sku AND w.location = of_location GROUP BY w.key, w.sold) q
          FULL JOIN (SELECT * FROM place WHERE place.quantity > 0) p
            ON p.key = q.key AND p.sold = q.sold
         WHERE (q.line, q.last, q.quantity) IS DISTINCT FROM (p.line, p.line, p.quantity)
            OR CASE WHEN q.sold THEN q.promise > p.promise ELSE q.promise <> p.promise END
    ), gone AS (
        DELETE FROM stock.waiting w USING wrong
         WHERE w.key = wrong.key AND w.sold = wrong.sold
           AND w.sku = of_sku AND w.location = of_location
        RETURNING w.key, w.sold, w.position
    )
    INSERT INTO stock.waiting (position, quantity, line, promise, sold, key, sku, location)
    SELECT coalesce((SELECT min(g.position) FROM gone g
                      WHERE g.key = p.key AND g.sold = p.sold),
                    nextval('stock.waiting_position_seq')),
           p.quantity, p.line, p.promise, p.sold, p.key, of_sku, of_location
      FROM place p JOIN wrong ON wrong.key = p.key AND wrong.sold = p.sold
     WHERE p.quantity > 0
        ON CONFLICT ON CONSTRAINT waiting_pkey DO UPDATE
       SET quantity = excluded.quantity, sku = excluded.sku, location = excluded.location;
END
$$;
COMMENT ON FUNCTION stock.write_holds(text, text, jsonb, jsonb) IS
    'Makes the holds, their lots and the queue of a level what they are to be.';

CREATE FUNCTION stock.write_shipments(of_sku text, of_location text, is_intact boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT is_intact THEN
        DELETE FROM stock.shipment s
         WHERE s.sku = of_sku AND s.to_location = of_location
           AND NOT EXISTS (SELECT FROM stock.ledger f
                             JOIN stock.ledger t
                               ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
                            WHERE f.key = s.key AND f.operation = 'dispatch' AND f.line % 2 = 1
                              AND f.sku = s.sku
                              AND (f.location, t.location) IN ((s.from_location, s.to_location),
                                                               (s.to_location, s.from_location)));
        RETURN;
    END IF;
    WITH moved AS (
        SELECT g.key, sum(g.in_transit_delta) AS quantity,
               min(g.recorded_at) FILTER (WHERE g.operation = 'dispatch') AS dispatched_at
          FROM stock.ledger g
         WHERE g.sku = of_sku AND g.location = of_location
           AND g.operation IN ('dispatch', 'arrive', 'lose', 'recall')
         GROUP BY g.key HAVING sum(g.in_transit_delta) > 0
    ), way AS (
        -- there, and back for what was turned round
        SELECT DISTINCT f.key, w.origin
          FROM stock.ledger f
          JOIN stock.ledger t ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
         CROSS JOIN LATERAL (VALUES (f.location, t.location), (t.location, f.location))
                 AS w (origin, target)
         WHERE f.operation = 'dispatch' AND f.line % 2 = 1 AND f.sku = of_sku
           AND w.target = of_location AND f.key IN (SELECT m.key FROM moved m)
    ), wrong AS (
        SELECT coalesce(m.key, b.key) AS key
          FROM moved m
          FULL JOIN (SELECT s.key, sum(s.quantity) AS quantity,
                            max(s.dispatched_at) AS dispatched_at,
                            bool_and(EXISTS (SELECT FROM way w
                                              WHERE w.key = s.key
                                                AND w.origin = s.from_location)) AS is_known
                       FROM stock.shipment s
                      WHERE s.sku = of_sku AND s.to_location = of_location GROUP BY s.key) b
            ON b.key = m.key
         WHERE (m.quantity, m.dispatched_at, true)
               IS DISTINCT FROM (b.quantity, b.dispatched_at, b.is_known)
    ), gone AS (
        DELETE FROM stock.shipment s USING wrong
         WHERE s.key = wrong.key AND s.sku = of_sku AND s.to_location = of_location
    )
    INSERT INTO stock.shipment AS s
    SELECT m.quantity, m.dispatched_at, m.key, of_sku, min(w.origin), of_location
      FROM moved m JOIN wrong ON wrong.key = m.key JOIN way w ON w.key = m.key
     GROUP BY m.key, m.quantity, m.dispatched_at
        ON CONFLICT ON CONSTRAINT shipment_pkey DO UPDATE
       SET quantity = excluded.quantity, dispatched_at = excluded.dispatched_at;
END
$$;
COMMENT ON FUNCTION stock.write_shipments(text, text, boolean) IS
    'Makes what is on the way to a level what the ledger says, where it is intact; else leaves it, '
    'as far as the ledger knows its dispatch.';

CREATE FUNCTION stock.correct_shipments(entry stock.ledger) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku, location,
                              quantity, on_hand_delta, reserved_delta, in_transit_delta,
                              on_hand_after, reserved_after, version, reason)
    SELECT entry.recorded_at, coalesce(m.key, b.key), 'repair', entry.key || ':way', 1, entry.sku,
           entry.location, 0, 0, 0, coalesce(b.quantity, 0) - coalesce(m.quantity, 0),
           entry.on_hand_after, entry.reserved_after, entry.version, entry.reason
      FROM (SELECT g.key, sum(coalesce(g.in_transit_delta, 0))::bigint AS quantity
              FROM stock.ledger g
             WHERE g.sku = entry.sku AND g.location = entry.location
               AND g.operation IN ('dispatch', 'arrive', 'lose', 'recall', 'repair')
             GROUP BY g.key) m
      FULL JOIN (SELECT s.key, sum(s.quantity)::bigint AS quantity FROM stock.shipment s
                  WHERE s.sku = entry.sku AND s.to_location = entry.location GROUP BY s.key) b
        ON b.key = m.key
     WHERE coalesce(b.quantity, 0) <> coalesce(m.quantity, 0);
END
$$;
COMMENT ON FUNCTION stock.correct_shipments(stock.ledger) IS
    'Writes a ledger row, repair, for each shipment to a level of which the ledger lacks '
    'something.';

CREATE FUNCTION stock.write_lots(level stock.level, is_intact boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_sku constant text := level.sku;
    of_location constant text := level.location;
BEGIN
    IF level.next_spoil IS NULL THEN
        DELETE FROM stock.lot o WHERE o.sku = of_sku AND o.location = of_location;
        RETURN;
    END IF;
    WITH said AS (
        SELECT c.lot, sum(c.on_hand)::bigint AS on_hand
          FROM (SELECT m.lot, m.on_hand_delta AS on_hand
                  FROM stock.entries() e
                  JOIN stock.ledger_lot m ON m.key = e.key AND m.position = e.position
                 WHERE e.sku = of_sku AND e.location = of_location
                 UNION ALL
                SELECT f.lot, f.on_hand FROM stock.balance_forward_lot f
                 WHERE f.sku = of_sku AND f.location = of_location) c
         GROUP BY c.lot
    ), called_back AS (
        SELECT DISTINCT ON (c.lot) c.lot, c.frozen
          FROM (SELECT e.lot, e.version, e.operation = 'freeze_lot' AS frozen
                  FROM stock.entries() e
                 WHERE e.sku = of_sku AND e.location = of_location
                   AND e.operation IN ('freeze_lot', 'unfreeze_lot')
                 UNION ALL
                SELECT f.lot, f.version, f.frozen FROM stock.balance_forward_lot f
                 WHERE f.sku = of_sku AND f.location = of_location AND f.frozen IS NOT NULL) c
         ORDER BY c.lot, c.version DESC
    ), dated AS (
        -- the date that it was received with, here or where it came from
        SELECT g.lot, max(g.best_before) FILTER (WHERE g.location = of_location) AS best_before,
               max(g.best_before) AS elsewhere,
               min(g.recorded_at) FILTER (WHERE g.location = of_location) AS received_at
          FROM (SELECT l.lot, l.best_before, l.recorded_at, l.location FROM stock.ledger l
                 WHERE l.sku = of_sku AND l.operation = 'receive' AND l.lot IS NOT NULL
                 UNION ALL
                SELECT a.lot, a.best_before, a.recorded_at, a.location FROM stock.ledger_archive a
                 WHERE a.sku = of_sku AND a.operation = 'receive' AND a.lot IS NOT NULL
                 UNION ALL
                SELECT o.lot, o.best_before, o.received_at, o.location FROM stock.lot o
                 WHERE o.sku = of_sku AND o.location <> of_location) g
         GROUP BY g.lot
    ), bound AS (
        SELECT b.lot, sum(b.quantity)::bigint AS reserved
          FROM stock.hold_lot b JOIN stock.hold h ON h.key = b.key AND h.line = b.line
         WHERE h.sku = of_sku AND h.location = of_location GROUP BY b.lot
    ), old AS (
        SELECT o.* FROM stock.lot o WHERE o.sku = of_sku AND o.location = of_location
    ), made AS (
        SELECT n.lot, coalesce(b.reserved, 0) AS reserved,
               greatest(coalesce(CASE WHEN is_intact THEN s.on_hand ELSE o.on_hand END, 0),
                        coalesce(b.reserved, 0)) AS on_hand,
               coalesce(d.best_before, o.best_before, d.elsewhere) AS best_before,
               coalesce(o.received_at, d.received_at, clock_timestamp()) AS received_at,
               coalesce(CASE WHEN is_intact THEN c.frozen ELSE o.frozen END, false) AS frozen,
               coalesce(o.spoiled, false) AS spoiled
          FROM (SELECT s.lot FROM said s UNION SELECT b.lot FROM bound b
                 UNION SELECT o.lot FROM old o WHERE NOT is_intact) n
          LEFT JOIN said s ON s.lot = n.lot
          LEFT JOIN called_back c ON c.lot = n.lot
          LEFT JOIN dated d ON d.lot = n.lot
          LEFT JOIN bound b ON b.lot = n.lot
          LEFT JOIN old o ON o.lot = n.lot
    ), booked AS (
        -- Whatever is past its time is booked anew where it does not add up.
        SELECT m.lot, m.reserved, m.on_hand, m.best_before, m.received_at, m.frozen,
               m.spoiled AND NOT (is_intact AND level.unsellable <> coalesce(
                 sum(m.on_hand - m.reserved) FILTER (WHERE m.frozen OR m.spoiled) OVER (), 0))
                 AS spoiled
          FROM made m
    ), gone AS (
        DELETE FROM stock.lot o
         WHERE o.sku = of_sku AND o.location = of_location
           AND NOT EXISTS (SELECT FROM booked b WHERE b.lot = o.lot)
    )
    INSERT INTO stock.lot AS o
    SELECT b.on_hand, b.reserved, b.best_before,
           CASE WHEN b.on_hand > 0 AND NOT b.frozen AND NOT b.spoiled
                THEN b.best_before - coalesce(level.min_life, '0') END,
           CASE WHEN b.on_hand > 0
                THEN b.best_before - coalesce(level.near_expiry, current_setting(
                         'pg_stock.near_expiry')::interval) END,
           b.received_at, b.frozen, b.spoiled, b.on_hand = 0, of_sku, of_location, b.lot
      FROM booked b
        ON CONFLICT ON CONSTRAINT lot_pkey DO UPDATE
       SET on_hand = excluded.on_hand, reserved = excluded.reserved,
           best_before = excluded.best_before, spoils_at = excluded.spoils_at,
           warns_at = excluded.warns_at, frozen = excluded.frozen, spoiled = excluded.spoiled,
           spent = excluded.spent;
END
$$;
COMMENT ON FUNCTION stock.write_lots(stock.level, boolean) IS
    'Makes the lots of a level what the ledger says, where it is intact; else leaves what lies in '
    'them, and makes the rest fit.';

CREATE FUNCTION stock.write_buyers(of_sku text, of_location text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH bought AS (
        SELECT b.buyer, sum(b.quantity) AS quantity
          FROM (SELECT e.buyer, e.bought AS quantity FROM stock.entries() e
                 WHERE e.sku = of_sku AND e.location = of_location AND e.buyer IS NOT NULL
                 UNION ALL
                SELECT f.buyer, f.quantity FROM stock.balance_forward_buyer f
                 WHERE f.sku = of_sku AND f.location = of_location) b
         GROUP BY b.buyer
    ), gone AS (
        DELETE FROM stock.buyer_quantity q
         WHERE q.sku = of_sku AND q.location = of_location
           AND NOT EXISTS (SELECT FROM bought b WHERE b.buyer = q.buyer)
    )
    INSERT INTO stock.buyer_quantity AS q
    SELECT b.quantity, of_sku, of_location, b.buyer FROM bought b
        ON CONFLICT ON CONSTRAINT buyer_quantity_pkey DO UPDATE SET quantity = excluded.quantity
     WHERE q.quantity <> excluded.quantity;
END
$$;
COMMENT ON FUNCTION stock.write_buyers(text, text) IS
    'Makes what buyers have of a level what the ledger says.';

CREATE FUNCTION stock.correct_lines(
    entry stock.ledger, standings jsonb, bindings jsonb
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    own bigint;
BEGIN
    FOR s IN
        SELECT d.key, coalesce(d.line, 1) AS line, coalesce(d.held_missing, 0) AS held_missing,
               coalesce(d.waiting_missing, 0) AS waiting_missing,
               coalesce(d.owed_missing, 0) AS owed_missing,
               EXISTS (SELECT FROM jsonb_to_recordset(bindings) AS b (key text, missing bigint)
                        WHERE b.key = d.key AND b.missing <> 0) AS lots_missing
          FROM jsonb_to_recordset(standings)
            AS d (key text, line integer, held_missing bigint, waiting_missing bigint,
                  owed_missing bigint)
    LOOP
        IF s.held_missing <> 0 OR s.waiting_missing <> 0 OR s.lots_missing THEN
            INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku,
                                      location, quantity, on_hand_delta, reserved_delta,
                                      waiting_delta, on_hand_after, reserved_after, version,
                                      reason)
            VALUES (entry.recorded_at, s.key, 'repair', entry.key, s.line, entry.sku,
                    entry.location, s.held_missing, 0, 0, nullif(s.waiting_missing, 0),
                    entry.on_hand_after, entry.reserved_after, entry.version, entry.reason)
            RETURNING ledger.position INTO own;
            INSERT INTO stock.ledger_lot
            SELECT own, 0, b.missing, 0, s.key, b.lot
              FROM jsonb_to_recordset(bindings) AS b (key text, lot text, missing bigint)
             WHERE b.key = s.key AND b.missing <> 0;
        END IF;
        IF s.owed_missing <> 0 THEN
            INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku,
                                      location, quantity, on_hand_delta, reserved_delta,
                                      waiting_delta, on_hand_after, reserved_after, version,
                                      reason)
            VALUES (entry.recorded_at, s.key, 'repair', entry.key || ':owed', s.line, entry.sku,
                    entry.location, 0, -s.owed_missing, 0, s.owed_missing, entry.on_hand_after,
                    entry.reserved_after, entry.version, entry.reason);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.correct_lines(stock.ledger, jsonb, jsonb) IS
    'Writes a ledger row, repair, for each reservation of which the ledger lacks something: '
    'quantity and waiting_delta are what its hold has more than the ledger said; where '
    'on_hand_delta is not 0, waiting_delta is what its sales wait for.';

CREATE FUNCTION stock.open_balance(entry stock.ledger) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM stock.balance_forward f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward
    SELECT 1, l.version, l.on_hand, l.reserved, l.waiting, l.in_transit, l.unsellable, l.on_hand,
           l.reserved, l.safety_stock, l.buyer_limit, l.backorder_limit, l.on_sale_from,
           l.on_sale_until, l.frozen, l.min_life, l.near_expiry,
           CASE WHEN l.next_spoil IS NOT NULL THEN l.version END, true, l.sku, l.location
      FROM stock.level l WHERE l.sku = entry.sku AND l.location = entry.location;
    DELETE FROM stock.balance_forward_lot f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward_lot
    SELECT o.on_hand, o.reserved, o.frozen, entry.version, o.sku, o.location, o.lot
      FROM stock.lot o WHERE o.sku = entry.sku AND o.location = entry.location;
    DELETE FROM stock.balance_forward_buyer f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward_buyer
    SELECT q.* FROM stock.buyer_quantity q
     WHERE q.sku = entry.sku AND q.location = entry.location;
END
$$;
COMMENT ON FUNCTION stock.open_balance(stock.ledger) IS
    'Gives a level an opening balance: what it has, as its repair left it. Ledger rows up to that '
    'version do not count any more.';

CREATE FUNCTION stock.level_to_be(of_sku text, of_location text, named jsonb, is_intact boolean)
RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- What verify() does not name is as the ledger says.
    expected constant jsonb := coalesce((
        SELECT jsonb_object_agg(c.name, p.item -> 'expected')
          FROM jsonb_array_elements(named) AS p (item)
         CROSS JOIN LATERAL (SELECT substring(
                   p.item ->> 'problem'
                   FROM '^the level''s (.*) differs from the ledger$') AS name) c
         WHERE c.name IS NOT NULL), '{}');
    old stock.level;
    made jsonb;
BEGIN
    SELECT * INTO old FROM stock.level l WHERE l.sku = of_sku AND l.location = of_location;
    made := jsonb_strip_nulls(to_jsonb(old));
    IF is_intact OR old.sku IS NULL THEN
        made := made || (expected - '{lots}'::text[]);
        IF expected ? 'lots' THEN
            made := made || jsonb_build_object(
                'next_spoil', CASE WHEN (expected ->> 'lots')::boolean THEN 'infinity' END);
        END IF;
    END IF;
    IF NOT is_intact THEN
        IF old.sku IS NULL THEN
            made := made || jsonb_build_object('on_hand', (
                SELECT g.on_hand_after FROM stock.ledger g
                 WHERE g.sku = of_sku AND g.location = of_location AND g.version IS NOT NULL
                 ORDER BY g.version DESC LIMIT 1));
        END IF;
        -- Lots that are there, or that the ledger tells of, are not lost.
        IF made ->> 'next_spoil' IS NULL
           AND ((expected ->> 'lots')::boolean
                OR EXISTS (SELECT FROM stock.lot o
                            WHERE o.sku = of_sku AND o.location = of_location)) THEN
            made := made || '{"next_spoil": "infinity"}';
        END IF;
    END IF;
    RETURN jsonb_populate_record(
        NULL::stock.level,
        '{"safety_stock": 0, "backorder_limit": 0, "frozen": false, "version": 0}'
          || jsonb_strip_nulls(made)
          || jsonb_build_object(
                 'sku', of_sku, 'location', of_location,
                 'on_hand', greatest((made ->> 'on_hand')::bigint, 0),
                 'unsellable', greatest((made ->> 'unsellable')::bigint, 0)));
END
$$;
COMMENT ON FUNCTION stock.level_to_be(text, text, jsonb, boolean) IS
    'A level as verify() expects it, where the ledger is intact; else as it is, or, where it is '
    'missing, with what the last row of the ledger left on hand.';

CREATE FUNCTION stock.write_level(level stock.level, new_version bigint) RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
    queued record;
    shelf record;
    units record;
    written stock.level;
BEGIN
    SELECT coalesce(sum(h.quantity), 0)::bigint AS quantity,
           coalesce(min(h.expires_at), 'infinity') AS first_due INTO held
      FROM stock.hold h WHERE h.sku = level.sku AND h.location = level.location;
    SELECT coalesce(sum(w.quantity), 0)::bigint AS quantity,
           coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0)::bigint AS held INTO queued
      FROM stock.waiting w WHERE w.sku = level.sku AND w.location = level.location;
    SELECT coalesce(sum(o.on_hand), 0)::bigint AS on_hand,
           coalesce(sum(o.on_hand - o.reserved) FILTER (WHERE o.frozen OR o.spoiled), 0)::bigint
             AS unsellable,
           coalesce(min(o.spoils_at), 'infinity') AS first_spoil INTO shelf
      FROM stock.lot o WHERE o.sku = level.sku AND o.location = level.location;
    SELECT held.quantity - queued.held AS reserved,
           CASE WHEN level.next_spoil IS NULL THEN 0 ELSE shelf.unsellable END AS unsellable,
           CASE WHEN level.next_spoil IS NULL THEN level.on_hand ELSE shelf.on_hand END AS on_hand,
           (SELECT coalesce(sum(s.quantity), 0)::bigint FROM stock.shipment s
             WHERE s.sku = level.sku AND s.to_location = level.location) AS in_transit INTO units;
    -- Named, for a shop may have columns of its own.
    INSERT INTO stock.level AS l
           (on_hand, reserved, safety_stock, buyer_limit, version, next_due, updated_at, waiting,
            in_transit, backorder_limit, on_sale_from, on_sale_until, unsellable, next_spoil,
            min_life, near_expiry, frozen, sku, location)
    SELECT n.on_hand, n.reserved, n.safety_stock, n.buyer_limit, n.version, n.next_due,
           n.updated_at, n.waiting, n.in_transit, n.backorder_limit, n.on_sale_from,
           n.on_sale_until, n.unsellable, n.next_spoil, n.min_life, n.near_expiry, n.frozen, n.sku,
           n.location
      FROM jsonb_populate_record(level, jsonb_build_object(
               'on_hand', greatest(units.on_hand, units.reserved + units.unsellable),
               'reserved', units.reserved, 'waiting', queued.quantity,
               'in_transit', units.in_transit, 'unsellable', units.unsellable,
               'next_due', held.first_due, 'version', new_version,
               'updated_at', clock_timestamp(),
               'next_spoil', CASE WHEN level.next_spoil IS NOT NULL THEN shelf.first_spoil END)) n
        ON CONFLICT ON CONSTRAINT level_pkey DO UPDATE
       SET on_hand = excluded.on_hand, reserved = excluded.reserved,
           safety_stock = excluded.safety_stock, buyer_limit = excluded.buyer_limit,
           version = excluded.version, next_due = excluded.next_due,
           updated_at = excluded.updated_at, waiting = excluded.waiting,
           in_transit = excluded.in_transit, backorder_limit = excluded.backorder_limit,
           on_sale_from = excluded.on_sale_from, on_sale_until = excluded.on_sale_until,
           unsellable = excluded.unsellable, next_spoil = excluded.next_spoil,
           min_life = excluded.min_life, near_expiry = excluded.near_expiry,
           frozen = excluded.frozen
    RETURNING l.* INTO written;
    RETURN written;
END
$$;
COMMENT ON FUNCTION stock.write_level(stock.level, bigint) IS
    'Writes a level under a version, with the counters that its holds, queue, shipments and lots '
    'come to.';

CREATE FUNCTION stock.repair_from(
    of_sku text, of_location text, why text, named jsonb, is_intact boolean
) RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old stock.level;
    level stock.level;
    latest bigint;
    unsellable_before bigint;
    standings jsonb;
    bindings jsonb := '[]';
    opens boolean;
    entry stock.ledger;
    left_over record;
BEGIN
    SELECT l.* INTO old FROM stock.level l WHERE l.sku = of_sku AND l.location = of_location;
    SELECT max(g.version) INTO latest FROM stock.ledger g
     WHERE g.sku = of_sku AND g.location = of_location;
    level := stock.level_to_be(of_sku, of_location, named, is_intact);
    unsellable_before := level.unsellable;
    standings := stock.standings_to_be(of_sku, of_location, is_intact);
    IF level.next_spoil IS NOT NULL THEN
        bindings := stock.bindings_to_be(of_sku, of_location, standings, is_intact);
    END IF;
    -- What the ledger must be told, and a version that was shown already, ask for an opening.
    opens := NOT is_intact OR greatest(old.version, latest) > level.version
             OR jsonb_path_exists(standings, '$[*] ? (@.held_missing != 0
                                  || @.waiting_missing != 0 || @.owed_missing != 0)')
             OR jsonb_path_exists(bindings, '$[*] ? (@.missing != 0)');
    PERFORM stock.write_holds(of_sku, of_location, standings, bindings);
    PERFORM stock.write_shipments(of_sku, of_location, is_intact);
    PERFORM stock.write_lots(level, is_intact);
    IF is_intact THEN
        PERFORM stock.write_buyers(of_sku, of_location);
    END IF;
    -- No level ever comes to a version beyond that.
    level := stock.write_level(
        level, least(greatest(level.version, old.version, latest), 1000000000000000) + 1);
    INSERT INTO stock.ledger (recorded_at, key, operation, line, sku, location, quantity,
                              on_hand_delta, reserved_delta, unsellable_delta, on_hand_after,
                              reserved_after, version, reason, context)
    VALUES (level.updated_at, 'pg_stock:repair:' || gen_random_uuid(), 'repair', 1, of_sku,
            of_location, 0, 0, 0, nullif(level.unsellable - unsellable_before, 0), level.on_hand,
            level.reserved, level.version, why,
            jsonb_build_object('found', named, 'before', to_jsonb(old), 'after', to_jsonb(level),
                               'source', CASE WHEN is_intact THEN 'ledger' ELSE 'counters' END))
    RETURNING * INTO entry;
    IF opens THEN
        PERFORM stock.correct_lines(entry, standings, bindings);
        IF NOT is_intact THEN
            PERFORM stock.correct_shipments(entry);
        END IF;
        PERFORM stock.open_balance(entry);
    END IF;
    SELECT v.* INTO left_over
      FROM stock.verify_levels(ARRAY[of_sku], ARRAY[of_location]) v LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
            MESSAGE = format('the level (%s, %s) cannot be put right: %s', of_sku, of_location,
                             left_over.problem),
            DETAIL = format('Expected %s, found %s. Nothing was changed.', left_over.expected,
                            left_over.found),
            HINT = 'Put that right by hand, and repair again.';
    END IF;
    RETURN level;
END
$$;
COMMENT ON FUNCTION stock.repair_from(text, text, text, jsonb, boolean) IS
    'Makes a level and all about it of its ledger, or of its counters and holds. XX001 where '
    'stock.verify() is not content then.';

CREATE FUNCTION stock.repair_level(of_sku text, of_location text, why text)
RETURNS TABLE (
    sku text, location text, problems bigint, source text, on_hand_before bigint, on_hand bigint,
    reserved_before bigint, reserved bigint, version bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    named jsonb;
    contradicts boolean;
    old stock.level;
    level stock.level;
BEGIN
    -- The library defines a setting that lots need, which this loads.
    PERFORM stock.library_version();
    SELECT l.* INTO old FROM stock.level l
     WHERE l.sku = of_sku AND l.location = of_location FOR NO KEY UPDATE;
    -- One row that is wrong makes all later ones wrong: some say enough. Of buyers nothing is kept.
    -- A ledger that ends before the level does, or has nothing of it, has lost rows.
    SELECT count(*), coalesce(bool_or(v.problem ~ '^a (ledger row|balance) '
                                      OR v.problem = 'the level''s version differs from the ledger'
                                         AND coalesce(v.expected::bigint < v.found::bigint,
                                                      v.expected IS NULL)), false),
           jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
               'problem', regexp_replace(v.problem, ' ?\(buyer .*\)', ''),
               'expected', CASE WHEN v.problem !~ '^a hold' THEN v.expected END,
               'found', CASE WHEN v.problem !~ '^a hold' THEN v.found END)))
             FILTER (WHERE v.problem ~ '^the level''s ' OR v.nth <= 20)
      INTO problems, contradicts, named
      FROM (SELECT v.*, row_number() OVER () AS nth
              FROM stock.verify_levels(ARRAY[of_sku], ARRAY[of_location]) v) v;
    IF problems = 0 THEN
        RETURN;
    END IF;
    sku := of_sku;
    location := of_location;
    on_hand_before := old.on_hand;
    reserved_before := old.reserved;
    IF NOT contradicts THEN
        BEGIN
            level := stock.repair_from(of_sku, of_location, why, named, true);
            source := 'ledger';
        -- It agrees with itself, and still comes to what cannot be.
        EXCEPTION WHEN data_corrupted OR integrity_constraint_violation THEN
            source := NULL;
        END;
    END IF;
    IF source IS NULL THEN
        level := stock.repair_from(of_sku, of_location, why, named, false);
        source := 'counters';
    END IF;
    on_hand := level.on_hand;
    reserved := level.reserved;
    version := level.version;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION stock.repair_level(text, text, text) IS 'Does stock.repair for one level.';
