"""What a database's sizes say of the months to come: when it is full, what grows, what to do.

Reads the store alone. The words are in `jobs.capacity_words`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.forecast import HISTORY_LEAST, Forecast, TooShort, forecast
from jobs.operation import Database
from store.sizes import (
    DATABASE,
    VOLUME,
    VOLUME_TOTAL,
    WAL,
    DaySize,
    TableSize,
    size_history,
    tables_on,
)

HISTORY: Final = timedelta(days=90)
STALE_AFTER: Final = timedelta(days=3)
_CHECK_DAYS: Final = 30
# A table that was too small to be measured then counts as new; the first look that is near.
_TABLES_BEFORE: Final = tuple(timedelta(days=days) for days in (30, 14, 7, 2))
_GROWING_MAX: Final = 10

History = Sequence[tuple[date, int]]


class Scope(StrEnum):
    """What is forecast."""

    VOLUME = "volume"  # all that is used of the volume
    DATABASE_ON_VOLUME = "database on volume"  # the databases and their WAL, on a volume
    DATABASE = "database"  # the databases alone: nobody knows how much room there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """A table, and what it has grown by since `since`. `share`: of all growth, where there is any.

    `is_new`: it was not among the largest then.
    """

    name: str
    bytes: int
    grown: int
    since: date
    is_new: bool
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What would have been said `days` ago for the last day, and what came. Bytes."""

    days: int
    low: float
    mid: float
    high: float
    actual: float

    @property
    def error(self) -> float:
        """How far off it was, as a share."""
        return abs(self.mid - self.actual) / self.actual if self.actual else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityReport:
    """What is known of a database's capacity. `total`: bytes of the volume, where known."""

    database: str
    scope: Scope
    total: int | None
    history: History
    forecast: Forecast
    growing: tuple[Growing, ...]
    check: Check | None

    @property
    def days_until_full(self) -> int | None:
        """In how many days at the soonest (P10), or None: not within what is looked at."""
        return self.forecast.full.p10 if self.forecast.full is not None else None

    @property
    def usage(self) -> float | None:
        """The share of the volume that is taken."""
        return self.forecast.size / self.total if self.total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is no forecast, and what to do. `from_day`: when there may be one."""

    problem: str
    next_step: str
    from_day: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """What the store has of one database."""

    database: Mapping[date, int]
    wal: Mapping[date, int]
    volume: Mapping[date, int]
    total: int | None


async def forecast_of(
    conn: AsyncConnection, database: Database, now: datetime
) -> CapacityReport | Refusal:
    """The capacity of a database as the store knows it, or why there is nothing to say."""
    today = now.astimezone(UTC).date()
    sizes = await _sizes(conn, database, today - HISTORY)
    scope, history = _scoped(sizes)
    if refusal := _refusal(database.name, history, today):
        return refusal
    # Some hundredths of a second of arithmetic: not on the event loop.
    told, check = await asyncio.to_thread(_told, history, sizes.total)
    if isinstance(told, TooShort):
        return too_short(database.name, told)
    return CapacityReport(
        database=database.name,
        scope=scope,
        total=sizes.total,
        history=history,
        forecast=told,
        growing=await _growing(conn, database.name, sizes.database),
        check=check,
    )


def too_short(name: str, told: TooShort) -> Refusal:
    """Why there is no forecast yet."""
    has = "no day" if told.measured_days == 0 else f"{told.measured_days} days"
    day = "1 day" if told.measured_days == 1 else has
    when = f" From {told.from_day:%d %b %Y} on there is one." if told.from_day else ""
    return Refusal(
        problem=f"The size of {name} was measured on {day}, and a forecast needs {HISTORY_LEAST}.",
        next_step=f"Leave monitoring on: one size a day is kept.{when}",
        from_day=told.from_day,
    )


async def _sizes(conn: AsyncConnection, database: Database, since: date) -> _Sizes:
    found = {
        what: _by_day(await size_history(conn, database.name, what, since=since))
        for what in (DATABASE, WAL, VOLUME, VOLUME_TOTAL)
    }
    totals = found[VOLUME_TOTAL]
    bought = database.monitoring.volume.total_bytes
    return _Sizes(
        database=found[DATABASE],
        wal=found[WAL],
        volume=found[VOLUME],
        total=totals[max(totals)] if totals else bought,
    )


def _by_day(history: Sequence[DaySize]) -> Mapping[date, int]:
    return {size.day: size.bytes for size in history}


def _scoped(sizes: _Sizes) -> tuple[Scope, History]:
    """What can be forecast: the volume, as everything on it counts, or the databases."""
    if sizes.total is None:
        return Scope.DATABASE, sorted(sizes.database.items())
    if len(sizes.volume) >= min(HISTORY_LEAST, len(sizes.database)):
        return Scope.VOLUME, sorted(sizes.volume.items())
    both = sizes.database.keys() & sizes.wal.keys()
    if len(both) >= HISTORY_LEAST:
        summed = [(day, sizes.database[day] + sizes.wal[day]) for day in sorted(both)]
        return Scope.DATABASE_ON_VOLUME, summed
    return Scope.DATABASE_ON_VOLUME, sorted(sizes.database.items())


def _refusal(name: str, history: History, today: date) -> Refusal | None:
    if history and today - history[-1][0] > STALE_AFTER:
        return Refusal(
            problem=f"The size of {name} was last measured on {history[-1][0]:%d %b %Y}.",
            next_step=f"See why monitoring does not reach it: /db health {name}",
        )
    return None


def _told(history: History, total: int | None) -> tuple[Forecast | TooShort, Check | None]:
    return forecast(history, capacity=total), _checked(history)


def _checked(history: History) -> Check | None:
    """The forecast of 30 days ago, held against today."""
    if not history:
        return None
    last_day, actual = history[-1]
    before = [(day, size) for day, size in history if day <= last_day - timedelta(_CHECK_DAYS)]
    told = forecast(before)
    if not isinstance(told, Forecast):
        return None
    ahead = (last_day - told.last).days
    if ahead > len(told.mid):
        return None
    low, mid, high = (each[ahead - 1] for each in (told.low, told.mid, told.high))
    return Check(days=ahead, low=low, mid=mid, high=high, actual=float(actual))


async def _growing(
    conn: AsyncConnection, name: str, sizes: Mapping[date, int]
) -> tuple[Growing, ...]:
    """The tables that grew most since a month ago, or since the first day that is known."""
    if not sizes:
        return ()
    now = await tables_on(conn, name, max(sizes))
    for span in _TABLES_BEFORE:
        before = await tables_on(conn, name, max(sizes) - span)
        if before and now:
            return _growth(before, now, sizes)
    return ()


def _growth(
    before: Sequence[TableSize], now: Sequence[TableSize], sizes: Mapping[date, int]
) -> tuple[Growing, ...]:
    known = {table.name: table.bytes for table in before}
    since = before[0].day
    grown = {table.name: table.bytes - known.get(table.name, 0) for table in now}
    total = _grown_by(sizes, since, now[0].day) or sum(one for one in grown.values() if one > 0)
    found = [
        Growing(
            name=table.name,
            bytes=table.bytes,
            grown=grown[table.name],
            since=since,
            is_new=table.name not in known,
            share=min(grown[table.name] / total, 1.0) if total > 0 else None,
        )
        for table in now
        if grown[table.name] > 0
    ]
    return tuple(sorted(found, key=lambda one: (-one.grown, one.name))[:_GROWING_MAX])


def _grown_by(sizes: Mapping[date, int], since: date, until: date) -> int:
    """How much all databases grew in that time; 0 when nobody knows."""
    if since not in sizes or until not in sizes:
        return 0
    return max(sizes[until] - sizes[since], 0)
