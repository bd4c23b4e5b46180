"""What a history of sizes is made of: days that lack, spikes, sudden changes, and the rest. Pure.

A size that jumps once and stays (a purge, an import) says nothing about how fast a database
grows, and one that jumps every month does. Thresholds are shares of the series' own size and
spread, so that a series in another unit gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WEEK: Final = 7
_SPIKE_DAYS_MAX: Final = 3
_SPIKE_SPREADS: Final = 6.0
_SPIKE_SHARE: Final = 0.015
_STEP_SPREADS: Final = 8.0
_STEP_SHARE: Final = 0.01
_COMMON_SHARE: Final = 0.92
_COMMON_TIMES: Final = 2.5
# From the median absolute deviation to the standard deviation of a normal distribution.
_MAD_TO_SD: Final = 1.4826
_WEEKS_FOR_WEEKDAYS: Final = 4
_RECURRING_LEAST: Final = 3
_TWICE_DAYS: Final = (6, 45)
_ALIKE: Final = 2.0
_REGULAR_SPREAD: Final = 0.35
_LATE: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A sudden change of level that stayed: `size` on day `at`, counted from the first day."""

    at: int
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Steps that come again. `every`: days; `is_regular`: they keep their distance."""

    steps: tuple[Step, ...]
    every: float
    is_regular: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A history without gaps and spikes, and with its steps set apart.

    `smooth` is what is left when every step is taken out: it ends at the last size, so that
    it is what the trend is read from.
    """

    smooth: Values
    last: float
    spikes: int
    once: tuple[Step, ...]
    rhythms: tuple[Rhythm, ...]


def cleaned(values: Values) -> Cleaned:
    """`values` are one a day, NaN where nobody measured; the first and the last are known."""
    full = filled(values)
    calm, spikes = _without_spikes(full)
    steps, jumps = _steps(calm)
    rhythms = tuple(
        rhythm
        for sign in (-1.0, 1.0)
        if (rhythm := _rhythm([step for step in steps if step.size * sign > 0], len(full)))
    )
    again = {step for rhythm in rhythms for step in rhythm.steps}
    grown = np.concatenate(([0.0], np.cumsum(np.diff(calm) - jumps)))
    return Cleaned(
        smooth=calm[-1] + grown - grown[-1],
        last=float(calm[-1]),
        spikes=spikes,
        once=tuple(step for step in steps if step not in again),
        rhythms=rhythms,
    )


def filled(values: Values) -> Values:
    """Straight lines over the days that nobody measured."""
    days = np.arange(len(values))
    known = np.isfinite(values)
    return np.asarray(np.interp(days, days[known], values[known]))


def middle_and_spread(values: Values) -> tuple[float, float]:
    """The median and, from the median distance to it, a standard deviation."""
    middle = float(np.median(values))
    return middle, _MAD_TO_SD * float(np.median(np.abs(values - middle)))


def without_weekdays(increments: Values) -> Values:
    """Increments less what is usual for their day of the week; at least four weeks of them."""
    if len(increments) < _WEEKS_FOR_WEEKDAYS * WEEK:
        return np.asarray(increments - np.median(increments))
    day = np.arange(len(increments)) % WEEK
    usual = np.array([np.median(increments[day == weekday]) for weekday in range(WEEK)])
    return np.asarray(increments - usual[day])


def _without_spikes(values: Values) -> tuple[Values, int]:
    """Days that leave the level of those around them and come back to it within three days."""
    pace, spread = middle_and_spread(np.diff(values))
    level = values - pace * np.arange(len(values))
    around = np.array([_around(level, day) for day in range(len(values))])
    limit = max(_SPIKE_SPREADS * spread, _SPIKE_SHARE * float(np.median(np.abs(values))))
    off = np.abs(level - around) > limit
    calm = values.copy()
    spikes = 0
    for start, end in _runs(off):
        is_inside = start > 0 and end < len(values)
        if is_inside and end - start <= _SPIKE_DAYS_MAX and _comes_back(level, start, end, limit):
            calm[start:end] = np.interp(
                np.arange(start, end), [start - 1, end], [values[start - 1], values[end]]
            )
            spikes += 1
    return calm, spikes


def _around(level: Values, day: int) -> float:
    start, end = max(0, day - WEEK), min(len(level), day + WEEK + 1)
    return float(np.median(level[start:end]))


def _comes_back(level: Values, start: int, end: int, limit: float) -> bool:
    return abs(float(level[end] - level[start - 1])) <= limit


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches of days that are set, as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _steps(values: Values) -> tuple[list[Step], Values]:
    """Changes far beyond what a day usually brings; several days in one direction are one.

    Also what each day has of them, beyond the usual.
    """
    unusual = without_weekdays(np.diff(values))
    limit = max(_usual_reach(unusual), _STEP_SHARE * float(np.median(np.abs(values))))
    found: list[Step] = []
    jumps = np.where(np.abs(unusual) > limit, unusual, 0.0)
    for sign in (-1.0, 1.0):
        for start, end in _runs(jumps * sign > 0):
            found.append(Step(at=start + 1, size=float(np.sum(jumps[start:end]))))
    return sorted(found, key=lambda step: step.at), jumps


def _usual_reach(unusual: Values) -> float:
    """How far a day may be off and still be one like others.

    Growth that comes in bursts has many days far from the middle: they are no events.
    """
    _, spread = middle_and_spread(unusual)
    common = float(np.quantile(np.abs(unusual), _COMMON_SHARE))
    return max(_STEP_SPREADS * spread, _COMMON_TIMES * common)


def _rhythm(steps: list[Step], days: int) -> Rhythm | None:
    """How steps of one direction come again, or None when they were events of their own."""
    if len(steps) < _RECURRING_LEAST - 1:
        return None
    apart = np.diff([step.at for step in steps])
    every = float(np.mean(apart))
    waited = days - steps[-1].at
    regular = float(np.std(apart)) <= _REGULAR_SPREAD * every and waited <= _LATE * every + 2
    if len(steps) == _RECURRING_LEAST - 1:
        sizes = sorted(abs(step.size) for step in steps)
        is_twice = _TWICE_DAYS[0] <= every <= _TWICE_DAYS[1] and sizes[1] <= _ALIKE * sizes[0]
        regular = is_twice and waited <= _LATE * every
        return Rhythm(steps=tuple(steps), every=every, is_regular=True) if regular else None
    if regular:
        return Rhythm(steps=tuple(steps), every=every, is_regular=True)
    # They keep no distance, but they are spread over the whole time: so many in so many days.
    if steps[-1].at - steps[0].at < days / 2:
        return None
    return Rhythm(steps=tuple(steps), every=days / len(steps), is_regular=False)
