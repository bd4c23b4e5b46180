"""What creating, dropping and judging indexes share: room, old transactions, replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from jobs.health_settings import Node
from jobs.operation import Context, Database, Job, JobError
from jobs.reader import LiveReader
from jobs.text import span_text
from postgres.errors import PostgresError
from postgres.health.index_build import BuildLimits, Tell
from postgres.health.indexes import Counted, read_scans
from store.samples import nodes_of

LIMITS: Final = BuildLimits()
RUN_LIMIT: Final = LIMITS.whole + timedelta(minutes=30)
REPLICA_LIMIT: Final = timedelta(seconds=3)
# A transaction that is younger is gone before anybody could look.
OLD_SECONDS: Final = 5.0

# All of the database, as their snapshots are waited for whatever tables they read. Prepared
# transactions have no session; they may stay for ever.
OLD_TRANSACTIONS: Final = """
    SELECT 'process ' || a.pid AS who, coalesce(nullif(left(a.application_name, 40), ''), 'no name')
           AS name, a.usename AS role, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.backend_type = 'client backend'
       AND a.xact_start < clock_timestamp() - make_interval(secs => $1)
     UNION ALL
    SELECT 'prepared transaction', left(p.gid, 40), p.owner, 'prepared',
           extract(epoch FROM clock_timestamp() - p.prepared)::float8
      FROM pg_prepared_xacts p
     WHERE p.database = current_database()
     ORDER BY seconds DESC
     LIMIT 5
"""

# PostgreSQL does not keep when an index was made; our own runs do.
MADE: Final = sa.text("""
    SELECT outcome #>> '{answer,numbers,index}' AS index
      FROM runs
     WHERE database = :database AND operation = 'create-index' AND state = 'done'
       AND ended_at >= :since
""")


@contextmanager
def explained() -> Iterator[None]:
    """Errors of PostgreSQL's side as those of an operation."""
    try:
        yield
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error


async def made_since(context: Context, since: datetime) -> frozenset[str]:
    """The indexes, with their schema, that requests have created since."""
    async with context.store.begin() as conn:
        found = await conn.execute(MADE, {"database": context.database.name, "since": since})
        return frozenset(row.index for row in found if row.index)


async def free_bytes(context: Context) -> int | None:
    """How much room the primary's volume had when it was last looked at; None: not known."""
    async with context.store.begin() as conn:
        rows = await nodes_of(conn, [context.database.name])
    of_primary = [row for row in rows if row.detail.get("role") == "primary"]
    for row in of_primary:
        volume = row.detail.get("volume")
        if isinstance(volume, dict) and isinstance(volume.get("free"), int | float):
            return int(volume["free"])
    return None


async def old_transactions(context: Context) -> list[str]:
    """The transactions that have to end first, the oldest first, in words."""
    rows = await context.reader.rows(OLD_TRANSACTIONS, OLD_SECONDS)
    return [
        f"{row['who']} ({row['name']}, {row['role']}, {row['state']}), at work since"
        f" {span_text(timedelta(seconds=row['seconds']))}"
        for row in rows
    ]


async def replica_scans(context: Context, oids: Sequence[int]) -> tuple[list[Counted], list[str]]:
    """How often each replica has used these indexes, and which could not be asked."""

    async def ask(node: Node) -> Counted | None:
        try:
            async with reading(context.database, node) as session:
                return await read_scans(session, node.name, oids)
        except JobError:
            return None

    nodes = context.database.replicas
    answers = await asyncio.gather(*(ask(node) for node in nodes))
    silent = [node.name for node, found in zip(nodes, answers, strict=True) if found is None]
    return [found for found in answers if found is not None], silent


@asynccontextmanager
async def reading(database: Database, node: Node) -> AsyncIterator[Any]:
    """A session on a replica.

    Raises:
        JobError: it cannot be reached, or does not answer in time.
    """
    there = replace(database, name=node.name, dsn=node.dsn)
    reader = LiveReader(there, statement_timeout=REPLICA_LIMIT)
    try:
        async with reader.session(limit=REPLICA_LIMIT) as session:
            yield session
    finally:
        await reader.close()


def telling(job: Job) -> Tell:
    """Progress of a build goes to the run's own."""

    async def tell(text: str, fraction: float | None) -> None:
        await job.report(text, fraction=fraction)

    return tell
