"""`/db rehearse-backfill`: the pace found on a copy is what the plan and its run go by."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from commands import backfill, rehearse_backfill
from commands.rehearse_backfill import Params
from jobs.backfill_paces import CATALOG
from jobs.operation import JobError, Mode, Risk
from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts
from postgres.backup.native_engine import NativeEngine
from postgres.migrate.backfill.estimate import MEASURED_HIGH
from postgres.server import Server
from store.backups import Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.archived import add_request, record_of
from tests.commands.conftest import NOW, DirectJob, JobMaker, connected, facts
from tests.conftest import folder_of_its_own

TABLE = """
    CREATE SCHEMA paced;
    CREATE TABLE paced.users (id int PRIMARY KEY, name text NOT NULL, first text);
    INSERT INTO paced.users SELECT i, 'Ada Nr ' || i FROM generate_series(1, 4000) i;
    ANALYZE paced.users;
"""
WORDS = {
    "database": "shop", "table": "paced.users", "set": "first = split_part(name, ' ', 1)",
    "where": "first IS NULL",
}  # fmt: skip
ASKED = Params.model_validate(WORDS)


@pytest.fixture(scope="module")
def shelf(shop: Server) -> Iterator[tuple[Path, BackupFacts]]:
    """A backup with a table of 4,000 rows."""
    home = folder_of_its_own()
    engine = NativeEngine(dsn=SecretStr(shop.dsn("shop")), folder=home / "backups")

    async def take() -> BackupFacts:
        async with connected(shop) as conn:
            await conn.execute(TABLE)
        return await engine.take(TakeOrder(backup_id="paced-1"))

    async def drop() -> None:
        async with connected(shop) as conn:
            await conn.execute("DROP SCHEMA paced CASCADE")

    yield home, asyncio.run(take())
    asyncio.run(drop())
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def paced(job: JobMaker, store: Store, shelf: tuple[Path, BackupFacts]) -> DirectJob:
    """A job whose newest proven backup has the table."""
    home, taken = shelf
    proof = Verification(
        backup_id=taken.id, at=taken.ended_at, ok=True, restore_seconds=2.0, total_seconds=3.0,
        checks=[("restore", True, "")], request_id=None, data_bytes=taken.data_bytes,
    )  # fmt: skip
    made = job()
    async with store.begin() as conn:
        await record_backup(conn, record_of(taken))
        await record_verification(conn, proof)
    made.database = replace(made.database, backup_folder=home / "backups")
    made.request_id = await add_request(store)
    made.now = max(NOW, taken.ended_at)
    return made


async def test_the_plan_of_the_same_backfill_goes_by_it_and_its_run_is_held_against_it(
    paced: DirectJob, shop: Server, shelf: tuple[Path, BackupFacts]
) -> None:
    real = backfill.Params.model_validate(WORDS)
    before = await backfill.plan(paced, real)
    assert before.attributes["rehearsed"] == "no"
    assert facts(before)["Estimated"].startswith(f"{CATALOG}, as no trial of it was made")

    plan = await rehearse_backfill.plan(paced, ASKED)
    assert plan.title == "Rehearse the backfill of first of paced.users"
    assert facts(plan)["Backup"].startswith("paced-1, ")
    assert plan.steps[0].startswith("Restore paced-1 to its own end")
    assert plan.estimate_seconds == 122
    assert await rehearse_backfill.pins(paced, ASKED, plan) == plan.pins
    answer = await rehearse_backfill.run(paced, ASKED, plan)
    assert paced.steps == [("try", Mode.RETRYABLE)]
    assert answer.numbers["passed"] == answer.numbers["updated"] == 4000
    assert facts(answer)["Tried"].startswith("4,000 rows, all of them, in ")
    assert answer.suggestions[0].params == WORDS
    assert list(paced.folder.iterdir()) == []
    async with connected(shop) as conn:
        assert await conn.fetchval("SELECT count(first) FROM paced.users") == 0

    measured = await backfill.plan(paced, real)
    day = f"{shelf[1].ended_at:%Y-%m-%d}"
    assert facts(measured)["Estimated"] == f"measured on a restored copy of {day}"
    assert measured.attributes["rehearsed"] == "yes"
    likely = float(answer.numbers["likely"])
    assert measured.estimate_seconds == round(MEASURED_HIGH * likely)
    other = await backfill.plan(paced, real.model_copy(update={"ranges": 3}))
    assert other.attributes["rehearsed"] == "no"
    paced.now += timedelta(days=8)
    stale = await backfill.plan(paced, real)
    assert "is too old" in facts(stale)["Estimated"]
    assert stale.attributes["rehearsed"] == "no"

    done = await backfill.run(paced, real, measured)
    assert done.numbers["rows"] == 4000
    assert done.numbers["rehearsed"] == "yes"
    worked = float(done.numbers["worked_seconds"])
    assert 0 < worked <= float(done.numbers["seconds"])
    seconds = int(measured.attributes["seconds"])
    assert done.numbers["actual_of_likely"] == round(worked / seconds, 2)
    told = facts(done)["Estimate"]
    assert f"measured on a restored copy of {day}; the work took" in told


async def test_what_the_copy_lacks_is_said_and_nothing_is_stored(
    paced: DirectJob, shop: Server
) -> None:
    async with connected(shop) as conn:
        await conn.execute("ALTER TABLE paced.users ADD COLUMN IF NOT EXISTS younger text")
    asked = ASKED.model_copy(update={"set": "younger = name", "where": ""})
    plan = await rehearse_backfill.plan(paced, asked)
    assert await rehearse_backfill.pins(paced, ASKED, plan) != plan.pins
    with pytest.raises(JobError, match="Nothing was tried"):
        await rehearse_backfill.run(paced, ASKED, plan)
    with pytest.raises(JobError, match=r"column younger of paced\.users is not in what") as failed:
        await rehearse_backfill.run(paced, asked, plan)
    assert "/db backup shop" in failed.value.next_step
    assert list(paced.folder.iterdir()) == []
    real = backfill.Params(database="shop", table="paced.users", set="younger = name")
    assert (await backfill.plan(paced, real)).attributes["rehearsed"] == "no"


async def test_without_a_proven_backup_there_is_nothing_to_try_on(
    paced: DirectJob,
) -> None:
    paced.database = replace(paced.database, name="bazaar")
    with pytest.raises(JobError, match="a backup of bazaar that was proven"):
        await rehearse_backfill.plan(paced, ASKED)


def test_it_touches_no_production_and_waits_for_nobody() -> None:
    assert rehearse_backfill.OPERATION.risk is Risk.NONE
    assert rehearse_backfill.OPERATION.is_beside
    assert rehearse_backfill.OPERATION.pinned == frozenset()
