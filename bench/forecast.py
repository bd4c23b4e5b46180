"""How far forecasts are off, and how often their range holds, beside two usual ways.

Histories are made up (`bench.forecast_shapes`, with the seeds that nothing was tuned on), 90
days each. Theil and Sen's slope from the last value is what many tools do; ETS (statsmodels,
additive and damped trend) is what a statistician tries first.
"""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np

from bench.forecast_shapes import BENCH_SEEDS, SHAPES, Made, Values, made
from bench.table import Result
from jobs.forecast import HORIZONS, Forecast, forecast

START: Final = date(2026, 8, 24)
ETS_SEEDS: Final = 8  # of each shape: it takes long
WEAK_PCT: Final = 10

# Low, mid and high at `HORIZONS`, or None where a method gives no range.
Told = tuple[Values | None, Values, Values | None]


async def measure() -> list[Result]:
    """Error and coverage of all, and the shapes that are weak."""
    return await asyncio.to_thread(_measure)


def _measure() -> list[Result]:
    series = [made(shape, seed) for shape in SHAPES for seed in BENCH_SEEDS]
    started = time.perf_counter()
    ours = [_ours(one) for one in series]
    each_ms = (time.perf_counter() - started) * 1000 / len(series)
    naive = [_theil_sen(one) for one in series]
    some = [place for place in range(len(series)) if place % len(BENCH_SEEDS) < ETS_SEEDS]
    ets_series = [series[place] for place in some]
    ets, ets_note = _try_ets(ets_series)
    errors, naive_errors = _errors(series, ours), _errors(series, naive)
    beside_ets = _errors(ets_series, [ours[place] for place in some])[-1]
    ets_error = _errors(ets_series, ets)[-1]
    _print_shapes(series, ours, naive)
    coverage = _coverage(series, ours)
    last = len(HORIZONS) - 1
    return [
        *(
            Result(
                what=f"Forecast {days} days ahead, mean error (floor: Theil-Sen)",
                ours=f"{errors[at]:.1f} %",
                floor=f"{naive_errors[at]:.1f} %",
                ratio=f"{errors[at] / naive_errors[at]:.2f}",
                aim="10 %" if at == last else "",
            )
            for at, days in enumerate(HORIZONS)
        ),
        Result(
            what=f"The same 365 days ahead, {len(some)} of the series (floor: ETS)",
            ours=f"{beside_ets:.1f} %",
            floor=f"{ets_error:.1f} %" if ets else ets_note,
            ratio=f"{beside_ets / ets_error:.2f}" if ets else "",
        ),
        *(
            Result(
                what=f"Futures within the 80 % range, {HORIZONS[at]} days ahead",
                ours=f"{coverage[at]:.0f} %",
                aim="75 to 90 %",
            )
            for at in (1, last)
        ),
        Result(what="Shapes that are weak, 365 days ahead", ours=_weak(series, ours)),
        Result(what="One forecast", ours=f"{each_ms:.0f} ms"),
    ]


def _ours(one: Made) -> Told:
    history = [
        (START + timedelta(days=day), round(float(size)))
        for day, size in enumerate(one.history)
        if np.isfinite(size)
    ]
    found = forecast(history)
    assert isinstance(found, Forecast)
    low, mid, high = (
        np.array([getattr(outlook, name) for outlook in found.outlooks])
        for name in ("low", "mid", "high")
    )
    return low, mid, high


def _theil_sen(one: Made) -> Told:
    days = np.flatnonzero(np.isfinite(one.history))
    sizes = one.history[days]
    first, second = np.triu_indices(len(days), 1)
    slope = np.median((sizes[second] - sizes[first]) / (days[second] - days[first]))
    return None, sizes[-1] + slope * np.array(HORIZONS), None


def _try_ets(series: Sequence[Made]) -> tuple[list[Told], str]:
    try:
        import pandas as pd  # noqa: PLC0415
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel  # noqa: PLC0415
    except ImportError:
        note = "statsmodels is not installed (make bench brings it)"
        print(note, file=sys.stderr)
        return [], note
    return [_ets(one, pd.Series, ETSModel) for one in series], ""


def _ets(one: Made, series: Callable[..., Any], model: Callable[..., Any]) -> Told:
    days = np.arange(len(one.history))
    known = np.isfinite(one.history)
    full = np.interp(days, days[known], one.history[known]) / one.history[known].mean()
    index = np.arange(len(full))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = [
            model(series(full, index=index), trend="add", damped_trend=damped).fit(disp=False)
            for damped in (False, True)
        ]
        best = min(fits, key=lambda fit: float(fit.aicc))
        told = best.get_prediction(start=len(full), end=len(full) + HORIZONS[-1] - 1).summary_frame(
            alpha=0.2
        )
    at = np.array(HORIZONS) - 1
    scale = one.history[known].mean()
    low, mid, high = (
        np.asarray(told[name])[at] * scale for name in ("pi_lower", "mean", "pi_upper")
    )
    return low, mid, high


def _errors(series: Sequence[Made], told: Sequence[Told]) -> Values:
    """Mean absolute errors in percent, one for each of `HORIZONS`."""
    if not told:
        return np.full(len(HORIZONS), np.nan)
    return np.asarray(
        100 * np.mean([_error(one, mid) for one, (_, mid, _) in zip(series, told, strict=True)], 0)
    )


def _error(one: Made, mid: Values) -> Values:
    actual = one.future[np.array(HORIZONS) - 1]
    return np.asarray(np.abs(mid - actual) / actual)


def _coverage(series: Sequence[Made], told: Sequence[Told]) -> Values:
    """How many of 100 lie within the range, one for each of `HORIZONS`."""
    inside = [
        (low <= actual) & (actual <= high)
        for one, (low, _, high) in zip(series, told, strict=True)
        if low is not None and high is not None
        for actual in [one.future[np.array(HORIZONS) - 1]]
    ]
    return np.asarray(100 * np.mean(inside, 0))


def _of(shape: str, series: Sequence[Made], told: Sequence[Told]) -> tuple[list[Made], list[Told]]:
    both = [(one, each) for one, each in zip(series, told, strict=True) if one.shape == shape]
    return [one for one, _ in both], [each for _, each in both]


def _weak(series: Sequence[Made], told: Sequence[Told]) -> str:
    errors = {shape: float(_errors(*_of(shape, series, told))[-1]) for shape in SHAPES}
    weak = sorted((pct, shape) for shape, pct in errors.items() if pct > WEAK_PCT)
    return ", ".join(f"{shape} {pct:.0f} %" for pct, shape in reversed(weak)) or "none"


def _print_shapes(series: Sequence[Made], ours: Sequence[Told], naive: Sequence[Told]) -> None:
    """All shapes, for who works on the method."""
    for shape in SHAPES:
        errors = _errors(*_of(shape, series, ours))
        coverage = _coverage(*_of(shape, series, ours))
        beside = _errors(*_of(shape, series, naive))[-1]
        print(
            f"{shape:20}", " ".join(f"{pct:6.1f}" for pct in errors), "% | within",
            " ".join(f"{pct:4.0f}" for pct in coverage), f"% | Theil-Sen {beside:6.1f} %",
            file=sys.stderr,
        )  # fmt: skip
