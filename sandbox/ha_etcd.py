"""One etcd, as the place where a sandbox's Patroni keeps who is the primary."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp

from postgres.ports import LOOPBACK
from postgres.process import end_with_parent
from sandbox.ha_home import Home, until
from sandbox.ha_processes import end_all, freeze_all, thaw_all

_START_LIMIT: Final = timedelta(seconds=30)
_HEALTH_TIMEOUT: Final = aiohttp.ClientTimeout(total=1)
_END_SECONDS_MAX: Final = 10


class Etcd:
    """A single member: enough to be lost, and no example for production."""

    def __init__(
        self, home: Home, program: Path, *, port: int, peer_port: int, host: str = LOOPBACK
    ) -> None:
        self.port = port
        self.host = host
        self._home = home
        self._program = program
        self._peer = f"http://{LOOPBACK}:{peer_port}"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://{self.host}:{self.port}"

    @property
    def folder(self) -> Path:
        """Its working folder, which also holds its data."""
        return self._home.folder / "etcd"

    @property
    def pid(self) -> int | None:
        """Its process id, None where it does not run."""
        return self._child.pid if self._child and self._child.poll() is None else None

    async def start(self) -> None:
        """Start, or go on after a freeze, and wait until it answers; harmless when it does.

        Raises:
            PostgresError: it does not answer in time.
        """
        self.thaw()
        if self.pid is None:
            self._child = self._spawn()
        async with aiohttp.ClientSession(timeout=_HEALTH_TIMEOUT) as session:
            await until(
                lambda: self._answers(session),
                _START_LIMIT,
                lambda: f"etcd does not answer on {self.url}: {self._home.tail('etcd.log')}",
            )

    async def stop(self) -> None:
        """Stop it, as an administrator would; the clients are told."""
        if self._child and self.pid:
            self.thaw()
            self._child.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._wait)

    def kill(self) -> None:
        """Kill -9."""
        end_all([self.folder])
        self._wait()

    def freeze(self) -> None:
        """Let it answer nothing; connections stay open."""
        freeze_all([self.folder])

    def thaw(self) -> None:
        """Let it go on."""
        thaw_all([self.folder])

    def _spawn(self) -> subprocess.Popen[bytes]:
        folder = self._home.private("etcd")
        command: list[str | Path] = [self._program, "--name", "etcd1"]
        command += ["--data-dir", folder / "data", "--auto-compaction-retention=1"]
        command += [f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}"]
        command += [f"--listen-peer-urls={self._peer}", f"--initial-cluster=etcd1={self._peer}"]
        command += [f"--initial-advertise-peer-urls={self._peer}"]
        ending = end_with_parent(signal.SIGKILL)  # also when it is frozen
        return self._home.spawn(command, folder=folder, log="etcd.log", preexec=ending)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/health") as response:
                return response.status == 200  # noqa: PLR2004
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _wait(self) -> None:
        if self._child:
            try:
                self._child.wait(timeout=_END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(timeout=_END_SECONDS_MAX)
