"""When the primary of a pair is gone: who could take over, with the evidence. Pure.

Two servers have no third voter, so this is said, and never done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import JsonValue

from jobs.cluster_of import limits_of
from jobs.failing_over import lost_leader
from jobs.operation import Database, JobError
from postgres.cluster.preflight_forced import forced_preflight
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen


def proposal(database: Database, nodes: Sequence[NodeSeen], *, at: datetime) -> JsonValue:
    """`leader`, `candidate`, and the `evidence` in sentences; None where nobody could take over.

    That the old primary takes no writes is not proven by this: who carries it out proves it.
    """
    settings = database.cluster
    if settings is None or settings.kind is not ClusterKind.PAIR:
        return None
    seen = ClusterSeen(at=at, kind=settings.kind, nodes=tuple(nodes))
    if seen.writable:
        return None
    try:
        leader = lost_leader(seen)
    except JobError:
        return None  # nobody can tell which was the primary
    found = forced_preflight(seen, limits_of(settings.limits), leader=leader)
    if not found.is_passed:
        return None
    return {
        "leader": leader,
        "candidate": found.candidate,
        "evidence": [each.found for each in found.checks],
    }
