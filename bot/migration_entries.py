"""How the inventory says that a database's schema is changed: `migrations:` of a database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from bot.entry_values import Size, Span, Strict, Text
from jobs.migration_settings import BackfillSettings, MigrationSettings
from postgres.migrate.words import Tool

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "migrations": "migrations: {folder: ../shop/migrations, before: [orders-staging]}",
        "folder": "folder: ../shop/migrations",
        "tool": f"tool: {Tool.DBMATE}   (or {', '.join(t for t in Tool if t is not Tool.DBMATE)})",
        "before": "before: [orders-dev, orders-staging]",
        "lock_timeout": "lock_timeout: 200ms",
        "backfill": "backfill: {rows: 10000, batch: 50ms, ranges: 2, lag: 5s, time_limit: 1h}",
    }
)
_MILLISECONDS: Final = "ms"


def _short_span(value: Any) -> Any:
    """`200ms` besides the usual spans."""
    text = value.strip() if isinstance(value, str) else ""
    digits = text.removesuffix(_MILLISECONDS).strip()
    if text.endswith(_MILLISECONDS) and digits.isascii() and digits.isdecimal():
        return timedelta(milliseconds=int(digits[:9]))
    return value


# The outer validator sees the text first.
_ShortSpan = Annotated[Span, BeforeValidator(_short_span)]
_Table = Annotated[str, StringConstraints(pattern=r"^(?:[^.\s]{1,63}\.)?[^.\s]{1,63}$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class _Backfill(Strict):
    rows: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    batch: Annotated[_ShortSpan, Field(ge=timedelta(milliseconds=5), le=timedelta(seconds=10))] = (
        timedelta(milliseconds=50)
    )
    ranges: Annotated[int, Field(ge=1, le=32)] = 2
    lag: _ShortSpan = timedelta(seconds=5)
    lag_bytes: Size = 64 * 2**20
    wal: Size | None = None  # bytes a second
    dead: Annotated[float, Field(ge=0, le=100)] = 0.5
    slower: Annotated[float, Field(ge=0, le=1000)] = 2.0
    waiters: Annotated[int, Field(ge=0, le=10_000)] = 5
    unwatched: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    time_limit: Annotated[Span, Field(le=timedelta(days=7))] = timedelta(hours=1)
    keep_max: Size = 10 * 2**30


class MigrationsEntry(Strict):
    """`migrations:` of one database. What it leaves out is usual."""

    folder: Path | None = None
    tool: Tool | None = None
    table: _Table | None = None
    python: Path | None = None
    changes: Path | None = None
    before: Annotated[tuple[_Name, ...], Field(max_length=20)] = ()
    backup_age: Span = timedelta(hours=24)
    rehearsal_age: Span = timedelta(days=7)
    lock_timeout: Annotated[
        _ShortSpan, Field(ge=timedelta(milliseconds=10), le=timedelta(minutes=1))
    ] = timedelta(milliseconds=200)
    lock_tries: Annotated[int, Field(ge=1, le=1000)] = 30
    slower: Annotated[float, Field(ge=1, le=100)] = 3.0
    watch: Annotated[Span, Field(le=timedelta(days=1))] = timedelta(minutes=15)
    keep_aside: Annotated[Span, Field(le=timedelta(days=366))] | Literal[False] = timedelta(days=7)
    backfill: _Backfill = _Backfill()


def migrations_of(entry: MigrationsEntry | None, *, folder: Path) -> MigrationSettings:
    """What an entry says. `folder`: relative paths count from here."""
    if entry is None:
        return MigrationSettings()
    given = entry.backfill
    return MigrationSettings(
        folder=_at(entry.folder, folder),
        tool=entry.tool,
        table=entry.table or "",
        python=_at(entry.python, folder),
        changes=_at(entry.changes, folder),
        before=entry.before,
        backup_age=entry.backup_age,
        rehearsal_age=entry.rehearsal_age,
        lock_timeout=entry.lock_timeout,
        lock_tries=entry.lock_tries,
        slower_max=entry.slower,
        watch=entry.watch,
        keep_aside=entry.keep_aside or timedelta(0),
        backfill=BackfillSettings(
            rows=given.rows,
            batch=given.batch,
            ranges=given.ranges,
            lag_max=given.lag,
            lag_bytes_max=given.lag_bytes,
            wal_max=given.wal or 0,
            dead_max=given.dead,
            slower_max=given.slower,
            waiters_max=given.waiters,
            unwatched=given.unwatched,
            retries=given.retries,
            time_limit=given.time_limit,
            keep_max=given.keep_max,
        ),
    )


def _at(path: Path | None, folder: Path) -> Path | None:
    return folder / path.expanduser() if path else None
