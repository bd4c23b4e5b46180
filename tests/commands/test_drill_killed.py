"""The worker of a drill is killed with -9 on a real pair behind pgbouncer: another goes on."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from approvals.plans import plan_body, plan_hash
from approvals.words import RequestId, RunId
from commands import drill
from commands.drill import Params
from jobs import drill_hands
from jobs.claims import PLAN
from jobs.cluster_settings import BouncerSettings, DrillKind
from jobs.drill_words import DrillEnd
from jobs.engine import PgQueue
from jobs.runs import request_cancel
from postgres.cluster.faults import inject
from postgres.cluster.words import ClusterKind
from postgres.dsn import parse_dsn
from postgres.health.pgbouncer import simple_query
from sandbox.ha import PairSandbox, Pgbouncer
from store.connect import Store
from store.drills import drill_of
from tests.commands.conftest import DirectJob
from tests.commands.dying_drill import Worksite
from tests.commands.test_drill import JobMaker, drilled, made, report_of
from tests.commands.test_failover import prove_backup, settings
from tests.jobs.support import clock, eventually, working

__all__ = ["made"]  # a fixture

pytestmark = [
    pytest.mark.needs("pgbouncer"),
    pytest.mark.chaos,
    pytest.mark.timeout(300),
]

ROOT = Path(__file__).parents[2]
LIMIT = 120
GRANT = sa.text("""
    UPDATE requests SET state = 'approved', operation = 'drill', database = 'orders',
           params = CAST(:params AS jsonb), plan = :plan, plan_hash = :hash
     WHERE id = :id
""")
# So that nobody need wait until its silence tells.
FORGET = sa.text("UPDATE runs SET heartbeat_at = now() - interval '1 hour' WHERE state = 'running'")
TOLD = sa.text("SELECT count(*) FROM outbox WHERE topic = 'result' AND request_id IS NULL")
LEDGER = "SELECT to_regclass('twokey_drill.ledger') IS NULL"


@dataclass(slots=True, kw_only=True)
class Scene:
    """A pair behind pgbouncer, and a drill that was agreed to."""

    pair: PairSandbox
    pgbouncer: Pgbouncer
    job: DirectJob
    site: Worksite
    run_id: RunId
    injected: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.job.store

    async def state(self) -> str:
        async with self.store.begin() as conn:
            query = sa.text("SELECT state FROM runs WHERE id = :id")
            return str((await conn.execute(query, {"id": self.run_id})).scalar_one())

    async def ended(self) -> str:
        """How the run ended."""

        async def over() -> str | None:
            state = await self.state()
            return state if state in {"done", "failed", "cancelled", "needs_attention"} else None

        return str(await eventually(over, seconds=LIMIT))

    async def step(self, name: str) -> str:
        """What a step's text says."""
        async with self.store.begin() as conn:
            query = sa.text("SELECT result ->> 'text' FROM run_steps WHERE name = :name")
            return str((await conn.execute(query, {"name": name})).scalar_one())


async def grant(job: DirectJob, params: Params) -> RunId:
    """Plan it now, and have it agreed to."""
    plan = PLAN.dump_python(await drill.plan(job, params), mode="json")
    told = params.model_dump(mode="json")
    body = plan_body(plan, operation="drill", database="orders", params=told)
    values = {
        "params": json.dumps(told), "plan": body, "hash": plan_hash(body), "id": job.request_id,
    }  # fmt: skip
    async with job.store.begin() as conn:
        await conn.execute(GRANT, values)
        return await PgQueue(job.store).enqueue(
            conn, request_id=RequestId(job.request_id), database="orders", operation="drill",
            now=clock(),
        )  # fmt: skip


@asynccontextmanager
async def dying(point: str, site: Worksite) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process that is killed at this point of whatever it runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.commands.dying_drill", point,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(pickle.dumps(site))
        process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def scene(
    pair: PairSandbox, pgbouncer: Pgbouncer, made: JobMaker, store: Store, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:  # fmt: skip
    bouncer = BouncerSettings(
        admin=SecretStr(pgbouncer.admin), database=pgbouncer.database, config=pgbouncer.config
    )
    cluster = replace(
        settings(pair, ClusterKind.PAIR),
        endpoint=SecretStr(pgbouncer.dsn()),
        bouncers=(bouncer,),
    )
    job = await made(drilled(cluster))
    await prove_backup(store, job.now)
    params = Params(database="orders", kind=DrillKind.PRIMARY_CRASH)
    assert job.database.cluster is not None
    site = Worksite(
        store=store.dsn.get_secret_value(), cluster=job.database.cluster, home=tmp_path / "home"
    )
    found = Scene(
        pair=pair, pgbouncer=pgbouncer, job=job, site=site, run_id=await grant(job, params)
    )

    async def noted(node: Any, *args: Any, **words: Any) -> str:
        found.injected.append(node.name)
        return await inject(node, *args, **words)

    monkeypatch.setattr(drill_hands, "inject", noted)
    return found


async def is_paused(pgbouncer: Pgbouncer) -> bool:
    names, rows = await simple_query(parse_dsn(pgbouncer.admin), "SHOW DATABASES")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return any(row["paused"] != "0" for row in found)


async def writes_through(pgbouncer: Pgbouncer) -> str:
    """Which port takes writes of clients."""
    conn = await asyncpg.connect(pgbouncer.dsn(), statement_cache_size=0, timeout=30)
    try:
        async with conn.transaction():
            await conn.execute("CREATE TEMP TABLE written (id int) ON COMMIT DROP")
            return str(await conn.fetchval("SELECT current_setting('port')"))
    finally:
        conn.terminate()


async def die(scene: Scene, point: str) -> None:
    """Let a worker take the drill up to this point, and be killed there."""
    async with dying(point, scene.site) as process, asyncio.timeout(LIMIT):
        assert await process.wait() == -signal.SIGKILL
    assert await scene.state() == "running"


async def go_on(scene: Scene) -> str:
    """Another worker takes the run over; how it ends."""
    async with scene.store.begin() as conn:
        await conn.execute(FORGET)
    async with working(scene.site.worker(scene.store)):
        return await scene.ended()


async def assert_well(scene: Scene, primary: str) -> None:
    """Exactly one writes, the other follows, clients reach it, and nothing is left of the drill."""
    pair = scene.pair
    assert await pair.writable() == (primary,)
    (other,) = pair.others(primary)
    assert await pair.follows(other, primary)
    assert not await is_paused(scene.pgbouncer)
    assert await writes_through(scene.pgbouncer) == str(pair.port(primary))
    assert not list((scene.site.home / "runs").glob("ledger-*"))
    assert await pair.query(primary, LEDGER, database=pair.database)
    async with scene.store.begin() as conn:
        stored = await drill_of(conn, scene.job.request_id)
        told = (await conn.execute(TOLD)).scalar_one()
    assert told == 2  # the channel hears once that it begins, and once how it ended
    assert stored is not None
    assert stored.ended_at is not None


@pytest.mark.parametrize("point", ["injected", "promoted", "switched back", "report"])
async def test_a_killed_worker_s_drill_is_gone_on_with_to_its_end(scene: Scene, point: str) -> None:
    pair = scene.pair
    old = await pair.primary()
    await die(scene, point)
    pid = pair.server_pid(old)
    assert await go_on(scene) == "done"
    report = await report_of(scene.job)
    assert report.end is DrillEnd.PASSED, report.missed
    assert report.cost is not None
    assert scene.injected == []  # by the one that was killed, and never again
    await assert_well(scene, old)
    if point in {"switched back", "report"}:
        assert pair.server_pid(old) == pid
    said = await scene.step("inject")
    assert said.startswith("An earlier worker broke" if point == "injected" else "Killed")


async def test_one_that_was_fenced_when_the_worker_died_is_not_brought_back_by_a_stop(
    scene: Scene,
) -> None:
    """It would come back as a standby, and nobody would take writes."""
    old = await scene.pair.primary()
    (other,) = scene.pair.others(old)
    await die(scene, "fenced")
    async with scene.store.begin() as conn:
        assert await request_cancel(conn, scene.run_id, "Ana")
    assert await go_on(scene) == "cancelled"
    report = await report_of(scene.job)
    assert report.end is DrillEnd.ABORTED
    assert report.missed[0] == "Ana stopped it"
    assert report.primary_after == other
    await assert_well(scene, other)
