"""Many approvers press Approve at once: all are answered, and it is granted once.

How soon they are answered is what `bench/clicks.py` measures, with the bot in a process of its
own. Here Slack, its directory and the bot share one, so a crowd through Slack is a smaller one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.service import Approvals
from approvals.words import State
from jobs.engine import PgQueue
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.approvals.support import KEYS, NOON, a_ballot, an_ask, dba, policy_of
from tests.bot import world as worlds
from tests.bot.world import CHANNEL, running
from tests.conftest import Target

CLICKS, QUORUM = 20, 12
VOTES, ENOUGH = 100, 60
SECONDS_MAX = 30.0


async def timed(call: Callable[[], Awaitable[object]], start: asyncio.Event) -> float:
    await start.wait()
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def all_at_once(calls: list[Callable[[], Awaitable[object]]]) -> list[float]:
    """How long each took, shortest first."""
    start = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(timed(call, start)) for call in calls]
        start.set()
    return sorted(task.result() for task in tasks)


def told(what: str, took: list[float]) -> None:
    middle, high = took[len(took) // 2], took[int(len(took) * 0.99) - 1]
    print(f"{len(took)} {what}: p50 {middle * 1000:.0f} ms, p99 {high * 1000:.0f} ms")  # noqa: T201


async def counted(store: Store, query: str) -> int:
    async with store.begin() as conn:
        return int((await conn.execute(sa.text(query))).scalar_one())


async def granted_once(store: Store, quorum: int) -> None:
    """The quorum exactly, one grant, one run."""
    assert await counted(store, "SELECT count(*) FROM votes") == quorum
    assert await counted(store, "SELECT count(DISTINCT person) FROM votes") == quorum
    assert await counted(store, "SELECT count(*) FROM runs") == 1
    entries = (
        "SELECT count(*) FROM audit_log WHERE action = 'vote' AND detail ->> 'to' = 'approved'"
    )
    assert await counted(store, entries + " AND detail ->> 'result' = 'ok'") == 1


@pytest.mark.timeout(120)
async def test_through_slack(
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = worlds.POLICY.replace("approve: 2", f"approve: {QUORUM}")
    monkeypatch.setattr(worlds, "POLICY", policy)
    model = slack.workspace.people["U0BEN"]
    users = [f"U0N{number:03}" for number in range(CLICKS)]
    for user in users:
        person = replace(model, id=user, name=user.lower(), email=f"{user.lower()}@acme.example")
        await slack.admin.join(person)
    await slack.admin.set_group("S0DBA", tuple(users))
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as made:
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await made.card("Waiting")
        answers: list[bool] = []

        async def click(user: str) -> None:
            sent = await slack.click(user, CHANNEL, card["ts"], "approve", shown=card)
            answers.append(sent.ok)

        before = time.process_time()
        took = await all_at_once([lambda user=user: click(user) for user in users])  # type: ignore[misc]
        spent = (time.process_time() - before) * 1000 / CLICKS
        told(f"clicks through edge, Bolt and store, {spent:.0f} ms of processor each", took)
        assert answers == [True] * CLICKS
        assert took[-1] < SECONDS_MAX

        async def all_told() -> bool:
            return all(slack.ephemerals(user) for user in users)

        async with asyncio.timeout(30):
            while not await all_told():
                await asyncio.sleep(0.05)
        said = Counter(slack.ephemerals(user)[-1]["text"][:40] for user in users)
        assert said.total() == CLICKS, said
        await granted_once(store, QUORUM)


async def test_the_service_alone(store: Store) -> None:
    approvals = Approvals(
        store=store, keys=KEYS, queue=PgQueue(store), clock=lambda: NOON, policy=policy_of(ENOUGH)
    )
    asked = await approvals.ask(an_ask())
    decisions: list[Decision] = []

    async def vote(number: int) -> None:
        decisions.append(await approvals.vote(a_ballot(asked, dba(f"n{number}"))))

    took = await all_at_once([lambda n=n: vote(n) for n in range(VOTES)])  # type: ignore[misc]
    told("votes through the service alone", took)
    assert took[-1] < SECONDS_MAX
    assert sum(decision.ok for decision in decisions) == ENOUGH
    late = [decision for decision in decisions if not decision.ok]
    assert {decision.why for decision in late} == {"closed"}
    assert all(decision.problem and decision.next_step for decision in late)
    assert asked.request
    record = await approvals.load(asked.request.id)
    assert record
    assert record.state is State.APPROVED
    await granted_once(store, ENOUGH)
