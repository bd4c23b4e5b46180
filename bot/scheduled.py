"""Asks for what schedules want done: as everybody does, under the policy, once per firing.

A firing is stored first (`jobs.schedules`), and what it asks for is planned here afterwards,
as that may take long. Whoever asks has taken the firing for a while; the request is stored
under the firing's own delivery key, so that who comes after a crash finds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from pydantic import JsonValue, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.by_the_clock import CLOCK
from approvals.calls import Decision
from approvals.rules import Rule
from approvals.words import BadInputError, Door, ExplainedError
from bot import scheduled_rules
from bot.command_text import Asked
from bot.deciding import Caller
from bot.desk import Desk
from bot.scheduled_rules import refuse_accident
from jobs import firings
from jobs.away import in_rounds, is_away
from jobs.firings import Asking, ToAsk
from jobs.operation import JobError
from jobs.retention import NothingDueError, serves
from jobs.schedules import Firing, Schedule
from jobs.timetable import DRILL, GRACE_MAX, Timed, timetables
from postgres.errors import PostgresError
from store.backups import add_tier, all_backups

log: Final = logging.getLogger("twokey.schedules")

POLL: Final = timedelta(seconds=3)
# A plan looks at a server that may be slow; nobody waits for it here.
PATIENCE: Final = timedelta(seconds=60)
LEASE: Final = timedelta(minutes=3)
AT_ONCE_MAX: Final = 4
RETRY_FIRST: Final = timedelta(minutes=1)
RETRY_MAX: Final = timedelta(minutes=15)


def schedule_of(timed: Timed) -> Schedule:
    """A schedule whose firing is to be asked for."""

    async def act(conn: AsyncConnection, firing: Firing) -> Mapping[str, JsonValue]:
        del conn, firing
        return {"ask": {"state": str(Asking.WAITING)}}

    return timed.schedule(act)


@dataclass(slots=True, kw_only=True)
class ScheduledRequests:
    """Asks for what has fired. Every bot runs one; a firing is asked for by one of them."""

    desk: Desk
    poll: timedelta = POLL
    timed: Mapping[str, Timed] = field(init=False)

    def __post_init__(self) -> None:
        self.timed = timetables(self.desk.inventory.databases.values())

    def rule_of(self, timed: Timed) -> Rule | None:
        """By which rule of the policy in force people agree to it; None: it is refused."""
        database = self.desk.inventory.database(timed.database)
        policy = self.desk.approvals.policy.values
        return scheduled_rules.rule_of(timed, database, policy, self.desk.operations)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop` is set; while the store is away, wait for it."""
        await in_rounds(stop, self._round)

    async def _round(self) -> float:
        is_busy = await self.look() == AT_ONCE_MAX
        return 0.0 if is_busy else self.poll.total_seconds()

    async def look(self) -> int:
        """Ask for some of what waits; for how many firings that was tried."""
        now = self.desk.clock()
        found = await firings.take(
            self.desk.store,
            self.timed,
            since=now - 2 * GRACE_MAX,
            now=now,
            lease_until=now + LEASE,
            rows=AT_ONCE_MAX,
        )
        # One after the other on one database: what the first asks for may serve the second.
        waiting: dict[str, list[ToAsk]] = {}
        for firing in found:
            waiting.setdefault(self.timed[firing.schedule].database, []).append(firing)
        async with asyncio.TaskGroup() as tasks:
            for each in waiting.values():
                tasks.create_task(self._ask_in_turn(each))
        return len(found)

    async def _ask_in_turn(self, waiting: Sequence[ToAsk]) -> None:
        for firing in waiting:
            await self._ask_for(firing, self.timed[firing.schedule])

    async def _ask_for(self, firing: ToAsk, timed: Timed) -> None:
        """Whatever happens, the firing is settled, or waits for its next try."""
        if self.desk.clock() - firing.due_at > timed.grace:
            await self._give_up(firing)
            return
        try:
            if await self._is_shared(firing, timed):
                return
            await self._settle(firing, await self._asked(firing, timed))
        except NothingDueError as nothing:
            async with self.desk.store.begin() as conn:
                await firings.settle(conn, firing, Asking.NOTHING, problem=nothing.problem)
        except (ExplainedError, PostgresError) as error:
            await self._later(firing, error.problem, error.next_step)
        except Exception as error:
            if is_away(error):
                return  # its lease ends, and somebody tries again
            log.exception("What %s asks for could not be asked.", firing.schedule)
            self.desk.metrics.broke("schedule")
            await self._later(
                firing, f"It broke: {type(error).__name__}.", "Look at the bot's log."
            )

    async def _asked(self, firing: ToAsk, timed: Timed) -> Decision:
        operation = self.desk.operations.get(timed.operation)
        if operation is None:
            raise BadInputError(
                f"There is no operation {timed.operation}.",
                next_step=f"Take it out of the inventory: {_where(timed)}.",
            )
        refuse_accident(timed, self.rule_of(timed))
        try:
            params = operation.params.model_validate(timed.params)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise BadInputError(
                f"{timed.operation} does not take what the schedule asks for: {said}.",
                next_step=f"Correct {_where(timed)} in the inventory.",
            ) from None
        asked = Asked(
            operation=operation,
            params=params,
            database=timed.database,
            reason=firing.reason,
        )
        caller = Caller(person=CLOCK, door=Door.CLOCK, delivery=firing.delivery)
        planner = replace(self.desk.planner, limit=PATIENCE)
        return await replace(self.desk, planner=planner).ask(asked, caller)

    async def _is_shared(self, firing: ToAsk, timed: Timed) -> bool:
        """Whether a backup that there is was tagged for the tier, so that none is taken."""
        if timed.tier is None:
            return False
        settings = self.desk.inventory.database(timed.database).backups
        async with self.desk.store.begin() as conn:
            listed = await all_backups(conn, timed.database)
            # As of when it was due, too: what was young then may have taken long.
            moments = (firing.due_at, self.desk.clock())
            served = (serves(listed, timed.tier, settings, moment) for moment in moments)
            backup = next((found for found in served if found), None)
            if backup is None:
                await self._wait_for_another(conn, firing, timed)
                return False
            has = any(
                str(timed.tier) in each.backup.tiers for each in listed if each.backup.id == backup
            )
            if not has and not await add_tier(conn, backup, str(timed.tier)):
                return False  # it was found damaged at this very moment
            await firings.settle(conn, firing, Asking.SHARED, backup=backup)
            log.info("%s is served by backup %s.", firing.schedule, backup)
            return True

    async def _wait_for_another(self, conn: AsyncConnection, firing: ToAsk, timed: Timed) -> None:
        """Let a backup that is being taken for another tier end: it may serve this one too.

        Raises:
            JobError: there is one.
        """
        other = await firings.at_work(
            conn, database=timed.database, operation=timed.operation, mine=firing.reason
        )
        if other is not None:
            raise JobError(
                f"Request {other} takes a backup of {timed.database} already.",
                next_step="When it has ended, it serves this tier as well, or another is taken.",
            )

    async def _settle(self, firing: ToAsk, decision: Decision) -> None:
        """A request there is, also one that was refused; else why there can be none."""
        async with self.desk.store.begin() as conn:
            if decision.request is not None:
                request = int(decision.request.id)
                await firings.settle(conn, firing, Asking.ASKED, request=request)
                return
            told = {"problem": decision.problem, "next_step": decision.next_step}
            await firings.settle(conn, firing, Asking.FAILED, **told)

    async def _later(self, firing: ToAsk, problem: str, next_step: str) -> None:
        wait = min(RETRY_FIRST * 2 ** min(firing.tries - 1, 10), RETRY_MAX)
        log.warning("%s was not asked for: %s Next try in %s.", firing.schedule, problem, wait)
        look_at = (self.desk.clock() + wait).isoformat()
        async with self.desk.store.begin() as conn:
            await firings.settle(
                conn, firing, Asking.WAITING,
                problem=problem, next_step=next_step, look_at=look_at,
            )  # fmt: skip

    async def _give_up(self, firing: ToAsk) -> None:
        problem = firing.problem or "No bot was there to ask for it in time."
        log.error("%s, due %s, is given up: %s", firing.schedule, firing.due_at, problem)
        async with self.desk.store.begin() as conn:
            await firings.settle(
                conn, firing, Asking.FAILED, problem=problem, next_step=firing.next_step
            )


def _where(timed: Timed) -> str:
    """What of the inventory wants this."""
    part = "cluster.drills" if timed.operation == DRILL else "backups"
    return f"{timed.database}.{part}"
