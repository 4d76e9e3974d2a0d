-- Is all well? One row for each thing that must be so; and the runs of verify() that are kept.

CREATE TABLE stock.verification (
    verification bigint      GENERATED ALWAYS AS IDENTITY,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    since        timestamptz,
    problems     bigint      NOT NULL,
    first        text,
    CONSTRAINT verification_pkey PRIMARY KEY (verification)
);
COMMENT ON TABLE stock.verification IS
    'What the last hundred runs of stock.run_verification() found. pg_dump leaves it out: it is of '
    'this server.';
COMMENT ON SEQUENCE stock.verification_verification_seq IS
    'Numbers the rows of stock.verification.';
COMMENT ON COLUMN stock.verification.verification IS 'The number of the run.';
COMMENT ON COLUMN stock.verification.started_at IS 'When it began.';
COMMENT ON COLUMN stock.verification.finished_at IS 'When it was through.';
COMMENT ON COLUMN stock.verification.since IS
    'Only levels were looked at that had changed since; NULL: all were.';
COMMENT ON COLUMN stock.verification.problems IS 'How many rows stock.verify() had.';
COMMENT ON COLUMN stock.verification.first IS
    'One of them, without keys and buyers; NULL: there was none.';
COMMENT ON CONSTRAINT verification_pkey ON stock.verification IS 'Each run has a number.';

CREATE FUNCTION stock.run_verification(incremental boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    begun timestamptz := clock_timestamp();
    since timestamptz;
    problems bigint;
    one text;
    own bigint;
BEGIN
    PERFORM stock.check_primary();
    IF incremental THEN
        SELECT v.started_at INTO since
          FROM stock.verification v ORDER BY v.verification DESC LIMIT 1;
    END IF;
    -- Whoever watches sees no key and no buyer: what stands in brackets is left out. A transaction
    -- that was open then may have written an earlier moment.
    SELECT count(*), min(concat_ws(' ', regexp_replace(v.problem, ' ?\(.*\)', ''),
                                   '(' || v.sku || ', ' || v.location || ')'))
      INTO problems, one FROM stock.verify(since - interval '1 hour') v;
    INSERT INTO stock.verification (started_at, finished_at, since, problems, first)
    VALUES (begun, clock_timestamp(), since, problems, one)
    RETURNING verification INTO own;
    -- The last hundred, and the last that looked at all.
    DELETE FROM stock.verification v
     WHERE v.verification <= own - 100
       AND v.verification <> (SELECT max(w.verification) FROM stock.verification w
                               WHERE w.since IS NULL);
    RETURN problems;
END
$$;
COMMENT ON FUNCTION stock.run_verification(boolean) IS
    'Runs stock.verify() and keeps how many problems it found, for stock.health() and for '
    'stock.verification. Answers that number. Reads everything, locks nothing. incremental: only '
    'the levels that have changed since the last run, and in the hour before it; all if there was '
    'none.';

CREATE FUNCTION stock.schedule_verification(
    schedule text DEFAULT '17 3 * * *', incremental boolean DEFAULT false
) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN incremental
            THEN stock.schedule_job('pg_stock incremental verification',
                                    'SELECT stock.run_verification(true)', schedule)
            ELSE stock.schedule_job('pg_stock verification', 'SELECT stock.run_verification()',
                                    schedule) END
$$;
COMMENT ON FUNCTION stock.schedule_verification(text, boolean) IS
    'Has pg_cron call stock.run_verification(incremental) at each time of the schedule, at night '
    'unless said otherwise, as the role that calls this: the two are jobs beside each other. '
    'Answers the number of the job. 0A000 where pg_cron is not in this database.';

CREATE FUNCTION stock.unschedule_verification() RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT bool_or(j.done)
  FROM unnest('{pg_stock verification,pg_stock incremental verification}'::text[]) AS n (name)
 CROSS JOIN LATERAL (SELECT stock.unschedule_job(n.name)) AS j (done)
$$;
COMMENT ON FUNCTION stock.unschedule_verification() IS
    'Takes the jobs of stock.schedule_verification from pg_cron; false where the role that calls '
    'this has none. 0A000 where pg_cron is not in this database.';

CREATE FUNCTION stock.library_version() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'library_version_wrapper';
COMMENT ON FUNCTION stock.library_version() IS 'The version of the library that is loaded.';

CREATE FUNCTION stock.health(
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
COMMENT ON FUNCTION stock.health(interval, interval) IS
    'Whether all is well, one row for each thing that must be so: ok, what is (value) and what '
    'should be (limit), and the next step where it is not. Reads all open holds and what of the '
    'ledger was not sent yet; locks nothing. doubtful_after: reservations that hold something for '
    'longer are doubtful; transaction_age: how old a snapshot or a prepared transaction may be.';
