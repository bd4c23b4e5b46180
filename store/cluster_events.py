"""Promotions that were seen in clusters, each once, and which of our runs may have done them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import cluster_events, requests, runs

EVENTS_MAX: Final = 500
RUNS_MAX: Final = 50
# What changes who takes writes, or builds the server anew.
OPERATIONS: Final = ("failover", "drill", "restore")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """A promotion. `old_at`: the last look that saw the old primary take writes.

    `silent_at`: the first look that saw nobody take writes; `promoted_at`: what the cluster's own
    history says; `at`: the first look that saw the new primary take writes. None: not known.
    `request_id`: our request whose run did it; None: none of ours.
    """

    database: str
    system: str  # system identifier; '' where it is hidden
    timeline: int  # the one that began
    old_node: str
    new_node: str  # '' for one that was the primary only between two looks
    old_at: datetime
    silent_at: datetime | None = None
    promoted_at: datetime | None = None
    at: datetime
    request_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRun:
    """A run of ours that may change the primary. `ended_at` None: it is at work."""

    request_id: int
    operation: str
    params: Mapping[str, Any]
    plan: str  # JSON
    started_at: datetime
    ended_at: datetime | None


async def record_event(conn: AsyncConnection, event: ClusterEvent) -> bool:
    """Enter a promotion; whether it was new."""
    done = await conn.execute(
        insert(cluster_events)
        .values(**asdict(event))
        .on_conflict_do_nothing()
        .returning(cluster_events.c.id)
    )
    return done.first() is not None


async def cluster_events_since(conn: AsyncConnection, since: datetime) -> Sequence[ClusterEvent]:
    """What was seen since then, oldest first."""
    query = (
        sa.select(*(cluster_events.c[name] for name in ClusterEvent.__slots__))
        .where(cluster_events.c.at >= since)
        .order_by(cluster_events.c.at, cluster_events.c.timeline)
        .limit(EVENTS_MAX)
    )
    return [ClusterEvent(**row) for row in (await conn.execute(query)).mappings()]


async def cluster_runs(
    conn: AsyncConnection, database: str, *, since: datetime, until: datetime
) -> Sequence[ClusterRun]:
    """Runs on a database that were at work at some time of this span, oldest first."""
    query = (
        sa.select(
            runs.c.request_id, runs.c.operation, requests.c.params, requests.c.plan,
            runs.c.started_at, runs.c.ended_at,
        )
        .join(requests, requests.c.id == runs.c.request_id)
        .where(
            runs.c.database == database,
            runs.c.operation.in_(OPERATIONS),
            runs.c.state != "refused",
            runs.c.started_at <= until,
            sa.or_(runs.c.ended_at.is_(None), runs.c.ended_at >= since),
        )
        .order_by(runs.c.id.desc())
        .limit(RUNS_MAX)
    )  # fmt: skip
    found = [ClusterRun(**row) for row in (await conn.execute(query)).mappings()]
    return found[::-1]


async def forget_cluster_events(conn: AsyncConnection, *, before: datetime) -> None:
    """Remove what was seen before."""
    await conn.execute(cluster_events.delete().where(cluster_events.c.at < before))
