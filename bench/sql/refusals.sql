-- Asks for two units so many times in a row, and takes the time of each refusal, in milliseconds.
CREATE OR REPLACE FUNCTION pg_temp.refusals(sku text, location text, times integer)
    RETURNS SETOF float8
LANGUAGE plpgsql AS $$
DECLARE
    begun timestamptz;
    answer text;
BEGIN
    FOR i IN 1 .. times LOOP
        begun := clock_timestamp();
        SELECT r.outcome INTO answer FROM stock.try_reserve_stock('too much', sku, location, 2) r;
        RETURN NEXT 1000 * extract(epoch FROM clock_timestamp() - begun);
        ASSERT answer = 'insufficient_stock', answer;
    END LOOP;
END
$$;
