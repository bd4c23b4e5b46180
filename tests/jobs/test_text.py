"""Spans and counts read the same everywhere."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.text import count_text, span_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.25, "0.25 s"), (59, "59 s"), (60, "1 min"), (90, "1 min 30 s"),
        (3600, "1 h"), (5000, "1 h 23 min"), (86400, "1 d"), (400000, "4 d 15 h"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_at_most_two_units(seconds: float, text: str) -> None:
    assert span_text(timedelta(seconds=seconds)) == text


def test_a_count_agrees_with_its_noun() -> None:
    assert [count_text(n, "table") for n in (0, 1, 2000)] == ["0 tables", "1 table", "2,000 tables"]
