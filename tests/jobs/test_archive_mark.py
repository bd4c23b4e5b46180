"""Before a recovery to a moment just now, the archive has something later than that moment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from jobs.archive_mark import mark_archive, needs_mark
from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings
from jobs.operation import Database, JobError, Tier
from jobs.routing import NoRouteError, closed
from postgres.backup.engine import Archive, Engine, Segment
from postgres.backup.wal_names import lsn_number, segment_name
from postgres.restore.target import END, LATEST, at_time
from store.connect import Store
from store.tables import archives
from tests.conftest import Target

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEGMENT = 16 * 1024 * 1024
SOON = timedelta(seconds=0.05)  # for what never comes
LONG = timedelta(seconds=30)  # for what is there


@dataclass
class Kept:
    """An engine of which only the archive is asked for."""

    segments: list[Segment] = field(default_factory=list)

    async def archive(self) -> Archive:
        return Archive(segments=tuple(self.segments))


@pytest.mark.parametrize(
    ("minutes", "method", "expected"),
    [
        (1, ArchiveMethod.RECEIVE, True),
        (1, ArchiveMethod.COMMAND, True),
        (1, ArchiveMethod.NONE, False),
        (15, ArchiveMethod.RECEIVE, True),
        (16, ArchiveMethod.RECEIVE, False),
    ],
)
def test_only_what_was_just_now_needs_a_mark(
    *, minutes: int, method: ArchiveMethod, expected: bool
) -> None:
    target = at_time(NOW - timedelta(minutes=minutes))
    assert needs_mark(target, method, now=NOW) is expected


def test_everything_that_there_is_needs_one_and_a_backups_end_does_not() -> None:
    assert needs_mark(LATEST, ArchiveMethod.RECEIVE, now=NOW)
    assert not needs_mark(END, ArchiveMethod.RECEIVE, now=NOW)


async def test_an_archive_that_does_not_get_it_is_said(store: Store, target: Target) -> None:
    with pytest.raises(JobError, match="The archive of orders did not get"):
        await _marked(store, target, Kept(), wait_max=SOON)


async def test_what_the_receiver_has_is_enough(store: Store, target: Target) -> None:
    await _received(store, "FFFFFFFF/0", timeline=1)
    lsn = await _marked(store, target, Kept())
    assert lsn_number(lsn) > 0


async def test_what_the_receiver_had_of_another_timeline_is_not(
    store: Store, target: Target
) -> None:
    await _received(store, "FFFFFFFF/0", timeline=2)
    with pytest.raises(JobError):
        await _marked(store, target, Kept(), wait_max=SOON)


async def test_a_whole_segment_with_it_is_enough_and_a_partial_one_is_not(
    store: Store, target: Target
) -> None:
    there = await _asked(target, "SELECT pg_current_wal_lsn()::text")
    number = lsn_number(str(there)) // SEGMENT + 1
    one = Segment(name=segment_name(1, number, SEGMENT), size_bytes=SEGMENT, at=NOW)
    with pytest.raises(JobError):
        await _marked(store, target, Kept([replace(one, is_partial=True)]), wait_max=SOON)
    assert await _marked(store, target, Kept([one]))


async def test_something_was_really_committed(store: Store, target: Target) -> None:
    await _received(store, "FFFFFFFF/0", timeline=1)
    xid = await _asked(target, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    await _marked(store, target, Kept())
    later = await _asked(target, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert int(str(later)) > int(str(xid))


async def test_a_server_that_is_gone_is_no_obstacle(store: Store) -> None:
    said: list[str] = []

    async def say(text: str) -> None:
        said.append(text)

    gone = _database("postgresql://nobody@127.0.0.1:1/orders")
    assert await mark_archive(store, gone, cast("Engine", Kept()), say=say, wait_max=SOON) == ""
    assert said[0].endswith("What was archived before is all that can be recovered.")
    # Nobody takes writes: a restore is what is wanted then, and it goes on with what is kept.
    nowhere = closed(gone, NoRouteError("Nobody takes writes.", next_step="Look."))
    assert await mark_archive(store, nowhere, cast("Engine", Kept()), say=say, wait_max=SOON) == ""
    assert said[1] == (
        "Nobody takes writes. What was archived before is all that can be recovered."
    )


async def _marked(store: Store, target: Target, kept: Kept, *, wait_max: timedelta = LONG) -> str:
    async def say(_: str) -> None: ...

    return await mark_archive(
        store, _database(target.dsn), cast("Engine", kept), say=say, wait_max=wait_max
    )


def _database(dsn: str) -> Database:
    return Database(
        name="orders",
        dsn=SecretStr(dsn),
        environment="production",
        tier=Tier.CRITICAL,
        channel="C0ORDERS",
        backup_folder=Path("/nowhere"),
        backups=BackupSettings(archive=ArchiveSettings(method=ArchiveMethod.RECEIVE)),
    )


async def _received(store: Store, lsn: str, *, timeline: int) -> None:
    async with store.begin() as conn:
        await conn.execute(
            sa.insert(archives).values(
                database="orders", at=NOW, keeper="w", method="receive", state="streaming",
                timeline=timeline, last_segment="", received_lsn=lsn, slot="", slot_state="",
                gaps=[], problem="", next_step="",
            )
        )  # fmt: skip


async def _asked(target: Target, query: str) -> object:
    conn = await asyncpg.connect(target.dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()
