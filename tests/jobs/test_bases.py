"""What an incremental backup builds on, out of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.bases import newest_base
from jobs.operation import JobError
from postgres.backup.incremental import INCREMENTS_MAX
from store.backups import BackupRecord

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def backup(name: str, hour: int, base: str | None = None) -> BackupRecord:
    at = NOON + timedelta(hours=hour)
    return BackupRecord(
        id=name,
        database="orders",
        kind="incremental" if base else "full",
        engine="native",
        state="complete",
        folder="/backups",
        started_at=at,
        ended_at=at,
        seconds=1.0,
        size_bytes=1,
        data_bytes=1,
        start_lsn="0/2000028",
        end_lsn="0/2000100",
        timeline=1,
        system_identifier="7",
        major=17,
        manifest_sha256="",
        row_counts={},
        request_id=None,
        base=base,
    )


FULL, ONE, TWO = backup("full", 0), backup("one", 1, "full"), backup("two", 2, "one")


def chosen(*known: BackupRecord) -> str:
    found = newest_base(known, database="orders", engine="native", system_identifier="7", major=17)
    return found.id


def test_it_is_the_newest() -> None:
    assert chosen(FULL) == "full"
    assert chosen(TWO, FULL, ONE) == "two"
    assert chosen(FULL, ONE, backup("later", 5)) == "later"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "damaged"},
        {"state": "lost"},
        {"kind": "logical"},
        {"engine": "pgbackrest"},
        {"system_identifier": "8"},
        {"major": 16},
        {"base": "gone"},
    ],
)
def test_one_that_cannot_serve_is_passed_over(change: Mapping[str, object]) -> None:
    assert chosen(FULL, ONE, replace(TWO, **change)) == "one"  # type: ignore[arg-type]


def test_a_chain_with_a_damaged_link_serves_no_longer() -> None:
    assert chosen(FULL, replace(ONE, state="damaged"), TWO) == "full"


def test_where_none_serves_a_full_one_is_asked_for() -> None:
    with pytest.raises(JobError, match="no backup of orders") as refusal:
        chosen(replace(FULL, state="damaged"), ONE, TWO)
    assert "/db backup orders full" in refusal.value.next_step


def test_a_chain_ends_somewhere() -> None:
    known = [FULL]
    for number in range(INCREMENTS_MAX):
        assert chosen(*known) == known[-1].id
        known.append(backup(f"i{number}", number + 1, known[-1].id))
    with pytest.raises(JobError, match=f"number {INCREMENTS_MAX} on one full") as refusal:
        chosen(*known)
    assert "/db backup orders full" in refusal.value.next_step
