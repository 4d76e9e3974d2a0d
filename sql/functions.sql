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
