"""A failover that no run of ours did, and a pair whose primary is gone, as signals. Pure.

Neither is a number that crosses a limit: what happened is told for as long as it needs somebody,
and what could be done is proposed with its evidence, and never done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from jobs.alert_machine import Limits, Memory, Reading, Severity
from jobs.alert_readings import Servers, runbook
from jobs.alert_rule import stale_after
from jobs.alert_signal import Signal, Words
from jobs.cluster_look import cluster_name
from jobs.failover_watch import lost_time, remembered
from jobs.operation import Database, Suggestion
from jobs.text import span_text
from store.cluster_events import ClusterEvent
from store.samples import NodeRow

FAILED_OVER: Final = "FailedOver"
PRIMARY_GONE: Final = "PrimaryGone"
FAILOVERS: Final = frozenset({FAILED_OVER, PRIMARY_GONE})
# It is told for as long at least, until all servers follow, and at most for a day.
TOLD_FOR: Final = timedelta(minutes=15)
TOLD_FOR_MAX: Final = timedelta(hours=24)
# Somewhat longer: what is over must be seen to be over.
SEEN_FOR: Final = timedelta(hours=48)
_MINUTE: Final = timedelta(minutes=1)
_EVIDENCE_CHARS_MAX: Final = 900


def failover_signals(events: Iterable[ClusterEvent], servers: Servers) -> Iterator[Signal]:
    """A signal for each promotion that was not ours, and one for a pair without a primary."""
    database = servers.database
    if database.cluster is None or not database.monitoring.is_on:
        return
    row = servers.rows.get(cluster_name(database))
    fresh = row if row is not None and servers.is_fresh(row) else None
    for event in events:
        if event.request_id is None:
            yield _failed_over(servers, event, fresh)
    yield _gone(servers, fresh)


def is_settled(event: ClusterEvent, row: NodeRow | None, now: datetime) -> bool:
    """Whether nobody needs to hear of it any more: all servers have followed for a while."""
    if now - event.at >= TOLD_FOR_MAX:
        return True
    return now - event.at >= TOLD_FOR and row is not None and not _behind(row, event.timeline)


def _behind(row: NodeRow, timeline: int) -> Sequence[str]:
    """Servers that do not answer, or are on an older timeline."""
    return [
        str(each.get("name", ""))
        for each in _nodes(row)
        if each.get("problem") or (each.get("timeline") or 0) < timeline
    ]


def _failed_over(servers: Servers, event: ClusterEvent, row: NodeRow | None) -> Signal:
    settled = is_settled(event, row, servers.now)
    return Signal(
        name=FAILED_OVER,
        label=f"timeline {event.timeline}",
        node=cluster_name(servers.database),
        severity=Severity.CRITICAL,
        limits=_limits(servers.database, lasting=timedelta(0), repeat=timedelta(hours=4)),
        reading=Reading(value=float(not settled), at=servers.now),
        say=partial(_failed_over_words, servers.database, event, row),
        subject=f"{FAILED_OVER} {event.timeline}",
        # It has happened, whatever is down or at work.
        is_of_server=False,
        is_measured=False,
    )


def _failed_over_words(
    database: Database, event: ClusterEvent, row: NodeRow | None, memory: Memory
) -> Words:
    del memory
    new, old = event.new_node or "a server that nobody named", event.old_node
    when = event.promoted_at or event.at
    problem = (
        f"{database.name} failed over, and Twokey did not do it: {new} took over from {old} on"
        f" timeline {event.timeline}, {'at' if event.promoted_at else 'by'}"
        f" {when:%Y-%m-%d %H:%M:%S} UTC. {_lost(event)}"
    )
    return Words(
        problem=problem,
        next_step=(
            f"Check that applications write to {new} without errors, what {old} had acknowledged"
            f" and not sent (asynchronous replication loses it), why {old} was lost, and that it"
            f" follows and does not take writes: /db replication {database.name}."
        ),
        suggestions=tuple(_helps(database, event, row, why=problem)),
        runbook=runbook(FAILED_OVER, database),
    )


def _lost(event: ClusterEvent) -> str:
    """For how long nobody could write, and how that is known."""
    least, most = lost_time(event)
    known = f"for at most {_seconds(most)}"
    if least:
        known = f"for {_seconds(least)} to {_seconds(most)}"
    since = f"{event.old_node} was last seen to take writes at {event.old_at:%H:%M:%S}"
    return f"Nothing could be written {known}: {since}."


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"


def _helps(
    database: Database, event: ClusterEvent, row: NodeRow | None, *, why: str
) -> Iterator[Suggestion]:
    yield Suggestion(
        text="Replication", operation="replication", params={"database": database.name}
    )
    follows = row is not None and event.old_node not in _behind(row, event.timeline)
    if event.old_node != event.new_node and not follows:
        yield Suggestion(
            text=f"Rejoin {event.old_node}"[:75],
            operation="rejoin",
            params={"database": database.name, "node": event.old_node},
            reason=why,
        )


def _gone(servers: Servers, row: NodeRow | None) -> Signal:
    database = servers.database
    found = row.detail.get("proposal") if row else None
    told: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    lasting = database.cluster.limits.timeout if database.cluster else _MINUTE
    at = servers.now if row is None else row.seen_at or row.at
    return Signal(
        name=PRIMARY_GONE,
        label="",
        node=cluster_name(database),
        severity=Severity.CRITICAL,
        limits=_limits(database, lasting=lasting, repeat=timedelta(minutes=15)),
        reading=Reading(value=None if row is None else float(bool(told)), at=at),
        say=partial(_gone_words, database, row, told),
        subject=PRIMARY_GONE,
        # A look during a run that stops the primary proposes nothing; other runs say nothing.
        is_of_server=False,
        is_measured=False,
        is_found=bool(told),
    )


def _gone_words(
    database: Database, row: NodeRow | None, told: Mapping[str, Any], memory: Memory
) -> Words:
    del memory
    last = remembered(row.detail) if row else None
    leader, candidate = str(told.get("leader", "")), str(told.get("candidate", ""))
    evidence = " ".join(str(each) for each in told.get("evidence") or ())
    since = f" since {last.silent_at or last.at:%H:%M:%S} UTC" if last else ""
    problem = (
        f"Nobody takes writes on {database.name}{since}: its primary {leader} is gone, and"
        f" {candidate} could take over."
    )
    limit = span_text(database.cluster.limits.timeout) if database.cluster else ""
    return Words(
        problem=problem,
        next_step=(
            f"If {leader} can be started again, do that: nothing is lost then. If not, ask for the"
            f" failover to {candidate}: it promotes only with a proof that {leader} is down, and"
            f" nothing does so by itself. Told after {limit}. {evidence}"
        ),
        suggestions=(
            Suggestion(
                text=f"Fail over to {candidate}"[:75],
                operation="failover",
                params={"database": database.name, "to": candidate, "forced": True},
                reason=f"{problem} {evidence}"[:_EVIDENCE_CHARS_MAX],
            ),
            Suggestion(
                text="Replication", operation="replication", params={"database": database.name}
            ),
        ),
        runbook=runbook(PRIMARY_GONE, database),
    )


def _limits(database: Database, *, lasting: timedelta, repeat: timedelta) -> Limits:
    return Limits(
        fire=0,
        clear=0,
        lasting=lasting,
        hold=_MINUTE,
        repeat=repeat,
        escalate=timedelta(minutes=5),
        stale=stale_after(database.monitoring),
    )


def _nodes(row: NodeRow) -> Sequence[Mapping[str, Any]]:
    found = row.detail.get("nodes")
    return [each for each in found if isinstance(each, Mapping)] if found else []
