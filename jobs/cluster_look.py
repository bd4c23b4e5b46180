"""One look at all servers of a cluster in each round of the collector, and what is kept of it.

It is kept as a row of its own beside those of the servers: what all of them say together holds
also while none of them can be measured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from jobs.alert_rule import NODES_MISSING, NODES_WRITABLE
from jobs.cluster_of import specs_of
from jobs.operation import Database
from postgres.cluster.judge import split_brain, writable_servers
from postgres.cluster.look import LIMIT
from postgres.cluster.words import NodeSeen, NodeSpec
from postgres.errors import PostgresError
from store.samples import NodeRow

log: Final = logging.getLogger("twokey.health")

# Nodes are asked at once, yet not in the same instant: a switchover between two answers looks
# like two primaries. So long after that, it does not any more.
AGAIN_AFTER: Final = timedelta(seconds=1)


class LookAt(Protocol):
    """Looks at servers: `postgres.cluster.look.look_at`."""

    async def __call__(
        self, nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], limit: timedelta
    ) -> tuple[NodeSeen, ...]:
        """All nodes, in their order; never raises."""
        ...


class ClusterWatch:
    """Looks at one cluster. Two servers that take writes are believed when a second look agrees."""

    def __init__(
        self, nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], look: LookAt
    ) -> None:
        self._nodes = tuple(nodes)
        self._clock = clock
        self._look = look

    async def look(self) -> tuple[NodeSeen, ...]:
        """The nodes as they are; at most two looks. Never raises."""
        found = await self._look(self._nodes, clock=self._clock, limit=LIMIT)
        if len(writable_servers(found)) > 1:
            await asyncio.sleep(AGAIN_AFTER.total_seconds())
            found = await self._look(self._nodes, clock=self._clock, limit=LIMIT)
        return found


def cluster_watch(
    database: Database, *, clock: Callable[[], datetime], look: LookAt
) -> ClusterWatch | None:
    """What looks at a database's cluster; None where the inventory names no servers."""
    if database.cluster is None:
        return None
    try:
        nodes = specs_of(database.cluster)
    except PostgresError as error:
        log.warning("The cluster of %s is not looked at: %s", database.name, error.problem)
        return None
    return ClusterWatch(nodes, clock=clock, look=look)


def cluster_name(database: Database) -> str:
    """The name of its row. No server has one with a slash."""
    return f"{database.name}/cluster"


def cluster_row(
    database: Database, nodes: Sequence[NodeSeen], *, at: datetime, worker: str
) -> NodeRow:
    """What a look found, for the store. Pure.

    `detail`: the `nodes` in the inventory's order, and `split_brain`: what is to be said when
    more than one server takes writes, else None.
    """
    split = split_brain(nodes)
    return NodeRow(
        database=database.name,
        node=cluster_name(database),
        region=database.region,
        collector=worker,
        at=at,
        ok=True,
        numbers={
            NODES_WRITABLE: float(len(writable_servers(nodes))),
            NODES_MISSING: float(sum(not each.is_reached for each in nodes)),
        },
        detail={
            "nodes": [
                {
                    "name": each.name,
                    "problem": each.problem,
                    "role": each.role,
                    "is_writable": each.is_writable,
                    "system": each.system_identifier,
                    "timeline": each.timeline,
                    "position": each.position,
                    "started": each.started_at.timestamp() if each.started_at else None,
                }
                for each in nodes
            ],
            "split_brain": split
            and {
                "nodes": list(split.nodes),
                "problem": split.problem,
                "next_step": split.next_step,
            },
        },
    )
