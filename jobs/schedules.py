"""Work at given times: each firing happens once, however many processes look at the clock.

A firing is a row whose key is the schedule's name and the moment it was due. Whoever stores
the row does the work in the same transaction; everybody else finds the row. The first part
is pure and says what is due; the second stores and fires.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import sqlalchemy as sa
from apscheduler.triggers.cron import CronTrigger
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.counting import count_text
from jobs.away import in_rounds, is_away
from jobs.crontab import cron_trigger, runs_by_the_hour
from store.connect import Store

log: Final = logging.getLogger("twokey.schedules")

POLL: Final = timedelta(seconds=30)
FIRING_SECONDS_MAX: Final = 60
# So many firings of one schedule are counted in one look, however long all were away.
LOOK_BACK_MAX: Final = 1000
# A year and a bit: evidence about the last year has its anchors, and the table ends somewhere.
KEPT: Final = timedelta(days=400)
# So many old firings are removed with each new one, at most.
FORGOTTEN_MAX: Final = 100
# Clocks of processes that work together differ by less.
AHEAD: Final = timedelta(hours=1)
_INSTANT: Final = timedelta(microseconds=1)
_AT: Final = TIMESTAMP(timezone=True)

# What was stored by a clock that was far ahead settles nothing, nor does a moment still to come.
LAST: Final = sa.text("""
    SELECT schedule, max(due_at) AS due_at
      FROM firings
     WHERE schedule = ANY(:names)
       AND due_at <= :now
       AND at <= :ahead
     GROUP BY schedule
""").bindparams(
    sa.bindparam("names", type_=ARRAY(sa.Text())),
    sa.bindparam("now", type_=_AT),
    sa.bindparam("ahead", type_=_AT),
)

# A second process waits here for the first one's commit, and then finds no row to insert.
# Only what a clock stored that was far ahead is stored over.
FIRE: Final = sa.text("""
    INSERT INTO firings (schedule, due_at, at, by, detail)
    VALUES (:schedule, :due_at, :at, :by, :detail)
        ON CONFLICT (schedule, due_at) DO UPDATE
       SET at = excluded.at, by = excluded.by, detail = excluded.detail
     WHERE firings.at > :ahead
 RETURNING schedule
""").bindparams(
    sa.bindparam("due_at", type_=_AT),
    sa.bindparam("at", type_=_AT),
    sa.bindparam("ahead", type_=_AT),
    sa.bindparam("detail", type_=JSONB),
)

KEEP: Final = sa.text("""
    INSERT INTO firings (schedule, due_at, at, by, detail)
    VALUES (:schedule, :due_at, :at, :by, :detail)
        ON CONFLICT (schedule, due_at) DO NOTHING
 RETURNING schedule
""").bindparams(
    sa.bindparam("due_at", type_=_AT),
    sa.bindparam("at", type_=_AT),
    sa.bindparam("detail", type_=JSONB),
)

KEEP_DETAIL: Final = sa.text("""
    UPDATE firings SET detail = :detail WHERE schedule = :schedule AND due_at = :due_at
""").bindparams(sa.bindparam("due_at", type_=_AT), sa.bindparam("detail", type_=JSONB))

# However old they are, two stay: the newest, which says since when moments are due, and the
# newest that fired, on which the next may build.
FORGET: Final = sa.text("""
    DELETE FROM firings
     WHERE schedule = :schedule
       AND due_at IN (
           SELECT due_at FROM firings
            WHERE schedule = :schedule
              AND due_at < :before
              AND due_at < (SELECT max(due_at) FROM firings WHERE schedule = :schedule)
              AND due_at IS DISTINCT FROM (
                  SELECT due_at FROM firings
                   WHERE schedule = :schedule AND detail ->> 'state' = 'fired'
                   ORDER BY due_at DESC LIMIT 1)
            ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED)
""").bindparams(sa.bindparam("before", type_=_AT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A moment at which a schedule was due, in UTC.

    `coalesced`: so many earlier moments are within the grace too, and this one stands for them.
    """

    schedule: str
    due_at: datetime
    coalesced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Moments that went by for longer than the grace; they are not made up for."""

    schedule: str
    first_at: datetime
    last_at: datetime
    count: int


Action = Callable[[AsyncConnection, Firing], Awaitable[Mapping[str, JsonValue]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Something to do at given times.

    `action` works in the firing's transaction: what it stores is stored exactly once, with
    the firing, and what it returns is kept in the firing's row. Long work is queued there,
    not done there. A failed action leaves no firing and is tried again within `misfire`.
    `ahead`: each moment comes so long before the one that the cron text says.
    """

    name: str
    cron: str
    trigger: CronTrigger
    misfire: timedelta
    action: Action
    ahead: timedelta = timedelta(0)

    @staticmethod
    def of(name: str, cron: str, *, zone: str, misfire: timedelta, action: Action) -> Schedule:
        """A schedule out of cron text and a zone.

        Raises:
            BadInputError: the cron text or the zone cannot be used.
        """
        trigger = cron_trigger(cron, zone)
        return Schedule(name=name, cron=cron, trigger=trigger, misfire=misfire, action=action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a look at the clock says about one schedule."""

    missed: Missed | None = None
    firing: Firing | None = None


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """The first moment after `after`, in UTC; None when there is none any more.

    When clocks go back, a fixed hour comes once, the first time; "every so many minutes"
    goes on through both hours. When they go forward, a fixed time that does not exist comes
    as much later as the clocks jump.
    """
    at = after + schedule.ahead
    while True:
        zone = schedule.trigger.timezone
        found: datetime | None = schedule.trigger.get_next_fire_time(
            None, (at + _INSTANT).astimezone(zone)
        )
        if found is None:
            return None
        at = found.astimezone(UTC)
        if runs_by_the_hour(schedule.cron) or not _is_repeated(found):
            return at - schedule.ahead


def due(schedule: Schedule, *, last: datetime, now: datetime) -> Due:
    """What is due at `now`, given the newest moment that is settled already.

    Of the moments within the grace only the newest fires, and stands for the others.
    """
    late: list[datetime] = []
    in_time: list[datetime] = []
    at = last
    for _ in range(LOOK_BACK_MAX):
        following = next_due(schedule, at)
        if following is None or following > now:
            break
        at = following
        (late if now - at > schedule.misfire else in_time).append(at)
    missed = (
        Missed(schedule=schedule.name, first_at=late[0], last_at=late[-1], count=len(late))
        if late
        else None
    )
    firing = (
        Firing(schedule=schedule.name, due_at=in_time[-1], coalesced=len(in_time) - 1)
        if in_time
        else None
    )
    return Due(missed=missed, firing=firing)


def _is_repeated(local: datetime) -> bool:
    """Whether the wall clock shows this time for the second time."""
    return local.fold == 1 and local.utcoffset() != local.replace(fold=0).utcoffset()


async def fire_once(
    store: Store, schedule: Schedule, firing: Firing, *, by: str, now: datetime
) -> bool:
    """Do a firing's work unless it was done; whether it was done here, now.

    Whatever the action raises is raised, and then the firing did not happen.
    """
    late = (now - firing.due_at).total_seconds()
    row = {"schedule": schedule.name, "due_at": firing.due_at}
    told = {"state": "fired", "late_seconds": round(late), "coalesced": firing.coalesced}
    async with asyncio.timeout(FIRING_SECONDS_MAX), store.begin() as conn:
        values = {**row, "at": now, "ahead": now + AHEAD, "by": by, "detail": told}
        kept = await conn.execute(FIRE, values)
        if kept.one_or_none() is None:
            return False
        said = await schedule.action(conn, firing)
        await conn.execute(KEEP_DETAIL, {**row, "detail": {**said, **told}})
    return True


class ScheduleMeter(Protocol):
    """Where firings are counted."""

    def fired(self, schedule: str, result: str) -> None:
        """Count a firing that was `fired`, `missed`, or `failed` and is tried again."""
        ...


class Scheduler:
    """Looks at the clock. Any number of them may run on one store."""

    def __init__(
        self,
        *,
        store: Store,
        schedules: Sequence[Schedule],
        clock: Callable[[], datetime],
        by: str,
        meter: ScheduleMeter,
        poll: timedelta = POLL,
    ) -> None:
        """`by` names this process in the rows of its firings.

        Raises:
            ValueError: two schedules share a name.
        """
        self._schedules = {schedule.name: schedule for schedule in schedules}
        if len(self._schedules) != len(schedules):
            raise ValueError("each schedule has a name of its own")
        self._store = store
        self._clock = clock
        self._by = by
        self._meter = meter
        self._poll = poll

    def upcoming(self) -> Sequence[tuple[str, datetime]]:
        """When each schedule is due next, the soonest first."""
        now = self._clock()
        found = [(name, next_due(schedule, now)) for name, schedule in self._schedules.items()]
        return sorted(
            ((name, at) for name, at in found if at is not None), key=lambda pair: pair[1]
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Fire what is due until `stop` is set; while the store is away, wait for it."""
        await in_rounds(stop, self._round, waits="schedules")

    async def _round(self) -> float:
        await self.look()
        return self._wait_seconds()

    async def look(self) -> Sequence[Firing]:
        """Fire what is due now; what was fired here.

        A schedule that was never seen before begins now: what was due earlier is not its.
        """
        last = await self._last()
        fired: list[Firing] = []
        away: Exception | None = None
        for name, schedule in self._schedules.items():
            try:
                firing = await self._look_at(schedule, last.get(name))
            except Exception as error:
                if not is_away(error):
                    raise
                away = error  # or the action could not reach something: the others go on
            else:
                fired += [firing] if firing else []
        if away is not None:
            raise away
        return fired

    async def _look_at(self, schedule: Schedule, last: datetime | None) -> Firing | None:
        now = self._clock()
        if last is None:
            await self._keep(schedule.name, now, {"state": "begun"})
            return None
        what = due(schedule, last=last, now=now)
        if what.missed is not None:
            await self._miss(what.missed)
        if what.missed is not None or what.firing is not None:
            await self._forget(schedule.name)
        if what.firing is not None and await self._fire(schedule, what.firing):
            return what.firing
        return None

    async def _last(self) -> Mapping[str, datetime]:
        async with self._store.begin() as conn:
            now = self._clock()
            values = {"names": list(self._schedules), "now": now, "ahead": now + AHEAD}
            rows = await conn.execute(LAST, values)
            return {row.schedule: row.due_at for row in rows}

    async def _fire(self, schedule: Schedule, firing: Firing) -> bool:
        try:
            done = await fire_once(self._store, schedule, firing, by=self._by, now=self._clock())
        except Exception as error:
            if is_away(error):
                raise
            # An action's mistake must not stop the others; it is tried again within its grace.
            log.exception("The schedule %s due at %s failed.", schedule.name, firing.due_at)
            self._meter.fired(schedule.name, "failed")
            return False
        if done:
            self._meter.fired(schedule.name, "fired")
        return done

    async def _miss(self, missed: Missed) -> None:
        detail: dict[str, JsonValue] = {
            "state": "missed",
            "count": missed.count,
            "first_at": missed.first_at.isoformat(),
        }
        if await self._keep(missed.schedule, missed.last_at, detail):
            self._meter.fired(missed.schedule, "missed")
            log.warning(
                "The schedule %s was missed %s, from %s to %s.",
                missed.schedule, count_text(missed.count, "time"), missed.first_at, missed.last_at,
            )  # fmt: skip

    async def _forget(self, name: str) -> None:
        """Remove some of what is older than is kept: more than comes with a firing."""
        values = {"schedule": name, "before": self._clock() - KEPT, "rows": FORGOTTEN_MAX}
        async with self._store.begin() as conn:
            await conn.execute(FORGET, values)

    async def _keep(self, name: str, due_at: datetime, detail: Mapping[str, JsonValue]) -> bool:
        values = {"schedule": name, "due_at": due_at, "at": self._clock(), "by": self._by}
        async with self._store.begin() as conn:
            kept = await conn.execute(KEEP, {**values, "detail": dict(detail)})
            return kept.one_or_none() is not None

    def _wait_seconds(self) -> float:
        """Until the next moment, and never longer than a poll: clocks are set, too."""
        now = self._clock()
        soonest = next((at for _, at in self.upcoming()), now + self._poll)
        return min(max((soonest - now).total_seconds(), 0.01), self._poll.total_seconds())
