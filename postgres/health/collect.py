"""A node's collector: one persistent connection, tiers of cadence, and rates that survive resets.

Each look costs a few milliseconds: prepared statements on a connection that stays. It asks for
nothing that can block: a short lock timeout, a statement timeout, no JIT, read-only. A tier that
fails is a note and loses nothing of the others; only a server that does not answer at all is an
error. What is collected rarely (sizes, settings, invalid indexes) stands in every sample until
it is old.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from postgres.errors import PostgresError
from postgres.health.archiver import archive_failing
from postgres.health.connecting import ANSWER_SECONDS_MAX, FAILURES, NodeConnection, unreachable
from postgres.health.counters import Counters
from postgres.health.deltas import Hour, hour_numbers, rates
from postgres.health.instance import IDENTITY, Instance, instance_query, parse_instance
from postgres.health.lag import Trail, seen_by_primary
from postgres.health.metrics import METRICS
from postgres.health.pgbouncer import waiting_pools
from postgres.health.rarely import CatalogWatch, Size, SizeWatch
from postgres.health.statement_deltas import StatementDelta
from postgres.health.statement_watch import StatementWatch
from postgres.health.tiers import Due
from postgres.health.volume import UNKNOWN, Place, Usage, Volumes

__all__ = ["Collected", "Due", "NodeCollector", "Size"]

# After so long, a look takes no further tier: whoever waits for it still gets the rest.
LOOK_SECONDS_MAX: Final = 9.0
_NOTE_CHARS_MAX: Final = 300
_NOTES_MAX: Final = 20
# These are known from history, or of no sample at all.
_OF_THE_STORE: Final = frozenset({"growth_bytes_day", "days_until_full", "sample_age_s"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One look at one node.

    `numbers` has every metric that a node can know, None for what is not known now.
    `detail` is JSON: role, version, timeline, started, notes, and what the numbers are about.
    `statements` are of the interval since the last look. `sizes` is empty unless they were due.
    `trail`: where a primary's WAL stood when, for `postgres.health.lag.merge`.
    """

    at: datetime
    numbers: Mapping[str, float | None]
    detail: Mapping[str, Any]
    statements: tuple[StatementDelta, ...] = ()
    sizes: tuple[Size, ...] = ()
    trail: Trail = field(default_factory=Trail)


class NodeCollector:
    """Looks at one server again and again. Not for two tasks at once.

    `earlier` is the `detail` of this node's last look, by whoever took it: with it the counts of
    the last hour survive a change of worker. `pgbouncer` is the DSN of an admin console. `timer`
    counts seconds: reading texts is kept to a share of the time.
    """

    def __init__(
        self,
        dsn: SecretStr,
        *,
        name: str,
        volume: Place | None = None,
        pgbouncer: SecretStr | None = None,
        earlier: Mapping[str, Any] | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is connected yet.

        Raises:
            PostgresError: the DSN cannot be understood.
        """
        self.name = name
        self._connection = NodeConnection(dsn, changed=self._connected)
        self._pgbouncer = pgbouncer
        self._query = ""
        self._before: Counters | None = None
        self._hour = Hour.read((earlier or {}).get("hour"))
        self._failing_since = _failing_since(earlier or {})
        self._trail = Trail()
        self._statements = StatementWatch(limit=ANSWER_SECONDS_MAX, clock=timer)
        self._sizes = SizeWatch()
        self._catalog = CatalogWatch()
        self._volumes = Volumes(volume)

    def due(self, now: datetime) -> Due:
        """What should be collected now, by what was collected when; a first look takes all."""
        return Due(sizes=self._sizes.is_due(now), catalog=self._catalog.is_due(now))

    async def collect(self, now: datetime, due: Due | None = None) -> Collected:
        """Look at the server; `now` is the time that the sample gets. `due` None: `self.due`.

        Raises:
            PostgresError: the server cannot be reached, or does not answer.
        """
        began = time.perf_counter()
        tiers = due or self.due(now)
        draft = _Draft(ends_at=asyncio.get_running_loop().time() + LOOK_SECONDS_MAX)
        instance = await self._instance()
        draft.add(instance.numbers, instance.detail)
        draft.note(instance.hidden)
        self._add_rates(draft, instance)
        self._add_replication(draft, instance)
        self._add_archiver(draft, instance)
        await self._add_identity(draft)
        await self._add_statements(draft, instance)
        await self._add_rarely(draft, now, tiers)
        await self._add_volume(draft)
        await self._add_pgbouncer(draft)
        draft.numbers["collection_ms"] = (time.perf_counter() - began) * 1000
        draft.detail["version"] = self._connection.version
        return draft.collected(now, self._trail)

    async def close(self) -> None:
        """End the connection. What was remembered stays, and another look opens a new one."""
        await self._connection.close()

    def _connected(self, major: int) -> None:
        self._query = instance_query(major)
        self._statements.forget_connection()

    async def _instance(self) -> Instance:
        try:
            return parse_instance(
                await self._connection.run(lambda conn: conn.fetchval(self._query))
            )
        except FAILURES as error:
            raise unreachable(self.name, error) from error

    def _add_rates(self, draft: _Draft, instance: Instance) -> None:
        found = rates(self._before, instance.counters)
        self._before = instance.counters
        at = instance.counters.at
        self._hour = (self._hour or Hour.begin(at)).add(at, found.events)
        draft.add({**found.numbers, **hour_numbers(self._hour)}, {"hour": self._hour.written()})
        draft.note(found.note)

    def _add_replication(self, draft: _Draft, instance: Instance) -> None:
        if instance.standby or instance.lsn is None:
            self._trail = Trail()
            return
        self._trail = self._trail.add(instance.counters.at, instance.lsn)
        if not instance.hidden:
            found = seen_by_primary(instance.detail["replicas"], self._trail)
            draft.add(found.numbers, {"replicas": list(found.replicas)})

    def _add_archiver(self, draft: _Draft, instance: Instance) -> None:
        if instance.standby:
            return
        row = instance.detail["archiver"]
        seconds, self._failing_since = archive_failing(
            row, at=instance.counters.at, earlier=self._failing_since
        )
        archiver = {**row, "failing_since": self._failing_since}
        draft.add({"archive_failing_s": seconds}, {"archiver": archiver})

    async def _add_identity(self, draft: _Draft) -> None:
        row = await self._tier(draft, "Which server this is", lambda c: c.fetchrow(IDENTITY))
        draft.detail.update(dict(row) if row else {"system": None, "timeline": None})

    async def _add_statements(self, draft: _Draft, instance: Instance) -> None:
        oid = instance.database_oid
        found = await self._tier(
            draft, "Statements", lambda conn: self._statements.look(conn, database=oid)
        )
        draft.detail["statements_missing"] = self._statements.missing
        if found:
            draft.add(found.numbers, {})
            draft.note(found.note)
            draft.statements = found.deltas

    async def _add_rarely(self, draft: _Draft, now: datetime, due: Due) -> None:
        if due.sizes:
            found = await self._tier(draft, "Sizes", self._sizes.read)
            self._sizes.remember(now, found)
            draft.sizes = found.sizes() if found else ()
        if due.catalog:
            self._catalog.remember(
                now, await self._tier(draft, "Settings and indexes", self._catalog.read)
            )
        for watch in (self._sizes, self._catalog):
            draft.add(*watch.told(now))
            draft.note(watch.note(now))

    async def _add_volume(self, draft: _Draft) -> None:
        found = await self._tier(draft, "The disk", lambda _: self._disk())
        usage, note = found or (UNKNOWN, "")
        draft.add(
            {
                "disk_usage_pct": usage.pct,
                "disk_free_bytes": None if usage.free is None else float(usage.free),
            },
            {"volume": usage.told()},
        )
        draft.note(note)
        if draft.sizes and usage.used is not None and usage.total is not None:
            volume = (
                Size(what="volume", bytes=usage.used),
                Size(what="volume_total", bytes=usage.used + (usage.free or 0)),
            )
            draft.sizes = (*draft.sizes, *volume)

    async def _disk(self) -> tuple[Usage, str]:
        return await self._volumes.usage(known_bytes=self._sizes.known_bytes)

    async def _add_pgbouncer(self, draft: _Draft) -> None:
        if (console := self._pgbouncer) is None:
            return
        found = await self._tier(draft, "PgBouncer", lambda _: waiting_pools(console))
        draft.detail["pgbouncer"] = found.told() if found else None
        if not found:
            return
        waiting = draft.numbers["connections_waiting"]
        draft.numbers["connections_waiting"] = (waiting or 0.0) + found.waiting

    async def _tier(
        self, draft: _Draft, what: str, read: Callable[[Any], Awaitable[_T]]
    ) -> _T | None:
        """What was read, or None and a note: no tier costs another one its numbers."""
        try:
            async with asyncio.timeout_at(draft.ends_at):
                return await self._connection.run(read)
        except (*FAILURES, PostgresError) as error:
            said = str(error).splitlines()[0] if str(error) else "no answer in time"
            draft.note(f"{what} could not be read: {said.rstrip('.')}.")
            return None


def _failing_since(earlier: Mapping[str, Any]) -> float | None:
    match earlier.get("archiver"):
        case {"failing_since": float() | int() as since}:
            return float(since)
        case _:
            return None


@dataclass(slots=True)
class _Draft:
    """A look that is being taken. `ends_at`: by the event loop's clock."""

    ends_at: float
    numbers: dict[str, float | None] = field(
        default_factory=lambda: {n: None for n in METRICS if n not in _OF_THE_STORE}
    )
    detail: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    statements: tuple[StatementDelta, ...] = ()
    sizes: tuple[Size, ...] = ()

    def add(self, numbers: Mapping[str, float | None], detail: Mapping[str, Any]) -> None:
        self.numbers.update(numbers)
        self.detail.update(detail)

    def note(self, text: str) -> None:
        if text and len(self.notes) < _NOTES_MAX:
            self.notes.append(text[:_NOTE_CHARS_MAX])

    def collected(self, now: datetime, trail: Trail) -> Collected:
        return Collected(
            at=now,
            numbers=MappingProxyType(self.numbers),
            detail=MappingProxyType({**self.detail, "notes": self.notes}),
            statements=self.statements,
            sizes=self.sizes,
            trail=trail,
        )
