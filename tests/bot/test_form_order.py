"""What came of a form is never covered by "planning", however late Slack takes the ack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot.background import Background
from bot.form_desk import FormDesk
from bot.listeners.forms import FormListeners
from bot.replies import Replies
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.test_form_stories import front, opened, says
from tests.bot.views.cards import texts
from tests.bot.world import World, running
from tests.conftest import Target


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True) as made:
        yield made


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    made = Background(limit=timedelta(seconds=10))
    yield made
    await made.drain()


def body_of(view: dict[str, Any]) -> dict[str, Any]:
    """Ana sends the form as it is, with a database chosen."""
    state = dict(view["state"]["values"])
    option = {"text": {"type": "plain_text", "text": "orders"}, "value": "orders"}
    state["param.database"] = {
        "form_database": {"type": "external_select", "selected_option": option}
    }
    return {
        "team": {"id": "T0DEMO"},
        "user": {"id": "U0ANA", "team_id": "T0DEMO"},
        "view": {**view, "state": {"values": state}},
    }


async def test_a_result_waits_until_slack_has_taken_the_ack(
    world: World, client: AsyncWebClient, background: Background
) -> None:
    view = await opened(world)
    acks: list[dict[str, Any]] = []

    async def ack(**given: Any) -> None:
        acks.append(given)  # it is on its way; Slack has not got it

    def updates() -> list[str]:
        return [entry.kind for entry in world.slack.wire if "views.update" in entry.kind]

    async with aiohttp.ClientSession() as session:
        listeners = FormListeners(
            forms=FormDesk(desk=world.twokey.desk),
            replies=Replies(client, session),
            background=background,
            patience=timedelta(0),
        )
        await listeners.sent(ack, body_of(view))  # type: ignore[arg-type]
        [given] = acks
        assert "Planning" in texts(given["view"]["blocks"])
        # The plan is there before Slack has the ack: nothing is shown yet, and it is tried again.
        await world.slack.wait_for(updates)
        assert (await front(world))["id"] == view["id"]
        assert "is stored" not in texts((await front(world))["blocks"])
        await client.views_update(view_id=view["id"], view=given["view"])  # Slack takes it
        shown = await says(world, "Request *#1* is stored")
        await background.drain()
    assert len(updates()) >= 3
    assert (await front(world))["blocks"] == shown["blocks"]
