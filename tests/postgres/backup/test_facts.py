"""What is known about backups, and what a copy may differ by."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from postgres.backup.counts import Side, Table, compare, is_quiet
from postgres.backup.facts import (
    BackupFacts,
    FileFact,
    TableCount,
    backup_folder,
    complete,
    list_backups,
    read_backup,
)
from postgres.backup.source import wal_file, wal_files
from postgres.errors import PostgresError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def facts(backup_id: str, began: datetime = NOON) -> BackupFacts:
    return BackupFacts(
        id=backup_id,
        began_at=began,
        ended_at=began,
        seconds=1.5,
        compression="zstd",
        size_bytes=10,
        data_bytes=100,
        major=17,
        server_version="17.10",
        system_identifier="7",
        timeline=1,
        start_lsn="0/2000028",
        end_lsn="0/2000100",
        start_wal="000000010000000000000002",
        end_wal="000000010000000000000002",
        wal_segment_bytes=16 * 1024 * 1024,
        page_checksums=True,
        database="shop",
        superuser="postgres",
        settings={},
        files=(FileFact(name="base.tar.zst", size_bytes=10, sha256="ab"),),
        tables=(),
    )


def made(folder: Path, backup: BackupFacts) -> None:
    partial = folder / f"{backup.id}.partial"
    partial.mkdir(parents=True)
    complete(partial, backup)


def count(before: int | None, after: int | None, **more: object) -> TableCount:
    return TableCount.model_validate(
        {"database": "shop", "table": "orders", "before": before, "after": after, **more}
    )


@pytest.mark.parametrize(
    ("table", "bounds"),
    [
        (count(10, 10), (10, 10)),
        (count(10, 15, inserted=5), (10, 15)),
        (count(15, 10, deleted=5), (10, 15)),
        # Five came and five went: at the backup's end there were between 5 and 15.
        (count(10, 10, inserted=5, deleted=5), (5, 15)),
        (count(10, 12, inserted=7, deleted=5), (5, 17)),
        (count(10, 3, inserted=3, rewritten=True), None),
        (count(None, 3), None),
        (count(3, None), None),
        (count(0, 0), (0, 0)),
        (count(None, None), None),
    ],
)
def test_how_many_rows_a_copy_may_have(table: TableCount, bounds: tuple[int, int] | None) -> None:
    assert table.bounds() == bounds


@pytest.mark.parametrize(
    ("before", "now", "quiet"),
    [
        (["10:10:", "10:10:"], ["10:10:"], True),
        (["10:10:"], ["11:11:"], False),
        (["10:12:10,11"], ["10:12:10,11"], False),
        (["10:11:10"], ["10:11:10"], False),
        (["10:10:", "11:11:"], ["11:11:"], False),
    ],
)
def test_nothing_was_written_only_if_no_transaction_was_open_or_began(
    before: list[str], now: list[str], *, quiet: bool
) -> None:
    sides = [Side(database=str(n), snapshot=text, tables={}) for n, text in enumerate(before)]
    assert is_quiet(sides, now) is quiet


def test_a_table_that_came_or_went_meanwhile_may_be_missing_from_the_copy() -> None:
    table = Table(name="orders", rows=5, file=1, inserted=0, deleted=0, note="")
    with_it = Side(database="shop", snapshot="1:1:", tables={"orders": table})
    without = Side(database="shop", snapshot="2:2:", tables={})
    assert [(c.before, c.after, c.rewritten) for c in compare([with_it], [without])] == [
        (5, None, True)
    ]
    assert [(c.before, c.after, c.rewritten) for c in compare([without], [with_it])] == [
        (None, 5, True)
    ]


@pytest.mark.parametrize(
    ("timeline", "lsn", "name"),
    [
        (1, "0/2000028", "000000010000000000000002"),
        (1, "0/FF000000", "0000000100000000000000FF"),
        (2, "1/6B000028", "00000002000000010000006B"),
    ],
)
def test_the_wal_file_that_holds_an_lsn(timeline: int, lsn: str, name: str) -> None:
    assert wal_file(timeline, lsn, 16 * 1024 * 1024) == name


def test_an_end_on_a_boundary_belongs_to_the_file_before_it() -> None:
    segment = 16 * 1024 * 1024
    assert wal_file(1, "0/3000000", segment, is_end=True) == "000000010000000000000002"
    assert wal_file(1, "0/3000001", segment, is_end=True) == "000000010000000000000003"


def test_all_wal_files_of_a_range_are_named_across_logs() -> None:
    assert wal_files("0000000200000001000000FE", "000000020000000200000001", 16 * 1024 * 1024) == (
        "0000000200000001000000FE",
        "0000000200000001000000FF",
        "000000020000000200000000",
        "000000020000000200000001",
    )


def test_only_complete_backups_are_listed_oldest_first(tmp_path: Path) -> None:
    made(tmp_path, facts("b", NOON))
    made(tmp_path, facts("a", NOON.replace(hour=13)))
    (tmp_path / "c.partial").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "twokey.json").write_text('{"id": "d"')
    found = list_backups(tmp_path)
    assert [backup.id for backup in found.backups] == ["b", "a"]
    assert found.unreadable == ("d",)


def test_a_folder_that_does_not_exist_holds_no_backups(tmp_path: Path) -> None:
    assert list_backups(tmp_path / "none").backups == ()


def test_facts_come_back_as_they_were_written(tmp_path: Path) -> None:
    made(tmp_path, facts("b"))
    assert read_backup(tmp_path, "b") == facts("b")


def test_a_missing_backup_is_said(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="no backup b in"):
        read_backup(tmp_path, "b")


def test_facts_that_name_files_elsewhere_are_refused(tmp_path: Path) -> None:
    outside = FileFact(name="../../etc/passwd", size_bytes=1, sha256="ab")
    made(tmp_path, facts("b").model_copy(update={"files": (outside,)}))
    with pytest.raises(PostgresError, match="outside of its folder"):
        read_backup(tmp_path, "b")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a.partial", "a b", "x" * 101])
def test_what_can_be_no_backups_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(PostgresError, match="no backup's name"):
        backup_folder(tmp_path, name)
