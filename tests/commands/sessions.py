"""Real sessions that block one another, for the tests of locks and of ending sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from pydantic import SecretStr

from jobs.operation import Database, Tier
from jobs.reader import Readers
from postgres.server import Server
from tests.commands.conftest import DirectJob
from tests.postgres.health.explaining import connected

WAITS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE pid = ANY ($1) AND cardinality(pg_blocking_pids(pid)) > 0
"""


class Place(Protocol):
    """Such as a server."""

    def dsn(self, database: str, user: str) -> str: ...


def database_of(server: Place, user: str, folder: Path, **more: Any) -> Database:
    return Database(
        name="shop", dsn=SecretStr(server.dsn("shop", user)), environment="production",
        tier=Tier.CRITICAL, channel="C0ORDERS", backup_folder=folder / "backups", **more,
    )  # fmt: skip


@asynccontextmanager
async def job_on(
    server: Place, folder: Path, *, store: Any = None, user: str = "postgres", **more: Any
) -> AsyncIterator[DirectJob]:
    database = database_of(server, user, folder, **more)
    readers = Readers()
    try:
        yield DirectJob(
            database=database, store=store, reader=readers.of(database), folder=folder,
            request_id=1, databases={"shop": database},
        )  # fmt: skip
    finally:
        await readers.close()


@asynccontextmanager
async def blocked(
    server: Server, *, user: str = "app", waiting: int = 1, application: str = "web"
) -> AsyncIterator[tuple[Any, list[Any]]]:
    """A session idle in a transaction that wrote a row, and others that wait for that row."""
    async with connected(server, user, application_name=application) as blocker:
        await blocker.execute("BEGIN; UPDATE orders SET note = 'secret-note' WHERE id = 1")
        async with waiters(server, waiting) as found:
            yield blocker, found


@asynccontextmanager
async def waiters(server: Server, count: int) -> AsyncIterator[list[Any]]:
    """Sessions of which each waits for row 1; returns when the server says that they all do."""
    async with connected(server) as watch:
        conns: list[Any] = []
        tasks: list[asyncio.Task[Any]] = []
        try:
            for _ in range(count):
                conn = await _open(server)
                conns.append(conn)
                tasks.append(
                    asyncio.create_task(
                        conn.execute("UPDATE orders SET note = 'other-secret' WHERE id = 1")
                    )
                )
            await until_waiting(watch, [conn.get_server_pid() for conn in conns])
            yield conns
        finally:
            await ended(watch, conns)
            await asyncio.wait(tasks, timeout=10)
            await asyncio.gather(*tasks, return_exceptions=True)
            for conn in conns:
                conn.terminate()


async def ended(watch: Any, conns: list[Any]) -> None:
    """End sessions from the server's side, whatever they wait for."""
    pids = [conn.get_server_pid() for conn in conns]
    await watch.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)


async def until_waiting(watch: Any, pids: list[int]) -> None:
    async with asyncio.timeout(30):
        while await watch.fetchval(WAITS, pids) < len(pids):
            await asyncio.sleep(0.01)


async def _open(server: Server) -> Any:
    return await asyncpg.connect(
        server.dsn("shop", "app"), server_settings={"application_name": "worker"}
    )
