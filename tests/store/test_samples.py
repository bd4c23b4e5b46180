"""Each look at a node is stored once, whoever looked, and read back for charts in one query."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.connect import Store
from store.samples import (
    CHART_POINTS,
    FORGOTTEN_AFTER,
    WIDTHS,
    NodeRow,
    forget_nodes,
    nodes_in_short,
    nodes_of,
    record,
    rounded,
    series,
    width_for,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
GAP = timedelta(seconds=15)
EVERY = timedelta(seconds=30)


def look(minute: float, **changed: Any) -> NodeRow:
    values: dict[str, Any] = {
        "database": "orders", "node": "orders", "at": NOON + timedelta(minutes=minute),
        "ok": True, "collector": "a", "numbers": {"up": 1, "tps": 2.5}, "detail": {"role": "x"},
    }  # fmt: skip
    return NodeRow(**{**values, **changed})


async def raw(store: Store, *metrics: str, database: str = "orders") -> list[tuple[Any, ...]]:
    async with store.begin() as conn:
        points = await series(
            conn, database, "orders", metrics, since=NOON - timedelta(days=1),
            until=NOON + timedelta(days=1), width=None,
        )  # fmt: skip
    return [((each.at - NOON) / timedelta(minutes=1), *each.numbers.values()) for each in points]


async def stored(store: Store, *rows: NodeRow) -> int:
    async with store.begin() as conn:
        return len(await record(conn, rows, gap=GAP))


async def test_the_last_word_and_each_look_are_stored(store: Store) -> None:
    assert await stored(store, look(0), look(0, node="west", numbers={"up": 1}))
    assert await stored(store, look(0.5, numbers={"up": 1, "tps": 3, "deadlocks": None}))
    async with store.begin() as conn:
        primary, west = await nodes_of(conn, ["orders"])
        assert await nodes_of(conn, ["users"]) == []
        assert len(await nodes_of(conn)) == 2
    assert primary.numbers == {"up": 1, "tps": 3, "deadlocks": None}
    assert (primary.at, primary.seen_at) == (NOON + EVERY, NOON + EVERY)
    assert west.at == NOON
    assert await raw(store, "tps", "deadlocks") == [(0, 2.5, None), (0.5, 3, None)]


async def test_nodes_in_short_have_nothing_but_their_role(store: Store) -> None:
    await stored(store, look(0, detail={"role": "primary", "tables": ["public.a"]}))
    await stored(store, look(0, node="west", detail={}))
    async with store.begin() as conn:
        found = await nodes_in_short(conn)
        whole = await nodes_of(conn)
    assert [each.detail for each in found] == [{"role": "primary"}, {"role": None}]
    assert [each.numbers for each in found] == [each.numbers for each in whole]


async def test_a_node_that_is_down_keeps_what_was_known_of_it(store: Store) -> None:
    await stored(store, look(0))
    down = look(1, ok=False, numbers={"up": 0}, detail={}, problem="It is down.")
    await stored(store, down)
    async with store.begin() as conn:
        [node] = await nodes_of(conn, ["orders"])
    assert (node.ok, node.problem, node.numbers) == (False, "It is down.", {"up": 0})
    assert (node.at, node.seen_at) == (NOON + timedelta(minutes=1), NOON)
    assert node.detail == {"role": "x"}


async def test_looks_that_waited_for_the_store_are_stored_together(store: Store) -> None:
    waited = [look(1, ok=False, numbers={"up": 0}, detail={}), look(0), look(0.5)]
    assert await stored(store, *waited) == 3
    assert await raw(store, "up") == [(0, 1), (0.5, 1), (1, 0)]
    async with store.begin() as conn:
        [node] = await nodes_of(conn, ["orders"])
    assert (node.ok, node.seen_at, node.detail) == (False, NOON + EVERY, {"role": "x"})


async def test_storing_the_same_looks_again_changes_nothing(store: Store) -> None:
    assert await stored(store, look(0), look(0.5)) == 2
    assert await stored(store, look(0), look(0.5), look(1)) == 1
    assert len(await raw(store, "up")) == 3


async def test_two_workers_at_once_store_one_look(store: Store) -> None:
    both = [look(0.01 * number, collector=f"w{number}") for number in range(6)]
    counts = await asyncio.gather(*(stored(store, each) for each in both))
    assert sum(counts) == 1
    assert len(await raw(store, "up")) == 1


async def test_another_worker_takes_over_after_the_gap(store: Store) -> None:
    await stored(store, look(0, collector="a"))
    assert await stored(store, look(0.2, collector="b")) == 0
    assert await stored(store, look(0.25, collector="b")) == 1
    assert await stored(store, look(0.3, collector="b")) == 1


async def test_looks_of_two_databases_are_not_mixed(store: Store) -> None:
    async with store.begin() as conn:
        with pytest.raises(ValueError, match="orders, users"):
            await record(conn, [look(0), look(0, database="users")])
        assert await record(conn, []) == ()


async def test_nodes_that_left_the_inventory_disappear(store: Store) -> None:
    await stored(store, look(0), look(0, node="west"))
    await stored(store, look(0, database="users", node="users"))
    later = NOON + FORGOTTEN_AFTER + timedelta(seconds=1)
    async with store.begin() as conn:
        assert await forget_nodes(conn, {}, now=later) == 0
        assert await forget_nodes(conn, {"orders": []}, now=later) == 0
        assert await forget_nodes(conn, {"orders": ["orders"]}, now=NOON) == 0
        assert await forget_nodes(conn, {"orders": ["orders"]}, now=later) == 2
        assert [node.node for node in await nodes_of(conn)] == ["orders"]


async def test_numbers_that_are_none_are_not_stored(store: Store) -> None:
    await stored(store, look(0, numbers={"up": 1, "tps": math.nan, "qps": math.inf}))
    assert await raw(store, "up", "tps", "qps") == [(0, 1, None, None)]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (1 / 3, 0.333333),
        (98.76543219, 98.7654),
        (0.000012345678, 1.23457e-05),
        (123_456_789_012.4, 123_456_789_012),
        (0, 0),
        (1e-40, 0),
        (1e39, None),
        (None, None),
        (math.nan, None),
        (-math.inf, None),
    ],
)
def test_numbers_are_short_and_sizes_exact(given: float | None, kept: float | None) -> None:
    assert rounded(given) == kept


@pytest.mark.parametrize(
    ("span", "width"),
    [
        (timedelta(hours=3), None),
        (timedelta(hours=4), "5m"),
        (timedelta(days=1), "5m"),
        (timedelta(days=7), "1h"),
        (timedelta(days=90), "1d"),
        (timedelta(days=3000), "1d"),
    ],
)
def test_a_chart_has_few_points(span: timedelta, width: str | None) -> None:
    found = width_for(span)
    assert found == width
    if found != "1d":
        assert span / (WIDTHS[found] if found else EVERY) <= CHART_POINTS
