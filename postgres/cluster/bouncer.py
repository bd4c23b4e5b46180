"""Clients wait in pgbouncer while the primary changes, and are let go whatever happens.

A pgbouncer that is left paused is an outage of its own. So before PAUSE a process of its own is
started that hangs on a pipe: when this process ends in whatever way, or time is up, it sends
RESUME. Whoever begins a second life calls `let_go` first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.cluster.bouncer_config import with_place
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.pgbouncer import simple_query
from postgres.process import clean_environment
from postgres.together import together, unbroken

GUARD: Final = "postgres.cluster.bouncer_guard"
_COMMAND_SECONDS: Final = 5.0
_RESUME_TRIES: Final = 5
_AGAIN_SECONDS: Final = 0.5
_GUARD_SECONDS: Final = 15.0
_SPARE: Final = timedelta(seconds=5)  # the guard waits a little longer than we do
_NOT_PAUSED: Final = "not paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bouncer:
    """A pgbouncer. `database`: as its clients call it; `config`: see `lead`."""

    admin: Target
    database: str
    config: Path | None = None


class Held:
    """Clients that wait."""

    def __init__(self, bouncers: Sequence[Bouncer]) -> None:
        self._bouncers = bouncers

    async def lead(self, target: Target) -> None:
        """Have them find `target` when they are let go, where a configuration says where to.

        Raises:
            PostgresError: it could not be written, or pgbouncer did not read it.
        """
        for bouncer in self._bouncers:
            if bouncer.config is not None:
                await asyncio.to_thread(_rewrite, bouncer.config, bouncer.database, target)
                await _say(bouncer, "RELOAD")


@asynccontextmanager
async def held(bouncers: Sequence[Bouncer], *, limit: timedelta) -> AsyncIterator[Held]:
    """Let clients wait within the block, for at most `limit`; then they are let go by the guard.

    Running transactions are waited for first; those that take too long make it fail, and nobody
    is held.

    Raises:
        PostgresError: a pgbouncer cannot be paused in time or at all: none is.
    """
    if not bouncers:
        yield Held(())
        return
    for bouncer in bouncers:
        if bouncer.config is not None:  # what cannot be rewritten is said before anybody waits
            await asyncio.to_thread(_rewritten, bouncer.config, bouncer.database, None)
    async with _guarded(bouncers, limit + _SPARE):
        try:
            await _pause_all(bouncers, limit)
            yield Held(bouncers)
        finally:
            await unbroken(let_go(bouncers))


async def let_go(bouncers: Sequence[Bouncer]) -> None:
    """RESUME everywhere, also where nothing is paused; tried again for a moment.

    Raises:
        PostgresError: one of them may still hold its clients. The others are let go.
    """
    found = await asyncio.gather(*(_resume(each) for each in bouncers))
    stuck = [
        f"{bouncer.database} on {bouncer.admin.place} ({problem})"
        for bouncer, problem in zip(bouncers, found, strict=True)
        if problem
    ]
    if stuck:
        raise PostgresError(
            f"pgbouncer may still hold clients: {', '.join(stuck)}.",
            next_step="Say RESUME in its console now: psql -p 6432 pgbouncer -c 'RESUME'.",
        )


async def _pause_all(bouncers: Sequence[Bouncer], limit: timedelta) -> None:
    seconds = limit.total_seconds()
    try:
        async with asyncio.timeout(seconds), together() as group:
            for bouncer in bouncers:  # each answers at the end of its last transaction
                command = f"PAUSE {_quoted(bouncer.database)}"
                group.create_task(simple_query(bouncer.admin, command))
    except TimeoutError as error:
        raise PostgresError(
            f"Clients were not at rest within {seconds:.0f} s, so none is held.",
            next_step="See which transactions are open (/db locks), and try again.",
        ) from error
    except OSError as error:
        raise _silent(bouncers[0], error) from error


async def _resume(bouncer: Bouncer) -> str:
    problem = ""
    for tried in range(_RESUME_TRIES):
        if tried:
            await asyncio.sleep(_AGAIN_SECONDS)
        try:
            await _say(bouncer, f"RESUME {_quoted(bouncer.database)}")
        except PostgresError as error:
            if _NOT_PAUSED in error.problem:
                return ""
            problem = error.problem
            continue
        return ""
    return problem


async def _say(bouncer: Bouncer, command: str) -> None:
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            await simple_query(bouncer.admin, command)
    except (OSError, TimeoutError) as error:
        raise _silent(bouncer, error) from error


def _silent(bouncer: Bouncer, error: OSError | TimeoutError) -> PostgresError:
    said = str(error) or "not in time"
    return PostgresError(
        f"pgbouncer's console on {bouncer.admin.place} does not answer: {said}.",
        next_step="See whether it runs, and whether this user is in its admin_users.",
    )


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@asynccontextmanager
async def _guarded(bouncers: Sequence[Bouncer], limit: timedelta) -> AsyncIterator[None]:
    """The process that resumes when ours is gone; it has begun when the block does."""
    order = {
        "seconds": limit.total_seconds(),
        "bouncers": [[each.admin.url(), each.database] for each in bouncers],
    }
    guard = await asyncio.create_subprocess_exec(
        sys.executable, "-m", GUARD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # what ends our group must not end it
        env=clean_environment(Path(sys.executable).parent) | _python_words(),
    )  # fmt: skip
    assert guard.stdin is not None  # noqa: S101 - they are pipes
    assert guard.stdout is not None  # noqa: S101
    try:
        guard.stdin.write(json.dumps(order).encode() + b"\n")
        try:
            async with asyncio.timeout(_GUARD_SECONDS):
                ready = await guard.stdout.readline()
        except TimeoutError:
            ready = b""
        if not ready:
            raise PostgresError(
                "The process that lets clients go in an emergency did not start.",
                next_step="Nobody was held. See whether the worker's machine is out of memory.",
            )
        yield
    finally:
        guard.stdin.close()
        await unbroken(_ended(guard))


def _python_words() -> dict[str, str]:
    """What our own Python needs to find the same modules."""
    return {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONHOME") if name in os.environ}


async def _ended(guard: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_GUARD_SECONDS):
            await guard.wait()
    except TimeoutError:
        guard.kill()
        await guard.wait()


def _rewritten(config: Path, database: str, target: Target | None) -> str:
    try:
        text = config.read_text(encoding="utf-8")
        host = target.words.get("host", "localhost") if target else "localhost"
        port = target.words.get("port", "5432") if target else "5432"
        return with_place(text, database, host=host, port=port)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise PostgresError(
            f"pgbouncer's configuration {config} cannot be used: {error}.",
            next_step=f"It needs a line `{database} = host=... port=...` under [databases], and"
            " this user must be able to write it.",
        ) from error


def _rewrite(config: Path, database: str, target: Target) -> None:
    text = _rewritten(config, database, target)
    beside = config.with_name(f".{config.name}.twokey")
    try:
        beside.write_text(text, encoding="utf-8")
        kept = config.stat()
        beside.chmod(kept.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.chown(beside, kept.st_uid, kept.st_gid)
        beside.replace(config)
    except OSError as error:
        raise PostgresError(
            f"pgbouncer's configuration {config} cannot be written: {error.strerror}.",
            next_step="Let the worker's user write it and its folder, or leave `config` out where"
            " the address follows by itself.",
        ) from error
    finally:
        beside.unlink(missing_ok=True)
