"""`/db drill` on real clusters: what it plans, breaks, measures, and puts back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import SecretStr

from commands import drill
from commands.drill import Params
from jobs import drill_ledger, drilling
from jobs.cluster_settings import ClusterSettings, DrillKind, DrillSettings
from jobs.drill_beginning import begin
from jobs.drill_words import REPORT, DrillEnd, DrillReport, Phase
from jobs.failing_over import Order, change_primary
from jobs.operation import Answer, Database, JobError, Risk, Tier
from jobs.reader import Readers
from postgres.cluster.words import ClusterKind
from sandbox.ha import Haproxy, PairSandbox, PatroniSandbox
from store.connect import Store
from store.drills import drill_of
from tests.commands.archived import add_request
from tests.commands.conftest import Attempt, DirectJob, facts
from tests.commands.test_failover import prove_backup, settings
from tests.store.test_drills import ADD_RUN

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


class Killed(BaseException):
    """The worker ended here: nothing that it had not stored is known."""


class Lives(LiveClockJob):
    """One life of a run: what is stored is shared by all of them.

    `dies`: it ends after this step's body. `stops`: somebody stops it when this step begins.
    """

    kept: dict[str, Any]
    dies: str = ""
    stops: str = ""
    before: Mapping[str, Callable[[], None]] = MappingProxyType({})

    async def step(self, name: str, body: Any, **_: Any) -> Any:
        self.before.get(name, lambda: None)()
        if name == self.stops:
            self.cancelled_by = "Ana"
        if name not in self.kept:
            attempt = self.kept.setdefault(f"attempt {name}", Attempt())
            result = await body(attempt)
            if name == self.dies:
                raise Killed
            self.kept[name] = result
        return self.kept[name]


def lives(job: DirectJob, kept: dict[str, Any], number: int, **words: Any) -> Lives:
    """A life of this run, in a folder of its own."""
    folder = job.folder.parent / f"{job.run_key}-{number}"
    folder.mkdir(exist_ok=True)
    made = Lives(
        database=job.database, store=job.store, reader=job.reader, folder=folder,
        request_id=job.request_id, run_key=job.run_key,
    )  # fmt: skip
    made.kept = kept
    for name, value in words.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("dies", ["open ledger", "inject", "take over", "switch back"])
async def test_the_next_worker_goes_on_where_one_died_and_breaks_nothing_twice(
    pair: PairSandbox, made: JobMaker, store: Store, dies: str
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    old = await pair.primary()
    params = Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
    plan = await drill.plan(job, params)
    kept: dict[str, Any] = {}
    with pytest.raises(Killed):
        await drill.run(lives(job, kept, 1, dies=dies), params, plan)
    pid = pair.server_pid(old)
    answer = await drill.run(lives(job, kept, 2), params, plan)
    report = await report_of(job)
    assert report.end is DrillEnd.PASSED, report.missed
    assert await pair.primary() == old
    assert answer.title == "Drill passed: primary-crash of orders"
    if dies in {"take over", "switch back"}:
        assert kept["inject"]["text"].startswith("Killed the server")
    if dies == "switch back":
        assert pair.server_pid(old) == pid  # it is not broken once more
    assert report.cost is not None
    assert report.cost.acknowledged >= 100
    assert not list(job.folder.parent.glob("ledger-*"))


async def test_a_ledger_on_another_machine_means_that_the_loss_is_not_known(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    params = Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
    plan = await drill.plan(job, params)
    kept: dict[str, Any] = {}
    with pytest.raises(Killed):
        await drill.run(lives(job, kept, 1, dies="inject"), params, plan)
    (ledger,) = job.folder.parent.glob("ledger-*")
    ledger.rename(ledger.with_name("elsewhere"))
    await drill.run(lives(job, kept, 2), params, plan)
    report = await report_of(job)
    assert report.end is DrillEnd.FAILED
    assert report.cost is None
    assert "not known" in " ".join(report.missed)
    assert report.is_switched_back
    assert report.is_redundant


@pytest.mark.parametrize(
    ("stops", "broken", "back"),
    [("ledger", False, True), ("inject", True, True), ("connect", True, False)],
)
async def test_who_stops_a_drill_gets_a_safe_end_by_how_far_it_is(
    pair: PairSandbox, made: JobMaker, store: Store, *, stops: str, broken: bool, back: bool
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    old = await pair.primary()
    pid = pair.server_pid(old)
    params = Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
    plan = await drill.plan(job, params)
    answer = await drill.run(lives(job, {}, 1, stops=stops), params, plan)
    report = await report_of(job)
    assert report.end is DrillEnd.ABORTED
    assert report.missed[0] == "Ana stopped it"
    assert answer.is_stopped
    primary = await pair.primary()
    assert (primary == old) is back
    assert (pair.server_pid(old) != pid) is broken
    (other,) = pair.others(primary)
    assert await pair.follows(other, primary)
    assert report.primary_after == primary
    assert (report.at(Phase.PROMOTED) is None) is back
    assert (report.cost is not None) is broken


async def test_a_drill_whose_time_is_up_ends_as_if_it_was_stopped(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    job = await made(
        drilled(settings(pair, ClusterKind.PAIR), hard_limit=timedelta(milliseconds=1))
    )
    await prove_backup(store, job.now)
    old, pid = await pair.primary(), pair.server_pid(await pair.primary())
    _, answer, report = await ask(job, DrillKind.PRIMARY_CRASH)
    assert report.end is DrillEnd.ABORTED
    assert report.missed[0].startswith("It took longer than its limit of ")
    assert not answer.is_stopped  # nobody asked
    assert (await pair.primary(), pair.server_pid(old)) == (old, pid)


async def test_a_drill_is_refused_that_may_not_be_done_here(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    cluster = settings(pair, ClusterKind.PAIR)
    few = replace(cluster, drills=DrillSettings(kinds=(DrillKind.SWITCHOVER,)))
    job = await made(few)
    await prove_backup(store, job.now)
    with pytest.raises(JobError, match="primary-crash may not be rehearsed here") as refused:
        await drill.plan(job, Params(database="orders", kind=DrillKind.PRIMARY_CRASH))
    assert "cluster.drills.kinds" in refused.value.next_step
    # In production two servers must be well without the one that is lost.
    with pytest.raises(JobError, match="Blast radius: 1 of 2 servers are well"):
        await drill.plan(
            await made(drilled(cluster), environment="production"),
            Params(database="orders", kind=DrillKind.HOST_LOSS),
        )
    with pytest.raises(JobError, match="It is no sandbox of Patroni"):
        await drill.plan(
            await made(drilled(cluster)),
            Params(database="orders", kind=DrillKind.NETWORK_SPLIT),
        )
    without = replace(
        drilled(cluster), nodes=tuple(replace(each, host=None) for each in cluster.nodes)
    )
    with pytest.raises(JobError, match="It can be injected: Nobody has said how to run programs"):
        await drill.plan(
            await made(without), Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
        )
    plan = await drill.plan(
        await made(drilled(cluster, leaves=1), environment="production"),
        Params(database="orders"),
    )
    assert plan.risk is Risk.DESTRUCTIVE  # the riskiest rule, whatever the kind
    assert plan.attributes == {"kind": "switchover"}


async def test_there_is_one_drill_at_a_time(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    cluster = drilled(settings(pair, ClusterKind.PAIR))
    first, second = await made(cluster), await made(cluster)
    await prove_backup(store, first.now)
    params = Params(database="orders", kind=DrillKind.SWITCHOVER)
    plan = await drill.plan(second, params)
    async with store.begin() as conn:
        await conn.execute(ADD_RUN, {"request_id": first.request_id, "state": "running"})
    await begin(first, DrillKind.HOST_LOSS)
    with pytest.raises(JobError, match="there is one at a time"):
        await drill.plan(second, params)
    with pytest.raises(JobError, match=r"there is one at a time\. Nothing was harmed"):
        await drill.run(second, params, plan)


async def test_nothing_is_broken_when_the_standby_has_stopped_to_follow(
    pair: PairSandbox, made: JobMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    old = await pair.primary()
    pid, (other,) = pair.server_pid(old), pair.others(old)
    monkeypatch.setattr(drill_ledger, "BASELINE_LIMIT", timedelta(seconds=3))
    params = Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
    plan = await drill.plan(job, params)
    run = lives(job, {}, 1, before={"ledger": lambda: pair.freeze(other)})
    try:
        with pytest.raises(JobError, match=f"{other} does not show what was written"):
            await drill.run(run, params, plan)
    finally:
        pair.thaw(other)
    report = await report_of(job)
    assert report.end is DrillEnd.FAILED
    assert report.at(Phase.INJECTED) is None
    assert (await pair.primary(), pair.server_pid(old)) == (old, pid)
    assert not list(job.folder.parent.glob("ledger-*"))
    rows = "SELECT to_regclass('twokey_drill.ledger')"
    assert await pair.query(old, rows, database=pair.database) is None


async def test_a_switch_back_that_cannot_be_done_is_said_and_all_follow_who_writes(
    pair: PairSandbox, made: JobMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await made(drilled(settings(pair, ClusterKind.PAIR)))
    await prove_backup(store, job.now)
    old = await pair.primary()
    (other,) = pair.others(old)

    async def not_back(job: Any, attempt: Any, order: Order) -> Any:
        if order.candidate == old:
            raise JobError("Candidate's lag in bytes: too far.", next_step="Wait.")
        return await change_primary(job, attempt, order)

    monkeypatch.setattr(drilling, "change_primary", not_back)
    params = Params(database="orders", kind=DrillKind.SWITCHOVER)
    plan = await drill.plan(job, params)
    answer = await drill.run(job, params, plan)
    report = await report_of(job)
    assert report.end is DrillEnd.FAILED
    assert report.missed[0] == "It was not switched back: Candidate's lag in bytes: too far."
    assert report.is_switched_back is False
    assert report.primary_after == await pair.primary() == other
    assert await pair.follows(old, other)
    assert answer.title == "Drill FAILED: switchover of orders"
