"""A bench for runs: a fresh store, a target of this process, and workers that can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from postgres.server import Server
from store.connect import Store
from tests.jobs.nursery import Nursery
from tests.jobs.support import EMPTY, TABLES, Bench, SmallApprovals


@pytest.fixture(scope="session")
def work_target(server: Server) -> str:
    """The DSN of a database to note work in; `bench` empties it."""
    asyncio.run(_make_target(server))
    return server.dsn("work_target")


@pytest.fixture
async def bench(store: Store, work_target: str, tmp_path: Path) -> AsyncIterator[Bench]:
    conn = await asyncpg.connect(work_target)
    await conn.execute(EMPTY)
    try:
        yield Bench(
            store=store,
            target_dsn=work_target,
            target=conn,
            home=tmp_path,
            approvals=SmallApprovals(store),
        )
    finally:
        await conn.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Worker processes; whichever still lives at the end is killed."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


async def _make_target(server: Server) -> None:
    admin = await asyncpg.connect(server.dsn("postgres"))
    await admin.execute("CREATE DATABASE work_target")
    await admin.close()
    conn = await asyncpg.connect(server.dsn("work_target"))
    await conn.execute(TABLES)
    await conn.close()
