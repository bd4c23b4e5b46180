"""Servers with a seeded shop whose missing indexes are known; Debian's 15 has hypopg."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.health.advisor import SETTINGS as ADVISOR_SETTINGS
from postgres.server import Server, create, find_binaries
from tests.conftest import folder_of_its_own

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "shared_preload_libraries": "pg_stat_statements",
}
# 40,000 orders of 4,000 customers. `status`: 0.5 % are 'stuck', the rest 'done'. `flag` is
# half and half.
SHOP = """
    CREATE EXTENSION pg_stat_statements;
    SELECT setseed(0.5);
    CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, city text NOT NULL);
    INSERT INTO customers
    SELECT n, 'Person' || n || '@example.org', 'city ' || n % 40 FROM generate_series(1, 12000) n;
    CREATE TABLE orders (
        id int PRIMARY KEY, customer_id int NOT NULL, product_id int NOT NULL,
        status text NOT NULL, flag boolean NOT NULL, created_at timestamptz NOT NULL,
        note text NOT NULL, meta jsonb NOT NULL DEFAULT '{}'
    );
    INSERT INTO orders
    SELECT n, 1 + (random() * 3999)::int, 1 + n % 2000,
           CASE WHEN n % 200 = 0 THEN 'stuck' ELSE 'done' END, n % 2 = 0,
           '2026-01-01'::timestamptz + n * interval '1 minute', repeat('x', 60)
      FROM generate_series(1, 40000) n;
    CREATE TABLE settings (name text PRIMARY KEY, value text);
    INSERT INTO settings SELECT 'name ' || n, 'x' FROM generate_series(1, 200) n;
    CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
    CREATE ROLE reader LOGIN IN ROLE pg_monitor, pg_read_all_data;
    CREATE ROLE owner LOGIN;
    ANALYZE;
"""


@contextmanager
def shop_of(major: int) -> Iterator[Server]:
    """A running server of that version with a database `shop`; skips where there is none."""
    try:
        binaries = find_binaries(os.environ, major=major)
    except PostgresError as error:
        pytest.skip(error.problem)
    if "pg_stat_statements" not in binaries.extensions:
        pytest.skip(f"PostgreSQL {major} has no pg_stat_statements here")
    home = folder_of_its_own()
    made = asyncio.run(_made(binaries, home / "data"))
    try:
        yield made
    finally:
        asyncio.run(made.stop("immediate"))
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def connected(server: Server, user: str = "postgres", **settings: str) -> AsyncIterator[Any]:
    """A connection to the shop."""
    conn = await asyncpg.connect(server.dsn("shop", user), server_settings=settings)
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def advising(server: Server, user: str = "reader") -> AsyncIterator[Any]:
    """A session as the advisor gets it."""
    settings = {**ADVISOR_SETTINGS, "default_transaction_read_only": "on"}
    async with connected(server, user, **settings) as conn:
        yield conn


async def run_often(conn: Any, query: str, *args: object, times: int = 3) -> None:
    """Have pg_stat_statements count a statement."""
    for _ in range(times):
        await conn.fetch(query, *args)


async def _made(binaries: Any, data: Any) -> Server:
    made = await create(binaries, data, settings=SETTINGS, sync=False)
    await made.start()
    admin = await asyncpg.connect(made.dsn())
    await admin.execute("CREATE DATABASE shop")
    await admin.close()
    async with connected(made) as conn:
        await conn.execute(SHOP)
        if "hypopg" in binaries.extensions:
            await conn.execute("CREATE EXTENSION hypopg")
    return made
