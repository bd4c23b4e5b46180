"""A machine of stand-ins: a program called `postgres` in a data folder, and what minds it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from postgres.account import identity_of, make_private, server_account
from postgres.cluster.words import HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.ports import free_port
from sandbox.ha_processes import end_all, working_in

# Starts the server, and at once again when it ends; writes down how often.
MINDS: Final = """\
while :; do
    echo started >>"$1/starts"
    (cd "$1" && exec "$2/postgres" 600)
done
"""
# Three beside each other, so that there is always one: a server that cannot be got rid of.
STUBBORN: Final = """\
for number in 1 2 3; do
    while :; do (cd "$1" && exec "$2/postgres" 600); done &
done
wait
"""
IDLES: Final = "exec sleep 600\n"
WAITS: Final = "while :; do sleep 0.1; done\n"


@dataclass(slots=True, kw_only=True)
class Machine:
    """What was started on it, and the node as the inventory would name it."""

    home: Path
    data: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def make(cls, home: Path) -> Machine:
        make_private(home / "data", server_account())
        shutil.copy("/bin/sleep", home / "postgres")
        return cls(home=home, data=home / "data")

    @property
    def note(self) -> Path:
        """Where the agent's process id stands."""
        return self.home / "agent.pid"

    def node(self, *, via: tuple[str, ...] = (), agent: bool = True) -> NodeSpec:
        return NodeSpec(
            name="east",
            target=parse_dsn(f"postgresql://u@127.0.0.1:{free_port()}/app"),
            rest="http://127.0.0.1:1" if agent else "",
            host=HostSettings(
                via=via,
                data=self.data,
                programs=self.home,
                agent_pid=self.note if agent else None,
                agent_start=("/bin/true",),
            ),
        )

    def server(self) -> int:
        """A server that nobody minds."""
        return self._spawn([str(self.home / "postgres"), "600"], self.data)

    def program(self, name: str, script: str) -> int:
        """A program of this name."""
        path = self.home / name
        path.write_text(script)
        return self._spawn(["/bin/sh", str(path), str(self.data), str(self.home)], Path("/"))

    def agent(self, script: str = WAITS) -> int:
        """An agent that is noted."""
        pid = self.program("patroni", script)
        self.note.write_text(f"{pid}\n")
        return pid

    def servers(self) -> list[int]:
        """The server's processes."""
        return working_in([self.data])

    def starts(self) -> int:
        """How often a server was started by who minds it."""
        path = self.data / "starts"
        return path.read_text().count("started") if path.exists() else 0

    def end(self) -> None:
        """Whoever starts servers goes before them."""
        for each in self.started:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
        for each in self.started:
            each.wait()
        end_all([self.data])

    def _spawn(self, command: list[str], folder: Path) -> int:
        made = subprocess.Popen(
            command, cwd=folder, start_new_session=True, **identity_of(server_account())
        )
        self.started.append(made)
        return made.pid


def state(pid: int) -> str:
    """/proc's letter; '' for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    return state(pid) not in {"", "Z", "X"}


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact."""
    end = time.monotonic() + 30
    while not fact():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        await asyncio.sleep(0.005)
