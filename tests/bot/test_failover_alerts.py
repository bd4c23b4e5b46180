"""The channel hears of a failover that nobody asked for, and of a pair without a primary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.alerting import Watch
from bot.process import utc_now
from commands import failover, rejoin, replication
from jobs.cluster_look import cluster_row
from postgres.cluster.words import NodeSeen
from sandbox.slack.server import SlackStandIn
from store.cluster_events import ClusterEvent, record_event
from store.connect import Store
from store.samples import record
from tests.bot import world as base
from tests.bot.incident_world import buttons, message
from tests.bot.test_form_stories import front
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.jobs.cluster_pictures import away, promoted, standby
from tests.store.test_replaced import ADD_REQUEST

CLUSTER = """    cluster:
      kind: pair
      nodes:
        - {name: east, dsn: 'postgresql://nobody@127.0.0.1:1/x'}
        - {name: west, dsn: 'postgresql://nobody@127.0.0.1:2/x'}
"""
DSN = "postgresql://nobody@127.0.0.1:1/orders"


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    changes = {each.OPERATION.name: each.OPERATION for each in (failover, rejoin, replication)}
    watched = base.INVENTORY.replace("    monitoring: false\n", CLUSTER)
    monkeypatch.setattr(base, "INVENTORY", watched)
    async with running(
        slack, store, tmp_path, DSN, http=True, worker=False,
        operations={**base.OPERATIONS, **changes},
    ) as made:  # fmt: skip
        yield made


async def seen(world: World, at: datetime, *nodes: NodeSeen) -> None:
    """What a collector has stored of a look."""
    database = world.twokey.desk.inventory.databases["orders"]
    async with world.store.begin() as conn:
        await record(conn, [cluster_row(database, nodes, at=at, worker="w")])


async def looked(world: World, *times: datetime) -> None:
    """The bot's watch looks at these times, beside its own."""
    for at in times:
        clock = partial(_itself, at)
        watch = Watch(inventory=world.twokey.desk.inventory, store=world.store, clock=clock)
        while await watch.look() is None:
            pass


def _itself(at: datetime) -> datetime:
    return at


def an_event(at: datetime, **changes: object) -> ClusterEvent:
    usual = ClusterEvent(
        database="orders", system="77", timeline=4, old_node="east", new_node="west",
        old_at=at - timedelta(seconds=40), silent_at=at - timedelta(seconds=30),
        promoted_at=at - timedelta(seconds=10), at=at,
    )  # fmt: skip
    return replace(usual, **changes)  # type: ignore[arg-type]


async def test_a_failover_that_nobody_asked_for_is_told_with_what_to_check(world: World) -> None:
    now = utc_now()
    await seen(world, now, away("east"), promoted())
    async with world.store.begin() as conn:
        await record_event(conn, an_event(now))

    await looked(world, now, now)
    card = await message(world, "FailedOver")
    shown = texts(card["blocks"])
    assert "west took over from east on timeline 4, at" in shown
    assert "Nothing could be written for 20 s to 30 s" in shown
    assert "Check that applications write to west" in shown
    assert {"Replication", "Rejoin east"} <= set(buttons(card))
    action = buttons(card)["Rejoin east"]["action_id"]
    assert (await world.slack.click("U0ANA", CHANNEL, card["ts"], action, shown=card)).ok
    view = str(await front(world))
    assert "Twokey did not do it: west took over from east" in view
    assert "'initial_value': 'east'" in view


async def test_what_a_run_of_ours_did_is_told_to_nobody(world: World) -> None:
    now = utc_now()
    await seen(world, now, standby("east", timeline=4), promoted())
    request = await a_request(world)
    async with world.store.begin() as conn:
        await record_event(conn, an_event(now, request_id=request))
    await looked(world, now)
    assert await firing(world) == []


async def test_it_is_over_when_all_have_followed_for_a_while(world: World) -> None:
    now = utc_now()
    async with world.store.begin() as conn:
        await record_event(conn, an_event(now))
    await seen(world, now, standby("east", timeline=4), promoted())
    await looked(world, now)
    assert await firing(world) == ["FailedOver timeline 4"]
    later = now + timedelta(minutes=16)
    await seen(world, later, away("east"), promoted())
    await looked(world, later, later + timedelta(minutes=2))
    assert await firing(world) == ["FailedOver timeline 4"]
    later += timedelta(minutes=4)
    await seen(world, later, standby("east", timeline=4), promoted())
    await looked(world, later, later + timedelta(minutes=2))
    assert await firing(world) == []


async def test_a_pair_without_a_primary_brings_a_form_that_is_filled_in(world: World) -> None:
    later = utc_now()  # what is told of is not in the future
    now = later - timedelta(seconds=61)
    await seen(world, now, away("east"), standby(received=2**24))
    await looked(world, now)
    assert await firing(world) == []  # it may come back within the limit
    await seen(world, later, away("east"), standby(received=2**24))
    await looked(world, later)
    card = await message(world, "PrimaryGone")
    shown = texts(card["blocks"])
    assert "its primary east is gone, and west could take over" in shown
    action = buttons(card)["Fail over to west"]["action_id"]
    assert (await world.slack.click("U0ANA", CHANNEL, card["ts"], action, shown=card)).ok
    view = str(await front(world))
    assert "west has the most of those that answer" in view
    assert "forced" in view
    assert await rows(world, "SELECT id FROM runs") == []


async def rows(world: World, query: str) -> list[tuple[object, ...]]:
    async with world.store.begin() as conn:
        return [tuple(row) for row in await conn.execute(sa.text(query))]


async def firing(world: World) -> list[str]:
    """What fires of failovers, whoever may hear of it."""
    found = await rows(
        world,
        "SELECT trim(name || ' ' || label) FROM alerts WHERE state = 'firing'"
        " AND name IN ('FailedOver', 'PrimaryGone') ORDER BY 1",
    )
    return [str(name) for (name,) in found]


async def a_request(world: World) -> int:
    async with world.store.begin() as conn:
        return int((await conn.execute(ADD_REQUEST)).scalar_one())
