-- What the shop says beside what the stock says: units sold within a time, and units there.

CREATE TABLE stock.reconciliation (
    reconciliation  bigint      GENERATED ALWAYS AS IDENTITY,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz NOT NULL,
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    tolerance       bigint      NOT NULL,
    lines           bigint      NOT NULL,
    mismatches      bigint      NOT NULL,
    above_tolerance bigint      NOT NULL,
    sold_expected   numeric     NOT NULL,
    sold_actual     numeric     NOT NULL,
    actor           text        NOT NULL DEFAULT
                                CASE current_setting('role') WHEN 'none' THEN session_user::text
                                     ELSE current_setting('role') END,
    CONSTRAINT reconciliation_pkey PRIMARY KEY (reconciliation)
);
COMMENT ON TABLE stock.reconciliation IS
    'The last hundred comparisons of what the shop says with what the stock says, in sums.';
COMMENT ON SEQUENCE stock.reconciliation_reconciliation_seq IS
    'Numbers the rows of stock.reconciliation.';
COMMENT ON COLUMN stock.reconciliation.reconciliation IS 'The number of the comparison.';
COMMENT ON COLUMN stock.reconciliation.started_at IS 'When it began.';
COMMENT ON COLUMN stock.reconciliation.finished_at IS 'When it was through.';
COMMENT ON COLUMN stock.reconciliation.since IS 'Sales from this moment on were counted.';
COMMENT ON COLUMN stock.reconciliation.until IS 'Sales before this moment were counted.';
COMMENT ON COLUMN stock.reconciliation.tolerance IS
    'Differences of more units than that raise the alert drift.';
COMMENT ON COLUMN stock.reconciliation.lines IS 'Comparisons made.';
COMMENT ON COLUMN stock.reconciliation.mismatches IS 'Those that differed.';
COMMENT ON COLUMN stock.reconciliation.above_tolerance IS
    'Those that differed by more than the tolerance.';
COMMENT ON COLUMN stock.reconciliation.sold_expected IS 'Units sold in all, as the shop says.';
COMMENT ON COLUMN stock.reconciliation.sold_actual IS 'Units sold in all, as the ledger says.';
COMMENT ON COLUMN stock.reconciliation.actor IS 'Who asked.';
COMMENT ON CONSTRAINT reconciliation_pkey ON stock.reconciliation IS
    'Each comparison has a number.';

CREATE TABLE stock.reconciliation_line (
    reconciliation bigint NOT NULL,
    sku            text   NOT NULL COLLATE "C",
    location       text   NOT NULL COLLATE "C",
    what           text   NOT NULL COLLATE "C",
    expected       numeric NOT NULL,
    actual         numeric NOT NULL,
    mismatch       text,
    CONSTRAINT reconciliation_line_pkey PRIMARY KEY (reconciliation, sku, location, what)
);
COMMENT ON TABLE stock.reconciliation_line IS
    'What differed in the comparisons of stock.reconciliation; of the last one also what agreed.';
COMMENT ON COLUMN stock.reconciliation_line.reconciliation IS 'The comparison.';
COMMENT ON COLUMN stock.reconciliation_line.sku IS 'The SKU.';
COMMENT ON COLUMN stock.reconciliation_line.location IS
    'The location; empty: all locations of the SKU together.';
COMMENT ON COLUMN stock.reconciliation_line.what IS 'sold or on_hand.';
COMMENT ON COLUMN stock.reconciliation_line.expected IS 'Units, as the shop says.';
COMMENT ON COLUMN stock.reconciliation_line.actual IS 'Units, as the stock says.';
COMMENT ON COLUMN stock.reconciliation_line.mismatch IS
    'sold_less: orders were not deducted; sold_more: units were deducted that the shop knows no '
    'order for; on_hand_less, on_hand_more; unknown_level; NULL: they agree.';
COMMENT ON CONSTRAINT reconciliation_line_pkey ON stock.reconciliation_line IS
    'One row for each level and thing that was compared.';

SELECT pg_catalog.pg_extension_config_dump('stock.reconciliation', '');
SELECT pg_catalog.pg_extension_config_dump('stock.reconciliation_line', '');
SELECT pg_catalog.pg_extension_config_dump('stock.reconciliation_reconciliation_seq', '');

CREATE FUNCTION stock.send_alert(message text) RETURNS void
LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'send_alert_wrapper';
COMMENT ON FUNCTION stock.send_alert(text) IS
    'Sends a message on the alert channel when the transaction commits, unless pg_stock.notify is '
    'off.';

CREATE FUNCTION stock.check_shop(shop jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    form constant text := 'Give an array like [{"sku": "A-1", "location": "main", "sold": 12, '
                          '"on_hand": 3}]; without location all of the SKU are meant; sold or '
                          'on_hand may be left out.';
    path text;
    fault text;
BEGIN
    IF jsonb_typeof(shop) <> 'array' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'shop must be an array', HINT = form;
    END IF;
    SELECT 'shop[' || c.place - 1 || ']', c.fault INTO path, fault FROM (
    SELECT e.place, CASE
           WHEN jsonb_typeof(e.item) <> 'object' THEN ' must be an object'
           WHEN e.item - '{sku,location,sold,on_hand}'::text[] <> '{}'
           THEN format(' has an unknown field "%s"', (SELECT min(k) FROM jsonb_object_keys(
                           e.item - '{sku,location,sold,on_hand}'::text[]) k))
           WHEN coalesce(jsonb_typeof(e.item -> 'sku'), '') <> 'string'
             OR octet_length(e.item ->> 'sku') NOT BETWEEN 1 AND 200
           THEN '.sku must be a name of 1 to 200 bytes'
           WHEN coalesce(jsonb_typeof(e.item -> 'location'), 'null') NOT IN ('string', 'null')
             OR octet_length(e.item ->> 'location') NOT BETWEEN 1 AND 200
           THEN '.location must be a name of 1 to 200 bytes'
           WHEN e.item -> 'sold' IS NULL AND e.item -> 'on_hand' IS NULL
           THEN ' must say sold or on_hand'
           WHEN NOT stock.is_units(e.item -> 'sold') THEN '.sold must be a whole number'
           WHEN NOT stock.is_units(e.item -> 'on_hand') THEN '.on_hand must be a whole number'
           WHEN count(*) OVER (PARTITION BY e.item ->> 'sku', e.item ->> 'location') > 1
           THEN ' names a level that another names, too' END AS fault
      FROM jsonb_array_elements(shop) WITH ORDINALITY AS e (item, place)
    ) c WHERE c.fault IS NOT NULL ORDER BY c.place LIMIT 1;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = path || fault, HINT = form;
    END IF;
END
$$;
COMMENT ON FUNCTION stock.check_shop(jsonb) IS
    'Raises 22023 with the path of the fault unless stock.reconcile() can take it.';

CREATE FUNCTION stock.is_units(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN value IS NULL THEN true
            WHEN jsonb_typeof(value) <> 'number' THEN false
            ELSE value::numeric % 1 = 0 AND abs(value::numeric) <= 1e15 END
$$;
COMMENT ON FUNCTION stock.is_units(jsonb) IS
    'Whether a value is a number of units, or not given.';

CREATE FUNCTION stock.compare_stock(shop jsonb, since timestamptz, until timestamptz)
RETURNS TABLE (sku text, location text, what text, expected numeric, actual numeric, mismatch text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
-- Nothing is known of what the shop says: as many rows on both sides, and no loop in a loop. What
-- such a plan is taken to cost would have it compiled, each time.
SET enable_nestloop = off SET jit = off AS $$
WITH said AS (
    SELECT (e.item ->> 'sku') COLLATE "C" AS sku,
           (e.item ->> 'location') COLLATE "C" AS location,
           (e.item ->> 'sold')::numeric AS sold, (e.item ->> 'on_hand')::numeric AS on_hand
      FROM jsonb_array_elements($1) AS e (item)
), sale AS (
    SELECT g.sku, g.location,
           sum(CASE g.operation WHEN 'confirm' THEN g.quantity ELSE -g.quantity END) AS units
      FROM (SELECT l.sku, l.location, l.operation, l.quantity, l.recorded_at FROM stock.ledger l
             UNION ALL
            SELECT a.sku, a.location, a.operation, a.quantity, a.recorded_at
              FROM stock.ledger_archive a) g
     WHERE g.operation IN ('confirm', 'return') AND g.recorded_at >= $2 AND g.recorded_at < $3
     GROUP BY g.sku, g.location
), named AS (
    -- what the shop says of each level, or of a SKU in all its locations
    SELECT s.sku, s.location, s.sold, s.on_hand, coalesce(a.units, w.units) AS was_sold,
           coalesce(l.on_hand, k.on_hand) AS is_there
      FROM said s
      LEFT JOIN sale a ON a.sku = s.sku AND a.location = s.location
      LEFT JOIN (SELECT a.sku, sum(a.units) AS units FROM sale a GROUP BY a.sku) w
        ON w.sku = s.sku AND s.location IS NULL
      LEFT JOIN stock.level l ON l.sku = s.sku AND l.location = s.location
      LEFT JOIN (SELECT l.sku, sum(l.on_hand) AS on_hand FROM stock.level l GROUP BY l.sku) k
        ON k.sku = s.sku AND s.location IS NULL
)
SELECT n.sku, coalesce(n.location, ''), w.what, w.expected, coalesce(w.actual, 0),
       CASE WHEN n.is_there IS NULL THEN 'unknown_level'
            WHEN coalesce(w.actual, 0) < w.expected THEN w.what || '_less'
            WHEN w.actual > w.expected THEN w.what || '_more' END
  FROM named n
 CROSS JOIN LATERAL (VALUES ('sold', n.sold, n.was_sold), ('on_hand', n.on_hand, n.is_there))
         AS w (what, expected, actual)
 WHERE w.expected IS NOT NULL
UNION ALL
-- what was sold, and the shop does not say anything of
SELECT a.sku, a.location, 'sold', 0, a.units, 'sold_more'
  FROM sale a
 WHERE a.units <> 0
   AND (NOT EXISTS (SELECT FROM said) OR EXISTS (SELECT FROM said s WHERE s.sold IS NOT NULL))
   AND NOT EXISTS (SELECT FROM said s WHERE s.sku = a.sku AND s.location = a.location)
   AND NOT EXISTS (SELECT FROM said s WHERE s.sku = a.sku AND s.location IS NULL)
$$;
COMMENT ON FUNCTION stock.compare_stock(jsonb, timestamptz, timestamptz) IS
    'What stock.reconcile() answers.';

CREATE FUNCTION stock.reconcile(
    shop jsonb, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    tolerance bigint DEFAULT 0
) RETURNS TABLE (
    sku text, location text, what text, expected bigint, actual bigint, difference bigint,
    mismatch text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    said jsonb := coalesce(shop, '[]');
    own bigint;
BEGIN
    PERFORM stock.check_primary();
    PERFORM stock.check_shop(said);
    IF since IS NULL OR until IS NULL OR since >= until OR tolerance IS NULL OR tolerance < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'since must be before until, and tolerance 0 or more',
            DETAIL = format('They are %s, %s and %s.', coalesce(since::text, 'null'),
                            coalesce(until::text, 'null'), coalesce(tolerance::text, 'null')),
            HINT = 'Leave out what does not matter.';
    END IF;
    -- One at a time: they would meet at the alerts of their levels.
    LOCK TABLE stock.reconciliation IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO stock.reconciliation
           (started_at, finished_at, since, until, tolerance, lines, mismatches, above_tolerance,
            sold_expected, sold_actual)
    VALUES (clock_timestamp(), clock_timestamp(), since, until, tolerance, 0, 0, 0, 0, 0)
    RETURNING reconciliation INTO own;
    INSERT INTO stock.reconciliation_line
    SELECT own, c.sku, c.location, c.what, c.expected, c.actual, c.mismatch
      FROM stock.compare_stock(said, since, until) c;
    UPDATE stock.reconciliation r
       SET finished_at = clock_timestamp(), lines = s.lines, mismatches = s.mismatches,
           above_tolerance = s.above, sold_expected = s.expected, sold_actual = s.actual
      FROM (SELECT count(*) AS lines, count(l.mismatch) AS mismatches,
                   count(*) FILTER (WHERE abs(l.actual - l.expected) > tolerance) AS above,
                   coalesce(sum(l.expected) FILTER (WHERE l.what = 'sold'), 0) AS expected,
                   coalesce(sum(l.actual) FILTER (WHERE l.what = 'sold'), 0) AS actual
              FROM stock.reconciliation_line l WHERE l.reconciliation = own) s
     WHERE r.reconciliation = own;
    PERFORM stock.alert_of_drift(own, tolerance,
                                 said = '[]' OR jsonb_path_exists(said, '$[*].sold'));
    DELETE FROM stock.reconciliation_line l
     WHERE l.reconciliation < own AND (l.mismatch IS NULL OR l.reconciliation <= own - 100);
    DELETE FROM stock.reconciliation r WHERE r.reconciliation <= own - 100;
    RETURN QUERY
    SELECT l.sku, l.location, l.what, l.expected::bigint, l.actual::bigint,
           (l.actual - l.expected)::bigint, l.mismatch
      FROM stock.reconciliation_line l
     WHERE l.reconciliation = own
     ORDER BY l.mismatch IS NULL, abs(l.actual - l.expected) DESC, l.sku, l.location, l.what;
END
$$;
COMMENT ON FUNCTION stock.reconcile(jsonb, timestamptz, timestamptz, bigint) IS
    'Compares what the shop says with what the stock says: [{"sku", "location", "sold", '
    '"on_hand"}]. sold: units of paid orders, less those that came back, beside the confirms and '
    'returns of the ledger from since until before until; on_hand: units in the warehouse beside '
    'those of the level now. Without location all of a SKU are meant. What was sold of levels '
    'that are not named is a mismatch, too, where anything is said of sales. A row for each '
    'comparison, those that differ first; kept in stock.reconciliation and '
    'stock.reconciliation_line. A difference above the tolerance raises the alert drift, whose '
    'end the first comparison tells that finds it within. Changes no stock. Reads the ledger from '
    'its beginning to its end, and of the archive the months that since and until leave.';

CREATE FUNCTION stock.alert_of_drift(own bigint, tolerance bigint, of_sales boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off SET jit = off AS $$
BEGIN
    WITH compared AS (
        SELECT l.sku, l.location, bool_or(abs(l.actual - l.expected) > tolerance) AS drifts,
               jsonb_object_agg(l.what, l.actual - l.expected) AS differences
          FROM stock.reconciliation_line l WHERE l.reconciliation = own
         GROUP BY l.sku, l.location
    ), latest AS (
        -- what was wrong last with levels that are not compared now
        SELECT DISTINCT ON (l.sku, l.location) l.sku, l.location, l.what
          FROM stock.reconciliation_line l
         WHERE of_sales AND l.mismatch IS NOT NULL AND l.reconciliation < own
         ORDER BY l.sku, l.location, l.reconciliation DESC, l.what
    ), begun AS (
        INSERT INTO stock.alert (sku, location, alert, since)
        SELECT c.sku, c.location, 'drift', clock_timestamp() FROM compared c WHERE c.drifts
            ON CONFLICT DO NOTHING
        RETURNING alert.sku, alert.location, 'drift' AS alert
    ), over AS (
        SELECT c.sku, c.location FROM compared c WHERE NOT c.drifts
         UNION ALL
        -- of which nothing was sold in this time, and the shop says nothing: they agree
        SELECT t.sku, t.location FROM latest t
          LEFT JOIN compared c ON c.sku = t.sku AND c.location = t.location
         WHERE t.what = 'sold' AND c.sku IS NULL
    ), ended AS (
        DELETE FROM stock.alert a USING over o
         WHERE a.sku = o.sku AND a.location = o.location AND a.alert = 'drift' AND a.lot = ''
        RETURNING a.sku, a.location, 'drift_ended' AS alert
    ), told AS (
        SELECT * FROM begun UNION ALL SELECT * FROM ended ORDER BY sku, location LIMIT 1000
    )
    SELECT count(stock.send_alert(jsonb_build_object('alerts', jsonb_build_array(
               jsonb_build_object('alert', t.alert, 'sku', t.sku, 'location', t.location)
                 || coalesce(c.differences, '{}')))::text))
      FROM told t LEFT JOIN compared c ON c.sku = t.sku AND c.location = t.location INTO own;
END
$$;
COMMENT ON FUNCTION stock.alert_of_drift(bigint, bigint, boolean) IS
    'Begins and ends the alerts of a comparison, of sales or not, and tells of up to 1,000 of '
    'them.';

CREATE FUNCTION stock.reconcile_source(
    source regclass, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    tolerance bigint DEFAULT 0
) RETURNS TABLE (
    sku text, location text, what text, expected bigint, actual bigint, difference bigint,
    mismatch text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields text;
    known text[];
    said jsonb;
BEGIN
    SELECT array_agg(a.attname::text),
           string_agg(format('%L, s.%I' || CASE WHEN a.attname IN ('sku', 'location')
                                                THEN '::text' ELSE '' END, a.attname, a.attname),
                      ', ')
      INTO known, fields
      FROM pg_attribute a
     WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attname IN ('sku', 'location', 'sold', 'on_hand');
    IF known IS NULL OR NOT known @> '{sku}' OR NOT known && '{sold,on_hand}' THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = coalesce(source || ' has no column sku, or neither sold nor on_hand',
                               'source must not be null'),
            HINT = 'Name a table or view with the columns sku, location, sold and on_hand; '
                   'location and one of the last two may be missing.';
    END IF;
    EXECUTE format('SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(%s))) FROM %s s',
                   fields, stock.full_name(source))
       INTO said;
    RETURN QUERY SELECT * FROM stock.reconcile(said, since, until, tolerance);
END
$$;
COMMENT ON FUNCTION stock.reconcile_source(regclass, timestamptz, timestamptz, bigint) IS
    'As stock.reconcile(), of the rows of a table or view with the columns sku, location, sold and '
    'on_hand, which is read with the rights of the caller, and with the search path pg_catalog.';

CREATE FUNCTION stock.schedule_reconciliation(
    source regclass, span interval DEFAULT '1 day', tolerance bigint DEFAULT 0,
    schedule text DEFAULT '30 3 * * *'
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF source IS NULL OR span IS NULL OR span <= '0' OR tolerance IS NULL OR tolerance < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'source must be named, span more than 0, and tolerance 0 or more',
            HINT = 'Give a table or view, ''1 day'', and a number of units.';
    END IF;
    RETURN stock.schedule_job('pg_stock reconciliation', format(
        'SELECT count(*) FROM stock.reconcile_source(%L, date_trunc(''day'', now()) - '
        'interval %L, date_trunc(''day'', now()), %s)', source, span, tolerance), schedule);
END
$$;
COMMENT ON FUNCTION stock.schedule_reconciliation(regclass, interval, bigint, text) IS
    'Has pg_cron compare, as stock.reconcile_source(), the span that ended at midnight, as the '
    'role that calls this: the source says what was sold in it. Answers the number of the job. '
    '0A000 where pg_cron is not in this database.';

CREATE FUNCTION stock.unschedule_reconciliation() RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT stock.unschedule_job('pg_stock reconciliation')
$$;
COMMENT ON FUNCTION stock.unschedule_reconciliation() IS
    'Takes the job of stock.schedule_reconciliation from pg_cron; false where the role that calls '
    'this has none. 0A000 where pg_cron is not in this database.';
