-- Overdue holds in bulk, as if each had been reserved and its deadline had passed: $4 keys that
-- begin with $1, one unit each, in turn on the $3 levels from number $2 on. One statement, so that
-- all of it sees the levels as they were.
WITH fresh AS MATERIALIZED (
    SELECT $1::text || i AS key, 'sku-' || ($2::bigint + i % $3::bigint) AS sku, 'main'::text
           AS location,
           row_number() OVER (PARTITION BY i % $3::bigint ORDER BY i) AS nth,
           now() - interval '1 minute' - ($4::bigint - i) * interval '10 us' AS due
      FROM generate_series(0, $4::bigint - 1) i
), entries AS (
    INSERT INTO stock.ledger (recorded_at, expires_at, quantity, on_hand_delta, reserved_delta,
                              on_hand_after,
                              reserved_after, available, version, line, key, operation, sku,
                              location)
    SELECT now(), f.due, 1, 0, 1, l.on_hand, l.reserved + f.nth, l.on_hand - l.reserved - f.nth,
           l.version + f.nth, 1,
           f.key, 'reserve', f.sku, f.location
      FROM fresh f JOIN stock.level l ON l.sku = f.sku AND l.location = f.location
), holds AS (
    INSERT INTO stock.hold (key, line, sku, location, quantity, expires_at, reserved_at)
    SELECT key, 1, sku, location, 1, due, due FROM fresh
)
UPDATE stock.level l
   SET reserved = l.reserved + f.units, version = l.version + f.units,
       next_due = least(l.next_due, f.due)
  FROM (SELECT sku, location, count(*) AS units, min(due) AS due FROM fresh GROUP BY sku,
      location) f
 WHERE l.sku = f.sku AND l.location = f.location
