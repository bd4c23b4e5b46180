"""What is wrong with backups, by what the store knows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import jobs.alerts
from jobs.alert_machine import Severity
from jobs.alerts import NAMES, findings
from jobs.backup_settings import (
    PRUNE_CRON,
    TIERS,
    VERIFY_CRON,
    ArchiveMethod,
    ArchiveSettings,
    BackupSettings,
)
from jobs.backup_state import ArchiveLine, DatabaseState, Line
from jobs.firings import Asking, Standing
from jobs.operation import Database
from jobs.timetable import timetable
from tests.jobs.test_drill_notices import drilled
from tests.jobs.test_timetable import a_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GUIDE = BackupSettings(tiers=TIERS, verify_cron=VERIFY_CRON, prune_cron=PRUNE_CRON)
RECEIVING = replace(GUIDE, archive=ArchiveSettings(method=ArchiveMethod.RECEIVE))


def a_line(age: timedelta = 10 * HOUR, **more: Any) -> Line:
    values: dict[str, Any] = {
        "id": f"orders-{age.total_seconds():.0f}", "kind": "full", "state": "complete",
        "tiers": ("daily", "weekly", "monthly"), "started_at": NOW - age,
        "ended_at": NOW - age + timedelta(minutes=5), "data_bytes": 1000,
        "verified_at": NOW - HOUR, "verified_ok": True, "restore_seconds": 10.0,
    }  # fmt: skip
    return Line(**{**values, **more})


def a_state(
    *lines: Line,
    begun: timedelta | None = 100 * DAY,
    settings: BackupSettings = GUIDE,
    schedules: dict[str, Standing] | None = None,
    archive: ArchiveLine | None = None,
) -> DatabaseState:
    database: Database = a_database(settings=settings)
    begun_at = NOW - begun if begun is not None else None
    standings = {
        timed.name: Standing(schedule=timed.name, begun_at=begun_at)
        for timed in timetable(database)
    }
    return DatabaseState(
        database=database,
        backups=lines,
        archive=archive,
        schedules={**standings, **(schedules or {})},
    )


def an_archive(**more: Any) -> ArchiveLine:
    values: dict[str, Any] = {
        "at": NOW, "state": "streaming", "last_segment": "000000010000000000000003",
        "lag_bytes": 0, "slot_state": "active", "slot_bytes": 0, "gaps": [], "problem": "",
        "next_step": "",
    }  # fmt: skip
    return ArchiveLine(**{**values, **more})


def names(state: DatabaseState, now: datetime = NOW) -> dict[str, Severity]:
    return {alert.name: alert.severity for alert in findings(state, now)}


def test_where_all_is_well_nothing_is_said() -> None:
    assert findings(a_state(a_line()), NOW) == ()
    assert findings(a_state(a_line(), settings=RECEIVING, archive=an_archive()), NOW) == ()


def test_a_database_that_is_backed_up_by_hand_owes_nothing() -> None:
    assert findings(a_state(settings=BackupSettings()), NOW) == ()


@pytest.mark.parametrize(
    ("age", "tiers", "severity"),
    [
        (30 * HOUR, ("daily", "weekly", "monthly"), None),
        (30 * HOUR + timedelta(minutes=1), ("daily", "weekly", "monthly"), Severity.WARNING),
        (61 * HOUR, ("daily", "weekly", "monthly"), Severity.CRITICAL),
        (10 * HOUR, ("daily", "weekly"), Severity.CRITICAL),  # no monthly one in a hundred days
        (29 * HOUR, (), Severity.CRITICAL),  # taken by hand it is a daily one, and no other
    ],
)
def test_a_backup_is_missing_by_its_tiers_age(
    age: timedelta, tiers: tuple[str, ...], severity: Severity | None
) -> None:
    assert names(a_state(a_line(age, tiers=tiers))).get("BackupMissing") is severity


def test_what_is_missing_is_told_with_its_age_and_what_is_due() -> None:
    (alert,) = findings(a_state(a_line(40 * HOUR)), NOW)
    assert alert.problem == (
        "The newest daily backup is 1 d 16 h old; one is due at least every 1 d 6 h."
    )
    assert "/db backup orders tier=daily" in alert.next_step


def test_a_new_database_has_time_for_its_first_backup() -> None:
    assert names(a_state(begun=29 * HOUR)) == {}
    assert names(a_state(begun=31 * HOUR)) == {"BackupMissing": Severity.CRITICAL}
    assert names(a_state(begun=None)) == {}


@pytest.mark.parametrize("state", ["damaged", "lost"])
def test_a_backup_that_is_no_good_is_none(state: str) -> None:
    found = names(a_state(a_line(state=state)))
    assert found["BackupMissing"] is Severity.CRITICAL
    assert found["BackupDamaged"] is Severity.CRITICAL


def test_a_damaged_backup_among_good_ones_is_a_warning() -> None:
    found = a_state(a_line(), a_line(9 * DAY, state="damaged"))
    assert names(found) == {"BackupDamaged": Severity.WARNING}


def test_a_backup_of_a_clock_that_was_ahead_says_nothing_of_today() -> None:
    ahead = a_line(-3 * DAY)
    assert "BackupMissing" in names(a_state(ahead))
    assert names(a_state(ahead, a_line())) == {}


def test_backups_are_to_be_proven_each_week() -> None:
    assert names(a_state(a_line(verified_at=NOW - 8 * DAY))) == {}
    late = a_state(a_line(verified_at=NOW - 8 * DAY - HOUR))
    assert names(late) == {"BackupUnverified": Severity.WARNING}
    never = a_line(verified_at=None, verified_ok=None)
    assert names(a_state(never)) == {"BackupUnverified": Severity.WARNING}
    assert names(a_state(never, begun=7 * DAY)) == {}


def test_the_last_restore_test_counts_whichever_backup_it_was_of() -> None:
    failed = a_line(9 * DAY, state="damaged", verified_ok=False, verified_at=NOW - HOUR)
    good = a_line(verified_at=NOW - 2 * HOUR)
    assert names(a_state(good, failed))["VerificationFailed"] is Severity.CRITICAL
    again = replace(good, verified_at=NOW - timedelta(minutes=5))
    assert "VerificationFailed" not in names(a_state(again, failed))


def test_restores_that_take_longer_than_the_tier_allows_are_told() -> None:
    quick = a_line(restore_seconds=800.0)
    assert names(a_state(quick)) == {}
    assert names(a_state(a_line(restore_seconds=1000.0))) == {"RestoreTooSlow": Severity.WARNING}
    grown = a_line(data_bytes=2000, verified_at=None, verified_ok=None)
    assert names(a_state(grown, replace(quick, id="older"))) == {"RestoreTooSlow": Severity.WARNING}


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        ({"state": "missed"}, "was missed"),
        ({"asking": Asking.FAILED, "problem": "No route."}, "could not be asked for: No route."),
        ({"asking": Asking.WAITING, "problem": "No route."}, "was not asked for in time"),
        ({"asking": Asking.ASKED, "request_state": "expired"}, "request 7 is expired"),
        ({"asking": Asking.ASKED, "request_state": "refused"}, "request 7 is refused"),
        ({"asking": Asking.ASKED, "request_state": "pending"}, "still waits for approval"),
        ({"asking": Asking.ASKED, "request_state": "failed", "said": "Full."}, "request 7: Full."),
    ],
)
def test_what_the_clock_wanted_and_did_not_get_is_told(standing: dict[str, Any], says: str) -> None:
    name = "backup-daily orders"
    values = {"state": "fired", "request_id": 7, **standing}
    late = Standing(schedule=name, begun_at=NOW - DAY, due_at=NOW - 7 * HOUR, **values)
    (alert,) = findings(a_state(a_line(), schedules={name: late}), NOW)
    assert alert.name == "ScheduledRequestFailed"
    assert says in alert.problem
    assert "2026-11-22 05:00 UTC" in alert.problem


@pytest.mark.parametrize("state", ["pending", "approved", "executing", "done"])
def test_what_the_clock_asked_for_just_now_is_no_alert(state: str) -> None:
    name = "backup-daily orders"
    young = Standing(
        schedule=name, due_at=NOW - HOUR, state="fired", asking=Asking.ASKED, request_state=state
    )
    assert findings(a_state(a_line(), schedules={name: young}), NOW) == ()


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (an_archive(state="behind"), {"WalArchiveBehind": Severity.WARNING}),
        (an_archive(state="broken"), {"WalArchiveDown": Severity.CRITICAL}),
        (an_archive(at=NOW - HOUR), {"WalArchiveDown": Severity.CRITICAL}),
        (None, {"WalArchiveDown": Severity.CRITICAL}),
        (an_archive(gaps=[{"first": "3"}]), {"WalArchiveGap": Severity.WARNING}),
        (
            an_archive(gaps=[{"first": "3"}], state="broken"),
            {"WalArchiveGap": Severity.CRITICAL, "WalArchiveDown": Severity.CRITICAL},
        ),
        (an_archive(slot_bytes=6 * 1024**3), {"SlotGrowth": Severity.WARNING}),
        (an_archive(slot_bytes=9 * 1024**3 + 1), {"SlotGrowth": Severity.CRITICAL}),
        (an_archive(slot_bytes=4 * 1024**3), {}),
    ],
)
def test_the_archive_is_watched(archive: ArchiveLine | None, expected: dict[str, Severity]) -> None:
    assert names(a_state(a_line(), settings=RECEIVING, archive=archive)) == expected
    assert names(a_state(a_line(), settings=GUIDE, archive=archive)) == {}


def test_an_archives_own_words_are_told() -> None:
    archive = an_archive(state="broken", problem="The slot is lost.", next_step="Take a backup.")
    (alert,) = findings(a_state(a_line(), settings=RECEIVING, archive=archive), NOW)
    assert (alert.problem, alert.next_step) == ("The slot is lost.", "Take a backup.")


def test_every_name_that_is_found_is_known_so_that_its_end_is_seen() -> None:
    """An alert that is no longer found resolves only because it is asked for by its name."""
    source = Path(jobs.alerts.__file__).read_text("utf-8")
    written = set(re.findall(r'name="([A-Z]\w+)"', source)) | set(
        re.findall(r'_of_archive\(name, "([A-Z]\w+)"', source)
    )
    assert written == set(NAMES)


DRILL = "drill orders"


def drill_state(request_state: str, **more: Standing) -> DatabaseState:
    """A drill that was asked for two days ago."""
    due = Standing(
        schedule=DRILL, begun_at=NOW - 90 * DAY, due_at=NOW - 2 * DAY, state="fired",
        asking=Asking.ASKED, request_id=7, request_state=request_state,
    )  # fmt: skip
    state = a_state(a_line(), schedules={DRILL: due, **more})
    clustered = drilled().cluster
    return replace(state, database=replace(state.database, cluster=clustered))


def test_a_drill_may_wait_for_people_and_is_told_when_they_have_not_agreed() -> None:
    assert findings(drill_state("pending"), NOW) == ()
    (alert,) = findings(drill_state("expired"), NOW)
    assert "drill orders, due 2026-11-20 12:00 UTC, was not agreed to" in alert.problem
    assert "grant" not in alert.next_step  # somebody should be there when it begins


def test_beside_a_drill_others_are_told_how_they_need_nobody() -> None:
    daily = Standing(
        schedule="backup-daily orders", begun_at=NOW - DAY, due_at=NOW - 7 * HOUR, state="fired",
        asking=Asking.ASKED, request_id=8, request_state="expired",
    )  # fmt: skip
    (alert,) = findings(drill_state("expired", **{"backup-daily orders": daily}), NOW)
    assert "A standing grant" in alert.next_step
