"""A whole shell around a scenario's people: what every door's driver stands on."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import sqlalchemy as sa
from pydantic import BaseModel

from approvals.inbox import Inbox
from approvals.memory import DEFAULT_PLAN, DEFAULT_TARGET, loaded
from approvals.scenario_file import EventModel, Scenario
from approvals.service import Approvals
from approvals.town import Town
from approvals.words import (
    DirectoryDownError,
    Person,
    PersonId,
    RefusedError,
    RequestId,
    State,
    Why,
)
from bot.api import Api
from bot.app import build
from bot.cards import plan_as_json
from bot.desk import Desk
from bot.edge import Gate
from bot.http import serve_http, web_app
from bot.inventory import Inventory
from bot.metrics import Metrics
from bot.slack import open_session
from jobs.operation import Answer, Context, Job, Kind, Operation, Plan, Risk
from sandbox.slack.server import SlackStandIn, start_slack
from store.connect import Store
from tests.approvals.support import KEYS, Queue, StoreWorld
from tests.bot import world as bot_world

TEAM: Final = "T0DEMO"
SECRET: Final = "the signing secret of the doors"
NO_SUCH_REQUEST: Final = RequestId(10**12)
# What no door offers to people: the worker's doing, the clock's, and what an operator does.
SEAM: Final = frozenset({"execute", "finish", "attrs_change", "plan_change", "reopen"})
MANIFEST = Path(__file__).parents[3] / "manifest.yml"


def user_of(name: str) -> str:
    """The Slack account of somebody in a scenario; every alias is an account of its own."""
    return "U0" + name.strip().casefold().encode().hex().upper()


class TownDirectory:
    """The directory of a scenario's people, where Slack's would be."""

    def __init__(self, town: Town) -> None:
        self.town = town

    async def by_slack(self, team: str, user: str) -> Person:
        if not self.town.up:
            raise DirectoryDownError("The directory is down.", next_step="Wait.")
        found = self.town.find(bytes.fromhex(user.removeprefix("U0")).decode())
        if found is None:
            raise RefusedError("Nobody has it.", next_step="Ask.", why=Why.IDENTITY)
        return replace(found, slack_team=team, slack_user=user)

    async def by_id(self, person: PersonId, slack: str) -> Person:
        return await self.by_slack(TEAM, slack.partition("/")[2] or user_of(person))

    def forget(self, user: str) -> None:
        """Nothing is remembered."""

    def forget_group(self, group: str) -> None:
        """Nothing is remembered."""


class PlayParams(BaseModel, extra="forbid"):
    """What is played on."""

    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all worlds of one test share: a store, and the desk that `bot.app` wires."""

    store: Store
    desk: Desk
    session: aiohttp.ClientSession
    slack: SlackStandIn


@contextlib.asynccontextmanager
async def ground_on(store: Store, home: Path) -> AsyncIterator[Ground]:
    """The wiring of `bot.app`, of which each world replaces what differs."""
    slack = await start_slack(manifest=MANIFEST)
    try:
        async with open_session() as session:
            twokey = await build(
                bot_world.settings(slack, store, home, http=True),
                bot_world.inventory(home, "postgresql://nobody@127.0.0.1:1/none"),
                store=store,
                session=session,
                operations=bot_world.OPERATIONS,
            )
            yield Ground(store=store, desk=twokey.desk, session=session, slack=slack)
            await twokey.close()
    finally:
        await slack.close()


@dataclass(slots=True, kw_only=True)
class DoorWorld(StoreWorld):
    """A world in which people go through a door; the worker and the clock are `StoreWorld`'s."""

    ground: Ground
    desk: Desk | None = None
    url: str = ""
    title: str = DEFAULT_PLAN
    attributes: Mapping[str, Any] = field(default_factory=dict)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @classmethod
    async def through(cls, ground: Ground, scenario: Scenario, number: int) -> DoorWorld:
        """A new world at this door."""
        made = cls(
            store=ground.store,
            town=Town.of(scenario.people),
            text=scenario.policy,
            number=number,
            ground=ground,
        )
        async with ground.store.begin() as conn:
            await conn.execute(sa.text("DELETE FROM tokens"))  # another world's people
        made.restart()
        await made.open()
        return made

    def restart(self) -> None:
        policy = loaded(self.text)
        self.service = self.desk = None
        if policy is None:
            return
        people = TownDirectory(self.town)
        self.service = Approvals(
            store=self.store, keys=KEYS, queue=Queue(), clock=self.clock, policy=policy,
            directory=people,
        )  # fmt: skip
        desk = self.ground.desk
        inventory = self._inventory()
        self.desk = replace(
            desk,
            approvals=self.service,
            inbox=Inbox(store=self.store, keys=KEYS, approvals=self.service, clock=self.clock),
            people=people,  # type: ignore[arg-type]
            planner=replace(
                desk.planner, inventory=inventory, clock=self.clock, limit=timedelta(seconds=5)
            ),
            inventory=inventory,
            operations={"backup": self._operation()},
            cards=replace(desk.cards, approvals=self.service),
            metrics=Metrics(),
            clock=self.clock,
            tokens=replace(desk.tokens, keys=KEYS, clock=self.clock, lifetime=timedelta(days=7)),
        )

    async def open(self) -> None:
        """Begin to listen; what was there before is closed."""
        await self.close()
        if self.desk is not None:
            app = web_app(
                bolt=self.bolt(self.desk), gate=Gate([SECRET]), store=self.store,
                metrics=self.desk.metrics, clock=self.clock, api=Api(self.desk).routes(),
            )  # fmt: skip
            runner = await serve_http(app, host="127.0.0.1", port=0)
            self.stack.push_async_callback(runner.cleanup)
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening."""
        await self.stack.aclose()

    def bolt(self, desk: Desk) -> Any:
        """Slack's app, at Slack's door."""
        return None

    @abstractmethod
    async def at_door(self, event: EventModel, request_id: RequestId) -> str:
        """What comes of it when a person does this at the door."""

    async def play(self, event: EventModel, at: Any) -> str:
        result = await StoreWorld.play(self, event, at)
        if event.do in ("restart", "policy_change"):
            if event.do == "policy_change":
                self.restart()
            await self.open()
        return result

    async def _decide(self, event: EventModel) -> str:
        if event.do in SEAM or self.desk is None:
            return await StoreWorld._decide(self, event)
        if event.do == "request":
            return await self._request(event)
        request_id = self.ids.get(event.req, NO_SUCH_REQUEST)
        if event.do == "cancel" and await self._state(request_id) is State.EXECUTING:
            return await self._stop(event, request_id)
        result = await self.at_door(event, request_id)
        self.executions_count += event.do == "break_glass" and result == "ok"
        return result

    async def _stop(self, event: EventModel, request_id: RequestId) -> str:
        """At a door, cancelling what runs stops its run; the request is not cancelled by it."""
        result = await self.at_door(event, request_id)
        assert result in ("ok", "noop", "no:not_requester"), result
        assert await self._state(request_id) is State.EXECUTING
        return "no:closed"

    async def _state(self, request_id: RequestId) -> State | None:
        assert self.service
        record = await self.service.load(request_id)
        return record.state if record else None

    async def _request(self, event: EventModel) -> str:
        """At the door, unless it asks for what people cannot ask for there."""
        self.title, self.attributes = event.plan or DEFAULT_PLAN, event.attrs or {}
        beyond = event.ttl is not None or event.beneficiary is not None
        if beyond or "check_satisfiable" in self.text:
            return await StoreWorld._decide(self, event)
        before = await self._newest()
        result = await self.at_door(event, NO_SUCH_REQUEST)
        newest = await self._newest()
        if newest is not None and newest != before:
            self.ids[event.req] = newest
        elif event.req not in self.ids:
            self.refused.add(event.req)
        return result

    async def _newest(self) -> RequestId | None:
        query = "SELECT max(id) FROM requests WHERE database LIKE :like"
        async with self.store.begin() as conn:
            found = await conn.scalar(sa.text(query), {"like": f"w{self.number}\\_%"})
        return None if found is None else RequestId(found)

    def _stored_plan(self, title: str) -> Mapping[str, Any]:
        return plan_as_json(Plan(title=title, steps=("Do it",), attributes=dict(self.attributes)))

    def _params(self, database: str) -> Mapping[str, Any]:
        return {"database": database}

    def _operation(self) -> Operation:
        async def plan(context: Context, params: PlayParams) -> Plan:
            return Plan(title=self.title, steps=("Do it",), attributes=dict(self.attributes))

        async def run(job: Job, params: PlayParams, plan: Plan) -> Answer:
            return Answer(title="Played")

        return Operation(
            name="backup", summary="Play", kind=Kind.CHANGE, risk=Risk.RECOVERABLE,
            params=PlayParams, example="/db backup orders", plan=plan, run=run,
            pinned=frozenset(),
        )  # fmt: skip

    def _inventory(self) -> Inventory:
        given = self.ground.desk.inventory
        model = next(iter(given.databases.values()))
        names = [self._target(name) for name in (DEFAULT_TARGET, "db2", "db3", "a", "b")]
        return replace(given, databases={name: replace(model, name=name) for name in names})
