"""A world whose rules demand care: `wipe` demands all of it, `erase` what its risk demands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from approvals.second_factors import STEP_SECONDS, Enrolment, code_at, counter_at
from approvals.words import Person, PersonId
from jobs.operation import Context, Operation, Plan, Risk
from sandbox.slack.delivery import Outcome
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.world import CHANNEL, PaintParams, World, running

POLICY = """
rules:
  - name: wipe
    when: {operation: wipe}
    gates: [{id: dba, groups: [dba], approve: 2}]
    read_all: true
    type_name: true
    step_up: true
    break_glass: {groups: [dba], reviewers: [security]}
  - name: erase
    when: {operation: erase}
    gates: [{id: dba, groups: [dba], approve: 1}]
    break_glass: {groups: [dba], reviewers: [security]}
  - name: paint
    when: {operation: paint}
    gates:
      - {id: dba, groups: [dba], approve: 1}
      - {id: security, groups: [security], approve: 1}
    ordered: true
"""
PAGES = 3  # of the plan of wipe
_REPLAYED = 401  # the very same bytes with the same signature


async def long_plan(context: Context, params: PaintParams) -> Plan:
    return Plan(
        title=f"Wipe {params.database} {params.colour}",
        steps=("Wipe",),
        statements=tuple(f"DELETE FROM t{number}; -- {'x' * 900}" for number in range(250)),
        warnings=("Nothing is left.",),
    )


def _operation(name: str, risk: Risk, plan: Any) -> Operation:
    return replace(base.operation(name), risk=risk, plan=plan)


OPERATIONS = {
    **base.OPERATIONS,
    "wipe": _operation("wipe", Risk.DESTRUCTIVE, long_plan),
    "erase": _operation("erase", Risk.DESTRUCTIVE, base.paint_plan),
}


@dataclass
class CareWorld(World):
    """A running Twokey with a clock of its own for codes."""

    secrets: dict[str, Enrolment] = field(default_factory=dict)

    async def enrol(self, user: str, person: str) -> None:
        """Set somebody's second factor up, at a moment whose codes are past."""
        factors = replace(self.twokey.desk.factors, clock=lambda: _now() - timedelta(minutes=5))
        who = Person(id=PersonId(person), name=person, slack_team="T0DEMO", slack_user=user)
        made = await factors.begin(who)
        at = _now() - timedelta(minutes=5)
        await factors.confirm(who, code_at(made.secret, counter_at(at)))
        self.secrets[user] = made

    def code(self, user: str, *, steps: int = 0) -> str:
        """A code of now."""
        return code_at(self.secrets[user].secret, counter_at(_now()) + steps)

    async def rows(self, query: str) -> list[Any]:
        """What the store holds."""
        async with self.store.begin() as conn:
            return list(await conn.execute(sa.text(query)))

    async def again(self) -> Outcome:
        """Slack delivers the last thing once more, in another second than the first time."""
        async with asyncio.timeout(30):
            while (outcome := await self.slack.again()).status == _REPLAYED:
                await asyncio.sleep(0.2)
        return outcome

    async def read_all(self, user: str, card: dict[str, Any]) -> int:
        """Open every page of the details; how many pages there were."""
        assert (await self.slack.click(user, CHANNEL, card["ts"], "details")).ok
        [view] = self.slack.views(user)
        pages = 1
        while "page_next" in str(view["blocks"]):
            assert (await self.slack.click_view(user, view["id"], "page_next")).ok
            [view] = self.slack.views(user)
            pages += 1
        await self.slack.close_view(user, view["id"])
        return pages


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.asynccontextmanager
async def care_world(
    slack: SlackStandIn, store: Store, home: Path, dsn: str, *, http: bool = True
) -> AsyncIterator[CareWorld]:
    """Twokey at work under these rules; no worker, as nothing here has to run."""
    with patch.object(base, "POLICY", POLICY), patch.object(base, "OPERATIONS", OPERATIONS):
        async with running(slack, store, home, dsn, http=http, worker=False) as made:
            yield CareWorld(slack=made.slack, store=made.store, twokey=made.twokey, url=made.url)


__all__ = ["CHANNEL", "PAGES", "STEP_SECONDS", "CareWorld", "care_world"]
