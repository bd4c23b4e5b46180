"""A server for the tests of migrations, with an empty database for each that asks."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.server import Binaries, Server, create
from tests.postgres.conftest import FAST, run_sql

# A new database for each test would take more time than the test.
EMPTY = """
    DO $$
    DECLARE name text;
    BEGIN
        FOR name IN SELECT nspname FROM pg_namespace
                     WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', name);
        END LOOP;
        CREATE SCHEMA public;
    END $$
"""


@pytest.fixture(scope="session")
def ground(binaries: Binaries) -> Iterator[Server]:
    """A running server that every test of a process shares."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        server = asyncio.run(_started(binaries, home))
        try:
            yield server
        finally:
            asyncio.run(server.remove())


@pytest.fixture
async def dsn(ground: Server) -> str:
    """A database with nothing in it."""
    await run_sql(ground.dsn("books"), EMPTY)
    return ground.dsn("books")


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Any]:
    """A connection to it."""
    opened = await asyncpg.connect(dsn, timeout=30, command_timeout=20)
    yield opened
    await opened.close(timeout=30)


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Any]:
    """A second connection: the tool itself, at the same time."""
    opened = await asyncpg.connect(dsn, timeout=30, command_timeout=20)
    await opened.execute("SET lock_timeout = '50ms'")
    yield opened
    await opened.close(timeout=30)


async def _started(binaries: Binaries, home: Path) -> Server:
    server = await create(binaries, home / "ground", settings=FAST, sync=False)
    await server.start()
    await run_sql(server.dsn(), "CREATE DATABASE books")
    return server
