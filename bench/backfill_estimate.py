"""What a trial on a copy says beforehand, beside what the backfill then takes: round by round.

The trial has about a quarter of the time that the whole takes, so that most of what it says is
said of rows that it has not done.
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
from postgres.migrate.backfill.estimate import estimate
from postgres.migrate.backfill.trial import try_backfill

ROWS_A_SECOND = 160_000  # about what two ranges do here: only how long the trial is follows from it
SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Seconds: what was likely, how long the trial was, and what it took without waiting."""

    likely: float
    low: float
    high: float
    tried: float
    taken: float

    @property
    def ratio(self) -> float:
        """What was likely against what it took."""
        return self.likely / self.taken


async def estimates(place: Place, rounds: int) -> list[Round]:
    """So many pairs, each on fresh copies, one right after the other."""
    made = []
    most = timedelta(seconds=place.rows * SHARE / ROWS_A_SECOND)
    for _ in range(rounds):
        async with place.copy() as dsn:
            began = time.perf_counter()
            trial = await try_backfill(parse_dsn(dsn), SPEC, most=most)
            tried = time.perf_counter() - began
        async with place.copy() as dsn:
            async with connected(dsn) as conn:
                found = await estimate(conn, SPEC, trial)
                likely = trial.seconds_for(found.rows)
            began = time.perf_counter()
            outcome = await ours(dsn, 2, Switch())
            taken = time.perf_counter() - began - outcome.throttled_seconds
        made.append(
            Round(
                likely=likely, low=found.low_seconds, high=found.high_seconds, tried=tried,
                taken=taken,
            )
        )  # fmt: skip
        print(f"{made[-1]} {made[-1].ratio:.2f}", file=sys.stderr, flush=True)
    return made


def estimates_row(rows: int, rounds: Sequence[Round]) -> Result:
    """The medians, and from where to where single rounds went. Pure."""
    ratios = sorted(each.ratio for each in rounds)
    within = sum(each.low <= each.taken <= each.high for each in rounds)
    return Result(
        what=f"… {rows:,} rows, 2 ranges: likely by a trial of"
        f" {median(each.tried for each in rounds):.0f} s on a copy, and taken; medians of"
        f" {len(rounds)}, {within} within the range that is told",
        ours=f"{median(each.likely for each in rounds):.1f} s",
        floor=f"{median(each.taken for each in rounds):.1f} s",
        ratio=f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        aim="0.7 to 1.3",
    )
