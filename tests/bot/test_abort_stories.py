"""A run that ends in order, in Slack: aborted by its button, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.operation import Answer, Attempt, Job, Mode, Plan
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_backfill_stories import buttons, says
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, PaintParams, World, running
from tests.conftest import Target

WORDS = "Wet paint is scraped off; dry paint stays."
AUDIT = sa.text("SELECT actor FROM audit_log WHERE action = 'stop_run' ORDER BY seq")


@pytest.fixture
def dry() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path, dry: asyncio.Event
) -> AsyncIterator[World]:
    async def run(job: Job, params: PaintParams, plan: Plan) -> Answer:
        """Paint until somebody aborts it, and scrape it off once the test lets it."""
        del plan

        async def scrape(attempt: Attempt) -> Any:
            await job.report("Scraping it off")
            async with asyncio.timeout(60):
                await dry.wait()
            return attempt.number

        async with asyncio.timeout(60):
            await job.until_cancelled()
        await job.step("scrape", scrape, mode=Mode.ONCE, time_limit=timedelta(minutes=2))
        return Answer(
            title=f"Scraped the {params.colour} off", facts=(("Scraped", "3 m"),), is_stopped=True
        )

    free = replace(base.OPERATIONS["free"], run=run, ends_in_order=True, abort_words=WORDS)
    operations = {**base.OPERATIONS, "free": free}
    async with running(slack, store, tmp_path, target.dsn, http=True, operations=operations) as it:
        yield it


async def test_a_run_is_aborted_and_brings_itself_to_a_safe_end(
    world: World, store: Store, dry: asyncio.Event
) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db free orders")
    card = await world.card("Running")
    assert buttons(card) == ["details", "cancel"]
    assert WORDS in str(card["blocks"])
    await slack.click("U0OLE", CHANNEL, card["ts"], "cancel")
    await world.told("U0OLE", "not yours to stop")

    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.told("U0ANA", "brings what it has begun to a safe end by itself; the thread")
    card = await world.card("Being brought to a safe end. Aborted by <@U0ANA>")
    assert buttons(card) == ["details"]
    await slack.wait_for(
        lambda: any("Scraping it off" in m["text"] for m in slack.messages(CHANNEL)), 30
    )
    again = await slack.command("U0ANA", CHANNEL, "/db cancel 1")
    assert "is being stopped already" in again.ephemerals[0]["text"]
    dry.set()

    card = await says(world, 1, "Failed")
    assert "Cancelled by ana@acme.example. Scraped the red off" in texts(card["blocks"])
    told = await slack.wait_for(
        lambda: [m for m in slack.messages(CHANNEL) if m["text"].startswith("Scraped")], 30
    )
    assert told
    assert "Cancelled by ana@acme.example.\nScraped: 3 m" in told[0]["text"]
    async with store.begin() as conn:
        assert list((await conn.execute(AUDIT)).scalars()) == ["ana@acme.example"]


async def test_the_command_does_what_the_button_does(world: World, dry: asyncio.Event) -> None:
    slack = world.slack
    dry.set()
    await slack.command("U0ANA", CHANNEL, "/db free orders blue")
    await world.card("Running")
    typed = await slack.command("U0ANA", CHANNEL, "/db cancel 1")
    assert "is told to stop" in typed.ephemerals[0]["text"]
    card = await says(world, 1, "Failed")
    assert "Scraped the blue off" in texts(card["blocks"])
