"""How large something will be: from its sizes of the past days, with a range. Pure.

What this module promises: the same history gives the same forecast; a history in another unit
gives the same forecast in that unit; no size is negative; low, mid and high keep their order.
The method is told in docs/health.md. numpy is imported when the first forecast is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobs.forecast_clean import Cleaned, Values
    from jobs.forecast_pace import Pace

HORIZONS: Final = (30, 90, 180, 365)
HISTORY_LEAST: Final = 14  # measured days: fewer say nothing
HISTORY_FOR_ALL: Final = 30  # fewer say something of the next 30 days alone
ROUGH_TIMES: Final = 4  # what is farther than so many times the history is rough
HISTORY_MOST: Final = 2_000
_LEVEL: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The size in `days` days. 80 of 100 futures lie within `low` and `high`; all in bytes."""

    days: int
    low: float
    mid: float
    high: float
    is_rough: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A jump that happened once: its level stays, and the trend is read without it. Bytes."""

    day: date
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """Jumps that come again, and are expected to. `size`: of a usual one, in bytes."""

    times: int
    every_days: float
    size: float
    is_regular: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """In how many days the capacity is reached, in 10, 50 and 90 of 100 futures.

    None: not within the days that are looked at. `share`: of the futures that reach it.
    """

    p10: int | None
    p50: int | None
    p90: int | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is expected from `last` on. `low`, `mid`, `high`: bytes on each day after it.

    `shapes`: how the pace goes on (`jobs.forecast_pace.Shape`) and how likely that is.
    """

    first: date
    last: date
    measured_days: int
    size: float
    bytes_per_day: float
    low: tuple[float, ...]
    mid: tuple[float, ...]
    high: tuple[float, ...]
    outlooks: tuple[Outlook, ...]
    shapes: tuple[tuple[str, float], ...]
    pace_changed_on: date | None
    left_out: tuple[LeftOut, ...]
    recurring: tuple[Recurring, ...]
    spikes: int
    full: Full | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TooShort:
    """No forecast yet. `from_day`: when there may be one, if each day is measured from now on."""

    measured_days: int
    from_day: date | None


def forecast(
    history: Sequence[tuple[date, int]], *, capacity: float | None = None
) -> Forecast | TooShort:
    """The future of a size, from one size per day; days may lack. `capacity`: what can be had.

    Raises:
        ValueError: days are not in order, or a size is negative.
    """
    known = list(history)[-HISTORY_MOST:]
    if any(after <= before for (before, _), (after, _) in pairwise(known)):
        raise ValueError("days must rise")
    if any(size < 0 for _, size in known):
        raise ValueError("sizes must not be negative")
    if len(known) < HISTORY_LEAST:
        return _too_short(known)
    return _forecast(known, capacity)


def _too_short(known: Sequence[tuple[date, int]]) -> TooShort:
    if not known:
        return TooShort(measured_days=0, from_day=None)
    lacking = HISTORY_LEAST - len(known)
    return TooShort(measured_days=len(known), from_day=known[-1][0] + timedelta(days=lacking))


def _forecast(known: Sequence[tuple[date, int]], capacity: float | None) -> Forecast:
    import numpy as np  # noqa: PLC0415 - heavy, and most processes never need it

    from jobs.forecast_clean import cleaned  # noqa: PLC0415
    from jobs.forecast_pace import candidates  # noqa: PLC0415
    from jobs.forecast_paths import paths  # noqa: PLC0415

    clean = cleaned(_daily(known))
    likely = candidates(clean)
    horizon = HORIZONS[-1] if len(known) >= HISTORY_FOR_ALL else HORIZONS[0]
    futures = paths(clean, likely, days=horizon)
    edges = ((1 - _LEVEL) / 2, 0.5, (1 + _LEVEL) / 2)
    low, mid, high = (tuple(map(float, row)) for row in np.quantile(futures, edges, axis=0))
    first, last = known[0][0], known[-1][0]
    near = HORIZONS[0]
    return Forecast(
        first=first,
        last=last,
        measured_days=len(known),
        size=clean.last,
        bytes_per_day=(mid[near - 1] - clean.last) / near,
        low=low,
        mid=mid,
        high=high,
        outlooks=tuple(
            Outlook(
                days=days,
                low=low[days - 1],
                mid=mid[days - 1],
                high=high[days - 1],
                is_rough=days > ROUGH_TIMES * len(known),
            )
            for days in HORIZONS
            if days <= horizon
        ),
        shapes=tuple((str(pace.shape), pace.share) for pace in likely),
        pace_changed_on=_changed_on(likely, last),
        left_out=tuple(
            LeftOut(day=first + timedelta(days=step.at), size=step.size) for step in clean.once
        ),
        recurring=_recurring(clean),
        spikes=clean.spikes,
        full=_full(futures, clean.last, capacity) if capacity is not None else None,
    )


def _daily(known: Sequence[tuple[date, int]]) -> Values:
    """One size a day from the first day to the last, NaN where nobody measured."""
    import numpy as np  # noqa: PLC0415

    first = known[0][0]
    values = np.full((known[-1][0] - first).days + 1, np.nan)
    for day, size in known:
        values[(day - first).days] = size
    return values


def _changed_on(likely: Sequence[Pace], last: date) -> date | None:
    """Since when there has been another pace, if that is what is likeliest."""
    return last - timedelta(weeks=likely[0].weeks) if likely[0].shape == "changed" else None


def _recurring(clean: Cleaned) -> tuple[Recurring, ...]:
    return tuple(
        Recurring(
            times=len(rhythm.steps),
            every_days=rhythm.every,
            size=sorted(step.size for step in rhythm.steps)[len(rhythm.steps) // 2],
            is_regular=rhythm.is_regular,
        )
        for rhythm in clean.rhythms
    )


def _full(futures: Values, size: float, capacity: float) -> Full:
    """When each future reaches `capacity` for the first time."""
    import numpy as np  # noqa: PLC0415

    if size >= capacity:
        return Full(p10=0, p50=0, p90=0, share=1.0)
    reached = futures >= capacity
    share = float(reached.any(axis=1).mean())
    days = np.sort(np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, np.iinfo(int).max))

    def at(part: float) -> int | None:
        # A little less, as 0.1 * 2000 may be above 200 where numbers are binary.
        place = max(math.ceil(part * len(days) - 1e-9) - 1, 0)
        return int(days[place]) if days[place] <= futures.shape[1] else None

    return Full(p10=at(0.1), p50=at(0.5), p90=at(0.9), share=share)
