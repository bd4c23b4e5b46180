"""The digests of managers: which databases go together, when, and to which channel.

A digest fires as everything by the clock does (`jobs.schedules`): its facts are read and its
message is stored in the transaction of the firing, so that any number of bots post it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.digest import Digest, Period
from jobs.digest_facts import digest_of
from jobs.operation import Database
from jobs.schedules import Firing, Schedule
from store import outbox

DIGEST: Final = TypeAdapter(Digest)
# What comes later than this is of yesterday's news; the next one says it better.
GRACE: Final[Mapping[Period, timedelta]] = MappingProxyType(
    {Period.DAILY: timedelta(hours=6), Period.WEEKLY: timedelta(hours=24)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Databases that are told of together. `cron` is in `zone`."""

    period: Period
    channel: str
    cron: str
    zone: str
    databases: tuple[Database, ...]

    @property
    def name(self) -> str:
        """The schedule's: the same as long as channel and time are the same."""
        return f"digest-{self.period} {self.channel} {self.zone} {self.cron}"

    def schedule(self, clock: Callable[[], datetime]) -> Schedule:
        """As something that fires, and posts.

        Raises:
            BadInputError: the cron text or the zone cannot be used.
        """

        async def act(conn: AsyncConnection, firing: Firing) -> Mapping[str, JsonValue]:
            del firing
            digest = await digest_of(conn, self.databases, self.period, clock())
            row = await outbox.post(
                conn,
                topic="digest",
                request_id=None,
                channel=self.channel,
                payload=DIGEST.dump_python(digest, mode="json"),
                now=clock(),
            )
            return {"outbox": row, "databases": [each.name for each in self.databases]}

        return Schedule.of(
            self.name, self.cron, zone=self.zone, misfire=GRACE[self.period], action=act
        )


def planned(databases: Iterable[Database]) -> Sequence[Planned]:
    """Those with the same channel, time and zone are one digest."""
    groups: dict[tuple[Period, str, str, str], list[Database]] = {}
    for database in databases:
        settings = database.monitoring.digest
        if settings is None:
            continue
        channel = settings.channel or database.channel
        for period, cron in ((Period.DAILY, settings.daily), (Period.WEEKLY, settings.weekly)):
            if cron:
                groups.setdefault((period, channel, cron, settings.zone), []).append(database)
    return [
        Planned(period=period, channel=channel, cron=cron, zone=zone, databases=tuple(many))
        for (period, channel, cron, zone), many in groups.items()
    ]
