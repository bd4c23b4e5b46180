"""How fast something grows, from its daily sizes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from statistics import median
from typing import Final

from store.sizes import DaySize

# Fewer days say nothing about a trend; more than a month is another trend.
DAYS_MIN: Final = 7
SPAN: Final = timedelta(days=30)
WEEK: Final = timedelta(days=7)


def growth_per_day(history: Sequence[DaySize]) -> float | None:
    """Bytes a day, or None while fewer than `DAYS_MIN` days are known.

    The median of the slopes of pairs of days (Theil, 1950; Sen, 1968), but of those a week
    apart: a quiet weekend and a weekly purge are in each of them, and an import in the middle of
    the month is in a third of them, where it would be in most of all pairs.
    """
    if len(history) < DAYS_MIN:
        return None
    newest = max(each.day for each in history)
    ordered = sorted(
        (each for each in history if newest - each.day < SPAN), key=lambda each: each.day
    )
    by_day = {each.day: each.bytes for each in ordered}
    weekly = [
        (each.bytes - by_day[each.day - WEEK]) / WEEK.days
        for each in ordered
        if each.day - WEEK in by_day
    ]
    slopes = weekly or _all_slopes(ordered)
    return median(slopes) if slopes else None


def _all_slopes(ordered: Sequence[DaySize]) -> list[float]:
    return [
        (later.bytes - earlier.bytes) / (later.day - earlier.day).days
        for earlier, later in combinations(ordered, 2)
    ]
