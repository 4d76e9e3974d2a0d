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
