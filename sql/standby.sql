-- Reading elsewhere: how old what a standby shows may be, and waiting until it shows a write.

CREATE FUNCTION stock.check_primary() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
            MESSAGE = 'stock cannot be changed on a standby',
            HINT = 'Connect to the primary.';
    END IF;
END
$$;
COMMENT ON FUNCTION stock.check_primary() IS 'Raises 25006 on a standby.';

CREATE FUNCTION stock.check_name(path text, name text) RETURNS void
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'check_name_wrapper';
COMMENT ON FUNCTION stock.check_name(text, text) IS
    'Raises 22023 unless it is a name as every call takes it: 1 to 200 bytes, without control '
    'characters, and without blanks at its ends.';

CREATE FUNCTION stock.write_position() RETURNS pg_lsn
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'write_position_wrapper';
COMMENT ON FUNCTION stock.write_position() IS
    'How far this server has written by now: asked after a write was committed, a standby for '
    'which stock.wait_for(position) is true shows that write. Inside the transaction that writes '
    'it comes too early. It holds until another server takes over. Locks nothing. 25006 on a '
    'standby.';

CREATE FUNCTION stock.wait_for(write_position pg_lsn, timeout interval DEFAULT '1 second')
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wait_for_wrapper';
COMMENT ON FUNCTION stock.wait_for(pg_lsn, interval) IS
    'Waits until this standby shows all up to a stock.write_position() of its primary: true; false '
    'where it does not within timeout (0 or more, at most a day). On a primary it does not wait. '
    'The next statement sees it; but not one of the same REPEATABLE READ or SERIALIZABLE '
    'transaction, whose snapshot is taken, so that the call is refused there (25001). Holds a '
    'snapshot meanwhile, as any query does, which a standby cancels where it stands in the way of '
    'replay for too long: keep timeout short.';

CREATE FUNCTION stock.staleness() RETURNS interval
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN NOT pg_is_in_recovery() THEN interval '0'
            -- greatest() of a NULL would be 0
            WHEN seen.at IS NOT NULL THEN greatest(interval '0', clock_timestamp() - seen.at) END
  FROM (SELECT greatest(pg_last_xact_replay_timestamp(),
                        (SELECT r.last_msg_receipt_time FROM pg_stat_get_wal_receiver() r
                          WHERE r.status = 'streaming'
                            AND pg_last_wal_replay_lsn() >= r.latest_end_lsn)) AS at) seen
$$;
COMMENT ON FUNCTION stock.staleness() IS
    'How old what this server shows is at most: 0 on a primary. On a standby that shows all that '
    'it has heard of, the time since it last heard from its primary, which an idle one may let '
    'rise to half of wal_receiver_timeout here; else the time since the newest commit that it '
    'shows. NULL where neither is known. Locks nothing.';

CREATE FUNCTION stock.available(
    sku text, location text, at_least_version bigint, timeout interval DEFAULT '1 second'
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deadline timestamptz;
    seen bigint;
BEGIN
    IF timeout IS NULL OR timeout NOT BETWEEN interval '0' AND interval '1 day' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'timeout must be at least 0 and at most a day',
            DETAIL = format('It is %s.', coalesce(timeout::text, 'null')),
            HINT = 'Give an interval, ''1 second'' say.';
    END IF;
    IF sku IS NULL OR location IS NULL THEN
        RETURN NULL;
    END IF;
    deadline := clock_timestamp() + timeout;
    LOOP
        SELECT l.version INTO seen
          FROM stock.level l WHERE l.sku = available.sku AND l.location = available.location;
        IF at_least_version IS NULL OR seen >= at_least_version THEN
            RETURN stock.available(sku, location);
        END IF;
        IF clock_timestamp() >= deadline THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('the level of SKU "%s" at "%s" is older here than version %s',
                                 sku, location, at_least_version),
                DETAIL = format('This server shows %s, and is up to %s behind.',
                                coalesce('version ' || seen, 'no such level'),
                                coalesce(stock.staleness()::text, 'an unknown time')),
                HINT = 'Call again, give a longer timeout, or ask the primary.';
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.available(text, text, bigint, interval) IS
    'As stock.available(sku, location), of a level that has reached at_least_version, that of an '
    'answer say: waits until this server shows it, for timeout at most (0 to a day), and raises '
    '55000 where it does not. NULL for at_least_version: any. Under REPEATABLE READ and '
    'SERIALIZABLE the transaction''s snapshot decides. Holds a snapshot meanwhile, as '
    'stock.wait_for does.';
