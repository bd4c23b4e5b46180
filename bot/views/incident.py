"""An incident as one message: what fires on a database, since when, what to do, who is at it. Pure.

One function draws every state and the message is always replaced whole, so that what people
see cannot drift from what is stored. Every state is said in words: marks only help the eye.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never
from urllib.parse import urlsplit

from bot.blocks import (
    MESSAGE_TEXT_CHARS_MAX,
    Block,
    Message,
    actions,
    button,
    context,
    escape,
    header,
    moment,
    one_line,
    section,
    shorten,
)
from bot.views.words import count

ACK: Final = "incident_ack"
BUTTONS_MAX: Final = 5
FIRING_MAX: Final = 10
OVER_MAX: Final = 5
_PROBLEM_CHARS_MAX: Final = 900
_NEXT_CHARS_MAX: Final = 600
_WORD_CHARS_MAX: Final = 120
_REASON_CHARS_MAX: Final = 300
_CRITICAL: Final = "critical"
# A link is text of ours before somebody else's address: nothing in it may end the link.
_LINK: Final = re.compile(r"https?://[^\s<>|\"'`\\]{1,1500}")
_NOTE_MARKS: Final = {"alarm": "🚨", "warning": "⚠️", "done": "✅", "silence": "🔕", "ack": "☑️"}


class Standing(StrEnum):
    """How an incident stands, for people."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hush:
    """A silence: until when, by whom and why."""

    until: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """An alert of an incident. `about`: which of several; `value`: with its unit, or ''."""

    name: str
    severity: str
    problem: str
    next_step: str
    fired_at: datetime
    about: str = ""
    value: str = ""
    resolved_at: datetime | None = None
    acked_by: str = ""
    acked_at: datetime | None = None
    hush: Hush | None = None
    muted: str = ""  # why nobody is told of it at present, where that is no silence
    runbook: str = ""

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is to hear of it at present."""
        return self.hush is not None or bool(self.muted)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentCard:
    """What an incident's message shows. `suggested` are buttons that somebody else drew."""

    id: int
    database: str
    severity: str
    is_open: bool
    opened_at: datetime
    closed_at: datetime | None = None
    channel: str = ""
    is_foreign: bool = False  # Alertmanager told us
    left_out: int = 0  # alerts that Alertmanager did not send along
    alerts: tuple[AlertLine, ...] = ()
    ack: str = ""  # the sealed value of its button
    suggested: tuple[Block, ...] = ()

    @property
    def firing(self) -> tuple[AlertLine, ...]:
        """Those that fire, the worst first."""
        found = (each for each in self.alerts if each.resolved_at is None)
        return tuple(sorted(found, key=lambda each: (each.severity != _CRITICAL, each.fired_at)))

    @property
    def over(self) -> tuple[AlertLine, ...]:
        """Those that are over, the last first."""
        ended = [(each.resolved_at, each) for each in self.alerts if each.resolved_at is not None]
        return tuple(each for _, each in sorted(ended, key=lambda one: one[0], reverse=True))

    @property
    def standing(self) -> Standing:
        """The state that people act on: one alert that nobody has seen makes it fire."""
        if not self.is_open:
            return Standing.CLOSED
        heard = [each for each in self.firing if not each.is_quiet]
        if self.firing and not heard:
            return Standing.SILENCED
        if heard and all(each.acked_by for each in heard):
            return Standing.ACKNOWLEDGED
        return Standing.FIRING


def incident_message(card: IncidentCard) -> Message:
    """The message of an incident, whatever state it is in."""
    head = _head(card)
    worst = card.firing[0] if card.firing else None
    said = f" {one_line(worst.problem)} Next: {one_line(worst.next_step)}" if worst else ""
    return Message(
        text=shorten(f"{_mark(card)} {escape(head)}.{said}", MESSAGE_TEXT_CHARS_MAX),
        blocks=(
            header(head, mark=_mark(card)),
            *(section(_alert(each)) for each in card.firing[:FIRING_MAX]),
            *_more(card),
            *_over(card),
            context(_small_print(card)),
            *_buttons(card),
        ),
    )


def open_incidents_blocks(cards: Sequence[IncidentCard], *, most: int) -> list[Block]:
    """What fires now, one line each and the worst first; nothing where nothing fires."""
    if not cards:
        return []
    order = {Standing.FIRING: 0, Standing.ACKNOWLEDGED: 1}
    ordered = sorted(
        cards,
        key=lambda card: (
            order.get(card.standing, 2), _severity(card) != _CRITICAL, card.opened_at,
        ),
    )  # fmt: skip
    lines = [
        f"{_mark(card)} *{one_line(_head(card))}*, incident {card.id}, since "
        f"{moment(card.opened_at)}{f' in <#{card.channel}>' if card.channel else ''}"
        for card in ordered[:most]
    ]
    if rest := len(cards) - len(lines):
        lines.append(f"…and {count(rest, 'more incident')}: `/db alerts`.")
    return [header(f"Fires now: {len(cards)}"), section("\n".join(lines))]


def note_message(text: str, mark: str) -> Message:
    """What happened, in the thread. `mark`: alarm, warning, done, silence or ack."""
    said = f"{_NOTE_MARKS.get(mark, '')} {escape(text)}".strip()
    return Message(text=shorten(said, MESSAGE_TEXT_CHARS_MAX), blocks=(section(said),))


def escalation_message(card: IncidentCard, *, text: str, link: str) -> Message:
    """For whoever is told when nobody looks at an incident, with the way to its message."""
    head = f"🔔 Nobody has acknowledged: {one_line(_head(card))}"
    why = f"\n{escape(shorten(text, _PROBLEM_CHARS_MAX))}" if text else ""
    where = (
        f"<{_address(link)}|Open the message to acknowledge it>"
        if _LINK.fullmatch(link)
        else f"Acknowledge it: `/db ack {card.id}`"
    )
    worst = [section(_alert(each)) for each in card.firing[:1]]
    return Message(
        text=shorten(f"{head}{why}", MESSAGE_TEXT_CHARS_MAX),
        blocks=(section(f"*{head}*{why}"), *worst, context(where)),
    )


def _head(card: IncidentCard) -> str:
    """The headline, not yet escaped."""
    shown = card.firing or card.alerts
    what = shown[0].name if len({each.name for each in shown}) == 1 else ""
    what = what or count(len(shown), "alert")
    many = f" ({len(shown)})" if shown and what == shown[0].name and len(shown) > 1 else ""
    severity = _severity(card).capitalize()
    match card.standing:
        case Standing.FIRING:
            state = severity
        case Standing.ACKNOWLEDGED | Standing.SILENCED as standing:
            state = f"{standing.capitalize()}, {severity.lower()}"
        case Standing.CLOSED:
            state = "Over"
        case _:
            assert_never(card.standing)
    return f"{state} on {card.database}: {shorten(what, _WORD_CHARS_MAX)}{many}"


def _severity(card: IncidentCard) -> str:
    return card.firing[0].severity if card.firing else card.severity


def _mark(card: IncidentCard) -> str:
    match card.standing:
        case Standing.FIRING:
            return _NOTE_MARKS["alarm" if _severity(card) == _CRITICAL else "warning"]
        case Standing.ACKNOWLEDGED:
            return _NOTE_MARKS["ack"]
        case Standing.SILENCED:
            return _NOTE_MARKS["silence"]
        case Standing.CLOSED:
            return _NOTE_MARKS["done"]
        case _:
            assert_never(card.standing)


def _alert(alert: AlertLine) -> str:
    facts = [
        f"*{_short(alert.name)}*" + (f" ({_short(alert.about)})" if alert.about else ""),
        alert.severity,
        *([_short(alert.value)] if alert.value else []),
        f"since {moment(alert.fired_at)}",
    ]
    return "\n".join(
        [
            " · ".join(facts),
            escape(shorten(alert.problem, _PROBLEM_CHARS_MAX)),
            f"*Next:* {escape(shorten(alert.next_step, _NEXT_CHARS_MAX))}{_runbook(alert)}",
            *_at_it(alert),
        ]
    )


def _at_it(alert: AlertLine) -> list[str]:
    """Who has seen it, and until when nobody is told."""
    lines: list[str] = []
    if alert.acked_by:
        when = f" {moment(alert.acked_at)}" if alert.acked_at else ""
        lines.append(f"Acknowledged by {_short(alert.acked_by)}{when}")
    if hush := alert.hush:
        reason = one_line(shorten(hush.reason, _REASON_CHARS_MAX))
        lines.append(f"Silenced until {moment(hush.until)} by {_short(hush.by)}: {reason}")
    elif alert.muted:
        lines.append(f"Not told for now: {one_line(shorten(alert.muted, _REASON_CHARS_MAX))}")
    return lines


def _runbook(alert: AlertLine) -> str:
    if not alert.runbook:
        return ""
    if not _LINK.fullmatch(alert.runbook):
        return f" · Runbook: {_short(alert.runbook)}"
    # Who wrote the alert wrote the address: its host is shown before anybody follows it.
    host = one_line(urlsplit(alert.runbook).netloc)
    return f" · <{_address(alert.runbook)}|Runbook ({host})>"


def _address(url: str) -> str:
    return url.replace("&", "&amp;")


def _more(card: IncidentCard) -> list[Block]:
    hidden = len(card.firing) - FIRING_MAX
    said = [
        f"…and {count(hidden, 'more alert')}: `/db alerts {one_line(card.database)}`."
        if hidden > 0
        else "",
        f"Alertmanager left out {count(card.left_out, 'more alert')} (its `max_alerts`)."
        if card.left_out and card.is_open
        else "",
    ]
    shown = [each for each in said if each]
    return [context(" ".join(shown))] if shown else []


def _over(card: IncidentCard) -> list[Block]:
    lines = [
        f"Over: *{_short(each.name)}*"
        + (f" ({_short(each.about)})" if each.about else "")
        + f", {each.severity} from {moment(each.fired_at)} to {moment(each.resolved_at)}"
        + (f", acknowledged by {_short(each.acked_by)}" if each.acked_by else "")
        for each in card.over[:OVER_MAX]
        if each.resolved_at is not None
    ]
    if rest := len(card.over) - len(lines):
        lines.append(f"…and {count(rest, 'more alert')} that ended before.")
    return [context("\n".join(lines))] if lines else []


def _small_print(card: IncidentCard) -> str:
    until = f" to {moment(card.closed_at)}" if card.closed_at else ""
    opened = f"{'open since' if card.is_open else 'open from'} {moment(card.opened_at)}{until}"
    said = [
        f"Incident {card.id}, {opened}.",
        "Told by Alertmanager." if card.is_foreign else "",
        "Its history is in the thread.",
    ]
    return " ".join(each for each in said if each)


def _buttons(card: IncidentCard) -> Sequence[Block]:
    """At most five; a closed incident has none."""
    if not card.is_open:
        return ()
    unseen = [each for each in card.firing if not each.acked_by]
    own: list[Block] = []
    if card.ack and unseen:
        label = f"Acknowledge incident {card.id} on {card.database}"
        own.append(
            button("Acknowledge", action_id=ACK, value=card.ack, style="primary", label=label[:75])
        )
    shown = [*own, *card.suggested][:BUTTONS_MAX]
    return (actions(*shown, block_id=f"incident.{card.id}"),) if shown else ()


def _short(text: str) -> str:
    return one_line(shorten(text, _WORD_CHARS_MAX))
