"""From what a rehearsal's copy is made, and when it would tell nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from jobs import rehearsing_choice
from jobs.operation import Database, JobError, Tier
from jobs.reader import Readers
from jobs.recoverable import Kept
from jobs.rehearsing_choice import (
    check_room,
    must_be_abreast,
    proven_backup,
    room_needed,
    settings_of_copy,
    way_to,
    work_of,
)
from postgres.backup.engine import Archive, Segment
from postgres.backup.facts import BackupFacts
from postgres.migrate.books.opening import book_of
from postgres.migrate.words import (
    Lock,
    Review,
    ReviewedStatement,
    StatementKind,
    Tool,
    Touched,
    Work,
)
from postgres.restore.target import END
from postgres.restore.window import Choice
from store.backups import Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.archived import record_of
from tests.commands.conftest import DirectJob
from tests.conftest import Target

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MB = 2**20


def facts(name: str = "shop-1") -> BackupFacts:
    return BackupFacts(
        id=name, kind="full", base=None, began_at=NOW, ended_at=NOW + timedelta(minutes=1),
        seconds=1, compression="none", size_bytes=1, data_bytes=100 * MB, major=17,
        server_version="17", system_identifier="7", timeline=1, start_lsn="0/2000028",
        end_lsn="0/2000100", start_wal="000000010000000000000002",
        end_wal="000000010000000000000002", wal_segment_bytes=16 * MB, page_checksums=True,
        database="shop", superuser="postgres", settings={}, files=(), tables=(),
    )  # fmt: skip


def choice() -> Choice:
    return Choice(target=END, backup=facts(), timeline=1)


def reviewed(work: Work, size_bytes: int) -> Review:
    touched = Touched(table="a.t", lock=Lock.SHARE, work=work, size_bytes=size_bytes)
    one = ReviewedStatement(
        index=0, sql="", line=1, node="", kind=StatementKind.BLOCKING, touched=(touched,)
    )
    return Review(statements=(one,))


def job(store: Store, folder: Path, dsn: str = "postgresql://nowhere") -> DirectJob:
    database = Database(
        name="shop", dsn=SecretStr(dsn), environment="production", tier=Tier.CRITICAL,
        channel="C0", backup_folder=folder,
    )  # fmt: skip
    return DirectJob(
        database=database, store=store, reader=Readers().of(database), folder=folder, request_id=1
    )


async def test_the_newest_proven_backup_is_taken_and_no_other(store: Store, tmp_path: Path) -> None:
    made = job(store, tmp_path)
    old = record_of(facts("shop-old"))
    new = replace(record_of(facts("shop-new")), started_at=NOW + timedelta(days=1))
    proof = Verification(
        backup_id="shop-old", at=NOW, ok=True, restore_seconds=1, total_seconds=1, checks=[],
        request_id=None,
    )  # fmt: skip
    async with store.begin() as conn:
        await record_backup(conn, old)
        await record_backup(conn, new)
        await record_verification(conn, proof)
    assert (await proven_backup(made)).id == "shop-old"
    assert (await proven_backup(made, "shop-old")).id == "shop-old"
    with pytest.raises(JobError, match="the backup shop-new of shop that was proven"):
        await proven_backup(made, "shop-new")


@pytest.mark.parametrize(
    ("files", "kind"),
    [((), "end"), (("000000010000000000000002", "000000010000000000000003"), "latest")],
)
def test_the_copy_goes_as_far_as_the_archive_leads(files: tuple[str, ...], kind: str) -> None:
    segments = tuple(Segment(name=name, size_bytes=16 * MB, at=NOW) for name in files)
    archive = Archive(segments=segments)
    kept = Kept(engine=None, backups=(facts(),), archive=archive, marks=(), damaged=frozenset())  # type: ignore[arg-type]
    assert way_to(kept, "shop-1").target.kind == kind


def test_what_is_written_anew_needs_room_twice() -> None:
    plain = room_needed(choice(), work_of([reviewed(Work.CATALOG, 50 * MB)]))
    anew = work_of([reviewed(Work.REWRITE, 50 * MB), reviewed(Work.SCAN, 30 * MB)])
    assert room_needed(choice(), anew) == plain + 160 * MB
    assert plain > 100 * MB


def test_without_room_nothing_is_unpacked(tmp_path: Path) -> None:
    check_room(tmp_path, choice(), 0)
    with pytest.raises(JobError, match="are free in") as refused:
        check_room(tmp_path, choice(), 2**60)
    assert "TWOKEY_HOME" in refused.value.next_step


def test_event_triggers_work_on_the_copy_as_they_do_on_the_target() -> None:
    assert settings_of_copy(17)["event_triggers"] == "on"
    assert "event_triggers" not in settings_of_copy(16)
    assert settings_of_copy(16) == rehearsing_choice.SETTINGS


async def test_a_copy_of_before_a_migration_is_refused_by_its_name(
    store: Store, target: Target, tmp_path: Path
) -> None:
    made, book = job(store, tmp_path, target.dsn), book_of(Tool.DBMATE)
    conn = await asyncpg.connect(target.dsn)
    other = await asyncpg.connect(target.dsn.replace(target.name, "postgres"))
    try:
        await must_be_abreast(made, book, "shop-1", other)  # neither has a book
        await conn.execute(
            "CREATE TABLE schema_migrations (version varchar PRIMARY KEY);"
            "INSERT INTO schema_migrations VALUES ('20260101')"
        )
        await must_be_abreast(made, book, "shop-1", conn)
        with pytest.raises(JobError, match="20260101 was applied to shop after") as refused:
            await must_be_abreast(made, book, "shop-1", other)
        assert "/db backup shop" in refused.value.next_step
    finally:
        await conn.close()
        await other.close()
        await made.reader.close()
