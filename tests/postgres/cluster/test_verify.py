"""What proves that applications can write, on a real pair."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postgres.cluster.verify import DRILL_SCHEMA, verify
from postgres.cluster.words import NodeSpec
from postgres.connect import connection
from postgres.dsn import Target
from postgres.ports import free_port
from sandbox.ha import PairSandbox

LIMIT = timedelta(seconds=30)
SHORT = timedelta(seconds=1)


def clock() -> datetime:
    return datetime.now(UTC)


async def roles(pair: PairSandbox) -> tuple[NodeSpec, NodeSpec]:
    primary = await pair.primary()
    first, second = pair.specs
    return (first, second) if first.name == primary else (second, first)


async def sql(target: Target, *statements: str) -> Any:
    async with connection(target) as conn:
        for statement in statements:
            await conn.execute(statement)
        return await conn.fetch(f"SELECT id FROM {DRILL_SCHEMA}.proofs")


@pytest.fixture
async def nodes(pair: PairSandbox) -> tuple[NodeSpec, NodeSpec]:
    primary, standby = await roles(pair)
    async with connection(primary.target) as conn:
        if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'verifier'"):
            await conn.execute("CREATE ROLE verifier LOGIN PASSWORD 'word'")
    return primary, standby


def with_user(target: Target, user: str, password: str) -> Target:
    return Target(words={**target.words, "user": user, "password": password})


async def test_the_applications_role_writes_through_its_endpoint_and_all_have_it(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, _ = nodes
    found = await verify(
        nodes,
        primary=primary.name,
        endpoint=with_user(primary.target, "verifier", "word"),
        key="run-1",
        limit=LIMIT,
        clock=clock,
    )
    assert found.is_proven, found
    assert (found.server, found.tries, found.behind) == (primary.name, 3, ())
    assert "the application's endpoint" in found.found
    assert await sql(primary.target) == []  # nothing stays


async def test_without_an_endpoint_it_proves_less_and_says_so(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, _ = nodes
    found = await verify(
        nodes, primary=primary.name, endpoint=None, key="run-1", limit=LIMIT, clock=clock
    )
    assert found.is_proven
    assert "its own address alone" in found.found


async def test_an_endpoint_that_leads_to_the_standby_proves_nothing(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, standby = nodes
    found = await verify(
        nodes, primary=primary.name, endpoint=standby.target, key="run-1", limit=SHORT, clock=clock
    )
    assert not found.is_proven
    assert "read-only" in found.found
    assert found.next_step


async def test_an_endpoint_that_nobody_answers_on_is_said(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, _ = nodes
    away = Target(words={**primary.target.words, "port": str(free_port())})
    found = await verify(
        nodes, primary=primary.name, endpoint=away, key="run-1", limit=SHORT, clock=clock
    )
    assert not found.is_proven
    assert "Through the application's endpoint" in found.found


async def test_one_that_accepts_and_says_nothing_costs_the_limit(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, _ = nodes
    with socket.create_server(("127.0.0.1", free_port())) as mute:
        port = str(mute.getsockname()[1])
        deaf = Target(words={**primary.target.words, "port": port, "sslmode": "disable"})
        found = await verify(
            nodes, primary=primary.name, endpoint=deaf, key="run-1", limit=SHORT, clock=clock
        )
    assert not found.is_proven
    assert "no answer in time" in found.found


async def test_it_must_be_the_one_that_should_be_the_primary(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, standby = nodes
    found = await verify(
        nodes, primary=standby.name, endpoint=None, key="run-1", limit=SHORT, clock=clock
    )
    assert not found.is_proven
    assert f"{primary.name} takes writes, and not {standby.name} alone" in found.found


async def test_a_standby_that_does_not_show_the_row_is_named(
    nodes: tuple[NodeSpec, NodeSpec],
) -> None:
    primary, standby = nodes
    async with connection(standby.target) as conn:
        await conn.execute("SELECT pg_wal_replay_pause()")
        try:
            found = await verify(
                nodes, primary=primary.name, endpoint=None, key="run-1", limit=SHORT, clock=clock
            )
        finally:
            await conn.execute("SELECT pg_wal_replay_resume()")
    assert not found.is_proven
    assert found.behind == (standby.name,)
    assert f"Not yet on {standby.name}" in found.found
