"""One look at all servers of a cluster in each round of the collector, and what is kept of it.

It is kept as a row of its own beside those of the servers: what all of them say together holds
also while none of them can be measured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from jobs.alert_rule import NODES_MISSING, NODES_WRITABLE
from jobs.cluster_of import cluster_of, specs_of
from jobs.failing_over import CLOSE_LIMIT
from jobs.failover_watch import Begun, begun, history_json, newest_primary
from jobs.operation import Database, JobError
from jobs.takeover import proposal
from postgres.cluster.judge import split_brain, writable_servers
from postgres.cluster.look import LIMIT
from postgres.cluster.words import NodeSeen, NodeSpec, Promotion
from postgres.errors import PostgresError
from store.samples import NodeRow

log: Final = logging.getLogger("twokey.health")

# Nodes are asked at once, yet not in the same instant: a switchover between two answers looks
# like two primaries. So long after that, it does not any more.
AGAIN_AFTER: Final = timedelta(seconds=1)
HISTORY_LIMIT: Final = timedelta(seconds=4)

# What a cluster says of its promotions, oldest first.
AskHistory = Callable[[Database], Awaitable[Sequence[Promotion]]]


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
        # The newest timeline that a primary was seen on; None: not known yet.
        self.timeline: int | None = None

    async def look(self) -> tuple[NodeSeen, ...]:
        """The nodes as they are; at most two looks. Never raises."""
        found = await self._look(self._nodes, clock=self._clock, limit=LIMIT)
        if len(writable_servers(found)) > 1:
            await asyncio.sleep(AGAIN_AFTER.total_seconds())
            found = await self._look(self._nodes, clock=self._clock, limit=LIMIT)
        return found

    async def history(
        self, nodes: Sequence[NodeSeen], ask: Callable[[], Awaitable[Sequence[Promotion]]]
    ) -> tuple[Begun, ...]:
        """The timelines that began, when the primary is on another one than it was; else ().

        Never raises: without it the times are those of the looks.
        """
        primary = newest_primary(nodes)
        if primary is None or primary.timeline is None:
            return ()
        before, self.timeline = self.timeline, primary.timeline
        if before is None or before >= primary.timeline:
            return ()
        try:
            async with asyncio.timeout(HISTORY_LIMIT.total_seconds()):
                told = await ask()
        except (PostgresError, JobError, TimeoutError) as error:
            log.info("No history of a cluster's promotions: %s", str(error) or "no answer in time")
            return ()
        return tuple(each for each in begun(told, primary.timeline) if each.timeline > before)


def history_asker(clock: Callable[[], datetime]) -> AskHistory:
    """Asks Patroni, or a pair's servers for their history files."""

    async def ask(database: Database) -> Sequence[Promotion]:
        cluster = cluster_of(database, clock=clock)
        try:
            return await cluster.history()
        finally:
            async with asyncio.timeout(CLOSE_LIMIT.total_seconds()):
                await cluster.close()

    return ask


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
    database: Database,
    nodes: Sequence[NodeSeen],
    *,
    at: datetime,
    worker: str,
    history: Sequence[Begun] = (),
) -> NodeRow:
    """What a look found, for the store. Pure.

    `detail`: the `nodes` in the inventory's order, `split_brain`: what is to be said when
    more than one server takes writes, else None, `history`: timelines that began since the look
    before, and `proposal`: who of a pair could take over from a primary that is gone, else None.
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
            "history": history_json(history),
            "proposal": proposal(database, nodes, at=at),
            "split_brain": split
            and {
                "nodes": list(split.nodes),
                "problem": split.problem,
                "next_step": split.next_step,
            },
        },
    )
