"""A look at a node, beside `psql -f` with the same statements and a scrape of postgres_exporter.

On one server, with few tables and with ten thousand. psql runs what the collector ran, recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import asyncpg
from pydantic import SecretStr

from bench.backup import tool
from bench.places import ROOT, free_port
from bench.table import Result
from postgres.health.collect import NodeCollector
from postgres.health.tiers import EVERYTHING, Due
from postgres.server import Server, create, find_binaries

EXPORTER = "prometheus-postgres-exporter"
ROUNDS = 25
TABLES = 10_000
SETTINGS = {
    "shared_buffers": "256MB", "autovacuum": "off", "fsync": "off",
    "shared_preload_libraries": "pg_stat_statements",
}  # fmt: skip
PEOPLE = """
    CREATE EXTENSION pg_stat_statements;
    CREATE ROLE mon LOGIN;
    GRANT pg_monitor TO mon;
"""
MANY = f"""
    DO $$ BEGIN
        FOR i IN 1..{TABLES} LOOP
            EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, note text)', i);
            EXECUTE format('INSERT INTO t%s SELECT n, repeat(''x'', 50)'
                           ' FROM generate_series(1, %s) n', i, 10 + i % 100);
            IF i % 200 = 0 THEN COMMIT; END IF;
        END LOOP;
    END $$
"""
# What measures sizes, by what only it asks for.
SIZES = {
    "tables": "AS index_bytes", "databases": "pg_database_size", "WAL": "pg_ls_waldir",
    "locks": "'AccessExclusiveLock'",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Medians in milliseconds; `exporter` None where there is none. `queries`: each size's."""

    ours: float
    psql: float
    exporter: float | None
    queries: Mapping[str, float]


async def measure() -> list[Result]:
    """With few tables, then with ten thousand: the usual look, and one at everything."""
    results: list[Result] = []
    async with _server() as (server, folder):
        await _run(server, PEOPLE, *(f"SELECT {n} AS a{n}, now()" for n in range(60)))
        for label in ("few tables", f"{TABLES:,} tables"):
            if label != "few tables":
                await _run(server, MANY, "ANALYZE")
            usual = await _times(server, folder, Due())
            everything = await _times(server, folder, EVERYTHING)
            results += _rows(label, usual, everything)
    return results


def _rows(label: str, usual: Times, everything: Times) -> list[Result]:
    is_small = label == "few tables"
    rows = [
        Result(
            what=f"look at a node every 30 s, {label}; floor: psql -f",
            ours=f"{usual.ours:.1f} ms", floor=f"{usual.psql:.0f} ms",
            ratio=f"{usual.ours / usual.psql:.2f}", aim="20 ms, 0.5",
        ),
        Result(
            what=f"look at everything, {label}; floor: psql -f",
            ours=f"{everything.ours:.1f} ms", floor=f"{everything.psql:.0f} ms",
            ratio=f"{everything.ours / everything.psql:.2f}", aim="20 ms, 0.5" if is_small else "",
        ),
    ]  # fmt: skip
    if everything.exporter is not None:
        rows.append(
            Result(
                what=f"look at everything, {label}; floor: a scrape of postgres_exporter",
                ours=f"{everything.ours:.1f} ms",
                floor=f"{everything.exporter:.0f} ms",
                ratio=f"{everything.ours / everything.exporter:.2f}",
            )
        )
    queries = sorted(everything.queries.items(), key=lambda each: -each[1])
    rows.append(
        Result(
            what=f"queries for sizes, {label}: " + ", ".join(name for name, _ in queries),
            ours=", ".join(f"{ms:.0f}" for _, ms in queries) + " ms",
            aim="" if is_small else "each 150 ms",
        )
    )
    return rows


async def _times(server: Server, folder: Path, due: Due) -> Times:
    """Turn by turn, so that a busy moment of the machine meets them all."""
    collector = NodeCollector(SecretStr(server.dsn(user="mon")), name="orders")
    asked: list[Any] = []
    try:
        conn = await collector._connection.open()  # noqa: SLF001
        for _ in range(3):
            await collector.collect(datetime.now(UTC), due)
        with conn.query_logger(asked.append):
            await collector.collect(datetime.now(UTC), due)
        script = folder / "look.sql"
        script.write_text(_script(asked))
        script.chmod(0o644)
        asked.clear()
        async with _exporter(server) as scrape:

            async def look() -> None:
                await collector.collect(datetime.now(UTC), due)

            async def psql() -> None:
                await tool(
                    server, "psql", "-U", "mon", "-d", "postgres", "-X", "-q", "-v",
                    "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", str(script),
                )  # fmt: skip

            with conn.query_logger(asked.append):
                ours, theirs, scraped = await _in_turn([look, psql, *([scrape] if scrape else [])])
    finally:
        await collector.close()
    return Times(ours=ours, psql=theirs, exporter=scraped, queries=_of_sizes(asked))


async def _in_turn(
    works: Sequence[Callable[[], Awaitable[None]]],
) -> tuple[float, float, float | None]:
    took: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for each, work in zip(took, works, strict=True):
            began = time.perf_counter()
            await work()
            each.append((time.perf_counter() - began) * 1000)
    found = [median(each) for each in took]
    return found[0], found[1], found[2] if len(found) > 2 else None


def _script(asked: Sequence[Any]) -> str:
    return "".join(_with_arguments(one.query, one.args) + ";\n" for one in asked)


def _with_arguments(query: str, args: Sequence[Any]) -> str:
    for at, value in enumerate(args, 1):
        text = "{" + ",".join(map(str, value)) + "}" if isinstance(value, list | tuple) else value
        query = query.replace(f"${at}", f"'{text}'")
    return query


def _of_sizes(asked: Sequence[Any]) -> Mapping[str, float]:
    """The median of each statement that measures something, over all looks."""
    found: dict[str, list[float]] = {}
    for one in asked:
        for name, mark in SIZES.items():
            if mark in one.query and "pg_stat_activity" not in one.query:
                found.setdefault(name, []).append(one.elapsed * 1000)
    return {name: median(each) for name, each in found.items()} or {"none": 0.0}


@asynccontextmanager
async def _exporter(server: Server) -> AsyncIterator[Callable[[], Awaitable[None]] | None]:
    """What scrapes a postgres_exporter at the same server; None where it is not installed."""
    program = shutil.which(EXPORTER)
    if program is None:
        print(f"{EXPORTER} is not installed: left out")
        yield None
        return
    port = free_port()
    running = await asyncio.create_subprocess_exec(
        program, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        env={**os.environ, "DATA_SOURCE_NAME": server.dsn(user="mon")},
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:

            async def scrape() -> None:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    assert "\npg_up 1" in await answer.text()

            for _ in range(100):
                with contextlib.suppress(aiohttp.ClientError):
                    await scrape()
                    break
                await asyncio.sleep(0.1)
            yield scrape
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[Server, Path]]:
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        binaries = find_binaries(os.environ, major=17)
        server = await create(binaries, folder / "pg", settings=SETTINGS, sync=False)
        await server.start()
        try:
            yield server, folder
        finally:
            await server.remove()


async def _run(server: Server, *statements: str) -> None:
    conn = await asyncpg.connect(server.dsn())
    try:
        for statement in statements:
            await conn.execute(statement, timeout=600)
    finally:
        await conn.close()
