"""A drill is announced a week and an hour ahead, once each, whatever clocks and months do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from jobs.backup_settings import BackupSettings
from jobs.cluster_settings import DrillKind, DrillSettings
from jobs.drill_notices import Ahead, announcements
from jobs.operation import Database
from jobs.schedules import due, next_due
from jobs.timetable import GRACE, Timed, timetable
from tests.jobs.cluster_pictures import clustered
from tests.jobs.test_timetable import a_database

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * DAY
KINDS = (DrillKind.PRIMARY_CRASH, DrillKind.RESTORE)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
# The quarter, ends of months, leap days, and hours that come twice or never.
CRONS = (
    "0 0 1 */3 *", "30 2 * * 0", "30 2 29 2 *", "59 23 31 12 *", "0 3 31 * *", "15 1 1 * *",
    "45 2 25 10 *", "0 */6 * * *",
)  # fmt: skip


def drilled(name: str = "orders", *kinds: DrillKind, **more: Any) -> Database:
    """A database whose disasters are rehearsed by the clock, and nothing else is done."""
    found = clustered(a_database(name, BackupSettings()))
    assert found.cluster is not None
    drills = DrillSettings(kinds=kinds or KINDS, kind=(kinds or KINDS)[0], **more)
    return replace(found, cluster=replace(found.cluster, drills=drills))


async def _never(*_: object) -> dict[str, JsonValue]:
    raise AssertionError("a pure test fires nothing")


def drill(cron: str = "0 0 1 */3 *", zone: str = "UTC") -> Timed:
    [timed] = timetable(drilled(schedule=cron, zone=zone))
    return timed


def both(cron: str = "0 0 1 */3 *", zone: str = "UTC") -> tuple[Ahead, Ahead]:
    week, hour = announcements([drilled(schedule=cron, zone=zone)])
    return week, hour


def test_the_drill_of_the_quarter_asks_for_what_one_would_type() -> None:
    timed = drill()
    assert (timed.name, timed.operation) == ("drill orders", "drill")
    assert timed.params == {"database": "orders", "kind": "primary-crash"}
    assert timed.next_at(datetime(2026, 11, 22, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert timed.grace == GRACE["drill"]


def test_what_the_inventory_does_not_allow_or_want_is_not_asked_for() -> None:
    cluster = drilled().cluster
    assert cluster is not None
    nothing = replace(cluster, drills=DrillSettings())
    assert timetable(replace(drilled(), cluster=nothing)) == ()
    assert timetable(drilled(schedule="")) == ()
    assert announcements([drilled(schedule=""), a_database("other")]) == ()


def test_each_announcement_has_a_schedule_of_its_own() -> None:
    found = announcements([drilled("orders"), drilled("stock")])
    assert [each.name for each in found] == [
        "drill-week orders", "drill-hour orders", "drill-week stock", "drill-hour stock",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "after", "week", "hour"),
    [
        ("UTC", "2026-11-22", "2026-12-25 00:00", "2026-12-31 23:00"),
        ("UTC", "2028-02-28", "2028-03-25 00:00", "2028-03-31 23:00"),
        # Midnight of the 1st of April there; the clocks went forward in between.
        ("Europe/Berlin", "2026-03-10", "2026-03-24 22:00", "2026-03-31 21:00"),
        ("America/New_York", "2026-10-02", "2026-12-25 05:00", "2027-01-01 04:00"),
    ],
)
def test_the_quarters_announcements_come_a_week_and_an_hour_before(
    zone: str, after: str, week: str, hour: str
) -> None:
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = [next_due(each.schedule(_never), begin) for each in both(zone=zone)]
    assert [f"{at:%Y-%m-%d %H:%M}" for at in found if at] == [week, hour]


moments = st.integers(0, 8 * 366 * 24 * 60).map(
    lambda minutes: datetime(2023, 1, 1, tzinfo=UTC) + minutes * MINUTE
)


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), begin=moments)
def test_each_moment_of_the_drill_is_announced_once_and_exactly_so_long_before(
    cron: str, zone: str, begin: datetime
) -> None:
    for ahead in both(cron, zone):
        told, drilled_at = begin, begin + ahead.lead
        for _ in range(3):
            following = next_due(ahead.schedule(_never), told)
            moment = drill(cron, zone).next_at(drilled_at)
            assert following is not None
            assert moment is not None
            assert moment == following + ahead.lead
            told, drilled_at = following, moment


@given(
    cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), begin=moments,
    away=st.timedeltas(timedelta(0), 9 * DAY),
)  # fmt: skip
def test_who_was_away_announces_late_as_long_as_the_drill_has_not_begun(
    cron: str, zone: str, begin: datetime, away: timedelta
) -> None:
    """Of the next drill, whoever looks first after `away` tells what has not been told yet."""
    for ahead in both(cron, zone):
        first = next_due(ahead.schedule(_never), begin)
        assert first is not None
        now = first + away
        found = due(ahead.schedule(_never), last=begin, now=now)
        at = ahead.drill_at(found.firing) if found.firing else None
        # The newest that may still be told; none in vain, and none of what has begun.
        assert at is None or ahead.silent < at - now <= ahead.lead
        is_silent = first + ahead.lead - now <= ahead.silent
        assert (found.firing is None) <= is_silent


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (8 * DAY, []), (WEEK, ["drill-week"]), (2 * DAY, ["drill-week"]),
        (HOUR + timedelta(microseconds=1), ["drill-week"]), (HOUR, ["drill-hour"]),
        (MINUTE, ["drill-hour"]), (timedelta(0), []), (-MINUTE, []),
    ],
)  # fmt: skip
def test_in_the_last_hour_one_announcement_speaks_for_both(
    before: timedelta, told: list[str]
) -> None:
    at = datetime(2027, 1, 1, tzinfo=UTC)
    begun = at - 30 * DAY
    found = [
        ahead.what
        for ahead in both()
        if due(ahead.schedule(_never), last=begun, now=at - before).firing
    ]
    assert found == told
