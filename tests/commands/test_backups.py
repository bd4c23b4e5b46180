"""`/db backups`: what is there, how old and proven it is, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from commands import backups, prune
from commands.backups import Params
from jobs.backup_settings import PRUNE_CRON, BackupSettings
from jobs.operation import Answer
from store.backups import BackupRecord, Verification, record_backup, record_verification
from store.connect import Store
from store.keeping import hold_backup
from store.tables import archives
from tests.commands.conftest import NOW, DirectJob, JobMaker, facts
from tests.commands.shelf import CONTINUOUS, DAY, enter, following, shelved

SHOP = Params(database="shop")


def taken(age: timedelta, *, state: str = "complete") -> BackupRecord:
    at = NOW - age
    return BackupRecord(
        id=f"shop-{at:%Y%m%dT%H%M%SZ}", database="shop", kind="full", engine="native",
        state=state, folder="/backups", started_at=at, ended_at=at, seconds=3.0,
        size_bytes=1024, data_bytes=4096, start_lsn="0/1", end_lsn="0/2", timeline=1,
        system_identifier="1", major=17, manifest_sha256="x", row_counts={}, request_id=None,
    )  # fmt: skip


def proof(of: BackupRecord, age: timedelta, *, seconds: float = 5, ok: bool = True) -> Verification:
    return Verification(
        backup_id=of.id, at=NOW - age, ok=ok, restore_seconds=seconds, total_seconds=9,
        checks=[], request_id=None,
    )  # fmt: skip


async def lines(
    job: JobMaker, store: Store, made: list[BackupRecord], proofs: list[Verification]
) -> str:
    async with store.begin() as conn:
        for one in made:
            await record_backup(conn, one)
        for each in proofs:
            await record_verification(conn, each)
    return " ".join((await backups.answer(job(), SHOP)).lines)


async def test_a_database_without_a_backup_is_told_to_take_one(job: JobMaker, store: Store) -> None:
    assert "/db backup shop" in await lines(job, store, [], [])


async def test_fresh_and_proven_leaves_nothing_to_say(job: JobMaker, store: Store) -> None:
    fresh = taken(timedelta(hours=3))
    assert await lines(job, store, [fresh], [proof(fresh, timedelta(hours=1))]) == ""


@pytest.mark.parametrize(("hours", "behind"), [(26, False), (27, True)])
async def test_a_newest_backup_of_more_than_26_hours_is_behind(
    job: JobMaker, store: Store, hours: int, *, behind: bool
) -> None:
    old = taken(timedelta(hours=hours))
    said = await lines(job, store, [old], [proof(old, timedelta(hours=1))])
    assert ("newest usable backup is" in said) is behind


@pytest.mark.parametrize(("days", "behind"), [(8, False), (9, True)])
async def test_a_proof_of_more_than_8_days_is_behind(
    job: JobMaker, store: Store, days: int, *, behind: bool
) -> None:
    fresh = taken(timedelta(hours=1))
    said = await lines(job, store, [fresh], [proof(fresh, timedelta(days=days))])
    assert ("The last verification was" in said) is behind


async def test_a_backup_that_was_never_restored_is_not_believed(
    job: JobMaker, store: Store
) -> None:
    said = await lines(job, store, [taken(timedelta(hours=1))], [])
    assert "No backup was ever restored" in said


async def test_a_restore_slower_than_the_tier_allows_is_said(job: JobMaker, store: Store) -> None:
    fresh = taken(timedelta(hours=1))
    said = await lines(job, store, [fresh], [proof(fresh, timedelta(hours=1), seconds=901)])
    assert "longer than the tier allows (15 min)" in said


async def test_a_damaged_backup_counts_as_none_and_is_shown(job: JobMaker, store: Store) -> None:
    fresh = taken(timedelta(hours=1))
    said = await lines(job, store, [fresh], [proof(fresh, timedelta(hours=1), ok=False)])
    assert "no usable backup" in said
    table = (await backups.answer(job(), SHOP)).table
    assert table is not None
    assert "DAMAGED" in table.rows[0][table.columns.index("Verified")]


async def test_the_newest_stands_first(job: JobMaker, store: Store) -> None:
    await lines(job, store, [taken(timedelta(days=2)), taken(timedelta(days=1))], [])
    table = (await backups.answer(job(), SHOP)).table
    assert table is not None
    assert [row[1] for row in table.rows] == ["1 d", "2 d"]


# With `backups:` in the inventory


@pytest.fixture
def made(job: JobMaker) -> DirectJob:
    """A database with tiers, an archive and a schedule that prunes."""
    run = job()
    run.database = replace(run.database, backups=replace(CONTINUOUS, prune_cron=PRUNE_CRON))
    return run


def column(answer: Answer, name: str) -> list[str]:
    assert answer.table is not None
    return [row[answer.table.columns.index(name)] for row in answer.table.rows]


async def test_each_backup_says_its_tiers_and_until_when_it_is_kept(
    made: DirectJob, store: Store
) -> None:
    records = [
        shelved(made.database, "monthly", 100 * DAY, tiers=["monthly", "weekly"]),
        shelved(made.database, "gone", 60 * DAY),
        shelved(made.database, "held", 50 * DAY),
        shelved(made.database, "opens", 40 * DAY),
        shelved(made.database, "new", DAY, tiers=[]),
    ]
    await enter(store, *records, proven=["new"])
    async with store.begin() as conn:
        await hold_backup(
            conn, database="shop", backup_id="held", reason="the audit", at=NOW, request_id=9
        )
    found = await backups.answer(made, SHOP)
    assert column(found, "Backup") == ["new", "opens", "held", "gone", "monthly"]
    assert column(found, "Tiers")[0] == "by hand"
    assert column(found, "Tiers")[-1] == "monthly, weekly"
    assert column(found, "Kept until") == [
        "while needed", "2026-11-28", "on hold", "may go", "2027-08-14",
    ]  # fmt: skip
    assert facts(found)["On hold"] == "held by request 9: the audit"
    assert facts(found)["May go"] == "1, 4 kB: /db prune shop"


async def test_the_moments_that_can_be_recovered_are_said(made: DirectJob, store: Store) -> None:
    await enter(store, shelved(made.database, "new", DAY), proven=["new"])
    assert facts(await backups.answer(made, SHOP))["Recoverable"] == (
        "the end of a backup, 2026-11-21 12:00:00 UTC"
    )


async def test_what_is_lost_or_unknown_on_disk_is_said_with_what_to_do(
    made: DirectJob, store: Store
) -> None:
    records = [shelved(made.database, name, age * DAY) for name, age in (("a", 2), ("b", 1))]
    await enter(store, *records, proven=["b"])
    shelved(made.database, "stray", 3 * DAY)
    for path in (made.database.backup_folder / "a").iterdir():
        path.unlink()
    said = " ".join((await backups.answer(made, SHOP)).lines)
    assert "The files of a of shop are not in" in said
    assert "put them back" in said
    assert "stray in" in said
    async with store.begin() as conn:  # a query only reads
        assert (
            await conn.execute(sa.text("SELECT DISTINCT state FROM backups"))
        ).scalars().all() == ["complete"]


async def test_a_host_without_the_backups_says_so_and_no_more(
    made: DirectJob, store: Store
) -> None:
    await enter(store, shelved(made.database, "new", DAY), proven=["new"])
    made.database.backup_folder.rename(made.database.backup_folder.with_name("elsewhere"))
    found = await backups.answer(made, SHOP)
    assert found.lines == ()
    assert "not seen from the bot's host" in facts(found)["Recoverable"]


async def test_backups_that_should_be_gone_for_days_are_told_of(
    made: DirectJob, store: Store
) -> None:
    records = [
        shelved(made.database, "late", 33 * DAY), shelved(made.database, "opens", 31 * DAY),
        shelved(made.database, "new", DAY),
    ]  # fmt: skip
    await enter(store, *records, proven=["new"])
    assert "1 backup should be gone for days" in " ".join((await backups.answer(made, SHOP)).lines)
    made.now = NOW - 2 * DAY
    assert "gone for days" not in " ".join((await backups.answer(made, SHOP)).lines)


async def test_a_removal_that_stopped_half_way_is_told_of(made: DirectJob, store: Store) -> None:
    records = [shelved(made.database, name, age * DAY) for name, age in (("a", 2), ("b", 1))]
    await enter(store, replace(records[0], state="removing"), records[1], proven=["b"])
    found = await backups.answer(made, SHOP)
    assert "The removal of a was begun and has not ended" in " ".join(found.lines)
    assert column(found, "Verified")[1] == "being removed"
    await prune.run(made, prune.Params(database="shop"), await prune.plan(made, SHOP))  # type: ignore[arg-type]
    assert "removal of a" not in " ".join((await backups.answer(made, SHOP)).lines)


async def test_the_list_is_bounded(made: DirectJob, store: Store) -> None:
    made.database = replace(made.database, backups=BackupSettings())
    many = [taken(timedelta(hours=n)) for n in range(60)]
    await enter(store, *many, proven=[many[0].id])
    found = await backups.answer(made, SHOP)
    assert len(column(found, "Backup")) == 50
    assert facts(found)["Not listed"] == "10 older backups"


async def test_wal_that_is_kept_widens_what_is_recoverable(made: DirectJob, store: Store) -> None:
    record = shelved(made.database, "new", 3 * DAY)
    await enter(store, record, proven=["new"])
    following(made.database, record, segments=24)
    assert facts(await backups.answer(made, SHOP))["Recoverable"] == (
        "any moment from 2026-11-19 12:00:00 UTC to 2026-11-20 12:00:00 UTC"
    )


async def test_a_tier_without_a_backup_in_time_is_told_of_as_its_alert_is(
    made: DirectJob, store: Store
) -> None:
    await enter(store, shelved(made.database, "new", 3 * DAY), proven=["new"])
    said = " ".join((await backups.answer(made, SHOP)).lines)
    assert "The newest daily backup is 3 d old" in said
    assert "/db backup shop tier=daily" in said


async def test_the_archive_says_where_it_is_and_what_it_lacks(
    made: DirectJob, store: Store
) -> None:
    await enter(store, shelved(made.database, "new", DAY), proven=["new"])
    async with store.begin() as conn:
        await conn.execute(
            archives.insert().values(
                database="shop", at=NOW, keeper="k", method="receive", state="behind", timeline=1,
                last_segment="000000010000000000000007", lag_bytes=3 << 20, slot="s",
                slot_state="active", slot_bytes=0, gaps=[["a", "b"]], problem="", next_step="",
            )
        )  # fmt: skip
    found = await backups.answer(made, SHOP)
    assert facts(found)["WAL"] == "behind, 3 MB behind, 1 gap, up to 000000010000000000000007"
    assert "The WAL archive has 1 gap" in " ".join(found.lines)
