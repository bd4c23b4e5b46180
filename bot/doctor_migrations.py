"""Doctor's look at what migrations need: the folder, the book, and rights in the target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, Final

from approvals.words import ExplainedError
from bot.finding import Finding
from jobs.operation import Database
from jobs.reader import Readers
from jobs.text import count_text
from postgres.errors import PostgresError
from postgres.migrate.books.opening import book_of
from postgres.migrate.folders.reading import find_tool, read_folder
from postgres.migrate.own_schema import SCHEMA
from postgres.migrate.standing import standing

LIMIT: Final = timedelta(seconds=20)  # Alembic's folder is read by a process of its own

RIGHTS: Final = """
    SELECT current_user::text AS us, current_database()::text AS database,
           to_regnamespace($1) IS NOT NULL
                OR has_database_privilege(current_database(), 'CREATE') AS may_create,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
           current_setting('server_version_num')::int / 10000 AS major
"""
HASTEN: Final = "SELECT has_parameter_privilege('deadlock_timeout', 'SET') AS may_hasten"
_GRANTED_SINCE: Final = 15


async def examine_migrations(database: Database, readers: Readers) -> AsyncIterator[Finding]:
    """What keeps pending migrations from being planned and applied; nothing without a folder."""
    if database.migrations.folder is None:
        return
    name = f"migrations of {database.name}"
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            yield await _folder(name, database, readers)
            async for finding in _rights(name, database, readers):
                yield finding
    except (ExplainedError, PostgresError) as error:
        yield Finding(name=name, ok=False, says=error.problem, fix=error.next_step)
    except TimeoutError:
        yield Finding(
            name=name, ok=False, says="They could not be looked at in time.",
            fix="See whether the folder and the database answer.",
        )  # fmt: skip


async def _folder(name: str, database: Database, readers: Readers) -> Finding:
    settings = database.migrations
    path = settings.folder
    if path is None:
        raise TypeError("somebody has looked before")
    tool = settings.tool
    if tool is None:
        tool = await asyncio.to_thread(find_tool, path)
    folder = await read_folder(path, tool=tool, python=settings.python, versions=())
    book = book_of(tool, table=settings.table or folder.table, folder=path)
    async with readers.of(database).session(limit=LIMIT) as session:
        stands = standing(folder, await book.read(session))
    problems = list(stands.problems)
    if problems:
        more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        return Finding(
            name=name, ok=False, says=f"{problems[0]}{more}",
            fix=f"See all of it with /db migrate {database.name} status.",
        )  # fmt: skip
    pending = count_text(len(stands.pending), "migration")
    return Finding(name=name, ok=True, says=f"{folder.tool}, {pending} pending, book {book.table}")


async def _rights(name: str, database: Database, readers: Readers) -> AsyncIterator[Finding]:
    reader = readers.of(database)
    (row,) = await reader.rows(RIGHTS, SCHEMA)
    if not row["may_create"]:
        yield Finding(
            name=name, ok=False, says=f"{row['us']} may make no schema there: {SCHEMA} is needed.",
            fix=f"GRANT CREATE ON DATABASE {row['database']} TO {row['us']};",
        )  # fmt: skip
    if await _may_hasten(row, reader):
        return
    fix = (
        f"GRANT SET ON PARAMETER deadlock_timeout TO {row['us']};"
        if row["major"] >= _GRANTED_SINCE
        else "Before PostgreSQL 15 only a superuser may; it is slower without."
    )
    yield Finding(
        name=name, ok=True,
        says=f"an autovacuum in the way of DDL is waited for longer; {fix}",
    )  # fmt: skip


async def _may_hasten(row: Mapping[str, Any], reader: Any) -> bool:
    if row["is_superuser"] or row["major"] < _GRANTED_SINCE:
        return bool(row["is_superuser"])
    (found,) = await reader.rows(HASTEN)
    return bool(found["may_hasten"])
