"""A database is rebuilt elsewhere, while its primary lives on and writes: what that would lose."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import JsonValue, SecretStr

from jobs.backup_settings import (
    ArchiveMethod,
    ArchiveSettings,
    BackupSettings,
)
from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.drill_restore_words import disaster_of
from jobs.drill_words import Phase
from jobs.drilling_restore_plan import pins_of, plan_restore
from jobs.operation import CriticalQuery, Database, JobError, Tier
from jobs.reader import Readers
from postgres.backup.engine import TakeOrder
from postgres.backup.native_engine import NativeEngine
from postgres.backup.receiver import Receiver, drop_slot
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import find_binaries
from postgres.cluster.ledger_file import is_begun
from postgres.cluster.words import ClusterKind
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.server import Server
from store.backups import record_backup
from store.connect import Store, connect
from tests.commands.archived import (
    Archived,
    make_archived,
    record_of,
    remove_archived,
)
from tests.commands.conftest import Attempt, DirectJob
from tests.jobs.drill_restores import ROWS, Drill, clock, enter, made_job, nothing_is_left, said
from tests.jobs.support import eventually

pytestmark = pytest.mark.timeout(180)

LATE: Final = "written after the disaster"
LEDGER_TABLES: Final = "SELECT to_regclass('twokey_drill.ledger')::text"


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    made = asyncio.run(make_archived())
    yield made
    asyncio.run(remove_archived(made))


@pytest.fixture
async def job(archived: Archived, store: Store) -> AsyncIterator[DirectJob]:
    async with made_job(archived.database(), store) as made:
        await enter(store, archived.facts)
        yield made


async def test_what_was_not_archived_in_time_is_lost_even_if_it_comes_a_moment_later(
    archived: Archived, job: DirectJob
) -> None:
    """Whole files alone are archived here, and the one with the rows comes too late."""

    async def archive_the_rest() -> None:
        await archived.ask("INSERT INTO payments VALUES (9001, 1, 'too late') RETURNING id")
        await switched(archived)

    queries = (CriticalQuery(name="payments", sql="SELECT count(*) FROM payments", expect="0"),)
    job.database = replace(job.database, critical_queries=queries)
    drill = Drill(job=job, after={Phase.INJECTED: archive_the_rest})
    drilled = await drill.run()
    await archived.ask("DELETE FROM payments RETURNING id")
    cost = drilled.cost
    assert cost is not None
    assert drilled.is_connected, drilled.connectivity
    assert cost.acknowledged == cost.lost >= ROWS
    # More than the ledger's own rows is lost: all since the last file came.
    assert cost.rpo_seconds > (drilled.at - archived.good).total_seconds() - 5
    assert cost.is_exact
    assert not drilled.is_rpo_exact
    assert "all of" in said(drilled)["Lost"]
    assert "at most" in said(drilled)["Lost"]
    assert "the last whole file" in said(drilled)["Archive then"]
    assert drilled.seconds == cost.rto_seconds
    assert 0 < (cost.rto_seconds or 0) <= cost.write_gap_seconds + 60
    assert [phase for phase, _ in drill.noted] == [
        Phase.WRITING, Phase.INJECTED, Phase.PROMOTED, Phase.CONNECTED, Phase.MEASURED,
    ]  # fmt: skip
    assert nothing_is_left(drill)
    assert await archived.ask(LEDGER_TABLES) is None, "the live primary keeps none of the rows"


async def switched(archived: Archived) -> None:
    name = await archived.ask("SELECT pg_walfile_name(pg_switch_wal())")

    async def came() -> bool:
        return (archived.home / "backups/wal" / str(name)).exists()

    await eventually(came, seconds=30)


@asynccontextmanager
async def receiving(server: Server, folder: Path) -> AsyncIterator[None]:
    """A pg_receivewal into the archive beside these backups, once it streams."""
    target = parse_dsn(server.dsn("shop"))
    receiver = Receiver(
        binaries=find_binaries(os.environ), target=target, archive=WalArchive(folder / "wal"),
        slot="drill",
    )  # fmt: skip
    task = asyncio.create_task(receiver.run())

    async def streams() -> bool:
        return receiver.report.streaming

    try:
        await eventually(streams, seconds=30)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await drop_slot(target, "drill")


async def test_with_continuous_archiving_next_to_nothing_is_lost(
    archived: Archived, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    received = replace(
        archived.database(),
        backup_folder=folder,
        backups=BackupSettings(archive=ArchiveSettings(method=ArchiveMethod.RECEIVE)),
        critical_queries=(
            CriticalQuery(
                name="nothing later", sql="SELECT count(*) FROM payments WHERE id = 9002",
                expect="0",
            ),
        ),
    )  # fmt: skip
    engine = NativeEngine(dsn=received.dsn, folder=folder)

    async def write_later() -> None:
        """It gets into the very file that was being received."""
        await archived.ask(f"INSERT INTO payments VALUES (9002, 1, '{LATE}') RETURNING id")

        async def came() -> bool:
            incoming = (folder / "wal/incoming").glob("*.partial")
            return any(LATE.encode() in each.read_bytes() for each in incoming)

        await eventually(came, seconds=30)

    async with receiving(archived.server, folder), made_job(received, store) as job:
        facts = await engine.take(TakeOrder(backup_id="shop-2"))
        await enter(store, facts, is_proven=False)
        drill = Drill(job=job, backup_id="shop-2", after={Phase.INJECTED: write_later})
        drilled = await drill.run()
    await archived.ask("DELETE FROM payments RETURNING id")
    cost = drilled.cost
    assert cost is not None
    assert drilled.is_connected, drilled.connectivity
    # Those of the last moment, while the file was copied: never all, and never a second's worth
    # on a machine that is at rest.
    assert 0 <= cost.lost < cost.acknowledged
    assert cost.is_exact
    assert drilled.is_rpo_exact
    assert cost.rpo_seconds < 20
    assert "was being received" in said(drilled)["Archive then"]
    assert nothing_is_left(drill)


async def test_without_archiving_everything_since_the_backup_is_lost(
    archived: Archived, job: DirectJob, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(archived.home / "backups/shop-1", alone / "shop-1")
    queries = (
        CriticalQuery(name="as it was", sql="SELECT count(*) FROM payments", expect="4000"),
        CriticalQuery(name="sum", sql="SELECT 1", expect="2"),
    )
    job.database = replace(
        job.database, backup_folder=alone, backups=BackupSettings(), critical_queries=queries
    )
    plan = await plan_restore(job)
    warnings = " ".join(plan.warnings(rto=timedelta(seconds=0.01), has_queries=False))
    assert "WAL is not archived" in warnings
    assert "longer than the 0.01 s" in warnings
    assert "Without critical queries" in warnings
    drilled = await Drill(job=job).run()
    cost = drilled.cost
    assert cost is not None
    assert cost.acknowledged == cost.lost
    since = (drilled.at - archived.facts.ended_at).total_seconds()
    assert cost.rpo_seconds == pytest.approx(since, abs=0.01)
    assert "everything since the backup is lost" in said(drilled)["Archive then"]
    # It took a row, and yet nobody can work with it.
    assert (drilled.is_connected, drilled.seconds, cost.rto_seconds) == (False, None, None)
    assert "sum says '1' instead of '2'" in drilled.connectivity
    assert "as it was" not in drilled.connectivity
    assert cost.write_gap_seconds > 0


async def test_the_application_must_find_its_role_on_the_copy(
    archived: Archived, job: DirectJob
) -> None:
    """Rows go through the endpoint of a cluster, with a role that came after what was archived."""
    dsn = archived.server.dsn("shop")
    async with connection(parse_dsn(dsn)) as conn:
        await conn.execute("CREATE ROLE app LOGIN")
    cluster = ClusterSettings(
        kind=ClusterKind.PAIR, nodes=(ClusterNode(name="pg1", dsn=SecretStr(dsn)),),
        endpoint=SecretStr(archived.server.dsn("shop", "app")),
    )  # fmt: skip
    job.database = replace(job.database, cluster=cluster)
    drill = Drill(job=job)
    try:
        drilled = await drill.run()
    finally:
        async with connection(parse_dsn(dsn)) as conn:
            await conn.execute("DROP OWNED BY app; DROP ROLE app")
    assert not drilled.is_connected
    assert "there was no role app" in drilled.connectivity
    assert drilled.cost is not None
    assert drilled.cost.rto_seconds is None
    assert Phase.PROMOTED in dict(drill.noted)
    assert Phase.CONNECTED not in dict(drill.noted)


async def test_the_plan_takes_the_newest_proven_backup_and_pins_it(
    archived: Archived, job: DirectJob
) -> None:
    later = replace(
        record_of(archived.facts), id="shop-9", started_at=archived.facts.began_at + timedelta(1)
    )
    async with job.store.begin() as conn:
        await record_backup(conn, later)
    plan = await plan_restore(job)
    assert (plan.backup.id, plan.is_proven, plan.newer) == ("shop-1", True, "shop-9")
    assert dict(plan.pins) == {"backup": "shop-1", "manifest": "m" * 64}
    assert dict(await pins_of(job, "shop-1")) == dict(plan.pins)
    facts = dict(plan.facts(job.now))
    assert facts["Backup"].startswith("shop-1, ")
    assert facts["Proven"].endswith("ago, 1 check")
    assert "WAL" in facts["Restored"]
    assert facts["Restore"].startswith("expected ")
    assert "shop-9 is newer" in " ".join(plan.warnings(rto=timedelta(days=1), has_queries=True))
    with pytest.raises(JobError, match="shop-9"):
        await pins_of(job, "shop-9")


async def test_a_database_without_a_backup_cannot_be_drilled(
    archived: Archived, store: Store
) -> None:
    async with made_job(archived.database(), store) as job:
        with pytest.raises(JobError, match="no backup of shop") as refused:
            await plan_restore(job)
        assert "/db verify shop" in refused.value.next_step
        # Gone between the plan and the run: nothing is written anywhere.
        with pytest.raises(PostgresError, match="no backup shop-3"):
            await Drill(job=job, backup_id="shop-3").run()
        assert await archived.ask(LEDGER_TABLES) is None


async def test_a_damaged_backup_is_a_result_and_nobody_knows_the_loss(
    archived: Archived, job: DirectJob, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(archived.home / "backups", damaged)
    [file] = (damaged / "shop-1").glob("base.tar*")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    job.database = replace(job.database, backup_folder=damaged)
    drill = Drill(job=job)
    drilled = await drill.run()
    assert (drilled.cost, drilled.is_connected, drilled.seconds) == (None, False, None)
    assert "shop-1 cannot be recovered" in drilled.connectivity
    assert nothing_is_left(drill)
    assert await archived.ask(LEDGER_TABLES) is None


async def test_a_drill_that_is_stopped_leaves_only_what_the_next_life_needs(
    archived: Archived, job: DirectJob
) -> None:
    declared = asyncio.Event()

    async def hang() -> None:
        declared.set()
        await asyncio.Event().wait()

    drill = Drill(job=job, after={Phase.INJECTED: hang})
    task = asyncio.create_task(drill.run())
    async with asyncio.timeout(30):
        await declared.wait()
    assert await archived.ask(LEDGER_TABLES) is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await archived.ask(LEDGER_TABLES) is None
    assert not (job.folder / "scratch").exists()
    assert is_begun(drill.folder)
    assert disaster_of(drill.attempt.checkpoint) is not None


async def test_the_next_life_keeps_the_moment_and_never_calls_an_unknown_loss_none(
    archived: Archived, job: DirectJob
) -> None:
    """A worker is killed while its copy runs; the one after the next is on another machine."""
    drill = Drill(job=job)
    wanted: dict[str, JsonValue] = {
        "store": job.store.dsn.get_secret_value(), "dsn": job.database.dsn.get_secret_value(),
        "backups": str(job.database.backup_folder), "folder": str(job.folder),
        "request_id": job.request_id,
    }  # fmt: skip
    checkpoint = await killed_at_work(wanted)
    first = disaster_of(checkpoint)
    assert first is not None
    assert (job.folder / "scratch").exists()
    drill.attempt = Attempt(number=2, checkpoint=checkpoint)
    second = await drill.run()
    assert second.at == first.at
    assert second.cost is not None
    assert second.cost.acknowledged == second.cost.lost >= ROWS
    assert not second.is_exact
    assert not second.cost.is_exact
    assert second.seconds is not None
    assert Phase.INJECTED not in dict(drill.noted)
    assert nothing_is_left(drill)
    # What it had written down went with its result: now nobody can tell.
    third = await drill.run()
    assert (third.at, third.cost, third.is_connected) == (first.at, None, True)
    assert "nobody can tell" in said(third)["Lost"]
    assert third.seconds is not None
    assert third.seconds > second.seconds


async def killed_at_work(wanted: Mapping[str, JsonValue]) -> JsonValue:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.jobs.test_drilling_restore", json.dumps(wanted),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(60):
        line = await child.stdout.readline()
        await child.wait()
    assert child.returncode == -signal.SIGKILL
    checkpoint: JsonValue = json.loads(line)
    return checkpoint


async def work(wanted: Mapping[str, Any]) -> None:
    """Drill as another worker, and be killed once the copy takes writes."""
    store = connect(wanted["store"], size=2)
    database = Database(
        name="shop", dsn=SecretStr(wanted["dsn"]), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=Path(wanted["backups"]),
        backups=BackupSettings(archive=ArchiveSettings(method=ArchiveMethod.COMMAND)),
    )  # fmt: skip
    job = DirectJob(
        database=database, store=store, reader=Readers().of(database),
        folder=Path(wanted["folder"]), request_id=wanted["request_id"], run_key="run-7",
        now=clock(),
    )  # fmt: skip
    drill = Drill(job=job)

    async def die() -> None:
        sys.stdout.write(json.dumps(drill.attempt.checkpoint) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    drill.after = {Phase.PROMOTED: die}
    await drill.run()


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1])))
