"""The states of one alert: ok, pending, firing, and ok again. Pure.

Two functions. `observe` takes a reading and says how it stands now; it knows nothing of
people. `announce` says what people must hear of that, once: an alert that nobody may be told
of at present fires in silence, and is told when the silence ends while it still fires.

No reading is never "all is well": an alert without data stays as it is. Spans count between
readings and not between looks, so one bad reading that is seen twice lasts no longer, and what
nobody saw for a while has not lasted.

The shape follows Prometheus (`for`, `keep_firing_for`); fire and clear differ and flapping is
damped as monitoring systems before it did (Nagios), which Prometheus does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, assert_never

from pydantic import AwareDatetime, TypeAdapter, ValidationError

FLAPPING_FLIPS: Final = 5
FLAPPING_WITHIN: Final = timedelta(hours=1)
# While it flaps, it must be quiet for so many times longer before it counts as over.
FLAPPING_HOLD: Final = 4
_FLIPS_MAX: Final = 16


class Phase(StrEnum):
    """How it stands, whoever was told."""

    OK = "ok"
    PENDING = "pending"  # beyond the threshold, not yet for long enough
    FIRING = "firing"


class Event(StrEnum):
    """What people hear."""

    FIRED = "fired"
    WORSE = "worse"  # a warning that has become critical
    REPEATED = "repeated"  # it still fires, and nobody has acknowledged it
    ESCALATED = "escalated"  # nobody acknowledged it in time
    FLAPPING = "flapping"
    STALE = "stale"  # it fires, and its number is not measured any more
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How soon somebody must look."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When it fires and when it is over. `above` False: it fires below `fire`.

    It fires beyond `fire` for `lasting`, and is over on the right side of `clear` (which is
    itself right) for `hold`. `stale`: readings further apart say nothing of what was between.
    `repeat`, `escalate` None: never.
    """

    fire: float
    clear: float
    above: bool = True
    lasting: timedelta = timedelta(0)
    hold: timedelta = timedelta(0)
    repeat: timedelta | None = None
    escalate: timedelta | None = None
    stale: timedelta = timedelta(minutes=5)

    def breached_by(self, value: float) -> bool:
        """Whether this value is beyond the threshold."""
        return value > self.fire if self.above else value < self.fire

    def cleared_by(self, value: float) -> bool:
        """Whether this value is well."""
        return value <= self.clear if self.above else value >= self.clear


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number and when it was measured. None: it could not be."""

    value: float | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What must be known at the next look. `flips`: when it began or ended to fire, lately.

    `told_at` None: nobody heard of it. `told`: the worst severity that people heard.
    """

    phase: Phase = Phase.OK
    since: AwareDatetime | None = None  # pending or firing since
    clear_since: AwareDatetime | None = None
    seen_at: AwareDatetime | None = None  # the newest reading that was a number
    value: float | None = None
    peak: float | None = None
    told_at: AwareDatetime | None = None
    told: Severity | None = None
    notified_at: AwareDatetime | None = None
    escalated_at: AwareDatetime | None = None
    flips: tuple[AwareDatetime, ...] = ()
    is_flapping: bool = False
    said_flapping: bool = False
    said_stale: bool = False

    @property
    def is_firing(self) -> bool:
        """Whether it fires, told or not."""
        return self.phase is Phase.FIRING

    @property
    def is_blank(self) -> bool:
        """Whether forgetting it would change nothing."""
        return self.phase is Phase.OK and self.told_at is None and not self.flips


BLANK: Final = Memory()
_MEMORY: Final = TypeAdapter(Memory)
_TIMES: Final = ("since", "clear_since", "seen_at", "told_at", "notified_at", "escalated_at")
_NOT_TOLD: Final[Mapping[str, Any]] = MappingProxyType(
    dict.fromkeys(("told_at", "told", "notified_at", "escalated_at"))
)


def as_json(memory: Memory) -> dict[str, Any]:
    """What is stored: only what differs from a blank one."""
    stored: dict[str, Any] = _MEMORY.dump_python(memory, mode="json", exclude_defaults=True)
    return stored


def memory_of(stored: object) -> Memory | None:
    """What was stored, also by a version that knew fewer or more fields; None: unreadable."""
    known = {field.name for field in fields(Memory)}
    if not isinstance(stored, Mapping):
        return None
    try:
        return _MEMORY.validate_python({k: v for k, v in stored.items() if k in known})
    except ValidationError:
        return None


def observe(limits: Limits, memory: Memory, reading: Reading, now: datetime) -> Memory:
    """How it stands after a reading; the same reading again changes nothing."""
    memory = _not_ahead(memory, now)
    at = min(reading.at, now)
    if reading.value is not None and (memory.seen_at is None or at > memory.seen_at):
        memory = _after(limits, memory, reading.value, at)
    return _flips_counted(memory, now)


def _after(limits: Limits, memory: Memory, value: float, at: datetime) -> Memory:
    """What a new reading changes. A gap before it has broken every span."""
    has_gap = memory.seen_at is not None and at - memory.seen_at > limits.stale
    memory = replace(memory, value=value, seen_at=at, said_stale=False)
    match memory.phase:
        case Phase.OK | Phase.PENDING:
            if not limits.breached_by(value):
                return replace(memory, phase=Phase.OK, since=None)
            is_new = memory.phase is Phase.OK or has_gap or memory.since is None
            since = at if is_new or memory.since is None else memory.since
            if at - since < limits.lasting:
                return replace(memory, phase=Phase.PENDING, since=since)
            return replace(
                memory, phase=Phase.FIRING, since=at, clear_since=None, peak=value,
                flips=_flipped(memory, at),
            )  # fmt: skip
        case Phase.FIRING:
            return _while_firing(limits, memory, value, at, has_gap=has_gap)
        case _:
            assert_never(memory.phase)


def _while_firing(
    limits: Limits, memory: Memory, value: float, at: datetime, *, has_gap: bool
) -> Memory:
    worst = max if limits.above else min
    memory = replace(memory, peak=worst(value, memory.peak if memory.peak is not None else value))
    if not limits.cleared_by(value):
        return replace(memory, clear_since=None)
    since = at if has_gap or memory.clear_since is None else memory.clear_since
    hold = limits.hold * (FLAPPING_HOLD if memory.is_flapping else 1)
    if at - since < hold:
        return replace(memory, clear_since=since)
    return replace(
        memory, phase=Phase.OK, since=None, clear_since=None, flips=_flipped(memory, at)
    )  # fmt: skip


def ended(memory: Memory) -> Memory:
    """Nobody watches this any more: it does not fire, whatever the last reading was."""
    return replace(memory, phase=Phase.OK, since=None, clear_since=None)


def announce(
    limits: Limits,
    memory: Memory,
    now: datetime,
    *,
    severity: Severity,
    is_muted: bool,
    is_acked: bool,
) -> tuple[Memory, tuple[Event, ...]]:
    """What people hear now, and what is remembered of it.

    Muted: silenced, or inhibited by another alert. They hear only that something is over that
    they were told of. A resolve forgets who acknowledged it: that belongs to what was.
    """
    memory = _not_ahead(memory, now)
    if not memory.is_firing:
        if memory.told_at is None:
            return memory, ()
        return replace(memory, said_stale=False, **_NOT_TOLD), (Event.RESOLVED,)
    if is_muted:
        return memory, ()
    events: tuple[Event, ...]
    told_at = memory.told_at
    if told_at is None or memory.told is None:
        memory, events = _told(memory, severity, now), (Event.FIRED,)
    elif severity is Severity.CRITICAL is not memory.told:
        memory, events = _told(memory, severity, now), (Event.WORSE,)
    else:
        memory, events = _reminded(limits, memory, told_at, now, is_acked=is_acked)
    return _said_besides(limits, memory, events, now)


def _told(memory: Memory, severity: Severity, now: datetime) -> Memory:
    return replace(memory, told_at=now, told=severity, notified_at=now, escalated_at=None)


def _reminded(
    limits: Limits, memory: Memory, told_at: datetime, now: datetime, *, is_acked: bool
) -> tuple[Memory, tuple[Event, ...]]:
    """Whoever has acknowledged it needs no reminder."""
    if is_acked:
        return memory, ()
    is_late = limits.escalate is not None and now - told_at >= limits.escalate > timedelta(0)
    if is_late and memory.escalated_at is None:
        return replace(memory, escalated_at=now, notified_at=now), (Event.ESCALATED,)
    last = memory.notified_at or told_at
    if limits.repeat is not None and now - last >= limits.repeat > timedelta(0):
        return replace(memory, notified_at=now), (Event.REPEATED,)
    return memory, ()


def _said_besides(
    limits: Limits, memory: Memory, events: tuple[Event, ...], now: datetime
) -> tuple[Memory, tuple[Event, ...]]:
    """What is said once: that it comes and goes, and that its number is not measured any more."""
    if memory.is_flapping and not memory.said_flapping:
        memory, events = replace(memory, said_flapping=True), (*events, Event.FLAPPING)
    is_stale = memory.seen_at is not None and now - memory.seen_at > limits.stale
    if is_stale and not memory.said_stale:
        memory, events = replace(memory, said_stale=True), (*events, Event.STALE)
    return memory, events


def _flipped(memory: Memory, at: datetime) -> tuple[datetime, ...]:
    return (*memory.flips, at)[-_FLIPS_MAX:]


def _flips_counted(memory: Memory, now: datetime) -> Memory:
    """Flapping begins with many flips within an hour, and ends when it rests and they are few."""
    if not memory.flips and not memory.is_flapping:
        return memory
    flips = tuple(at for at in memory.flips if now - at < FLAPPING_WITHIN)
    is_flapping = len(flips) >= FLAPPING_FLIPS or (memory.is_flapping and memory.is_firing)
    return replace(
        memory, flips=flips, is_flapping=is_flapping,
        said_flapping=memory.said_flapping and is_flapping,
    )  # fmt: skip


def _not_ahead(memory: Memory, now: datetime) -> Memory:
    """No time of another's clock that was ahead: or nothing would happen until it comes."""
    late: dict[str, Any] = {
        name: now for name in _TIMES if (at := getattr(memory, name)) is not None and at > now
    }
    if any(at > now for at in memory.flips):
        late["flips"] = tuple(min(at, now) for at in memory.flips)
    return replace(memory, **late) if late else memory
