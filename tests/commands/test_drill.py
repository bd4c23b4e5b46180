"""`/db drill` on real clusters: what it plans, breaks, measures, and puts back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from commands import drill
from commands.drill import Params
from jobs.cluster_settings import ClusterSettings, DrillKind, DrillSettings
from jobs.drill_words import REPORT, DrillEnd, DrillReport, Phase
from jobs.operation import Answer, Database, Tier
from jobs.reader import Readers
from postgres.cluster.words import ClusterKind
from sandbox.ha import PairSandbox
from store.connect import Store
from store.drills import drill_of
from tests.commands.archived import add_request
from tests.commands.conftest import DirectJob, facts
from tests.commands.test_failover import prove_backup, settings

ALL = tuple(DrillKind)
JobMaker = Callable[..., Awaitable[DirectJob]]


class LiveClockJob(DirectJob):
    """A run whose time goes on: a drill measures it."""

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    @now.setter
    def now(self, _: datetime) -> None: ...


@pytest.fixture
async def made(store: Store, tmp_path: Path) -> AsyncIterator[JobMaker]:
    readers = Readers()

    async def make(cluster: ClusterSettings, *, environment: str = "staging") -> DirectJob:
        number = await add_request(store)
        database = Database(
            name="orders",
            dsn=cluster.nodes[0].dsn,
            environment=environment,
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=tmp_path / "backups",
            cluster=cluster,
        )
        folder = tmp_path / f"run-{number}-1"
        folder.mkdir()
        return LiveClockJob(
            database=database,
            store=store,
            reader=readers.of(database),
            folder=folder,
            request_id=number,
            run_key=f"run-{number}",
        )

    try:
        yield make
    finally:
        await readers.close()


def drilled(cluster: ClusterSettings, **words: Any) -> ClusterSettings:
    return replace(cluster, drills=DrillSettings(kinds=ALL, **words))


async def ask(job: DirectJob, kind: DrillKind, **words: Any) -> tuple[Any, Answer, DrillReport]:
    params = Params(database="orders", kind=kind, **words)
    plan = await drill.plan(job, params)
    assert await drill.pins(job, params, plan) == plan.pins
    answer = await drill.run(job, params, plan)
    return plan, answer, await report_of(job)


async def report_of(job: DirectJob) -> DrillReport:
    async with job.store.begin() as conn:
        stored = await drill_of(conn, job.request_id)
    assert stored is not None
    assert stored.report is not None
    assert stored.is_intact
    return REPORT.validate_python(stored.report)


@pytest.mark.parametrize(
    "kind", [DrillKind.SWITCHOVER, DrillKind.PRIMARY_CRASH, DrillKind.REPLICA_LOSS]
)
async def test_a_pair_goes_through_a_disaster_and_is_as_it_was(
    pair: PairSandbox, made: JobMaker, store: Store, kind: DrillKind
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    old = await pair.primary()
    plan, answer, report = await ask(job, kind)
    assert report.end is DrillEnd.PASSED, report.missed
    assert await pair.primary() == old
    assert report.primary_before == report.primary_after == old
    assert report.cost is not None
    assert report.cost.acknowledged >= 100
    assert report.cost.lost == 0
    assert report.is_connected
    assert report.differences == ()
    assert [each.phase for each in report.moments] == sorted(
        (each.phase for each in report.moments), key=list(Phase).index
    )
    assert answer.title == f"Drill passed: {kind} of orders"
    assert facts(plan)["Passes when"] == (
        "applications connect, RTO within 15 min, RPO below 1 min"
    )


@pytest.mark.needs("patroni", "etcd", "haproxy")
@pytest.mark.parametrize("kind", [DrillKind.PRIMARY_CRASH, DrillKind.HOST_LOSS])
async def test_patroni_promotes_another_and_is_as_it_was(
    patroni: PatroniSandbox, haproxy: Haproxy, made: JobMaker, store: Store, kind: DrillKind
) -> None:
    cluster = replace(settings(patroni, ClusterKind.PATRONI), endpoint=SecretStr(haproxy.dsn()))
    job = await made(drilled(cluster))
    await prove_backup(store, job.now)
    old = await patroni.primary()
    _, answer, report = await ask(job, kind)
    assert report.end is DrillEnd.PASSED, report.missed
    assert await patroni.primary() == old
    assert report.settings["ttl"] == "20"
    assert "the application's endpoint" in report.connectivity
    assert report.cost is not None
    assert report.cost.rto_seconds is not None
    assert report.cost_back is not None
    assert report.is_switched_back
    assert "Killed" in next(each.text for each in report.moments if each.phase is Phase.INJECTED)
    assert answer.charts
