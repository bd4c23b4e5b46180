"""The session that changes things: with limits on every wait, alone of its kind, never left behind.

It holds an advisory lock of ours for as long as it lives, so that a worker that wakes up late and
the one that took its place exclude each other: the server gives the lock back when the first
session has ended, and not before. Nobody waits for it inside the server: who waits there holds
a snapshot, and an index that is built concurrently would wait for that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.apply_errors import LOST, LostError, explained
from postgres.migrate.apply_words import ApplyLimits, BlockedError, Tell, UnknownOutcomeError
from postgres.migrate.blockers import Watch
from postgres.together import unbroken

_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0
# What the server is told so that an autovacuum in our way is cancelled before our wait ends.
_HASTE: Final = "50ms"
_LOCK_MARGIN: Final = timedelta(milliseconds=200)

_SETTINGS: Final = """
    SELECT set_config('application_name', left('twokey apply ' || $1::text, 63), false),
           set_config('statement_timeout', '0', false), set_config('lock_timeout', $2, false),
           set_config('idle_in_transaction_session_timeout', $3, false),
           CASE WHEN current_setting('server_version_num')::int >= 140000
                THEN set_config('idle_session_timeout', $3, false) END
"""
_WHO: Final = """
    SELECT a.pid, a.backend_start, current_setting('server_version_num')::int AS version,
           extract(epoch FROM current_setting('deadlock_timeout')::interval)::float8 AS deadlock
      FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()
"""
_WATCH_SETTINGS: Final = """
    SELECT set_config('application_name', 'twokey apply watch', false),
           set_config('search_path', '', false)
"""
_KEY: Final = "SELECT hashtextextended('twokey apply', 7203)"
_TRY: Final = "SELECT pg_try_advisory_lock($1)"
_HOLDER: Final = """
    SELECT l.pid, a.state,
           extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS seconds
      FROM pg_locks l
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.classid::bigint = ($1::bigint >> 32) & 4294967295
       AND l.objid::bigint = $1::bigint & 4294967295
"""


@dataclass(slots=True, kw_only=True)
class Work:
    """A session that may change things, and the one that looks at it.

    `can_hasten`: it makes an autovacuum give way within a short wait. `deadlock_seconds`: after
    which an autovacuum gives way otherwise.
    """

    conn: Any
    watch: Watch
    version: int
    can_hasten: bool
    deadlock_seconds: float
    key: int
    is_lost: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether one of the two sessions has ended."""
        return bool(self.conn.is_closed() or self.watch.conn.is_closed())

    def lock_wait(self, limits: ApplyLimits, *, longer: bool) -> timedelta:
        """How long to wait for a lock; `longer`: an autovacuum is in the way."""
        if not longer or self.can_hasten:
            return limits.lock
        return max(limits.lock, timedelta(seconds=self.deadlock_seconds) + _LOCK_MARGIN)

    async def execute(self, sql: str, *, seconds_max: float) -> None:
        """Run one statement; the server ends it in time, and we some time later.

        Raises:
            asyncpg.PostgresError: the server refused it.
            LostError: the session is gone, and nobody knows here how it ended.
        """
        limit = None if math.isinf(seconds_max) else seconds_max + _GRACE_SECONDS
        try:
            await self.conn.execute(sql, timeout=limit)
        except LOST as error:
            self.is_lost = True
            raise LostError(error) from error

    async def must_hold(self) -> None:
        """See that our lock is still ours.

        Raises:
            PostgresError: a statement has given it back.
        """
        held = await self.watch.held()
        if self.key & 0xFFFFFFFF not in held.advisory:
            raise lock_given_back()


def lock_given_back() -> PostgresError:
    """Somebody's SQL released the locks of our session."""
    return PostgresError(
        "A statement has given back the lock that keeps two workers apart.",
        next_step="Take pg_advisory_unlock_all and DISCARD out of the file, then ask again.",
    )


@asynccontextmanager
async def working(
    target: Target, limits: ApplyLimits, *, what: str, tell: Tell
) -> AsyncIterator[Work]:
    """A session that nobody else of ours works beside, in this database.

    However this ends, nothing of it goes on in the server: its backend is idle, or gone.

    Raises:
        PostgresError: the server cannot be reached.
        BlockedError: an earlier session of ours does not end.
    """
    async with connection(target) as looking, connection(target) as conn:
        with lost_is_lost():
            work = await _prepared(looking, conn, limits, what)
            await _fence(work, limits, tell)
        try:
            yield work
        except asyncpg.PostgresError as error:
            raise explained(error, what, left="") from error
        finally:
            await unbroken(_ended(target, work))


async def await_server(target: Target, limits: ApplyLimits, *, what: str) -> None:
    """Wait until a server that was lost a moment ago answers again.

    Raises:
        UnknownOutcomeError: it does not in time.
    """
    until = time.monotonic() + limits.reconnect.total_seconds()
    while True:
        try:
            async with connection(target) as conn:
                await conn.fetchval("SELECT 1")
        except (PostgresError, asyncpg.PostgresError, *LOST) as error:
            if time.monotonic() > until:
                raise UnknownOutcomeError(
                    f"{what}: the connection was lost, and the server does not answer: what has"
                    " become of it is not known.",
                    next_step="Bring the server back; asked again, it looks what stands first.",
                ) from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


class lost_is_lost:  # noqa: N801 - reads as the statement that it is
    """Errors of a connection that is gone come out as LostError, and its session as lost."""

    __slots__ = ("_work",)

    def __init__(self, work: Work | None = None) -> None:
        """`work`: the session that it is about, where there is one already."""
        self._work = work

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """See the class."""
        if not isinstance(error, LOST):
            return
        if self._work is not None:
            if isinstance(error, asyncpg.InterfaceError) and not self._work.is_closed:
                return  # a mistake in how it was called
            self._work.is_lost = True
        raise LostError(error) from error


def ms(length: timedelta) -> str:
    """A length of time as the server's settings take it; never 0, which would mean for ever."""
    return f"{max(1, round(length.total_seconds() * 1000))}ms"


async def _prepared(looking: Any, conn: Any, limits: ApplyLimits, what: str) -> Work:
    await looking.fetchrow(_WATCH_SETTINGS)
    await conn.fetchrow(_SETTINGS, what, ms(limits.lock), ms(limits.idle))
    # The server may not know it, or not allow it: then we do without.
    with suppress(asyncpg.PostgresError):
        await conn.execute("SET client_connection_check_interval = '1s'")
    try:
        await conn.execute(f"SET deadlock_timeout = '{_HASTE}'")
        can_hasten = True
    except asyncpg.InsufficientPrivilegeError:
        can_hasten = False
    who = await conn.fetchrow(_WHO)
    watch = Watch(conn=looking, pid=who["pid"], since=who["backend_start"])
    # The first look takes longest: it must not be the one for which there is little time.
    await watch.block()
    return Work(
        conn=conn,
        watch=watch,
        version=who["version"],
        can_hasten=can_hasten,
        deadlock_seconds=who["deadlock"],
        key=await looking.fetchval(_KEY),
    )


async def _fence(work: Work, limits: ApplyLimits, tell: Tell) -> None:
    """Have our lock; an earlier session that still works is waited for, one that sleeps is not."""
    began = time.monotonic()
    idle_since, has_told = began, False
    while not await work.conn.fetchval(_TRY, work.key):
        holder = await work.watch.conn.fetchrow(_HOLDER, work.key)
        now = time.monotonic()
        if holder is not None and holder["state"] == "active":
            idle_since = now
        if now - began > limits.alone.total_seconds() or (
            now - idle_since > limits.life.total_seconds()
        ):
            raise _still_there(holder)
        if holder is not None and not has_told:
            has_told = True
            await tell(f"An earlier session of ours (process {holder['pid']}) has not ended", None)
        await asyncio.sleep(_POLL_SECONDS)


def _still_there(holder: Any) -> BlockedError:
    pid = f" (process {holder['pid']}, {holder['state']})" if holder is not None else ""
    step = f" /db terminate-backend {holder['pid']}" if holder is not None else " /db locks"
    return BlockedError(
        f"Another session of ours{pid} is at work on this database. Nothing has changed.",
        next_step=f"Wait until it has ended, or end it with{step}; then ask again.",
    )


async def _ended(target: Target, work: Work) -> None:
    """Leave nothing behind: a backend that is still in something is ended, and waited for."""
    watch = work.watch
    try:
        async with asyncio.timeout(_END_SECONDS):
            try:
                await _end_backend(watch, force=work.is_lost)
            except (asyncpg.PostgresError, *LOST):
                # The looking session is gone too; another one looks, if the server is there.
                async with connection(target) as conn:
                    other = Watch(conn=conn, pid=watch.pid, since=watch.since)
                    await _end_backend(other, force=True)
    except (PostgresError, asyncpg.PostgresError, *LOST):
        return  # the server is away, and our session with it; who comes next waits for its end


async def _end_backend(watch: Watch, *, force: bool) -> None:
    is_idle = await watch.is_idle()
    if is_idle is None or (is_idle and not force):
        return
    await watch.terminate()
    while await watch.is_idle() is not None:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(_POLL_SECONDS / 4)
