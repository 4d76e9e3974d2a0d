-- What the benchmark against peers needs beside setup.sql: the SKU of the sale that sells out,
-- orders, and the hand-written function for orders of several lines.
SELECT count(*) FROM stock.receive_stock('delivery 0', 'sku-0', 'main', 100);
INSERT INTO hand.level VALUES ('sku-0', 'main', 100, 0, 0, 1);

-- The orders of a shop that keeps them beside the stock.
CREATE TABLE hand.orders (key text PRIMARY KEY, sku text NOT NULL, placed_at timestamptz NOT NULL
    DEFAULT clock_timestamp());

-- As hand.reserve, for all lines of an order or none. It takes them in one order, so that no two
-- orders wait for each other.
CREATE FUNCTION hand.reserve_lines(k text, lines jsonb)
    RETURNS TABLE (outcome text, replayed boolean)
LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
    level hand.level;
    deadline timestamptz := clock_timestamp() + interval '30 minutes';
BEGIN
    IF EXISTS (SELECT FROM hand.ledger g WHERE g.key = k AND g.operation = 'reserve') THEN
        RETURN QUERY SELECT 'reserved', true;
        RETURN;
    END IF;
    FOR wanted IN
        SELECT l.line ->> 'sku' AS sku, l.line ->> 'location' AS location,
               (l.line ->> 'quantity')::bigint AS quantity,
               l.nth::integer AS nth
          FROM jsonb_array_elements(lines) WITH ORDINALITY l (line, nth) ORDER BY 1, 2
    LOOP
        UPDATE hand.level v SET reserved = v.reserved + wanted.quantity, version = v.version + 1
         WHERE v.sku = wanted.sku AND v.location = wanted.location
           AND v.on_hand - v.reserved - v.safety_stock >= wanted.quantity
        RETURNING v.* INTO level;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'insufficient stock' USING ERRCODE = 'HN001';
        END IF;
        INSERT INTO hand.ledger (key, operation, line, sku, location, quantity, on_hand_after,
                                 reserved_after, version,
                                 expires_at)
        VALUES (k, 'reserve', wanted.nth, wanted.sku, wanted.location, wanted.quantity,
                level.on_hand, level.reserved,
                level.version, deadline);
        INSERT INTO hand.hold VALUES (k, wanted.nth, wanted.sku, wanted.location, wanted.quantity,
            deadline);
    END LOOP;
    RETURN QUERY SELECT 'reserved', false;
EXCEPTION
    WHEN SQLSTATE 'HN001' THEN
        RETURN QUERY SELECT 'insufficient_stock', false;
    WHEN unique_violation THEN
        RETURN QUERY SELECT * FROM hand.reserve_lines(k, lines);
END
$$;
