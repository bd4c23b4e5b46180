"""How measured numbers are said to people."""

from __future__ import annotations

import pytest

from jobs.metric_text import metric_text, number_text, unit_text
from postgres.health.metrics import METRICS, Unit


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("query_ms_avg", 2.345, "2.35 ms"),
        ("replication_lag_ms", 61_000.0, "1 min 1 s"),
        ("lock_wait_s_max", 0.0, "0 s"),
        ("pool_usage_pct", 42.0, "42 %"),
        ("cache_hit_pct", 99.14, "99.1 %"),
        ("xid_age_pct", 0.0000007, "0 %"),
        ("database_bytes", 1536.0, "1.5 kB"),
        ("growth_bytes_day", -1536.0, "-1.5 kB a day"),
        ("growth_bytes_day", 1536.0, "+1.5 kB a day"),
        ("qps", 1234.5, "1,234/s"),
        ("slow_queries", 0.25, "0.25/min"),
        ("deadlocks", 3.0, "3/h"),
        ("days_until_full", 99_999.0, "more than 10 years"),
        ("lock_waits", None, "not known"),
    ],
)
def test_a_number_is_said_with_its_unit(name: str, value: float | None, said: str) -> None:
    assert metric_text(name, value) == said


@pytest.mark.parametrize("unit", list(Unit))
def test_every_unit_has_its_words(unit: Unit) -> None:
    assert unit_text(unit, 12.0)


def test_numbers_have_three_figures_behind_their_comma_at_most() -> None:
    assert [number_text(value) for value in (0.0, 0.12345, 12.0, 99.96, 1234.4)] == [
        "0", "0.123", "12", "100", "1,234",
    ]  # fmt: skip


def test_a_name_that_nobody_knows_is_an_error() -> None:
    assert "qps" in METRICS
    with pytest.raises(KeyError):
        metric_text("nothing", 1.0)
