"""A whole Twokey beside a Slack: two toy operations, one database, three people's keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from bot.app import assembled
from bot.inventory import Inventory, parse_inventory
from bot.outbox import Pace
from bot.process import Twokey
from bot.settings import Settings
from jobs.limits import Limits
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    UndoCall,
)
from sandbox.slack.server import SlackStandIn
from store.connect import Store

CHANNEL = "C0DBOPS"
FAST = Pace(
    between=timedelta(milliseconds=5),
    poll=timedelta(milliseconds=300),
    first_retry=timedelta(milliseconds=50),
    retry_max=timedelta(milliseconds=200),
)
POLICY = """
rules:
  - name: paint
    when: {operation: paint}
    gates: [{id: dba, groups: [dba], approve: 2}]
    reason_to_deny: true
  - name: free
    when: {operation: free}
    gates: []
  - name: varnish
    when: {operation: varnish}
    gates: []
  - name: silence
    when: {operation: [silence, unsilence]}
    gates: []
"""
INVENTORY = """
policy: policy.yml
groups: {dba: S0DBA, security: S0SECURITY}
databases:
  orders:
    dsn: %s
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups
    monitoring: false
"""


class PaintParams(BaseModel, extra="forbid"):
    """What to paint."""

    database: str = Field(description="Database in the inventory")
    colour: str = Field(default="red", pattern="^[a-z]+$", description="A colour")
    coats: int = Field(default=1, ge=1, le=9, description="How often")


class OneDatabase(BaseModel, extra="forbid"):
    """Only a database."""

    database: str = Field(description="Database in the inventory")


async def paint_plan(context: Context, params: PaintParams) -> Plan:
    if params.colour == "slow":
        await asyncio.sleep(30)
    if params.colour == "late":
        await asyncio.sleep(2.4)
    if params.colour == "refused":
        raise JobError("There is no more paint.", next_step="Buy some.")
    if params.colour == "broken":
        raise KeyError("a bug")
    [row] = await context.reader.rows("SELECT current_database() AS name")
    return Plan(
        title=f"Paint {params.database} {params.colour}",
        steps=("Open the tin", "Paint"),
        facts=(("Database", str(row["name"])),),
    )


async def paint_run(job: Job, params: PaintParams, plan: Plan) -> Answer:
    async def body(attempt: Attempt) -> Any:
        await job.report("Painting", fraction=0.5)
        if params.colour == "fails":
            raise JobError("The tin is empty.", next_step="Buy another one.")
        if params.colour == "forever":
            await asyncio.sleep(60)
        return params.colour

    colour = await job.step("paint", body, mode=Mode.RETRYABLE, time_limit=timedelta(seconds=70))
    return Answer(title=f"Painted {colour}", numbers={"coats": params.coats})


async def colours(context: Context, params: OneDatabase) -> Answer:
    return Answer(title=f"Colours of {params.database}", lines=("red", "<blue>"))


def operation(name: str) -> Operation:
    return Operation(
        name=name,
        summary="Paint a database",
        kind=Kind.CHANGE,
        risk=Risk.RECOVERABLE,
        params=PaintParams,
        example=f"/db {name} orders red",
        plan=paint_plan,
        run=paint_run,
    )


def strip(params: PaintParams, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """What undoes varnish, but for clear varnish, of which nothing is seen."""
    if params.colour == "clear":
        return None
    told = {"database": params.database, "colour": "bare", "coats": numbers["coats"]}
    return UndoCall(operation="paint", params=told, within=timedelta(hours=1))


OPERATIONS = {
    "varnish": replace(operation("varnish"), undo=strip),
    "paint": operation("paint"),
    "free": operation("free"),
    "forbidden": operation("forbidden"),
    "colours": Operation(
        name="colours",
        summary="Which colours there are",
        kind=Kind.QUERY,
        risk=Risk.NONE,
        params=OneDatabase,
        example="/db colours orders",
        answer=colours,
    ),
}


@dataclass
class World:
    """A running Twokey and the Slack beside it."""

    slack: SlackStandIn
    store: Store
    twokey: Twokey
    url: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def cards(self) -> list[dict[str, Any]]:
        """The cards in the channel, oldest first."""
        return [
            m
            for m in self.slack.messages(CHANNEL)
            if not m.get("thread_ts") or m["thread_ts"] == m["ts"]
        ]

    async def card(self, says: str = "Request") -> dict[str, Any]:
        """The newest card, once it says this."""

        def found() -> dict[str, Any] | None:
            cards = self.cards()
            return cards[-1] if cards and says in cards[-1]["text"] else None

        card = await self.slack.wait_for(found, seconds=30)
        assert card is not None
        return card

    async def told(self, user: str, says: str) -> str:
        """What Twokey told one person alone, once it says this."""

        def found() -> str | None:
            texts = [m["text"] for m in self.slack.ephemerals(user)]
            return next((text for text in reversed(texts) if says in text), None)

        text = await self.slack.wait_for(found, seconds=30)
        assert text is not None
        return text


def inventory(home: Path, dsn: str) -> Inventory:
    (home / "policy.yml").write_text(POLICY)
    return parse_inventory(INVENTORY % dsn, path=home / "twokey.yml", environ={})


def settings(slack: SlackStandIn, store: Store, home: Path, *, http: bool) -> Settings:
    limit = slack._platform.timings.trigger_seconds
    return Settings(
        store=store.dsn,
        home=home,
        vote_key="k" * 32,  # type: ignore[arg-type]
        slack_bot_token=slack.bot_token,  # type: ignore[arg-type]
        slack_signing_secret=slack.signing_secret if http else None,  # type: ignore[arg-type]
        slack_app_token=None if http else slack.app_token,  # type: ignore[arg-type]
        slack_api_url=slack.api_url,
        http_port=0,
        people_cache=timedelta(0),
        plan_limit=timedelta(seconds=limit / 2),
        form_plan_limit=timedelta(seconds=max(4, limit / 2)),
        stop_limit=timedelta(seconds=5),
    )


@contextlib.asynccontextmanager
async def running(
    slack: SlackStandIn,
    store: Store,
    home: Path,
    dsn: str,
    *,
    http: bool,
    worker: bool = True,
    operations: Mapping[str, Operation] | None = None,
) -> AsyncIterator[World]:
    """Twokey at work; it is stopped at the end of the block."""
    async with assembled(
        settings(slack, store, home, http=http),
        inventory(home, dsn),
        store=store,
        operations=operations or OPERATIONS,
        pace=FAST,
        limits=Limits(poll=timedelta(milliseconds=200), stop_grace=timedelta(seconds=2)),
    ) as twokey:
        urls: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()
        task = asyncio.create_task(twokey.run(stop, worker=worker, listening=urls.put_nowait))
        getting = asyncio.create_task(urls.get())
        await asyncio.wait({task, getting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if task.done():
            task.result()
        url = getting.result()
        if http:
            slack.set_request_url(f"{url}/slack/events")
        try:
            yield World(slack=slack, store=store, twokey=twokey, url=url, stop=stop)
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task
