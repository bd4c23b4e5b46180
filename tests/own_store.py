"""A store of our own on a real pair, which is broken beneath it; and a way to lose an answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandbox.ha import PairSandbox
from store.connect import Store, connect
from store.upgrade import upgrade
from tests.postgres.migrate.proxy import pump

_numbers = itertools.count(1)


@dataclass(kw_only=True)
class PairStore:
    """The store and the pair that it is on. `old`: who was the primary at first."""

    pair: PairSandbox
    store: Store
    name: str
    old: str
    more: list[Store] = field(default_factory=list)

    @property
    def new(self) -> str:
        """Who is to be the primary."""
        (other,) = self.pair.others(self.old)
        return other

    @property
    def dsn(self) -> str:
        """Both hosts; the first of them is never asked alone."""
        pair = self.pair
        places = ",".join(f"127.0.0.1:{pair.port(name)}" for name in (self.new, self.old))
        login = f"{pair.superuser}:{pair.password}"
        return f"postgresql://{login}@{places}/{self.name}?target_session_attrs=primary"

    def another(self, *, size: int = 5) -> Store:
        """As a process beside this one has it; closed with it."""
        self.more.append(made := connect(self.dsn, size=size))
        return made

    async def is_synchronous(self) -> None:
        """From now on a commit is acknowledged when the standby has it."""
        for statement in (
            "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()",
        ):  # fmt: skip
            await self.pair.query(self.old, statement)
        await self._until("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'")

    async def lose_the_primary(self) -> None:
        """Kill -9 of all its processes."""
        self.pair.kill_server(self.old)

    async def promote(self) -> None:
        """Make the standby the primary, whatever the old one does."""
        await self.pair.query(self.new, "SELECT pg_promote(true, 30)")

    async def at(self, node: str, query: str, *args: object) -> Any:
        """What a node's copy of the store says."""
        return await self.pair.query(node, query, *args, database=self.name)

    async def _until(self, query: str) -> None:
        async with asyncio.timeout(30):
            while not await self.pair.query(self.old, query):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def store_on(pair: PairSandbox) -> AsyncIterator[PairStore]:
    """A fresh store on a pair; whoever asks for the pair next brings that back to health."""
    old = await pair.primary()
    name = f"own_{next(_numbers)}"
    await pair.query(old, f"CREATE DATABASE {name} STRATEGY file_copy")
    made = PairStore(pair=pair, store=None, name=name, old=old)  # type: ignore[arg-type]
    await upgrade(made.dsn)
    made.store = connect(made.dsn, size=10)
    try:
        yield made
    finally:
        for each in (made.store, *made.more):
            await each.close()


@dataclass(slots=True, kw_only=True)
class LosesAnswer:
    """A way to a server on which the answer to a COMMIT is lost: it has happened, and says not so.

    `after`: the transaction to lose it of is the first in which this was sent; without, `alone`
    is a statement that commits by itself, of which the answer is lost. `before`: the connection
    is lost before this gets to the server, so that it has not happened.
    """

    upstream: str
    after: bytes = b""
    alone: bytes = b""
    before: bytes = b""
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        server, to_server = await asyncio.open_unix_connection(self.upstream)
        back = asyncio.create_task(pump(server, writer))
        is_armed = is_next = False
        try:
            while data := await reader.read(1 << 20):
                is_armed = is_armed or bool(self.after and self.after in data)
                commits = is_armed and b"COMMIT" in data
                # Its text comes when it is prepared; what follows with "bind" carries it out.
                commits = commits or (is_next and data.startswith(b"B"))
                is_next = is_next or bool(self.alone and self.alone in data)
                if not self.lost.is_set() and self.before and self.before in data:
                    self.lost.set()
                    break
                if not self.lost.is_set() and commits:
                    await self._lose(back, server, to_server, data)
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

    async def _lose(
        self,
        back: asyncio.Task[None],
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        data: bytes,
    ) -> None:
        back.cancel()
        await asyncio.wait({back})
        to_server.write(data)
        await to_server.drain()
        async with asyncio.timeout(30):
            await server.read(1 << 16)  # it has happened
        self.lost.set()


@asynccontextmanager
async def losing(
    store: Store, folder: Path, *, after: bytes = b"", alone: bytes = b"", before: bytes = b""
) -> AsyncIterator[tuple[LosesAnswer, Store]]:
    """The same store through a way on which one answer is lost."""
    parts = urlsplit(store.dsn.get_secret_value())
    words = {key: values[0] for key, values in parse_qs(parts.query).items()}
    name = f".s.PGSQL.{words['port']}"
    way = LosesAnswer(upstream=f"{words['host']}/{name}", after=after, alone=alone, before=before)
    listening = await asyncio.start_unix_server(way.handle, str(folder / name))
    other = connect(f"postgresql://postgres@{parts.path}?host={folder}&port={words['port']}")
    try:
        yield way, other
    finally:
        await other.close()
        listening.close()


async def eventually(probe: Callable[[], Any], *, seconds: float = 30) -> Any:
    """What `probe` returns once it is true."""
    async with asyncio.timeout(seconds):
        while not (found := await probe()):
            await asyncio.sleep(0.02)
        return found
