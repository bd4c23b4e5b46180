"""What one look changes for one database: memories, alerts, its incident, and what is told. Pure.

First every alert is observed, whoever may hear of it; then it is known what fires, and so what
is needless beside it; only then is anything announced. All that fires and is told on a
database is one incident: it opens with the first and closes with the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from pydantic import JsonValue

from jobs.alert_helps import suggestions_as_json, suggestions_of
from jobs.alert_machine import BLANK, Event, Memory, Phase, Severity, announce, ended, observe
from jobs.alert_rule import MONITORING_BLIND, REPLICA_MISSING, SERVER_DOWN
from jobs.alert_signal import Key, Signal, Words
from jobs.alert_words import Heard, lines
from store.incidents import AlertRow, IncidentRow
from store.silences import SilenceRow

Kind = Literal["note", "escalation"]
Mark = Literal["alarm", "warning", "done"]
_LOUD: Final = frozenset({Event.FIRED, Event.WORSE, Event.REPEATED, Event.ESCALATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a database at a look.

    `unread`: alerts whose signals could not be had this time; they stay as they are. An alert
    that is remembered, and neither among the signals nor unread, is not watched any more.
    """

    database: str
    signals: tuple[Signal, ...]
    memories: Mapping[Key, Memory] = field(default_factory=dict)
    rows: Mapping[Key, AlertRow] = field(default_factory=dict)
    silences: tuple[SilenceRow, ...] = ()
    incident: IncidentRow | None = None
    unread: Callable[[str], bool] = lambda name: False  # noqa: ARG005


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An alert that fires, as it is to be stored. `row`: what is stored now."""

    key: Key
    severity: Severity
    words: Words
    memory: Memory
    detail: Mapping[str, JsonValue]
    row: AlertRow | None
    is_worse: bool = False

    @property
    def is_told(self) -> bool:
        """Whether people know of it: then it belongs to the incident."""
        return self.memory.told_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What goes into the thread, or to whom nobody's silence is told. `is_loud`: not to miss."""

    kind: Kind
    text: str
    mark: Mark
    is_loud: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be stored and told. `memories`: those that changed, None to forget one.

    `severity` None: nothing that people know of fires, so that an open incident closes.
    `is_changed`: the incident's message is to be drawn anew.
    """

    database: str
    memories: Mapping[Key, Memory | None] = field(default_factory=dict)
    firing: tuple[Standing, ...] = ()
    over: tuple[AlertRow, ...] = ()
    notes: tuple[Note, ...] = ()
    severity: Severity | None = None
    is_changed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store: most databases are well at most looks."""
        return not (self.memories or self.firing or self.over or self.is_changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """An alert after its reading: `was` is what was remembered before."""

    signal: Signal
    was: Memory
    memory: Memory


def decide(look: Look, now: datetime) -> Decision:
    """What this look changes. Looking again at the same time changes nothing more."""
    seen = [_observed(look, signal, now) for signal in look.signals]
    firing = [each.signal for each in seen if each.memory.is_firing]
    down = _replicas_down(firing)
    memories: dict[Key, Memory | None] = {}
    standing: list[Standing] = []
    heard: list[Heard] = []
    for each in seen:
        muted = muted_by(each.signal, firing, look.silences, each.memory, down)
        row = look.rows.get(each.signal.key)
        after, events = _announced(each, row, now, is_muted=bool(muted))
        kept = None if after.is_blank else after
        if kept != look.memories.get(each.signal.key):
            memories[each.signal.key] = kept
        if not (after.is_firing or events):
            continue
        words = _words(each.signal, after if after.is_firing else each.was, row)
        heard += _heard(each, after, words, events)
        if after.is_firing:
            standing.append(_standing(each.signal, after, words, row, events, muted))
    gone = _gone(look)
    heard += _last_words(look, gone)
    memories |= dict.fromkeys(gone)
    return _decided(look, memories, standing, heard, now)


def _observed(look: Look, signal: Signal, now: datetime) -> _Seen:
    was = look.memories.get(signal.key) or remembered(look.rows.get(signal.key))
    return _Seen(signal=signal, was=was, memory=observe(signal.limits, was, signal.reading, now))


def remembered(row: AlertRow | None) -> Memory:
    """What a stored alert that fires says of itself, should its memory be lost or unreadable."""
    if row is None:
        return BLANK
    memory = Memory(phase=Phase.FIRING, since=row.fired_at, value=row.value, peak=row.value)
    if row.incident_id is None:
        return memory
    return replace(
        memory, told_at=row.fired_at, notified_at=row.fired_at, told=Severity(row.severity)
    )


def muted_by(
    signal: Signal,
    firing: Iterable[Signal],
    silences: Iterable[SilenceRow],
    memory: Memory,
    replicas_down: int,
) -> str:
    """Why nobody is to hear of it now, or ''."""
    if not memory.is_firing:
        return ""
    for silence in silences:
        if silence.name in {"", signal.name} and (
            silence.source != "run" or signal.is_measured or signal.is_of_server
        ):
            return f"silenced until {silence.ends_at:%Y-%m-%d %H:%M} UTC: {silence.reason}"
    if signal.name == REPLICA_MISSING and 0 < (memory.value or 0) <= replicas_down:
        return f"{SERVER_DOWN} fires for it"
    by = next((each.name for each in firing if _is_needless(signal, each)), "")
    return f"{by} fires" if by else ""


def _is_needless(signal: Signal, other: Signal) -> bool:
    """Whether `signal` says nothing new while `other` fires on the same server."""
    if other.node != signal.node or other is signal:
        return False
    if other.name == SERVER_DOWN:
        return signal.is_of_server
    if other.name == MONITORING_BLIND:
        return signal.is_measured
    if other.name in signal.silenced_by:
        return True
    is_lesser = other.severity is Severity.CRITICAL is not signal.severity
    return is_lesser and other.subject == signal.subject


def _replicas_down(firing: Iterable[Signal]) -> int:
    return sum(each.name == SERVER_DOWN and each.label != "" for each in firing)


def _announced(
    each: _Seen, row: AlertRow | None, now: datetime, *, is_muted: bool
) -> tuple[Memory, tuple[Event, ...]]:
    return announce(
        each.signal.limits,
        each.memory,
        now,
        severity=each.signal.severity,
        is_muted=is_muted,
        is_acked=row is not None and row.acked_at is not None,
    )


def _words(signal: Signal, memory: Memory, row: AlertRow | None) -> Words:
    """What it says now; what is not seen any more keeps its words until it is over."""
    said = signal.say(memory)
    if signal.is_found or row is None:
        return said
    return replace(
        said, problem=row.problem, next_step=row.next_step, suggestions=suggestions_of(row.detail)
    )


def _standing(
    signal: Signal,
    memory: Memory,
    words: Words,
    row: AlertRow | None,
    events: Sequence[Event],
    muted: str,
) -> Standing:
    detail: dict[str, JsonValue] = {
        "node": signal.node,
        "metric": words.metric,
        "runbook": words.runbook,
        "suggestions": suggestions_as_json(words.suggestions),
        "muted": muted,
        "flapping": memory.is_flapping,
    }
    return Standing(
        key=signal.key,
        severity=signal.severity if signal.is_found or row is None else Severity(row.severity),
        words=words,
        memory=memory,
        detail=detail,
        row=row,
        is_worse=Event.WORSE in events,
    )


def _heard(each: _Seen, after: Memory, words: Words, events: Sequence[Event]) -> Iterator[Heard]:
    for event in events:
        yield Heard(
            event=event,
            name=each.signal.name,
            label=each.signal.label,
            severity=each.signal.severity,
            problem=words.problem,
            memory=each.memory if event is Event.RESOLVED else after,
            metric=words.metric,
        )


def _gone(look: Look) -> Sequence[Key]:
    """What is remembered and not watched any more: a rule, a server or a database that left."""
    watched = {signal.key for signal in look.signals}
    known = [*look.memories, *(key for key in look.rows if key not in look.memories)]
    return [key for key in known if key not in watched and not look.unread(key[0])]


def _last_words(look: Look, gone: Iterable[Key]) -> Iterator[Heard]:
    for name, label in gone:
        row = look.rows.get((name, label))
        memory = look.memories.get((name, label)) or remembered(row)
        if memory.told_at is not None:
            yield Heard(
                event=Event.RESOLVED,
                name=name,
                label=label,
                severity=memory.told or Severity.WARNING,
                problem="",
                memory=ended(memory),
                is_watched=False,
            )


def _decided(
    look: Look,
    memories: Mapping[Key, Memory | None],
    standing: Sequence[Standing],
    heard: Sequence[Heard],
    now: datetime,
) -> Decision:
    fires = {each.key for each in standing}
    unread = [row for key, row in look.rows.items() if key not in fires and look.unread(key[0])]
    told = [each.severity for each in standing if each.is_told]
    told += [Severity(row.severity) for row in unread if row.incident_id is not None]
    severity = max(told, key=lambda each: each is Severity.CRITICAL, default=None)
    stays = {row.id for row in unread}
    over = tuple(row for key, row in look.rows.items() if key not in fires and row.id not in stays)
    return Decision(
        database=look.database,
        memories=memories,
        firing=tuple(standing),
        over=over,
        notes=tuple(_notes(look, heard, now)),
        severity=severity,
        is_changed=bool(heard) or _is_drawn_otherwise(look, standing, severity),
    )


def _is_drawn_otherwise(
    look: Look, standing: Sequence[Standing], severity: Severity | None
) -> bool:
    """Whether an open incident's message shows something that is not so any more."""
    if look.incident is None:
        return severity is not None
    return look.incident.severity != severity or any(
        _shown(each.detail) != _shown(each.row.detail)
        for each in standing
        if each.is_told and each.row is not None
    )


def _shown(detail: Mapping[str, JsonValue]) -> tuple[bool, object]:
    """Whether it is silent, and what its buttons would do: a blocker that is gone helps nobody."""
    buttons = [(each.operation, dict(each.params)) for each in suggestions_of(detail)]
    return bool(detail.get("muted")), buttons


def _notes(look: Look, heard: Sequence[Heard], now: datetime) -> Iterator[Note]:
    """At most one note of what begins and one of what ends, and one to whom it escalates.

    What opens an incident stands in its message, which nobody misses. What joins an open one
    stands in the thread only, and must be heard of there.
    """
    begins = [each for each in heard if each.event is not Event.RESOLVED]
    ends = [each for each in heard if each.event is Event.RESOLVED]
    if begins:
        is_bad = any(each.severity is Severity.CRITICAL for each in begins)
        yield Note(
            kind="note",
            text=lines(begins, now),
            mark="alarm" if is_bad else "warning",
            is_loud=look.incident is not None and any(e.event in _LOUD for e in begins),
        )
    if ends:
        yield Note(kind="note", text=lines(ends, now), mark="done")
    late = [each for each in heard if each.event is Event.ESCALATED]
    if late:
        yield Note(kind="escalation", text=lines(late, now), mark="alarm", is_loud=True)
