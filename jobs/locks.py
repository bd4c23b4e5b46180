"""The target lock: one change per database at a time, whoever is alive.

A session-level advisory lock on a connection of its own. A killed worker's session ends
and frees it; a paused worker's session keeps it, so a successor waits instead of
working beside it. Needs a direct connection: no pooler that shares sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg
import asyncpg.prepared_stmt

from jobs.away import is_away, pause_seconds
from store.connect import Store

log: Final = logging.getLogger("twokey.jobs")

PING_SECONDS_MAX: Final = 5.0
NAME_CHARS_MAX: Final = 63  # of an application name in PostgreSQL
REFILL_SECONDS: Final = 0.05

# The first key is this lock's own namespace. Keepalives: the server must not keep the lock
# of a worker whose host has gone without a word. A standby has advisory locks of its own.
TRY_LOCK: Final = """
    SELECT CASE WHEN pg_is_in_recovery() THEN false
                ELSE pg_try_advisory_lock(hashtext('twokey target'), hashtext($1)) END,
           set_config('tcp_keepalives_idle', '10', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('application_name', $2, false)
"""
PING: Final = "SELECT 1"


@dataclass(frozen=True, slots=True)
class Session:
    """An open session, which knows the statement that takes a lock."""

    conn: asyncpg.Connection
    try_lock: asyncpg.prepared_stmt.PreparedStatement


# Whatever is wrong with a session that was kept: it is closed, and a new one decides. The
# last one is what asyncpg says when the server's farewell crosses our statement.
_SPENT: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class SpareSession:
    """A session kept open, so that taking a lock need not wait for a new one.

    Only ever given away, never taken back: who held a lock closes its session.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: Session | None = None
        self._missing = asyncio.Event()
        self._missing.set()

    def take(self) -> Session | None:
        """The open session, now the caller's to close; None when there is none."""
        session, self._session = self._session, None
        self._missing.set()
        if session is None or self._store.reach.is_good(session.conn):
            return session
        session.conn.terminate()
        return None

    async def keep(self) -> None:
        """Have a session ready, soon after each was taken; never returns."""
        failures = 0
        try:
            while True:
                await self._missing.wait()
                # The start that took the last one needs the processor more.
                await asyncio.sleep(pause_seconds(failures) if failures else REFILL_SECONDS)
                try:
                    self._session = await _open(self._store, "twokey spare", rests=True)
                except Exception as error:
                    if not is_away(error):
                        raise
                    failures += 1
                else:
                    self._missing.clear()
                    failures = 0
        finally:
            if (session := self.take()) is not None:
                session.conn.terminate()


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
            except _SPENT as error:
                log.info("The session kept for a lock could not be used: %s", error)
        return await self._acquire_with(await _open(self._store, self._name))

    async def _acquire_with(self, session: Session) -> bool:
        """Take the lock with a session, which is closed unless it holds the lock then."""
        conn = session.conn
        try:
            taken = bool(
                await session.try_lock.fetchval(
                    self._database, self._name, timeout=PING_SECONDS_MAX
                )
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
        """Ping the session that holds the lock, or take the lock with a new one.

        A lock on a server that the store has left is held against nobody.
        """
        if self._conn is None:
            return await self.acquire()
        await self._store.reach.check(self._conn, seconds_max=PING_SECONDS_MAX)
        return True

    def _drop(self, error: Exception) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            log.warning("The session of the lock of %s was lost: %s", self._database, error)
            conn.terminate()


async def _open(store: Store, name: str, *, rests: bool = False) -> Session:
    conn = await store.direct(application_name=name)
    try:
        session = Session(conn, await conn.prepare(TRY_LOCK, timeout=PING_SECONDS_MAX))
        if rests:
            # To the server, preparing has begun a transaction that only a statement ends.
            await conn.fetchval(PING, timeout=PING_SECONDS_MAX)
    except BaseException:
        conn.terminate()
        raise
    return session


async def _close(conn: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):  # closing only makes the inevitable quicker
        await conn.close(timeout=PING_SECONDS_MAX)
        return
    conn.terminate()
