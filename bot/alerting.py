"""Looks how all databases stand, and tells their channels what is wrong: once, and when it is over.

Any number of bots may look: one of them does at a time. What is remembered, what fires and what
is told of it are stored in one transaction, so nothing is told twice or forgotten, whoever
dies when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from bot.alert_storing import store_decision
from bot.inventory import Inventory
from jobs.alert_backups import backup_signals
from jobs.alert_cluster import cluster_signals
from jobs.alert_drills import DRILL_OVERDUE, drill_signals
from jobs.alert_engine import Decision, Look, decide
from jobs.alert_failover import FAILOVERS, SEEN_FOR, failover_signals
from jobs.alert_machine import Memory, memory_of
from jobs.alert_readings import metric_signals, servers_of
from jobs.alert_signal import Key, Signal
from jobs.alerts import NAMES
from jobs.away import in_rounds, is_away
from jobs.backup_state import DatabaseState, states
from jobs.operation import Database
from jobs.timetable import DRILL
from jobs.watching import NAME as WORSE_AFTER_CHANGE
from jobs.watching import verdict, watch_signals
from store.alert_states import load_states
from store.alerts import forget_alerts, look_alone, our_firing_alerts
from store.cluster_events import ClusterEvent, cluster_events_since, forget_cluster_events
from store.connect import Store
from store.drills import last_passed
from store.incidents import AlertRow, IncidentRow, forget_incidents, lock_open_incidents
from store.samples import NodeRow, nodes_of
from store.silences import (
    SilenceRow,
    active_silences,
    forget_silences,
    keep_silence_of_run,
    runs_at_work,
)
from store.watches import WatchRow, change_watch, forget_watches, open_watches

log: Final = logging.getLogger("twokey.alerts")

POLL: Final = timedelta(seconds=30)
LOOK_SECONDS_MAX: Final = 60
KEPT: Final = timedelta(days=400)
FORGOTTEN_MAX: Final = 100
# A worker writes its run's heartbeat far more often than this.
RUN_SILENT: Final = timedelta(minutes=5)
# So long after a run its server may still catch up.
RUN_GRACE: Final = timedelta(minutes=5)
RUN_SILENCE_MAX: Final = timedelta(hours=24)
_RUNS_MAX: Final = 500
# They leave the server alone, or should be seen in what it does then.
_BESIDES: Final = frozenset(
    {
        "prune",
        "restore-confirm",
        "drop-index",
        "migrate",
        "change",
        "backfill",
        "rehearse",
        "rehearse-backfill",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """All that a look goes by, by the names of databases."""

    memories: Mapping[str, Mapping[Key, Memory]]
    rows: Mapping[str, Mapping[Key, AlertRow]]
    silences: Mapping[str, Sequence[SilenceRow]]
    incidents: Mapping[str, IncidentRow]
    nodes: Mapping[str, Sequence[NodeRow]]
    backups: Mapping[str, DatabaseState]
    watches: Mapping[str, Sequence[WatchRow]]
    failovers: Mapping[str, Sequence[ClusterEvent]]
    drills: Mapping[str, datetime]  # when one passed last


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks every half minute, until it is told to stop. `broke` counts what could not be read."""

    inventory: Inventory
    store: Store
    clock: Callable[[], datetime]
    poll: timedelta = POLL
    broke: Callable[[str], None] = lambda where: None  # noqa: ARG005
    _failing: set[str] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set; while the store is away, wait for it."""
        await in_rounds(stop, self._round)

    async def _round(self) -> float:
        await self.look()
        return self.poll.total_seconds()

    async def look(self) -> tuple[Decision, ...] | None:
        """One look; what it changed, or None: somebody else looks at this moment.

        What cannot be read of one database stops none of the others, and ends nothing that
        fires on it.
        """
        now = self.clock()
        async with asyncio.timeout(LOOK_SECONDS_MAX), self.store.begin() as conn:
            if not await look_alone(conn):
                return None
            await _silence_runs(conn, now)
            world = await self._world(conn, now)
            decided = [
                decision
                for name in self._names(world)
                if (decision := await self._decide(conn, name, world, now)) is not None
            ]
            await _forget(conn, now)
            return tuple(decided)

    async def _world(self, conn: AsyncConnection, now: datetime) -> _World:
        # Incidents first: whoever acknowledges one locks it before its alerts, as we do.
        incidents = await lock_open_incidents(conn, "twokey")
        memories: dict[str, dict[Key, Memory]] = {}
        for state in await load_states(conn):
            if (memory := memory_of(state.memory)) is not None:
                memories.setdefault(state.database, {})[state.name, state.label] = memory
        rows: dict[str, dict[Key, AlertRow]] = {}
        for row in await our_firing_alerts(conn):
            rows.setdefault(row.database, {})[row.name, row.label] = row
        silences: dict[str, list[SilenceRow]] = {}
        for silence in await active_silences(conn, now):
            silences.setdefault(silence.database, []).append(silence)
        nodes: dict[str, list[NodeRow]] = {}
        for node in await nodes_of(conn, list(self.inventory.databases)):
            nodes.setdefault(node.database, []).append(node)
        watched: dict[str, list[WatchRow]] = {}
        for watch in await open_watches(conn):
            watched.setdefault(watch.database, []).append(watch)
        failovers: dict[str, list[ClusterEvent]] = {}
        for event in await cluster_events_since(conn, now - SEEN_FOR):
            failovers.setdefault(event.database, []).append(event)
        drills: dict[str, datetime] = {}
        for (name, _), passed_at in (await last_passed(conn)).items():
            drills[name] = max(passed_at, drills.get(name, passed_at))
        known = await states(conn, self.inventory.databases.values(), now)
        return _World(
            memories=memories, rows=rows, silences=silences, incidents=incidents, nodes=nodes,
            backups={state.database.name: state for state in known}, watches=watched,
            failovers=failovers, drills=drills,
        )  # fmt: skip

    def _names(self, world: _World) -> Sequence[str]:
        """Every database that is watched, or of which something is still to be ended."""
        return sorted(
            {*self.inventory.databases, *world.memories, *world.rows, *world.incidents}
        )  # fmt: skip

    async def _decide(
        self, conn: AsyncConnection, name: str, world: _World, now: datetime
    ) -> Decision | None:
        """Decide and store for one database; None where it could not be."""
        database = self.inventory.databases.get(name)
        try:
            decision = decide(self._look_at(name, database, world, now), now)
            if not decision.is_empty:
                async with conn.begin_nested():
                    await store_decision(conn, decision, database, world.incidents.get(name), now)
            await _watched(conn, world.watches.get(name, ()), decision, now)
        except Exception as error:
            if is_away(error):
                raise
            self._failed(f"{name}: what was decided", error)
            return None
        self._failing.discard(f"{name}: what was decided")
        return decision

    def _look_at(self, name: str, database: Database | None, world: _World, now: datetime) -> Look:
        signals: list[Signal] = []
        unread: set[str] = set()
        if database is not None:
            servers = servers_of(database, world.nodes.get(name, ()), now)
            state = world.backups[name]
            for what, read in (
                ("metrics", lambda: chain(metric_signals(servers), cluster_signals(servers))),
                ("backups", lambda: backup_signals(state, servers.primary, now)),
                ("failovers", lambda: failover_signals(world.failovers.get(name, ()), servers)),
                ("drills", lambda: _drills(state, servers.primary, world, now)),
                ("changes", lambda: watch_signals(world.watches.get(name, ()), servers, now)),
            ):
                found = self._read(f"{name}: {what}", read)
                signals += found or ()
                unread |= set() if found is not None else {what}
        return Look(
            database=name,
            signals=tuple(signals),
            memories=world.memories.get(name, {}),
            rows=world.rows.get(name, {}),
            silences=tuple(world.silences.get(name, ())),
            incident=world.incidents.get(name),
            unread=lambda alert: _read_with(alert) in unread,
        )

    def _read(self, what: str, read: Callable[[], Iterator[Signal]]) -> list[Signal] | None:
        try:
            found = list(read())
        except Exception as error:  # noqa: BLE001 - one database's data stops no other
            self._failed(what, error)
            return None
        self._failing.discard(what)
        return found

    def _failed(self, what: str, error: Exception) -> None:
        """Counted each time, and said once until it works again."""
        self.broke("alerts")
        if what not in self._failing:
            self._failing.add(what)
            log.error("Alerts cannot be looked at (%s); the others are.", what, exc_info=error)


def _drills(state: DatabaseState, node: str, world: _World, now: datetime) -> Iterator[Signal]:
    database = state.database
    schedule = state.schedules.get(f"{DRILL} {database.name}")
    return drill_signals(
        database, node, passed_at=world.drills.get(database.name),
        begun_at=schedule.begun_at if schedule else None, now=now,
    )  # fmt: skip


def _read_with(alert: str) -> str:
    """Which look an alert comes from."""
    if alert == WORSE_AFTER_CHANGE:
        return "changes"
    if alert in FAILOVERS:
        return "failovers"
    if alert == DRILL_OVERDUE:
        return "drills"
    return "backups" if alert in NAMES else "metrics"


async def _watched(
    conn: AsyncConnection, watches: Sequence[WatchRow], decision: Decision, now: datetime
) -> None:
    """What a look found of the changes that are watched."""
    firing = {standing.key for standing in decision.firing}
    for watch in watches:
        key = (WORSE_AFTER_CHANGE, f"request {watch.request_id}")
        if state := verdict(watch, is_firing=key in firing, now=now):
            await change_watch(conn, watch.request_id, state=state, at=now)


async def _silence_runs(conn: AsyncConnection, now: datetime) -> None:
    """While a run that people notice is at work, its database's servers have nothing to tell."""
    runs = await runs_at_work(conn, heard_since=now - RUN_SILENT, besides=_BESIDES, rows=_RUNS_MAX)
    for run in runs:
        await keep_silence_of_run(
            conn, run, reason=f"request {run.request_id} ({run.operation}) is at work", now=now,
            ends_at=now + RUN_GRACE, span_max=RUN_SILENCE_MAX,
        )  # fmt: skip


async def _forget(conn: AsyncConnection, now: datetime) -> None:
    before = now - KEPT
    await forget_alerts(conn, before=before, rows=FORGOTTEN_MAX)
    await forget_incidents(conn, before=before, rows=FORGOTTEN_MAX)
    await forget_silences(conn, before=before, rows=FORGOTTEN_MAX)
    await forget_watches(conn, before=before)
    await forget_cluster_events(conn, before=before)
