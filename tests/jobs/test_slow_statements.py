"""Which statements take the time, and what changed: from sums alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.slow_statements import (
    SHOWN_MAX,
    Change,
    Window,
    change_text,
    covers,
    lines_of,
    p95_ms,
    windows_before,
    worst,
)
from store.statements import StatementSum

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def taken(
    queryid: int = 1, *, calls: int = 10, total_ms: float = 100, **more: object
) -> StatementSum:
    values: dict[str, object] = {
        "queryid": queryid, "calls": calls, "total_ms": total_ms,
        "square_ms": total_ms**2 / max(calls, 1), "max_ms": total_ms, "rows": 2 * calls,
        "blocks_hit": 90, "blocks_read": 10, "temp_blocks": 0, "wal_bytes": 0, "text": "select",
        **more,
    }  # fmt: skip
    return StatementSum(**values)  # type: ignore[arg-type]


def window(*sums: StatementSum, hours: float = 24) -> Window:
    return Window(since=NOON - DAY, until=NOON, hours=hours, sums=sums)


def test_a_line_says_share_mean_rows_and_blocks() -> None:
    [first, second] = lines_of(window(taken(1, total_ms=100), taken(2, total_ms=300)), None)
    assert (first.queryid, second.queryid) == (2, 1)
    assert (first.share, second.share) == (0.75, 0.25)
    assert (second.mean_ms, second.rows_per_call, second.hit_share) == (10, 2, 0.9)
    assert second.read_bytes == 10 * 8192
    assert second.change is None
    assert not second.is_slow


def test_the_share_is_of_all_where_only_the_heaviest_are_known() -> None:
    [line] = lines_of(window(taken(total_ms=100)), None, all_ms=1000)
    assert line.share == 0.1


def test_what_is_on_the_guides_list_is_marked_and_shown_however_seldom_it_runs() -> None:
    many = [taken(n, total_ms=100_000, calls=1_000) for n in range(1, 30)]
    rare = taken(99, calls=2, total_ms=2_001)
    exact = taken(98, calls=2, total_ms=2_000)
    lines = lines_of(window(*many, rare, exact), None)
    assert len(lines) == SHOWN_MAX + 1
    assert [line.queryid for line in lines if line.is_slow] == [99]


def test_what_was_never_called_is_no_line() -> None:
    assert lines_of(window(taken(calls=0)), None) == ()


def test_p95_is_near_the_truth_for_times_like_a_servers() -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    times = [chance.lognormvariate(2, 0.8) for _ in range(50_000)]
    sums = taken(
        calls=len(times), total_ms=sum(times), square_ms=sum(t * t for t in times),
        max_ms=max(times),
    )  # fmt: skip
    truth = sorted(times)[int(0.95 * len(times))]
    assert math.isclose(p95_ms(sums), truth, rel_tol=0.05)


@pytest.mark.parametrize(
    ("sums", "p95"),
    [
        (taken(calls=10, total_ms=100, square_ms=1000), 10),  # all alike
        (taken(calls=10, total_ms=100, square_ms=0), 10),  # rounding below zero
        (taken(calls=10, total_ms=0, square_ms=0, max_ms=0), 0),
        (taken(calls=2, total_ms=100, square_ms=9_000, max_ms=95), 95),  # never above the slowest
    ],
)
def test_p95_at_its_edges(sums: StatementSum, p95: float) -> None:
    assert p95_ms(sums) == pytest.approx(p95)


def test_changes_are_per_hour_and_per_call() -> None:
    now = window(taken(1, calls=20, total_ms=400), taken(2), hours=2)
    then = window(taken(1, calls=40, total_ms=400), hours=8)
    lines = {line.queryid: line.change for line in lines_of(now, then)}
    assert lines[1] == Change(load=4, mean=2)
    assert lines[2] is not None
    assert lines[2].is_new


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (None, "-"),
        (Change(), "new"),
        (Change(load=1.1, mean=0.9), "as before"),
        (Change(load=2.34, mean=1.0), "time 2.3x"),
        (Change(load=0.5, mean=31.4), "time 0.5x, mean 31x"),
    ],
)
def test_changes_in_words(change: Change | None, text: str) -> None:
    assert change_text(change) == text


def test_an_empty_earlier_window_compares_with_nothing() -> None:
    [line] = lines_of(window(taken()), replace(window(), hours=0))
    assert line.change is None


def test_the_same_hours_last_week_come_first_then_all_before() -> None:
    kept = NOON - timedelta(days=35)
    last_week, before = windows_before(NOON - DAY, NOON, kept_since=kept)
    assert last_week == (NOON - 8 * DAY, NOON - 7 * DAY)
    assert before == (kept, NOON - DAY)
    assert windows_before(kept, NOON, kept_since=kept) == ((kept - 7 * DAY, NOON - 7 * DAY),)


@pytest.mark.parametrize(
    ("earlier", "hours", "enough"),
    [(0, 1, False), (11, 24, False), (12, 24, True), (12, 700, True), (1, 1, True), (3, 24, False)],
)
def test_how_many_hours_are_enough_to_compare(earlier: float, hours: float, enough: object) -> None:
    assert covers(earlier, hours) is enough


def test_only_what_can_have_a_plan_is_worth_one() -> None:
    lines = lines_of(
        window(taken(1, is_utility=True), taken(2, text=""), taken(3, text="select 1")), None
    )
    assert [line.queryid for line in worst(lines)] == [3]
