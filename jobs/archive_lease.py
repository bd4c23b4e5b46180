"""Who of all workers looks after which database's WAL archive: one, for as long as it lives.

Advisory locks of one session. While the store is away nobody can tell: who looked after an
archive goes on with it, as WAL must not stop coming; the slot and the folder's lock keep a
second receiver out meanwhile. Whatever else one worker does for all is leased here too, under
names of its own.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
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


class Lease(StrEnum):
    """Whose an archive is."""

    OURS = "ours"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


class Leases:
    """The archives that this worker looks after. `name` is shown by pg_stat_activity.

    With `remember` the session's last answer counts for so long, for all that it leased: who
    leases hundreds of things neither asks hundreds of times, nor waits for a dead store so often.
    """

    def __init__(self, store: Store, *, name: str, remember: timedelta = timedelta(0)) -> None:
        self._remember = remember.total_seconds()
        self._answered_at = -math.inf
        self._failed_at = -math.inf
        self._store = store
        self._name = f"archives:{name}"[:NAME_CHARS_MAX]
        self._conn: asyncpg.Connection | None = None
        self._ours: set[str] = set()
        self._turn = asyncio.Lock()

    async def take(self, database: str) -> Lease:
        """Take an archive if nobody has it, or see that it is still ours."""
        async with self._turn:
            if self._is_recent(self._failed_at):
                return Lease.UNKNOWN
            try:
                async with asyncio.timeout(2 * PING_SECONDS_MAX):
                    lease = await self._take(database)
            except Exception as error:
                if not is_away(error):
                    raise
                self._drop()
                self._failed_at = asyncio.get_running_loop().time()
                return Lease.UNKNOWN
            return lease

    def close(self) -> None:
        """Leave all of them to others."""
        self._drop()

    async def _take(self, database: str) -> Lease:
        if self._conn is None:
            self._conn = await self._store.direct(application_name=self._name)
            await self._conn.execute(KEEP_ALIVE, timeout=PING_SECONDS_MAX)
        if database in self._ours:
            if not self._is_recent(self._answered_at) or self._conn.is_closed():
                await self._store.reach.check(self._conn, seconds_max=PING_SECONDS_MAX)
                self._answered_at = asyncio.get_running_loop().time()
            return Lease.OURS
        is_free = await self._conn.fetchval(TRY_LEASE, database, timeout=PING_SECONDS_MAX)
        self._answered_at = asyncio.get_running_loop().time()
        if not is_free:
            return Lease.ELSEWHERE
        self._ours.add(database)
        return Lease.OURS

    def _is_recent(self, at: float) -> bool:
        return asyncio.get_running_loop().time() - at < self._remember

    def _drop(self) -> None:
        conn, self._conn = self._conn, None
        self._ours.clear()
        if conn is not None:
            conn.terminate()
