"""A Slack to talk to, and rows to deliver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import open_session, web_client
from sandbox.slack.server import SlackStandIn, start_slack

MANIFEST = Path(__file__).parents[2] / "manifest.yml"


@pytest.fixture
async def slack() -> AsyncIterator[SlackStandIn]:
    """The stand-in, in Socket Mode until it is told a request URL."""
    made = await start_slack(manifest=MANIFEST)
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
