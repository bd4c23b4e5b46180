"""A bot with schedules, a clock that a test moves, and operations that need no server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from bot.app import assembled
from bot.desk import Desk
from bot.inventory import Inventory, parse_inventory
from bot.process import Twokey
from bot.scheduled import ScheduledRequests
from bot.schedules import schedules_of
from jobs.operation import Answer, Context, Job, JobError, Kind, Operation, Plan, Risk
from jobs.retention import NothingDueError
from jobs.schedules import Scheduler
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import FAST, settings

SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
GRANT = """
  - name: by the clock
    when: {scheduled: "yes", operation: [backup, verify, prune]}
    gates: []
"""
POLICY = """
rules:%s
  - name: the rest
    fallback: true
    gates: [{id: dba, groups: [dba]}]
"""
INVENTORY = """
policy: policy.yml
groups: {dba: S0DBA}
databases:
  orders:
    dsn: postgresql://nobody@127.0.0.1:1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups
    backups: %s
"""


class Params(BaseModel, extra="forbid"):
    """What backups and their kin are asked with."""

    database: str
    kind: str = "full"
    tier: str = ""
    at: str = ""


@dataclass
class Clock:
    now: datetime = SATURDAY

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Planning:
    """How planning goes: `fails` says with which words it does not."""

    fails: str = ""
    broken: bool = False
    is_idle: bool = False
    nothing: bool = False
    count: int = 0

    async def plan(self, context: Context, params: Params) -> Plan:
        self.count += 1
        if self.broken:
            raise KeyError("a bug")
        if self.nothing:
            raise NothingDueError("Nothing may be removed.", next_step="Wait.")
        if self.is_idle:
            raise NothingDueError("There is nothing to remove.", next_step="Wait.")
        if self.fails:
            raise JobError(self.fails, next_step="Look at the server.")
        return Plan(title=f"On {context.database.name} {params.tier}".strip(), steps=("One",))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    del job, plan
    return Answer(title=f"Done {params.tier}")


@dataclass
class ClockWorld:
    twokey: Twokey
    clock: Clock
    planning: Planning

    @property
    def desk(self) -> Desk:
        return self.twokey.desk

    def scheduler(self, by: str = "a") -> Scheduler:
        return Scheduler(
            store=self.desk.store,
            schedules=schedules_of(self.desk.inventory, self.clock, self.asker().rule_of),
            clock=self.clock,
            by=by,
            meter=self.desk.metrics.audit,
        )

    def asker(self) -> ScheduledRequests:
        return ScheduledRequests(desk=self.desk)

    async def fire_at(self, at: datetime) -> list[str]:
        """What fires when the clock shows this."""
        self.clock.now = at
        return [firing.schedule for firing in await self.scheduler().look()]

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.desk.store.begin() as conn:
            return list((await conn.execute(sa.text(query), values)).all())

    async def asks(self) -> dict[str, dict[str, Any]]:
        found = await self.rows(
            "SELECT schedule, detail -> 'ask' FROM firings WHERE detail ? 'ask'"
        )
        return {row[0]: row[1] for row in found}


def inventory(home: Path, backups: str, *, grant: bool) -> Inventory:
    (home / "policy.yml").write_text(POLICY % (GRANT if grant else ""))
    return parse_inventory(INVENTORY % backups, path=home / "twokey.yml", environ={})


@asynccontextmanager
async def clock_world(
    slack: SlackStandIn,
    store: Store,
    home: Path,
    *,
    backups: str = "{archive: {method: none}}",
    grant: bool = True,
    more: tuple[str, ...] = (),
) -> AsyncIterator[ClockWorld]:
    """A wired bot that has begun all its schedules on Saturday noon. `more`: operations."""
    planning, clock = Planning(), Clock()
    shape = Operation(
        name="backup", summary="Back up", kind=Kind.CHANGE, risk=Risk.NONE, params=Params,
        example="/db backup orders", plan=planning.plan, run=run, pinned=frozenset(),
    )  # fmt: skip
    operations = {name: replace(shape, name=name) for name in ("backup", "verify", "prune", *more)}
    async with assembled(
        settings(slack, store, home, http=True), inventory(home, backups, grant=grant),
        store=store, operations=operations, clock=clock, pace=FAST,
    ) as twokey:  # fmt: skip
        world = ClockWorld(twokey, clock, planning)
        await world.scheduler().look()
        yield world
