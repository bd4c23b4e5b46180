"""Count rows on both sides of whatever takes a backup; see `postgres.backup.counts`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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

    The first snapshots exist before `take` begins; the tables are counted beside it. What
    keeps us from counting keeps nobody from a backup.
    """
    began = asyncio.Event()
    async with together() as group:
        counting = group.create_task(_count(target, limit, began))
        await began.wait()
        result = await take()
    before = counting.result()
    if before.problem or not before.sides:
        return Counted(result=result, problem=before.problem)
    try:
        if is_quiet(before.sides, [await snapshot(target)]):
            return Counted(result=result, tables=compare(before.sides, before.sides))
    except (PostgresError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Counted(result=result, problem=f"Rows were not counted: {error}")
    # Busy sessions hand in their statistics once a second; `TableCount.bounds` needs them.
    await asyncio.sleep(_STATISTICS_SECONDS)
    after = await _count(target, limit, asyncio.Event())
    tables = () if after.problem else compare(before.sides, after.sides)
    return Counted(result=result, tables=tables, problem=after.problem)


async def _count(target: Target, limit: timedelta, began: asyncio.Event) -> _Sides:
    try:
        names = await databases(target)
        seconds = limit.total_seconds()
        return _Sides(await count_all(target, names, seconds_max=seconds, began=began))
    except (
        PostgresError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError
    ) as error:  # fmt: skip
        return _Sides(problem=f"Rows were not counted: {error}")
    finally:
        began.set()
