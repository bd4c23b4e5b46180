"""A mark in the WAL of a quiet database, and the wait until the archive has it.

A recovery to a moment ends at the first commit after it. Where nothing was written since,
there is none: so we commit something that changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import sqlalchemy as sa

from jobs.backup_settings import ArchiveMethod
from jobs.operation import Database, JobError
from jobs.text import span_text
from postgres.backup.engine import Engine
from postgres.backup.wal_names import lsn_number, number_of, timeline_of
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.restore.target import RecoveryTarget
from store.connect import Store
from store.tables import archives

# Older targets have commits after them, or marks that say that there are none.
RECENT: Final = timedelta(minutes=15)
WAIT_MAX: Final = timedelta(seconds=90)
LOOK_EVERY: Final = timedelta(seconds=0.5)

# It commits a record of its own, and so waits until that is on the disk.
WRITE: Final = """
    SELECT pg_current_xact_id()::text, pg_logical_emit_message(true, 'twokey', 'mark')
"""

STANDS: Final = """
    SELECT pg_current_wal_lsn()::text AS lsn,
           (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS size,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int     AS timeline
"""

# What is archived by whole segments comes the sooner for it, where we may.
SWITCH: Final = """
    SELECT CASE WHEN has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE')
                THEN pg_switch_wal()::text END
"""


def needs_mark(target: RecoveryTarget, method: ArchiveMethod, *, now: datetime) -> bool:
    """Whether a recovery to this target may find nothing after it. Pure."""
    if method is ArchiveMethod.NONE:
        return False
    if target.kind == "latest":
        return True
    return target.at is not None and now - target.at <= RECENT


async def mark_archive(
    store: Store,
    database: Database,
    engine: Engine,
    *,
    say: Callable[[str], Awaitable[None]],
    wait_max: timedelta = WAIT_MAX,
) -> str:
    """Commit something on the server, and wait until the archive has it; where it stands.

    '' when the server cannot be reached: then what was archived is all that there is.

    Raises:
        JobError: the archive did not get it in time.
    """
    try:
        lsn, size, timeline = await _write(database)
    except PostgresError as error:
        await say(f"{error.problem} What was archived before is all that can be recovered.")
        return ""
    await say(f"Waiting until the archive has {lsn}")
    try:
        async with asyncio.timeout(wait_max.total_seconds()):
            while True:
                if await _is_archived(store, database.name, engine, lsn, size, timeline):
                    return lsn
                await asyncio.sleep(LOOK_EVERY.total_seconds())
    except TimeoutError:
        raise JobError(
            f"The archive of {database.name} did not get what was committed at {lsn} within"
            f" {span_text(wait_max)}, so a recovery to that moment would miss something.",
            next_step=f"See what holds it up with /db backups {database.name}, or choose an"
            " earlier moment.",
        ) from None


async def _write(database: Database) -> tuple[str, int, int]:
    """Where the server stands after the mark, the size of its segments, and its timeline.

    Raises:
        PostgresError: it cannot be reached, or takes no writes.
    """
    async with connection(parse_dsn(database.dsn.get_secret_value())) as conn:
        try:
            async with conn.transaction():
                await conn.execute(WRITE)
            row = await conn.fetchrow(STANDS)
            if database.backups.archive.method is not ArchiveMethod.RECEIVE:
                await conn.execute(SWITCH)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise PostgresError(
                f"No mark could be written into {database.name}: {error}.",
                next_step="See whether it is a standby, or out of space.",
            ) from error
    return str(row["lsn"]), int(row["size"]), int(row["timeline"])


async def _is_archived(
    store: Store, name: str, engine: Engine, lsn: str, size: int, timeline: int
) -> bool:
    """Whether the receiver has said so, or a whole segment with it is kept."""
    async with store.begin() as conn:
        query = sa.select(archives.c.received_lsn).where(
            archives.c.database == name, archives.c.timeline == timeline
        )
        received = (await conn.execute(query)).scalar_one_or_none()
    wanted = lsn_number(lsn)
    if received is not None and lsn_number(received) >= wanted:
        return True
    archive = await engine.archive()
    return any(
        timeline_of(segment.name) == timeline
        and (number_of(segment.name, size) + 1) * size > wanted
        for segment in archive.segments
        if not segment.is_partial
    )
