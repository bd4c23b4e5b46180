"""What a cluster's agent must say before a planned switchover. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postgres.cluster.checks import Check, at_rest
from postgres.cluster.words import AgentSeen, ClusterSeen, NodeSeen

_YES: Final = frozenset({"true", "1", "yes", "on"})


def of_agent(seen: ClusterSeen, primary: NodeSeen, candidate: str) -> Iterator[Check]:
    """Patroni answers, rests, agrees with the servers, and would let the candidate lead. Pure."""
    agent = seen.agent
    if agent is None:
        return
    yield Check(
        name="Patroni answers",
        is_met=not agent.problem,
        found=f"{agent.problem}." if agent.problem else "It does.",
        next_step="See whether Patroni runs on the nodes and its REST API is open to the worker.",
    )
    if agent.problem:
        return
    yield from at_rest(agent)
    yield Check(
        name="Patroni and PostgreSQL agree",
        is_met=agent.leader == primary.name,
        found=f"Patroni's leader is {agent.leader or 'nobody'}, {primary.name} takes writes.",
        next_step="Somebody promoted by hand, or a failover is going on: look before you act.",
    )
    yield from _is_eligible(agent, candidate)


def _is_eligible(agent: AgentSeen, candidate: str) -> Iterator[Check]:
    member = next((each for each in agent.members if each.name == candidate), None)
    if member is None:
        yield Check(
            name="Patroni knows the candidate",
            is_met=False,
            found=f"{candidate} is no member.",
            next_step="The inventory's node names must be Patroni's member names.",
        )
        return
    barred = member.tags.get("nofailover", "").lower() in _YES
    yield Check(
        name="Candidate may lead",
        is_met=not barred,
        found=f"{candidate} is tagged nofailover." if barred else "Nothing forbids it.",
        next_step="Choose another, or take the tag out of its Patroni configuration.",
    )
    modes = {each.role for each in agent.members} & {"sync_standby", "quorum_standby"}
    if modes:
        yield Check(
            name="Candidate is synchronous",
            is_met=member.role in modes,
            found=f"{candidate} is a {member.role.replace('_', ' ')}.",
            next_step="Patroni lets only a synchronous standby take over: choose that one.",
        )
