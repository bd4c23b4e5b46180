"""Bot, workers and store as processes of their own; any of them may die at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.processes import CHANNEL, Office, office

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(360)]

COPYING = "SELECT 1 FROM run_steps WHERE name = 'copy' AND state = 'started'"
TOLD = "SELECT 1 FROM outbox HAVING count(*) > 0 AND bool_and(state = 'sent')"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path) as made:
        yield made


async def test_a_bot_that_is_killed_after_the_ack_loses_neither_request_nor_card(
    place: Office,
) -> None:
    bot = await place.bot()
    assert (await place.slack.command("U0ANA", CHANNEL, "/db backup orders")).ok
    await place.kill(bot)
    await place.bot()
    await place.worker()
    card = await place.card("Waiting for approval")
    await place.approve("U0BEN", "U0CLEO", card=card)
    await place.card("Done", seconds=60)
    await place.until(TOLD)
    cards = [m for m in place.slack.messages(CHANNEL) if m.get("thread_ts", m["ts"]) == m["ts"]]
    assert len(cards) == 1
    assert len(place.thread("is complete")) == 1


async def test_a_worker_that_is_killed_in_a_backup_is_followed_by_another_and_one_backup(
    place: Office,
) -> None:
    await place.bot()
    first = await place.worker()
    assert (await place.slack.command("U0ANA", CHANNEL, "/db backup orders")).ok
    await place.approve("U0BEN", "U0CLEO", card=await place.card("Waiting"))
    await place.until(COPYING)
    await place.kill(first)
    await place.worker()
    await place.card("Done", seconds=60)
    assert len(await place.fetch("SELECT id FROM backups")) == 1
    assert [p.name.endswith(".partial") for p in (place.folder / "backups").iterdir()] == [False]
    (run,) = await place.fetch("SELECT state, epoch FROM runs")
    assert run["state"] == "done"
    assert run["epoch"] > 1


async def test_a_store_that_is_killed_between_two_votes_has_the_first_one(place: Office) -> None:
    await place.bot()
    await place.worker()
    assert (await place.slack.command("U0ANA", CHANNEL, "/db backup orders")).ok
    card = await place.card("Waiting")
    await place.approve("U0BEN", card=card)
    await place.store.stop("immediate")
    # Slack shows a failure or the bot says it; either way nobody is left without an answer.
    down = await place.slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
    assert down.error or await place.slack.wait_for(lambda: place.slack.ephemerals("U0CLEO"), 20)
    await place.store.start()
    await place.until("SELECT 1 FROM votes WHERE person = 'ben@acme.example'")
    await place.approve("U0CLEO", card=await place.card("1 of 2"))
    await place.card("Done", seconds=60)
    votes = await place.fetch("SELECT person FROM votes ORDER BY id")
    assert [row["person"] for row in votes] == ["ben@acme.example", "cleo@acme.example"]


async def test_two_bots_and_two_workers_on_one_store_tell_and_do_everything_once(
    place: Office,
) -> None:
    await place.bot()
    first_port, place.port = place.port, place.port + 1
    await place.bot()
    await asyncio.gather(place.worker(), place.worker())
    for number, port in enumerate((first_port, place.port), start=1):
        place.slack.set_request_url(f"http://127.0.0.1:{port}/slack/events")
        assert (await place.slack.command("U0ANA", CHANNEL, "/db backup orders")).ok
        card = await place.card(f"#{number}")
        await place.approve("U0BEN", card=card)
        # The other bot decides.
        other = place.port if port == first_port else first_port
        place.slack.set_request_url(f"http://127.0.0.1:{other}/slack/events")
        await place.approve("U0CLEO", card=card)
    await place.until("SELECT 1 FROM requests WHERE state = 'done' HAVING count(*) = 2")
    await place.until(TOLD)
    assert len(place.thread("is complete")) == 2
    assert len(await place.fetch("SELECT id FROM backups")) == 2
    runs = await place.fetch("SELECT epoch FROM runs")
    assert [row["epoch"] for row in runs] == [1, 1]
