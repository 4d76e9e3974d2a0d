\set s random(1, 10000)
\set k random(1, 1000000000000)
SELECT * FROM hand.reserve('order ' || :k, 'sku-' || :s, 'main', 1);
