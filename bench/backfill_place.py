"""Where backfills are measured: a server, a database that every run copies, and one run of ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from bench.places import ROOT
from postgres.dsn import parse_dsn
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.backfill.spec import (
    BackfillLimits,
    BackfillOutcome,
    BackfillSpec,
    BatchDone,
)
from postgres.migrate.backfill.trial import DISPOSABLE
from postgres.server import Server, create, find_binaries

RANGES = (1, 2, 4)
GUIDE_ROWS = 10_000
SETTINGS = {
    "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
    "max_connections": "60", DISPOSABLE: "on",
}  # fmt: skip
# As the guide's "User": a primary key, and a unique address.
TABLE = """
    CREATE TABLE acc (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL,
                      hits int NOT NULL DEFAULT 0, new_col text);
    INSERT INTO acc (email) SELECT 'User.' || i || '@Example.ORG' FROM generate_series(1, {rows}) i;
    CREATE UNIQUE INDEX acc_email ON acc (email)
"""
UPDATE = "UPDATE acc SET new_col = lower(email) WHERE new_col IS NULL"
GUIDE = f"""
    UPDATE acc SET new_col = lower(email)
     WHERE id IN (SELECT id FROM acc WHERE new_col IS NULL ORDER BY id LIMIT {GUIDE_ROWS})
"""
# Keyset batches without a VACUUM: how the table looks when the guide's batches have come so far.
FORWARD = "UPDATE acc SET new_col = lower(email) WHERE id > $1 AND id <= $1 + 10000"
SPEC = BackfillSpec(
    key="bench", schema="public", table="acc", assignments_sql="new_col = lower(email)",
    where_sql="new_col IS NULL",
)  # fmt: skip


@dataclass(slots=True)
class Switch:
    """Starts and stops what is measured."""

    is_paused: bool = False


@dataclass(slots=True)
class Place:
    """A server with a database `source` that all runs copy."""

    server: Server
    folder: Path
    rows: int

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[str]:
        """A fresh copy with warm caches, after a checkpoint; where it is."""
        await self.run("CREATE DATABASE work TEMPLATE source STRATEGY file_copy")
        try:
            dsn = self.server.dsn("work")
            await self.run("SELECT count(*), sum(length(email)) FROM acc", database="work")
            await self.run("CHECKPOINT")
            yield dsn
        finally:
            await self.run("DROP DATABASE work WITH (FORCE)")

    async def run(self, *statements: str, database: str = "postgres") -> None:
        """Statements, each alone."""
        async with connected(self.server.dsn(database)) as conn:
            for statement in statements:
                await conn.execute(statement, timeout=3600)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection that waits an hour if need be."""
    conn = await asyncpg.connect(dsn, command_timeout=3600)
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def a_place(rows: int) -> AsyncIterator[Place]:
    """A server with a table of so many rows; gone afterwards."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = await create(find_binaries(os.environ), folder / "pg", settings=SETTINGS)
        await server.start()
        try:
            place = Place(server, folder, rows)
            await place.run("CREATE DATABASE source")
            await place.run(TABLE.format(rows=rows), "VACUUM ANALYZE acc", database="source")
            yield place
        finally:
            await server.stop("immediate")


async def ours(
    dsn: str, ranges: int, switch: Switch, on_batch: Callable[[BatchDone], None] | None = None
) -> BackfillOutcome:
    """A backfill as it runs; nobody is told how it goes."""
    spec = replace(SPEC, ranges=ranges)
    limits = BackfillLimits(time_limit=timedelta(hours=2))
    return await run_backfill(
        parse_dsn(dsn), spec, control=switch, tell=_nobody, limits=limits, on_batch=on_batch
    )


async def _nobody(text: str, fraction: float | None) -> None:
    """Tells nobody."""
