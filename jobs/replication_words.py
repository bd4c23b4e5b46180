"""A cluster that was looked at, in words for people: its nodes, its slots, its agent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobs.operation import Suggestion, Table
from jobs.text import count_text, span_text
from postgres.cluster.findings import Finding, Severity
from postgres.cluster.judge import writable_servers
from postgres.cluster.judge_standbys import bytes_apart, own_backlog, reply_age, sender_to
from postgres.cluster.look import HIDDEN
from postgres.cluster.words import (
    AgentSeen,
    ClusterKind,
    ClusterSeen,
    Member,
    NodeSeen,
    Role,
    Sender,
)
from postgres.sizes import pretty_bytes

COLUMNS: Final = (
    "Node", "Region", "Role", "State", "Timeline", "Behind, says its sender", "Behind, says itself",
    "Sync",
)  # fmt: skip
UNKNOWN: Final = "?"
_NONE: Final = "-"
_FINDINGS_MAX: Final = 15
_SLOTS_MAX: Final = 20
_STRANGERS_MAX: Final = 10
_TIMES: Final = ("ttl", "loop_wait", "retry_timeout")
_SIGNS: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "CRITICAL: ",
    Severity.WARNING: "Warning: ",
    Severity.NOTE: "",
}


def headline(name: str, seen: ClusterSeen, findings: Sequence[Finding]) -> str:
    """What matters most, in a line."""
    writers = writable_servers(seen.nodes)
    there = sum(each.is_reached for each in seen.nodes)
    who = {0: "no primary", 1: "primary "}.get(len(writers), f"{len(writers)} PRIMARIES: ")
    who += ", ".join(each.name for each in writers)
    serious = sum(each.severity is not Severity.NOTE for each in findings)
    state = count_text(serious, "problem") if serious else "well"
    answered = f"{there} of {count_text(len(seen.nodes), 'node')} answer"
    return f"Replication of {name}: {who}, {answered}, {state}"


def finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """What is wrong with what to do, the worst first."""
    for each in findings[:_FINDINGS_MAX]:
        yield f"{_SIGNS[each.severity]}{each.problem} {each.next_step}".strip()
    if (more := len(findings) - _FINDINGS_MAX) > 0:
        yield f"And {count_text(more, 'more thing')} that are no worse."


def node_table(seen: ClusterSeen) -> Table:
    """A row for each node of the inventory, and for each standby that it does not name."""
    return Table(
        columns=COLUMNS,
        rows=(*(_row(seen, each) for each in seen.nodes), *_strangers(seen)),
    )


def _row(seen: ClusterSeen, node: NodeSeen) -> tuple[str, ...]:
    upstream, sender = sender_to(seen, node.name)
    member = _member(seen.agent, node.name)
    is_standby = node.role is not Role.PRIMARY
    return (
        node.name,
        node.region or _NONE,
        _role(node, member),
        _state(node, upstream, sender, member),
        UNKNOWN if node.timeline is None else str(node.timeline),
        _sent(sender, upstream, node) if is_standby else _NONE,
        _own(seen, node) if is_standby and node.is_reached else _NONE,
        _sync(sender, member) if is_standby else _NONE,
    )


def _member(agent: AgentSeen | None, name: str) -> Member | None:
    members = agent.members if agent else ()
    return next((each for each in members if each.name == name), None)


def _role(node: NodeSeen, member: Member | None) -> str:
    said = str(node.role) if node.role else UNKNOWN
    if node.role is Role.PRIMARY and not node.is_writable:
        said = "primary, read-only"
    leads = member is not None and member.role in {"leader", "standby_leader"}
    if member is None or not node.is_reached or leads is (node.role is Role.PRIMARY):
        return said
    return f"{said} (Patroni: {member.role.replace('_', ' ')})"


def _state(
    node: NodeSeen, upstream: NodeSeen | None, sender: Sender | None, member: Member | None
) -> str:
    if not node.is_reached:
        told = f" (Patroni: {member.state})" if member and member.state else ""
        return f"MISSING: {node.problem}{told}"
    if node.role is Role.PRIMARY:
        return "takes writes" if node.is_writable else "closed"
    said = [_streams(node, upstream, sender)]
    if node.is_replay_paused:
        said.append("replay paused")
    return ", ".join(said)


def _streams(node: NodeSeen, upstream: NodeSeen | None, sender: Sender | None) -> str:
    if sender is not None and upstream is not None and sender.state != HIDDEN:
        return f"{sender.state} from {upstream.name}"
    if node.receiver == HIDDEN or (sender is not None and sender.state == HIDDEN):
        return "hidden from our login"
    return node.receiver or "not streaming"


def _sent(sender: Sender | None, upstream: NodeSeen | None, node: NodeSeen | None) -> str:
    """As old as its last answer, so that stands beside it."""
    if sender is None or upstream is None:
        return UNKNOWN
    sizes = [
        f"{pretty_bytes(behind)} {what}"
        for behind, what in ((sender.flush_behind, "to flush"), (sender.replay_behind, "to replay"))
        if behind is not None
    ]
    if not sizes:
        return UNKNOWN
    seconds = 0.0 if sender.replay_behind == 0 else sender.replay_lag
    lag = f", {_seconds(seconds)}" if seconds is not None else ""
    age = reply_age(sender, upstream, node)
    answered = f"; answered {_seconds(age)} ago" if age is not None else "; never answered"
    return f"{', '.join(sizes)}{lag}{answered}"


def _own(seen: ClusterSeen, node: NodeSeen) -> str:
    """By its own account: what waits to be replayed, and how far it is from the primary."""
    backlog, apart = own_backlog(node), bytes_apart(seen, node)
    said = [] if backlog is None else [f"{pretty_bytes(backlog)} to replay"]
    if apart is not None:
        said.append(f"{pretty_bytes(apart)} from the primary")
    if node.replay_age is not None:
        said.append(f"newest transaction {_seconds(node.replay_age)} old")
    if node.message_age is not None:
        said.append(f"heard {_seconds(node.message_age)} ago")
    return ", ".join(said) or UNKNOWN


def _sync(sender: Sender | None, member: Member | None) -> str:
    if sender is not None and sender.sync_state != HIDDEN:
        return sender.sync_state
    if member is not None and member.role in {"sync_standby", "quorum_standby"}:
        return member.role.removesuffix("_standby")
    return UNKNOWN


def _seconds(seconds: float) -> str:
    return "0 s" if seconds < 0.05 else span_text(timedelta(seconds=seconds))  # noqa: PLR2004


def _strangers(seen: ClusterSeen) -> Iterator[tuple[str, ...]]:
    """What the nodes send to beside one another: standbys without a name here, archivers."""
    known = {each.name for each in seen.nodes}
    found = [
        (node, sender) for node in seen.nodes for sender in node.senders if sender.name not in known
    ]
    for node, sender in found[:_STRANGERS_MAX]:
        yield (
            f"{sender.name or UNKNOWN} (not named)", _NONE, UNKNOWN,
            f"{sender.state} from {node.name}{f' at {sender.address}' if sender.address else ''}",
            UNKNOWN, _sent(sender, node, None), UNKNOWN,
            UNKNOWN if sender.sync_state == HIDDEN else sender.sync_state,
        )  # fmt: skip


def facts(seen: ClusterSeen) -> Iterator[tuple[str, str]]:
    """The slots with what each retains, and the agent's words."""
    for node in seen.nodes:
        if node.slots:
            yield f"Slots of {node.name}", _slots(node)
    for node in seen.nodes:
        if node.sync_names:
            yield f"Synchronous on {node.name}", node.sync_names
    if seen.agent is not None and not seen.agent.problem:
        yield "Patroni", _agent(seen.agent)


def _slots(node: NodeSeen) -> str:
    said = []
    for slot in node.slots[:_SLOTS_MAX]:
        kept = "nothing" if slot.retained is None else pretty_bytes(slot.retained)
        use = "in use" if slot.is_active else "not in use"
        lost = f", {slot.wal_status}" if slot.wal_status in {"unreserved", "lost"} else ""
        said.append(f"{slot.name} ({slot.kind}, {use}, retains {kept}{lost})")
    more = len(node.slots) - _SLOTS_MAX
    return "\n".join([*said, *([f"and {count_text(more, 'more slot')}"] if more > 0 else [])])


def _agent(agent: AgentSeen) -> str:
    said = [f"leader {agent.leader or 'nobody'}"]
    said.append("PAUSED" if agent.is_paused else "not paused")
    said.append(f"planned: {agent.scheduled}" if agent.scheduled else "nothing planned")
    said += [f"{name} {agent.settings[name]} s" for name in _TIMES if name in agent.settings]
    wanted = agent.settings.get("failsafe_mode", "").lower()
    failsafe = "on" if wanted in {"true", "on", "1"} else "off"
    said.append(f"failsafe {'ACTIVE' if agent.is_failsafe_active else failsafe}")
    if agent.dcs_age is not None:
        said.append(f"spoke with its DCS {_seconds(agent.dcs_age)} ago")
    return ", ".join(said)


def suggestions(
    database: str, seen: ClusterSeen, findings: Sequence[Finding]
) -> Iterator[Suggestion]:
    """What could be asked for. With two primaries nothing is: whatever changes loses data."""
    writers = writable_servers(seen.nodes)
    is_critical = any(each.severity is Severity.CRITICAL for each in findings)
    if len(writers) > 1 or (writers and is_critical):
        return
    standbys = [each for each in seen.nodes if each.role is Role.STANDBY]
    away = [each for each in seen.nodes if not each.is_reached]
    if not writers and standbys and away and seen.kind is ClusterKind.PAIR:
        yield Suggestion(
            text="Forced failover",
            operation="failover",
            params={"database": database, "forced": True},
            reason=f"No server of {database} takes writes; {away[0].name} does not answer",
        )
    if seen.primary is None:
        return
    for node in standbys:
        is_cut_off = node.timeline is not None and node.timeline < (seen.primary.timeline or 0)
        if is_cut_off and sender_to(seen, node.name)[1] is None:
            yield Suggestion(
                text=f"Rejoin {node.name}",
                operation="rejoin",
                params={"database": database, "node": node.name},
                reason=f"{node.name} does not follow {seen.primary.name}",
            )
    if any("is behind" in each.problem for each in findings):
        yield Suggestion(text="Who blocks whom", operation="locks", params={"database": database})
