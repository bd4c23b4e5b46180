"""Until when a volume lasts is told of the sizes, where the last sample does not say it."""

from __future__ import annotations

from datetime import timedelta

from jobs.health_outlook import with_outlook
from jobs.health_state import HealthState
from store.connect import Store
from store.tables import sizes
from tests.jobs.health import NOW, NUMBERS, a_health, a_node
from tests.jobs.test_readiness_facts import insert

GIB = 2**30
UNKNOWN = {**NUMBERS, "days_until_full": None, "growth_bytes_day": None}


async def seen(store: Store, state: HealthState) -> HealthState:
    async with store.begin() as conn:
        return await with_outlook(conn, state, NOW)


async def measured(store: Store, days: int) -> None:
    whats = (("database", 100), ("volume", 200))
    rows = [
        {"database": "orders", "what": what, "bytes": (start + days - age) * GIB,
         "day": (NOW - timedelta(days=age)).date()}
        for what, start in whats
        for age in range(days)
    ]  # fmt: skip
    total = {"database": "orders", "what": "volume_total", "bytes": 300 * GIB, "day": NOW.date()}
    await insert(store, sizes, *rows, total)


async def test_sizes_say_what_the_sample_does_not(store: Store) -> None:
    await measured(store, 60)
    found = await seen(store, a_health(a_node(numbers=UNKNOWN), a_node("west")))
    days, growth = found.numbers["days_until_full"], found.numbers["growth_bytes_day"]
    assert days is not None
    assert 30 <= days <= 41
    assert growth is not None
    assert 0.9 * GIB < growth < 1.1 * GIB
    assert [node.node for node in found.nodes] == ["orders", "west"]


async def test_what_the_sample_says_stands(store: Store) -> None:
    await measured(store, 60)
    state = a_health(a_node())
    assert await seen(store, state) is state


async def test_without_history_nothing_is_made_up(store: Store) -> None:
    await measured(store, 5)
    for state in (a_health(a_node(numbers=UNKNOWN)), a_health()):
        assert await seen(store, state) is state


async def test_a_server_that_does_not_answer_has_no_numbers(store: Store) -> None:
    await measured(store, 60)
    state = a_health(a_node(numbers={"up": 0}, ok=False))
    assert await seen(store, state) is state
