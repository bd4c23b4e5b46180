"""How often people are told in a week of numbers around their thresholds, and what they miss.

Samples of every half minute: pool use with working hours and noise, slow statements with spikes,
replication lag with bursts; two days on which the pool hovers at its threshold, and incidents of
6 to 90 minutes. Each goes through our machine with the rules as they ship, through the same
thresholds with `for` alone, and through a plain comparison. Nobody acknowledges anything, so that
ours repeats and escalates too: the others would be silent about what goes on.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from bench.table import Result
from jobs.alert_machine import BLANK, Event, Limits, Reading, announce, observe
from jobs.alert_table import RULES
from jobs.health_settings import MonitoringSettings

# Not those that the thresholds were tried with.
SEEDS: Final = (1009, 2003, 3001, 4001, 5003)
EVERY: Final = timedelta(seconds=30)
MONDAY: Final = datetime(2026, 11, 16, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
HOVERS: Final = (2, 3)  # days on which the pool is at its threshold in working hours
# A message this long after an incident is still about it.
_ABOUT: Final = timedelta(minutes=30)
_NEVER: Final = timedelta(0)
_MINUTES: Final = (6, 10, 20, 45, 90)

Value = Callable[[datetime, bool], float]
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """A signal's samples, when something was really wrong, and when nobody could say."""

    rule: str
    values: Sequence[float]
    incidents: Sequence[Span]
    unclear: Sequence[Span] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What people heard of a week. `waits`: from an incident's begin until it fired."""

    messages: int
    false: int
    missed: int
    incidents: int
    waits: tuple[float, ...]


async def measure() -> list[Result]:
    """Messages, what was missed and how soon, for ours beside a plain threshold and `for`."""
    weeks = [week for seed in SEEDS for week in weeks_of(seed)]
    scores = {
        name: [score(week, change(limits_of(week.rule))) for week in weeks]
        for name, change in WAYS.items()
    }
    plain, lasting, ours = (total(scores[name]) for name in WAYS)
    share = ours.messages / plain.messages
    count = len(SEEDS)
    return [
        Result(
            what="Alerts in a week around thresholds: messages (floor: plain threshold)",
            ours=f"{ours.messages / count:,.0f}, with repeats and escalations",
            floor=f"{plain.messages / count:,.0f}; `for` alone {lasting.messages / count:,.0f}",
            ratio=f"{share:.3f}",
            aim="<= 0.05",
        ),
        Result(
            what=f"… incidents missed, of {ours.incidents} in {count} weeks",
            ours=str(ours.missed),
            floor=f"{plain.missed}; `for` alone {lasting.missed}",
        ),
        Result(
            what="… alarms about nothing, a week",
            ours=f"{ours.false / count:.1f}",
            floor=f"{plain.false / count:,.0f}; `for` alone {lasting.false / count:,.0f}",
        ),
        Result(
            what="… from its begin until it fires, median (longest)",
            ours=_waits(ours),
            floor=f"{_waits(plain)}; `for` alone {_waits(lasting)}",
        ),
    ]


def limits_of(rule: str) -> Limits:
    """The rule as it ships."""
    return RULES[rule].limits(MonitoringSettings())


def _plain(limits: Limits) -> Limits:
    return replace(_lasting(limits), lasting=_NEVER)


def _lasting(limits: Limits) -> Limits:
    return replace(limits, clear=limits.fire, hold=_NEVER, repeat=None, escalate=None)


WAYS: Final[Mapping[str, Callable[[Limits], Limits]]] = MappingProxyType(
    {"plain": _plain, "for": _lasting, "ours": lambda limits: limits}
)


def weeks_of(seed: int) -> Iterator[Week]:
    """Three signals of one week."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    hovers = [_working_hours(MONDAY + timedelta(days=day)) for day in HOVERS]
    yield _week(chance, "PoolUsage", lambda at, bad: _pool(chance, at, is_bad=bad), hovers)
    spikes = _spans(chance, count=60, minutes=(1, 2))
    yield _week(
        chance, "SlowQueries",
        lambda at, bad: _slow(chance, is_bad=bad, is_spike=_within(at, spikes)), (),
    )  # fmt: skip
    bursts = _spans(chance, count=80, minutes=(1, 1))
    yield _week(
        chance, "ReplicationLag",
        lambda at, bad: _lag(chance, is_bad=bad, is_burst=_within(at, bursts)), (),
    )  # fmt: skip


def _week(chance: random.Random, rule: str, value: Value, unclear: Sequence[Span]) -> Week:
    incidents: list[Span] = []
    for day in range(7):
        if day in HOVERS:
            continue
        begin = MONDAY + timedelta(days=day, minutes=chance.randrange(19 * 60, 22 * 60))
        incidents.append((begin, begin + timedelta(minutes=chance.choice(_MINUTES))))
    values = [value(at, _within(at, incidents)) for at in _moments()]
    return Week(rule=rule, values=values, incidents=incidents, unclear=unclear)


def _pool(chance: random.Random, at: datetime, *, is_bad: bool) -> float:
    """Quiet nights, working hours near the threshold, on two days at it; and blips."""
    usual = 62.0
    if _is_working(at):
        usual = 80.0 if at.weekday() in HOVERS else 74.0
    blip = 14.0 if chance.random() < 0.004 else 0.0
    return (91.0 if is_bad else usual) + chance.gauss(0, 2.5) + blip


def _slow(chance: random.Random, *, is_bad: bool, is_spike: bool) -> float:
    mean = 180.0 if is_bad else 150.0 if is_spike else 35.0
    return max(mean * (1 + chance.gauss(0, 0.25)), 0.0)


def _lag(chance: random.Random, *, is_bad: bool, is_burst: bool) -> float:
    mean = 150_000.0 if is_bad else 75_000.0 if is_burst else 900.0
    return max(mean * (1 + chance.gauss(0, 0.2)), 0.0)


def _spans(chance: random.Random, *, count: int, minutes: tuple[int, int]) -> Sequence[Span]:
    """Short ones at any time of the week; no incident is so short."""
    begins = [MONDAY + WEEK * chance.random() for _ in range(count)]
    return [(begin, begin + timedelta(minutes=chance.uniform(*minutes))) for begin in begins]


def score(week: Week, limits: Limits) -> Score:
    """What people hear of a week by these limits."""
    memory, messages, false = BLANK, 0, 0
    severity = RULES[week.rule].severity
    fired: dict[Span, datetime] = {}
    for at, value in zip(_moments(), week.values, strict=True):
        seen = observe(limits, memory, Reading(value=value, at=at), at)
        memory, events = announce(
            limits, seen, at, severity=severity, is_muted=False, is_acked=False
        )
        messages += len(events)
        about = next((span for span in week.incidents if _is_about(at, span)), None)
        if memory.is_firing and about is not None and at < about[1]:
            fired.setdefault(about, at)
        if Event.FIRED in events and about is None and not _within(at, week.unclear):
            false += 1
    waits = tuple((at - begin).total_seconds() for (begin, _), at in fired.items())
    return Score(
        messages=messages, false=false, missed=len(week.incidents) - len(fired),
        incidents=len(week.incidents), waits=waits,
    )  # fmt: skip


def total(scores: Sequence[Score]) -> Score:
    """All weeks together."""
    return Score(
        messages=sum(each.messages for each in scores),
        false=sum(each.false for each in scores),
        missed=sum(each.missed for each in scores),
        incidents=sum(each.incidents for each in scores),
        waits=tuple(wait for each in scores for wait in each.waits),
    )


def _waits(found: Score) -> str:
    return f"{statistics.median(found.waits):.0f} s ({max(found.waits):.0f} s)"


def _moments() -> Iterator[datetime]:
    at = MONDAY
    while at < MONDAY + WEEK:
        yield at
        at += EVERY


def _is_working(at: datetime) -> bool:
    return 9 <= at.hour < 18 and at.weekday() < 5


def _working_hours(day: datetime) -> Span:
    return day + timedelta(hours=9), day + timedelta(hours=18)


def _within(at: datetime, spans: Sequence[Span]) -> bool:
    return any(begin <= at < end for begin, end in spans)


def _is_about(at: datetime, span: Span) -> bool:
    return span[0] <= at < span[1] + _ABOUT
