"""What a recovery would lose is exact, a bound, or unknown, and never invented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.losses import Bounds, Losses, losses
from postgres.backup.facts import BackupFacts
from postgres.backup.wal_names import lsn_text
from postgres.restore.target import LATEST, RecoveryTarget, at_time, parse_target
from postgres.restore.window import Mark

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MB = 1024 * 1024
BACKUP = BackupFacts(
    id="orders-1", began_at=NOW - 40 * MINUTE, ended_at=NOW - 30 * MINUTE, seconds=1,
    compression="none", size_bytes=1, data_bytes=1, major=17, server_version="17.1",
    system_identifier="7", timeline=1, start_lsn=lsn_text(16 * MB), end_lsn=lsn_text(17 * MB),
    start_wal="0" * 24, end_wal="0" * 24, wal_segment_bytes=16 * MB, page_checksums=True,
    database="shop", superuser="postgres", settings={}, files=(), tables=(),
)  # fmt: skip


def mark(minutes_ago: float, lsn: int, xid: int) -> Mark:
    return Mark(at=NOW - minutes_ago * MINUTE, timeline=1, lsn=lsn_text(lsn), next_xid=xid)


MARKS = (mark(20, 20 * MB, 1000), mark(13, 30 * MB, 1100), mark(12, 31 * MB, 1130))
STAND = mark(0, 44 * MB, 1310)


def told(text: str, marks: tuple[Mark, ...] = MARKS, stand: Mark | None = STAND) -> str:
    target = parse_target(text, now=NOW)
    return losses(target, BACKUP, marks, stand=stand, now=NOW).words()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "2026-11-22 11:47:30 UTC",
            "between 180 and 210 transactions, between 13 MB and 14 MB of WAL, in 12 min 30 s",
        ),
        ("2026-11-22 11:48:00 UTC", "at most 180 transactions, at most 13 MB of WAL, in 12 min"),
        (
            "2026-11-22 11:35:00 UTC",
            "at least 310 transactions, between 24 MB and 27 MB of WAL, in 25 min",
        ),
        ("end", "at least 310 transactions, 27 MB of WAL, in 30 min"),
        ("lsn 0/1E00000", "between 180 and 210 transactions, 14 MB of WAL"),
        ("xid 1109", "200 transactions, between 13 MB and 14 MB of WAL"),
        ("before xid 1109", "201 transactions, between 13 MB and 14 MB of WAL"),
        ("point before-release", "an unknown number of transactions, at most 27 MB of WAL"),
        ("latest", "nothing that was archived"),
    ],
)
def test_what_is_lost_is_counted_between_marks(target: str, expected: str) -> None:
    assert told(target) == expected


def test_without_marks_only_the_backups_own_end_is_a_bound() -> None:
    assert told("2026-11-22 11:47:30 UTC", marks=()) == (
        "an unknown number of transactions, at most 27 MB of WAL, in 12 min 30 s"
    )


def test_a_server_that_cannot_be_asked_lost_at_least_what_the_last_mark_saw() -> None:
    assert told("2026-11-22 11:45:00 UTC", stand=None) == (
        "at least 30 transactions, at least 1 MB of WAL, in 15 min"
    )
    assert told("lsn 0/1E00000", marks=(), stand=None) == (
        "nobody knows how much: no mark of this database tells where the target lies"
    )


def test_nothing_is_lost_by_a_recovery_of_everything() -> None:
    assert losses(LATEST, BACKUP, MARKS, stand=STAND, now=NOW).is_nothing


STEPS = st.lists(
    st.tuples(st.integers(1, 100), st.integers(0, 10_000), st.integers(0, 50)),
    min_size=2, max_size=12,
)  # fmt: skip


@given(STEPS, st.data())
def test_the_truth_always_lies_within_the_bounds(
    steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    history = _history(steps)
    *past, stand = history
    truth = data.draw(st.sampled_from(past))
    kept = [one for one in past if data.draw(st.booleans())]
    found = losses(at_time(truth.at), _backup_before(history), kept, stand=stand, now=stand.at)
    assert truth.next_xid is not None
    assert stand.next_xid is not None
    _within(found.transactions, stand.next_xid - truth.next_xid)
    _within(found.wal_bytes, _bytes(stand) - _bytes(truth))
    by_lsn = RecoveryTarget(kind="lsn", value=truth.lsn)
    _within(_lost(by_lsn, history, kept, stand).wal_bytes, _bytes(stand) - _bytes(truth))


def _within(bounds: Bounds, truth: int) -> None:
    assert bounds.low <= truth
    assert bounds.high is None or truth <= bounds.high


def _lost(target: RecoveryTarget, history: list[Mark], kept: list[Mark], stand: Mark) -> Losses:
    return losses(target, _backup_before(history), kept, stand=stand, now=stand.at)


def _history(steps: list[tuple[int, int, int]]) -> list[Mark]:
    """What a server went through: time, WAL and transaction numbers only grow."""
    at, lsn, xid, made = NOW, 16 * MB, 700, []
    for seconds, written, transactions in steps:
        at, lsn, xid = at + timedelta(seconds=seconds), lsn + written, xid + transactions
        made.append(Mark(at=at, timeline=1, lsn=lsn_text(lsn), next_xid=xid))
    return made


def _backup_before(history: list[Mark]) -> BackupFacts:
    return BACKUP.model_copy(update={"end_lsn": history[0].lsn})


def _bytes(mark: Mark) -> int:
    high, low = mark.lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)
