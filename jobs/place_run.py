"""One exchange of a server as a step of a run: to its end, or back, but never left in between."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from jobs.backup_settings import ArchiveMethod
from jobs.engines import engine_of
from jobs.operation import Database, Job, JobError
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.restore.exchange import Stage, look
from postgres.restore.place import IsArchived, Replaced, Replacement, replace_server, way_out
from postgres.restore.ways import Ways, read_ways

log: Final = logging.getLogger("twokey.jobs")

REPLACE_LIMIT: Final = timedelta(hours=1)
ALONE_SECONDS_MAX: Final = 30.0

# What the server's own archiver has seen to. One value.
ARCHIVED: Final = "SELECT coalesce(last_archived_wal >= $1, false) FROM pg_stat_archiver"


class Exchanged(BaseModel):
    """What an exchange brought, as a step's result. `down_seconds` None: unknown after a crash.

    `left_xid` is the next transaction of the server that left, as it was stopped; `new_xid` of
    the one that runs now, at its start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    left_xid: int
    left_timeline: int
    new_xid: int
    new_timeline: int
    down_seconds: float | None


# Enters into the store what was exchanged; may be called more than once.
Enter = Callable[[Exchanged | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange to make for a database, and how it is entered into the store."""

    order: Replacement
    enter: Enter


async def exchange(job: Job, given: Exchange) -> Exchanged:
    """Make the exchange, or go on with one that a dead worker began.

    Told to stop before the folders are exchanged, it goes back; after that it goes on to the
    end, as half of it is the worst of all.

    Raises:
        JobError: it failed; the text says what stands where. A server runs, if one could be
            brought to run at all.
    """
    work = asyncio.ensure_future(_replace(job, given))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if _stage(given.order.ways) in (Stage.BEFORE, None):
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is None:
                return work.result()
            await _go_back(given)
            raise
        return await work


async def _replace(job: Job, given: Exchange) -> Exchanged:
    try:
        replaced = await replace_server(given.order, on_step=job.report)
        found = _exchanged(job, replaced)
        await given.enter(found)
    except PostgresError as error:
        said = await _go_back(given)
        raise JobError(f"{error.problem} {said}", next_step=error.next_step) from error
    return found


async def _go_back(given: Exchange) -> str:
    """What stands where after a failure, with a server that runs."""
    try:
        said = await asyncio.shield(way_out(given.order))
    except PostgresError as error:
        log.exception("No way out of an exchange at %s", given.order.ways.data)
        said = f"{error.problem} {error.next_step}"
    if _stage(given.order.ways) is Stage.AFTER:
        await given.enter(None)
    return said


def is_archived(database: Database) -> IsArchived | None:
    """Whether a WAL file of the database has reached its archive; None where none is kept."""
    match database.backups.archive.method:
        case ArchiveMethod.NONE:
            return None
        case ArchiveMethod.RECEIVE | ArchiveMethod.COMMAND:
            engine = engine_of(database)

            async def kept(name: str) -> bool:
                archive = await engine.archive()
                return any(s.name == name and not s.is_partial for s in archive.segments)

            return kept
        case ArchiveMethod.ENGINE:
            target = parse_dsn(database.dsn.get_secret_value())

            async def archived(name: str) -> bool:
                async with connection(target) as conn:
                    return bool(await conn.fetchval(ARCHIVED, name))

            return archived


def remove_copy(ways: Ways) -> None:
    """Remove a copy that did not come into the place, also a half one."""
    if ways.coming.exists():  # from here on nobody takes it for a whole one
        ways.work.mkdir(exist_ok=True)
        with suppress(OSError):
            ways.coming.rename(ways.work / f"gone-{os.getpid()}")
    shutil.rmtree(ways.coming, ignore_errors=True)
    shutil.rmtree(ways.work, ignore_errors=True)


def _stage(ways: Ways) -> Stage | None:
    note = read_ways(ways)
    return None if note is None else look(note.exchange)


def _exchanged(job: Job, replaced: Replaced) -> Exchanged:
    return Exchanged(
        at=job.now,
        left_xid=replaced.left.next_xid,
        left_timeline=replaced.left.timeline,
        new_xid=replaced.answered.next_xid,
        new_timeline=replaced.answered.timeline,
        down_seconds=replaced.down_seconds,
    )
