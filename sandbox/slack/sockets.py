"""Socket Mode: tickets, up to ten WebSockets, envelopes and their acks."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web

from sandbox.slack.bounded import Background, Bounded
from sandbox.slack.errors import ApiError
from sandbox.slack.platform import Platform
from sandbox.slack.workspace import Json

SOCKETS_MAX: Final = 10
TICKETS_MAX: Final = 1000


@dataclass(slots=True, eq=False)
class Socket:
    """One connection of the app."""

    ws: web.WebSocketResponse
    request: web.Request
    leaving: bool = False  # told to go: gets nothing new
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)


class Sockets:
    """All connections of the app; envelopes go to one after the other."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._tickets: Bounded[str, float] = Bounded(TICKETS_MAX)
        self._sockets: list[Socket] = []
        self._turn = 0
        self._background = Background()
        self.enabled = True

    def __len__(self) -> int:
        return len(self._sockets)

    def new_ticket(self) -> str:
        """The address for one new connection.

        Raises:
            ApiError: the app is in HTTP mode, or Socket Mode was switched off.
        """
        if self._platform.request_url is not None or not self.enabled:
            raise ApiError("socket_mode_not_enabled")
        ticket = secrets.token_urlsafe(18)
        self._tickets[ticket] = self._platform.now() + self._platform.timings.ticket_seconds
        return f"{self._platform.url.replace('http', 'ws', 1)}/link?ticket={ticket}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A connection of the app, until one side ends it."""
        expires = self._tickets.pop(request.query.get("ticket", ""), 0.0)
        if expires < self._platform.now():
            return web.Response(status=408, text="the ticket is unknown, used or too old")
        if len(self._sockets) >= SOCKETS_MAX:
            return web.Response(status=429, text="too many websockets")
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        socket = Socket(ws=ws, request=request)
        self._sockets.append(socket)
        try:
            await ws.send_json(self._hello())
            self._platform.workspace.changes.bump()
            await self._receive(socket)
        finally:
            self._forget(socket)
        return ws

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "num_connections": len(self._sockets),
            "debug_info": {
                "host": "applink-demo",
                "build_number": 1,
                "approximate_connection_time": 18060,
            },
            "connection_info": {"app_id": self._platform.workspace.app.id},
        }

    async def _receive(self, socket: Socket) -> None:
        async for received in socket.ws:
            if received.type is not WSMsgType.TEXT:
                continue
            try:
                reply = json.loads(received.data)
            except ValueError:
                continue
            if not isinstance(reply, dict):
                continue
            waiter = socket.waiting.pop(str(reply.get("envelope_id")), None)
            if waiter and not waiter.done():
                waiter.set_result(reply.get("payload"))

    def _forget(self, socket: Socket) -> None:
        if socket in self._sockets:
            self._sockets.remove(socket)
        for waiter in socket.waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError("the socket closed before the ack"))
        socket.waiting.clear()
        self._platform.workspace.changes.bump()

    async def send(self, envelope: Json) -> Any:
        """Deliver an envelope to the next connection; the payload of its ack.

        The caller limits the wait.

        Raises:
            ConnectionError: nobody is connected, or the connection broke before the ack.
        """
        socket = self._next()
        if self._platform.faults.take("socket"):
            abort(socket)
            raise ConnectionError("the socket was cut")
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        socket.waiting[envelope["envelope_id"]] = waiter
        try:
            await socket.ws.send_json(envelope)
            return await waiter
        finally:
            socket.waiting.pop(envelope["envelope_id"], None)

    def _next(self) -> Socket:
        ready = [socket for socket in self._sockets if not socket.leaving] or self._sockets
        if not ready:
            raise ConnectionError("the app is not connected")
        self._turn += 1
        return ready[self._turn % len(ready)]

    async def disconnect(self, reason: str) -> None:
        """Tell every connection to go: `warning`, `refresh_requested` or `link_disabled`."""
        note = {"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-demo"}}
        if reason == "link_disabled":
            self.enabled = False
        for socket in list(self._sockets):
            socket.leaving = reason != "warning"
            await socket.ws.send_json(note)
            if socket.leaving:
                self._background.start(self._close_later(socket))

    async def _close_later(self, socket: Socket) -> None:
        await asyncio.sleep(self._platform.timings.socket_grace_seconds)
        await socket.ws.close()

    def abort_all(self) -> None:
        """Cut every connection without a word, as a broken network does."""
        for socket in list(self._sockets):
            abort(socket)

    async def close(self) -> None:
        """End every connection."""
        await self._background.close()
        for socket in list(self._sockets):
            await socket.ws.close()


def abort(socket: Socket) -> None:
    """Reset the TCP connection."""
    if socket.request.transport is not None:
        socket.request.transport.abort()
