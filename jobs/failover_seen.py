"""Looks at a cluster on their way to the store: what they remember, and promotions they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.cluster_look import cluster_name
from jobs.failover_watch import (
    CLOCKS_DIFFER,
    follow,
    picture_of,
    primary_json,
    remembered,
    with_causes,
)
from jobs.operation import Database
from store.cluster_events import ClusterEvent, cluster_runs, record_event
from store.samples import WRITE_ALONE, NodeRow, nodes_of


async def remember(
    conn: AsyncConnection, database: Database, rows: Sequence[NodeRow]
) -> list[NodeRow]:
    """The rows, those of the cluster with who took writes last; new promotions are entered.

    In the transaction that stores them: whoever of several workers sees a promotion, and
    whether or not its row is the one that is kept, it is entered once.
    """
    name = cluster_name(database)
    if not any(row.node == name for row in rows):
        return list(rows)
    await conn.execute(WRITE_ALONE, {"database": database.name})
    known = {row.node: row for row in await nodes_of(conn, [database.name])}
    last = remembered(known[name].detail) if name in known else None
    found: list[NodeRow] = []
    for row in sorted(rows, key=lambda each: each.at):
        if row.node != name:
            found.append(row)
            continue
        last, events = follow(last, picture_of(row.detail, row.at), database=database.name)
        await _enter(conn, database.name, events)
        detail = {**row.detail, "last_primary": primary_json(last)}
        if detail.get("proposal") and await _is_at_work(conn, database.name, row.at):
            detail["proposal"] = None  # a run of ours has stopped the primary
        found.append(replace(row, detail=detail))
    return found


async def _enter(conn: AsyncConnection, database: str, events: Sequence[ClusterEvent]) -> None:
    if not events:
        return
    first, last = events[0], events[-1]
    runs = await cluster_runs(
        conn, database, since=first.old_at - CLOCKS_DIFFER, until=last.at + CLOCKS_DIFFER
    )
    for event in with_causes(events, runs):
        await record_event(conn, event)


async def _is_at_work(conn: AsyncConnection, database: str, at: datetime) -> bool:
    return bool(await cluster_runs(conn, database, since=at, until=at + CLOCKS_DIFFER))
