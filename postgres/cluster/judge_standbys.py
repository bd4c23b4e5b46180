"""What is wrong with a cluster's standbys, its synchronous ones and its slots. Pure.

The lag is told from both sides, as neither can be believed alone: what the sender says is as
old as the standby's last answer, and a standby that hears nothing thinks that it is up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postgres.cluster.candidates import STREAMING, SYNC
from postgres.cluster.checks import Limits
from postgres.cluster.findings import Finding, Severity
from postgres.cluster.look import HIDDEN
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen, Role, Sender, Slot
from postgres.sizes import pretty_bytes

# A walsender that has nothing to send is heard of after half its wal_sender_timeout: 30 s.
SILENT_SECONDS: Final = 60.0
BACKUP: Final = "backup"


def of_standbys(seen: ClusterSeen, limits: Limits) -> Iterator[Finding]:
    """Who does not stream, replays nothing, does not answer, or is behind."""
    blind = [each for each in seen.nodes if _is_hidden(each)]
    for node in blind:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Our login may not see how replication does on {node.name}.",
            next_step="Run there as a superuser: GRANT pg_monitor TO the login of its DSN.",
            nodes=(node.name,),
        )
    for node in seen.nodes:
        upstream, sender = sender_to(seen, node.name)
        if not node.is_reached:
            # Frozen, it keeps its connection: its sender alone can tell for how long.
            yield from _silence(node, upstream, sender, limits)
        if node.role is not Role.STANDBY:
            continue
        if node.is_replay_paused:
            yield Finding(
                severity=Severity.WARNING,
                problem=f"Replay is paused on {node.name}.",
                next_step=f"SELECT pg_wal_replay_resume() on {node.name}, when whoever paused it"
                " has done their work.",
                nodes=(node.name,),
            )
        if not blind:
            yield from _streams(seen, node, upstream, sender)
        yield from _silence(node, upstream, sender, limits)
        yield from _lag(seen, node, upstream, sender, limits)


def sender_to(seen: ClusterSeen, name: str) -> tuple[NodeSeen | None, Sender | None]:
    """Which node sends to a standby, and how it sees it; the primary before all others. Pure."""
    order = sorted(seen.nodes, key=lambda each: each is not seen.primary)
    for node in order:
        for each in node.senders:
            if each.name == name and each.state != BACKUP:
                return node, each
    return None, None


def reply_age(sender: Sender, upstream: NodeSeen, node: NodeSeen | None) -> float | None:
    """How long ago a standby answered, with the difference of both clocks taken out. Pure.

    PostgreSQL takes the standby's time of the answer from the sender's time now.
    """
    if sender.reply_age is None:
        return None
    apart = 0.0
    if node and node.clock_ahead is not None and upstream.clock_ahead is not None:
        apart = node.clock_ahead - upstream.clock_ahead
    return max(sender.reply_age + apart, 0.0)


def own_backlog(node: NodeSeen) -> int | None:
    """What a standby has received and not replayed, by its own account; bytes. Pure."""
    if node.received is None or node.position is None:
        return None
    return max(node.received - node.position, 0)


def bytes_apart(seen: ClusterSeen, node: NodeSeen) -> int | None:
    """How far a standby's replay is from where the primary wrote, both looked at at once. Pure."""
    primary = seen.primary
    if primary is None or primary.position is None or node.position is None:
        return None
    return max(primary.position - node.position, 0)


def _is_hidden(node: NodeSeen) -> bool:
    return node.receiver == HIDDEN or any(each.state == HIDDEN for each in node.senders)


def _streams(
    seen: ClusterSeen, node: NodeSeen, upstream: NodeSeen | None, sender: Sender | None
) -> Iterator[Finding]:
    if sender is not None and upstream is not None:
        if sender.state != STREAMING:
            yield Finding(
                severity=Severity.WARNING,
                problem=f"{node.name} does not stream yet: {upstream.name} says {sender.state}.",
                next_step="Wait until it has caught up. If it never does, see its log.",
                nodes=(node.name,),
            )
        return
    if node.receiver != STREAMING:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} does not stream: its WAL receiver is"
            f" {node.receiver or 'not running'}.",
            next_step="See its log: its primary_conninfo, a slot or WAL that is gone, or a timeline"
            " that it cannot follow.",
            nodes=(node.name,),
        )
    elif all(each.is_reached for each in seen.nodes):
        there = sorted({each.name for one in seen.nodes for each in one.senders})
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} streams, but no server of this cluster has a connection of that"
            f" name (there is: {', '.join(there) or 'none'}).",
            next_step=f"Set cluster_name, or application_name in its primary_conninfo, to"
            f" {node.name}: until then it cannot be told from others, nor chosen.",
            nodes=(node.name,),
        )


def _silence(
    node: NodeSeen, upstream: NodeSeen | None, sender: Sender | None, limits: Limits
) -> Iterator[Finding]:
    """A frozen one holds up a shutdown of its sender, and is the last to say so."""
    age = reply_age(sender, upstream, node) if sender and upstream else None
    if upstream and age is not None and age > limits.reply_age.total_seconds():
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} last answered {upstream.name} {age:.0f} s ago: what"
            f" {upstream.name} says of its lag is as old.",
            next_step=f"See whether it is overloaded or frozen. A shutdown of {upstream.name} would"
            " wait for it: mend or disconnect it first.",
            nodes=(node.name,),
        )
    if node.receiver == STREAMING and (node.message_age or 0.0) > SILENT_SECONDS:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} has heard nothing for {node.message_age:.0f} s, though it"
            " believes that it streams.",
            next_step="See whether the network between it and the primary lets data through.",
            nodes=(node.name,),
        )


def _lag(
    seen: ClusterSeen,
    node: NodeSeen,
    upstream: NodeSeen | None,
    sender: Sender | None,
    limits: Limits,
) -> Iterator[Finding]:
    told = []
    sent = [b for b in (sender.flush_behind, sender.replay_behind) if b] if sender else []
    backlog, apart = own_backlog(node), bytes_apart(seen, node)
    if upstream and sent and max(sent) > limits.lag_bytes:
        told.append(f"{pretty_bytes(max(sent))} as {upstream.name} sees it")
    if backlog is not None and backlog > limits.lag_bytes:
        told.append(f"{pretty_bytes(backlog)} received and not replayed")
    if not told and apart is not None and apart > limits.lag_bytes:
        told.append(f"{pretty_bytes(apart)} by its own position")
    # How old its newest transaction is says something only while more is there to be replayed.
    waiting = apart if backlog is None else backlog
    if waiting and (node.replay_age or 0.0) > limits.lag.total_seconds():
        told = told or [f"{pretty_bytes(waiting)} to replay"]
        told.append(f"its newest transaction is {node.replay_age:.0f} s old")
    if told:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} is behind: {', '.join(told)}.",
            next_step="Let it catch up before anything is handed over to it: hold back heavy"
            " writes, and see what it waits for.",
            nodes=(node.name,),
        )


def of_sync(seen: ClusterSeen, *, is_synchronous: bool) -> Iterator[Finding]:
    """Whether an acknowledged transaction is on two servers, where it should be."""
    primary = seen.primary
    if primary is None or any(each.sync_state == HIDDEN for each in primary.senders):
        return
    if primary.sync_names and not any(each.sync_state in SYNC for each in primary.senders):
        yield Finding(
            severity=Severity.CRITICAL,
            problem=f"{primary.name} waits for a synchronous standby"
            f" (synchronous_standby_names: {primary.sync_names}), and none is connected: commits"
            " hang.",
            next_step="Bring the standby back. Only if it is lost: let"
            f" {primary.name} go on alone with ALTER SYSTEM RESET synchronous_standby_names and a"
            " reload.",
            nodes=(primary.name,),
        )
    elif is_synchronous and not primary.sync_names:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Replication from {primary.name} is not synchronous now, though the inventory"
            " says that it is: a failover may lose what was acknowledged.",
            next_step="See whether a standby is missing (Patroni then goes on without), or set"
            " synchronous_mode or synchronous_standby_names.",
            nodes=(primary.name,),
        )


def of_slots(seen: ClusterSeen, limits: Limits) -> Iterator[Finding]:
    """Slots that nobody uses hold back WAL until the disk is full; lost ones cost a standby."""
    for node in seen.nodes:
        for slot in node.slots:
            if slot.is_active or _is_by_design(seen, node, slot):
                continue
            if slot.wal_status == "lost":
                yield Finding(
                    severity=Severity.WARNING,
                    problem=f"Slot {slot.name} on {node.name} has lost WAL that it needs.",
                    next_step="Whoever used it must be built anew; drop the slot.",
                    nodes=(node.name,),
                )
                continue
            if not slot.retained:  # None: it was never used, and holds nothing
                continue
            is_much = slot.retained > limits.lag_bytes
            yield Finding(
                severity=Severity.WARNING if is_much else Severity.NOTE,
                problem=f"Nobody uses slot {slot.name} on {node.name}; it holds back"
                f" {pretty_bytes(slot.retained)} of WAL.",
                next_step="Bring back whoever uses it, or drop it before the disk is full:"
                f" SELECT pg_drop_replication_slot('{slot.name}') on {node.name}.",
                nodes=(node.name,),
            )


def _is_by_design(seen: ClusterSeen, node: NodeSeen, slot: Slot) -> bool:
    """Patroni keeps the members' slots on standbys too, and moves them on."""
    return (
        seen.kind is ClusterKind.PATRONI
        and node.role is Role.STANDBY
        and slot.kind == "physical"
        and slot.wal_status != "lost"
    )
