-- migrate:up
-- The amount as accounts want it. Nothing is filled in here: that is done in batches, with
-- /db backfill.
ALTER TABLE public.orders ADD COLUMN total numeric(12, 2);

-- migrate:down
ALTER TABLE public.orders DROP COLUMN total;
