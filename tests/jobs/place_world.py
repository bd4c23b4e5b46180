"""A server of the test's own with backups and archived WAL, and jobs that replace it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import JsonValue, SecretStr

from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings, PlaceSettings
from jobs.engines import engine_of
from jobs.operation import CriticalQuery, Database, Mode, Tier
from jobs.place_run import remove_copy
from jobs.reader import LiveReader, Readers
from postgres.account import make_private, server_account
from postgres.backup.engine import TakeOrder
from postgres.restore.recovery import plan_recovery
from postgres.restore.target import RecoveryTarget
from postgres.restore.ways import ways_of_restore
from postgres.restore.window import Choice
from postgres.server import Binaries, Server, create
from store.connect import Store

SHOP = """
    CREATE TABLE orders (id int PRIMARY KEY);
    INSERT INTO orders SELECT generate_series(1, 500);
"""
FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20", "autovacuum": "off"}
ADD_REQUEST = """
    INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack, authors,
                          door, reason, params, plan, plan_hash, policy_hash, attributes, rule,
                          step, asked_at, expires_at, detail, channel)
    VALUES ('approved', 1, 'restore', 'orders', 'ana@acme.example', 'T0DEMO/U0ANA', ARRAY['ana'],
            'slack', '', '{}', '', '', 'p', '{}', 'r', 0, now(), now() + interval '1 hour',
            '{}', 'C0ORDERS')
    RETURNING id
"""


@dataclass(slots=True)
class Attempt:
    """The first attempt of a step."""

    number: int = 1
    checkpoint: JsonValue = None

    async def save(self, checkpoint: JsonValue) -> None:
        self.checkpoint = checkpoint


@dataclass(kw_only=True)
class StepJob:
    """A run without a queue. What a step returned is known to the next life of the run."""

    database: Database
    store: Store
    reader: LiveReader
    folder: Path
    request_id: int
    done: dict[str, JsonValue] = field(default_factory=dict)
    run_key: str = "run-1"
    policies: Any = None
    databases: dict[str, Database] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    before: Callable[[str], Awaitable[None]] | None = None

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def step(
        self,
        name: str,
        body: Callable[[Any], Awaitable[JsonValue]],
        *,
        mode: Mode,
        time_limit: timedelta,
        attempts: int = 1,
    ) -> JsonValue:
        del mode, attempts
        if name not in self.done:
            if self.before:
                await self.before(name)
            async with asyncio.timeout(time_limit.total_seconds()):
                self.done[name] = await body(Attempt())
        return self.done[name]

    async def report(self, text: str, *, fraction: float | None = None) -> None:
        del fraction

        self.said.append(text)


@dataclass(kw_only=True)
class World:
    """The server, the inventory's entry about it, and what was done to it."""

    server: Server
    home: Path
    store: Store
    readers: Readers
    settings: BackupSettings
    queries: Sequence[CriticalQuery] = ()

    @property
    def database(self) -> Database:
        return Database(
            name="orders",
            dsn=SecretStr(self.server.dsn("shop")),
            environment="production",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=self.home / "backups",
            critical_queries=tuple(self.queries),
            backups=self.settings,
        )

    async def job(self) -> StepJob:
        """The job of a new request."""
        async with self.store.engine.connect() as conn:
            raw = await conn.get_raw_connection()
            number = await raw.driver_connection.fetchval(ADD_REQUEST)  # type: ignore[union-attr]
        folder = self.home / "run"
        folder.mkdir(exist_ok=True)
        database = self.database
        return StepJob(
            database=database,
            store=self.store,
            reader=self.readers.of(database),
            folder=folder,
            request_id=number,
        )

    async def backup(self, name: str = "orders-1") -> None:
        await engine_of(self.database, os.environ).take(TakeOrder(backup_id=name))

    async def choice(self, target: RecoveryTarget, backup: str | None = None) -> Choice:
        return await plan_recovery(engine_of(self.database, os.environ), target, backup_id=backup)

    async def sql(self, text: str) -> Any:
        """The first column of the first row, on a connection of its own."""
        conn = await asyncpg.connect(self.server.dsn("shop"), timeout=30)
        try:
            return await conn.fetchval(text)
        finally:
            await conn.close()

    async def _connected(self) -> Any:
        """A connection; a server that was just told to let people in again needs a moment."""
        async with asyncio.timeout(30):
            while True:
                try:
                    return await asyncpg.connect(self.server.dsn("shop"), timeout=30)
                except asyncpg.InvalidAuthorizationSpecificationError:
                    await asyncio.sleep(0.02)

    async def rows(self) -> set[int]:
        conn = await self._connected()
        try:
            return {row["id"] for row in await conn.fetch("SELECT id FROM orders")}
        finally:
            await conn.close()

    async def mark(self) -> RecoveryTarget:
        """A target right after what was committed so far, archived."""
        lsn = await self.sql("SELECT pg_current_wal_insert_lsn()::text")
        await self.sql("SELECT pg_logical_emit_message(true, 'test', 'on')")
        await self.archived(await self.sql("SELECT pg_walfile_name(pg_switch_wal() - 1)"))
        return RecoveryTarget(kind="lsn", value=str(lsn))

    async def archived(self, name: str) -> None:
        path = self.home / "backups" / "wal" / name
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.02)

    def beside(self) -> set[str]:
        """What stands beside the data folder and was put there by Twokey."""
        name = self.server.data.name
        found = (path.name for path in self.server.data.parent.glob(f"{name}.twokey-*"))
        return {text.removeprefix(f"{name}.twokey-") for text in found} - {"lock"}


@asynccontextmanager
async def opened(binaries: Binaries, home: Path, store: Store) -> AsyncIterator[World]:
    """A running server with a database `shop`, which archives its WAL."""
    wal = home / "backups" / "wal"
    (home / "backups").mkdir(mode=0o755)
    make_private(wal, server_account())
    archive = {
        "archive_mode": "on",
        "archive_command": f"cp %p {wal}/%f.part && mv {wal}/%f.part {wal}/%f",
    }
    server = await create(binaries, home / "orders", settings={**FAST, **archive}, sync=False)
    readers = Readers()
    try:
        await server.start()
        for database, statements in (("postgres", "CREATE DATABASE shop"), ("shop", SHOP)):
            conn = await asyncpg.connect(server.dsn(database), timeout=30)
            await conn.execute(statements)
            await conn.close()
        settings = BackupSettings(
            archive=ArchiveSettings(method=ArchiveMethod.COMMAND),
            place=PlaceSettings(data=server.data),
        )
        yield World(server=server, home=home, store=store, readers=readers, settings=settings)
    finally:
        await readers.close()
        await server.remove()
        remove_copy(ways_of_restore(server.data, 0))
        shutil.rmtree(home, ignore_errors=True)


@dataclass(slots=True)
class Writer:
    """An application that writes all the time, connects again when it is cut off, and remembers."""

    world: World
    committed: list[int] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)  # after so many commits
    number: int = 1000
    stop: bool = False

    async def work(self) -> None:
        while not self.stop:
            try:
                conn = await asyncpg.connect(self.world.server.dsn("shop"), timeout=30)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.01)
                continue
            try:
                while not self.stop:
                    self.number += 1
                    await conn.execute("INSERT INTO orders VALUES ($1)", self.number)
                    self.committed.append(self.number)
                    await asyncio.sleep(0.002)
            # The last: the server said goodbye between two statements.
            except (
                OSError,
                TimeoutError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ):
                self.cut_off.append(len(self.committed))
            finally:
                conn.terminate()


@asynccontextmanager
async def writing(world: World) -> AsyncIterator[Writer]:
    """A writer at work within the block."""
    writer = Writer(world)
    task = asyncio.create_task(writer.work())
    try:
        yield writer
    finally:
        writer.stop = True
        async with asyncio.timeout(30):
            await task


async def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once it is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
