"""A primary hands over in Slack: asked for, agreed to, proven, and switched back by the button."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands import failover, rejoin, replication
from sandbox.ha import PairSandbox
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.commands.test_failover import prove_backup

POLICY = """
rules:
  - name: a planned one
    when: {operation: failover, kind: planned, risk: disruptive, regions: other}
    gates: [{id: dba, groups: [dba]}]
"""
NODE = """
        - name: {name}
          region: {region}
          dsn: '{dsn}'
          host: {{data: {data}, programs: {programs}}}
"""


def nodes_of(pair: PairSandbox) -> str:
    """The servers of a pair as the inventory names them."""
    return "".join(
        NODE.format(
            name=each.name,
            region=each.region,
            dsn=pair.dsn(each.name),
            data=each.host.data,
            programs=each.host.programs,
        )
        for each in pair.specs
        if each.host is not None
    )


@pytest.fixture
async def world(
    slack: SlackStandIn,
    store: Store,
    pair: PairSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    cluster = f"    cluster:\n      kind: pair\n      nodes:{nodes_of(pair)}"
    changes = {each.OPERATION.name: each.OPERATION for each in (failover, rejoin, replication)}
    monkeypatch.setattr(base, "POLICY", POLICY)
    monkeypatch.setattr(base, "INVENTORY", base.INVENTORY + cluster)
    dsn = pair.dsn(await pair.primary())
    async with running(
        slack, store, tmp_path, dsn, http=True, operations={**base.OPERATIONS, **changes}
    ) as made:
        yield made


async def says(world: World, request_id: int, what: str) -> dict[str, Any]:
    """The card of a request, once it says this."""

    def found() -> dict[str, Any] | None:
        for card in world.cards():
            if card["text"].startswith(f"Request {request_id} ") and what in card["text"]:
                return card
        return None

    card = await world.slack.wait_for(found, seconds=60)
    assert card is not None
    return card


async def test_a_primary_hands_over_and_the_button_takes_it_back(
    world: World, pair: PairSandbox, store: Store
) -> None:
    slack = world.slack
    await prove_backup(store, datetime.now(UTC))
    old = await pair.primary()
    (new,) = pair.others(old)
    seen = await slack.command("U0ANA", CHANNEL, "/db replication orders")
    shown = texts(seen.ephemerals[0]["blocks"])
    assert old in shown
    assert new in shown
    await slack.command("U0ANA", CHANNEL, "/db failover orders")
    card = await says(world, 1, "Waiting for approval")
    assert f"Switch from {old} to {new}" in texts(card["blocks"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await says(world, 1, "Done")
    assert f"{new} is the primary" in card["text"]
    assert await pair.primary() == new
    await pair.healthy()
    seen = await slack.command("U0ANA", CHANNEL, "/db replication orders")
    assert f"primary {new}" in texts(seen.ephemerals[0]["blocks"])  # looked at anew

    await slack.click("U0ANA", CHANNEL, card["ts"], "undo")
    view = await slack.wait_for(lambda: slack.views("U0ANA")[-1:] or None, seconds=30)
    assert view is not None
    sent = await slack.submit("U0ANA", view[0]["id"], {"reason": {"text": "The window is over."}})
    assert sent.ok, (sent.error, sent.errors)
    back = await says(world, 2, "Waiting for approval")
    assert f"Switch from {new} to {old}" in texts(back["blocks"])
    await slack.click("U0BEN", CHANNEL, back["ts"], "approve")
    await says(world, 2, "Done")
    assert await pair.primary() == old


async def test_what_speaks_against_it_is_said_at_once(world: World, pair: PairSandbox) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, "/db failover orders")
    assert "No backup has ever been restored as a test" in typed.ephemerals[0]["text"]
    typed = await world.slack.command("U0ANA", CHANNEL, "/db failover orders forced=true")
    assert "The primary is gone" in typed.ephemerals[0]["text"]
    assert len(await pair.writable()) == 1
