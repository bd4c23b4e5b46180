"""`/db verify`: a backup counts when a copy of it was restored and looked at."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from commands import backup, verify
from commands.verify import Params
from jobs.operation import Answer, CriticalQuery, JobError
from postgres.backup.native import read_backup
from postgres.backup.wal_archive import WalArchive
from postgres.errors import PostgresError
from postgres.restore.target import parse_target
from postgres.server import Server
from store.backups import (
    BackupRecord,
    Verification,
    find_backup,
    list_backups,
    newest_backup,
    record_verification,
)
from store.connect import Store
from store.tables import wal_marks
from tests.commands.conftest import DirectJob, JobMaker, connected, facts

HOUR = timedelta(hours=1)

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


async def archived(made: DirectJob, server: Server, store: Store) -> BackupRecord:
    """A backup, a row after it, all WAL kept, and a mark that says when that was."""
    folder = await backed_up(made)
    async with connected(server) as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS later (n int)")
        row = await conn.fetchrow(
            "SELECT pg_current_wal_lsn()::text AS lsn, system_identifier::text AS system,"
            " pg_walfile_name(pg_current_wal_lsn()) AS file,"
            " pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid FROM pg_control_system()"
        )
        await conn.execute("SELECT pg_switch_wal()")
    kept = WalArchive(made.database.backup_folder / "wal")
    taken = read_backup(made.database.backup_folder, folder.name)
    for path in sorted((server.data / "pg_wal").glob("0000*")):
        if taken.end_wal <= path.name <= row["file"]:
            await kept.push(path, path.name)
    async with store.begin() as conn:
        backup = await find_backup(conn, "shop", folder.name)
        assert backup is not None
        await conn.execute(
            sa.insert(wal_marks).values(
                database="shop", at=backup.ended_at + HOUR, system_identifier=row["system"],
                timeline=1, lsn=row["lsn"], next_xid=row["xid"],
            )
        )  # fmt: skip
    made.now = backup.ended_at + 2 * HOUR
    return backup


async def test_a_backup_is_proven_at_a_moment_that_nobody_chose(
    job: JobMaker, shop: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "CHANCE", lambda: 0.5)
    made = job(queries=QUERIES)
    backup = await archived(made, shop, store)
    params = Params(database="shop", at="random")
    plan = await verify.plan(made, params)
    target = plan.pins["target"]
    moment = parse_target(target, now=made.now).at
    assert moment is not None
    half = backup.ended_at + HOUR / 2
    assert half - timedelta(seconds=2) <= moment <= half
    assert plan.title == f"Verify backup {backup.id} to {target}"
    assert facts(plan)["To"] == target
    # People agree to this moment: no later throw moves it.
    monkeypatch.setattr(verify, "CHANCE", lambda: 0.9)
    assert await verify.pins(made, params, plan) == plan.pins
    answer = await verify.run(made, params, plan)
    assert answer.title == f"Backup {backup.id} is proven to {target}"
    async with store.begin() as conn:
        (listed,) = await list_backups(conn, "shop")
    assert listed.verified is not None
    assert (listed.verified.ok, listed.verified.target) == (True, target)
    assert listed.verified.data_bytes > 0
    assert listed.verified.wal_bytes > 0
    # By what it took, the next one is expected; and people see whether it fits.
    again = await verify.plan(made, SHOP)
    assert facts(again)["Restore"].startswith("expected ")
    assert facts(again)["Restore"].endswith(", allowed 15 min (tier critical)")


async def test_without_an_archive_chance_falls_back_to_the_backups_end(job: JobMaker) -> None:
    made = job()
    folder = await backed_up(made)
    plan = await verify.plan(made, Params(database="shop", at="random"))
    assert plan.pins["target"] == "end"
    assert plan.title == f"Verify backup {folder.name}"


async def test_a_moment_that_cannot_be_recovered_is_refused_with_what_can(job: JobMaker) -> None:
    made = job()
    await backed_up(made)
    for at in ("2001-01-01 00:00 UTC", "yesterday-ish"):
        with pytest.raises(PostgresError):
            await verify.plan(made, Params(database="shop", at=at))


async def test_a_restore_that_will_take_too_long_is_told_before_it_begins(
    job: JobMaker, store: Store
) -> None:
    made = job()
    folder = await backed_up(made)
    async with store.begin() as conn:
        backup = await find_backup(conn, "shop", folder.name)
        assert backup is not None
        slow = Verification(
            backup_id=backup.id, at=made.now, ok=True, restore_seconds=1000.0,
            total_seconds=1200.0, checks=(), request_id=None, data_bytes=backup.data_bytes,
        )  # fmt: skip
        await record_verification(conn, slow)
    plan = await verify.plan(made, SHOP)
    assert facts(plan)["Restore"] == "expected 16 min 40 s, allowed 15 min (tier critical)"
    assert "longer than the 15 min that the tier allows" in plan.warnings[0]
