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
REFILL_SECONDS: Final = 0.1

# The first key is this lock's own namespace. Keepalives: the server must not keep the lock
# of a worker whose host has gone without a word.
TRY_LOCK: Final = """
    SELECT pg_try_advisory_lock(hashtext('twokey target'), hashtext($1)),
           set_config('tcp_keepalives_idle', '10', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('application_name', $2, false)
"""
PING: Final = "SELECT 1"


class SpareSession:
    """A session kept open, so that taking a lock need not wait for a new one.

    Only ever given away, never taken back: who held a lock closes its session.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._conn: asyncpg.Connection | None = None
        self._missing = asyncio.Event()
        self._missing.set()

    def take(self) -> asyncpg.Connection | None:
        """The open session, now the caller's to close; None when there is none."""
        conn, self._conn = self._conn, None
        self._missing.set()
        return None if conn is None or conn.is_closed() else conn

    async def keep(self) -> None:
        """Have a session ready, soon after each was taken; never returns."""
        failures = 0
        try:
            while True:
                await self._missing.wait()
                # The start that took the last one needs the processor more.
                await asyncio.sleep(pause_seconds(failures) if failures else REFILL_SECONDS)
                try:
                    self._conn = await self._store.direct(application_name="twokey spare")
                except Exception as error:
                    if not is_away(error):
                        raise
                    failures += 1
                else:
                    self._missing.clear()
                    failures = 0
        finally:
            if (conn := self.take()) is not None:
                conn.terminate()


class TargetLock:
    """The lock of one database. `name` is what pg_stat_activity shows of its holder."""

    def __init__(
        self, store: Store, database: str, *, name: str, spare: SpareSession | None = None
    ) -> None:
        self._store = store
        self._spare = spare
        self._database = database
        self._name = f"lock:{database}:{name}"[:NAME_CHARS_MAX]
        self._conn: asyncpg.Connection | None = None

    async def acquire(self) -> bool:
        """Take the lock if it is free."""
        spare = self._spare.take() if self._spare is not None else None
        if spare is not None:
            try:
                return await self._acquire_with(spare)
            except Exception as error:
                if not is_away(error):
                    raise
        return await self._acquire_with(await self._store.direct(application_name=self._name))

    async def _acquire_with(self, conn: asyncpg.Connection) -> bool:
        """Take the lock with a session, which is closed unless it holds the lock then."""
        try:
            taken = bool(
                await conn.fetchval(TRY_LOCK, self._database, self._name, timeout=PING_SECONDS_MAX)
            )
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
