"""Looks at one database's nodes, all at once, and takes to the store what was seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.away import is_away
from jobs.capacity import CapacityReport, forecast_of
from jobs.cluster_look import (
    AskHistory,
    LookAt,
    cluster_name,
    cluster_row,
    cluster_watch,
    history_asker,
)
from jobs.collect_node import NodePlace, NodeWatch, Opener, Silent, open_node
from jobs.collect_pending import HourSums, Look, Tally, Waiting
from jobs.collect_rows import Outlook, look_of
from jobs.failover_seen import remember
from jobs.failover_watch import remembered
from jobs.growth import SPAN, growth_per_day
from jobs.operation import Database
from jobs.routing import choose, measured
from postgres.cluster.look import look_at
from postgres.cluster.words import NodeSeen
from postgres.errors import PostgresError
from postgres.health.collect import Collected
from store.connect import Store
from store.samples import NodeRow, nodes_of, record
from store.sizes import DATABASE, record_sizes, size_history
from store.statements import StatementText, add_statements, add_texts, unknown_texts

log: Final = logging.getLogger("twokey.health")

# Of a worker's connections to the store, collecting takes no more.
WRITES_MAX: Final = 3
# Some hundredths of a second in a thread, and sizes change by the day.
FORECAST_EVERY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`lease`: how often a database of another worker is tried. `node`: the limit of a look.

    `pause`: between two attempts at a node that is silent, at most.
    `statements`: how often sums go to the store; a worker that is killed loses as much of them.
    `outlook`: how often growth is worked out. `store`: the limit of a write.
    """

    lease: timedelta = timedelta(seconds=5)
    node: timedelta = timedelta(seconds=15)
    pause: timedelta = timedelta(seconds=60)
    statements: timedelta = timedelta(minutes=5)
    outlook: timedelta = timedelta(hours=1)
    store: timedelta = timedelta(seconds=15)
    house: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a collector works with. `worker` names it in the rows of nodes."""

    store: Store
    worker: str
    clock: Callable[[], datetime]
    pace: Pace = field(default_factory=Pace)
    opener: Opener = open_node
    looker: LookAt = look_at
    historian: AskHistory | None = None  # None: the cluster itself is asked
    writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WRITES_MAX))


class DatabaseWatch:
    """One database. Not for two tasks at once."""

    def __init__(self, tools: Tools, database: Database) -> None:
        self._tools = tools
        self._database = database
        self._there = database  # at the server that is measured as its own
        self._name = database.name
        self._nodes: list[NodeWatch] = []
        self._cluster = cluster_watch(database, clock=tools.clock, look=tools.looker)
        self._waiting = Waiting()
        self._tally = Tally()
        self._tally_taken_at: datetime | None = None
        self._outlook = Outlook()
        self._outlook_at: datetime | None = None
        self._forecast_at: datetime | None = None
        self._is_store_away = False

    async def look(self) -> None:
        """Once: ask all nodes, and store what they said with what still waits.

        A node that does not answer is stored as such. While the store is away, looks wait.
        """
        now = self._tools.clock()
        try:
            together = await self._look_at_cluster(now)
            if not self._nodes:
                await self._meet()
            found = await self._ask(now)
            self._keep(now, found, together)
            async with asyncio.timeout(self._tools.pace.store.total_seconds()), self._tools.writes:
                await self._write()
                await self._look_out(now)
            self._is_store_away = False
        except Exception as error:
            if is_away(error):
                self._note_away(error)
                return
            # The edge of one database: what is odd about it must not blind us for all others.
            log.exception("What was seen of %s cannot be stored; it is left out.", self._name)
            self._waiting.clear()

    async def close(self) -> None:
        """End all connections, and forget what only who looks all the time may know."""
        nodes, self._nodes = self._nodes, []
        await asyncio.gather(*(node.close() for node in nodes))

    async def _ask(self, now: datetime) -> Mapping[str, Collected | Silent]:
        every = self._database.monitoring.every
        limit = min(self._tools.pace.node, max(every / 2, timedelta(seconds=1)))
        answers = await asyncio.gather(
            *(
                node.look(now, limit=limit, every=every, pause_max=self._tools.pace.pause)
                for node in self._nodes
            )
        )
        return {node.place.name: answer for node, answer in zip(self._nodes, answers, strict=True)}

    async def _look_at_cluster(self, now: datetime) -> NodeRow | None:
        """What all servers of `cluster:` say together; None where the inventory names none."""
        if self._cluster is None:
            return None
        nodes = await self._cluster.look()
        await self._follow(nodes)
        ask = self._tools.historian or history_asker(self._tools.clock)
        history = await self._cluster.history(nodes, partial(ask, self._database))
        return cluster_row(
            self._database, nodes, at=now, worker=self._tools.worker, history=history
        )

    async def _follow(self, nodes: Sequence[NodeSeen]) -> None:
        """Measure the server that takes writes now. While that cannot be told, what it was."""
        settings = self._database.cluster
        if settings is None:
            return
        try:
            primary = choose(self._name, nodes, kind=settings.kind, newest={})
            self._there = measured(self._database, primary.name)
        except PostgresError:
            return  # who looks at the cluster itself tells that
        wanted = {place.name: place for place in places_of(self._there)}
        for at, node in enumerate(self._nodes):
            if (place := wanted[node.place.name]) != node.place:
                await node.close()
                # Nothing that is known of one server is true of another.
                self._nodes[at] = NodeWatch(place, self._tools.opener, earlier=None)

    async def _meet(self) -> None:
        """Have somebody to look at each node, who knows what was known of it before."""
        earlier: Mapping[str, Mapping[str, Any]] = {}
        name = cluster_name(self._database)
        try:
            async with asyncio.timeout(self._tools.pace.store.total_seconds()):
                async with self._tools.store.begin() as conn:
                    rows = await nodes_of(conn, [self._name])
            earlier = {row.node: row.detail for row in rows}
        except Exception as error:
            if not is_away(error):
                raise
            self._note_away(error)
        if self._cluster is not None and (last := remembered(earlier.get(name, {}))):
            self._cluster.timeline = last.timeline
        self._nodes = [
            NodeWatch(place, self._tools.opener, earlier=earlier.get(place.name))
            for place in places_of(self._there)
        ]

    def _keep(
        self,
        now: datetime,
        found: Mapping[str, Collected | Silent],
        together: NodeRow | None,
    ) -> None:
        """Have it wait for the store; what statements took goes with it when that is due."""
        for name, answer in found.items():
            if isinstance(answer, Collected):
                self._tally.add(name, now, answer.statements)
        hours: Sequence[HourSums] = ()
        texts: Sequence[StatementText] = ()
        if _is_due(self._tally_taken_at, self._tools.pace.statements, now):
            hours, texts = self._tally.take()
            self._tally_taken_at = now
        look = look_of(
            self._there, now, found, worker=self._tools.worker, outlook=self._outlook,
            hours=hours, texts=texts,
        )  # fmt: skip
        if together is not None:
            look = replace(look, rows=(*look.rows, together))
        self._waiting.add(look)

    async def _write(self) -> None:
        """All that waits in one transaction: all of it is stored, or waits on."""
        looks = self._waiting.looks
        rows = [row for look in looks for row in look.rows]
        async with self._tools.store.begin() as conn:
            if self._cluster is not None:
                rows = await remember(conn, self._database, rows)
            stored = await record(conn, rows, gap=self._database.monitoring.every / 2)
            accepted = {(row.node, row.at) for row in stored}
            for look in looks:
                await self._write_beside(conn, look, accepted)
        self._waiting.clear()
        if looks and not any(at == looks[-1].at for _, at in accepted):
            self._tally.clear()  # another worker looks too, and counts the same

    async def _write_beside(
        self, conn: AsyncConnection, look: Look, accepted: set[tuple[str, datetime]]
    ) -> None:
        name = self._name
        if (look.sizes_of, look.at) in accepted:
            await record_sizes(conn, name, look.at.date(), look.sizes)
        for each in look.hours:
            if (each.node, look.at) in accepted:
                await add_statements(conn, name, each.node, each.hour, each.sums)
                ids = [one.queryid for one in each.sums]
                await unknown_texts(conn, name, ids, at=look.at)
        await add_texts(conn, name, look.texts, at=look.at)

    async def _look_out(self, now: datetime) -> None:
        """Work out now and again what history says, for the looks to come."""
        if not _is_due(self._outlook_at, self._tools.pace.outlook, now):
            return
        self._outlook_at = now
        since, days_until_full = (now - SPAN).date(), self._outlook.days_until_full
        async with self._tools.store.begin() as conn:
            history = await size_history(conn, self._name, DATABASE, since=since)
            if _is_due(self._forecast_at, FORECAST_EVERY, now):
                report = await forecast_of(conn, self._database, now)
                known = report.days_until_full if isinstance(report, CapacityReport) else None
                days_until_full = None if known is None else float(known)
                self._forecast_at = now
        self._outlook = Outlook(
            growth_bytes_day=growth_per_day(history), days_until_full=days_until_full
        )

    def _note_away(self, error: Exception) -> None:
        if not self._is_store_away:
            log.warning(
                "The store is away (%s); what is seen of %s waits.",
                type(error).__name__,
                self._name,
            )
        self._is_store_away = True


def places_of(database: Database) -> Sequence[NodePlace]:
    """The servers of a database's cluster, its own first."""
    own = NodePlace(
        name=database.name,
        dsn=database.monitoring.dsn or database.dsn,
        region=database.region,
        volume=database.monitoring.volume,
        pgbouncer=database.monitoring.pgbouncer,
    )
    return [
        own,
        *(
            NodePlace(name=node.name, dsn=node.dsn, region=node.region)
            for node in database.replicas
        ),
    ]


def names_of(database: Database) -> Sequence[str]:
    """What the store keeps rows of: the servers, and the look at all of its cluster at once."""
    names = [place.name for place in places_of(database)]
    return names if database.cluster is None else [*names, cluster_name(database)]


def _is_due(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Whether it is time again, also after a clock was set back."""
    return last is None or not last <= now < last + every
