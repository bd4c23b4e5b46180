"""Let a laid-out copy replay WAL up to a target, and see where it stops.

It runs as a standby that follows nobody: at the end of its WAL such a server waits and can be
asked where it is, where one in plain recovery would have ended itself, or become a primary
without anybody being able to look. At the target it pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from postgres.backup.facts import BackupFacts
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import DamagedError, PostgresError
from postgres.restore.control import control_facts
from postgres.restore.ending import Reached, explain, fraction, judge_end, lacks_settings
from postgres.restore.folders import disk_error, scratch_folder
from postgres.restore.report import OnStep
from postgres.restore.scratch import start_scratch
from postgres.restore.waiting import startup_title
from postgres.restore.window import Choice
from postgres.server import Server

_LOOK_EVERY_SECONDS: Final = 0.05
_TELL_EVERY_SECONDS: Final = 2.0
_RETRY: Final = "100ms"
# Fetching over a network may fail once: what a command of the engine did not bring is asked for
# again until that long after nothing came any more.
_PATIENCE_SECONDS: Final = 3.0
# Before the copy is consistent it cannot be asked. From 15 on its log says that it waits.
_WAITING: Final = "waiting for WAL to become available"
_STUCK_SECONDS: Final = 5.0
_STUCK_WITH_COMMAND_SECONDS: Final = 60.0
_STUCK_SILENT_SECONDS: Final = 1800.0
_PARITY_TRIES_MAX: Final = 5
_LOG_TAIL_BYTES: Final = 64_000
_NO_SPACE: Final = "No space left on device"
_WAITS: Final = "RecoveryRetrieveRetryInterval"

LOOK: Final = """
    SELECT pg_is_wal_replay_paused()       AS paused,
           pg_last_wal_replay_lsn()::text  AS lsn,
           pg_last_xact_replay_timestamp() AS commit_at,
           (SELECT wait_event
              FROM pg_stat_activity
             WHERE backend_type = 'startup') AS waits_for
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A server that waits, still a standby, where its replay stopped; `note` is for people.

    `is_paused`: at its target; else it has used up its WAL, and would replay more if some came.
    """

    server: Server
    reached: Reached
    is_paused: bool
    note: str = ""


class _StuckError(DamagedError):
    """It waits for WAL that does not come, and will never be consistent."""


class _ParityError(Exception):
    """A setting must be higher than it is."""


async def replay(
    binaries: Binaries,
    choice: Choice,
    work_folder: Path,
    *,
    settings: Mapping[str, str],
    time_limit: timedelta,
    on_step: OnStep | None = None,
) -> Replayed:
    """Start what was laid out, and wait until it has replayed all that belongs to the target.

    `settings` are those of the scratch server, with the engine's `restore_command` if it has
    one. Settings that WAL raised on the original meanwhile are raised here too.

    Raises:
        DamagedError: the backup or its WAL is damaged.
        PostgresError: the target is not in the WAL, there is no room, or the time is up. No
            server is running then.
    """
    needed: Mapping[str, str] = {}
    for _ in range(_PARITY_TRIES_MAX):
        wanted = {**_recovery_settings(choice), **settings, **needed}
        try:
            async with asyncio.timeout(time_limit.total_seconds()):
                return await _attempt(binaries, choice, work_folder, wanted, on_step)
        except TimeoutError:
            raise _too_slow(choice, time_limit) from None
        except _ParityError:
            needed = await _raised(binaries, choice.backup, work_folder, needed)
    raise PostgresError(
        f"The WAL after {choice.backup.id} raised settings more than {_PARITY_TRIES_MAX} times.",
        next_step="Recover from a later backup.",
    )


def tail_of_log(work_folder: Path) -> str:
    """The last that the scratch server said; nothing if it never ran."""
    path = scratch_folder(work_folder) / "data.run" / "log"
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            return log.read(_LOG_TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _recovery_settings(choice: Choice) -> Mapping[str, str]:
    timeline = choice.timeline
    return {
        **choice.target.settings(),
        "recovery_target_action": "pause",
        "recovery_target_timeline": (
            "current" if timeline == choice.backup.timeline else str(timeline)
        ),
        "hot_standby": "on",
        "wal_retrieve_retry_interval": _RETRY,
        # Replay need not wait for those who only look how far it is.
        "max_standby_archive_delay": "1s",
        "max_standby_streaming_delay": "1s",
    }


async def _attempt(
    binaries: Binaries,
    choice: Choice,
    work_folder: Path,
    settings: Mapping[str, str],
    on_step: OnStep | None,
) -> Replayed:
    server, reached, is_there = await _run(binaries, choice, work_folder, settings, on_step)
    try:
        if is_there:
            return Replayed(server=server, reached=reached, is_paused=True)
        note = judge_end(choice, reached)
        if not choice.target.settings():
            return Replayed(server=server, reached=reached, is_paused=False, note=note)
    except BaseException:
        await _stop(server)
        raise
    return await _without_target(binaries, choice, work_folder, settings, server, reached, note)


async def _without_target(
    binaries: Binaries,
    choice: Choice,
    work_folder: Path,
    settings: Mapping[str, str],
    server: Server,
    reached: Reached,
    note: str,
) -> Replayed:
    """Start it once more: with a target that its WAL does not show it could not be promoted.

    It goes on from its last checkpoint, with the WAL that it has: nothing new may come.
    """
    await server.stop()
    free = {name: value for name, value in settings.items() if name not in choice.target.settings()}
    again, end, _ = await _run(binaries, choice, work_folder, {**free, "restore_command": ""}, None)
    if end.lsn != reached.lsn:  # the time is known only if it replayed a commit again
        await _stop(again)
        raise DamagedError(f"its WAL was replayed to {reached}, but later only to {end}")
    return Replayed(server=again, reached=reached, is_paused=False, note=note)


async def _run(
    binaries: Binaries,
    choice: Choice,
    work_folder: Path,
    settings: Mapping[str, str],
    on_step: OnStep | None,
) -> tuple[Server, Reached, bool]:
    """A running server, where its replay stopped, and whether the target stopped it."""
    (scratch_folder(work_folder) / "data.run" / "log").unlink(missing_ok=True)
    server: Server | None = None
    try:
        server = await _started(binaries, choice, work_folder, settings)
        reached, is_there = await _followed(server, choice, settings, on_step)
    except _StuckError:
        raise
    except (DamagedError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        log = await asyncio.to_thread(tail_of_log, work_folder)
        await _stop(server)
        raise _reason(log, choice, work_folder) from error
    except BaseException:
        await _stop(server)
        raise
    # It pauses for want of a setting too.
    if is_there and lacks_settings(await asyncio.to_thread(tail_of_log, work_folder)):
        await _stop(server)
        raise _ParityError
    return server, reached, is_there


async def _stop(server: Server | None) -> None:
    if server is not None:
        await asyncio.shield(server.stop("fast"))


def _reason(log: str, choice: Choice, work_folder: Path) -> Exception:
    if lacks_settings(log):
        return _ParityError()
    if _NO_SPACE in log:
        return disk_error(scratch_folder(work_folder), OSError(_NO_SPACE))
    return explain(log, choice)


async def _started(
    binaries: Binaries, choice: Choice, work_folder: Path, settings: Mapping[str, str]
) -> Server:
    """The server once it is consistent. One that waits for WAL before that waits for ever."""
    start = asyncio.ensure_future(
        start_scratch(binaries, choice.backup, work_folder, settings=settings, is_standby=True)
    )
    data, has_command = scratch_folder(work_folder) / "data", bool(settings.get("restore_command"))
    try:
        title, since = "", time.monotonic()
        while not (await asyncio.wait([start], timeout=_LOOK_EVERY_SECONDS))[0]:
            now = startup_title(data)
            if now != title:
                title, since = now, time.monotonic()
            elif _is_stuck(work_folder, time.monotonic() - since, has_command=has_command):
                raise _StuckError(
                    f"its WAL ends before the backup is consistent, at {title or 'its beginning'}"
                )
        return start.result()
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)


def _is_stuck(work_folder: Path, seconds: float, *, has_command: bool) -> bool:
    """Whether a server that has been at one WAL file for so long will never get further."""
    if seconds > _STUCK_SILENT_SECONDS:
        return True
    if seconds <= (_STUCK_WITH_COMMAND_SECONDS if has_command else _STUCK_SECONDS):
        return False
    return _WAITING in tail_of_log(work_folder)


async def _followed(
    server: Server, choice: Choice, settings: Mapping[str, str], on_step: OnStep | None
) -> tuple[Reached, bool]:
    """Where replay stopped, and whether the target stopped it; else its WAL was used up."""
    patience = _PATIENCE_SECONDS if settings.get("restore_command") else 0.0
    told = waiting_since = time.monotonic()
    lsn = ""
    async with _looking(server, choice.backup) as conn:
        while True:
            row: Any = await conn.fetchrow(LOOK)
            now = time.monotonic()
            reached = Reached(lsn=row["lsn"], commit_at=row["commit_at"])
            if row["paused"]:
                return reached, True
            if row["waits_for"] != _WAITS or reached.lsn != lsn:
                waiting_since, lsn = now, reached.lsn
            if row["waits_for"] == _WAITS and now - waiting_since >= patience:
                return reached, False
            if on_step and now - told >= _TELL_EVERY_SECONDS:
                told = now
                await on_step(_progress(choice, reached))
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _progress(choice: Choice, reached: Reached) -> str:
    done = fraction(choice, reached)
    share = "" if done is None else f", {done:.0%}"
    return f"Replaying WAL: {reached}{share}"


@asynccontextmanager
async def _looking(server: Server, facts: BackupFacts) -> AsyncIterator[Any]:
    """A connection to a database that no replayed statement drops."""
    target = parse_dsn(server.dsn("template1", facts.superuser))
    try:
        async with connection(target) as conn:
            yield conn
    except PostgresError as error:
        raise ConnectionError(error.problem) from error


async def _raised(
    binaries: Binaries, facts: BackupFacts, work_folder: Path, before: Mapping[str, str]
) -> Mapping[str, str]:
    """The settings that the original had when it wrote the WAL that was refused."""
    found = await control_facts(binaries.folder, scratch_folder(work_folder) / "data")
    known = {**facts.settings, **before}
    raised = {
        name: str(max(int(value), int(known.get(name, "0"))))
        for name, value in found.minima.items()
    }
    if raised == before:
        raise DamagedError("PostgreSQL refuses its WAL for settings that are high enough")
    return raised


def _too_slow(choice: Choice, time_limit: timedelta) -> PostgresError:
    return PostgresError(
        f"{choice.target} was not reached within {time_limit}.",
        next_step="Choose a backup that is nearer to it, or see whether the disk is overloaded.",
    )
