"""Run one of PostgreSQL's programs: bounded in time and in what it says, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.account import Account, identity_of, server_account
from postgres.errors import PostgresError
from postgres.process import clean_environment, end_with_parent

_KEPT_BYTES_MAX: Final = 64_000
_CHUNK_BYTES: Final = 16_384
_LINE_CHARS_MAX: Final = 2_000
# How long a program has to obey SIGTERM, and its last words to arrive after it has ended.
_GRACE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended. `stdout` and `stderr` are the last 64 kB of each."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last_words(self) -> str:
        """Its error, or the last line that it said, for people."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        errors = [line.split("error:", 1)[1].strip() for line in lines if "error:" in line]
        return (errors or lines or [f"exit code {self.code}"])[-1]


async def run_program(
    command: Sequence[str | Path],
    *,
    time_limit: timedelta,
    as_server: bool = True,
    environ: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program to its end, and say how it ended; a non-zero code is no error here.

    It runs as the server account (`as_server`) or as ourselves, in a process group of its
    own. When the caller is cancelled, the time is up, or our process dies, the group is
    ended. `environ` is added to an otherwise clean environment: the place for PGPASSWORD.
    `on_line` gets every line of standard error as it comes.

    Raises:
        PostgresError: it could not be started, or ran longer than `time_limit`.
    """
    began = time.monotonic()
    account = server_account() if as_server else None
    if not as_server:  # libpq looks for ~/.pgpass and certificates there
        environ = {"HOME": str(Path.home()), **(environ or {})}
    process = await _start([os.fspath(part) for part in command], account, environ)
    stdout, stderr = _Tail(None), _Tail(on_line)
    try:
        async with asyncio.timeout(time_limit.total_seconds()):
            await _listen(process, stdout, stderr)
    except TimeoutError:
        raise PostgresError(
            f"{Path(command[0]).name} did not end within {_words(time_limit)} and was stopped.",
            next_step="See whether the database or the disk is overloaded, then try again.",
        ) from None
    finally:
        await _end(process)
    return Finished(
        code=process.returncode if process.returncode is not None else -1,
        stdout=stdout.text(),
        stderr=stderr.text(),
        seconds=time.monotonic() - began,
    )


@dataclass(slots=True)
class _Tail:
    """The last part of a stream, and its lines as they come."""

    on_line: Callable[[str], None] | None
    kept: bytearray = field(default_factory=bytearray)
    line: str = ""

    def add(self, chunk: bytes) -> None:
        self.kept += chunk
        if len(self.kept) > 2 * _KEPT_BYTES_MAX:
            del self.kept[:-_KEPT_BYTES_MAX]
        if self.on_line is None:
            return
        # A progress line ends in a carriage return.
        text = self.line + chunk.decode(errors="replace").replace("\r", "\n")
        *lines, self.line = text.split("\n")
        self.line = self.line[-_LINE_CHARS_MAX:]
        for line in filter(None, lines):
            self.on_line(line[:_LINE_CHARS_MAX])

    def text(self) -> str:
        return bytes(self.kept[-_KEPT_BYTES_MAX:]).decode(errors="replace")


async def _start(
    command: list[str], account: Account | None, environ: Mapping[str, str] | None
) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd="/",
            env=clean_environment(Path(command[0]).parent, environ),
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGTERM),
            **identity_of(account),
        )
    except OSError as error:
        raise PostgresError(
            f"{command[0]} cannot be started: {error.strerror or error}.",
            next_step="See whether it exists and may be run by the account that runs Twokey.",
        ) from error


async def _listen(process: Process, stdout: _Tail, stderr: _Tail) -> None:
    readers = [
        asyncio.ensure_future(_read(stream, tail))
        for stream, tail in ((process.stdout, stdout), (process.stderr, stderr))
        if stream
    ]
    try:
        await process.wait()
        # Not without a limit: a grandchild may hold the pipe open.
        await asyncio.wait(readers, timeout=_GRACE_SECONDS)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(stream: asyncio.StreamReader, tail: _Tail) -> None:
    while chunk := await stream.read(_CHUNK_BYTES):
        tail.add(chunk)


async def _end(process: Process) -> None:
    """End the whole group; nothing to do for one that has ended by itself."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.wait()
                break
        except TimeoutError:
            continue


def _words(limit: timedelta) -> str:
    seconds = int(limit.total_seconds())
    return f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"  # noqa: PLR2004
