"""Growth is a trend: what happens once does not bend it, and what happens each week is in it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import pytest

from jobs.growth import DAYS_MIN, growth_per_day
from store.sizes import DaySize

DAY = date(2026, 10, 1)
STEADY = [100 * day for day in range(30)]


def days(sizes: Iterable[int]) -> list[DaySize]:
    return [
        DaySize(day=DAY + timedelta(days=number), bytes=size) for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("sizes", "growth"),
    [
        (STEADY, 100),
        (STEADY[:DAYS_MIN], 100),
        (STEADY[: DAYS_MIN - 1], None),
        ([1000] * 10, 0),
        ([900, 800, 700, 600, 500, 400, 300, 200], -100),
        ([], None),
    ],
)
def test_growth_is_bytes_a_day_from_a_week_on(sizes: list[int], growth: float | None) -> None:
    assert growth_per_day(days(sizes)) == growth


@pytest.mark.parametrize("import_on", [3, 15, 27])
@pytest.mark.parametrize("step", [90_000, -90_000])
def test_an_import_or_a_purge_does_not_bend_it(import_on: int, step: int) -> None:
    sizes = [size + (step if day >= import_on else 0) for day, size in enumerate(STEADY)]
    assert growth_per_day(days(sizes)) == 100


def test_what_a_weekly_purge_takes_is_taken_off() -> None:
    sizes = [size - 500 * (day // 7) for day, size in enumerate(STEADY)]
    assert growth_per_day(days(sizes)) == pytest.approx(200 / 7)


def test_it_is_of_the_last_month_and_gaps_do_not_matter() -> None:
    old = days(range(0, 60_000, 1000))
    new = [each for each in days(range(0, 9000, 100))[60:] if each.day.day % 3]
    assert growth_per_day([*old, *new]) == 100


def test_days_that_are_never_a_week_apart_are_compared_all() -> None:
    every_fourth = [each for each in days(STEADY) if each.day.toordinal() % 4 == 0]
    assert growth_per_day(every_fourth) == 100


def test_one_day_within_the_month_says_nothing() -> None:
    last = DaySize(day=DAY + timedelta(days=100), bytes=5)
    assert growth_per_day([*days(STEADY), last]) is None
