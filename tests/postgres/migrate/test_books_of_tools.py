"""Each tool's own table: what we write it reads, what it wrote we read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postgres.errors import PostgresError
from postgres.migrate.books import flyway, golang_migrate
from postgres.migrate.words import BookEntry, Direction, Tool
from tests.postgres.migrate.bookkeeping import FIRST, made, opened, record, rows

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


async def test_a_book_that_is_dropped_meanwhile_is_not_written_to(conn: Any) -> None:
    book = await opened(conn, Tool.DBMATE)
    await conn.execute("DROP TABLE schema_migrations")
    with pytest.raises(PostgresError, match="is gone"):
        await book.record(conn, FIRST[Tool.DBMATE], seconds=1)
