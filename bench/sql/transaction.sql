\set s random(1, 10000)
\set k random(1, 1000000000000)
BEGIN;
SELECT sku, location, quantity FROM hand.ledger WHERE key = 'order ' || :k AND operation = 'reserve';
SELECT on_hand, reserved, version FROM hand.level WHERE sku = 'sku-' || :s AND location = 'main' FOR UPDATE \gset
INSERT INTO hand.ledger (key, operation, line, sku, location, quantity, on_hand_after, reserved_after, version, expires_at) VALUES ('order ' || :k, 'reserve', 1, 'sku-' || :s, 'main', 1, :on_hand, :reserved + 1, :version + 1, clock_timestamp() + interval '30 minutes');
UPDATE hand.level SET reserved = :reserved + 1, version = :version + 1 WHERE sku = 'sku-' || :s AND location = 'main';
INSERT INTO hand.hold VALUES ('order ' || :k, 1, 'sku-' || :s, 'main', 1, clock_timestamp() + interval '30 minutes');
COMMIT;
