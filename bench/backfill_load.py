"""How others fare beside a backfill: pgbench in windows with and without it, by turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.backfill_place import GUIDE, RANGES, UPDATE, Place, Switch, connected, ours
from bench.table import Result, percentile
from postgres.dsn import parse_dsn

TPS, CLIENTS = 400, 16
WINDOW_SECONDS, CYCLES, SETTLE_SECONDS = 6.0, 6, 0.5
LOAD = """
\\set one random(1, {rows})
\\set other random(1, {rows})
SELECT email FROM acc WHERE id = :one;
UPDATE acc SET hits = hits + 1 WHERE id = :other;
"""


@dataclass(slots=True)
class Windows:
    """When the backfill was at work and when not, by the wall clock."""

    on: list[tuple[float, float]] = field(default_factory=list)
    off: list[tuple[float, float]] = field(default_factory=list)


async def beside_load(place: Place) -> list[Result]:
    """The p99 of others in ms, beside each way of doing it and without."""
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
        await ours(dsn, ranges, switch)

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
