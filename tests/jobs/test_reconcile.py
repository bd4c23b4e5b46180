"""Catalogue and disk: what is lost, what is back, what nobody knows, and what is only away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from jobs.keeping import Trimming, trimming
from jobs.operation import Database, Tier
from jobs.reconcile import Reconciled, findings, is_at_hand, reconcile
from jobs.retention import Trim
from postgres.backup.engine import Archive, Segment
from postgres.backup.facts import BackupFacts, Listing
from store.backups import BackupRecord
from tests.jobs.test_retention import taken

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def known(name: str, *, state: str = "complete", label: str = "") -> BackupRecord:
    return replace(taken(name, DAY, state=state).backup, label=label)


def facts(name: str, *, label: str = "", age: timedelta = DAY) -> BackupFacts:
    return BackupFacts(
        id=name, label=label, began_at=NOW - age, ended_at=NOW - age, seconds=1,
        compression="none", size_bytes=1, data_bytes=1, major=17, server_version="17",
        system_identifier="7", timeline=1, start_lsn="0/3000028", end_lsn="0/3000100",
        start_wal="000000010000000000000003", end_wal="000000010000000000000003",
        wal_segment_bytes=1 << 24, page_checksums=True, database="shop", superuser="postgres",
        settings={}, files=(), tables=(),
    )  # fmt: skip


def there(*names: str, unreadable: tuple[str, ...] = ()) -> Listing:
    return Listing(backups=tuple(facts(name) for name in names), unreadable=unreadable)


@pytest.mark.parametrize(
    ("catalogue", "listing", "expected"),
    [
        ([], there(), Reconciled()),
        ([known("a")], there("a"), Reconciled()),
        ([known("a"), known("b")], there("b"), Reconciled(lost=("a",))),
        ([known("a"), known("b")], there(), Reconciled(lost=("a", "b"), is_away=True)),
        ([known("a", state="lost"), known("b")], there("a", "b"), Reconciled(found=("a",))),
        ([known("a", state="lost"), known("b")], there("b"), Reconciled()),
        ([known("a", state="removing"), known("b")], there("b"), Reconciled()),
        ([known("a", state="removing"), known("b")], there("a", "b"), Reconciled()),
        ([known("a", state="damaged"), known("b")], there("b"), Reconciled(lost=("a",))),
        ([known("a")], there("a", "stray"), Reconciled(unknown=("stray",))),
        (
            [known("a"), known("b")],
            there("b", unreadable=("a",)),
            Reconciled(unreadable=("a",)),
        ),
        ([known("a", label="20261121-020000F")], Listing(
            backups=(facts("20261121-020000F"),), unreadable=()), Reconciled()),
        ([known("a")], Listing(
            backups=(facts("a"), facts("b", age=timedelta(minutes=1))), unreadable=()),
            Reconciled()),
    ],
)  # fmt: skip
def test_where_catalogue_and_disk_differ(
    catalogue: list[BackupRecord], listing: Listing, expected: Reconciled
) -> None:
    assert reconcile(catalogue, listing, NOW) == expected


def database(folder: Path) -> Database:
    return Database(
        name="shop", dsn=SecretStr("postgresql://nowhere"), environment="production",
        tier=Tier.CRITICAL, channel="C0ORDERS", backup_folder=folder,
    )  # fmt: skip


def test_each_difference_is_told_with_its_next_step(tmp_path: Path) -> None:
    many = tuple(f"b{number}" for number in range(8))
    seen = Reconciled(lost=many, unknown=("x",), unreadable=("y",))
    told = findings(database(tmp_path), seen)
    assert [finding.problem.split(" in ")[0].split(" of shop")[0] for finding in told] == [
        "The files of b3, b4, b5, b6, b7 and 3 others", "The facts of y", "x",
    ]  # fmt: skip
    [away] = findings(database(tmp_path), Reconciled(lost=many, is_away=True))
    assert away.problem.startswith("No backup of shop that the catalogue has")
    assert all(finding.next_step for finding in told)
    assert findings(database(tmp_path), Reconciled()) == ()


def test_backups_are_at_hand_where_their_folder_is(tmp_path: Path) -> None:
    assert is_at_hand(database(tmp_path))
    assert not is_at_hand(database(tmp_path / "nowhere"))


def segment(number: int, *, timeline: int = 1, age: timedelta = 2 * DAY) -> Segment:
    return Segment(name=f"{timeline:08X}00000000{number:08X}", size_bytes=10, at=NOW - age)


def test_wal_before_the_start_of_a_backup_goes_whatever_its_timeline() -> None:
    archive = Archive(segments=(segment(1), segment(2), segment(3), segment(2, timeline=2)))
    found = trimming(archive, Trim(backup_id="a", lsn="0/3000028"), [facts("a")])
    assert found == Trimming(before="000000010000000000000003", files=3, size_bytes=30)


@pytest.mark.parametrize(
    ("segments", "backup", "says"),
    [
        ([segment(1)], "b", "The facts of a are not at hand"),
        ([segment(1), segment(2, age=timedelta(hours=2))], "a", "maybe from another cluster"),
    ],
)
def test_wal_of_which_too_little_is_known_stays(
    segments: list[Segment], backup: str, says: str
) -> None:
    found = trimming(Archive(segments=tuple(segments)), Trim(backup_id="a", lsn="0/3000028"),
                     [facts(backup)])  # fmt: skip
    assert isinstance(found, str)
    assert says in found
