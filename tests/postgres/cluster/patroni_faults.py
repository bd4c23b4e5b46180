"""A REST server in Patroni's place that fails in the ways a test asks for.

Strict: what a test did not foresee is answered 500, and every call is written down.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from postgres.ports import LOOPBACK

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, kw_only=True)
class Call:
    """What was asked: method and path, who says to ask, and the body."""

    what: str
    authorization: str
    body: Mapping[str, str] | None


@dataclass(slots=True, kw_only=True)
class Faulty:
    """The server. `replies`: by method and path, such as "POST /switchover"."""

    replies: dict[str, Reply]
    base: str = ""
    calls: list[Call] = field(default_factory=list)
    site: web.TCPSite | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        what = f"{request.method} {request.path}"
        text = await request.text()
        self.calls.append(
            Call(
                what=what,
                authorization=request.headers.get("Authorization", ""),
                body=json.loads(text) if text else None,
            )
        )
        reply = self.replies.get(what)
        return await reply(request) if reply else web.Response(status=500, text="not foreseen")

    async def stop_listening(self) -> None:
        """Refuse every new connection."""
        if self.site:
            await self.site.stop()
            self.site = None

    def posts(self) -> list[str]:
        """The changes that were asked for."""
        return [call.what for call in self.calls if call.what.startswith("POST")]


@asynccontextmanager
async def faulty(replies: Mapping[str, Reply]) -> AsyncIterator[Faulty]:
    """A server on a port of its own until the block ends."""
    made = Faulty(replies=dict(replies))
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    made.site = site
    made.base = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def says(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer."""

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return reply


async def hangs(request: web.Request) -> web.StreamResponse:
    """No answer at all while the client waits."""
    await asyncio.sleep(30)
    return web.Response(text="too late")


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """It closes the connection without a word, as Patroni does when its DCS fails."""
    if request.transport:
        request.transport.close()
    return web.Response()


async def says_half(request: web.Request) -> web.StreamResponse:
    """It promises more than it sends."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"members": [')
    if request.transport:
        request.transport.close()
    return response


async def says_endlessly(request: web.Request) -> web.StreamResponse:
    """More than anybody wants to read."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(200):
        await response.write(b"x" * 100_000)
    return response
