"""After a change: is the picture worse than it was before? As signals of the alerts' machine. Pure.

Before is the average of the samples of as long a time as is watched afterwards. A metric counts
as worse when it is beyond twice its average before and beyond it by more than what such a
number moves on its own: one rolled-back transaction in a quiet minute is no picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

from jobs.alert_machine import Limits, Memory, Reading, Severity
from jobs.alert_readings import Servers, number, runbook
from jobs.alert_signal import Signal, Words
from jobs.metric_text import metric_text
from jobs.operation import Database, Suggestion
from postgres.health.metrics import METRICS
from store.samples import Point
from store.watches import WatchRow

NAME: Final = "WorseAfterChange"
FACTOR: Final = 2.0
# What fires for a moment only may be the change itself, whose locks are just released.
LASTING: Final = timedelta(minutes=2)
HOLD: Final = timedelta(minutes=5)
_LIMITS: Final = Limits(
    fire=1.0, clear=0.8, lasting=LASTING, hold=HOLD, repeat=timedelta(hours=1),
    escalate=timedelta(minutes=15),
)  # fmt: skip
# Somebody who looks at a change that ended so long ago looks elsewhere.
OVERTIME: Final = timedelta(hours=24)
# Errors, slow statements, locks and lag: by how much each must grow before it counts.
LEAST: Final[Mapping[str, float]] = MappingProxyType(
    {
        "rollback_pct": 2.0,
        "slow_queries": 10.0,
        "query_ms_p95": 20.0,
        "lock_waits": 3.0,
        "connections_waiting": 5.0,
        "deadlocks": 2.0,
        "replication_lag_ms": 10_000.0,
    }
)
_NAMED_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Degree:
    """How a metric stands against before: beyond 1 it is worse."""

    metric: str
    before: float
    now: float

    @property
    def degree(self) -> float:
        """Its value in parts of the one from which it counts as worse."""
        return self.now / max(self.before * FACTOR, self.before + LEAST[self.metric])


def averages(points: Sequence[Point]) -> Mapping[str, float]:
    """What each watched metric was on average; one that was not measured is left out."""
    found: dict[str, float] = {}
    for metric in LEAST:
        values = [v for point in points if (v := point.numbers.get(metric)) is not None]
        if values:
            found[metric] = sum(values) / len(values)
    return found


def degrees(before: Mapping[str, float], now: Mapping[str, float | None]) -> tuple[Degree, ...]:
    """Each metric that is known of both times, the worst first."""
    found = [
        Degree(metric=metric, before=before[metric], now=value)
        for metric in LEAST
        if metric in before and (value := now.get(metric)) is not None
    ]
    return tuple(sorted(found, key=lambda each: -each.degree))


def watch_signals(watches: Iterable[WatchRow], servers: Servers, now: datetime) -> Iterator[Signal]:
    """A signal for each change that is watched, until it is over and well."""
    row = servers.rows.get(servers.primary)
    fresh = row if row is not None and servers.is_fresh(row) else None
    numbers = {metric: number(fresh, metric) if fresh else None for metric in LEAST}
    at = (fresh.seen_at or fresh.at) if fresh else now
    for watch in watches:
        found = degrees(watch.before, numbers)
        # A sample from before the end of the change says nothing of what came after it.
        is_after = at > watch.at
        value = found[0].degree if found and is_after else None
        yield Signal(
            name=NAME,
            label=f"request {watch.request_id}",
            node=servers.primary,
            severity=Severity.CRITICAL,
            limits=_LIMITS,
            reading=Reading(value=value, at=at if is_after else now),
            say=partial(_words, servers.database, watch, found),
            subject=f"{NAME} {watch.request_id}",
        )


def verdict(watch: WatchRow, *, is_firing: bool, now: datetime) -> str | None:
    """The state that a watch changes to; None while it stays. One that fires is not fine."""
    if is_firing:
        if now >= watch.until + OVERTIME:
            return "fine" if watch.state == "worse" else None
        return "worse" if watch.state != "worse" else None
    return "fine" if now >= watch.until else None


def _words(database: Database, watch: WatchRow, found: Sequence[Degree], memory: Memory) -> Words:
    del memory
    worse = [each for each in found if each.degree > 1] or list(found[:1])
    said = "; ".join(
        f"{METRICS[each.metric].says}: {metric_text(each.metric, each.now)}, was"
        f" {metric_text(each.metric, each.before)}"
        for each in worse[:_NAMED_MAX]
    )
    problem = f"{database.name} is worse than before request {watch.request_id}"
    problem += f" ({watch.subject}): {said}." if said else f" ({watch.subject})."
    undo = _undo(watch, problem)
    step = "Take the change back where it is the cause" if undo else "See what the change brought"
    return Words(
        problem=problem,
        next_step=f"{step}; /db slow {database.name} and /db locks {database.name} say more.",
        suggestions=undo,
        runbook=runbook(NAME, database),
    )


def _undo(watch: WatchRow, why: str) -> tuple[Suggestion, ...]:
    operation, params = watch.undo.get("operation"), watch.undo.get("params")
    if not isinstance(operation, str) or not isinstance(params, Mapping):
        return ()
    return (Suggestion(text="Take it back", operation=operation, params=dict(params), reason=why),)
