"""The tools' tables as the tools write them: what is true of all of them."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.migrate.books.opening import book_of
from postgres.migrate.books.tables import identifier, table_name
from postgres.migrate.words import Tool
from tests.postgres.migrate.bookkeeping import FIRST, OWN_DDL, opened, record, rows

SHAPE = """
    SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid)
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = $1::regclass AND a.attnum > 0
     ORDER BY 1
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = $1 ORDER BY 1"


@pytest.mark.parametrize("tool", OWN_DDL)
async def test_our_table_is_the_one_that_the_tool_would_make(conn: Any, tool: Tool) -> None:
    book = await opened(conn, tool)
    name = book.table.rpartition(".")[2]
    ours = await conn.fetch(SHAPE, name), await conn.fetch(INDEXES, name)
    await conn.execute(f"DROP TABLE {name}")
    await conn.execute(OWN_DDL[tool])
    assert (await conn.fetch(SHAPE, name), await conn.fetch(INDEXES, name)) == ours
    assert await book.read(conn) == ()
    await book.ensure(conn)  # and the tool's own will do


@pytest.mark.parametrize("tool", Tool)
async def test_a_book_says_what_was_written_down_and_no_longer_what_was_taken_back(
    conn: Any, tool: Tool
) -> None:
    book = book_of(tool)
    assert await book.read(conn) is None
    await book.ensure(conn)
    await book.ensure(conn)
    assert await book.read(conn) == ()
    migration = FIRST[tool]
    await record(conn, book, migration)
    (entry,) = await book.read(conn) or ()
    assert (entry.version, entry.is_complete) == (migration.version, True)
    assert entry.checksum == migration.checksum
    async with conn.transaction():
        await book.unrecord(conn, migration)
    assert await book.read(conn) == ()


class OnlyFetch:
    """What a plan has to look with: it reads, and knows rows as mappings."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def fetch(self, query: str, *args: object) -> list[dict[str, Any]]:
        return [dict(found) for found in await self._conn.fetch(query, *args)]


@pytest.mark.parametrize("tool", Tool)
async def test_a_plan_can_read_a_book(conn: Any, tool: Tool) -> None:
    book, looking = book_of(tool), OnlyFetch(conn)
    assert await book.read(looking) is None
    await book.ensure(conn)
    await record(conn, book, FIRST[tool])
    async with conn.transaction(readonly=True):
        assert await book.read(looking) == await book.read(conn)


@pytest.mark.parametrize("tool", Tool)
async def test_what_somebody_else_has_written_meanwhile_is_not_written_over(
    conn: Any, tool: Tool
) -> None:
    book = await opened(conn, tool)
    await record(conn, book, FIRST[tool])
    if tool in (Tool.ALEMBIC, Tool.GOLANG_MIGRATE):
        table = book.table
        column = "version_num" if tool is Tool.ALEMBIC else "version"
        await conn.execute(f"UPDATE {table} SET {column} = '77'")
        with pytest.raises(PostgresError, match="somebody else applies migrations here"):
            await record(conn, book, FIRST[tool])
    elif tool is Tool.PRISMA:
        await conn.execute("UPDATE _prisma_migrations SET rolled_back_at = now()")
    else:
        with pytest.raises((PostgresError, asyncpg.UniqueViolationError)):
            await record(conn, book, FIRST[tool])
        await conn.execute(f"TRUNCATE {book.table}")
    with pytest.raises(PostgresError, match="somebody else applies migrations here"):
        await book.unrecord(conn, FIRST[tool])


@pytest.mark.parametrize("tool", Tool)
async def test_while_we_hold_the_book_the_tool_reads_and_does_not_write(
    conn: Any, other: Any, tool: Tool
) -> None:
    book = await opened(conn, tool)
    async with conn.transaction():
        await book.guard(conn)
        assert await book.read(other) == ()
        with pytest.raises(asyncpg.LockNotAvailableError):
            await book.record(other, FIRST[tool], seconds=1)
        await book.record(conn, FIRST[tool], seconds=1)


@pytest.mark.parametrize("tool", Tool)
async def test_a_lock_is_held_by_one_and_not_waited_for(conn: Any, other: Any, tool: Tool) -> None:
    book = await opened(conn, tool)
    assert await book.try_lock(conn)
    assert not await book.try_lock(other)
    held = await other.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    )
    assert held == 0
    await book.unlock(conn)
    assert await book.try_lock(other)
    await book.unlock(other)
    async with conn.transaction():
        with pytest.raises(RuntimeError, match="inside a transaction"):
            await book.try_lock(conn)


@pytest.mark.parametrize("tool", Tool)
async def test_the_table_of_another_tool_is_not_taken_for_its_own(conn: Any, tool: Tool) -> None:
    await conn.execute("CREATE TABLE notes (id int, text text)")
    book = book_of(tool, table="public.notes")
    with pytest.raises(PostgresError, match=rf"public\.notes is not the table of {tool}: it has"):
        await book.read(conn)
    with pytest.raises(PostgresError, match="is not the table of"):
        await book.ensure(conn)
    await conn.execute("CREATE VIEW seen AS SELECT 1 AS version")
    with pytest.raises(PostgresError, match="is not the table of"):
        await book_of(tool, table="public.seen").read(conn)


async def test_a_table_in_another_schema_is_not_taken_for_missing(conn: Any) -> None:
    await conn.execute("CREATE SCHEMA app; CREATE TABLE app.schema_migrations (version text)")
    with pytest.raises(PostgresError, match="but one in app") as refusal:
        await book_of(Tool.DBMATE).read(OnlyFetch(conn))
    assert "migrations.table: app.schema_migrations" in refusal.value.next_step
    assert await book_of(Tool.DBMATE, table="app.schema_migrations").read(conn) == ()
    assert await book_of(Tool.DBMATE, table="public.schema_migrations").read(conn) is None


async def test_a_name_needs_its_quotes_and_gets_them(conn: Any) -> None:
    await conn.execute('CREATE SCHEMA "odd ""x"')
    book = book_of(Tool.DBMATE, table='"odd ""x"."a.b"')
    await book.ensure(conn)
    await record(conn, book, FIRST[Tool.DBMATE])
    assert await rows(conn, 'SELECT version FROM "odd ""x"."a.b"') == [("20260101",)]
    assert identifier('a"b', "C") == await conn.fetchval("SELECT format('%I.%I', 'a\"b', 'C')")


@pytest.mark.parametrize("name", ["a.b.c", ".", "a.", '"a', "a\0b", "x" * 64, "é" * 32])
def test_what_is_no_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(PostgresError, match="is not the name of a table"):
        table_name(name, usual="t")


async def test_a_schema_that_is_not_there_is_said(conn: Any) -> None:
    with pytest.raises(PostgresError, match="There is no schema app for the table"):
        await book_of(Tool.DBMATE, table="app.t").ensure(conn)


@pytest.mark.parametrize("tool", [Tool.PRISMA, Tool.FLYWAY])
async def test_tables_without_a_book_are_refused_as_the_tool_refuses_them(
    conn: Any, tool: Tool
) -> None:
    await conn.execute("CREATE TABLE users (id int)")
    with pytest.raises(PostgresError, match=r"The schema public has tables \(users\), and no"):
        await book_of(tool).ensure(conn)
