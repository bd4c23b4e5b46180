"""What the look at all servers of a cluster says, rule by rule. Pure.

Whether two servers take writes is no number of one server: it is told also while a server is
down, while nothing can be measured, and while a run is at work that silences the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from jobs.alert_helps import suggestions_for
from jobs.alert_machine import Memory, Reading
from jobs.alert_readings import Servers, number, runbook, words
from jobs.alert_rule import NODE_MISSING, OF_CLUSTER, TWO_WRITABLE, Rule
from jobs.alert_rules import rules_of
from jobs.alert_signal import Signal, Words
from jobs.cluster_look import cluster_name
from jobs.operation import Database
from store.samples import NodeRow

_NOTHING: Final[Mapping[str, Any]] = {}


def cluster_signals(servers: Servers) -> Iterator[Signal]:
    """The rules about all servers of `cluster:`; none where the inventory does not name them."""
    database = servers.database
    if database.cluster is None:
        return
    row = servers.rows.get(cluster_name(database))
    fresh = row if row is not None and servers.is_fresh(row) else None
    for rule in rules_of(database.monitoring).values():
        if rule.metric not in OF_CLUSTER:
            continue
        match rule.name:
            case name if name == NODE_MISSING:
                for node in database.cluster.nodes:
                    yield _missing(servers, rule, fresh, node.name)
            case name if name == TWO_WRITABLE:
                yield _split(servers, rule, fresh)
            case _:
                yield _own(servers, rule, fresh)


def _split(servers: Servers, rule: Rule, row: NodeRow | None) -> Signal:
    told = _mapping(row.detail.get("split_brain")) if row else _NOTHING
    return Signal(
        name=rule.name,
        label="",
        node=cluster_name(servers.database),
        severity=rule.severity,
        limits=rule.limits(servers.database.monitoring),
        reading=_reading(servers, rule, row),
        say=partial(_split_words, rule, servers.database, row, told),
        subject=rule.metric,
        # Neither a server that is down, nor a run at work, makes this needless.
        is_of_server=False,
        is_measured=False,
        is_found=bool(told),
    )


def _split_words(
    rule: Rule, database: Database, row: NodeRow | None, told: Mapping[str, Any], memory: Memory
) -> Words:
    said = words(rule, database, database.name, row, memory)
    if not told:
        return said
    return Words(
        problem=f"{database.name}: {told.get('problem', '')}",
        next_step=f"{told.get('next_step', '')} {said.next_step}".strip(),
        suggestions=said.suggestions,
        runbook=said.runbook,
        metric=rule.metric,
        value=memory.value,
    )


def _missing(servers: Servers, rule: Rule, row: NodeRow | None, node: str) -> Signal:
    """Of one server: each is told, acknowledged and over by itself."""
    seen = _seen(row, node)
    problem = str(seen.get("problem", ""))
    at = servers.now if row is None else row.seen_at or row.at
    return Signal(
        name=rule.name,
        label=node,
        node=node,
        severity=rule.severity,
        limits=rule.limits(servers.database.monitoring),
        reading=Reading(value=float(bool(problem)) if seen else None, at=at),
        say=partial(_missing_words, rule, servers.database, node, problem),
        subject=rule.metric,
        silenced_by=rule.silenced_by,
        is_measured=False,
        is_found=bool(problem),
    )


def _missing_words(
    rule: Rule, database: Database, node: str, problem: str, memory: Memory
) -> Words:
    """`memory` is not asked: it is there, or it is not."""
    del memory
    said = f"{node}, a server of {database.name}, does not answer: {problem or 'it was away'}."
    return Words(
        problem=said,
        next_step=rule.action.replace("{database}", database.name),
        suggestions=suggestions_for(
            rule.helps, database=database.name, detail=_NOTHING, why=f"{rule.name}: {said}"
        ),
        runbook=runbook(rule.name, database, own=rule.runbook),
        metric=rule.metric,
    )


def _own(servers: Servers, rule: Rule, row: NodeRow | None) -> Signal:
    """A rule of the inventory about one of these numbers."""
    return Signal(
        name=rule.name,
        label="",
        node=cluster_name(servers.database),
        severity=rule.severity,
        limits=rule.limits(servers.database.monitoring),
        reading=_reading(servers, rule, row),
        say=partial(words, rule, servers.database, servers.database.name, row),
        subject=rule.subject or rule.name,
        silenced_by=rule.silenced_by,
    )


def _reading(servers: Servers, rule: Rule, row: NodeRow | None) -> Reading:
    if row is None:
        return Reading(value=None, at=servers.now)
    return Reading(value=number(row, rule.metric), at=row.seen_at or row.at)


def _seen(row: NodeRow | None, node: str) -> Mapping[str, Any]:
    """What was seen of this node; nothing where nobody looked at it."""
    found = row.detail.get("nodes") if row else None
    listed = [each for each in found if isinstance(each, Mapping)] if found else []
    return next((each for each in listed if each.get("name") == node), _NOTHING)


def _mapping(stored: object) -> Mapping[str, Any]:
    return stored if isinstance(stored, Mapping) else _NOTHING
