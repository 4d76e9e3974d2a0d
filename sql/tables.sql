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
