"""A drill that nobody has passed for too long is told, with the form that asks for one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.alert_drills import drill_signals
from jobs.alert_machine import BLANK, Severity
from jobs.alert_signal import Signal
from jobs.cluster_settings import DrillKind, DrillSettings
from jobs.operation import Suggestion
from tests.jobs.cluster_pictures import clustered
from tests.jobs.test_timetable import a_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def signals(
    drills: DrillSettings, passed: timedelta | None = None, begun: timedelta | None = None
) -> list[Signal]:
    """What is found of a drill that passed, and a schedule that began, so long ago."""
    found = clustered(a_database())
    assert found.cluster is not None
    database = replace(found, cluster=replace(found.cluster, drills=drills))
    return list(
        drill_signals(
            database, "orders", passed_at=NOW - passed if passed else None,
            begun_at=NOW - begun if begun else None, now=NOW,
        )
    )  # fmt: skip


CRASH = DrillSettings(kinds=(DrillKind.PRIMARY_CRASH,), kind=DrillKind.PRIMARY_CRASH)


@pytest.mark.parametrize(
    ("drills", "passed", "begun", "overdue"),
    [
        (CRASH, 92 * DAY, None, False),
        # It waits for people for some days: no warning comes each quarter by itself.
        (CRASH, 99 * DAY, None, False),
        (CRASH, 99 * DAY + timedelta(minutes=1), None, True),
        (CRASH, 99 * DAY, 400 * DAY, False),
        (CRASH, None, 98 * DAY, False),
        (CRASH, None, 100 * DAY, True),
        (CRASH, None, None, False),  # no bot has looked at its schedule yet
        (replace(CRASH, schedule=""), None, None, True),  # nobody will ask for one
        (replace(CRASH, schedule=""), 3 * DAY, None, False),
        (replace(CRASH, every=30 * DAY), 38 * DAY, None, True),
    ],
)
def test_it_is_overdue_when_none_has_passed_for_as_long_as_is_allowed_and_a_week(
    drills: DrillSettings,
    passed: timedelta | None,
    begun: timedelta | None,
    overdue: bool,  # noqa: FBT001
) -> None:
    [found] = signals(drills, passed, begun)
    assert (found.reading.value, found.is_found) == (float(overdue), overdue)
    assert found.severity is Severity.WARNING
    assert not found.is_of_server


def test_where_no_kind_is_allowed_nothing_is_owed() -> None:
    assert signals(DrillSettings(), None, 400 * DAY) == []
    alone = drill_signals(a_database(), "orders", passed_at=None, begun_at=None, now=NOW)
    assert list(alone) == []


def test_it_says_since_when_and_has_the_form_filled_in() -> None:
    [found] = signals(CRASH, 120 * DAY)
    said = found.say(BLANK)
    assert said.problem == (
        "No drill of orders has passed for 120 d: whether it can lose its primary is a guess. One"
        " is due at least every 92 d."
    )
    assert "/db drill orders primary-crash" in said.next_step
    assert said.suggestions == (
        Suggestion(
            text="Drill: primary-crash",
            operation="drill",
            params={"database": "orders", "kind": "primary-crash"},
            reason=f"DrillOverdue: {said.problem}",
        ),
    )


def test_of_one_that_was_never_rehearsed_it_says_so() -> None:
    [found] = signals(CRASH, None, 120 * DAY)
    assert found.say(BLANK).problem.startswith("No drill of orders has ever passed:")
