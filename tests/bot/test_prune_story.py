"""A prune through Slack: the card lists what goes, and a hold that comes after a vote wins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from commands import hold, prune
from jobs.operation import Database
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.commands.shelf import BY_HAND, DAY, enter, shelved
from tests.conftest import Target

RULES = """
  - name: data can be lost
    when: {risk: destructive}
    gates: [{id: dba, groups: [dba], approve: 2}]
    read_all: false
    type_name: false
  - name: holds
    when: {operation: hold}
    gates: []
"""
OPERATIONS = {"prune": prune.OPERATION, "hold": hold.OPERATION}


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    with (
        patch.object(base, "POLICY", base.POLICY + RULES),
        patch.dict(base.OPERATIONS, OPERATIONS),
    ):
        async with running(slack, store, tmp_path, target.dsn, http=True) as made:
            yield made


@pytest.fixture
async def database(world: World, store: Store) -> Database:
    """Orders, with two backups that are due to go and one that stays."""
    found = replace(world.twokey.desk.inventory.database("orders"), backups=BY_HAND)
    now = datetime.now(UTC)
    records = [
        shelved(found, name, age * DAY, now=now)
        for name, age in (("orders-old-a", 60), ("orders-old-b", 50), ("orders-new", 1))
    ]
    await enter(store, *records, proven=["orders-new"])
    return found


async def test_the_card_lists_every_removal_and_a_hold_after_a_vote_wins(
    world: World, database: Database
) -> None:
    slack = world.slack
    assert (await slack.command("U0ANA", CHANNEL, "/db prune orders reason=space")).ok
    card = await world.card("Waiting for approval")
    shown = texts(card["blocks"])
    assert "Prune the backups of orders: 2 backups of 8 kB" in shown
    for line in ("remove  orders-old-a", "remove  orders-old-b", "keep    orders-new"):
        assert line in shown
    assert "Was kept 30 d as daily" in shown
    assert "Undo: there is none" in shown
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    await world.told("U0BEN", "Your approve of request 1 is stored")

    held = await slack.command("U0BEN", CHANNEL, '/db hold orders orders-old-a "the audit"')
    assert held.ok
    await slack.wait_for(
        lambda: any("orders-old-a is on hold" in m["text"] for m in slack.messages(CHANNEL)),
        seconds=30,
    )
    assert (await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")).ok

    said = "orders-old-a stays. On hold by ben@acme.example: the audit"
    await slack.wait_for(
        lambda: any(said in m["text"] for m in slack.messages(CHANNEL)), seconds=30
    )
    left = {path.name for path in database.backup_folder.iterdir()}
    assert left == {"orders-old-a", "orders-new"}
