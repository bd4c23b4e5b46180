"""A Slack to talk to, and rows to deliver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import open_session, web_client
from sandbox.slack.server import SlackStandIn, start_slack
from sandbox.slack.timings import Timings

MANIFEST = Path(__file__).parents[2] / "manifest.yml"


# On a busy machine three seconds are soon over, and Twokey's own limits are parts of them. That
# it answers in time is for the benchmarks to say.
HURRIED: Final = Timings(ack_seconds=30)
PATIENT: Final = Timings(ack_seconds=30, trigger_seconds=30)


@pytest.fixture
async def slack(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SlackStandIn]:
    """The stand-in, in Socket Mode until it is told a request URL.

    Twokey has its own limits in tests marked `deadlines`, and much longer ones in others.
    """
    is_hurried = request.node.get_closest_marker("deadlines") is not None
    if not is_hurried:
        monkeypatch.setattr("bot.listeners.guard.ANSWER_SECONDS_MAX", 25.0)
        monkeypatch.setattr("bot.people._LOOKUP_SECONDS_MAX", 20.0)
        monkeypatch.setattr("bot.windows.OPEN_SECONDS_MAX", 20.0)
        monkeypatch.setattr("bot.patience.QUICK", timedelta(seconds=20))
        monkeypatch.setattr("bot.app.READ_LIMIT", timedelta(seconds=20))
    made = await start_slack(manifest=MANIFEST, timings=HURRIED if is_hurried else PATIENT)
    yield made
    await made.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The process's HTTP session."""
    async with open_session() as made:
        yield made


@pytest.fixture
def client(slack: SlackStandIn, session: aiohttp.ClientSession) -> AsyncWebClient:
    """A client of the bot's."""
    return web_client(slack.bot_token, base_url=slack.api_url, session=session)
