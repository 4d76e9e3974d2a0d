-- The change feed: what changed since somebody looked last, from the ledger; and what the worker
-- tells by NOTIFY.

-- -------------------------------------------------------------------------------------------------
-- feed: the life of the database that cursors belong to, and how far its changes were sent. One row
-- at most. It is of this server: pg_dump leaves it out, and where the database finds itself
-- somewhere else (after a failover, a restore, a copy) a new generation begins, because transaction
-- numbers are then used again.

CREATE TABLE stock.feed (
    only_row          boolean     NOT NULL DEFAULT true,
    generation        uuid        NOT NULL,
    system_identifier bigint      NOT NULL,
    timeline          bigint      NOT NULL,
    database          bigint      NOT NULL,
    first_position    bigint      NOT NULL,
    first_xact        xid8        NOT NULL,
    seen              pg_snapshot NOT NULL,
    archived          xid8,
    sequence          bigint      NOT NULL DEFAULT 0,
    emitted_at        timestamptz,
    failed_at         timestamptz,
    error             text,
    CONSTRAINT feed_pkey PRIMARY KEY (only_row),
    CONSTRAINT feed_one_row CHECK (only_row)
);
COMMENT ON TABLE stock.feed IS
    'The life of the database that cursors belong to, and how far its changes were sent by '
    'NOTIFY. At most one row.';
COMMENT ON COLUMN stock.feed.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN stock.feed.generation IS
    'Names this life of the database. Cursors of another one are answered with resynchronise.';
COMMENT ON COLUMN stock.feed.system_identifier IS 'The cluster in which it began.';
COMMENT ON COLUMN stock.feed.timeline IS
    'The timeline on which it began; a promotion begins another.';
COMMENT ON COLUMN stock.feed.database IS 'The oid of the database; a copy has another.';
COMMENT ON COLUMN stock.feed.first_position IS
    'Ledger rows up to here are of an earlier life if their transaction is not before first_xact.';
COMMENT ON COLUMN stock.feed.first_xact IS 'The transaction in which it began.';
COMMENT ON COLUMN stock.feed.seen IS 'Changes of transactions that this snapshot sees were sent.';
COMMENT ON COLUMN stock.feed.archived IS
    'The last transaction of which rows were archived: cursors from before it are answered with '
    'resynchronise.';
COMMENT ON COLUMN stock.feed.sequence IS 'The number of the last emission.';
COMMENT ON COLUMN stock.feed.emitted_at IS 'When that was.';
COMMENT ON COLUMN stock.feed.failed_at IS 'When an emission failed since.';
COMMENT ON COLUMN stock.feed.error IS 'Why.';
COMMENT ON CONSTRAINT feed_pkey ON stock.feed IS 'One row at most.';
COMMENT ON CONSTRAINT feed_one_row ON stock.feed IS 'One row at most.';

-- -------------------------------------------------------------------------------------------------
-- alert: what was announced and still holds. As large as what is sold out.

CREATE TABLE stock.alert (
    sku      text        NOT NULL COLLATE "C",
    location text        NOT NULL COLLATE "C",
    alert    text        NOT NULL COLLATE "C",
    since    timestamptz NOT NULL,
    lot      text        NOT NULL COLLATE "C" DEFAULT '',
    CONSTRAINT alert_pkey PRIMARY KEY (sku, location, alert, lot)
);
CREATE INDEX alert_lots ON stock.alert (lot) WHERE lot <> '';
COMMENT ON TABLE stock.alert IS
    'Levels of which it was announced on the alert channel that they are sold out or below their '
    'safety stock, and of which the end was not announced yet; kept by what sends the feed, a '
    'moment after the change, and not with pg_stock.notify = transaction. Lots of which it was '
    'announced that their date is near, or past, as long as something of them is left; kept by '
    'stock.expire_lots.';
COMMENT ON COLUMN stock.alert.sku IS 'The SKU.';
COMMENT ON COLUMN stock.alert.location IS 'The location.';
COMMENT ON COLUMN stock.alert.alert IS
    'sold_out: nothing may be promised. below_safety_stock: less than the safety stock is left '
    'unpromised. lot_near_expiry, lot_expired: the date of the lot is near, or past. '
    'drift: a reconciliation found more than the tolerance between shop and stock.';
COMMENT ON COLUMN stock.alert.lot IS 'The lot, where it is about one; else empty.';
COMMENT ON COLUMN stock.alert.since IS 'When it was announced.';
COMMENT ON CONSTRAINT alert_pkey ON stock.alert IS
    'Each alert of a level or a lot is announced once.';
COMMENT ON INDEX stock.alert_lots IS 'Finds the alerts of lots.';

-- -------------------------------------------------------------------------------------------------
-- Catching up.

CREATE FUNCTION stock.changes_since(cursor text, max_rows integer DEFAULT 10000)
RETURNS TABLE (
    outcome text, sku text, location text, on_hand bigint, reserved bigint, safety_stock bigint,
    waiting bigint, in_transit bigint, backorder_limit bigint, unsellable bigint,
    available bigint, frozen boolean, on_sale_from timestamptz, on_sale_until timestamptz,
    version bigint, updated_at timestamptz, next_cursor text
)
LANGUAGE c VOLATILE ROWS 100 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'changes_since_wrapper';
COMMENT ON FUNCTION stock.changes_since(text, integer) IS
    'Every level that changed since the cursor was given out, once, as it is now (outcome '
    'changed), and then one closing row: caught_up, or more_changes (call again at once); its '
    'next_cursor is for the next call. A single row resynchronise instead: the cursor is of '
    'another life of the database (failover, restore, copy) or ahead of it; begin anew with '
    'stock.snapshot(). Reads about max_rows (1 to 100,000) ledger rows, but never splits a '
    'transaction. available is that of the counters: units of overdue holds are added when they '
    'are given back; 0 while the level is frozen. It does not look at the time: the bounds of the '
    'sale window stand beside it. What it answers is durable. Refused on a '
    'standby (55000), in a transaction that has written, or whose snapshot is older than the '
    'cursor (25001).';

CREATE FUNCTION stock.snapshot(cursor text DEFAULT NULL, max_rows integer DEFAULT 10000)
RETURNS TABLE (
    outcome text, sku text, location text, on_hand bigint, reserved bigint, safety_stock bigint,
    waiting bigint, in_transit bigint, backorder_limit bigint, unsellable bigint,
    available bigint, frozen boolean, on_sale_from timestamptz, on_sale_until timestamptz,
    version bigint, updated_at timestamptz, next_cursor text
)
LANGUAGE c VOLATILE ROWS 1000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'snapshot_wrapper';
COMMENT ON FUNCTION stock.snapshot(text, integer) IS
    'All levels, max_rows (1 to 100,000) in a page (outcome level), and then one closing row: '
    'more_levels (call again with its next_cursor), complete (its next_cursor is for '
    'stock.changes_since), or resynchronise (begin anew without a cursor). Pages may be read in '
    'transactions of their own: what changes meanwhile is among the changes since. The first call '
    'in a life of the database writes that it has begun, unless it is in a transaction block or '
    'read-only. Refused on a standby (55000); a first page in a transaction that has written, a '
    'later one in a transaction that has changed levels (25001).';

-- -------------------------------------------------------------------------------------------------
-- Sending.

CREATE FUNCTION stock.emit_changes(max_rows integer DEFAULT 100000)
RETURNS TABLE (changes bigint, levels bigint, alerts bigint, messages bigint, more boolean)
LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'emit_changes_wrapper';
COMMENT ON FUNCTION stock.emit_changes(integer) IS
    'Sends what changed since the last emission by NOTIFY, when this transaction commits: for '
    'pg_cron, where no background worker does it. Answers how many ledger rows were looked at '
    '(about max_rows at most, 1 to 100,000; a transaction is never split), levels and alerts told '
    'of, messages sent, and whether there is more. Raises synchronous_commit to on for this '
    'transaction. Refused on a standby (55000), in a transaction that has written (25001).';

CREATE FUNCTION stock.begin_generation() RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'begin_generation_wrapper';
COMMENT ON FUNCTION stock.begin_generation() IS
    'Makes every cursor that was given out so far invalid, and gives the new generation''s name. '
    'For a copy of a cluster''s files that was started without a recovery, beside the original or '
    'in its place (a snapshot of the storage that was rolled back): nothing else tells the two '
    'apart. Refused on a standby (55000), in a transaction that has written (25001).';

-- -------------------------------------------------------------------------------------------------
-- How far behind it is.

CREATE VIEW stock.feed_lag AS
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
COMMENT ON VIEW stock.feed_lag IS
    'How far the notifications are behind the commits. No row before the feed was first used.';
COMMENT ON COLUMN stock.feed_lag.notify IS 'The setting pg_stock.notify of this session.';
COMMENT ON COLUMN stock.feed_lag.generation IS 'The life of the database that cursors belong to.';
COMMENT ON COLUMN stock.feed_lag.sequence IS 'The number of the last emission.';
COMMENT ON COLUMN stock.feed_lag.emitted_at IS 'When that was.';
COMMENT ON COLUMN stock.feed_lag.changes_behind IS
    'Ledger rows that were committed and not sent yet; 100,000 stands for that many or more; 0 '
    'where each transaction sends for itself.';
COMMENT ON COLUMN stock.feed_lag.oldest_unsent_at IS
    'When the oldest of them was written; NULL: none.';
COMMENT ON COLUMN stock.feed_lag.oldest_unsent_for IS
    'How long ago that was; NULL: none, or for ever.';
COMMENT ON COLUMN stock.feed_lag.failed_at IS
    'When an emission failed since the last that succeeded; NULL: none did.';
COMMENT ON COLUMN stock.feed_lag.error IS
    'Why; or, where changes are behind, that no worker is there to send them, or what it waits '
    'for.';
