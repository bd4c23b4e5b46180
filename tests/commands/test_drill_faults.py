"""A host that is lost under Patroni while nobody has been promoted yet: stopped, or out of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from commands import drill
from commands.drill import Params
from jobs.cluster_settings import DrillKind, FailoverLimits
from jobs.drill_words import DrillEnd, Phase
from postgres.cluster.words import ClusterKind
from sandbox.ha import Haproxy, PatroniSandbox
from store.connect import Store
from tests.commands.test_drill import JobMaker, Lives, drilled, lives, made, report_of
from tests.commands.test_failover import prove_backup, settings

__all__ = ["made"]  # a fixture

pytestmark = [
    pytest.mark.needs("patroni", "etcd", "haproxy"),
    pytest.mark.chaos,
    pytest.mark.timeout(300),
]
HOST_LOSS = Params(database="orders", kind=DrillKind.HOST_LOSS)


def stopped_after(seconds: float, run: Lives) -> Callable[[], None]:
    """Somebody stops it so long after a step began."""

    def later() -> None:
        asyncio.get_running_loop().call_later(seconds, setattr, run, "cancelled_by", "Ana")

    return later


async def assert_safe(patroni: PatroniSandbox) -> str:
    """One takes writes and all others follow; who."""
    primary = await patroni.primary()
    for other in patroni.others(primary):
        assert await patroni.follows(other, primary)
    assert all(patroni.agent_pid(name) for name in patroni.names)
    return primary


async def test_who_stops_it_before_anybody_is_promoted_gets_the_old_primary_s_agent_back(
    patroni: PatroniSandbox, haproxy: Haproxy, made: JobMaker, store: Store
) -> None:
    cluster = replace(settings(patroni, ClusterKind.PATRONI), endpoint=SecretStr(haproxy.dsn()))
    job = await made(drilled(cluster))
    await prove_backup(store, job.now)
    plan = await drill.plan(job, HOST_LOSS)
    run = lives(job, {}, 1)
    run.before = {"take over": stopped_after(2, run)}
    answer = await drill.run(run, HOST_LOSS, plan)
    report = await report_of(job)
    assert (report.end, answer.is_stopped) == (DrillEnd.ABORTED, True)
    assert report.missed[0] == "Ana stopped it"
    assert report.at(Phase.PROMOTED) is None
    assert report.cost is not None
    assert report.cost.write_gap_seconds >= 2
    assert report.primary_after == await assert_safe(patroni)


async def test_a_promotion_that_does_not_come_in_time_fails_the_drill_and_leaves_it_safe(
    patroni: PatroniSandbox, haproxy: Haproxy, made: JobMaker, store: Store
) -> None:
    cluster = replace(
        settings(patroni, ClusterKind.PATRONI),
        endpoint=SecretStr(haproxy.dsn()),
        limits=FailoverLimits(timeout=timedelta(seconds=3)),
    )
    job = await made(drilled(cluster))
    await prove_backup(store, job.now)
    plan = await drill.plan(job, HOST_LOSS)
    answer = await drill.run(lives(job, {}, 1), HOST_LOSS, plan)
    report = await report_of(job)
    assert report.end is DrillEnd.FAILED
    assert not answer.is_stopped
    assert report.missed[0].startswith(f"Nobody has taken over from {report.victim} within 3 s")
    assert "`cluster.limits.timeout`" not in report.missed[0]
    assert report.cost is not None
    assert report.is_redundant
    assert report.primary_after == await assert_safe(patroni)
