"""Verifying backups at their own end and at later moments, through their engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from postgres.backup.facts import FACTS_FILE, TableCount
from postgres.errors import PostgresError
from postgres.restore.looks import Query
from postgres.restore.report import VerificationReport
from postgres.restore.target import END, RecoveryTarget, at_time, parse_target
from postgres.restore.verification import verify_backup
from tests.postgres.restore.conftest import History, flip

LOOKS = ["amcheck", "row counts", "critical queries", "page checksums"]


async def verified(
    history: History,
    home: Path,
    target: RecoveryTarget,
    *,
    name: str = "second",
    queries: Sequence[Query] = (),
) -> VerificationReport:
    report = await verify_backup(
        history.engine,
        history.backups[name],
        home / "work",
        environ=os.environ,
        target=target,
        marks=history.marks,
        critical_queries=queries,
    )
    assert not list((home / "work").glob("*"))
    return report


def found(report: VerificationReport) -> dict[str, str]:
    """What each check said that was not content."""
    return {check.name: check.detail for check in report.checks if not check.ok}


async def test_a_backup_is_verified_at_a_moment_long_after_it(history: History, home: Path) -> None:
    moment = history.moments["quiet"].at
    newest: Query = ("the last row", "SELECT count(*) FROM rows WHERE note = 'last'", "1")
    report = await verified(history, home, at_time(moment), queries=[newest])
    assert report.ok, report.problems
    assert [check.name for check in report.checks] == [
        "wal",
        "files",
        "manifest",
        "restore",
        *LOOKS,
    ]
    assert report.target == str(at_time(moment))
    assert report.reached_at
    assert history.moments["promoted"].at < report.reached_at <= moment
    assert report.wal_bytes > 16 * 1024 * 1024
    rows = next(check.detail for check in report.checks if check.name == "row counts")
    assert rows == "3 rows in 1 tables were read; nobody counted them at that moment"
    restored = next(check.detail for check in report.checks if check.name == "restore")
    assert "Nothing was written from" in restored


async def test_at_its_own_end_row_counts_must_hold(history: History, home: Path) -> None:
    wrong = TableCount(database="postgres", table="public.rows", before=9, after=9)
    facts = history.backups["second"].model_copy(update={"tables": (wrong,)})
    report = await verify_backup(history.engine, facts, home / "work", environ=os.environ)
    assert found(report) == {"row counts": "postgres public.rows has 2 rows instead of 9"}
    assert (report.target, report.reached_at) == ("end", facts.ended_at)


async def test_at_the_end_of_a_later_backup_its_row_counts_must_hold(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    later = own.backups["second"]
    wrong = TableCount(database="postgres", table="public.rows", before=9, after=9)
    file = own.folder / "second" / FACTS_FILE
    file.unlink()
    file.write_text(later.model_copy(update={"tables": (wrong,)}).model_dump_json())
    target = parse_target(later.end_lsn, now=later.ended_at)
    report = await verified(own, home, target, name="first")
    assert found(report) == {"row counts": "postgres public.rows has 2 rows instead of 9"}


async def test_missing_wal_is_a_finding_and_nothing_is_unpacked(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    (own.folder / "wal" / "000000010000000000000004").unlink()
    target = at_time(own.moments["raised"].at)
    report = await verified(own, home, target, name="first")
    assert list(found(report)) == ["wal"]
    assert "WAL file 000000010000000000000004 is missing" in found(report)["wal"]


async def test_damaged_wal_and_damaged_files_are_told_apart(history: History, home: Path) -> None:
    own = history.copy(home)
    flip(own.folder / "wal" / "000000010000000000000003", 0x90)
    target = at_time(own.moments["raised"].at)
    report = await verified(own, home, target, name="first")
    assert list(found(report)) == ["restore"]
    assert "000000010000000000000003" in found(report)["restore"]
    flip(own.folder / "first" / "base.tar.zst", 5_000)
    report = await verified(own, home, END, name="first")
    assert "base.tar.zst" in found(report)["files"]  # whether it still unpacks is chance


async def test_a_moment_that_the_wal_could_not_lead_to_is_no_verdict(
    history: History, home: Path
) -> None:
    with pytest.raises(PostgresError, match="before the end of the oldest"):
        await verified(history, home, at_time(history.backups["second"].began_at))
