"""What the collector measures after another server became the primary: each under its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from jobs.collect_database import DatabaseWatch, Tools, places_of
from jobs.collect_node import NodePlace
from jobs.health_settings import MonitoringSettings, Node, Volume
from jobs.operation import Database
from jobs.routing import measured
from postgres.cluster.words import NodeSeen
from postgres.dsn import parse_dsn
from store.connect import Store
from tests.jobs.test_collect_database import EVERY, Eye, World
from tests.jobs.test_routes import EAST_WRITES, NOBODY, ORDERS, WEST_WRITES, looking
from tests.jobs.test_routing import EAST, WEST

DIRECT = replace(ORDERS, dsn=SecretStr("postgresql://app@10.0.0.1:5433/shop"))
STANDBY = Node(name="west", dsn=SecretStr("postgresql://looker@10.0.0.2/shop"))


def hosts(database: Database, primary: str) -> dict[str, str]:
    return {
        place.name: parse_dsn(place.dsn.get_secret_value()).words["host"]
        for place in places_of(measured(database, primary))
    }


def test_where_one_server_is_measured_it_is_the_primary() -> None:
    for each in (ORDERS, DIRECT):
        assert hosts(each, "east") == {"orders": "10.0.0.1"}
        assert hosts(each, "west") == {"orders": "10.0.0.2"}


def test_a_server_keeps_its_name_whatever_its_role() -> None:
    for each in (ORDERS, DIRECT):
        both = replace(each, replicas=(STANDBY,))
        assert hosts(both, "east") == {"orders": "10.0.0.1", "west": "10.0.0.2"}
        assert hosts(both, "west") == {"orders": "10.0.0.1", "west": "10.0.0.2"}


def test_where_all_are_named_as_replicas_the_databases_own_row_is_the_primary() -> None:
    every = tuple(
        Node(name=name, dsn=SecretStr(dsn)) for name, dsn in (("east", EAST), ("west", WEST))
    )
    assert hosts(replace(ORDERS, replicas=every), "west") == {
        "orders": "10.0.0.2", "east": "10.0.0.1", "west": "10.0.0.2",
    }  # fmt: skip


def test_without_a_cluster_it_is_measured_where_the_inventory_says() -> None:
    plain = replace(DIRECT, cluster=None)
    assert measured(plain, "west") is plain


async def looked(store: Store, *answers: tuple[NodeSeen, ...]) -> tuple[World, Sequence[str]]:
    """A round for each answer; where the database's own eye was opened, in order."""
    settings = MonitoringSettings(every=EVERY, volume=Volume(total_bytes=9))
    world = World(store=store, orders=replace(DIRECT, monitoring=settings))
    opened: list[str] = []

    def opener(place: NodePlace, earlier: Mapping[str, Any] | None) -> Eye:
        opened.append(parse_dsn(place.dsn.get_secret_value()).words["host"])
        return world.open(place, earlier)

    tools = Tools(
        store=store, worker="w", clock=lambda: world.now, opener=opener, looker=looking(*answers)
    )
    watch = DatabaseWatch(tools, world.orders)
    await world.look(watch, len(answers))
    await watch.close()
    return world, opened


async def test_the_primary_is_followed_and_nothing_known_of_the_old_one_is_carried_over(
    store: Store,
) -> None:
    world, opened = await looked(store, EAST_WRITES, EAST_WRITES, WEST_WRITES, WEST_WRITES)
    assert opened == ["10.0.0.1", "10.0.0.2"]
    assert world.closed == ["orders", "orders"]
    assert world.earlier == {"orders": None}


async def test_while_nobody_knows_who_is_the_primary_the_last_one_is_looked_at(
    store: Store,
) -> None:
    _, opened = await looked(store, WEST_WRITES, NOBODY)
    assert opened == ["10.0.0.2"]
    _, opened = await looked(store, NOBODY)
    assert opened == ["10.0.0.1"]
