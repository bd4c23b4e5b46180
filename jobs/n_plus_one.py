"""N+1: one statement finds rows, and another is called once for each of them. Pure.

Statistics know no sessions, so it is seen in the sums of hours: whatever the traffic was, the
calls of one statement followed the rows of the other, one to one. It is a hint, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from store.statements import StatementHour

HOURS_MIN: Final = 8
SLOPE: Final = (0.9, 1.1)
CORRELATION_MIN: Final = 0.98
# Else both only follow the traffic: one row per call is what every request finds.
PARENT_ROWS_PER_CALL_MIN: Final = 2.0
CALLS_MIN: Final = 200  # in all hours together
SPREAD_MIN: Final = 0.05  # where all hours are alike, everything correlates
HINTS_MAX: Final = 5
_CANDIDATES_MAX: Final = 150

# What a key lookup looks for, such as "customers.id", or None where a text is none.
Lookup = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`child` is called once for each row of `parent`; `saved_calls` if it were asked at once."""

    parent: str
    child: str
    key: str
    parent_calls: int
    parent_rows: int
    child_calls: int
    child_ms: float
    hours: int
    slope: float
    correlation: float

    @property
    def saved_calls(self) -> int:
        """Calls fewer, if the rows of one call of the parent are asked for together."""
        return max(self.child_calls - self.parent_calls, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """A statement over the hours."""

    text: str
    calls: Mapping[datetime, int]
    rows: Mapping[datetime, int]
    total_calls: int
    total_rows: int
    total_ms: float


def n_plus_one(hours: Sequence[StatementHour], lookup: Lookup) -> tuple[Pair, ...]:
    """The pairs that look like N+1, those that would save most calls first."""
    courses = _courses(hours)
    children = sorted(
        (each for each in courses if each.total_calls >= CALLS_MIN),
        key=lambda each: -each.total_calls,
    )[:_CANDIDATES_MAX]
    parents = [
        each
        for each in courses
        if each.total_calls and each.total_rows / each.total_calls >= PARENT_ROWS_PER_CALL_MIN
    ]
    best: dict[str, Pair] = {}
    for child in children:
        near = [each for each in parents if each is not child and _is_near(each, child)]
        if not near or (key := lookup(child.text)) is None:
            continue
        pairs = [pair for parent in near if (pair := _pair(parent, child, key)) is not None]
        if pairs:
            best[child.text] = max(pairs, key=lambda pair: pair.correlation)
    return tuple(sorted(best.values(), key=lambda pair: -pair.saved_calls)[:HINTS_MAX])


def _courses(hours: Sequence[StatementHour]) -> tuple[_Course, ...]:
    by_statement: dict[int, list[StatementHour]] = {}
    for hour in hours:
        if hour.text and not hour.is_utility:
            by_statement.setdefault(hour.queryid, []).append(hour)
    return tuple(_course(each) for each in by_statement.values())


def _course(hours: Sequence[StatementHour]) -> _Course:
    calls: dict[datetime, int] = {}
    rows: dict[datetime, int] = {}
    for hour in hours:  # of several nodes, perhaps
        calls[hour.at] = calls.get(hour.at, 0) + hour.calls
        rows[hour.at] = rows.get(hour.at, 0) + hour.rows
    return _Course(
        text=hours[0].text,
        calls=calls,
        rows=rows,
        total_calls=sum(calls.values()),
        total_rows=sum(rows.values()),
        total_ms=sum(hour.total_ms for hour in hours),
    )


def _is_near(parent: _Course, child: _Course) -> bool:
    """Whether the totals alone allow it: cheap, and leaves few to look at closely."""
    return SLOPE[0] <= child.total_calls / max(parent.total_rows, 1) <= SLOPE[1]


def _pair(parent: _Course, child: _Course, key: str) -> Pair | None:
    shared = sorted(parent.rows.keys() & child.calls.keys())
    if len(shared) < HOURS_MIN:
        return None
    found = _fit([parent.rows[at] for at in shared], [child.calls[at] for at in shared])
    if found is None:
        return None
    slope, correlation = found
    if not (SLOPE[0] <= slope <= SLOPE[1] and correlation > CORRELATION_MIN):
        return None
    return Pair(
        parent=parent.text,
        child=child.text,
        key=key,
        parent_calls=parent.total_calls,
        parent_rows=parent.total_rows,
        child_calls=child.total_calls,
        child_ms=child.total_ms,
        hours=len(shared),
        slope=slope,
        correlation=correlation,
    )


def _fit(xs: Sequence[int], ys: Sequence[int]) -> tuple[float, float] | None:
    """Slope and correlation of a straight line; None where `xs` or `ys` hardly move."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    moved_x = sum((x - mean_x) ** 2 for x in xs)
    moved_y = sum((y - mean_y) ** 2 for y in ys)
    if not _moves(moved_x, mean_x, len(xs)) or not _moves(moved_y, mean_y, len(ys)):
        return None
    together = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return together / moved_x, together / math.sqrt(moved_x * moved_y)


def _moves(squares: float, mean: float, count: int) -> bool:
    return mean > 0 and math.sqrt(squares / count) / mean >= SPREAD_MIN
