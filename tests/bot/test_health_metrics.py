"""What Prometheus hears of the nodes, and what it must not hear."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from bot.health_metrics import PREFIX
from bot.metrics import Metrics
from postgres.health.metrics import METRICS
from store.connect import Store
from store.samples import FORGOTTEN_AFTER, NodeRow, forget_nodes, record

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def shown(store: Store) -> str:
    metrics = Metrics()
    await metrics.read(store)
    return metrics.text().decode()


async def test_the_last_numbers_of_each_node_are_shown(store: Store) -> None:
    numbers = {"up": 1, "qps": 12.5, "deadlocks": None, "of_another_version": 5}
    detail = {
        "role": "primary",
        "blockers": [{"pid": 1, "user": "carol", "application": "psql", "query": "SELECT secret"}],
    }
    own = NodeRow(
        database="orders", node="orders", region="eu-1", at=AT, ok=True, numbers=numbers,
        detail=detail,
    )  # fmt: skip
    west = NodeRow(database="orders", node="west", at=AT, ok=False, numbers={"up": 0})
    async with store.begin() as conn:
        await record(conn, [own, west])
    text = await shown(store)
    found = {
        (sample.name, sample.labels["node"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "node" in sample.labels
    }
    assert found == {
        (f"{PREFIX}up", "orders"): 1,
        (f"{PREFIX}qps", "orders"): 12.5,
        (f"{PREFIX}is_primary", "orders"): 1,
        ("twokey_last_sample_timestamp_seconds", "orders"): AT.timestamp(),
        ("twokey_last_look_timestamp_seconds", "orders"): AT.timestamp(),
        (f"{PREFIX}up", "west"): 0,
        ("twokey_last_look_timestamp_seconds", "west"): AT.timestamp(),
    }
    assert not any(word in text for word in ("carol", "psql", "secret"))


async def test_a_node_that_went_is_shown_no_more(store: Store) -> None:
    own = NodeRow(database="orders", node="orders", at=AT, ok=True, numbers={"up": 1})
    async with store.begin() as conn:
        await record(conn, [own])
    metrics = Metrics()
    await metrics.read(store)
    assert b"orders" in metrics.text()
    async with store.begin() as conn:
        later = AT + FORGOTTEN_AFTER + timedelta(seconds=1)
        await forget_nodes(conn, {"users": ["users"]}, now=later)
    await metrics.read(store)
    assert b"orders" not in metrics.text()


async def test_every_metric_has_its_gauge_with_its_words(store: Store) -> None:
    text = await shown(store)
    for name, metric in METRICS.items():
        if name != "sample_age_s":  # the reader's clock tells it
            assert f"# HELP {PREFIX}{name} {metric.says}" in text
