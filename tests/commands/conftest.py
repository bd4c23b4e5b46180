"""A cluster to operate on, and a job that keeps the runner's contract without its queue."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import JsonValue, SecretStr

from jobs.operation import CriticalQuery, Database, Mode, Tier
from jobs.reader import LiveReader, Readers
from postgres.server import Server, create, find_binaries
from store.connect import Store
from tests.conftest import folder_of_its_own, open_to_all

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHOP = """
    CREATE TABLE orders (id int PRIMARY KEY, cents int NOT NULL);
    INSERT INTO orders SELECT n, n FROM generate_series(1, 5000) AS n;
    CREATE ROLE looker LOGIN;
    GRANT SELECT ON orders TO looker;
"""


@pytest.fixture(scope="session")
def shop() -> Iterator[Server]:
    """A small cluster with a database `shop`, and nothing that other tests put there."""
    home = folder_of_its_own()
    made = asyncio.run(_make(home))
    try:
        yield made
    finally:
        asyncio.run(made.stop("immediate"))
        shutil.rmtree(home, ignore_errors=True)


@dataclass(slots=True)
class Attempt:
    """The first attempt of a step."""

    number: int = 1
    checkpoint: JsonValue = None

    async def save(self, checkpoint: JsonValue) -> None:
        self.checkpoint = checkpoint


@dataclass(kw_only=True)
class DirectJob:
    """A run without a queue: steps run once, in order, and are remembered by name."""

    database: Database
    store: Store
    reader: LiveReader
    folder: Path
    request_id: int
    run_key: str = "run-1"
    policies: Any = None
    databases: Mapping[str, Database] = field(default_factory=dict)
    now: datetime = NOW
    is_paused: bool = False
    cancelled_by: str = ""
    said: list[str] = field(default_factory=list)
    steps: list[tuple[str, Mode]] = field(default_factory=list)

    async def step(
        self,
        name: str,
        body: Callable[[Any], Awaitable[JsonValue]],
        *,
        mode: Mode,
        time_limit: timedelta,
        attempts: int = 1,
    ) -> JsonValue:
        self.steps.append((name, mode))
        async with asyncio.timeout(time_limit.total_seconds()):
            return await body(Attempt())

    @property
    def is_cancelled(self) -> bool:
        return bool(self.cancelled_by)

    async def until_cancelled(self) -> None:
        while not self.is_cancelled:
            await asyncio.sleep(0.01)

    async def report(self, text: str, *, fraction: float | None = None) -> None:
        self.said.append(text)


JobMaker = Callable[..., DirectJob]


@pytest.fixture
async def job(shop: Server, store: Store, tmp_path: Path) -> AsyncIterator[JobMaker]:
    """Makes jobs on the shop's cluster; `user` and `queries` are up to the test."""
    open_to_all(tmp_path)
    readers = Readers()

    def make(*, user: str = "postgres", queries: Sequence[CriticalQuery] = ()) -> DirectJob:
        database = Database(
            name="shop",
            dsn=SecretStr(shop.dsn("shop", user)),
            environment="production",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=tmp_path / "backups",
            critical_queries=tuple(queries),
        )
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return DirectJob(
            database=database,
            store=store,
            reader=readers.of(database),
            folder=folder,
            request_id=1,
        )

    try:
        yield make
    finally:
        await readers.close()


@asynccontextmanager
async def connected(server: Server, database: str = "shop") -> AsyncIterator[Any]:
    conn = await asyncpg.connect(server.dsn(database))
    try:
        yield conn
    finally:
        await conn.close()


def facts(plan: Any) -> Mapping[str, str]:
    """The facts of a plan or an answer by their names."""
    return dict(plan.facts)


async def _make(home: Path) -> Server:
    made = await create(find_binaries(os.environ), home / "data", settings={"fsync": "off"})
    await made.start()
    async with connected(made, "postgres") as conn:
        await conn.execute("CREATE DATABASE shop")
    async with connected(made) as conn:
        await conn.execute(SHOP)
    return made
