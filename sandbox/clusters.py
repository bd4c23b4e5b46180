"""PostgreSQL clusters with something in them, for the demo: a shop, its reports, its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import asyncpg

from postgres.server import Binaries, Server, create, open_server

SECONDS_MAX: Final = 60
INCREMENTAL_SINCE: Final = 17  # pg_basebackup --incremental, which needs summaries of the WAL
READY_MARK: Final = "twokey-demo-ready"

_SHOP: Final = """
    CREATE TABLE customers (
        id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        email text NOT NULL UNIQUE,
        since date NOT NULL
    );
    CREATE TABLE orders (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL REFERENCES customers,
        status      text NOT NULL,
        total_cents bigint NOT NULL CHECK (total_cents >= 0),
        placed_at   timestamptz NOT NULL,
        note        text NOT NULL
    );
    CREATE INDEX orders_customer ON orders (customer_id);
    CREATE TABLE payments (
        order_id bigint PRIMARY KEY REFERENCES orders,
        cents    bigint NOT NULL,
        paid_at  timestamptz NOT NULL
    );
    INSERT INTO customers (email, since)
    SELECT format('customer%s@shop.example', n), date '2020-01-01' + n % 2000
      FROM generate_series(1, {customers}) AS n;
    INSERT INTO orders (customer_id, status, total_cents, placed_at, note)
    SELECT n % {customers} + 1, (ARRAY['paid', 'sent', 'open'])[n % 3 + 1], n * 37 % 90000,
           timestamptz '2025-01-01 00:00+00' + n * interval '3 minutes', repeat(md5(n::text), 8)
      FROM generate_series(1, {orders}) AS n;
    INSERT INTO payments
    SELECT id, total_cents, placed_at + interval '1 minute' FROM orders WHERE status <> 'open';
    ANALYZE;
"""
# Large enough for a backup to take a moment and small enough for a laptop.
SHOP: Final = _SHOP.format(customers=20_000, orders=150_000)
# Where a change is tried first.
SMALL_SHOP: Final = _SHOP.format(customers=200, orders=1_000)
REPORTS: Final = """
    CREATE TABLE daily_sales (day date PRIMARY KEY, cents bigint NOT NULL);
    INSERT INTO daily_sales
    SELECT date '2024-01-01' + n, n * 991 % 500000 FROM generate_series(0, 700) AS n;
    ANALYZE;
"""
EXTENSIONS: Final = "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION amcheck"
# The databases of each cluster, and what is in them.
CONTENTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "orders": {"orders": SHOP},
        "reports": {"reports": REPORTS},
        "trials": {"orders_staging": SMALL_SHOP, "orders_dev": SMALL_SHOP},
    }
)
# The team's own folders, as they would be in its repository.
TEAM: Final = Path(__file__).parent / "shop"


class DemoDatabase(Protocol):
    """A database of the demo, wherever it runs: its name, and where a superuser finds it."""

    @property
    def name(self) -> str: ...

    @property
    def dsn(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCluster:
    """A running cluster, and how Twokey reaches the database of the same name in it."""

    name: str
    server: Server

    @property
    def dsn(self) -> str:
        """Where the database is, as a superuser: it is a demo on one's own machine."""
        return self.server.dsn(self.name)


async def start_cluster(binaries: Binaries, home: Path, name: str) -> DemoCluster:
    """Start the demo's cluster `name`; the first time, make and fill it.

    Raises:
        PostgresError: a server could not be made or started.
    """
    data = home / name
    made = data / "PG_VERSION"
    server = open_server(binaries, data) if made.exists() else await _create(binaries, data)
    await server.start()
    for database, content in CONTENTS[name].items():
        if not await _is_filled(server, database):
            await _fill(server, database, content)
    return DemoCluster(name=name, server=server)


async def _create(binaries: Binaries, data: Path) -> Server:
    settings = {
        "shared_buffers": "64MB",
        "max_connections": "50",
        "wal_level": "replica",
        "max_wal_senders": "8",
        "summarize_wal": "on",
        "shared_preload_libraries": "pg_stat_statements",
        "track_io_timing": "on",
    }
    if binaries.major < INCREMENTAL_SINCE:
        del settings["summarize_wal"]
    return await create(binaries, data, settings=settings)


async def _is_filled(server: Server, name: str) -> bool:
    conn = await asyncpg.connect(server.dsn(), timeout=SECONDS_MAX)
    try:
        mark = await conn.fetchval(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
            name,
            timeout=SECONDS_MAX,
        )
    finally:
        await conn.close()
    return bool(mark == READY_MARK)


async def _fill(server: Server, name: str, content: str) -> None:
    """Make the database anew: an interrupted first start leaves it half filled."""
    conn = await asyncpg.connect(server.dsn(), timeout=SECONDS_MAX)
    try:
        await conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', timeout=SECONDS_MAX)
        await conn.execute(f'CREATE DATABASE "{name}"', timeout=SECONDS_MAX)
        inside = await asyncpg.connect(server.dsn(name), timeout=SECONDS_MAX)
        try:
            await inside.execute(content, timeout=SECONDS_MAX)
            await inside.execute(EXTENSIONS, timeout=SECONDS_MAX)
        finally:
            await inside.close()
        await conn.execute(f"COMMENT ON DATABASE \"{name}\" IS '{READY_MARK}'", timeout=SECONDS_MAX)
    finally:
        await conn.close()
