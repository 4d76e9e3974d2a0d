-- What runs without anybody looking: expiry, its log, the holds that it could not close, and its
-- schedule in pg_cron; and the settling of reservations by what the shop says of its orders.

-- -------------------------------------------------------------------------------------------------
-- hold_error: overdue holds that could not be closed. A bad hold never stops the others: it is set
-- aside, tried again with growing pauses, and shown in stock.overdue.

CREATE TABLE stock.hold_error (
    key             text        NOT NULL COLLATE "C",
    line            integer     NOT NULL,
    attempts        integer     NOT NULL,
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL,
    retry_at        timestamptz NOT NULL,
    sqlstate        text        NOT NULL,
    message         text        NOT NULL,
    CONSTRAINT hold_error_pkey PRIMARY KEY (key, line)
);
COMMENT ON TABLE stock.hold_error IS
    'Overdue holds that could not be closed: set aside, and tried again with growing pauses of '
    'one minute to six hours.';
COMMENT ON COLUMN stock.hold_error.key IS 'The reservation.';
COMMENT ON COLUMN stock.hold_error.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.hold_error.attempts IS 'How often it failed.';
COMMENT ON COLUMN stock.hold_error.first_failed_at IS 'When it failed first.';
COMMENT ON COLUMN stock.hold_error.last_failed_at IS 'When it failed last.';
COMMENT ON COLUMN stock.hold_error.retry_at IS 'When it is tried again.';
COMMENT ON COLUMN stock.hold_error.sqlstate IS 'The SQLSTATE of the last error.';
COMMENT ON COLUMN stock.hold_error.message IS 'The text of the last error.';
COMMENT ON CONSTRAINT hold_error_pkey ON stock.hold_error IS 'One error for each hold.';

-- -------------------------------------------------------------------------------------------------
-- maintenance_run: what the jobs did. Runs are kept for about an hour and then summed up by the
-- hour; these sums, and runs with errors, are kept for 30 days. It is a log of this server: pg_dump
-- leaves it out.

CREATE TABLE stock.maintenance_run (
    run            bigint      GENERATED ALWAYS AS IDENTITY,
    job            text        NOT NULL,
    hourly         boolean     NOT NULL DEFAULT false,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    runs           bigint      NOT NULL DEFAULT 1,
    holds_expired  bigint      NOT NULL DEFAULT 0,
    units_returned bigint      NOT NULL DEFAULT 0,
    errors         bigint      NOT NULL DEFAULT 0,
    message        text,
    -- Whoever publishes all tables can publish what is deleted from this one.
    CONSTRAINT maintenance_run_pkey PRIMARY KEY (run)
);
COMMENT ON SEQUENCE stock.maintenance_run_run_seq IS 'Numbers the rows of stock.maintenance_run.';
COMMENT ON COLUMN stock.maintenance_run.run IS 'The number of the row.';
COMMENT ON CONSTRAINT maintenance_run_pkey ON stock.maintenance_run IS 'Each row has a number.';
CREATE INDEX maintenance_run_started ON stock.maintenance_run (started_at);
COMMENT ON TABLE stock.maintenance_run IS
    'What the jobs did: single runs of about the last hour, hourly sums and runs with errors of '
    'the last 30 days.';
COMMENT ON COLUMN stock.maintenance_run.job IS 'The job: expire.';
COMMENT ON COLUMN stock.maintenance_run.hourly IS 'True where the row sums up the runs of an hour.';
COMMENT ON COLUMN stock.maintenance_run.started_at IS
    'When the run, or the first of the runs, began.';
COMMENT ON COLUMN stock.maintenance_run.finished_at IS
    'When the run, or the last of the runs, ended.';
COMMENT ON COLUMN stock.maintenance_run.runs IS 'How many runs the row sums up.';
COMMENT ON COLUMN stock.maintenance_run.holds_expired IS 'Holds closed because they were overdue.';
COMMENT ON COLUMN stock.maintenance_run.units_returned IS 'Units in these holds.';
COMMENT ON COLUMN stock.maintenance_run.errors IS
    'Holds that could not be closed and were set aside.';
COMMENT ON COLUMN stock.maintenance_run.message IS 'The first of the errors.';
COMMENT ON INDEX stock.maintenance_run_started IS 'Finds runs by time.';

-- -------------------------------------------------------------------------------------------------
-- Gives overdue holds back. Correctness never needs it: an overdue hold blocks no buyer.

CREATE FUNCTION stock.expire_reservations(max_rows integer DEFAULT 1000)
RETURNS TABLE (
    holds_expired bigint, units_returned bigint, levels_busy bigint, errors bigint,
    next_due timestamptz
)
LANGUAGE c ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'expire_reservations_wrapper';
COMMENT ON FUNCTION stock.expire_reservations(integer) IS
    'Closes up to max_rows (1 to 100,000) overdue holds in this transaction. Levels that somebody '
    'has locked are passed over (levels_busy), but not for ever; a hold that cannot be closed is '
    'set aside (errors; see stock.overdue). next_due: when the next hold is due, not later than '
    'now if some are due already, NULL if nothing is held.';

-- A procedure that commits can be neither SECURITY DEFINER nor carry SET: a loop around the
-- function, every name qualified.
CREATE PROCEDURE stock.expire_all(
    batch_rows integer DEFAULT 1000,
    INOUT holds_expired bigint DEFAULT 0, INOUT units_returned bigint DEFAULT 0
) LANGUAGE plpgsql AS $$
DECLARE
    batch record;
    fruitless integer := 0;
    lines_paid bigint;
    units_paid bigint;
    lots record;
BEGIN
    LOOP
        SELECT * INTO batch FROM stock.expire_reservations(batch_rows);
        COMMIT;
        holds_expired := holds_expired OPERATOR(pg_catalog.+) batch.holds_expired;
        units_returned := units_returned OPERATOR(pg_catalog.+) batch.units_returned;
        EXIT WHEN batch.next_due IS NULL
               OR batch.next_due OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp();
        IF batch.holds_expired OPERATOR(pg_catalog.=) 0 THEN
            fruitless := fruitless OPERATOR(pg_catalog.+) 1;
            -- The fourth look at a locked level waits for it; then it is left to the next run.
            EXIT WHEN fruitless OPERATOR(pg_catalog.>) 4;
        ELSE
            fruitless := 0;
        END IF;
    END LOOP;
    CALL stock.pay_waiting(lines_paid, units_paid);
    LOOP
        SELECT * INTO lots FROM stock.expire_lots(batch_rows);
        COMMIT;
        -- Levels that stay locked are left to the next run.
        EXIT WHEN NOT lots.more OR lots.levels OPERATOR(pg_catalog.=) 0;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE stock.expire_all(integer, bigint, bigint) IS
    'Closes all overdue holds, batch_rows in each transaction, then pays those who wait, as '
    'stock.pay_waiting does, and books the lots past their time, as stock.expire_lots does; '
    'answers how many holds, and the units in them. Not inside a transaction block.';

-- -------------------------------------------------------------------------------------------------
-- Books what lots have of free units past their time as unsellable. Correctness never needs it.

CREATE FUNCTION stock.expire_lots(max_rows integer DEFAULT 1000)
RETURNS TABLE (levels bigint, units bigint, more boolean)
LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'expire_lots_wrapper';
COMMENT ON FUNCTION stock.expire_lots(integer) IS
    'Books what the lots past their time of up to max_rows (1 to 100,000) levels have of free '
    'units as unsellable, so that the counters say what is so anyway: such a lot is promised to '
    'nobody. The background worker does the same. Levels that somebody has locked are left to the '
    'next call. Announces on the alert channel, once for each lot, that its date is near '
    '(lot_near_expiry), and that it is past (lot_expired). Answers how many levels have less to '
    'sell by it, how many units, and whether there is more.';

-- -------------------------------------------------------------------------------------------------
-- Pays queues that the call that made units free could not.

CREATE FUNCTION stock.pay_queues()
RETURNS TABLE (lines_paid bigint, units_paid bigint, more boolean)
LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'pay_queues_wrapper';
COMMENT ON FUNCTION stock.pay_queues() IS
    'Gives what is there to those who wait for it, at one level, the next one with each call, up '
    'to 10,000 lines: what is left where more lines waited than one call pays. The background '
    'worker does the same. A level that stays locked for a second is passed over, and so is, with '
    'a warning, a queue that cannot be paid. Answers how many lines and units were paid, and '
    'whether there is more.';

CREATE PROCEDURE stock.pay_waiting(
    INOUT lines_paid bigint DEFAULT 0, INOUT units_paid bigint DEFAULT 0
) LANGUAGE plpgsql AS $$
DECLARE
    batch record;
    fruitless integer := 0;
BEGIN
    lines_paid := 0;
    units_paid := 0;
    LOOP
        SELECT * INTO batch FROM stock.pay_queues();
        COMMIT;
        lines_paid := lines_paid OPERATOR(pg_catalog.+) batch.lines_paid;
        units_paid := units_paid OPERATOR(pg_catalog.+) batch.units_paid;
        EXIT WHEN NOT batch.more;
        IF batch.lines_paid OPERATOR(pg_catalog.=) 0 THEN
            -- Levels that stay locked, or queues that cannot be paid, are left to the next run.
            fruitless := fruitless OPERATOR(pg_catalog.+) 1;
            EXIT WHEN fruitless OPERATOR(pg_catalog.>) 4;
        ELSE
            fruitless := 0;
        END IF;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE stock.pay_waiting(bigint, bigint) IS
    'Gives what is there to all who wait for it, up to 10,000 lines in each transaction; answers '
    'how many, and the units. Not inside a transaction block.';

-- -------------------------------------------------------------------------------------------------
-- How the background worker of this database is.

CREATE FUNCTION stock.worker_status()
RETURNS TABLE (
    preloaded boolean, pid integer, state text, failing_since timestamptz, failures integer,
    error text
)
LANGUAGE c STABLE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'worker_status_wrapper';
COMMENT ON FUNCTION stock.worker_status() IS 'The row of the view stock.worker.';

CREATE VIEW stock.worker AS
SELECT w.preloaded, w.pid, w.state, w.failing_since, w.failures, w.error
  FROM stock.worker_status() w;
COMMENT ON VIEW stock.worker IS
    'The background worker of this database: whether there is one, what keeps it from its work, '
    'and its last error. One row.';
COMMENT ON COLUMN stock.worker.preloaded IS
    'Whether pg_stock is in shared_preload_libraries: without that there is no worker.';
COMMENT ON COLUMN stock.worker.pid IS 'Its process; NULL: there is none.';
COMMENT ON COLUMN stock.worker.state IS
    'working; read_only: the database is; subscription: an enabled subscription fills the tables; '
    'nothing_yet: the sequence of the ledger was never called, so that nothing has happened yet '
    'or the data is being restored; no_worker; not_served: pg_stock.databases does not name the '
    'database; not_preloaded.';
COMMENT ON COLUMN stock.worker.failing_since IS
    'Since when it has failed without having succeeded; NULL: it has not. Errors of the feed are '
    'in stock.feed_lag, of single holds in stock.overdue.';
COMMENT ON COLUMN stock.worker.failures IS 'How often it has failed since then.';
COMMENT ON COLUMN stock.worker.error IS 'Its last error.';

-- -------------------------------------------------------------------------------------------------
-- What is past its deadline and not given back yet.

CREATE VIEW stock.overdue AS
SELECT h.key, h.line, h.sku, h.location, h.quantity, h.buyer, h.expires_at,
       CASE WHEN pg_catalog.isfinite(h.expires_at)
            THEN pg_catalog.clock_timestamp() - h.expires_at END AS overdue_for,
       e.attempts, e.retry_at, e.sqlstate, e.message
  FROM stock.hold h
  LEFT JOIN stock.hold_error e ON e.key = h.key AND e.line = h.line
 WHERE greatest(h.expires_at, '-infinity') <= (SELECT pg_catalog.clock_timestamp());
COMMENT ON VIEW stock.overdue IS
    'Holds past their deadline that were not given back yet, and why not. Empty but for moments '
    'where expiry runs.';
COMMENT ON COLUMN stock.overdue.key IS 'The reservation.';
COMMENT ON COLUMN stock.overdue.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.overdue.sku IS 'What is held.';
COMMENT ON COLUMN stock.overdue.location IS 'Where it is held.';
COMMENT ON COLUMN stock.overdue.quantity IS 'Units still held.';
COMMENT ON COLUMN stock.overdue.buyer IS 'For whom.';
COMMENT ON COLUMN stock.overdue.expires_at IS 'The deadline that has passed.';
COMMENT ON COLUMN stock.overdue.overdue_for IS 'For how long; NULL: for ever.';
COMMENT ON COLUMN stock.overdue.attempts IS 'How often closing it failed; NULL: never.';
COMMENT ON COLUMN stock.overdue.retry_at IS 'When it is tried again.';
COMMENT ON COLUMN stock.overdue.sqlstate IS 'The SQLSTATE of the last error.';
COMMENT ON COLUMN stock.overdue.message IS 'The text of the last error.';

-- -------------------------------------------------------------------------------------------------
-- Old holds, and what the shop's own order table says of them: paid orders are confirmed, cancelled
-- ones released.

CREATE FUNCTION stock.doubtful_reservations(older_than interval DEFAULT '40 minutes')
RETURNS TABLE (
    key text, reserved_at timestamptz, expires_at timestamptz, lines bigint, units numeric,
    buyer text, overdue boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF older_than IS NULL OR older_than < '0'::interval THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'older_than must be 0 or more',
            DETAIL = format('It is %s.', coalesce(older_than::text, 'null')),
            HINT = 'Give an interval, ''40 minutes'' say; ''0'' means every reservation that '
                   'holds something.';
    END IF;
    RETURN QUERY
    SELECT h.key, min(h.reserved_at), min(h.expires_at), count(*), sum(h.quantity), min(h.buyer),
           min(h.expires_at) <= moment
      FROM stock.hold h
     GROUP BY h.key
    HAVING min(h.reserved_at) <= moment - older_than
     ORDER BY min(h.reserved_at), h.key;
END
$$;
COMMENT ON FUNCTION stock.doubtful_reservations(interval) IS
    'Reservations that still hold something and were made longer ago than older_than, oldest '
    'first: to be compared with the orders, and settled. lines and units are those still held, '
    'expires_at is the earliest deadline of them, overdue says that it has passed. Reads all open '
    'holds.';

CREATE FUNCTION stock.settle(orders jsonb)
RETURNS TABLE (key text, status text, outcome text, mismatch text, agrees boolean)
LANGUAGE c ROWS 100 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'settle_wrapper';
COMMENT ON FUNCTION stock.settle(jsonb) IS
    'Confirms the reservations of paid orders and releases those of cancelled ones: [{"key", '
    '"status"}] with the status paid or cancelled, at most 10,000, each key once; NULL: none. All '
    'in one transaction that locks in one order. For each order: what the confirm or release came '
    'to (outcome), how the stock disagreed (mismatch: paid_not_confirmed, paid_but_expired, '
    'paid_but_released, paid_in_part, paid_but_returned, paid_but_unknown, cancelled_but_held, '
    'cancelled_but_confirmed, damaged; NULL: not at all), and whether it agrees now. Again: the '
    'same answers, but no mismatch for what was put right.';

-- -------------------------------------------------------------------------------------------------
-- Expiry by pg_cron, where that is installed. Its functions are named in EXECUTE only: they need
-- not exist. The caller owns the job and needs the rights that pg_cron asks for.

CREATE FUNCTION stock.schedule_job(job_name text, command text, schedule text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_cron') THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'pg_cron is not installed in this database',
            HINT = format('CREATE EXTENSION pg_cron here; or, where it lives in another database, '
                          'call there '
                          'cron.schedule_in_database(%L, %L, %L, %L); '
                          'or use the background worker, or any other scheduler.',
                          job_name || ' of ' || current_database(), schedule, command,
                          current_database());
    END IF;
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING job_name, schedule, command;
    RETURN job;
END
$$;
COMMENT ON FUNCTION stock.schedule_job(text, text, text) IS
    'Has pg_cron run a command, as the role that calls this; replaces the schedule of a job of '
    'that name. Answers its number. 0A000 where pg_cron is not in this database.';

CREATE FUNCTION stock.unschedule_job(job_name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job bigint;
    done boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_cron') THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'pg_cron is not installed in this database',
            HINT = format('Where it lives in another database, call there cron.unschedule(%L).',
                          job_name || ' of ' || current_database());
    END IF;
    EXECUTE 'SELECT j.jobid FROM cron.job j WHERE j.jobname = $1 AND j.username = current_user'
       INTO job USING job_name;
    IF job IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE 'SELECT cron.unschedule($1)' INTO done USING job;
    RETURN done;
END
$$;
COMMENT ON FUNCTION stock.unschedule_job(text) IS
    'Takes a job from pg_cron; false where the role that calls this has none of that name. 0A000 '
    'where pg_cron is not in this database.';

CREATE FUNCTION stock.schedule_expiry(schedule text DEFAULT '* * * * *') RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT stock.schedule_job('pg_stock expiry', 'CALL stock.expire_all()', schedule)
$$;
COMMENT ON FUNCTION stock.schedule_expiry(text) IS
    'Has pg_cron call stock.expire_all() at each time of the schedule, as the role that calls '
    'this; replaces the schedule that was set before. Answers the number of the job. 0A000 where '
    'pg_cron is not in this database.';

CREATE FUNCTION stock.unschedule_expiry() RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
SELECT stock.unschedule_job('pg_stock expiry')
$$;
COMMENT ON FUNCTION stock.unschedule_expiry() IS
    'Takes the job of stock.schedule_expiry from pg_cron; false where the role that calls this '
    'has none. 0A000 where pg_cron is not in this database.';
