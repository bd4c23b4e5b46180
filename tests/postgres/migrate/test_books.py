"""The tools' tables as the tools write them: what we write they read, what they wrote we read."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.migrate.books import flyway, golang_migrate
from postgres.migrate.books.book import Book
from postgres.migrate.books.opening import book_of
from postgres.migrate.books.tables import identifier, table_name
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

# What each tool itself runs to have its table, out of its source.
OWN_DDL = {
    Tool.ALEMBIC: """CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))""",
    Tool.DBMATE: "create table if not exists public.schema_migrations"
    " (version varchar(255) primary key)",
    Tool.GOLANG_MIGRATE: 'CREATE TABLE IF NOT EXISTS "public"."schema_migrations"'
    " (version bigint not null primary key, dirty boolean not null)",
    Tool.PRISMA: """CREATE TABLE _prisma_migrations (
        id                      VARCHAR(36) PRIMARY KEY NOT NULL,
        checksum                VARCHAR(64) NOT NULL,
        finished_at             TIMESTAMPTZ,
        migration_name          VARCHAR(255) NOT NULL,
        logs                    TEXT,
        rolled_back_at          TIMESTAMPTZ,
        started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
        applied_steps_count     INTEGER NOT NULL DEFAULT 0)""",
    Tool.FLYWAY: """CREATE TABLE "public"."flyway_schema_history" (
        "installed_rank" INT NOT NULL, "version" VARCHAR(50), "description" VARCHAR(200) NOT NULL,
        "type" VARCHAR(20) NOT NULL, "script" VARCHAR(1000) NOT NULL, "checksum" INTEGER,
        "installed_by" VARCHAR(100) NOT NULL, "installed_on" TIMESTAMP NOT NULL DEFAULT now(),
        "execution_time" INTEGER NOT NULL, "success" BOOLEAN NOT NULL);
        ALTER TABLE "public"."flyway_schema_history" ADD CONSTRAINT "flyway_schema_history_pk"
            PRIMARY KEY ("installed_rank");
        CREATE INDEX "flyway_schema_history_s_idx" ON "public"."flyway_schema_history"
            ("success")""",
}
SHAPE = """
    SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid)
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = $1::regclass AND a.attnum > 0
     ORDER BY 1
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = $1 ORDER BY 1"


def made(tool: Tool, version: str, **facts: Any) -> Migration:
    values: dict[str, Any] = {
        "tool": tool,
        "version": version,
        "name": "x",
        "path": Path(f"{version}_x.sql"),
        "up": "SELECT 1",
        "sha256": "s",
    }
    return Migration(**{**values, **facts})


FIRST = {
    Tool.ALEMBIC: made(Tool.ALEMBIC, "a1", book_after=("a1",)),
    Tool.DBMATE: made(Tool.DBMATE, "20260101"),
    Tool.GOLANG_MIGRATE: made(Tool.GOLANG_MIGRATE, "1", book_after=("1",)),
    Tool.PRISMA: made(Tool.PRISMA, "20260101_x", checksum="ab" * 32),
    Tool.FLYWAY: made(
        Tool.FLYWAY, "1", path=Path("/db/sub/V1_0__a_table.sql"), checksum="-1602969721"
    ),
    Tool.PLAIN: made(Tool.PLAIN, "001", checksum="c" * 64),
}


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Any]:
    """A second connection: the tool itself, at the same time."""
    opened = await asyncpg.connect(dsn, timeout=10, command_timeout=20)
    await opened.execute("SET lock_timeout = '50ms'")
    yield opened
    await opened.close(timeout=5)


async def opened(conn: Any, tool: Tool) -> Book:
    book = book_of(tool, folder=Path("/db"))
    await book.ensure(conn)
    return book


async def record(conn: Any, book: Book, migration: Migration, seconds: float = 1.5) -> None:
    async with conn.transaction():
        await book.guard(conn)
        await book.record(conn, migration, seconds=seconds)


async def rows(conn: Any, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await conn.fetch(query)]


# All of them


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


# dbmate


async def test_dbmate_finds_a_row_per_version(conn: Any) -> None:
    book = await opened(conn, Tool.DBMATE)
    await conn.execute("insert into public.schema_migrations (version) values ('20250101')")
    await record(conn, book, FIRST[Tool.DBMATE])
    assert [entry.version for entry in await book.read(conn) or ()] == ["20250101", "20260101"]


# golang-migrate

SECOND = made(Tool.GOLANG_MIGRATE, "2", book_before=("1",), book_after=("2",))


async def test_golang_migrate_has_one_row_with_the_newest_version(conn: Any) -> None:
    book = await opened(conn, Tool.GOLANG_MIGRATE)
    first = FIRST[Tool.GOLANG_MIGRATE]
    query = "SELECT version, dirty FROM schema_migrations"
    await record(conn, book, first)
    await record(conn, book, SECOND)
    assert await rows(conn, query) == [(2, False)]
    await book.unrecord(conn, SECOND)
    assert await rows(conn, query) == [(1, False)]
    await book.unrecord(conn, first)
    assert await rows(conn, query) == []


async def test_golang_migrate_is_dirty_at_where_it_goes_to(conn: Any) -> None:
    book = await opened(conn, Tool.GOLANG_MIGRATE)
    first = FIRST[Tool.GOLANG_MIGRATE]
    query = "SELECT version, dirty FROM schema_migrations"
    for _ in range(2):
        await book.begin(conn, first, Direction.UP)
        assert await rows(conn, query) == [(1, True)]
    assert await book.read(conn) == (
        BookEntry(version="1", is_complete=False, covers_earlier=True),
    )
    await record(conn, book, first)
    for _ in range(2):
        await book.begin(conn, first, Direction.DOWN)
        assert await rows(conn, query) == [(-1, True)]
    await book.unrecord(conn, first)
    assert await rows(conn, query) == []


async def test_a_version_of_somebody_else_is_not_made_dirty(conn: Any) -> None:
    book = await opened(conn, Tool.GOLANG_MIGRATE)
    await conn.execute("INSERT INTO schema_migrations VALUES (9, false)")
    with pytest.raises(PostgresError, match="somebody else"):
        await book.begin(conn, SECOND, Direction.UP)
    assert await rows(conn, "SELECT version, dirty FROM schema_migrations") == [(9, False)]


# Its own test, database/util_test.go.
@pytest.mark.parametrize(
    ("more", "number"),
    [((), 1764327054), (("schema_name_1",), 2453313553), (("schema_name_2",), 235207038)],
)
def test_golang_migrates_lock_is_the_number_of_its_own_test(
    more: tuple[str, ...], number: int
) -> None:
    assert golang_migrate.lock_number("database_name", *more) == number


async def test_golang_migrate_is_kept_out_however_it_was_connected(conn: Any, other: Any) -> None:
    book = await opened(conn, Tool.GOLANG_MIGRATE)
    database = await conn.fetchval("SELECT current_database()")
    for name in (database, f"/{database}"):
        number = golang_migrate.lock_number(name, "public", "schema_migrations")
        assert await other.fetchval("SELECT pg_try_advisory_lock($1)", number)
        assert not await book.try_lock(conn)
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> $1"
        assert await conn.fetchval(held, other.get_server_pid()) == 0
        await other.fetchval("SELECT pg_advisory_unlock($1)", number)


# Prisma


async def test_prisma_finds_a_finished_row_with_one_step(conn: Any) -> None:
    book = await opened(conn, Tool.PRISMA)
    await record(conn, book, FIRST[Tool.PRISMA])
    (row,) = await conn.fetch("SELECT * FROM _prisma_migrations")
    assert (row["migration_name"], row["checksum"]) == ("20260101_x", "ab" * 32)
    assert (len(row["id"]), row["applied_steps_count"], row["logs"]) == (36, 1, None)
    assert row["rolled_back_at"] is None
    assert row["started_at"] <= row["finished_at"]


async def test_prisma_sees_an_attempt_that_has_not_ended_as_failed(conn: Any) -> None:
    book = await opened(conn, Tool.PRISMA)
    for _ in range(2):
        await book.begin(conn, FIRST[Tool.PRISMA], Direction.UP)
    (entry,) = await book.read(conn) or ()
    assert not entry.is_complete
    # migrate deploy: "finished_at IS NULL AND rolled_back_at IS NULL" is a failed migration.
    assert await rows(conn, "SELECT finished_at, rolled_back_at FROM _prisma_migrations") == [
        (None, None)
    ]
    await record(conn, book, FIRST[Tool.PRISMA])
    assert await conn.fetchval("SELECT count(*) FROM _prisma_migrations") == 1


async def test_what_prisma_has_resolved_as_rolled_back_is_not_applied(conn: Any) -> None:
    book = await opened(conn, Tool.PRISMA)
    await conn.execute(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, rolled_back_at)"
        " VALUES ('1', 'x', '20260101_x', now())"
    )
    assert await book.read(conn) == ()
    await record(conn, book, FIRST[Tool.PRISMA])
    await book.begin(conn, FIRST[Tool.PRISMA], Direction.DOWN)
    assert [entry.is_complete for entry in await book.read(conn) or ()] == [False]
    await book.unrecord(conn, FIRST[Tool.PRISMA])
    assert await book.read(conn) == ()
    # As migrate resolve --rolled-back leaves it: migrate deploy applies it again.
    assert await rows(
        conn, "SELECT finished_at, rolled_back_at IS NOT NULL FROM _prisma_migrations"
    ) == [(None, True), (None, True)]


async def test_prismas_lock_is_its_number(conn: Any, other: Any) -> None:
    await other.execute("SELECT pg_advisory_lock(72707369)")
    assert not await (await opened(conn, Tool.PRISMA)).try_lock(conn)


# Flyway


async def test_flyway_finds_a_row_as_it_would_have_written_it(conn: Any) -> None:
    book = await opened(conn, Tool.FLYWAY)
    await conn.execute(
        "INSERT INTO flyway_schema_history VALUES"
        " (4, '0.9', '<< Flyway Baseline >>', 'BASELINE', '<< Flyway Baseline >>', NULL, 'ana',"
        " now(), 0, true)"
    )
    await record(conn, book, FIRST[Tool.FLYWAY])
    query = """SELECT installed_rank, version, description, type, script, checksum,
                      installed_by = current_user, execution_time, success
                 FROM flyway_schema_history WHERE installed_rank > 4"""
    assert await rows(conn, query) == [
        (5, "1.0", "a table", "SQL", "sub/V1_0__a_table.sql", -1602969721, True, 1500, True)
    ]
    baseline, first = await book.read(conn) or ()
    assert (baseline.version, baseline.is_baseline, baseline.covers_earlier) == ("0.9", True, True)
    assert first == BookEntry(version="1", checksum="-1602969721", name="a table")


async def test_flyway_refuses_to_go_on_while_a_row_says_that_it_failed(conn: Any) -> None:
    book = await opened(conn, Tool.FLYWAY)
    first = FIRST[Tool.FLYWAY]
    for _ in range(2):
        await book.begin(conn, first, Direction.UP)
    assert [entry.is_complete for entry in await book.read(conn) or ()] == [False]
    await record(conn, book, first)
    assert await rows(conn, "SELECT success, execution_time FROM flyway_schema_history") == [
        (True, 1500)
    ]
    await book.begin(conn, first, Direction.DOWN)
    assert [entry.is_complete for entry in await book.read(conn) or ()] == [False]
    await book.unrecord(conn, first)
    assert await book.read(conn) == ()


async def test_a_repeatable_script_has_a_row_of_each_run_and_the_newest_counts(conn: Any) -> None:
    book = await opened(conn, Tool.FLYWAY)
    facts: dict[str, Any] = {"path": Path("/db/R__my_views.sql"), "is_repeatable": True}
    await record(conn, book, made(Tool.FLYWAY, "R__my_views", checksum="1", **facts))
    changed = made(Tool.FLYWAY, "R__my_views", checksum="2", **facts)
    await book.begin(conn, changed, Direction.UP)
    query = "SELECT checksum, success FROM flyway_schema_history ORDER BY installed_rank"
    assert await rows(conn, query) == [(1, True), (2, False)]
    await record(conn, book, changed)
    query = "SELECT version, description, script, checksum, success FROM flyway_schema_history"
    assert await rows(conn, query) == [
        (None, "my views", "R__my_views.sql", 1, True),
        (None, "my views", "R__my_views.sql", 2, True),
    ]
    assert await book.read(conn) == (
        BookEntry(version="R__my_views", checksum="2", name="my views"),
    )


def row(version: str | None, kind: str = "SQL", *, success: bool = True) -> dict[str, Any]:
    return {
        "version": version,
        "description": "d",
        "type": kind,
        "checksum": 7,
        "success": success,
    }


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([row("1"), row("2")], {"1": True, "2": True}),
        ([row("1"), row("2"), row("2", "UNDO_SQL")], {"1": True}),
        ([row("1"), row("1", "UNDO_SQL"), row("1.0")], {"1": True}),
        ([row("1"), row("1", "UNDO_SQL", success=False)], {"1": False}),
        ([row("1"), row("1", "DELETE")], {}),
        ([row("1"), row("2", success=False)], {"1": True, "2": False}),
        ([row(None, "SCHEMA"), row("001_2")], {"1.2": True}),
        ([row("1", "JDBC")], {"1": True}),
    ],
)
def test_what_flyways_history_amounts_to(
    history: list[dict[str, Any]], expected: dict[str, bool]
) -> None:
    assert {e.version: e.is_complete for e in flyway.entries(history)} == expected


# Computed with Java's String.hashCode.
@pytest.mark.parametrize(
    ("schema", "table", "number"),
    [("public", "flyway_schema_history", 77433833903597), ("a\U0001f600", "b", 77430635727981)],
)
def test_flyways_lock_is_the_number_that_java_makes_of_its_table(
    schema: str, table: str, number: int
) -> None:
    assert flyway.lock_number(schema, table) == number


async def test_flyway_is_kept_out_whether_its_lock_is_of_a_session_or_a_transaction(
    conn: Any, other: Any
) -> None:
    book = await opened(conn, Tool.FLYWAY)
    assert await book.try_lock(conn)
    async with other.transaction():
        assert not await other.fetchval("SELECT pg_try_advisory_xact_lock(77433833903597)")
    assert not await other.fetchval("SELECT pg_try_advisory_lock(77433833903597)")


# Plain


async def test_plain_files_are_written_down_in_our_own_schema(conn: Any) -> None:
    book = await opened(conn, Tool.PLAIN)
    await record(conn, book, FIRST[Tool.PLAIN])
    query = "SELECT version, name, sha256, seconds, applied_at <= now() FROM twokey_migrate.applied"
    assert await rows(conn, query) == [("001", "x", "c" * 64, 1.5, True)]
    assert not await conn.fetchval(
        "SELECT has_schema_privilege('public', 'twokey_migrate', 'usage')"
    )
    assert len(hashlib.sha256(b"").hexdigest()) == 64


async def test_a_book_that_is_dropped_meanwhile_is_not_written_to(conn: Any) -> None:
    book = await opened(conn, Tool.DBMATE)
    await conn.execute("DROP TABLE schema_migrations")
    with pytest.raises(PostgresError, match="is gone"):
        await book.record(conn, FIRST[Tool.DBMATE], seconds=1)
