-- Loading a shop: the rows of any table or view become levels, each once, in transactions of some
-- thousand rows. A row's key is made of the batch and of what the row is about, so that a second
-- call does only what is missing.

CREATE TABLE stock.import_batch (
    batch       text COLLATE "C" PRIMARY KEY,
    source      text NOT NULL,
    mode        text NOT NULL CHECK (mode IN ('set', 'receive', 'hold')),
    run         bigint NOT NULL,
    rows        bigint,
    applied     bigint NOT NULL,
    repeated    bigint NOT NULL,
    refused     bigint NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    actor       text NOT NULL DEFAULT
                CASE current_setting('role') WHEN 'none' THEN session_user::text
                     ELSE current_setting('role') END,
    archived_at timestamptz
);
COMMENT ON TABLE stock.import_batch IS 'What was imported, one row for each batch.';
COMMENT ON COLUMN stock.import_batch.batch IS 'Its name: half of the key of its rows.';
COMMENT ON COLUMN stock.import_batch.source IS 'The table or view that the last call read.';
COMMENT ON COLUMN stock.import_batch.mode IS
    'set: on_hand was counted; receive: so many units came; hold: orders hold them.';
COMMENT ON COLUMN stock.import_batch.run IS
    'How many calls there were: one that has begun ends those before it.';
COMMENT ON COLUMN stock.import_batch.rows IS
    'Rows that the source had; NULL: the last call has not come so far.';
COMMENT ON COLUMN stock.import_batch.applied IS 'Rows that took effect in the last call.';
COMMENT ON COLUMN stock.import_batch.repeated IS
    'Rows that the last call found to have taken effect before.';
COMMENT ON COLUMN stock.import_batch.refused IS
    'Rows that took no effect, or not all, see stock.import_error.';
COMMENT ON COLUMN stock.import_batch.started_at IS 'When the last call began.';
COMMENT ON COLUMN stock.import_batch.finished_at IS
    'When the last call was through; NULL: it runs, or did not come so far.';
COMMENT ON COLUMN stock.import_batch.actor IS 'Who made the last call.';
COMMENT ON COLUMN stock.import_batch.archived_at IS
    'When ledger rows of it were archived first: which rows took effect is not known any more, and '
    'the batch takes no further call. NULL: all are known.';
COMMENT ON INDEX stock.import_batch_pkey IS 'One row for each batch.';

CREATE TABLE stock.import_error (
    batch       text COLLATE "C" NOT NULL,
    number      bigint NOT NULL,
    content     jsonb NOT NULL,
    path        text NOT NULL,
    outcome     text NOT NULL,
    message     text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (batch, number)
);
COMMENT ON TABLE stock.import_error IS
    'Rows of imports that took no effect, or not all; a further call of the batch tries them again '
    'and writes anew what is left.';
COMMENT ON COLUMN stock.import_error.batch IS 'The batch.';
COMMENT ON COLUMN stock.import_error.number IS
    'The row, in the order of SKU, location and lot, or the order, from 1.';
COMMENT ON COLUMN stock.import_error.content IS 'What the source said.';
COMMENT ON COLUMN stock.import_error.path IS 'The column of the fault; empty: no single one.';
COMMENT ON COLUMN stock.import_error.outcome IS
    'The outcome of the refusal, or the SQLSTATE of the fault.';
COMMENT ON COLUMN stock.import_error.message IS 'What is wrong, with the next step.';
COMMENT ON COLUMN stock.import_error.recorded_at IS 'When it was tried.';
COMMENT ON INDEX stock.import_error_pkey IS 'Finds the errors of a batch.';

SELECT pg_catalog.pg_extension_config_dump('stock.import_batch', '');
SELECT pg_catalog.pg_extension_config_dump('stock.import_error', '');

CREATE VIEW stock.import_progress AS
SELECT b.batch, b.source, b.mode, b.rows, b.applied + b.repeated + b.refused AS done,
       CASE WHEN b.rows > 0
            THEN pg_catalog.round(100.0 * (b.applied + b.repeated + b.refused) / b.rows, 1) END
         AS percent,
       b.refused, pg_catalog.clock_timestamp() - b.started_at AS running_for
  FROM stock.import_batch b
 WHERE b.finished_at IS NULL;
COMMENT ON VIEW stock.import_progress IS
    'Imports that run, or that were broken off: CALL stock.import again for what is missing.';
COMMENT ON COLUMN stock.import_progress.batch IS 'The batch.';
COMMENT ON COLUMN stock.import_progress.source IS 'What it reads.';
COMMENT ON COLUMN stock.import_progress.mode IS 'set, receive or hold.';
COMMENT ON COLUMN stock.import_progress.rows IS 'Rows of the source; NULL: not known yet.';
COMMENT ON COLUMN stock.import_progress.done IS 'Rows that are through.';
COMMENT ON COLUMN stock.import_progress.percent IS 'That, of a hundred.';
COMMENT ON COLUMN stock.import_progress.refused IS 'Rows among them that took no effect.';
COMMENT ON COLUMN stock.import_progress.running_for IS 'For how long.';

CREATE FUNCTION stock.import_rows(batch text, mode text, rows jsonb)
RETURNS TABLE (
    place bigint, applied boolean, repeated boolean, path text, outcome text, message text
)
LANGUAGE c VOLATILE ROWS 1000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'import_rows_wrapper';
COMMENT ON FUNCTION stock.import_rows(text, text, jsonb) IS
    'Carries out rows of an import in this transaction, and says what became of each. For '
    'stock.import_chunk.';

CREATE FUNCTION stock.full_name(source regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source
$$;
COMMENT ON FUNCTION stock.full_name(regclass) IS
    'The name of a table or view with its schema: the same on every search path.';

CREATE FUNCTION stock.import_fields(source regclass, mode text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken text := '';
    col record;
BEGIN
    FOR col IN
        SELECT c.name, c.kind, c.is_needed, format_type(a.atttypid, NULL) AS type
          FROM (VALUES ('sku', 'name', true, 'all'), ('location', 'name', true, 'all'),
                       ('on_hand', 'units', true, 'goods'),
                       ('safety_stock', 'units', false, 'goods'),
                       ('buyer_limit', 'units', false, 'goods'), ('lot', 'name', false, 'goods'),
                       ('best_before', 'time', false, 'goods'),
                       ('key', 'name', true, 'orders'), ('quantity', 'units', true, 'orders'),
                       ('buyer', 'name', false, 'orders'), ('expires_at', 'time', true, 'orders'))
                 AS c (name, kind, is_needed, of)
          LEFT JOIN pg_attribute a
            ON a.attrelid = source AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.of IN ('all', CASE mode WHEN 'hold' THEN 'orders' ELSE 'goods' END)
    LOOP
        IF col.type IS NULL AND col.is_needed THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_column',
                MESSAGE = format('%s has no column %s', source, col.name),
                HINT = CASE mode WHEN 'hold'
                       THEN 'Name a table or view with the columns key, sku, location, quantity '
                            'and expires_at; buyer may be there, too.'
                       ELSE 'Name a table or view with the columns sku, location and on_hand; '
                            'safety_stock, buyer_limit, lot and best_before may be there, too.' END;
        ELSIF col.kind = 'time' AND col.type NOT IN ('date', 'timestamp without time zone',
                                                     'timestamp with time zone') THEN
            RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
                MESSAGE = format('%s of %s is of type %s', col.name, source, col.type),
                HINT = 'Cast it to timestamptz in a view.';
        END IF;
        taken := taken || ', ' || format(CASE
            WHEN col.type IS NULL THEN 'NULL::pg_catalog.text COLLATE pg_catalog."C"'
            -- as text, and no more of it than shows that it is too long: a bad row stops no other
            WHEN col.name = 'lot'
            THEN 'nullif(pg_catalog.left(s.lot::pg_catalog.text, 300), '''') COLLATE pg_catalog."C"'
            WHEN col.kind = 'name'
            THEN 'pg_catalog.left(s.%1$I::pg_catalog.text, 300) COLLATE pg_catalog."C"'
            WHEN col.kind = 'units' THEN 'pg_catalog.left(s.%1$I::pg_catalog.text, 50)'
            -- in microseconds since 1970
            ELSE 'CASE WHEN s.%1$I OPERATOR(pg_catalog.>=) ''0001-01-01'' AND '
                 's.%1$I OPERATOR(pg_catalog.<) ''10000-01-01'' '
                 'THEN pg_catalog.trunc(EXTRACT(epoch FROM s.%1$I::pg_catalog.timestamptz) '
                 'OPERATOR(pg_catalog.*) 1000000)'
                 '::pg_catalog.text ELSE s.%1$I::pg_catalog.text END'
            END || ' AS %1$I', col.name);
    END LOOP;
    RETURN substr(taken, 3);
END
$$;
COMMENT ON FUNCTION stock.import_fields(regclass, text) IS
    'The columns of a source that an import takes, as a query has them. 42703 where one is '
    'missing, 42804 where a date is none.';

CREATE FUNCTION stock.import_query(source regclass, mode text, chunk_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    item text;
BEGIN
    IF source IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'source must not be null',
            HINT = 'Name a table or view, ''shop.goods'' say.';
    END IF;
    IF chunk_rows IS NULL OR chunk_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'chunk_rows must be from 1 to 10000',
            DETAIL = format('It is %s.', coalesce(chunk_rows::text, 'null')),
            HINT = 'Leave it out for 5000 rows in each transaction.';
    END IF;
    -- It runs with the rights and the search path of the caller.
    item := CASE mode WHEN 'hold' THEN $item$
        SELECT f.key, pg_catalog.min(f.buyer) AS buyer,
               (pg_catalog.array_agg(f.expires_at))[1] AS expires_at,
               pg_catalog.count(DISTINCT (f.expires_at, f.buyer)) AS times,
               pg_catalog.count(*) AS rows,
               CASE WHEN f.key IS NULL OR pg_catalog.count(*) OPERATOR(pg_catalog.>) 10000
                    THEN '[]'
                    ELSE pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                             'sku', f.sku, 'location', f.location, 'quantity', f.quantity)
                             ORDER BY f.sku, f.location) END AS lines,
               pg_catalog.row_number() OVER here AS number,
               pg_catalog.sum(pg_catalog.count(*)) OVER here AS upto,
               pg_catalog.count(*) OVER () AS total
          FROM (SELECT %1$s FROM %2$s s) f
         GROUP BY f.key
        WINDOW here AS (ORDER BY pg_catalog.min(f.sku), f.key)$item$
    ELSE $item$
        SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
                   ROW (f.sku, f.location, f.lot)::pg_catalog.text,
                   pg_catalog.getdatabaseencoding())), 'hex') AS id,
               pg_catalog.count(*) OVER (PARTITION BY f.sku, f.location, f.lot) AS times,
               f.*,
               pg_catalog.row_number() OVER here AS number,
               pg_catalog.row_number() OVER here AS upto,
               pg_catalog.count(*) OVER () AS total
          FROM (SELECT %1$s FROM %2$s s) f
        WINDOW here AS (ORDER BY f.sku, f.location, f.lot)$item$ END;
    RETURN format($query$
        SELECT pg_catalog.min(r.number) AS first, pg_catalog.max(r.total) AS total,
               pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r)
                   OPERATOR(pg_catalog.-) '{number,upto,total}'::pg_catalog.text[]
                   ORDER BY r.number) AS rows
          FROM ($query$ || item || $query$) r
         GROUP BY pg_catalog.div(r.upto OPERATOR(pg_catalog.-) 1, %3$s)
         ORDER BY 1$query$, stock.import_fields(source, mode), stock.full_name(source), chunk_rows);
END
$$;
COMMENT ON FUNCTION stock.import_query(regclass, text, integer) IS
    'The query that reads a source for stock.import, chunk_rows rows, or orders, at a time, and '
    'tells each from the others.';

CREATE FUNCTION stock.check_not_archived(batch stock.import_batch) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF batch.archived_at IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the batch "%s" was archived: which of its rows took effect is not '
                             'known any more', batch.batch),
            HINT = 'Give what is new a batch with a name of its own.';
    END IF;
END
$$;
COMMENT ON FUNCTION stock.check_not_archived(stock.import_batch) IS
    'Raises 55000 if rows of the batch were archived.';

CREATE FUNCTION stock.begin_import(
    batch text, source regclass, mode text, chunk_rows integer, OUT run bigint, OUT query text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known stock.import_batch;
BEGIN
    PERFORM stock.check_primary();
    PERFORM stock.check_name('batch', batch);
    IF octet_length(batch) > 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'batch must have at most 100 bytes',
            DETAIL = format('It has %s.', octet_length(batch)),
            HINT = 'Name what is imported, ''first load'' say: the same name again does only what '
                   'is missing.';
    END IF;
    IF mode IS NULL OR mode NOT IN ('set', 'receive', 'hold') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'mode must be set, receive or hold',
            DETAIL = format('It is %s.', coalesce(quote_literal(mode), 'null')),
            HINT = 'set: that many units are there; receive: that many more came; hold: orders '
                   'hold them.';
    END IF;
    query := stock.import_query(source, mode, chunk_rows);
    INSERT INTO stock.import_batch AS b
    VALUES ($1, $2::text, $3, 1, NULL, 0, 0, 0, clock_timestamp(), NULL, DEFAULT, NULL)
    ON CONFLICT ON CONSTRAINT import_batch_pkey DO UPDATE
       SET source = excluded.source, run = b.run + 1, rows = NULL, applied = 0, repeated = 0,
           refused = 0, started_at = excluded.started_at, finished_at = NULL,
           actor = excluded.actor
    RETURNING b.* INTO known;
    IF known.mode <> mode THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the batch "%s" was imported with the mode %s', batch, known.mode),
            HINT = 'Give that mode again, or another batch a name of its own.';
    END IF;
    PERFORM stock.check_not_archived(known);
    DELETE FROM stock.import_error e WHERE e.batch = $1;
    run := known.run;
END
$$;
COMMENT ON FUNCTION stock.begin_import(text, regclass, text, integer) IS
    'Begins a call of stock.import: forgets the errors of the calls before it. Answers its number, '
    'and the query that reads the rows.';

CREATE FUNCTION stock.import_chunk(batch text, run bigint, first bigint, total bigint, rows jsonb)
RETURNS stock.import_batch
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known stock.import_batch;
BEGIN
    PERFORM stock.check_primary();
    SELECT * INTO known FROM stock.import_batch b WHERE b.batch = $1 FOR UPDATE;
    IF known.run IS DISTINCT FROM run THEN
        RAISE EXCEPTION USING ERRCODE = 'object_in_use',
            MESSAGE = format('another call has begun to import the batch "%s"', batch),
            DETAIL = 'What this call has done until now is kept; the other one does the rest.',
            HINT = 'Wait for it: see stock.import_progress.';
    END IF;
    PERFORM stock.check_not_archived(known);
    IF rows IS NOT NULL THEN
        WITH verdict AS (
            SELECT * FROM stock.import_rows(batch, known.mode, $5)
        ), failed AS (
            INSERT INTO stock.import_error
            SELECT $1, least(greatest(coalesce($3, 1), 1), 1000000000000) + v.place - 1,
                   r.content - '{id,times,rows}'::text[] || coalesce((
                       SELECT jsonb_object_agg(f.key, to_timestamp(f.value::numeric / 1000000))
                         FROM jsonb_each_text(r.content) f
                        WHERE f.key IN ('best_before', 'expires_at')
                          AND f.value ~ '^-?[0-9]{1,18}$'), '{}'),
                   v.path, v.outcome, v.message, clock_timestamp()
              FROM verdict v
             CROSS JOIN LATERAL (SELECT $5 -> (v.place - 1)::integer AS content) r
             WHERE NOT v.applied AND NOT v.repeated
                ON CONFLICT ON CONSTRAINT import_error_pkey DO UPDATE
               SET content = excluded.content, path = excluded.path, outcome = excluded.outcome,
                   message = excluded.message, recorded_at = excluded.recorded_at
        )
        UPDATE stock.import_batch b
           SET rows = total, applied = b.applied + done.applied,
               repeated = b.repeated + done.repeated, refused = b.refused + done.refused
          FROM (SELECT count(*) FILTER (WHERE v.applied) AS applied,
                       count(*) FILTER (WHERE v.repeated) AS repeated,
                       count(*) FILTER (WHERE NOT v.applied AND NOT v.repeated) AS refused
                  FROM verdict v) done
         WHERE b.batch = $1
        RETURNING b.* INTO known;
    ELSE
        UPDATE stock.import_batch b SET rows = coalesce(b.rows, 0), finished_at = clock_timestamp()
         WHERE b.batch = $1
        RETURNING b.* INTO known;
    END IF;
    RETURN known;
END
$$;
COMMENT ON FUNCTION stock.import_chunk(text, bigint, bigint, bigint, jsonb) IS
    'Imports rows of a batch in this transaction; NULL for rows: the call is through. 55006 where '
    'a further call has begun.';

-- A procedure that commits can be neither SECURITY DEFINER nor carry SET: every name qualified. It
-- reads the source with the rights of the caller.
CREATE PROCEDURE stock.import(
    batch text, source regclass, mode text DEFAULT 'set', chunk_rows integer DEFAULT 5000,
    INOUT applied bigint DEFAULT 0, INOUT repeated bigint DEFAULT 0, INOUT refused bigint DEFAULT 0
) LANGUAGE plpgsql AS $$
DECLARE
    this record;
    part record;
    so_far stock.import_batch;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    SELECT * INTO this FROM stock.begin_import(batch, source, mode, chunk_rows);
    COMMIT;
    FOR part IN EXECUTE this.query LOOP
        so_far := stock.import_chunk(batch, this.run, part.first, part.total, part.rows);
        COMMIT;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told
           OPERATOR(pg_catalog.>=) '1 s'::pg_catalog.interval THEN
            told := pg_catalog.clock_timestamp();
            RAISE NOTICE 'import "%": % of % rows, % refused', batch,
                so_far.applied OPERATOR(pg_catalog.+) so_far.repeated
                    OPERATOR(pg_catalog.+) so_far.refused,
                so_far.rows, so_far.refused;
        END IF;
    END LOOP;
    so_far := stock.import_chunk(batch, this.run, NULL, NULL, NULL);
    COMMIT;
    applied := so_far.applied;
    repeated := so_far.repeated;
    refused := so_far.refused;
END
$$;
COMMENT ON PROCEDURE stock.import(text, regclass, text, integer, bigint, bigint, bigint) IS
    'Makes levels of the rows of a table or view with the columns sku, location, on_hand and, if '
    'they are there, safety_stock, buyer_limit, lot and best_before; or reservations, of rows with '
    'key, sku, location, quantity, expires_at and, if it is there, buyer. mode set: on_hand is '
    'what was counted, as stock.set_stock; receive: what came, as stock.receive_stock; hold: what '
    'open orders hold, as stock.reserve_stock, one for all rows of a key, until expires_at. '
    'chunk_rows (1 to 10,000) in each transaction, whose levels are locked for that long. Each row '
    'takes effect once under the name of the batch, an order under its key: again does what is '
    'missing. Bad rows stop no good ones: they are in stock.import_error. Answers how many rows '
    'took effect now, had taken effect before, were refused. Progress: stock.import_progress, and '
    'a NOTICE each second. Not inside a transaction block.';
