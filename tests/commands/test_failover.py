"""`/db failover` on real clusters: what it plans, what it does, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from commands import failover
from commands.failover import Params
from jobs.cluster_settings import BouncerSettings, ClusterNode, ClusterSettings, FailoverLimits
from jobs.failing_over import Order, Standing, change_primary, lost_leader, standing
from jobs.operation import Database, JobError, Mode, Risk, Tier
from jobs.reader import Readers
from postgres.cluster.words import AgentSeen, ClusterKind, ClusterSeen, Member, NodeSeen, Role
from sandbox.ha import Haproxy, PairSandbox, PatroniSandbox, Pgbouncer
from store.backups import BackupRecord, Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.conftest import Attempt, DirectJob, facts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def settings(sandbox: PairSandbox | PatroniSandbox, kind: ClusterKind) -> ClusterSettings:
    """The sandbox as the inventory would say it."""
    return ClusterSettings(
        kind=kind,
        nodes=tuple(
            ClusterNode(
                name=each.name,
                dsn=SecretStr(each.target.url()),
                region=each.region,
                rest=each.rest,
                host=each.host,
            )
            for each in sandbox.specs
        ),
        user=getattr(sandbox, "rest_user", ""),
        password=SecretStr(getattr(sandbox, "rest_password", "")),
    )


JobMaker = Callable[..., DirectJob]


@pytest.fixture
async def made(store: Store, tmp_path: Path) -> AsyncIterator[JobMaker]:
    readers = Readers()

    def make(cluster: ClusterSettings | None) -> DirectJob:
        dsn = cluster.nodes[0].dsn if cluster else SecretStr("postgresql://nobody/none")
        database = Database(
            name="orders",
            dsn=dsn,
            environment="production",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=tmp_path / "backups",
            cluster=cluster,
        )
        return DirectJob(
            database=database,
            store=store,
            reader=readers.of(database),
            folder=tmp_path,
            request_id=1,
            now=datetime.now(UTC),
        )

    try:
        yield make
    finally:
        await readers.close()


async def prove_backup(store: Store, at: datetime) -> None:
    backup = BackupRecord(
        id="20261122T000000", database="orders", kind="full", engine="native", state="complete",
        folder="/b", started_at=at, ended_at=at, seconds=1.0, size_bytes=1, data_bytes=1,
        start_lsn="0/1", end_lsn="0/2", timeline=1, system_identifier="1", major=15,
        manifest_sha256="", row_counts={}, request_id=None,
    )  # fmt: skip
    async with store.begin() as conn:
        await record_backup(conn, backup)
        await record_verification(
            conn,
            Verification(
                backup_id=backup.id,
                at=at,
                ok=True,
                restore_seconds=1.0,
                total_seconds=1.0,
                checks=(),
                request_id=None,
            ),
        )


async def switch(job: DirectJob, params: Params) -> Any:
    plan = await failover.plan(job, params)
    assert await failover.pins(job, params, plan) == plan.pins
    return plan, await failover.run(job, params, plan)


async def there_and_back(
    sandbox: PairSandbox | PatroniSandbox, job: DirectJob, store: Store
) -> None:
    await prove_backup(store, job.now)
    old = await sandbox.primary()
    plan, answer = await switch(job, Params(database="orders"))
    new = await sandbox.primary()
    assert new != old
    assert plan.title == f"Switch from {old} to {new}"
    assert plan.risk is Risk.DISRUPTIVE
    assert plan.attributes["kind"] == "planned"
    shown = facts(plan)
    assert shown["Candidate's lag in bytes"] == f"{new} is 0 B behind (limit 16 MB)."
    assert shown["Verified backup"].startswith("The newest proven one is ")
    [well] = [text for name, text in shown.items() if name.startswith("Checked, and well")]
    assert "One primary; All nodes answer; " in well
    assert answer.title == f"{new} is the primary"
    assert "its own address alone" in facts(answer)["Applications"]
    assert answer.numbers["from"] == old
    assert job.steps == [("change primary", Mode.RESUMABLE), ("prove", Mode.RETRYABLE)]
    back = failover.undo(Params(database="orders"), answer.numbers)
    assert back is not None
    assert dict(back.params) == {"database": "orders", "to": old}
    await sandbox.healthy()
    await switch(job, Params.model_validate(back.params))
    assert await sandbox.primary() == old


async def test_a_pair_switches_there_and_back(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    await there_and_back(pair, made(settings(pair, ClusterKind.PAIR)), store)


@pytest.mark.needs("patroni", "etcd")
async def test_patroni_switches_there_and_back(
    patroni: PatroniSandbox, made: JobMaker, store: Store
) -> None:
    await there_and_back(patroni, made(settings(patroni, ClusterKind.PATRONI)), store)


@pytest.mark.needs("patroni", "etcd", "haproxy")
async def test_applications_write_through_haproxy_to_the_new_primary(
    patroni: PatroniSandbox, haproxy: Haproxy, made: JobMaker, store: Store
) -> None:
    given = settings(patroni, ClusterKind.PATRONI)
    job = made(replace(given, endpoint=SecretStr(haproxy.dsn())))
    await prove_backup(store, job.now)
    _, answer = await switch(job, Params(database="orders"))
    assert "the application's endpoint" in facts(answer)["Applications"]
    assert await haproxy.leads_to() == (answer.numbers["to"],)


@pytest.mark.needs("pgbouncer")
async def test_clients_of_pgbouncer_wait_and_see_no_error(
    pair: PairSandbox, pgbouncer: Pgbouncer, made: JobMaker, store: Store
) -> None:
    given = settings(pair, ClusterKind.PAIR)
    bouncer = BouncerSettings(
        admin=SecretStr(pgbouncer.admin), database=pair.database, config=pgbouncer.config
    )
    job = made(replace(given, endpoint=SecretStr(pgbouncer.dsn()), bouncers=(bouncer,)))
    await prove_backup(store, job.now)
    conn = await asyncpg.connect(pgbouncer.dsn(), statement_cache_size=0)
    done, writes = asyncio.Event(), 0

    async def write() -> None:
        nonlocal writes
        while not done.is_set():
            await conn.execute("CREATE TEMP TABLE w (n int) ON COMMIT DROP")
            writes += 1
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(write())
    try:
        _, answer = await switch(job, Params(database="orders"))
    finally:
        done.set()
        await writing  # an error that a client saw comes out here
        await conn.close()
    assert "the application's endpoint" in facts(answer)["Applications"]
    assert writes
    assert await pair.primary() == answer.numbers["to"]


async def test_a_lost_primary_is_replaced_once_it_is_fenced(
    pair: PairSandbox, made: JobMaker
) -> None:
    old = await pair.primary()
    (other,) = pair.others(old)
    job = made(settings(pair, ClusterKind.PAIR))
    pair.kill_host(old)
    with pytest.raises(JobError, match="One primary") as caught:
        await failover.plan(job, Params(database="orders"))
    assert "forced" in caught.value.next_step
    params = Params(database="orders", forced=True)
    plan, answer = await switch(job, params)
    assert plan.title == f"Promote {other}: {old} is lost"
    assert plan.risk is Risk.DESTRUCTIVE
    assert plan.undo is None
    assert failover.undo(params, answer.numbers) is None
    assert any("is lost" in each for each in plan.warnings)
    assert await pair.primary() == other


async def test_without_a_proven_backup_nobody_switches(pair: PairSandbox, made: JobMaker) -> None:
    job = made(settings(pair, ClusterKind.PAIR))
    with pytest.raises(JobError, match="No backup has ever been restored") as caught:
        await failover.plan(job, Params(database="orders"))
    assert "/db verify orders" in caught.value.next_step


async def test_what_has_changed_since_the_votes_stops_it_right_before(
    pair: PairSandbox, made: JobMaker, store: Store
) -> None:
    given = settings(pair, ClusterKind.PAIR)
    strict = replace(given, limits=FailoverLimits(transaction_age=timedelta(microseconds=1)))
    job = made(given)
    await prove_backup(store, job.now)
    plan = await failover.plan(job, Params(database="orders"))
    old = await pair.primary()
    later = made(strict)
    async with open_transaction(pair.dsn(old)):
        with pytest.raises(JobError, match=r"No long transaction.*Nothing was changed"):
            await failover.run(later, Params(database="orders"), plan)
    assert await pair.primary() == old


@asynccontextmanager
async def open_transaction(dsn: str) -> AsyncIterator[None]:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("BEGIN; SELECT 1")
        yield
    finally:
        conn.terminate()


async def test_a_second_life_finds_what_the_first_brought_about(
    pair: PairSandbox, made: JobMaker
) -> None:
    new = await pair.primary()
    (old,) = pair.others(new)
    job = made(settings(pair, ClusterKind.PAIR))
    order = Order(leader=old, candidate=new, forced=False)
    pair.kill_server(old)  # as one that nobody has started again after the promotion
    found = await change_primary(job, Attempt(checkpoint={"at": "before"}), order)
    assert isinstance(found, dict)
    assert found["primary"] == new
    assert await pair.follows(old, new)
    assert "before the worker was started again" in str(found["said"])


async def test_a_database_without_a_cluster_says_how_to_name_one(made: JobMaker) -> None:
    with pytest.raises(JobError, match="which servers orders consists of") as caught:
        await failover.plan(made(None), Params(database="orders"))
    assert "cluster:" in caught.value.next_step


def seen(*nodes: NodeSeen, agent: AgentSeen | None = None) -> ClusterSeen:
    return ClusterSeen(at=NOW, kind=ClusterKind.PAIR, nodes=nodes, agent=agent)


def writer(name: str) -> NodeSeen:
    return NodeSeen(name=name, region="", role=Role.PRIMARY, is_writable=True)


def follower(name: str) -> NodeSeen:
    return NodeSeen(name=name, region="", role=Role.STANDBY)


def gone(name: str) -> NodeSeen:
    return NodeSeen(name=name, region="", problem="refused")


@pytest.mark.parametrize(
    ("nodes", "forced", "expected"),
    [
        ((writer("a"), follower("b")), False, Standing.BEFORE),
        ((follower("a"), writer("b")), False, Standing.DONE),
        ((writer("a"), writer("b")), False, Standing.BETWEEN),
        ((follower("a"), follower("b")), False, Standing.BETWEEN),
        ((follower("a"), follower("b"), writer("c")), False, Standing.BETWEEN),
        ((gone("a"), follower("b")), True, Standing.BEFORE),
        ((gone("a"), writer("b")), True, Standing.DONE),
        ((writer("a"), follower("b")), True, Standing.BETWEEN),
    ],
)
def test_how_far_it_is_says_who_takes_writes(
    nodes: tuple[NodeSeen, ...],
    forced: bool,  # noqa: FBT001
    expected: Standing,
) -> None:
    order = Order(leader="a", candidate="b", forced=forced)
    assert standing(seen(*nodes), order) is expected


def test_the_lost_primary_is_the_one_that_is_missing() -> None:
    assert lost_leader(seen(gone("a"), follower("b"))) == "a"
    agent = AgentSeen(members=(Member(name="c", role="leader", state="running"),))
    assert lost_leader(seen(gone("a"), follower("b"), gone("c"), agent=agent)) == "c"
    with pytest.raises(JobError, match="a and c do not answer"):
        lost_leader(seen(gone("a"), follower("b"), gone("c")))
    with pytest.raises(JobError, match="Every node answers"):
        lost_leader(seen(follower("a"), follower("b")))
