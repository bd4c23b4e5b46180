"""Where a database is now: what is asked, what is remembered, and what a silent server costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.routes import Routes
from jobs.routing import NoRouteError, refusal_of
from postgres.cluster.words import ClusterKind, NodeSeen, NodeSpec
from postgres.dsn import parse_dsn
from tests.jobs.support import clock, database
from tests.jobs.test_routing import EAST, WEST, node, seen

ORDERS = replace(
    database("orders", "postgresql://app@proxy/shop"),
    cluster=ClusterSettings(kind=ClusterKind.PAIR, nodes=(node("east", EAST), node("west", WEST))),
)
EAST_WRITES = (seen("east", "writes", 3), seen("west", "follows", 3))
WEST_WRITES = (seen("east", "gone"), seen("west", "writes", 4))
NOBODY = (seen("east", "gone"), seen("west", "follows", 3))


@dataclass
class Looker:
    """Answers in turn, the last again and again; each time once `open` is set."""

    answers: list[tuple[NodeSeen, ...]]
    asked: list[tuple[str, ...]] = field(default_factory=list)
    limits: list[timedelta] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self, nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], limit: timedelta
    ) -> tuple[NodeSeen, ...]:
        self.asked.append(tuple(each.name for each in nodes))
        self.limits.append(limit)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await self.gate.wait()
        return answer


def looking(*answers: tuple[NodeSeen, ...]) -> Looker:
    made = Looker(list(answers))
    made.gate.set()
    return made


def routes(looker: Looker, remember: float = 3600) -> Routes:
    return Routes(clock=clock, look=looker, remember=timedelta(seconds=remember))


async def host(made: Routes, *, anew: bool = False) -> str:
    found = await made.of(ORDERS, anew=anew)
    return parse_dsn(found.dsn.get_secret_value()).words["host"]


async def test_a_database_without_a_cluster_is_not_asked_about() -> None:
    looker = looking(EAST_WRITES)
    plain = replace(ORDERS, cluster=None)
    assert await routes(looker).of(plain) is plain
    assert looker.asked == []


async def test_what_was_seen_is_remembered_for_a_moment() -> None:
    looker = looking(EAST_WRITES, WEST_WRITES)
    made = routes(looker)
    assert [await host(made), await host(made)] == ["10.0.0.1", "10.0.0.1"]
    assert looker.asked == [("east", "west")]
    looker = looking(EAST_WRITES, WEST_WRITES)
    made = routes(looker, remember=0)
    assert [await host(made), await host(made)] == ["10.0.0.1", "10.0.0.2"]


async def test_a_run_asks_anew_and_so_does_who_saw_an_error() -> None:
    made = routes(looking(EAST_WRITES, WEST_WRITES))
    assert [await host(made), await host(made, anew=True)] == ["10.0.0.1", "10.0.0.2"]
    made = routes(looking(EAST_WRITES, WEST_WRITES))
    assert await host(made) == "10.0.0.1"
    made.forget("orders")
    assert await host(made) == "10.0.0.2"


async def test_a_refusal_is_not_remembered_and_ends_what_was() -> None:
    made = routes(looking(EAST_WRITES, NOBODY, WEST_WRITES))
    assert await host(made) == "10.0.0.1"
    refused = await made.of(ORDERS, anew=True)
    refusal = refusal_of(refused)
    assert refusal is not None
    assert "No server of orders takes writes" in refusal.problem
    assert await host(made) == "10.0.0.2"


async def test_an_old_primary_that_answers_alone_is_not_followed_back() -> None:
    old = (seen("east", "writes", 3), seen("west", "gone"))
    made = routes(looking(WEST_WRITES, old))
    assert await host(made) == "10.0.0.2"
    with pytest.raises(NoRouteError, match="this cluster has been seen on 4"):
        await host(made, anew=True)


async def test_many_who_ask_at_once_share_one_look_and_who_gives_up_stops_nobody() -> None:
    looker = Looker([EAST_WRITES])
    made = routes(looker)
    hasty = asyncio.create_task(host(made))
    patient = [asyncio.create_task(host(made)) for _ in range(5)]
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.gather(hasty, return_exceptions=True)
    looker.gate.set()
    assert await asyncio.gather(*patient) == ["10.0.0.1"] * 5
    assert len(looker.asked) == 1


async def test_a_changed_inventory_is_another_database() -> None:
    looker = looking(EAST_WRITES)
    made = routes(looker)
    await made.of(ORDERS)
    await made.of(replace(ORDERS, dsn=SecretStr("postgresql://other@proxy/shop")))
    assert len(looker.asked) == 2


async def test_a_dsn_that_cannot_be_read_leads_nowhere() -> None:
    odd = ClusterNode(name="east", dsn=SecretStr("host=x colour=red"))
    bad = replace(ORDERS, cluster=ClusterSettings(kind=ClusterKind.PAIR, nodes=(odd,)))
    looker = looking(EAST_WRITES)
    refusal = refusal_of(await routes(looker).of(bad))
    assert refusal is not None
    assert "connection string cannot be understood" in refusal.problem
    assert looker.asked == []


async def test_what_leads_nowhere_says_what_was_seen() -> None:
    route = await routes(looking(NOBODY)).route(ORDERS, limit=timedelta(seconds=0.5))
    assert [each.name for each in route.nodes] == ["east", "west"]
    assert route.refusal is not None
