"""What a trial on a copy says beforehand, beside what the backfill then takes: round by round.

The trial has about a quarter of the time that the whole takes, so that most of what it says is
said of rows that it has not done. There is one before and one after each backfill, and the mean of
the two counts: what else the machine does by then meets both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from bench.backfill_place import SPEC, Place, Switch, connected, ours
from bench.table import Result
from postgres.dsn import parse_dsn
from postgres.migrate.backfill.estimate import Estimate, estimate
from postgres.migrate.backfill.trial import try_backfill

SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Seconds: what was likely, how long the trial was, and what it took without waiting."""

    likely: float
    tried: float
    taken: float

    @property
    def ratio(self) -> float:
        """What was likely against what it took."""
        return self.likely / self.taken


async def estimates(place: Place, rounds: int) -> list[Round]:
    """So many rounds, each part of it on a fresh copy, one right after the other."""
    made = []
    taken = await _taken(place)  # of how long a trial is, this alone decides
    for _ in range(rounds):
        most = timedelta(seconds=taken * SHARE)
        before, tried = await _tried(place, most)
        taken = await _taken(place)
        after, _ = await _tried(place, most)
        likely = (before.likely_seconds + after.likely_seconds) / 2
        made.append(Round(likely=likely, tried=tried, taken=taken))
        print(
            f"{before.likely_seconds:.1f} and {after.likely_seconds:.1f} s likely, {taken:.1f} s"
            f" taken: {made[-1].ratio:.2f}", file=sys.stderr, flush=True,
        )  # fmt: skip
    return made


async def _taken(place: Place) -> float:
    """How long a backfill takes, without what it waits for."""
    async with place.copy() as dsn:
        began = time.perf_counter()
        outcome = await ours(dsn, 2, Switch())
        waited = outcome.throttled_seconds + outcome.spared_seconds
        return time.perf_counter() - began - waited


async def _tried(place: Place, most: timedelta) -> tuple[Estimate, float]:
    """What a trial on a copy leads to, and how long it was."""
    async with place.copy() as dsn:
        began = time.perf_counter()
        trial = await try_backfill(parse_dsn(dsn), SPEC, most=most)
        tried = time.perf_counter() - began
    async with connected(place.server.dsn("source")) as conn:
        return await estimate(conn, SPEC, trial), tried


def estimates_row(rows: int, rounds: Sequence[Round]) -> Result:
    """The medians, and from where to where single rounds went. Pure."""
    taken = sorted(each.taken for each in rounds)
    ratios = sorted(each.ratio for each in rounds)
    return Result(
        what=f"… {rows:,} rows, 2 ranges: likely by a trial of"
        f" {median(each.tried for each in rounds):.0f} s on a copy, and taken; medians of"
        f" {len(rounds)}",
        ours=f"{median(each.likely for each in rounds):.1f} s",
        floor=f"{median(taken):.1f} s ({taken[0]:.1f} to {taken[-1]:.1f})",
        ratio=f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        aim="0.7 to 1.3",
    )
