"""What the agent's words say is wrong, and where they and the servers differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postgres.cluster.findings import Finding, Severity
from postgres.cluster.patroni_words import ASKED
from postgres.cluster.words import AgentSeen, ClusterSeen

_TTL_USUAL: Final = 30.0


def of_agent(seen: ClusterSeen) -> Iterator[Finding]:
    """Patroni's own troubles. Nothing for a cluster that has no agent."""
    agent = seen.agent
    if agent is None:
        return
    if agent.problem:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Patroni does not answer: {agent.problem}.",
            next_step="See whether it runs on the nodes, and whether its REST API lets this worker"
            " in. Without it nobody fails over.",
        )
        return
    yield from _at_rest(agent)
    yield from _leader(seen, agent)
    yield from _silent(seen, agent)
    yield from _dcs(agent)
    yield from _members(seen, agent)
    yield from _clamped(agent)


def _at_rest(agent: AgentSeen) -> Iterator[Finding]:
    if agent.is_paused:
        yield Finding(
            severity=Severity.WARNING,
            problem="The cluster is paused: Patroni does not fail over while it is.",
            next_step="`patronictl resume`, when whoever paused it has done their work.",
        )
    if agent.scheduled:
        yield Finding(
            severity=Severity.NOTE,
            problem=f"Patroni has planned something: {agent.scheduled}.",
            next_step="Leave time for it, or take it back with `patronictl flush`.",
        )
    if agent.pending_restart:
        yield Finding(
            severity=Severity.NOTE,
            problem=f"Settings of {', '.join(agent.pending_restart)} wait for a restart.",
            next_step="Until then the nodes may run with different settings.",
            nodes=agent.pending_restart,
        )


def _leader(seen: ClusterSeen, agent: AgentSeen) -> Iterator[Finding]:
    primary = seen.primary
    if not agent.leader:
        yield Finding(
            severity=Severity.WARNING,
            problem="Nobody holds Patroni's leader key.",
            next_step="A failover may be going on: look again. If it stays so, see whether the DCS"
            " answers, and Patroni's log.",
        )
    elif primary is not None and primary.name != agent.leader:
        yield Finding(
            severity=Severity.CRITICAL,
            problem=f"Patroni's leader is {agent.leader}, but {primary.name} takes writes.",
            next_step="Look again in a moment. If it stays so, somebody promoted by hand or the"
            f" agent of {primary.name} is dead: keep applications on one of them, and change"
            " nothing before you know which.",
            nodes=(primary.name, agent.leader),
        )


def _silent(seen: ClusterSeen, agent: AgentSeen) -> Iterator[Finding]:
    """A server without its agent is not stopped when another one is promoted.

    Measured: the old one went on to take writes, and 1249 of them were lost.
    """
    for name, why in agent.silent.items():
        node = seen.node(name)
        if node is None or not node.is_reached:
            continue  # that it is missing is said elsewhere
        leads = " It would go on taking writes after another one was promoted." * node.is_writable
        yield Finding(
            severity=Severity.WARNING,
            problem=f"The Patroni of {name} does not answer ({why}), though its server does."
            f"{leads}",
            next_step="See whether it runs and lets this worker in; start it again at once where it"
            " does not.",
            nodes=(name,),
        )


def _dcs(agent: AgentSeen) -> Iterator[Finding]:
    if agent.is_failsafe_active:
        yield Finding(
            severity=Severity.WARNING,
            problem="Patroni cannot reach its DCS; failsafe mode keeps the primary going.",
            next_step="Bring the DCS back: until then nobody takes over if the primary is lost.",
        )
        return
    ttl = _seconds(agent, "ttl") or _TTL_USUAL
    if agent.dcs_age is not None and agent.dcs_age > ttl:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Patroni last spoke with its DCS {agent.dcs_age:.0f} s ago (ttl {ttl:.0f} s).",
            next_step="Bring the DCS back: without it the primary steps down and nobody takes"
            " over.",
        )


def _members(seen: ClusterSeen, agent: AgentSeen) -> Iterator[Finding]:
    members = {each.name for each in agent.members}
    nodes = {each.name for each in seen.nodes}
    for name in [each.name for each in seen.nodes if each.name not in members]:
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Patroni knows no member {name}.",
            next_step="Its agent is down, or the inventory's name is not its member's name.",
            nodes=(name,),
        )
    for name in sorted(members - nodes):
        yield Finding(
            severity=Severity.WARNING,
            problem=f"Patroni's member {name} is not in the inventory: nobody looks at it, and it"
            " may take over.",
            next_step="Add it to `cluster.nodes`.",
            nodes=(name,),
        )


def _clamped(agent: AgentSeen) -> Iterator[Finding]:
    for name, asked in agent.settings.items():
        if not name.startswith(ASKED):
            continue
        used = agent.settings.get(name.removeprefix(ASKED), "")
        yield Finding(
            severity=Severity.NOTE,
            problem=f"Patroni was asked for {name.removeprefix(ASKED)} {asked} and uses"
            f" {used or 'another value'}.",
            next_step="Write into its configuration what it really uses.",
        )


def _seconds(agent: AgentSeen, name: str) -> float | None:
    try:
        return float(agent.settings.get(name, ""))
    except ValueError:
        return None
