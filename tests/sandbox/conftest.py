"""A stand-in with short deadlines, the real SDK, and the real Bolt over both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn, start_slack
from sandbox.slack.timings import Timings
from tests.sandbox.support import MANIFEST, QUICK, Bot, client_of


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def slack() -> AsyncIterator[SlackStandIn]:
    """The demo workspace with the product's own manifest."""
    standin = await start_slack(manifest=MANIFEST, timings=QUICK)
    yield standin
    await standin.close()


@pytest.fixture
def client(slack: SlackStandIn) -> AsyncWebClient:
    """The real SDK, with the bot's token."""
    return client_of(slack)


@pytest.fixture
async def granting(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts a stand-in after a change of the manifest, such as `scoped(...)`."""
    async with AsyncExitStack() as stack:

        async def start(
            change: Callable[[dict[str, Any]], None], timings: Timings = QUICK
        ) -> SlackStandIn:
            raw = yaml.safe_load(MANIFEST.read_text())
            change(raw)
            path = tmp_path / "manifest.yml"
            path.write_text(yaml.safe_dump(raw))
            standin = await start_slack(manifest=path, timings=timings)
            stack.push_async_callback(standin.close)
            return standin

        yield start


@pytest.fixture(params=["http", "socket"])
def bot(slack: SlackStandIn, request: pytest.FixtureRequest) -> Bot:
    """The same app over both transports."""
    return Bot(slack, request.param)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client, for what the SDK would not send."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as one:
        yield one
