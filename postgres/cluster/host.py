"""Where a node lives: PostgreSQL's programs and its files there, through the node's `via`.

On this machine they run as the account that servers run as; elsewhere `via` must lead to the
account that owns the data folder, as PostgreSQL runs as no other.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from postgres.cluster import host_scripts as scripts
from postgres.cluster.host_words import (
    HELLO,
    Control,
    HostSeen,
    control_of,
    host_seen,
    start_options,
)
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program

StartAs = Literal["primary", "standby"]
StopMode = Literal["fast", "immediate"]

LIMIT: Final = timedelta(seconds=15)
_SIGNALS: Final = {"fast": "INT", "immediate": "QUIT"}
_LOOKS_PER_SECOND: Final = 50  # a look of the stop script sleeps 10 ms and takes some
_LOG_CHARS_MAX: Final = 300


class Host:
    """A node's machine, as far as the node's server is concerned."""

    def __init__(self, node: NodeSpec) -> None:
        """`node` must have host settings.

        Raises:
            PostgresError: it has none.
        """
        if node.host is None:
            raise PostgresError(
                f"Nobody has said how to run programs where {node.name} lives.",
                next_step="Give the node a `host:` with `via`, `data` and `programs` in the "
                "inventory's `cluster:`.",
            )
        self._settings = node.host
        self.name = node.name
        self._port = _port_of(node)

    @property
    def data(self) -> str:
        """The data folder there."""
        return str(self._settings.data)

    @property
    def programs(self) -> str:
        """The folder of PostgreSQL's programs there."""
        return str(self._settings.programs)

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        return not self._settings.via

    async def look(self) -> HostSeen:
        """What lives there.

        Raises:
            PostgresError: the machine cannot be asked. That proves nothing about the server.
        """
        return host_seen(await self.ask(scripts.LOOK, str(self._port)))

    async def control(self) -> Control:
        """The control file of the server, which should not run.

        Raises:
            PostgresError: it cannot be read.
        """
        return control_of(await self.ask(scripts.CONTROL, self.programs))

    async def stop(self, mode: StopMode, *, limit: timedelta) -> Control | None:
        """Stop the server; the control file when it has ended, None when it has not in time.

        Nothing happens to a server that does not run. One that has been told to stop does so
        sooner or later.

        Raises:
            PostgresError: the machine cannot be asked: nobody can tell whether it stops.
        """
        answer = await self.ask(
            scripts.STOP,
            self.programs,
            _SIGNALS[mode],
            str(stop_looks(limit)),
            limit=2 * limit + LIMIT,
        )
        return None if answer.rstrip().endswith("\nrunning") else control_of(answer)

    async def start(self, role: StartAs) -> None:
        """Start the server as what it was last started as, and do not wait for it.

        Its data folder must say the same about its role; one that was half rewound is never
        started.

        Raises:
            PostgresError: it would be something else, or could not be started.
        """
        if self._settings.start:
            await self.ask(scripts.READY_TO_START, role)
            await self._check(
                await run_program(
                    self.command(self._settings.start), time_limit=4 * LIMIT, as_server=False
                ),
                str(self._settings.start[0]),
            )
            return
        options = shlex.join(start_options(await self.read("postmaster.opts")))
        await self.ask(scripts.START, role, self.programs, options)

    async def last_words(self) -> str:
        """The last thing that the server complained about, as far as its log is ours."""
        try:
            said = (await self.ask(scripts.LOG)).splitlines()[1:]
        except PostgresError:
            return ""
        loud = [line for line in said if any(word in line for word in ("FATAL:", "PANIC:"))]
        line = (loud or said or [""])[-1]
        return line.split("FATAL:")[-1].strip()[:_LOG_CHARS_MAX]

    async def read(self, name: str) -> str:
        """A file of the data folder; '' where there is none.

        Raises:
            PostgresError: it cannot be read.
        """
        return (await self.ask(scripts.READ, name)).split("\n", 1)[1]

    async def write(self, name: str, text: str) -> None:
        """Replace a file of the data folder, whole or not at all.

        Raises:
            PostgresError: it cannot be written.
        """
        await self.ask(scripts.WRITE, name, str(len(text.encode())), stdin=text)

    async def mark_standby(self) -> None:
        """Whoever starts the server from now on gets a standby.

        Raises:
            PostgresError: that cannot be told.
        """
        await self.ask(scripts.SIGNAL)

    async def remove(self, name: str) -> None:
        """Remove a file of the data folder, if it is there.

        Raises:
            PostgresError: it cannot be removed.
        """
        await self.ask(scripts.REMOVE, name)

    async def ask(
        self,
        script: str,
        *words: str,
        limit: timedelta = LIMIT,
        stdin: str = "",
        as_owner: bool = True,
    ) -> str:
        """What a script of `host_scripts` answers. `as_owner` False: as ourselves, where local.

        Raises:
            PostgresError: nobody answered, or it failed.
        """
        return (await self._ran(script, *words, limit=limit, stdin=stdin, as_owner=as_owner)).stdout

    async def attempt(
        self, script: str, *words: str, limit: timedelta, stdin: str = ""
    ) -> Finished:
        """How a script ended that may fail.

        Raises:
            PostgresError: nobody answered.
        """
        done = await self._run(script, *words, limit=limit, stdin=stdin, as_owner=True)
        if not done.stdout.startswith(HELLO):
            raise self._unreachable(done)
        return done

    async def _ran(
        self, script: str, *words: str, limit: timedelta, stdin: str, as_owner: bool
    ) -> Finished:
        done = await self._run(script, *words, limit=limit, stdin=stdin, as_owner=as_owner)
        if not done.stdout.startswith(HELLO):
            raise self._unreachable(done)
        await self._check(done, "a script")
        return done

    async def _run(
        self, script: str, *words: str, limit: timedelta, stdin: str, as_owner: bool
    ) -> Finished:
        command = self.command(["sh", "-c", script, "sh", self.data, *words])
        # A file of nobody's, not a pipe: whoever reads late or never cannot hold us up.
        with tempfile.TemporaryFile() as said:
            said.write(stdin.encode())
            said.seek(0)
            return await run_program(
                command, time_limit=limit, as_server=as_owner and self.is_local, stdin=said
            )

    def command(self, words: Sequence[str]) -> list[str]:
        """How words are run there, from here.

        `ssh` gives what it is told to a shell, which takes it apart again; nobody else does.
        """
        via = self._settings.via
        if not via:
            return ["/bin/sh" if words[0] == "sh" else words[0], *words[1:]]
        if any(Path(word).name == "ssh" for word in via):
            return [*via, shlex.join(words)]
        return [*via, *words]

    async def _check(self, done: Finished, what: str) -> None:
        if done.code:
            said = done.stdout.removeprefix(HELLO).strip().splitlines()
            words = done.last_words if done.stderr.strip() else (said or [f"code {done.code}"])[-1]
            raise PostgresError(
                f"Where {self.name} lives, {what} failed: {words.rstrip('.')}.",
                next_step=f"Mend that on {self.name}'s machine ({self.data}), then try again.",
            )

    def _unreachable(self, done: Finished) -> PostgresError:
        return PostgresError(
            f"The machine of {self.name} cannot be asked: {done.last_words.rstrip('.')}.",
            next_step="See whether `host.via` leads to it, without a password being asked.",
        )


def stop_looks(limit: timedelta) -> int:
    """How often a stop looks whether the server has ended."""
    return max(int(limit.total_seconds() * _LOOKS_PER_SECOND), 1)


def _port_of(node: NodeSpec) -> int:
    words = node.target.words
    port = words.get("port", "5432").split(",")[0]
    return int(port) if port.isdecimal() else 0
