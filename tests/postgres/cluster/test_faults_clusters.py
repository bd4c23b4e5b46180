"""Disasters on purpose on real clusters, and what a look before one refuses."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import pytest

from postgres.cluster.checks import Limits, Preflight
from postgres.cluster.faults import Fault, inject, is_in_force, lift
from postgres.cluster.fence import prove_fence
from postgres.cluster.preflight import switch_preflight
from postgres.cluster.words import ClusterKind
from postgres.errors import PostgresError
from sandbox.ha import PairSandbox, PatroniSandbox
from tests.postgres.cluster.fault_machine import state
from tests.postgres.cluster.pair_support import cluster_of, roles, send, until

LIMIT = timedelta(seconds=60)
ONE = timedelta(seconds=1)
LIMITS = Limits(lag_bytes=64 * 1024, lag=ONE, reply_age=ONE, transaction_age=LIMIT)
MEGABYTE = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000000))::text"
real = pytest.mark.needs("patroni", "etcd")
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


async def test_a_pairs_primary_is_killed_and_comes_back_as_one(pair: PairSandbox) -> None:
    old, _ = await roles(pair)
    node, pid = pair.spec(old), pair.server_pid(old)
    assert await is_in_force(node, Fault.SERVER) is False
    said = await inject(node, Fault.SERVER, limit=LIMIT)
    assert re.fullmatch(rf"killed the server \(process {pid} and \d+ others\)", said)
    assert pair.host_pids(old) == ()
    assert await is_in_force(node, Fault.SERVER) is True
    assert (await prove_fence(node)).is_proven
    with pytest.raises(PostgresError, match=r"no process of the server lives\. Nothing happened"):
        await inject(node, Fault.HOST, limit=LIMIT)
    for _ in range(2):  # the second time it lives already
        await lift(node, Fault.SERVER, kind=ClusterKind.PAIR, limit=LIMIT)
        assert await is_in_force(node, Fault.SERVER) is False
    await until(lambda: _writes(pair, old))


async def test_a_pairs_standby_comes_back_as_one(pair: PairSandbox) -> None:
    old, standby = await roles(pair)
    node = pair.spec(standby)
    await inject(node, Fault.HOST, limit=LIMIT)
    assert await is_in_force(node, Fault.HOST) is True
    await lift(node, Fault.HOST, kind=ClusterKind.PAIR, limit=LIMIT)
    await until(lambda: pair.follows(standby, old))
    assert await pair.writable() == (old,)


@real
async def test_patroni_replaces_a_primary_whose_server_dies_and_keeps_its_agent(
    patroni: PatroniSandbox,
) -> None:
    old, new = await roles(patroni)
    agent, pid = patroni.agent_pid(old), patroni.server_pid(old)
    said = await inject(patroni.spec(old), Fault.SERVER, limit=LIMIT)
    assert re.fullmatch(rf"killed the server \(process {pid} and \d+ others\)", said)
    assert patroni.agent_pid(old) == agent
    assert state(agent or 0) not in {"T", "Z", ""}
    await until(lambda: _writes(patroni, new))


@real
async def test_a_lost_host_of_patroni_is_lost_whole_and_taken_back(
    patroni: PatroniSandbox,
) -> None:
    old, _ = await roles(patroni)
    node, agent, pid = patroni.spec(old), patroni.agent_pid(old), patroni.server_pid(old)
    said = await inject(node, Fault.HOST, limit=LIMIT)
    expected = rf"killed the server \(process {pid} and \d+ others\) and its agent "
    assert re.fullmatch(rf"{expected}\(process {agent}\)", said)
    assert patroni.host_pids(old) == ()
    assert await is_in_force(node, Fault.HOST) is True
    await lift(node, Fault.HOST, kind=ClusterKind.PATRONI, limit=LIMIT)
    assert await is_in_force(node, Fault.HOST) is False


@real
async def test_a_server_whose_agent_is_dead_is_left_alone(patroni: PatroniSandbox) -> None:
    _, standby = await roles(patroni)
    pid = patroni.server_pid(standby)
    patroni.kill_agent(standby)
    for fault in (Fault.SERVER, Fault.HOST):
        with pytest.raises(PostgresError) as caught:
            await inject(patroni.spec(standby), fault, limit=LIMIT)
        assert "its agent does not run" in caught.value.problem
        assert caught.value.problem.endswith("Nothing happened.")
    assert patroni.server_pid(standby) == pid


async def test_a_standby_that_does_not_stream_stops_it(pair: PairSandbox) -> None:
    old, standby = await roles(pair)
    async with _cut_off(pair, old):
        failed = await _failed(pair, lambda found: "Every standby streams" in found)
    assert {"Candidate streams", "Every standby streams"} <= failed
    await until(lambda: pair.follows(standby, old))


async def test_a_standby_that_replays_too_late_stops_it(pair: PairSandbox) -> None:
    old, standby = await roles(pair)
    startup = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"
    with _frozen(await pair.query(standby, startup)):
        await pair.query(old, MEGABYTE)
        expected = {"Candidate's lag in bytes", "Candidate's lag in time"}
        failed = await _failed(pair, lambda found: expected <= found)
    assert "Candidate replays" not in failed  # that is for a pause by hand


async def test_a_frozen_walsender_stops_it_though_its_lag_says_all_is_well(
    pair: PairSandbox,
) -> None:
    old, standby = await roles(pair)
    with _frozen(await pair.query(old, "SELECT pid FROM pg_stat_replication")):
        await pair.query(old, MEGABYTE)
        expected = {"Standbys answer the primary", "Nobody holds up the shutdown"}
        failed = await _failed(pair, lambda found: expected <= found)
        lag = await pair.query(
            old, "SELECT coalesce(extract(epoch FROM replay_lag), 0) FROM pg_stat_replication"
        )
    assert expected <= failed
    assert float(str(lag)) < 1
    await until(lambda: pair.follows(standby, old))


async def _writes(sandbox: PairSandbox | PatroniSandbox, name: str) -> bool:
    return await sandbox.writable() == (name,)


async def _failed(pair: PairSandbox, is_enough: Callable[[set[str]], bool]) -> set[str]:
    """What stops a switchover, as soon as it is enough."""
    cluster = cluster_of(pair)
    found: set[str] = set()

    async def is_seen() -> bool:
        checked: Preflight = switch_preflight(await cluster.look(), LIMITS)
        found.clear()
        found.update(each.name for each in checked.failed)
        return is_enough(found)

    try:
        await until(is_seen)
    finally:
        await cluster.close()
    return found


@contextmanager
def _frozen(pid: object) -> Iterator[None]:
    """A process that is stopped meanwhile."""
    send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pid, signal.SIGCONT)


@asynccontextmanager
async def _cut_off(pair: PairSandbox, primary: str) -> AsyncIterator[None]:
    """No standby may connect meanwhile."""
    await pair.query(primary, "ALTER ROLE replicator NOLOGIN")
    try:
        await pair.query(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        yield
    finally:
        await pair.query(primary, "ALTER ROLE replicator LOGIN")
