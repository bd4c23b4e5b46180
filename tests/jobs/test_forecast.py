"""How large something will be: what a forecast promises, whatever the history."""

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.forecast_shapes import SHAPES, TUNING_SEEDS, made
from jobs.forecast import Forecast, TooShort, forecast

GB = 1024**3
START = date(2026, 8, 24)


def history(*sizes: float, start: date = START) -> list[tuple[date, int]]:
    """One size a day; NaN where nobody measured."""
    return [
        (start + timedelta(days=day), round(size))
        for day, size in enumerate(sizes)
        if math.isfinite(size)
    ]


def straight(days: int = 90, *, base: float = 100 * GB, daily: float = 0.3 * GB) -> list[float]:
    """A size that grows by about as much each day: a fixed ripple, no chance."""
    ripple = (0.04, -0.02, 0.03, -0.05, 0.01, 0.02, -0.03)
    return [base + daily * (day + ripple[day % 7] + ripple[day % 5]) for day in range(days)]


def told(sizes: list[tuple[date, int]], *, capacity: float | None = None) -> Forecast:
    """The forecast, which there must be."""
    found = forecast(sizes, capacity=capacity)
    assert isinstance(found, Forecast)
    return found


def test_a_straight_line_goes_on() -> None:
    found = told(history(*straight()))
    assert found.bytes_per_day == pytest.approx(0.3 * GB, rel=0.03)
    assert [outlook.days for outlook in found.outlooks] == [30, 90, 180, 365]
    for outlook in found.outlooks:
        assert outlook.mid == pytest.approx(found.size + 0.3 * GB * outlook.days, rel=0.05)


def test_the_same_history_gives_the_same_forecast() -> None:
    sizes = history(*straight())
    assert forecast(sizes) == forecast(sizes)


@pytest.mark.parametrize(
    ("days", "outlooks", "rough"),
    [
        (14, [30], []),
        (29, [30], []),
        (30, [30, 90, 180, 365], [180, 365]),
        (90, [30, 90, 180, 365], [365]),
        (92, [30, 90, 180, 365], []),
    ],
)
def test_a_short_history_says_less(days: int, outlooks: list[int], rough: list[int]) -> None:
    found = told(history(*straight(days)))
    assert [outlook.days for outlook in found.outlooks] == outlooks
    assert [outlook.days for outlook in found.outlooks if outlook.is_rough] == rough


def test_thirteen_days_are_too_few_and_it_says_from_when_on() -> None:
    found = forecast(history(*straight(13)))
    assert found == TooShort(measured_days=13, from_day=START + timedelta(days=13))
    assert isinstance(forecast(history(*straight(14))), Forecast)


def test_days_that_lack_do_not_count_as_measured() -> None:
    sizes = straight(40)
    sizes[5:35] = [math.nan] * 30
    assert isinstance(forecast(history(*sizes)), TooShort)


def test_nothing_is_known_of_what_nobody_measured() -> None:
    assert forecast([]) == TooShort(measured_days=0, from_day=None)


def test_days_that_lack_are_bridged() -> None:
    sizes = straight()
    sizes[40:47] = [math.nan] * 7
    sizes[60] = math.nan
    assert told(history(*sizes)).mid[364] == pytest.approx(
        told(history(*straight())).mid[364], rel=0.03
    )


@pytest.mark.parametrize("bad", [[(START, 1), (START, 2)], [(START, -1)]])
def test_what_is_no_history_is_refused(bad: list[tuple[date, int]]) -> None:
    with pytest.raises(ValueError, match=" must "):
        forecast(bad)


@cache
def usual() -> Forecast:
    return told(history(*straight()))


@given(size=st.floats(-0.9, 20).filter(lambda share: abs(share) > 0.03), day=st.integers(8, 84))
@settings(max_examples=25, deadline=None)
def test_no_purge_and_no_import_bends_the_trend(size: float, day: int) -> None:
    sizes = straight()
    jump = sizes[day] * size
    found = told(history(*(one + (jump if at >= day else 0) for at, one in enumerate(sizes))))
    grown, expected = found.mid[364] - found.size, usual().mid[364] - usual().size
    assert grown == pytest.approx(expected, rel=0.12)
    assert found.left_out[0].day == START + timedelta(days=day)
    assert found.left_out[0].size == pytest.approx(jump, rel=0.1)


def test_a_purge_of_each_month_goes_on() -> None:
    sizes = straight()
    for day in (20, 50, 80):
        sizes[day:] = [size - 6 * GB for size in sizes[day:]]
    found = told(history(*sizes))
    assert found.left_out == ()
    [purge] = found.recurring
    assert (purge.times, purge.every_days, purge.is_regular) == (3, 30.0, True)
    assert purge.size == pytest.approx(-6 * GB, rel=0.1)
    # 0.3 GB a day less 6 GB a month: 0.1 GB a day stay.
    assert found.mid[359] - found.size == pytest.approx(36 * GB, rel=0.15)


def test_spikes_that_come_back_are_no_growth() -> None:
    sizes = straight()
    for day in (20, 41, 62):
        sizes[day] *= 1.3
    found = told(history(*sizes))
    assert found.spikes == 3
    assert found.left_out == ()
    assert found.mid[364] == pytest.approx(usual().mid[364], rel=0.05)


def test_only_the_newer_pace_counts() -> None:
    slow = straight(50)
    fast = [slow[-1] + 0.9 * GB * day for day in range(1, 41)]
    found = told(history(*slow, *fast))
    assert found.shapes[0][0] == "changed"
    assert found.pace_changed_on is not None
    assert abs((found.pace_changed_on - (START + timedelta(days=50))).days) <= 7
    assert found.bytes_per_day == pytest.approx(0.9 * GB, rel=0.1)


def test_days_until_full_are_those_of_the_futures() -> None:
    found = told(history(*straight()), capacity=straight()[-1] + 30 * GB)
    assert found.full is not None
    assert found.full.p50 == pytest.approx(100, abs=6)
    assert found.full.p10 is not None
    assert found.full.p90 is not None
    assert found.full.p10 < found.full.p50 < found.full.p90
    assert found.full.share == 1.0


@pytest.mark.parametrize(
    ("capacity", "days", "share"), [(50 * GB, 0, 1.0), (10_000 * GB, None, 0.0)]
)
def test_it_is_full_already_or_not_within_a_year(
    capacity: float, days: int | None, share: float
) -> None:
    full = told(history(*straight()), capacity=capacity).full
    assert full is not None
    assert (full.p10, full.p50, full.p90, full.share) == (days, days, days, share)


sizes_of_any_kind = st.one_of(
    st.lists(st.integers(0, 10**13), min_size=14, max_size=100),
    st.lists(st.sampled_from([0, 1, 10**12]), min_size=14, max_size=60),
    st.integers(0, 10**12).flatmap(lambda size: st.just([size] * 40)),
)


@given(sizes=sizes_of_any_kind, capacity=st.none() | st.floats(1, 1e14))
@settings(max_examples=40, deadline=None)
def test_no_history_gives_a_negative_size_or_none_or_turns_the_range_around(
    sizes: list[int], capacity: float | None
) -> None:
    found = told(history(*sizes), capacity=capacity)
    for low, mid, high in zip(found.low, found.mid, found.high, strict=True):
        assert 0 <= low <= mid <= high < math.inf
    assert math.isfinite(found.bytes_per_day)
    assert sum(share for _, share in found.shapes) == pytest.approx(1)
    if found.full is not None:
        days = [math.inf if day is None else day for day in
                (found.full.p10, found.full.p50, found.full.p90)]  # fmt: skip
        assert days == sorted(days)


@given(shape=st.sampled_from(sorted(SHAPES)), seed=st.sampled_from(TUNING_SEEDS))
@settings(max_examples=15, deadline=None)
def test_a_history_in_another_unit_gives_the_same_forecast(shape: str, seed: int) -> None:
    values = made(shape, seed).history
    one, other = told(history(*values)), told(history(*(values * 1024)))
    for small, large in zip(one.outlooks, other.outlooks, strict=True):
        assert large.mid == pytest.approx(small.mid * 1024, rel=1e-4)
        assert large.high == pytest.approx(small.high * 1024, rel=1e-4)


def test_more_room_is_never_full_sooner() -> None:
    fulls = [told(history(*straight()), capacity=(130 + 5 * step) * GB).full for step in range(12)]
    days = [math.inf if full is None or full.p50 is None else full.p50 for full in fulls]
    assert all(before <= after for before, after in pairwise(days))


def test_what_stays_after_each_purge_is_measured_over_whole_periods() -> None:
    """A small difference of two large numbers: taken from different days it is 20 % off."""
    errors = []
    for seed in TUNING_SEEDS[:14]:
        series = made("monthly purge", seed)
        found = told(history(*series.history))
        errors.append(abs(found.mid[364] - series.future[364]) / series.future[364])
    assert sum(errors) / len(errors) < 0.05
