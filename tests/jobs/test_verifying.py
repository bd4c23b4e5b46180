"""Whose turn it is to be proven, and to which moment; chance is a number that comes in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.verifying import choose_backup, random_target
from postgres.backup.facts import BackupFacts
from postgres.restore.target import END, parse_target
from postgres.restore.window import Window
from store.backups import ListedBackup, Verification
from store.proofs import LastProof
from tests.bot.test_scheduled import a_backup

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LATER = NOON + timedelta(days=99)


def listed(age: int, proven: int | None = None, **more: Any) -> ListedBackup:
    """A backup of so many days ago, proven so many days ago."""
    backup = a_backup(f"b{age}", NOON - age * DAY, **more)
    return ListedBackup(backup=backup, verified=_proof(backup.id, proven))


def _proof(backup_id: str, proven: int | None, ok: bool = True) -> Verification | None:  # noqa: FBT001, FBT002
    if proven is None:
        return None
    return Verification(
        backup_id=backup_id, at=NOON - proven * DAY, ok=ok, restore_seconds=1.0,
        total_seconds=2.0, checks=(), request_id=None,
    )  # fmt: skip


def chosen(*backups: ListedBackup) -> str:
    found = choose_backup(backups, _last(backups))
    assert found is not None
    return found.id


def _last(backups: Sequence[ListedBackup]) -> LastProof | None:
    proofs = [
        LastProof(backup_id=each.backup.id, started_at=each.backup.started_at, at=each.verified.at)
        for each in backups
        if each.verified
    ]
    return max(proofs, key=lambda proof: proof.at, default=None)


def test_the_first_of_all_is_the_newest() -> None:
    assert chosen(listed(1), listed(2), listed(9)) == "b1"


def test_after_the_newest_it_is_the_turn_of_who_waits_longest() -> None:
    assert chosen(listed(1, 0), listed(2, 8), listed(9, 3)) == "b2"
    assert chosen(listed(1, 0), listed(2), listed(9), listed(12, 8)) == "b9"


def test_after_an_older_one_it_is_the_newests_turn_again() -> None:
    assert chosen(listed(1), listed(8, 1), listed(9, 2)) == "b1"


def test_what_was_the_newest_when_it_was_proven_had_the_newests_turn() -> None:
    # A week ago b8 was the newest; since then a new one came every day.
    assert chosen(*(listed(age) for age in range(1, 8)), listed(8, 7), listed(9)) == "b9"


@pytest.mark.parametrize("state", ["damaged", "lost", "removing"])
def test_a_backup_that_is_no_good_has_no_turn(state: str) -> None:
    assert choose_backup([listed(1, state=state)], None) is None
    assert chosen(listed(1, state=state), listed(2)) == "b2"
    assert choose_backup([], None) is None


@given(st.integers(1, 12))
def test_each_of_those_that_are_kept_gets_its_turn(count: int) -> None:
    proven: dict[int, int] = {}
    for turn in range(2 * count):
        now = 100 - turn
        backups = [
            ListedBackup(
                backup=a_backup(f"{age}", NOON - (200 + age) * DAY),
                verified=_proof(f"{age}", proven.get(age)),
            )
            for age in range(count)
        ]
        proven[int(chosen(*backups))] = now
    assert len(proven) == count


def test_week_by_week_every_other_turn_is_an_older_backups() -> None:
    proven: dict[int, int] = {}
    last: LastProof | None = None
    order = []
    for week in range(20):
        today = 7 * week
        backups = [
            ListedBackup(
                backup=a_backup(f"{day}", NOON + day * DAY),
                verified=_proof(f"{day}", -proven[day]) if day in proven else None,
            )
            for day in range(max(0, today - 30), today + 1)
        ]
        found = choose_backup(backups, last)
        assert found is not None
        day, at = int(found.id), NOON + (today + 1) * DAY
        proven[day], last = today + 1, LastProof(backup_id="", started_at=found.started_at, at=at)
        order.append(day == today)
    assert order == [True, False] * 10


def a_window(backup_id: str, since: timedelta, until: timedelta, timeline: int = 1) -> Window:
    facts = BackupFacts.model_construct(id=backup_id)
    return Window(
        backup=facts, timeline=timeline, since=NOON + since, since_lsn="0/1", until=NOON + until,
        until_lsn="0/2",
    )  # fmt: skip


def test_a_moment_lies_in_what_leads_on_from_the_backup() -> None:
    windows = [a_window("a", -3 * DAY, -DAY)]
    assert str(random_target(windows, "a", draw=0.0, before=LATER)) == "2026-11-19 12:00:00 UTC"
    assert str(random_target(windows, "a", draw=0.5, before=LATER)) == "2026-11-20 12:00:00 UTC"
    assert (
        str(random_target(windows, "a", draw=0.999999, before=LATER)) == "2026-11-21 11:59:59 UTC"
    )


def test_later_moments_are_the_next_backups() -> None:
    windows = [a_window("a", -3 * DAY, DAY), a_window("b", -DAY, DAY)]
    assert str(random_target(windows, "a", draw=0.5, before=LATER)) == "2026-11-20 12:00:00 UTC"
    assert str(random_target(windows, "b", draw=0.5, before=LATER)) == "2026-11-22 12:00:00 UTC"


def test_the_last_minutes_are_left_to_the_archive() -> None:
    windows = [a_window("a", -3 * DAY, DAY)]
    found = random_target(windows, "a", draw=0.5, before=NOON - DAY)
    assert str(found) == "2026-11-20 12:00:00 UTC"
    assert random_target(windows, "a", draw=0.5, before=NOON - 4 * DAY) == END


def test_without_wal_it_is_the_backups_own_end() -> None:
    assert random_target([], "a", draw=0.5, before=LATER) == END
    assert random_target([a_window("a", -DAY, -DAY)], "a", draw=0.5, before=LATER) == END
    assert random_target([a_window("b", -DAY, DAY)], "a", draw=0.5, before=LATER) == END


@given(st.floats(0, 1, exclude_max=True), st.integers(2, 10**6), st.integers(0, 999_999))
def test_every_draw_is_a_moment_that_can_be_typed_and_recovered(
    draw: float, seconds: int, micros: int
) -> None:
    since = timedelta(microseconds=micros)
    window = a_window("a", since, since + timedelta(seconds=seconds))
    target = random_target([window], "a", draw=draw, before=LATER)
    assert target.at is not None
    assert window.has_time(target.at)
    assert parse_target(str(target), now=NOON + timedelta(days=99)) == target
