\set k random(1, 1000000000000)
SELECT count(*) FROM stock.reserve_many((SELECT jsonb_agg(jsonb_build_object('key', 'batch ' || :k || ' ' || i, 'lines', jsonb_build_array(jsonb_build_object('sku', 'sku-' || (1 + (:k::bigint + i * 7) % 10000), 'location', 'main', 'quantity', 1)))) FROM generate_series(1, 1000) i));
