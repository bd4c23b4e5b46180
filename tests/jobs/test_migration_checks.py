"""The guide's checklist: what is met, what is not and why, and what nobody may claim beforehand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.migration_checks import (
    Elsewhere,
    Evidence,
    Rehearsed,
    Verdict,
    attributes,
    checklist,
    needs_window,
    unmet,
)
from postgres.migrate.words import Lock

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DEV = Elsewhere(database="orders-dev", environment="development")
STAGING = Elsewhere(database="orders-staging", environment="staging")
REHEARSED = Rehearsed(
    ok=True, at=NOON - HOUR, is_fresh=True, seconds=12.0, backup_id="orders-1"
)  # fmt: skip
GOOD = Evidence(
    database="orders",
    environment="production",
    backup=("orders-1", NOON - 3 * HOUR),
    backup_age=24 * HOUR,
    elsewhere=(DEV, STAGING),
    rehearsed=REHEARSED,
    low_seconds=5.0,
    high_seconds=30.0,
    lock=Lock.ACCESS_EXCLUSIVE,
    blocking_seconds=0.004,
    way_back="down migration",
    channel="C0DBOPS",
    watch=timedelta(minutes=15),
    is_monitored=True,
    rehearse="/db rehearse orders",
    now=NOON,
)


def line(name: str, **changed: Any) -> tuple[Verdict, str]:
    (found,) = (each for each in checklist(replace(GOOD, **changed)) if each.name == name)
    return found.verdict, found.text


def test_the_guide_has_nine_lines_in_its_order() -> None:
    assert [each.name for each in checklist(GOOD)] == [
        "Backup verified",
        "Tested in development",
        "Tested in staging",
        "SQL reviewed",
        "Duration estimated",
        "Rollback planned",
        "Maintenance window",
        "Team notified",
        "Metrics watched afterwards",
    ]
    assert unmet(checklist(GOOD)) == ()
    assert attributes(GOOD, checklist(GOOD)) == {
        "checklist": "complete",
        "unmet": 0,
        "rehearsed": "yes",
        "needs_window": "no",
        "way_back": "yes",
    }


def test_what_only_the_approval_brings_is_not_claimed() -> None:
    assert line("SQL reviewed")[0] is Verdict.COMES
    assert line("Team notified")[0] is Verdict.COMES
    assert line("Metrics watched afterwards")[0] is Verdict.COMES


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("Backup verified", {"backup": None}, "no backup was ever proven. /db verify orders"),
        ("Backup verified", {"backup": ("b", NOON - 25 * HOUR)}, "b, 1 d 1 h old, may be 1 d"),
        ("Tested in development", {"elsewhere": (STAGING,)}, "no such database is named"),
        ("Tested in staging", {"elsewhere": ()}, "migrations.before of orders"),
        (
            "Tested in staging",
            {"elsewhere": (DEV, replace(STAGING, missing=("0042", "0043")))},
            "not, or not the same, in orders-staging: 0042, 0043. /db migrate orders-staging",
        ),
        (
            "Tested in staging",
            {"elsewhere": (DEV, replace(STAGING, problem="it is away"))},
            "orders-staging cannot say: it is away",
        ),
        (
            "Duration estimated",
            {"rehearsed": replace(REHEARSED, ok=False, problem="0042: no such column")},
            "rehearsal failed 1 h ago on orders-1: 0042: no such column",
        ),
        ("Duration estimated", {"rehearsed": None}, "up to 30 s, not rehearsed"),
        (
            "Duration estimated",
            {"rehearsed": replace(REHEARSED, is_fresh=False)},
            "last rehearsal too old. /db rehearse orders",
        ),
        (
            "Duration estimated",
            {"rehearsed": None, "high_seconds": None},
            "only a rehearsal can tell",
        ),
        ("Rollback planned", {"way_back": ""}, "no way back but the backup"),
        ("Team notified", {"channel": ""}, "no channel"),
        ("Metrics watched afterwards", {"is_monitored": False}, "monitoring is off"),
    ],
)
def test_what_is_not_met_says_why_and_what_would_mend_it(
    name: str, changed: dict[str, Any], said: str
) -> None:
    verdict, text = line(name, **changed)
    assert verdict is Verdict.NOT_MET
    assert said in text
    evidence = replace(GOOD, **changed)
    assert attributes(evidence, checklist(evidence))["checklist"] == "incomplete"


@pytest.mark.parametrize(
    ("environment", "elsewhere", "verdicts"),
    [
        ("dev", (), (Verdict.NOT_NEEDED, Verdict.NOT_NEEDED)),
        ("staging", (), (Verdict.NOT_NEEDED, Verdict.NOT_NEEDED)),
        ("Staging", (DEV,), (Verdict.MET, Verdict.NOT_NEEDED)),
        ("staging", (replace(DEV, missing=("1",)),), (Verdict.NOT_MET, Verdict.NOT_NEEDED)),
        ("live-eu", (), (Verdict.NOT_MET, Verdict.NOT_MET)),
        ("production", (), (Verdict.NOT_MET, Verdict.NOT_MET)),
    ],
)
def test_only_what_is_first_needs_no_other_before_it(
    environment: str, elsewhere: tuple[Elsewhere, ...], verdicts: tuple[Verdict, Verdict]
) -> None:
    changed = {"environment": environment, "elsewhere": elsewhere}
    found = (line("Tested in development", **changed)[0], line("Tested in staging", **changed)[0])
    assert found == verdicts


@pytest.mark.parametrize(
    ("lock", "seconds", "needed"),
    [
        (Lock.SHARE_UPDATE_EXCLUSIVE, 600.0, False),
        (Lock.SHARE, 1.0, False),
        (Lock.SHARE, 1.1, True),
        (Lock.ACCESS_EXCLUSIVE, None, True),
        (Lock.ROW_EXCLUSIVE, None, False),
    ],
)
def test_a_window_is_for_locks_that_others_would_notice(
    *, lock: Lock, seconds: float | None, needed: bool
) -> None:
    evidence = replace(GOOD, lock=lock, blocking_seconds=seconds)
    assert needs_window(evidence) is needed
    verdict, _ = line("Maintenance window", lock=lock, blocking_seconds=seconds)
    assert verdict is (Verdict.COMES if needed else Verdict.NOT_NEEDED)


@pytest.mark.parametrize(
    ("rehearsed", "word"),
    [
        (None, "no"),
        (replace(REHEARSED, is_fresh=False), "no"),
        (replace(REHEARSED, ok=False), "failed"),
        (REHEARSED, "yes"),
    ],
)
def test_the_policy_sees_whether_it_was_rehearsed(rehearsed: Rehearsed | None, word: str) -> None:
    evidence = replace(GOOD, rehearsed=rehearsed)
    assert attributes(evidence, checklist(evidence))["rehearsed"] == word
