"""Looks at targets for the shell: plans and answers, read-only and soon, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel

from approvals.by_the_clock import SCHEDULED, scheduled_by
from approvals.in_force import Policies
from approvals.words import Door
from bot.command_text import Asked
from bot.inventory import Inventory
from jobs.operation import Answer, Database, JobError, Operation, Plan
from jobs.pinned import planned
from jobs.reader import LiveContext, Readers
from store.connect import Store


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

    async def plan(self, asked: Asked) -> Plan:
        """What a change would do.

        Raises:
            ExplainedError: it cannot be planned: the database is unknown, cannot be
                reached, or takes too long.
        """
        operation = asked.operation
        database = self._database(asked)
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                return await planned(operation, self._context(database), asked.params)
        except TimeoutError:
            raise self._too_slow(operation, database) from None

    async def answer(self, asked: Asked) -> Answer:
        """What a query finds.

        Raises:
            ExplainedError: as `plan`.
        """
        operation = asked.operation
        if operation.answer is None:
            raise TypeError(f"{operation.name} answers nothing")
        database = self._database(asked)
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                return await operation.answer(self._context(database), asked.params)
        except TimeoutError:
            raise self._too_slow(operation, database) from None

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

    def _too_slow(self, operation: Operation, database: Database | None) -> JobError:
        where = database.name if database else operation.name
        return JobError(
            f"Looking at {where} took longer than {self.limit.total_seconds():g} s. "
            "Nothing was changed.",
            next_step="Look for load and locks there, then ask again.",
        )


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
    if clash := sorted((own.keys() | {SCHEDULED}) & plan.attributes.keys()):
        raise TypeError(f"{operation.name}: its plan sets {', '.join(clash)}")
    return {**plan.attributes, **own}


def params_as_json(params: BaseModel) -> dict[str, object]:
    """Parameters as they are stored."""
    return params.model_dump(mode="json")
