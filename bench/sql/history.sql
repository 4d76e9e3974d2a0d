-- A past for a database without ledger: $1 levels that have $2 ledger rows in all. Each level was
-- filled first, then units of it were reserved and confirmed in turns. One statement.
WITH past AS MATERIALIZED (
    SELECT 'sku-' || i AS sku, 'main'::text AS location, n, depth,
           CASE WHEN n = 1 OR (n = depth AND n % 2 = 0) THEN 'receive' WHEN n % 2 = 0 THEN 'reserve'
           ELSE 'confirm' END
           AS operation
      FROM generate_series(1, $1::bigint) i,
           LATERAL (SELECT greatest(1, $2::bigint / $1::bigint) + (i <= $2::bigint % $1::bigint
           AND $2::bigint > $1::bigint)::int AS depth) d,
           LATERAL generate_series(1, d.depth) n
), changes AS (
    SELECT *, CASE operation WHEN 'receive' THEN 1000000 WHEN 'confirm' THEN -1 ELSE 0 END
           AS on_hand_delta,
           CASE operation WHEN 'reserve' THEN 1 WHEN 'confirm' THEN -1 ELSE 0 END AS reserved_delta
      FROM past
), totals AS (
    SELECT *, sum(on_hand_delta) OVER so_far AS on_hand, sum(reserved_delta) OVER so_far AS reserved
      FROM changes WINDOW so_far AS (PARTITION BY sku ORDER BY n)
), entries AS (
    INSERT INTO stock.ledger (recorded_at, expires_at, quantity, on_hand_delta, reserved_delta,
                              on_hand_after,
                              reserved_after, available, version, line, key, operation, sku,
                              location)
    SELECT now(), CASE operation WHEN 'reserve' THEN now() + interval '30 minutes' END,
           abs(on_hand_delta + (operation = 'reserve')::int),
           on_hand_delta, reserved_delta, on_hand, reserved, on_hand - reserved, n, 1,
           CASE operation WHEN 'receive' THEN 'goods ' ELSE 'past ' END || sku || ' ' ||
           CASE operation WHEN 'confirm' THEN n - 1 ELSE n END,
           operation, sku, location
      FROM totals
)
INSERT INTO stock.level (sku, location, on_hand, reserved, version, updated_at)
SELECT sku, location, on_hand, reserved, n, now() FROM totals WHERE n = depth
