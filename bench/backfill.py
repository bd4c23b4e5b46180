"""A backfill beside one UPDATE and the guide's batches: speed, growth, others' latency, estimate.

`python -m bench.backfill [--rows 2000000,5000000] [--full] [--estimate ROUNDS]`. Every run has a
fresh copy of the same database. Without `--full` the guide's batches are measured at the start, in
the middle and at the end of the table, twenty each, and put together by Simpson's rule: their time
grows in proportion to what is done already. With `--estimate` only the estimate is measured beside
what a backfill takes, so many times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.backfill_estimate import estimates, estimates_row
from bench.backfill_load import beside_load
from bench.backfill_place import (
    FORWARD,
    GUIDE,
    GUIDE_ROWS,
    RANGES,
    UPDATE,
    Place,
    Switch,
    a_place,
    connected,
    ours,
)
from bench.table import Result
from postgres.migrate.backfill.spec import BatchDone

ROWS = "2000000,5000000"
ROUNDS = 5
GUIDE_SAMPLED = 20
GUIDE_ROWS_ALL = 6 * GUIDE_SAMPLED * GUIDE_ROWS  # up to so many all of them are run


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


async def measure(rows: str = "", *, full: bool = False, rounds: int = 0) -> list[Result]:
    """All of it for each number of rows; how others fare for the last one.

    With `rounds` the estimates alone, so often.
    """
    rows = rows or os.environ.get("BENCH_BACKFILL_ROWS", ROWS)
    sizes = [int(each) for each in rows.split(",")]
    full = full or bool(os.environ.get("BENCH_BACKFILL_FULL"))
    results: list[Result] = []
    for size in sizes:
        async with a_place(size) as place:
            if not rounds:
                results += await _speeds(place, full=full)
            results.append(estimates_row(size, await estimates(place, rounds or ROUNDS)))
            if size == sizes[-1] and not rounds:
                results += await beside_load(place)
    return results


async def _speeds(place: Place, *, full: bool) -> list[Result]:
    async with place.copy() as dsn:
        once = await _one_update(dsn)
    async with place.copy() as dsn:
        guide = await _guide(dsn, place.rows, full=full)
    ways: dict[int, Speed] = {}
    for ranges in RANGES:
        async with place.copy() as dsn:
            ways[ranges] = await _backfill(dsn, ranges)
    return _speed_rows(place.rows, once, guide, ways, full=full)


def _speed_rows(
    rows: int, once: Speed, guide: Speed, ways: dict[int, Speed], *, full: bool
) -> list[Result]:
    two = ways[2]
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
        for ranges, speed in ways.items()
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


async def _backfill(dsn: str, ranges: int) -> Speed:
    batches: list[BatchDone] = []
    began = time.perf_counter()
    outcome = await ours(dsn, ranges, Switch(), batches.append)
    assert outcome.rows_left == 0
    seconds = time.perf_counter() - began
    usual = median(each.passed for each in batches)
    whole = [each for each in batches if each.passed >= usual / 2]  # no remainder of a piece
    return Speed(seconds=seconds, per_row=[each.seconds / each.passed for each in whole])


if __name__ == "__main__":
    from bench.table import as_markdown

    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", default="", help=f"numbers with commas (default {ROWS})")
    asked.add_argument("--full", action="store_true", help="every one of the guide's batches")
    asked.add_argument("--estimate", type=int, default=0, metavar="ROUNDS", help="only estimates")
    given = asked.parse_args()
    print(as_markdown(asyncio.run(measure(given.rows, full=given.full, rounds=given.estimate))))
