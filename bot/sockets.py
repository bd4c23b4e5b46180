"""Socket Mode: the same Bolt app, reached over connections that we open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import bypasses_proxy
from jobs.away import pause_seconds

log: Final = logging.getLogger("twokey.sockets")

SOCKETS: Final = 2  # while one is being renewed the other listens
PING_SECONDS: Final = 5  # a connection that broke silently is noticed after this


@asynccontextmanager
async def open_sockets(
    bolt: AsyncApp, token: str, *, client: AsyncWebClient, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Connections that renew themselves; waits for Slack until `stop` is set."""
    async with AsyncExitStack() as stack:
        for _ in range(SOCKETS):
            handler = AsyncSocketModeHandler(
                bolt, token, web_client=client, ping_interval=PING_SECONDS
            )
            if bypasses_proxy(client.base_url):
                handler.client.proxy = None
            stack.push_async_callback(handler.client.close)
            await _connect(handler, stop)
        yield


async def _connect(handler: AsyncSocketModeHandler, stop: asyncio.Event) -> None:
    connect: Callable[[], Awaitable[None]] = handler.client.connect
    failures = 0
    while not stop.is_set():
        try:
            await connect()
        except Exception as error:  # noqa: BLE001 - slack_sdk raises many kinds here
            failures += 1
            log.warning("Slack takes no connection yet: %s.", type(error).__name__)
            await asyncio.sleep(pause_seconds(failures))
        else:
            return
