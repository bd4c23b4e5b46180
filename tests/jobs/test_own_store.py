"""A drill is never held on the cluster that its own record lives on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.operation import JobError
from jobs.own_store import (
    Shared,
    Sharing,
    objection_of,
    refuse_shared_store,
    shares_store,
    sharing_of,
)
from postgres.cluster.words import NodeSeen, NodeSpec
from postgres.dsn import parse_dsn
from store.connect import Store, connect
from tests.conftest import Target

ONE = NodeSeen(name="pg1", region="", system_identifier="7001")
TWO = NodeSeen(name="pg2", region="", system_identifier="7001")
SILENT = NodeSeen(name="pg3", region="", problem="no answer within 5 s")
HIDDEN = NodeSeen(name="pg4", region="")


@pytest.mark.parametrize(
    ("store", "nodes", "shared"),
    [
        ("7001", [ONE, TWO], Shared.YES),
        ("7002", [ONE, TWO], Shared.NO),
        ("7001", [SILENT, TWO], Shared.YES),
        ("7002", [ONE, SILENT], Shared.UNKNOWN),  # the inventory may name any server
        ("7002", [ONE, HIDDEN], Shared.UNKNOWN),
        ("", [ONE, TWO], Shared.UNKNOWN),
        ("", [HIDDEN], Shared.UNKNOWN),  # two that tell nothing are not equal
        ("7002", [], Shared.UNKNOWN),
    ],
)
def test_what_the_servers_say_decides(store: str, nodes: list[NodeSeen], shared: Shared) -> None:
    found = sharing_of(store, "no answer", nodes)
    assert found.shared is shared
    assert bool(found.why) is (shared is Shared.UNKNOWN)


def test_the_silent_are_named() -> None:
    why = sharing_of("7002", "", [ONE, SILENT, HIDDEN]).why
    assert "pg3 (no answer within 5 s), pg4 (it keeps that to itself)" in why


@pytest.mark.parametrize(
    ("sharing", "says"),
    [
        (Sharing(shared=Shared.YES), "own store lives on the cluster of orders"),
        (Sharing(shared=Shared.UNKNOWN, why="pg3 is silent"), "cannot be told: pg3 is silent"),
    ],
)
def test_all_but_a_clear_no_refuses_a_drill(sharing: Sharing, says: str) -> None:
    objection = objection_of(sharing, "orders")
    assert objection is not None
    assert says in objection.problem
    assert objection.next_step
    assert objection_of(Sharing(shared=Shared.NO), "orders") is None


def clock() -> datetime:
    return datetime.now(UTC)


async def test_a_store_on_the_same_server_is_found_and_refused(
    store: Store, target: Target
) -> None:
    nodes = [NodeSpec(name="pg1", target=parse_dsn(target.dsn))]
    assert await shares_store(store, nodes, clock=clock) is True
    with pytest.raises(JobError, match="lives on the cluster of orders"):
        await refuse_shared_store(store, "orders", nodes, clock=clock)


async def test_a_server_or_a_store_that_is_silent_leaves_it_open(
    store: Store, target: Target
) -> None:
    node = NodeSpec(name="pg1", target=parse_dsn(target.dsn))
    nobody = replace(node, target=parse_dsn("postgresql://nobody@127.0.0.1:1/none"))
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    assert await shares_store(store, [nobody], clock=clock) is None
    assert await shares_store(away, [node], clock=clock) is None
    with pytest.raises(JobError, match="cannot be told"):
        await refuse_shared_store(away, "orders", [node], clock=clock)
