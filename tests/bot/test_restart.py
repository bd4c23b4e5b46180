"""Cards outlive the process that drew them, and any replica answers their buttons."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from approvals.words import PlanHash, PolicyHash
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, running
from tests.conftest import Target


async def test_an_old_card_works_after_a_restart(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as first:
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await first.card("Waiting")
    async with running(slack, store, tmp_path, target.dsn, http=True) as second:
        await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
        await second.told("U0BEN", "stored")
        await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
        await second.card("Done")
    assert len(second.cards()) == 1


async def test_what_was_asked_while_nobody_delivered_is_posted_later(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False):
        slack.faults.add(method="chat.postMessage", kind="500", times=50)
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
    slack.faults.clear()
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as second:
        await second.card("Waiting")
        assert len(second.cards()) == 1


async def test_two_replicas_share_one_slack_and_draw_one_card(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with (
        running(slack, store, tmp_path, target.dsn, http=False) as one,
        running(slack, store, tmp_path, target.dsn, http=False),
    ):
        for number in range(1, 5):
            await slack.command("U0ANA", CHANNEL, "/db paint orders")
            await one.card(f"Request {number} ")
        cards = one.cards()
        assert len(cards) == 4
        await asyncio.gather(
            *(
                slack.click(user, CHANNEL, card["ts"], "approve")
                for card in cards
                for user in ("U0BEN", "U0CLEO")
            )
        )
        for card in cards:
            await slack.wait_for(
                lambda ts=card["ts"]: any(  # type: ignore[misc]
                    m["ts"] == ts and "Done" in m["text"] for m in slack.messages(CHANNEL)
                ),
                seconds=30,
            )


async def test_a_card_that_somebody_still_sees_as_it_was_is_drawn_anew(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as world:
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await world.card("Waiting")
        await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
        await world.card("Cancelled")
        pressed = await slack.click("U0BEN", CHANNEL, card["ts"], "approve", shown=card)
        assert pressed.ok
        await world.told("U0BEN", "cancelled")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"card_hash": "another card"}, "card of request 1 has changed since it was drawn"),
        (
            {"plan_hash": PlanHash("0" * 64)},
            "plan of request 1 has changed since this card was drawn",
        ),
        ({"policy_hash": PolicyHash("0" * 64)}, "rules for request 1 have changed"),
        ({"step": 7}, "moved on to another step"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "have expired"),
    ],
)
async def test_a_vote_counts_only_for_what_the_card_shows_now(
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as world:
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await world.card("Waiting")
        seal = world.twokey.desk.seal
        [value] = {
            element["value"]
            for block in card["blocks"]
            if block["type"] == "actions"
            for element in block["elements"]
            if element["action_id"] == "approve"
        }
        old = seal.close(replace(seal.open(value, now=None), **change))
        shown = json.loads(json.dumps(card).replace(value, old))
        await slack.click("U0BEN", CHANNEL, card["ts"], "approve", shown=shown)
        await world.told("U0BEN", says)
        assert "0 of 2" in texts((await world.card("2 approvals"))["blocks"])
