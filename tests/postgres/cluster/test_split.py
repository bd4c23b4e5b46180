"""A primary that is parted from all others, in a network of its own: never two take writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import groupby

import asyncpg
import pytest
from pydantic import SecretStr

from jobs.cluster_settings import DrillKind
from jobs.drill_words import DrillEnd, Phase
from postgres.cluster.faults import Fault, inject, is_in_force, lift
from postgres.cluster.words import ClusterKind
from postgres.health.connecting import FAILURES
from postgres.programs import run_program
from sandbox.ha import Haproxy, PatroniSandbox
from store.connect import Store
from tests.commands.test_drill import JobMaker, ask, drilled, made
from tests.commands.test_failover import prove_backup, settings

__all__ = ["made"]  # a fixture

LIMIT = timedelta(seconds=60)
TABLE = "CREATE TABLE IF NOT EXISTS split (at timestamptz, side text)"
WRITE = "INSERT INTO split VALUES (clock_timestamp(), '{side}') RETURNING inet_server_addr()"


@dataclass(slots=True, kw_only=True)
class Writes:
    """Rows that were acknowledged, by our clock.

    `inside`: when we had heard of each, which is after it was committed. `outside`: when each was
    asked for, which is before, and who took it.
    """

    inside: list[float] = field(default_factory=list)
    outside: list[tuple[float, str]] = field(default_factory=list)
    stopped: bool = False


async def write_inside(parted: PatroniSandbox, name: str, writes: Writes) -> None:
    """As an application that is cut off together with its primary."""
    host = parted.spec(name).host
    assert host
    psql = str(parted.binaries.program("psql"))
    command = (*host.via, psql, "-qAtX", "-c", WRITE.format(side="inside"), parted.dsn(name))
    while not writes.stopped:
        done = await run_program(command, time_limit=LIMIT, as_server=False)
        if done.code == 0:
            writes.inside.append(time.monotonic())
        await asyncio.sleep(0.1)


async def write_outside(endpoint: str, writes: Writes) -> None:
    """As all other applications, through HAProxy."""
    while not writes.stopped:
        try:
            conn = await asyncpg.connect(endpoint, timeout=2)
            try:
                asked = time.monotonic()
                took = await conn.fetchval(WRITE.format(side="outside"), timeout=2)
                writes.outside.append((asked, str(took)))
            finally:
                conn.terminate()
        except FAILURES:  # nobody takes it
            pass
        await asyncio.sleep(0.1)


@asynccontextmanager
async def writing(parted: PatroniSandbox, name: str, endpoint: str) -> AsyncIterator[Writes]:
    """Both sides write until the end."""
    writes = Writes()
    async with asyncio.TaskGroup() as group:
        group.create_task(write_inside(parted, name, writes))
        group.create_task(write_outside(endpoint, writes))
        try:
            yield writes
        finally:
            writes.stopped = True


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a fact: an agent that cannot reach its DCS takes 20 s until another may act."""
    async with asyncio.timeout(90):
        while not await fact():
            await asyncio.sleep(0.1)


@pytest.mark.needs("patroni", "etcd", "haproxy")
@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_primary_that_is_cut_off_steps_down_before_another_is_promoted(
    parted: PatroniSandbox,
) -> None:
    old = await parted.primary()
    (new,) = parted.others(old)
    node = parted.spec(old)
    await parted.query(old, TABLE, database=parted.database)
    await parted.query(old, "GRANT ALL ON split TO PUBLIC", database=parted.database)
    router = await Haproxy.start(parted)
    try:
        async with writing(parted, old, router.dsn()) as writes:
            await until(lambda: _both(writes))
            assert await inject(node, Fault.NETWORK, limit=LIMIT) == f"parted {old} from all others"
            cut = time.monotonic()
            assert await is_in_force(node, Fault.NETWORK) is True
            assert await is_in_force(node, Fault.HOST) is False
            await until(lambda: _took(writes, parted.address(new)))
            assert await router.leads_to() == (new,)
    finally:
        await router.close()
    # Who was cut off together with it still wrote for a few seconds: those rows are lost.
    assert any(at > cut for at in writes.inside)
    resumed = min(at for at, who in writes.outside if who == parted.address(new))
    assert max(writes.inside) < resumed
    takers = [who for _, who in writes.outside]
    assert takers == sorted(takers, key=lambda who: who == parted.address(new))
    await lift(node, Fault.NETWORK, kind=ClusterKind.PATRONI, limit=LIMIT)
    assert await is_in_force(node, Fault.NETWORK) is False
    await until(lambda: parted.follows(old, new))
    assert await parted.writable() == (new,)


@pytest.mark.needs("patroni", "etcd", "haproxy")
@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_split_is_rehearsed_and_two_never_take_writes(
    parted: PatroniSandbox, made: JobMaker, store: Store
) -> None:
    old = await parted.primary()
    (new,) = parted.others(old)
    await parted.query(old, TABLE, database=parted.database)
    await parted.query(old, "GRANT ALL ON split TO PUBLIC", database=parted.database)
    router = await Haproxy.start(parted)
    try:
        cluster = replace(
            settings(parted, ClusterKind.PATRONI),
            endpoint=SecretStr(router.dsn()),
            is_sandbox=True,
        )
        job = await made(drilled(cluster))
        await prove_backup(store, job.now)
        async with writing(parted, old, router.dsn()) as writes:
            await until(lambda: _both(writes))
            _, answer, report = await ask(job, DrillKind.NETWORK_SPLIT)
    finally:
        await router.close()
    assert report.end is DrillEnd.PASSED, report.missed
    assert answer.title == "Drill passed: network-split of orders"
    told = {each.phase: each.text for each in report.moments}
    assert told[Phase.INJECTED] == f"Parted {old} from all others"
    assert told[Phase.PROMOTED].startswith(f"{new} takes writes")
    assert await parted.writable() == (old,)
    assert await parted.follows(new, old)
    # While the other one took writes, nobody could write to the one that was cut off.
    asked = [at for at, who in writes.outside if who == parted.address(new)]
    assert not [at for at in writes.inside if min(asked) <= at <= max(asked)]
    takers = [who for who, _ in groupby(who for _, who in writes.outside)]
    assert takers == [parted.address(old), parted.address(new), parted.address(old)]


async def _both(writes: Writes) -> bool:
    return bool(writes.inside and writes.outside)


async def _took(writes: Writes, who: str) -> bool:
    return any(taker == who for _, taker in writes.outside)
