-- Who may do what. PUBLIC gets nothing; four access levels, each with what the one before it has:
-- - monitor: numbers, for those who watch: no key, no buyer, no row of the ledger
-- - read: the views, and the functions that only look
-- - operate: reserve, sell, confirm, release, return, extend
-- - administer: receive, adjust, set, transfer, dispatch, arrive, lose, recall, limits, freeze,
--   lots, reopen, import, expire, pay queues, settle, emit changes

CREATE FUNCTION stock.access_of_functions() RETURNS TABLE (function_name text, access text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
VALUES ('available', 'read'), ('reservation', 'read'), ('verify', 'read'), ('health', 'monitor'),
       ('library_version', 'monitor'), ('run_verification', 'administer'),
       ('erase_buyer', 'administer'), ('reconcile', 'administer'),
       ('reconcile_source', 'administer'), ('schedule_reconciliation', 'administer'),
       ('unschedule_reconciliation', 'administer'), ('schedule_job', 'administer'),
       ('unschedule_job', 'administer'), ('schedule_verification', 'administer'),
       ('unschedule_verification', 'administer'), ('stat_calls', 'monitor'),
       ('stat_quantile', 'monitor'), ('stat_bound', 'monitor'), ('stat_hot_skus', 'monitor'),
       ('stat_worker_counts', 'monitor'), ('stat_reset', 'administer'),
       ('worker_status', 'monitor'), ('doubtful_reservations', 'read'), ('changes_since', 'read'),
       ('snapshot', 'read'), ('picks', 'read'), ('write_position', 'read'), ('wait_for', 'read'),
       ('staleness', 'monitor'),
       ('reserve_stock', 'operate'), ('try_reserve_stock', 'operate'),
       ('sell_stock', 'operate'), ('try_sell_stock', 'operate'), ('reserve_many', 'operate'),
       ('sell_many', 'operate'),
       ('confirm_stock', 'operate'), ('try_confirm_stock', 'operate'),
       ('release_stock', 'operate'), ('try_release_stock', 'operate'),
       ('return_stock', 'operate'), ('try_return_stock', 'operate'),
       ('extend_reservation', 'operate'), ('try_extend_reservation', 'operate'),
       ('receive_stock', 'administer'), ('try_receive_stock', 'administer'),
       ('adjust_stock', 'administer'), ('try_adjust_stock', 'administer'),
       ('set_stock', 'administer'), ('try_set_stock', 'administer'),
       ('transfer_stock', 'administer'), ('try_transfer_stock', 'administer'),
       ('dispatch_stock', 'administer'), ('try_dispatch_stock', 'administer'),
       ('arrive_stock', 'administer'), ('try_arrive_stock', 'administer'),
       ('lose_stock', 'administer'), ('try_lose_stock', 'administer'),
       ('recall_stock', 'administer'), ('try_recall_stock', 'administer'),
       ('set_limits', 'administer'), ('try_set_limits', 'administer'),
       ('freeze_level', 'administer'), ('try_freeze_level', 'administer'),
       ('unfreeze_level', 'administer'), ('try_unfreeze_level', 'administer'),
       ('track_lots', 'administer'), ('try_track_lots', 'administer'),
       ('freeze_lot', 'administer'), ('try_freeze_lot', 'administer'),
       ('unfreeze_lot', 'administer'), ('try_unfreeze_lot', 'administer'),
       ('reopen_key', 'administer'), ('try_reopen_key', 'administer'),
       ('expire_reservations', 'administer'), ('expire_all', 'administer'),
       ('expire_lots', 'administer'), ('pay_queues', 'administer'), ('pay_waiting', 'administer'),
       ('emit_changes', 'administer'), ('begin_generation', 'administer'),
       ('schedule_expiry', 'administer'), ('unschedule_expiry', 'administer'),
       ('settle', 'administer'), ('import', 'administer'), ('begin_import', 'administer'),
       ('import_chunk', 'administer'), ('full_name', 'read'), ('archive', 'administer'),
       ('archive_batch', 'administer'), ('schedule_archive', 'administer'),
       ('unschedule_archive', 'administer'), ('check_archive', 'administer'),
       ('repair', 'administer')
$$;
COMMENT ON FUNCTION stock.access_of_functions() IS
    'The access level that each function belongs to; what is not listed is for the owner alone.';

CREATE FUNCTION stock.access_of_views() RETURNS TABLE (view_name text, access text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
VALUES ('stat', 'monitor'), ('stat_bucket', 'monitor'), ('stat_latency', 'monitor'),
       ('stat_hot', 'monitor'), ('stat_worker', 'monitor'), ('worker', 'monitor'),
       ('feed_lag', 'monitor'), ('alert', 'monitor'), ('levels', 'monitor'), ('totals', 'monitor'),
       ('expiring_lots', 'monitor'), ('maintenance_run', 'read'), ('verification', 'monitor'),
       ('holds', 'read'), ('ledger_rows', 'read'), ('overdue', 'read'), ('shipments', 'read'),
       ('waiting_lines', 'read'), ('supplied', 'read'), ('lots', 'read'), ('lot_holds', 'read'),
       ('lot_moves', 'read'), ('import_batch', 'read'), ('import_error', 'read'),
       ('import_progress', 'read'), ('reconciliation', 'read'), ('reconciliation_line', 'read')
$$;
COMMENT ON FUNCTION stock.access_of_views() IS
    'The access level that each view, and each table that may be read, belongs to; what is not '
    'listed is for the owner alone.';

CREATE FUNCTION stock.access_rank(access text) RETURNS integer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE access WHEN 'monitor' THEN 1 WHEN 'read' THEN 2 WHEN 'operate' THEN 3
                       WHEN 'administer' THEN 4 END;
END
$$;
COMMENT ON FUNCTION stock.access_rank(text) IS
    'The place of an access level in their order; NULL for no access level.';

CREATE FUNCTION stock.check_access(role text, access text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('role "%s" does not exist', role),
            HINT = 'Name an existing role, without quotes around it.';
    END IF;
    IF stock.access_rank(access) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('"%s" is not an access level', access),
            HINT = 'The access levels are monitor, read, operate and administer.';
    END IF;
END
$$;
COMMENT ON FUNCTION stock.check_access(text, text) IS
    'Raises unless the role (42704) and the access level (22023) exist.';

CREATE FUNCTION stock.grant_access(role text, access text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f regprocedure;
    v text;
BEGIN
    PERFORM stock.check_access(role, access);
    EXECUTE format('GRANT USAGE ON SCHEMA stock TO %I', role);
    IF access <> 'monitor' THEN
        EXECUTE format('GRANT USAGE ON TYPE stock.answer TO %I', role);
    END IF;
    FOR v IN SELECT a.view_name FROM stock.access_of_views() a
              WHERE stock.access_rank(a.access) <= stock.access_rank($2)
    LOOP
        EXECUTE format('GRANT SELECT ON stock.%I TO %I', v, role);
    END LOOP;
    FOR f IN SELECT p.oid::regprocedure
               FROM stock.access_of_functions() a
               JOIN pg_proc p
                 ON p.proname = a.function_name AND p.pronamespace = 'stock'::regnamespace
              WHERE stock.access_rank(a.access) <= stock.access_rank($2)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', f, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.grant_access(text, text) IS
    'Grants a role an access level (monitor, read, operate, administer) with all below it. Only '
    'for the owner of the extension.';

CREATE FUNCTION stock.revoke_access(role text, access text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f regprocedure;
    v text;
BEGIN
    PERFORM stock.check_access(role, access);
    FOR f IN SELECT p.oid::regprocedure
               FROM stock.access_of_functions() a
               JOIN pg_proc p
                 ON p.proname = a.function_name AND p.pronamespace = 'stock'::regnamespace
              WHERE stock.access_rank(a.access) >= stock.access_rank($2)
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM %I', f, role);
    END LOOP;
    FOR v IN SELECT a.view_name FROM stock.access_of_views() a
              WHERE stock.access_rank(a.access) >= stock.access_rank($2)
    LOOP
        EXECUTE format('REVOKE SELECT ON stock.%I FROM %I', v, role);
    END LOOP;
    IF access IN ('monitor', 'read') THEN
        EXECUTE format('REVOKE USAGE ON TYPE stock.answer FROM %I', role);
    END IF;
    IF access = 'monitor' THEN
        EXECUTE format('REVOKE USAGE ON SCHEMA stock FROM %I', role);
    END IF;
END
$$;
COMMENT ON FUNCTION stock.revoke_access(text, text) IS
    'Takes an access level, and all above it, back from a role; what is below it stays. Only for '
    'the owner of the extension.';

REVOKE ALL ON ALL ROUTINES IN SCHEMA stock FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA stock FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA stock FROM PUBLIC;
REVOKE ALL ON TYPE stock.answer FROM PUBLIC;
REVOKE ALL ON TYPE stock.entry FROM PUBLIC;
REVOKE ALL ON TYPE stock.line FROM PUBLIC;

-- -------------------------------------------------------------------------------------------------
-- What does not happen by itself.

DO $$
BEGIN
    IF NOT (SELECT w.preloaded FROM stock.worker_status() w) THEN
        -- Inside an install script nothing below a warning is told else; it ends with the script.
        PERFORM pg_catalog.set_config('client_min_messages', 'notice', true);
        RAISE NOTICE 'pg_stock is not in shared_preload_libraries'
            USING DETAIL = 'Nothing expires, notifies or counts by itself; everything else works.',
                  HINT = 'Add it there and restart the server; or have a scheduler call '
                         'stock.expire_all() and stock.emit_changes().';
    END IF;
END
$$;
