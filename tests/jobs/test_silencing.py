"""Until when a silence lasts, as people write it; and whose alerts it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.operation import JobError
from jobs.silencing import SPAN_MAX, SPAN_MIN, end_of, looks_like_end, named

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)  # a Sunday


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "end"),
    [
        ("30m", "UTC", at(22, 12, 30)),
        ("4h", "UTC", at(22, 16)),
        ("for 1h30m", "UTC", at(22, 13, 30)),
        ("45min", "UTC", at(22, 12, 45)),
        ("2d", "UTC", at(24, 12)),
        ("30d", "UTC", NOON + SPAN_MAX),
        ("18:00", "UTC", at(22, 18)),
        ("until 18:00", "UTC", at(22, 18)),
        ("Until 8:05", "UTC", at(23, 8, 5)),  # over today: the next one
        ("12:00", "UTC", at(23, 12)),
        ("18:00", "Europe/Berlin", at(22, 17)),
        ("2026-11-25T06:00+01:00", "UTC", at(25, 5)),
        ("2026-11-25T06:00:00Z", "Europe/Berlin", at(25, 6)),
        ("2026-11-25 06:00", "Europe/Berlin", at(25, 5)),  # its own zone
        ("until Friday", "UTC", at(28, 0)),  # to its end
        ("tomorrow 06:00", "UTC", at(23, 6)),
        ("2026-11-25", "UTC", at(26, 0)),
    ],
)
def test_an_end_is_written_as_people_say_it(text: str, zone: str, end: datetime) -> None:
    assert end_of(text, now=NOON, zone=zone) == end


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("soon", "does not say how long"),
        ("", "does not say how long"),
        ("4", "does not say how long"),
        ("25:00", "does not say how long"),
        ("until", "does not say how long"),
        ("0m", "is over, or as good as over"),
        ("2026-11-22T11:59Z", "is over, or as good as over"),
        ("0001-01-01T00:00+14:00", "does not say how long"),
        ("31d", "more than 30 days"),
        ("999999w", "more than 30 days"),
        ("2027-01-01T00:00Z", "more than 30 days"),
    ],
)
def test_what_is_no_end_is_refused_with_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(JobError, match=problem) as refused:
        end_of(text, now=NOON, zone="UTC")
    assert refused.value.next_step


@given(text=st.text(max_size=30))
def test_whatever_is_written_a_silence_has_an_end_in_time_or_is_refused(text: str) -> None:
    try:
        end = end_of(text, now=NOON, zone="Europe/Berlin")
    except JobError:
        return
    assert SPAN_MIN <= end - NOON <= SPAN_MAX


@pytest.mark.parametrize(
    ("text", "is_end"),
    [("4h", True), ("18:00", True), ("until Friday", True), ("2026-11-25T06:00Z", True),
     ("ReplicationLag", False), ("", False), ("2026-11-25", False)],
)  # fmt: skip
def test_a_time_is_told_from_an_alerts_name(text: str, *, is_end: bool) -> None:
    assert looks_like_end(text) is is_end


def test_an_alert_is_found_in_any_case_and_a_wrong_one_is_told_the_nearest() -> None:
    known = ["ReplicationLag", "PoolUsage"]
    assert named("replicationlag", known, database="orders") == "ReplicationLag"
    assert named("", known, database="orders") == ""
    with pytest.raises(JobError, match="'RepLag' is known of orders") as refused:
        named("RepLag", known, database="orders")
    assert refused.value.next_step == "Did you mean ReplicationLag?"
    with pytest.raises(JobError) as refused:
        named("xyz", known, database="orders")
    assert "/db alerts orders" in refused.value.next_step


def test_a_minute_and_a_month_are_the_bounds() -> None:
    assert (timedelta(minutes=1), timedelta(days=30)) == (SPAN_MIN, SPAN_MAX)
