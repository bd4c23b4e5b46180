"""Whether a database is well, in one word and its reasons, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from jobs.alert_helps import suggestions_for, suggestions_of
from jobs.alert_rule import MONITORING_BLIND, SERVER_DOWN, Help
from jobs.health_state import FiringAlert, HealthState, is_stale
from jobs.operation import Suggestion
from jobs.text import count_text, span_text
from store.samples import NodeRow

ADVICE_MAX: Final = 5
# Alerts that say already which node nobody sees.
_SAID: Final = frozenset({SERVER_DOWN, MONITORING_BLIND})
_SUGGESTIONS_MAX: Final = 5
_NOTES_MAX: Final = 20
_NAMED_MAX: Final = 3


class Status(StrEnum):
    """The worst first."""

    CRITICAL = "critical"
    WARNING = "warning"
    UNKNOWN = "unknown"
    HEALTHY = "healthy"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A database's status and its reason, a sentence."""

    state: HealthState
    status: Status
    reason: str

    @property
    def order(self) -> tuple[int, int, str]:
        """The worst first."""
        return self.status.rank, -len(self.state.alerts), self.state.database.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do next: a line with the command that helps, and buttons where they do."""

    text: str
    suggestions: tuple[Suggestion, ...] = ()


def judged(state: HealthState, now: datetime) -> Judged:
    """The overall status, by the guide: what fires, then whether anybody sees it at all."""
    status = _status(state, now)
    return Judged(state=state, status=status, reason=_reason(state, status, now))


def worst_first(found: Iterable[Judged]) -> Sequence[Judged]:
    """Those that need somebody, before those that do not."""
    return sorted(found, key=lambda each: each.order)


def _status(state: HealthState, now: datetime) -> Status:
    severities = {alert.severity for alert in state.alerts}
    if "critical" in severities:
        return Status.CRITICAL
    if severities or state.is_blind(now):
        return Status.WARNING
    if not state.database.monitoring.is_on or state.seen_at is None:
        return Status.UNKNOWN
    return Status.HEALTHY if all(node.ok for node in state.nodes) else Status.WARNING


def _reason(state: HealthState, status: Status, now: datetime) -> str:
    if state.alerts:
        names = list(dict.fromkeys(alert.title for alert in state.alerts))
        rest = len(names) - _NAMED_MAX
        more = f" and {rest} more" if rest > 0 else ""
        verb = "fires" if len(state.alerts) == 1 else "fire"
        alerts = count_text(len(state.alerts), "alert")
        return f"{alerts} {verb}: {', '.join(names[:_NAMED_MAX])}{more}."
    if unseen := why_unseen(state, now):
        return unseen[0]
    if status is Status.WARNING:
        return "A node does not answer."
    return "Nothing fires, and every node answers."


def why_unseen(state: HealthState, now: datetime) -> tuple[str, str] | None:
    """Why there are no fresh numbers and what to do, as two sentences; None: there are."""
    name = state.database.name
    if not state.database.monitoring.is_on:
        return (
            f"Monitoring of {name} is switched off.",
            f"Take `monitoring: false` out of {name} in the inventory.",
        )
    if not state.nodes:
        return (
            f"No worker has looked at {name} yet.",
            "See whether a worker runs that has it in its inventory, and what twokey doctor says.",
        )
    main = state.main
    if main is None or main.seen_at is None:
        first = main or state.nodes[0]
        return first.problem or f"{name} was never seen.", first.next_step or "Try: twokey doctor"
    if is_stale(main, state.database, now):
        ago = span_text(now - main.seen_at)
        return (
            f"Nobody has seen {name} for {ago}. {main.problem}".strip(),
            main.next_step or "See whether a worker runs that has it in its inventory.",
        )
    return None


def advice(state: HealthState, now: datetime) -> tuple[Advice, ...]:
    """What to do next, the most urgent first; at most `ADVICE_MAX`, of which the last counts."""
    found = [
        *(_of_alert(alert) for alert in state.alerts),
        *_of_nodes(state, now),
        *(Advice(text=note) for note in notes(state)),
    ]
    if len(found) <= ADVICE_MAX:
        return tuple(found)
    rest = len(found) - ADVICE_MAX + 1
    more = Advice(text=f"And {rest} more: /db alerts {state.database.name}")
    return (*found[: ADVICE_MAX - 1], more)


def suggestions(state: HealthState, found: Iterable[Advice]) -> tuple[Suggestion, ...]:
    """Buttons that help, each once: what blocks others first. None leads back to this screen."""
    blocker = suggestions_for(
        [Help.END_BLOCKER], database=state.database.name, detail=state.detail,
        why="It holds up others and waits for nobody.",
    )  # fmt: skip
    seen: dict[tuple[str, str], Suggestion] = {}
    for each in (*blocker, *(one for advice in found for one in advice.suggestions)):
        if each.operation != "health":
            seen.setdefault((each.operation, str(sorted(each.params.items()))), each)
    return tuple(seen.values())[:_SUGGESTIONS_MAX]


def notes(state: HealthState) -> Sequence[str]:
    """What limits the numbers: statistics that are missing, or were reset."""
    missing = state.detail.get("statements_missing")
    said = [missing] if isinstance(missing, str) and missing else []
    given = state.detail.get("notes")
    more = [note for note in given if isinstance(note, str)] if isinstance(given, list) else []
    return list(dict.fromkeys([*said, *more[:_NOTES_MAX]]))


def _of_alert(alert: FiringAlert) -> Advice:
    acked = " Somebody is at it." if alert.acked_by else ""
    muted = alert.detail.get("muted")
    quiet = f" It is not told at present: {muted}." if isinstance(muted, str) and muted else ""
    text = f"{alert.severity}: {alert.title}. {alert.problem}{acked}{quiet} {alert.next_step}"
    return Advice(text=text, suggestions=suggestions_of(alert.detail))


def _of_nodes(state: HealthState, now: datetime) -> Iterator[Advice]:
    """Nodes that nobody sees, unless an alert says so already."""
    if any(alert.name in _SAID for alert in state.alerts):
        return
    main = state.main
    if unseen := why_unseen(state, now):
        yield Advice(text=" ".join(unseen))
    for node in state.nodes:
        is_said = node is main and unseen is not None
        if not is_said and (not node.ok or is_stale(node, state.database, now)):
            yield Advice(text=_unseen_node(node, now))
        elif not is_said and node.problem:  # it answers, but not to everything
            yield Advice(text=f"Node {node.node}: {node.problem} {node.next_step}".rstrip())


def _unseen_node(node: NodeRow, now: datetime) -> str:
    since = f"for {span_text(now - node.seen_at)}" if node.seen_at else "ever"
    said = f"Node {node.node} was not seen {since}."
    return " ".join(filter(None, (said, node.problem, node.next_step)))
