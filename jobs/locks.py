"""The target lock: one change per database at a time, whoever is alive.

A session-level advisory lock on a connection of its own. A killed worker's session ends
and frees it; a paused worker's session keeps it, so a successor waits instead of
working beside it. Needs a direct connection: no pooler that shares sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Final

import asyncpg

from jobs.away import is_away, pause_seconds
from store.connect import Store

log: Final = logging.getLogger("twokey.jobs")

PING_SECONDS_MAX: Final = 5.0
NAME_CHARS_MAX: Final = 63  # of an application name in PostgreSQL

# The first key is this lock's own namespace. Keepalives: the server must not keep the lock
# of a worker whose host has gone without a word.
TRY_LOCK: Final = """
    SELECT pg_try_advisory_lock(hashtext('twokey target'), hashtext($1)),
           set_config('tcp_keepalives_idle', '10', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false)
"""
PING: Final = "SELECT 1"


class TargetLock:
    """The lock of one database. `name` is what pg_stat_activity shows of its holder."""

    def __init__(self, store: Store, database: str, *, name: str) -> None:
        self._store = store
        self._database = database
        self._name = f"lock:{database}:{name}"[:NAME_CHARS_MAX]
        self._conn: asyncpg.Connection | None = None

    async def acquire(self) -> bool:
        """Take the lock if it is free."""
        conn = await self._store.direct(application_name=self._name)
        try:
            taken = bool(await conn.fetchval(TRY_LOCK, self._database, timeout=PING_SECONDS_MAX))
        except BaseException:
            conn.terminate()
            raise
        if not taken:
            await _close(conn)
            return False
        self._conn = conn
        return True

    async def release(self) -> None:
        """Free the lock. The end of the session frees it, also when the store is away."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await _close(conn)

    async def guard(self, *, every: timedelta, grace: timedelta) -> None:
        """Keep the lock; returns only when it has been lost for `grace`.

        The grace is counted from the last moment when the lock was known to be ours.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace.total_seconds()
        failures = 0
        while (left := deadline - loop.time()) > 0:
            pause = pause_seconds(failures) if failures else every.total_seconds()
            await asyncio.sleep(min(pause, left))
            asked = loop.time()
            try:
                async with asyncio.timeout_at(min(asked + PING_SECONDS_MAX, deadline)):
                    held = await self._still_held()
            except Exception as error:
                if not is_away(error):
                    raise
                self._drop(error)
                held = False
            if held:
                deadline, failures = asked + grace.total_seconds(), 0
            else:
                failures += 1

    async def _still_held(self) -> bool:
        """Ping the session that holds the lock, or take the lock with a new one."""
        if self._conn is None:
            return await self.acquire()
        await self._conn.fetchval(PING)
        return True

    def _drop(self, error: Exception) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            log.warning("The session of the lock of %s was lost: %s", self._database, error)
            conn.terminate()


async def _close(conn: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):  # closing only makes the inevitable quicker
        await conn.close(timeout=PING_SECONDS_MAX)
        return
    conn.terminate()
