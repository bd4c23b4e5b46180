"""A line to a node's machine that is held open while its primary hands over.

Between the stop and the promotion nobody takes writes: no shell, and no `ssh`, is to be waited
for then.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM
from typing import Final

from postgres.account import identity_of, server_account
from postgres.cluster import host_scripts as scripts
from postgres.cluster.host import LIMIT, Host, stop_looks
from postgres.cluster.host_words import HELLO, Control, control_of
from postgres.errors import PostgresError
from postgres.process import clean_environment, end_with_parent

_END_SECONDS_MAX: Final = 3.0
_ANSWER_LINES_MAX: Final = 200


class Hand:
    """Stops the server, and marks its folder as a standby's: each at once."""

    def __init__(self, host: Host, process: asyncio.subprocess.Process) -> None:
        self._host = host
        self._process = process

    async def stop(self, *, limit: timedelta) -> Control | None:
        """As `Host.stop` in fast mode.

        Raises:
            PostgresError: the line is cut: nobody can tell whether it stops.
        """
        await self.tell(f"stop INT {stop_looks(limit)}")
        said = await self.hear("ended", 2 * limit + LIMIT)
        return None if said[-1:] == ["running"] else control_of("\n".join(said))

    async def mark_standby(self) -> None:
        """As `Host.mark_standby`, also over a new line where this one is cut."""
        try:
            await self.tell("mark")
            await self.hear("marked", LIMIT)
        except PostgresError:
            await self._host.mark_standby()

    async def hear(self, last: str, limit: timedelta) -> list[str]:
        """What is said before the line `last`.

        Raises:
            PostgresError: it does not come.
        """
        said: list[str] = []
        stdout = self._process.stdout
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while stdout and len(said) < _ANSWER_LINES_MAX:
                    line = await stdout.readline()
                    if not line:
                        break
                    said.append(line.decode(errors="replace").rstrip("\n"))
                    if said[-1] == last:
                        return said[:-1]
        except (TimeoutError, OSError, ValueError):
            pass
        raise PostgresError(
            f"The line to {self._host.name}'s machine was cut.",
            next_step="See whether `host.via` leads there, and passes standard input on.",
        )

    async def tell(self, word: str) -> None:
        """Say the next word. Whether it arrived, `hear` tells."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.write(f"{word}\n".encode())
                await self._process.stdin.drain()


@asynccontextmanager
async def hand_on(host: Host) -> AsyncIterator[Hand]:
    """A line that is ready.

    Raises:
        PostgresError: the machine cannot be asked, and nothing has happened.
    """
    command = host.command(["sh", "-c", scripts.HAND, "sh", host.data, host.programs])
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=clean_environment(
            Path(command[0]).parent, {} if host.is_local else {"HOME": str(Path.home())}
        ),
        start_new_session=True,
        preexec_fn=end_with_parent(SIGTERM),
        **identity_of(server_account() if host.is_local else None),
    )
    hand = Hand(host, process)
    try:
        await hand.tell("hello")
        if (await hand.hear("ready", LIMIT))[:1] != [HELLO]:
            raise PostgresError(
                f"The machine of {host.name} cannot be asked.",
                next_step="See whether `host.via` leads to it, without a password being asked.",
            )
        yield hand
    finally:
        if process.stdin:
            process.stdin.close()  # it ends by itself
        await asyncio.shield(_ended(process))


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_END_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
