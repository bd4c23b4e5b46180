"""May a standby take over from a primary that is gone? Pure: over what was seen, and limits."""

from __future__ import annotations

from collections.abc import Iterator

from postgres.cluster.candidates import furthest, reach
from postgres.cluster.checks import Check, Limits, Preflight, at_rest, replays
from postgres.cluster.judge_standbys import own_backlog
from postgres.cluster.words import ClusterKind, ClusterSeen, Role
from postgres.sizes import pretty_bytes


def forced_preflight(
    seen: ClusterSeen, limits: Limits, *, leader: str, candidate: str = ""
) -> Preflight:
    """Before a forced failover: the primary is gone, and nobody is further than the candidate.

    `leader`: who was the primary. Whether it is fenced is proven by who carries it out. Pure.
    """
    chosen = candidate or furthest(seen, leader)
    checks = (
        _is_gone(seen, leader),
        *_can_take_over(seen, chosen, limits),
        _is_furthest(seen, leader, chosen),
        *_agent_agrees(seen, leader),
        _may_lose(chosen),
    )
    return Preflight(leader=leader, candidate=chosen, checks=checks)


def _is_gone(seen: ClusterSeen, leader: str) -> Check:
    # One that only reads (default_transaction_read_only) is a primary all the same.
    alive = [each.name for each in seen.nodes if each.role is Role.PRIMARY]
    return Check(
        name="The primary is gone",
        is_met=not alive,
        found=f"{' and '.join(alive)} answers as a primary."
        if alive
        else f"Nobody takes writes; {leader or 'the last primary'} {_state_of(seen, leader)}.",
        next_step="A primary that lives is handed over with a planned switchover.",
    )


def _state_of(seen: ClusterSeen, name: str) -> str:
    node = seen.node(name)
    if node is None:
        return "is in nobody's inventory"
    return f"does not answer ({node.problem})" if node.problem else "answers, and takes no writes"


def _can_take_over(seen: ClusterSeen, name: str, limits: Limits) -> Iterator[Check]:
    node = seen.node(name)
    is_able = node is not None and node.is_reached and node.role is Role.STANDBY
    yield Check(
        name="Candidate",
        is_met=is_able,
        found=f"{name} is a standby and answers."
        if is_able
        else f"{name or 'Nobody'} is no standby that answers.",
        next_step="Name a standby that answers: /db replication lists them. With none, restore"
        " from a backup: /db restore.",
    )
    if node is None or not is_able:
        return
    yield replays(node)
    backlog = own_backlog(node)
    yield Check(
        name="Candidate has replayed what it has",
        is_met=backlog is not None and backlog <= limits.lag_bytes,
        found="Nobody can tell."
        if backlog is None
        else f"{pretty_bytes(backlog)} are left (limit {pretty_bytes(limits.lag_bytes)}).",
        next_step="It takes writes only after it has replayed everything: wait for that.",
        warns=True,
    )


def _is_furthest(seen: ClusterSeen, leader: str, candidate: str) -> Check:
    best = furthest(seen, leader)
    node, other = seen.node(candidate), seen.node(best)
    ahead = reach(other) - reach(node) if node and other else 0
    return Check(
        name="Nobody is further",
        is_met=ahead <= 0,
        found=f"{best} has {pretty_bytes(ahead)} more than {candidate}."
        if ahead > 0
        else f"{candidate or 'Nobody'} has the most of those that answer.",
        next_step=f"Choose {best}: what only it has would be lost.",
    )


def _agent_agrees(seen: ClusterSeen, leader: str) -> Iterator[Check]:
    agent = seen.agent
    if seen.kind is not ClusterKind.PATRONI or agent is None:
        return
    yield Check(
        name="Patroni answers",
        is_met=not agent.problem,
        found=f"{agent.problem}." if agent.problem else "It does.",
        next_step="Without its REST API nobody can ask it: see its log on the candidate.",
    )
    yield from at_rest(agent)
    held = agent.leader
    yield Check(
        name="Nobody else leads",
        is_met=held in {"", leader},
        found=f"Patroni's leader is {held}." if held else "Patroni has no leader.",
        next_step="Patroni has failed over by itself: look at /db replication.",
    )


def _may_lose(candidate: str) -> Check:
    return Check(
        name="Nothing is lost",
        is_met=False,
        found=f"What the old primary had acknowledged and {candidate or 'nobody'} has not"
        " received is lost, unless replication is synchronous.",
        next_step="If the old primary can be started again, that is the way without loss.",
        warns=True,
    )
