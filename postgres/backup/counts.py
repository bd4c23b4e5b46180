"""Row counts on both sides of a backup, to compare a restored copy with.

The copy holds what was committed at the backup's end. A snapshot from before and one from
after enclose that moment. If no transaction that writes began in between, which the
snapshots themselves prove, the second count is the first and costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from postgres.backup.facts import TableCount
from postgres.connect import connection
from postgres.dsn import Target
from postgres.together import together

NOT_IN_TIME: Final = "not counted: the time for counting was up"
_COUNTING_AT_ONCE_MAX: Final = 2

DATABASES: Final = """
    SELECT datname
      FROM pg_database
     WHERE datallowconn
       AND NOT datistemplate
       AND has_database_privilege(oid, 'CONNECT')
  ORDER BY datname
"""

# Without unlogged and temporary tables: a restored copy has them empty, or not at all.
# Partitioned tables hold no rows; their partitions are tables of their own here.
TABLES: Final = """
    SELECT format('%I.%I', n.nspname, c.relname)    AS name,
           pg_relation_filenode(c.oid)::bigint      AS file,
           coalesce(pg_stat_get_tuples_inserted(c.oid), 0) AS inserted,
           coalesce(pg_stat_get_tuples_deleted(c.oid), 0)  AS deleted
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm')
       AND c.relpersistence = 'p'
       AND c.relispopulated
       AND n.nspname <> 'information_schema'
       AND n.nspname !~ '^pg_'
  ORDER BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table in one snapshot; `rows` is None when it was not counted, `note` says why."""

    name: str
    rows: int | None
    file: int
    inserted: int
    deleted: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One database in one snapshot."""

    database: str
    snapshot: str
    tables: Mapping[str, Table]


async def databases(target: Target) -> tuple[str, ...]:
    """The databases that we may look into, without templates."""
    async with connection(target) as conn:
        return tuple(row["datname"] for row in await conn.fetch(DATABASES))


async def count_all(
    target: Target,
    names: Sequence[str],
    *,
    seconds_max: float,
    began: asyncio.Event | None = None,
    start: Callable[[], Awaitable[None]] | None = None,
) -> tuple[Side, ...]:
    """Exact counts of all tables, each database in one snapshot.

    All snapshots are taken before the first table is counted, and then `began` is set; counting
    waits for `start` to end. Tables that are not counted `seconds_max` later are noted as such.
    """
    async with together() as group:
        gates = [asyncio.Event() for _ in names]
        opened, turns = asyncio.Event(), asyncio.Semaphore(_COUNTING_AT_ONCE_MAX)
        tasks = [
            group.create_task(_side(target, name, seconds_max, gate, opened, turns))
            for name, gate in zip(names, gates, strict=True)
        ]
        await asyncio.gather(*(gate.wait() for gate in gates))
        if began:
            began.set()
        if start:
            await start()
        opened.set()
    return tuple(task.result() for task in tasks)


async def count_in(conn: Any, database: str, *, seconds_max: float) -> Side:
    """Exact counts of a database's tables in the transaction that is open on `conn`."""
    deadline = time.monotonic() + seconds_max
    moment = str(await conn.fetchval("SELECT pg_current_snapshot()::text"))
    tables = {row["name"]: await _count(conn, row, deadline) for row in await conn.fetch(TABLES)}
    return Side(database=database, snapshot=moment, tables=tables)


def compare(before: Sequence[Side], after: Sequence[Side]) -> tuple[TableCount, ...]:
    """What both sides say about each table."""
    found: list[TableCount] = []
    later = {side.database: side for side in after}
    for side in before:
        other = later.get(side.database)
        names = sorted({*side.tables, *(other.tables if other else ())})
        found.extend(
            _both(side.database, side.tables.get(name), other.tables.get(name) if other else None)
            for name in names
        )
    return tuple(found)


def is_quiet(before: Sequence[Side], now: Sequence[str]) -> bool:
    """Whether nothing can have been written since: no transaction was open, none has begun.

    A snapshot reads `xmin:xmax:open ones`, and the numbers count for all databases.
    """
    snapshots = {side.snapshot for side in before} | set(now)
    lowest, highest, running = next(iter(snapshots)).split(":")
    return len(snapshots) == 1 and lowest == highest and not running


async def snapshot(target: Target) -> str:
    """The server's snapshot at this moment."""
    async with connection(target) as conn:
        return str(await conn.fetchval("SELECT pg_current_snapshot()::text"))


def _both(database: str, before: Table | None, after: Table | None) -> TableCount:
    known = after or before
    if known is None:  # a name comes from one of the two
        raise AssertionError(database)
    one, two = before or known, after or known
    return TableCount(
        database=database,
        table=known.name,
        before=before.rows if before else None,
        after=after.rows if after else None,
        inserted=max(two.inserted - one.inserted, 0),
        deleted=max(two.deleted - one.deleted, 0),
        rewritten=one.file != two.file or before is None or after is None,
        note=one.note or two.note,
    )


async def _side(
    target: Target,
    database: str,
    seconds_max: float,
    ready: asyncio.Event,
    go: asyncio.Event,
    turns: asyncio.Semaphore,
) -> Side:
    try:
        async with (
            connection(target, database) as conn,
            conn.transaction(isolation="repeatable_read", readonly=True),
        ):
            await conn.execute("SET idle_in_transaction_session_timeout = 0")
            moment = str(await conn.fetchval("SELECT pg_current_snapshot()::text"))
            rows = await conn.fetch(TABLES)
            ready.set()
            await go.wait()
            deadline = time.monotonic() + seconds_max
            async with turns:
                tables = {row["name"]: await _count(conn, row, deadline) for row in rows}
    finally:
        ready.set()  # a failure must not keep the others waiting
    return Side(database=database, snapshot=moment, tables=tables)


async def _count(conn: Any, row: Mapping[str, Any], deadline: float) -> Table:
    left = deadline - time.monotonic()
    rows, note = None, NOT_IN_TIME
    if left > 0:
        try:
            async with conn.transaction():  # a savepoint: a refused table spoils only itself
                # The name was quoted by the server.
                rows = await conn.fetchval(f"SELECT count(*) FROM {row['name']}", timeout=left)  # noqa: S608
                note = ""
        except TimeoutError:
            note = NOT_IN_TIME
        except asyncpg.InsufficientPrivilegeError:
            note = "not counted: this user may not read it"
        except asyncpg.PostgresError as error:
            note = f"not counted: {error}"
    return Table(
        name=row["name"],
        rows=rows,
        file=row["file"] or 0,
        inserted=row["inserted"],
        deleted=row["deleted"],
        note=note,
    )
