"""A restore into place through Slack: every page opened, the name typed, and back again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.inventory import Inventory, parse_inventory
from commands import restore, restore_confirm, restore_undo
from postgres.server import find_binaries
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_follow_up_stories import first
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, running
from tests.bot.world import World as Slack
from tests.conftest import folder_of_its_own
from tests.jobs.place_world import World, opened

OPERATIONS = {one.OPERATION.name: one.OPERATION for one in (restore, restore_undo, restore_confirm)}
POLICY = """
rules:
  - name: everything
    fallback: true
    gates: [{id: dba, groups: [dba]}]
"""


@pytest.fixture
async def place(store: Store) -> AsyncIterator[World]:
    async with opened(find_binaries(os.environ), folder_of_its_own(), store) as made:
        await made.backup()
        await made.sql("INSERT INTO orders VALUES (501)")
        yield made


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, place: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Slack]:
    def inventory(home: Path, dsn: str) -> Inventory:
        (home / "policy.yml").write_text(POLICY)
        made = parse_inventory(base.INVENTORY % dsn, path=home / "twokey.yml", environ={})
        return replace(made, databases={"orders": replace(place.database, channel=CHANNEL)})

    monkeypatch.setattr(base, "OPERATIONS", OPERATIONS)
    monkeypatch.setattr(base, "inventory", inventory)
    home = place.home / "bot"
    home.mkdir()
    async with running(slack, store, home, place.server.dsn("shop"), http=True) as made:
        yield made


@pytest.mark.timeout(180)
async def test_a_server_is_replaced_and_comes_back_only_with_care(
    world: Slack, place: World
) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db restore orders --backup orders-1 --into place")
    await _agreed_with_care(world, 1, "in its place")
    assert await place.rows() == set(range(1, 501))

    await slack.command("U0ANA", CHANNEL, "/db restore-undo orders 1")
    await _agreed_with_care(world, 2, "Undo restore #1")
    assert await place.rows() == set(range(1, 502))


async def _agreed_with_care(world: Slack, number: int, title: str) -> None:
    """Ben may not agree without the pages, nor with another name; with both it is done."""
    slack = world.slack
    card = await first(world, number, title)
    assert "every page of Details opened, the database's name typed" in texts(card["blocks"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "You have opened 0 of")
    await slack.click("U0BEN", CHANNEL, card["ts"], "details")
    [view] = slack.views("U0BEN")
    while "page_next" in str(view["blocks"]):
        await slack.click_view("U0BEN", view["id"], "page_next")
        [view] = slack.views("U0BEN")
    await slack.close_view("U0BEN", view["id"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    [view] = slack.views("U0BEN")
    assert view["callback_id"] == "approve_care"
    await slack.submit("U0BEN", view["id"], {"typed": {"text": "shop"}})
    assert len(slack.views("U0BEN")) == 1
    await slack.submit("U0BEN", view["id"], {"typed": {"text": "orders"}})
    await world.slack.wait_for(lambda: _is_done(world, number), seconds=90)


def _is_done(world: Slack, number: int) -> bool:
    cards = [card for card in world.cards() if f"Request {number} " in card["text"]]
    return bool(cards) and "Done" in texts(cards[-1]["blocks"])
