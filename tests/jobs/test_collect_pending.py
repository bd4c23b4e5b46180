"""What waits for the store is bounded, and nothing of it counts twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.collect_pending import (
    STATEMENTS_LEFT,
    STATEMENTS_MAX,
    TEXTS_MAX,
    Look,
    Tally,
    Waiting,
)
from postgres.health.statement_deltas import StatementDelta
from store.samples import LATE_MAX, NodeRow

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def delta(**changed: Any) -> StatementDelta:
    values: dict[str, Any] = {
        "queryid": 1, "calls": 2, "total_ms": 10.0, "square_ms": 52.0, "max_ms": 6.0, "rows": 2,
        "blocks_hit": 3, "blocks_read": 4, "temp_blocks": 5, "wal_bytes": 6,
    }  # fmt: skip
    return StatementDelta(**{**values, **changed})


def a_look(minute: float, *, ok: bool = True) -> Look:
    at = NOON + minute * MINUTE
    row = NodeRow(database="orders", node="orders", at=at, ok=ok, detail={"role": "primary"})
    return Look(at=at, rows=(row,))


def test_looks_wait_for_ten_minutes_and_no_longer() -> None:
    waiting = Waiting()
    for minute in range(15):
        waiting.add(a_look(minute))
    assert waiting.looks[-1].at - waiting.looks[0].at == LATE_MAX
    waiting.clear()
    assert waiting.looks == ()


def test_only_the_last_answer_of_a_node_waits_with_its_detail() -> None:
    waiting = Waiting()
    for look in (a_look(0), a_look(1), a_look(2, ok=False)):
        waiting.add(look)
    assert [bool(look.rows[0].detail) for look in waiting.looks] == [False, True, True]


def test_statements_add_up_by_node_and_hour() -> None:
    tally = Tally()
    tally.add("orders", NOON, [delta(), delta(queryid=2)])
    tally.add("orders", NOON + MINUTE, [delta(max_ms=9.0)])
    tally.add("orders", NOON + 60 * MINUTE, [delta()])
    tally.add("west", NOON, [delta()])
    hours, _ = tally.take()
    assert [(each.node, each.hour - NOON, len(each.sums)) for each in hours] == [
        ("orders", 0 * MINUTE, 2), ("orders", 60 * MINUTE, 1), ("west", 0 * MINUTE, 1),
    ]  # fmt: skip
    first = hours[0].sums[0]
    assert (first.calls, first.total_ms, first.square_ms, first.max_ms) == (4, 20, 104, 9)
    assert (first.rows, first.blocks_hit, first.blocks_read) == (4, 6, 8)
    assert (first.temp_blocks, first.wal_bytes) == (10, 12)
    assert tally.take() == ((), ())


def test_the_lightest_statements_give_way_to_a_bound() -> None:
    tally = Tally()
    many = [delta(queryid=each, total_ms=float(each)) for each in range(STATEMENTS_MAX + 1)]
    tally.add("orders", NOON, many)
    [hour], _ = tally.take()
    assert len(hour.sums) == STATEMENTS_LEFT
    assert min(each.total_ms for each in hour.sums) == STATEMENTS_MAX + 1 - STATEMENTS_LEFT


def test_texts_are_told_once_and_bounded() -> None:
    tally = Tally()
    tally.add("orders", NOON, [delta(text="SELECT $1", is_utility=False), delta(queryid=2)])
    tally.add("orders", NOON, [delta(queryid=3, text="BEGIN", is_utility=True)])
    _, texts = tally.take()
    assert [(each.queryid, each.text, each.is_utility) for each in texts] == [
        (1, "SELECT $1", False), (3, "BEGIN", True),
    ]  # fmt: skip
    tally.add("orders", NOON, [delta(queryid=each, text="x") for each in range(TEXTS_MAX + 5)])
    assert len(tally.take()[1]) == TEXTS_MAX
