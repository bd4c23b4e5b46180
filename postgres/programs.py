"""Run one of PostgreSQL's programs: bounded in time and in what it says, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Final, cast

from postgres.account import Account, identity_of, server_account
from postgres.errors import PostgresError
from postgres.process import clean_environment, end_with_parent

_KEPT_BYTES_MAX: Final = 64_000
_LINE_CHARS_MAX: Final = 2_000
# How long a program has to obey a signal, and its last words to arrive after it has ended.
_GRACE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended. `stdout` and `stderr` are the last 64 kB of each, or what was asked."""

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
    stdout_bytes_max: int = _KEPT_BYTES_MAX,
    stdin: IO[bytes] | None = None,
) -> Finished:
    """Run a program to its end, and say how it ended; a non-zero code is no error here.

    It runs as the server account (`as_server`) or as ourselves, in a process group of its
    own. When the caller is cancelled, the time is up, or our process dies, the group is
    ended. `environ` is added to an otherwise clean environment: the place for PGPASSWORD.
    `on_line` gets every line of standard error as it comes. The last `stdout_bytes_max` bytes
    of standard output are kept, for programs that answer at length. `stdin`: an open file that
    is read from where it stands; without it there is nothing to be read.

    Raises:
        PostgresError: it could not be started, or ran longer than `time_limit`.
    """
    began = time.monotonic()
    account = server_account() if as_server else None
    if not as_server:  # libpq looks for ~/.pgpass and certificates there
        environ = {"HOME": str(Path.home()), **(environ or {})}
    running = _Running(_Tail(None, kept_bytes_max=stdout_bytes_max), _Tail(on_line))
    try:
        async with asyncio.timeout(time_limit.total_seconds()):
            await _start(running, [os.fspath(part) for part in command], account, environ, stdin)
            await running.ended.wait()
            await _happens(running.closed)
    except TimeoutError:
        raise PostgresError(
            f"{Path(command[0]).name} did not end within {_words(time_limit)} and was stopped.",
            next_step="See whether the database or the disk is overloaded, then try again.",
        ) from None
    finally:
        await asyncio.shield(running.end())
    return Finished(
        code=running.code,
        stdout=running.stdout.text(),
        stderr=running.stderr.text(),
        seconds=time.monotonic() - began,
    )


@dataclass(slots=True)
class _Tail:
    """The last part of a stream, and its lines as they come."""

    on_line: Callable[[str], None] | None
    kept: bytearray = field(default_factory=bytearray)
    line: str = ""
    kept_bytes_max: int = _KEPT_BYTES_MAX

    def add(self, chunk: bytes) -> None:
        self.kept += chunk
        if len(self.kept) > 2 * self.kept_bytes_max:
            del self.kept[: -self.kept_bytes_max]
        if self.on_line is None:
            return
        # A progress line ends in a carriage return.
        text = self.line + chunk.decode(errors="replace").replace("\r", "\n")
        *lines, self.line = text.split("\n")
        self.line = self.line[-_LINE_CHARS_MAX:]
        for line in filter(None, lines):
            self.on_line(line[:_LINE_CHARS_MAX])

    def text(self) -> str:
        return bytes(self.kept[-self.kept_bytes_max :]).decode(errors="replace")


class _Running(asyncio.SubprocessProtocol):
    """A program from its start to its end.

    Not asyncio's streams: there a program that has ended counts as running for as long as a
    grandchild holds its output open.
    """

    def __init__(self, stdout: _Tail, stderr: _Tail) -> None:
        self.stdout, self.stderr = stdout, stderr
        self.ended, self.closed = asyncio.Event(), asyncio.Event()
        self.transport: asyncio.SubprocessTransport | None = None

    @property
    def code(self) -> int:
        code = self.transport.get_returncode() if self.transport else None
        return -1 if code is None else code

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        (self.stdout if fd == 1 else self.stderr).add(data)

    def process_exited(self) -> None:
        if self.code < 0:  # somebody killed it, and it could end no process of its own
            self._signal(signal.SIGKILL)
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self.closed.set()

    async def end(self) -> None:
        """End the whole group, unless the program has ended by itself."""
        if self.transport is None:
            return
        if not self.ended.is_set():
            self._signal(signal.SIGTERM)
            await _happens(self.ended)
            self._signal(signal.SIGKILL)  # also for a grandchild that did not obey
            await _happens(self.ended)
        self.transport.close()
        await _happens(self.closed)

    def _signal(self, number: signal.Signals) -> None:
        if self.transport:
            with suppress(ProcessLookupError):
                os.killpg(self.transport.get_pid(), number)


async def _start(
    running: _Running,
    command: list[str],
    account: Account | None,
    environ: Mapping[str, str] | None,
    stdin: IO[bytes] | None,
) -> None:
    start = asyncio.get_running_loop().subprocess_exec(
        lambda: running,
        *command,
        stdin=stdin or subprocess.DEVNULL,
        cwd="/",
        env=clean_environment(Path(command[0]).parent, environ),
        start_new_session=True,
        preexec_fn=end_with_parent(signal.SIGTERM),
        **identity_of(account),
    )
    starting = asyncio.ensure_future(start)
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:  # half a start cannot be ended: wait for the whole
        await asyncio.wait([starting])
        raise
    except OSError as error:
        raise PostgresError(
            f"{command[0]} cannot be started: {error.strerror or error}.",
            next_step="See whether it exists and may be run by the account that runs Twokey.",
        ) from error


async def _happens(event: asyncio.Event) -> None:
    """Wait for it, but not for long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await event.wait()


def _words(limit: timedelta) -> str:
    seconds = int(limit.total_seconds())
    return f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"  # noqa: PLR2004
