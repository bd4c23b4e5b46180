"""Bring a running server to rest before it is stopped, and ask the one that follows who it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.facts import IDENTITY
from postgres.restore.closing import Door, close, end_session, is_backend, reopen
from postgres.together import unbroken

ARCHIVE_SECONDS_MAX: Final = 60.0
_CLOSED_SECONDS_MAX: Final = 10.0
_SESSIONS_SECONDS_MAX: Final = 30.0
_QUIET_SECONDS_MAX: Final = 10.0
_ANSWER_SECONDS_MAX: Final = 60.0
_LOOK_EVERY_SECONDS: Final = 0.05

# Whoever writes for somebody. Autovacuum may begin again, but after the sessions have ended
# it begins nothing that anybody waits for.
SESSIONS: Final = """
    SELECT pid
      FROM pg_stat_activity
     WHERE pid <> pg_backend_pid()
       AND (backend_type IN ('client backend', 'parallel worker', 'autovacuum worker')
            OR backend_type LIKE 'logical replication%worker')
"""

# The next number that a transaction would get, as a number that counts on over wraparounds.
NEXT_XID: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"

# The WAL file in which the last record so far stands. Of a boundary, versions before 16 name
# the file before it and later ones the file after it.
SWITCH: Final = "SELECT pg_walfile_name(pg_switch_wal() - 1)"

# One row. A transaction number is only given to whoever may write.
WRITES: Final = "SELECT pg_current_xact_id()::text::bigint AS xid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the new server says: `xid` is the number of a transaction that it gave us."""

    timeline: int
    xid: int


async def close_and_quieten(
    dsn: SecretStr,
    door: Door,
    *,
    is_archived: Callable[[str], Awaitable[bool]] | None,
    on_step: Callable[[str], Awaitable[None]],
    at: Callable[[str], None],
) -> float:
    """Nobody can use the server any more, and its last WAL is archived; since when that is.

    Raises:
        PostgresError: WAL does not reach its archive, or sessions do not end. The door may
            be closed then: `closing.reopen` opens it.
    """
    target = parse_dsn(dsn.get_secret_value())
    await unbroken(asyncio.to_thread(reopen, door))  # as a worker that died may have left it
    try:
        return await _close_and_quieten(target, door, is_archived, on_step, at)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise PostgresError(
            f"Our own session with the server broke: {error or 'no answer'}.",
            next_step="See its log, then ask again.",
        ) from error


async def _close_and_quieten(
    target: Target,
    door: Door,
    is_archived: Callable[[str], Awaitable[bool]] | None,
    on_step: Callable[[str], Awaitable[None]],
    at: Callable[[str], None],
) -> float:
    async with _session(target) as conn:
        if is_archived:
            await on_step("Seeing that WAL reaches its archive")
            await _archive(conn, is_archived)
        at("archiving")
        began = time.monotonic()
        await on_step("Closing the server to the applications")
        await unbroken(asyncio.to_thread(close, door))
        at("closed")
        await _refused(target)
        await _end_sessions(conn, door)
        await _quiet(conn)
        at("quiet")
        if is_archived:
            await on_step("Waiting for the last WAL in the archive")
            await _archive(conn, is_archived)
        at("archived")
    return began


async def ask_new(dsn: SecretStr, *, data: Path, system_identifier: str, timeline: int) -> Answered:
    """See that the server at the address of the inventory is the new one, and takes writes.

    Raises:
        PostgresError: it does not answer in time, or is not the one.
    """
    target = parse_dsn(dsn.get_secret_value())
    end = time.monotonic() + _ANSWER_SECONDS_MAX
    while True:
        try:
            async with connection(target) as conn:
                row = await conn.fetchrow(IDENTITY)
                pid = await conn.fetchval("SELECT pg_backend_pid()")
                _recognise(row, system_identifier, timeline, is_ours=is_backend(data, pid))
                await conn.execute("SET default_transaction_read_only = off")
                xid = await conn.fetchval(WRITES)
                return Answered(timeline=timeline, xid=int(xid))
        except PostgresError as error:
            if time.monotonic() > end or "cannot be reached" not in error.problem:
                raise
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if time.monotonic() > end:
                raise PostgresError(
                    f"The new server does not answer as it should: {error}.",
                    next_step=f"Read the log of the server on {data}.",
                ) from error
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _recognise(row: Any, system_identifier: str, timeline: int, *, is_ours: bool) -> None:
    said = (
        f"cluster {row['system_identifier']}, timeline {row['timeline']},"
        f" {'a standby' if row['standby'] else 'a primary'}"
    )
    wanted = f"cluster {system_identifier}, timeline {timeline}, a primary"
    if said != wanted or not is_ours:
        where = "" if is_ours else " that runs on another data folder"
        raise PostgresError(
            f"The inventory's address leads to {said}{where}, not to the new server ({wanted}).",
            next_step="See which servers run, and where the address leads.",
        )


@asynccontextmanager
async def _session(target: Target) -> AsyncIterator[Any]:
    """A session of our own. A server that was just opened again needs a moment."""
    end = time.monotonic() + _CLOSED_SECONDS_MAX
    async with AsyncExitStack() as stack:
        while True:
            try:
                conn = await stack.enter_async_context(connection(target))
                break
            except PostgresError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        await conn.execute("SET statement_timeout = 0; SET idle_session_timeout = 0")
        yield conn


async def _refused(target: Target) -> None:
    """Wait until the server has read that it is closed: it does so in its own time."""
    end = time.monotonic() + _CLOSED_SECONDS_MAX
    while time.monotonic() < end:
        try:
            conn = await asyncpg.connect(target.url(), timeout=int(_CLOSED_SECONDS_MAX))
        except asyncpg.InvalidAuthorizationSpecificationError:
            return
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        else:
            await conn.close(timeout=_CLOSED_SECONDS_MAX)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    raise PostgresError(
        "The server still takes connections, although its pg_hba.conf rejects all.",
        next_step="See in its log whether it could read the file, and whether another program"
        " (a pooler, Patroni) answers at this address.",
    )


async def _end_sessions(conn: Any, door: Door) -> None:
    end = time.monotonic() + _SESSIONS_SECONDS_MAX
    while pids := [row["pid"] for row in await conn.fetch(SESSIONS)]:
        if time.monotonic() > end:
            raise PostgresError(
                f"{len(pids)} sessions do not end (processes {', '.join(map(str, pids[:5]))}).",
                next_step="See what they wait for (pg_stat_activity, `ps -o stat,wchan -p PID`).",
            )
        for pid in pids:
            end_session(door.data, pid)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _quiet(conn: Any) -> None:
    """No transaction begins any more."""
    end = time.monotonic() + _QUIET_SECONDS_MAX
    last = await conn.fetchval(NEXT_XID)
    while True:
        await asyncio.sleep(2 * _LOOK_EVERY_SECONDS)
        now = await conn.fetchval(NEXT_XID)
        if now == last:
            return
        if time.monotonic() > end:
            raise PostgresError(
                "Something still writes, although all sessions have ended.",
                next_step="See which background workers pg_stat_activity shows, and stop the"
                " extension or the subscription that they belong to.",
            )
        last = now


async def _archive(conn: Any, is_archived: Callable[[str], Awaitable[bool]]) -> None:
    name = str(await conn.fetchval(SWITCH))
    end = time.monotonic() + ARCHIVE_SECONDS_MAX
    while not await is_archived(name):
        if time.monotonic() > end:
            raise PostgresError(
                f"WAL file {name} did not reach the archive within {ARCHIVE_SECONDS_MAX:.0f}"
                " seconds.",
                next_step="See what keeps WAL from being archived, then ask again: a later"
                " recovery and the undo need it.",
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
