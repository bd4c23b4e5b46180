"""The doctor's look at drills: what the inventory allows and these servers never let happen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bot.finding import Finding
from jobs.cluster_of import specs_of
from jobs.cluster_settings import ClusterSettings, DrillKind
from jobs.drill_ways import WAYS, leaves
from jobs.operation import Database
from postgres.cluster.faults import objection
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError

_ADD: Final = (
    "Add a server, or say in `cluster.drills.leaves` of the inventory how many are enough while one"
    " is lost."
)


def examine_drills(database: Database) -> list[Finding]:
    """One finding that all kinds can be rehearsed, or one for each that cannot; [] without any.

    By the inventory alone: nothing is asked of a server.
    """
    cluster = database.cluster
    if cluster is None or not cluster.drills.kinds:
        return []
    name = f"drills of {database.name}"
    try:
        specs = specs_of(cluster)
    except PostgresError as error:
        return [Finding(name=name, ok=False, says=error.problem, fix=error.next_step)]
    found = [
        Finding(name=name, ok=False, says=f"{kind} will be refused: {problem}", fix=fix)
        for kind in cluster.drills.kinds
        for problem, fix in _impossible(kind, cluster, specs, database.environment)
    ]
    if found:
        return found
    by_clock = f"{cluster.drills.kind} by the clock" if cluster.drills.schedule else "by hand"
    return [Finding(name=name, ok=True, says=f"{', '.join(cluster.drills.kinds)}; {by_clock}")]


def _impossible(
    kind: DrillKind, cluster: ClusterSettings, specs: tuple[NodeSpec, ...], environment: str
) -> Iterator[tuple[str, str]]:
    """Why a kind cannot be rehearsed, whoever is the primary then; the first reason of each."""
    fault = WAYS[kind].fault
    if fault is None:
        return
    least = leaves(cluster, environment)
    if len(specs) - 1 < least:
        yield (
            f"of {len(specs)} servers {len(specs) - 1} would be left, and {least} must be.",
            _ADD,
        )
    # Any server may be the one that is hit: after each failover it is another.
    against = (objection(spec, fault, cluster.kind) for spec in specs)
    if first := next((each for each in against if each is not None), None):
        yield first
