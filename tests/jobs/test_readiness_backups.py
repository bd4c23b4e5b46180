"""What stands behind the checks of backups and restores, line by line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.alerts import findings
from jobs.backup_settings import BackupSettings
from jobs.backup_state import DatabaseState
from jobs.firings import Asking, Standing
from jobs.operation import CriticalQuery
from jobs.readiness_backups import Item, backup_items
from tests.jobs.test_alerts import DAY, HOUR, NOW, RECEIVING, a_line, a_state, an_archive
from tests.jobs.test_drill_notices import drilled

QUERY = CriticalQuery(name="orders", sql="SELECT 1")


def ready(**more: Any) -> DatabaseState:
    state = a_state(
        a_line(), a_line(3 * DAY), settings=RECEIVING, archive=an_archive(lag_bytes=2048)
    )
    asked = replace(state, database=replace(state.database, critical_queries=(QUERY,)))
    return replace(asked, **more)


def items(state: DatabaseState) -> dict[str, Item]:
    return {item.name: item for item in backup_items(state, findings(state, NOW), NOW)}


def missing(state: DatabaseState) -> list[str]:
    return [name for name, item in items(state).items() if not item.is_met]


def test_all_is_there_with_its_evidence_and_age() -> None:
    assert missing(ready()) == []
    said = {name: item.evidence for name, item in items(ready()).items()}
    assert said["Newest daily backup"] == ("orders-36000, 10 h old, one is due every 1 d 6 h")
    assert said["Any moment can be recovered"] == (
        "since 2026-11-19 12:05 UTC, streaming, 2 kB behind, seen 0 s ago"
    )
    assert said["Proven by a restore"] == "orders-36000, 1 h ago"
    assert said["Restored in time"] == "expected 10 s, allowed 15 min (tier critical)"
    assert said["No alert fires"] == "none"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"archive": an_archive(gaps=[{}])}, ["Any moment can be recovered", "No alert fires"]),
        ({"archive": None}, ["Any moment can be recovered", "No alert fires"]),
        (
            {"backups": (a_line(verified_at=NOW - 9 * DAY),)},
            ["Proven by a restore", "No alert fires"],
        ),
        (
            {"backups": (a_line(restore_seconds=5000.0),)},
            ["Restored in time", "No alert fires"],
        ),
        (
            {"backups": (a_line(tiers=("daily", "weekly")),)},
            ["Newest monthly backup", "No alert fires"],
        ),
    ],
)
def test_what_is_not_so_is_named(change: dict[str, Any], names: list[str]) -> None:
    assert missing(ready(**change)) == names


def test_a_backup_that_just_failed_its_test_proves_nothing() -> None:
    failed = a_line(verified_ok=False, state="damaged", verified_at=NOW)
    found = items(ready(backups=(failed, a_line(11 * HOUR))))
    assert not found["Proven by a restore"].is_met
    assert found["Proven by a restore"].evidence.endswith("; the last test failed")


def test_a_prune_that_failed_is_not_retention() -> None:
    state = ready()
    prune = Standing(
        schedule="prune orders", due_at=NOW - HOUR, state="fired", asking=Asking.ASKED,
        request_id=7, request_state="failed",
    )  # fmt: skip
    found = items(replace(state, schedules={**state.schedules, "prune orders": prune}))
    assert not found["Old backups are removed"].is_met
    assert found["Old backups are removed"].evidence == (
        "last due 2026-11-22 11:00 UTC, request 7 failed"
    )


def test_a_database_that_is_backed_up_by_hand_is_not_ready() -> None:
    by_hand = a_state(a_line(tiers=()), settings=BackupSettings())
    assert missing(by_hand) == [
        "By the clock",
        "Any moment can be recovered",
        "A copy is asked for its use",
        "Old backups are removed",
    ]


def test_a_drill_by_the_clock_takes_no_backups() -> None:
    assert items(DatabaseState(database=drilled()))["By the clock"] == Item(
        name="By the clock", is_met=False, evidence="nothing: backups are taken by hand"
    )
