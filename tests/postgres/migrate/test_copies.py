"""A copy reaches nobody, and what a way back has left is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.copies import (
    Contents,
    Standstill,
    contents_of,
    cut_off,
    difference,
    stand_still,
)
from tests.conftest import Target

TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, cents int, price float8, note jsonb);
    INSERT INTO orders SELECT n, n, n / 3.0, '{"a": 1}' FROM generate_series(1, 100) n;
    CREATE TABLE same (x int);
    INSERT INTO same VALUES (1), (1);
    CREATE UNLOGGED TABLE drafts (id int);
    CREATE SCHEMA "odd.one";
    CREATE TABLE "odd.one"."t "" x" (x int);
"""
PARTNERS = """
    CREATE EXTENSION postgres_fdw;
    CREATE EXTENSION dblink;
    CREATE SERVER "the partner" FOREIGN DATA WRAPPER postgres_fdw
        OPTIONS (host 'db.partner.example', port '5433');
    CREATE SERVER bare FOREIGN DATA WRAPPER dblink_fdw;
    CREATE USER MAPPING FOR PUBLIC SERVER "the partner" OPTIONS (user 'u', password 'secret');
    CREATE USER MAPPING FOR CURRENT_USER SERVER bare OPTIONS (user 'u');
    CREATE FOREIGN TABLE theirs (id int) SERVER "the partner";
    CREATE SUBSCRIPTION feed CONNECTION 'host=db.partner.example password=secret'
        PUBLICATION p WITH (connect = false, slot_name = 'feed', enabled = false);
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    made = await asyncpg.connect(target.dsn)
    try:
        await made.execute(TABLES)
        yield made
    finally:
        await made.close()


async def test_nothing_in_a_copy_leads_to_another_server(target: Target, conn: Any) -> None:
    await conn.execute(PARTNERS)
    try:
        await cut_off(parse_dsn(target.dsn))
        assert "partner" not in await conn.fetchval("SELECT subconninfo FROM pg_subscription")
        assert await conn.fetchval("SELECT count(*) FROM pg_user_mappings") == 0
        options = await conn.fetch("SELECT srvoptions FROM pg_foreign_server")
        assert {tuple(row["srvoptions"]) for row in options} == {("host=/nonexistent",)}
        with pytest.raises(asyncpg.PostgresError, match="no handler"):
            await conn.fetch("SELECT * FROM theirs")
        with pytest.raises(asyncpg.PostgresError):
            await conn.fetchval("SELECT dblink_connect('bare')")
        # A copy of a copy, or a second attempt, is cut off all the same.
        await cut_off(parse_dsn(target.dsn))
    finally:
        await conn.execute("ALTER SUBSCRIPTION feed SET (slot_name = NONE); DROP SUBSCRIPTION feed")


async def test_a_copy_that_cannot_be_cut_off_is_said(target: Target, conn: Any) -> None:
    await conn.execute("CREATE EXTENSION postgres_fdw; CREATE ROLE weak LOGIN")
    weak = parse_dsn(target.dsn.replace("postgresql://postgres@", "postgresql://weak@"))
    try:
        await conn.execute("CREATE SERVER one FOREIGN DATA WRAPPER postgres_fdw")
        with pytest.raises(PostgresError, match="could not be cut off"):
            await cut_off(weak)
    finally:
        await conn.execute("DROP ROLE weak")


async def look(target: Target, **limits: Any) -> Standstill:
    return await stand_still(parse_dsn(target.dsn), **limits)


async def test_what_is_as_it_was_is_not_told(target: Target, conn: Any) -> None:
    before = await look(target)
    await conn.execute(
        "ALTER TABLE orders ALTER cents TYPE bigint; ALTER TABLE orders ALTER cents TYPE int;"
        "CREATE SCHEMA twokey_migrate; CREATE TABLE twokey_migrate.ledger (x int);"
        "CREATE TABLE schema_migrations (version text);"
        "SET timezone = 'Asia/Tokyo'; SET extra_float_digits = 0"
    )
    after = await look(target, besides={"schema_migrations"})
    found = difference(before, after, worked_on={"public.orders"})
    assert (found.definitions, found.contents, found.uncompared) == ((), (), ())
    assert set(before.contents) == {"public.orders", "public.same", 'odd.one.t " x'}


@pytest.mark.parametrize(
    ("change", "definitions", "contents"),
    [
        ("UPDATE orders SET cents = 7 WHERE id = 7 OR id = 8",
         (), ("public.orders has other values",)),
        ("DELETE FROM orders WHERE id = 1", (), ("public.orders has 99 rows instead of 100",)),
        # Two equal rows do not cancel each other out.
        ("UPDATE same SET x = 2", (), ("public.same has other values",)),
        ("ALTER TABLE orders DROP cents; ALTER TABLE orders ADD cents int",
         (), ("public.orders has other values",)),
        ("CREATE INDEX more ON orders (cents)", ("index public.more is new",), ()),
        ("ALTER TABLE same ALTER x SET NOT NULL", ("column public.same: x is another",), ()),
        ("DROP TABLE same", ("class public.same is gone",), ()),
    ],
)  # fmt: skip
async def test_what_is_not_as_it_was_is_told(
    target: Target, conn: Any, change: str, definitions: tuple[str, ...], contents: tuple[str, ...]
) -> None:
    before = await look(target)
    await conn.execute(change)
    found = difference(before, await look(target), worked_on=())
    assert (found.definitions, found.contents) == (definitions, contents)


async def test_tables_that_are_too_large_are_not_compared_and_said(
    target: Target, conn: Any
) -> None:
    del conn
    before = await look(target, bytes_max=0)
    assert "public.orders" not in before.contents
    found = difference(before, before, worked_on={"public.orders", "public.gone"})
    assert found.uncompared == ("public.orders",)


async def test_what_the_files_name_is_compared_before_the_rest(target: Target, conn: Any) -> None:
    size = await conn.fetchval("SELECT pg_table_size('orders')")
    found = await look(target, first={"public.orders"}, bytes_max=size)
    assert set(found.contents) >= {"public.orders"}
    assert "public.same" not in found.contents


async def test_contents_that_take_too_long_are_left_out(target: Target, conn: Any) -> None:
    sleep = "SELECT 1 AS rows, pg_sleep({})::text AS sum"
    assert await contents_of(conn, sleep.format(0), 5.0) == Contents(rows=1, checksum="")
    assert await contents_of(conn, sleep.format(20), 0.05) is None
    found = await look(target, seconds_max=0.0)
    assert (found.contents, bool(found.lines)) == ({}, True)


def test_a_table_that_appeared_in_between_is_a_definition_and_no_content() -> None:
    one = Contents(rows=1, checksum="5")
    before = Standstill(lines=(), sizes={"public.a": 1}, contents={"public.a": one})
    after = Standstill(
        lines=("class public.b r p",),
        sizes={"public.a": 1, "public.b": 1},
        contents={"public.a": one, "public.b": one},
    )
    found = difference(before, after, worked_on={"public.b"})
    assert found.definitions == ("class public.b is new",)
    assert (found.contents, found.uncompared) == ((), ())
