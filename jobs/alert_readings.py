"""What a database's servers say at a look, rule by rule. Pure.

A number counts for as long as its sample does; a cluster's number is that of the server that
is its primary now, whatever the inventory calls it. What cannot be read is no number, and no
number is never "all is well".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from jobs.alert_helps import suggestions_for
from jobs.alert_machine import Memory, Reading
from jobs.alert_rule import (
    MONITORING_BLIND,
    OF_CLUSTER,
    PRIMARIES,
    SERVER_DOWN,
    TWO_PRIMARIES,
    Rule,
    Scope,
    stale_after,
)
from jobs.alert_rules import rules_of
from jobs.alert_signal import Signal, Words
from jobs.metric_text import metric_text, number_text
from jobs.operation import Database
from postgres.health.metrics import METRICS
from store.samples import NodeRow

NEVER_SECONDS: Final = 10 * 365 * 86400.0
_PRIMARY: Final = "primary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """A database's servers as they were seen last; those of the inventory, and no others."""

    database: Database
    rows: Mapping[str, NodeRow]
    now: datetime

    @property
    def names(self) -> tuple[str, ...]:
        """The database's own server first."""
        return (self.database.name, *(node.name for node in self.database.replicas))

    @property
    def stale(self) -> timedelta:
        """How old a sample may be."""
        return stale_after(self.database.monitoring)

    def is_fresh(self, row: NodeRow) -> bool:
        """Whether its numbers are of now. A clock that is ahead makes nothing old."""
        return row.ok and self.now - (row.seen_at or row.at) <= self.stale

    @property
    def primaries(self) -> tuple[NodeRow, ...]:
        """Those that say now that they are the primary."""
        rows = [self.rows[name] for name in self.names if name in self.rows]
        return tuple(row for row in rows if self.is_fresh(row) and _role(row) == _PRIMARY)

    @property
    def primary(self) -> str:
        """The server that speaks for the cluster: the primary, or who was it last."""
        if now := self.primaries:
            return now[0].node
        last = [name for name in self.names if name in self.rows]
        were = [name for name in last if _role(self.rows[name]) == _PRIMARY]
        return next(iter([*were, *last]), self.database.name)


def servers_of(database: Database, rows: Sequence[NodeRow], now: datetime) -> Servers:
    """What is known of a database's servers."""
    return Servers(database=database, rows={row.node: row for row in rows}, now=now)


def metric_signals(servers: Servers) -> Iterator[Signal]:
    """Every rule of a database, for each server that it is about.

    Those about all servers of `cluster:` at once are `jobs.alert_cluster`'s.
    """
    for rule in rules_of(servers.database.monitoring).values():
        if rule.metric in OF_CLUSTER:
            continue
        if rule.scope is Scope.CLUSTER:
            yield _signal(servers, rule, servers.primary, label="")
        else:
            for name in servers.names:
                label = "" if name == servers.database.name else name
                yield _signal(servers, rule, name, label=label)


def _signal(servers: Servers, rule: Rule, node: str, *, label: str) -> Signal:
    row = servers.rows.get(node)
    return Signal(
        name=rule.name,
        label=label,
        node=node,
        severity=rule.severity,
        limits=rule.limits(servers.database.monitoring),
        reading=_reading(servers, rule, row),
        say=partial(words, rule, servers.database, node, row),
        subject=rule.subject or rule.metric,
        silenced_by=rule.silenced_by,
        is_measured=rule.name not in {SERVER_DOWN, MONITORING_BLIND},
    )


def _reading(servers: Servers, rule: Rule, row: NodeRow | None) -> Reading:
    match rule.name:
        case name if name == SERVER_DOWN:
            return _is_up(servers, row)
        case name if name == MONITORING_BLIND:
            return Reading(value=_age_seconds(servers, row), at=servers.now)
        case name if name == TWO_PRIMARIES:
            return _primaries(servers)
        case _:
            return _measured(servers, rule, row)


def _is_up(servers: Servers, row: NodeRow | None) -> Reading:
    """Whether it answered the last attempt; an old attempt says nothing."""
    if row is None or servers.now - row.at > servers.stale:
        return Reading(value=None, at=servers.now)
    return Reading(value=float(row.ok), at=row.at)


def _age_seconds(servers: Servers, row: NodeRow | None) -> float:
    if row is None or row.seen_at is None:
        return NEVER_SECONDS
    return max((servers.now - row.seen_at).total_seconds(), 0.0)


def _primaries(servers: Servers) -> Reading:
    """How many claim it; a claim is as old as the oldest of them, or a switch would look so."""
    known = [servers.rows[name] for name in servers.names if name in servers.rows]
    rows = [row for row in known if servers.is_fresh(row)]
    if not rows:
        return Reading(value=None, at=servers.now)
    claims = servers.primaries
    seen = [row.seen_at or row.at for row in (claims if len(claims) > 1 else rows)]
    return Reading(
        value=float(len(claims)), at=min(seen) if len(claims) > 1 else max(seen)
    )  # fmt: skip


def _measured(servers: Servers, rule: Rule, row: NodeRow | None) -> Reading:
    if row is None or not servers.is_fresh(row):
        return Reading(value=None, at=servers.now)
    at, value = row.seen_at or row.at, number(row, rule.metric)
    if rule.metric == PRIMARIES:
        return _primaries(servers)
    if rule.beside is not None:
        other = number(row, rule.beside.metric)
        if other is None:
            return Reading(value=None, at=at)
        if other <= rule.beside.fire:
            return Reading(value=rule.clear, at=at)
    return Reading(value=value, at=at)


def number(row: NodeRow, metric: str) -> float | None:
    """A number of a server; None where it is not known, or is none."""
    value = _mapping(row.numbers).get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def words(rule: Rule, database: Database, node: str, row: NodeRow | None, memory: Memory) -> Words:
    """What people read. What an inventory writes is never taken for our marks."""
    where = database.name if node == database.name else f"{database.name}/{node}"
    problem = _filled(
        rule.says, where=where, value=_value_text(rule, memory.value),
        limit=_value_text(rule, rule.fire),
    )  # fmt: skip
    next_step = _filled(rule.action, database=database.name)
    if rule.name == SERVER_DOWN and row is not None and not row.ok:
        problem, next_step = f"{problem} {row.problem}".strip(), row.next_step or next_step
    detail = _mapping(row.detail) if row is not None else {}
    return Words(
        problem=problem,
        next_step=next_step,
        suggestions=suggestions_for(
            rule.helps, database=database.name, detail=detail, why=f"{rule.name}: {problem}"
        ),
        runbook=runbook(rule.name, database, own=rule.runbook),
        metric=rule.metric,
        value=_shown(rule, memory.value),
    )


def runbook(name: str, database: Database, *, own: str = "") -> str:
    """The link to what to do, or ''."""
    return _filled(
        own or database.monitoring.runbooks, alert=quote(name), database=quote(database.name)
    )  # fmt: skip


def _value_text(rule: Rule, value: float | None) -> str:
    if rule.name == MONITORING_BLIND and (value or 0) >= NEVER_SECONDS:
        return "as long as we know"
    if rule.metric in METRICS:
        return metric_text(rule.metric, value)
    return number_text(value) if value is not None else metric_text("up", None)


def _shown(rule: Rule, value: float | None) -> float | None:
    """The number beside the words, where it is one that people would look at."""
    is_never = rule.name == MONITORING_BLIND and (value or 0) >= NEVER_SECONDS
    return None if rule.name == SERVER_DOWN or is_never else value


def _filled(text: str, **values: str) -> str:
    """Fill in what is known; other braces are somebody's text."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _role(row: NodeRow) -> str:
    return str(_mapping(row.detail).get("role", ""))


def _mapping(stored: Any) -> Mapping[str, Any]:
    """What a column of JSON holds, should it be an object."""
    return stored if isinstance(stored, Mapping) else {}
