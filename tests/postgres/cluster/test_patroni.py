"""Faults of a real Patroni cluster, and what the adapter says of them."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from pydantic import SecretStr

from postgres.cluster.patroni import PatroniCluster
from postgres.cluster.words import ClusterSeen, Outcome
from postgres.errors import PostgresError
from sandbox.ha import PatroniSandbox
from sandbox.ha_processes import thaw_all

pytestmark = [
    pytest.mark.needs("patroni", "etcd"),
    pytest.mark.chaos,
    pytest.mark.timeout(180),
]
LIMIT = timedelta(seconds=90)
_WRITE = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 99999))::text"


async def quiet(text: str) -> None:
    """Nobody listens."""


def adapter(patroni: PatroniSandbox, *, look_limit: timedelta) -> PatroniCluster:
    return PatroniCluster(
        patroni.specs,
        user=patroni.rest_user,
        password=SecretStr(patroni.rest_password),
        clock=lambda: datetime.now(UTC),
        look_limit=look_limit,
    )


@pytest.fixture
async def cluster(patroni: PatroniSandbox) -> AsyncIterator[PatroniCluster]:
    made = adapter(patroni, look_limit=timedelta(seconds=10))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def hasty(patroni: PatroniSandbox) -> AsyncIterator[PatroniCluster]:
    """Gives up early on what hangs, where that is the point."""
    made = adapter(patroni, look_limit=timedelta(seconds=1))
    try:
        yield made
    finally:
        await made.close()


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a fact; the machine may be busy."""
    async with asyncio.timeout(60):
        while not await happened():
            await asyncio.sleep(0.1)


async def seen_when(
    cluster: PatroniCluster, happened: Callable[[ClusterSeen], bool]
) -> ClusterSeen:
    """The first look at which it has happened."""
    async with asyncio.timeout(60):
        while not happened(seen := await cluster.look()):
            await asyncio.sleep(0.1)
    return seen


async def roles(patroni: PatroniSandbox) -> tuple[str, str]:
    """The primary and the standby."""
    primary = await patroni.primary()
    return primary, patroni.others(primary)[0]


async def freeze_receiver(patroni: PatroniSandbox, name: str) -> int:
    """Have a standby receive nothing, though it runs on; the process to let go on later."""
    pid = await patroni.query(name, "SELECT pid FROM pg_stat_wal_receiver")
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    return pid


async def end_leader_lease(patroni: PatroniSandbox) -> None:
    """What happens by itself when the time to live is over, 20 s after a host was lost.

    The lease, not the key: with its lease alive an old leader writes the key anew.
    """
    key = base64.b64encode(b"/service/sandbox/leader").decode()
    async with aiohttp.ClientSession(patroni.etcd.url) as session:
        async with session.post("/v3/kv/range", json={"key": key}) as response:
            (found,) = (await response.json())["kvs"]
        async with session.post("/v3/lease/revoke", json={"ID": found["lease"]}) as response:
            assert response.status == 200


async def test_a_healthy_cluster_is_told_by_its_servers_and_its_agents(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    seen = await cluster.look()
    assert seen.primary is not None
    assert seen.primary.name == await patroni.primary()
    assert seen.agent is not None
    assert (seen.agent.problem, seen.agent.leader) == ("", seen.primary.name)
    assert {member.name for member in seen.agent.members} == set(patroni.names)
    assert dict(seen.agent.silent) == {}
    assert seen.agent.settings["ttl"] == "20"
    assert seen.agent.dcs_age is not None
    assert seen.agent.dcs_age < 60
    stored = await cluster.settings()
    assert stored["members"] == "pg1, pg2"
    assert stored["postgresql.parameters.wal_retrieve_retry_interval"] == "500ms"


async def test_maintenance_and_a_time_that_is_too_short_are_seen(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    await patroni.rest("pg1").send("PATCH", "/config", {"pause": True, "retry_timeout": 2})
    seen = await seen_when(cluster, lambda seen: bool(seen.agent and seen.agent.is_paused))
    assert seen.agent is not None
    if patroni.programs.version >= (3, 2):
        assert seen.agent.settings["retry_timeout"] == "3"
        assert seen.agent.settings["asked.retry_timeout"] == "2"
    else:
        assert seen.agent.settings["retry_timeout"] == "2"
        assert "asked.retry_timeout" not in seen.agent.settings


async def test_a_scheduled_switchover_is_seen(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    plan = {"leader": primary, "candidate": standby, "scheduled_at": "2099-01-01T00:00:00+00:00"}
    assert (await patroni.rest(primary).send("POST", "/switchover", plan))[0] == 202
    agent = (await cluster.look()).agent
    assert agent is not None
    assert agent.scheduled == (
        f"switchover at 2099-01-01T00:00:00+00:00 from {primary} to {standby}"
    )


async def test_a_lost_agent_of_a_standby_is_told_and_its_node_cannot_take_over(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    patroni.kill_agent(standby)
    seen = await cluster.look()
    assert seen.agent is not None
    assert seen.agent.problem == ""
    assert dict(seen.agent.silent) == {standby: "connection refused"}
    with pytest.raises(PostgresError) as caught:
        await cluster.switch(leader=primary, candidate=standby, limit=LIMIT, tell=quiet)
    assert "no good candidates" in caught.value.problem
    assert f"agents may not reach {standby}'s REST API" in caught.value.problem
    assert await patroni.primary() == primary
    await cluster.rejoin(standby, primary=primary, limit=LIMIT, tell=quiet)
    await seen_when(cluster, lambda seen: bool(seen.agent and not seen.agent.silent))


async def test_without_any_agent_the_servers_are_still_seen_and_nothing_is_changed(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    for name in patroni.names:
        patroni.kill_agent(name)
    seen = await cluster.look()
    assert seen.agent is not None
    assert "No Patroni answers for the cluster (pg1: connection refused" in seen.agent.problem
    assert seen.primary is not None
    assert seen.primary.name == primary
    with pytest.raises(PostgresError, match="No Patroni answers for the cluster"):
        await cluster.switch(leader=primary, candidate=standby, limit=LIMIT, tell=quiet)
    assert await patroni.primary() == primary


async def test_a_candidate_that_is_too_far_behind_changes_nothing(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    await patroni.rest(primary).send("PATCH", "/config", {"maximum_lag_on_failover": 1000})
    frozen = await freeze_receiver(patroni, standby)
    try:
        await patroni.query(primary, _WRITE)
        await seen_when(
            cluster,
            lambda seen: any(
                (member.lag or 0) > 50_000 for member in (seen.agent.members if seen.agent else ())
            ),
        )
        found = await cluster.switch(leader=primary, candidate=standby, limit=LIMIT, tell=quiet)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert (found.outcome, found.primary) == (Outcome.NOTHING, primary)
    assert found.said == "Switchover failed"


async def test_while_a_frozen_standby_holds_up_the_shutdown_nobody_is_called_the_primary(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    frozen = await freeze_receiver(patroni, standby)
    try:
        short = timedelta(seconds=3)
        found = await cluster.switch(leader=primary, candidate=standby, limit=short, tell=quiet)
        assert (found.outcome, found.primary) == (Outcome.UNKNOWN, "")
        assert "No server takes writes" in found.next_step
    finally:
        os.kill(frozen, signal.SIGCONT)
    # Nobody asks again: what was unknown completes by itself.
    await seen_when(cluster, lambda seen: bool(seen.primary and seen.primary.name == standby))
    await cluster.rejoin(primary, primary=standby, limit=LIMIT, tell=quiet)


async def test_a_candidate_that_dies_on_the_way_leaves_one_primary(
    patroni: PatroniSandbox, cluster: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)

    async def lose() -> None:
        await until(lambda: _takes_no_writes(patroni))
        patroni.kill_host(standby)

    losing = asyncio.create_task(lose())
    found = await cluster.switch(leader=primary, candidate=standby, limit=LIMIT, tell=quiet)
    await losing
    # With nobody else to take over, the old primary is promoted again.
    assert (found.outcome, found.primary) == (Outcome.NOTHING, primary)
    assert f"{standby} does not answer" in found.next_step


async def _takes_no_writes(patroni: PatroniSandbox) -> bool:
    return await patroni.writable() == ()


async def test_in_failsafe_mode_a_lost_dcs_leaves_the_primary_and_is_told(
    patroni: PatroniSandbox, hasty: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    patroni.etcd.kill()
    seen = await seen_when(hasty, lambda seen: bool(seen.agent and seen.agent.is_failsafe_active))
    assert seen.agent is not None
    assert "its DCS may be down" in seen.agent.problem
    assert "failsafe mode keeps the primary" in seen.agent.problem
    assert seen.primary is not None
    assert seen.primary.name == primary
    with pytest.raises(PostgresError, match="No Patroni answers for the cluster"):
        await hasty.switch(leader=primary, candidate=standby, limit=LIMIT, tell=quiet)
    assert await patroni.primary() == primary


async def test_without_failsafe_mode_a_lost_dcs_costs_the_primary_and_is_told(
    patroni: PatroniSandbox, hasty: PatroniCluster
) -> None:
    primary, _ = await roles(patroni)
    await patroni.rest(primary).send("PATCH", "/config", {"failsafe_mode": False})
    await loops(patroni, primary)
    patroni.etcd.kill()
    seen = await seen_when(hasty, lambda seen: not seen.writable)
    assert seen.agent is not None
    assert "its DCS may be down" in seen.agent.problem
    assert not seen.agent.is_failsafe_active


async def loops(patroni: PatroniSandbox, name: str) -> None:
    """Wait until an agent has read the DCS anew, from beginning to end of a loop."""
    before = (await patroni.rest(name).get("/patroni"))["dcs_last_seen"]

    async def has_read() -> bool:
        return bool((await patroni.rest(name).get("/patroni"))["dcs_last_seen"] > before + 1)

    await until(has_read)


async def test_an_old_primary_that_wakes_up_after_a_promotion_is_seen_as_the_second(
    patroni: PatroniSandbox, hasty: PatroniCluster
) -> None:
    primary, standby = await roles(patroni)
    patroni.freeze(primary)

    async def tell(text: str) -> None:
        await end_leader_lease(patroni)

    found = await hasty.fail_over(leader=primary, candidate=standby, limit=LIMIT, tell=tell)
    assert (found.outcome, found.primary) == (Outcome.DONE, standby)
    assert f"keep applications away from it until it follows {standby}" in found.next_step
    thaw_all([patroni.data(primary)])  # its agent sleeps on, and cannot stop it
    seen = await seen_when(hasty, lambda seen: len(seen.writable) == 2)
    assert seen.primary is None
    with pytest.raises(PostgresError, match="More than one server takes writes"):
        await hasty.switch(leader=standby, candidate=primary, limit=LIMIT, tell=quiet)
    patroni.thaw(primary)
    # Which of them stays is Patroni's to say: an old leader whose lease lives takes it back.
    await patroni.healthy()
    assert len(await patroni.writable()) == 1
