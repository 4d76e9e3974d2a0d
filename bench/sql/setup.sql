-- 10,000 levels for pg_stock, and the same for a hand-written function with the same guarantees: a
-- key that has one effect also when it comes twice at once, a level that never goes below nothing,
-- a ledger row, a hold.
SELECT count(*) FROM generate_series(1, 10000) i, LATERAL stock.receive_stock('delivery ' || i,
       'sku-' || i, 'main', 100000000);

CREATE SCHEMA hand;
CREATE TABLE hand.level (
    sku text, location text, on_hand bigint NOT NULL, reserved bigint NOT NULL,
        safety_stock bigint NOT NULL,
    version bigint NOT NULL, PRIMARY KEY (sku, location),
        CHECK (reserved >= 0 AND reserved <= on_hand)
) WITH (fillfactor = 50);
CREATE TABLE hand.hold (
    key text, line integer, sku text NOT NULL, location text NOT NULL, quantity bigint NOT NULL,
    expires_at timestamptz NOT NULL, PRIMARY KEY (key, line)
);
CREATE INDEX ON hand.hold (sku, location, expires_at);
CREATE TABLE hand.ledger (
    position bigint GENERATED ALWAYS AS IDENTITY, xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), key text NOT NULL,
        operation text NOT NULL,
    line integer NOT NULL, sku text NOT NULL, location text NOT NULL, quantity bigint NOT NULL,
    on_hand_after bigint NOT NULL, reserved_after bigint NOT NULL, version bigint NOT NULL,
        expires_at timestamptz,
    actor text NOT NULL DEFAULT session_user, UNIQUE (key, operation, line)
);
INSERT INTO hand.level SELECT 'sku-' || i, 'main', 100000000, 0, 0, 1
    FROM generate_series(1, 10000) i;

CREATE FUNCTION hand.reserve(k text, s text, l text, q bigint, notify boolean DEFAULT false)
RETURNS TABLE (outcome text, available bigint, version bigint, expires_at timestamptz,
    replayed boolean)
LANGUAGE plpgsql AS $$
DECLARE
    earlier hand.ledger;
    level hand.level;
    deadline timestamptz := clock_timestamp() + interval '30 minutes';
BEGIN
    SELECT * INTO earlier FROM hand.ledger g WHERE g.key = k AND g.operation = 'reserve'
           AND g.line = 1;
    IF FOUND THEN
        IF (earlier.sku, earlier.location, earlier.quantity) <> (s, l, q) THEN
            RETURN QUERY SELECT 'key_conflict', NULL::bigint, NULL::bigint, NULL::timestamptz,
            false;
        ELSE
            RETURN QUERY SELECT 'reserved', earlier.on_hand_after - earlier.reserved_after,
            earlier.version,
                                earlier.expires_at, true;
        END IF;
        RETURN;
    END IF;
    UPDATE hand.level v SET reserved = v.reserved + q, version = v.version + 1
     WHERE v.sku = s AND v.location = l AND v.on_hand - v.reserved - v.safety_stock >= q
    RETURNING v.* INTO level;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'insufficient_stock', NULL::bigint, NULL::bigint, NULL::timestamptz,
            false;
        RETURN;
    END IF;
    INSERT INTO hand.ledger (key, operation, line, sku, location, quantity, on_hand_after,
                             reserved_after, version,
                             expires_at)
    VALUES (k, 'reserve', 1, s, l, q, level.on_hand, level.reserved, level.version, deadline);
    INSERT INTO hand.hold VALUES (k, 1, s, l, q, deadline);
    IF notify THEN
        PERFORM pg_notify('hand_changed', json_build_object('sku', s, 'location', l, 'version',
            level.version,
                          'available', level.on_hand - level.reserved - level.safety_stock)::text);
    END IF;
    RETURN QUERY SELECT 'reserved', level.on_hand - level.reserved - level.safety_stock,
        level.version, deadline, false;
EXCEPTION WHEN unique_violation THEN
    RETURN QUERY SELECT * FROM hand.reserve(k, s, l, q, notify);
END
$$;
