"""What stands in an incident's thread, and what those hear who are told late. Pure, plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from jobs.alert_machine import Event, Memory, Severity
from jobs.metric_text import metric_text
from jobs.text import count_text, span_text
from postgres.health.metrics import METRICS

LINES_MAX: Final = 20
_LINE_CHARS_MAX: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An event of an alert, with what is to be said of it."""

    event: Event
    name: str
    label: str
    severity: Severity
    problem: str
    memory: Memory  # as it was before the event forgot whom it had told
    metric: str = ""
    is_watched: bool = True

    @property
    def title(self) -> str:
        """Such as "DiskUsage (west)"."""
        return f"{self.name} ({self.label})" if self.label else self.name


def line(heard: Heard, now: datetime) -> str:
    """One line of the thread."""
    title, problem = heard.title, heard.problem
    since = heard.memory.since or now
    match heard.event:
        case Event.FIRED:
            said = f"{heard.severity}: {title}. {problem}"
        case Event.WORSE:
            said = f"{title} is {heard.severity} now. {problem}"
        case Event.REPEATED:
            said = f"Still {heard.severity} after {_span(since, now)}: {title}. {problem}"
        case Event.ESCALATED:
            said = f"Nobody has acknowledged {title} for {_span(heard.memory.told_at, now)}."
        case Event.FLAPPING:
            said = (
                f"{title} comes and goes: {len(heard.memory.flips)} times within an hour. It must"
                " be quiet for longer now before it counts as over."
            )
        case Event.STALE:
            said = f"{title} is not measured any more; nobody knows whether it is over."
        case Event.RESOLVED:
            said = _over(heard, now)
        case _:
            assert_never(heard.event)
    return said if len(said) <= _LINE_CHARS_MAX else f"{said[: _LINE_CHARS_MAX - 1]}…"


def lines(heard: Sequence[Heard], now: datetime) -> str:
    """Several of them as one text."""
    shown = [line(each, now) for each in heard[:LINES_MAX]]
    rest = len(heard) - len(shown)
    return "\n".join([*shown, *([f"And {count_text(rest, 'more alert')}."] if rest else [])])


def _over(heard: Heard, now: datetime) -> str:
    if not heard.is_watched:
        return f"{heard.title} is not watched any more."
    memory, worst = heard.memory, ""
    if heard.metric in METRICS and memory.peak is not None:
        worst = f"; {metric_text(heard.metric, memory.peak)} at the worst"
    return f"Over: {heard.title}, told {_span(memory.told_at, now)} ago{worst}."


def _span(since: datetime | None, now: datetime) -> str:
    return span_text(max(now - (since or now), now - now))
