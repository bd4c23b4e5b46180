"""A way to a server that can be shut, or opened to somebody who never answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from postgres.ports import free_port

CHUNK = 65_536


class Stands(Enum):
    """How a gate stands."""

    OPEN = "open"
    MUTE = "mute"  # connections are taken, and nothing is ever said
    SHUT = "shut"  # nobody listens, and whoever was connected is cut off


class Gate:
    """Passes on what is said to a server's port, as long as it is open."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.connections = 0
        self._target_port = target_port
        self._stands = Stands.SHUT
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def set(self, stands: Stands) -> None:
        """Open it, shut it, or leave whoever comes and is there without an answer."""
        self._stands = stands
        if stands is Stands.SHUT:
            await self._shut()
        elif self._server is None:
            self._server = await asyncio.start_server(self._come, "127.0.0.1", self.port)

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            # Only `_shut` cancels it; streams would log that as a mistake.
            with contextlib.suppress(asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            done, rest = await asyncio.wait(
                {
                    asyncio.create_task(self._pump(reader, there[1])),
                    asyncio.create_task(self._pump(there[0], writer)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in (*done, *rest):
                task.cancel()
            await asyncio.gather(*done, *rest, return_exceptions=True)
        finally:
            there[1].close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                while self._stands is Stands.MUTE:
                    await asyncio.sleep(0.02)
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def gate_to(port: int, stands: Stands = Stands.OPEN) -> AsyncIterator[Gate]:
    """A gate that is shut at the end."""
    made = Gate(port)
    await made.set(stands)
    try:
        yield made
    finally:
        await made.set(Stands.SHUT)
