-- migrate:up
-- Two columns in the place of what is cut out of the address each time. Nothing is filled in
-- here: that is done in batches, with /db backfill.
ALTER TABLE public.customers ADD COLUMN first_name text, ADD COLUMN last_name text;

-- migrate:down
ALTER TABLE public.customers DROP COLUMN last_name, DROP COLUMN first_name;
