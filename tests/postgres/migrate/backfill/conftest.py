"""A primary with a standby, for what one server alone cannot show."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from postgres.server import Server, create, find_binaries, standby
from tests.conftest import Target, folder_of_its_own
from tests.postgres.migrate.backfill.support import ROWS

FAST = {
    "fsync": "off", "shared_buffers": "16MB", "max_connections": "40", "autovacuum": "off",
    "wal_receiver_status_interval": "1s", "wal_retrieve_retry_interval": "100ms",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running primary and its running standby; each test leaves them as they were."""

    primary: Server
    standby: Server


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    home = folder_of_its_own()

    async def made() -> Pair:
        primary = await create(
            find_binaries(os.environ, major=17), home / "one", settings=FAST, sync=False
        )
        await primary.start()
        copy = await standby(primary, home / "two")
        await copy.start()
        return Pair(primary=primary, standby=copy)

    both = asyncio.run(made())
    try:
        yield both
    finally:
        asyncio.run(both.standby.remove())
        asyncio.run(both.primary.remove())
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A connection to a fresh database with 2,000 rows in a table."""
    made = await asyncpg.connect(target.dsn)
    await made.execute(ROWS.format(rows=2000))
    yield made
    await made.close()
