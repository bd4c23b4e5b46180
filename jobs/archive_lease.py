"""Who of all workers looks after which database's WAL archive: one, for as long as it lives.

Advisory locks of one session. While the store is away nobody can tell: who looked after an
archive goes on with it, as WAL must not stop coming; the slot and the folder's lock keep a
second receiver out meanwhile.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Final

import asyncpg

from jobs.away import is_away
from jobs.locks import NAME_CHARS_MAX, PING_SECONDS_MAX
from store.connect import Store

# The first key is this lock's own namespace. Keepalives: see `jobs.locks`.
TRY_LEASE: Final = "SELECT pg_try_advisory_lock(hashtext('twokey archive'), hashtext($1))"
KEEP_ALIVE: Final = """
    SELECT set_config('tcp_keepalives_idle', '10', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false)
"""
PING: Final = "SELECT 1"


class Lease(StrEnum):
    """Whose an archive is."""

    OURS = "ours"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


class Leases:
    """The archives that this worker looks after. `name` is shown by pg_stat_activity."""

    def __init__(self, store: Store, *, name: str) -> None:
        self._store = store
        self._name = f"archives:{name}"[:NAME_CHARS_MAX]
        self._conn: asyncpg.Connection | None = None
        self._ours: set[str] = set()
        self._turn = asyncio.Lock()

    async def take(self, database: str) -> Lease:
        """Take an archive if nobody has it, or see that it is still ours."""
        async with self._turn:
            try:
                async with asyncio.timeout(2 * PING_SECONDS_MAX):
                    return await self._take(database)
            except Exception as error:
                # The second is what asyncpg says when the server's farewell crosses our statement.
                if not is_away(error) and not isinstance(error, asyncpg.InternalClientError):
                    raise
                self._drop()
                return Lease.UNKNOWN

    def close(self) -> None:
        """Leave all of them to others."""
        self._drop()

    async def _take(self, database: str) -> Lease:
        if self._conn is None:
            self._conn = await self._store.direct(application_name=self._name)
            await self._conn.execute(KEEP_ALIVE, timeout=PING_SECONDS_MAX)
        if database in self._ours:
            await self._conn.fetchval(PING, timeout=PING_SECONDS_MAX)
            return Lease.OURS
        if not await self._conn.fetchval(TRY_LEASE, database, timeout=PING_SECONDS_MAX):
            return Lease.ELSEWHERE
        self._ours.add(database)
        return Lease.OURS

    def _drop(self) -> None:
        conn, self._conn = self._conn, None
        self._ours.clear()
        if conn is not None:
            conn.terminate()
