-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY orders_by_status ON public.orders (status, placed_at);

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY public.orders_by_status;
