"""`/db verify`: a backup counts when a copy of it was restored and looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from commands import backup, verify
from commands.verify import Params
from jobs.operation import Answer, CriticalQuery, JobError
from store.backups import list_backups, newest_backup
from store.connect import Store
from tests.commands.conftest import DirectJob, JobMaker

SHOP = Params(database="shop")
QUERIES = (CriticalQuery(name="orders add up", sql="SELECT count(*) FROM orders", expect="5000"),)


async def backed_up(made: DirectJob) -> Path:
    params = backup.Params(database="shop")
    answer = await backup.run(made, params, await backup.plan(made, params))
    return made.database.backup_folder / str(answer.numbers["backup"])


async def proven(made: DirectJob) -> Answer:
    return await verify.run(made, SHOP, await verify.plan(made, SHOP))


async def test_there_is_nothing_to_verify_before_the_first_backup(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no usable backup") as refused:
        await verify.plan(job(), SHOP)
    assert "/db backup shop" in refused.value.next_step


async def test_an_unknown_backup_is_named(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no backup shop-1999 of shop"):
        await verify.plan(job(), Params(database="shop", backup="shop-1999"))


async def test_a_good_backup_is_proven_with_its_restore_time(job: JobMaker, store: Store) -> None:
    made = job(queries=QUERIES)
    await backed_up(made)
    answer = await proven(made)
    assert answer.title == "Backup shop-20261122T120000Z-1 is proven"
    assert "within the 15 min of tier critical" in answer.lines[0]
    assert answer.table is not None
    names = [row[0] for row in answer.table.rows]
    assert names == [
        "files", "manifest", "restore", "amcheck", "row counts", "critical queries",
        "page checksums",
    ]  # fmt: skip
    async with store.begin() as conn:
        (listed,) = await list_backups(conn, "shop")
        assert await newest_backup(conn, "shop", verified=True) is not None
    assert listed.verified is not None
    assert listed.verified.ok
    assert listed.verified.restore_seconds > 0


async def test_a_flipped_byte_is_found_and_the_backup_marked(job: JobMaker, store: Store) -> None:
    made = job()
    folder = await backed_up(made)
    (archive,) = folder.glob("base.tar*")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(JobError, match="is damaged") as found:
        await proven(made)
    assert archive.name in found.value.problem
    assert "Take a new backup" in found.value.next_step
    async with store.begin() as conn:
        (listed,) = await list_backups(conn, "shop")
        assert await newest_backup(conn, "shop") is None
    assert listed.backup.state == "damaged"


async def test_a_missing_wal_archive_is_found(job: JobMaker) -> None:
    made = job()
    folder = await backed_up(made)
    (wal,) = folder.glob("pg_wal.tar*")
    wal.unlink()
    with pytest.raises(JobError, match=f"{wal.name} is missing"):
        await proven(made)


async def test_a_critical_query_with_another_answer_fails_the_verification(
    job: JobMaker,
) -> None:
    wrong = (CriticalQuery(name="orders", sql="SELECT count(*) FROM orders", expect="1"),)
    made = job(queries=wrong)
    await backed_up(made)
    with pytest.raises(JobError, match="orders says '5000' instead of '1'"):
        await proven(made)


async def test_the_copy_is_removed_whatever_was_found(job: JobMaker) -> None:
    made = job()
    folder = await backed_up(made)
    await proven(made)
    assert list(made.folder.iterdir()) == []
    (folder / "twokey.json").write_text("{}")
    with pytest.raises(JobError):
        await proven(made)
    assert list(made.folder.iterdir()) == []


async def test_a_backup_whose_folder_is_gone_is_said(job: JobMaker) -> None:
    made = job()
    shutil.rmtree(await backed_up(made))
    with pytest.raises(Exception, match="There is no backup"):
        await proven(made)


async def test_what_is_pinned_is_the_backup_and_its_manifest(job: JobMaker) -> None:
    made = job()
    await backed_up(made)
    plan = await verify.plan(made, SHOP)
    assert plan.pins["backup"] == "shop-20261122T120000Z-1"
    assert await verify.pins(made, SHOP, plan) == plan.pins
