-- Keeps the ledger small: whole keys that were closed long ago go to stock.ledger_archive, and what
-- they added up to is carried forward.

-- -------------------------------------------------------------------------------------------------
-- A batch, in one transaction. The past moves here alone; the triggers that forbid it are of the
-- role origin, and so is what a shop has put on the tables.

CREATE FUNCTION stock.check_archive(older_than interval, batch_rows integer) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    least_age interval;
    missing text;
BEGIN
    PERFORM stock.check_primary();
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION USING ERRCODE = 'active_sql_transaction',
            MESSAGE = format('nothing can be archived in a %s transaction',
                             current_setting('transaction_isolation')),
            HINT = 'SET default_transaction_isolation TO ''read committed'' in this session.';
    END IF;
    -- The library defines the setting, which this loads.
    PERFORM stock.library_version();
    least_age := current_setting('pg_stock.min_archive_age')::interval;
    IF older_than IS NULL OR older_than < least_age THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('older_than must be at least %s, as pg_stock.min_archive_age says',
                             current_setting('pg_stock.min_archive_age')),
            DETAIL = format('It is %s.', coalesce(older_than::text, 'null')),
            HINT = 'What is archived is not known as a key any more: a repeat of it is a new '
                   'request.';
    END IF;
    IF batch_rows IS NULL OR batch_rows NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'batch_rows must be from 1 to 100,000',
            DETAIL = format('It is %s.', coalesce(batch_rows::text, 'null')),
            HINT = 'Leave it out: a transaction then moves some thousand rows.';
    END IF;
    SELECT a.attname INTO missing
      FROM pg_attribute a
     WHERE a.attrelid = 'stock.ledger_archive'::regclass AND a.attgenerated <> ''
       AND EXISTS (SELECT FROM pg_attribute g
                    WHERE g.attrelid = 'stock.ledger'::regclass AND g.attname = a.attname
                      AND NOT g.attisdropped)
     LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the column "%s" of stock.ledger_archive is generated', missing),
            HINT = 'Make it a plain column: it is given what stock.ledger has there.';
    END IF;
    SELECT g.attname INTO missing
      FROM pg_attribute g
     WHERE g.attrelid = 'stock.ledger'::regclass AND g.attnum > 0 AND NOT g.attisdropped
       AND (g.attname IN ('lots', 'archived_at')
            OR NOT EXISTS (SELECT FROM pg_attribute a
                            WHERE a.attrelid = 'stock.ledger_archive'::regclass
                              AND a.attname = g.attname AND NOT a.attisdropped))
     LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('stock.ledger_archive lacks the column "%s" of stock.ledger', missing),
            HINT = 'ALTER TABLE stock.ledger_archive ADD COLUMN, so that nothing is lost; lots and '
                   'archived_at are taken there: RENAME yours.';
    END IF;
END
$$;
COMMENT ON FUNCTION stock.check_archive(interval, integer) IS
    'Raises unless stock.archive() can do what is asked: 22023, 25001, 25006, 55000.';

CREATE FUNCTION stock.make_archive_month(moment timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
DECLARE
    first constant timestamptz := date_trunc('month', moment);
    bound constant text := format('FOR VALUES FROM (%L) TO (%L)', first,
                                  first + interval '1 month');
    month text := 'ledger_archive_' || to_char(first, 'YYYY_MM');
    more integer := 1;
BEGIN
    IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'stock.ledger_archive'::regclass
                  AND pg_get_expr(c.relpartbound, c.oid) = bound) THEN
        RETURN;
    END IF;
    -- A month that was detached keeps its name.
    WHILE to_regclass('stock.' || month) IS NOT NULL LOOP
        more := more + 1;
        month := 'ledger_archive_' || to_char(first, 'YYYY_MM_') || more;
    END LOOP;
    -- To attach it stands in nobody's way; to create it as a part would.
    EXECUTE format('CREATE TABLE stock.%I (LIKE stock.ledger_archive INCLUDING GENERATED)', month);
    EXECUTE format('REVOKE ALL ON stock.%I FROM PUBLIC', month);
    EXECUTE format('COMMENT ON TABLE stock.%I IS %L', month,
                   format('Archived rows of the ledger of %s.', to_char(first, 'YYYY-MM')));
    EXECUTE format('CREATE INDEX %I ON stock.%I (key)', month || '_key', month);
    EXECUTE format('ALTER TABLE stock.%I REPLICA IDENTITY FULL', month);
    EXECUTE format('CREATE TRIGGER ledger_archive_is_append_only '
                   'BEFORE UPDATE OR DELETE OR TRUNCATE ON stock.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION stock.refuse_ledger_change()', month);
    EXECUTE format('ALTER TABLE stock.ledger_archive ATTACH PARTITION stock.%I %s', month, bound);
END
$$;
COMMENT ON FUNCTION stock.make_archive_month(timestamptz) IS
    'Makes the part of stock.ledger_archive for the month (UTC) of a moment, unless it is there.';

CREATE FUNCTION stock.closed_keys(
    candidates text[], cutoff timestamptz, OUT keys text[], OUT ledger_rows bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
-- Each key and level is looked up by its index, whatever is known of the tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
DECLARE
    feed stock.feed;
    oldest xid8;
BEGIN
    SELECT f.* INTO feed FROM stock.feed f
     WHERE f.emitted_at IS NOT NULL
       AND coalesce(current_setting('pg_stock.notify', true), 'worker') <> 'transaction';
    oldest := pg_snapshot_xmin(feed.seen);
    -- OFFSET keeps the tables from being read from end to end for all keys at once.
    SELECT coalesce(array_agg(k.key), '{}'), coalesce(sum(own.rows), 0)::bigint
      INTO keys, ledger_rows
      FROM unnest(candidates) AS k (key)
     CROSS JOIN LATERAL (
           SELECT count(*) AS rows,
                  bool_and(g.recorded_at < cutoff AND isfinite(g.recorded_at)
                           -- and it was sent
                           AND (g.xact >= oldest
                                AND NOT pg_visible_in_snapshot(g.xact, feed.seen)
                                AND (g.position > feed.first_position
                                     OR g.xact < feed.first_xact)) IS NOT TRUE) AS is_old
             FROM stock.ledger g WHERE g.key = k.key OFFSET 0) own
     WHERE own.is_old
       AND NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = k.key OFFSET 0)
       AND NOT EXISTS (SELECT FROM stock.waiting w WHERE w.key = k.key OFFSET 0)
       AND NOT EXISTS (SELECT FROM stock.shipment s WHERE s.key = k.key OFFSET 0);
END
$$;
COMMENT ON FUNCTION stock.closed_keys(text[], timestamptz) IS
    'Those of some keys of which nothing is open, nothing happened since, and all was sent; and '
    'how many ledger rows they have.';

CREATE FUNCTION stock.parts_of_balances(chosen text[]) RETURNS SETOF stock.balance_forward
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
WITH own AS (
    SELECT e.* FROM stock.entries() e WHERE e.key = ANY (chosen)
)
SELECT e.version, e.version, e.on_hand_delta, e.reserved_delta, e.waiting_delta,
       e.in_transit_delta, e.unsellable_delta, e.on_hand_after, e.reserved_after, e.safety_stock,
       e.buyer_limit, e.backorder_limit, e.on_sale_from, e.on_sale_until, e.frozen, e.min_life,
       e.near_expiry, CASE WHEN e.operation = 'track_lots' THEN e.version END, false, e.sku,
       e.location
  FROM own e
 UNION ALL
SELECT f.* FROM stock.balance_forward f
 WHERE (f.sku, f.location) IN (SELECT e.sku, e.location FROM own e)
$$;
COMMENT ON FUNCTION stock.parts_of_balances(text[]) IS
    'What the balances of the levels that keys concern are to be made of: their entries, and the '
    'balances that are there.';

CREATE FUNCTION stock.keys_of_broken_levels(chosen text[]) RETURNS text[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
WITH part AS (
    SELECT p.sku, p.location, p.from_version,
           lag(p.version) OVER (PARTITION BY p.sku, p.location
                                    ORDER BY p.from_version, p.version) AS before
      FROM stock.parts_of_balances(chosen) p
), broken AS (
    SELECT p.sku, p.location FROM part p
     WHERE coalesce(p.from_version <= coalesce(p.before, 0), true)
)
SELECT coalesce(array_agg(k.key), '{}')
  FROM unnest(chosen) AS k (key)
 WHERE EXISTS (SELECT FROM broken)
   AND EXISTS (SELECT FROM stock.ledger g
                WHERE g.key = k.key AND (g.sku, g.location) IN (TABLE broken) OFFSET 0)
$$;
COMMENT ON FUNCTION stock.keys_of_broken_levels(text[]) IS
    'Those of some keys whose levels have a version twice, or one that cannot be: what cannot be '
    'carried forward stays in the ledger, where stock.verify() names it.';

CREATE FUNCTION stock.carry_forward(chosen text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
BEGIN
    -- The balances of levels come last: a row that is in an opening balance does not count.
    INSERT INTO stock.balance_forward_lot AS f
    SELECT sum(m.on_hand), sum(m.reserved),
           (array_agg(m.frozen ORDER BY m.version DESC) FILTER (WHERE m.frozen IS NOT NULL))[1],
           coalesce(max(m.version) FILTER (WHERE m.frozen IS NOT NULL), 0),
           m.sku, m.location, m.lot
      FROM (SELECT e.sku, e.location, e.version, d.lot, d.on_hand_delta AS on_hand,
                   d.reserved_delta AS reserved, NULL::boolean AS frozen
              FROM stock.entries() e
              JOIN stock.ledger_lot d ON d.key = e.key AND d.position = e.position
             WHERE e.key = ANY (chosen)
             UNION ALL
            SELECT e.sku, e.location, e.version, e.lot, 0, 0, e.operation = 'freeze_lot'
              FROM stock.entries() e
             WHERE e.key = ANY (chosen) AND e.operation IN ('freeze_lot', 'unfreeze_lot')) m
     GROUP BY m.sku, m.location, m.lot
    -- what was only on the way to the level never lay there
    HAVING bool_or(m.on_hand <> 0 OR m.reserved <> 0 OR m.frozen IS NOT NULL)
        ON CONFLICT ON CONSTRAINT balance_forward_lot_pkey DO UPDATE
       SET on_hand = f.on_hand + excluded.on_hand, reserved = f.reserved + excluded.reserved,
           frozen = CASE WHEN excluded.version > f.version THEN excluded.frozen ELSE f.frozen END,
           version = greatest(f.version, excluded.version);
    INSERT INTO stock.balance_forward_buyer AS f
    SELECT sum(e.bought), e.sku, e.location, e.buyer
      FROM stock.entries() e
     WHERE e.key = ANY (chosen) AND e.buyer IS NOT NULL
     GROUP BY e.sku, e.location, e.buyer
    HAVING sum(e.bought) <> 0
        ON CONFLICT ON CONSTRAINT balance_forward_buyer_pkey DO UPDATE
       SET quantity = f.quantity + excluded.quantity;
    WITH part AS (
        SELECT p.*, CASE WHEN p.from_version = lag(p.version) OVER chain + 1 THEN 0 ELSE 1 END
                 AS begins
          FROM stock.parts_of_balances(chosen) p
        WINDOW chain AS (PARTITION BY p.sku, p.location ORDER BY p.from_version)
    ), run AS (
        SELECT p.*, sum(p.begins) OVER (PARTITION BY p.sku, p.location ORDER BY p.from_version)
                 AS run
          FROM part p
    )
    INSERT INTO stock.balance_forward AS f
    SELECT min(r.from_version), max(r.version), sum(r.on_hand_delta), sum(r.reserved_delta),
           sum(r.waiting_delta), sum(r.in_transit_delta), sum(r.unsellable_delta),
           (array_agg(r.on_hand_after ORDER BY r.version DESC))[1],
           (array_agg(r.reserved_after ORDER BY r.version DESC))[1],
           (array_agg(r.safety_stock ORDER BY r.version DESC)
              FILTER (WHERE r.safety_stock IS NOT NULL))[1],
           (array_agg(r.buyer_limit ORDER BY r.version DESC)
              FILTER (WHERE r.buyer_limit IS NOT NULL))[1],
           (array_agg(r.backorder_limit ORDER BY r.version DESC)
              FILTER (WHERE r.backorder_limit IS NOT NULL))[1],
           (array_agg(r.on_sale_from ORDER BY r.version DESC)
              FILTER (WHERE r.on_sale_from IS NOT NULL))[1],
           (array_agg(r.on_sale_until ORDER BY r.version DESC)
              FILTER (WHERE r.on_sale_until IS NOT NULL))[1],
           (array_agg(r.frozen ORDER BY r.version DESC) FILTER (WHERE r.frozen IS NOT NULL))[1],
           (array_agg(r.min_life ORDER BY r.version DESC)
              FILTER (WHERE r.min_life IS NOT NULL))[1],
           (array_agg(r.near_expiry ORDER BY r.version DESC)
              FILTER (WHERE r.near_expiry IS NOT NULL))[1],
           min(r.lots_since), bool_or(r.is_opening), r.sku, r.location
      FROM run r
     GROUP BY r.sku, r.location, r.run
        ON CONFLICT ON CONSTRAINT balance_forward_pkey DO UPDATE
       SET version = excluded.version, on_hand_delta = excluded.on_hand_delta,
           reserved_delta = excluded.reserved_delta, waiting_delta = excluded.waiting_delta,
           in_transit_delta = excluded.in_transit_delta,
           unsellable_delta = excluded.unsellable_delta, on_hand_after = excluded.on_hand_after,
           reserved_after = excluded.reserved_after, safety_stock = excluded.safety_stock,
           buyer_limit = excluded.buyer_limit, backorder_limit = excluded.backorder_limit,
           on_sale_from = excluded.on_sale_from, on_sale_until = excluded.on_sale_until,
           frozen = excluded.frozen, min_life = excluded.min_life,
           near_expiry = excluded.near_expiry, lots_since = excluded.lots_since,
           is_opening = excluded.is_opening
     WHERE f.version <> excluded.version;
    -- what has become a part of the run before it
    DELETE FROM stock.balance_forward f
     USING (SELECT o.sku, o.location, o.from_version,
                   max(o.version) OVER (PARTITION BY o.sku, o.location ORDER BY o.from_version
                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) >= o.version AS is_absorbed
              FROM stock.balance_forward o
             WHERE (o.sku, o.location) IN (SELECT g.sku, g.location FROM stock.ledger g
                                            WHERE g.key = ANY (chosen))) o
     WHERE o.is_absorbed AND f.sku = o.sku AND f.location = o.location
       AND f.from_version = o.from_version;
END
$$;
COMMENT ON FUNCTION stock.carry_forward(text[]) IS
    'Adds what the ledger rows of keys come to to the balances carried forward.';

CREATE FUNCTION stock.move_to_archive(chosen text[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    month timestamptz;
    columns text;
    values_of text;
    moved bigint;
BEGIN
    FOR month IN SELECT DISTINCT date_trunc('month', g.recorded_at, 'UTC')
                   FROM stock.ledger g WHERE g.key = ANY (chosen)
    LOOP
        PERFORM stock.make_archive_month(month);
    END LOOP;
    -- The shop may have added columns.
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
           string_agg('g.' || quote_ident(a.attname), ', ' ORDER BY a.attnum)
      INTO columns, values_of
      FROM pg_attribute a
     WHERE a.attrelid = 'stock.ledger'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    EXECUTE format('
        WITH gone AS (
            DELETE FROM stock.ledger g WHERE g.key = ANY ($1) RETURNING g.*
        ), gone_lots AS (
            DELETE FROM stock.ledger_lot m WHERE m.key = ANY ($1) RETURNING m.*
        ), of_row AS (
            SELECT m.key, m.position,
                   jsonb_agg(to_jsonb(m) - ''{key,position}''::text[] ORDER BY m.lot) AS lots
              FROM gone_lots m GROUP BY m.key, m.position
        ), kept AS (
            INSERT INTO stock.ledger_archive (archived_at, lots, %1$s)
            SELECT $2, o.lots, %2$s
              FROM gone g LEFT JOIN of_row o ON o.key = g.key AND o.position = g.position
            RETURNING 1
        )
        SELECT count(*) FROM kept', columns, values_of)
       INTO moved USING chosen, clock_timestamp();
    RETURN moved;
END
$$;
COMMENT ON FUNCTION stock.move_to_archive(text[]) IS
    'Moves the ledger rows of keys, and what they did to lots, to stock.ledger_archive; answers '
    'how many.';

CREATE FUNCTION stock.close_imports(chosen text[], cutoff timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- The key of an imported row ends with 64 digits; that of an imported order is its own.
UPDATE stock.import_batch b SET archived_at = clock_timestamp()
 WHERE b.archived_at IS NULL
   AND CASE b.mode WHEN 'hold' THEN b.started_at < cutoff
       ELSE EXISTS (SELECT FROM unnest(chosen) AS k (key)
                     WHERE k.key = 'pg_stock:import:' || b.batch || ':' || right(k.key, 64)) END
$$;
COMMENT ON FUNCTION stock.close_imports(text[], timestamptz) IS
    'Closes the batches whose rows may be among keys that are archived: which of them took effect '
    'is not known any more.';

CREATE FUNCTION stock.archive_keys(chosen text[], known_rows bigint, cutoff timestamptz)
RETURNS xid8
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
DECLARE
    latest xid8;
    skus text[];
    locations text[];
    moved bigint;
BEGIN
    WITH own AS MATERIALIZED (
        SELECT g.xact, g.position, g.sku, g.location FROM stock.ledger g WHERE g.key = ANY (chosen)
    )
    SELECT (SELECT max(o.xact) FROM own o
              LEFT JOIN stock.feed f ON true
             WHERE (o.position <= f.first_position AND o.xact >= f.first_xact) IS NOT TRUE),
           l.skus, l.locations INTO latest, skus, locations
      FROM (SELECT array_agg(c.sku) AS skus, array_agg(c.location) AS locations
              FROM (SELECT DISTINCT o.sku, o.location FROM own o WHERE o.sku IS NOT NULL) c) l;
    PERFORM stock.carry_forward(chosen);
    moved := stock.move_to_archive(chosen);
    PERFORM stock.close_imports(chosen, cutoff);
    -- Whoever acts on one of the keys does so with its levels locked, and looks again then; what
    -- is done to one without lines means the same without its past. The ledger only grows: as many
    -- rows as were found at first are the same ones.
    PERFORM FROM unnest(skus, locations) AS c (sku, location)
       JOIN stock.level l ON l.sku = c.sku AND l.location = c.location
      ORDER BY l.sku, l.location
        FOR NO KEY UPDATE OF l;
    IF moved <> known_rows OR EXISTS (SELECT FROM stock.ledger g WHERE g.key = ANY (chosen)) THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
            MESSAGE = 'a key came to life again while it was archived';
    END IF;
    RETURN latest;
END
$$;
COMMENT ON FUNCTION stock.archive_keys(text[], bigint, timestamptz) IS
    'Archives keys that have so many ledger rows; answers the last transaction that wrote one. '
    'Locks their levels until the transaction ends. 40001 where somebody acted on one meanwhile, '
    '55P03 where a level stays locked for a tenth of a second.';

CREATE FUNCTION stock.archive_batch(
    older_than interval, after xid8, after_key text, batch_rows integer
) RETURNS TABLE (
    keys bigint, ledger_rows bigint, reached xid8, reached_key text, more boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET session_replication_role = replica
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
#variable_conflict use_variable
DECLARE
    cutoff constant timestamptz := clock_timestamp() - older_than;
    begun constant xid8 := pg_snapshot_xmax(pg_current_snapshot());
    candidates text[];
    broken text[];
    closed record;
    latest xid8;
BEGIN
    PERFORM stock.check_archive(older_than, batch_rows);
    LOCK TABLE stock.balance_forward IN SHARE ROW EXCLUSIVE MODE;
    -- The oldest transactions come first; one may have written any number of rows.
    SELECT array_agg(DISTINCT b.key) FILTER (WHERE b.recorded_at < cutoff),
           (array_agg(b.xact ORDER BY b.xact DESC, b.key DESC))[1],
           (array_agg(b.key ORDER BY b.xact DESC, b.key DESC))[1]
      INTO candidates, reached, reached_key
      FROM (SELECT g.key, g.xact, g.recorded_at FROM stock.ledger g
             WHERE (g.xact, g.key) > (coalesce(after, '0'), coalesce(after_key, ''))
             ORDER BY g.xact, g.key LIMIT batch_rows) b;
    more := candidates IS NOT NULL;
    IF NOT more AND reached < begun THEN
        -- What comes later is younger; but what was restored has the numbers of another cluster.
        -- Those of it that this one has used by now are found once what lies between is old.
        reached := begun;
        reached_key := '';
        more := EXISTS (SELECT FROM stock.ledger g WHERE g.xact > begun);
    END IF;
    keys := 0;
    ledger_rows := 0;
    FOR attempt IN 1..3 LOOP
        SELECT * INTO closed FROM stock.closed_keys(candidates, cutoff);
        broken := stock.keys_of_broken_levels(closed.keys);
        IF broken <> '{}' THEN
            SELECT array_agg(k.key) INTO candidates
              FROM unnest(closed.keys) AS k (key) WHERE k.key <> ALL (broken);
            SELECT * INTO closed FROM stock.closed_keys(candidates, cutoff);
        END IF;
        EXIT WHEN closed.keys = '{}';
        BEGIN
            latest := stock.archive_keys(closed.keys, closed.ledger_rows, cutoff);
            UPDATE stock.feed f SET archived = greatest(f.archived, latest);
            keys := cardinality(closed.keys);
            ledger_rows := closed.ledger_rows;
            EXIT;
        -- A key came to life again, or a level stays locked: whoever is at it goes first.
        EXCEPTION WHEN serialization_failure OR lock_not_available OR deadlock_detected THEN
            NULL;
        END;
    END LOOP;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION stock.archive_batch(interval, xid8, text, integer) IS
    'Moves the keys of batch_rows ledger rows, those after a transaction and a key of it, to the '
    'archive, as far as nothing of them is open, and nothing happened to them within older_than. '
    'Answers how many keys and rows, where it came to, and whether there may be more. Keys that '
    'somebody acts on, or whose levels stay locked, are left to the next run. Locks the levels '
    'concerned, at its end, until the transaction ends.';

-- A procedure that commits can be neither SECURITY DEFINER nor carry SET: a loop around the
-- function, every name qualified.
CREATE PROCEDURE stock.archive(
    older_than interval DEFAULT '400 days', batch_rows integer DEFAULT 2000,
    INOUT keys bigint DEFAULT 0, INOUT ledger_rows bigint DEFAULT 0
) LANGUAGE plpgsql AS $$
DECLARE
    batch record;
    reached pg_catalog.xid8;
    reached_key text;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    keys := 0;
    ledger_rows := 0;
    LOOP
        SELECT * INTO batch
          FROM stock.archive_batch(older_than, reached, reached_key, batch_rows);
        COMMIT;
        reached := batch.reached;
        reached_key := batch.reached_key;
        keys := keys OPERATOR(pg_catalog.+) batch.keys;
        ledger_rows := ledger_rows OPERATOR(pg_catalog.+) batch.ledger_rows;
        EXIT WHEN NOT batch.more;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told
           OPERATOR(pg_catalog.>=) '1 s'::pg_catalog.interval THEN
            told := pg_catalog.clock_timestamp();
            RAISE NOTICE 'archive: % keys, % ledger rows', keys, ledger_rows;
        END IF;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE stock.archive(interval, integer, bigint, bigint) IS
    'Moves whole keys of which nothing is open, and to which nothing happened within older_than, '
    'from stock.ledger to stock.ledger_archive, the keys of some batch_rows (1 to 100,000) ledger '
    'rows in each transaction; what they came to is carried forward in stock.balance_forward. From '
    'then on such a key is not known any more: a repeat of it is a new request. What was not sent '
    'yet stays (stock.feed_lag). Answers how many keys and ledger rows. Ended at any moment, it '
    'has done whole batches. Not inside a transaction block.';

CREATE FUNCTION stock.schedule_archive(
    schedule text DEFAULT '37 3 * * *', older_than interval DEFAULT '400 days'
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM stock.check_archive(older_than, 1);
    RETURN stock.schedule_job('pg_stock archive', format('CALL stock.archive(%L)', older_than),
                              schedule);
END
$$;
COMMENT ON FUNCTION stock.schedule_archive(text, interval) IS
    'Has pg_cron call stock.archive(older_than) at each time of the schedule, at night unless said '
    'otherwise, as the role that calls this. Answers the number of the job. 0A000 where pg_cron is '
    'not in this database.';

CREATE FUNCTION stock.unschedule_archive() RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT stock.unschedule_job('pg_stock archive')
$$;
COMMENT ON FUNCTION stock.unschedule_archive() IS
    'Takes the job of stock.schedule_archive from pg_cron; false where the role that calls this '
    'has none. 0A000 where pg_cron is not in this database.';
