"""Watches the statements of one node: what is known of them between two looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import asyncpg

from postgres.health.counters import StatementSample
from postgres.health.statement_deltas import Kind, StatementDelta, StatementRates, statement_rates
from postgres.health.statements import (
    StatementsAt,
    find_statements,
    kind_of,
    read_statements,
    read_texts,
    told,
)

KINDS_MAX: Final = 50_000
# Texts are told again after so long, for a store that has lost them.
TELL_EVERY_SECONDS: Final = 3600.0
# Reading texts reads all of them: where that is slow, it may take this share of the time.
_SHARE_MAX: Final = 1 / 500
_FREE_SECONDS: Final = 0.01
_AFTER_FAILURE_SECONDS: Final = 3600.0


class StatementWatch:
    """Remembers the last look and what kind each statement is. One per node."""

    def __init__(self, *, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._where: StatementsAt | None = None
        self._before: StatementSample | None = None
        self._kinds: dict[int, Kind] = {}
        self._told: dict[int, float] = {}
        self._texts_after = 0.0
        self.missing: str | None = None

    def forget_connection(self) -> None:
        """Another connection may lead to another server: look where the extension stands."""
        self._where = None

    async def look(self, conn: Any, *, database: int) -> StatementRates:
        """What happened since the last look; `missing` says why nothing can be known.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: it could not be read.
        """
        sample = await self._sample(conn)
        if isinstance(sample, str):
            self.missing, self._before, self._where = sample, None, None
            return StatementRates(numbers={})
        self.missing = None
        found = self._since_before(sample, database)
        texts, note = await self._texts(conn, self._unknown(sample), self._untold(found))
        if texts:
            found = self._since_before(sample, database)
        self._before = sample
        return replace(found, deltas=self._with_texts(found.deltas, texts), note=found.note or note)

    def _since_before(self, sample: StatementSample, database: int) -> StatementRates:
        return statement_rates(self._before, sample, database=database, kind=self._kinds.get)

    async def _sample(self, conn: Any) -> StatementSample | str:
        if self._where is None:
            where = await find_statements(conn, limit=self._limit)
            if isinstance(where, str):
                return where
            self._where = where
        return await read_statements(conn, self._where, limit=self._limit)

    def _unknown(self, sample: StatementSample) -> set[int]:
        """Statements of which nobody knows what kind they are."""
        unknown = {key.queryid for key in sample.rows if key.queryid not in self._kinds}
        if len(self._kinds) + len(unknown) > KINDS_MAX:
            self._kinds.clear()
        return unknown

    def _untold(self, found: StatementRates) -> set[int]:
        """Statements whose texts nobody was told within the hour."""
        now = self._clock()
        self._told = {q: at for q, at in self._told.items() if now - at < TELL_EVERY_SECONDS}
        return {delta.queryid for delta in found.deltas if delta.queryid not in self._told}

    def _with_texts(
        self, deltas: tuple[StatementDelta, ...], texts: Mapping[int, str]
    ) -> tuple[StatementDelta, ...]:
        fresh = [d.queryid for d in deltas if d.queryid in texts and d.queryid not in self._told]
        self._told.update(dict.fromkeys(fresh, self._clock()))
        return tuple(
            replace(d, text=told(texts[d.queryid])) if d.queryid in texts else d for d in deltas
        )

    async def _texts(
        self, conn: Any, unknown: set[int], untold: set[int]
    ) -> tuple[Mapping[int, str], str]:
        """Nothing when nothing is wanted, when it is too early to read again, or when it failed.

        What is unknown is known then.
        """
        began = self._clock()
        if not (unknown or untold) or began < self._texts_after or self._where is None:
            return {}, ""
        wanted = sorted(unknown | untold)
        try:
            found = await read_texts(conn, self._where, wanted, limit=self._limit)
        except (asyncpg.PostgresError, TimeoutError) as error:
            self._texts_after = self._clock() + _AFTER_FAILURE_SECONDS
            return {}, f"The texts of statements cannot be read: {str(error)[:200] or 'too slow'}."
        took = self._clock() - began
        self._texts_after = began if took < _FREE_SECONDS else self._clock() + took / _SHARE_MAX
        self._kinds.update({queryid: kind_of(text) for queryid, text in found.items()})
        return found, ""
