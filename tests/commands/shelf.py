"""Backups on disk and in the catalogue that no server took, and prunes in other processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from commands import prune
from jobs.backup_settings import TIERS, ArchiveMethod, ArchiveSettings, BackupSettings
from jobs.operation import Database, Plan, Tier
from jobs.reader import Readers
from postgres.backup.facts import FACTS_FILE, BackupFacts, BackupKind
from postgres.backup.wal_names import lsn_number, lsn_text, segment_at
from store.backups import BackupRecord, Verification, record_backup, record_verification
from store.connect import Store, connect
from tests.commands.conftest import NOW, DirectJob

CONTINUOUS = BackupSettings(archive=ArchiveSettings(method=ArchiveMethod.RECEIVE), tiers=TIERS)
BY_HAND = BackupSettings()
SEGMENT = 16 * 1024 * 1024
DAY = timedelta(days=1)
BYTES = 4096


def shelved(
    database: Database, name: str, age: timedelta, *, now: datetime = NOW, **changes: Any
) -> BackupRecord:
    """A backup with a file on disk; `changes` are of its record."""
    at = now - age
    lsn = (1000 - age // DAY) * 10 * SEGMENT
    record = BackupRecord(
        id=name, database=database.name, kind="full", engine="native", state="complete",
        folder=str(database.backup_folder), started_at=at, ended_at=at, seconds=1.0,
        size_bytes=BYTES, data_bytes=BYTES, start_lsn=lsn_text(lsn), end_lsn=lsn_text(lsn + 256),
        timeline=1, system_identifier="7", major=17, manifest_sha256="x", row_counts={},
        request_id=None, tiers=["daily"],
    )  # fmt: skip
    record = replace(record, **changes)
    facts = BackupFacts(
        id=name, kind=cast("BackupKind", record.kind), base=record.base, began_at=at,
        ended_at=at, seconds=1, compression="none", size_bytes=BYTES, data_bytes=BYTES,
        major=17, server_version="17", system_identifier="7", timeline=1,
        start_lsn=record.start_lsn, end_lsn=record.end_lsn,
        start_wal=segment_at(1, record.start_lsn, SEGMENT),
        end_wal=segment_at(1, record.end_lsn, SEGMENT), wal_segment_bytes=SEGMENT,
        page_checksums=True, database="shop", superuser="postgres", settings={}, files=(),
        tables=(),
    )  # fmt: skip
    place = database.backup_folder / name
    place.mkdir(parents=True)
    (place / "base.tar").write_bytes(b"x" * BYTES)
    (place / FACTS_FILE).write_text(facts.model_dump_json())
    return record


def archived(database: Database, days: int) -> list[Path]:
    """A WAL file for each of the last days, completed then."""
    folder = database.backup_folder / "wal"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for day in range(days, 0, -1):
        path = folder / segment_at(1, lsn_text((1000 - day) * 10 * SEGMENT), SEGMENT)
        path.write_bytes(b"w" * 100)
        moment = (NOW - day * DAY).timestamp()
        os.utime(path, (moment, moment))
        paths.append(path)
    return paths


def following(database: Database, record: BackupRecord, *, segments: int) -> None:
    """All WAL from the start of a backup on, a file an hour."""
    folder = database.backup_folder / "wal"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(segments + 1):
        lsn = lsn_text(lsn_number(record.start_lsn) + number * SEGMENT)
        path = folder / segment_at(1, lsn, SEGMENT)
        path.write_bytes(b"w" * 100)
        moment = (record.started_at + number * timedelta(hours=1)).timestamp()
        os.utime(path, (moment, moment))


async def enter(store: Store, *records: BackupRecord, proven: Sequence[str] = ()) -> None:
    """Enter backups into the catalogue; those `proven` were restored once."""
    async with store.begin() as conn:
        for record in records:
            await record_backup(conn, record)
        for name in proven:
            proof = Verification(
                backup_id=name, at=NOW, ok=True, restore_seconds=5, total_seconds=9, checks=[],
                request_id=None,
            )  # fmt: skip
            await record_verification(conn, proof)


async def work(wanted: dict[str, Any]) -> None:
    """Prune as a worker that has not heard of any other; dies at the file `die_at`, if said."""
    if wanted["die_at"]:
        _die_at(wanted["die_at"])
    store = connect(wanted["store"], size=2)
    home = Path(wanted["folder"])
    database = Database(
        name="shop", dsn=SecretStr("postgresql://nowhere"), environment="production",
        tier=Tier.CRITICAL, channel="C0ORDERS", backup_folder=home, backups=CONTINUOUS,
    )  # fmt: skip
    job = DirectJob(
        database=database, store=store, reader=Readers().of(database), folder=home,
        request_id=wanted["request_id"], now=datetime.fromisoformat(wanted["now"]),
    )  # fmt: skip
    params = prune.Params(database="shop")
    plan = Plan(**wanted["plan"])
    sys.stdin.readline()  # so that all begin together
    answer = await prune.run(job, params, plan)
    await store.close()
    sys.stdout.write(json.dumps(dict(answer.numbers)))


def _die_at(number: int) -> None:
    """Count what the removal does to the disk, and end without a word before the `number`th."""
    left = number

    def counting(call: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return called

    Path.rename = counting(Path.rename)  # type: ignore[method-assign]
    os.unlink = counting(os.unlink)
    os.rmdir = counting(os.rmdir)


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1])))
