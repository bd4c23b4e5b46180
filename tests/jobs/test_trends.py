"""An arrow stands only where a number changed by more than its noise, and says if that is good."""

from __future__ import annotations

import random

import pytest

from jobs.trends import trend_of
from postgres.health.metrics import METRICS

SIX = 6


def said(name: str, now: float, yesterday: float, last_week: float | None = None) -> str:
    week = [last_week] * SIX if last_week is not None else []
    found = trend_of(METRICS[name], [now] * SIX, yesterday=[yesterday] * SIX, last_week=week)
    return found.text if found else ""


@pytest.mark.parametrize(
    ("name", "now", "before", "text"),
    [
        ("query_ms_p95", 30.0, 20.0, "↑ worse, yesterday 20 ms"),
        ("query_ms_p95", 20.0, 30.0, "↓ better, yesterday 30 ms"),
        ("cache_hit_pct", 97.0, 99.0, "↓ worse, yesterday 99 %"),
        ("cache_hit_pct", 99.0, 97.0, "↑ better, yesterday 97 %"),
        ("qps", 500.0, 100.0, "↑ yesterday 100/s"),
        ("query_ms_p95", 20.9, 20.0, ""),  # nobody would act on a millisecond
        ("query_ms_p95", 1090.0, 1000.0, ""),  # less than a tenth
        ("cache_hit_pct", 98.5, 99.0, ""),
        ("lock_waits", 0.0, 0.0, ""),
    ],
)
def test_a_change_has_its_direction_and_its_judgement(
    name: str, now: float, before: float, text: str
) -> None:
    assert said(name, now, before) == text


def test_without_a_change_since_yesterday_last_week_counts() -> None:
    assert said("query_ms_p95", 30.0, 30.0, 20.0) == "↑ worse, a week ago 20 ms"
    assert said("query_ms_p95", 30.0, 25.0, 20.0) == "↑ worse, yesterday 25 ms"


def test_too_few_points_say_nothing() -> None:
    metric = METRICS["query_ms_p95"]
    assert trend_of(metric, [90.0, 90.0], yesterday=[10.0] * SIX) is None
    assert trend_of(metric, [90.0] * SIX, yesterday=[10.0, 10.0]) is None
    assert trend_of(metric, [90.0] * SIX) is None


def test_what_jumps_about_anyhow_has_no_arrow() -> None:
    metric = METRICS["query_ms_p95"]
    restless = [10.0, 90.0, 20.0, 80.0, 15.0, 85.0]
    assert trend_of(metric, [90.0] * SIX, yesterday=restless) is None
    assert trend_of(metric, restless, yesterday=[10.0] * SIX) is None


def test_the_same_load_with_noise_hardly_ever_gets_an_arrow() -> None:
    chance, metric = random.Random(7), METRICS["query_ms_avg"]  # noqa: S311
    arrows = sum(
        trend_of(
            metric,
            [chance.gauss(50, 8) for _ in range(SIX)],
            yesterday=[chance.gauss(50, 8) for _ in range(SIX)],
        )
        is not None
        for _ in range(1000)
    )
    assert arrows < 20
