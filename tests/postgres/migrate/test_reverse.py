"""The way back of a file is proved: the definitions before it and after both ways are the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pglast.stream import RawStream

from postgres.facts import SCHEMA_LINES
from postgres.migrate.reverse import Catalog, Exactness, Reverse, read_reverse_facts, reverse
from postgres.migrate.reverse_names import parsed
from postgres.server import Binaries, Server, create
from tests.conftest import folder_of_its_own
from tests.postgres.conftest import FAST, run_sql

SHOP = """
    CREATE TYPE mood AS ENUM ('calm', 'wild');
    CREATE DOMAIN cents AS int CONSTRAINT positive CHECK (VALUE >= 0);
    CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL, mood mood DEFAULT 'calm',
                            email text, CONSTRAINT email_key UNIQUE (email));
    CREATE TABLE orders (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer bigint NOT NULL, cents cents DEFAULT 5, note text, old int DEFAULT 3,
        CONSTRAINT owner FOREIGN KEY (customer) REFERENCES customers,
        CONSTRAINT small CHECK (cents < 100000));
    CREATE INDEX by_note ON orders (lower(note)) WHERE cents > 3;
    CREATE UNIQUE INDEX old_once ON orders (old);
    COMMENT ON TABLE orders IS 'what''s sold';
    COMMENT ON COLUMN orders.note IS E'a\\\\b';
    CREATE VIEW rich WITH (security_barrier) AS SELECT id FROM orders WHERE cents > 100;
    COMMENT ON VIEW rich IS 'those';
    CREATE MATERIALIZED VIEW days AS SELECT note, count(*) AS n FROM orders GROUP BY note;
    CREATE UNIQUE INDEX days_note ON days (note);
    CREATE FUNCTION twice(n int, m int DEFAULT 2) RETURNS int LANGUAGE sql STABLE
        AS 'SELECT n * m';
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touched BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE customers DISABLE TRIGGER touched;
    CREATE POLICY mine ON orders FOR SELECT TO PUBLIC USING (customer = 1);
    CREATE SEQUENCE numbers INCREMENT 5 MAXVALUE 500 CYCLE;
    CREATE TABLE loose (a int, b int, "Odd name" text);
    ALTER TABLE loose ADD CONSTRAINT later CHECK (a > 0) NOT VALID;
    CREATE TABLE parted (n int, at date) PARTITION BY RANGE (at);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE ROLE reader;
    GRANT SELECT ON rich TO reader WITH GRANT OPTION;
    REVOKE ALL ON FUNCTION twice FROM PUBLIC;
    INSERT INTO customers (name, email) VALUES ('Ana', 'a@example.com');
    INSERT INTO orders (customer, cents) VALUES (1, 7);
"""

# Cases stand between empty lines.
EXACT = r"""
    ALTER TABLE orders ADD COLUMN extra text NOT NULL DEFAULT 'x'

    ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text

    ALTER TABLE orders ADD extra int, ADD more int REFERENCES customers, ALTER old SET DEFAULT 9

    ALTER TABLE orders ADD extra int;
    CREATE INDEX extras ON orders (extra);
    UPDATE orders SET extra = cents;
    ALTER TABLE orders ALTER extra SET NOT NULL

    CREATE TABLE more (id serial PRIMARY KEY, customer bigint REFERENCES customers);
    CREATE INDEX ON more (customer);
    INSERT INTO more (customer) SELECT id FROM customers

    CREATE TABLE IF NOT EXISTS orders (id int)

    CREATE TABLE copy AS SELECT * FROM orders

    CREATE INDEX CONCURRENTLY by_cents ON orders (cents)

    CREATE INDEX IF NOT EXISTS by_note ON orders (note)

    CREATE VIEW poor AS SELECT id FROM orders;
    CREATE VIEW poorer AS SELECT id FROM poor

    CREATE OR REPLACE VIEW rich AS SELECT id FROM orders WHERE cents > 500

    CREATE OR REPLACE VIEW rich AS SELECT id, note FROM orders

    CREATE MATERIALIZED VIEW weeks AS SELECT note FROM orders

    CREATE SEQUENCE more_numbers;
    ALTER SEQUENCE numbers INCREMENT 6 NO CYCLE

    CREATE TYPE size AS ENUM ('s');
    ALTER TYPE size ADD VALUE 'm'

    CREATE TYPE pair AS (a int, b int);
    CREATE DOMAIN name AS text

    ALTER TYPE mood RENAME VALUE 'wild' TO 'loud'

    CREATE SCHEMA shop;
    CREATE TABLE shop.t (a int)

    CREATE EXTENSION IF NOT EXISTS plpgsql;
    CREATE EXTENSION pg_trgm

    CREATE FUNCTION thrice(n integer, varchar) RETURNS int LANGUAGE sql AS 'SELECT n * 3'

    CREATE OR REPLACE FUNCTION twice(n int, m int DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT
    0'

    ALTER FUNCTION twice(int, int) VOLATILE SECURITY DEFINER

    DROP FUNCTION twice(int, int)

    CREATE TRIGGER again AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch()

    DROP TRIGGER touched ON customers

    CREATE OR REPLACE TRIGGER touched AFTER DELETE ON customers FOR EACH ROW EXECUTE FUNCTION
    touch()

    ALTER TABLE customers ENABLE ALWAYS TRIGGER touched

    CREATE POLICY yours ON orders USING (true);
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    ALTER TABLE orders FORCE ROW LEVEL SECURITY

    DROP POLICY mine ON orders

    CREATE RULE quiet AS ON DELETE TO customers DO INSTEAD NOTHING

    CREATE STATISTICS both_ways ON cents, old FROM orders

    ALTER TABLE orders ADD CONSTRAINT big CHECK (cents > 0) NOT VALID;
    ALTER TABLE orders VALIDATE CONSTRAINT big

    ALTER TABLE loose VALIDATE CONSTRAINT later

    ALTER TABLE loose ADD CONSTRAINT loose_key PRIMARY KEY (a, b)

    ALTER TABLE orders ADD CONSTRAINT once UNIQUE USING INDEX old_once

    ALTER TABLE orders DROP CONSTRAINT owner, DROP CONSTRAINT small

    ALTER TABLE customers DROP CONSTRAINT email_key

    ALTER TABLE orders DROP CONSTRAINT orders_pkey

    ALTER TABLE orders DROP CONSTRAINT IF EXISTS nope;
    DROP TABLE IF EXISTS nope

    DROP INDEX CONCURRENTLY by_note

    DROP INDEX by_note;
    CREATE INDEX by_note ON orders (note)

    DROP VIEW rich

    DROP MATERIALIZED VIEW days

    ALTER TABLE orders ALTER cents DROP DEFAULT, ALTER note SET DEFAULT 'x'

    ALTER TABLE orders ALTER note SET DEFAULT 'x';
    ALTER TABLE orders ALTER note SET DEFAULT 'y'

    ALTER TABLE customers ALTER name DROP NOT NULL, ALTER email SET NOT NULL

    ALTER TABLE orders RENAME TO sales;
    ALTER TABLE sales RENAME COLUMN note TO remark;
    ALTER TABLE sales ALTER COLUMN remark SET DEFAULT 'x'

    ALTER TABLE loose RENAME COLUMN "Odd name" TO "select"

    ALTER INDEX by_note RENAME TO by_remark;
    ALTER TABLE orders RENAME CONSTRAINT small TO tiny

    ALTER VIEW rich RENAME TO wealthy;
    ALTER SEQUENCE numbers RENAME TO digits

    ALTER TYPE mood RENAME TO temper;
    ALTER FUNCTION twice(int, int) RENAME TO double

    CREATE SCHEMA attic;
    ALTER TABLE loose SET SCHEMA attic;
    ALTER TABLE attic.loose ADD c int

    ALTER TABLE parted DETACH PARTITION part_1

    CREATE TABLE part_2 (n int, at date);
    ALTER TABLE parted ATTACH PARTITION part_2 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')

    ALTER TABLE orders SET (fillfactor = 70);
    ALTER TABLE orders SET UNLOGGED

    COMMENT ON TABLE orders IS NULL;
    COMMENT ON COLUMN orders.note IS 'other'

    DROP TYPE IF EXISTS nope;
    SET lock_timeout = '1s';
    VACUUM loose;
    ANALYZE loose
"""

# Why, and the case.
SCHEMA_ONLY = r"""
    old held is not kept: ALTER TABLE orders DROP COLUMN old

    email held is not kept: ALTER TABLE customers DROP COLUMN email

    rows of public.loose are not kept: DROP TABLE loose

    where public.numbers stood: DROP SEQUENCE numbers

    rows of public.customers are not kept: DROP MATERIALIZED VIEW days;
    DROP VIEW rich;
    DROP TABLE orders;
    DROP TABLE customers
"""

# Why, and the case.
NONE = r"""
    changes rows of public.orders: UPDATE orders SET cents = 1

    they are not kept: DELETE FROM orders

    changes rows: INSERT INTO orders (customer) VALUES (1)

    changes rows: ALTER TABLE orders ADD x int;
    UPDATE orders SET x = 1, cents = 2

    changes rows: ALTER TABLE customers ADD x int;
    UPDATE customers SET x = 1

    calls twice: ALTER TABLE orders ADD x int;
    UPDATE orders SET x = twice(1)

    in a part of: ALTER TABLE orders ADD x int;
    WITH gone AS (DELETE FROM loose RETURNING a) UPDATE orders SET x = 1

    they are not kept: TRUNCATE loose

    DO block: DO $$ BEGIN END $$

    may call functions: SELECT twice(1, 2)

    cannot take the label sad: ALTER TYPE mood ADD VALUE 'sad'

    whether every value fits: ALTER TABLE orders ALTER id TYPE bigint

    without a name: CREATE INDEX ON orders (cents)

    without a name: ALTER TABLE orders ADD CHECK (cents > 0)

    CASCADE: DROP VIEW rich CASCADE

    made and dropped in one file: CREATE TABLE t (a int);
    DROP TABLE t

    renamed since: ALTER TABLE orders RENAME note TO remark;
    DROP INDEX by_note

    changes what later statements mean: SET search_path = attic;
    CREATE TABLE t (a int)

    where a sequence stood: ALTER SEQUENCE numbers RESTART

    names or defaults of arguments: CREATE OR REPLACE FUNCTION twice(n int DEFAULT 1, m int
    DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT 0'

    which twice it replaces: CREATE OR REPLACE FUNCTION twice(a smallint, b smallint) RETURNS
    int LANGUAGE sql AS 'SELECT 0'

    CASCADE: DROP TABLE orders CASCADE

    rights are not taken back: GRANT SELECT ON orders TO reader

    nope is not known: ALTER TABLE nope ADD a int

    made and taken in one file: CREATE UNIQUE INDEX i ON loose (a);
    ALTER TABLE loose ADD CONSTRAINT c UNIQUE USING INDEX i

    no SQL: ALTER TABLE orders (
"""


def _cases(text: str) -> list[str]:
    return [" ".join(case.split()) for case in text.strip().split("\n\n")]


def _explained(text: str) -> list[tuple[str, str]]:
    return [(sql, why) for why, _, sql in (case.partition(": ") for case in _cases(text))]


@pytest.fixture(scope="module")
def server(binaries: Binaries) -> Iterator[Server]:
    """A server with a template that each case gets a copy of."""
    home = folder_of_its_own()
    made = asyncio.run(_start(binaries, home))
    try:
        yield made
    finally:
        asyncio.run(made.remove())


async def _start(binaries: Binaries, home: Path) -> Server:
    made = await create(binaries, home / "reverse", settings=FAST, sync=False)
    await made.start()
    await run_sql(made.dsn(), "CREATE DATABASE shop")
    await run_sql(made.dsn("shop"), SHOP)
    await run_sql(made.dsn(), "CREATE DATABASE shop_copy TEMPLATE shop")
    return made


# What a transaction does not take, in a database of its own; of the others each is rolled back.
ALONE = re.compile("VACUUM|CONCURRENTLY by_cents")


async def _both_ways(server: Server, sql: str) -> tuple[Reverse, list[str], list[str]]:
    """The way back of `sql`, and the definitions before it and after both."""
    if not ALONE.search(sql):
        conn = await asyncpg.connect(server.dsn("shop"))
        transaction = conn.transaction()
        await transaction.start()
        try:
            return await _gone_both_ways(conn, sql, is_alone=False)
        finally:
            await transaction.rollback()
            await conn.close()
    name = f"case_{abs(hash(sql))}"
    await run_sql(server.dsn(), f"CREATE DATABASE {name} TEMPLATE shop_copy")
    conn = await asyncpg.connect(server.dsn(name))
    try:
        return await _gone_both_ways(conn, sql, is_alone=True)
    finally:
        await conn.close()


async def _gone_both_ways(
    conn: Any, sql: str, *, is_alone: bool
) -> tuple[Reverse, list[str], list[str]]:
    before = await _lines(conn)
    stored = (await read_reverse_facts(conn, sql)).to_json()
    found = reverse(sql, Catalog.from_json(stored))
    for each in (*(RawStream()(each) for each in parsed(sql)), *found.statements):
        await conn.execute(each if is_alone else each.replace(" CONCURRENTLY", ""))
    return found, before, await _lines(conn)


async def _lines(conn: Any) -> list[str]:
    """The definitions, with owners, rights and comments, which they leave out."""
    lines = [row["line"] for row in await conn.fetch(SCHEMA_LINES, 10_000)]
    await conn.execute("SET search_path = public")  # the query before this leaves another
    more = await conn.fetch("""
        SELECT format('%s %s %s %s', c.oid::regclass, pg_get_userbyid(relowner), relacl,
                      obj_description(c.oid, 'pg_class')) AS line
          FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm')
         UNION ALL
        SELECT format('%s %s', p.oid::regprocedure, p.proacl) FROM pg_proc p
         WHERE pronamespace = 'public'::regnamespace
           AND p.oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')
         UNION ALL
        SELECT format('%s.%s %s', attrelid::regclass, attname, col_description(attrelid, attnum))
          FROM pg_attribute
         WHERE attrelid = to_regclass('public.orders') AND attnum > 0 AND NOT attisdropped
    """)
    return sorted([*lines, *(row["line"] for row in more)])


@pytest.mark.parametrize("sql", _cases(EXACT))
async def test_an_exact_way_back_leaves_every_definition_as_it_was(
    server: Server, sql: str
) -> None:
    found, before, after = await _both_ways(server, sql)

    assert (found.exactness, found.reasons) == (Exactness.EXACT, ())
    assert after == before


@pytest.mark.parametrize(("sql", "why"), _explained(SCHEMA_ONLY))
async def test_what_held_data_comes_back_as_a_definition_and_says_so(
    server: Server, sql: str, why: str
) -> None:
    found, before, after = await _both_ways(server, sql)

    assert found.exactness is Exactness.SCHEMA_ONLY
    assert why in "; ".join(found.reasons)
    assert after == before


@pytest.fixture(scope="module")
def catalog(server: Server) -> Catalog:
    """The template, as all that cannot be taken back would read it."""
    return asyncio.run(_read(server))


async def _read(server: Server) -> Catalog:
    conn = await asyncpg.connect(server.dsn("shop"))
    try:
        texts = [sql for sql, _ in _explained(NONE) if not sql.endswith("(")]
        return await read_reverse_facts(conn, ";".join(texts))
    finally:
        await conn.close()


@pytest.mark.parametrize(("sql", "why"), _explained(NONE))
def test_what_cannot_be_proved_has_no_way_back_and_says_why(
    catalog: Catalog, sql: str, why: str
) -> None:
    found = reverse(sql, catalog)

    assert (found.exactness, found.statements) == (Exactness.NONE, ())
    assert why in "; ".join(found.reasons)


def test_one_statement_without_a_way_back_leaves_the_file_without_one(catalog: Catalog) -> None:
    found = reverse("ALTER TABLE orders ADD x int; TRUNCATE loose", catalog)

    assert (found.exactness, found.statements) == (Exactness.NONE, ())


def test_what_came_since_is_said_to_go(catalog: Catalog) -> None:
    found = reverse("ALTER TABLE orders ADD x int", catalog)

    assert found.notes == ("What public.orders.x holds by then goes with it.",)
