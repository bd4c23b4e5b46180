"""The folder of a sandbox cluster, which the account that servers run as can reach and alone."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.account import (
    Account,
    identity_of,
    make_private,
    reachable,
    server_account,
)
from postgres.errors import PostgresError
from postgres.ports import free_port, is_free
from postgres.process import clean_environment
from postgres.programs import run_program

_LOOK_EVERY_SECONDS: Final = 0.05
_LOG_CHARS_MAX: Final = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where a sandbox keeps its files. `folder`: where it really is."""

    folder: Path
    named: Path
    account: Account | None

    @classmethod
    def make(cls, named: Path) -> Home:
        """The folder of this name; elsewhere if the account cannot walk to it.

        Raises:
            PostgresError: it cannot be made, or belongs to somebody else.
        """
        account = server_account()
        folder = reachable(named, account)
        make_private(folder, account)
        return cls(folder=folder, named=named, account=account)

    def private(self, name: str) -> Path:
        """A folder of the account's in here."""
        make_private(self.folder / name, self.account)
        return self.folder / name

    def write(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        """A file of the account's in here, whole or not at all."""
        path = self.folder / name
        partial = path.with_name(path.name + ".new")
        with suppress(FileNotFoundError):
            partial.unlink()
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, mode)
            if self.account:
                os.fchown(handle, self.account.uid, self.account.gid)
            file.write(text)
        partial.replace(path)
        return path

    def recall(self, name: str) -> dict[str, str]:
        """What was kept under this name; nothing, the first time."""
        path = self.folder / name
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return kept

    def keep(self, name: str, values: Mapping[str, str]) -> None:
        """Keep it for the next start."""
        self.write(name, json.dumps(values, indent=1) + "\n")

    def remember(self, name: str, values: Mapping[str, str]) -> dict[str, str]:
        """What was kept under this name, and of `values` what it lacks."""
        merged = {**values, **self.recall(name)}
        self.keep(name, merged)
        return merged

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        log: str,
        preexec: Callable[[], None] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program as the account, in a session and a working folder of its own.

        Raises:
            PostgresError: it cannot be started.
        """
        self.write_log(log)
        try:
            with (self.folder / log).open("ab") as output:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=clean_environment(Path(command[0]).parent, {"HOME": str(self.folder)}),
                    start_new_session=True,
                    preexec_fn=preexec,  # noqa: PLW1509
                    **identity_of(self.account),
                )
        except OSError as error:
            raise PostgresError(
                f"{command[0]} cannot be started: {error.strerror or error}.",
                next_step="See whether it is installed and may be run by the server account.",
            ) from error

    def write_log(self, name: str) -> Path:
        """A log to append to; it is the account's."""
        if not (self.folder / name).exists():
            self.write(name, "")
        return self.folder / name

    def tail(self, name: str) -> str:
        """The end of a log, for an error."""
        with suppress(OSError):
            return (self.folder / name).read_text(errors="replace")[-_LOG_CHARS_MAX:].strip()
        return ""

    def remove(self) -> None:
        """Remove all of it. Nothing may run in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


async def run(
    program: str | Path,
    *words: str | Path,
    limit: timedelta,
    environ: Mapping[str, str] | None = None,
    as_server: bool = True,
) -> str:
    """What one of PostgreSQL's programs says, run as the server account unless told otherwise.

    Raises:
        PostgresError: it failed or took too long.
    """
    done = await run_program(
        [program, *words], time_limit=limit, environ=environ, as_server=as_server
    )
    if done.code:
        raise PostgresError(
            f"{Path(program).name} failed in the sandbox: {done.last_words}",
            next_step="Read the logs in the sandbox's folder, or remove it and start anew.",
        )
    return done.stdout


async def until(
    happened: Callable[[], Awaitable[bool]], limit: timedelta, problem: Callable[[], str]
) -> None:
    """Wait for a fact.

    Raises:
        PostgresError: it did not happen in time; `problem` says what was seen instead.
    """
    end = time.monotonic() + limit.total_seconds()
    while not await happened():
        if time.monotonic() > end:
            raise PostgresError(
                problem(), next_step="Read the logs in the sandbox's folder; it can be removed."
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def secret() -> str:
    """A password that needs no quoting in a file, an address or a statement."""
    return secrets.token_hex(12)


def port_of(kept: str | None) -> int:
    """The port that was used before if it is still free, or another one."""
    if kept and is_free(int(kept)):
        return int(kept)
    return free_port()
