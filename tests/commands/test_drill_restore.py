"""`/db drill shop restore`: rebuilt elsewhere as a run, with a report as any other drill has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from commands import drill
from commands.drill import Params
from jobs import drill_restoring
from jobs.cluster_settings import ClusterSettings, DrillKind, DrillSettings
from jobs.drill_words import DrillEnd, Phase
from jobs.operation import CriticalQuery, JobError, Risk
from jobs.reader import Readers
from postgres.cluster.words import ClusterKind
from store.backups import Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.archived import (
    Archived,
    add_request,
    make_archived,
    record_of,
    remove_archived,
)
from tests.commands.test_drill import LiveClockJob, lives, report_of

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    made = asyncio.run(make_archived())
    yield made
    asyncio.run(remove_archived(made))


@pytest.fixture
async def job(archived: Archived, store: Store, tmp_path: Path) -> AsyncIterator[LiveClockJob]:
    number = await add_request(store)
    readers = Readers()
    database = replace(
        archived.database(),
        environment="staging",
        critical_queries=(CriticalQuery(name="one", sql="SELECT 1", expect="1"),),
    )
    folder = archived.home / f"runs-{tmp_path.name}" / "run-1"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o711)
    made = LiveClockJob(
        database=database, store=store, reader=readers.of(database), folder=folder,
        request_id=number, run_key=f"run-{number}",
    )  # fmt: skip
    async with store.begin() as conn:
        record = record_of(archived.facts)
        await record_backup(conn, record)
        await record_verification(
            conn,
            Verification(
                backup_id=record.id, at=made.now, ok=True, restore_seconds=1.0,
                total_seconds=1.0, checks=(), request_id=None,
            ),
        )  # fmt: skip
    try:
        yield made
    finally:
        await readers.close()


async def test_what_a_restore_would_lose_is_counted_and_held_against_the_limits(
    job: LiveClockJob,
) -> None:
    """Whole files are archived here, so more than a minute may be lost: the drill says so."""
    params = Params(database="shop", kind=DrillKind.RESTORE)
    plan = await drill.plan(job, params)
    assert await drill.pins(job, params, plan) == plan.pins
    assert plan.risk is Risk.RECOVERABLE
    answer = await drill.run(job, params, plan)
    report = await report_of(job)
    assert report.kind is DrillKind.RESTORE
    assert report.is_connected
    assert report.cost is not None
    assert report.cost.lost == report.cost.acknowledged > 0
    assert report.cost.rto_seconds is not None
    assert report.cost.rto_seconds < report.rto_limit_seconds
    told_late = report.cost.rpo_seconds >= report.rpo_limit_seconds
    assert (report.end is DrillEnd.FAILED) == told_late
    assert [each.phase for each in report.moments] == [
        Phase.WRITING, Phase.INJECTED, Phase.PROMOTED, Phase.CONNECTED, Phase.MEASURED,
    ]  # fmt: skip
    assert answer.title.endswith(": restore of shop")
    assert any(name == "Backup" for name, _ in answer.facts)


async def test_who_stops_it_leaves_nothing_behind(job: LiveClockJob) -> None:
    params = Params(database="shop")  # without a cluster it is the one kind that there is
    plan = await drill.plan(job, params)
    run = lives(job, {}, 1, stops="restore")
    answer = await drill.run(run, params, plan)
    assert answer.is_stopped
    report = await report_of(job)
    assert report.end is DrillEnd.ABORTED
    assert report.missed == ("Ana stopped it",)
    assert not list(run.folder.iterdir())
    assert not list(run.folder.parent.glob("ledger-*"))


async def test_one_that_takes_too_long_is_ended(
    job: LiveClockJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_restoring, "HARD_LIMIT", timedelta(0))
    params = Params(database="shop")
    answer = await drill.run(job, params, await drill.plan(job, params))
    assert not answer.is_stopped
    report = await report_of(job)
    assert report.missed == ("It took longer than its limit of 0 s",)


async def test_a_cluster_says_whether_it_may_be_rehearsed(job: LiveClockJob) -> None:
    job.database = replace(
        job.database,
        cluster=ClusterSettings(
            kind=ClusterKind.PAIR,
            nodes=(),
            drills=DrillSettings(kinds=(DrillKind.SWITCHOVER,)),
        ),
    )
    with pytest.raises(JobError, match="restore may not be rehearsed here"):
        await drill.plan(job, Params(database="shop", kind=DrillKind.RESTORE))
