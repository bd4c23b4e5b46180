"""Watches the statements of one node: what is known of them between two looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
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
        note = await self._learn(conn, (key.queryid for key in sample.rows))
        found = statement_rates(self._before, sample, database=database, kind=self._kinds.get)
        self._before = sample
        with_texts, text_note = await self._with_texts(conn, found.deltas)
        return replace(found, deltas=with_texts, note=found.note or note or text_note)

    async def _sample(self, conn: Any) -> StatementSample | str:
        if self._where is None:
            where = await find_statements(conn, limit=self._limit)
            if isinstance(where, str):
                return where
            self._where = where
        return await read_statements(conn, self._where, limit=self._limit)

    async def _learn(self, conn: Any, queryids: Iterable[int]) -> str:
        """Find out what kind the unknown ones are, as far as reading texts is due."""
        unknown = {queryid for queryid in queryids if queryid not in self._kinds}
        if not unknown:
            return ""
        if len(self._kinds) + len(unknown) > KINDS_MAX:
            self._kinds.clear()
        texts, note = await self._texts(conn, unknown)
        self._kinds.update({queryid: kind_of(text) for queryid, text in texts.items()})
        return note

    async def _with_texts(
        self, conn: Any, deltas: tuple[StatementDelta, ...]
    ) -> tuple[tuple[StatementDelta, ...], str]:
        """With the texts that nobody was told within the hour."""
        now = self._clock()
        self._told = {q: at for q, at in self._told.items() if now - at < TELL_EVERY_SECONDS}
        wanted = {d.queryid for d in deltas if d.queryid not in self._told}
        if not wanted:
            return deltas, ""
        texts, note = await self._texts(conn, wanted)
        self._told.update(dict.fromkeys(texts, now))
        return tuple(
            replace(d, text=told(texts[d.queryid])) if d.queryid in texts else d for d in deltas
        ), note

    async def _texts(self, conn: Any, queryids: Iterable[int]) -> tuple[Mapping[int, str], str]:
        """Nothing when it is too early to read texts again, or when it failed."""
        began = self._clock()
        if began < self._texts_after or self._where is None:
            return {}, ""
        try:
            found = await read_texts(conn, self._where, sorted(queryids), limit=self._limit)
        except (asyncpg.PostgresError, TimeoutError) as error:
            self._texts_after = self._clock() + _AFTER_FAILURE_SECONDS
            return {}, f"The texts of statements cannot be read: {str(error)[:200] or 'too slow'}."
        took = self._clock() - began
        self._texts_after = began if took < _FREE_SECONDS else self._clock() + took / _SHARE_MAX
        return found, ""
