"""Made-up histories of a database's size, by the ways in which databases grow.

They were written by those who wrote the forecast: they say how it does on what it was made for,
and nothing about a database that behaves in a way that nobody thought of. Seeds are kept apart:
the method was tuned on `TUNING_SEEDS` alone, and `make bench` reports `BENCH_SEEDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

HISTORY_DAYS: Final = 90
FUTURE_DAYS: Final = 365
DAYS: Final = HISTORY_DAYS + FUTURE_DAYS
TUNING_SEEDS: Final = range(40)
BENCH_SEEDS: Final = range(50_000, 50_040)
GB: Final = 1024.0**3

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A series: `history` may have gaps (NaN), `future` is what comes after it."""

    shape: str
    history: Values
    future: Values


def made(shape: str, seed: int) -> Made:
    """The series of a shape and a seed: always the same one."""
    names = list(SHAPES)
    rng = np.random.default_rng([seed, names.index(shape)])
    values = np.maximum(SHAPES[shape](rng), 0.01) * GB
    history = values[:HISTORY_DAYS].copy()
    if shape == "gaps":
        history[1:-1][rng.random(HISTORY_DAYS - 2) < 0.15] = np.nan
        start = int(rng.integers(10, 70))
        history[start : start + int(rng.integers(5, 12))] = np.nan
    return Made(shape=shape, history=history, future=values[HISTORY_DAYS:])


def _base(rng: Generator) -> float:
    """The size at the beginning, in GB."""
    return float(np.exp(rng.uniform(np.log(20), np.log(2000))))


def _growing(
    rng: Generator, base: float, *, pace: Values | float | None = None, noise: float = 0.25
) -> Values:
    """Days that each add about `pace` (a share of `base`), and a little noise in what is read."""
    daily = rng.uniform(0.0008, 0.005) if pace is None else pace
    steps = base * daily * _wandering(rng) * (1 + noise * rng.standard_normal(DAYS))
    read = base * 0.0003 * rng.standard_normal(DAYS)
    return np.asarray(base + np.cumsum(steps) + read)


def _wandering(rng: Generator) -> Values:
    """No pace stays the same for a year: it is off by some 15 % after one, more or less."""
    each = rng.uniform(0.002, 0.014)
    return np.asarray(np.exp(np.cumsum(each * rng.standard_normal(DAYS))))


def _day(rng: Generator) -> int:
    """A day of the history that has weeks on both of its sides."""
    return int(rng.integers(15, HISTORY_DAYS - 12))


def _linear(rng: Generator) -> Values:
    return _growing(rng, _base(rng))


def _noisy(rng: Generator) -> Values:
    base = _base(rng)
    return _growing(rng, base, noise=2.5) + base * 0.006 * rng.standard_normal(DAYS)


def _weekly(rng: Generator) -> Values:
    base = _base(rng)
    weekday = np.where((np.arange(DAYS) + rng.integers(7)) % 7 < 5, 1.3, 0.25)
    return _growing(rng, base, pace=rng.uniform(0.0008, 0.005) * weekday)


def _purge(rng: Generator) -> Values:
    values = _growing(rng, _base(rng))
    day = _day(rng)
    values[day:] -= values[day] * rng.uniform(0.06, 0.4)
    return values


def _import(rng: Generator) -> Values:
    values = _growing(rng, _base(rng))
    day, days = _day(rng), int(rng.integers(1, 4))
    size = values[day] * rng.uniform(0.06, 0.5)
    for part in range(days):
        values[day + part :] += size / days
    return values


def _purge_and_import(rng: Generator) -> Values:
    values = _weekly(rng)
    first, second = sorted(rng.choice(np.arange(12, HISTORY_DAYS - 10), 2, replace=False))
    values[first:] -= values[first] * rng.uniform(0.06, 0.25)
    values[second:] += values[second] * rng.uniform(0.06, 0.3)
    return values


def _monthly_purge(rng: Generator) -> Values:
    values = _growing(rng, _base(rng), pace=rng.uniform(0.003, 0.006))
    start, kept = int(rng.integers(3, 30)), rng.uniform(0.5, 0.95)
    for month in range(20):
        day = start + round(month * 30.44)
        if day < DAYS:
            since = max(day - 30, 0)
            values[day:] -= (values[day] - values[since]) * kept * rng.uniform(0.92, 1.08)
    return values


def _pace(rng: Generator, factor: float) -> Values:
    base, day = _base(rng), int(rng.integers(25, 65))
    pace = rng.uniform(0.001, 0.003) * np.where(np.arange(DAYS) < day, 1.0, factor)
    return _growing(rng, base, pace=pace)


def _faster(rng: Generator) -> Values:
    return _pace(rng, rng.uniform(1.8, 3.5))


def _slower(rng: Generator) -> Values:
    return _pace(rng, rng.uniform(0.2, 0.5))


def _exponential(rng: Generator) -> Values:
    base, rate = _base(rng), rng.uniform(0.001, 0.0035)
    grown = np.cumsum(rate * _wandering(rng) * (1 + 0.3 * rng.standard_normal(DAYS)))
    return np.asarray(base * np.exp(grown))


def _quadratic(rng: Generator) -> Values:
    base, days = _base(rng), np.arange(DAYS)
    pace = rng.uniform(0.0008, 0.002) * (1 + days / rng.uniform(60, 150))
    return _growing(rng, base, pace=pace)


def _slowing(rng: Generator) -> Values:
    base, days = _base(rng), np.arange(DAYS)
    pace = rng.uniform(0.003, 0.008) * np.exp(-days / rng.uniform(60, 160))
    return _growing(rng, base, pace=pace)


def _flat(rng: Generator) -> Values:
    base = _base(rng)
    return np.asarray(base * (1 + 0.0015 * rng.standard_normal(DAYS)))


def _month_end(rng: Generator) -> Values:
    base, days = _base(rng), np.arange(DAYS) + int(rng.integers(30))
    busy = np.mod(days, 30.44) >= 27.44
    return _growing(rng, base, pace=rng.uniform(0.0008, 0.002) * np.where(busy, 8.0, 1.0))


def _spikes(rng: Generator) -> Values:
    values = _growing(rng, _base(rng))
    for day in rng.choice(np.arange(3, DAYS - 4), 15, replace=False):
        values[day : day + int(rng.integers(1, 3))] *= 1 + rng.uniform(0.05, 0.3)
    return values


def _shrinking(rng: Generator) -> Values:
    return _growing(rng, _base(rng), pace=-rng.uniform(0.0003, 0.0015))


def _bursty(rng: Generator) -> Values:
    base = _base(rng)
    bursts = rng.gamma(0.4, 1 / 0.4, DAYS) * _wandering(rng) * rng.uniform(0.001, 0.004)
    return np.asarray(base * (1 + np.cumsum(bursts)))


SHAPES: Final[Mapping[str, Callable[[Generator], Values]]] = MappingProxyType(
    {
        "linear": _linear,
        "noisy": _noisy,
        "weekly pattern": _weekly,
        "purge": _purge,
        "import": _import,
        "purge and import": _purge_and_import,
        "monthly purge": _monthly_purge,
        "faster since a day": _faster,
        "slower since a day": _slower,
        "exponential": _exponential,
        "quadratic": _quadratic,
        "slowing": _slowing,
        "flat": _flat,
        "month-end": _month_end,
        "gaps": _linear,
        "spikes": _spikes,
        "shrinking": _shrinking,
        "bursty": _bursty,
    }
)
