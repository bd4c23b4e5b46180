"""One table comes out of a copy whole, as a new table, or not at all; and goes without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.restore.one_table import (
    Copied,
    Shape,
    copy_table,
    drop_own,
    missing_types,
    read_shape,
)
from postgres.server import Server
from tests.conftest import Target as Fresh

MINE = "twokey: request 17"
OWN = ("restored_17", MINE)
COPY = """
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE SCHEMA "Odd ""one";
    CREATE COLLATION backwards (provider = libc, locale = 'C');
    CREATE TABLE "Odd ""one"."pay ments" (
        "No." bigint GENERATED ALWAYS AS IDENTITY,
        gone text,
        cents numeric(10, 2) NOT NULL,
        twice numeric GENERATED ALWAYS AS (cents * 2) STORED,
        at timestamptz NOT NULL DEFAULT now(),
        moods mood[],
        name text COLLATE backwards,
        note text,
        PRIMARY KEY (at, "No.")
    );
    ALTER TABLE "Odd ""one"."pay ments" DROP COLUMN gone;
    INSERT INTO "Odd ""one"."pay ments" (cents, moods, name, note)
    SELECT n, ARRAY['sad', 'glad']::mood[], 'x', repeat('y', n % 100)
      FROM generate_series(1, 3000) AS n;
    CREATE TABLE empty ();
    CREATE TABLE plain (id int);
    CREATE TABLE child () INHERITS (plain);
    INSERT INTO plain VALUES (1);
    INSERT INTO child VALUES (2);
    CREATE UNLOGGED TABLE drafts (id int);
    CREATE VIEW seen AS SELECT 1 AS one;
    CREATE TABLE parted (n int) PARTITION BY RANGE (n);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    INSERT INTO parted VALUES (5);
"""
ODD = 'Odd "one.pay ments'


@pytest.fixture(scope="module")
def source(server: Server) -> Iterator[Target]:
    """A database that stands for the copy."""
    asyncio.run(_execute(server.dsn(), "CREATE DATABASE one_table_copy"))
    asyncio.run(_execute(server.dsn("one_table_copy"), COPY))
    try:
        yield parse_dsn(server.dsn("one_table_copy"))
    finally:
        asyncio.run(_execute(server.dsn(), "DROP DATABASE one_table_copy WITH (FORCE)"))


@pytest.fixture
async def goal(target: Fresh) -> Target:
    """A database that stands for production: its types are those of the copy."""
    await _execute(
        target.dsn,
        "CREATE TYPE mood AS ENUM ('sad', 'glad');"
        "CREATE COLLATION backwards (provider = libc, locale = 'C')",
    )
    return parse_dsn(target.dsn)


async def _execute(dsn: str, statements: str) -> None:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        await conn.execute(statements)
    finally:
        await conn.close()


async def ask(where: Target, query: str) -> Any:
    async with connection(where) as conn:
        return await conn.fetchval(query)


async def copied(source: Target, goal: Target, shape: Shape) -> Copied:
    return await copy_table(source, goal, shape, comment=MINE, on_bytes=_ignore)


async def test_a_table_comes_with_columns_not_nulls_and_its_key(
    source: Target, goal: Target
) -> None:
    shape = await read_shape(source, ODD, into="restored_17")
    seen: list[int] = []

    async def on_bytes(count: int) -> None:
        seen.append(count)

    assert shape.create_table == (
        'CREATE TABLE restored_17."pay ments" ("No." bigint NOT NULL, cents numeric(10,2)'
        " NOT NULL, twice numeric, at timestamp with time zone NOT NULL, moods public.mood[],"
        " name text COLLATE public.backwards, note text)"
    )
    assert shape.add_key == 'ALTER TABLE restored_17."pay ments" ADD PRIMARY KEY (at, "No.")'
    assert await missing_types(goal, shape) == []
    done = await copy_table(source, goal, shape, comment=MINE, on_bytes=on_bytes)
    assert done.rows == 3000
    assert seen[-1] == done.wire_bytes
    assert len(seen) > 1
    assert await ask(goal, 'SELECT count(*) FROM restored_17."pay ments"') == 3000
    assert await ask(goal, 'SELECT sum(twice) FROM restored_17."pay ments"') == 9003000
    key = "SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid = $$%s$$::regclass"
    assert await ask(goal, key % 'restored_17."pay ments"') == 1


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("public.nothing", "has no table public.nothing"),
        ("nothing", "has no table nothing"),
        ("public.parted", "public.parted is partitioned: its rows are in its partitions"),
        ("public.drafts", "public.drafts is unlogged"),
        ("public.seen", "public.seen is a view"),
        ("public.empty", "public.empty has no columns"),
    ],
)
async def test_what_is_no_plain_table_is_refused_with_the_reason(
    source: Target, table: str, why: str
) -> None:
    with pytest.raises(PostgresError, match=why):
        await read_shape(source, table, into="restored_17")


@pytest.mark.parametrize(
    ("table", "rows"), [("public.plain", 1), ("public.child", 1), ("public.part_1", 1)]
)
async def test_a_table_brings_its_own_rows_alone(
    source: Target, goal: Target, table: str, rows: int
) -> None:
    shape = await read_shape(source, table, into="restored_17")
    assert (await copied(source, goal, shape)).rows == rows


async def test_types_that_are_gone_are_named(source: Target, target: Fresh) -> None:
    shape = await read_shape(source, ODD, into="restored_17")
    assert await missing_types(parse_dsn(target.dsn), shape) == ["public.mood[]"]


async def test_an_earlier_attempt_of_ours_is_replaced_and_nothing_else(
    source: Target, goal: Target
) -> None:
    shape = await read_shape(source, "public.plain", into="restored_17")
    await copied(source, goal, shape)
    assert (await copied(source, goal, shape)).rows == 1
    assert await ask(goal, "SELECT count(*) FROM restored_17.plain") == 1
    with pytest.raises(PostgresError, match="is none that Twokey made"):
        await copy_table(source, goal, shape, comment="another", on_bytes=_ignore)


async def test_what_somebody_put_beside_the_table_stops_its_removal(
    source: Target, goal: Target
) -> None:
    shape = await read_shape(source, "public.plain", into="restored_17")
    await copied(source, goal, shape)
    await ask(goal, "CREATE SCHEMA other")
    await ask(goal, "CREATE TABLE restored_17.mine (id int)")
    for attempt in (lambda: copied(source, goal, shape), lambda: drop_own(goal, *OWN)):
        with pytest.raises(PostgresError, match=r"restored_17 holds more .*mine.*plain"):
            await attempt()
    await ask(goal, "ALTER TABLE restored_17.mine SET SCHEMA other")
    assert await drop_own(goal, *OWN)
    assert not await drop_own(goal, *OWN)
    assert await ask(goal, "SELECT count(*) FROM other.mine") == 0


async def test_a_schema_out_of_which_the_table_was_taken_goes_too(
    source: Target, goal: Target
) -> None:
    await copied(source, goal, await read_shape(source, "public.plain", into="restored_17"))
    await ask(goal, "ALTER TABLE restored_17.plain SET SCHEMA public")
    assert await drop_own(goal, *OWN)
    assert await ask(goal, "SELECT count(*) FROM public.plain") == 1


async def test_a_function_or_a_type_beside_the_table_counts_too(
    source: Target, goal: Target
) -> None:
    await copied(source, goal, await read_shape(source, "public.plain", into="restored_17"))
    await ask(goal, "CREATE FUNCTION restored_17.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(PostgresError, match=r"function restored_17\.f\(\), table"):
        await drop_own(goal, *OWN)


async def test_what_hangs_on_the_table_elsewhere_stops_its_removal(
    source: Target, goal: Target
) -> None:
    await copied(source, goal, await read_shape(source, "public.plain", into="restored_17"))
    await ask(goal, "CREATE VIEW public.uses AS SELECT * FROM restored_17.plain")
    with pytest.raises(PostgresError, match="other objects depend on it"):
        await drop_own(goal, *OWN)
    assert await ask(goal, "SELECT count(*) FROM restored_17.plain") == 1


async def test_what_fails_half_way_leaves_nothing(source: Target, goal: Target) -> None:
    shape = await read_shape(source, ODD, into="restored_17")

    async def dies(count: int) -> None:
        raise PostgresError(f"after {count} bytes", next_step="none")

    with pytest.raises(PostgresError, match="after"):
        await copy_table(source, goal, shape, comment=MINE, on_bytes=dies)
    assert await ask(goal, "SELECT to_regnamespace('restored_17')") is None


async def test_rows_that_went_missing_on_the_way_are_noticed(source: Target, goal: Target) -> None:
    shape = await read_shape(source, "public.plain", into="restored_17")
    await _execute(goal.url(), SWALLOW)
    with pytest.raises(PostgresError, match="1 rows were read from the copy, but 0"):
        await copied(source, goal, shape)
    assert await ask(goal, "SELECT to_regnamespace('restored_17')") is None


# Somebody's event trigger that gives every new table a trigger of its own.
SWALLOW = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION swallow() RETURNS event_trigger LANGUAGE plpgsql AS $$
        DECLARE made record;
        BEGIN
            FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
                EXECUTE format('CREATE TRIGGER t BEFORE INSERT ON %s FOR EACH ROW'
                               ' EXECUTE FUNCTION public.nothing()', made.objid::regclass);
            END LOOP;
        END $$;
    CREATE EVENT TRIGGER swallows ON ddl_command_end WHEN tag IN ('CREATE TABLE')
        EXECUTE FUNCTION swallow();
"""


async def _ignore(_: int) -> None: ...
