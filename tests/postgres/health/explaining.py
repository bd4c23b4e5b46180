"""Servers that keep statistics of statements, for the tests of health: one per version."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.server import Server, create, find_binaries

SETTINGS = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "max_prepared_transactions": "4",
    "shared_preload_libraries": "pg_stat_statements",
}
SHOP = """
    CREATE EXTENSION pg_stat_statements;
    CREATE TABLE orders (id int PRIMARY KEY, customer int, placed timestamptz, note text);
    INSERT INTO orders SELECT n, n % 500, now(), 'note' FROM generate_series(1, 20000) AS n;
    CREATE TABLE customers (id int PRIMARY KEY, email text);
    INSERT INTO customers SELECT n, 'c' || n FROM generate_series(1, 500) AS n;
    CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
    CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
    CREATE ROLE reader LOGIN IN ROLE pg_monitor;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
    CREATE ROLE signaller LOGIN IN ROLE pg_monitor, pg_signal_backend;
    CREATE ROLE app LOGIN;
    GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
    ANALYZE;
"""


@contextmanager
def shop_of(major: int) -> Iterator[Server]:
    """A running server of that version with a database `shop`; skips where there is none."""
    try:
        binaries = find_binaries(os.environ, major=major)
    except PostgresError as error:
        pytest.skip(error.problem)
    if binaries.major != major or "pg_stat_statements" not in binaries.extensions:
        pytest.skip(f"there is no PostgreSQL {major} with pg_stat_statements here")
    home = Path(tempfile.mkdtemp(prefix="tk"))
    home.chmod(0o755)
    made = asyncio.run(_made(binaries, home))
    try:
        yield made
    finally:
        asyncio.run(made.stop("immediate"))
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def connected(server: Server, user: str = "postgres", **settings: str) -> AsyncIterator[Any]:
    """A connection to the shop that the test may also lose."""
    conn = await asyncpg.connect(server.dsn("shop", user), server_settings=settings)
    try:
        yield conn
    finally:
        conn.terminate()


async def _made(binaries: Any, home: Path) -> Server:
    made = await create(binaries, home / "data", settings=SETTINGS, sync=False)
    await made.start()
    admin = await asyncpg.connect(made.dsn())
    await admin.execute("CREATE DATABASE shop")
    await admin.close()
    conn = await asyncpg.connect(made.dsn("shop"))
    await conn.execute(SHOP)
    await conn.close()
    return made
