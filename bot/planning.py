"""Looks at targets for the shell: plans and answers, read-only and soon, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel

from approvals.by_the_clock import SCHEDULED, scheduled_by
from approvals.in_force import Policies
from approvals.words import Door
from bot.command_text import Asked
from bot.inventory import Inventory
from bot.remembered import Remembered
from jobs.health_settings import CACHE_FOR
from jobs.operation import Answer, Database, JobError, Operation, Plan
from jobs.pinned import planned
from jobs.reader import LiveContext, Readers
from jobs.routes import Routes
from postgres.cluster.look import LIMIT as LOOK_LIMIT
from postgres.errors import PostgresError
from store.connect import Store
from store.last_runs import last_run_mark

# Said of a request that waits for no other of its database: see `Operation.is_beside`.
BESIDE: Final = "beside"
# So long a look that takes its time is kept for who asks again, where nothing else is said.
# Who asks while a look is under way shares it; what has been looked at is looked at anew.
_NOT_KEPT: Final = timedelta(0)
# Of a plan's limit, what finding the primary may take: a server that hangs costs all of it.
_ROUTE_SHARE: Final = 0.6


class StillLookingError(JobError):
    """A query takes its time; it goes on, and whoever asks again gets its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans changes and answers queries within `limit`, which leaves time for the ack."""

    inventory: Inventory
    readers: Readers
    store: Store
    clock: Callable[[], datetime]
    limit: timedelta
    patience: timedelta = timedelta(seconds=20)  # where somebody sees that it is being planned
    policies: Policies | None = None
    remembered: Remembered = field(default_factory=Remembered)
    routes: Routes = field(default_factory=Routes)

    async def plan(self, asked: Asked) -> Plan:
        """What a change would do.

        Raises:
            ExplainedError: it cannot be planned: the database is unknown, cannot be
                reached, or takes too long.
        """
        operation = asked.operation
        database = self._database(asked)
        try:
            async with asyncio.timeout(self.limit.total_seconds()), self._led(asked) as context:
                return await planned(operation, context, asked.params)
        except TimeoutError:
            raise self._too_slow(operation, database) from None

    async def answer(self, asked: Asked) -> Answer:
        """What a query finds.

        Raises:
            StillLookingError: it takes longer than `limit`; whoever asks again gets it.
            ExplainedError: as `plan`.
        """
        if _may_be_late(asked.operation):
            flight = await self.flight(asked)
            done, _ = await asyncio.wait({flight}, timeout=self.limit.total_seconds())
            if not done:
                raise StillLookingError(
                    f"{asked.database or 'This'} is still being looked at.",
                    next_step="Ask again in some seconds: what was found will be there.",
                )
            return flight.result()
        database = self._database(asked)
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                return await self._answered(asked)
        except TimeoutError:
            raise self._too_slow(asked.operation, database) from None

    async def flight(self, asked: Asked, *, anew: bool = False) -> asyncio.Task[Answer]:
        """The look that answers a query which may take long: shared, and remembered.

        Raises:
            ExplainedError: the database is unknown.
        """
        operation, database = asked.operation, self._database(asked)
        limit = operation.patience or self.limit
        mark = await self._mark(asked.database) if operation.is_cached else ""

        async def look() -> Answer:
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    return await self._answered(asked)
            except TimeoutError:
                raise self._too_slow(operation, database, limit) from None

        return self.remembered.flight(
            json.dumps([operation.name, params_as_json(asked.params)], sort_keys=True),
            look,
            now=self.clock(),
            mark=mark,
            age_max=_kept_for(operation, database),
            anew=anew,
        )

    async def _answered(self, asked: Asked) -> Answer:
        if asked.operation.answer is None:
            raise TypeError(f"{asked.operation.name} answers nothing")
        async with self._led(asked) as context:
            return await asked.operation.answer(context, asked.params)

    @asynccontextmanager
    async def _led(self, asked: Asked) -> AsyncIterator[LiveContext]:
        """The target at its one writable server. Where something goes wrong it is looked for anew.

        Raises:
            JobError: also for what would be a `PostgresError`: it must reach people here.
        """
        database = self._database(asked)
        if database is None or not asked.operation.is_routed:
            yield self._context(database)
            return
        # Something is left for the plan itself, should a server hang.
        limit = min(LOOK_LIMIT, self.limit * _ROUTE_SHARE)
        try:
            yield self._context(await self.routes.of(database, limit=limit))
        except PostgresError as error:
            self.routes.forget(database.name)
            raise JobError(error.problem, next_step=error.next_step) from error
        except BaseException:
            self.routes.forget(database.name)
            raise

    async def _mark(self, database: str) -> str:
        """Changes with what is done to the database, so that no answer outlives a change."""
        async with self.store.begin() as conn:
            return await last_run_mark(conn, database)

    def _database(self, asked: Asked) -> Database | None:
        if not asked.database:
            return None
        return self.inventory.database(asked.database)

    def _context(self, database: Database | None) -> LiveContext:
        return LiveContext(
            target=database,
            readers=self.readers,
            store=self.store,
            clock=self.clock,
            in_force=self.policies,
            databases=self.inventory.databases,
        )

    def _too_slow(
        self, operation: Operation, database: Database | None, limit: timedelta | None = None
    ) -> JobError:
        where = database.name if database else operation.name
        seconds = (limit or self.limit).total_seconds()
        return JobError(
            f"Looking at {where} took longer than {seconds:g} s. Nothing was changed.",
            next_step="Look for load and locks there, then ask again.",
        )


def _may_be_late(operation: Operation) -> bool:
    return operation.is_cached or operation.patience is not None


def _kept_for(operation: Operation, database: Database | None) -> timedelta:
    if not operation.is_cached:
        return _NOT_KEPT
    return database.monitoring.cache_for if database else CACHE_FOR


def attributes(
    asked: Asked, plan: Plan, database: Database | None, *, door: Door
) -> dict[str, str | int]:
    """What rules match on: everything is derived here, nothing is believed.

    A plan may add attributes of its own and cannot replace these, nor say that a schedule asks.
    """
    operation = asked.operation
    if plan.risk is not None and plan.risk not in {operation.risk, *operation.lesser_risks}:
        raise TypeError(f"{operation.name}: its plan may not have the risk {plan.risk}")
    own: dict[str, str | int] = {
        "operation": operation.name,
        "risk": str(plan.risk or operation.risk),
        "database": asked.database,
    }
    if database is not None:
        own |= {"environment": database.environment, "tier": str(database.tier)}
    own |= scheduled_by(door)
    if operation.is_beside:
        own[BESIDE] = "yes"
    if clash := sorted((own.keys() | {SCHEDULED, BESIDE}) & plan.attributes.keys()):
        raise TypeError(f"{operation.name}: its plan sets {', '.join(clash)}")
    return {**plan.attributes, **own}


def params_as_json(params: BaseModel) -> dict[str, object]:
    """Parameters as they are stored."""
    return params.model_dump(mode="json")
