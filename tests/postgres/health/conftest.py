"""Servers that are looked at: a primary with its standby, and one of Debian's 15."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.errors import PostgresError
from postgres.health.collect import Collected, NodeCollector
from postgres.health.deltas import SECONDS_MIN
from postgres.health.tiers import EVERYTHING, Due
from postgres.server import Server, create, find_binaries, standby
from tests.conftest import folder_of_its_own

FAST = {
    "fsync": "off", "shared_buffers": "16MB", "max_connections": "30", "autovacuum": "off",
    "shared_preload_libraries": "pg_stat_statements", "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
}  # fmt: skip
# `mon` may do what a monitor should be allowed, `guest` may only log in.
PEOPLE = """
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
    CREATE ROLE mon LOGIN;
    GRANT pg_monitor TO mon;
    CREATE ROLE guest LOGIN;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running primary and its running standby."""

    primary: Server
    standby: Server


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Shared by all tests of a process; who changes a setting of it sets it back."""
    with home_of("pair") as home:
        primary = asyncio.run(_open(17, home / "one"))
        copy = asyncio.run(_follow(primary, home / "two"))
        try:
            yield Pair(primary=primary, standby=copy)
        finally:
            asyncio.run(copy.remove())
            asyncio.run(primary.remove())


@pytest.fixture(scope="session")
def old() -> Iterator[Server]:
    """PostgreSQL 15, which has the extension's files but did not load it."""
    try:
        find_binaries(os.environ, major=15)
    except PostgresError as error:
        pytest.skip(f"no PostgreSQL 15 here: {error.problem}")
    with home_of("pair") as home:
        server = asyncio.run(_open(15, home / "old", shared_preload_libraries=""))
        try:
            yield server
        finally:
            asyncio.run(server.remove())


@contextmanager
def home_of(name: str) -> Iterator[Path]:
    """A folder of its own, removed at the end."""
    home = folder_of_its_own() / name
    home.mkdir()
    try:
        yield home
    finally:
        shutil.rmtree(home.parent, ignore_errors=True)


async def _open(major: int, data: Any, **settings: str) -> Server:
    binaries = find_binaries(os.environ, major=major)
    server = await create(binaries, data, settings={**FAST, **settings}, sync=False)
    await server.start()
    await sql(server, PEOPLE)
    return server


async def _follow(primary: Server, data: Any) -> Server:
    copy = await standby(primary, data)
    await copy.start()
    return copy


async def sql(server: Server, *statements: str, database: str = "postgres") -> None:
    """Run statements over a connection of their own, whose statistics count when this returns."""
    async with connected(server, database) as conn:
        for statement in statements:
            await conn.execute(statement, timeout=20)
        # What a session counts is seen by others a second later, or when it is told to.
        await conn.execute("SELECT pg_stat_force_next_flush()", timeout=20)


@asynccontextmanager
async def connected(
    server: Server, database: str = "postgres", user: str = "postgres"
) -> AsyncIterator[Any]:
    """A connection like an application's."""
    conn = await asyncpg.connect(
        server.dsn(database, user=user), timeout=10, server_settings={"application_name": "shop"}
    )
    try:
        yield conn
    finally:
        await conn.close(timeout=30)


@dataclass(slots=True)
class Watcher:
    """A collector that looks when it is told to."""

    collector: NodeCollector
    looked_at: float = -math.inf

    async def __call__(self, due: Due | None = None) -> Collected:
        """One look; without `due`, at all there is. Never so soon that it says nothing."""
        since = time.monotonic() - self.looked_at
        await asyncio.sleep(max(2 * SECONDS_MIN - since, 0))
        self.looked_at = time.monotonic()
        return await self.collector.collect(datetime.now(UTC), due or EVERYTHING)


Watch = Callable[..., Watcher]


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    """Makes collectors that end with the test."""
    async with AsyncExitStack() as stack:

        def make(server: Server, database: str = "postgres", user: str = "mon", **more: Any) -> Any:
            dsn = SecretStr(server.dsn(database, user=user))
            collector = NodeCollector(dsn, name="orders", timer=lambda: 0.0, **more)
            stack.push_async_callback(collector.close)
            return Watcher(collector)

        yield make


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a server does in its own time; fails after ten seconds."""
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)
