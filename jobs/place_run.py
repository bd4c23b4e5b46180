"""One exchange of a server as a step of a run: to its end, or back, but never left in between."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, assert_never

from pydantic import BaseModel, ConfigDict

from jobs.backup_settings import ArchiveMethod
from jobs.engines import engine_of
from jobs.operation import Database, Job, JobError
from jobs.steps import AttentionError
from postgres.errors import PostgresError
from postgres.restore.exchange import Stage, look
from postgres.restore.place import (
    IsArchived,
    Replaced,
    Replacement,
    alone,
    replace_server,
    way_out,
)
from postgres.restore.ways import Ways, read_ways

log: Final = logging.getLogger("twokey.jobs")

REPLACE_LIMIT: Final = timedelta(hours=1)
ALONE_SECONDS_MAX: Final = 30.0


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


@asynccontextmanager
async def alone_at(data: Path) -> AsyncIterator[None]:
    """Only us at this data folder, within the block.

    Raises:
        AttentionError: another process is at it, maybe one that is only paused: a person must
            look, as it may have closed or stopped the server.
        JobError: what is raised within, in the words of operations.
    """
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(alone(data, ALONE_SECONDS_MAX))
        except PostgresError as error:
            raise AttentionError(error.problem, next_step=error.next_step) from error
        try:
            yield
        except PostgresError as error:
            raise JobError(error.problem, next_step=error.next_step) from error


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
        if not has_begun(given.order.ways):
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is None:
                return work.result()
            await _go_back(given)
            raise
        return await asyncio.shield(work)


async def _replace(job: Job, given: Exchange) -> Exchanged:
    try:
        replaced = await replace_server(given.order, on_step=job.report)
        found = _exchanged(job, replaced)
        await given.enter(found)
    except PostgresError as error:
        said = await _go_back(given)
        kind = AttentionError if _stage(given.order.ways) is Stage.UNCLEAR else JobError
        raise kind(f"{error.problem} {said}", next_step=error.next_step) from error
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


def is_archived(database: Database, data: Path) -> IsArchived | None:
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
            # By the server's own marks: nobody can connect to it any more.
            async def archived(name: str) -> bool:
                wal = data / "pg_wal"
                if (wal / "archive_status" / f"{name}.ready").exists():
                    return False
                done = (wal / "archive_status" / f"{name}.done").exists()
                return done or not (wal / name).exists()

            return archived
        case _ as never:
            assert_never(never)


def has_begun(ways: Ways) -> bool:
    """Whether the exchange is past the point from which it only goes on."""
    return _stage(ways) not in (Stage.BEFORE, None)


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
        new_xid=replaced.began_xid,
        new_timeline=replaced.answered.timeline,
        down_seconds=replaced.down_seconds,
    )
