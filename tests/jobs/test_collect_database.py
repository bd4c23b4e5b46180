"""One database's looks on their way to the store: once each, whatever happens on the way."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.collect_database import DatabaseWatch, Pace, Tools, places_of
from jobs.collect_node import NodePlace
from jobs.health_settings import Node, Volume
from jobs.operation import Database
from postgres.errors import PostgresError
from postgres.health.collect import Collected, Size
from postgres.health.statement_deltas import StatementDelta
from store.connect import Store
from store.samples import NodeRow, nodes_of, record, series
from store.sizes import DATABASE, DaySize, record_sizes, size_history, tables_on
from store.sizes import Size as StoredSize
from store.statements import StatementSum, statement_sums
from tests.jobs.support import database

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVERY = timedelta(seconds=30)
TAKEN = StatementDelta(
    queryid=7, calls=2, total_ms=10, square_ms=52, max_ms=6, rows=2, blocks_hit=3, blocks_read=4,
    temp_blocks=5, wal_bytes=6, is_utility=False, text="SELECT $1",
)  # fmt: skip


class Eye:
    """Says what it was told to say; `answers` by node, the last of them again and again."""

    def __init__(self, world: World, place: NodePlace) -> None:
        self.world, self.place = world, place

    async def collect(self, now: datetime) -> Collected:
        answers = self.world.answers.setdefault(self.place.name, [a_primary()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return replace(answer, at=now)

    async def close(self) -> None:
        self.world.closed.append(self.place.name)


def a_primary(**changed: Any) -> Collected:
    values: dict[str, Any] = {
        "at": NOON, "numbers": {"up": 1.0, "tps": 5.0}, "detail": {"role": "primary", "notes": []},
    }  # fmt: skip
    return Collected(**{**values, **changed})


@dataclass(slots=True)
class World:
    """A database with its watch, and a time that moves from look to look."""

    store: Any
    orders: Database
    now: datetime = NOON
    answers: dict[str, list[Collected | Exception]] = field(default_factory=dict)
    earlier: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def watch(self, worker: str = "w1") -> DatabaseWatch:
        tools = Tools(
            store=cast("Store", self.store), worker=worker, clock=lambda: self.now,
            pace=Pace(statements=2 * EVERY), opener=self.open,
        )  # fmt: skip
        return DatabaseWatch(tools, self.orders)

    def open(self, place: NodePlace, earlier: Mapping[str, Any] | None) -> Eye:
        self.earlier[place.name] = earlier
        return Eye(self, place)

    async def look(self, watch: DatabaseWatch, times: int = 1) -> None:
        for _ in range(times):
            await watch.look()
            self.now += EVERY


@pytest.fixture
def world(store: Store) -> World:
    return World(store=store, orders=database("orders", "postgresql://nowhere", every=30))


async def sums(store: Store) -> list[StatementSum]:
    async with store.begin() as conn:
        day = timedelta(days=1)
        return list(await statement_sums(conn, "orders", since=NOON - day, until=NOON + day))


async def samples(store: Store, node: str = "orders") -> int:
    async with store.begin() as conn:
        return len(
            await series(
                conn, "orders", node, ["up"], since=NOON - timedelta(days=1),
                until=NOON + timedelta(days=1), width=None,
            )
        )  # fmt: skip


async def node(store: Store, name: str = "orders") -> NodeRow:
    async with store.begin() as conn:
        return next(each for each in await nodes_of(conn) if each.node == name)


async def test_statements_go_to_the_store_now_and_then_with_their_texts(
    world: World, store: Store
) -> None:
    watch = world.watch()
    world.answers["orders"] = [a_primary(), a_primary(statements=(TAKEN,))]
    await world.look(watch, 2)
    assert await sums(store) == []
    await world.look(watch)
    [found] = await sums(store)
    assert (found.queryid, found.calls, found.text) == (7, 4, "SELECT $1")
    await world.look(watch, 2)
    assert [each.calls for each in await sums(store)] == [8]


class Forgetful:
    """A store that does not always hear of its own commits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.deaf = 0
        self.away = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        if self.away:
            self.away -= 1
            raise ConnectionRefusedError
        async with self.store.begin() as conn:
            yield conn
        if self.deaf:
            self.deaf -= 1
            raise ConnectionResetError


async def test_a_commit_that_nobody_heard_of_counts_once(world: World, store: Store) -> None:
    world.store = forgetful = Forgetful(store)
    watch = world.watch()
    world.answers["orders"] = [a_primary(), a_primary(statements=(TAKEN,))]
    await world.look(watch, 2)
    forgetful.deaf = 1
    await world.look(watch, 2)
    assert [each.calls for each in await sums(store)] == [4]
    assert await samples(store) == 4


async def test_nothing_is_lost_while_the_store_is_away(
    world: World, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    world.store = forgetful = Forgetful(store)
    watch = world.watch()
    world.answers["orders"] = [a_primary(), a_primary(statements=(TAKEN,))]
    await world.look(watch)
    forgetful.away = 5
    await world.look(watch, 5)
    assert await samples(store) == 1
    await world.look(watch)
    assert await samples(store) == 7
    assert [each.calls for each in await sums(store)] == [12]
    assert len([line for line in caplog.messages if "is away" in line]) == 1


async def test_what_another_worker_counts_too_is_not_counted_twice(
    world: World, store: Store
) -> None:
    watch = world.watch()
    world.answers["orders"] = [a_primary(statements=(TAKEN,))]
    await world.look(watch)
    # The other has taken over, and looks just before us.
    for _ in range(3):
        theirs = NodeRow(
            database="orders", node="orders", at=world.now - timedelta(seconds=1), ok=True,
            collector="w2",
        )  # fmt: skip
        async with store.begin() as conn:
            assert await record(conn, [theirs])
        await world.look(watch)
    assert [each.calls for each in await sums(store)] == [2]
    assert await samples(store) == 4
    await world.look(watch, 3)  # it has gone again: ours count from here on
    assert [each.calls for each in await sums(store)] == [8]


async def test_growth_stands_in_the_numbers_of_the_primary(world: World, store: Store) -> None:
    async with store.begin() as conn:
        for day in range(10):
            size = {DATABASE: StoredSize(bytes=1000 * day)}
            await record_sizes(conn, "orders", date(2026, 11, 10) + timedelta(days=day), size)
    watch = world.watch()
    await world.look(watch, 2)
    assert (await node(store)).numbers["growth_bytes_day"] == 1000


async def test_days_until_full_are_forecast_once_a_day(world: World, store: Store) -> None:
    async with store.begin() as conn:
        for day in range(40):
            size = {
                "volume": StoredSize(bytes=10_000 + 1000 * day),
                "volume_total": StoredSize(bytes=70_000),
            }
            await record_sizes(conn, "orders", NOON.date() - timedelta(days=40 - day), size)
    watch = world.watch()
    await world.look(watch, 2)
    days = (await node(store)).numbers["days_until_full"]
    assert days == pytest.approx(20, abs=3)
    async with store.begin() as conn:
        full = {"volume_total": StoredSize(bytes=1_000_000)}
        await record_sizes(conn, "orders", NOON.date(), full)
    world.now = NOON + timedelta(hours=2)
    await world.look(watch, 2)
    assert (await node(store)).numbers["days_until_full"] == days
    world.now = NOON + timedelta(hours=25)
    await world.look(watch, 2)
    assert (await node(store)).numbers["days_until_full"] != days


async def test_sizes_of_the_primary_are_those_of_the_day(world: World, store: Store) -> None:
    found = (
        Size(what="database", bytes=100),
        Size(what="table public.a", bytes=60, rows=3),
        Size(what="volume", bytes=300),
    )
    world.answers["orders"] = [a_primary(sizes=found), a_primary()]
    watch = world.watch()
    await world.look(watch, 2)
    async with store.begin() as conn:
        for what, size in (("database", 100), ("volume", 300)):
            [day] = await size_history(conn, "orders", what, since=NOON.date())
            assert day == DaySize(day=NOON.date(), bytes=size)
        [table] = await tables_on(conn, "orders", NOON.date())
    assert (table.name, table.bytes, table.rows) == ("public.a", 60, 3)


async def test_after_a_failover_the_new_primary_has_the_clusters_numbers(
    world: World, store: Store
) -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://west"), region="us")
    world.orders = replace(world.orders, replicas=(west,))
    down = PostgresError("It is down.", next_step="Start it.")
    size = (Size(what="database", bytes=5),)
    world.answers = {"orders": [down], "west": [a_primary(sizes=size)]}
    watch = world.watch()
    await world.look(watch)
    own, new = await node(store), await node(store, "west")
    assert (own.ok, own.problem, own.next_step) == (False, "It is down.", "Start it.")
    assert own.numbers == {"up": 0}
    assert new.numbers["replicas_missing"] == 1
    async with store.begin() as conn:
        assert await size_history(conn, "orders", "database", since=NOON.date())


async def test_without_any_primary_the_missing_stand_with_the_inventorys_own_node(
    world: World, store: Store
) -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://west"))
    world.orders = replace(world.orders, replicas=(west,))
    down = PostgresError("It is down.", next_step="Start it.")
    world.answers = {"orders": [down], "west": [down]}
    await world.look(world.watch())
    assert (await node(store)).numbers == {
        "up": 0, "replicas_missing": 1, "replicas_streaming": None, "replication_lag_ms": None,
        "replication_lag_bytes": None,
    }  # fmt: skip
    assert (await node(store, "west")).numbers == {"up": 0}


async def test_two_primaries_are_told(world: World, store: Store) -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://west"))
    world.orders = replace(world.orders, replicas=(west,))
    await world.look(world.watch())
    assert "west is a primary too" in " ".join((await node(store)).detail["notes"])
    assert (await node(store, "west")).detail["notes"] == []


async def test_who_takes_over_knows_what_was_known(world: World, store: Store) -> None:
    world.answers["orders"] = [a_primary(detail={"role": "primary", "hour": [1, 2]})]
    watch = world.watch()
    await world.look(watch)
    assert list(world.earlier.values()) == [None]
    await watch.close()
    assert world.closed == ["orders"]
    await world.look(world.watch("w2"))
    assert world.earlier == {
        "orders": {"role": "primary", "hour": [1, 2], "notes": [], "replicas": []}
    }


async def test_what_nobody_foresaw_in_one_node_blinds_no_other(
    world: World, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://west"))
    world.orders = replace(world.orders, replicas=(west,))
    world.answers["west"] = [KeyError("odd")]
    await world.look(world.watch(), 4)
    assert await samples(store) == await samples(store, "west") == 4
    assert (await node(store, "west")).problem == (
        "Looking at west failed in a way that was not foreseen."
    )
    assert [r.levelno for r in caplog.records if r.exc_info] == [logging.ERROR]


async def test_what_cannot_be_stored_stands_in_nobodys_way(
    world: World, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    world.answers["orders"] = [a_primary(detail={"role": "primary", "odd": object()}), a_primary()]
    await world.look(world.watch(), 3)
    assert await samples(store) == 2
    assert [line for line in caplog.messages if "it is left out" in line]


async def test_a_silent_node_is_asked_after_growing_pauses(world: World, store: Store) -> None:
    down = PostgresError("It is down.", next_step="Start it.")
    world.answers["orders"] = [*[down] * 4, a_primary()]
    watch = world.watch()
    await world.look(watch, 12)
    async with store.begin() as conn:
        points = await series(
            conn, "orders", "orders", ["up"], since=NOON, until=NOON + timedelta(hours=1),
            width=None,
        )  # fmt: skip
    # Asked at 0, 30, 90, 150 and 210 seconds: told each time.
    assert [point.numbers["up"] for point in points] == [0] * 7 + [1] * 5


def test_only_the_inventorys_own_node_has_the_volume_and_the_pooler(world: World) -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://west"), region="us")
    settings = replace(
        world.orders.monitoring, volume=Volume(total_bytes=5), pgbouncer=SecretStr("pg")
    )
    own, other = places_of(
        replace(world.orders, replicas=(west,), region="eu", monitoring=settings)
    )
    assert (own.name, own.region, own.volume) == ("orders", "eu", Volume(total_bytes=5))
    assert own.pgbouncer is not None
    assert (other.name, other.region, other.volume, other.pgbouncer) == ("west", "us", None, None)


def test_a_login_that_may_only_look_is_used_where_there_is_one(world: World) -> None:
    looker = SecretStr("postgresql://looker")
    (own,) = places_of(
        replace(world.orders, monitoring=replace(world.orders.monitoring, dsn=looker))
    )
    assert own.dsn == looker
    (own,) = places_of(world.orders)
    assert own.dsn == world.orders.dsn
