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

from postgres.health.connecting import ANSWER_SECONDS_MAX, FAILURES, NodeConnection, unreachable
from postgres.health.counters import Counters
from postgres.health.deltas import Hour, Rates, hour_numbers, rates
from postgres.health.instance import IDENTITY, Instance, instance_query, parse_instance
from postgres.health.metrics import METRICS
from postgres.health.statement_deltas import StatementDelta, StatementRates
from postgres.health.statement_watch import StatementWatch
from postgres.health.tiers import Due

TIER_SECONDS_MAX: Final = 8.0
_NOTE_CHARS_MAX: Final = 300
# These are known from history, or of no sample at all.
_OF_THE_STORE: Final = frozenset({"growth_bytes_day", "days_until_full", "sample_age_s"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large something is now; `what` as table `sizes` of the store names it."""

    what: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One look at one node.

    `numbers` has every metric that a node can know, None for what is not known now.
    `detail` is JSON: role, version, timeline, started, notes, and what the numbers are about.
    `statements` are of the interval since the last look. `sizes` is empty unless they were due.
    """

    at: datetime
    numbers: Mapping[str, float | None]
    detail: Mapping[str, Any]
    statements: tuple[StatementDelta, ...] = ()
    sizes: tuple[Size, ...] = ()


class NodeCollector:
    """Looks at one server again and again. Not for two tasks at once.

    `earlier` is the `detail` of this node's last look, by whoever took it: with it the counts of
    the last hour survive a change of worker.
    """

    def __init__(
        self, dsn: SecretStr, *, name: str, earlier: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self._connection = NodeConnection(dsn, changed=self._connected)
        self._query = ""
        self._before: Counters | None = None
        self._hour = Hour.read((earlier or {}).get("hour"))
        self._statements = StatementWatch(limit=ANSWER_SECONDS_MAX)

    async def collect(self, now: datetime, due: Due) -> Collected:  # noqa: ARG002
        """Look at the server; `now` is the time that the sample gets.

        Raises:
            PostgresError: the server cannot be reached, or does not answer.
        """
        began = time.perf_counter()
        draft = _Draft()
        instance = await self._instance()
        draft.add(instance.numbers, instance.detail)
        draft.note(instance.hidden)
        self._rates(draft, instance)
        await self._identity(draft)
        await self._look_at_statements(draft, instance)
        draft.numbers["collection_ms"] = (time.perf_counter() - began) * 1000
        draft.detail["version"] = self._connection.version
        return draft.collected(now)

    async def close(self) -> None:
        """End the connection. What was remembered stays."""
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

    def _rates(self, draft: _Draft, instance: Instance) -> None:
        found: Rates = rates(self._before, instance.counters)
        self._before = instance.counters
        self._hour = (self._hour or Hour.begin(instance.counters.at)).add(
            instance.counters.at, found.events
        )
        draft.add({**found.numbers, **hour_numbers(self._hour)}, {"hour": self._hour.written()})
        draft.note(found.note)

    async def _identity(self, draft: _Draft) -> None:
        row = await self._tier(draft, "Which server this is", lambda c: c.fetchrow(IDENTITY))
        draft.detail.update(dict(row) if row else {"system": None, "timeline": None})

    async def _look_at_statements(self, draft: _Draft, instance: Instance) -> None:
        oid = instance.database_oid
        found: StatementRates | None = await self._tier(
            draft, "Statements", lambda c: self._statements.look(c, database=oid)
        )
        draft.detail["statements_missing"] = self._statements.missing
        if found:
            draft.add(found.numbers, {})
            draft.note(found.note)
            draft.statements = found.deltas

    async def _tier(
        self, draft: _Draft, what: str, read: Callable[[Any], Awaitable[_T]]
    ) -> _T | None:
        """What was read, or None and a note: no tier costs another one its numbers."""
        try:
            async with asyncio.timeout(TIER_SECONDS_MAX):
                return await read(await self._connection.open())
        except FAILURES as error:
            said = str(error).splitlines()[0] if str(error) else "no answer in time"
            draft.note(f"{what} could not be read: {said}.")
            return None


@dataclass(slots=True)
class _Draft:
    """A look that is being taken."""

    numbers: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(METRICS.keys() - _OF_THE_STORE)
    )
    detail: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    statements: tuple[StatementDelta, ...] = ()
    sizes: tuple[Size, ...] = ()

    def add(self, numbers: Mapping[str, float | None], detail: Mapping[str, Any]) -> None:
        self.numbers.update(numbers)
        self.detail.update(detail)

    def note(self, text: str) -> None:
        if text:
            self.notes.append(text[:_NOTE_CHARS_MAX])

    def collected(self, now: datetime) -> Collected:
        return Collected(
            at=now,
            numbers=MappingProxyType(self.numbers),
            detail=MappingProxyType({**self.detail, "notes": self.notes}),
            statements=self.statements,
            sizes=self.sizes,
        )
