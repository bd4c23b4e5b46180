"""A drafted migration makes the declared schema of the present one; what it cannot do, it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from postgres.binaries import Binaries
from postgres.schema import drafting
from postgres.schema.catalog import Catalog
from postgres.schema.declared import read_lines, scratch_server
from postgres.schema.diff_words import Step
from postgres.schema.drafting import Drafted
from postgres.schema.drift import Scope, compare
from postgres.schema.reading import read_everything
from postgres.schema.statements import split_statements
from postgres.server import Server, create
from tests.conftest import folder_of_its_own
from tests.postgres.conftest import FAST, run_sql
from tests.postgres.test_facts import SCHEMA as RICH

PRESENT = """
    CREATE TYPE mood AS ENUM ('calm', 'wild');
    CREATE TABLE customers (id bigserial PRIMARY KEY, name varchar(50), mood mood, old text);
    CREATE TABLE orders (id int PRIMARY KEY, customer bigint NOT NULL, note text DEFAULT 'x',
                         cents int, CONSTRAINT small CHECK (cents < 10));
    CREATE INDEX by_note ON orders (note);
    CREATE TABLE gone (id int);
    CREATE VIEW rich AS SELECT id FROM orders WHERE cents > 5;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2';
    CREATE FUNCTION unused() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE alembic_version (version_num varchar(32));
"""
WANTED = """
    CREATE SCHEMA shop;
    CREATE TYPE mood AS ENUM ('sad', 'calm', 'keen', 'wild');
    CREATE TYPE size AS ENUM ('s', 'm');
    CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL, mood mood DEFAULT 'calm',
                            email text UNIQUE, size size);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint REFERENCES customers, note text,
                         cents int NOT NULL DEFAULT 0, CONSTRAINT small CHECK (cents < 100),
                         at timestamptz NOT NULL DEFAULT now(), code text NOT NULL);
    CREATE INDEX by_note ON orders (lower(note));
    CREATE UNIQUE INDEX by_code ON orders (code);
    CREATE TABLE shop.items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                             order_id bigint REFERENCES orders ON DELETE CASCADE,
                             number serial, twice int GENERATED ALWAYS AS (2) STORED);
    CREATE VIEW rich AS SELECT id, note FROM orders WHERE cents > 50;
    CREATE VIEW richer AS SELECT id FROM rich;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n + n';
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON customers USING (id = 1);
    CREATE MATERIALIZED VIEW days AS SELECT at FROM orders;
    CREATE SEQUENCE numbers INCREMENT 3;
"""
TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, customer bigint NOT NULL, note text DEFAULT 'x',
                         cents int, extra int, CONSTRAINT small CHECK (cents < 10));
    CREATE INDEX by_note ON orders (note);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A server for what is there; drafts start one of their own."""

    server: Server
    binaries: Binaries

    async def present(self, name: str, sql: str) -> Catalog:
        await run_sql(self.server.dsn(), f"CREATE DATABASE {name}")
        await run_sql(self.server.dsn(name), sql)
        conn = await asyncpg.connect(self.server.dsn(name))
        try:
            return await read_everything(conn)
        finally:
            await conn.close()

    async def draft(self, present: Catalog, sql: str, scope: Scope = Scope.ALL) -> Drafted:
        return await drafting.draft(
            self.binaries, sql, split=split_statements, present=present, scope=scope
        )


@pytest.fixture(scope="module")
def world(binaries: Binaries) -> Iterator[World]:
    home = folder_of_its_own()
    made = asyncio.run(_start(binaries, home))
    try:
        yield World(server=made, binaries=binaries)
    finally:
        asyncio.run(made.remove())


async def _start(binaries: Binaries, home: Path) -> Server:
    made = await create(binaries, home / "draft", settings=FAST, sync=False)
    await made.start()
    return made


async def test_a_draft_leaves_nothing_different(world: World) -> None:
    found = await world.draft(await world.present("shop", PRESENT), WANTED)

    assert (found.failed, found.undone, found.not_copied, found.remains) == ((), (), (), ())
    drops = [each for each in found.steps if each.is_drop]
    assert sorted(each.sql for each in drops) == [
        "ALTER TABLE public.customers DROP COLUMN old",
        "DROP FUNCTION public.unused()",
        "DROP TABLE public.gone",
    ]  # fmt: skip
    assert all(each.text.startswith("-- Not declared") for each in drops)
    assert not any(line for each in drops for line in each.text.splitlines()
                   if not line.startswith("--"))  # fmt: skip
    texts = [each.sql for each in found.steps]
    assert "CREATE UNIQUE INDEX CONCURRENTLY by_code ON public.orders USING btree (code)" in texts
    assert any("NOT VALID" in each and "FOREIGN KEY" in each for each in texts)
    assert any("/db backfill" in each.note for each in found.steps)
    assert any("shadow column" in each.note for each in found.steps)


async def test_the_drafted_migration_works_on_the_database_itself(world: World) -> None:
    present = await world.present("again", PRESENT)
    found = await world.draft(present, WANTED)
    conn = await asyncpg.connect(world.server.dsn("again"))
    try:
        for each in found.steps:
            await conn.execute(each.sql)
        after = await world.draft(await read_everything(conn), WANTED)
    finally:
        await conn.close()

    assert after == Drafted(steps=())


async def test_every_kind_of_thing_is_copied_from_the_catalog_alone(world: World) -> None:
    """The copy of the present schema has the very lines of the database that it is of."""
    present = await world.present("rich", RICH)
    conn = await asyncpg.connect(world.server.dsn("rich"))
    try:
        lines = await read_lines(conn)
    finally:
        await conn.close()
    async with scratch_server(world.binaries) as server:
        target, not_copied = await drafting.copy_present(server, present)
        copy = await asyncpg.connect(target.url())
        try:
            copied = await read_lines(copy)
        finally:
            await copy.close()

    assert not_copied == ("aggregate shop.total(integer): write its CREATE AGGREGATE yourself",)
    assert [each.name for each in compare(lines, copied, scope=Scope.ALL)] == [
        "shop.total(integer)"
    ]


async def test_what_no_statement_can_do_is_said(world: World) -> None:
    present = await world.present("stuck", "CREATE TYPE mood AS ENUM ('a', 'b', 'c')")

    found = await world.draft(present, "CREATE TYPE mood AS ENUM ('b', 'a')")

    assert found.steps == ()
    assert "neither removes nor reorders labels" in found.undone[0]
    assert [each.name for each in found.remains] == ["public.mood"]
    assert not found.is_whole


async def test_a_declaration_of_tables_says_nothing_of_functions_and_views(world: World) -> None:
    present = await world.present("tables", PRESENT)

    found = await world.draft(present, TABLES, scope=Scope.TABLES)

    assert [each.sql for each in found.steps if not each.is_drop] == [
        "ALTER TABLE public.orders ADD COLUMN extra integer",
    ]
    assert found.is_whole


def test_a_drop_of_data_is_a_comment_line_by_line() -> None:
    step = Step(sql="DROP TABLE\n  a", note="Its rows go.", is_drop=True)

    assert step.text == "-- Its rows go.\n-- DROP TABLE\n--   a;"
