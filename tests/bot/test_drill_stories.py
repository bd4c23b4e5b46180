"""A disaster is rehearsed in Slack: asked for, agreed to, told to the channel, and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands import drill, drills
from jobs.drill_words import Phase
from jobs.drilling import Drill
from sandbox.ha import PairSandbox
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_failover_stories import nodes_of, says
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.commands.test_failover import prove_backup

POLICY = """
rules:
  - name: a drill
    when: {operation: drill, kind: [primary-crash], risk: destructive}
    gates: [{id: dba, groups: [dba]}]
"""


@pytest.fixture
async def world(
    slack: SlackStandIn,
    store: Store,
    pair: PairSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    cluster = (
        f"    cluster:\n      kind: pair\n      nodes:{nodes_of(pair)}"
        "      drills: {kinds: [primary-crash], leaves: 1, schedule: null}\n"
    )
    changes = {each.OPERATION.name: each.OPERATION for each in (drill, drills)}
    monkeypatch.setattr(base, "POLICY", POLICY)
    monkeypatch.setattr(base, "INVENTORY", base.INVENTORY + cluster)
    dsn = pair.dsn(await pair.primary())
    async with running(
        slack, store, tmp_path, dsn, http=True, operations={**base.OPERATIONS, **changes}
    ) as made:
        yield made


async def asked(world: World, store: Store) -> dict[str, Any]:
    """The card of a drill that waits for its votes."""
    await prove_backup(store, datetime.now(UTC))
    await world.slack.command("U0ANA", CHANNEL, "/db drill orders primary-crash")
    return await says(world, 1, "Waiting for approval")


async def agree(world: World, card: dict[str, Any]) -> None:
    """Read what data can be lost by, name the database, and approve."""
    slack = world.slack
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "details")).ok
    [view] = slack.views("U0BEN")
    await slack.close_view("U0BEN", view["id"])
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    [view] = slack.views("U0BEN")
    sent = await slack.submit("U0BEN", view["id"], {"typed": {"text": "orders"}})
    assert sent.ok, (sent.error, sent.errors)


async def test_a_primary_is_killed_and_the_channel_reads_what_it_cost(
    world: World, pair: PairSandbox, store: Store
) -> None:
    slack, old = world.slack, await pair.primary()
    card = await asked(world, store)
    assert f"Drill primary-crash: {old} of orders" in texts(card["blocks"])
    await agree(world, card)
    card = await says(world, 1, "Done")
    assert "Drill passed: primary-crash of orders" in card["text"]
    said = " ".join(texts(each.get("blocks") or []) for each in slack.messages(CHANNEL))
    assert "A drill begins now: primary-crash of orders" in said
    assert "The drill primary-crash of orders passed" in said
    assert await pair.primary() == old
    seen = await slack.command("U0ANA", CHANNEL, "/db drills orders")
    assert "primary-crash" in texts(seen.ephemerals[0]["blocks"])


async def test_the_button_brings_a_drill_to_a_safe_end(
    world: World, pair: PairSandbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack, old = world.slack, await pair.primary()
    card = await asked(world, store)
    reach, is_there = Drill.reached, asyncio.Event()

    async def wait_for_the_button(drill: Drill, phase: Phase, done: Any) -> None:
        await reach(drill, phase, done)
        if phase is Phase.CONNECTED:
            is_there.set()
            await drill.job.until_cancelled()

    monkeypatch.setattr(Drill, "reached", wait_for_the_button)
    await agree(world, card)
    card = await says(world, 1, "Running")
    async with asyncio.timeout(60):
        await is_there.wait()
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    card = await says(world, 1, "Cancelled")
    (other,) = pair.others(old)
    assert await pair.primary() == other  # gone forward, and not switched back
    assert await pair.follows(old, other)
    said = " ".join(texts(each.get("blocks") or []) for each in slack.messages(CHANNEL))
    assert "The drill primary-crash of orders was aborted" in said
