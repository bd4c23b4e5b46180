"""A backfill beside one UPDATE and the guide's batches: speed, growth, others' latency, estimate.

`python -m bench.backfill [--rows 2000000,5000000] [--full]`. Every run has a fresh copy of the
same database. Without `--full` the guide's batches are measured at the start, in the middle and at
the end of the table, twenty each, and put together by Simpson's rule: their time grows in
proportion to what is done already. How others fare is measured in one run of pgbench, in windows
with and without the backfill by turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench.places import ROOT
from bench.table import Result, percentile
from postgres.dsn import parse_dsn
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.backfill.estimate import estimate
from postgres.migrate.backfill.estimate import measure as measure_pace
from postgres.migrate.backfill.spec import (
    BackfillLimits,
    BackfillOutcome,
    BackfillSpec,
    BatchDone,
)
from postgres.server import Server, create, find_binaries

ROWS = "2000000,5000000"
GUIDE_ROWS = 10_000
GUIDE_SAMPLED = 20
GUIDE_ROWS_ALL = 6 * GUIDE_SAMPLED * GUIDE_ROWS  # up to so many all of them are run
RANGES = (1, 2, 4)
TPS, CLIENTS = 400, 16
WINDOW_SECONDS, CYCLES, SETTLE_SECONDS = 6.0, 6, 0.5
SETTINGS = {
    "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
    "max_connections": "60",
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
LOAD = """
\\set one random(1, {rows})
\\set other random(1, {rows})
SELECT email FROM acc WHERE id = :one;
UPDATE acc SET hits = hits + 1 WHERE id = :other;
"""


@dataclass(slots=True)
class Switch:
    """Starts and stops what is measured."""

    is_paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One run: seconds, and seconds per row of its batches in their order."""

    seconds: float
    per_row: Sequence[float] = ()

    @property
    def growth(self) -> float:
        """The last tenth of the batches beside the first."""
        tenth = max(len(self.per_row) // 10, 1)
        return median(self.per_row[-tenth:]) / median(self.per_row[:tenth])

    @property
    def ends(self) -> tuple[float, float]:
        """Ms for 10,000 rows at the start and at the end."""
        tenth = max(len(self.per_row) // 10, 1)
        first, last = median(self.per_row[:tenth]), median(self.per_row[-tenth:])
        return first * 1e7, last * 1e7


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


async def measure(rows: str = "", *, full: bool = False) -> list[Result]:
    """All of it for each number of rows; how others fare for the last one."""
    rows = rows or os.environ.get("BENCH_BACKFILL_ROWS", ROWS)
    sizes = [int(each) for each in rows.split(",")]
    full = full or bool(os.environ.get("BENCH_BACKFILL_FULL"))
    results: list[Result] = []
    (ROOT / ".bench").mkdir(exist_ok=True)
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o755)
            server = await create(find_binaries(os.environ), folder / "pg", settings=SETTINGS)
            await server.start()
            try:
                place = Place(server, folder, size)
                await place.run("CREATE DATABASE source")
                await place.run(TABLE.format(rows=size), "VACUUM ANALYZE acc", database="source")
                results += await _speeds(place, full=full)
                if size == sizes[-1]:
                    results += await _beside_load(place)
            finally:
                await server.stop("immediate")
    return results


async def _speeds(place: Place, *, full: bool) -> list[Result]:
    async with place.copy() as dsn:
        once = await _one_update(dsn)
    async with place.copy() as dsn:
        guide = await _guide(dsn, place.rows, full=full)
    ours: dict[int, Speed] = {}
    likely = 0.0
    for ranges in RANGES:
        if ranges == 2:
            async with place.copy() as dsn:
                likely = await _estimated(dsn)
        async with place.copy() as dsn:
            ours[ranges] = await _backfill(dsn, ranges)
    return _speed_rows(place.rows, once, guide, ours, likely=likely, full=full)


def _speed_rows(
    rows: int, once: Speed, guide: Speed, ours: dict[int, Speed], *, likely: float, full: bool
) -> list[Result]:
    two = ours[2]
    full = full or rows <= GUIDE_ROWS_ALL
    how = "all of them" if full else f"3 x {GUIDE_SAMPLED} batches, by Simpson"
    made = [
        Result(
            what=f"backfill of {rows:,} rows, {ranges} range{'s' * (ranges > 1)}: rows a second;"
            " floor: one UPDATE",
            ours=f"{rows / speed.seconds:,.0f}",
            floor=f"{rows / once.seconds:,.0f}",
            ratio=f"{once.seconds / speed.seconds:.2f}",
            aim="at least 1.5" if ranges == 2 else "",
        )
        for ranges, speed in ours.items()
    ]
    made.append(
        Result(
            what=f"… {rows:,} rows, 2 ranges; floor: the guide's batches ({how})",
            ours=f"{rows / two.seconds:,.0f}",
            floor=f"{rows / guide.seconds:,.0f}",
            ratio=f"{guide.seconds / two.seconds:.1f}",
            aim="at least 10" if rows >= 5_000_000 else "",
        )
    )
    first, last = two.ends
    guide_first, guide_last = guide.ends
    made.append(
        Result(
            what=f"… {rows:,} rows, ms for 10,000 rows at the start and at the end; floor: guide's",
            ours=f"{first:.0f} to {last:.0f}",
            floor=f"{guide_first:.0f} to {guide_last:.0f}",
            ratio=f"{two.growth:.2f}; guide's {guide.growth:.1f}",
            aim="at most 1.3",
        )
    )
    made.append(
        Result(
            what=f"… {rows:,} rows, 2 ranges: estimated on a copy, and taken",
            ours=f"{likely:.1f} s",
            floor=f"{two.seconds:.1f} s",
            ratio=f"{likely / two.seconds:.2f}",
            aim="0.7 to 1.3",
        )
    )
    return made


async def _one_update(dsn: str) -> Speed:
    async with connected(dsn) as conn:
        began = time.perf_counter()
        await conn.execute(UPDATE)
        return Speed(seconds=time.perf_counter() - began)


async def _guide(dsn: str, rows: int, *, full: bool) -> Speed:
    """The guide's batches, without the sleep between them."""
    async with connected(dsn) as conn:
        if full or rows <= GUIDE_ROWS_ALL:
            per_row = await _guide_batches(conn, rows)
            return Speed(seconds=sum(per_row) * GUIDE_ROWS, per_row=per_row)
        parts, done = list[list[float]](), 0
        sampled = GUIDE_SAMPLED * GUIDE_ROWS
        for start in (0, (rows - sampled) // 2, rows - sampled):
            for at in range(done, start, GUIDE_ROWS):
                await conn.execute(FORWARD, at)
            parts.append(await _guide_batches(conn, GUIDE_SAMPLED * GUIDE_ROWS))
            done = max(start, done) + sampled
        first, middle, last = (sum(part) / len(part) for part in parts)
        seconds = rows * (first + 4 * middle + last) / 6
        return Speed(seconds=seconds, per_row=[each for part in parts for each in part])


async def _guide_batches(conn: Any, rows: int) -> list[float]:
    """Seconds per row of batches for about so many rows, or until there are none."""
    per_row = []
    for _ in range(-(-rows // GUIDE_ROWS)):
        began = time.perf_counter()
        done = int((await conn.execute(GUIDE)).rpartition(" ")[2])
        if not done:
            break
        per_row.append((time.perf_counter() - began) / done)
    return per_row


async def _estimated(dsn: str) -> float:
    pace = await measure_pace(parse_dsn(dsn), SPEC)
    async with connected(dsn) as conn:
        found = await estimate(conn, SPEC, pace)
    return (found.low_seconds + found.high_seconds) / 2


async def _backfill(dsn: str, ranges: int) -> Speed:
    batches: list[BatchDone] = []
    began = time.perf_counter()
    outcome = await _ours(dsn, ranges, Switch(), batches.append)
    assert outcome.rows_left == 0
    seconds = time.perf_counter() - began
    usual = median(each.passed for each in batches)
    whole = [each for each in batches if each.passed >= usual / 2]  # no remainder of a piece
    return Speed(seconds=seconds, per_row=[each.seconds / each.passed for each in whole])


async def _ours(
    dsn: str, ranges: int, switch: Switch, on_batch: Callable[[BatchDone], None] | None = None
) -> BackfillOutcome:
    spec = replace(SPEC, ranges=ranges)
    limits = BackfillLimits(time_limit=timedelta(hours=2))
    return await run_backfill(
        parse_dsn(dsn), spec, control=switch, tell=_nobody, limits=limits, on_batch=on_batch
    )


async def _nobody(text: str, fraction: float | None) -> None:
    """Tells nobody."""


@dataclass(slots=True)
class Windows:
    """When the backfill was at work and when not, by the wall clock."""

    on: list[tuple[float, float]] = field(default_factory=list)
    off: list[tuple[float, float]] = field(default_factory=list)


async def _beside_load(place: Place) -> list[Result]:
    results = []
    ways: list[tuple[str, Callable[[str, Switch], Awaitable[Any]]]] = [
        ("one UPDATE", _update_on_switch),
        ("the guide's batches, its first and quickest", _guide_on_switch),
        *((f"{n} range{'s' * (n > 1)}", _on_switch(n)) for n in RANGES),
    ]
    for name, way in ways:
        async with place.copy() as dsn:
            cycles = 1 if name == "one UPDATE" else CYCLES
            on, off = await _latencies(place, dsn, way, cycles=cycles)
        p99, unloaded = percentile(on, 0.99), percentile(off, 0.99)
        results.append(
            Result(
                what=f"p99 of {TPS} tps beside a backfill of {place.rows:,} rows, {name};"
                " floor: without",
                ours=f"{p99:.1f} ms",
                floor=f"{unloaded:.1f} ms",
                ratio=f"{p99 / unloaded:.2f}",
                aim="at most 2" if "range" in name else "",
            )
        )
    return results


def _on_switch(ranges: int) -> Callable[[str, Switch], Awaitable[Any]]:
    async def run(dsn: str, switch: Switch) -> None:
        await _ours(dsn, ranges, switch)

    return run


async def _guide_on_switch(dsn: str, switch: Switch) -> None:
    async with connected(dsn) as conn:
        while True:
            if switch.is_paused:
                await asyncio.sleep(0.02)
            elif (await conn.execute(GUIDE)) == "UPDATE 0":
                return


async def _update_on_switch(dsn: str, switch: Switch) -> None:
    """It cannot be stopped between: others wait for all of it."""
    while switch.is_paused:
        await asyncio.sleep(0.02)
    async with connected(dsn) as conn:
        await conn.execute(UPDATE)


async def _latencies(
    place: Place, dsn: str, way: Callable[[str, Switch], Awaitable[Any]], *, cycles: int
) -> tuple[list[float], list[float]]:
    """Others' transaction times in ms: while it was at work, and while it was not."""
    switch, windows = Switch(is_paused=True), Windows()
    async with _pgbench(place) as logs:
        await asyncio.sleep(SETTLE_SECONDS * 4)
        work = asyncio.ensure_future(way(dsn, switch))
        for _ in range(cycles):
            await _window(windows.off, work)
            switch.is_paused = False
            await _window(windows.on, work, whole=cycles == 1)
            switch.is_paused = True
            if work.done():
                break
            await asyncio.sleep(1.0)
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    seen = _read_logs(logs)
    return _within(seen, windows.on), _within(seen, windows.off)


async def _window(into: list[tuple[float, float]], work: Any, *, whole: bool = False) -> None:
    began = time.time()
    with contextlib.suppress(TimeoutError):
        seconds = None if whole else WINDOW_SECONDS
        await asyncio.wait_for(asyncio.shield(asyncio.wait({work})), seconds)
    into.append((began + SETTLE_SECONDS * (not whole), time.time()))


@asynccontextmanager
async def _pgbench(place: Place) -> AsyncIterator[Path]:
    """The load, for as long as this lasts; where its logs will be."""
    logs = Path(tempfile.mkdtemp(dir=place.folder))
    (logs / "load.sql").write_text(LOAD.format(rows=place.rows))
    program = place.server.binaries.program("pgbench")
    process = await asyncio.create_subprocess_exec(
        program, "-n", "-f", logs / "load.sql", "-c", str(CLIENTS), "-j", "1", "-M", "prepared",
        "-R", str(TPS), "-T", "7200", "-l", "--log-prefix", str(logs / "log"),
        env={**os.environ, **parse_dsn(place.server.dsn("work", tcp=True)).environ()},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield logs
    finally:
        process.terminate()
        await process.wait()


def _read_logs(logs: Path) -> list[tuple[float, float]]:
    """(when it was due, ms until it was done) of each transaction."""
    seen = []
    for file in logs.glob("log.*"):
        for line in file.read_text().splitlines():
            words = line.split()
            if len(words) >= 6 and words[2].isdigit():
                ms = int(words[2]) / 1000
                seen.append((int(words[4]) + int(words[5]) / 1e6 - ms / 1000, ms))
    return seen


def _within(
    seen: Sequence[tuple[float, float]], windows: Sequence[tuple[float, float]]
) -> list[float]:
    return [ms for at, ms in seen if any(begin <= at < end for begin, end in windows)]


if __name__ == "__main__":
    from bench.table import as_markdown

    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", default="", help=f"numbers with commas (default {ROWS})")
    asked.add_argument("--full", action="store_true", help="every one of the guide's batches")
    given = asked.parse_args()
    print(as_markdown(asyncio.run(measure(given.rows, full=given.full))))
