"""What doctor says about a server whose WAL is archived."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot.doctor_archive import Server, _wrong, examine_archive
from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings
from jobs.operation import Database
from jobs.reader import Readers
from tests.conftest import Target
from tests.jobs.support import database

GOOD = Server(
    wal_level="replica",
    senders_max=10,
    slots_max=10,
    keep_size_mb=10_240,
    slots=10,
    ours=1,
    archive_mode="on",
    archive_command="twokey wal push --folder /backups/orders %p %f",
    archive_seconds=60,
)


def orders(method: ArchiveMethod, dsn: str = "postgresql://127.0.0.1:1/orders") -> Database:
    return replace(
        database("orders", dsn),
        backup_folder=Path("/backups/orders"),
        backups=BackupSettings(archive=ArchiveSettings(method=method)),
    )


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        (ArchiveMethod.RECEIVE, {}, ""),
        (ArchiveMethod.RECEIVE, {"wal_level": "minimal"}, "wal_level is minimal"),
        (ArchiveMethod.RECEIVE, {"senders_max": 2}, "max_wal_senders is 2"),
        (ArchiveMethod.RECEIVE, {"ours": 0}, "All 10 replication slots"),
        (ArchiveMethod.RECEIVE, {"ours": 0, "slots": 9}, ""),
        (ArchiveMethod.RECEIVE, {"keep_size_mb": -1}, "at 10 GB, our slot can fill"),
        (ArchiveMethod.COMMAND, {}, ""),
        (ArchiveMethod.COMMAND, {"archive_mode": "off"}, "archive_mode is off"),
        (ArchiveMethod.COMMAND, {"archive_command": "cp"}, "does not name /backups/orders"),
        (ArchiveMethod.COMMAND, {"archive_command": None}, "does not name /backups/orders"),
        (ArchiveMethod.COMMAND, {"archive_seconds": 0}, "archive_timeout is off"),
        (ArchiveMethod.COMMAND, {"archive_seconds": 600}, "archive_timeout is 10 min"),
        (ArchiveMethod.ENGINE, {"archive_command": "pgbackrest", "archive_seconds": 0}, ""),
        (ArchiveMethod.ENGINE, {"archive_mode": "off"}, "archive_mode is off"),
        (ArchiveMethod.NONE, {}, "The slot twokey_orders is there, but nobody receives"),
        (ArchiveMethod.NONE, {"ours": 0}, ""),
    ],
)
def test_what_is_wrong_with_a_server(
    method: ArchiveMethod, changes: dict[str, object], says: str
) -> None:
    found = list(_wrong(orders(method), replace(GOOD, **changes)))  # type: ignore[arg-type]
    assert len(found) == bool(says)
    assert all(says in each.says and each.fix for each in found)


async def test_a_server_is_asked(target: Target) -> None:
    """The tests' own server has no limit for slots, and archives nothing itself."""
    readers = Readers()
    try:
        received = orders(ArchiveMethod.RECEIVE, target.dsn)
        [finding] = await examine_archive(received, readers.of(received))
        assert (finding.name, finding.ok) == ("WAL archive of orders", False)
        assert "max_slot_wal_keep_size = '10240MB'" in finding.fix
    finally:
        await readers.close()


async def test_a_server_that_is_away_is_not_told_twice() -> None:
    readers = Readers()
    away = orders(ArchiveMethod.RECEIVE)
    try:
        assert await examine_archive(away, readers.of(away)) == []
    finally:
        await readers.close()
