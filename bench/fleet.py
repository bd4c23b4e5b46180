"""One worker process that looks at a hundred databases, and at one more that never answers.

A hundred entries of the inventory on one server with ten databases: what a worker holds and does
for each is the same as with a hundred servers. `python -m bench.fleet STORE SERVER PORT` is that
worker; it looks until it is ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from pydantic import SecretStr

import jobs.worker
from bench.places import ROOT, make_database
from bench.table import Result, percentile
from jobs.collecting import Collecting
from jobs.health_settings import MonitoringSettings
from jobs.operation import Database, Tier
from postgres.ports import free_port
from postgres.server import Server, create, find_binaries
from store.connect import connect
from store.upgrade import upgrade

DATABASES = 100
TARGETS = 10
EVERY = timedelta(seconds=10)  # thrice as often as is usual, to see more rounds
USUAL = timedelta(seconds=30)
WARM_SECONDS = 25.0
SECONDS = 50.0
SAMPLES = """
    SELECT database, at, (numbers ->> 'collection_ms')::float8 AS ms,
           (numbers ->> 'up')::float8 AS up
      FROM samples WHERE at >= $1 ORDER BY database, at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a worker took. `seconds` of processor time; `late`: beyond the interval, seconds."""

    rss_bytes: int
    seconds: float
    wall: float
    looks: int
    silent: int
    milliseconds: Sequence[float]
    late: Sequence[float]


async def measure() -> list[Result]:
    """Memory, processor and punctuality of one worker."""
    async with _server() as server:
        found = await _measured(server)
    per_look = 1000 * found.seconds / found.looks
    share = 100 * per_look / 1000 * DATABASES / USUAL.total_seconds()
    return [
        Result(
            what=f"memory of a worker that looks at {DATABASES} databases",
            ours=f"{found.rss_bytes / 1024**2:.0f} MB",
        ),
        Result(
            what=f"its processor time: one look / one core at {USUAL.seconds} s",
            ours=f"{per_look:.1f} ms / {share:.1f} %",
        ),
        Result(
            what=f"one look at a node of them: p50 / p99 of {len(found.milliseconds):,}",
            ours=f"{percentile(found.milliseconds, 0.5):.1f} / "
            f"{percentile(found.milliseconds, 0.99):.1f} ms",
        ),
        Result(
            what=f"late beside one that never answers ({found.silent} looks): p99 / most",
            ours=f"{percentile(found.late, 0.99):.2f} / {max(found.late):.2f} s",
        ),
    ]


async def _measured(server: Server) -> Fleet:
    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1024):
                pass
        finally:
            writer.close()

    hung = await asyncio.start_server(never_answers, "127.0.0.1", port := free_port())
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.fleet", server.dsn("twokey"), server.dsn("target0"),
        str(port), cwd=ROOT,
    )  # fmt: skip
    try:
        await asyncio.sleep(WARM_SECONDS)
        process, since, began = psutil.Process(child.pid), datetime.now(UTC), time.perf_counter()
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(SECONDS)
        seconds, wall = sum(process.cpu_times()[:2]) - before, time.perf_counter() - began
        rows = await _samples(server, since)
        return Fleet(
            rss_bytes=process.memory_info().rss,
            seconds=seconds,
            wall=wall,
            looks=len(rows),
            silent=sum(row["up"] == 0 for row in rows),
            milliseconds=[row["ms"] for row in rows if row["ms"] is not None],
            late=_late(rows),
        )
    finally:
        child.kill()
        await child.wait()
        hung.close()


def _late(rows: Sequence[Any]) -> list[float]:
    """How much more than the interval lay between two looks at a database that answers."""
    good = [row for row in rows if row["up"] == 1]
    return [
        max((later["at"] - earlier["at"] - EVERY).total_seconds(), 0.0)
        for earlier, later in pairwise(good)
        if earlier["database"] == later["database"]
    ]


async def _samples(server: Server, since: datetime) -> Sequence[Any]:
    conn = await asyncpg.connect(server.dsn("twokey"))
    try:
        found: Sequence[Any] = await conn.fetch(SAMPLES, since)
        return found
    finally:
        await conn.close()


@asynccontextmanager
async def _server() -> AsyncIterator[Server]:
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        server = await create(
            find_binaries(os.environ),
            Path(name) / "pg",
            settings={
                "max_connections": "200", "shared_buffers": "256MB",
                "shared_preload_libraries": "pg_stat_statements",
            },
        )  # fmt: skip
        await server.start()
        try:
            await make_database(server, "twokey")
            await upgrade(server.dsn("twokey"))
            for number in range(TARGETS):
                await make_database(server, f"target{number}")
                conn = await asyncpg.connect(server.dsn(f"target{number}"))
                await conn.execute("CREATE EXTENSION pg_stat_statements")
                await conn.close()
            yield server
        finally:
            await server.stop("immediate")


async def work(store_dsn: str, target: str, hung_port: int) -> None:
    """Be the worker."""
    dsns = {
        f"db{number}": target.replace("target0", f"target{number % TARGETS}")
        for number in range(DATABASES)
    }
    dsns["hung"] = f"postgresql://nobody@127.0.0.1:{hung_port}/none"
    databases = {
        name: Database(
            name=name,
            dsn=SecretStr(dsn),
            environment="bench",
            tier=Tier.STANDARD,
            channel="C0BENCH",
            backup_folder=Path("/nonexistent"),
            monitoring=MonitoringSettings(every=EVERY),
        )
        for name, dsn in dsns.items()
    }
    await Collecting(
        store=connect(store_dsn),
        databases=databases,
        worker=jobs.worker.__name__,
        clock=lambda: datetime.now(UTC),
    ).run()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
