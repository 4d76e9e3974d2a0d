-- From 0.1.0 to 0.2.0.

-- Nothing in this script is looked up anywhere else, whatever the caller's search_path was.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- Says who is behind, the library or the database; and looks at a deadline of -infinity.
CREATE OR REPLACE FUNCTION stock.health(
    doubtful_after interval DEFAULT '1 day', transaction_age interval DEFAULT '1 hour'
) RETURNS TABLE (
    name text, ok boolean, value text, "limit" text, message text, hint text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    runs record;
    feed record;
    last record;
BEGIN
    IF doubtful_after IS NULL OR transaction_age IS NULL
       OR least(doubtful_after, transaction_age) < '0'::interval
       OR greatest(doubtful_after, transaction_age) > '100 years'::interval THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'doubtful_after and transaction_age must be from 0 to 100 years',
            DETAIL = format('They are %s and %s.', coalesce(doubtful_after::text, 'null'),
                            coalesce(transaction_age::text, 'null')),
            HINT = 'Give intervals, ''1 day'' and ''1 hour'' say.';
    END IF;
    SELECT * INTO runs FROM stock.worker_status();

    name := 'version';
    "limit" := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pg_stock');
    value := stock.library_version();
    ok := value = "limit";
    message := 'the version of the library, and that of what is installed in this database';
    hint := CASE WHEN ok THEN NULL
                 WHEN string_to_array(substring(value, '^[0-9]+(?:[.][0-9]+)*'), '.')::integer[]
                      > string_to_array(substring("limit", '^[0-9]+(?:[.][0-9]+)*'), '.')::integer[]
                 THEN 'The database is behind: ALTER EXTENSION pg_stock UPDATE.'
                 ELSE 'The library is behind: install that of the database, and restart the server '
                      'where it is preloaded; else connect anew.' END;
    RETURN NEXT;

    name := 'preload';
    ok := runs.preloaded;
    value := ok::text;
    "limit" := 'true';
    message := 'whether the library is in shared_preload_libraries: else there is no worker, and '
               'nothing is counted';
    hint := CASE WHEN NOT ok THEN 'Add pg_stock to shared_preload_libraries and restart.' END;
    RETURN NEXT;

    name := 'worker';
    -- On a standby there is none, and a restored database gets one with its first change.
    ok := runs.error IS NULL AND (runs.state IN ('working', 'nothing_yet') OR pg_is_in_recovery());
    value := runs.state;
    "limit" := 'working';
    message := coalesce('the background worker of this database: ' || runs.error,
                        'the background worker of this database');
    hint := CASE WHEN NOT ok THEN 'See stock.worker, and the log of the server; or have pg_cron '
                                  'call stock.expire_all() and stock.emit_changes().' END;
    RETURN NEXT;

    SELECT l.error, l.changes_behind, coalesce(l.oldest_unsent_for, '0') AS behind
      INTO feed FROM stock.feed_lag l;
    name := 'notifications';
    ok := feed.error IS NULL;
    value := coalesce(feed.error, 'flowing');
    "limit" := 'flowing';
    message := 'whether something keeps the change feed from being sent';
    hint := CASE WHEN NOT ok THEN 'See stock.feed_lag.' END;
    RETURN NEXT;

    name := 'feed_behind';
    ok := coalesce(feed.behind <= interval '1 minute', true);
    value := coalesce(feed.behind, '0')::text;
    "limit" := '00:01:00';
    message := format('how long the oldest of %s changes has waited to be sent',
                      coalesce(feed.changes_behind, 0));
    hint := CASE WHEN NOT ok THEN 'See stock.feed_lag: whether a worker runs, or waits for a '
                                  'standby.' END;
    RETURN NEXT;

    -- Before PostgreSQL 17 no interval is infinite.
    SELECT count(*) AS holds,
           coalesce(CASE WHEN isfinite(min(h.expires_at)) THEN moment - min(h.expires_at)
                         ELSE min('10000 years'::interval) END, '0') AS longest INTO last
      FROM stock.hold h WHERE h.expires_at <= moment;
    name := 'overdue_holds';
    ok := last.longest <= interval '5 minutes';
    value := last.longest::text;
    "limit" := '00:05:00';
    message := format('how long the oldest of %s overdue holds has not been given back',
                      last.holds);
    hint := CASE WHEN NOT ok THEN 'No unit is lost: an overdue hold counts as free. See '
                                  'stock.overdue for what keeps it, or '
                                  'CALL stock.expire_all().' END;
    RETURN NEXT;

    SELECT count(*) AS keys INTO last FROM stock.doubtful_reservations(doubtful_after);
    name := 'doubtful_reservations';
    ok := last.keys = 0;
    value := last.keys::text;
    "limit" := '0';
    message := format('reservations made more than %s ago that still hold something',
                      doubtful_after);
    hint := CASE WHEN NOT ok THEN 'Compare stock.doubtful_reservations() with the orders, and '
                                  'stock.settle(orders).' END;
    RETURN NEXT;

    name := 'notify_queue';
    value := round((100 * pg_notification_queue_usage())::numeric, 1) || ' %';
    ok := pg_notification_queue_usage() < 0.02;
    "limit" := '2 %';
    message := 'how full the queue of NOTIFY is, in all databases: when it is full, commits fail '
               'that notify';
    hint := CASE WHEN NOT ok THEN 'A session that listens has a transaction open: see '
                                  'pg_stat_activity.' END;
    RETURN NEXT;

    SELECT s.relname, s.n_dead_tup INTO last
      FROM pg_stat_all_tables s
     WHERE s.schemaname = 'stock'
       AND s.n_dead_tup > 50000 + s.n_live_tup
     ORDER BY s.n_dead_tup DESC LIMIT 1;
    name := 'autovacuum';
    ok := last.relname IS NULL;
    value := coalesce(last.n_dead_tup || ' dead rows in stock.' || last.relname, 'keeps up');
    "limit" := '50000 + the live ones';
    message := 'whether autovacuum keeps up with the tables of stock';
    hint := CASE WHEN NOT ok THEN 'VACUUM it; then look for what holds autovacuum back: an old '
                                  'snapshot, or its settings.' END;
    RETURN NEXT;

    SELECT s.pid, moment - s.xact_start AS since INTO last
      FROM pg_stat_activity s
     WHERE s.backend_xmin IS NOT NULL AND s.pid <> pg_backend_pid()
       AND coalesce(s.datname, current_database()) = current_database()
       -- what vacuums holds nothing back
       AND s.backend_type <> 'autovacuum worker' AND s.query !~* '^\s*vacuum'
     ORDER BY s.xact_start LIMIT 1;
    name := 'old_snapshots';
    ok := coalesce(last.since <= transaction_age, true);
    value := coalesce(last.since, '0')::text;
    "limit" := transaction_age::text;
    message := 'the age of the oldest snapshot'
               || coalesce(', that of process ' || last.pid, '')
               || ': what is dead since cannot be cleaned away';
    hint := CASE WHEN NOT ok THEN 'End that transaction; idle_in_transaction_session_timeout '
                                  'bounds them.' END;
    RETURN NEXT;

    SELECT count(*) AS many, coalesce(moment - min(p.prepared), '0') AS since INTO last
      FROM pg_prepared_xacts p;
    name := 'prepared_transactions';
    ok := last.since <= transaction_age;
    value := last.since::text;
    "limit" := transaction_age::text;
    message := format('the age of the oldest of %s prepared transactions: what it locked stays '
                      'locked', last.many);
    hint := CASE WHEN NOT ok THEN 'See pg_prepared_xacts; COMMIT PREPARED or '
                                  'ROLLBACK PREPARED.' END;
    RETURN NEXT;

    -- The last run that looked at all, and what was found since in what has changed.
    SELECT w.finished_at, greatest(w.problems, since.problems) AS problems,
           coalesce(since.first, w.first) AS first INTO last
      FROM (SELECT v.* FROM stock.verification v WHERE v.since IS NULL
             ORDER BY v.verification DESC LIMIT 1) w
     CROSS JOIN LATERAL (SELECT max(v.problems) AS problems, max(v.first) AS first
                           FROM stock.verification v
                          WHERE v.verification > w.verification) since;
    name := 'verification';
    ok := CASE WHEN last.finished_at IS NULL THEN NOT EXISTS (SELECT FROM stock.ledger)
               ELSE last.problems = 0 AND last.finished_at > moment - interval '8 days' END;
    value := coalesce(last.problems || ' problems at ' || last.finished_at, 'never');
    "limit" := '0 problems within 8 days';
    message := coalesce(last.first, 'what the last run of stock.run_verification() found');
    hint := CASE WHEN NOT ok AND last.problems > 0
                 THEN 'SELECT * FROM stock.verify() says what was changed by hand; stock.repair() '
                      'puts it right.'
                 WHEN NOT ok THEN 'SELECT stock.run_verification(), or have pg_cron do it: '
                                  'stock.schedule_verification().' END;
    RETURN NEXT;
END
$$;

-- A column that the archive alone has may be generated; one that the ledger has, too, is refused
-- before anything is moved.
CREATE OR REPLACE FUNCTION stock.make_archive_month(moment timestamptz) RETURNS void
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

CREATE OR REPLACE FUNCTION stock.check_archive(older_than interval, batch_rows integer) RETURNS void
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

-- Before PostgreSQL 17 no interval is infinite.
CREATE OR REPLACE VIEW stock.overdue AS
SELECT h.key, h.line, h.sku, h.location, h.quantity, h.buyer, h.expires_at,
       CASE WHEN pg_catalog.isfinite(h.expires_at)
            THEN pg_catalog.clock_timestamp() - h.expires_at END AS overdue_for,
       e.attempts, e.retry_at, e.sqlstate, e.message
  FROM stock.hold h
  LEFT JOIN stock.hold_error e ON e.key = h.key AND e.line = h.line
 WHERE greatest(h.expires_at, '-infinity') <= (SELECT pg_catalog.clock_timestamp());
COMMENT ON COLUMN stock.overdue.overdue_for IS 'For how long; NULL: for ever.';

CREATE OR REPLACE VIEW stock.shipments AS
SELECT s.key, s.sku, s.from_location, s.to_location, s.quantity, s.dispatched_at,
       CASE WHEN pg_catalog.isfinite(s.dispatched_at)
            THEN pg_catalog.clock_timestamp() - s.dispatched_at END AS on_the_way_for
  FROM stock.shipment s;
COMMENT ON COLUMN stock.shipments.on_the_way_for IS
    'How long ago that was; NULL: for ever.';

CREATE OR REPLACE VIEW stock.feed_lag AS
SELECT setting.notify, f.generation, f.sequence, f.emitted_at,
       behind.changes AS changes_behind, behind.oldest AS oldest_unsent_at,
       CASE WHEN pg_catalog.isfinite(behind.oldest)
            THEN pg_catalog.clock_timestamp() - behind.oldest END AS oldest_unsent_for,
       f.failed_at,
       CASE WHEN f.error IS NOT NULL THEN f.error
            WHEN behind.changes > 0 AND setting.notify = 'worker' THEN CASE w.state
            WHEN 'not_preloaded'
            THEN 'no worker runs: add pg_stock to shared_preload_libraries, or call '
                 'stock.emit_changes()'
            WHEN 'not_served'
            THEN 'no worker runs: pg_stock.databases does not name this database; or call '
                 'stock.emit_changes()'
            WHEN 'no_worker'
            THEN 'no worker runs: one is being started, or no slot is left for it (see the log)'
            WHEN 'read_only'
            THEN 'the worker waits: the database is read-only'
            WHEN 'subscription'
            THEN 'the worker waits: a subscription fills the tables' END END AS error
  FROM stock.feed f
 CROSS JOIN stock.worker w
 CROSS JOIN (SELECT coalesce(pg_catalog.current_setting('pg_stock.notify', true), 'worker')
                      AS notify) setting
 CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) AS changes, pg_catalog.min(unsent.recorded_at) AS oldest
         FROM (SELECT g.recorded_at
                 FROM stock.ledger g
                WHERE setting.notify <> 'transaction'
                  AND g.xact >= pg_catalog.pg_snapshot_xmin(f.seen)
                  AND NOT pg_catalog.pg_visible_in_snapshot(g.xact, f.seen)
                  AND (g.position > f.first_position OR g.xact < f.first_xact)
                ORDER BY g.xact
                LIMIT 100000) unsent) behind;
COMMENT ON COLUMN stock.feed_lag.oldest_unsent_for IS
    'How long ago that was; NULL: none, or for ever.';
