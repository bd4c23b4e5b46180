"""Statements by the time they took, and what changed since an earlier window. Pure.

A statement's sums (calls, time, squared time) say its mean and spread; that 95 of 100 calls
were faster than p95 is estimated from them, as if the times were lognormal, because no server
keeps single executions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from store.statements import StatementSum

# The guide's list: statements whose mean is above it.
SLOW_MEAN_MS: Final = 1000.0
BLOCK_BYTES: Final = 8192
SHOWN_MAX: Final = 15
WEEK: Final = timedelta(days=7)
# An earlier window needs so much of the hours that the present one has.
_COVERED_MIN: Final = 0.5
_P95: Final = 1.6448536269514722  # of the normal distribution
# Less than this is noise.
CHANGE_MIN: Final = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Hours of sums; `hours`: how many of them have any, the running one as its fraction."""

    since: datetime
    until: datetime
    hours: float
    sums: tuple[StatementSum, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Against an earlier window: time per hour and mean, each as a factor. None: it is new."""

    load: float | None = None
    mean: float | None = None

    @property
    def is_new(self) -> bool:
        """It was not among the heaviest of the earlier window."""
        return self.load is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One statement. `share` of the time of all; `hit_share` None where it touched no blocks."""

    queryid: int
    text: str
    is_utility: bool
    share: float
    total_ms: float
    calls: int
    mean_ms: float
    p95_ms: float
    rows_per_call: float
    read_bytes: int
    hit_share: float | None
    temp_bytes: int
    change: Change | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it is on the guide's list."""
        return self.mean_ms > SLOW_MEAN_MS


def lines_of(
    window: Window, earlier: Window | None, *, all_ms: float | None = None
) -> tuple[Line, ...]:
    """The heaviest statements of a window first, at most `SHOWN_MAX`, then the guide's slow ones.

    `all_ms`: the time of all statements, where the sums are only the heaviest of them.
    """
    whole = all_ms if all_ms is not None else sum(each.total_ms for each in window.sums)
    ranked = sorted(window.sums, key=lambda each: (-each.total_ms, each.queryid))
    ranked = [each for each in ranked if each.calls > 0]
    slow = [each for each in ranked[SHOWN_MAX:] if each.total_ms / each.calls > SLOW_MEAN_MS]
    before = {each.queryid: each for each in earlier.sums} if earlier is not None else {}
    return tuple(
        _line(each, whole, _change(each, window, earlier, before))
        for each in (*ranked[:SHOWN_MAX], *slow[: SHOWN_MAX // 3])
    )


def p95_ms(each: StatementSum) -> float:
    """About 95 of 100 of its calls were faster; never above the slowest that is known."""
    mean = each.total_ms / each.calls
    if mean <= 0:
        return 0.0
    variance = max(each.square_ms / each.calls - mean * mean, 0.0)
    spread = math.log1p(variance / (mean * mean))
    estimate = math.exp(math.log(mean) - spread / 2 + _P95 * math.sqrt(spread))
    return min(estimate, each.max_ms) if each.max_ms >= mean else estimate


def windows_before(since: datetime, until: datetime, *, kept_since: datetime) -> tuple[
    tuple[datetime, datetime], ...
]:  # fmt: skip
    """The windows to compare with, the best first: the same hours last week, then all before."""
    last_week = (since - WEEK, until - WEEK)
    return (last_week, (kept_since, since)) if kept_since < since else (last_week,)


def covers(earlier_hours: float, hours: float) -> bool:
    """Whether an earlier window has enough hours to say that something changed."""
    return earlier_hours > 0 and earlier_hours >= _COVERED_MIN * min(hours, 24)


def _line(each: StatementSum, whole: float, change: Change | None) -> Line:
    blocks = each.blocks_hit + each.blocks_read
    return Line(
        queryid=each.queryid,
        text=each.text,
        is_utility=each.is_utility,
        share=each.total_ms / whole if whole > 0 else 0.0,
        total_ms=each.total_ms,
        calls=each.calls,
        mean_ms=each.total_ms / each.calls,
        p95_ms=p95_ms(each),
        rows_per_call=each.rows / each.calls,
        read_bytes=each.blocks_read * BLOCK_BYTES,
        hit_share=each.blocks_hit / blocks if blocks else None,
        temp_bytes=each.temp_blocks * BLOCK_BYTES,
        change=change,
    )


def _change(
    each: StatementSum,
    window: Window,
    earlier: Window | None,
    before: Mapping[int, StatementSum],
) -> Change | None:
    """None where there is nothing to compare with."""
    if earlier is None or earlier.hours <= 0 or window.hours <= 0:
        return None
    old = before.get(each.queryid)
    if old is None or old.calls <= 0 or old.total_ms <= 0:
        return Change()
    return Change(
        load=(each.total_ms / window.hours) / (old.total_ms / earlier.hours),
        mean=(each.total_ms / each.calls) / (old.total_ms / old.calls),
    )


def change_text(change: Change | None) -> str:
    """In a few characters: `new`, `time 2.3x, mean 1.4x`, `-` where nothing is known."""
    if change is None:
        return "-"
    if change.load is None or change.mean is None:
        return "new"
    said = [
        f"{name} {_factor(value)}"
        for name, value in (("time", change.load), ("mean", change.mean))
        if not 1 / CHANGE_MIN < value < CHANGE_MIN
    ]
    return ", ".join(said) or "as before"


def _factor(value: float) -> str:
    return f"{value:,.0f}x" if value >= 10 else f"{value:.2g}x"  # noqa: PLR2004 - two figures


def worst(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Those that a plan is worth trying for, the heaviest first."""
    return tuple(each for each in lines if not each.is_utility and each.text)
