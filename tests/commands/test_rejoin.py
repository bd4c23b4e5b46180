"""`/db rejoin` on a real pair whose primary was lost: it follows, and loses what only it had."""

from __future__ import annotations

import asyncpg
import pytest

from commands import failover, rejoin
from jobs.operation import JobError
from postgres.cluster.words import ClusterKind
from sandbox.ha import PairSandbox
from tests.commands.test_failover import JobMaker, made, settings

__all__ = ["made"]  # a fixture


async def test_a_lost_primary_comes_back_as_a_standby(pair: PairSandbox, made: JobMaker) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    job = made(settings(pair, ClusterKind.PAIR))
    params = rejoin.Params(database="orders", node=old)
    with pytest.raises(JobError, match=f"{old} answers as a primary"):
        await rejoin.plan(job, params)
    pair.kill_host(old)
    with pytest.raises(JobError, match="not exactly one primary"):
        await rejoin.plan(job, params)
    lost = failover.Params(database="orders", forced=True)
    await failover.run(job, lost, await failover.plan(job, lost))
    plan = await rejoin.plan(job, params)
    assert plan.title == f"{old} follows {new}"
    assert "thrown away" in plan.warnings[0]
    assert await rejoin.pins(job, params, plan) == plan.pins
    answer = await rejoin.run(job, params, plan)
    assert answer.title == f"{old} follows {new}"
    assert await pair.follows(old, new)
    conn = await asyncpg.connect(pair.dsn(old))
    try:
        assert await conn.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await conn.close()


async def test_a_stranger_does_not_follow(pair: PairSandbox, made: JobMaker) -> None:
    job = made(settings(pair, ClusterKind.PAIR))
    with pytest.raises(JobError, match="no node called elsewhere") as caught:
        await rejoin.plan(job, rejoin.Params(database="orders", node="elsewhere"))
    assert "The nodes are: " in caught.value.next_step
