"""Many possible futures of a size, drawn from its own past. Pure: the seed is fixed.

Each path takes a pace of a candidate, with its error, and adds what whole weeks of the past had
beside theirs (an aligned block bootstrap: Künsch 1989), then the steps that come again.
"""

from __future__ import annotations

from typing import Final, assert_never

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.forecast_clean import WEEK, Cleaned, Rhythm, Values
from jobs.forecast_pace import Pace, Shape

PATHS: Final = 2000
_SEED: Final = 20_260_622
# What nobody can read from the past: after a year the pace is off by so much (one standard
# deviation), and before that by less, as a random walk is.
_DRIFT: Final = 0.17
_YEAR: Final = 365


def paths(cleaned: Cleaned, candidates: tuple[Pace, ...], *, days: int) -> Values:
    """`PATHS` rows of `days` sizes, from tomorrow on; none is negative."""
    rng = np.random.default_rng(_SEED)
    parts = [
        _of_candidate(cleaned, pace, rng, count=count, days=days)
        for pace, count in zip(candidates, _counts(candidates), strict=True)
        if count
    ]
    grown = np.concatenate(parts)
    for rhythm in cleaned.rhythms:
        grown += _steps(rhythm, rng, history=len(cleaned.smooth), days=days)
    return np.asarray(np.maximum(grown, 0.0))


def _counts(candidates: tuple[Pace, ...]) -> list[int]:
    counts = [round(PATHS * pace.share) for pace in candidates]
    counts[0] += PATHS - sum(counts)
    return counts


def _of_candidate(cleaned: Cleaned, pace: Pace, rng: Generator, *, count: int, days: int) -> Values:
    blocks = _blocks(cleaned.smooth, pace)
    weeks = -(-days // WEEK)
    noise = blocks[rng.integers(0, len(blocks), (count, weeks))].reshape(count, -1)[:, :days]
    drift = 1 + _DRIFT * np.sqrt(_ahead(days) / _YEAR) * rng.standard_normal((count, 1))
    paces = _paces(cleaned.last, pace, rng, count=count, days=days)
    return np.asarray(cleaned.last + np.cumsum(paces * drift + noise, axis=1))


def _paces(last: float, pace: Pace, rng: Generator, *, count: int, days: int) -> Values:
    """What each day of each path adds, noise aside."""
    match pace.shape:
        case Shape.STEADY | Shape.CHANGED:
            return np.repeat(pace.pace + _errors(pace, rng, count), days, axis=1)
        case Shape.RELATIVE:
            return _relative(last, pace.pace + _errors(pace, rng, count), days)
        case Shape.ACCELERATING:
            return _accelerating(last, pace, rng, count=count, days=days)
        case Shape.SLOWING:
            return _slowing(pace, rng, count=count, days=days)
        case _:
            assert_never(pace.shape)


def _ahead(days: int) -> Values:
    return np.arange(1, days + 1, dtype=np.float64)


def _errors(pace: Pace, rng: Generator, count: int) -> Values:
    return pace.unsure * rng.standard_normal((count, 1))


def _blocks(smooth: Values, pace: Pace) -> Values:
    """What each whole week of the past had beside its pace: a row of seven days each."""
    increments = np.diff(smooth)[-pace.weeks * WEEK :]
    weeks = increments.reshape(-1, WEEK)
    age = np.arange(len(weeks) - 1, -1, -1) + 0.5
    fitted = pace.pace - pace.bend * WEEK * age if pace.bend else np.full(len(weeks), weeks.mean())
    return np.asarray(weeks - fitted[:, None])


def _relative(last: float, paces: Values, days: int) -> Values:
    """A constant share of the size each day: the one by which it grows now."""
    rates = paces / last if last > 0 else np.zeros_like(paces)
    grown = last * np.expm1(rates * np.arange(days + 1))
    return np.asarray(np.diff(grown, axis=1))


def _accelerating(last: float, pace: Pace, rng: Generator, *, count: int, days: int) -> Values:
    """Half of them go on with a constant share of the size, half in a straight acceleration."""
    bends = pace.bend + pace.bend_unsure * rng.standard_normal((count, 1))
    straight = pace.pace + bends * _ahead(days)
    relative = _relative(last, np.full((count, 1), pace.pace), days)
    return np.where(_every_other(count), relative, straight)


def _slowing(pace: Pace, rng: Generator, *, count: int, days: int) -> Values:
    """Half of them come to a stop, half die away; none as fast as the bend alone would have it."""
    if pace.pace == 0:
        return np.zeros((count, days))
    done = rng.uniform(0, 1, (count, 1)) * abs(pace.bend / pace.pace) * _ahead(days)
    fading, straight = np.exp(-2 * done), np.maximum(1 - done, 0.0)
    return np.asarray(pace.pace * np.where(_every_other(count), fading, straight))


def _every_other(count: int) -> NDArray[np.bool_]:
    return np.asarray(np.arange(count)[:, None] % 2 == 0)


def _steps(rhythm: Rhythm, rng: Generator, *, history: int, days: int) -> Values:
    """The steps to come, summed up, for each path."""
    # The first one ends a period that began before the history: nobody knows how long it was.
    counted = rhythm.steps[1:] if rhythm.is_regular else rhythm.steps
    sizes = np.array([step.size for step in counted])
    if not rhythm.is_regular:
        comes = rng.random((PATHS, days)) < 1 / rhythm.every
        return np.asarray(np.cumsum(np.where(comes, rng.choice(sizes, (PATHS, days)), 0.0), axis=1))
    found = np.zeros((PATHS, days))
    since = history - 1 - rhythm.steps[-1].at
    number = 1
    while (day := round(number * rhythm.every) - since - 1) < days:
        found[:, max(day, 0)] += rng.choice(sizes, PATHS)
        number += 1
    return np.asarray(np.cumsum(found, axis=1))
