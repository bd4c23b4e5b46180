"""Promotions of a real pair on their way to the store: each once, and none that was ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from jobs.alert_failover import failover_signals
from jobs.alert_readings import servers_of
from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.collect_database import DatabaseWatch, Tools
from postgres.cluster.words import ClusterKind, Outcome
from postgres.errors import PostgresError
from sandbox.ha import PairSandbox
from store.cluster_events import (
    ClusterEvent,
    cluster_events_since,
    forget_cluster_events,
    record_event,
)
from store.connect import Store
from store.samples import nodes_of
from store.tables import runs
from tests.jobs.test_cluster_look import ORDERS
from tests.jobs.test_collect_database import World
from tests.postgres.cluster.pair_support import LIMIT, Said, ask, cluster_of, roles
from tests.store.test_replaced import ADD_REQUEST

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TIMELINE = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"


class Collectors:
    """Some workers that look at one pair, each as if it had its lease."""

    def __init__(self, store: Store, pair: PairSandbox, count: int) -> None:
        self.store = store
        nodes = tuple(
            ClusterNode(name=each.name, dsn=SecretStr(each.target.url())) for each in pair.specs
        )
        settings = ClusterSettings(kind=ClusterKind.PAIR, nodes=nodes)
        self.orders = replace(ORDERS, cluster=settings)
        world = World(store=store, orders=self.orders)
        world.answers["orders"] = [PostgresError("It is down.", next_step="Start it.")]
        self.watches = [
            DatabaseWatch(
                Tools(
                    store=store, worker=f"w{number}", clock=lambda: datetime.now(UTC),
                    opener=world.open,
                ),
                self.orders,
            )
            for number in range(count)
        ]  # fmt: skip

    async def look(self) -> None:
        await asyncio.gather(*(each.look() for each in self.watches))

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self.watches))

    async def events(self) -> Sequence[ClusterEvent]:
        async with self.store.begin() as conn:
            return await cluster_events_since(conn, LONG_AGO)

    async def detail(self) -> Mapping[str, Any]:
        """What is kept of the last look at the cluster."""
        async with self.store.begin() as conn:
            found = await nodes_of(conn)
        return next(each.detail for each in found if each.node == "orders/cluster")

    async def signals(self) -> dict[str, float | None]:
        """What a look of the bot would find, by name."""
        now = datetime.now(UTC)
        async with self.store.begin() as conn:
            events = await cluster_events_since(conn, LONG_AGO)
            servers = servers_of(self.orders, await nodes_of(conn), now)
        return {each.name: each.reading.value for each in failover_signals(events, servers)}


async def a_run(store: Store, candidate: str, started_at: datetime) -> int:
    """A run of `/db failover` that is at work."""
    async with store.begin() as conn:
        request = int((await conn.execute(ADD_REQUEST)).scalar_one())
        plan = json.dumps({"pins": {"candidate": candidate}})
        await conn.execute(
            sa.text("UPDATE requests SET plan = :plan WHERE id = :id"),
            {"plan": plan, "id": request},
        )
        await conn.execute(
            sa.insert(runs).values(
                request_id=request, database="orders", operation="failover", state="running",
                epoch=1, worker="w", queued_at=started_at, started_at=started_at, progress={},
                outcome={},
            )
        )  # fmt: skip
    return request


async def test_what_somebody_else_promoted_is_entered_once_by_two_collectors(
    store: Store, pair: PairSandbox
) -> None:
    old, new = await roles(pair)
    collectors = Collectors(store, pair, 2)
    try:
        await collectors.look()
        assert await collectors.events() == []
        pair.kill_server(old)
        await collectors.look()
        found = await collectors.signals()
        assert found == {"PrimaryGone": 1.0}
        await ask(pair, new, "SELECT pg_promote()")
        await collectors.look()
        await collectors.look()
        [event] = await collectors.events()
        found = await collectors.signals()
    finally:
        await collectors.close()
    assert (event.old_node, event.new_node, event.request_id) == (old, new, None)
    assert event.timeline == await ask(pair, new, TIMELINE)
    assert event.silent_at is not None
    # The history file's time, in whole seconds: it may lie before the look in its second.
    assert event.promoted_at is None or event.old_at <= event.promoted_at <= event.at
    assert found == {"FailedOver": 1.0, "PrimaryGone": 0.0}


async def test_what_a_run_of_ours_did_is_entered_as_its_own_and_not_told(
    store: Store, pair: PairSandbox
) -> None:
    old, new = await roles(pair)
    collectors = Collectors(store, pair, 1)
    try:
        await collectors.look()
        request = await a_run(store, new, datetime.now(UTC))
        done = await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
        assert done.outcome is Outcome.DONE
        await collectors.look()
        [event] = await collectors.events()
        assert await collectors.signals() == {"PrimaryGone": 0.0}
        told = await collectors.detail()
    finally:
        await collectors.close()
    assert [each["timeline"] for each in told["history"]] == [event.timeline]
    assert (event.new_node, event.request_id) == (new, request)


async def test_while_a_run_of_ours_has_stopped_the_primary_nothing_is_proposed(
    store: Store, pair: PairSandbox
) -> None:
    old, new = await roles(pair)
    collectors = Collectors(store, pair, 1)
    await a_run(store, new, datetime.now(UTC))
    try:
        await pair.stop_server(old)
        await collectors.look()
        assert await collectors.signals() == {"PrimaryGone": 0.0}
    finally:
        await collectors.close()


async def test_what_is_old_is_forgotten(store: Store) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    event = ClusterEvent(
        database="orders", system="7", timeline=2, old_node="east", new_node="west", old_at=now,
        at=now,
    )  # fmt: skip
    async with store.begin() as conn:
        assert await record_event(conn, event)
        assert not await record_event(conn, event)
        assert await record_event(conn, replace(event, timeline=3, at=now + timedelta(days=1)))
        await forget_cluster_events(conn, before=now + timedelta(hours=1))
        assert [each.timeline for each in await cluster_events_since(conn, now)] == [3]
