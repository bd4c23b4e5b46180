"""Workers look at databases by the clock: on real servers, through faults of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from jobs.archive_lease import Lease, Leases
from jobs.collect_database import Pace
from jobs.collect_node import Eye, NodePlace, Opener, open_node
from jobs.collecting import Collecting, share_of, until_next
from jobs.health_settings import Node
from jobs.operation import Database
from postgres.server import Server
from store.connect import Store, connect
from store.samples import FORGOTTEN_AFTER, NodeRow, nodes_of, record
from tests.jobs.gate import Gate, Stands, gate_to
from tests.jobs.nursery import Nursery
from tests.jobs.support import Bench, database

EVERY = 0.2
QUICK = Pace(
    lease=timedelta(seconds=0.1),
    node=timedelta(seconds=1),
    pause=timedelta(seconds=1),
    statements=timedelta(seconds=0.4),
    store=timedelta(seconds=2),
    house=timedelta(seconds=0.2),
)
SAMPLES = sa.text("""
    SELECT database, node, at, numbers FROM samples ORDER BY database, node, at
""")
Rows = Mapping[str, list[Any]]


def now() -> datetime:
    return datetime.now(UTC)


def orders(dsn: str, name: str = "orders") -> Database:
    return database(name, dsn, every=EVERY)


def through(gate: Gate, server: Server, name: str = "postgres") -> str:
    return server.dsn(name, tcp=True).replace(f":{server.port}/", f":{gate.port}/")


def name_of(store: Store) -> str:
    return urlsplit(store.dsn.get_secret_value()).path[1:]


@asynccontextmanager
async def collecting(
    store: Store, *databases: Database, worker: str = "w1", opener: Opener = open_node
) -> AsyncIterator[Collecting]:
    made = Collecting(
        store=store,
        databases={each.name: each for each in databases},
        worker=worker,
        clock=now,
        pace=QUICK,
        opener=opener,
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def seen(store: Store) -> Rows:
    """All samples, by node."""
    found: dict[str, list[Any]] = {}
    async with store.begin() as conn:
        for row in await conn.execute(SAMPLES):
            found.setdefault(row.node, []).append(row)
    return found


async def until(store: Store, wanted: Callable[[Rows], bool], *, seconds: float = 30) -> Rows:
    """What is stored, as soon as it is as wanted."""
    async with asyncio.timeout(seconds):
        while not wanted(rows := await seen(store)):
            await asyncio.sleep(0.05)
    return rows


def up(rows: Sequence[Any]) -> list[float]:
    return [row.numbers["up"] for row in rows]


def gaps_of(rows: Sequence[Any]) -> list[timedelta]:
    return [later.at - earlier.at for earlier, later in pairwise(rows)]


def usual(gaps: Sequence[timedelta]) -> timedelta:
    return sorted(gaps)[len(gaps) // 2]


async def the_node(store: Store, name: str = "orders") -> NodeRow:
    async with store.begin() as conn:
        [node] = [each for each in await nodes_of(conn) if each.node == name]
    return node


async def test_a_database_is_looked_at_again_and_again(store: Store, server: Server) -> None:
    async with collecting(store, orders(server.dsn())):
        rows = await until(store, lambda rows: len(rows.get("orders", [])) >= 3)
    numbers = rows["orders"][-1].numbers
    assert numbers["up"] == 1
    assert numbers["connections_total"] >= 1
    assert numbers["connections_usable"] > 100
    node = await the_node(store)
    assert (node.ok, node.collector, node.problem) == (True, "w1", "")
    assert node.detail["role"] == "primary"
    assert node.numbers["replicas_missing"] == 0


async def test_a_database_that_is_not_monitored_is_left_alone(store: Store, server: Server) -> None:
    async with collecting(store, database("users", server.dsn()), orders(server.dsn())):
        rows = await until(store, lambda rows: len(rows.get("orders", [])) >= 2)
    assert "users" not in rows


async def test_one_that_hangs_delays_no_other(store: Store, server: Server) -> None:
    async with gate_to(server.port, Stands.MUTE) as gate:
        others = [orders(server.dsn(), f"good{number}") for number in range(3)]
        stuck = [orders(through(gate, server), f"stuck{number}") for number in range(5)]
        async with collecting(store, *stuck, *others):
            rows = await until(store, lambda rows: up(rows.get("stuck0", [])) == [0.0] * 2)
    for name in ("good0", "good1", "good2"):
        gaps = gaps_of(rows[name])
        assert len(gaps) >= 3
        assert usual(gaps) < timedelta(seconds=2)  # the five that hang take five together
    node = await the_node(store, "stuck1")
    assert (node.ok, node.problem) == (False, "stuck1 does not answer within 1 s.")


async def test_a_node_that_hangs_is_stored_beside_its_primary(store: Store, server: Server) -> None:
    async with gate_to(server.port, Stands.MUTE) as gate:
        west = Node(name="west", dsn=SecretStr(through(gate, server)), region="us-west-2")
        cluster = replace(orders(server.dsn()), replicas=(west,), region="eu-1")
        async with collecting(store, cluster):
            rows = await until(store, lambda rows: len(rows.get("west", [])) >= 2)
    assert set(up(rows["west"])) == {0.0}
    assert set(up(rows["orders"])) == {1.0}
    assert (await the_node(store, "west")).region == "us-west-2"
    primary = await the_node(store)
    assert (primary.region, primary.numbers["replicas_missing"]) == ("eu-1", 1)


async def test_a_database_that_is_down_at_first_is_seen_when_it_comes(
    store: Store, server: Server
) -> None:
    async with gate_to(server.port, Stands.SHUT) as gate:
        dead = orders(through(gate, server))
        async with collecting(store, dead):
            await until(store, lambda rows: up(rows.get("orders", []))[:2] == [0.0, 0.0])
            assert (await the_node(store)).seen_at is None
            await gate.set(Stands.OPEN)
            await until(store, lambda rows: 1.0 in up(rows["orders"]))
            await gate.set(Stands.SHUT)
            await until(store, lambda rows: up(rows["orders"])[-2:] == [0.0, 0.0])
            down = await the_node(store)
            await gate.set(Stands.OPEN)
            await until(store, lambda rows: up(rows["orders"])[-1] == 1.0)
    assert down.detail["role"] == "primary"
    assert down.seen_at is not None
    assert down.seen_at < down.at


async def test_a_dead_server_is_not_asked_each_time_but_told_each_time(
    store: Store, server: Server
) -> None:
    async with gate_to(server.port, Stands.SHUT) as gate:
        dead = orders(through(gate, server))
        async with collecting(store, dead):
            await until(store, lambda rows: len(rows.get("orders", [])) >= 12)
            await gate.set(Stands.OPEN)
            # By now it waits for several rounds: the gate is open, and nobody comes at once.
            assert gate.connections == 0
            rows = await until(store, lambda rows: up(rows["orders"])[-1] == 1.0)
    gaps = gaps_of(rows["orders"])
    assert usual(gaps) < timedelta(seconds=0.8)


async def test_while_the_store_is_away_looks_wait_for_it(store: Store, server: Server) -> None:
    name = name_of(store)
    async with gate_to(server.port) as gate:
        theirs = connect(through(gate, server, name))
        try:
            async with collecting(theirs, orders(server.dsn())):
                await until(store, lambda rows: len(rows.get("orders", [])) >= 2)
                before = now()
                await gate.set(Stands.SHUT)
                await asyncio.sleep(6 * EVERY)
                await gate.set(Stands.OPEN)
                after = now()
                rows = await until(store, lambda rows: rows["orders"][-1].at > after)
        finally:
            await theirs.close()
    missed = [row for row in rows["orders"] if before < row.at < after]
    assert len(missed) >= 2
    assert max(gaps_of(rows["orders"])) < after - before


async def test_a_store_that_hangs_crashes_nothing(store: Store, server: Server) -> None:
    name = name_of(store)
    async with gate_to(server.port) as gate:
        theirs = connect(through(gate, server, name))
        try:
            async with collecting(theirs, orders(server.dsn())):
                await until(store, lambda rows: len(rows.get("orders", [])) >= 2)
                await gate.set(Stands.MUTE)
                await asyncio.sleep(3)
                await gate.set(Stands.OPEN)
                after = now()
                await until(store, lambda rows: rows["orders"][-1].at > after, seconds=30)
        finally:
            await theirs.close()


async def test_two_workers_store_each_look_once(store: Store, server: Server) -> None:
    second = connect(store.dsn)
    opened: dict[str, set[str]] = {}

    def opener_of(worker: str) -> Opener:
        def opener(place: NodePlace, earlier: Mapping[str, Any] | None) -> Eye:
            opened.setdefault(place.name, set()).add(worker)
            return open_node(place, earlier)

        return opener

    try:
        databases = [orders(server.dsn(), f"db{number}") for number in range(4)]
        async with (
            collecting(store, *databases, worker="w1", opener=opener_of("w1")),
            collecting(second, *databases, worker="w2", opener=opener_of("w2")),
        ):
            await until(store, lambda rows: len(rows.get("db3", [])) >= 8)
    finally:
        await second.close()
    assert [len(workers) for workers in opened.values()] == [1] * 4


async def test_a_killed_worker_is_taken_over_from(
    bench: Bench, nursery: Nursery, server: Server
) -> None:
    bench.every = EVERY
    bench.names = ("orders",)
    pid = nursery.start(bench)
    # The lease of a real worker is tried every five seconds.
    await until(bench.store, lambda rows: len(rows.get("orders", [])) >= 2, seconds=30)
    killed = await the_node(bench.store)
    async with collecting(bench.store, orders(server.dsn()), worker="w2"):
        nursery.kill(pid)
        at = now()
        rows = await until(bench.store, lambda rows: rows["orders"][-1].at > at)
    assert (await the_node(bench.store)).collector == "w2" != killed.collector
    gaps = gaps_of(rows["orders"])
    assert max(gaps) < timedelta(seconds=20)


async def test_nodes_that_left_the_inventory_are_forgotten(store: Store, server: Server) -> None:
    start = now()
    gone = NodeRow(database="users", node="users", at=start, ok=True)
    async with store.begin() as conn:
        await record(conn, [gone])
    times = [start]
    made = Collecting(
        store=store,
        databases={"orders": orders(server.dsn())},
        worker="w1",
        clock=lambda: times[-1],
        pace=QUICK,
    )
    await made.keep_house()
    assert (await the_node(store, "users")).node == "users"  # it has only just begun
    times.append(start + FORGOTTEN_AFTER + timedelta(minutes=1))
    await made.keep_house()
    async with store.begin() as conn:
        assert await nodes_of(conn) == []


async def test_samples_are_rolled_up_by_the_clock(store: Store, server: Server) -> None:
    early = NodeRow(database="orders", node="orders", at=now(), ok=True, numbers={"up": 1})
    async with store.begin() as conn:
        await record(conn, [early])
    async with collecting(store, orders(server.dsn())):
        async with asyncio.timeout(30):
            while await _widths(store) != {"5m", "1h", "1d"}:
                await asyncio.sleep(0.05)


async def _widths(store: Store) -> set[str]:
    async with store.begin() as conn:
        return set((await conn.execute(sa.text("SELECT DISTINCT width FROM rollups"))).scalars())


async def test_a_hundred_looks_are_spread_over_the_interval() -> None:
    shares = sorted(share_of(f"db{number}") for number in range(100))
    gaps = [later - earlier for earlier, later in pairwise(shares)]
    assert shares[0] < 0.1
    assert shares[-1] > 0.9
    assert max(gaps) < 0.1
    assert [share_of("orders")] * 2 == [share_of("orders"), share_of("orders")]


async def test_the_next_look_is_never_at_once() -> None:
    loop = asyncio.get_running_loop()
    moments = []
    for _ in range(3):
        await until_next(0.4, 0.25)
        moments.append(loop.time() % 0.4)
    assert all(0.09 < moment < 0.35 for moment in moments)


@pytest.fixture
async def leases(store: Store) -> AsyncIterator[Leases]:
    made = Leases(store, name="test", remember=timedelta(seconds=60))
    yield made
    made.close()


TERMINATE = sa.text("""
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE application_name = 'archives:test' AND datname = current_database()
""")


async def test_a_remembered_lease_is_lost_with_its_session(
    store: Store, leases: Leases, server: Server
) -> None:
    assert await leases.take("a") is Lease.OURS
    assert await leases.take("b") is Lease.OURS
    owner = connect(store.dsn, role="postgres")
    try:
        async with owner.begin() as conn:
            assert (await conn.execute(TERMINATE)).scalar_one() == 1
    finally:
        await owner.close()
    async with asyncio.timeout(30):
        while await leases.take("a") is not Lease.UNKNOWN:
            await asyncio.sleep(0.01)


async def test_a_dead_store_is_not_waited_for_by_each(server: Server, store: Store) -> None:
    async with gate_to(server.port, Stands.SHUT) as gate:
        theirs = connect(through(gate, server))
        leases = Leases(theirs, name="test", remember=timedelta(seconds=60))
        try:
            assert await leases.take("a") is Lease.UNKNOWN
            await gate.set(Stands.OPEN)
            assert [await leases.take(name) for name in "bcd"] == [Lease.UNKNOWN] * 3
            assert gate.connections == 0
        finally:
            leases.close()
            await theirs.close()
