"""`/db readiness`: one database in full, or a line for each of many, soon."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from commands import readiness
from commands.readiness import Params
from jobs.backup_settings import TIERS, VERIFY_CRON, BackupSettings
from jobs.operation import JobError
from store.backups import record_backup, record_verification
from store.connect import Store
from tests.bot.test_scheduled import a_backup
from tests.commands.conftest import NOW, JobMaker
from tests.jobs.test_timetable import a_database
from tests.jobs.test_verifying import _proof

GUIDE = BackupSettings(tiers=TIERS, verify_cron=VERIFY_CRON)


async def test_one_database_is_told_with_its_alerts_and_what_comes_next(
    job: JobMaker, store: Store
) -> None:
    made = job()
    made.database = replace(a_database(settings=GUIDE), name="orders")
    async with store.begin() as conn:
        await record_backup(conn, a_backup("orders-1", NOW))
        proof = _proof("orders-1", 0, ok=False)
        assert proof is not None
        await record_verification(conn, proof)
    answer = await readiness.answer(made, Params(database="orders"))
    assert answer.title.startswith("Readiness of orders: ")
    assert answer.lines[0].startswith("critical: VerificationFailed. Backup orders-1 did not pass")
    assert "backup-daily orders 2026-11-23 02:00 UTC" in answer.lines[-1]
    assert answer.table is not None
    said = {row[1]: row[0] for row in answer.table.rows}
    assert said["2 · Proven by a restore"] == "NO"
    assert said["1 · By the clock"] == "ok"
    assert said["2. Restores tested"] == "NO"
    assert "2. Restores tested: /db verify orders" in answer.lines


async def test_a_hundred_databases_are_told_at_once_the_worst_first(
    job: JobMaker, store: Store
) -> None:
    made = job()
    made.databases = {
        f"db{number:03}": a_database(f"db{number:03}", GUIDE) for number in range(120)
    }
    async with store.begin() as conn:
        for name in list(made.databases)[1:]:
            await record_backup(conn, a_backup(f"{name}-1", NOW, database=name))
    began = time.monotonic()
    answer = await readiness.answer(made, Params())
    assert time.monotonic() - began < 20  # far less; the ack of a command waits for it
    assert answer.title == "0 of 120 databases are ready"
    assert answer.table is not None
    assert len(answer.table.rows) == 100
    assert answer.table.rows[0][0] == "db000"
    assert "And 20 more" in answer.lines[1]


async def test_an_inventory_without_databases_is_said(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no database in the inventory"):
        await readiness.answer(job(), Params())
