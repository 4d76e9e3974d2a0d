-- The data: levels, open holds, the ledger. Only the extension's functions write here.

-- Nothing in this script is looked up anywhere else, whatever the caller's search_path was.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE SCHEMA stock;
COMMENT ON SCHEMA stock IS
    'pg_stock: stock that cannot be oversold. PUBLIC may do nothing here; see stock.grant_access.';

-- -------------------------------------------------------------------------------------------------
-- level: the counters of one SKU at one location. No index on a column that changes, and room on
-- each page, so that every UPDATE is a heap-only one.

CREATE TABLE stock.level (
    on_hand       bigint      NOT NULL,
    reserved      bigint      NOT NULL,
    safety_stock  bigint      NOT NULL DEFAULT 0,
    buyer_limit   bigint,
    version       bigint      NOT NULL,
    next_due      timestamptz NOT NULL DEFAULT 'infinity',
    updated_at    timestamptz NOT NULL,
    waiting       bigint      NOT NULL DEFAULT 0,
    in_transit    bigint      NOT NULL DEFAULT 0,
    backorder_limit bigint    NOT NULL DEFAULT 0,
    on_sale_from  timestamptz,
    on_sale_until timestamptz,
    unsellable    bigint      NOT NULL DEFAULT 0,
    next_spoil    timestamptz,
    min_life      interval,
    near_expiry   interval,
    frozen        boolean     NOT NULL DEFAULT false,
    sku           text        NOT NULL COLLATE "C",
    location      text        NOT NULL COLLATE "C",
    CONSTRAINT level_pkey PRIMARY KEY (sku, location),
    -- The last wall: whatever goes wrong above, nothing is sold twice.
    -- (It says on_hand >= 0 too. It is short because PostgreSQL reads it anew for every UPDATE.)
    CONSTRAINT level_counters CHECK (reserved >= 0 AND unsellable >= 0
                                     AND reserved + unsellable <= on_hand
                                     AND waiting >= 0 AND in_transit >= 0)
) WITH (fillfactor = 50);

COMMENT ON TABLE stock.level IS 'The counters of one SKU at one location.';
COMMENT ON COLUMN stock.level.sku IS 'What is sold; 1 to 200 bytes, taken as given.';
COMMENT ON COLUMN stock.level.location IS 'Where it lies; 1 to 200 bytes, taken as given.';
COMMENT ON COLUMN stock.level.on_hand IS 'Units physically there.';
COMMENT ON COLUMN stock.level.reserved IS
    'Units there that are promised to open holds; overdue ones included.';
COMMENT ON COLUMN stock.level.waiting IS
    'Units promised, to holds or by a sale, that are not there yet.';
COMMENT ON COLUMN stock.level.backorder_limit IS
    'How many units may be promised without being there.';
COMMENT ON COLUMN stock.level.in_transit IS
    'Units on the road to here; not among on_hand, and promised to nobody.';
COMMENT ON COLUMN stock.level.unsellable IS
    'Units there, promised to nobody, that must not be sold: those of lots that are frozen or past '
    'their time, once that is booked.';
COMMENT ON COLUMN stock.level.next_spoil IS
    'No lot of it becomes unsellable before this; infinity: none ever does; NULL: the level has no '
    'lots.';
COMMENT ON COLUMN stock.level.min_life IS
    'How long a lot must last to be promised; NULL: until it is needed.';
COMMENT ON COLUMN stock.level.near_expiry IS
    'How long before its date a lot is warned of; NULL: as pg_stock.near_expiry says.';
COMMENT ON COLUMN stock.level.safety_stock IS 'Units that are never promised.';
COMMENT ON COLUMN stock.level.buyer_limit IS
    'Most units that one buyer may hold and have bought; NULL: no limit.';
COMMENT ON COLUMN stock.level.frozen IS
    'While true, nothing is reserved, sold or transferred from here; what was held in time can be '
    'confirmed.';
COMMENT ON COLUMN stock.level.on_sale_from IS
    'Nothing is reserved or sold before this; NULL: no bound.';
COMMENT ON COLUMN stock.level.on_sale_until IS
    'Nothing is reserved or sold from this on; NULL: no bound.';
COMMENT ON COLUMN stock.level.version IS
    'Rises by one with each ledger row that changes the level; the first gives 1.';
COMMENT ON COLUMN stock.level.next_due IS
    'No hold on the level has a deadline before this; infinity: there is none.';
COMMENT ON COLUMN stock.level.updated_at IS 'When the level last changed.';
COMMENT ON CONSTRAINT level_pkey ON stock.level IS 'One level for each SKU and location.';
COMMENT ON CONSTRAINT level_counters ON stock.level IS
    'Nothing is sold twice: 0 <= reserved, 0 <= unsellable, reserved + unsellable <= on_hand, '
    '0 <= waiting, 0 <= in_transit.';

-- -------------------------------------------------------------------------------------------------
-- hold: one open line of a reservation. Closing it deletes its row: the table stays as small as
-- what is open.

CREATE TABLE stock.hold (
    quantity    bigint      NOT NULL,
    expires_at  timestamptz NOT NULL,
    reserved_at timestamptz NOT NULL,
    line        integer     NOT NULL,
    key         text        NOT NULL COLLATE "C",
    sku         text        NOT NULL COLLATE "C",
    location    text        NOT NULL COLLATE "C",
    buyer       text        COLLATE "C",
    CONSTRAINT hold_pkey PRIMARY KEY (key, line)
);
CREATE INDEX hold_due ON stock.hold (sku, location, expires_at);
-- An expression, so that only the search for what is due next can use it, and never one for the
-- holds of a level.
CREATE INDEX hold_expiry ON stock.hold (greatest(expires_at, '-infinity'));

COMMENT ON TABLE stock.hold IS
    'One open line of a reservation; closing it deletes the row, the ledger remembers it.';
COMMENT ON COLUMN stock.hold.key IS 'The reservation, usually the order number.';
COMMENT ON COLUMN stock.hold.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.hold.sku IS 'What is held.';
COMMENT ON COLUMN stock.hold.location IS 'Where it is held.';
COMMENT ON COLUMN stock.hold.quantity IS
    'Units still held; those that are not there yet (stock.waiting) included.';
COMMENT ON COLUMN stock.hold.buyer IS 'For whom, where the caller said so.';
COMMENT ON COLUMN stock.hold.expires_at IS
    'The deadline: from then on the units are free to whoever needs them.';
COMMENT ON COLUMN stock.hold.reserved_at IS
    'When the reservation was made; an extension does not change it.';
COMMENT ON CONSTRAINT hold_pkey ON stock.hold IS 'One hold for each line of a reservation.';
COMMENT ON INDEX stock.hold_due IS 'Finds the overdue holds of a level.';
COMMENT ON INDEX stock.hold_expiry IS 'Finds the levels that have overdue holds.';

-- -------------------------------------------------------------------------------------------------
-- ledger: every change to every level, until it is archived. It is the record of which key did
-- what, and the truth when it and a balance disagree.

CREATE SEQUENCE stock.ledger_position_seq;
COMMENT ON SEQUENCE stock.ledger_position_seq IS
    'Hands out ledger positions; in order of insertion, not of commit.';

CREATE TABLE stock.ledger (
    -- First the transaction, then the position: a transaction that has no number yet has no
    -- position either, which the change feed relies on when a generation begins.
    xact             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    position         bigint      NOT NULL DEFAULT nextval('stock.ledger_position_seq'),
    recorded_at      timestamptz NOT NULL,
    expires_at       timestamptz,
    quantity         bigint      NOT NULL,
    on_hand_delta    bigint      NOT NULL,
    reserved_delta   bigint      NOT NULL,
    waiting_delta    bigint,
    in_transit_delta bigint,
    on_hand_after    bigint,
    reserved_after   bigint,
    available        bigint,
    version          bigint,
    answered_version bigint,
    safety_stock     bigint,
    buyer_limit      bigint,
    backorder_limit  bigint,
    on_sale_from     timestamptz,
    on_sale_until    timestamptz,
    unsellable_delta bigint,
    best_before      timestamptz,
    min_life         interval,
    near_expiry      interval,
    line             integer     NOT NULL,
    frozen           boolean,
    key              text        NOT NULL COLLATE "C",
    operation        text        NOT NULL COLLATE "C",
    operation_key    text        NOT NULL COLLATE "C" DEFAULT '',
    sku              text        COLLATE "C",
    location         text        COLLATE "C",
    buyer            text        COLLATE "C",
    lot              text        COLLATE "C",
    reason           text,
    actor            text        NOT NULL DEFAULT
                                 CASE current_setting('role') WHEN 'none' THEN session_user::text
                                      ELSE current_setting('role') END,
    login            text        NOT NULL DEFAULT session_user,
    client_addr      inet        DEFAULT inet_client_addr(),
    application_name text        DEFAULT nullif(current_setting('application_name'), ''),
    context          text
);
ALTER SEQUENCE stock.ledger_position_seq OWNED BY stock.ledger.position;

-- The claim: one key does one thing once. A cancellation takes the place of the reserve that it
-- forestalls, so that the two collide. It also answers what a key did.
CREATE UNIQUE INDEX ledger_claim ON stock.ledger
    (key, (CASE operation WHEN 'cancel' THEN 'reserve' ELSE operation END), operation_key, line);
-- The change feed's way to the rows of the transactions that ended since it looked last.
CREATE INDEX ledger_xact ON stock.ledger (xact);

-- Its one unique key is an index on an expression, which cannot name rows to a subscriber; only
-- archiving, an erasure and a repair ever need to.
ALTER TABLE stock.ledger REPLICA IDENTITY FULL;

COMMENT ON TABLE stock.ledger IS
    'Every change to every level: what, how much, before and after, by which key, by whom, when. '
    'Append-only.';
COMMENT ON COLUMN stock.ledger.position IS
    'Order of insertion; not a cursor, for transactions commit in another order.';
COMMENT ON COLUMN stock.ledger.xact IS 'The transaction that wrote the row.';
COMMENT ON COLUMN stock.ledger.recorded_at IS 'When it was decided, by the database''s clock.';
COMMENT ON COLUMN stock.ledger.key IS 'The idempotency key that the change was made under.';
COMMENT ON COLUMN stock.ledger.operation IS
    'reserve, confirm, release, expire, cancel, reopen, extend, return, receive, adjust, set, '
    'transfer, set_limits, freeze, unfreeze, dispatch, arrive, lose, recall, supply (what was '
    'waited for has come: it is reserved, or, where it is sold, leaves the stock), track_lots, '
    'freeze_lot, unfreeze_lot, spoil (what lots have of free units past their time is '
    'unsellable), erase (a buyer was replaced by a pseudonym) or repair (what was changed by hand '
    'was put right: of a level, and of each reservation and shipment of which the ledger lacked '
    'something).';
COMMENT ON COLUMN stock.ledger.operation_key IS
    'Tells several operations of one kind under one key apart; empty unless given. Those that '
    'begin with pg_stock: are made by pg_stock.';
COMMENT ON COLUMN stock.ledger.line IS
    'The line of the request, counted from 1 among what it took; of an expire and a supply, the '
    'line of the reservation.';
COMMENT ON COLUMN stock.ledger.sku IS
    'What changed; NULL where no level did: where a key is cancelled or opened again, in an erase.';
COMMENT ON COLUMN stock.ledger.location IS
    'Where it changed; NULL where no level did.';
COMMENT ON COLUMN stock.ledger.quantity IS
    'Units asked; of an adjust the difference, of a set the units counted.';
COMMENT ON COLUMN stock.ledger.on_hand_delta IS 'Change of on_hand.';
COMMENT ON COLUMN stock.ledger.reserved_delta IS 'Change of reserved.';
COMMENT ON COLUMN stock.ledger.waiting_delta IS
    'Change of waiting; NULL where it does not change.';
COMMENT ON COLUMN stock.ledger.in_transit_delta IS
    'Change of in_transit; NULL where it does not change.';
COMMENT ON COLUMN stock.ledger.unsellable_delta IS
    'Change of unsellable; NULL where it does not change.';
COMMENT ON COLUMN stock.ledger.lot IS 'The lot that the request named, if it named one.';
COMMENT ON COLUMN stock.ledger.best_before IS
    'Of a receive: the date of the lot that the goods came under.';
COMMENT ON COLUMN stock.ledger.min_life IS
    'How long a lot must last to be promised: of a set_limits, if it set it; of a reserve, if it '
    'asked for it.';
COMMENT ON COLUMN stock.ledger.near_expiry IS
    'How long before its date a lot is warned of, if it set it.';
COMMENT ON COLUMN stock.ledger.on_hand_after IS 'on_hand after this row.';
COMMENT ON COLUMN stock.ledger.reserved_after IS 'reserved after this row.';
COMMENT ON COLUMN stock.ledger.available IS
    'The availability that was answered: that after the whole request; NULL where nobody was '
    'answered (a sweep, a supply).';
COMMENT ON COLUMN stock.ledger.version IS 'The level''s version after this row.';
COMMENT ON COLUMN stock.ledger.answered_version IS
    'The version that was answered, where the same request changed the level again; NULL where it '
    'is that of the row, and where nobody was answered.';
COMMENT ON COLUMN stock.ledger.buyer IS 'For whom.';
COMMENT ON COLUMN stock.ledger.expires_at IS
    'Of a reserve or extend: the deadline, NULL marks a sale without a hold. Of an expire: the '
    'deadline that passed. Of a confirm: the deadline it missed, NULL if it came in time.';
COMMENT ON COLUMN stock.ledger.safety_stock IS 'The safety stock it set, if it set one.';
COMMENT ON COLUMN stock.ledger.buyer_limit IS
    'The limit per buyer it set, if it set one; 0 lifted it.';
COMMENT ON COLUMN stock.ledger.backorder_limit IS
    'The units it let wait, if it set that.';
COMMENT ON COLUMN stock.ledger.on_sale_from IS
    'The moment from which on it put the level on sale, if it set one; -infinity lifted it.';
COMMENT ON COLUMN stock.ledger.on_sale_until IS
    'The moment at which it ended the sale, if it set one; infinity lifted it.';
COMMENT ON COLUMN stock.ledger.frozen IS
    'Whether it froze (true) or unfroze (false) the level, if it did either.';
COMMENT ON COLUMN stock.ledger.reason IS 'Why, where the caller said so.';
COMMENT ON COLUMN stock.ledger.actor IS
    'The role that acted: the one of SET ROLE, else the one that logged in.';
COMMENT ON COLUMN stock.ledger.login IS 'The role that logged in, whatever SET ROLE said.';
COMMENT ON COLUMN stock.ledger.client_addr IS 'From where; NULL over a Unix socket.';
COMMENT ON COLUMN stock.ledger.application_name IS 'The application_name of the session.';
COMMENT ON COLUMN stock.ledger.context IS
    'The option context of the call, else the setting pg_stock.context of the session (a trace '
    'id, say), up to 1,000 bytes; of a repair what was found, and the level before and after.';
COMMENT ON INDEX stock.ledger_claim IS 'One key does one thing once.';
COMMENT ON INDEX stock.ledger_xact IS 'Finds what transactions changed, for the change feed.';

-- Refuses every statement that would change the past, whoever sends it.
CREATE FUNCTION stock.refuse_ledger_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('%s is not allowed on stock.%s: it is append-only', TG_OP,
                         TG_TABLE_NAME),
        HINT = 'Correct stock with stock.adjust_stock or stock.set_stock; the correction is an '
               'entry of its own.';
END
$$;
COMMENT ON FUNCTION stock.refuse_ledger_change() IS
    'Refuses UPDATE, DELETE and TRUNCATE of the ledger and its lots (42501).';

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stock.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION stock.refuse_ledger_change();
COMMENT ON TRIGGER ledger_is_append_only ON stock.ledger IS 'The past does not change.';

-- -------------------------------------------------------------------------------------------------
-- buyer_quantity: what each buyer holds and has bought of each level, for the limit per buyer.

CREATE TABLE stock.buyer_quantity (
    quantity bigint NOT NULL,
    sku      text   NOT NULL COLLATE "C",
    location text   NOT NULL COLLATE "C",
    buyer    text   NOT NULL COLLATE "C",
    CONSTRAINT buyer_quantity_pkey PRIMARY KEY (sku, location, buyer)
) WITH (fillfactor = 70);

COMMENT ON TABLE stock.buyer_quantity IS
    'What each buyer holds and has bought of each level: held + confirmed - returned. Kept '
    'whenever a buyer is named, so that a limit set later counts what was bought before.';
COMMENT ON COLUMN stock.buyer_quantity.sku IS 'What is counted.';
COMMENT ON COLUMN stock.buyer_quantity.location IS 'Where it is counted.';
COMMENT ON COLUMN stock.buyer_quantity.buyer IS 'Whose units are counted.';
COMMENT ON COLUMN stock.buyer_quantity.quantity IS 'Units held + confirmed - returned.';
COMMENT ON CONSTRAINT buyer_quantity_pkey ON stock.buyer_quantity IS
    'One count for each level and buyer.';

-- -------------------------------------------------------------------------------------------------
-- waiting: the queues of what is promised and not there yet. A line that is paid leaves its queue;
-- the ledger remembers it.

CREATE SEQUENCE stock.waiting_position_seq;
COMMENT ON SEQUENCE stock.waiting_position_seq IS
    'Hands out places in queues, in the order in which the promises were made.';

CREATE TABLE stock.waiting (
    position bigint  NOT NULL DEFAULT nextval('stock.waiting_position_seq'),
    quantity bigint  NOT NULL,
    line     integer NOT NULL,
    promise  integer NOT NULL,
    sold     boolean NOT NULL,
    key      text    NOT NULL COLLATE "C",
    sku      text    NOT NULL COLLATE "C",
    location text    NOT NULL COLLATE "C",
    CONSTRAINT waiting_pkey PRIMARY KEY (key, line, sold, promise),
    CONSTRAINT waiting_quantity CHECK (quantity > 0)
);
ALTER SEQUENCE stock.waiting_position_seq OWNED BY stock.waiting.position;
CREATE INDEX waiting_queue ON stock.waiting (sku, location, position, sold DESC);

COMMENT ON TABLE stock.waiting IS
    'Units promised that are not there yet: the queue of each level, oldest promise first.';
COMMENT ON COLUMN stock.waiting.position IS
    'The place in the queue: lower is earlier.';
COMMENT ON COLUMN stock.waiting.quantity IS 'Units that wait.';
COMMENT ON COLUMN stock.waiting.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.waiting.promise IS
    'Which promise of the line it is: 0 that of the reserve, one more each time that units which '
    'had lapsed were promised anew.';
COMMENT ON COLUMN stock.waiting.sold IS 'Whether they are sold; else they are held.';
COMMENT ON COLUMN stock.waiting.key IS 'The reservation.';
COMMENT ON COLUMN stock.waiting.sku IS 'What is waited for.';
COMMENT ON COLUMN stock.waiting.location IS 'Where it is waited for.';
COMMENT ON CONSTRAINT waiting_pkey ON stock.waiting IS
    'One place for what is held of a line, and one for what is sold of it by each promise.';
COMMENT ON CONSTRAINT waiting_quantity ON stock.waiting IS 'Who waits for nothing has no place.';
COMMENT ON INDEX stock.waiting_queue IS 'The queue of a level.';

-- -------------------------------------------------------------------------------------------------
-- lot: where a level has lots, each of its units lies in one. hold_lot: which of them are promised
-- to whom. ledger_lot: which of them a ledger row moved.

CREATE TABLE stock.lot (
    on_hand     bigint      NOT NULL,
    reserved    bigint      NOT NULL,
    best_before timestamptz,
    spoils_at   timestamptz,
    warns_at    timestamptz,
    received_at timestamptz NOT NULL,
    frozen      boolean     NOT NULL,
    spoiled     boolean     NOT NULL,
    spent       boolean     NOT NULL,
    sku         text        NOT NULL COLLATE "C",
    location    text        NOT NULL COLLATE "C",
    lot         text        NOT NULL COLLATE "C",
    CONSTRAINT lot_pkey PRIMARY KEY (sku, location, lot),
    CONSTRAINT lot_counters CHECK (reserved >= 0 AND reserved <= on_hand)
) WITH (fillfactor = 50);
-- None names a column that a sale changes: a sale's UPDATE is a heap-only one.
CREATE INDEX lot_present ON stock.lot (sku, location, spent);
CREATE INDEX lot_spoil ON stock.lot (spoils_at) WHERE spoils_at IS NOT NULL;
CREATE INDEX lot_warn ON stock.lot (warns_at) WHERE warns_at IS NOT NULL;

COMMENT ON TABLE stock.lot IS
    'The units of a level that came under one name and date.';
COMMENT ON COLUMN stock.lot.on_hand IS 'Units of it physically there.';
COMMENT ON COLUMN stock.lot.reserved IS 'Units of them that are promised to open holds.';
COMMENT ON COLUMN stock.lot.best_before IS 'Its date; NULL: it has none, and is sold last.';
COMMENT ON COLUMN stock.lot.spoils_at IS
    'When what is free of it becomes unsellable: its date less the level''s min_life. NULL: never, '
    'or that is booked, or nothing of it is left.';
COMMENT ON COLUMN stock.lot.warns_at IS
    'When it is warned of that its date is near; NULL where it has none, or nothing is left.';
COMMENT ON COLUMN stock.lot.received_at IS 'When the first of it came.';
COMMENT ON COLUMN stock.lot.frozen IS 'While true, nothing of it is promised: it was called back.';
COMMENT ON COLUMN stock.lot.spoiled IS
    'Whether it is booked that it is past its time: nothing of it is promised any more.';
COMMENT ON COLUMN stock.lot.spent IS 'Whether nothing of it is left.';
COMMENT ON COLUMN stock.lot.sku IS 'What is sold.';
COMMENT ON COLUMN stock.lot.location IS 'Where it lies.';
COMMENT ON COLUMN stock.lot.lot IS 'Its name; empty for what came without one.';
COMMENT ON CONSTRAINT lot_pkey ON stock.lot IS 'One lot of a name for each level.';
COMMENT ON CONSTRAINT lot_counters ON stock.lot IS
    'No unit of a lot is promised twice: 0 <= reserved <= on_hand.';
COMMENT ON INDEX stock.lot_present IS 'The lots of a level of which something is left.';
COMMENT ON INDEX stock.lot_spoil IS 'Finds the lots that are past their time.';
COMMENT ON INDEX stock.lot_warn IS 'Finds the lots whose date is near.';

CREATE TABLE stock.hold_lot (
    quantity bigint  NOT NULL,
    line     integer NOT NULL,
    key      text    NOT NULL COLLATE "C",
    lot      text    NOT NULL COLLATE "C",
    CONSTRAINT hold_lot_pkey PRIMARY KEY (key, line, lot),
    CONSTRAINT hold_lot_quantity CHECK (quantity > 0)
);
COMMENT ON TABLE stock.hold_lot IS
    'Which lots a hold has units of, where its level has lots.';
COMMENT ON COLUMN stock.hold_lot.quantity IS 'Units held of the lot.';
COMMENT ON COLUMN stock.hold_lot.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.hold_lot.key IS 'The reservation.';
COMMENT ON COLUMN stock.hold_lot.lot IS 'The lot; empty for what came without one.';
COMMENT ON CONSTRAINT hold_lot_pkey ON stock.hold_lot IS 'One row for each lot of a hold.';
COMMENT ON CONSTRAINT hold_lot_quantity ON stock.hold_lot IS
    'A hold that has nothing of a lot has no row of it.';

CREATE TABLE stock.ledger_lot (
    position         bigint NOT NULL,
    on_hand_delta    bigint NOT NULL,
    reserved_delta   bigint NOT NULL,
    in_transit_delta bigint NOT NULL,
    key              text   NOT NULL COLLATE "C",
    lot              text   NOT NULL COLLATE "C",
    -- By its key the row of the ledger is found, which has no index on positions.
    CONSTRAINT ledger_lot_pkey PRIMARY KEY (key, position, lot)
);
-- A recall asks who got of a lot.
CREATE INDEX ledger_lot_lot ON stock.ledger_lot (lot);

COMMENT ON TABLE stock.ledger_lot IS
    'What each ledger row did to the lots of its level, where it has lots. Append-only.';
COMMENT ON COLUMN stock.ledger_lot.position IS 'The row of stock.ledger.';
COMMENT ON COLUMN stock.ledger_lot.on_hand_delta IS
    'Change of the lot''s on_hand; of a track_lots: what became the lot.';
COMMENT ON COLUMN stock.ledger_lot.reserved_delta IS
    'Change of the lot''s reserved; of a track_lots: what of it was reserved.';
COMMENT ON COLUMN stock.ledger_lot.in_transit_delta IS
    'Change of what of the lot is on the road to the level.';
COMMENT ON COLUMN stock.ledger_lot.key IS 'The key of that row.';
COMMENT ON COLUMN stock.ledger_lot.lot IS 'The lot; empty for what came without one.';
COMMENT ON CONSTRAINT ledger_lot_pkey ON stock.ledger_lot IS
    'One row for each lot that a ledger row is about.';
COMMENT ON INDEX stock.ledger_lot_lot IS 'Finds what became of a lot.';

CREATE TRIGGER ledger_lot_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON stock.ledger_lot
    FOR EACH STATEMENT EXECUTE FUNCTION stock.refuse_ledger_change();
COMMENT ON TRIGGER ledger_lot_is_append_only ON stock.ledger_lot IS 'The past does not change.';

-- -------------------------------------------------------------------------------------------------
-- shipment: goods on the road, one row for each way of a SKU under a key. What has arrived or is
-- lost leaves the table; the ledger remembers it.

CREATE TABLE stock.shipment (
    quantity      bigint      NOT NULL,
    dispatched_at timestamptz NOT NULL,
    key           text        NOT NULL COLLATE "C",
    sku           text        NOT NULL COLLATE "C",
    from_location text        NOT NULL COLLATE "C",
    to_location   text        NOT NULL COLLATE "C",
    CONSTRAINT shipment_pkey PRIMARY KEY (key, sku, from_location, to_location),
    CONSTRAINT shipment_quantity CHECK (quantity > 0)
);
CREATE INDEX shipment_bound ON stock.shipment (sku, to_location);

COMMENT ON TABLE stock.shipment IS
    'Goods on the road; what has arrived, or is lost, is in the ledger alone.';
COMMENT ON COLUMN stock.shipment.key IS 'The key of the dispatch: the shipment.';
COMMENT ON COLUMN stock.shipment.sku IS 'What is on the way.';
COMMENT ON COLUMN stock.shipment.from_location IS 'Where it comes from.';
COMMENT ON COLUMN stock.shipment.to_location IS 'Where it goes.';
COMMENT ON COLUMN stock.shipment.quantity IS 'Units that are still on the way.';
COMMENT ON COLUMN stock.shipment.dispatched_at IS
    'When they left; that they turned round does not change it.';
COMMENT ON CONSTRAINT shipment_pkey ON stock.shipment IS
    'One row for each way of a SKU under a key.';
COMMENT ON CONSTRAINT shipment_quantity ON stock.shipment IS
    'What is not on the way has no row.';
COMMENT ON INDEX stock.shipment_bound IS 'Finds what is on the way to a level.';

-- -------------------------------------------------------------------------------------------------
-- pg_dump takes the data along; nothing is inserted here that a restore could collide with.

SELECT pg_catalog.pg_extension_config_dump('stock.level', '');
SELECT pg_catalog.pg_extension_config_dump('stock.hold', '');
SELECT pg_catalog.pg_extension_config_dump('stock.ledger', '');
SELECT pg_catalog.pg_extension_config_dump('stock.ledger_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('stock.buyer_quantity', '');
SELECT pg_catalog.pg_extension_config_dump('stock.waiting', '');
SELECT pg_catalog.pg_extension_config_dump('stock.waiting_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('stock.shipment', '');
SELECT pg_catalog.pg_extension_config_dump('stock.lot', '');
SELECT pg_catalog.pg_extension_config_dump('stock.hold_lot', '');
SELECT pg_catalog.pg_extension_config_dump('stock.ledger_lot', '');
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
-- The SQL face. Each operation has two forms: stock.NAME raises on refusal, with an SQLSTATE of
-- class ST, so that a surrounding transaction cannot ignore it; stock.try_NAME returns the refusal
-- as a row, so that a sold-out sale neither aborts transactions nor floods the log. Malformed input
-- (22023, 22003) is raised by both.
--
-- - holds: reserve_stock, sell_stock, confirm_stock, release_stock, return_stock,
--   extend_reservation, reserve_many, sell_many
-- - goods: receive_stock, adjust_stock, set_stock, transfer_stock, set_limits, freeze_level,
--   unfreeze_level
-- - lots: track_lots, freeze_lot, unfreeze_lot, picks
-- - goods on the road: dispatch_stock, arrive_stock, lose_stock, recall_stock
-- - keys: reopen_key
-- - reads: available, reservation, verify
--
-- No two functions of one name accept the same number of arguments, so that a driver that sends
-- untyped parameters resolves every call.

CREATE TYPE stock.answer AS (
    request    integer,
    line       integer,
    key        text,
    sku        text,
    location   text,
    quantity   bigint,
    outcome    text,
    state      text,
    available  bigint,
    version    bigint,
    expires_at timestamptz,
    replayed   boolean,
    opens_at   timestamptz,
    backordered bigint
);
COMMENT ON TYPE stock.answer IS 'What became of one line of a request.';
COMMENT ON COLUMN stock.answer.request IS 'The place of the request in its batch, from 1.';
COMMENT ON COLUMN stock.answer.line IS
    'The number of the line in its reservation: that of its place in the request that reserved '
    'it, from 1; elsewhere its place in the request.';
COMMENT ON COLUMN stock.answer.key IS 'The key.';
COMMENT ON COLUMN stock.answer.sku IS 'The SKU; empty where the request concerns no level.';
COMMENT ON COLUMN stock.answer.location IS
    'The location; empty where the request concerns no level.';
COMMENT ON COLUMN stock.answer.quantity IS 'Units asked, or taken where the caller left it open.';
COMMENT ON COLUMN stock.answer.outcome IS 'The named answer; docs/reference.md lists them all.';
COMMENT ON COLUMN stock.answer.state IS
    'What the line is now: held, confirmed, released, expired, cancelled, or none.';
COMMENT ON COLUMN stock.answer.available IS
    'Units that may still be promised after the whole request; NULL for an unknown level.';
COMMENT ON COLUMN stock.answer.version IS 'The version of the level; NULL for an unknown level.';
COMMENT ON COLUMN stock.answer.expires_at IS
    'The deadline of the hold; NULL where nothing is held.';
COMMENT ON COLUMN stock.answer.replayed IS
    'True where an earlier effect is reported and nothing was changed.';
COMMENT ON COLUMN stock.answer.opens_at IS
    'Where the outcome is not_on_sale: when the sale opens; NULL where it has ended.';
COMMENT ON COLUMN stock.answer.backordered IS
    'Units of the line, held or sold, that are not there yet.';

-- -------------------------------------------------------------------------------------------------
-- Holds units for an order until ttl has passed.

CREATE FUNCTION stock.try_reserve_stock(
    key text, sku text, location text, quantity bigint,
    ttl interval DEFAULT NULL, buyer text DEFAULT NULL, expected_version bigint DEFAULT NULL
) RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_reserve_line_wrapper';

CREATE FUNCTION stock.reserve_stock(
    key text, sku text, location text, quantity bigint,
    ttl interval DEFAULT NULL, buyer text DEFAULT NULL, expected_version bigint DEFAULT NULL
) RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reserve_line_wrapper';
COMMENT ON FUNCTION stock.reserve_stock(text, text, text, bigint, interval, text, bigint) IS
    'Holds units for an order until ttl has passed; raises a refusal. The key is the idempotency '
    'key: the same request again gives the first answer again. lines: [{"sku": …, "location": …, '
    '"quantity": …, "expected_version": …, "lot": …}, …]; options: {"ttl": …, "buyer": …, '
    '"min_life": …, "context": …}.';
COMMENT ON FUNCTION stock.try_reserve_stock(text, text, text, bigint, interval, text, bigint) IS
    'As stock.reserve_stock, but a refusal is returned as a row, and nothing is raised.';

CREATE FUNCTION stock.try_reserve_stock(key text, lines jsonb, options jsonb DEFAULT '{}')
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_reserve_lines_wrapper';

CREATE FUNCTION stock.reserve_stock(key text, lines jsonb, options jsonb DEFAULT '{}')
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reserve_lines_wrapper';
COMMENT ON FUNCTION stock.reserve_stock(text, jsonb, jsonb) IS
    'Holds units for an order until ttl has passed; raises a refusal. The key is the idempotency '
    'key: the same request again gives the first answer again. lines: [{"sku": …, "location": …, '
    '"quantity": …, "expected_version": …, "lot": …}, …]; options: {"ttl": …, "buyer": …, '
    '"min_life": …, "context": …}.';
COMMENT ON FUNCTION stock.try_reserve_stock(text, jsonb, jsonb) IS
    'As stock.reserve_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Reserves and confirms units at once.

CREATE FUNCTION stock.try_sell_stock(
    key text, sku text, location text, quantity bigint,
    buyer text DEFAULT NULL, expected_version bigint DEFAULT NULL
) RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_sell_line_wrapper';

CREATE FUNCTION stock.sell_stock(
    key text, sku text, location text, quantity bigint,
    buyer text DEFAULT NULL, expected_version bigint DEFAULT NULL
) RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sell_line_wrapper';
COMMENT ON FUNCTION stock.sell_stock(text, text, text, bigint, text, bigint) IS
    'Reserves and confirms units at once; raises a refusal. Shares the claim of reserve_stock: '
    'one key is either reserved or sold. options: {"buyer": …, "context": …}.';
COMMENT ON FUNCTION stock.try_sell_stock(text, text, text, bigint, text, bigint) IS
    'As stock.sell_stock, but a refusal is returned as a row, and nothing is raised.';

CREATE FUNCTION stock.try_sell_stock(key text, lines jsonb, options jsonb DEFAULT '{}')
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_sell_lines_wrapper';

CREATE FUNCTION stock.sell_stock(key text, lines jsonb, options jsonb DEFAULT '{}')
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sell_lines_wrapper';
COMMENT ON FUNCTION stock.sell_stock(text, jsonb, jsonb) IS
    'Reserves and confirms units at once; raises a refusal. Shares the claim of reserve_stock: '
    'one key is either reserved or sold. options: {"buyer": …, "context": …}.';
COMMENT ON FUNCTION stock.try_sell_stock(text, jsonb, jsonb) IS
    'As stock.sell_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Reserves for many orders in one call, one commit and one UPDATE per level.

CREATE FUNCTION stock.reserve_many(requests jsonb)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reserve_many_wrapper';
COMMENT ON FUNCTION stock.reserve_many(jsonb) IS
    'Reserves for many orders in order, each all or nothing; returns refusals as rows. requests: '
    '[{"key": …, "lines": […], "ttl": …, "buyer": …, "min_life": …, "context": …}, …], at most '
    '10,000.';

CREATE FUNCTION stock.sell_many(requests jsonb)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sell_many_wrapper';
COMMENT ON FUNCTION stock.sell_many(jsonb) IS
    'Sells for many orders in order, as stock.reserve_many() reserves; there is no ttl.';

-- -------------------------------------------------------------------------------------------------
-- Takes held units out of the stock, because the order is paid.

CREATE FUNCTION stock.try_confirm_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_confirm_wrapper';

CREATE FUNCTION stock.confirm_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'confirm_wrapper';
COMMENT ON FUNCTION stock.confirm_stock(text, jsonb, text) IS
    'Takes held units out of the stock, because the order is paid; raises a refusal. Without '
    'lines: all that is open. In several parts: name lines and give each part an operation_key. '
    'After the deadline the units are taken again if they are still there (confirmed_late).';
COMMENT ON FUNCTION stock.try_confirm_stock(text, jsonb, text) IS
    'As stock.confirm_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Gives held units back.

CREATE FUNCTION stock.try_release_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_release_wrapper';

CREATE FUNCTION stock.release_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'release_wrapper';
COMMENT ON FUNCTION stock.release_stock(text, jsonb, text, text) IS
    'Gives held units back; raises a refusal. Without lines: all that is still held. A key that '
    'nothing is known of is cancelled: a reserve that arrives later is refused.';
COMMENT ON FUNCTION stock.try_release_stock(text, jsonb, text, text) IS
    'As stock.release_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Takes confirmed units back into the stock.

CREATE FUNCTION stock.try_return_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_give_back_wrapper';

CREATE FUNCTION stock.return_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'give_back_wrapper';
COMMENT ON FUNCTION stock.return_stock(text, jsonb, text, text) IS
    'Takes confirmed units back into the stock; raises a refusal. Without lines: all that was '
    'confirmed and not yet returned; never more than was confirmed.';
COMMENT ON FUNCTION stock.try_return_stock(text, jsonb, text, text) IS
    'As stock.return_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Moves the deadline of what is still held to ttl from now, never earlier than it was; holds lapsed
-- units again.

CREATE FUNCTION stock.try_extend_reservation(key text, ttl interval)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_extend_wrapper';

CREATE FUNCTION stock.extend_reservation(key text, ttl interval)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'extend_wrapper';
COMMENT ON FUNCTION stock.extend_reservation(text, interval) IS
    'Moves the deadline of what is still held to ttl from now, never earlier than it was; units '
    'whose hold has lapsed are held again if they are there (extended_late, unless '
    'pg_stock.retake_lapsed is off). Raises a refusal. Call it as often as you like: the greatest '
    'deadline counts, up to pg_stock.max_hold after the reserve.';
COMMENT ON FUNCTION stock.try_extend_reservation(text, interval) IS
    'As stock.extend_reservation, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Adds goods that arrived, and creates the level if it is new.

CREATE FUNCTION stock.try_receive_stock(
    key text, sku text, location text, quantity bigint, reason text DEFAULT NULL,
    lot text DEFAULT NULL, best_before timestamptz DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_receive_wrapper';

CREATE FUNCTION stock.receive_stock(
    key text, sku text, location text, quantity bigint, reason text DEFAULT NULL,
    lot text DEFAULT NULL, best_before timestamptz DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'receive_wrapper';
COMMENT ON FUNCTION stock.receive_stock(text, text, text, bigint, text, text, timestamptz) IS
    'Adds goods that arrived, and creates the level if it is new; raises a refusal. A level holds '
    'at most 10^15 units (22003). Goods of a lot go into it; the first lot of a level makes what '
    'lies there the lot without a name. best_before is the date of the lot, always the same, and '
    'not past (22023); NULL: it has none.';
COMMENT ON FUNCTION stock.try_receive_stock(text, text, text, bigint, text, text, timestamptz) IS
    'As stock.receive_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Corrects the stock by a difference.

CREATE FUNCTION stock.try_adjust_stock(
    key text, sku text, location text, delta bigint, reason text,
    expected_version bigint DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_adjust_wrapper';

CREATE FUNCTION stock.adjust_stock(
    key text, sku text, location text, delta bigint, reason text,
    expected_version bigint DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'adjust_wrapper';
COMMENT ON FUNCTION stock.adjust_stock(text, text, text, bigint, text, bigint, text) IS
    'Corrects the stock by a difference; raises a refusal. Never below what is reserved. A level '
    'that has lots is corrected lot by lot.';
COMMENT ON FUNCTION stock.try_adjust_stock(text, text, text, bigint, text, bigint, text) IS
    'As stock.adjust_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Sets the stock to what was counted.

CREATE FUNCTION stock.try_set_stock(
    key text, sku text, location text, on_hand bigint, expected_version bigint,
    reason text DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_set_wrapper';

CREATE FUNCTION stock.set_stock(
    key text, sku text, location text, on_hand bigint, expected_version bigint,
    reason text DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_wrapper';
COMMENT ON FUNCTION stock.set_stock(text, text, text, bigint, bigint, text, text) IS
    'Sets the stock to what was counted; raises a refusal. expected_version is the version that '
    'was seen when counting began; NULL: unchecked, and an article that is new here gets its '
    'level, with 0 units, too. Never below what is reserved. Where the level has lots, one of them '
    'is set.';
COMMENT ON FUNCTION stock.try_set_stock(text, text, text, bigint, bigint, text, text) IS
    'As stock.set_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Moves goods to another location, and creates the level there if it is new.

CREATE FUNCTION stock.try_transfer_stock(
    key text, sku text, from_location text, to_location text, quantity bigint,
    reason text DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_transfer_wrapper';

CREATE FUNCTION stock.transfer_stock(
    key text, sku text, from_location text, to_location text, quantity bigint,
    reason text DEFAULT NULL, lot text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'transfer_wrapper';
COMMENT ON FUNCTION stock.transfer_stock(text, text, text, text, bigint, text, text) IS
    'Moves goods to another location, and creates the level there if it is new; raises a refusal. '
    'Never below what is reserved; refused while the level they leave is frozen. Answers two '
    'rows: from, to. Lots go along: the one that is named, whatever its date, or those that may '
    'be sold, earliest date first.';
COMMENT ON FUNCTION stock.try_transfer_stock(text, text, text, text, bigint, text, text) IS
    'As stock.transfer_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Sends goods on their way to other locations.

CREATE FUNCTION stock.try_dispatch_stock(key text, lines jsonb, reason text DEFAULT NULL)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_dispatch_wrapper';

CREATE FUNCTION stock.dispatch_stock(key text, lines jsonb, reason text DEFAULT NULL)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dispatch_wrapper';
COMMENT ON FUNCTION stock.dispatch_stock(text, jsonb, text) IS
    'Sends goods to other locations: they leave the one level and are in_transit at the other, '
    'which is made if it is new; raises a refusal. lines: [{"sku": …, "from": …, "to": …, '
    '"quantity": …, "lot": …}, …]; lot is optional, as in stock.transfer_stock. Never below what '
    'is reserved; refused while a level that they leave is frozen. Answers two rows for each '
    'line: from, to.';
COMMENT ON FUNCTION stock.try_dispatch_stock(text, jsonb, text) IS
    'As stock.dispatch_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Takes goods into the stock that were on the way.

CREATE FUNCTION stock.try_arrive_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_arrive_wrapper';

CREATE FUNCTION stock.arrive_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'arrive_wrapper';
COMMENT ON FUNCTION stock.arrive_stock(text, jsonb, text) IS
    'Adds goods that were on the way under a key to the stock where they went; raises a refusal. '
    'Without lines: all that is still on the way. In several parts: name lines (sku, location '
    'where they arrive, quantity) and give each part an operation_key.';
COMMENT ON FUNCTION stock.try_arrive_stock(text, jsonb, text) IS
    'As stock.arrive_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Writes goods off that were on the way.

CREATE FUNCTION stock.try_lose_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_lose_wrapper';

CREATE FUNCTION stock.lose_stock(
    key text, lines jsonb DEFAULT NULL, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'lose_wrapper';
COMMENT ON FUNCTION stock.lose_stock(text, jsonb, text, text) IS
    'Writes goods off that were on the way under a key and will not arrive; raises a refusal. '
    'Lines and operation_key as for stock.arrive_stock.';
COMMENT ON FUNCTION stock.try_lose_stock(text, jsonb, text, text) IS
    'As stock.lose_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Turns goods round that are on the way.

CREATE FUNCTION stock.try_recall_stock(
    key text, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_recall_wrapper';

CREATE FUNCTION stock.recall_stock(
    key text, operation_key text DEFAULT NULL, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'recall_wrapper';
COMMENT ON FUNCTION stock.recall_stock(text, text, text) IS
    'Turns round what is still on the way under a key: it is in_transit to where it came from, and '
    'stock.arrive_stock takes it in there; raises a refusal. Give another operation_key to turn it '
    'round again. Answers two rows for each way: where it went, where it goes now.';
COMMENT ON FUNCTION stock.try_recall_stock(text, text, text) IS
    'As stock.recall_stock, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Changes the safety stock, the limit per buyer, the sale window and what may wait.

CREATE FUNCTION stock.try_set_limits(
    key text, sku text, location text, safety_stock bigint DEFAULT NULL,
    buyer_limit bigint DEFAULT NULL, on_sale_from timestamptz DEFAULT NULL,
    on_sale_until timestamptz DEFAULT NULL, backorder_limit bigint DEFAULT NULL,
    min_life interval DEFAULT NULL, near_expiry interval DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_set_limits_wrapper';

CREATE FUNCTION stock.set_limits(
    key text, sku text, location text, safety_stock bigint DEFAULT NULL,
    buyer_limit bigint DEFAULT NULL, on_sale_from timestamptz DEFAULT NULL,
    on_sale_until timestamptz DEFAULT NULL, backorder_limit bigint DEFAULT NULL,
    min_life interval DEFAULT NULL, near_expiry interval DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_limits_wrapper';
COMMENT ON FUNCTION stock.set_limits(
    text, text, text, bigint, bigint, timestamptz, timestamptz, bigint, interval, interval
) IS
    'Changes the safety stock, the limit per buyer, when the level is on sale, how many units may '
    'be promised without being there, how long a lot must last to be promised (min_life; 0 lifts '
    'it), and how long before its date it is warned of (near_expiry); raises a refusal. NULL '
    'leaves one as it is; a buyer_limit of 0 lifts the limit, on_sale_from -infinity and '
    'on_sale_until infinity lift a bound. Below what waits already a backorder_limit promises '
    'nobody else anything.';
COMMENT ON FUNCTION stock.try_set_limits(
    text, text, text, bigint, bigint, timestamptz, timestamptz, bigint, interval, interval
) IS
    'As stock.set_limits, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Stops sales and transfers from a level.

CREATE FUNCTION stock.try_freeze_level(key text, sku text, location text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_freeze_wrapper';

CREATE FUNCTION stock.freeze_level(key text, sku text, location text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'freeze_wrapper';
COMMENT ON FUNCTION stock.freeze_level(text, text, text, text) IS
    'Stops sales and transfers from a level; raises a refusal. Holds that are open can still be '
    'confirmed and released.';
COMMENT ON FUNCTION stock.try_freeze_level(text, text, text, text) IS
    'As stock.freeze_level, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Allows sales and transfers from a level again.

CREATE FUNCTION stock.try_unfreeze_level(key text, sku text, location text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_unfreeze_wrapper';

CREATE FUNCTION stock.unfreeze_level(key text, sku text, location text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'unfreeze_wrapper';
COMMENT ON FUNCTION stock.unfreeze_level(text, text, text, text) IS
    'Allows sales and transfers from a level again; raises a refusal.';
COMMENT ON FUNCTION stock.try_unfreeze_level(text, text, text, text) IS
    'As stock.unfreeze_level, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Lets a level have lots.

CREATE FUNCTION stock.try_track_lots(
    key text, sku text, location text, reason text DEFAULT NULL
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_track_lots_wrapper';

CREATE FUNCTION stock.track_lots(key text, sku text, location text, reason text DEFAULT NULL)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'track_lots_wrapper';
COMMENT ON FUNCTION stock.track_lots(text, text, text, text) IS
    'From now on each unit of a level lies in a lot, what is there in the one without a name; '
    'raises a refusal. Receiving a first lot does the same. It cannot be taken back.';
COMMENT ON FUNCTION stock.try_track_lots(text, text, text, text) IS
    'As stock.track_lots, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Stops sales of a lot.

CREATE FUNCTION stock.try_freeze_lot(
    key text, sku text, location text, lot text, reason text
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_freeze_lot_wrapper';

CREATE FUNCTION stock.freeze_lot(key text, sku text, location text, lot text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'freeze_lot_wrapper';
COMMENT ON FUNCTION stock.freeze_lot(text, text, text, text, text) IS
    'Calls a lot back: nothing of it is promised any more; raises a refusal. Holds that have of it '
    'can still be confirmed and released: stock.lot_holds tells whose they are, stock.lot_moves '
    'who got of it.';
COMMENT ON FUNCTION stock.try_freeze_lot(text, text, text, text, text) IS
    'As stock.freeze_lot, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Allows sales of a lot again.

CREATE FUNCTION stock.try_unfreeze_lot(
    key text, sku text, location text, lot text, reason text
)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_unfreeze_lot_wrapper';

CREATE FUNCTION stock.unfreeze_lot(key text, sku text, location text, lot text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'unfreeze_lot_wrapper';
COMMENT ON FUNCTION stock.unfreeze_lot(text, text, text, text, text) IS
    'Allows sales of a lot again that was called back; raises a refusal.';
COMMENT ON FUNCTION stock.try_unfreeze_lot(text, text, text, text, text) IS
    'As stock.unfreeze_lot, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Makes a key usable again that was released before it was reserved.

CREATE FUNCTION stock.try_reopen_key(key text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'try_reopen_wrapper';

CREATE FUNCTION stock.reopen_key(key text, reason text)
RETURNS SETOF stock.answer
LANGUAGE c ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reopen_wrapper';
COMMENT ON FUNCTION stock.reopen_key(text, text) IS
    'Makes a key usable again that was released before it was reserved, by a mistyped number say; '
    'raises a refusal. The ledger keeps both.';
COMMENT ON FUNCTION stock.try_reopen_key(text, text) IS
    'As stock.reopen_key, but a refusal is returned as a row, and nothing is raised.';

-- -------------------------------------------------------------------------------------------------
-- Reads.

CREATE FUNCTION stock.available(sku text, location text) RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'available_wrapper';
COMMENT ON FUNCTION stock.available(text, text) IS
    'Units that may still be promised: on_hand - reserved - unsellable - safety_stock - waiting + '
    'backorder_limit, at least 0; overdue holds count as free, and lots past their time as '
    'unsellable; 0 while the level is frozen or not on sale. NULL for an unknown level.';

CREATE FUNCTION stock.reservation(key text) RETURNS TABLE (
    line integer, sku text, location text, buyer text, quantity bigint, held bigint,
    confirmed bigint, released bigint,
    expired bigint, returned bigint, state text, expires_at timestamptz, backordered bigint
) LANGUAGE c STABLE ROWS 3 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reservation_wrapper';
COMMENT ON FUNCTION stock.reservation(text) IS
    'What has become of each line of a reservation: units reserved, and of them held, confirmed, '
    'released, expired, returned; backordered are those held or confirmed that are not there yet. '
    'No row for a key that nothing is known of.';
-- What may be looked at: levels, open holds, queues, shipments, lots, and the ledger.

CREATE VIEW stock.levels AS
SELECT l.sku, l.location, l.on_hand, l.reserved, l.waiting, l.in_transit, l.safety_stock,
       l.backorder_limit,
       CASE WHEN l.frozen
              OR l.on_sale_from > pg_catalog.clock_timestamp()
              OR l.on_sale_until <= pg_catalog.clock_timestamp() THEN 0
            ELSE greatest(0, l.on_hand - l.reserved - l.unsellable - spoilt.free - l.safety_stock
                               - l.waiting + l.backorder_limit + due.overdue - spoilt.overdue)
       END AS available,
       due.overdue, l.buyer_limit, l.frozen, l.on_sale_from, l.on_sale_until, l.version,
       l.updated_at, l.unsellable, l.min_life, l.near_expiry, l.next_spoil IS NOT NULL AS has_lots
  FROM stock.level l
 CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.sum(h.quantity), 0)::bigint AS overdue
         FROM stock.hold h
        WHERE l.next_due <= pg_catalog.clock_timestamp()
          AND h.sku = l.sku AND h.location = l.location
          AND h.expires_at BETWEEN l.next_due AND pg_catalog.clock_timestamp()) due
 CROSS JOIN LATERAL (
       -- what lots have past their time that is not booked yet; what overdue holds have of lots
       -- that may not be sold
       SELECT CASE WHEN l.next_spoil IS NULL THEN 0 ELSE coalesce((
                SELECT pg_catalog.sum(o.on_hand - o.reserved) FROM stock.lot o
                 WHERE o.sku = l.sku AND o.location = l.location AND NOT o.spent
                   AND o.spoils_at <= pg_catalog.clock_timestamp()), 0)::bigint END AS free,
              CASE WHEN l.next_spoil IS NULL THEN 0 ELSE coalesce((
                SELECT pg_catalog.sum(b.quantity)
                  FROM stock.hold h
                  JOIN stock.hold_lot b ON b.key = h.key AND b.line = h.line
                  JOIN stock.lot o
                    ON o.sku = h.sku AND o.location = h.location AND o.lot = b.lot
                 WHERE l.next_due <= pg_catalog.clock_timestamp()
                   AND h.sku = l.sku AND h.location = l.location
                   AND h.expires_at BETWEEN l.next_due AND pg_catalog.clock_timestamp()
                   AND (o.frozen OR o.spoiled OR o.spoils_at <= pg_catalog.clock_timestamp())
              ), 0)::bigint END AS overdue) spoilt;
COMMENT ON VIEW stock.levels IS
    'Each level with what may still be promised of it. Look up by (sku, location), or by sku.';
COMMENT ON COLUMN stock.levels.sku IS 'What is sold.';
COMMENT ON COLUMN stock.levels.location IS 'Where it lies.';
COMMENT ON COLUMN stock.levels.on_hand IS 'Units physically there.';
COMMENT ON COLUMN stock.levels.reserved IS
    'Units there that are promised to open holds, overdue ones included.';
COMMENT ON COLUMN stock.levels.waiting IS
    'Units promised, to holds or by a sale, that are not there yet.';
COMMENT ON COLUMN stock.levels.backorder_limit IS
    'How many units may be promised without being there.';
COMMENT ON COLUMN stock.levels.in_transit IS
    'Units on the road to here; not among on_hand, and promised to nobody.';
COMMENT ON COLUMN stock.levels.safety_stock IS 'Units that are never promised.';
COMMENT ON COLUMN stock.levels.available IS
    'Units that may still be promised: on_hand - reserved - unsellable - safety_stock - waiting + '
    'backorder_limit, at least 0; overdue holds count as free, and lots past their time as '
    'unsellable; 0 while the level is frozen or not on sale.';
COMMENT ON COLUMN stock.levels.unsellable IS
    'Units there, promised to nobody, that must not be sold: those of lots that are frozen or past '
    'their time, as far as that is booked.';
COMMENT ON COLUMN stock.levels.min_life IS
    'How long a lot must last to be promised; NULL: until it is needed.';
COMMENT ON COLUMN stock.levels.near_expiry IS
    'How long before its date a lot is warned of; NULL: as pg_stock.near_expiry says.';
COMMENT ON COLUMN stock.levels.has_lots IS 'Whether each unit of it lies in a lot.';
COMMENT ON COLUMN stock.levels.overdue IS 'Units in holds past their deadline.';
COMMENT ON COLUMN stock.levels.buyer_limit IS
    'Most units that one buyer may hold and have bought; NULL: no limit.';
COMMENT ON COLUMN stock.levels.frozen IS
    'While true, nothing is reserved, sold or transferred from here; what was held in time can be '
    'confirmed.';
COMMENT ON COLUMN stock.levels.on_sale_from IS
    'Nothing is reserved or sold before this; NULL: no bound.';
COMMENT ON COLUMN stock.levels.on_sale_until IS
    'Nothing is reserved or sold from this on; NULL: no bound.';
COMMENT ON COLUMN stock.levels.version IS
    'Rises by one with each ledger row that changes the level.';
COMMENT ON COLUMN stock.levels.updated_at IS 'When the level last changed.';

CREATE VIEW stock.totals AS
SELECT l.location, pg_catalog.count(*) AS levels, pg_catalog.sum(l.on_hand) AS on_hand,
       pg_catalog.sum(l.reserved) AS reserved, pg_catalog.sum(l.waiting) AS waiting,
       pg_catalog.sum(l.in_transit) AS in_transit, pg_catalog.sum(l.unsellable) AS unsellable
  FROM stock.level l
 GROUP BY l.location;
COMMENT ON VIEW stock.totals IS
    'Units by location, for gauges. Reads all levels: some hundredths of a second for 100,000.';
COMMENT ON COLUMN stock.totals.location IS 'Where.';
COMMENT ON COLUMN stock.totals.levels IS 'How many levels there are there.';
COMMENT ON COLUMN stock.totals.on_hand IS 'Units physically there.';
COMMENT ON COLUMN stock.totals.reserved IS 'Units there that are promised to open holds.';
COMMENT ON COLUMN stock.totals.waiting IS 'Units promised that are not there yet.';
COMMENT ON COLUMN stock.totals.in_transit IS 'Units on the road to there.';
COMMENT ON COLUMN stock.totals.unsellable IS
    'Units there, promised to nobody, that must not be sold.';

CREATE VIEW stock.holds AS
SELECT h.key, h.line, h.sku, h.location, h.quantity, coalesce(w.quantity, 0) AS waiting, h.buyer,
       h.reserved_at, h.expires_at, h.expires_at <= pg_catalog.clock_timestamp() AS overdue
  FROM stock.hold h
  LEFT JOIN stock.waiting w ON w.key = h.key AND w.line = h.line AND NOT w.sold;
COMMENT ON VIEW stock.holds IS
    'What is held. Look-ups by key and by (sku, location) use an index; by buyer alone all open '
    'holds are read.';
COMMENT ON COLUMN stock.holds.key IS 'The reservation.';
COMMENT ON COLUMN stock.holds.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.holds.sku IS 'What is held.';
COMMENT ON COLUMN stock.holds.location IS 'Where it is held.';
COMMENT ON COLUMN stock.holds.quantity IS 'Units still held.';
COMMENT ON COLUMN stock.holds.waiting IS 'Units of them that are not there yet.';
COMMENT ON COLUMN stock.holds.buyer IS 'For whom.';
COMMENT ON COLUMN stock.holds.reserved_at IS
    'When the reservation was made; an extension does not change it.';
COMMENT ON COLUMN stock.holds.expires_at IS 'The deadline.';
COMMENT ON COLUMN stock.holds.overdue IS
    'True once the deadline has passed: the units are free to whoever needs them.';

CREATE VIEW stock.waiting_lines AS
SELECT w.position, w.key, w.line, w.sku, w.location, w.quantity, w.sold
  FROM stock.waiting w;
COMMENT ON VIEW stock.waiting_lines IS
    'The queues: what is promised and not there yet, oldest promise first by position. Look-ups by '
    'key and by (sku, location) use an index.';
COMMENT ON COLUMN stock.waiting_lines.position IS
    'The place in the queue of the level: lower is earlier.';
COMMENT ON COLUMN stock.waiting_lines.key IS 'The reservation.';
COMMENT ON COLUMN stock.waiting_lines.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.waiting_lines.sku IS 'What is waited for.';
COMMENT ON COLUMN stock.waiting_lines.location IS 'Where it is waited for.';
COMMENT ON COLUMN stock.waiting_lines.quantity IS 'Units that wait.';
COMMENT ON COLUMN stock.waiting_lines.sold IS 'Whether they are sold; else they are held.';

CREATE VIEW stock.supplied AS
SELECT g.recorded_at, g.key, g.line, g.sku, g.location, g.quantity, g.on_hand_delta <> 0 AS sold,
       g.version
  FROM stock.ledger g
 WHERE g.operation = 'supply'
 ORDER BY g.xact DESC, g.version DESC;
COMMENT ON VIEW stock.supplied IS
    'What has come for those who waited for it, newest first: whoever ships learns it here. A '
    'look-up by key uses an index; else the ledger is read from its newest rows on, until LIMIT '
    'ends it. What was archived is in stock.ledger_rows alone.';
COMMENT ON COLUMN stock.supplied.recorded_at IS 'When it had come.';
COMMENT ON COLUMN stock.supplied.key IS 'For which reservation.';
COMMENT ON COLUMN stock.supplied.line IS 'For which line of it.';
COMMENT ON COLUMN stock.supplied.sku IS 'What has come.';
COMMENT ON COLUMN stock.supplied.location IS 'Where.';
COMMENT ON COLUMN stock.supplied.quantity IS 'Units that have come.';
COMMENT ON COLUMN stock.supplied.sold IS
    'Whether they were sold, and so have left the stock to be shipped; else they are held now.';
COMMENT ON COLUMN stock.supplied.version IS
    'The version of the level then: tells in which order lines of one level were supplied.';

CREATE VIEW stock.shipments AS
SELECT s.key, s.sku, s.from_location, s.to_location, s.quantity, s.dispatched_at,
       CASE WHEN pg_catalog.isfinite(s.dispatched_at)
            THEN pg_catalog.clock_timestamp() - s.dispatched_at END AS on_the_way_for
  FROM stock.shipment s;
COMMENT ON VIEW stock.shipments IS
    'What is on the way. Look-ups by key, and by (sku, to_location), use an index.';
COMMENT ON COLUMN stock.shipments.key IS 'The key of the dispatch: the shipment.';
COMMENT ON COLUMN stock.shipments.sku IS 'What is on the way.';
COMMENT ON COLUMN stock.shipments.from_location IS 'Where it comes from.';
COMMENT ON COLUMN stock.shipments.to_location IS 'Where it goes.';
COMMENT ON COLUMN stock.shipments.quantity IS 'Units that are still on the way.';
COMMENT ON COLUMN stock.shipments.dispatched_at IS
    'When they left; that they turned round does not change it.';
COMMENT ON COLUMN stock.shipments.on_the_way_for IS
    'How long ago that was; NULL: for ever.';

CREATE VIEW stock.lots AS
SELECT o.sku, o.location, o.lot, o.best_before, o.on_hand, o.reserved,
       CASE WHEN o.frozen OR o.spoiled OR o.spoils_at <= pg_catalog.clock_timestamp() THEN 0
            ELSE o.on_hand - o.reserved END AS sellable,
       o.frozen, o.received_at
  FROM stock.lot o;
COMMENT ON VIEW stock.lots IS
    'The lots of levels, those of which nothing is left included. Look up by (sku, location), or '
    'by sku.';
COMMENT ON COLUMN stock.lots.sku IS 'What is sold.';
COMMENT ON COLUMN stock.lots.location IS 'Where it lies.';
COMMENT ON COLUMN stock.lots.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lots.best_before IS 'Its date; NULL: it has none, and is sold last.';
COMMENT ON COLUMN stock.lots.on_hand IS 'Units of it physically there.';
COMMENT ON COLUMN stock.lots.reserved IS 'Units of them that are promised to open holds.';
COMMENT ON COLUMN stock.lots.sellable IS
    'Units of it that may be promised, as far as the lot alone says.';
COMMENT ON COLUMN stock.lots.frozen IS 'While true, nothing of it is promised: it was called back.';
COMMENT ON COLUMN stock.lots.received_at IS 'When the first of it came.';

CREATE VIEW stock.expiring_lots AS
SELECT o.sku, o.location, o.lot, o.best_before, o.on_hand, o.reserved,
       o.best_before - pg_catalog.clock_timestamp() AS time_left
  FROM stock.lot o
 WHERE o.warns_at <= pg_catalog.clock_timestamp();
COMMENT ON VIEW stock.expiring_lots IS
    'The lots of which something is left whose date is near, or past. Uses an index.';
COMMENT ON COLUMN stock.expiring_lots.sku IS 'What is sold.';
COMMENT ON COLUMN stock.expiring_lots.location IS 'Where it lies.';
COMMENT ON COLUMN stock.expiring_lots.lot IS 'The lot.';
COMMENT ON COLUMN stock.expiring_lots.best_before IS 'Its date.';
COMMENT ON COLUMN stock.expiring_lots.on_hand IS 'Units of it physically there.';
COMMENT ON COLUMN stock.expiring_lots.reserved IS 'Units of them that are promised to open holds.';
COMMENT ON COLUMN stock.expiring_lots.time_left IS 'How long until its date; negative once past.';

CREATE VIEW stock.lot_holds AS
SELECT h.sku, h.location, b.lot, b.key, b.line, b.quantity, h.buyer, h.expires_at
  FROM stock.hold_lot b
  JOIN stock.hold h ON h.key = b.key AND h.line = b.line;
COMMENT ON VIEW stock.lot_holds IS
    'Who holds units of which lot. Look-ups by key, and by (sku, location), use an index.';
COMMENT ON COLUMN stock.lot_holds.sku IS 'What is held.';
COMMENT ON COLUMN stock.lot_holds.location IS 'Where it is held.';
COMMENT ON COLUMN stock.lot_holds.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lot_holds.key IS 'The reservation.';
COMMENT ON COLUMN stock.lot_holds.line IS 'The line of the reservation.';
COMMENT ON COLUMN stock.lot_holds.quantity IS 'Units held of the lot.';
COMMENT ON COLUMN stock.lot_holds.buyer IS 'For whom.';
COMMENT ON COLUMN stock.lot_holds.expires_at IS 'The deadline of the hold.';

CREATE VIEW stock.lot_moves AS
SELECT m.lot, m.sku, m.location, m.recorded_at, m.operation, m.key, m.operation_key, m.line,
       m.on_hand_delta, m.reserved_delta, m.in_transit_delta,
       coalesce(m.buyer, (SELECT r.buyer FROM stock.history r
                           WHERE r.key = m.key AND r.operation = 'reserve' AND r.sku = m.sku
                             AND r.location = m.location AND r.buyer IS NOT NULL LIMIT 1)) AS buyer,
       m.position
  FROM stock.lot_history m;
COMMENT ON VIEW stock.lot_moves IS
    'What happened to lots: whoever got of one that is called back is found here. Look-ups by lot '
    'and by key use an index; by lot the archive is read from its beginning to its end besides.';
COMMENT ON COLUMN stock.lot_moves.lot IS 'The lot; empty for what came without one.';
COMMENT ON COLUMN stock.lot_moves.sku IS 'What changed.';
COMMENT ON COLUMN stock.lot_moves.location IS 'Where it changed.';
COMMENT ON COLUMN stock.lot_moves.recorded_at IS 'When.';
COMMENT ON COLUMN stock.lot_moves.operation IS
    'What happened; of a track_lots: what lay there became the lot.';
COMMENT ON COLUMN stock.lot_moves.key IS 'Under which key: of a sale, the order.';
COMMENT ON COLUMN stock.lot_moves.operation_key IS 'Which part of it.';
COMMENT ON COLUMN stock.lot_moves.line IS 'The line of the request.';
COMMENT ON COLUMN stock.lot_moves.on_hand_delta IS 'Change of the lot''s on_hand.';
COMMENT ON COLUMN stock.lot_moves.reserved_delta IS 'Change of the lot''s reserved.';
COMMENT ON COLUMN stock.lot_moves.in_transit_delta IS
    'Change of what of the lot is on the road to the level.';
COMMENT ON COLUMN stock.lot_moves.buyer IS 'For whom, where the operation was an order''s.';
COMMENT ON COLUMN stock.lot_moves.position IS 'The row of the ledger.';

CREATE FUNCTION stock.picks(key text) RETURNS TABLE (
    line integer, sku text, location text, lot text, best_before timestamptz, quantity bigint
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH own AS (
    SELECT timestamptz 'infinity' AS archived_at, g.position, g.key, g.operation, g.line, g.sku,
           g.location, g.quantity, coalesce(g.waiting_delta, 0) AS waits, g.on_hand_delta,
           g.reserved_delta
      FROM stock.ledger g WHERE g.key = $1
     UNION ALL
    SELECT a.archived_at, a.position, a.key, a.operation, a.line, a.sku, a.location, a.quantity,
           coalesce(a.waiting_delta, 0), a.on_hand_delta, a.reserved_delta
      FROM stock.ledger_archive a WHERE a.key = $1
), entry AS (
    -- of a key that was used again since it was archived, only the last use counts
    SELECT o.* FROM own o
     WHERE o.archived_at = (SELECT max(l.archived_at) FROM own l)
       AND o.operation IN ('reserve', 'confirm', 'release', 'expire', 'extend', 'return', 'supply',
                           'repair')
), of_order AS (
    SELECT e.sku, e.location, min(e.line) FILTER (WHERE e.operation = 'reserve') AS line,
           -- what is held or sold, and there
           sum(CASE WHEN e.operation IN ('reserve', 'repair') THEN e.quantity - e.waits
                    WHEN e.operation IN ('release', 'expire', 'return') THEN -e.quantity - e.waits
                    WHEN e.operation = 'supply' THEN -e.waits
                    ELSE e.reserved_delta - e.on_hand_delta END) AS quantity
      FROM entry e GROUP BY e.sku, e.location
), of_lot AS (
    SELECT e.sku, e.location, m.lot, sum(m.reserved_delta - m.on_hand_delta) AS quantity
      FROM entry e JOIN stock.lot_history m ON m.key = e.key AND m.position = e.position
     GROUP BY e.sku, e.location, m.lot
), lapsed AS (
    -- what an overdue hold has is nobody's to pick
    SELECT h.sku, h.location, b.lot, coalesce(b.quantity, h.quantity - coalesce(w.quantity, 0))
             AS quantity
      FROM stock.hold h
      LEFT JOIN stock.hold_lot b ON b.key = h.key AND b.line = h.line
      LEFT JOIN stock.waiting w ON w.key = h.key AND w.line = h.line AND NOT w.sold
     WHERE h.key = $1 AND h.expires_at <= clock_timestamp()
), part AS (
    SELECT p.sku, p.location, p.lot, p.quantity FROM of_lot p WHERE p.lot <> ''
     UNION ALL
    -- what was promised before there were lots, and where there are none
    SELECT o.sku, o.location, NULL,
           o.quantity - coalesce((SELECT sum(p.quantity) FROM of_lot p
                                   WHERE p.sku = o.sku AND p.location = o.location
                                     AND p.lot <> ''), 0)
      FROM of_order o
), pick AS (
    SELECT p.sku, p.location, p.lot,
           p.quantity - coalesce((SELECT sum(d.quantity) FROM lapsed d
                                   WHERE d.sku = p.sku AND d.location = p.location
                                     AND nullif(d.lot, '') IS NOT DISTINCT FROM p.lot), 0)
             AS quantity
      FROM part p
), ranked AS (
    -- what came back to another lot than it came from is missing from the last ones
    SELECT o.line, p.sku, p.location, p.lot, l.best_before, p.quantity,
           sum(p.quantity) OVER level
             - coalesce(sum(greatest(p.quantity, 0)) OVER (level ORDER BY l.best_before, p.lot
                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS left_over
      FROM pick p
      JOIN of_order o ON o.sku = p.sku AND o.location = p.location
      LEFT JOIN stock.lot l ON l.sku = p.sku AND l.location = p.location AND l.lot = p.lot
    WINDOW level AS (PARTITION BY p.sku, p.location)
)
SELECT r.line, r.sku, r.location, r.lot, r.best_before, least(r.quantity, r.left_over)::bigint
  FROM ranked r
 WHERE least(r.quantity, r.left_over) > 0
 ORDER BY r.line, r.best_before, r.lot
$$;
COMMENT ON FUNCTION stock.picks(text) IS
    'What to take from the shelves for a reservation: of each line the units there that it holds '
    'or was sold and has not returned, lot by lot. lot is NULL where they lie in none, or came '
    'without one.';

CREATE VIEW stock.ledger_rows AS
SELECT g.position, g.xact, g.recorded_at, g.key, g.operation, g.operation_key, g.line,
       g.sku, g.location, g.quantity, g.on_hand_delta, g.reserved_delta, g.waiting_delta,
       g.in_transit_delta, g.on_hand_after, g.reserved_after, g.available, g.version,
       g.answered_version, g.buyer, g.expires_at, g.safety_stock, g.buyer_limit,
       g.backorder_limit, g.frozen, g.on_sale_from, g.on_sale_until, g.unsellable_delta, g.lot,
       g.best_before, g.min_life, g.near_expiry,
       g.reason, g.actor, g.login, g.client_addr, g.application_name, g.context
  FROM stock.history g;
COMMENT ON VIEW stock.ledger_rows IS
    'The ledger: every change to every level, what was archived included. A look-up by key uses an '
    'index; by SKU the whole ledger and archive are read, by time the whole ledger and the months '
    'of the archive that are asked for.';
-- What bears the name of a column of the ledger, and of which nothing else is said, means what it
-- means there.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT a.attrelid::pg_catalog.regclass AS place, a.attname,
                    pg_catalog.col_description(g.attrelid, g.attnum) AS meaning
               FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_attribute g ON g.attname = a.attname
              WHERE a.attrelid IN ('stock.ledger_archive'::pg_catalog.regclass,
                                   'stock.history'::pg_catalog.regclass,
                                   'stock.entry'::pg_catalog.regclass,
                                   'stock.ledger_rows'::pg_catalog.regclass)
                AND g.attrelid = 'stock.ledger'::pg_catalog.regclass
                AND a.attnum > 0 AND g.attnum > 0
                AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', c.place, c.attname, c.meaning);
    END LOOP;
END
$$;
-- The check: each level recomputed from the ledger and from its holds, in one statement and so at
-- one moment.

CREATE FUNCTION stock.verify_levels(skus text[], locations text[])
RETURNS TABLE (sku text, location text, problem text, expected text, found text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- To compile it takes longer than to run it, but for very large stocks. Whether all are asked for
-- makes another plan.
SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY
WITH chosen AS (
    SELECT c.sku COLLATE "C" AS sku, c.location COLLATE "C" AS location
      FROM unnest(skus, locations) AS c (sku, location)
), change AS (
    -- what changed a level: row by row as far as it is kept, and in sums
    SELECT e.sku, e.location, e.version AS from_version, e.version, e.position, e.key, e.operation,
           e.on_hand_delta, e.reserved_delta, e.waiting_delta, e.in_transit_delta,
           e.unsellable_delta, e.on_hand_after, e.reserved_after, e.safety_stock, e.buyer_limit,
           e.backorder_limit, e.on_sale_from, e.on_sale_until, e.frozen, e.min_life, e.near_expiry,
           CASE WHEN e.operation = 'track_lots' THEN e.version END AS lots_since
      FROM stock.entries() e
     WHERE skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen)
    UNION ALL
    SELECT f.sku, f.location, f.from_version, f.version, NULL, NULL, NULL, f.on_hand_delta,
           f.reserved_delta, f.waiting_delta, f.in_transit_delta, f.unsellable_delta,
           f.on_hand_after, f.reserved_after, f.safety_stock, f.buyer_limit, f.backorder_limit,
           f.on_sale_from, f.on_sale_until, f.frozen, f.min_life, f.near_expiry, f.lots_since
      FROM stock.balance_forward f
     WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)
), entry AS (
    -- with the running sums of the changes
    SELECT c.*, sum(c.version - c.from_version + 1) OVER chain AS nth,
           sum(c.on_hand_delta) OVER chain AS on_hand_sum,
           sum(c.reserved_delta) OVER chain AS reserved_sum
      FROM change c
    WINDOW chain AS (PARTITION BY c.sku, c.location ORDER BY c.version, c.position)
), total AS (
    SELECT e.sku, e.location,
           sum(e.on_hand_delta) AS on_hand, sum(e.reserved_delta) AS reserved,
           sum(e.waiting_delta) AS waiting, sum(e.in_transit_delta) AS in_transit,
           sum(e.unsellable_delta) AS unsellable,
           sum(e.version - e.from_version + 1) AS version,
           bool_or(e.lots_since IS NOT NULL) AS has_lots, min(e.lots_since) AS lots_since,
           nullif((array_agg(e.min_life ORDER BY e.version DESC)
                     FILTER (WHERE e.min_life IS NOT NULL))[1], '0') AS min_life,
           (array_agg(e.near_expiry ORDER BY e.version DESC)
              FILTER (WHERE e.near_expiry IS NOT NULL))[1] AS near_expiry,
           coalesce((array_agg(e.safety_stock ORDER BY e.version DESC)
                       FILTER (WHERE e.safety_stock IS NOT NULL))[1], 0) AS safety_stock,
           nullif((array_agg(e.buyer_limit ORDER BY e.version DESC)
                     FILTER (WHERE e.buyer_limit IS NOT NULL))[1], 0) AS buyer_limit,
           coalesce((array_agg(e.backorder_limit ORDER BY e.version DESC)
                       FILTER (WHERE e.backorder_limit IS NOT NULL))[1], 0) AS backorder_limit,
           coalesce((array_agg(e.frozen ORDER BY e.version DESC)
                       FILTER (WHERE e.frozen IS NOT NULL))[1], false) AS frozen,
           nullif((array_agg(e.on_sale_from ORDER BY e.version DESC)
                     FILTER (WHERE e.on_sale_from IS NOT NULL))[1], '-infinity') AS on_sale_from,
           nullif((array_agg(e.on_sale_until ORDER BY e.version DESC)
                     FILTER (WHERE e.on_sale_until IS NOT NULL))[1], 'infinity') AS on_sale_until
      FROM entry e GROUP BY e.sku, e.location
), hold AS (
    SELECT h.* FROM stock.hold h
     WHERE skus IS NULL OR h.sku = ANY (skus) AND (h.sku, h.location) IN (TABLE chosen)
), waiting AS (
    SELECT w.* FROM stock.waiting w
     WHERE skus IS NULL OR w.sku = ANY (skus) AND (w.sku, w.location) IN (TABLE chosen)
), held AS (
    SELECT h.sku, h.location, sum(h.quantity) AS quantity, min(h.expires_at) AS first_due
      FROM hold h GROUP BY h.sku, h.location
), queue AS (
    SELECT w.sku, w.location, sum(w.quantity) AS quantity,
           coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0) AS held
      FROM waiting w GROUP BY w.sku, w.location
), move AS (
    -- what ledger rows did to lots
    SELECT m.key, m.position, m.lot, m.on_hand_delta, m.reserved_delta, g.sku, g.location,
           g.operation
      FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
     WHERE skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen)
), of_lots AS (
    SELECT m.key, m.position, sum(m.on_hand_delta) AS on_hand, sum(m.reserved_delta) AS reserved
      FROM stock.ledger_lot m
     WHERE skus IS NULL OR EXISTS (SELECT FROM move c
                                    WHERE c.key = m.key AND c.position = m.position)
     GROUP BY m.key, m.position
), counted AS (
    SELECT m.* FROM move m JOIN stock.entries() e ON e.key = m.key AND e.position = m.position
), lot AS (
    SELECT s.sku, s.location, s.lot, sum(s.on_hand) AS on_hand, sum(s.reserved) AS reserved,
           bool_or(s.lay_there) AS lay_there
      FROM (SELECT m.sku, m.location, m.lot, m.on_hand_delta AS on_hand,
                   m.reserved_delta AS reserved, m.on_hand_delta <> 0 AS lay_there
              FROM counted m
             UNION ALL
            SELECT f.sku, f.location, f.lot, f.on_hand, f.reserved, true
              FROM stock.balance_forward_lot f
             WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)
           ) s
     GROUP BY s.sku, s.location, s.lot
), present AS (
    SELECT o.* FROM stock.lot o
     WHERE skus IS NULL OR o.sku = ANY (skus) AND (o.sku, o.location) IN (TABLE chosen)
), shelf AS (
    SELECT o.sku, o.location, sum(o.on_hand) AS on_hand, sum(o.reserved) AS reserved,
           coalesce(sum(o.on_hand - o.reserved) FILTER (WHERE o.frozen OR o.spoiled), 0)
             AS unsellable,
           min(o.spoils_at) AS first_spoil
      FROM present o GROUP BY o.sku, o.location
), called_back AS (
    SELECT c.sku, c.location, c.lot, (array_agg(c.frozen ORDER BY c.version DESC))[1] AS frozen
      FROM (SELECT e.sku, e.location, e.lot, e.version, e.operation = 'freeze_lot' AS frozen
              FROM stock.entries() e
             WHERE e.operation IN ('freeze_lot', 'unfreeze_lot')
               AND (skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen))
             UNION ALL
            SELECT f.sku, f.location, f.lot, f.version, f.frozen
              FROM stock.balance_forward_lot f
             WHERE f.frozen IS NOT NULL
               AND (skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen))) c
     GROUP BY c.sku, c.location, c.lot
), bound_lots AS (
    SELECT b.key, b.line, sum(b.quantity) AS quantity
      FROM stock.hold_lot b GROUP BY b.key, b.line
), level AS (
    SELECT coalesce(l.sku, t.sku) AS sku, coalesce(l.location, t.location) AS location,
           l.on_hand, l.reserved, l.waiting, l.in_transit,
           l.backorder_limit, l.safety_stock, l.buyer_limit, l.frozen, l.on_sale_from,
           l.on_sale_until, l.version,
           l.next_due, l.unsellable, l.next_spoil, l.min_life, l.near_expiry,
           t.unsellable AS unsellable_sum, t.has_lots, t.lots_since,
           t.min_life AS min_life_set, t.near_expiry AS near_expiry_set,
           t.on_hand AS on_hand_sum, t.reserved AS reserved_sum, t.waiting AS waiting_sum,
           t.in_transit AS in_transit_sum, t.backorder_limit AS backorder_limit_set,
           t.version AS entries,
           t.safety_stock AS safety_stock_set, t.buyer_limit AS buyer_limit_set,
           t.frozen AS frozen_set, t.on_sale_from AS on_sale_from_set,
           t.on_sale_until AS on_sale_until_set
      FROM (SELECT l.* FROM stock.level l
             WHERE skus IS NULL OR l.sku = ANY (skus) AND (l.sku, l.location) IN (TABLE chosen)) l
      FULL JOIN total t ON t.sku = l.sku AND t.location = l.location
), line AS (
    SELECT l.* FROM stock.lines() l
     WHERE l.line IS NOT NULL
       AND (skus IS NULL OR l.sku = ANY (skus) AND (l.sku, l.location) IN (TABLE chosen))
), place AS (
    SELECT l.key, l.sku, l.location, l.line, p.sold, p.quantity
      FROM line l
     CROSS JOIN LATERAL (VALUES (false, l.waiting), (true, l.owed)) AS p (sold, quantity)
     WHERE p.quantity > 0
), moved AS (
    -- what each shipment should have on the way to each level
    SELECT g.key, g.sku, g.location, sum(g.in_transit_delta) AS quantity,
           min(g.recorded_at) FILTER (WHERE g.operation = 'dispatch') AS dispatched_at
      FROM stock.ledger g
     WHERE g.operation IN ('dispatch', 'arrive', 'lose', 'recall', 'repair')
       AND (skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen))
     GROUP BY g.key, g.sku, g.location
), bound AS (
    SELECT s.key, s.sku, s.to_location AS location, sum(s.quantity) AS quantity,
           max(s.dispatched_at) AS dispatched_at
      FROM stock.shipment s
     WHERE skus IS NULL OR s.sku = ANY (skus) AND (s.sku, s.to_location) IN (TABLE chosen)
     GROUP BY s.key, s.sku, s.to_location
), bought AS (
    SELECT b.sku, b.location, b.buyer, sum(b.quantity) AS quantity
      FROM (SELECT e.sku, e.location, e.buyer, e.bought AS quantity
              FROM stock.entries() e
             WHERE e.buyer IS NOT NULL
               AND (skus IS NULL OR e.sku = ANY (skus) AND (e.sku, e.location) IN (TABLE chosen))
             UNION ALL
            SELECT f.sku, f.location, f.buyer, f.quantity
              FROM stock.balance_forward_buyer f
             WHERE skus IS NULL OR f.sku = ANY (skus) AND (f.sku, f.location) IN (TABLE chosen)) b
     GROUP BY b.sku, b.location, b.buyer
)
SELECT NULL::text, NULL::text, 'the sequence stock.ledger_position_seq is behind the ledger',
       last.position::text, s.last_value::text
  FROM (SELECT max(g.position) AS position FROM stock.ledger g) last, stock.ledger_position_seq s
 WHERE skus IS NULL AND last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL, 'the sequence stock.waiting_position_seq is behind the queues',
       last.position::text, s.last_value::text
  FROM (SELECT max(w.position) AS position FROM stock.waiting w) last, stock.waiting_position_seq s
 WHERE skus IS NULL AND last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
UNION ALL
SELECT NULL, NULL,
       'the ledger is empty beside levels: no key is known any more; was it restored with a '
       'column of one''s own?',
       'rows', 'none'
 WHERE skus IS NULL AND EXISTS (SELECT FROM stock.level)
   AND NOT EXISTS (SELECT FROM stock.ledger) AND NOT EXISTS (SELECT FROM stock.balance_forward)
UNION ALL
SELECT v.sku, v.location, 'the level''s ' || c.name || ' differs from the ledger',
       c.expected, c.found
  FROM level v
 CROSS JOIN LATERAL (VALUES ('on_hand', v.on_hand_sum::text, v.on_hand::text),
                            ('reserved', v.reserved_sum::text, v.reserved::text),
                            ('waiting', v.waiting_sum::text, v.waiting::text),
                            ('in_transit', v.in_transit_sum::text, v.in_transit::text),
                            ('backorder_limit', v.backorder_limit_set::text,
                             v.backorder_limit::text),
                            ('unsellable', v.unsellable_sum::text, v.unsellable::text),
                            ('lots', v.has_lots::text, (v.next_spoil IS NOT NULL)::text),
                            ('min_life', extract(epoch FROM v.min_life_set)::text,
                             extract(epoch FROM v.min_life)::text),
                            ('near_expiry', extract(epoch FROM v.near_expiry_set)::text,
                             extract(epoch FROM v.near_expiry)::text),
                            ('version', v.entries::text, v.version::text),
                            ('safety_stock', v.safety_stock_set::text, v.safety_stock::text),
                            ('buyer_limit', v.buyer_limit_set::text, v.buyer_limit::text),
                            ('frozen', v.frozen_set::text, v.frozen::text),
                            ('on_sale_from', v.on_sale_from_set::text, v.on_sale_from::text),
                            ('on_sale_until', v.on_sale_until_set::text, v.on_sale_until::text))
                    AS c (name, expected, found)
 WHERE c.expected IS DISTINCT FROM c.found
UNION ALL
SELECT v.sku, v.location, 'the level''s reserved differs from its holds',
       (coalesce(h.quantity, 0) - coalesce(q.held, 0))::text, v.reserved::text
  FROM level v
  LEFT JOIN held h ON h.sku = v.sku AND h.location = v.location
  LEFT JOIN queue q ON q.sku = v.sku AND q.location = v.location
 WHERE coalesce(h.quantity, 0) - coalesce(q.held, 0) IS DISTINCT FROM v.reserved
UNION ALL
SELECT v.sku, v.location, 'the level''s waiting differs from its queue',
       coalesce(q.quantity, 0)::text, v.waiting::text
  FROM level v LEFT JOIN queue q ON q.sku = v.sku AND q.location = v.location
 WHERE coalesce(q.quantity, 0) IS DISTINCT FROM v.waiting
UNION ALL
SELECT v.sku, v.location, 'a hold is due before the level''s next_due',
       h.first_due::text, v.next_due::text
  FROM level v JOIN held h ON h.sku = v.sku AND h.location = v.location
 WHERE h.first_due < v.next_due
UNION ALL
SELECT e.sku, e.location,
       CASE WHEN e.position IS NULL
            THEN 'a balance carried forward does not follow from what was before'
            ELSE 'a ledger row does not follow from the one before it' END,
       format('version %s, on_hand %s, reserved %s', e.nth, e.on_hand_sum, e.reserved_sum),
       format('version %s, on_hand %s, reserved %s (position %s)',
              e.version, e.on_hand_after, e.reserved_after, e.position)
  FROM entry e
 WHERE (e.nth, e.on_hand_sum, e.reserved_sum)
       IS DISTINCT FROM (e.version, e.on_hand_after, e.reserved_after)
UNION ALL
SELECT g.sku, g.location, 'a ledger row contradicts itself',
       format('the deltas of %s %s', g.operation, g.quantity),
       format('on_hand %s, reserved %s, waiting %s, in_transit %s (position %s)', g.on_hand_delta,
              g.reserved_delta, g.waiting_delta, g.in_transit_delta, g.position)
  FROM stock.entries() g
 WHERE (skus IS NULL OR g.sku = ANY (skus) AND (g.sku, g.location) IN (TABLE chosen))
   AND NOT coalesce(CASE
       WHEN g.in_transit_delta <> 0 AND g.operation NOT IN ('dispatch', 'arrive', 'lose', 'recall')
         OR g.waiting_delta <> 0 AND g.operation NOT IN ('reserve', 'confirm', 'release', 'expire',
                                                 'extend', 'return', 'supply') THEN false
       WHEN g.operation = 'reserve'
       THEN (g.on_hand_delta, g.reserved_delta + g.waiting_delta) = (0, g.quantity)
            AND least(g.reserved_delta, g.waiting_delta) >= 0
       WHEN g.operation = 'confirm'
       THEN (g.on_hand_delta, g.waiting_delta) = (g.reserved_delta, 0)
            AND g.reserved_delta BETWEEN -g.quantity AND 0
            OR (g.reserved_delta, g.waiting_delta - g.on_hand_delta) = (0, g.quantity)
            AND g.expires_at IS NOT NULL AND g.waiting_delta >= 0
       WHEN g.operation IN ('release', 'expire')
       THEN (g.on_hand_delta, g.reserved_delta + g.waiting_delta) = (0, -g.quantity)
            AND greatest(g.reserved_delta, g.waiting_delta) <= 0
       WHEN g.operation = 'return'
       THEN (g.on_hand_delta - g.waiting_delta, g.reserved_delta) = (g.quantity, 0)
            AND g.waiting_delta <= 0
       WHEN g.operation IN ('receive', 'adjust')
       THEN (g.on_hand_delta, g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'set'
       THEN g.reserved_delta = 0 AND (g.lot IS NOT NULL OR g.on_hand_after = g.quantity)
       WHEN g.operation = 'spoil'
       THEN (g.on_hand_delta, g.reserved_delta, g.unsellable_delta)
            = (0, 0, g.quantity)
       WHEN g.operation = 'transfer' THEN (abs(g.on_hand_delta), g.reserved_delta) = (g.quantity, 0)
       WHEN g.operation = 'extend'
       THEN g.on_hand_delta = 0 AND g.reserved_delta + g.waiting_delta IN (0, g.quantity)
            AND least(g.reserved_delta, g.waiting_delta) >= 0
       WHEN g.operation = 'supply'
       THEN g.waiting_delta = -g.quantity
            AND (g.on_hand_delta, g.reserved_delta) IN ((0, g.quantity), (-g.quantity, 0))
       WHEN g.operation = 'dispatch'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta)
            IN ((-g.quantity, 0, 0), (0, 0, g.quantity))
       WHEN g.operation = 'arrive'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta) = (g.quantity, 0, -g.quantity)
       WHEN g.operation = 'lose'
       THEN (g.on_hand_delta, g.reserved_delta, g.in_transit_delta) = (0, 0, -g.quantity)
       WHEN g.operation = 'recall'
       THEN (g.on_hand_delta, g.reserved_delta, abs(g.in_transit_delta)) = (0, 0, g.quantity)
       WHEN g.operation IN ('set_limits', 'freeze', 'unfreeze', 'track_lots', 'freeze_lot',
                            'unfreeze_lot', 'repair')
       THEN (g.on_hand_delta, g.reserved_delta) = (0, 0)
       END, false)
UNION ALL
SELECT coalesce(o.sku, t.sku), coalesce(o.location, t.location),
       'a lot differs from the ledger (lot ' || coalesce(o.lot, t.lot) || ')',
       format('on_hand %s, reserved %s', coalesce(t.on_hand, 0), coalesce(t.reserved, 0)),
       CASE WHEN o.lot IS NULL THEN 'none'
            ELSE format('on_hand %s, reserved %s', o.on_hand, o.reserved) END
  FROM present o
  FULL JOIN (SELECT * FROM lot
              WHERE lot.lay_there OR (lot.on_hand, lot.reserved) IS DISTINCT FROM (0, 0)) t
    ON t.sku = o.sku AND t.location = o.location AND t.lot = o.lot
 WHERE o.lot IS NULL
    OR (o.on_hand, o.reserved) IS DISTINCT FROM (coalesce(t.on_hand, 0), coalesce(t.reserved, 0))
UNION ALL
SELECT v.sku, v.location, 'the level differs from its lots',
       format('on_hand %s, reserved %s, unsellable %s', coalesce(s.on_hand, 0),
              coalesce(s.reserved, 0), coalesce(s.unsellable, 0)),
       format('on_hand %s, reserved %s, unsellable %s', v.on_hand, v.reserved, v.unsellable)
  FROM level v
  LEFT JOIN shelf s ON s.sku = v.sku AND s.location = v.location
 WHERE (v.next_spoil IS NOT NULL OR s.sku IS NOT NULL)
   AND (coalesce(s.on_hand, 0), coalesce(s.reserved, 0), coalesce(s.unsellable, 0))
       IS DISTINCT FROM (v.on_hand, v.reserved, v.unsellable)
UNION ALL
SELECT v.sku, v.location, 'a lot spoils before the level''s next_spoil',
       s.first_spoil::text, v.next_spoil::text
  FROM level v JOIN shelf s ON s.sku = v.sku AND s.location = v.location
 WHERE s.first_spoil < v.next_spoil
UNION ALL
SELECT o.sku, o.location, 'a lot contradicts itself (lot ' || o.lot || ')',
       format('spoils at %s, is warned of %s, spent %s', due.spoils_at, due.is_warned_of,
              o.on_hand = 0),
       format('spoils at %s, is warned of %s, spent %s', o.spoils_at, o.warns_at IS NOT NULL,
              o.spent)
  FROM present o
  LEFT JOIN stock.level l ON l.sku = o.sku AND l.location = o.location
 CROSS JOIN LATERAL (
       SELECT CASE WHEN o.on_hand > 0 AND NOT o.frozen AND NOT o.spoiled
                   THEN o.best_before - least(coalesce(l.min_life, '0'), '1000 years')
              END AS spoils_at,
              o.on_hand > 0 AND o.best_before IS NOT NULL AS is_warned_of) due
 WHERE (o.spoils_at, o.warns_at IS NOT NULL, o.spent)
       IS DISTINCT FROM (due.spoils_at, due.is_warned_of, o.on_hand = 0)
UNION ALL
SELECT o.sku, o.location, 'a lot''s date differs from the ledger (lot ' || o.lot || ')',
       d.best_before::text, o.best_before::text
  FROM present o
  JOIN (SELECT g.sku, g.location, g.lot, max(g.best_before) AS best_before
          FROM stock.ledger g
         WHERE g.operation = 'receive' AND g.best_before IS NOT NULL
           AND (skus IS NULL OR g.sku = ANY (skus))
         GROUP BY g.sku, g.location, g.lot) d
    ON d.sku = o.sku AND d.location = o.location AND d.lot = o.lot
 WHERE d.best_before IS DISTINCT FROM o.best_before
UNION ALL
SELECT o.sku, o.location, 'a lot''s frozen differs from the ledger (lot ' || o.lot || ')',
       coalesce(c.frozen, false)::text, o.frozen::text
  FROM present o
  LEFT JOIN called_back c ON c.sku = o.sku AND c.location = o.location AND c.lot = o.lot
 WHERE coalesce(c.frozen, false) <> o.frozen
UNION ALL
SELECT coalesce(g.sku, ''), coalesce(g.location, ''),
       'a ledger row differs from what it did to lots (position '
         || coalesce(m.position, g.position) || ')',
       format('on_hand %s, reserved %s', g.on_hand_delta, g.reserved_delta),
       format('on_hand %s, reserved %s', m.on_hand, m.reserved)
  FROM of_lots m
  FULL JOIN (
       SELECT e.* FROM entry e
         JOIN level v ON v.sku = e.sku AND v.location = e.location
        WHERE e.position IS NOT NULL AND e.version > v.lots_since) g
    ON g.key = m.key AND g.position = m.position
 WHERE NOT EXISTS (SELECT FROM stock.ledger t
                    WHERE t.key = m.key AND t.position = m.position
                      AND (t.operation = 'track_lots'
                           AND (t.on_hand_after, t.reserved_after) = (m.on_hand, m.reserved)
                           OR m.on_hand = 0 AND m.reserved = 0 AND t.on_hand_delta = 0
                           AND t.reserved_delta = 0
                           OR EXISTS (SELECT FROM stock.balance_forward f
                                       WHERE f.sku = t.sku AND f.location = t.location
                                         AND f.is_opening AND t.version <= f.version)))
   AND (coalesce(g.on_hand_delta, 0), coalesce(g.reserved_delta, 0))
       IS DISTINCT FROM (coalesce(m.on_hand, 0), coalesce(m.reserved, 0))
UNION ALL
SELECT h.sku, h.location, 'a hold differs from its lots (key ' || h.key || ')',
       format('line %s: %s', h.line, h.quantity - coalesce(w.quantity, 0)),
       format('line %s: %s', h.line, coalesce(b.quantity, 0))
  FROM hold h
  JOIN stock.level l ON l.sku = h.sku AND l.location = h.location
  LEFT JOIN waiting w
    ON w.key = h.key AND w.line = h.line AND NOT w.sold AND w.sku = h.sku
       AND w.location = h.location
  LEFT JOIN bound_lots b ON b.key = h.key AND b.line = h.line
 WHERE CASE WHEN l.next_spoil IS NULL THEN 0 ELSE h.quantity - coalesce(w.quantity, 0) END
       <> coalesce(b.quantity, 0)
UNION ALL
SELECT NULL, NULL, 'lots are bound to no hold (key ' || b.key || ')', 'none',
       format('line %s: %s', b.line, b.quantity)
  FROM bound_lots b
 WHERE skus IS NULL
   AND NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = b.key AND h.line = b.line)
UNION ALL
SELECT coalesce(b.sku, t.sku), coalesce(b.location, t.location),
       'what is held of a lot differs from the ledger (key ' || coalesce(b.key, t.key) || ', lot '
         || coalesce(b.lot, t.lot) || ')',
       coalesce(t.quantity, 0)::text, coalesce(b.quantity, 0)::text
  FROM (SELECT h.key, h.sku, h.location, c.lot, c.quantity
          FROM stock.hold_lot c JOIN hold h ON h.key = c.key AND h.line = c.line
         WHERE c.lot <> '') b
  FULL JOIN (SELECT m.key, m.sku, m.location, m.lot, sum(m.reserved_delta) AS quantity
               FROM move m
              WHERE m.lot <> '' AND m.operation <> 'track_lots'
              GROUP BY m.key, m.sku, m.location, m.lot
             HAVING sum(m.reserved_delta) <> 0) t
    ON t.key = b.key AND t.sku = b.sku AND t.location = b.location AND t.lot = b.lot
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(t.quantity, 0)
UNION ALL
SELECT coalesce(h.sku, o.sku), coalesce(h.location, o.location),
       'a hold differs from the ledger (key ' || coalesce(h.key, o.key) || ')',
       format('line %s: %s until %s for %s',
              o.line, coalesce(o.quantity, 0), o.expires_at, o.buyer),
       format('line %s: %s until %s for %s', h.line, coalesce(h.quantity, 0), h.expires_at, h.buyer)
  FROM hold h
  FULL JOIN (SELECT * FROM line WHERE line.quantity > 0) o
    ON o.key = h.key AND o.sku = h.sku AND o.location = h.location
 WHERE (h.quantity, h.line, h.expires_at, h.buyer)
       IS DISTINCT FROM (o.quantity, o.line, o.expires_at, o.buyer)
UNION ALL
SELECT coalesce(w.sku, p.sku), coalesce(w.location, p.location),
       'a place in a queue differs from the ledger (key ' || coalesce(w.key, p.key) || ')',
       format('line %s: %s, sold %s', p.line, coalesce(p.quantity, 0), p.sold),
       format('line %s: %s, sold %s', w.line, coalesce(w.quantity, 0), w.sold)
  FROM (SELECT q.key, q.line, q.sku, q.location, q.sold, sum(q.quantity) AS quantity
          FROM waiting q GROUP BY q.key, q.line, q.sku, q.location, q.sold) w
  FULL JOIN place p
    ON p.key = w.key AND p.sku = w.sku AND p.location = w.location AND p.sold = w.sold
 WHERE (w.quantity, w.line) IS DISTINCT FROM (p.quantity, p.line)
UNION ALL
SELECT w.sku, w.location,
       'a place in a queue is of another promise than the ledger says (key ' || w.key || ')',
       l.promise::text, w.promise::text
  FROM waiting w
  JOIN line l ON l.key = w.key AND l.sku = w.sku AND l.location = w.location
 WHERE CASE WHEN w.sold THEN w.promise > l.promise ELSE w.promise <> l.promise END
UNION ALL
SELECT coalesce(b.sku, m.sku), coalesce(b.location, m.location),
       'a shipment differs from the ledger (key ' || coalesce(b.key, m.key) || ')',
       format('%s since %s', coalesce(m.quantity, 0), m.dispatched_at),
       format('%s since %s', coalesce(b.quantity, 0), b.dispatched_at)
  FROM bound b
  FULL JOIN (SELECT * FROM moved WHERE moved.quantity > 0) m
    ON m.key = b.key AND m.sku = b.sku AND m.location = b.location
 WHERE (b.quantity, b.dispatched_at) IS DISTINCT FROM (m.quantity, m.dispatched_at)
UNION ALL
SELECT s.sku, s.to_location,
       'a shipment has a way that nothing was dispatched on (key ' || s.key || ')',
       'none', format('from %s', s.from_location)
  FROM stock.shipment s
 WHERE (skus IS NULL OR s.sku = ANY (skus) AND (s.sku, s.to_location) IN (TABLE chosen))
   AND NOT EXISTS (SELECT FROM stock.ledger f
                     JOIN stock.ledger t
                       ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
                    WHERE f.key = s.key AND f.operation = 'dispatch' AND f.line % 2 = 1
                      AND f.sku = s.sku
                      AND (f.location, t.location) IN ((s.from_location, s.to_location),
                                                       (s.to_location, s.from_location)))
UNION ALL
SELECT coalesce(b.sku, q.sku), coalesce(b.location, q.location),
       'the count of a buyer differs from the ledger (buyer ' || coalesce(b.buyer, q.buyer) || ')',
       coalesce(b.quantity, 0)::text, coalesce(q.quantity, 0)::text
  FROM bought b
  FULL JOIN (SELECT q.* FROM stock.buyer_quantity q
              WHERE skus IS NULL OR q.sku = ANY (skus) AND (q.sku, q.location) IN (TABLE chosen)) q
    ON q.sku = b.sku AND q.location = b.location AND q.buyer = b.buyer
 WHERE coalesce(b.quantity, 0) IS DISTINCT FROM coalesce(q.quantity, 0);
END
$$;
COMMENT ON FUNCTION stock.verify_levels(text[], text[]) IS
    'What stock.verify() answers, of the levels that are named; of all where the arrays are NULL.';

CREATE FUNCTION stock.verify(
    changed_since timestamptz DEFAULT NULL, for_sku text DEFAULT NULL,
    for_location text DEFAULT NULL
) RETURNS TABLE (sku text, location text, problem text, expected text, found text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    skus text[];
    locations text[];
BEGIN
    IF changed_since IS NOT NULL OR for_sku IS NOT NULL OR for_location IS NOT NULL THEN
        SELECT coalesce(array_agg(c.sku), '{}'), coalesce(array_agg(c.location), '{}')
          INTO skus, locations
          FROM (SELECT l.sku, l.location FROM stock.level l
                 WHERE (changed_since IS NULL OR l.updated_at >= changed_since)
                   AND (for_sku IS NULL OR l.sku = for_sku)
                   AND (for_location IS NULL OR l.location = for_location)
                UNION
                -- it may be the level that is missing
                SELECT for_sku, for_location
                 WHERE for_sku IS NOT NULL AND for_location IS NOT NULL
                   AND changed_since IS NULL) c;
    END IF;
    RETURN QUERY SELECT * FROM stock.verify_levels(skus, locations);
END
$$;
COMMENT ON FUNCTION stock.verify(timestamptz, text, text) IS
    'Recomputes each level, lot, hold, queue and shipment from the ledger and from what was '
    'carried forward of its archive; returns each disagreement. No rows, ever, unless somebody '
    'changed the tables by hand. Reads everything, and locks nothing. With changed_since only the '
    'levels are looked at that have changed since, with for_sku and for_location only those; the '
    'ledger is read from its beginning to its end for that, too, unless it has an index on SKU '
    'and location.';
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
-- What was counted: calls by operation and outcome, the SKUs that are wanted most, the worker.
-- The counters are in shared memory: without a lock, for this database, from nothing when the
-- server starts.

CREATE FUNCTION stock.stat_calls() RETURNS TABLE (
    operation text, outcome text, calls bigint, replays bigint, lines bigint, units bigint,
    rolled_back bigint, total_micros bigint, buckets bigint[], stats_reset timestamptz
)
LANGUAGE c VOLATILE ROWS 30 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'stat_calls_wrapper';
COMMENT ON FUNCTION stock.stat_calls() IS
    'The rows of the views stock.stat and stock.stat_latency.';

CREATE VIEW stock.stat AS
SELECT c.operation, c.outcome, c.calls, c.replays, c.lines, c.units, c.rolled_back,
       c.total_micros / 1000.0 AS total_ms,
       pg_catalog.round(c.total_micros / 1000.0 / c.calls, 3) AS mean_ms, c.stats_reset
  FROM stock.stat_calls() c;
COMMENT ON VIEW stock.stat IS
    'How often each operation came to each outcome, since the server started or '
    'stock.stat_reset(). A batch counts each of its requests. Calls that raise bad input or an '
    'error of PostgreSQL are not counted. No rows, and a NOTICE, where the library is not in '
    'shared_preload_libraries.';
COMMENT ON COLUMN stock.stat.operation IS 'What was asked for; a sale is a reserve.';
COMMENT ON COLUMN stock.stat.outcome IS
    'The answer; of a refusal of many lines the first by precedence.';
COMMENT ON COLUMN stock.stat.calls IS 'How often; those of the next columns included.';
COMMENT ON COLUMN stock.stat.replays IS 'How often an earlier effect was reported again.';
COMMENT ON COLUMN stock.stat.lines IS 'Lines of them.';
COMMENT ON COLUMN stock.stat.units IS 'Units of them, as they were asked for.';
COMMENT ON COLUMN stock.stat.rolled_back IS
    'How often the effect was rolled back afterwards, with the transaction or to a savepoint; not '
    'by ROLLBACK PREPARED.';
COMMENT ON COLUMN stock.stat.total_ms IS
    'Time in the calls, in milliseconds, without the commit; each request of a batch took as long '
    'as the batch.';
COMMENT ON COLUMN stock.stat.mean_ms IS 'The same for each.';
COMMENT ON COLUMN stock.stat.stats_reset IS 'Since when it is counted.';

CREATE FUNCTION stock.stat_bound(place bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN place = 0 THEN 0 WHEN place < 21 THEN 0.000016 * 2::numeric ^ (place - 1)
            ELSE 'Infinity' END
$$;
COMMENT ON FUNCTION stock.stat_bound(bigint) IS
    'Up to how many seconds the calls took of the bucket at a place, from 1, of the 21 that there '
    'are; 0: where the first begins.';

CREATE VIEW stock.stat_bucket AS
SELECT c.operation, c.outcome, stock.stat_bound(b.place) AS le,
       pg_catalog.sum(b.count) OVER (PARTITION BY c.operation, c.outcome ORDER BY b.place)::bigint
         AS calls
  FROM stock.stat_calls() c
 CROSS JOIN LATERAL pg_catalog.unnest(c.buckets) WITH ORDINALITY AS b (count, place);
COMMENT ON VIEW stock.stat_bucket IS
    'How long calls took, as a histogram of Prometheus has it: power-of-two buckets from 16 '
    'microseconds to 8 seconds.';
COMMENT ON COLUMN stock.stat_bucket.operation IS 'What was asked for.';
COMMENT ON COLUMN stock.stat_bucket.outcome IS 'The answer.';
COMMENT ON COLUMN stock.stat_bucket.le IS 'Up to so many seconds.';
COMMENT ON COLUMN stock.stat_bucket.calls IS 'How many took no longer.';

CREATE FUNCTION stock.stat_quantile(buckets bigint[], share double precision)
RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- Even inside a bucket, as histogram_quantile of Prometheus takes it; beyond the last bound: that.
WITH bucket AS (
    SELECT b.place, b.count, sum(b.count) OVER (ORDER BY b.place) AS upto,
           1000 * stock.stat_bound(b.place - 1) AS from_ms,
           1000 * stock.stat_bound(least(b.place, cardinality(buckets) - 1)) AS to_ms
      FROM unnest(buckets) WITH ORDINALITY AS b (count, place)
), wanted AS (
    SELECT share * sum(b.count) AS rank FROM bucket b
)
SELECT least(b.to_ms, b.from_ms
             + (b.to_ms - b.from_ms) * (w.rank - (b.upto - b.count)) / b.count)::double precision
  FROM bucket b, wanted w
 WHERE b.upto >= w.rank AND b.count > 0
 ORDER BY b.place LIMIT 1
$$;
COMMENT ON FUNCTION stock.stat_quantile(bigint[], double precision) IS
    'The time in milliseconds in which that share of the calls of a histogram was through, about.';

CREATE VIEW stock.stat_latency AS
SELECT c.operation, c.outcome, c.calls,
       stock.stat_quantile(c.buckets, 0.5) AS p50_ms,
       stock.stat_quantile(c.buckets, 0.95) AS p95_ms,
       stock.stat_quantile(c.buckets, 0.99) AS p99_ms
  FROM stock.stat_calls() c;
COMMENT ON VIEW stock.stat_latency IS
    'How long calls took, without the commit, within a factor of two: from the histogram of '
    'stock.stat_bucket.';
COMMENT ON COLUMN stock.stat_latency.operation IS 'What was asked for.';
COMMENT ON COLUMN stock.stat_latency.outcome IS 'The answer.';
COMMENT ON COLUMN stock.stat_latency.calls IS 'How often.';
COMMENT ON COLUMN stock.stat_latency.p50_ms IS 'Half of them took no longer, in milliseconds.';
COMMENT ON COLUMN stock.stat_latency.p95_ms IS '95 of 100 took no longer.';
COMMENT ON COLUMN stock.stat_latency.p99_ms IS '99 of 100 took no longer.';

CREATE FUNCTION stock.stat_hot_skus() RETURNS TABLE (
    sku text, waits bigint, version_conflicts bigint, refusals bigint, missed bigint
)
LANGUAGE c VOLATILE ROWS 30 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'stat_hot_skus_wrapper';
COMMENT ON FUNCTION stock.stat_hot_skus() IS 'The rows of the view stock.stat_hot.';

CREATE VIEW stock.stat_hot AS
SELECT h.sku, h.waits, h.version_conflicts, h.refusals, h.missed FROM stock.stat_hot_skus() h;
COMMENT ON VIEW stock.stat_hot IS
    'The up to 32 SKUs that others were at, or that were refused, most; the first first. A '
    'sketch: a number may be too low by what was missed, and by what processes keep to tell '
    'together: up to 64 each, which one that ends takes along.';
COMMENT ON COLUMN stock.stat_hot.sku IS 'Which.';
COMMENT ON COLUMN stock.stat_hot.waits IS 'Calls that found others at a level of it.';
COMMENT ON COLUMN stock.stat_hot.version_conflicts IS 'Lines refused as version_conflict.';
COMMENT ON COLUMN stock.stat_hot.refusals IS 'Lines refused for another reason.';
COMMENT ON COLUMN stock.stat_hot.missed IS
    'How often it may have been noted besides, before it was among these.';

CREATE FUNCTION stock.stat_worker_counts() RETURNS TABLE (
    batches bigint, holds_expired bigint, units_returned bigint, lines_paid bigint,
    lot_levels bigint, emissions bigint, messages bigint, failures bigint,
    last_failed_at timestamptz, last_error text
)
LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'stat_worker_counts_wrapper';
COMMENT ON FUNCTION stock.stat_worker_counts() IS 'The row of the view stock.stat_worker.';

CREATE VIEW stock.stat_worker AS
SELECT w.batches, w.holds_expired, w.units_returned, w.lines_paid, w.lot_levels, w.emissions,
       w.messages, w.failures, w.last_failed_at, w.last_error
  FROM stock.stat_worker_counts() w;
COMMENT ON VIEW stock.stat_worker IS
    'What the background worker of this database has done. One row; none where the library is not '
    'in shared_preload_libraries.';
COMMENT ON COLUMN stock.stat_worker.batches IS 'Sweeps that gave holds back.';
COMMENT ON COLUMN stock.stat_worker.holds_expired IS 'Holds given back.';
COMMENT ON COLUMN stock.stat_worker.units_returned IS 'Units in them.';
COMMENT ON COLUMN stock.stat_worker.lines_paid IS
    'Lines of those who waited that were paid, where a call had left that to the worker.';
COMMENT ON COLUMN stock.stat_worker.lot_levels IS
    'How often a level got less to sell because lots were past their time.';
COMMENT ON COLUMN stock.stat_worker.emissions IS 'How often the worker told of changes.';
COMMENT ON COLUMN stock.stat_worker.messages IS 'Messages that it sent.';
COMMENT ON COLUMN stock.stat_worker.failures IS 'How often it failed; it tries again.';
COMMENT ON COLUMN stock.stat_worker.last_failed_at IS 'When last; NULL: it did not.';
COMMENT ON COLUMN stock.stat_worker.last_error IS 'The error then.';

CREATE FUNCTION stock.stat_reset() RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'stat_reset_wrapper';
COMMENT ON FUNCTION stock.stat_reset() IS
    'Sets all that is counted in this database to nothing. What is counted in that moment may be '
    'lost, or not.';
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
-- Puts right what stock.verify() names. Where the ledger of a level agrees with itself it is the
-- truth, and everything else is made of it anew. Where it does not, the counters and the open holds
-- stay as they are, as far as they agree with each other; the ledger gets what is missing to them,
-- and the level an opening balance, before which nothing counts any more.

CREATE FUNCTION stock.repair(of_sku text, of_location text, reason text)
RETURNS TABLE (
    sku text, location text, problems bigint, source text, on_hand_before bigint, on_hand bigint,
    reserved_before bigint, reserved bigint, version bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    at record;
BEGIN
    PERFORM stock.check_primary();
    IF stock.library_version() <> (SELECT e.extversion FROM pg_extension e
                                    WHERE e.extname = 'pg_stock') THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'the library is of another version than the extension in this database',
            HINT = 'Connect anew, or ALTER EXTENSION pg_stock UPDATE: one that is older does not '
                   'know all operations.';
    END IF;
    IF (of_sku IS NULL) <> (of_location IS NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'of_sku and of_location must both be given, or both be NULL',
            HINT = 'Both NULL: whatever stock.verify() names.';
    END IF;
    IF of_sku IS NOT NULL THEN
        PERFORM stock.check_name('of_sku', of_sku);
        PERFORM stock.check_name('of_location', of_location);
    END IF;
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'reason must say why',
            HINT = 'The ledger keeps it: what was done to the tables, and who found it.';
    END IF;
    -- Two repairs, and one and an archiving, would meet at the balances.
    LOCK TABLE stock.balance_forward IN SHARE ROW EXCLUSIVE MODE;
    IF of_sku IS NULL THEN
        PERFORM stock.repair_sequences();
    END IF;
    PERFORM stock.remove_orphans(of_sku, of_location, reason);
    IF of_sku IS NOT NULL THEN
        RETURN QUERY SELECT * FROM stock.repair_level(of_sku, of_location, reason);
        RETURN;
    END IF;
    FOR at IN
        -- in the order in which everybody locks levels
        SELECT c.sku COLLATE "C" AS sku, c.location COLLATE "C" AS location
          FROM (SELECT DISTINCT v.sku, v.location FROM stock.verify() v
                 WHERE v.sku <> '' AND v.location IS NOT NULL) c
         ORDER BY 1, 2 LIMIT 1000
    LOOP
        BEGIN
            RETURN QUERY SELECT * FROM stock.repair_level(at.sku, at.location, reason);
        -- One that cannot be put right stops no other.
        EXCEPTION WHEN data_corrupted OR data_exception OR integrity_constraint_violation THEN
            RAISE WARNING USING MESSAGE = SQLERRM,
                HINT = format('The level (%s, %s) is as it was; repair it alone for more.',
                              at.sku, at.location);
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.repair(text, text, text) IS
    'Puts right what stock.verify() says of a level; with NULL and NULL of up to a thousand that '
    'it names. Where the ledger of a level agrees with itself, its counters, holds, queues, '
    'shipments, lots and counts of buyers are made of the ledger anew (source: ledger). Where it '
    'does not, or has lost its end, they stay as they are, as far as they agree with each other '
    'and the ledger still knows their keys (source: counters): count such a level then, and '
    'stock.set_stock. Each level that is changed gets a ledger row, repair, whose context has '
    'some of what was found, and the level before and after; a reservation or shipment of which '
    'the ledger said something else gets one, too. Answers the levels that were changed; none: '
    'nothing is left that can be put right. What cannot raises XX001, beside others a WARNING, '
    'and stays as it is. Locks the levels until the transaction ends, and keeps stock.archive '
    'waiting as long; reads the ledger several times for each, unless it has an index on SKU and '
    'location. 55000 where the library that is loaded is not of the version of the extension.';

CREATE FUNCTION stock.repair_sequences() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT setval('stock.ledger_position_seq', last.position)
  FROM (SELECT max(g.position) AS position FROM stock.ledger g) last, stock.ledger_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
SELECT setval('stock.waiting_position_seq', last.position)
  FROM (SELECT max(w.position) AS position FROM stock.waiting w) last, stock.waiting_position_seq s
 WHERE last.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
$$;
COMMENT ON FUNCTION stock.repair_sequences() IS 'Raises the sequences that are behind.';

CREATE FUNCTION stock.operations() RETURNS text[]
LANGUAGE c IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'operations_wrapper';
COMMENT ON FUNCTION stock.operations() IS 'Every operation that a ledger row can be of.';

-- The triggers that forbid it are of the role origin.
CREATE FUNCTION stock.remove_orphans(of_sku text, of_location text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
    nonsense jsonb;
    bound jsonb;
    moves jsonb;
BEGIN
    WITH gone AS (
        DELETE FROM stock.ledger g
         WHERE (g.operation <> ALL (stock.operations())
                OR (g.sku IS NULL) <> (g.location IS NULL)
                OR g.sku IS NULL AND g.operation NOT IN ('cancel', 'reopen', 'erase', 'repair'))
           AND (of_sku IS NULL OR (g.sku, g.location) = (of_sku, of_location))
        RETURNING g.*
    )
    SELECT jsonb_agg(to_jsonb(g) - 'buyer') INTO nonsense FROM gone g;
    IF of_sku IS NULL THEN
        WITH gone AS (
            DELETE FROM stock.hold_lot b
             WHERE NOT EXISTS (SELECT FROM stock.hold h WHERE h.key = b.key AND h.line = b.line)
            RETURNING b.*
        )
        SELECT jsonb_agg(to_jsonb(g)) INTO bound FROM gone g;
        WITH gone AS (
            DELETE FROM stock.ledger_lot m
             WHERE NOT EXISTS (SELECT FROM stock.ledger g
                                WHERE g.key = m.key AND g.position = m.position)
            RETURNING m.*
        )
        SELECT jsonb_agg(to_jsonb(g)) INTO moves FROM gone g;
    END IF;
    IF num_nonnulls(nonsense, bound, moves) > 0 THEN
        INSERT INTO stock.ledger (recorded_at, key, operation, line, quantity, on_hand_delta,
                                  reserved_delta, reason, context)
        VALUES (clock_timestamp(), 'pg_stock:repair:' || gen_random_uuid(), 'repair', 1, 0, 0, 0,
                reason, jsonb_strip_nulls(jsonb_build_object(
                    'ledger', nonsense, 'hold_lot', bound, 'ledger_lot', moves)));
    END IF;
END
$$;
COMMENT ON FUNCTION stock.remove_orphans(text, text, text) IS
    'Removes ledger rows of a level, or of all, whose operation does not exist, or that have lost '
    'their level; and, of all, lots that are bound to no hold, and what is said of lots by ledger '
    'rows that are not there. A ledger row, repair, keeps them in its context.';

-- -------------------------------------------------------------------------------------------------
-- One level: first it is put down what is to be, then that is written.

CREATE FUNCTION stock.standings_to_be(of_sku text, of_location text, is_intact boolean)
RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH line AS (
    SELECT l.* FROM stock.lines() l WHERE l.sku = of_sku AND l.location = of_location
), held AS (
    SELECT h.key, sum(h.quantity) AS quantity FROM stock.hold h
     WHERE h.sku = of_sku AND h.location = of_location GROUP BY h.key
), queued AS (
    SELECT w.key, coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0) AS waiting,
           coalesce(sum(w.quantity) FILTER (WHERE w.sold), 0) AS owed
      FROM stock.waiting w
     WHERE w.sku = of_sku AND w.location = of_location GROUP BY w.key
), of_lots AS (
    SELECT DISTINCT c.key
      FROM (SELECT g.key FROM stock.ledger_lot m
              JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
             WHERE g.sku = of_sku AND g.location = of_location AND m.lot <> ''
               AND g.operation <> 'track_lots'
             GROUP BY g.key, m.lot HAVING sum(m.reserved_delta) <> 0) c
), known AS (
    -- where neither the ledger nor the tables have anything open, nothing is to be done
    SELECT coalesce(l.key, h.key, w.key, o.key) AS key, l.line, l.promise, l.buyer, l.expires_at,
           l.reserved_at, l.quantity, l.waiting, l.owed,
           CASE WHEN l.line IS NULL OR l.expires_at IS NULL THEN 0
                WHEN is_intact THEN greatest(l.quantity, 0)
                ELSE coalesce(h.quantity, 0) END AS hold,
           coalesce(CASE WHEN is_intact THEN l.waiting ELSE w.waiting END, 0) AS asked,
           CASE WHEN l.line IS NULL THEN 0
                WHEN is_intact THEN greatest(l.owed, 0) ELSE coalesce(w.owed, 0) END AS sold
      FROM line l
      FULL JOIN held h ON h.key = l.key
      FULL JOIN queued w ON w.key = coalesce(l.key, h.key)
      FULL JOIN of_lots o ON o.key = coalesce(l.key, h.key, w.key)
     WHERE h.key IS NOT NULL OR w.key IS NOT NULL OR o.key IS NOT NULL
        OR l.line IS NOT NULL AND (l.quantity, l.waiting, l.owed) <> (0, 0, 0)
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'key', k.key, 'line', k.line, 'promise', k.promise, 'buyer', k.buyer,
           'expires_at', k.expires_at, 'reserved_at', k.reserved_at, 'held', k.hold,
           'waiting', least(k.hold, greatest(k.asked, 0)), 'owed', k.sold,
           'held_missing', CASE WHEN k.line IS NOT NULL THEN k.hold - k.quantity END,
           'waiting_missing', CASE WHEN k.line IS NOT NULL
                              THEN least(k.hold, greatest(k.asked, 0)) - k.waiting END,
           'owed_missing', CASE WHEN k.line IS NOT NULL THEN k.sold - k.owed END)), '[]')
  FROM known k
$$;
COMMENT ON FUNCTION stock.standings_to_be(text, text, boolean) IS
    'What each reservation is to hold of a level, and what the ledger lacks to that: as the ledger '
    'says where it is intact, else as the holds and queues say of keys that the ledger knows.';

CREATE FUNCTION stock.bindings_to_be(
    of_sku text, of_location text, standings jsonb, is_intact boolean
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH standing AS (
    SELECT s.* FROM jsonb_to_recordset(standings)
             AS s (key text, line integer, held bigint, waiting bigint)
), moved AS (
    SELECT m.key, m.lot, sum(m.reserved_delta) AS quantity
      FROM stock.ledger_lot m JOIN stock.ledger g ON g.key = m.key AND g.position = m.position
     WHERE m.key IN (SELECT s.key FROM standing s) AND m.lot <> ''
       AND g.sku = of_sku AND g.location = of_location AND g.operation <> 'track_lots'
     GROUP BY m.key, m.lot
), bound AS (
    SELECT b.key, b.lot, sum(b.quantity) AS quantity
      FROM stock.hold_lot b
      JOIN stock.hold h ON h.key = b.key AND h.line = b.line
     WHERE h.sku = of_sku AND h.location = of_location AND b.lot <> ''
     GROUP BY b.key, b.lot
), part AS (
    -- no more than is held, and there
    SELECT s.key, s.line, c.lot, c.said,
           greatest(0, least(c.asked, s.held - s.waiting
             - coalesce(sum(greatest(c.asked, 0)) OVER (PARTITION BY s.key ORDER BY c.lot
                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))) AS quantity
      FROM standing s
      JOIN (SELECT coalesce(m.key, b.key) AS key, coalesce(m.lot, b.lot) AS lot,
                   coalesce(m.quantity, 0) AS said,
                   coalesce(CASE WHEN is_intact THEN m.quantity ELSE b.quantity END, 0) AS asked
              FROM moved m FULL JOIN bound b ON b.key = m.key AND b.lot = m.lot) c
        ON c.key = s.key
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'key', p.key, 'line', p.line, 'lot', p.lot, 'quantity', p.quantity,
           'missing', p.missing)), '[]')
  FROM (SELECT p.key, p.line, p.lot, p.quantity, p.quantity - p.said AS missing FROM part p
         UNION ALL
        -- the rest lies where what came without a lot lies
        SELECT s.key, s.line, '', s.held - s.waiting - coalesce((
                   SELECT sum(p.quantity) FROM part p WHERE p.key = s.key), 0), 0
          FROM standing s) p
 WHERE p.quantity > 0 OR p.missing <> 0
$$;
COMMENT ON FUNCTION stock.bindings_to_be(text, text, jsonb, boolean) IS
    'Of which lots each reservation is to have how much, and what the ledger lacks to that.';

CREATE FUNCTION stock.write_holds(of_sku text, of_location text, standings jsonb, bindings jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM stock.hold_lot b USING stock.hold h
     WHERE h.key = b.key AND h.line = b.line AND h.sku = of_sku AND h.location = of_location;
    DELETE FROM stock.hold_lot b
     USING jsonb_to_recordset(standings) AS s (key text, line integer)
     WHERE b.key = s.key AND b.line = s.line;
    DELETE FROM stock.hold h
     WHERE h.sku = of_sku AND h.location = of_location
       AND NOT EXISTS (SELECT FROM jsonb_to_recordset(standings)
                                AS s (key text, line integer, held bigint)
                        WHERE s.key = h.key AND s.line = h.line AND s.held > 0);
    INSERT INTO stock.hold AS h
    SELECT s.held, s.expires_at, s.reserved_at, s.line, s.key, of_sku, of_location, s.buyer
      FROM jsonb_to_recordset(standings)
        AS s (key text, line integer, held bigint, expires_at timestamptz, reserved_at timestamptz,
              buyer text)
     WHERE s.held > 0
        ON CONFLICT ON CONSTRAINT hold_pkey DO UPDATE
       SET quantity = excluded.quantity, expires_at = excluded.expires_at, buyer = excluded.buyer,
           sku = excluded.sku, location = excluded.location;
    INSERT INTO stock.hold_lot
    SELECT b.quantity, b.line, b.key, b.lot
      FROM jsonb_to_recordset(bindings) AS b (key text, line integer, lot text, quantity bigint)
     WHERE b.quantity > 0;
    -- Whoever waits keeps his place where nothing is wrong with it; else the first that he has, or
    -- the last of all.
    WITH place AS (
        SELECT s.key, s.line, s.promise, p.sold, p.quantity
          FROM jsonb_to_recordset(standings)
            AS s (key text, line integer, promise bigint, waiting bigint, owed bigint)
         CROSS JOIN LATERAL (VALUES (false, s.waiting), (true, s.owed)) AS p (sold, quantity)
    ), wrong AS (
        SELECT coalesce(q.key, p.key) AS key, coalesce(q.sold, p.sold) AS sold
          FROM (SELECT w.key, w.sold, min(w.line) AS line, max(w.line) AS last,
                       sum(w.quantity) AS quantity, max(w.promise) AS promise
                  FROM stock.waiting w
                 WHERE w.sku = of_sku AND w.location = of_location GROUP BY w.key, w.sold) q
          FULL JOIN (SELECT * FROM place WHERE place.quantity > 0) p
            ON p.key = q.key AND p.sold = q.sold
         WHERE (q.line, q.last, q.quantity) IS DISTINCT FROM (p.line, p.line, p.quantity)
            OR CASE WHEN q.sold THEN q.promise > p.promise ELSE q.promise <> p.promise END
    ), gone AS (
        DELETE FROM stock.waiting w USING wrong
         WHERE w.key = wrong.key AND w.sold = wrong.sold
           AND w.sku = of_sku AND w.location = of_location
        RETURNING w.key, w.sold, w.position
    )
    INSERT INTO stock.waiting (position, quantity, line, promise, sold, key, sku, location)
    SELECT coalesce((SELECT min(g.position) FROM gone g
                      WHERE g.key = p.key AND g.sold = p.sold),
                    nextval('stock.waiting_position_seq')),
           p.quantity, p.line, p.promise, p.sold, p.key, of_sku, of_location
      FROM place p JOIN wrong ON wrong.key = p.key AND wrong.sold = p.sold
     WHERE p.quantity > 0
        ON CONFLICT ON CONSTRAINT waiting_pkey DO UPDATE
       SET quantity = excluded.quantity, sku = excluded.sku, location = excluded.location;
END
$$;
COMMENT ON FUNCTION stock.write_holds(text, text, jsonb, jsonb) IS
    'Makes the holds, their lots and the queue of a level what they are to be.';

CREATE FUNCTION stock.write_shipments(of_sku text, of_location text, is_intact boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT is_intact THEN
        DELETE FROM stock.shipment s
         WHERE s.sku = of_sku AND s.to_location = of_location
           AND NOT EXISTS (SELECT FROM stock.ledger f
                             JOIN stock.ledger t
                               ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
                            WHERE f.key = s.key AND f.operation = 'dispatch' AND f.line % 2 = 1
                              AND f.sku = s.sku
                              AND (f.location, t.location) IN ((s.from_location, s.to_location),
                                                               (s.to_location, s.from_location)));
        RETURN;
    END IF;
    WITH moved AS (
        SELECT g.key, sum(g.in_transit_delta) AS quantity,
               min(g.recorded_at) FILTER (WHERE g.operation = 'dispatch') AS dispatched_at
          FROM stock.ledger g
         WHERE g.sku = of_sku AND g.location = of_location
           AND g.operation IN ('dispatch', 'arrive', 'lose', 'recall')
         GROUP BY g.key HAVING sum(g.in_transit_delta) > 0
    ), way AS (
        -- there, and back for what was turned round
        SELECT DISTINCT f.key, w.origin
          FROM stock.ledger f
          JOIN stock.ledger t ON t.key = f.key AND t.operation = 'dispatch' AND t.line = f.line + 1
         CROSS JOIN LATERAL (VALUES (f.location, t.location), (t.location, f.location))
                 AS w (origin, target)
         WHERE f.operation = 'dispatch' AND f.line % 2 = 1 AND f.sku = of_sku
           AND w.target = of_location AND f.key IN (SELECT m.key FROM moved m)
    ), wrong AS (
        SELECT coalesce(m.key, b.key) AS key
          FROM moved m
          FULL JOIN (SELECT s.key, sum(s.quantity) AS quantity,
                            max(s.dispatched_at) AS dispatched_at,
                            bool_and(EXISTS (SELECT FROM way w
                                              WHERE w.key = s.key
                                                AND w.origin = s.from_location)) AS is_known
                       FROM stock.shipment s
                      WHERE s.sku = of_sku AND s.to_location = of_location GROUP BY s.key) b
            ON b.key = m.key
         WHERE (m.quantity, m.dispatched_at, true)
               IS DISTINCT FROM (b.quantity, b.dispatched_at, b.is_known)
    ), gone AS (
        DELETE FROM stock.shipment s USING wrong
         WHERE s.key = wrong.key AND s.sku = of_sku AND s.to_location = of_location
    )
    INSERT INTO stock.shipment AS s
    SELECT m.quantity, m.dispatched_at, m.key, of_sku, min(w.origin), of_location
      FROM moved m JOIN wrong ON wrong.key = m.key JOIN way w ON w.key = m.key
     GROUP BY m.key, m.quantity, m.dispatched_at
        ON CONFLICT ON CONSTRAINT shipment_pkey DO UPDATE
       SET quantity = excluded.quantity, dispatched_at = excluded.dispatched_at;
END
$$;
COMMENT ON FUNCTION stock.write_shipments(text, text, boolean) IS
    'Makes what is on the way to a level what the ledger says, where it is intact; else leaves it, '
    'as far as the ledger knows its dispatch.';

CREATE FUNCTION stock.correct_shipments(entry stock.ledger) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku, location,
                              quantity, on_hand_delta, reserved_delta, in_transit_delta,
                              on_hand_after, reserved_after, version, reason)
    SELECT entry.recorded_at, coalesce(m.key, b.key), 'repair', entry.key || ':way', 1, entry.sku,
           entry.location, 0, 0, 0, coalesce(b.quantity, 0) - coalesce(m.quantity, 0),
           entry.on_hand_after, entry.reserved_after, entry.version, entry.reason
      FROM (SELECT g.key, sum(coalesce(g.in_transit_delta, 0))::bigint AS quantity
              FROM stock.ledger g
             WHERE g.sku = entry.sku AND g.location = entry.location
               AND g.operation IN ('dispatch', 'arrive', 'lose', 'recall', 'repair')
             GROUP BY g.key) m
      FULL JOIN (SELECT s.key, sum(s.quantity)::bigint AS quantity FROM stock.shipment s
                  WHERE s.sku = entry.sku AND s.to_location = entry.location GROUP BY s.key) b
        ON b.key = m.key
     WHERE coalesce(b.quantity, 0) <> coalesce(m.quantity, 0);
END
$$;
COMMENT ON FUNCTION stock.correct_shipments(stock.ledger) IS
    'Writes a ledger row, repair, for each shipment to a level of which the ledger lacks '
    'something.';

CREATE FUNCTION stock.write_lots(level stock.level, is_intact boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_sku constant text := level.sku;
    of_location constant text := level.location;
BEGIN
    IF level.next_spoil IS NULL THEN
        DELETE FROM stock.lot o WHERE o.sku = of_sku AND o.location = of_location;
        RETURN;
    END IF;
    WITH said AS (
        SELECT c.lot, sum(c.on_hand)::bigint AS on_hand
          FROM (SELECT m.lot, m.on_hand_delta AS on_hand
                  FROM stock.entries() e
                  JOIN stock.ledger_lot m ON m.key = e.key AND m.position = e.position
                 WHERE e.sku = of_sku AND e.location = of_location
                 UNION ALL
                SELECT f.lot, f.on_hand FROM stock.balance_forward_lot f
                 WHERE f.sku = of_sku AND f.location = of_location) c
         GROUP BY c.lot
    ), called_back AS (
        SELECT DISTINCT ON (c.lot) c.lot, c.frozen
          FROM (SELECT e.lot, e.version, e.operation = 'freeze_lot' AS frozen
                  FROM stock.entries() e
                 WHERE e.sku = of_sku AND e.location = of_location
                   AND e.operation IN ('freeze_lot', 'unfreeze_lot')
                 UNION ALL
                SELECT f.lot, f.version, f.frozen FROM stock.balance_forward_lot f
                 WHERE f.sku = of_sku AND f.location = of_location AND f.frozen IS NOT NULL) c
         ORDER BY c.lot, c.version DESC
    ), dated AS (
        -- the date that it was received with, here or where it came from
        SELECT g.lot, max(g.best_before) FILTER (WHERE g.location = of_location) AS best_before,
               max(g.best_before) AS elsewhere,
               min(g.recorded_at) FILTER (WHERE g.location = of_location) AS received_at
          FROM (SELECT l.lot, l.best_before, l.recorded_at, l.location FROM stock.ledger l
                 WHERE l.sku = of_sku AND l.operation = 'receive' AND l.lot IS NOT NULL
                 UNION ALL
                SELECT a.lot, a.best_before, a.recorded_at, a.location FROM stock.ledger_archive a
                 WHERE a.sku = of_sku AND a.operation = 'receive' AND a.lot IS NOT NULL
                 UNION ALL
                SELECT o.lot, o.best_before, o.received_at, o.location FROM stock.lot o
                 WHERE o.sku = of_sku AND o.location <> of_location) g
         GROUP BY g.lot
    ), bound AS (
        SELECT b.lot, sum(b.quantity)::bigint AS reserved
          FROM stock.hold_lot b JOIN stock.hold h ON h.key = b.key AND h.line = b.line
         WHERE h.sku = of_sku AND h.location = of_location GROUP BY b.lot
    ), old AS (
        SELECT o.* FROM stock.lot o WHERE o.sku = of_sku AND o.location = of_location
    ), made AS (
        SELECT n.lot, coalesce(b.reserved, 0) AS reserved,
               greatest(coalesce(CASE WHEN is_intact THEN s.on_hand ELSE o.on_hand END, 0),
                        coalesce(b.reserved, 0)) AS on_hand,
               coalesce(d.best_before, o.best_before, d.elsewhere) AS best_before,
               coalesce(o.received_at, d.received_at, clock_timestamp()) AS received_at,
               coalesce(CASE WHEN is_intact THEN c.frozen ELSE o.frozen END, false) AS frozen,
               coalesce(o.spoiled, false) AS spoiled
          FROM (SELECT s.lot FROM said s UNION SELECT b.lot FROM bound b
                 UNION SELECT o.lot FROM old o WHERE NOT is_intact) n
          LEFT JOIN said s ON s.lot = n.lot
          LEFT JOIN called_back c ON c.lot = n.lot
          LEFT JOIN dated d ON d.lot = n.lot
          LEFT JOIN bound b ON b.lot = n.lot
          LEFT JOIN old o ON o.lot = n.lot
    ), booked AS (
        -- Whatever is past its time is booked anew where it does not add up.
        SELECT m.lot, m.reserved, m.on_hand, m.best_before, m.received_at, m.frozen,
               m.spoiled AND NOT (is_intact AND level.unsellable <> coalesce(
                 sum(m.on_hand - m.reserved) FILTER (WHERE m.frozen OR m.spoiled) OVER (), 0))
                 AS spoiled
          FROM made m
    ), gone AS (
        DELETE FROM stock.lot o
         WHERE o.sku = of_sku AND o.location = of_location
           AND NOT EXISTS (SELECT FROM booked b WHERE b.lot = o.lot)
    )
    INSERT INTO stock.lot AS o
    SELECT b.on_hand, b.reserved, b.best_before,
           CASE WHEN b.on_hand > 0 AND NOT b.frozen AND NOT b.spoiled
                THEN b.best_before - coalesce(level.min_life, '0') END,
           CASE WHEN b.on_hand > 0
                THEN b.best_before - coalesce(level.near_expiry, current_setting(
                         'pg_stock.near_expiry')::interval) END,
           b.received_at, b.frozen, b.spoiled, b.on_hand = 0, of_sku, of_location, b.lot
      FROM booked b
        ON CONFLICT ON CONSTRAINT lot_pkey DO UPDATE
       SET on_hand = excluded.on_hand, reserved = excluded.reserved,
           best_before = excluded.best_before, spoils_at = excluded.spoils_at,
           warns_at = excluded.warns_at, frozen = excluded.frozen, spoiled = excluded.spoiled,
           spent = excluded.spent;
END
$$;
COMMENT ON FUNCTION stock.write_lots(stock.level, boolean) IS
    'Makes the lots of a level what the ledger says, where it is intact; else leaves what lies in '
    'them, and makes the rest fit.';

CREATE FUNCTION stock.write_buyers(of_sku text, of_location text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH bought AS (
        SELECT b.buyer, sum(b.quantity) AS quantity
          FROM (SELECT e.buyer, e.bought AS quantity FROM stock.entries() e
                 WHERE e.sku = of_sku AND e.location = of_location AND e.buyer IS NOT NULL
                 UNION ALL
                SELECT f.buyer, f.quantity FROM stock.balance_forward_buyer f
                 WHERE f.sku = of_sku AND f.location = of_location) b
         GROUP BY b.buyer
    ), gone AS (
        DELETE FROM stock.buyer_quantity q
         WHERE q.sku = of_sku AND q.location = of_location
           AND NOT EXISTS (SELECT FROM bought b WHERE b.buyer = q.buyer)
    )
    INSERT INTO stock.buyer_quantity AS q
    SELECT b.quantity, of_sku, of_location, b.buyer FROM bought b
        ON CONFLICT ON CONSTRAINT buyer_quantity_pkey DO UPDATE SET quantity = excluded.quantity
     WHERE q.quantity <> excluded.quantity;
END
$$;
COMMENT ON FUNCTION stock.write_buyers(text, text) IS
    'Makes what buyers have of a level what the ledger says.';

CREATE FUNCTION stock.correct_lines(
    entry stock.ledger, standings jsonb, bindings jsonb
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    own bigint;
BEGIN
    FOR s IN
        SELECT d.key, coalesce(d.line, 1) AS line, coalesce(d.held_missing, 0) AS held_missing,
               coalesce(d.waiting_missing, 0) AS waiting_missing,
               coalesce(d.owed_missing, 0) AS owed_missing,
               EXISTS (SELECT FROM jsonb_to_recordset(bindings) AS b (key text, missing bigint)
                        WHERE b.key = d.key AND b.missing <> 0) AS lots_missing
          FROM jsonb_to_recordset(standings)
            AS d (key text, line integer, held_missing bigint, waiting_missing bigint,
                  owed_missing bigint)
    LOOP
        IF s.held_missing <> 0 OR s.waiting_missing <> 0 OR s.lots_missing THEN
            INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku,
                                      location, quantity, on_hand_delta, reserved_delta,
                                      waiting_delta, on_hand_after, reserved_after, version,
                                      reason)
            VALUES (entry.recorded_at, s.key, 'repair', entry.key, s.line, entry.sku,
                    entry.location, s.held_missing, 0, 0, nullif(s.waiting_missing, 0),
                    entry.on_hand_after, entry.reserved_after, entry.version, entry.reason)
            RETURNING ledger.position INTO own;
            INSERT INTO stock.ledger_lot
            SELECT own, 0, b.missing, 0, s.key, b.lot
              FROM jsonb_to_recordset(bindings) AS b (key text, lot text, missing bigint)
             WHERE b.key = s.key AND b.missing <> 0;
        END IF;
        IF s.owed_missing <> 0 THEN
            INSERT INTO stock.ledger (recorded_at, key, operation, operation_key, line, sku,
                                      location, quantity, on_hand_delta, reserved_delta,
                                      waiting_delta, on_hand_after, reserved_after, version,
                                      reason)
            VALUES (entry.recorded_at, s.key, 'repair', entry.key || ':owed', s.line, entry.sku,
                    entry.location, 0, -s.owed_missing, 0, s.owed_missing, entry.on_hand_after,
                    entry.reserved_after, entry.version, entry.reason);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION stock.correct_lines(stock.ledger, jsonb, jsonb) IS
    'Writes a ledger row, repair, for each reservation of which the ledger lacks something: '
    'quantity and waiting_delta are what its hold has more than the ledger said; where '
    'on_hand_delta is not 0, waiting_delta is what its sales wait for.';

CREATE FUNCTION stock.open_balance(entry stock.ledger) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM stock.balance_forward f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward
    SELECT 1, l.version, l.on_hand, l.reserved, l.waiting, l.in_transit, l.unsellable, l.on_hand,
           l.reserved, l.safety_stock, l.buyer_limit, l.backorder_limit, l.on_sale_from,
           l.on_sale_until, l.frozen, l.min_life, l.near_expiry,
           CASE WHEN l.next_spoil IS NOT NULL THEN l.version END, true, l.sku, l.location
      FROM stock.level l WHERE l.sku = entry.sku AND l.location = entry.location;
    DELETE FROM stock.balance_forward_lot f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward_lot
    SELECT o.on_hand, o.reserved, o.frozen, entry.version, o.sku, o.location, o.lot
      FROM stock.lot o WHERE o.sku = entry.sku AND o.location = entry.location;
    DELETE FROM stock.balance_forward_buyer f
     WHERE f.sku = entry.sku AND f.location = entry.location;
    INSERT INTO stock.balance_forward_buyer
    SELECT q.* FROM stock.buyer_quantity q
     WHERE q.sku = entry.sku AND q.location = entry.location;
END
$$;
COMMENT ON FUNCTION stock.open_balance(stock.ledger) IS
    'Gives a level an opening balance: what it has, as its repair left it. Ledger rows up to that '
    'version do not count any more.';

CREATE FUNCTION stock.level_to_be(of_sku text, of_location text, named jsonb, is_intact boolean)
RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- What verify() does not name is as the ledger says.
    expected constant jsonb := coalesce((
        SELECT jsonb_object_agg(c.name, p.item -> 'expected')
          FROM jsonb_array_elements(named) AS p (item)
         CROSS JOIN LATERAL (SELECT substring(
                   p.item ->> 'problem'
                   FROM '^the level''s (.*) differs from the ledger$') AS name) c
         WHERE c.name IS NOT NULL), '{}');
    old stock.level;
    made jsonb;
BEGIN
    SELECT * INTO old FROM stock.level l WHERE l.sku = of_sku AND l.location = of_location;
    made := jsonb_strip_nulls(to_jsonb(old));
    IF is_intact OR old.sku IS NULL THEN
        made := made || (expected - '{lots}'::text[]);
        IF expected ? 'lots' THEN
            made := made || jsonb_build_object(
                'next_spoil', CASE WHEN (expected ->> 'lots')::boolean THEN 'infinity' END);
        END IF;
    END IF;
    IF NOT is_intact THEN
        IF old.sku IS NULL THEN
            made := made || jsonb_build_object('on_hand', (
                SELECT g.on_hand_after FROM stock.ledger g
                 WHERE g.sku = of_sku AND g.location = of_location AND g.version IS NOT NULL
                 ORDER BY g.version DESC LIMIT 1));
        END IF;
        -- Lots that are there, or that the ledger tells of, are not lost.
        IF made ->> 'next_spoil' IS NULL
           AND ((expected ->> 'lots')::boolean
                OR EXISTS (SELECT FROM stock.lot o
                            WHERE o.sku = of_sku AND o.location = of_location)) THEN
            made := made || '{"next_spoil": "infinity"}';
        END IF;
    END IF;
    RETURN jsonb_populate_record(
        NULL::stock.level,
        '{"safety_stock": 0, "backorder_limit": 0, "frozen": false, "version": 0}'
          || jsonb_strip_nulls(made)
          || jsonb_build_object(
                 'sku', of_sku, 'location', of_location,
                 'on_hand', greatest((made ->> 'on_hand')::bigint, 0),
                 'unsellable', greatest((made ->> 'unsellable')::bigint, 0)));
END
$$;
COMMENT ON FUNCTION stock.level_to_be(text, text, jsonb, boolean) IS
    'A level as verify() expects it, where the ledger is intact; else as it is, or, where it is '
    'missing, with what the last row of the ledger left on hand.';

CREATE FUNCTION stock.write_level(level stock.level, new_version bigint) RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
    queued record;
    shelf record;
    units record;
    written stock.level;
BEGIN
    SELECT coalesce(sum(h.quantity), 0)::bigint AS quantity,
           coalesce(min(h.expires_at), 'infinity') AS first_due INTO held
      FROM stock.hold h WHERE h.sku = level.sku AND h.location = level.location;
    SELECT coalesce(sum(w.quantity), 0)::bigint AS quantity,
           coalesce(sum(w.quantity) FILTER (WHERE NOT w.sold), 0)::bigint AS held INTO queued
      FROM stock.waiting w WHERE w.sku = level.sku AND w.location = level.location;
    SELECT coalesce(sum(o.on_hand), 0)::bigint AS on_hand,
           coalesce(sum(o.on_hand - o.reserved) FILTER (WHERE o.frozen OR o.spoiled), 0)::bigint
             AS unsellable,
           coalesce(min(o.spoils_at), 'infinity') AS first_spoil INTO shelf
      FROM stock.lot o WHERE o.sku = level.sku AND o.location = level.location;
    SELECT held.quantity - queued.held AS reserved,
           CASE WHEN level.next_spoil IS NULL THEN 0 ELSE shelf.unsellable END AS unsellable,
           CASE WHEN level.next_spoil IS NULL THEN level.on_hand ELSE shelf.on_hand END AS on_hand,
           (SELECT coalesce(sum(s.quantity), 0)::bigint FROM stock.shipment s
             WHERE s.sku = level.sku AND s.to_location = level.location) AS in_transit INTO units;
    -- Named, for a shop may have columns of its own.
    INSERT INTO stock.level AS l
           (on_hand, reserved, safety_stock, buyer_limit, version, next_due, updated_at, waiting,
            in_transit, backorder_limit, on_sale_from, on_sale_until, unsellable, next_spoil,
            min_life, near_expiry, frozen, sku, location)
    SELECT n.on_hand, n.reserved, n.safety_stock, n.buyer_limit, n.version, n.next_due,
           n.updated_at, n.waiting, n.in_transit, n.backorder_limit, n.on_sale_from,
           n.on_sale_until, n.unsellable, n.next_spoil, n.min_life, n.near_expiry, n.frozen, n.sku,
           n.location
      FROM jsonb_populate_record(level, jsonb_build_object(
               'on_hand', greatest(units.on_hand, units.reserved + units.unsellable),
               'reserved', units.reserved, 'waiting', queued.quantity,
               'in_transit', units.in_transit, 'unsellable', units.unsellable,
               'next_due', held.first_due, 'version', new_version,
               'updated_at', clock_timestamp(),
               'next_spoil', CASE WHEN level.next_spoil IS NOT NULL THEN shelf.first_spoil END)) n
        ON CONFLICT ON CONSTRAINT level_pkey DO UPDATE
       SET on_hand = excluded.on_hand, reserved = excluded.reserved,
           safety_stock = excluded.safety_stock, buyer_limit = excluded.buyer_limit,
           version = excluded.version, next_due = excluded.next_due,
           updated_at = excluded.updated_at, waiting = excluded.waiting,
           in_transit = excluded.in_transit, backorder_limit = excluded.backorder_limit,
           on_sale_from = excluded.on_sale_from, on_sale_until = excluded.on_sale_until,
           unsellable = excluded.unsellable, next_spoil = excluded.next_spoil,
           min_life = excluded.min_life, near_expiry = excluded.near_expiry,
           frozen = excluded.frozen
    RETURNING l.* INTO written;
    RETURN written;
END
$$;
COMMENT ON FUNCTION stock.write_level(stock.level, bigint) IS
    'Writes a level under a version, with the counters that its holds, queue, shipments and lots '
    'come to.';

CREATE FUNCTION stock.repair_from(
    of_sku text, of_location text, why text, named jsonb, is_intact boolean
) RETURNS stock.level
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old stock.level;
    level stock.level;
    latest bigint;
    unsellable_before bigint;
    standings jsonb;
    bindings jsonb := '[]';
    opens boolean;
    entry stock.ledger;
    left_over record;
BEGIN
    SELECT l.* INTO old FROM stock.level l WHERE l.sku = of_sku AND l.location = of_location;
    SELECT max(g.version) INTO latest FROM stock.ledger g
     WHERE g.sku = of_sku AND g.location = of_location;
    level := stock.level_to_be(of_sku, of_location, named, is_intact);
    unsellable_before := level.unsellable;
    standings := stock.standings_to_be(of_sku, of_location, is_intact);
    IF level.next_spoil IS NOT NULL THEN
        bindings := stock.bindings_to_be(of_sku, of_location, standings, is_intact);
    END IF;
    -- What the ledger must be told, and a version that was shown already, ask for an opening.
    opens := NOT is_intact OR greatest(old.version, latest) > level.version
             OR jsonb_path_exists(standings, '$[*] ? (@.held_missing != 0
                                  || @.waiting_missing != 0 || @.owed_missing != 0)')
             OR jsonb_path_exists(bindings, '$[*] ? (@.missing != 0)');
    PERFORM stock.write_holds(of_sku, of_location, standings, bindings);
    PERFORM stock.write_shipments(of_sku, of_location, is_intact);
    PERFORM stock.write_lots(level, is_intact);
    IF is_intact THEN
        PERFORM stock.write_buyers(of_sku, of_location);
    END IF;
    -- No level ever comes to a version beyond that.
    level := stock.write_level(
        level, least(greatest(level.version, old.version, latest), 1000000000000000) + 1);
    INSERT INTO stock.ledger (recorded_at, key, operation, line, sku, location, quantity,
                              on_hand_delta, reserved_delta, unsellable_delta, on_hand_after,
                              reserved_after, version, reason, context)
    VALUES (level.updated_at, 'pg_stock:repair:' || gen_random_uuid(), 'repair', 1, of_sku,
            of_location, 0, 0, 0, nullif(level.unsellable - unsellable_before, 0), level.on_hand,
            level.reserved, level.version, why,
            jsonb_build_object('found', named, 'before', to_jsonb(old), 'after', to_jsonb(level),
                               'source', CASE WHEN is_intact THEN 'ledger' ELSE 'counters' END))
    RETURNING * INTO entry;
    IF opens THEN
        PERFORM stock.correct_lines(entry, standings, bindings);
        IF NOT is_intact THEN
            PERFORM stock.correct_shipments(entry);
        END IF;
        PERFORM stock.open_balance(entry);
    END IF;
    SELECT v.* INTO left_over
      FROM stock.verify_levels(ARRAY[of_sku], ARRAY[of_location]) v LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
            MESSAGE = format('the level (%s, %s) cannot be put right: %s', of_sku, of_location,
                             left_over.problem),
            DETAIL = format('Expected %s, found %s. Nothing was changed.', left_over.expected,
                            left_over.found),
            HINT = 'Put that right by hand, and repair again.';
    END IF;
    RETURN level;
END
$$;
COMMENT ON FUNCTION stock.repair_from(text, text, text, jsonb, boolean) IS
    'Makes a level and all about it of its ledger, or of its counters and holds. XX001 where '
    'stock.verify() is not content then.';

CREATE FUNCTION stock.repair_level(of_sku text, of_location text, why text)
RETURNS TABLE (
    sku text, location text, problems bigint, source text, on_hand_before bigint, on_hand bigint,
    reserved_before bigint, reserved bigint, version bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    named jsonb;
    contradicts boolean;
    old stock.level;
    level stock.level;
BEGIN
    -- The library defines a setting that lots need, which this loads.
    PERFORM stock.library_version();
    SELECT l.* INTO old FROM stock.level l
     WHERE l.sku = of_sku AND l.location = of_location FOR NO KEY UPDATE;
    -- One row that is wrong makes all later ones wrong: some say enough. Of buyers nothing is kept.
    -- A ledger that ends before the level does, or has nothing of it, has lost rows.
    SELECT count(*), coalesce(bool_or(v.problem ~ '^a (ledger row|balance) '
                                      OR v.problem = 'the level''s version differs from the ledger'
                                         AND coalesce(v.expected::bigint < v.found::bigint,
                                                      v.expected IS NULL)), false),
           jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
               'problem', regexp_replace(v.problem, ' ?\(buyer .*\)', ''),
               'expected', CASE WHEN v.problem !~ '^a hold' THEN v.expected END,
               'found', CASE WHEN v.problem !~ '^a hold' THEN v.found END)))
             FILTER (WHERE v.problem ~ '^the level''s ' OR v.nth <= 20)
      INTO problems, contradicts, named
      FROM (SELECT v.*, row_number() OVER () AS nth
              FROM stock.verify_levels(ARRAY[of_sku], ARRAY[of_location]) v) v;
    IF problems = 0 THEN
        RETURN;
    END IF;
    sku := of_sku;
    location := of_location;
    on_hand_before := old.on_hand;
    reserved_before := old.reserved;
    IF NOT contradicts THEN
        BEGIN
            level := stock.repair_from(of_sku, of_location, why, named, true);
            source := 'ledger';
        -- It agrees with itself, and still comes to what cannot be.
        EXCEPTION WHEN data_corrupted OR integrity_constraint_violation THEN
            source := NULL;
        END;
    END IF;
    IF source IS NULL THEN
        level := stock.repair_from(of_sku, of_location, why, named, false);
        source := 'counters';
    END IF;
    on_hand := level.on_hand;
    reserved := level.reserved;
    version := level.version;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION stock.repair_level(text, text, text) IS 'Does stock.repair for one level.';
-- A buyer is forgotten: his name is replaced wherever it is kept. Better give a pseudonym in the
-- first place.

-- Nothing of the past changes here but this name: the triggers that forbid it are of
-- the role origin, and so is what a shop has put on the tables.
CREATE FUNCTION stock.erase_buyer(buyer text, pseudonym text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
#variable_conflict use_column
DECLARE
    old constant text := $1;
    new constant text := $2;
    skus text[];
    locations text[];
    places bigint;
    changed bigint := 0;
    before bigint;
BEGIN
    PERFORM stock.check_primary();
    PERFORM stock.check_name('buyer', old);
    PERFORM stock.check_name('pseudonym', new);
    IF old = new THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'pseudonym must be another name than buyer',
            HINT = 'Give the buyer as the orders named him, and what shall stand in his place.';
    END IF;
    -- What is archived meanwhile would be missed.
    LOCK TABLE stock.balance_forward IN SHARE ROW EXCLUSIVE MODE;
    -- He may order meanwhile, so that one statement sees what another did not: until all of them
    -- find nothing more.
    LOOP
        before := changed;
        -- A hold, and what a buyer has of a level, is changed by whoever has locked the level.
        SELECT array_agg(b.sku), array_agg(b.location) INTO skus, locations FROM (
            SELECT l.sku, l.location FROM stock.level l
             WHERE (l.sku, l.location) IN (
                       SELECT h.sku, h.location FROM stock.hold h WHERE h.buyer = old
                        UNION
                       SELECT q.sku, q.location FROM stock.buyer_quantity q WHERE q.buyer = old)
             ORDER BY l.sku, l.location
               FOR NO KEY UPDATE) b;
        UPDATE stock.hold h SET buyer = new
          FROM unnest(skus, locations) AS b (sku, location)
         WHERE h.buyer = old AND h.sku = b.sku AND h.location = b.location;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        WITH gone AS (
            DELETE FROM stock.buyer_quantity q USING unnest(skus, locations) AS b (sku, location)
             WHERE q.buyer = old AND q.sku = b.sku AND q.location = b.location
            RETURNING q.quantity, q.sku, q.location
        )
        INSERT INTO stock.buyer_quantity AS q (quantity, sku, location, buyer)
        SELECT g.quantity, g.sku, g.location, new FROM gone g
            ON CONFLICT ON CONSTRAINT buyer_quantity_pkey DO UPDATE
           SET quantity = q.quantity + excluded.quantity;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        UPDATE stock.ledger g SET buyer = new WHERE g.buyer = old;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        EXIT WHEN changed = before;
    END LOOP;
    UPDATE stock.ledger_archive a SET buyer = new WHERE a.buyer = old;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    WITH gone AS (
        DELETE FROM stock.balance_forward_buyer f WHERE f.buyer = old
        RETURNING f.quantity, f.sku, f.location
    )
    INSERT INTO stock.balance_forward_buyer AS f (quantity, sku, location, buyer)
    SELECT g.quantity, g.sku, g.location, new FROM gone g
        ON CONFLICT ON CONSTRAINT balance_forward_buyer_pkey DO UPDATE
       SET quantity = f.quantity + excluded.quantity;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    UPDATE stock.import_error e SET content = jsonb_set(e.content, '{buyer}', to_jsonb(new))
     WHERE e.content ->> 'buyer' = old;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    IF changed > 0 THEN
        -- That it happened, and not for whom.
        INSERT INTO stock.ledger (recorded_at, key, operation, line, quantity, on_hand_delta,
                                  reserved_delta, reason)
        VALUES (clock_timestamp(), 'pg_stock:erase:' || gen_random_uuid(), 'erase', 1, 0, 0, 0,
                format('a buyer was replaced in %s rows', changed));
    END IF;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION stock.erase_buyer(text, text) IS
    'Puts a pseudonym in the place of a buyer''s name: in the holds, in what buyers have of levels '
    '(added to what the pseudonym has), in the ledger and its archive, and in stock.import_error. '
    'One ledger row, erase, says that it happened, not for whom. Answers how many rows were '
    'changed; again: 0, unless the buyer has ordered since. A repeat of an earlier order under the '
    'old name is key_conflict from then on. Locks the levels of what he holds and has bought until '
    'the transaction ends, and keeps stock.archive waiting as long; reads the ledger from its '
    'beginning to its end, at least twice, and the archive once.';
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
