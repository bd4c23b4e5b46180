"""How each database stands with its backups, as the store knows it: for alerts and readiness.

A few statements, whatever the number of databases; each with a bound per database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.backup_settings import BackupTier
from jobs.firings import Standing, standing
from jobs.operation import Database
from jobs.retention import BY_HAND
from jobs.timetable import timetable

# Daily, weekly and monthly ones of a year are some 55.
BACKUPS_MAX: Final = 500
_NAMES: Final = ARRAY(sa.Text())

BACKUPS: Final = sa.text("""
    SELECT b.*, v.at AS verified_at, v.ok AS verified_ok, v.target, v.restore_seconds
      FROM unnest(:names) AS n(name)
     CROSS JOIN LATERAL (
           SELECT database, id, kind, state, tiers, started_at, ended_at, data_bytes,
                  hold IS NOT NULL AS held
             FROM backups
            WHERE database = n.name
              AND state IN ('complete', 'damaged', 'lost')
            ORDER BY started_at DESC
            LIMIT :backups_max) AS b
      LEFT JOIN LATERAL (
           SELECT at, ok, target, restore_seconds
             FROM verifications
            WHERE backup_id = b.id
              AND at <= :now
            ORDER BY at DESC
            LIMIT 1) AS v ON true
     ORDER BY b.database, b.started_at DESC
""").bindparams(
    sa.bindparam("names", type_=_NAMES), sa.bindparam("now", type_=TIMESTAMP(timezone=True))
)

ARCHIVES: Final = sa.text("""
    SELECT database, at, state, last_segment, lag_bytes, slot_state, slot_bytes, gaps, problem,
           next_step
      FROM archives
     WHERE database = ANY(:names)
""").bindparams(sa.bindparam("names", type_=_NAMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A backup in one line, with what its last verification found; `verified_at` None: never."""

    id: str
    kind: str
    state: str
    tiers: tuple[str, ...]
    started_at: datetime
    ended_at: datetime
    data_bytes: int
    held: bool = False
    verified_at: datetime | None = None
    verified_ok: bool | None = None
    target: str = ""
    restore_seconds: float = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether one would restore it: it is there, and nobody has found it damaged."""
        return self.state == "complete"

    def serves(self, tier: BackupTier) -> bool:
        """Whether it is kept for this tier."""
        return str(tier) in (self.tiers or [str(each) for each in BY_HAND])


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLine:
    """A row of `archives`, as far as people are told of it."""

    at: datetime
    state: str
    last_segment: str
    lag_bytes: int | None
    slot_state: str
    slot_bytes: int | None
    gaps: Sequence[JsonValue]
    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """One database. `backups`: newest first; `schedules`: by their names."""

    database: Database
    backups: tuple[Line, ...] = ()
    archive: ArchiveLine | None = None
    schedules: Mapping[str, Standing] = field(default_factory=dict)

    @property
    def verified(self) -> tuple[Line, ...]:
        """Those that were ever restored as a test, the last one first."""
        tried = [(line.verified_at, line) for line in self.backups if line.verified_at]
        return tuple(line for _, line in sorted(tried, key=lambda pair: pair[0], reverse=True))

    @property
    def known_since(self) -> datetime | None:
        """Since when a bot has looked at the clock for it, or longer."""
        begun = [each.begun_at for each in self.schedules.values() if each.begun_at is not None]
        return min(begun, default=None)


async def states(
    conn: AsyncConnection, databases: Iterable[Database], now: datetime
) -> Sequence[DatabaseState]:
    """How each of these databases stands, in their order."""
    wanted = list(databases)
    names = [database.name for database in wanted]
    backups: dict[str, list[Line]] = {name: [] for name in names}
    values = {"names": names, "now": now, "backups_max": BACKUPS_MAX}
    for row in (await conn.execute(BACKUPS, values)).mappings():
        backups[row["database"]].append(_line(dict(row)))
    found = (await conn.execute(ARCHIVES, {"names": names})).mappings()
    archives = {row["database"]: _archive(dict(row)) for row in found}
    schedules = {database.name: timetable(database) for database in wanted}
    firings = await standing(
        conn, [timed.name for each in schedules.values() for timed in each], now
    )
    return [
        DatabaseState(
            database=database,
            backups=tuple(backups[database.name]),
            archive=archives.get(database.name),
            schedules={
                timed.name: firings.get(timed.name, Standing(schedule=timed.name))
                for timed in schedules[database.name]
            },
        )
        for database in wanted
    ]


def _line(row: dict[str, Any]) -> Line:
    row.pop("database")
    return Line(**{**row, "tiers": tuple(row["tiers"]), "target": row["target"] or "",
                   "restore_seconds": row["restore_seconds"] or 0.0})  # fmt: skip


def _archive(row: dict[str, Any]) -> ArchiveLine:
    row.pop("database")
    return ArchiveLine(**row)
