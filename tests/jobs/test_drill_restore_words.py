"""What a rehearsed restore would have lost, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from jobs.backup_settings import ArchiveMethod
from jobs.drill_restore_words import (
    Copied,
    Disaster,
    archive_words,
    cost_of_restore,
    disaster_json,
    disaster_of,
    holds_until,
    is_all_lost,
    is_of_the_backup,
    loss_words,
    newer_unproven,
    source_of_disaster,
)
from postgres.backup.frozen import Stand
from postgres.cluster.loss import Kept, Loss, Present, Span, weigh
from postgres.errors import DamagedError, PostgresError
from postgres.restore.ending import UnreachedError
from postgres.restore.window import Mark
from store.backups import BackupRecord, ListedBackup, Verification

T: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
SEGMENT: Final = "000000010000000000000005"
DISASTER: Final = Disaster(
    at=T, acked_at=T - timedelta(milliseconds=5), stand=Stand(last=SEGMENT, is_open=True)
)
COPIED: Final = Copied(
    backup_id="shop-1", reached_lsn="0/5000000", reached_at=T - timedelta(minutes=20),
    holds=T - timedelta(minutes=10), lay_out_seconds=1.0, replay_seconds=2.0,
    promote_seconds=0.5, row_seconds=4.0, usable_seconds=6.0,
)  # fmt: skip


def loss(*, there: range, of: int = 100) -> Loss:
    """A row each 10 ms up to the disaster, of which the copy has some."""
    first = T.timestamp() - of / 100
    spans = tuple(
        Span(
            first=n, last=n, sent=first + n / 100 - 0.001, acked_first=first + n / 100,
            acked_last=first + n / 100, server="1",
        )
        for n in range(1, of + 1)
    )  # fmt: skip
    return weigh(Kept(spans=spans, last=of), Present.of(there), injected_at=T, until=T)


def backup(
    name: str, age: timedelta, *, kind: str = "full", state: str = "complete"
) -> BackupRecord:
    at = T - age
    return BackupRecord(
        id=name, database="shop", kind=kind, engine="native", state=state, folder="/b",
        started_at=at, ended_at=at, seconds=1, size_bytes=1, data_bytes=1, start_lsn="0/1",
        end_lsn="0/2", timeline=1, system_identifier="7", major=17, manifest_sha256="x",
        row_counts={}, request_id=None,
    )  # fmt: skip


def listed(
    name: str, age: timedelta, *, ok: bool | None, kind: str = "full", state: str = "complete"
) -> ListedBackup:
    proof = Verification(
        backup_id=name, at=T, ok=bool(ok), restore_seconds=1, total_seconds=1, checks=[],
        request_id=None,
    )  # fmt: skip
    return ListedBackup(
        backup=backup(name, age, kind=kind, state=state), verified=None if ok is None else proof
    )


@pytest.mark.parametrize(
    ("kept", "chosen"),
    [
        ([], None),
        ([listed("bad", HOUR, ok=False, state="damaged")], None),
        ([listed("old", 9 * HOUR, ok=True), listed("new", HOUR, ok=True)], "new"),
        ([listed("old", 9 * HOUR, ok=True), listed("new", HOUR, ok=None)], "old"),
        ([listed("old", 9 * HOUR, ok=None), listed("new", HOUR, ok=None)], "new"),
        ([listed("text", HOUR, ok=True, kind="logical"), listed("old", 9 * HOUR, ok=None)], "old"),
        ([listed("text", HOUR, ok=True, kind="logical")], "text"),
        ([listed("old", 9 * HOUR, ok=True), listed("bad", HOUR, ok=False, state="damaged")], "old"),
    ],
)
def test_the_newest_proven_backup_is_restored_else_the_newest_good_one(
    kept: list[ListedBackup], chosen: str | None
) -> None:
    found = source_of_disaster(kept)
    assert (found.backup.id if found else None) == chosen


def test_a_newer_backup_that_is_left_out_is_named() -> None:
    old, new = listed("old", 9 * HOUR, ok=True), listed("new", HOUR, ok=None)
    bad = listed("bad", HOUR / 2, ok=False, state="damaged")
    text = listed("text", HOUR / 4, ok=None, kind="logical")
    assert newer_unproven([old, new, bad, text], old) == new
    assert newer_unproven([old, new, bad, text], new) is None


def holds(**changes: object) -> datetime:
    given: dict[str, object] = {
        "backup_ended_at": T - 3 * HOUR, "reached_at": T - 2 * HOUR, "reached_lsn": "0/5000000",
        "timeline": 1, "marks": (),
    }  # fmt: skip
    return holds_until(**{**given, **changes})  # type: ignore[arg-type]


def mark(before: timedelta, lsn: str, timeline: int = 1) -> Mark:
    return Mark(at=T - before, timeline=timeline, lsn=lsn)


def test_a_copy_surely_has_what_was_there_when_the_server_stood_no_further() -> None:
    assert holds() == T - 2 * HOUR
    assert holds(reached_at=None) == T - 3 * HOUR
    # A quiet database: nothing was committed since, and the server said so.
    assert holds(marks=(mark(HOUR, "0/5000000"),)) == T - HOUR
    assert holds(marks=(mark(HOUR, "0/5000001"),)) == T - 2 * HOUR
    assert holds(marks=(mark(HOUR, "0/4000000", timeline=2),)) == T - 2 * HOUR
    assert holds(marks=(mark(5 * HOUR, "0/1"),)) == T - 2 * HOUR


def test_rows_that_the_copy_lacks_tell_the_loss_to_the_row() -> None:
    cost = cost_of_restore(loss(there=range(1, 91)), DISASTER, COPIED, is_one_life=True)
    assert (cost.acknowledged, cost.lost, cost.ambiguous) == (100, 10, 0)
    assert cost.rpo_seconds == pytest.approx(0.1)
    assert cost.rto_seconds == 6.0
    assert cost.write_gap_seconds == pytest.approx(4.005)
    assert cost.is_exact
    assert not is_all_lost(cost)
    assert loss_words(cost, "") == "10 of 100 acknowledged rows, those of the last 0.1 s"


def test_nothing_lost_is_said_only_of_rows_that_are_there() -> None:
    cost = cost_of_restore(loss(there=range(1, 101)), DISASTER, COPIED, is_one_life=True)
    assert (cost.lost, cost.rpo_seconds, cost.is_exact) == (0, 0.0, True)
    assert loss_words(cost, "") == "none of 100 acknowledged rows"


def test_where_no_row_survived_the_loss_reaches_back_to_what_the_copy_surely_has() -> None:
    """The ledger wrote for a second alone: that would be a lie by ten minutes."""
    cost = cost_of_restore(loss(there=range(0)), DISASTER, COPIED, is_one_life=True)
    assert (cost.acknowledged, cost.lost) == (100, 100)
    assert cost.rpo_seconds == 600
    assert is_all_lost(cost)
    assert loss_words(cost, "") == (
        "all of 100 acknowledged rows, and whatever else was committed in at most 10 min"
    )
    # A server's clock that goes ahead of ours makes it no shorter than the ledger says.
    ahead = replace(COPIED, holds=T + HOUR)
    found = cost_of_restore(loss(there=range(0)), DISASTER, ahead, is_one_life=True)
    assert found.rpo_seconds == pytest.approx(0.99, abs=0.02)


def test_what_another_life_measured_is_a_bound() -> None:
    cost = cost_of_restore(loss(there=range(1, 91)), DISASTER, COPIED, is_one_life=False)
    assert not cost.is_exact


def test_a_copy_that_never_was_usable_has_no_recovery_time() -> None:
    unusable = replace(COPIED, usable_seconds=None, row_seconds=None)
    cost = cost_of_restore(loss(there=range(1, 91)), DISASTER, unusable, is_one_life=True)
    assert cost.rto_seconds is None
    assert cost.lost == 10


def test_an_unknown_loss_is_never_none() -> None:
    assert loss_words(None, "the file is gone") == "nobody can tell: the file is gone"


@pytest.mark.parametrize(
    ("stand", "method", "has_copy", "words"),
    [
        (Stand(), ArchiveMethod.NONE, False, "WAL is not archived"),
        (Stand(), ArchiveMethod.RECEIVE, False, "holds nothing"),
        (Stand(last=SEGMENT), ArchiveMethod.COMMAND, False, f"to the end of {SEGMENT}"),
        (Stand(last=SEGMENT, is_open=True), ArchiveMethod.RECEIVE, True, f"within {SEGMENT}"),
        (Stand(last=SEGMENT, is_open=True), ArchiveMethod.RECEIVE, False, f"before {SEGMENT}"),
    ],
)
def test_how_far_the_archive_was_is_said(
    stand: Stand, method: ArchiveMethod, *, has_copy: bool, words: str
) -> None:
    assert words in archive_words(stand, method, has_copy=has_copy)


def test_the_disaster_is_the_same_in_the_next_life() -> None:
    assert disaster_of(disaster_json(DISASTER)) == DISASTER
    assert disaster_of(None) is None


def caused(error: BaseException) -> PostgresError:
    told = PostgresError("The backup cannot be recovered.", next_step="Take another.")
    told.__cause__ = error
    return told


def test_a_damaged_backup_fails_the_drill_and_a_full_disk_does_not() -> None:
    assert is_of_the_backup(caused(DamagedError("base.tar is cut short")))
    assert is_of_the_backup(UnreachedError("It lies beyond.", next_step="Name another."))
    assert not is_of_the_backup(caused(OSError("No space left on device")))
    assert not is_of_the_backup(PostgresError("No room.", next_step="Make some."))
