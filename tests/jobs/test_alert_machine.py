"""One alert through its states: what it takes to fire, what people hear, and what ends it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from jobs.alert_machine import (
    BLANK,
    FLAPPING_FLIPS,
    Event,
    Limits,
    Memory,
    Phase,
    Reading,
    Severity,
    announce,
    as_json,
    ended,
    memory_of,
    observe,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POOL = Limits(
    fire=80, clear=72, lasting=2 * MINUTE, hold=5 * MINUTE, repeat=4 * HOUR, escalate=15 * MINUTE
)
AT_ONCE = replace(POOL, lasting=timedelta(0))
FIRED, RESOLVED, REPEATED = Event.FIRED, Event.RESOLVED, Event.REPEATED
ESCALATED, WORSE, STALE, FLAPPING = Event.ESCALATED, Event.WORSE, Event.STALE, Event.FLAPPING


@dataclass
class Alert:
    """An alert, a clock, and all that people heard of it."""

    limits: Limits = POOL
    now: datetime = NOON
    memory: Memory = BLANK
    severity: Severity = Severity.WARNING
    is_muted: bool = False
    is_acked: bool = False
    heard: list[Event] = field(default_factory=list)

    def sees(self, value: float | None, *, at: datetime | None = None) -> tuple[Event, ...]:
        """One look, at a reading of now unless it is older."""
        reading = Reading(value=value, at=at or self.now)
        seen = observe(self.limits, self.memory, reading, self.now)
        self.memory, events = announce(
            self.limits, seen, self.now, severity=self.severity, is_muted=self.is_muted,
            is_acked=self.is_acked,
        )  # fmt: skip
        self.heard += events
        return events

    def lives(self, value: float | None, span: timedelta) -> list[Event]:
        """Looks of every half minute for a span; what was heard of them."""
        before = len(self.heard)
        end = self.now + span
        while self.now < end:
            self.now += 30 * SECOND
            self.sees(value)
        return self.heard[before:]


def fires(**more: Any) -> Alert:
    """An alert that has just been told."""
    alert = Alert(limits=AT_ONCE, **more)
    assert alert.sees(90) == (FIRED,)
    return alert


@pytest.mark.parametrize(
    ("value", "above", "breached", "cleared"),
    [
        (80.0, True, False, False),  # more than 80, as the guide says
        (80.1, True, True, False),
        (72.0, True, False, True),
        (72.1, True, False, False),
        (80.0, False, False, True),
        (71.9, False, True, False),
    ],
)
def test_thresholds_are_beyond_and_what_is_at_clear_is_well(
    *, value: float, above: bool, breached: bool, cleared: bool
) -> None:
    limits = Limits(fire=80, clear=72) if above else Limits(fire=72, clear=80, above=False)
    assert (limits.breached_by(value), limits.cleared_by(value)) == (breached, cleared)


def test_it_is_pending_until_it_has_lasted_and_pending_is_never_told() -> None:
    alert = Alert()
    assert alert.sees(90) == ()
    assert alert.memory.phase is Phase.PENDING
    assert alert.lives(90, 90 * SECOND) == []
    assert alert.lives(90, 30 * SECOND) == [FIRED]
    assert alert.lives(90, HOUR / 8) == []


def test_a_blip_is_not_told_and_begins_anew() -> None:
    alert = Alert()
    for _ in range(5):
        alert.lives(90, 90 * SECOND)
        alert.lives(79, 30 * SECOND)
    assert alert.heard == []


def test_between_the_thresholds_it_neither_fires_nor_is_over() -> None:
    alert = Alert()
    assert alert.lives(76, HOUR) == []
    alert.lives(90, 3 * MINUTE)
    assert alert.lives(76, HOUR) == [ESCALATED]
    assert alert.memory.is_firing


def test_it_is_over_when_it_has_been_well_for_its_hold_without_a_break() -> None:
    alert = fires()
    assert alert.lives(70, 5 * MINUTE) == []
    alert.lives(73, 30 * SECOND)
    assert alert.lives(70, 5 * MINUTE) == []
    assert alert.lives(70, 30 * SECOND) == [RESOLVED]
    assert alert.memory.told_at is None


def test_no_data_is_never_over_and_nothing_is_counted_on_that_nobody_saw() -> None:
    alert = fires()
    alert.lives(70, MINUTE)
    assert alert.lives(None, HOUR) == [STALE, ESCALATED]  # and it fires still
    assert alert.memory.is_firing
    assert alert.lives(70, 5 * MINUTE) == []  # the hour in between was not seen to be well
    assert alert.lives(70, 30 * SECOND) == [RESOLVED]


def test_what_was_pending_before_a_gap_has_not_lasted() -> None:
    alert = Alert()
    alert.sees(90)
    alert.lives(None, 10 * MINUTE)
    assert alert.lives(90, 2 * MINUTE) == []
    assert alert.lives(90, 30 * SECOND) == [FIRED]


def test_one_reading_that_is_seen_twice_lasts_no_longer() -> None:
    """A database that is measured every five minutes has one bad reading, not five minutes."""
    alert = Alert(limits=replace(POOL, stale=15 * MINUTE))
    bad = alert.now
    for _ in range(9):
        assert alert.sees(90, at=bad) == ()
        alert.now += 30 * SECOND
    assert alert.sees(90, at=bad + 5 * MINUTE) == (FIRED,)


def test_a_reading_that_is_no_newer_than_the_last_changes_nothing() -> None:
    alert = fires(is_acked=True)
    at = alert.now
    for older in (at, at - MINUTE):
        alert.now += 10 * MINUTE
        alert.sees(60, at=older)
        assert (alert.memory.value, alert.memory.clear_since) == (90, None)
    assert alert.heard == [FIRED, STALE]  # the same sample, again and again, is not measured


def test_it_says_once_that_its_number_is_not_measured_any_more() -> None:
    alert = fires(is_acked=True)
    assert alert.lives(None, 2 * HOUR) == [STALE]
    assert alert.lives(90, MINUTE) == []
    assert alert.lives(None, HOUR) == [STALE]


def test_it_is_repeated_and_escalates_once_until_somebody_acknowledges_it() -> None:
    alert = fires()
    assert alert.lives(90, 9 * HOUR) == [ESCALATED, REPEATED, REPEATED]
    alert.is_acked = True
    assert alert.lives(90, 50 * HOUR) == []
    assert alert.lives(60, HOUR) == [RESOLVED]


def test_acknowledged_in_time_it_does_not_escalate_and_what_fires_anew_does() -> None:
    alert = fires()
    alert.lives(90, 14 * MINUTE)
    alert.is_acked = True
    assert alert.lives(90, HOUR) == []
    assert alert.lives(60, 6 * MINUTE) == [RESOLVED]
    alert.is_acked = False  # the acknowledgement was of what is over
    assert alert.lives(90, 16 * MINUTE) == [FIRED, ESCALATED]


def test_a_warning_that_gets_critical_is_told_again_also_when_acknowledged_and_only_once() -> None:
    alert = fires(is_acked=True)
    alert.severity = Severity.CRITICAL
    assert alert.lives(90, HOUR) == [WORSE]
    alert.severity = Severity.WARNING
    assert alert.lives(90, HOUR) == []
    alert.severity = Severity.CRITICAL
    assert alert.lives(90, HOUR) == []


def test_silenced_it_fires_in_silence_and_is_told_when_the_silence_ends() -> None:
    alert = Alert(limits=AT_ONCE, is_muted=True)
    assert alert.lives(90, 5 * HOUR) == []
    assert alert.memory.is_firing
    alert.is_muted = False
    assert alert.lives(90, 30 * SECOND) == [FIRED]
    assert alert.lives(90, 15 * MINUTE) == [ESCALATED]  # counted from when people heard


def test_what_nobody_heard_of_ends_unheard() -> None:
    alert = Alert(limits=AT_ONCE, is_muted=True)
    alert.lives(90, HOUR)
    assert alert.lives(60, HOUR) == []
    alert.is_muted = False
    assert alert.lives(60, HOUR) == []


def test_silenced_after_it_was_told_its_end_is_told_and_nothing_else() -> None:
    alert = fires()
    alert.is_muted = True
    assert alert.lives(90, 9 * HOUR) == []
    assert alert.lives(60, HOUR) == [RESOLVED]


def test_a_silence_that_ends_brings_no_second_beginning() -> None:
    alert = fires()
    alert.is_muted = True
    alert.lives(90, HOUR)
    alert.is_muted = False
    assert alert.lives(90, MINUTE) == [ESCALATED]


def flaps(alert: Alert, times: int) -> None:
    for _ in range(times):
        alert.lives(90, 30 * SECOND)
        alert.lives(60, alert.limits.hold + 30 * SECOND)


def test_what_flaps_says_so_once_and_must_then_be_quiet_for_longer() -> None:
    alert = Alert(limits=replace(AT_ONCE, hold=MINUTE))
    flaps(alert, 8)
    assert alert.heard.count(FLAPPING) == 1
    told = [each for each in alert.heard if each is not FLAPPING]
    assert told == [FIRED, RESOLVED, FIRED, RESOLVED, FIRED]  # and then it is held
    assert len(alert.memory.flips) == FLAPPING_FLIPS
    assert alert.lives(60, 2 * MINUTE) == []
    assert alert.lives(60, 2 * MINUTE) == [RESOLVED]


def test_what_has_rested_for_an_hour_may_say_again_that_it_flaps() -> None:
    alert = Alert(limits=replace(AT_ONCE, hold=MINUTE))
    flaps(alert, 8)
    alert.lives(60, 2 * HOUR)
    assert not alert.memory.is_flapping
    assert alert.memory.is_blank
    flaps(alert, 8)
    assert alert.heard.count(FLAPPING) == 2


def test_the_worst_value_is_kept_on_the_side_that_is_bad() -> None:
    alert = fires()
    alert.lives(99, MINUTE)
    alert.lives(85, MINUTE)
    assert (alert.memory.value, alert.memory.peak) == (85, 99)
    low = Alert(limits=Limits(fire=14, clear=21, above=False))
    for value in (10.0, 3.0, 12.0):
        low.sees(value)
        low.now += MINUTE
    assert low.memory.peak == 3


def test_a_clock_that_was_ahead_holds_nothing_back() -> None:
    alert = fires(now=NOON + 10 * HOUR)
    alert.now = NOON
    assert alert.lives(90, 16 * MINUTE) == [ESCALATED]
    assert alert.lives(60, 6 * MINUTE) == [RESOLVED]


def test_what_nobody_watches_any_more_does_not_fire() -> None:
    assert ended(fires().memory).phase is Phase.OK


def test_what_is_remembered_survives_its_storage() -> None:
    alert = Alert(limits=replace(AT_ONCE, hold=MINUTE))
    flaps(alert, 4)
    alert.lives(90, 20 * MINUTE)
    assert memory_of(as_json(alert.memory)) == alert.memory
    assert as_json(BLANK) == {}


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({}, BLANK),
        ({"phase": "firing", "of_a_later_version": 1}, Memory(phase=Phase.FIRING)),
        ({"phase": "exploded"}, None),
        ({"phase": "firing", "since": "2026-11-22T12:00:00"}, None),  # in which zone?
        ([1], None),
        (None, None),
    ],
)
def test_memory_of_another_version_is_read_as_far_as_it_can_be(
    stored: object, read: Memory | None
) -> None:
    assert memory_of(stored) == read


# Weighted: evenly drawn values end most histories before anything can fire.
BAD, GOOD, MIDDLE = st.just(90.0), st.just(60.0), st.just(76.0)
VALUES = st.one_of(BAD, BAD, BAD, GOOD, GOOD, MIDDLE, st.none())
LOOKS = st.lists(
    st.tuples(
        VALUES,
        st.sampled_from([1, 30, 30, 30, 60, 120, 301, 900, 4000]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([*Severity]),
    ),
    max_size=80,
)
QUICK = Limits(
    fire=80, clear=72, lasting=MINUTE, hold=MINUTE, repeat=10 * MINUTE, escalate=5 * MINUTE
)
STORM = [(value, 60, False, False, Severity.WARNING) for value in (90.0, 90.0, 60.0, 60.0) * 8]


@settings(max_examples=300, deadline=None)
@given(looks=LOOKS)
@example(looks=STORM)
def test_whatever_comes_what_people_hear_makes_sense(
    looks: list[tuple[float | None, int, bool, bool, Severity]],
) -> None:
    alert, is_told = Alert(limits=QUICK), False
    for value, seconds, is_muted, is_acked, severity in looks:
        alert.now += seconds * SECOND
        alert.is_muted, alert.is_acked, alert.severity = is_muted, is_acked, severity
        was = alert.memory
        heard = alert.sees(value)
        for each in heard:
            event(each)
        # Pending is never told, and nothing is over that nobody heard of.
        if RESOLVED in heard:
            assert heard == (RESOLVED,)
            assert is_told
            assert was.is_firing
            assert value is not None
            assert value <= QUICK.clear
        if heard and heard != (RESOLVED,):
            assert alert.memory.is_firing
            assert not is_muted
            assert is_told or heard[0] is FIRED
        assert not (FIRED in heard and is_told)
        assert not (is_acked and {REPEATED, ESCALATED} & set(heard))
        assert len(set(heard)) == len(heard)
        is_told = (is_told or FIRED in heard) and RESOLVED not in heard
        assert is_told == (alert.memory.told_at is not None)
        # Looking again at the same time changes nothing; neither does a restart.
        again = memory_of(as_json(alert.memory))
        assert again == alert.memory
        assert alert.sees(value) == ()
        assert alert.memory == again
        assert len(alert.memory.flips) <= 16


@settings(max_examples=100, deadline=None)
@given(looks=LOOKS)
def test_who_is_told_what_never_changes_how_it_stands(
    looks: list[tuple[float | None, int, bool, bool, Severity]],
) -> None:
    """A silence hides an alert; it does not make it fire later, or end sooner."""
    open_, silent = Alert(limits=QUICK), Alert(limits=QUICK, is_muted=True)
    for value, seconds, _, is_acked, _ in looks:
        for alert in (open_, silent):
            alert.now += seconds * SECOND
            alert.is_acked = is_acked
            alert.sees(value)
        assert open_.memory.phase is silent.memory.phase
    assert silent.heard == []
