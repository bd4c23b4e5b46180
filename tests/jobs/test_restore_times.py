"""A restore is estimated by those that were made, and not at all when there were none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.restore_times import Sample, estimate, samples_of
from postgres.backup.facts import BackupFacts
from store.backups import Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.archived import record_of
from tests.jobs.test_losses import BACKUP

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def sample(seconds: float, data: int, wal: int = 0) -> Sample:
    return Sample(seconds=seconds, data_bytes=data, wal_bytes=wal)


def test_nothing_is_known_before_the_first_restore() -> None:
    assert estimate([], data_bytes=1000) is None
    assert estimate([sample(5, 0)], data_bytes=1000) is None


def test_it_takes_as_long_for_each_byte_as_the_middle_one_did() -> None:
    made = [sample(1, 1000), sample(2, 500, 500), sample(100, 1000)]
    found = estimate(made, data_bytes=3000, wal_bytes=1000)
    assert found is not None
    assert (found.seconds, found.samples) == (8, 3)


@pytest.mark.parametrize(("ok", "seconds"), [(False, 4.0), (True, 0.0)])
async def test_what_failed_says_nothing_of_the_pace(
    store: Store, *, ok: bool, seconds: float
) -> None:
    await _enter(store, BACKUP, ok=ok, seconds=seconds)
    assert await samples_of(store, "shop") == []


async def test_restores_of_one_database_count_the_newest_first(store: Store) -> None:
    facts = BACKUP.model_copy(update={"data_bytes": 700})
    await _enter(store, facts, seconds=4.0, data_bytes=1000, wal_bytes=50, at=NOW)
    await _enter(store, facts, seconds=3.0, at=NOW - timedelta(days=1))
    assert await samples_of(store, "shop") == [sample(4.0, 1000, 50), sample(3.0, 700)]
    assert await samples_of(store, "other") == []


async def _enter(
    store: Store,
    facts: BackupFacts,
    *,
    ok: bool = True,
    seconds: float,
    data_bytes: int = 0,
    wal_bytes: int = 0,
    at: datetime = NOW,
) -> None:
    async with store.begin() as conn:
        await record_backup(conn, record_of(facts))
        await record_verification(
            conn,
            Verification(
                backup_id=facts.id,
                at=at,
                ok=ok,
                restore_seconds=seconds,
                total_seconds=seconds,
                checks=[],
                request_id=None,
                data_bytes=data_bytes,
                wal_bytes=wal_bytes,
            ),
        )
