"""`/db prune`: what is shown is what goes, what must stay stays, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from commands import prune
from commands.prune import Params
from jobs.operation import Database, JobError, Mode, Plan, Risk
from jobs.pinned import what_moved
from jobs.retention import NothingDueError
from postgres.backup.native_engine import NativeEngine
from store.connect import Store
from store.keeping import decide_alone, hold_backup
from tests.commands.conftest import NOW, DirectJob, JobMaker, facts
from tests.commands.shelf import BY_HAND, BYTES, CONTINUOUS, DAY, archived, enter, shelved

SHOP = Params(database="shop")
WAITS = sa.text("""
    SELECT count(*) > 0 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
     WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
""")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(job: JobMaker) -> DirectJob:
    """A run on a database with tiers and an archive."""
    run = job()
    run.database = replace(run.database, backups=CONTINUOUS)
    return run


async def a_year(store: Store, database: Database) -> list[str]:
    """Two that may go, the one that opens the window, one in it, and a monthly one."""
    records = [
        shelved(database, "old-a", 60 * DAY),
        shelved(database, "old-b", 50 * DAY, kind="incremental", base="old-a"),
        shelved(database, "monthly", 300 * DAY, tiers=["monthly"]),
        shelved(database, "opens", 40 * DAY),
        shelved(database, "new", DAY),
    ]
    await enter(store, *records, proven=["new"])
    return [record.id for record in records]


async def states(store: Store) -> dict[str, str]:
    async with store.begin() as conn:
        found = await conn.execute(sa.text("SELECT id, state FROM backups"))
        return {row.id: row.state for row in found}


def on_disk(database: Database) -> set[str]:
    return {path.name for path in database.backup_folder.iterdir()} - {"wal"}


async def test_the_plan_names_each_removal_and_all_that_stays_with_its_reason(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    archived(made.database, 70)
    plan = await prune.plan(made, SHOP)
    assert prune.OPERATION.risk is Risk.DESTRUCTIVE
    assert plan.title == "Prune the backups of shop: 2 backups of 8 kB"
    removed = [line for line in plan.statements if line.startswith("remove")]
    assert [line.split()[1] for line in removed] == ["old-b", "old-a"]
    assert "Was kept 30 d as daily, until 2026-10-23 12:00 UTC." in removed[1]
    kept = " | ".join(line for line in plan.statements if line.startswith("keep"))
    assert "The last 7 d are recovered from it and WAL." in kept
    assert "Kept 365 d as monthly." in kept
    shown = facts(plan)
    assert shown["Stays"] == "3 backups, 12 kB"
    assert shown["WAL"].startswith("30 files of 2.93 kB before 0000000100000025")
    assert plan.undo is None
    assert plan.warnings == ()


async def test_where_nothing_may_go_nobody_is_asked(made: DirectJob, store: Store) -> None:
    records = [shelved(made.database, "first", 9 * DAY), shelved(made.database, "new", 8 * DAY)]
    await enter(store, *records, proven=["new"])
    with pytest.raises(NothingDueError, match=r"Nothing of shop .* go on 2026-12-13") as refused:
        await prune.plan(made, SHOP)
    assert "/db backups shop" in refused.value.next_step


async def test_without_any_backup_there_is_nothing_to_remove(made: DirectJob) -> None:
    with pytest.raises(NothingDueError, match="no backup of shop"):
        await prune.plan(made, SHOP)


async def test_what_the_plan_names_goes_and_nothing_else(made: DirectJob, store: Store) -> None:
    await a_year(store, made.database)
    wal = archived(made.database, 70)
    answer = await prune.run(made, SHOP, await prune.plan(made, SHOP))
    assert answer.numbers == {
        "removed": 2, "kept_after_all": 0, "freed_bytes": answer.numbers["freed_bytes"],
        "wal_files": 30, "wal_bytes": 3000,
    }  # fmt: skip
    assert int(answer.numbers["freed_bytes"]) > 2 * BYTES
    assert on_disk(made.database) == {"monthly", "opens", "new"}
    assert [path for path in wal if path.exists()] == wal[30:]
    left = {name for name, state in (await states(store)).items() if state == "complete"}
    assert left == {"monthly", "opens", "new"}
    async with store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT removed_at, detail FROM backups WHERE id = 'old-a'")
        )
        removed_at, detail = found.one()
    assert removed_at == NOW
    assert detail["removal"]["request"] == 1
    assert detail["removal"]["why"].startswith("Was kept 30 d as daily")
    assert ("remove backups", Mode.RESUMABLE) in made.steps


async def test_a_second_prune_finds_nothing_and_the_same_plan_removes_nothing_more(
    made: DirectJob, store: Store, job: JobMaker
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    await prune.run(made, SHOP, plan)
    with pytest.raises(NothingDueError):
        archived(made.database, 5)
        await prune.plan(made, SHOP)
    other = job()
    other.database, other.request_id = made.database, 2
    again = await prune.run(other, SHOP, plan)
    assert (again.numbers["removed"], again.numbers["kept_after_all"]) == (0, 2)
    assert "old-a stays. It is gone already." in again.lines


async def test_a_hold_that_was_set_meanwhile_wins_and_is_said(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    async with store.begin() as conn:
        await hold_backup(
            conn, database="shop", backup_id="old-b", reason="the audit", at=NOW, request_id=9
        )
    assert await what_moved(prune.OPERATION, made, SHOP, plan) is None  # the WAL still may go
    answer = await prune.run(made, SHOP, plan)
    assert answer.lines == (
        "old-b stays. On hold by request 9: the audit",
        "old-a stays. old-b builds on it.",
    )
    assert answer.numbers["removed"] == 0
    assert {"old-a", "old-b"} <= on_disk(made.database)


async def test_the_plan_fits_as_long_as_anything_of_it_may_go(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    made.now = NOW + 10 * DAY  # others are due by now, which the plan does not name
    assert await what_moved(prune.OPERATION, made, SHOP, plan) is None
    no_wal = replace(made.database, backups=BY_HAND)
    made.database, made.now = no_wal, NOW
    plan = await prune.plan(made, SHOP)
    await prune.run(made, SHOP, plan)
    moved = await what_moved(prune.OPERATION, made, SHOP, plan)
    assert moved is not None
    assert "nothing of it may go any more" in moved


async def test_no_more_wal_goes_than_the_plan_says(made: DirectJob, store: Store) -> None:
    await a_year(store, made.database)
    wal = archived(made.database, 70)
    plan = await prune.plan(made, SHOP)
    made.now = NOW + 10 * DAY  # by now the window opens at the newest backup
    answer = await prune.run(made, SHOP, plan)
    assert answer.numbers["wal_files"] == 30
    assert [path for path in wal if path.exists()] == wal[30:]


async def test_whoever_decides_about_removals_decides_alone(made: DirectJob, store: Store) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with store.begin() as conn:
            await decide_alone(conn, "shop")
            task = tasks.create_task(prune.run(made, SHOP, plan))
            while not await waits(store):
                assert not task.done()
        await task
    assert task.result().numbers["removed"] == 2


async def waits(store: Store) -> bool:
    """Whether somebody waits for an advisory lock."""
    async with store.begin() as conn:
        return bool((await conn.execute(WAITS)).scalar_one())


async def test_a_list_that_nobody_agreed_to_removes_nothing(made: DirectJob, store: Store) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    forged = replace(plan, statements=(*plan.statements, "remove  new  full  daily  4 kB  Why not"))
    with pytest.raises(JobError, match="not the one that was agreed to"):
        await prune.run(made, SHOP, forged)
    assert len(on_disk(made.database)) == 5


async def test_what_has_lost_its_files_saves_nobody(made: DirectJob, store: Store) -> None:
    records = [shelved(made.database, name, age * DAY) for name, age in (("old", 60), ("new", 1))]
    await enter(store, *records, proven=["new"])
    made.database = replace(made.database, backups=BY_HAND)
    plan = await prune.plan(made, SHOP)
    for path in (made.database.backup_folder / "new").iterdir():
        path.unlink()
    answer = await prune.run(made, SHOP, plan)
    assert answer.lines == ("old stays. The newest complete backup.",)
    assert await states(store) == {"old": "complete", "new": "lost"}


async def test_what_a_backup_that_no_catalogue_has_builds_on_stays(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    shelved(made.database, "stray", 2 * DAY, kind="incremental", base="old-a")
    answer = await prune.run(made, SHOP, plan)
    assert answer.lines == ("old-a stays. stray builds on it, which is not in the catalogue.",)
    assert (await states(store))["old-a"] == "complete"


async def test_where_the_backups_are_not_mounted_nothing_happens(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    made.database.backup_folder.rename(made.database.backup_folder.with_name("elsewhere"))
    with pytest.raises(JobError, match="No backup of shop that the catalogue has is in") as failed:
        await prune.run(made, SHOP, plan)
    assert "Mount it" in failed.value.next_step
    assert set((await states(store)).values()) == {"complete"}


async def test_the_host_that_only_plans_names_the_same(made: DirectJob, store: Store) -> None:
    await a_year(store, made.database)
    archived(made.database, 70)
    here = await prune.plan(made, SHOP)
    made.database = replace(made.database, backup_folder=Path("/nonexistent/backups"))
    there = await prune.plan(made, SHOP)
    assert (there.statements, there.pins) == (here.statements, here.pins)
    assert "known where the worker runs" in facts(there)["WAL"]


async def test_old_and_unproven_backups_are_warned_of(made: DirectJob, store: Store) -> None:
    records = [shelved(made.database, "a", 60 * DAY), shelved(made.database, "b", 50 * DAY)]
    await enter(store, *records)
    warnings = " ".join((await prune.plan(made, SHOP)).warnings)
    assert "The newest backup is 50 d old" in warnings
    assert "None of the backups that stay was proven" in warnings


# In other processes


async def pruner(store: Store, database: Database, plan: Plan, **wanted: Any) -> Any:
    body = {
        "store": store.dsn.get_secret_value(), "folder": str(database.backup_folder),
        "now": NOW.isoformat(), "plan": asdict(plan), "die_at": 0, "request_id": 1, **wanted,
    }  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.commands.shelf", json.dumps(body, default=str), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def finished(processes: Sequence[Any]) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(each.communicate(b"go\n") for each in processes))
    return [json.loads(out) if out else {} for out, _ in said]


async def test_two_workers_at_once_remove_each_backup_once(made: DirectJob, store: Store) -> None:
    records = [shelved(made.database, f"old-{n}", (100 + n) * DAY) for n in range(40)]
    records += [shelved(made.database, "opens", 40 * DAY), shelved(made.database, "new", DAY)]
    await enter(store, *records, proven=["new"])
    archived(made.database, 70)
    plan = await prune.plan(made, SHOP)
    processes = [await pruner(store, made.database, plan, request_id=n) for n in (1, 2, 3)]
    answers = await finished(processes)
    assert [each.returncode for each in processes] == [0, 0, 0]
    assert sum(answer["removed"] for answer in answers) == 40
    assert on_disk(made.database) == {"opens", "new"}
    left = await states(store)
    assert {name for name, state in left.items() if state != "removed"} == {"opens", "new"}


@pytest.mark.parametrize("die_at", [1, 2, 4, 5])
async def test_a_worker_that_is_killed_in_the_middle_leaves_no_half_backup_that_counts(
    made: DirectJob, store: Store, die_at: int
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    process = await pruner(store, made.database, plan, die_at=die_at)
    await finished([process])
    assert process.returncode == -9
    engine = NativeEngine(dsn=made.database.dsn, folder=made.database.backup_folder)
    counted = {name for name, state in (await states(store)).items() if state == "complete"}
    whole = {each.id for each in (await engine.backups()).backups}
    assert counted <= whole
    assert {"monthly", "opens", "new"} <= counted
    assert all((made.database.backup_folder / name / "base.tar").exists() for name in whole)
    answer = await prune.run(made, SHOP, plan)
    assert answer.numbers["removed"] == 2
    assert on_disk(made.database) == {"monthly", "opens", "new"}


async def test_a_run_that_goes_on_after_a_crash_keeps_its_count(
    made: DirectJob, store: Store
) -> None:
    await a_year(store, made.database)
    plan = await prune.plan(made, SHOP)
    await prune.run(made, SHOP, plan)
    again = await prune.run(made, SHOP, plan)  # the same request, without its checkpoint
    assert again.numbers["removed"] == 2
    assert again.numbers["freed_bytes"] == 2 * BYTES
