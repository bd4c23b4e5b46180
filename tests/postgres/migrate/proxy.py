"""A proxy before a server's socket, which cuts a connection at the n-th message to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


@dataclass(slots=True, kw_only=True)
class Proxy:
    """`cut_at`: at which message, counted over all connections, or the `nth` that has `cut_on`.

    `answered`: the server gets that message and answers, and only the answer is lost. Afterwards
    it lets everything through, unless it `stays_shut`.
    """

    upstream: Path
    cut_at: int = -1
    cut_on: bytes = b""
    nth: int = 1
    answered: bool = False
    stays_shut: bool = False
    count: int = 0
    is_cut: bool = False
    texts: list[bytes] = field(default_factory=list)

    def _now(self, data: bytes) -> bool:
        self.count += 1
        self.texts.append(data[:200])
        if self.cut_on and self.cut_on in data:
            self.nth -= 1
            return self.nth == 0
        return self.count == self.cut_at

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.is_cut and self.stays_shut:
            writer.transport.abort()
            return
        server, to_server = await asyncio.open_unix_connection(str(self.upstream))
        back = asyncio.create_task(pump(server, writer))
        try:
            while data := await reader.read(1 << 20):
                if self._now(data):
                    self.is_cut = True
                    await self._cut(back, server, to_server, data)
                    break
                to_server.write(data)
                await to_server.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            await asyncio.wait({back})
            writer.transport.abort()
            to_server.transport.abort()

    async def _cut(
        self,
        back: asyncio.Task[None],
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        data: bytes,
    ) -> None:
        if self.answered:
            back.cancel()
            await asyncio.wait({back})
            to_server.write(data)
            await to_server.drain()
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(2):
                    await server.read(1)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one way what comes, until it ends."""
    with suppress(OSError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def proxied(dsn: str, folder: Path, **settings: object) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of `dsn`, and the DSN that goes through it."""
    parts = urlsplit(dsn)
    words = {key: values[0] for key, values in parse_qs(parts.query).items()}
    name = f".s.PGSQL.{words['port']}"
    proxy = Proxy(upstream=Path(words["host"]) / name, **settings)  # type: ignore[arg-type]
    listening = await asyncio.start_unix_server(proxy.handle, str(folder / name))
    try:
        yield proxy, f"postgresql://postgres@{parts.path}?host={folder}&port={words['port']}"
    finally:
        listening.close()
