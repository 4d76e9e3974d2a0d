-- A buyer is forgotten: his name is replaced wherever it is kept. Better give a pseudonym in the
-- first place.

-- Nothing of the past changes here but this name: the triggers that forbid it are of
-- the role origin, and so is what a shop has put on the tables.
CREATE FUNCTION stock.erase_buyer(buyer text, pseudonym text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
#variable_conflict use_column
DECLARE
    old constant text := $1;
    new constant text := $2;
    skus text[];
    locations text[];
    places bigint;
    changed bigint := 0;
    before bigint;
BEGIN
    PERFORM stock.check_primary();
    PERFORM stock.check_name('buyer', old);
    PERFORM stock.check_name('pseudonym', new);
    IF old = new THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'pseudonym must be another name than buyer',
            HINT = 'Give the buyer as the orders named him, and what shall stand in his place.';
    END IF;
    -- What is archived meanwhile would be missed.
    LOCK TABLE stock.balance_forward IN SHARE ROW EXCLUSIVE MODE;
    -- He may order meanwhile, so that one statement sees what another did not: until all of them
    -- find nothing more.
    LOOP
        before := changed;
        -- A hold, and what a buyer has of a level, is changed by whoever has locked the level.
        SELECT array_agg(b.sku), array_agg(b.location) INTO skus, locations FROM (
            SELECT l.sku, l.location FROM stock.level l
             WHERE (l.sku, l.location) IN (
                       SELECT h.sku, h.location FROM stock.hold h WHERE h.buyer = old
                        UNION
                       SELECT q.sku, q.location FROM stock.buyer_quantity q WHERE q.buyer = old)
             ORDER BY l.sku, l.location
               FOR NO KEY UPDATE) b;
        UPDATE stock.hold h SET buyer = new
          FROM unnest(skus, locations) AS b (sku, location)
         WHERE h.buyer = old AND h.sku = b.sku AND h.location = b.location;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        WITH gone AS (
            DELETE FROM stock.buyer_quantity q USING unnest(skus, locations) AS b (sku, location)
             WHERE q.buyer = old AND q.sku = b.sku AND q.location = b.location
            RETURNING q.quantity, q.sku, q.location
        )
        INSERT INTO stock.buyer_quantity AS q (quantity, sku, location, buyer)
        SELECT g.quantity, g.sku, g.location, new FROM gone g
            ON CONFLICT ON CONSTRAINT buyer_quantity_pkey DO UPDATE
           SET quantity = q.quantity + excluded.quantity;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        UPDATE stock.ledger g SET buyer = new WHERE g.buyer = old;
        GET DIAGNOSTICS places = ROW_COUNT;
        changed := changed + places;
        EXIT WHEN changed = before;
    END LOOP;
    UPDATE stock.ledger_archive a SET buyer = new WHERE a.buyer = old;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    WITH gone AS (
        DELETE FROM stock.balance_forward_buyer f WHERE f.buyer = old
        RETURNING f.quantity, f.sku, f.location
    )
    INSERT INTO stock.balance_forward_buyer AS f (quantity, sku, location, buyer)
    SELECT g.quantity, g.sku, g.location, new FROM gone g
        ON CONFLICT ON CONSTRAINT balance_forward_buyer_pkey DO UPDATE
       SET quantity = f.quantity + excluded.quantity;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    UPDATE stock.import_error e SET content = jsonb_set(e.content, '{buyer}', to_jsonb(new))
     WHERE e.content ->> 'buyer' = old;
    GET DIAGNOSTICS places = ROW_COUNT;
    changed := changed + places;
    IF changed > 0 THEN
        -- That it happened, and not for whom.
        INSERT INTO stock.ledger (recorded_at, key, operation, line, quantity, on_hand_delta,
                                  reserved_delta, reason)
        VALUES (clock_timestamp(), 'pg_stock:erase:' || gen_random_uuid(), 'erase', 1, 0, 0, 0,
                format('a buyer was replaced in %s rows', changed));
    END IF;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION stock.erase_buyer(text, text) IS
    'Puts a pseudonym in the place of a buyer''s name: in the holds, in what buyers have of levels '
    '(added to what the pseudonym has), in the ledger and its archive, and in stock.import_error. '
    'One ledger row, erase, says that it happened, not for whom. Answers how many rows were '
    'changed; again: 0, unless the buyer has ordered since. A repeat of an earlier order under the '
    'old name is key_conflict from then on. Locks the levels of what he holds and has bought until '
    'the transaction ends, and keeps stock.archive waiting as long; reads the ledger from its '
    'beginning to its end, at least twice, and the archive once.';
