-- What is older than anybody asks for every day: whole closed keys, moved out of stock.ledger by
-- stock.archive; and what their rows added up to, so that the ledger that is kept can be checked
-- without them.

-- -------------------------------------------------------------------------------------------------
-- ledger_archive: the ledger of old. Its months are tables of their own, made by stock.archive,
-- which can be detached, dumped and dropped. They belong to no extension, so that pg_dump takes
-- them along; and what has an index here would have it twice after a restore, so that each month
-- has its own.

CREATE TABLE stock.ledger_archive (
    archived_at timestamptz NOT NULL,
    lots        jsonb,
    LIKE stock.ledger
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE stock.ledger_archive IS
    'Rows of the ledger whose keys were closed long ago, by month. Append-only.';
COMMENT ON COLUMN stock.ledger_archive.archived_at IS
    'When it was moved here: the same for all rows of a key. A key that was used again since, and '
    'archived again, is here twice.';
COMMENT ON COLUMN stock.ledger_archive.lots IS
    'What it did to lots: an array of lot, on_hand_delta, reserved_delta and in_transit_delta, as '
    'in stock.ledger_lot; NULL: nothing.';
CREATE TRIGGER ledger_archive_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON stock.ledger_archive
    FOR EACH STATEMENT EXECUTE FUNCTION stock.refuse_ledger_change();
COMMENT ON TRIGGER ledger_archive_is_append_only ON stock.ledger_archive IS
    'The past does not change.';

-- -------------------------------------------------------------------------------------------------
-- balance_forward: what archived rows added up to, one row for each unbroken run of versions of a
-- level; as a rule one for each level. It reads like a single ledger row.

CREATE TABLE stock.balance_forward (
    from_version     bigint  NOT NULL,
    version          bigint  NOT NULL,
    on_hand_delta    bigint  NOT NULL,
    reserved_delta   bigint  NOT NULL,
    waiting_delta    bigint  NOT NULL,
    in_transit_delta bigint  NOT NULL,
    unsellable_delta bigint  NOT NULL,
    on_hand_after    bigint  NOT NULL,
    reserved_after   bigint  NOT NULL,
    safety_stock     bigint,
    buyer_limit      bigint,
    backorder_limit  bigint,
    on_sale_from     timestamptz,
    on_sale_until    timestamptz,
    frozen           boolean,
    min_life         interval,
    near_expiry      interval,
    lots_since       bigint,
    is_opening       boolean NOT NULL DEFAULT false,
    sku              text    NOT NULL COLLATE "C",
    location         text    NOT NULL COLLATE "C",
    CONSTRAINT balance_forward_pkey PRIMARY KEY (sku, location, from_version)
);
COMMENT ON TABLE stock.balance_forward IS
    'What ledger rows added up to that are not in the ledger any more: one row for each unbroken '
    'run of versions of a level.';
COMMENT ON COLUMN stock.balance_forward.from_version IS 'The version after the first of the rows.';
COMMENT ON COLUMN stock.balance_forward.version IS 'The version after the last of the rows.';
COMMENT ON COLUMN stock.balance_forward.on_hand_delta IS 'Change of on_hand by all of them.';
COMMENT ON COLUMN stock.balance_forward.reserved_delta IS 'Change of reserved by all of them.';
COMMENT ON COLUMN stock.balance_forward.waiting_delta IS 'Change of waiting by all of them.';
COMMENT ON COLUMN stock.balance_forward.in_transit_delta IS
    'Change of in_transit by all of them.';
COMMENT ON COLUMN stock.balance_forward.unsellable_delta IS
    'Change of unsellable by all of them.';
COMMENT ON COLUMN stock.balance_forward.on_hand_after IS 'on_hand after the last of them.';
COMMENT ON COLUMN stock.balance_forward.reserved_after IS 'reserved after the last of them.';
COMMENT ON COLUMN stock.balance_forward.safety_stock IS 'The last that they set, if any did.';
COMMENT ON COLUMN stock.balance_forward.buyer_limit IS
    'The last that they set, if any did; 0 lifted it.';
COMMENT ON COLUMN stock.balance_forward.backorder_limit IS 'The last that they set, if any did.';
COMMENT ON COLUMN stock.balance_forward.on_sale_from IS
    'The last that they set, if any did; -infinity lifted it.';
COMMENT ON COLUMN stock.balance_forward.on_sale_until IS
    'The last that they set, if any did; infinity lifted it.';
COMMENT ON COLUMN stock.balance_forward.frozen IS
    'Whether the last of them that froze or unfroze the level froze it; NULL: none did.';
COMMENT ON COLUMN stock.balance_forward.min_life IS
    'The last that they set, if any did; 0 lifted it.';
COMMENT ON COLUMN stock.balance_forward.near_expiry IS 'The last that they set, if any did.';
COMMENT ON COLUMN stock.balance_forward.lots_since IS
    'The version from which on the level had lots, if that is among them.';
COMMENT ON COLUMN stock.balance_forward.is_opening IS
    'True where stock.repair put down what there was: whatever ledger rows of these versions are '
    'still kept does not count.';
COMMENT ON COLUMN stock.balance_forward.sku IS 'What is counted.';
COMMENT ON COLUMN stock.balance_forward.location IS 'Where it is counted.';
COMMENT ON CONSTRAINT balance_forward_pkey ON stock.balance_forward IS
    'One row for each run of versions.';

-- One for each level at most; every look at the ledger asks for it.
CREATE UNIQUE INDEX balance_forward_opening ON stock.balance_forward (sku, location)
 WHERE is_opening;
COMMENT ON INDEX stock.balance_forward_opening IS 'Finds the opening balance of a level.';

CREATE TABLE stock.balance_forward_lot (
    on_hand  bigint  NOT NULL,
    reserved bigint  NOT NULL,
    frozen   boolean,
    version  bigint  NOT NULL,
    sku      text    NOT NULL COLLATE "C",
    location text    NOT NULL COLLATE "C",
    lot      text    NOT NULL COLLATE "C",
    CONSTRAINT balance_forward_lot_pkey PRIMARY KEY (sku, location, lot)
);
COMMENT ON TABLE stock.balance_forward_lot IS
    'What the ledger rows of stock.balance_forward added up to in each lot.';
COMMENT ON COLUMN stock.balance_forward_lot.on_hand IS 'Change of on_hand by all of them.';
COMMENT ON COLUMN stock.balance_forward_lot.reserved IS 'Change of reserved by all of them.';
COMMENT ON COLUMN stock.balance_forward_lot.frozen IS
    'Whether the last of them that froze or unfroze the lot froze it; NULL: none did.';
COMMENT ON COLUMN stock.balance_forward_lot.version IS
    'The version of the level after that one; 0: none did.';
COMMENT ON COLUMN stock.balance_forward_lot.sku IS 'What is counted.';
COMMENT ON COLUMN stock.balance_forward_lot.location IS 'Where it is counted.';
COMMENT ON COLUMN stock.balance_forward_lot.lot IS 'The lot; empty for what came without one.';
COMMENT ON CONSTRAINT balance_forward_lot_pkey ON stock.balance_forward_lot IS
    'One row for each lot.';

CREATE TABLE stock.balance_forward_buyer (
    quantity bigint NOT NULL,
    sku      text   NOT NULL COLLATE "C",
    location text   NOT NULL COLLATE "C",
    buyer    text   NOT NULL COLLATE "C",
    CONSTRAINT balance_forward_buyer_pkey PRIMARY KEY (sku, location, buyer)
);
COMMENT ON TABLE stock.balance_forward_buyer IS
    'What the ledger rows of stock.balance_forward added up to for each buyer.';
COMMENT ON COLUMN stock.balance_forward_buyer.quantity IS
    'Units that they held + confirmed - returned.';
COMMENT ON COLUMN stock.balance_forward_buyer.sku IS 'What is counted.';
COMMENT ON COLUMN stock.balance_forward_buyer.location IS 'Where it is counted.';
COMMENT ON COLUMN stock.balance_forward_buyer.buyer IS 'Whose units are counted.';
COMMENT ON CONSTRAINT balance_forward_buyer_pkey ON stock.balance_forward_buyer IS
    'One row for each level and buyer.';

SELECT pg_catalog.pg_extension_config_dump('stock.balance_forward', '');
SELECT pg_catalog.pg_extension_config_dump('stock.balance_forward_lot', '');
SELECT pg_catalog.pg_extension_config_dump('stock.balance_forward_buyer', '');

-- -------------------------------------------------------------------------------------------------
-- For those who ask how things came about, and for those who count.

CREATE VIEW stock.history AS
SELECT NULL::timestamptz AS archived_at, NULL::jsonb AS lots, g.* FROM stock.ledger g
UNION ALL
SELECT a.* FROM stock.ledger_archive a;
COMMENT ON VIEW stock.history IS 'The ledger, with what was archived of it.';
COMMENT ON COLUMN stock.history.archived_at IS 'When it was archived; NULL: it was not.';
COMMENT ON COLUMN stock.history.lots IS
    'What an archived row did to lots; of the others stock.ledger_lot tells.';

CREATE VIEW stock.lot_history AS
SELECT m.key, m.position, m.lot, m.on_hand_delta, m.reserved_delta, m.in_transit_delta, g.sku,
       g.location, g.recorded_at, g.operation, g.operation_key, g.line, g.buyer
  FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
UNION ALL
SELECT a.key, a.position, (m.lot COLLATE "C")::text, m.on_hand_delta, m.reserved_delta,
       m.in_transit_delta, a.sku, a.location, a.recorded_at, a.operation, a.operation_key, a.line,
       a.buyer
  FROM stock.ledger_archive a
 CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(a.lots)
         AS m (lot text, on_hand_delta bigint, reserved_delta bigint, in_transit_delta bigint)
 WHERE a.lots IS NOT NULL;
COMMENT ON VIEW stock.lot_history IS
    'What ledger rows did to lots, with those that were archived.';
COMMENT ON COLUMN stock.lot_history.key IS 'The key of the ledger row.';
COMMENT ON COLUMN stock.lot_history.position IS 'The ledger row.';
COMMENT ON COLUMN stock.lot_history.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lot_history.on_hand_delta IS 'Change of the lot''s on_hand.';
COMMENT ON COLUMN stock.lot_history.reserved_delta IS 'Change of the lot''s reserved.';
COMMENT ON COLUMN stock.lot_history.in_transit_delta IS
    'Change of what of the lot is on the road to the level.';
COMMENT ON COLUMN stock.lot_history.sku IS 'What changed.';
COMMENT ON COLUMN stock.lot_history.location IS 'Where it changed.';
COMMENT ON COLUMN stock.lot_history.recorded_at IS 'When.';
COMMENT ON COLUMN stock.lot_history.operation IS 'What happened.';
COMMENT ON COLUMN stock.lot_history.operation_key IS 'Which part of the key.';
COMMENT ON COLUMN stock.lot_history.line IS 'The line of the request.';
COMMENT ON COLUMN stock.lot_history.buyer IS 'For whom, where the row says so.';

CREATE TYPE stock.entry AS (
    sku              text COLLATE "C",
    location         text COLLATE "C",
    version          bigint,
    "position"       bigint,
    key              text COLLATE "C",
    operation        text COLLATE "C",
    quantity         bigint,
    on_hand_delta    bigint,
    reserved_delta   bigint,
    waiting_delta    bigint,
    in_transit_delta bigint,
    unsellable_delta bigint,
    on_hand_after    bigint,
    reserved_after   bigint,
    safety_stock     bigint,
    buyer_limit      bigint,
    backorder_limit  bigint,
    on_sale_from     timestamptz,
    on_sale_until    timestamptz,
    frozen           boolean,
    min_life         interval,
    near_expiry      interval,
    lot              text COLLATE "C",
    buyer            text COLLATE "C",
    expires_at       timestamptz,
    bought           bigint
);
COMMENT ON TYPE stock.entry IS 'A row of the ledger that gave its level a version.';
COMMENT ON COLUMN stock.entry.waiting_delta IS 'Change of waiting.';
COMMENT ON COLUMN stock.entry.in_transit_delta IS 'Change of in_transit.';
COMMENT ON COLUMN stock.entry.unsellable_delta IS 'Change of unsellable.';
COMMENT ON COLUMN stock.entry.min_life IS
    'How long a lot must last to be promised, if it set that.';
COMMENT ON COLUMN stock.entry.bought IS 'Units that the buyer holds or has bought by it.';

-- A function whose text takes its place in a query: it reads what bears the name of the ledger, and
-- carries no SET, which would keep it from that.
CREATE FUNCTION stock.entries() RETURNS SETOF stock.entry
LANGUAGE sql STABLE AS $$
SELECT g.sku, g.location, g.version, g.position, g.key, g.operation, g.quantity, g.on_hand_delta,
       g.reserved_delta, coalesce(g.waiting_delta, 0), coalesce(g.in_transit_delta, 0),
       coalesce(g.unsellable_delta, 0), g.on_hand_after, g.reserved_after, g.safety_stock,
       g.buyer_limit, g.backorder_limit, g.on_sale_from, g.on_sale_until, g.frozen,
       CASE WHEN g.operation OPERATOR(pg_catalog.=) 'set_limits' THEN g.min_life END,
       g.near_expiry, g.lot, g.buyer, g.expires_at,
       -- units that the buyer holds or has bought by it
       CASE WHEN g.operation OPERATOR(pg_catalog.=) 'reserve' THEN g.quantity
            WHEN g.operation OPERATOR(pg_catalog.=) ANY ('{release,expire,return}')
            THEN OPERATOR(pg_catalog.-) g.quantity
            WHEN g.operation OPERATOR(pg_catalog.=) ANY ('{confirm,extend}')
            THEN g.reserved_delta OPERATOR(pg_catalog.+) coalesce(g.waiting_delta, 0)
                   OPERATOR(pg_catalog.-) g.on_hand_delta
            ELSE 0 END
  FROM stock.ledger g
  LEFT JOIN stock.balance_forward f
    ON f.sku OPERATOR(pg_catalog.=) g.sku AND f.location OPERATOR(pg_catalog.=) g.location
       AND f.is_opening
 WHERE NOT (g.operation OPERATOR(pg_catalog.=) ANY ('{cancel,reopen,erase}')
            OR g.operation OPERATOR(pg_catalog.=) 'repair' AND g.sku IS NULL
            OR g.operation OPERATOR(pg_catalog.=) 'extend'
               AND g.reserved_delta OPERATOR(pg_catalog.=) 0 AND g.waiting_delta IS NULL
               AND g.on_hand_delta OPERATOR(pg_catalog.=) 0)
   AND NOT coalesce(g.version OPERATOR(pg_catalog.<=) f.version, false)
$$;
COMMENT ON FUNCTION stock.entries() IS
    'The ledger rows that count: each of them gave its level a version, and no repair has put '
    'down since what there was.';

CREATE TYPE stock.line AS (
    key         text COLLATE "C",
    sku         text COLLATE "C",
    location    text COLLATE "C",
    line        integer,
    quantity    bigint,
    waiting     bigint,
    owed        bigint,
    promise     bigint,
    buyer       text COLLATE "C",
    expires_at  timestamptz,
    reserved_at timestamptz
);
COMMENT ON TYPE stock.line IS
    'What the rows of the ledger that is kept say of one reservation at one level.';
COMMENT ON COLUMN stock.line.key IS 'The reservation.';
COMMENT ON COLUMN stock.line.sku IS 'What is reserved.';
COMMENT ON COLUMN stock.line.location IS 'Where it is reserved.';
COMMENT ON COLUMN stock.line.line IS
    'The line of the reservation; NULL: no row reserved anything, and none of it counts.';
COMMENT ON COLUMN stock.line.quantity IS 'Units still held.';
COMMENT ON COLUMN stock.line.waiting IS 'Units of them that are not there yet.';
COMMENT ON COLUMN stock.line.owed IS 'Units sold that are not there yet.';
COMMENT ON COLUMN stock.line.promise IS 'How often units that had lapsed were promised anew.';
COMMENT ON COLUMN stock.line.buyer IS 'For whom.';
COMMENT ON COLUMN stock.line.expires_at IS
    'The last deadline; an extension never shortens. NULL marks a sale without a hold.';
COMMENT ON COLUMN stock.line.reserved_at IS 'When it was reserved.';

CREATE FUNCTION stock.lines() RETURNS SETOF stock.line
LANGUAGE sql STABLE AS $$
SELECT g.key, g.sku, g.location,
       pg_catalog.min(g.line) FILTER (WHERE g.operation OPERATOR(pg_catalog.=) 'reserve'),
       pg_catalog.sum(CASE WHEN g.operation OPERATOR(pg_catalog.=) ANY ('{reserve,repair}')
                           THEN g.quantity
                           WHEN n.is_confirm THEN OPERATOR(pg_catalog.-) n.from_hold
                           WHEN g.operation OPERATOR(pg_catalog.=) ANY ('{release,expire}')
                           THEN OPERATOR(pg_catalog.-) g.quantity
                           WHEN g.operation OPERATOR(pg_catalog.=) 'extend' THEN n.promised
                           ELSE 0 END)::bigint,
       pg_catalog.sum(CASE WHEN n.is_confirm
                           THEN OPERATOR(pg_catalog.-) n.from_hold
                                  OPERATOR(pg_catalog.-) g.reserved_delta
                           WHEN n.is_of_sale THEN 0
                           ELSE n.waits END)::bigint,
       pg_catalog.sum(CASE WHEN n.is_confirm
                           THEN n.from_hold OPERATOR(pg_catalog.+) g.reserved_delta
                                  OPERATOR(pg_catalog.+) n.waits
                           WHEN n.is_of_sale THEN n.waits
                           ELSE 0 END)::bigint,
       pg_catalog.count(*) FILTER (
           WHERE g.operation OPERATOR(pg_catalog.=) ANY ('{confirm,extend}')
             AND n.promised OPERATOR(pg_catalog.>) 0),
       pg_catalog.min(g.buyer) FILTER (WHERE g.operation OPERATOR(pg_catalog.=) 'reserve'),
       pg_catalog.max(g.expires_at) FILTER (
           WHERE g.operation OPERATOR(pg_catalog.=) ANY ('{reserve,extend}')),
       pg_catalog.min(g.recorded_at) FILTER (WHERE g.operation OPERATOR(pg_catalog.=) 'reserve')
  FROM stock.ledger g
 CROSS JOIN LATERAL (
       SELECT g.operation OPERATOR(pg_catalog.=) 'confirm' AS is_confirm,
              g.operation OPERATOR(pg_catalog.=) 'return'
                OR g.on_hand_delta OPERATOR(pg_catalog.<>) 0 AS is_of_sale,
              coalesce(g.waiting_delta, 0) AS waits,
              g.reserved_delta OPERATOR(pg_catalog.+) coalesce(g.waiting_delta, 0)
                OPERATOR(pg_catalog.-) g.on_hand_delta AS promised,
              g.quantity OPERATOR(pg_catalog.-) g.reserved_delta
                OPERATOR(pg_catalog.-) coalesce(g.waiting_delta, 0)
                OPERATOR(pg_catalog.+) g.on_hand_delta AS from_hold) n
 WHERE g.operation OPERATOR(pg_catalog.=)
         ANY ('{reserve,confirm,release,expire,extend,return,supply,repair}')
 GROUP BY g.key, g.sku, g.location
$$;
COMMENT ON FUNCTION stock.lines() IS
    'What each reservation should hold of each level, and until when; what of that is not there '
    'yet, and what of its sales.';
