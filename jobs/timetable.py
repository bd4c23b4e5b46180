"""What the inventory wants done to each database by the clock, and when that is next. Pure.

Each entry is one schedule with a name of its own, such as `backup-daily orders`, and says what
is asked for when it fires: an operation with its parameters, as somebody would type them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from apscheduler.triggers.cron import CronTrigger
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.backup_settings import BackupTier
from jobs.crontab import cron_trigger
from jobs.operation import Database
from jobs.schedules import Action, Firing, Schedule, next_due

DRILL: Final = "drill"
# So late may a firing still be asked for; what is later than that alerts instead.
GRACE: Final[Mapping[str, timedelta]] = MappingProxyType(
    {
        "backup-daily": timedelta(hours=6),
        "backup-weekly": timedelta(hours=12),
        "backup-monthly": timedelta(hours=24),
        "verify": timedelta(hours=12),
        "prune": timedelta(hours=6),
        # People begin it, by agreeing: a bot that comes back in the morning asks still on the day
        # that was announced, and a server that is not well at midnight may be by then.
        DRILL: timedelta(hours=12),
    }
)
GRACE_MAX: Final = max(GRACE.values())
# Some moments are further apart than others: so many are looked at for the widest gap.
_MOMENTS: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One thing to be asked for at given times. `tier`: the one that a backup is taken for."""

    what: str
    database: str
    operation: str
    params: Mapping[str, str]
    cron: str
    zone: str
    tier: BackupTier | None = None

    @property
    def name(self) -> str:
        """The schedule's name, such as `backup-daily orders`."""
        return f"{self.what} {self.database}"

    @property
    def grace(self) -> timedelta:
        """How late it may still be asked for."""
        return GRACE[self.what]

    def schedule(self, action: Action) -> Schedule:
        """As something that fires.

        Raises:
            BadInputError: the cron text or the zone cannot be used.
        """
        return Schedule(
            name=self.name,
            cron=self.cron,
            trigger=_trigger(self.cron, self.zone),
            misfire=self.grace,
            action=action,
        )

    def next_at(self, after: datetime) -> datetime | None:
        """When it is due first after `after`, in UTC; None: never again."""
        return next_due(self.schedule(_nothing), after)

    def interval(self, around: datetime) -> timedelta:
        """The longest that lies between two moments of it, about this time of the year."""
        return interval_of(self.cron, self.zone, around)


def timetable(database: Database) -> tuple[Timed, ...]:
    """Everything that is asked for by the clock on one database."""
    settings = database.backups
    found = [
        Timed(
            what=f"backup-{tier}",
            database=database.name,
            operation="backup",
            params={"database": database.name, "kind": schedule.kind, "tier": str(tier)},
            cron=schedule.cron,
            zone=settings.zone,
            tier=tier,
        )
        for tier, schedule in settings.tiers.items()
    ]
    others: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("verify", settings.verify_cron, {"at": "random"}),
        ("prune", settings.prune_cron, {}),
    )
    found += [
        Timed(
            what=what,
            database=database.name,
            operation=what,
            params={"database": database.name, **params},
            cron=cron,
            zone=settings.zone,
        )
        for what, cron, params in others
        if cron
    ]
    return (*found, *_drill(database))


def _drill(database: Database) -> Iterator[Timed]:
    """The disaster that is rehearsed each quarter, where the inventory allows any."""
    drills = database.cluster.drills if database.cluster else None
    if drills is not None and drills.kinds and drills.schedule:
        yield Timed(
            what=DRILL,
            database=database.name,
            operation=DRILL,
            params={"database": database.name, "kind": str(drills.kind)},
            cron=drills.schedule,
            zone=drills.zone,
        )


def timetables(databases: Iterable[Database]) -> Mapping[str, Timed]:
    """Everything that is asked for by the clock, by the schedule's name."""
    return {timed.name: timed for database in databases for timed in timetable(database)}


def upcoming(timed: Iterable[Timed], now: datetime) -> list[tuple[str, datetime]]:
    """When each schedule is due next, the soonest first."""
    # A hundred databases have few schedules that differ.
    known: dict[tuple[str, str], datetime | None] = {}
    found: list[tuple[str, datetime]] = []
    for each in timed:
        key = (each.cron, each.zone)
        if key not in known:
            known[key] = each.next_at(now)
        if (at := known[key]) is not None:
            found.append((each.name, at))
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def interval_of(cron: str, zone: str, around: datetime) -> timedelta:
    """The longest that lies between two moments of a schedule, about this time of the year."""
    return _interval(cron, zone, around.date())


async def _nothing(conn: AsyncConnection, firing: Firing) -> Mapping[str, JsonValue]:
    del conn, firing
    return {}


@lru_cache(maxsize=1024)
def _trigger(cron: str, zone: str) -> CronTrigger:
    return cron_trigger(cron, zone)


@lru_cache(maxsize=1024)
def _interval(cron: str, zone: str, day: date) -> timedelta:
    trigger = _trigger(cron, zone)
    schedule = Schedule(name="", cron=cron, trigger=trigger, misfire=timedelta(0), action=_nothing)
    at: datetime | None = datetime.combine(day, time(), UTC)
    moments: list[datetime] = []
    while at is not None and len(moments) < _MOMENTS:
        at = next_due(schedule, at)
        moments += [at] if at else []
    return max((after - before for before, after in pairwise(moments)), default=timedelta.max)
