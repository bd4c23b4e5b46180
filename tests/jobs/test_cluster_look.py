"""One look at a cluster in each round: stored beside the servers' rows, whatever they say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from jobs import cluster_look
from jobs.cluster_look import cluster_watch
from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.collect_database import DatabaseWatch, Tools, names_of
from jobs.collecting import Collecting
from jobs.operation import Database
from postgres.cluster.words import ClusterKind, NodeSeen, NodeSpec
from postgres.errors import PostgresError
from store.connect import Store
from store.samples import FORGOTTEN_AFTER, NodeRow, nodes_of, record
from tests.jobs.cluster_pictures import away, clustered, primary, promoted, standby
from tests.jobs.support import database
from tests.jobs.test_collect_database import World

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDERS = clustered(database("orders", "postgresql://nowhere", every=30))


@dataclass(slots=True)
class Looker:
    """Sees what it was told to see; the last picture again and again."""

    pictures: list[tuple[NodeSeen, ...]]
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def __call__(
        self, nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], limit: timedelta
    ) -> tuple[NodeSeen, ...]:
        assert (clock(), limit) == (NOON, timedelta(seconds=3))
        self.asked.append(tuple(f"{each.name} {each.target.place}" for each in nodes))
        return self.pictures.pop(0) if len(self.pictures) > 1 else self.pictures[0]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look comes at once."""
    monkeypatch.setattr(cluster_look, "AGAIN_AFTER", timedelta(0))


async def seen(looker: Looker) -> tuple[NodeSeen, ...]:
    watch = cluster_watch(ORDERS, clock=lambda: NOON, look=looker)
    assert watch is not None
    return await watch.look()


async def test_a_cluster_is_looked_at_once() -> None:
    looker = Looker([(primary(), standby())])
    await seen(looker)
    assert looker.asked == [("east east.example:5432", "west west.example:5432")]


@pytest.mark.usefixtures("soon")
async def test_two_that_take_writes_are_believed_when_a_second_look_agrees() -> None:
    split, switched = (primary(), promoted()), (standby("east"), promoted())
    looker = Looker([split, switched])
    assert await seen(looker) == switched
    looker = Looker([split])
    assert await seen(looker) == split
    assert len(looker.asked) == 2


async def test_one_server_under_two_names_needs_no_second_look() -> None:
    looker = Looker([(primary(), primary("west", started_at=primary().started_at))])
    await seen(looker)
    assert len(looker.asked) == 1


def test_a_database_that_names_no_servers_has_no_watch() -> None:
    assert cluster_watch(replace(ORDERS, cluster=None), clock=lambda: NOON, look=Looker([])) is None


def test_a_dsn_that_cannot_be_read_is_said_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes = (ClusterNode(name="east", dsn=SecretStr("host=x colour=red")),)
    bad = replace(ORDERS, cluster=ClusterSettings(kind=ClusterKind.PAIR, nodes=nodes))
    with caplog.at_level(logging.WARNING):
        assert cluster_watch(bad, clock=lambda: NOON, look=Looker([])) is None
    assert "The cluster of orders is not looked at: A connection string" in caplog.text


async def rows_after(store: Store, *pictures: tuple[NodeSeen, ...], **changes: object) -> NodeRow:
    """The cluster's row after a round of the collector for each picture."""
    world = World(store=store, orders=ORDERS)
    world.answers["orders"] = [PostgresError("It is down.", next_step="Start it.")]
    looker = Looker(list(pictures))
    watch = DatabaseWatch(
        Tools(store=store, worker="w", clock=lambda: NOON, opener=world.open, looker=looker),
        replace(ORDERS, **changes),  # type: ignore[arg-type]
    )
    await watch.look()
    await watch.close()
    async with store.begin() as conn:
        found = {row.node: row for row in await nodes_of(conn)}
    assert not found["orders"].ok
    return found["orders/cluster"]


@pytest.mark.usefixtures("soon")
async def test_what_was_seen_is_stored_also_while_the_primary_cannot_be_measured(
    store: Store,
) -> None:
    row = await rows_after(store, (primary(), promoted()))
    assert (row.ok, row.at, row.collector) == (True, NOON, "w")
    assert row.numbers == {"nodes_writable": 2, "nodes_missing": 0}
    assert row.detail["split_brain"]["nodes"] == ["east", "west"]
    assert [each["timeline"] for each in row.detail["nodes"]] == [3, 4]
    row = await _next(store)
    assert row.numbers == {"nodes_writable": 1, "nodes_missing": 1}
    assert row.detail["split_brain"] is None
    assert row.detail["nodes"][1]["problem"].startswith("connection refused by west")


async def _next(store: Store) -> NodeRow:
    later = NOON + timedelta(seconds=30)
    row = cluster_look.cluster_row(ORDERS, (primary(), away()), at=later, worker="w")
    async with store.begin() as conn:
        await record(conn, [row])
        return next(each for each in await nodes_of(conn) if each.node == row.node)


async def test_the_row_is_kept_as_long_as_the_inventory_names_the_servers(store: Store) -> None:
    begun = NOON - FORGOTTEN_AFTER
    old = cluster_look.cluster_row(ORDERS, (primary(),), at=begun - timedelta(hours=1), worker="w")
    async with store.begin() as conn:
        await record(conn, [old])
    assert names_of(ORDERS) == ["orders", "orders/cluster"]
    assert await _kept_by(store, ORDERS) == ["orders/cluster"]
    assert await _kept_by(store, replace(ORDERS, cluster=None)) == []


async def _kept_by(store: Store, known: Database) -> list[str]:
    """What is left after house keeping with this inventory."""
    times = iter([NOON - FORGOTTEN_AFTER])
    keeper = Collecting(
        store=store, databases={"orders": known}, worker="w", clock=lambda: next(times, NOON)
    )
    await keeper.keep_house()
    async with store.begin() as conn:
        return [row.node for row in await nodes_of(conn)]
