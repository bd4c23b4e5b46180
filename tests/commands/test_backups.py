"""`/db backups`: what is there, how old and proven it is, and what is missing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from commands import backups
from commands.backups import Params
from store.backups import BackupRecord, Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.conftest import NOW, JobMaker

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
    assert "DAMAGED" in table.rows[0][5]


async def test_the_newest_stands_first(job: JobMaker, store: Store) -> None:
    await lines(job, store, [taken(timedelta(days=2)), taken(timedelta(days=1))], [])
    table = (await backups.answer(job(), SHOP)).table
    assert table is not None
    assert [row[1] for row in table.rows] == ["1 d", "2 d"]
