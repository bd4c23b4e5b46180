"""Count rows on both sides of whatever takes a backup; see `postgres.backup.counts`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

import asyncpg

from postgres.backup.counts import Side, compare, count_all, databases, is_quiet, snapshot
from postgres.backup.facts import TableCount
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.together import together

_STATISTICS_SECONDS: Final = 1.1
_WAIT_SECONDS: Final = 60.0
_UNCOUNTED: Final = (
    PostgresError,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(Generic[_Result]):
    """What was done, and the rows before and after; `problem` says why there are none."""

    result: _Result
    tables: tuple[TableCount, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Sides:
    sides: tuple[Side, ...] = ()
    problem: str = ""


async def count_around(
    target: Target, take: Callable[[], Awaitable[_Result]], *, limit: timedelta
) -> Counted[_Result]:
    """Take a backup, with row counts of a snapshot before and of one after its end.

    The first snapshots exist before `take` begins. Their tables are counted when it has ended,
    so that a short backup has the processors to itself, or beside it after a minute, so that a
    long one does not keep the server from cleaning up. What keeps us from counting keeps nobody
    from a backup.
    """
    began, taken = asyncio.Event(), asyncio.Event()
    async with together() as group:
        counting = group.create_task(_count(target, limit, began, taken))
        await began.wait()
        result = await take()
        # Before anything is counted: what is written from here on was not copied.
        end, problem = await _moment(target)
        taken.set()
    before = counting.result()
    if before.problem or not before.sides:
        return Counted(result=result, problem=before.problem)
    if problem:
        return Counted(result=result, problem=problem)
    if is_quiet(before.sides, [end]):
        return Counted(result=result, tables=compare(before.sides, before.sides))
    # Busy sessions hand in their statistics once a second; `TableCount.bounds` needs them.
    await asyncio.sleep(_STATISTICS_SECONDS)
    after = await _count(target, limit, asyncio.Event(), taken)
    tables = () if after.problem else compare(before.sides, after.sides)
    return Counted(result=result, tables=tables, problem=after.problem)


async def _moment(target: Target) -> tuple[str, str]:
    """The server's snapshot, or why there is none."""
    try:
        return await snapshot(target), ""
    except _UNCOUNTED as error:
        return "", f"Rows were not counted: {error}"


async def _count(
    target: Target, limit: timedelta, began: asyncio.Event, taken: asyncio.Event
) -> _Sides:
    async def start() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                await taken.wait()

    try:
        names = await databases(target)
        seconds = limit.total_seconds()
        return _Sides(await count_all(target, names, seconds_max=seconds, began=began, start=start))
    except _UNCOUNTED as error:
        return _Sides(problem=f"Rows were not counted: {error}")
    finally:
        began.set()
