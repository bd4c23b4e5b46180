"""What is wrong with a cluster that was looked at, and what to do about it. Pure.

Everything is said that is wrong, the worst first; nothing here decides whether a role may
change (`postgres.cluster.preflight` does). What nobody could tell is never taken for well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from postgres.backup.wal_names import lsn_text
from postgres.cluster.checks import Limits
from postgres.cluster.findings import ORDER, Finding, Severity, names
from postgres.cluster.judge_agent import of_agent
from postgres.cluster.judge_standbys import of_slots, of_standbys, of_sync
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen, Role

SPLIT_BRAIN_STEP: Final = (
    "Keep applications away from all of them but the one that is meant to be the primary, now."
    " Do not promote, restart, rewind or rejoin anything before somebody has compared what each"
    " took: what was written to the others is lost then."
)
# Beyond this, what one server says about the time on another cannot be believed.
CLOCKS_APART_SECONDS: Final = 5.0


def judge(
    seen: ClusterSeen, limits: Limits, *, is_synchronous: bool = False
) -> tuple[Finding, ...]:
    """All that is wrong, the worst first.

    `is_synchronous`: the inventory says that nothing that was acknowledged may be lost.
    """
    found = [
        *_writers(seen),
        *_aliases(seen),
        *_missing(seen),
        *_strangers(seen),
        *_timelines(seen),
        *of_standbys(seen, limits),
        *of_sync(seen, is_synchronous=is_synchronous),
        *of_slots(seen, limits),
        *of_agent(seen),
        *_clocks(seen),
    ]
    return tuple(sorted(found, key=lambda each: ORDER.index(each.severity)))


def writable_servers(nodes: Sequence[NodeSeen]) -> tuple[NodeSeen, ...]:
    """Nodes that take writes, each server once however many DSNs lead to it. Pure."""
    return tuple(alike[0] for alike in _servers([each for each in nodes if each.is_writable]))


def split_brain(nodes: Sequence[NodeSeen]) -> Finding | None:
    """That more than one server takes writes, and what not to do; else None. Pure."""
    writers = writable_servers(nodes)
    if len(writers) < 2:  # noqa: PLR2004 - one is well
        return None
    both = "both" if len(writers) == 2 else "all"  # noqa: PLR2004
    return Finding(
        severity=Severity.CRITICAL,
        problem=f"{names(writers)} {both} take writes: {_standings(writers)}.",
        next_step=f"{SPLIT_BRAIN_STEP}{_newest(writers)}",
        nodes=tuple(each.name for each in writers),
    )


def _servers(nodes: Sequence[NodeSeen]) -> list[list[NodeSeen]]:
    """Nodes by server: no two have the same data and began in the same microsecond."""
    found: dict[object, list[NodeSeen]] = {}
    for each in nodes:
        key = (each.system_identifier, each.started_at) if each.started_at else each.name
        found.setdefault(key, []).append(each)
    return list(found.values())


def _writers(seen: ClusterSeen) -> Iterator[Finding]:
    split = split_brain(seen.nodes)
    if split is not None:
        yield split
    elif not writable_servers(seen.nodes):
        yield from _nobody(seen)


def _standings(nodes: Sequence[NodeSeen]) -> str:
    """Where each stands, which is what people need to compare."""
    return ", ".join(
        f"{each.name} on timeline {'?' if each.timeline is None else each.timeline} at"
        f" {'?' if each.position is None else lsn_text(each.position)}"
        for each in nodes
    )


def _newest(writers: Sequence[NodeSeen]) -> str:
    """Who was promoted last. Only of one cluster's servers can that be said."""
    lines = [each.timeline for each in writers]
    known = [each for each in lines if each is not None]
    if len(known) < len(lines) or len(set(known)) < len(known):
        return ""
    if len({each.system_identifier for each in writers}) > 1:
        return ""
    last = max(writers, key=lambda each: each.timeline or 0)
    return f" {last.name} was promoted last: its timeline is the newest."


def _nobody(seen: ClusterSeen) -> Iterator[Finding]:
    agent = seen.agent
    if agent and any(each.role == "standby_leader" for each in agent.members):
        yield Finding(
            severity=Severity.NOTE,
            problem="This is a standby cluster: it follows another one and takes no writes.",
            next_step="Writes belong to the cluster that it follows.",
        )
        return
    closed = [each for each in seen.nodes if each.role is Role.PRIMARY]
    if closed:
        yield Finding(
            severity=Severity.CRITICAL,
            problem=f"{names(closed)} is the primary and takes no writes:"
            " default_transaction_read_only is on.",
            next_step="Find out who closed it and why before it is opened again.",
            nodes=tuple(each.name for each in closed),
        )
        return
    away = [each for each in seen.nodes if not each.is_reached]
    problem = f"No server takes writes; {names(away)} did not answer." if away else ""
    yield Finding(
        severity=Severity.CRITICAL,
        problem=problem or "No server takes writes: all that answer are standbys.",
        next_step="Patroni promotes a standby within its ttl as long as its DCS answers: see its"
        " log. If it does not, the primary is lost or the cluster is paused."
        if seen.kind is ClusterKind.PATRONI
        else "Bring the primary back; if it is lost, ask for a forced failover: it promotes only"
        " with a proof that the old primary is down.",
        nodes=tuple(each.name for each in away),
    )


def _aliases(seen: ClusterSeen) -> Iterator[Finding]:
    for alike in _servers([each for each in seen.nodes if each.is_reached]):
        if len(alike) > 1:
            yield Finding(
                severity=Severity.WARNING,
                problem=f"{names(alike)} lead to the same server.",
                next_step="Mend the DSNs in the inventory: each leads to one server itself, never"
                " to an address that follows the primary.",
                nodes=tuple(each.name for each in alike),
            )


def _missing(seen: ClusterSeen) -> Iterator[Finding]:
    members = {each.name: each for each in seen.agent.members} if seen.agent else {}
    for node in seen.nodes:
        if node.is_reached:
            continue
        member = members.get(node.name)
        is_up = member is not None and member.state in {"running", "streaming"}
        yield Finding(
            severity=Severity.WARNING,
            problem=f"{node.name} does not answer: {node.problem}."
            + (f" Patroni says that it is {member.state}." if member and is_up else ""),
            next_step="See why it does not answer this worker: frozen, the network, pg_hba.conf,"
            " its login."
            if is_up
            else "See whether its host and its server run. If it is gone for good, take it out of"
            " `cluster.nodes`.",
            nodes=(node.name,),
        )


def _strangers(seen: ClusterSeen) -> Iterator[Finding]:
    """Compared with the primary; without one, with the first that says what it is."""
    known = [each for each in seen.nodes if each.system_identifier]
    measure = next((each for each in known if each is seen.primary), next(iter(known), None))
    if measure is None:
        return
    others = [each for each in known if each.system_identifier != measure.system_identifier]
    for each in others:
        yield Finding(
            severity=Severity.CRITICAL,
            problem=f"{each.name} is no copy of {measure.name}: its system identifier is"
            f" {each.system_identifier}, not {measure.system_identifier}.",
            next_step="Mend its DSN in the inventory, or build it anew from the primary: it could"
            " never take over.",
            nodes=(each.name,),
        )


def _timelines(seen: ClusterSeen) -> Iterator[Finding]:
    primary = seen.primary
    if primary is None or primary.timeline is None:
        return
    for each in seen.nodes:
        alike = each.system_identifier in {"", primary.system_identifier}
        if each.role is not Role.STANDBY or each.timeline is None or not alike:
            continue
        if each.timeline > primary.timeline:
            yield Finding(
                severity=Severity.CRITICAL,
                problem=f"{each.name} is on timeline {each.timeline}, ahead of {primary.name}'s"
                f" {primary.timeline}: somebody was promoted since, and {primary.name} may be an"
                " old primary that came back.",
                next_step=SPLIT_BRAIN_STEP,
                nodes=(primary.name, each.name),
            )
        elif each.timeline < primary.timeline:
            yield Finding(
                severity=Severity.WARNING,
                problem=f"{each.name} is still on timeline {each.timeline};"
                f" {primary.name} is on {primary.timeline}.",
                next_step="It does not follow the last promotion. If that stays so, it must be"
                " rewound or built anew.",
                nodes=(each.name,),
            )


def _clocks(seen: ClusterSeen) -> Iterator[Finding]:
    known = [(each.clock_ahead, each) for each in seen.nodes if each.clock_ahead is not None]
    if not known:
        return
    (low, slow), (high, fast) = (
        min(known, key=lambda pair: pair[0]),
        max(known, key=lambda pair: pair[0]),
    )
    if high - low > CLOCKS_APART_SECONDS:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"The clock of {fast.name} is {high - low:.0f} s ahead of {slow.name}'s.",
            next_step="Mend the time of both hosts: ages that one server tells of another are"
            " wrong by as much.",
            nodes=(slow.name, fast.name),
        )
