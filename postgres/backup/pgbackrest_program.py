"""Run pgBackRest for one stanza, and say what went wrong in sentences.

It runs as the server account, because only that account can read the data folder and the
repository, and with a clean environment: all that it goes by stands in its configuration.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from postgres.account import server_account
from postgres.backup.pgbackrest_settings import read_options
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program

LOOK_LIMIT: Final = timedelta(minutes=5)
# Some 300,000 WAL files, or 50,000 backups.
ANSWER_BYTES_MAX: Final = 48 * 1024 * 1024
CHECKSUM: Final = 26
LOCKED: Final = 50
_ERROR: Final = re.compile(r"ERROR: \[(\d+)\]: (.*)")
_QUIET: Final = ("--log-level-stderr=warn",)
_TRY_BY_HAND: Final = "See pgBackRest's log, mend what it names, then try again."

# By the number that pgBackRest gives to an error.
_NEXT_STEPS: Final[Mapping[int, str]] = MappingProxyType(
    {
        CHECKSUM: "Do not use this backup: restore an older one, and take a new one.",
        31: "Mend pgBackRest's configuration; this version does not take that option so.",
        37: "Complete pgBackRest's configuration; the option has no default.",
        40: "Name an empty folder: nothing is ever restored over files that are there.",
        41: "See whether the account that runs PostgreSQL can read and write that place.",
        LOCKED: "Another pgBackRest is at work for this database, perhaps one that somebody "
        "started by hand. Wait until it has ended, then try again.",
        55: "See whether the file is there, and whether the stanza was made: pgbackrest "
        "--stanza=NAME stanza-create.",
        56: "See whether the server runs, and whether pg1-path, pg1-port and pg1-user are right.",
        68: "Have the server's archive_command call pgbackrest archive-push.",
        75: "List the backups, and name one that is there.",
        82: "The server's archive_command fails or is too slow: see its log and pg_stat_archiver.",
        106: "Take a full backup. pgBackRest builds no incremental one on an older full backup "
        "once a newer full one was removed; or this machine's clock went back.",
        95: "See the certificate and the cipher that the configuration names.",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PgBackRest:
    """The program, with the configuration and the stanza that all its commands need."""

    config: Path
    stanza: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def path(self) -> Path:
        """Where the program is.

        Raises:
            PostgresError: it is not installed.
        """
        found = shutil.which("pgbackrest", path=self.environ.get("PATH", os.defpath))
        if found is None:
            raise PostgresError(
                "pgBackRest is not installed on this machine.",
                next_step="Install it where the worker runs (Debian: apt-get install pgbackrest).",
            )
        return Path(found)

    async def version(self) -> str:
        """What it says about itself."""
        return (await run_program([self.path, "version"], time_limit=LOOK_LIMIT)).stdout.strip()

    def command(self, name: str, *options: str) -> list[str]:
        """A whole command. Nothing goes to standard output but the answer."""
        return [
            str(self.path),
            f"--config={self.config}",
            f"--stanza={self.stanza}",
            "--log-level-console=off",
            "--log-timestamp=n",
            *(() if any("--log-level-stderr" in each for each in options) else _QUIET),
            *options,
            name,
        ]

    async def run(
        self,
        name: str,
        *options: str,
        time_limit: timedelta = LOOK_LIMIT,
        on_line: Callable[[str], None] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> Finished:
        """Run a command to its end, and say how it ended: a code is no error here.

        Raises:
            PostgresError: it could not be started, took too long, or answers without an end.
        """
        done = await run_program(
            [*self.command(name, *options), *arguments],
            time_limit=time_limit,
            environ={"HOME": home()},
            on_line=on_line,
            stdout_bytes_max=ANSWER_BYTES_MAX,
        )
        if len(done.stdout) >= ANSWER_BYTES_MAX:
            raise PostgresError(
                f"pgBackRest's answer to {name} is longer than {ANSWER_BYTES_MAX >> 20} MB.",
                next_step="Shorten what the repository keeps (`/db prune`).",
            )
        return done

    async def ask(self, name: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
        """The answer of a command that only looks.

        Raises:
            PostgresError: as `run`, or it failed.
        """
        done = await self.run(name, *options, arguments=arguments)
        if done.code:
            raise failure(name, done)
        return done.stdout

    def options(self) -> tuple[Mapping[str, str], int]:
        """The options of the configuration for this stanza, and the permissions of that file.

        Raises:
            PostgresError: it cannot be read.
        """
        try:
            text, mode = self.config.read_text(), self.config.stat().st_mode
        except OSError as error:
            raise PostgresError(
                f"pgBackRest's configuration {self.config} cannot be read: "
                f"{error.strerror or error}.",
                next_step="Name the right file in `repository`, and let the account that runs "
                "the worker read it.",
            ) from error
        return read_options(text, self.stanza), mode

    def option(self, name: str, default: str) -> str:
        """One option, or pgBackRest's default for it where the file does not say or is closed."""
        try:
            return self.options()[0].get(name, default)
        except PostgresError:
            return default


def home() -> str:
    """Where the server account has its ssh keys and its .pgpass."""
    account = server_account()
    return pwd.getpwuid(account.uid).pw_dir if account else str(Path.home())


def failure(name: str, done: Finished) -> PostgresError:
    """The error of a command that failed, in two sentences."""
    errors = _ERROR.findall(done.stderr)
    # The last one often only counts the others.
    code, text = errors[0] if errors else ("", done.last_words)
    return PostgresError(
        f"pgBackRest {name} failed ({code or done.code}): {text.strip().removesuffix('.')}.",
        next_step=_NEXT_STEPS.get(int(code or done.code), _TRY_BY_HAND),
    )
