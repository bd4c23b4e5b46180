"""How large batches get, and how fast it is said to go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.migrate.backfill.course import pretty_seconds
from postgres.migrate.backfill.pace import (
    Speed,
    fewer_rows,
    first_rows,
    next_rows,
    retry_seconds,
)
from postgres.migrate.backfill.spec import BackfillLimits

LIMITS = BackfillLimits()


@pytest.mark.parametrize(
    ("rows", "seconds", "expected"),
    [
        (10_000, 0.050, 10_000),  # as it should be
        (10_000, 0.060, 8_333),  # a little too slow: in proportion
        (10_000, 3.0, 5_000),  # much too slow, and yet only half
        (10_000, 0.001, 12_500),  # much too fast: a quarter more
        (150, 9.0, 100),  # never fewer than a hundred
        (48_000, 0.010, 50_000),  # never more than fifty thousand
        (10_000, 0.0, 12_500),
    ],
)
def test_the_next_batch_follows_from_the_last(rows: int, seconds: float, expected: int) -> None:
    assert next_rows(rows, seconds, LIMITS) == expected


@given(per_row=st.floats(1e-6, 4e-4), start=st.integers(100, 50_000))
def test_batches_come_to_last_what_they_should_whatever_a_row_costs(
    per_row: float, start: int
) -> None:
    rows = start
    for _ in range(40):
        rows = next_rows(rows, rows * per_row, LIMITS)
    wanted = min(max(0.05 / per_row, 100), 50_000)
    assert 0.9 * wanted <= rows <= 1.1 * wanted + 1


def test_one_slow_batch_costs_no_more_than_a_few() -> None:
    rows = next_rows(10_000, 60.0, LIMITS)
    for _ in range(5):
        rows = next_rows(rows, rows * 5e-6, LIMITS)
    assert rows > 9_000


def test_the_first_batch_is_the_guides_or_what_an_earlier_life_found() -> None:
    assert first_rows(LIMITS, None) == 10_000
    assert first_rows(LIMITS, 731) == 731
    assert first_rows(replace(LIMITS, rows_max=500), 731) == 500
    assert fewer_rows(101, LIMITS) == 100


def test_tries_come_later_each_time_and_not_all_at_once() -> None:
    assert [retry_seconds(attempt, 0) for attempt in (1, 2, 3)] == [0.4, 0.8, 1.6]
    assert retry_seconds(30, 0) == 10
    assert retry_seconds(1, 1) > retry_seconds(1, 0)


def test_the_speed_follows_a_change_and_ignores_a_hiccup() -> None:
    speed = Speed(rows=500)
    for second in range(1, 41):
        speed = speed.look(500 + second * 1000, float(second))
    assert speed.per_second == pytest.approx(1000)
    hiccup = speed.look(speed.rows, 41.0)
    assert hiccup.per_second is not None
    assert 850 < hiccup.per_second < 950
    for second in range(42, 90):
        hiccup = hiccup.look(hiccup.rows + 100, float(second))
    assert hiccup.seconds_left(1000) == pytest.approx(10, rel=0.1)


def test_nobody_can_tell_how_long_it_takes_before_a_row_is_done() -> None:
    assert Speed().seconds_left(100) is None
    assert Speed().look(0, 1.0).seconds_left(100) is None
    assert Speed().look(5, 0.0) == Speed()  # no time has passed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_a_length_of_time_for_people(seconds: float, text: str) -> None:
    assert pretty_seconds(seconds) == text
